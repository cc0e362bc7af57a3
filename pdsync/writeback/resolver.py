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

import msgspec
from msgspec import Struct

from pdsync.core import catalogue, cells
from pdsync.errors import ConfigError
from pdsync.sql import first, quoted
from pdsync.writeback import typed_values
from pdsync.writeback.shapes import shape, stream_of
from pdsync.writeback.typed_values import Option, Style, Unfit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import duckdb

    from pdsync.model import Column, Operation, Param, Stream, Version

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
_ANY = Style()
# Built-in fields for which any text will do, although they offer choices.
_FREE = ("varchar", "varchar_auto", "varchar_options", "text")
_NOTHING = "Nothing was queued."


class Field(Struct, frozen=True):
    """A custom field: what it is called by people, by the warehouse and by the API."""

    code: str
    label: str
    column: str
    type: str
    listed: bool = True  # whether the newest list of fields still has it


class NameResolver:
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
        self._options: dict[tuple[str, str], list[Option]] = {}
        self._kinds: dict[tuple[str, str], str] = {}
        self._tables = set() if warehouse is None else {
            row[0] for row in warehouse.execute(
                "SELECT table_name FROM duckdb_tables() WHERE schema_name = 'main'"
                " AND database_name = current_database()"
            ).fetchall()
        }  # fmt: skip

    def resolve(
        self, operation: Operation, given: Mapping[str, object], styles: Mapping[str, Style] | None = None
    ) -> dict[str, Any]:
        """The parameters of `operation` that `given` means, custom fields in the place where its version takes them.

        Args:
            styles: how the columns that `given` comes from write their numbers.

        Raises:
            ConfigError: a name fits nothing or several things. Nothing was queued.
        """
        stream = stream_of(shape(operation).kind)
        # A list is given whole, as `body`: what its entries hold are no parameters.
        known = {**operation.path_params, **operation.query, **({} if operation.body_list else operation.body)}
        params: dict[str, Any] = {}
        custom: dict[str, Any] = {}
        implied: str | None = None
        for key, value in given.items():
            style = (styles or {}).get(key, _ANY)
            if key == "custom_fields" and isinstance(value, dict) and operation.custom_fields:
                custom |= self._customs(operation, stream, value)
            elif part := _part(operation, stream, key, value, known):
                held, inner = params.get(part[0]) or {}, self._inner(operation, key, part[1], value, style)
                if _differ(held, inner):
                    raise ConfigError(f"{operation.name}: {part[0]} is given twice ({key!r} means it, too). {_NOTHING}")
                params[part[0]] = {**held, **inner}
            elif name := _parameter(operation, stream, key, known):
                _once(operation, params, name, key)
                found = self._value(operation, stream, name, value, given, style)
                params[name] = found.pop(name)
                implied = found.get("currency", implied)
            elif operation.body_list and key == "body":
                params[key] = value
            else:
                custom |= self._custom(operation, stream, key, value, custom, list(known), style)
        params = _with_currency(operation, params, implied)
        if not custom:
            return params
        if shape(operation).verb == "add":
            _refuse_parts(operation, self.fields(stream), custom)
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
            named = each.listed and key.strip().lower() == each.label.strip().lower()
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
        options = {each.id: each.label for each in self._options_of(stream, code)}
        if isinstance(value, list):
            return [options.get(str(each), each) for each in value]
        return options.get(str(value), value)

    def fields(self, stream: Stream | None) -> list[Field]:
        """The custom fields of a stream."""
        if stream is None or self._warehouse is None:
            return []
        if stream.name not in self._fields:
            rows = self._warehouse.execute(
                "SELECT field_code, label, column_name, field_type, coalesce(last_seen = max(last_seen) OVER (), true)"
                " FROM meta.custom_fields WHERE entity = ? ORDER BY last_seen DESC, column_name",
                [stream.name],
            ).fetchall()
            self._fields[stream.name] = [Field(*row) for row in rows]
        return self._fields[stream.name]

    # Custom fields.

    def _customs(self, operation: Operation, stream: Stream | None, given: Mapping[str, object]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in given.items():
            found |= self._custom(operation, stream, key, value, found, [], _ANY)
        return found

    def _custom(
        self,
        operation: Operation,
        stream: Stream | None,
        key: str,
        value: object,
        before: Mapping[str, Any],
        known: list[str],
        style: Style,
    ) -> dict[str, Any]:
        field, part = self._field(operation, stream, key, known)
        own = part in ("value", "label", "labels")
        parts = _object_of(field, value) if own else None
        typed: Any = {}
        for name, inner in (parts or {part: value}).items():
            try:
                one = self._custom_value(stream, field, name, inner, style, is_code=key[:40] == field.code)
            except Unfit as error:
                what = field.label if name in ("value", "label", "labels") else f"{field.label} ({name})"
                raise ConfigError(f"{what!r} is {_cut(inner)}, and {_ended(error)} {_NOTHING}") from error
            if own and parts is None:
                typed = one
            elif name == "value" and isinstance(one, dict) and "$ref" not in one:
                typed |= one
            else:
                typed[name] = one
        if field.code not in before:
            return {field.code: typed}
        held = before[field.code]
        if _is_empty(held) and _is_empty(typed):
            return {field.code: None}
        if isinstance(held, dict) and own and not isinstance(typed, dict):
            typed = {"value": typed}
        if not isinstance(held, dict) or not isinstance(typed, dict) or _differ(held, typed):
            raise ConfigError(f"{operation.name}: {field.label!r} is given twice ({key!r}). Nothing was queued.")
        return {field.code: {**held, **typed}}

    def _field(self, operation: Operation, stream: Stream | None, key: str, known: list[str]) -> tuple[Field, str]:
        """The custom field that `key` means, and the part of its value."""
        fields = self.fields(stream)
        if operation.custom_fields:
            code, part = key[:40], key[40:].removeprefix("_")
            if _CODE.fullmatch(code) and (key == code or key[40] == "_"):
                unknown = Field(code, code, code, "")
                found = next((each for each in fields if each.code == code), unknown)
                return _listed(operation, fields, found), part or "value"
            if labelled := _labelled(operation, fields, key):
                return labelled, "value"
            if column := next((each for each in fields if key == each.column), None):
                return _listed(operation, fields, column), "value"
            for each in fields:
                if key.startswith(f"{each.column}_") and key[len(each.column) + 1 :] in _parts(each.type):
                    return _listed(operation, fields, each), key[len(each.column) + 1 :]
        now = [each for each in fields if each.listed]
        names = [*known, *(each.label for each in now), *(each.column for each in now)]
        near = difflib.get_close_matches(key, names, n=3, cutoff=0.6)
        guess = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        synced = ""
        if operation.custom_fields and not fields:
            synced = " Custom fields are known by name after a sync: pdsync sync."
        takes = f" It takes {', '.join(known)}." if known and not near else ""
        raise ConfigError(f"{operation.name} has no parameter {key!r}.{guess}{takes}{synced}\nNothing was queued.")

    def _custom_value(
        self, stream: Stream | None, field: Field, part: str, value: object, style: Style, *, is_code: bool
    ) -> Any:
        if value is None or (isinstance(value, str) and value.startswith("@")) or _is_reference(value):
            return value
        kind = catalogue.field_types().get(field.type)
        if part not in ("value", "label", "labels"):
            return self._custom_part(field, part, value)
        if kind and kind.options:
            options = self._options_of(stream, field.code)
            if is_code and isinstance(value, int) and not options:
                return value
            return self._chosen(options, value, many=kind.columns["value"].endswith("[]"), ids=is_code)
        if value == "null" and field.type not in (*_FREE, "phone", ""):
            return None
        if table := _TYPES_POINT_TO.get(field.type):
            return _as_id(self._id(table, value, field.label, {}))
        if field.type == "monetary":
            amount, code = typed_values.money(value, style)
            return {"value": amount, **({"currency": typed_values.currency(code)} if code else {})}
        if field.type == "visible_to":
            return self._chosen(self._options_of(stream, field.code) or self._levels(stream), value, ids=is_code)
        return _plain(field.type, value, style)

    def _custom_part(self, field: Field, part: str, value: object) -> Any:
        """A part of a value that has several: the currency of an amount, the end of a range, a line of an address."""
        if part == "currency":
            return typed_values.currency(value)
        if part == "until":
            return typed_values.day(value) if field.type == "daterange" else typed_values.clock(value)
        return typed_values.whole(value) if part == "timezone_id" else cells.cell_text(value)

    def _levels(self, stream: Stream | None) -> list[Option]:
        """Who may see a record: by the company's own words, and by the numbers that the API has for it."""
        listed = self._options_of(stream, "visible_to")
        return listed + [Option(id, id) for id in ("1", "3", "5", "7") if id not in {each.id for each in listed}]

    def _chosen(self, options: list[Option], value: object, *, many: bool = False, ids: bool = False) -> Any:
        """The ids of the options that `value` names.

        Args:
            many: it may name several.
            ids: whole numbers that are no text are ids and nothing else, as the API itself writes them.
        """
        if not options:
            asked = [value] if not isinstance(value, list | tuple) else list(value)
            if isinstance(value, str) and many:
                asked = [each.strip() for each in value.strip("[] ").split(",")]
            if not all(isinstance(each, int) or _WHOLE.fullmatch(str(each)) for each in asked):
                raise Unfit("", why="should be the id of an option; labels are known after a sync")
            return [int(str(each)) for each in asked] if many else int(str(asked[0]))
        if ids and isinstance(value, int | list):
            wanted = value if isinstance(value, list) else [value]
            known = {each.value for each in options}
            if all(isinstance(each, int) and each in known for each in wanted):
                return (value or None) if many else value
        single = value[0] if isinstance(value, list | tuple) and len(value) == 1 and not many else value
        try:
            if not many:
                return typed_values.option(single, options)
            found = typed_values.several(value, options)
        except Unfit as error:
            raise error if str(error) else Unfit("", why=f"has no such option.{_near(value, options)}") from None
        if not found and isinstance(value, str) and value.strip() != "[]":
            raise Unfit("", why=f"has no such option.{_near(value, options)}")
        return found or None  # an empty set is refused; null empties it

    # Values of built-in parameters.

    def _value(
        self,
        operation: Operation,
        stream: Stream | None,
        name: str,
        value: object,
        given: Mapping[str, object],
        style: Style,
    ) -> dict[str, Any]:
        """The parameter called `name`, and the currency if the value names one."""
        if value is None or (isinstance(value, str) and value.startswith("@")) or _is_reference(value):
            return {name: value}
        if name == "field_code" and name in operation.path_params:
            return {name: self._field_code(operation, str(value).strip())}
        param = {**operation.path_params, **operation.query, **operation.body}[name]
        column = _column(stream, name, operation.version)
        try:
            if param.type == "number" and column and column.type.startswith("DECIMAL") and "currency" in operation.body:
                amount, code = typed_values.money(value, style) if value != "null" else (None, None)
                return {name: amount, **({"currency": typed_values.currency(code)} if code else {})}
            return {name: self._typed(operation, stream, name, param, column, value, given, style)}
        except Unfit as error:
            raise ConfigError(f"{operation.name}: {name} is {_cut(value)}, and {_ended(error)} {_NOTHING}") from error

    def _typed(
        self,
        operation: Operation,
        stream: Stream | None,
        name: str,
        param: Param,
        column: Column | None,
        value: Any,
        given: Mapping[str, object],
        style: Style,
    ) -> Any:
        if value == "null" and not param.type.startswith("string"):
            return value  # it empties the field
        if param.type == "integer" and isinstance(value, float):  # as a query or pandas has a column with nulls
            value = typed_values.whole(value)
        if param.type == "array[object]" and column and {"value", "primary"} <= column.items.keys():
            entries = typed_values.contacts(value)
            if entries is None:
                return value
            return entries if shape(operation).verb == "update" else typed_values.completed_contacts(entries, [])
        if param.type in ("object", "array[object]"):
            return self._object(param, value)
        if param.type in ("integer", "string:uuid") and (table := points_to(name, stream)):
            return self._id(table, value, name, given)
        if param.type in ("integer", "number") and (param.enum == (0, 1) or (column and column.type == "BOOLEAN")):
            return int(typed_values.flag(value))
        if options := self._choices(operation, stream, name, param):
            return self._chosen(options, value, many=param.type.startswith("array")) or []
        if name == "currency":
            return typed_values.currency(value)
        return _read(param.type, column.type if column else "", operation.version, value, style)

    def _choices(self, operation: Operation, stream: Stream | None, name: str, param: Param) -> list[Option]:
        """The choices of a built-in field, if nothing else may be given."""
        if name == "visible_to" and param.type in ("integer", "number", "string"):
            return self._levels(stream)
        if param.type not in ("integer", "string", "array[integer]", "array[string]"):
            return []
        if name in ("label_ids", "label") and stream and stream.name == "leads":
            return self._records("lead_labels")
        for code in ("label_ids", "label") if name in ("label_ids", "label") else (name,):
            options = self._options_of(stream, code)
            if options and self._kind_of(stream, code) not in _FREE:
                return options
        if param.type != "string" or param.many:
            return []
        listing = shape(operation).listing
        words = param.enum or (listing.query[name].enum if listing and name in listing.query else ())
        return [Option(str(word), str(word)) for word in words]

    def _object(self, param: Param, value: Any) -> Any:
        """An object, or a list of them, with the codes of currencies as the API takes them; text as its main part."""
        if isinstance(value, str):
            text = value.lstrip()
            if not text.startswith(("[", "{")):
                return {"value": value} if param.type == "object" else value
            try:
                value = msgspec.json.decode(text)
            except msgspec.DecodeError:
                return value
        if isinstance(value, list | tuple):
            return [self._object(param, each) if isinstance(each, dict) else each for each in value]
        if isinstance(value, dict) and isinstance(value.get("currency"), str):
            return {**value, "currency": typed_values.currency(value["currency"])}
        return value

    def _field_code(self, operation: Operation, value: str) -> str:
        """The code of the field that `value` is, or that is called so: by its label, or by its column."""
        if _CODE.fullmatch(value):
            return value
        stream = stream_of(shape(operation).root)  # of the fields' own definitions
        entity = next((each for each in catalogue.streams().values() if stream and each.fields == stream.name), None)
        named = {each.code for each in self.fields(entity) if each.listed and value in (each.label, each.column)}
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

    def _inner(self, operation: Operation, key: str, part: str, value: object, style: Style) -> dict[str, Any]:
        """A part of an object that has a column of its own: the amount of a lead's value, a line of an address."""
        try:
            if value is None or (part not in ("amount", "currency")):
                return {part: value}
            if part == "currency":
                return {part: typed_values.currency(value)}
            amount, code = typed_values.money(value, style)
            return {part: amount, **({"currency": typed_values.currency(code)} if code else {})}
        except Unfit as error:
            raise ConfigError(f"{operation.name}: {key} is {_cut(value)}, and {_ended(error)} {_NOTHING}") from error

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

    def _options_of(self, stream: Stream | None, code: str) -> list[Option]:
        if stream is None or self._warehouse is None:
            return []
        if (stream.name, code) not in self._options:
            rows = self._warehouse.execute(
                "SELECT option_id, coalesce(label, '') FROM meta.field_options WHERE entity = ? AND field_code = ?",
                [stream.name, code],
            ).fetchall()
            self._options[stream.name, code] = [Option(*row) for row in rows]
        return self._options[stream.name, code]

    def _records(self, table: str) -> list[Option]:
        """The records of a short list as choices."""
        if table not in self._tables or self._warehouse is None:
            return []
        if (table, "") not in self._options:
            key, title = quoted(catalogue.stream(table).key), quoted(_title_of(table))
            rows = self._warehouse.execute(
                f"SELECT {key}::VARCHAR, coalesce({title}, '') FROM {quoted('main', table)} WHERE _deleted_at IS NULL"
            ).fetchall()
            self._options[table, ""] = [Option(*row) for row in rows]
        return self._options[table, ""]

    def _kind_of(self, stream: Stream | None, code: str) -> str:
        """The type that Pipedrive gives a built-in field."""
        if stream is None or self._warehouse is None or not stream.fields or stream.fields not in self._tables:
            return ""
        if (stream.name, code) not in self._kinds:
            row = first(
                self._warehouse.execute(
                    f"SELECT field_type FROM {quoted('main', stream.fields)} WHERE field_code = ?", [code]
                )
            )
            self._kinds[stream.name, code] = str(row[0]) if row else ""
        return self._kinds[stream.name, code]


def _labelled(operation: Operation, fields: list[Field], label: str) -> Field | None:
    """The custom field that is called so; whatever the case, if that leaves no doubt."""
    exact = [each for each in fields if each.label == label]
    near = [each for each in fields if each.label.strip().lower() == label.strip().lower()]
    if near and not any(each.listed for each in near) and label not in {each.column for each in fields if each.listed}:
        _listed(operation, fields, near[0])
    for matches in ([each for each in exact if each.listed], [each for each in near if each.listed]):
        if len({each.code for each in matches}) > 1:
            columns = ", ".join(sorted(each.column for each in matches))
            raise ConfigError(
                f"{operation.name}: several custom fields are called {label!r}. Nothing was queued.\n"
                f"Name one by its column: {columns}."
            )
        if matches:
            return matches[0]
    return None


def _listed(operation: Operation, fields: list[Field], field: Field) -> Field:
    """`field`, if Pipedrive still has it."""
    if field.listed:
        return field
    now = next((each for each in fields if each.listed and each.label == field.label), None)
    instead = f" The one that is called so now is {now.column}." if now else ""
    raise ConfigError(
        f"{operation.name}: the custom field {field.label!r} ({field.column}) was deleted.{instead} {_NOTHING}"
    )


def _column(stream: Stream | None, name: str, version: Version) -> Column | None:
    """The column of a table where the parameter called `name` shows."""
    if stream is None:
        return None
    own = [each for each in stream.columns if each == name]
    found = own or [each for each in stream.columns if stream.column(each).path(each, version) == name]
    return stream.column(found[0]) if found else None


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


def _read(type: str, column: str, version: Version, value: object, style: Style) -> Any:
    """The value of a built-in parameter; a text is read as the type of the column where it shows.

    Assumption: v1 takes times as it writes them, in UTC and without a zone, and times of day without seconds.
    """
    if type == "string":
        readers: dict[str, Callable[[], Any]] = {
            "DATE": lambda: typed_values.day(value),
            "TIMESTAMPTZ": lambda: typed_values.moment(value, v1=version == "v1"),
            "TIME": lambda: typed_values.clock(value, seconds=version == "v2"),
            "INTERVAL": lambda: typed_values.span(value, seconds=version == "v2"),
        }
        return readers[column]() if column in readers else value
    if type == "integer" and column.startswith("DECIMAL") and isinstance(value, str):
        return typed_values.whole(value, style)  # the column writes 12 as 12.0000
    readers = {
        "boolean": lambda: typed_values.flag(value),
        "number": lambda: typed_values.number(value, style),
        "string:date": lambda: typed_values.day(value),
        "string:date-time": lambda: typed_values.moment(value),
    }
    return readers[type]() if type in readers else value


def _plain(type: str, value: object, style: Style) -> Any:
    """The value of a custom field of a plain type, as v2 takes it."""
    if type == "double":
        return typed_values.number(value, style)
    if type == "int":
        return typed_values.whole(value, style)
    if type == "boolean":
        return typed_values.flag(value)
    if type == "date":
        return typed_values.day(value)
    if type == "time":
        return {"value": typed_values.clock(value)}
    if type in ("daterange", "timerange"):
        return typed_values.stretch(value, type)
    if type == "address":
        return {"value": cells.cell_text(value)}
    if type in (*_FREE, "phone"):
        return cells.cell_text(value)
    return value


def _as_id(value: Any) -> Any:
    """An id as a custom field takes it."""
    if isinstance(value, str):
        return int(value) if _WHOLE.fullmatch(value) else value
    return typed_values.whole(value)


def _is_reference(value: object) -> bool:
    return isinstance(value, dict) and "$ref" in value


def _object_of(field: Field, value: object) -> dict[str, Any] | None:
    """The parts of a value that was given as an object, if the field has parts."""
    if not {"value"} < _parts(field.type) or _is_reference(value):
        return None
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = msgspec.json.decode(value)
        except msgspec.DecodeError:
            return None
    return value if isinstance(value, dict) and value else None


def _is_empty(value: Any) -> bool:
    return all(inner is None for inner in value.values()) if isinstance(value, dict) else value is None


def _differ(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two objects say different things of the same part."""
    return any(part in one and one[part] != value for part, value in other.items())


def _refuse_parts(operation: Operation, fields: list[Field], custom: Mapping[str, Any]) -> None:
    """Refuse a currency without an amount, or an end without a begin: a new record has nothing to go with it."""
    for code, value in custom.items():
        if isinstance(value, dict) and value.get("value") is None and "$ref" not in value and not _is_empty(value):
            label = next((each.label for each in fields if each.code == code), code)
            raise ConfigError(f"{operation.name}: {label!r} has {', '.join(value)} and no value. {_NOTHING}")


def _with_currency(operation: Operation, params: dict[str, Any], implied: str | None) -> dict[str, Any]:
    """The parameters with the currency that an amount names."""
    if implied is None:
        return params
    if params.get("currency", implied) != implied:
        raise ConfigError(
            f"{operation.name}: the amount is in {implied}, and currency is {params['currency']!r}. {_NOTHING}"
        )
    return {**params, "currency": implied}


def _cut(value: object) -> str:
    text = repr(str(value)) if isinstance(value, str) else repr(value)
    return text if len(text) <= 100 else f"{text[:100]}…"


def _ended(error: Unfit) -> str:
    text = str(error)
    return text if text.endswith((".", "?")) else f"{text}."


def _near(value: object, options: list[Option]) -> str:
    near = difflib.get_close_matches(str(value), [each.label for each in options], n=3)
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else _choice(options)


def _flat(custom: Mapping[str, Any]) -> dict[str, Any]:
    """Custom fields as v1 takes them: beside the others, with the parts of a value under keys of their own."""
    flat: dict[str, Any] = {}
    for code, value in custom.items():
        if isinstance(value, dict) and "$ref" not in value:
            flat |= {code if part == "value" else f"{code}_{part}": inner for part, inner in value.items()}
        else:
            flat[code] = ",".join(map(str, value)) if isinstance(value, list) else value
    return flat


def _choice(options: list[Option]) -> str:
    shown = ", ".join(each.label or each.id for each in options[:8])
    return f" There are {shown}{' …' if len(options) > 8 else ''}."
