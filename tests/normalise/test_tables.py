"""A custom field has one column for good, whatever it is called, and whoever else is called so."""

from __future__ import annotations

import itertools
import random
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pdsync.core import catalogue
from pdsync.normalise import tables

from .kit import SERVED, page, staged, table_of

if TYPE_CHECKING:
    import duckdb

    from pdsync.core.custom_fields import CustomField, SchemaChange

DEALS = catalogue.stream("deals")
TYPES = catalogue.field_types()
LATER = SERVED + timedelta(days=1)
HOSTILE = [
    "", " ", "Deal size", "deal size", "DEAL SIZE", "Deal-size", 'a"b', "a'b", "a\nb", "a\0b", "💰", "💰💰", "select",
    "id", "title", "_deleted_at", "value; DROP TABLE deals; --", "Größe", "GRÖSSE", "x" * 10_000, "x" * 9_999, "ﬁ", "ß",
    "\u202etxt", "İ", "ı", "i", "I", "Ⅷ", "１", "a_currency", "Deal size currency", "Deal size label", "\ud800",
]  # fmt: skip


def code(number: int) -> str:
    return f"{number:040x}"


def assign(
    definitions: list[tuple[str, str, str]], known: list[CustomField] | None = None
) -> tuple[list[CustomField], list[SchemaChange]]:
    return tables.assign(DEALS, definitions, known or [], TYPES, LATER if known else SERVED)


def test_s16_hostile_labels_give_distinct_columns_that_duckdb_takes(connection: duckdb.DuckDBPyConnection) -> None:
    kinds = itertools.cycle(["varchar", "monetary", "enum", "set", "address", "timerange"])
    labels = [*HOSTILE, *HOSTILE]
    fields, changes = assign(
        [(code(n), label, kind) for n, (label, kind) in enumerate(zip(labels, kinds, strict=False))]
    )
    assert [field.label for field in fields] == labels
    assert {change.kind for change in changes} == {"field_added"}

    table = table_of(DEALS, "v2", fields)
    names = [column.name for column in table.columns]
    assert len({name.lower() for name in names}) == len(names)
    assert all(len(name) < 200 for name in names)
    values = {field.code: "1" for field in fields if field.type == "varchar"}
    rows, _ = staged(connection, table, [page([{"id": 1, "custom_fields": values}])])
    assert {rows[0][field.column] for field in fields if field.type == "varchar"} == {"1"}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    definitions=st.lists(
        st.tuples(
            st.text(st.characters(codec=None), max_size=20) | st.sampled_from(HOSTILE),
            st.sampled_from([*TYPES, "varchar", "unheard of"]),
        ),
        max_size=25,
    )
)
def test_s16_any_labels_give_distinct_columns(
    connection: duckdb.DuckDBPyConnection, definitions: list[tuple[str, str]]
) -> None:
    fields, _ = assign([(code(n), label, kind) for n, (label, kind) in enumerate(definitions)])
    names = [(column.name, column.type) for column in table_of(DEALS, "v2", fields).columns]
    assert len({name.lower() for name, _ in names}) == len(names)
    body = ", ".join(f'"{name.replace(chr(34), chr(34) * 2)}" {kind}' for name, kind in names)
    connection.execute(f"CREATE OR REPLACE TEMP TABLE any_labels ({body})")
    shown = connection.execute("SELECT column_name FROM duckdb_columns() WHERE table_name = 'any_labels'").fetchall()
    assert {row[0] for row in shown} == {name for name, _ in names}


def test_s16_a_column_says_what_its_label_says() -> None:
    labels = {"Deal size": "cf_deal_size", "Größe": "cf_große", "select": "cf_select", "A/B  test!": "cf_a_b_test"}
    fields, _ = assign([(code(n), label, "varchar") for n, label in enumerate(labels)])
    assert {field.label: field.column for field in fields} == {**labels, "Größe": fields[1].column}
    assert fields[1].column.startswith("cf_gr")


def test_s16_a_renamed_field_keeps_its_column() -> None:
    known, _ = assign([(code(1), "Size", "double")])
    fields, changes = assign([(code(1), "Volume", "double")], known)
    assert [(field.label, field.column) for field in fields] == [("Volume", "cf_size")]
    assert [(change.kind, change.name) for change in changes] == [("field_renamed", code(1))]
    assert (fields[0].first_seen, fields[0].last_seen) == (SERVED, LATER)


def test_s16_a_retyped_field_gets_a_second_column() -> None:
    known, _ = assign([(code(1), "Size", "double")])
    fields, changes = assign([(code(1), "Size", "enum")], known)
    assert [(field.type, field.column == "cf_size") for field in fields] == [("double", True), ("enum", False)]
    assert [change.kind for change in changes] == ["field_retyped"]
    again, nothing = assign([(code(1), "Size", "double")], fields)
    assert {field.column for field in again} == {field.column for field in fields}
    assert nothing == []


def test_s16_a_field_that_is_gone_keeps_its_column_and_its_successor_gets_another() -> None:
    known, _ = assign([(code(1), "Size", "double")])
    fields, changes = assign([(code(2), "Size", "double")], known)
    assert {field.code: field.column for field in fields}[code(1)] == "cf_size"
    assert len({field.column for field in fields}) == 2
    assert [(change.kind, change.name) for change in changes] == [("field_gone", code(1)), ("field_added", code(2))]
    again, changes = assign([(code(2), "Size", "double")], fields)
    assert [change.kind for change in changes] == ["field_gone"]  # the schema log records it once
    assert again == fields


def test_s16_the_last_custom_field_that_is_gone_is_told_too() -> None:
    known, _ = assign([("title", "Title", "varchar"), (code(1), "Size", "double")])
    fields, changes = assign([("title", "Title", "varchar")], known)
    assert fields == known
    assert [(change.kind, change.name) for change in changes] == [("field_gone", code(1))]


def test_s16_definitions_that_were_not_read_change_nothing() -> None:
    known, _ = assign([(code(1), "Size", "double")])
    assert assign([], known) == (known, [])
    assert assign([("title", "Title", "varchar")]) == ([], [])


@pytest.mark.parametrize("seed", range(5))
def test_s16_equal_labels_keep_their_columns_in_whatever_order_they_come(seed: int) -> None:
    """Columns are given once; after that neither order nor company changes them."""
    definitions = [(code(n), HOSTILE[n % len(HOSTILE)], "monetary") for n in range(60)]
    known, _ = assign(definitions)
    assert len({field.column for field in known}) == len(definitions)
    random.Random(seed).shuffle(definitions)
    fields, changes = assign(definitions, known)
    assert {field.code: field.column for field in fields} == {field.code: field.column for field in known}
    assert changes == []
