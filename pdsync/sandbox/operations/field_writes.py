"""Writes of field definitions: a field added, renamed or deleted, and the options of one, as an admin's app does.

v2 knows a field by its code, v1 by its number. Built-in fields and their options can't be changed.
Assumptions: only administrators may write; lists of options are taken over as a whole or not at all; v1's
`options` on update are the list as it shall be, those without an id being new; a deleted option leaves the records.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from pdsync.sandbox.company.field_changes import change_fields
from pdsync.sandbox.company.fields import NAMESPACES
from pdsync.sandbox.company.table import Row, encode
from pdsync.sandbox.operations.body_checks import check_option_ids, check_types, labels_of
from pdsync.sandbox.operations.documented import operations
from pdsync.sandbox.protocol.errors import (
    bad_request,
    forbidden,
    gone_field,
    not_found,
)
from pdsync.sandbox.protocol.messages import success

if TYPE_CHECKING:
    from pdsync.sandbox.company.fields import Field
    from pdsync.sandbox.protocol.messages import Call, Reply, Route

# Those that may be added, by the specification of both versions.
TYPES = frozenset(
    ("varchar", "varchar_auto", "text", "double", "monetary", "date", "daterange", "time", "timerange", "set", "enum",
     "phone", "address", "org", "people", "user", "visible_to")
)  # fmt: skip
CHOICES = ("enum", "set")
SETTINGS: dict[str, Any] = {"description": "str", "add_visible_flag": "bool", **{name: {} for name in NAMESPACES}}


def add_field(call: Call, route: Route) -> Reply:
    """Make a custom field."""
    _check_rights(call)
    sent = call.json()
    name, type_ = sent.get("field_name" if call.version == "v2" else "name"), sent.get("field_type")
    if not isinstance(name, str) or not name:
        raise bad_request("The name of the field is required", "field_name")
    if not isinstance(type_, str) or type_ not in TYPES:
        raise bad_request(f"field_type: {type_!r} is not one of {', '.join(sorted(TYPES))}", "field_type")
    options = labels_of(sent.get("options")) if type_ in CHOICES else None
    if options == []:
        raise bad_request(f"A field of type {type_} needs options", "options")
    check_types(sent, SETTINGS)
    made = change_fields(call.company, route.kind, "add", name=name, type=type_, options=options)
    field = call.company.fields[route.kind].custom[made["field_code"]]
    _take_settings(field, sent)
    _note(call, route, field, "add", None)
    return _shown(call, route, field, operations()[f"{route.version} {route.operation}"].status)


def update_field(call: Call, route: Route) -> Reply:
    """Rename a field; through v1 its options, too: all that is sent, or nothing."""
    _check_rights(call)
    field, sent = _field(call, route), call.json()
    name = sent.get("field_name" if call.version == "v2" else "name")
    if name is not None and (not isinstance(name, str) or not name):
        raise bad_request("The name of the field must be a text", "field_name")
    check_types(sent, SETTINGS)
    options = sent.get("options") if call.version == "v1" and field.type in CHOICES else None
    wanted = None if options is None else _wanted_options(field, options)
    before = _row(route, field)
    if name is not None:
        change_fields(call.company, route.kind, "rename", field.code, name=name)
    if wanted is not None:
        _take_options(call, route, field, wanted)
    _take_settings(field, sent)
    _note(call, route, field, "update", before)
    return _shown(call, route, field)


def delete_field(call: Call, route: Route) -> Reply:
    """Delete a custom field, and what records hold in it."""
    _check_rights(call)
    return _deleted(call, route, [_field(call, route)])


def delete_fields(call: Call, route: Route) -> Reply:
    """Delete several custom fields by their numbers: all of them or none."""
    _check_rights(call)
    wanted = [part.strip() for part in call.query.get("ids", "").split(",") if part.strip()]
    known = {str(field.id): field for field in call.company.fields[route.kind].custom.values()}
    if not wanted or any(id not in known for id in wanted):
        raise bad_request("ids must name custom fields", "ids")
    _deleted(call, route, [known[id] for id in wanted])
    return success({"id": [int(id) for id in wanted]})


def change_options(call: Call, route: Route) -> Reply:
    """Add, rename or delete options of a field: all that are sent, or none."""
    _check_rights(call)
    field, sent = _field(call, route), _sent_list(call)
    if field.type not in CHOICES:
        raise bad_request(f"A field of type {field.type} has no options", field.code)
    known = {option["id"]: option for option in field.options or ()}
    ids = [option.get("id") for option in sent]
    if call.method != "POST":
        check_option_ids(ids, field.options, field.code)
    before, fields = _row(route, field), call.company.fields[route.kind]
    if call.method == "POST":
        had = len(field.options or ())
        for label in labels_of(sent):
            change_fields(call.company, route.kind, "add_option", field.code, name=label)
        answer = (field.options or [])[had:]
    elif call.method == "PATCH":
        for option, label in zip(sent, labels_of(sent), strict=True):
            change_fields(call.company, route.kind, "rename_option", field.code, name=label, option_id=option["id"])
        answer = [option for option in field.options or () if option["id"] in ids]
    else:
        answer = [known[id] for id in ids]
        _remove_options(call, route, field, ids)
    _note(call, route, fields.custom[field.code], "update", before)
    return success([{"id": option["id"], "label": option["label"]} for option in answer])


def _take_settings(field: Field, sent: dict[str, Any]) -> None:
    """Keep where a field shows and what it is for; v1 knows one of these flags only."""
    if "description" in sent:
        field.description = sent["description"]
    flag = {"add_visible_flag": sent["add_visible_flag"]} if "add_visible_flag" in sent else {}
    for name, default in NAMESPACES.items():
        changed = {**(sent.get(name) or {}), **(flag if name == "ui_visibility" else {})}
        if changed:
            field.settings = {**field.settings, name: {**default, **field.settings.get(name, {}), **changed}}


def _wanted_options(field: Field, sent: Any) -> list[tuple[Any, str]]:
    """The id and the label of each option that a field shall have; the id of a new one is None.

    Assumption: an option with a number that the field does not have is left out, as unknown keys are.
    """
    labels = labels_of(sent)
    ids = [each.get("id") if isinstance(each, dict) else None for each in sent]
    check_option_ids([id for id in ids if id is not None and type(id) is not int], field.options, field.code)
    known = [None, *(option["id"] for option in field.options or ())]
    return [(id, label) for id, label in zip(ids, labels, strict=True) if id in known]


def _take_options(call: Call, route: Route, field: Field, wanted: list[tuple[Any, str]]) -> None:
    kept = [id for id, _ in wanted]
    gone = [option["id"] for option in field.options or () if option["id"] not in kept]
    for id, label in wanted:
        if id is None:
            change_fields(call.company, route.kind, "add_option", field.code, name=label)
        else:
            change_fields(call.company, route.kind, "rename_option", field.code, name=label, option_id=id)
    _remove_options(call, route, field, gone)


def _remove_options(call: Call, route: Route, field: Field, ids: list[Any]) -> None:
    for id in ids:
        change_fields(call.company, route.kind, "remove_option", field.code, option_id=id)
    for row in list(call.company[route.kind].rows.values()) if ids else ():
        record = row.record
        stored = record["custom_fields"].get(field.code)
        remaining = [id for id in stored if id not in ids] or None if isinstance(stored, list) else stored
        remaining = None if remaining in ids else remaining
        if remaining != stored:
            record["custom_fields"][field.code] = remaining
            call.company.put(route.kind, "option_deleted", record, request=call.request_id)


def _deleted(call: Call, route: Route, fields: list[Field]) -> Reply:
    shown = None
    for field in fields:
        shown = field.v2(route.kind) if call.version == "v2" else {"id": field.id}
        before = _row(route, field)
        change_fields(call.company, route.kind, "delete", field.code)
        _note(call, route, field, "delete", before, gone=True)
    return success(shown)


def _field(call: Call, route: Route) -> Field:
    fields, key = call.company.fields[route.kind], call.params[0]
    for field in fields.all:
        if key == (field.code if call.version == "v2" else str(field.id)):
            if not field.custom:
                raise forbidden("Built-in fields can not be changed.")
            found: Field = field
            return found
    if any(key in (code, str(field.id)) for code, field in fields.retired.items()):
        raise gone_field()
    raise not_found("field")


def _check_rights(call: Call) -> None:
    if not call.viewer.admin:
        raise forbidden()


def _sent_list(call: Call) -> list[dict[str, Any]]:
    try:
        return msgspec.json.decode(call.body, type=list[dict[str, Any]])
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise bad_request("The request body is not a list of options") from None


def _row(route: Route, field: Field) -> Row:
    return Row(field.id, "live", encode(field.v2(route.kind)), ())


def _note(call: Call, route: Route, field: Field, op: str, before: Row | None, *, gone: bool = False) -> None:
    after = None if gone else _row(route, field)
    call.company.log_generic_write(
        f"{route.kind.removesuffix('s')}_fields", field.code, op, before, after, call.request_id
    )


def _shown(call: Call, route: Route, field: Field, status: int = 200) -> Reply:
    order = call.company.fields[route.kind].all.index(field) + 1
    is_known = call.method != "POST"
    shown = field.v2(route.kind) if call.version == "v2" else field.v1(route.kind, order, is_read_alone=is_known)
    return success(shown, status)
