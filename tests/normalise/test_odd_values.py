"""Whatever stands in a column's place, the row says it: typed where it fits, whole in `_extra` where it does not."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from pdsync.core import catalogue

from .kit import decode, encode, field, lost, page, staged, table_of

if TYPE_CHECKING:
    import duckdb

    from pdsync.model import Stream, Version

ODD: list[Any] = [
    None, True, False, 0, 1, -1, 1.5, Decimal("1.23456789"), Decimal("12345678901234.56789"), Decimal("1e-1"),
    Decimal("5e3"), 10**30 + 1, -(10**19) - 7, Decimal("0.1234567890123456789"),
    "", " ", "x", "null", "1.5", "1e3", "1e-1", "1_000", "0x1F", "+5", "0012", "true", "yes", "t", "NaN",
    "2026-01-01", "2026-13-01", "0000-00-00 00:00:00", "2026-01-01 10:00:00", "2026-01-01T10:00:00Z", "infinity",
    "10:20", "01:02:03", "10:20:30.1234567", "{", "[", "[{", "{foo", "[1,", "[{]", "[1,2]", "5,9", "5,x", ",",
    [], {}, [1, 2], [1.5, 2], ["5", "x"], [None, 1], [[1]], [{"a": 1}], [{"value": "a", "x": 1}, 5], [{"value": ""}],
    [{"value": 1, "label": None}], [{"price": Decimal("1.23456")}], [{"price": "x"}], [{"person_id": 1.5}],
    {"value": 5}, {"value": 5, "id": 6}, {"id": 7}, {"value": {"value": 1}}, {"value": None, "x": 1},
    {"Value": 1, "value": 2}, {"from": [{"id": 1, "new": 2}]}, {"from": "x", "to": {"a": 1}},
    "a\0b", "\ud83d", "ü\u202e", {"a\0b": {"\ud83d": "\ud83d"}},
]  # fmt: skip
LISTED = [
    pytest.param(stream, version, id=f"{stream.name}-{version}")
    for stream in catalogue.streams().values()
    for version in catalogue.VERSIONS
    if (stream.v2 if version == "v2" else stream.v1) and not stream.name.startswith(("person_f", "organ", "product_f"))
]


@pytest.mark.parametrize(("stream", "version"), LISTED)
def test_no_value_is_lost_in_any_column(
    connection: duckdb.DuckDBPyConnection, stream: Stream, version: Version
) -> None:
    """One record for each odd value, which stands in every column but the key."""
    table = table_of(stream, version)
    keys = {stream.column(name).path(name, version).split("/")[0] for name in stream.columns}
    made_of = stream.column(stream.key).join or (stream.key,)
    if any("/" in stream.column(name).path(name, version) for name in made_of):
        pytest.skip("the key lies inside an object")
    parts = [  # of a key that is made of several columns
        stream.column(name).path(name, version).split("/")[0] for name in made_of
    ]
    asked = {key.removeprefix("@"): "7" for key in keys if key.startswith("@")}
    keys = {key for key in keys if not key.startswith("@")} - set(parts)
    records = [
        {
            **dict.fromkeys(keys | {"unknown"}, odd),
            **{part: number for part in parts if not part.startswith("@")},
        }
        for number, odd in enumerate(ODD, 100)
    ]
    if not records[0].keys() & set(parts):
        pytest.skip("the key is made of what was asked for, and no record has any of it")

    rows, quarantined = staged(connection, table, [replace(page(records), context=asked)])

    assert not quarantined
    assert len(rows) == len(ODD)
    by_key = {str(row[stream.key]): row for row in rows}
    for record in records:
        as_sent = decode(encode(record))
        key = "/".join("7" if part.startswith("@") else str(record[part]) for part in parts)
        assert lost(as_sent, by_key[key], table) == [], f"of {as_sent['unknown']!r}"


@pytest.mark.parametrize("version", catalogue.VERSIONS)
def test_no_value_is_lost_in_a_custom_field_of_any_type(
    connection: duckdb.DuckDBPyConnection, version: Version
) -> None:
    kinds = [*catalogue.field_types(), "varchar", "phone", "a type of tomorrow"]
    fields = [field("deals", f"{number:040x}", kind, f"cf_{number}") for number, kind in enumerate(kinds)]
    table = table_of(catalogue.stream("deals"), version, fields)
    records: list[dict[str, Any]] = []
    for number, odd in enumerate(ODD, 100):
        values = dict.fromkeys((each.code for each in fields), odd)
        records.append({"id": number, **(values if version == "v1" else {"custom_fields": values})})

    rows, quarantined = staged(connection, table, [page(records)])

    assert not quarantined
    for record, row in zip(records, rows, strict=True):
        assert lost(decode(encode(record)), row, table) == []
