"""The fields of a company, built-in and custom, and the form of their definitions in v1 and v2.

A custom field's code is 40 hex digits that differ from company to company. Labels are as people write them:
not unique, quoted, with line breaks, blank. `FieldSet.add()` and `.retire()` change the custom ones.
"""

from __future__ import annotations

import hashlib
from typing import Any

from msgspec import Struct

from pdsync.sandbox.company.clock import v1_time
from pdsync.sandbox.company.data import load, words
from pdsync.sandbox.company.resources import RESOURCES

ADDRESS_PARTS = words(
    "street_number route sublocality locality admin_area_level_1 admin_area_level_2 country postal_code "
    "subpremise formatted_address"
)
SUBFIELDS = {  # by type: the parts besides `value`, with their types
    "monetary": {"currency": "varchar"},
    "daterange": {"until": "date"},
    "timerange": {"until": "time", "timezone_id": "int"},
    "time": {"timezone_id": "int"},
    "address": dict.fromkeys(ADDRESS_PARTS, "varchar"),
}
# Assumption: not all built-in options are documented; these are the ones that records use.
BUILTIN_OPTIONS: dict[str, list[dict[str, Any]]] = {
    "status": [{"id": s, "label": s.title()} for s in ("open", "won", "lost", "deleted")],
    "visible_to": [{"id": str(n), "label": label} for n, label in ((1, "Owner"), (3, "Group"), (7, "Everyone"))],
    "billing_frequency": [
        {"id": s, "label": s.capitalize()}
        for s in ("one-time", "annually", "semi-annually", "quarterly", "monthly", "weekly")
    ],
}
UI_VISIBILITY = {
    "add_visible_flag": False,
    "details_visible_flag": True,
    "projects_detail_visible_flag": False,
    "show_in_pipelines": {"show_in_all": True, "pipeline_ids": []},
}
NAMESPACES: dict[str, dict[str, Any]] = {
    "ui_visibility": UI_VISIBILITY,
    "important_fields": {"enabled": False, "stage_ids": []},
    "required_fields": {"enabled": False, "stage_ids": [], "statuses": {}},
}


class Field(Struct):
    """The definition of a field."""

    id: int  # v1's number; v2 knows only the code
    code: str
    key: str  # v1's name of a built-in field
    name: str
    type: str
    custom: bool
    optional: bool
    add_time: str
    update_time: str
    created_by: int | None
    options: list[dict[str, Any]] | None = None
    options_deleted: list[dict[str, Any]] | None = None
    share: float = 0.0  # of records that have a value, for the generator
    year: int = 0  # of the company in which the field was added, for the generator
    description: str | None = None
    settings: dict[str, dict[str, Any]] = {}  # by namespace that is not as in NAMESPACES: all its keys

    def v2(self, kind: str, namespaces: tuple[str, ...] = ()) -> dict[str, Any]:
        """The definition as v2 shows it, with those `namespaces` that the query includes."""
        definition: dict[str, Any] = {"field_name": self.name, "field_code": self.code}
        if kind not in ("organizations", "products"):
            definition["description"] = self.description
        parts = {"value": "double" if self.type == "monetary" else self.type, **SUBFIELDS.get(self.type, {})}
        subfields = [
            {"field_code": code, "field_name": f"{_label(code)} of {self.name}", "field_type": type_}
            for code, type_ in parts.items()
        ]
        return {
            **definition,
            "field_type": self.type,
            "options": self.options,
            "subfields": subfields if self.type in SUBFIELDS else None,
            "is_custom_field": self.custom,
            "is_optional_response_field": self.optional,
            **{name: {**NAMESPACES[name], **self.settings.get(name, {})} for name in namespaces},
        }

    def v1(self, kind: str, order_nr: int, *, is_read_alone: bool = False) -> dict[str, Any]:
        """The definition as v1 shows it."""
        definition = {
            "id": self.id,
            "key": self.key,
            "name": self.name,
            "order_nr": order_nr,
            "field_type": self.type,
            "add_time": v1_time(self.add_time),
            "update_time": v1_time(self.update_time),
            "last_updated_by_user_id": None,
            "created_by_user_id": self.created_by,
            "active_flag": True,
            "edit_flag": self.custom,
            "index_visible_flag": True,
            "details_visible_flag": True,
            "add_visible_flag": self.settings.get("ui_visibility", UI_VISIBILITY)["add_visible_flag"],
            "important_flag": False,
            "bulk_edit_allowed": True,
            "searchable_flag": False,
            "filtering_allowed": True,
            "sortable_flag": True,
            "mandatory_flag": self.code in ("title", "name"),
            "options": None if self.options is None else [{"id": o["id"], "label": o["label"]} for o in self.options],
        }
        if kind == "products":  # v1 shows fewer keys of these, and in lists and of a new one fewer still
            if not is_read_alone:
                del definition["index_visible_flag"], definition["details_visible_flag"]
            return definition
        if self.options_deleted:
            definition["options_deleted"] = [{"id": o["id"], "label": o["label"]} for o in self.options_deleted]
        if self.custom and self.type in SUBFIELDS:
            definition["subfields"] = [
                {
                    "id": None,
                    "key": f"{self.key}_{part}",
                    "name": f"{_label(part)} of {self.name}",
                    "field_type": type_,
                    "is_subfield": True,
                }
                for part, type_ in SUBFIELDS[self.type].items()
            ]
        return definition


class FieldSet:
    """The fields of one kind of record, in the order they are listed."""

    def __init__(self, kind: str, seed: str, created: str, author: int | None) -> None:
        self.kind, self._seed, self._created, self._author = kind, seed, created, author
        self.all: list[Field] = []
        self.retired: dict[str, Field] = {}
        self._next_option = 1

    def __iter__(self) -> Any:
        return iter(self.all)

    @property
    def custom(self) -> dict[str, Field]:
        return {field.code: field for field in self.all if field.custom}

    def get(self, code: str) -> Field | None:
        return next((field for field in self.all if field.code == code), None)

    def option_ids(self, code: str) -> set[Any]:
        field = self.get(code)
        return {option["id"] for option in (field.options if field else None) or ()}

    def add(self, name: str, type: str, options: list[str] | None = None, *, at: str = "", **more: Any) -> Field:
        number = len(self.all) + len(self.retired) + 1
        code = hashlib.sha1(f"{self._seed}/{self.kind}/{number}".encode(), usedforsecurity=False).hexdigest()
        at = at or self._created
        made = self.make_options(options, at) if options is not None else None
        field = Field(12_400 + number, code, code, name, type, True, False, at, at, self._author, made, **more)
        self.all.append(field)
        return field

    def retire(self, code: str) -> Field:
        """Move a custom field to `retired`."""
        field = next(field for field in self.all if field.code == code and field.custom)
        self.all.remove(field)
        self.retired[code] = field
        return field

    def add_builtin(self, code: str, key: str, name: str, type: str, options: list[dict[str, Any]] | None) -> None:
        optional = code in RESOURCES[self.kind].optional
        number = len(self.all) + 1
        added = self._created
        self.all.append(Field(number, code, key or code, name, type, False, optional, added, added, None, options))

    def make_coloured_options(self, labels: list[str], colors: list[str]) -> list[dict[str, Any]]:
        """Options with colours, as the labels of records are."""
        return [
            {**option, "color": colors[index % len(colors)]}
            for index, option in enumerate(self.make_options(labels, self._created))
        ]

    def make_options(self, labels: list[str], at: str) -> list[dict[str, Any]]:
        first = self._next_option
        self._next_option += len(labels)
        return [
            {"id": id, "label": label, "color": None, "update_time": at, "add_time": at}
            for id, label in enumerate(labels, first)
        ]


def make_fields(kind: str, seed: str, dates: list[str], author: int, extra: int = 0) -> FieldSet:
    """The built-in fields, the custom ones, and `extra` more custom ones. `dates`: when each of its years began."""
    blueprint, words = load("fields"), load("words")
    fields = FieldSet(kind, seed, dates[0], author)
    choices = {
        "industry": [{"id": n, "label": label} for n, label in enumerate(words["labels"]["industries"], 1)],
        "category": [{"id": n, "label": label} for n, label in enumerate(words["labels"]["categories"], 1)],
        "type": [{"id": word, "label": word.title()} for word in words["subjects"]],
        "channel": [{"id": 52, "label": "Trade fair"}, {"id": 53, "label": "Web"}],
    }
    for code, key, name, type_ in blueprint["builtin"][kind]:
        options = choices.get(code, BUILTIN_OPTIONS.get(type_))
        if code == "label_ids":
            options = fields.make_coloured_options(words["labels"][kind], words["labels"]["colors"])
        fields.add_builtin(code, key, name, type_, options)
    existing = {field.code for field in fields.all}
    for code in RESOURCES[kind].optional:
        if code not in existing:
            type_ = "int" if code.endswith("_count") else "activity" if code.endswith("activity_id") else "date"
            type_ = type_ if code[-4:] in ("ount", "y_id", "time") else "varchar"
            fields.add_builtin(code, "cc_email" if code == "smart_bcc_email" else code, _label(code), type_, None)

    for type_, name, share, year in blueprint["custom"][kind]:
        labels = blueprint["options"].get(name, blueprint["options"]["default"])
        field = fields.add(name, type_, labels if type_ in ("enum", "set") else None, at=dates[year], share=share)
        field.year = year
        if type_ == "enum":
            field.options_deleted = fields.make_options(blueprint["options"]["retired"], dates[year])
    for number in range(extra):
        fields.add(f"Extra field {number + 1}", "varchar" if number % 2 else "double", at=dates[0], share=0.02)
    return fields


def _label(code: str) -> str:
    return {"value": "Amount"}.get(code, code.replace("_", " ").capitalize())
