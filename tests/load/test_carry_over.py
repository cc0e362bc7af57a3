"""A rebuilt file gets from the one before it exactly what no page can rebuild."""

from __future__ import annotations

from typing import TYPE_CHECKING

import duckdb
import pytest

from pdsync.core import catalogue
from pdsync.load import carry_over, warehouse

from .kit import Work, record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REBUILT = {
    "company", "runs", "streams", "targets", "custom_fields", "field_options", "schema_changes", "merges",
    "checkpoints", "quarantine", "_applied_batches", "_row_hashes", "_views",
}  # fmt: skip


@pytest.fixture
def before(tmp_path: Path) -> Iterator[Work]:
    work = Work(tmp_path / "before.duckdb")
    work.commit([record(1, "a", 1, unknown=1), {"name": "no key"}], 2)
    work.connection.execute(
        "INSERT INTO meta.mutations (id, operation, payload, detail) VALUES"
        """ ('m1', 'addDeal', '{"title": "Ann"}', 'of Ann'), ('m2', 'addDeal', NULL, NULL)"""
    )
    work.connection.execute("INSERT INTO meta.findings (run_id, stream, key, kind) VALUES ('r', 'things', '1', 'gone')")
    yield work
    work.close()


def test_every_meta_table_is_rebuilt_or_copied(before: Work, tmp_path: Path) -> None:
    """A new meta table is copied unless it says that it is rebuilt."""
    with warehouse.connect(tmp_path / "after.duckdb") as after:
        for script in catalogue.sql("warehouse").values():
            warehouse.prepare(after, script, 1, "Example")
        before.close()
        copied = carry_over.carry_over(after, before.path)
        meta = after.execute("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'meta'").fetchall()
        assert copied == sorted({row[0] for row in meta} - REBUILT)
        assert after.execute("SELECT id, detail FROM meta.mutations ORDER BY id").fetchall() == [
            ("m1", "of Ann"),
            ("m2", None),
        ]
        assert after.execute("SELECT count(*) FROM meta.findings").fetchall() == [(1,)]
        for table in ("checkpoints", "quarantine", "schema_changes", "_applied_batches"):
            assert after.execute(f"SELECT count(*) FROM meta.{table}").fetchall() == [(0,)], table
        assert after.execute("SELECT count(*) FROM duckdb_databases() WHERE database_name = 'before'").fetchone() == (
            0,
        )


def test_a_table_that_only_the_file_before_has_is_copied_too(before: Work, tmp_path: Path) -> None:
    """An extension's table, or one of a newer version of pdsync."""
    before.connection.execute("CREATE TABLE meta.notes AS SELECT 'kept' AS note")
    before.close()
    with warehouse.connect(tmp_path / "after.duckdb") as after:
        after.execute("CREATE SCHEMA meta")
        assert "notes" in carry_over.carry_over(after, before.path)
        assert after.execute("FROM meta.notes").fetchall() == [("kept",)]


def test_where_a_table_does_not_fit_nothing_is_copied_and_the_file_is_released(before: Work, tmp_path: Path) -> None:
    before.close()
    with warehouse.connect(tmp_path / "after.duckdb") as after:
        after.execute("CREATE SCHEMA meta; CREATE TABLE meta.mutations (id VARCHAR)")
        with pytest.raises(duckdb.Error):
            carry_over.carry_over(after, before.path)
        assert after.execute("SELECT table_name FROM duckdb_tables()").fetchall() == [("mutations",)]
        assert after.execute("FROM meta.mutations").fetchall() == []
        after.execute("ATTACH ':memory:' AS before")


def test_a_stream_that_is_forgotten_leaves_nothing_and_the_others_stay(before: Work) -> None:
    connection = before.connection
    warehouse.ensure_table(connection, "others", {"id": "BIGINT"})
    connection.execute("INSERT INTO meta.merges (entity, loser_id) VALUES ('things', 1), ('others', 2)")
    connection.execute("INSERT INTO meta.field_options VALUES ('things', 'a', '1', 'A'), ('others', 'a', '1', 'A')")
    carry_over.forget_streams(connection, ["things", "never synced"])
    assert warehouse.tables(connection) == {"others"}
    assert before.rows("SELECT count(*) FROM duckdb_tables() WHERE schema_name = 'versions'") == [(1,)]
    for table in ("checkpoints", "quarantine", "_applied_batches", "_row_hashes", "schema_changes"):
        assert before.rows(f"SELECT count(*) FROM meta.{table}") == [(0,)], table
    for table in ("merges", "field_options"):
        assert before.rows(f"SELECT entity FROM meta.{table}") == [("others",)]
    assert before.rows("SELECT count(*) FROM meta.findings") == [(1,)]


def test_texts_are_replaced_in_what_is_copied_and_nowhere_else(before: Work) -> None:
    seen = set()

    def replace(text: str, column: str, mutation: str | None) -> str:
        seen.add((text, column, mutation))
        return text.replace("Ann", "(erased)")

    untouched = [before.rows(f"FROM meta.{table}") for table in ("quarantine", "schema_changes", "findings", "company")]
    assert carry_over.clean(before.connection, replace) == 2
    assert before.rows("SELECT id, payload, detail FROM meta.mutations ORDER BY id") == [
        ("m1", '{"title": "(erased)"}', "of (erased)"),
        ("m2", None, None),
    ]
    assert {("of Ann", "detail", "m1"), ("gone", "kind", None), ("addDeal", "operation", "m2")} <= seen
    assert [
        before.rows(f"FROM meta.{table}") for table in ("quarantine", "schema_changes", "findings", "company")
    ] == untouched
    assert carry_over.clean(before.connection, replace) == 0
