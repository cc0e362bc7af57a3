"""The Parquet files of an export: which tables and columns they have, which rows, and in which order."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import duckdb
import pyarrow.parquet as pq
import pytest

from pdsync.core import catalogue
from pdsync.load import export, warehouse

from .kit import Work, at, record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = "a secret of the project"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Work]:
    """Three runs: two records, a change of the first one, and a change that is unchanged."""
    work = Work(tmp_path_factory.mktemp("export") / "work.duckdb")
    work.commit([record(1, "a", 1, label_ids=[3]), record(2, "ü", 1)], 2)
    work.commit([record(1, "b", 3, is_deleted=True)], 4)
    work.commit([record(2, "c", 5)], 6)
    yield work
    work.close()


def read(path: Path, query: str = "*") -> list[tuple[object, ...]]:
    return duckdb.execute(f"SELECT {query} FROM read_parquet(?)", [str(path)]).fetchall()


def test_only_streams_are_exported_each_with_the_tables_of_its_lists(work: Work) -> None:
    persons = catalogue.stream("persons")
    children = list(persons.children)[:2]
    for table in ("persons", *children, "deals"):
        work.connection.execute(f'CREATE TABLE main."{table}" (id BIGINT)')
    try:
        everything = {"deals": "deals", "persons": "persons", **dict.fromkeys(children, "persons")}
        assert export.tables(work.connection) == everything
        assert export.tables(work.connection, ["deals"]) == {"deals": "deals"}
        assert export.tables(work.connection, ["persons", "users"]).keys() == {"persons", *children}
    finally:
        for table in ("persons", *children, "deals"):
            work.connection.execute(f'DROP TABLE main."{table}"')


@pytest.mark.parametrize("schema", ["main", "versions", "history"])
def test_the_columns_of_the_loader_alone_stay_at_home(work: Work, schema: str) -> None:
    own = [name for name in warehouse.SYSTEM_COLUMNS if name != "_row_hash"]
    names = export.columns(work.connection, schema, "things")
    assert list(names) == ["id", "name", "label_ids", "is_deleted", "update_time", *own]
    assert str(names["label_ids"]) == "BIGINT[]"


def test_a_snapshot_has_every_row_deleted_ones_too(work: Work, tmp_path: Path) -> None:
    target = tmp_path / "data.parquet"
    written = export.snapshot(work.connection, "things", {}, KEY, target)
    assert list(written) == pq.read_schema(target).names
    assert written["id"] == "BIGINT"
    rows = sorted(read(target, "id, name, label_ids, _deleted_at IS NULL"))
    assert rows == [(1, "b", [], False), (2, "c", [], True)]


def test_x5_a_file_is_the_owners_alone(work: Work, tmp_path: Path) -> None:
    export.snapshot(work.connection, "things", {}, KEY, tmp_path / "data.parquet")
    assert (tmp_path / "data.parquet").stat().st_mode & 0o777 == 0o600


def test_x2_a_masked_column_shows_no_value(work: Work, tmp_path: Path) -> None:
    export.snapshot(work.connection, "things", {"name": "hash", "label_ids": "null"}, KEY, tmp_path / "snapshot")
    export.changes(work.connection, "things", ["run-1", "run-2"], {"name": "hash"}, KEY, tmp_path / "changes")
    hashes = {name: hashlib.sha256((KEY + name).encode()).hexdigest() for name in "abcü"}
    assert sorted(read(tmp_path / "snapshot", "id, name, label_ids")) == [
        (1, hashes["b"], None),
        (2, hashes["c"], None),
    ]
    assert [name for (name,) in read(tmp_path / "changes", "name")] == [hashes["a"], hashes["ü"], hashes["b"]]


@pytest.mark.parametrize(
    ("runs", "rows"),
    [
        ([], []),
        (["run-1"], [(1, "a", at(1)), (2, "ü", at(1))]),
        (["run-3", "run-2"], [(1, "b", at(3)), (2, "c", at(5))]),
        (["run-1", "run-2", "run-3"], [(1, "a", at(1)), (2, "ü", at(1)), (1, "b", at(3)), (2, "c", at(5))]),
        (["of another project"], []),
    ],
)
def test_changes_are_the_versions_of_those_runs_in_their_order(
    work: Work, tmp_path: Path, runs: list[str], rows: list[tuple[object, ...]]
) -> None:
    export.changes(work.connection, "things", runs, {}, KEY, tmp_path / "data.parquet")
    assert "_valid_to" not in pq.read_schema(tmp_path / "data.parquet").names
    assert read(tmp_path / "data.parquet", "id, name, _valid_from") == rows


def test_merged_files_have_all_rows_in_the_order_of_the_files_and_all_columns(work: Work, tmp_path: Path) -> None:
    """The names of the files sort otherwise, and the later one has a column more."""
    folder = tmp_path / "_until=it's a name"  # which reads like a partition and would become a column
    folder.mkdir()
    first, second = folder / "z.parquet", folder / "a.parquet"
    duckdb.execute(f"COPY (SELECT 9 - range AS id FROM range(9)) TO '{str(first).replace(chr(39), chr(39) * 2)}'")
    duckdb.execute(f"COPY (SELECT 1 AS id, 'x' AS more) TO '{str(second).replace(chr(39), chr(39) * 2)}'")
    export.merge(work.connection, [first, second], tmp_path / "merged.parquet")
    assert pq.read_schema(tmp_path / "merged.parquet").names == ["id", "more"]
    assert read(tmp_path / "merged.parquet") == [*((id, None) for id in range(9, 0, -1)), (1, "x")]


def test_o4_an_entry_of_the_catalogue_says_what_the_file_is(work: Work, tmp_path: Path) -> None:
    target = tmp_path / "data.parquet"
    export.snapshot(work.connection, "things", {}, KEY, target)
    content = target.read_bytes()
    assert export.describe(target, "things/data.parquet") == export.File(
        "things/data.parquet", 2, len(content), hashlib.sha256(content).hexdigest()
    )


def test_runs_are_listed_in_the_order_in_which_they_wrote(tmp_path: Path) -> None:
    work = Work(tmp_path / "runs.duckdb")
    walks = [work.walk() for _ in range(3)]
    receipts = [("run-3", 10), ("run-1", 11), ("run-2", 12), ("nothing to write", 5)]
    for run, finished in receipts:
        work.connection.execute("INSERT INTO meta.runs (run_id, finished_at) VALUES (?, ?)", [run, at(finished)])
    for walk, applied in zip(walks, (1, 7, 3), strict=True):
        work.commit([record(walk.id, "a", 1)], 2, walk=walk)
        work.connection.execute(
            "UPDATE meta._applied_batches SET applied_at = ? WHERE walk = ?", [at(applied), walk.id]
        )
    assert list(export.runs(work.connection)) == ["run-1", "run-3", "nothing to write", "run-2"]
    assert export.runs(work.connection)["run-2"] == "2026-11-22 12:00:07+00"
    assert export.company(work.connection) == (1, "Example")
    work.close()
