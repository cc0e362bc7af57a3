"""Resolves built-in parameters: which parameter a key names, and what its value is as the API takes it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from pdsync.core import catalogue
from pdsync.errors import ConfigError
from pdsync.writeback import typed_values
from pdsync.writeback.amounts import find_column, is_amount
from pdsync.writeback.choices import choose, visibility_levels
from pdsync.writeback.company_names import FIELD_CODE
from pdsync.writeback.custom_values import TEXT_TYPES, is_unresolved
from pdsync.writeback.messages import NOTHING, did_you_mean, invalid_value
from pdsync.writeback.record_names import referenced_stream, resolve_id
from pdsync.writeback.shapes import find_stream, shape
from pdsync.writeback.typed_values import InvalidValue, Option

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pdsync.model import Column, Operation, Param, Stream, Version
    from pdsync.writeback.company_names import CompanyNames
    from pdsync.writeback.typed_values import NumberStyle


def find_parameter(operation: Operation, stream: Stream | None, key: str, params: Mapping[str, object]) -> str | None:
    """The built-in parameter that `key` names: by its own name, by the table's column, or without its `_id`.

    Args:
        operation: the change.
        stream: the stream of its records.
        key: as it was given.
        params: the parameters of the operation.
    """
    renamed = []
    if stream and key in stream.columns:  # a column has v2's name, and v1 may have another one
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
    return next((each for each in candidates if each in params and each != "custom_fields"), None)


def find_part(
    operation: Operation, stream: Stream | None, key: str, value: object, params: Mapping[str, object]
) -> tuple[str, str] | None:
    """The parameter, and the part of it, that a column names: `currency` of a lead is `value`, `currency`."""
    if stream is None or key not in stream.columns or isinstance(value, dict):
        return None
    if isinstance(value, str) and value.lstrip().startswith("{"):
        return None
    root, _, part = stream.column(key).path(key, operation.version).partition("/")
    return (root, part) if part and root in params else None


def resolve_part(operation: Operation, key: str, part: str, value: object, style: NumberStyle) -> dict[str, Any]:
    """A part of an object that has a column of its own: the amount of a lead's value, a line of an address.

    Raises:
        ConfigError: the value does not fit.
    """
    try:
        if value is None or (part not in ("amount", "currency")):
            return {part: value}
        if part == "currency":
            return {part: typed_values.parse_currency(value)}
        amount, code = typed_values.parse_money(value, style)
        return {part: amount, **({"currency": typed_values.parse_currency(code)} if code else {})}
    except InvalidValue as error:
        raise invalid_value(f"{operation.name}: {key}", value, error) from error


class ParameterResolver:
    """Resolves the values of the built-in parameters of one operation.

    Args:
        names: of the company.
        operation: the change.
        given: all parameters as they were given: one may decide what another one means.
    """

    def __init__(self, names: CompanyNames, operation: Operation, given: Mapping[str, object]) -> None:
        self._names, self._operation, self._given = names, operation, given
        self._stream = find_stream(shape(operation).kind)

    def resolve(self, name: str, value: object, style: NumberStyle) -> dict[str, Any]:
        """The parameter `name`, and `currency` where the value names one.

        Raises:
            ConfigError: the value does not fit, or names no record or option.
        """
        operation = self._operation
        param = {**operation.path_params, **operation.query, **operation.body}[name]
        if is_unresolved(value) and not (isinstance(value, str) and param.type == "string"):  # there "@x" is a text
            return {name: value}
        if name == "field_code" and name in operation.path_params:
            return {name: self._field_code(str(value).strip())}
        column = find_column(self._stream, name, operation.version)
        try:
            if name == "type" and self._stream and self._stream.name == "activities":
                return {name: self._activity_type(value)}
            if is_amount(operation, param, column):
                amount, code = typed_values.parse_money(value, style) if value != "null" else (None, None)
                return {name: amount, **({"currency": typed_values.parse_currency(code)} if code else {})}
            return {name: self._typed(name, param, column, value, style)}
        except InvalidValue as error:
            raise invalid_value(f"{operation.name}: {name}", value, error) from error

    def _typed(self, name: str, param: Param, column: Column | None, value: Any, style: NumberStyle) -> Any:
        if value == "null" and not param.type.startswith("string"):
            return value  # it empties the field
        if param.type == "integer" and isinstance(value, float):  # a query or pandas makes them of a column with nulls
            value = typed_values.parse_integer(value)
        if param.type == "array[object]" and column and {"value", "primary"} <= column.items.keys():
            entries = typed_values.parse_contacts(value)
            if entries is None:
                return value
            is_update = shape(self._operation).verb == "update"
            return entries if is_update else typed_values.complete_contacts(entries, [])
        if param.type in ("object", "array[object]"):
            numbers = _number_parts(self._operation, column)
            return _object(param, value, numbers, style)
        if param.type in ("integer", "string:uuid") and (table := referenced_stream(name, self._stream)):
            takes_inactive = self._operation.method == "DELETE" or shape(self._operation).root == "users"
            return resolve_id(self._names, table, value, name, self._given, takes_inactive=takes_inactive)
        if param.type in ("integer", "number") and (param.enum == (0, 1) or (column and column.type == "BOOLEAN")):
            return int(typed_values.parse_boolean(value))
        if options := self._options(name, param):
            return choose(options, value, many=param.type.startswith("array")) or []
        if name == "currency":
            return typed_values.parse_currency(value)
        return _typed_like_column(param.type, column.type if column else "", self._operation.version, value, style)

    def _options(self, name: str, param: Param) -> list[Option]:
        """The options of a built-in field; none where other values may be given too."""
        names, stream = self._names, self._stream
        if name == "visible_to" and param.type in ("integer", "number", "string"):
            return visibility_levels(names.options(stream, name))
        if param.type not in ("integer", "number", "string", "array[integer]", "array[string]"):
            return []
        if name in ("label_ids", "label") and stream and stream.name == "leads":
            return names.records_as_options("lead_labels")
        for code in ("label_ids", "label") if name in ("label_ids", "label") else (name,):
            options = names.options(stream, code)
            if options and names.field_type(stream, code) not in TEXT_TYPES:
                return options
        if param.type != "string" or param.many:
            return []
        listing = shape(self._operation).listing
        values = param.enum or (listing.query[name].enum if listing and name in listing.query else ())
        return [Option(str(each), str(each)) for each in values]

    def _activity_type(self, value: object) -> object:
        """The key of the type of activity that `value` names. The API lists no types: a mistyped one is refused."""
        types = self._names.records_as_options("activity_types", "key_string")
        in_use = self._names.values_in_use("activities", "type")
        types += [Option(each, each) for each in in_use if each not in {type.id for type in types}]
        try:
            return choose(types, value) if types else value
        except InvalidValue:
            if did_you_mean(str(value), [each.label for each in types]):
                raise
            return value

    def _field_code(self, value: str) -> str:
        """The code of the field that `value` names: by code, label or column."""
        if FIELD_CODE.fullmatch(value):
            return value
        operation = self._operation
        stream = find_stream(shape(operation).root)  # the stream of the fields themselves
        entity = next((each for each in catalogue.streams().values() if stream and each.fields == stream.name), None)
        fields = self._names.custom_fields(entity)
        named = {each.code for each in fields if each.exists and value in (each.label, each.column)}
        if len(named) == 1:
            return named.pop()
        if value.isdecimal():
            raise ConfigError(
                f"{operation.name}: {value} is no code of a field, but may be its number in v1.\n{NOTHING}"
                f' Give the label or the code, or queue the operation of v1: "v1 {operation.id}" id={value}'
            )
        if stream and self._names.has_table(stream.name):
            is_code = self._names.title(stream.name, value) is not None
            return value if is_code else str(resolve_id(self._names, stream.name, value, "field_code", {}))
        if not re.fullmatch(r"[a-z0-9_]+", value):
            raise ConfigError(f"field_code is {value!r}; fields are known by their labels after a sync. {NOTHING}")
        return value


def _number_parts(operation: Operation, column: Column | None) -> frozenset[str]:
    """The parts of an object, or of the objects of a list, that are numbers with decimals, such as an amount.

    Args:
        operation: the change.
        column: that shows the parameter; None: its objects are records, as of an operation that adds several.
    """
    if column is None:
        stream = find_stream(shape(operation).kind.removesuffix("/bulk"))
        parts = {name: stream.column(name).type for name in stream.columns} if stream else {}
    else:
        renamed = column.items_v1 if operation.version == "v1" else column.items_v2
        parts = {renamed.get(name, name): type for name, type in column.items.items()} or {"amount": column.type}
    return frozenset(name for name, type in parts.items() if type.startswith(("DECIMAL", "DOUBLE")))


def _object(param: Param, value: Any, numbers: frozenset[str], style: NumberStyle) -> Any:
    """An object or a list of objects, currencies in upper case; a text is JSON, or the main part of the object.

    Args:
        param: takes objects.
        value: as it was given.
        numbers: the parts that are numbers; a text there is read as one.
        style: how numbers in text are written.
    """
    if isinstance(value, str):
        text = value.lstrip()
        if not text.startswith(("[", "{")):
            return {"value": value} if param.type == "object" else value
        try:
            value = msgspec.json.decode(text)
        except msgspec.DecodeError:
            return value
    if isinstance(value, list | tuple):
        return [_object(param, each, numbers, style) if isinstance(each, dict) else each for each in value]
    if not isinstance(value, dict):
        return value
    read = {
        name: typed_values.parse_number(part, style) if name in numbers and isinstance(part, str) else part
        for name, part in value.items()
    }
    if isinstance(read.get("currency"), str):
        read["currency"] = typed_values.parse_currency(read["currency"])
    return read


def _typed_like_column(type: str, column: str, version: Version, value: object, style: NumberStyle) -> Any:
    """The value of a parameter as the API takes it.

    A "string" is read as the type of the column that shows it, any other parameter as its own type. What has no reader
    is returned as it is.

    Assumption: as "string", v1 takes times as it returns them, in UTC and without a zone; times of day and durations
    without seconds. A "string:date-time" has its zone in both versions.

    Raises:
        InvalidValue: the value does not fit the type.
    """
    if type == "string":
        readers: dict[str, Callable[[], Any]] = {
            "DATE": lambda: typed_values.parse_date(value),
            "TIMESTAMPTZ": lambda: typed_values.parse_timestamp(value, v1=version == "v1"),
            "TIME": lambda: typed_values.parse_time(value, seconds=version == "v2"),
            "INTERVAL": lambda: typed_values.parse_duration(value, seconds=version == "v2"),
            "BIGINT": lambda: str(typed_values.parse_integer(value, style)),  # the length of a call, in seconds
        }
        return readers[column]() if column in readers else value
    if type == "integer" and column.startswith("DECIMAL") and isinstance(value, str):
        return typed_values.parse_integer(value, style)  # the column shows 12 as 12.0000
    readers = {
        "boolean": lambda: typed_values.parse_boolean(value),
        "number": lambda: typed_values.parse_number(value, style),
        "string:date": lambda: typed_values.parse_date(value),
        "string:date-time": lambda: typed_values.parse_timestamp(value),
    }
    return readers[type]() if type in readers else value
