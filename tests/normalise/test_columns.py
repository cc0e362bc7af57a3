"""The statements of a table: which keys are expected, which shapes are told apart, and what a row's hash is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pdsync.core import catalogue
from pdsync.normalise.columns import StagingSql

from .kit import THINGS, fetch, field, seal, table_of

if TYPE_CHECKING:
    import duckdb

    from pdsync.model import Version

CODE = "c" * 40
FIELDS = [field("things", CODE, "monetary", "cf_size")]


def sql(version: Version) -> StagingSql:
    return StagingSql(table_of(THINGS, version, FIELDS), "sealed")


def test_keys_are_expected_where_a_column_takes_them() -> None:
    built_in = {"id", "name", "value", "share", "due_date", "due_time", "lasts", "update_time", "folders", "prices"}
    assert sql("v2").expected_keys() == {
        "": built_in | {"done", "owner_id", "label_ids", "place", "emails", "parties", "custom_fields"},
        "/place": {"value", "country"},
        "/parties": {"from"},
        "/custom_fields": {CODE},
        f"/custom_fields/{CODE}": {"value", "currency"},
    }
    v1 = built_in | {"open", "user_id", "label", "place", "place_country", "email", "parties", CODE, f"{CODE}_currency"}
    assert sql("v1").expected_keys() == {"": v1, "/parties": {"from"}}


def test_v1_has_more_of_users_and_emails_than_their_columns_store() -> None:
    assert sql("v2").always_residual() == set()
    assert sql("v1").always_residual() == {"owner_id", "emails"}


@pytest.mark.parametrize("version", catalogue.VERSIONS)
def test_the_columns_are_those_of_the_statement(connection: duckdb.DuckDBPyConnection, version: Version) -> None:
    made = sql(version)
    query = made.select({"/new": "true"}, {"value", *made.always_residual()})
    seal(connection, [])
    shown = connection.execute(f"DESCRIBE {query}").fetchall()
    columns = {row[0]: row[1] for row in shown}
    assert list(columns) == list(made.columns())
    stored = {column.name for column in made.stored}
    assert {n: t for n, t in columns.items() if n not in stored} == {
        n: "TIMESTAMP WITH TIME ZONE" if t == "TIMESTAMPTZ" else t for n, t in made.columns().items() if n not in stored
    }


@pytest.mark.parametrize(
    ("same", "records"),
    [
        (True, [{"id": 1, "name": "a"}, {"id": 2, "name": None}]),
        (False, [{"id": 1}, {"id": 1, "new": 1}]),
        (False, [{"id": 1, "custom_fields": {}}, {"id": 1, "custom_fields": {"new": 1}}]),
        (False, [{"id": 1, "place": {"value": 1}}, {"id": 1, "place": {"new": 1}}]),
        (False, [{"id": 1, "emails": [{"value": "a"}]}, {"id": 1, "emails": [{"value": "a"}, {"new": "a"}]}]),
        (False, [{"id": 1, "emails": [{"value": "a"}]}, {"id": 1, "emails": ["a"]}]),
        (True, [{"id": 1, "emails": [{"value": "a" * 300}]}, {"id": 1, "emails": [{"value": "a" * 200}] * 9}]),
    ],
)
def test_records_have_one_shape_where_their_keys_are_the_same(
    connection: duckdb.DuckDBPyConnection, same: bool, records: list[dict[str, Any]]
) -> None:
    """A new shape is looked at for keys that no column takes: seen too often it costs time, too rarely a value."""
    made = sql("v2")
    seal(connection, records)
    rows = fetch(connection, f"{made.select({}, ())} ORDER BY _row_number")
    shapes = [[row[name] for name in made.shapes()] for row in rows]
    assert (shapes[0] == shapes[1]) is same


def test_a_hash_can_be_made_again_from_the_table(connection: duckdb.DuckDBPyConnection) -> None:
    """So rows keep their hashes when a column is added, and none depends on how the record was written."""
    made = sql("v2")
    first = {"id": 1, "name": "a", "value": "1.5", "new": 5, "custom_fields": {CODE: {"value": 7, "currency": "EUR"}}}
    second = {"new": 5, "custom_fields": {CODE: {"currency": "EUR", "value": 7}}, "value": 1.50, "name": "a", "id": 1}
    seal(connection, [first, second, {**first, "new": 6}])
    connection.execute(f"CREATE OR REPLACE TEMP TABLE typed AS {made.select({'/new': 'true'}, ())}")
    hashes = connection.execute(f"SELECT _row_hash, {made.row_hash()} FROM temp.typed ORDER BY _row_number").fetchall()
    assert [stored == again for stored, again in hashes] == [True, True, True]
    assert (hashes[0] == hashes[1], hashes[0] == hashes[2]) == (True, False)


def test_misfits_are_counted_by_column_and_keyless_records_are_named(connection: duckdb.DuckDBPyConnection) -> None:
    made = sql("v2")
    records = [{"id": 1, "value": "x"}, {"id": "2", "value": "y", "share": "z"}, {"id": 1.5}, {"name": "no key"}]
    seal(connection, records)
    [counts] = connection.execute(made.misfits()).fetchall()
    by_column = {column.name: count for column, count in zip(made.stored, counts, strict=True) if count}
    assert by_column == {"id": 1, "value": 2, "share": 1}
    assert [row["row"] for row in fetch(connection, made.keyless())] == ['{"id":1.5}', '{"name":"no key"}']


def test_a_row_says_that_a_value_does_not_fit_until_its_column_is_residual(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    made = sql("v2")
    records = [{"id": 1, "value": "x"}, {"id": 2, "owner_id": {"id": 3}}, {"id": 3, "value": 1}]
    cases: list[tuple[set[str], list[bool]]] = [
        (set(), [True, True, False]), ({"value"}, [False, True, False]), ({"value", "owner_id"}, [False] * 3),
    ]  # fmt: skip
    seal(connection, records)
    for residual, unfit in cases:
        rows = fetch(connection, f"{made.select({}, residual)} ORDER BY _row_number")
        assert [row["_unfit"] for row in rows] == unfit
    assert [row["_extra"] for row in rows] == ['{"value":"x"}', '{"owner_id":{"id":3}}', None]
