"""Two warehouses have the same digests exactly where they have the same tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pdsync.load.fingerprint import canonical

from .kit import Work, at, record

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Work]:
    work = Work(tmp_path_factory.mktemp("fingerprint") / "work.duckdb")
    work.commit([record(1, "a", 1, label_ids=[2, 1]), record(2, "ü", 1)], 2)
    work.commit([record(1, "b", 3)], 4)
    yield work
    work.close()


def differing(work: Work, *statements: str) -> set[str]:
    """The tables whose digests are others after `statements`, which are rolled back."""
    before = canonical(work.connection)
    work.connection.execute("BEGIN")
    for statement in statements:
        work.connection.execute(statement)
    after = canonical(work.connection)
    work.connection.execute("ROLLBACK")
    return {table for table in before.keys() | after.keys() if before.get(table) != after.get(table)}


def test_every_table_and_view_of_records_is_compared(work: Work) -> None:
    digests = canonical(work.connection)
    assert {table: digest.rows for table, digest in digests.items()} == {
        "main.things": 2,
        "history.things": 3,
        "meta.custom_fields": 0,
        "meta.field_options": 0,
        "meta.schema_changes": 0,
        "meta.checkpoints": 1,
        "meta.quarantine": 0,
    }
    assert all(len(digest.sha256) == 64 for digest in digests.values())


@pytest.mark.parametrize(
    "statements",
    [
        pytest.param(["UPDATE main.things SET _run_id = 'x', _synced_at = now(), _verified_at = now()"], id="runs"),
        pytest.param(["UPDATE main.things SET _row_hash = 1"], id="hash"),
        pytest.param(["UPDATE meta.checkpoints SET run_id = 'x', newest = NULL"], id="checkpoint"),
        pytest.param(["INSERT INTO meta.sweeps (run_id, stream) VALUES ('x', 'things')"], id="reports"),
        pytest.param(
            [
                "CREATE TEMP TABLE turned AS FROM main.things ORDER BY id DESC",
                "DELETE FROM main.things",
                "INSERT INTO main.things FROM temp.turned",
            ],
            id="order-of-rows",
        ),
        pytest.param(
            [
                "ALTER TABLE main.things ADD COLUMN again VARCHAR",
                "UPDATE main.things SET again = name",
                "ALTER TABLE main.things DROP COLUMN name",
                "ALTER TABLE main.things RENAME COLUMN again TO name",
            ],
            id="order-of-columns",
        ),
    ],
)
def test_what_a_run_leaves_besides_the_data_makes_no_difference(work: Work, statements: list[str]) -> None:
    work.connection.execute("DROP VIEW history.things")  # it fixes the order of the columns
    assert differing(work, *statements) == set()
    work.shape()


@pytest.mark.parametrize(
    ("statement", "tables"),
    [
        ("UPDATE main.things SET name = 'c' WHERE id = 1", {"main.things", "history.things"}),
        ("UPDATE main.things SET name = NULL WHERE id = 1", {"main.things", "history.things"}),
        ("UPDATE main.things SET label_ids = [1, 2] WHERE id = 1", {"main.things", "history.things"}),
        ("UPDATE main.things SET _deleted_at = now() WHERE id = 2", {"main.things", "history.things"}),
        ("UPDATE versions.things SET _valid_to = now()", {"history.things"}),
        ("DELETE FROM versions.things", {"history.things"}),
        ("INSERT INTO main.things SELECT * FROM main.things", {"main.things", "history.things"}),
        ("UPDATE meta.checkpoints SET watermark = now()", {"meta.checkpoints"}),
        ("INSERT INTO meta.field_options VALUES ('things', 'a', '1', 'A')", {"meta.field_options"}),
        ("CREATE VIEW main.thing_labels AS SELECT 1 AS x", {"main.thing_labels"}),
    ],
)
def test_a_difference_in_the_data_is_one_in_its_table(work: Work, statement: str, tables: set[str]) -> None:
    assert differing(work, statement) == tables


def test_tables_that_differ_in_the_way_they_came_to_be_are_the_same(work: Work) -> None:
    once = canonical(work.connection)
    work.reset()
    work.commit([record(2, "ü", 1)], 2, since=0)
    work.commit([record(1, "a", 1, label_ids=[2, 1])], 2)
    work.commit([record(1, "b", 3)], 4)
    work.connection.execute("UPDATE meta.checkpoints SET walk = ?, full_at = ?", [work.walks - 3, at(4)])
    again = canonical(work.connection)
    assert again["main.things"] == once["main.things"]
    assert again["history.things"] == once["history.things"]
