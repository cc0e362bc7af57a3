"""Resolves custom fields: which field a key names, and what its value is as the API takes it.

A key is a label, a column of the warehouse (`cf_deal_size`, or a part of it: `cf_deal_size_currency`) or a code of 40
hexadecimal digits. A value with parts, such as an amount and its currency, may be given as one value, as an object, or
part by part.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

import msgspec

from pdsync.core import catalogue, cells
from pdsync.core.actions import hint_for
from pdsync.errors import ConfigError
from pdsync.writeback import typed_values
from pdsync.writeback.choices import choose, visibility_levels
from pdsync.writeback.company_names import FIELD_CODE, Field
from pdsync.writeback.messages import NOTHING, invalid_value
from pdsync.writeback.record_names import STREAM_OF_TYPE, WHOLE, resolve_id
from pdsync.writeback.typed_values import InvalidValue

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pdsync.model import Operation, Stream
    from pdsync.writeback.company_names import CompanyNames
    from pdsync.writeback.typed_values import NumberStyle

TEXT_TYPES = ("varchar", "varchar_auto", "varchar_options", "text")  # fields that take any text, options or not
_MAIN_PARTS = ("value", "label", "labels")


def set_custom_field(
    names: CompanyNames,
    operation: Operation,
    stream: Stream | None,
    key: str,
    value: object,
    *,
    custom: Mapping[str, Any],
    params: Sequence[str],
    style: NumberStyle,
) -> dict[str, Any]:
    """The code of the custom field that `key` names, with its value.

    Args:
        names: of the company.
        operation: the change.
        stream: the stream of its records.
        key: the name of the field, or of a part of its value.
        value: as it was given.
        custom: the values that earlier keys have set: a part is merged with the other parts.
        params: the built-in parameters, for the message about an unknown key.
        style: how numbers are written.

    Raises:
        ConfigError: no field has the name, several have it, it was deleted, or the value does not fit.
    """
    field, part = find_field(names, operation, stream, key, params)
    is_main = part in _MAIN_PARTS
    parts = _parts_of_object(field, value) if is_main else None
    typed: Any = {}
    for name, inner in (parts or {part: value}).items():
        try:
            one = _typed_part(names, stream, field, name, inner, style, is_code=key[:40] == field.code)
        except InvalidValue as error:
            raise invalid_value(
                repr(field.label if name in _MAIN_PARTS else f"{field.label} ({name})"), inner, error
            ) from error
        if is_main and parts is None:
            typed = one
        elif name == "value" and isinstance(one, dict) and "$ref" not in one:
            typed |= one
        else:
            typed[name] = one
    if field.code not in custom:
        return {field.code: typed}
    earlier = custom[field.code]
    if _is_empty(earlier) and _is_empty(typed):
        return {field.code: None}
    if isinstance(earlier, dict) and is_main and not isinstance(typed, dict):
        typed = {"value": typed}
    if not isinstance(earlier, dict) or not isinstance(typed, dict) or contradict(earlier, typed):
        raise ConfigError(f"{operation.name}: {field.label!r} is given twice ({key!r}). {NOTHING}")
    return {field.code: {**earlier, **typed}}


def find_field(
    names: CompanyNames, operation: Operation, stream: Stream | None, key: str, params: Sequence[str]
) -> tuple[Field, str]:
    """The custom field that `key` names, and the part of its value ("value" for all of it).

    Raises:
        ConfigError: no field has the name, several have it, or it was deleted.
    """
    fields = names.custom_fields(stream)
    if operation.custom_fields:
        code, part = key[:40], key[40:].removeprefix("_")
        if FIELD_CODE.fullmatch(code) and (key == code or key[40] == "_"):
            unlisted = Field(code, code, code, "")
            found = next((each for each in fields if each.code == code), unlisted)
            return _existing(operation, fields, found), part or "value"
        if labelled := _find_label(operation, fields, key):
            return labelled, "value"
        if column := next((each for each in fields if key == each.column), None):
            return _existing(operation, fields, column), "value"
        for each in fields:
            if key.startswith(f"{each.column}_") and key[len(each.column) + 1 :] in _parts(each.type):
                return _existing(operation, fields, each), key[len(each.column) + 1 :]
    existing = [each for each in fields if each.exists]
    candidates = [*params, *(each.label for each in existing), *(each.column for each in existing)]
    near = difflib.get_close_matches(key, candidates, n=3, cutoff=0.6)
    guess = hint_for(operation, key) or (f" Did you mean {' or '.join(map(repr, near))}?" if near else "")
    unsynced = ""
    if operation.custom_fields and not fields:
        unsynced = " Custom fields are known by name after a sync: pdsync sync."
    takes = f" It takes {', '.join(params)}." if params and not near else ""
    raise ConfigError(f"{operation.name} has no parameter {key!r}.{guess}{takes}{unsynced}\n{NOTHING}")


def refuse_incomplete(operation: Operation, fields: list[Field], custom: Mapping[str, Any]) -> None:
    """Refuse a currency without an amount, or an end without a begin: a new record has no other part yet.

    Raises:
        ConfigError: a value lacks its main part.
    """
    for code, value in custom.items():
        if isinstance(value, dict) and value.get("value") is None and not is_reference(value) and not _is_empty(value):
            label = next((each.label for each in fields if each.code == code), code)
            raise ConfigError(f"{operation.name}: {label!r} has {', '.join(value)} and no value. {NOTHING}")


def as_v1_parameters(custom: Mapping[str, Any]) -> dict[str, Any]:
    """Custom fields as v1 takes them: next to the other parameters, with the parts of a value as keys of their own."""
    flat: dict[str, Any] = {}
    for code, value in custom.items():
        if isinstance(value, dict) and not is_reference(value):
            flat |= {code if part == "value" else f"{code}_{part}": inner for part, inner in value.items()}
        else:
            flat[code] = ",".join(map(str, value)) if isinstance(value, list) else value
    return flat


def contradict(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two objects have different values for the same part."""
    return any(part in one and one[part] != value for part, value in other.items())


def is_reference(value: object) -> bool:
    """Whether a value is a reference to the record that another mutation adds."""
    return isinstance(value, dict) and "$ref" in value


def is_unresolved(value: object) -> bool:
    """Whether a value is sent as it is: null, or a reference to a record that does not exist yet."""
    return value is None or (isinstance(value, str) and value.startswith("@")) or is_reference(value)


def _find_label(operation: Operation, fields: list[Field], label: str) -> Field | None:
    """The custom field with this label; with another case only if that leaves no doubt."""
    exact = [each for each in fields if each.label == label]
    similar = [each for each in fields if each.label.strip().lower() == label.strip().lower()]
    is_column = label in {each.column for each in fields if each.exists}
    if similar and not any(each.exists for each in similar) and not is_column:
        _existing(operation, fields, similar[0])
    for matches in ([each for each in exact if each.exists], [each for each in similar if each.exists]):
        if len({each.code for each in matches}) > 1:
            columns = ", ".join(sorted(each.column for each in matches))
            raise ConfigError(
                f"{operation.name}: several custom fields are called {label!r}. {NOTHING}\n"
                f"Name one by its column: {columns}."
            )
        if matches:
            return matches[0]
    return None


def _existing(operation: Operation, fields: list[Field], field: Field) -> Field:
    """`field`, if Pipedrive still has it."""
    if field.exists:
        return field
    successor = next((each for each in fields if each.exists and each.label == field.label), None)
    instead = f" The field of that name is now {successor.column}." if successor else ""
    raise ConfigError(
        f"{operation.name}: the custom field {field.label!r} ({field.column}) was deleted.{instead} {NOTHING}"
    )


def _parts(type: str) -> set[str]:
    """The parts of the values of a field of `type`."""
    kind = catalogue.field_types().get(type)
    parts = set(kind.columns) if kind else {"value"}
    return parts | ({"label", "labels"} if kind and kind.options else set())


def _parts_of_object(field: Field, value: object) -> dict[str, Any] | None:
    """The parts of a value that was given as an object, if values of the field have parts."""
    if not {"value"} < _parts(field.type) or is_reference(value):
        return None
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = msgspec.json.decode(value)
        except msgspec.DecodeError:
            return None
    return value if isinstance(value, dict) and value else None


def _typed_part(
    names: CompanyNames,
    stream: Stream | None,
    field: Field,
    part: str,
    value: object,
    style: NumberStyle,
    *,
    is_code: bool,
) -> Any:
    """One part of a value; `is_code`: the field was named by its code, as programs do, so integers are ids."""
    if is_unresolved(value):
        return value
    kind = catalogue.field_types().get(field.type)
    if part not in _MAIN_PARTS:
        return _further_part(field, part, value)
    if kind and kind.options:
        options = names.options(stream, field.code)
        return choose(options, value, many=kind.columns["value"].endswith("[]"), ids_only=is_code)
    if value == "null" and field.type not in (*TEXT_TYPES, "phone", ""):
        return None
    if table := STREAM_OF_TYPE.get(field.type):
        return _as_id(resolve_id(names, table, value, field.label, {}))
    if field.type == "visible_to":
        options = names.options(stream, field.code) or visibility_levels(names.options(stream, "visible_to"))
        return choose(options, value, ids_only=is_code)
    return _typed(field.type, value, style)


def _further_part(field: Field, part: str, value: object) -> Any:
    """A part other than the main one: the currency of an amount, the end of a range, a line of an address."""
    if part == "currency":
        return typed_values.parse_currency(value)
    if part == "until":
        return typed_values.parse_date(value) if field.type == "daterange" else typed_values.parse_time(value)
    return typed_values.parse_integer(value) if part == "timezone_id" else cells.cell_text(value)


def _typed(type: str, value: object, style: NumberStyle) -> Any:
    """The value of a field whose type has no options and refers to no record, as v2 takes it."""
    if type == "monetary":
        amount, code = typed_values.parse_money(value, style)
        return {"value": amount, **({"currency": typed_values.parse_currency(code)} if code else {})}
    if type == "double":
        return typed_values.parse_number(value, style)
    if type == "int":
        return typed_values.parse_integer(value, style)
    if type == "boolean":
        return typed_values.parse_boolean(value)
    if type == "date":
        return typed_values.parse_date(value)
    if type == "time":
        return {"value": typed_values.parse_time(value)}
    if type in ("daterange", "timerange"):
        return typed_values.parse_range(value, type)
    if type == "address":
        return {"value": cells.cell_text(value)}
    if type in (*TEXT_TYPES, "phone"):
        return cells.cell_text(value)
    return value


def _as_id(value: Any) -> Any:
    """An id as a custom field takes it."""
    if isinstance(value, str):
        return int(value) if WHOLE.fullmatch(value) else value
    return typed_values.parse_integer(value)


def _is_empty(value: Any) -> bool:
    return all(inner is None for inner in value.values()) if isinstance(value, dict) else value is None
