"""Carries the rows of a query out of DuckDB without losing a value that Arrow, Parquet or Python has no type for.

DuckDB's dates reach from 5877642 BC to the year 5881580 and to `infinity`, its times of day to 24:00 and to the
nanosecond. Python's datetime ends at the year 9999 and at the microsecond: values beyond become text, in the same
notation (`20222-01-01`, `0044-03-15 (BC)`, `infinity`). Intervals, which Parquet can't store with their sign and
Arrow's Parquet writer not at all, become text for all readers, as do the types that DuckDB converts to Arrow with a
loss: times with a zone, bit strings, integers beyond 128 bits.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pdsync.sql import quoted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import tzinfo

    import duckdb

_AS_TEXT = {"interval", "time with time zone", "bit", "bignum", "uhugeint", "variant", "union", "tuple", "geometry"}
_EPOCH = date(1970, 1, 1)
_FIRST_DAY, _LAST_DAY = (date.min - _EPOCH).days, (date.max - _EPOCH).days
_CYCLE_DAYS, _CYCLE_YEARS = 146_097, 400  # after which the calendar repeats
_NS = {"s": 10**9, "ms": 10**6, "us": 1000, "ns": 1}  # of Arrow's units
_DAY_NS = 86_400 * 10**9
_NO_DAY, _NO_MOMENT = 2**31 - 1, 2**63 - 1  # DuckDB's infinity, and with a minus sign the other one


def fetch_table(relation: duckdb.DuckDBPyRelation) -> pa.Table:
    """Run a query and return its rows as an Arrow table that Parquet can store.

    Raises:
        duckdb.Error: the query fails.
    """
    return _as_text(relation).to_arrow_table()


def fetch_rows(relation: duckdb.DuckDBPyRelation, batch_rows: int = 1000) -> Iterator[dict[str, Any]]:
    """Run a query and yield its rows by column name, `batch_rows` of them in memory at a time; see `python_values`.

    The relation's connection must not run another query before the last row is read.
    """
    for batch in _as_text(relation).to_arrow_reader(batch_rows):
        yield from python_rows(pa.Table.from_batches([batch]))


def _as_text(relation: duckdb.DuckDBPyRelation) -> duckdb.DuckDBPyRelation:
    """`relation` with the columns as text that Arrow or Parquet can't store without a loss."""
    casts = [_cast(kind) for kind in relation.types]
    if not any(casts):  # not everything that answers can be selected from
        return relation
    columns = zip(relation.columns, casts, strict=True)
    return relation.project(
        ", ".join(
            f"#{number}{f'::{cast}' if cast else ''} AS {quoted(column)}"
            for number, (column, cast) in enumerate(columns, 1)
        )
    )


def _cast(kind: Any) -> str | None:
    """The type that a column of type `kind` is cast to; None where it stays as it is."""
    if kind.id in _AS_TEXT:
        return "VARCHAR"
    if kind.id == "struct":
        inner = {part: (each, _cast(each)) for part, each in kind.children}
        if any(cast for _, cast in inner.values()):
            return f"STRUCT({', '.join(f'{quoted(part)} {cast or each}' for part, (each, cast) in inner.items())})"
    elif kind.id == "array":  # of a fixed size: DuckDB 1.5 can't hand one that is NULL to Arrow
        return f"{_cast(kind.children[0][1]) or kind.children[0][1]}[]"
    elif kind.id == "list" and (cast := _cast(kind.children[0][1])):
        return f"{cast}[]"
    elif kind.id == "map":
        sides = [(each, _cast(each)) for _, each in kind.children]
        if any(cast for _, cast in sides):
            return f"MAP({', '.join(cast or str(each) for each, cast in sides)})"
    return None


def python_rows(table: pa.Table) -> list[dict[str, Any]]:
    """The rows of an Arrow table by column name; see `python_values`."""
    columns = [python_values(column) for column in table.columns]
    return [dict(zip(table.column_names, row, strict=True)) for row in zip(*columns, strict=True)]


def python_values(column: pa.ChunkedArray) -> list[Any]:
    """The values of an Arrow column: dates and times that Python has no value for as text."""
    if not _has_time(column.type):
        return list(column.to_pylist())
    return [value for chunk in column.chunks for value in _values(chunk)]


def _has_time(kind: pa.DataType) -> bool:
    if pa.types.is_nested(kind):
        return any(_has_time(kind.field(index).type) for index in range(kind.num_fields))
    return bool(pa.types.is_temporal(kind))


def _values(array: pa.Array) -> list[Any]:
    kind = array.type
    if not _has_time(kind):
        return list(array.to_pylist())
    if pa.types.is_struct(kind):
        names = [kind.field(index).name for index in range(kind.num_fields)]
        parts = zip(*(_values(part) for part in array.flatten()), strict=True)
        found = [dict(zip(names, part, strict=True)) for part in parts]
        return [value if there else None for value, there in zip(found, array.is_valid().to_pylist(), strict=True)]
    if pa.types.is_map(kind):
        pairs = [None if each is None else _values(each) for each in _elements(array)]
        return [each and [tuple(pair.values()) for pair in each] for each in pairs]
    if pa.types.is_nested(kind):
        return [None if each is None else _values(each) for each in _elements(array)]
    if pa.types.is_date32(kind):
        return [None if days is None else _day(days) for days in array.cast(pa.int32()).to_pylist()]
    whole = array.cast(pa.int32() if kind.bit_width == 32 else pa.int64()).to_pylist()
    if pa.types.is_time(kind):
        return [None if count is None else _clock(count * _NS[kind.unit]) for count in whole]
    if pa.types.is_timestamp(kind):
        zone = UTC if kind.tz else None
        return [None if count is None else _moment(count, _NS[kind.unit], zone) for count in whole]
    return list(array.to_pylist())


def _elements(array: pa.Array) -> list[pa.Array | None]:
    """The lists in an array of lists or maps, each as an array; of a map, its pairs."""
    return [each.values if each.is_valid else None for each in array]


def _day(days: int) -> date | str:
    if _FIRST_DAY <= days <= _LAST_DAY:
        return _EPOCH + timedelta(days)
    if abs(days) == _NO_DAY:
        return "infinity" if days > 0 else "-infinity"
    cycles, rest = divmod(days, _CYCLE_DAYS)
    within = _EPOCH + timedelta(rest)
    year = within.year + cycles * _CYCLE_YEARS
    return f"{year:04}-{within:%m-%d}" if year > 0 else f"{1 - year:04}-{within:%m-%d} (BC)"


def _clock(nanoseconds: int) -> time | str:
    seconds, fraction = divmod(nanoseconds, 10**9)
    if seconds < 86_400 and fraction % 1000 == 0:
        return time(seconds // 3600, seconds // 60 % 60, seconds % 60, fraction // 1000)
    return _clock_text(nanoseconds)


def _clock_text(nanoseconds: int) -> str:
    seconds, fraction = divmod(nanoseconds, 10**9)
    digits = f"{fraction:09}".rstrip("0")
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{f'.{digits}' if digits else ''}"


def _moment(count: int, unit_ns: int, zone: tzinfo | None) -> datetime | str:
    if abs(count) == _NO_MOMENT:
        return "infinity" if count > 0 else "-infinity"
    days, rest = divmod(count * unit_ns, _DAY_NS)
    day = _day(days)
    if isinstance(day, date) and rest % 1000 == 0:
        return datetime(day.year, day.month, day.day, tzinfo=zone) + timedelta(microseconds=rest // 1000)
    text, before_christ, _ = (day.isoformat() if isinstance(day, date) else day).partition(" (BC)")
    return f"{text}T{_clock_text(rest)}{'Z' if zone else ''}{before_christ}"
