"""Turns the names that people use into the codes and ids that the API takes.

    "Deal size", cf_deal_size        the code of a custom field, 40 hex digits
    "Enterprise"                     the id of an option
    "Anna Berg", anna@example.com    the id of a user; likewise stages, pipelines, organizations …
    org, owner                       org_id, owner_id
    @acme                            the record that the queued mutation called acme adds

What a name means stands in the warehouse of the last sync; where there is none, codes and ids do. A name that fits
nothing, or several things, is refused with those that come near.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from pdsync.core import catalogue
from pdsync.errors import ConfigError
from pdsync.sql import first
from pdsync.sql import name as quoted
from pdsync.writeback.shapes import shape, stream_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import duckdb

    from pdsync.model import Operation, Stream

_CODE = re.compile(r"[0-9a-f]{40}")
_WHOLE = re.compile(r"-?\d+")
_UUID = re.compile(r"[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
# What the ids of well-known parameters are ids of, where the stream itself does not say.
_POINTS_TO = {
    "user_id": "users",
    "owner_id": "users",
    "assignee_id": "users",
    "creator_user_id": "users",
    "deal_id": "deals",
    "person_id": "persons",
    "org_id": "organizations",
    "organization_id": "organizations",
    "product_id": "products",
    "pipeline_id": "pipelines",
    "stage_id": "stages",
    "project_id": "projects",
    "rel_owner_org_id": "organizations",
    "rel_linked_org_id": "organizations",
}
_TYPES_POINT_TO = {
    "user": "users",
    "people": "persons",
    "org": "organizations",
    "deal": "deals",
    "stage": "stages",
    "project": "projects",
    "activity": "activities",
}
_MONEY = re.compile(r"(-?[0-9][0-9., ]*?) *([A-Z]{3})")


class Field(Struct, frozen=True):
    """A custom field: what it is called by people, by the warehouse and by the API."""

    code: str
    label: str
    column: str
    type: str


class Names:
    """The names of one company, as its warehouse knows them.

    Args:
        warehouse: a connection; None where nothing was synced yet.
    """

    def __init__(self, warehouse: duckdb.DuckDBPyConnection | None) -> None:
        self._warehouse = warehouse
        self.called: dict[str, str] = {}  # mutation id → what its record is called till it has an id
        self._fields: dict[str, list[Field]] = {}
        self._headings: dict[tuple[str, str], str] = {}
        self._found: dict[tuple[str, str, str], list[Any]] = {}
        self._options: dict[tuple[str, str], list[tuple[str, str]]] = {}
        self._tables = set() if warehouse is None else {
            row[0] for row in warehouse.execute(
                "SELECT table_name FROM duckdb_tables() WHERE schema_name = 'main'"
                " AND database_name = current_database()"
            ).fetchall()
        }  # fmt: skip

    def resolve(self, operation: Operation, given: Mapping[str, object]) -> dict[str, Any]:
        """The parameters of `operation` that `given` means, custom fields in the place where its version takes them.

        Raises:
            ConfigError: a name fits nothing or several things. Nothing was queued.
        """
        stream = stream_of(shape(operation).kind)
        known = {**operation.path_params, **operation.query, **operation.body}
        params: dict[str, Any] = {}
        custom: dict[str, Any] = {}
        for key, value in given.items():
            if key == "custom_fields" and isinstance(value, dict) and operation.custom_fields:
                custom |= self._customs(operation, stream, value)
            elif part := _part(operation, stream, key, value, known):
                params[part[0]] = {**(params.get(part[0]) or {}), part[1]: _numeric(value, part[1])}
            elif name := _parameter(operation, stream, key, known):
                _once(operation, params, name, key)
                params[name] = self._value(operation, stream, name, value, given)
            elif operation.body_list and key == "body":
                params[key] = value
            else:
                custom |= self._custom(operation, stream, key, value, custom, list(known))
        if not custom:
            return params
        if operation.version == "v2":
            return {**params, "custom_fields": custom}
        return params | _flat(custom)

    def heading(self, operation: Operation, head: str) -> str:
        """The parameter that the heading of a column means, as Pipedrive's own exports write it.

        `Deal - Title` and `Title` are `title` of an operation on deals. A heading that is a parameter, a column or a
        custom field already, or means nothing, is returned as it is.

        Raises:
            ConfigError: it means a field of Pipedrive and a custom one that is called the same.
        """
        if (operation.name, head) not in self._headings:
            self._headings[operation.name, head] = self._heading(operation, head)
        return self._headings[operation.name, head]

    def _heading(self, operation: Operation, head: str) -> str:
        stream = stream_of(shape(operation).kind)
        known = {**operation.path_params, **operation.query, **operation.body}
        if head.startswith("_") or stream is None or self._means(operation, stream, head, known):
            return head
        one = stream.name.removesuffix("s") if not stream.name.endswith("ies") else f"{stream.name[:-3]}y"
        entity, dash, rest = head.partition(" - ")
        label = rest if dash and entity.strip().lower() == one.replace("_", " ") else head
        custom = self._custom_called(operation, stream, label) if label != head else None
        found = {
            name for code in (label.strip().lower().replace(" ", "_"), *self._built_in(stream, label))
            if (name := _parameter(operation, stream, code, known))
        }  # fmt: skip
        if custom and found:
            raise ConfigError(
                f"{operation.name}: the column {head!r} means {min(found)}, or the custom field {label!r}. Nothing was"
                f" queued.\nName it {min(found)}, or {custom.column}."
            )
        return label if custom else (found.pop() if len(found) == 1 else head)

    def _means(self, operation: Operation, stream: Stream, key: str, known: Mapping[str, object]) -> bool:
        return bool(
            key in known
            or _part(operation, stream, key, "", known)
            or _parameter(operation, stream, key, known)
            or self._custom_called(operation, stream, key)
        )

    def _custom_called(self, operation: Operation, stream: Stream, key: str) -> Field | None:
        """The first custom field that `key` may mean."""
        for each in self.fields(stream) if operation.custom_fields else ():
            named = key.strip().lower() == each.label.strip().lower()
            if named or key[:40] == each.code or key.startswith(each.column):
                return each
        return None

    def _built_in(self, stream: Stream, label: str) -> list[str]:
        """The codes of Pipedrive's own fields that the company's language calls `label`."""
        if self._warehouse is None or not stream.fields or stream.fields not in self._tables:
            return []
        rows = self._warehouse.execute(
            f"SELECT field_code FROM {quoted('main', stream.fields)} WHERE lower(trim(field_name)) = lower(trim(?))"
            " AND _deleted_at IS NULL",
            [label],
        ).fetchall()
        return [row[0] for row in rows if not _CODE.fullmatch(row[0])]

    def label(self, operation: Operation, field: str) -> str:
        """What people call a field (as `compare.fields` names it)."""
        code = field.rpartition("/")[2][:40]
        if not _CODE.fullmatch(code):
            return field
        stream = stream_of(shape(operation).kind)
        found = next((each for each in self.fields(stream) if each.code == code), None)
        return found.label if found else code

    def shown(self, operation: Operation, field: str, value: Any) -> Any:
        """A value as people read it: options by their labels, references by their names with the id behind."""
        if isinstance(value, dict):
            return self.called.get(str(value.get("$ref")), value) if "$ref" in value else value.get("value", value)
        if value is None or (isinstance(value, list) and any(isinstance(each, dict) for each in value)):
            return value and [each.get("value", each) if isinstance(each, dict) else each for each in value]
        stream = stream_of(shape(operation).kind)
        code = field.rpartition("/")[2]
        custom = next((each for each in self.fields(stream) if each.code == code), None)
        table = _TYPES_POINT_TO.get(custom.type) if custom else points_to(field, stream)
        if table and not isinstance(value, list):
            title = self._title(table, value)
            return f"{title} ({value})" if title else value
        options = dict(self._options_of(stream, code))
        if isinstance(value, list):
            return [options.get(str(each), each) for each in value]
        return options.get(str(value), value)

    def fields(self, stream: Stream | None) -> list[Field]:
        """The custom fields of a stream."""
        if stream is None or self._warehouse is None:
            return []
        if stream.name not in self._fields:
            rows = self._warehouse.execute(
                "SELECT field_code, label, column_name, field_type FROM meta.custom_fields WHERE entity = ?"
                " ORDER BY last_seen DESC, column_name",
                [stream.name],
            ).fetchall()
            self._fields[stream.name] = [Field(*row) for row in rows]
        return self._fields[stream.name]

    # Custom fields.

    def _customs(self, operation: Operation, stream: Stream | None, given: Mapping[str, object]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in given.items():
            found |= self._custom(operation, stream, key, value, found, [])
        return found

    def _custom(
        self,
        operation: Operation,
        stream: Stream | None,
        key: str,
        value: object,
        before: Mapping[str, Any],
        known: list[str],
    ) -> dict[str, Any]:
        field, part = self._field(operation, stream, key, known)
        typed = self._custom_value(stream, field, part, value)
        if part not in ("value", "label", "labels"):
            held = before.get(field.code)
            return {field.code: {**(held if isinstance(held, dict) else {}), part: typed}}
        held = before.get(field.code)
        if isinstance(held, dict) and isinstance(typed, dict):
            return {field.code: {**held, **typed}}
        if field.code in before and not isinstance(held, dict):
            raise ConfigError(f"{operation.name}: {field.label!r} is given twice ({key!r}). Nothing was queued.")
        return {field.code: {**held, "value": typed} if isinstance(held, dict) else typed}

    def _field(self, operation: Operation, stream: Stream | None, key: str, known: list[str]) -> tuple[Field, str]:
        """The custom field that `key` means, and the part of its value."""
        fields = self.fields(stream)
        if operation.custom_fields:
            code, part = key[:40], key[40:].removeprefix("_")
            if _CODE.fullmatch(code) and (key == code or key[40] == "_"):
                return next(
                    (each for each in fields if each.code == code), Field(code, code, code, "")
                ), part or "value"
            if found := _labelled(operation, fields, key):
                return found, "value"
            for each in fields:
                if key == each.column:
                    return each, "value"
                if key.startswith(f"{each.column}_") and key[len(each.column) + 1 :] in _parts(each.type):
                    return each, key[len(each.column) + 1 :]
        names = [*known, *(each.label for each in fields), *(each.column for each in fields)]
        near = difflib.get_close_matches(key, names, n=3, cutoff=0.6)
        guess = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        synced = ""
        if operation.custom_fields and not fields:
            synced = " Custom fields are known by name after a sync: pdsync sync."
        takes = f" It takes {', '.join(known)}." if known and not near else ""
        raise ConfigError(f"{operation.name} has no parameter {key!r}.{guess}{takes}{synced}\nNothing was queued.")

    def _custom_value(self, stream: Stream | None, field: Field, part: str, value: object) -> Any:
        if value is None or (isinstance(value, str) and value.startswith("@")):
            return value
        kind = catalogue.field_types().get(field.type)
        if part not in ("value", "label", "labels"):
            return value
        if kind and kind.options:
            return self._options_for(stream, field, value, many=kind.columns["value"].endswith("[]"))
        if table := _TYPES_POINT_TO.get(field.type):
            return self._id(table, value, field.label, {})
        return _plain(field, value)

    def _options_for(self, stream: Stream | None, field: Field, value: object, *, many: bool) -> Any:
        asked = value if isinstance(value, list | tuple) else [value]
        if many and isinstance(value, str):
            asked = [each.strip() for each in value.strip("[]").split(",") if each.strip()]
            if self._is_option(stream, field.code, value):
                asked = [value]
        found = [self._option(stream, field.code, field.label, each) for each in asked]
        return (found or None) if many else found[0]  # an empty set is refused; null empties it

    def _is_option(self, stream: Stream | None, code: str, label: str) -> bool:
        return any(each.lower() == label.strip().lower() for _, each in self._options_of(stream, code))

    # Values of built-in parameters.

    def _value(
        self, operation: Operation, stream: Stream | None, name: str, value: object, given: Mapping[str, object]
    ) -> Any:
        if value is None or (isinstance(value, str) and value.startswith("@")):
            return value
        if name == "field_code" and name in operation.path_params:
            return self._field_code(operation, str(value).strip())
        param = {**operation.path_params, **operation.query, **operation.body}[name]
        if param.type == "array[object]" and isinstance(value, str) and not value.lstrip().startswith(("[", "{")):
            return _contacts(value)
        if param.type == "object" and isinstance(value, str) and not value.lstrip().startswith("{"):
            return {"value": value}
        if param.type in ("integer", "string:uuid") and (table := points_to(name, stream)):
            return self._id(table, value, name, given)
        if name in ("label_ids", "label") and param.type.startswith("array"):
            asked = value if isinstance(value, list | tuple) else str(value).strip("[]").split(",")
            words = [each.strip() if isinstance(each, str) else each for each in asked]
            return [self._label(stream, each) for each in words if each != ""]
        return value

    def _field_code(self, operation: Operation, value: str) -> str:
        """The code of the field that `value` is, or that is called so: by its label, or by its column."""
        if _CODE.fullmatch(value):
            return value
        stream = stream_of(shape(operation).root)  # of the fields' own definitions
        entity = next((each for each in catalogue.streams().values() if stream and each.fields == stream.name), None)
        named = {each.code for each in self.fields(entity) if value in (each.label, each.column)}
        if len(named) == 1:
            return named.pop()
        if value.isdecimal():
            raise ConfigError(
                f"{operation.name}: {value} is no code of a field, but may be its number in v1.\nNothing was queued."
                f' Give the label or the code, or queue the operation of v1: "v1 {operation.id}" id={value}'
            )
        if stream and stream.name in self._tables:
            known = self._title(stream.name, value)
            return value if known is not None else str(self._id(stream.name, value, "field_code", {}))
        if not re.fullmatch(r"[a-z0-9_]+", value):
            raise ConfigError(
                f"field_code is {value!r}; fields are known by their labels after a sync. Nothing was queued."
            )
        return value

    def _label(self, stream: Stream | None, value: object) -> Any:
        if stream and stream.name == "leads" and "lead_labels" in self._tables:
            return self._id("lead_labels", value, "label_ids", {})
        for code in ("label_ids", "label"):
            if self._options_of(stream, code):
                return self._option(stream, code, "label_ids", value)
        return value

    def _id(self, table: str, value: object, name: str, given: Mapping[str, object]) -> Any:
        """The id that `value` is, or that the record of `table` has which is called so."""
        if not isinstance(value, str) or _WHOLE.fullmatch(value) or _UUID.fullmatch(value) or value == "null":
            return value
        if table not in self._tables or self._warehouse is None:
            raise ConfigError(
                f"{name} is {value!r}; names are known after a sync (pdsync sync {table}). Nothing was queued."
            )
        found = self._called(table, value)
        if table == "stages" and len(found) > 1 and given.get("pipeline_id") is not None:
            pipeline = self._id("pipelines", given["pipeline_id"], "pipeline_id", {})
            rows = self._warehouse.execute("SELECT id FROM stages WHERE pipeline_id = ?", [int(pipeline)]).fetchall()
            found = [each for each in found if each in {row[0] for row in rows}]
        if len(found) == 1:
            return found[0]
        if found:
            ids = ", ".join(map(str, found[:6]))
            raise ConfigError(f"{name}: several {table} are called {value!r} ({ids}). Nothing was queued. Give the id.")
        titles = self._warehouse.execute(
            f"SELECT DISTINCT {quoted(_title_of(table))} FROM {quoted('main', table)}"
            f" WHERE {quoted(_title_of(table))} IS NOT NULL AND _deleted_at IS NULL LIMIT 20000"
        ).fetchall()
        near = difflib.get_close_matches(value, [str(row[0]) for row in titles], n=3)
        guess = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise ConfigError(f"{name}: none of the {table} is called {value!r}.{guess} Nothing was queued.")

    def _called(self, table: str, value: str) -> list[Any]:
        key = (table, "called", value)
        if key not in self._found and self._warehouse is not None:
            columns = [_title_of(table), *(["email"] if table == "users" else [])]
            where = " OR ".join(f"lower(trim({quoted(column)})) = lower(trim(?))" for column in columns)
            rows = self._warehouse.execute(
                f"SELECT {quoted(catalogue.stream(table).key)} FROM {quoted('main', table)}"
                f" WHERE ({where}) AND _deleted_at IS NULL ORDER BY 1 LIMIT 7",
                [value] * len(columns),
            ).fetchall()
            self._found[key] = [row[0] for row in rows]
        return self._found.get(key, [])

    def _title(self, table: str, key: object) -> str | None:
        if table not in self._tables or self._warehouse is None:
            return None
        row = first(
            self._warehouse.execute(
                f"SELECT {quoted(_title_of(table))} FROM {quoted('main', table)}"
                f" WHERE {quoted(catalogue.stream(table).key)}::VARCHAR = ?",
                [str(key)],
            )
        )
        return str(row[0]) if row and row[0] is not None else None

    def _options_of(self, stream: Stream | None, code: str) -> list[tuple[str, str]]:
        if stream is None or self._warehouse is None:
            return []
        if (stream.name, code) not in self._options:
            self._options[stream.name, code] = self._warehouse.execute(
                "SELECT option_id, coalesce(label, '') FROM meta.field_options WHERE entity = ? AND field_code = ?",
                [stream.name, code],
            ).fetchall()
        return self._options[stream.name, code]

    def _option(self, stream: Stream | None, code: str, name: str, value: object) -> Any:
        options = self._options_of(stream, code)
        if not isinstance(value, str) or _WHOLE.fullmatch(value) or not options:
            if options and str(value) not in {id for id, _ in options}:
                raise ConfigError(f"{name} has no option {value}. Nothing was queued.{_choice(options)}")
            return int(value) if isinstance(value, str) and _WHOLE.fullmatch(value) else value
        found = {id for id, label in options if label == value} or {
            id for id, label in options if label.strip().lower() == value.strip().lower()
        }
        if len(found) == 1:
            (id,) = found
            return int(id) if _WHOLE.fullmatch(id) else id
        if found:
            raise ConfigError(
                f"{name}: several options are called {value!r} ({', '.join(sorted(found))}). Nothing was queued."
                f" Give the id."
            )
        near = difflib.get_close_matches(value, [label for _, label in options], n=3)
        guess = f" Did you mean {' or '.join(map(repr, near))}?" if near else _choice(options)
        raise ConfigError(f"{name} has no option {value!r}.{guess} Nothing was queued.")


def _labelled(operation: Operation, fields: list[Field], label: str) -> Field | None:
    """The custom field that is called so; whatever the case, if that leaves no doubt."""
    exact = [each for each in fields if each.label == label]
    near = [each for each in fields if each.label.strip().lower() == label.strip().lower()]
    for matches in (exact, near):
        if len({each.code for each in matches}) > 1:
            columns = ", ".join(sorted(each.column for each in matches))
            raise ConfigError(
                f"{operation.name}: several custom fields are called {label!r}. Nothing was queued.\n"
                f"Name one by its column: {columns}."
            )
        if matches:
            return matches[0]
    return None


def _parameter(operation: Operation, stream: Stream | None, key: str, known: Mapping[str, object]) -> str | None:
    """The built-in parameter that `key` means: its own name, the table's column, or the name without `_id`."""
    renamed = []
    if stream and key in stream.columns:  # v2's name for what a v1 operation calls otherwise
        renamed = [stream.column(key).path(key, operation.version).split("/")[0]]
    singular = {"id": operation.path_params and list(operation.path_params)[-1]}.get(key)
    candidates = [
        key,
        *renamed,
        f"{key}_id",
        f"{key.removesuffix('s')}_ids",
        f"{key}s",
        *([singular] if singular else []),
    ]
    return next((each for each in candidates if each in known and each != "custom_fields"), None)


def _part(
    operation: Operation, stream: Stream | None, key: str, value: object, known: Mapping[str, object]
) -> tuple[str, str] | None:
    """The parameter and the part of it that a column stands for: a lead's `currency` is `value/currency`."""
    if stream is None or key not in stream.columns or isinstance(value, dict):
        return None
    if isinstance(value, str) and value.lstrip().startswith("{"):
        return None
    root, _, part = stream.column(key).path(key, operation.version).partition("/")
    return (root, part) if part and root in known else None


def _numeric(value: object, part: str) -> object:
    if part != "amount" or not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError as error:
        raise ConfigError(f"{value!r} should be an amount, like 500. Nothing was queued.") from error


def points_to(name: str, stream: Stream | None = None) -> str | None:
    """The stream whose records the ids in a parameter are of."""
    own = stream.labels.get(name) if stream else None
    return own or _POINTS_TO.get(name)


def _title_of(table: str) -> str:
    return catalogue.stream(table).title


def _parts(type: str) -> set[str]:
    kind = catalogue.field_types().get(type)
    parts = set(kind.columns) if kind else {"value"}
    return parts | ({"label", "labels"} if kind and kind.options else set())


def _once(operation: Operation, params: Mapping[str, Any], name: str, key: str) -> None:
    if name in params:
        raise ConfigError(f"{operation.name}: {name} is given twice ({key!r} means it, too). Nothing was queued.")


def _plain(field: Field, value: object) -> Any:
    """The value of a custom field of a plain type, as v2 takes it."""
    wrong = None
    if field.type in ("double", "int") and isinstance(value, str):
        try:
            value = int(value) if _WHOLE.fullmatch(value.strip()) else float(value)
        except ValueError:
            wrong = "a number, like 12.5"
    elif field.type == "monetary" and not isinstance(value, dict):
        said = _MONEY.fullmatch(str(value).strip())
        amount = str(said[1] if said else value).replace(" ", "").replace(",", "")
        try:
            number = float(amount)
            value = {"value": int(number) if number.is_integer() else number} | ({"currency": said[2]} if said else {})
        except ValueError:
            wrong = "an amount with its currency, like 500 EUR"
    elif field.type == "date" and not re.fullmatch(r"\d{4}-\d\d-\d\d", str(value)[:10]):
        wrong = "a date, like 2026-03-31"
    elif field.type == "date":
        value = str(value)[:10]
    elif field.type in ("address", "time", "daterange", "timerange") and not isinstance(value, dict):
        value = {"value": str(value)}
    elif field.type in ("varchar", "varchar_auto", "text", "phone"):
        value = str(value)
    if wrong:
        raise ConfigError(f"{field.label!r} is {value!r}, and should be {wrong}. Nothing was queued.")
    return value


def _contacts(text: str) -> list[dict[str, Any]]:
    """E-mail addresses or phone numbers in one text, with commas or semicolons between; the first is the main one."""
    values = [each.strip() for each in re.split(r"[,;]", text) if each.strip()]
    return [{"value": value, "primary": index == 0, "label": "work"} for index, value in enumerate(values)]


def _flat(custom: Mapping[str, Any]) -> dict[str, Any]:
    """Custom fields as v1 takes them: beside the others, with the parts of a value under keys of their own."""
    flat: dict[str, Any] = {}
    for code, value in custom.items():
        if isinstance(value, dict) and "$ref" not in value:
            flat |= {code if part == "value" else f"{code}_{part}": inner for part, inner in value.items()}
        else:
            flat[code] = ",".join(map(str, value)) if isinstance(value, list) else value
    return flat


def _choice(options: list[tuple[str, str]]) -> str:
    shown = ", ".join(label or id for id, label in options[:8])
    return f" There are {shown}{' …' if len(options) > 8 else ''}."
