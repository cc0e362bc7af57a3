"""How the DuckDB files are opened or refused, and how their tables and views follow the catalogue."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import duckdb
import msgspec
import pytest

from pdsync.errors import FileLocked, StorageError, WrongCompany
from pdsync.load import warehouse
from pdsync.load.warehouse import LabeledColumn

from .kit import THINGS, Work, at, record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Work]:
    work = Work(tmp_path_factory.mktemp("warehouse") / "work.duckdb")
    yield work
    work.close()


# -- opening -----------------------------------------------------------------------------------------


def test_x5_a_new_file_is_the_owners_alone_and_its_times_are_utc(tmp_path: Path) -> None:
    path = tmp_path / "work.duckdb"
    with warehouse.connect(path) as connection:
        connection.execute("CREATE TABLE t AS SELECT 1")
        settings = dict(
            connection.execute(
                "SELECT name, value FROM duckdb_settings() WHERE name IN"
                " ('TimeZone', 'temp_directory', 'autoinstall_known_extensions')"
            ).fetchall()
        )
    assert path.stat().st_mode & 0o777 == 0o600
    assert settings == {"TimeZone": "UTC", "temp_directory": f"{path}.tmp", "autoinstall_known_extensions": "false"}


def test_a_second_connection_sees_the_same_tables_and_has_temporary_ones_of_its_own(shared: Work) -> None:
    other = warehouse.open_second(shared.connection)
    other.execute("CREATE OR REPLACE TEMP TABLE mine AS SELECT now() AS moment")
    assert other.execute("SELECT count(*) FROM main.things").fetchall() == [(0,)]
    assert other.execute("SELECT current_setting('TimeZone')").fetchall() == [("UTC",)]
    assert shared.rows("SELECT count(*) FROM duckdb_tables() WHERE table_name = 'mine'") == [(0,)]
    other.close()


def test_an_attached_file_can_be_read_and_not_written(tmp_path: Path) -> None:
    with warehouse.connect(tmp_path / "w.duckdb") as connection:
        connection.execute("CREATE TABLE t AS SELECT 7 AS x")
    connection = warehouse.attach(tmp_path / "w.duckdb", 'of "another" name')
    assert connection.execute('SELECT x FROM "of ""another"" name".t').fetchall() == [(7,)]
    with pytest.raises(duckdb.Error, match="read-only"):
        connection.execute('DELETE FROM "of ""another"" name".t')
    connection.close()


def test_a_file_that_another_program_has_open_is_refused_by_that_name(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    warehouse.connect(path).close()
    code = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('open', flush=True); input()"
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        for opens in (warehouse.connect, lambda path: warehouse.attach(path, "w")):
            with pytest.raises(FileLocked, match="Close that program"):
                opens(path)
    finally:
        holder.communicate("\n", timeout=20)


@pytest.mark.parametrize("opens", [warehouse.connect, warehouse.check_whole, lambda path: warehouse.attach(path, "w")])
def test_a_file_that_is_no_database_is_refused_with_its_name(tmp_path: Path, opens: Any) -> None:
    path = tmp_path / "w.duckdb"
    path.write_bytes(b"no database, whatever its name says" * 1000)
    with pytest.raises(StorageError, match=r"w\.duckdb can't be opened as a DuckDB file") as caught:
        opens(path)
    assert not isinstance(caught.value, FileLocked)


def test_o4_a_file_whose_end_is_cut_off_is_not_whole(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    with warehouse.connect(path) as connection:
        connection.execute("CREATE TABLE t AS SELECT range AS x, hash(range) AS y FROM range(50000)")
        connection.execute("CHECKPOINT warehouse")
    for read_only in (False, True):
        warehouse.check_whole(path, read_only=read_only)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    warehouse.connect(path).close()  # DuckDB alone does not notice
    with pytest.raises(StorageError, match="is cut off"):
        warehouse.check_whole(path, read_only=True)


def file_with_free_blocks(folder: Path, dropped: str) -> Path:
    """A file of two tables, t and then u, of which one is dropped."""
    path, numbers = folder / "w.duckdb", "AS SELECT range AS x, hash(range) AS y FROM range(500000)"
    with warehouse.connect(path) as connection:
        for change in (f"CREATE TABLE t {numbers}", f"CREATE TABLE u {numbers}", f"DROP TABLE {dropped}"):
            connection.execute(change)
            connection.execute("CHECKPOINT warehouse")
    return path


def test_o4_a_file_with_free_blocks_is_not_whole_without_its_last_ones(tmp_path: Path) -> None:
    path = file_with_free_blocks(tmp_path, dropped="t")
    warehouse.check_whole(path)
    with path.open("r+b") as file:  # less than its free blocks, so that it is no shorter than its used ones
        file.truncate(path.stat().st_size - 3 * 262144)
    with pytest.raises(StorageError, match="is cut off"):
        warehouse.check_whole(path)


def test_o4_a_file_whose_free_end_duckdb_has_cut_off_is_whole(tmp_path: Path) -> None:
    path = file_with_free_blocks(tmp_path, dropped="u")
    warehouse.check_whole(path)


# -- its company -------------------------------------------------------------------------------------


def test_x1_a_file_of_another_company_is_refused(shared: Work) -> None:
    before = shared.rows("FROM meta.company")
    with pytest.raises(WrongCompany) as caught:
        warehouse.prepare(shared.connection, "CREATE TABLE meta.newer (id BIGINT)", 2, "Other")
    assert (caught.value.expected, caught.value.found) == (1, 2)
    assert shared.rows("FROM duckdb_tables() WHERE table_name = 'newer'") == []
    warehouse.prepare(shared.connection, "SELECT 1", 1, "Example, renamed")
    assert shared.rows("FROM meta.company") == before == [(1, "Example")]


# -- tables ------------------------------------------------------------------------------------------


def test_s16_a_column_is_added_and_never_removed(shared: Work) -> None:
    connection = shared.connection
    assert warehouse.ensure_table(connection, "growing", {"id": "BIGINT"}) == []
    for schema in ("main", "versions"):
        connection.execute(f"INSERT INTO {schema}.growing (id) VALUES (1)")
    wider = {"id": "BIGINT", "note": "VARCHAR", "tag_ids": "BIGINT[]"}
    assert warehouse.ensure_table(connection, "growing", wider) == ["note", "tag_ids"]
    assert warehouse.ensure_table(connection, "growing", wider) == []
    assert warehouse.ensure_table(connection, "growing", {"id": "VARCHAR"}) == []
    for schema, more in (("main", []), ("versions", ["_valid_to"])):
        names = [row[0] for row in shared.rows(f"DESCRIBE {schema}.growing")]
        assert sorted(names) == sorted([*wider, *warehouse.SYSTEM_COLUMNS, *more])
        assert shared.rows(f"SELECT id, note, tag_ids FROM {schema}.growing") == [(1, None, [])]
    assert "growing" in warehouse.tables(connection)
    connection.execute("DROP TABLE main.growing; DROP TABLE versions.growing")
    assert "growing" not in warehouse.tables(connection)


@pytest.mark.parametrize("made_of", ["by another version", None])
def test_hashes_of_another_duckdb_are_recomputed(shared: Work, made_of: str | None) -> None:
    shared.reset()
    shared.commit([record(1, "a", 1), record(2, "b", 1)], 2)
    shared.connection.execute("UPDATE main.things SET _row_hash = id - 1")  # 0: a removed record
    shared.connection.execute("DELETE FROM meta._row_hashes")
    if made_of:
        shared.connection.execute("INSERT INTO meta._row_hashes VALUES ('things', ?)", [made_of])
    shared.shape()
    hashes = [row[0] for row in shared.rows("SELECT _row_hash FROM main.things ORDER BY id")]
    assert hashes[0] == 0
    assert hashes[1] > 1
    assert shared.commit([record(2, "b", 1)], 3).unchanged == 1
    assert len(shared.rows("FROM meta._row_hashes")) == 1


# -- views -------------------------------------------------------------------------------------------


def test_the_history_has_every_version_and_the_current_one_is_open(shared: Work) -> None:
    shared.reset()
    shared.commit([record(1, "a", 1)], 2)
    shared.commit([record(1, "b", 3)], 4)
    assert shared.rows("SELECT name, _valid_from, _valid_to FROM history.things ORDER BY _valid_from") == [
        ("a", at(1), at(3)),
        ("b", at(3), None),
    ]
    assert "_row_hash" not in [row[0] for row in shared.rows("DESCRIBE history.things")]


def test_a_list_becomes_a_row_for_each_element_in_its_order(tmp_path: Path) -> None:
    emails = {**THINGS.columns, "emails": "STRUCT(value VARCHAR, label VARCHAR)[]"}
    work = Work(tmp_path / "lists.duckdb", msgspec.structs.replace(THINGS, columns=emails))
    connection = work.connection
    for statement in (
        *warehouse.child_views("thing_labels", "things", "id", "thing_id", "label_ids", (), "label_id"),
        *warehouse.child_views("thing_emails", "things", "id", "thing_id", "emails", ("value", "label"), None),
    ):
        connection.execute(statement)
    first = [{"value": "b@x", "label": "work"}, {"value": "a@x", "label": None}]
    work.commit([record(1, "a", 1, label_ids=[9, 8], emails=first), record(2, "b", 1)], 2)
    work.commit([record(1, "a", 3, label_ids=[8], emails=[])], 4)
    assert work.rows("FROM thing_labels ORDER BY ALL") == [(1, 1, 8)]
    assert work.rows("FROM thing_emails ORDER BY ALL") == []
    assert work.rows("FROM history.thing_labels ORDER BY ALL") == [
        (1, 1, 8, at(3), None),
        (1, 1, 9, at(1), at(3)),
        (1, 2, 8, at(1), at(3)),
    ]
    assert work.rows("SELECT position, value, label FROM history.thing_emails ORDER BY ALL") == [
        (1, "b@x", "work"),
        (2, "a@x", None),
    ]
    work.close()


def test_the_labeled_view_shows_names_and_labels_with_their_ids_beside_them(tmp_path: Path) -> None:
    more = dict.fromkeys(["owner_id", "tier", "channel", "cf_owner_id"], "BIGINT")
    more |= {"tier_label": "VARCHAR", "tier_option_id": "VARCHAR"}
    work = Work(tmp_path / "labels.duckdb", msgspec.structs.replace(THINGS, columns={**THINGS.columns, **more}))
    connection = work.connection
    connection.execute("CREATE TABLE main.users AS SELECT * FROM (VALUES (5::BIGINT, 'Ann'), (6, 'Ann')) v(id, name)")
    options = [
        ("label_ids", "3", "Warm"),
        ("label", "4", "Cold"),
        ("other", "3", "Wrong field"),
        ("channel", "3", "Web"),
    ]
    connection.executemany("INSERT INTO meta.field_options VALUES ('things', ?, ?, ?)", options)
    stored = warehouse.columns_of_tables(connection)["things"]
    labeled = warehouse.labeled_columns(
        stored,
        {column: LabeledColumn(column, "users", "id", "name") for column in ("owner_id", "cf_owner_id")},
        {"tier": "tier_label"},
        {"channel": LabeledColumn("channel", code="channel")},
    )
    connection.execute(warehouse.labeled_view("things", labeled))
    rows = [
        record(1, "a", 1, owner_id=5, tier=7, tier_label="Gold", label_ids=[3, 4, 99], channel=3, cf_owner_id=6),
        record(2, "b", 1, owner_id=6, channel=8, tier_option_id="mine"),
        record(3, "c", 1, owner_id=7),
    ]
    work.commit(rows, 2)
    names = [row[0] for row in work.rows("DESCRIBE labeled.things")]
    assert names == [
        "id", "name", "labels", "label_ids", "is_deleted", "update_time", "owner", "owner_id", "tier",
        "tier_option_id_1", "channel", "channel_option_id", "cf_owner_id", "cf_owner_id_id", "tier_option_id",
        "_deleted_at",
    ]  # fmt: skip
    shown = "id, labels, label_ids, owner, owner_id, tier, tier_option_id_1, channel, channel_option_id, cf_owner_id"
    assert work.rows(f"SELECT {shown} FROM labeled.things ORDER BY id") == [
        (1, ["Cold", "Warm"], [3, 4, 99], "Ann", 5, "Gold", 7, "Web", 3, "Ann"),
        (2, None, [], "Ann", 6, None, None, "8", 8, None),  # an option without a label, and two owners of one name
        (3, None, [], None, 7, None, None, None, None, None),
    ]
    work.close()
