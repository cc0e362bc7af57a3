"""Finds the currency of an amount of money, which people want beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pdsync.writeback.shapes import find_stream, shape

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pdsync.model import Column, Operation, Param, Stream, Version


def find_column(stream: Stream | None, name: str, version: Version) -> Column | None:
    """The column of the table that shows the parameter `name`."""
    if stream is None:
        return None
    own = [each for each in stream.columns if each == name]
    found = own or [each for each in stream.columns if stream.column(each).path(each, version) == name]
    return stream.column(found[0]) if found else None


def is_amount(operation: Operation, param: Param, column: Column | None) -> bool:
    """Whether a built-in parameter, which a column shows, is an amount in the currency of its record."""
    is_decimal = column is not None and column.type.startswith("DECIMAL")
    return param.type == "number" and is_decimal and "currency" in operation.body


def is_amount_field(operation: Operation, field: str) -> bool:
    """Whether a field of a payload, named as `equality.fields` names it, is an amount in its record's currency."""
    param, stream = operation.body.get(field), find_stream(shape(operation).kind)
    return param is not None and is_amount(operation, param, find_column(stream, field, operation.version))


def find_currency(operation: Operation, field: str, value: Any, record: Mapping[str, Any]) -> str | None:
    """The code of the currency that a value of a field is in; None where it is no amount, or where it is unknown.

    Args:
        operation: the change.
        field: of its payload, as `equality.fields` names it.
        value: a number, or an amount with its currency.
        record: all values of the record.
    """
    if isinstance(value, dict):
        code = value.get("currency")
    else:
        code = record.get("currency") if value is not None and is_amount_field(operation, field) else None
    return code if isinstance(code, str) and code else None


def currencies_in(params: Any) -> Iterator[str]:
    """The codes of currencies that parameters name, wherever they have an amount."""
    if isinstance(params, list):
        for each in params:
            yield from currencies_in(each)
    elif isinstance(params, dict):
        for name, value in params.items():
            if name == "currency" and isinstance(value, str):
                yield value
            else:
                yield from currencies_in(value)
