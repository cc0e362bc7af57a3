"""What the tests of normalising share: pages made of records, their rows, and a walker that looks for every leaf.

The walker knows JSON, the catalogue's paths and DuckDB's Python values, and none of pdsync's SQL: what it can't find
in a row is lost, whatever the code under test thinks of it.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from pdsync.core import catalogue
from pdsync.core.custom_fields import CustomField
from pdsync.model import Column, Page, Source, Stream, Version
from pdsync.normalise import tables
from pdsync.normalise.stage import Quarantined, StagingTable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import duckdb

EXACT_DIGITS = 15  # of a number with a fraction; DuckDB reads JSON's as doubles. Whole numbers are exact at any length.
SERVED = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
Row = dict[str, Any]
# A column of each type and shape that the catalogue knows; small, because DuckDB plans each statement again.
THINGS = Stream(
    topic="company",
    name="things",
    v1=(Source("getDeals"),),
    v2=(Source("getDeals"),),
    columns={
        "id": "BIGINT",
        "name": "VARCHAR",
        "value": "DECIMAL(18, 4)",
        "share": "DOUBLE",
        "done": Column("BOOLEAN", v1="open", negated=("v1",)),
        "owner_id": Column("BIGINT", ref=True, v1="user_id"),
        "due_date": "DATE",
        "due_time": "TIME",
        "lasts": "INTERVAL",
        "update_time": "TIMESTAMPTZ",
        "label_ids": Column("BIGINT[]", v1="label"),
        "folders": "VARCHAR[]",
        "place": Column("VARCHAR", v2="place/value"),
        "place_country": Column("VARCHAR", v2="place/country"),
        "emails": Column("LIST", items={"value": "VARCHAR", "primary": "BOOLEAN"}, v1="email"),
        "prices": Column("LIST", items={"price": "DECIMAL(18, 4)", "product_id": "BIGINT"}),
        "senders": Column("LIST", items={"id": "BIGINT"}, v2="parties/from", v1="parties/from"),
    },
)


def encode(value: Any) -> str:
    """JSON, with every digit of a Decimal; lone surrogates as escapes."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{encode(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(encode, value)) + "]"
    return str(value) if isinstance(value, Decimal) else json.dumps(value)


def decode(text: str | bytes) -> Any:
    """JSON with exact numbers."""
    return json.loads(text, parse_float=Decimal)


def page(records: Iterable[Any], seq: int = 0, *, last: bool = True, served_at: datetime = SERVED) -> Page:
    """A page of `records`: Python values, or bytes that stand in it as they are."""
    texts = [each.decode("utf-8", "surrogateescape") if isinstance(each, bytes) else encode(each) for each in records]
    body = b'{"success":true,"data":[' + ",".join(texts).encode("utf-8", "surrogateescape") + b"]}"
    return Page(1, seq, body, len(texts), None if last else str(seq + 1), served_at)


def table_of(stream: Stream, version: Version, fields: Sequence[CustomField] = ()) -> tables.Table:
    return tables.table(stream, version, fields, catalogue.field_types())


def field(stream: str, code: str, kind: str, column: str) -> CustomField:
    return CustomField(stream, code, kind, column, column, SERVED, SERVED)


def staged(
    connection: duckdb.DuckDBPyConnection, table: tables.Table, pages: Sequence[Page]
) -> tuple[list[Row], list[Quarantined]]:
    """The rows that `pages` become, in the order of their keys, and what was quarantined."""
    stage = StagingTable(connection, "staged_by_test", table)
    stage.add(pages)
    rows: list[Row] = []
    if stage.rows or stage.quarantined:
        query = f'SELECT * EXCLUDE (_row_number) FROM {stage.relation} ORDER BY "{table.stream.key}"'
        rows = fetch(connection, query)
        assert len(rows) == stage.rows
    quarantined = stage.quarantined
    stage.clear()
    return rows, quarantined


def seal(connection: duckdb.DuckDBPyConnection, records: Sequence[Any], context: dict[str, str] | None = None) -> None:
    """Make the temporary table `sealed` of `records`, as the statements of a table read it."""
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE sealed (row VARCHAR, context VARCHAR, row_number BIGINT, seq BIGINT,"
        " served_at TIMESTAMPTZ)"
    )
    for number, record in enumerate(records):
        values = [encode(record), encode(context or {}), number, 0, SERVED]
        connection.execute("INSERT INTO temp.sealed VALUES (?, ?, ?, ?, ?)", values)


def fetch(connection: duckdb.DuckDBPyConnection, query: str) -> list[Row]:
    """The rows of `query` by column name."""
    cursor = connection.execute(query)
    names = [column[0] for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def rows_of(
    connection: duckdb.DuckDBPyConnection, version: Version, values: Sequence[tuple[str, Any]]
) -> list[tuple[Row, dict[str, Any] | None]]:
    """For each key and value the row, and the `_extra`, of a record of THINGS with that key."""
    records = [{"id": number, key: value} for number, (key, value) in enumerate(values)]
    rows, quarantined = staged(connection, table_of(THINGS, version), [page(records)])
    assert quarantined == []
    return [(row, row["_extra"] and decode(row["_extra"])) for row in rows]


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every scalar that says something: neither null nor empty text, which is v1's null."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from leaves(inner, (*path, str(index)))
    elif value is not None and value != "":
        yield path, value


def lost(record: Row, row: Row, table: tables.Table) -> list[tuple[tuple[str, ...], Any]]:
    """The leaves of `record` that `row` does not hold: neither in a column that its key belongs to nor in `_extra`."""
    extra = decode(row["_extra"]) if row["_extra"] else {}
    homes: dict[str, list[tuple[str, bool]]] = {}
    for name in table.stream.columns:
        column = table.stream.column(name)
        key = column.path(name, table.version).split("/")[0]
        homes.setdefault(key, []).append((name, table.version in column.negated))
    customs: dict[str, list[str]] = {}
    for made in table.columns:
        if made.code and made.label_of is None:
            customs.setdefault(made.code, []).append(made.name)
    missing = []
    for path, leaf in leaves(record):
        columns = homes.get(path[0], [])
        if path[0] == "custom_fields" and len(path) > 1:
            columns = [(name, False) for name in customs.get(path[1], [])]
        elif path[0][:40] in customs:
            columns = [(name, False) for name in customs[path[0][:40]]]
        typed = any(same(leaf, row[name]) or (negated and opposite(leaf, row[name])) for name, negated in columns)
        if not typed and not _in_extra(extra, path, leaf):
            missing.append((path, leaf))
    return missing


def _in_extra(extra: Any, path: tuple[str, ...], leaf: Any) -> bool:
    """Whether `_extra` holds `leaf` where it stood; its own keys are JSON pointers without the first slash."""
    for depth in range(1, len(path) + 1):
        key = "/".join(part.replace("~", "~0").replace("/", "~1") for part in path[:depth])
        if key in extra and any(same(leaf, found) for _, found in leaves(_at(extra[key], path[depth:]))):
            return True
    whole = extra.get("_as_it_came")
    return whole is not None and any(same(leaf, found) for _, found in leaves(_at(decode(whole), path)))


def _at(value: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value


def opposite(leaf: Any, stored: Any) -> bool:
    return isinstance(stored, bool) and same(leaf, not stored)


def same(leaf: Any, stored: Any) -> bool:
    """Whether `stored`, a value of a row, says what `leaf`, a JSON scalar, says."""
    if stored is None:
        return False
    if isinstance(leaf, str) and leaf[:1] in ("[", "{") and not isinstance(stored, str) and _same_inside(leaf, stored):
        return True
    if isinstance(stored, list):
        parts = leaf.split(",") if isinstance(leaf, str) and "," in leaf else [leaf]
        return any(same(leaf, each) for each in stored) or all(
            any(same(part, each) for each in stored) for part in parts
        )
    if isinstance(stored, dict):
        return any(same(leaf, each) for each in stored.values())
    if isinstance(stored, bool):
        return leaf in ([True, 1, "1", "true", "True", "t", "yes"] if stored else [False, 0, "0", "false", "False"])
    if isinstance(stored, int | float | Decimal):
        return same_number(leaf, stored)
    if isinstance(stored, timedelta) and (not isinstance(leaf, str) or leaf.isdigit()):
        return same_number(leaf, Decimal(stored // timedelta(microseconds=1)) / 10**6)
    if isinstance(stored, datetime | date | time | timedelta):
        return isinstance(leaf, str) and same_moment(leaf, stored)
    return same_text(leaf, stored)


def _same_inside(leaf: str, stored: Any) -> bool:
    """A text that spells JSON is taken for what it spells."""
    try:
        return all(same(each, stored) for _, each in leaves(decode(leaf)))
    except ValueError:
        return False


def same_text(leaf: Any, stored: Any) -> bool:
    """Text holds text, a number or flag as JSON writes it, or a whole object."""
    if not isinstance(stored, str):
        return False
    if leaf == stored or (not isinstance(leaf, str) and encode(leaf) == stored):
        return True
    if isinstance(leaf, Decimal) and re.fullmatch(r"-?[\d.]+([eE][-+]?\d+)?", stored):
        return same_number(leaf, Decimal(stored))
    try:
        inside = decode(stored)
    except ValueError:
        return False
    if isinstance(leaf, Decimal):
        return any(same_number(leaf, each) for _, each in leaves(inside) if isinstance(each, int | Decimal))
    return any(leaf == each and type(leaf) is type(each) for _, each in leaves(inside))


def same_number(leaf: Any, stored: float | Decimal) -> bool:
    """Numbers are equal as written. One with a fraction of more digits than a double holds arrives as that double."""
    try:
        said = Decimal(int(leaf, 0)) if isinstance(leaf, str) and leaf.startswith("0x") else Decimal(str(leaf))
    except InvalidOperation:
        return isinstance(leaf, bool) and stored == int(leaf)
    if said.is_nan():
        return stored != stored
    if isinstance(stored, float):
        return float(said) == stored
    is_long = isinstance(leaf, Decimal) and len(said.as_tuple().digits) > EXACT_DIGITS
    return said == stored or (is_long and float(said) == float(stored))


def same_moment(leaf: str, stored: datetime | date | time | timedelta) -> bool:
    if leaf.lower().removeprefix("-") in ("inf", "infinity"):  # what DuckDB reads as a time too
        return str(stored).startswith("0001-01-01" if leaf.startswith("-") else "9999-12-31")
    try:
        if isinstance(stored, datetime):
            said = datetime.fromisoformat(leaf)
            return (said if said.tzinfo else said.replace(tzinfo=UTC)) == stored
        if isinstance(stored, timedelta):
            hours, minutes, *seconds = (int(part) for part in leaf.split(":"))
            return timedelta(hours=hours, minutes=minutes, seconds=seconds[0] if seconds else 0) == stored
        return type(stored).fromisoformat(leaf) == stored
    except ValueError:
        return False
