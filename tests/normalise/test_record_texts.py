"""Which text of a record each column is made of: by its path, a part of an object, a fallback, a joined key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pdsync.core import catalogue
from pdsync.model import Column, Source, Stream
from pdsync.normalise.record_texts import RecordTexts, elements_name, is_only_part, text_name

from .kit import fetch, field, seal, table_of

if TYPE_CHECKING:
    import duckdb

    from pdsync.model import Version
    from pdsync.normalise.tables import Table

STREAM = Stream(
    topic="company",
    name="things",
    key="key",
    v1=(Source("getDeals"),),
    v2=(Source("getDeals"),),
    columns={
        "deal_id": Column("BIGINT", v1="@id", v2="@id"),
        "number": "BIGINT",
        "key": Column("VARCHAR", join=("deal_id", "number")),
        "name": "VARCHAR",
        "owner_id": Column("BIGINT", ref=True, v1="user_id"),
        "label_ids": Column("BIGINT[]", v1_else="label"),
        "place": Column("VARCHAR", v2="place/value"),
        "country": Column("VARCHAR", v2="place/country"),
        "zip": Column("VARCHAR", v2="address/zip"),
        "sender": Column("VARCHAR", v1="parties/from", v2="parties/from"),
        "emails": Column("LIST", items={"value": "VARCHAR", "primary": "BOOLEAN"}, items_v1={"value": "v"}),
    },
)
CODE = "c" * 40
CASES: list[tuple[Version, dict[str, Any], dict[str, str | None]]] = [  # version, record, texts by column
    ("v2", {}, {"deal_id": "7", "number": None, "name": None, "zip": None, "key": "7/"}),
    ("v2", {"number": 5, "deal_id": 9}, {"deal_id": "7", "number": "5", "key": "7/5"}),
    ("v2", {"name": True}, {"name": "true"}),
    ("v2", {"name": {"a": [1.5]}}, {"name": '{"a":[1.5]}'}),
    ("v2", {"name": ""}, {"name": ""}),
    ("v1", {"name": "", "number": "", "user_id": ""}, {"name": "", "number": None, "owner_id": None}),
    ("v2", {"number": ""}, {"number": ""}),
    ("v2", {"owner_id": 5}, {"owner_id": "5"}),
    ("v2", {"owner_id": {"id": 5, "name": "Ann"}}, {"owner_id": "5"}),
    ("v1", {"user_id": {"value": 6, "id": 5}}, {"owner_id": "6"}),
    ("v1", {"user_id": {"name": "Ann"}}, {"owner_id": None}),
    ("v1", {"label_ids": "1,2", "label": 3}, {"label_ids": "1,2"}),
    ("v1", {"label": 3}, {"label_ids": "3"}),
    ("v2", {"label": 3}, {"label_ids": None}),
    ("v2", {"place": {"value": "x", "country": "NZ"}}, {"place": "x", "country": "NZ"}),
    ("v2", {"place": "x"}, {"place": "x", "country": None}),
    ("v2", {"place": []}, {"place": None, "country": None}),
    ("v2", {"place": '{"value": "half'}, {"place": '{"value": "half', "country": None}),
    ("v1", {"place": {"value": "x"}}, {"place": '{"value":"x"}'}),
    ("v2", {"address": {"zip": "1"}}, {"zip": "1"}),
    ("v2", {"address": "1"}, {"zip": "\u0001no object: 1"}),
    ("v2", {"parties": {"from": "a", "to": "b"}}, {"sender": "a"}),
    ("v2", {"custom_fields": {CODE: 8}}, {"cf_size": "8"}),
    ("v1", {CODE: 8, "custom_fields": {CODE: 9}}, {"cf_size": "8"}),
    ("v2", {"custom_fields": 5}, {"cf_size": None}),
    (
        "v2",
        {"emails": [{"value": "a", "primary": True, "new": 1}]},
        {"emails": '[{"value":"a","primary":true,"new":1}]'},
    ),
]


FIELDS = [field("things", CODE, "int", "cf_size")]
TABLES: dict[Version, Table] = {version: table_of(STREAM, version, FIELDS) for version in catalogue.VERSIONS}


def read(connection: duckdb.DuckDBPyConnection, table: Table, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The relation of the texts, in the order of `records`."""
    seal(connection, records, {"id": "7"})
    return fetch(connection, f"{RecordTexts(table, 'sealed').relation()} ORDER BY _row_number")


@pytest.mark.parametrize("version", catalogue.VERSIONS)
def test_a_column_is_made_of_the_text_at_its_address(connection: duckdb.DuckDBPyConnection, version: Version) -> None:
    table = TABLES[version]
    names = {column.name: text_name(column).strip('"') for column in table.stored}
    cases = [(record, expected) for of_version, record, expected in CASES if of_version == version]
    rows = read(connection, table, [record for record, _ in cases])
    shown = [
        (record, {column: row[names[column]] for column in expected})
        for (record, expected), row in zip(cases, rows, strict=True)
    ]
    assert shown == cases


@pytest.mark.parametrize(
    ("version", "key", "value", "elements"),
    [
        ("v2", "emails", [{"value": "a", "primary": True}], [{"value": "a", "primary": "true"}]),
        ("v1", "emails", [{"v": "a"}], [{"v": "a", "primary": None}]),
        ("v2", "emails", [{"x": 1}], [{"value": None, "primary": None}]),
        ("v2", "emails", [], None),
        ("v2", "emails", "[{not JSON", None),
        ("v2", "emails", {"value": "a"}, None),
    ],
)
def test_elements_of_a_list_are_texts_too(
    connection: duckdb.DuckDBPyConnection, version: Version, key: str, value: Any, elements: Any
) -> None:
    table = TABLES[version]
    [row] = read(connection, table, [{key: value}])
    emails = next(column for column in table.stored if column.name == "emails")
    assert row[elements_name(emails).strip('"')] == elements


def test_a_part_is_marked_where_no_column_takes_the_plain_value_in_its_objects_place() -> None:
    """`place` is a column for both; of `address` and `parties` there are only parts."""
    parts = {version: [c.name for c in table.stored if is_only_part(table, c)] for version, table in TABLES.items()}
    assert parts == {"v2": ["zip", "sender"], "v1": ["sender"]}
