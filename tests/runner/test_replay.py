"""A replay rebuilds the tables from the archive alone, and changes nothing where the archive is not whole."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from pdsync.core import catalogue, config
from pdsync.errors import CatalogueError, ConfigError, StorageError
from pdsync.runner import project
from pdsync.runner.archive.replay import Selection, replay
from tests.runner.kit import T0, deal, load, open_session

if TYPE_CHECKING:
    from pathlib import Path

    from pdsync.core.config import Settings
    from pdsync.runner.session import Event

HOUR = timedelta(hours=1)


@pytest.fixture
async def settings(tmp_path: Path) -> Settings:
    """A project with two runs of deals and users: deal 1 was changed, deal 2 deleted."""
    async with open_session(tmp_path, run="run-1") as session:
        await load(session, "deals", deal(1), deal(2))
        await load(session, "users", {"id": 5, "name": "Ada"})
    async with open_session(tmp_path, run="run-2") as session:
        later = [deal(1, T0 + HOUR, title="Renamed"), deal(2, T0 + HOUR, is_deleted=True)]
        await load(session, "deals", *later, since=T0, at=T0 + HOUR)
    return session.settings


def query(path: Path, sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(path), read_only=True) as connection:
        return connection.execute(sql).fetchall()


HISTORY = (
    "SELECT id, title, _deleted_at IS NULL, _valid_from, _valid_to, _run_id, _synced_at, _verified_at FROM"
    " (SELECT id, title, _deleted_at, _valid_from, NULL AS _valid_to, _run_id, _synced_at, _verified_at FROM deals"
    " UNION ALL SELECT id, title, _deleted_at, _valid_from, _valid_to, _run_id, _synced_at, _verified_at"
    " FROM versions.deals) ORDER BY id, _valid_from"
)


@pytest.mark.parametrize(
    ("names", "streams", "everything"),
    [
        ((), list(catalogue.streams()), True),
        (("deals",), ["deal_fields", "deals"], False),
        (("users",), ["users"], False),
    ],
)
def test_a_stream_is_rebuilt_with_its_definitions(names: tuple[str, ...], streams: list[str], everything: bool) -> None:
    selection = Selection.by_names(names)
    assert [stream.name for stream in selection.streams] == streams
    assert selection.everything is everything


def test_a_stream_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(CatalogueError, match="Did you mean 'deals'"):
        Selection.by_names(("deels",))


async def test_s9_a_replay_of_records_that_cannot_be_read_is_not_complete(tmp_path: Path) -> None:
    async with open_session(tmp_path, run="run-1") as session:
        await load(session, "deals", deal(1), {"title": "no id"})
        await load(session, "users", {"id": 5, "name": "Ada"})
    receipt = await replay(session.settings)
    gaps = [(gap.stream, gap.kind, gap.detail) for gap in receipt.gaps]
    assert gaps == [("deals", "quarantined", "1 records can't be read: meta.quarantine")]
    assert (receipt.exit_code, receipt.complete) == (4, False)
    assert (receipt.streams["deals"].complete, receipt.streams["users"].complete) == (False, True)
    assert (await replay(session.settings, ["users"])).exit_code == 0
    async with open_session(tmp_path, run="run-2") as session:  # the list was read whole, and all of it could be
        await load(session, "deals", deal(1), deal(2), at=T0 + HOUR)
    assert (await replay(session.settings)).exit_code == 0
    async with open_session(tmp_path, run="run-3") as session:
        await load(session, "deals", {"title": "no id"}, since=T0 + HOUR, at=T0 + 2 * HOUR)
    assert (await replay(session.settings, ["deals"])).exit_code == 4


async def test_o4_a_loss_that_is_accepted_for_one_stream_is_not_accepted_for_the_others(tmp_path: Path) -> None:
    async with open_session(tmp_path, run="run-1") as session:
        await load(session, "users", {"id": 5, "name": "Ada"}, {"id": 6, "name": "Bob"})
    async with open_session(tmp_path, run="run-2") as session:
        await load(session, "users", {"id": 5, "name": "Ada"}, at=T0 + HOUR)
        await load(session, "deals", deal(1))
    settings = session.settings
    [lost] = settings.raw.glob("run-1-*.zst")
    lost.rename(lost.with_suffix(".away"))
    assert (await replay(settings, ["deals"], accept_loss=True)).exit_code == 0
    with pytest.raises(StorageError, match="--accept-loss"):
        await replay(settings)
    lost.with_suffix(".away").rename(lost)
    await replay(settings)
    assert query(settings.warehouse, "SELECT id FROM users ORDER BY id") == [(5,), (6,)]


async def test_s14_tables_and_histories_are_the_same(settings: Settings) -> None:
    before = query(project.work_path(settings), HISTORY)
    assert len(before) == 4
    receipt = await replay(settings)
    assert (receipt.exit_code, receipt.requests, receipt.gaps) == (0, 0, [])
    assert (receipt.streams["deals"].inserted, receipt.streams["deals"].updated) == (2, 1)
    columns = slice(0, 6)  # when it was loaded is the moment of the answer, in a replay
    assert [row[columns] for row in query(settings.warehouse, HISTORY)] == [row[columns] for row in before]
    assert query(project.work_path(settings), HISTORY) == query(settings.warehouse, HISTORY)
    again = query(settings.warehouse, HISTORY)
    await replay(settings)
    assert query(settings.warehouse, HISTORY) == again


async def test_s14_other_streams_are_left_as_they_are(settings: Settings) -> None:
    with duckdb.connect(str(project.work_path(settings))) as connection:
        connection.execute("UPDATE users SET name = 'by hand'; UPDATE deals SET title = 'by hand'")
    receipt = await replay(settings, ["deals"])
    assert receipt.command == "replay deals"
    assert query(settings.warehouse, "SELECT name FROM users") == [("by hand",)]
    assert query(settings.warehouse, "SELECT DISTINCT title FROM deals ORDER BY 1") == [("Renamed",), ("deal 2",)]


@pytest.mark.parametrize(
    ("how", "error"),
    [("missing file", StorageError), ("unknown walk", ConfigError)],
)
async def test_o4_what_the_archive_lacks_stops_it_unless_the_loss_is_accepted(
    settings: Settings, how: str, error: type[Exception]
) -> None:
    newest = max(settings.raw.glob("*.zst"), key=lambda path: path.name)
    if how == "missing file":
        newest.rename(newest.with_suffix(".away"))
    else:  # the file was lost before, with control.db
        newest.unlink()
        settings.control.unlink()
    before = project.work_path(settings).read_bytes()
    with pytest.raises(error, match="--accept-loss"):
        await replay(settings)
    assert project.work_path(settings).read_bytes() == before
    assert not settings.warehouse.exists()
    receipt = await replay(settings, accept_loss=True)
    assert receipt.command == "replay --accept-loss"
    assert query(settings.warehouse, "SELECT id, title FROM deals ORDER BY id") == [(1, "deal 1"), (2, "deal 2")]


async def test_s9_a_stream_of_which_only_changes_are_there_is_incomplete(settings: Settings) -> None:
    oldest = min(settings.raw.glob("*.zst"), key=lambda path: path.name)
    oldest.unlink()
    events: list[Event] = []
    receipt = await replay(settings, (), events.append, accept_loss=True)
    assert [(gap.stream, gap.kind) for gap in receipt.gaps] == [("deals", "incomplete"), ("users", "incomplete")]
    assert (receipt.exit_code, receipt.streams["deals"].complete) == (4, False)
    assert {event.stream for event in events if event.kind == "finished"} >= {"deals"}


@pytest.mark.parametrize("is_index_lost", [False, True])
async def test_s9_a_list_that_was_read_in_part_is_incomplete(tmp_path: Path, is_index_lost: bool) -> None:
    async with open_session(tmp_path) as session:
        await load(session, "users", {"id": 5, "name": "Ada"})
        await load(session, "deals", deal(1), state="open", following="page 2")
    settings = session.settings
    if is_index_lost:
        settings.control.unlink()
    receipt = await replay(settings)
    assert query(settings.warehouse, "SELECT id FROM deals") == [(1,)]
    assert [(gap.stream, gap.kind) for gap in receipt.gaps] == [("deals", "incomplete")]
    assert (receipt.exit_code, receipt.streams["deals"].complete, receipt.streams["users"].complete) == (4, False, True)


async def test_s9_a_list_whose_only_walk_is_lost_is_incomplete(settings: Settings) -> None:
    for file in settings.raw.glob("*.zst"):
        file.unlink()
    async with open_session(settings.project, run="run-3") as session:
        await load(session, "currencies", {"id": 1, "code": "EUR"})
    receipt = await replay(settings, accept_loss=True)
    assert [(gap.stream, gap.kind) for gap in receipt.gaps] == [("deals", "incomplete"), ("users", "incomplete")]


async def test_s9_a_walk_that_was_given_up_beside_a_complete_one_is_no_gap(settings: Settings) -> None:
    async with open_session(settings.project, run="run-3") as session:
        await load(session, "deals", deal(1, T0 + 2 * HOUR), state="dropped", following="page 2", at=T0 + 2 * HOUR)
    receipt = await replay(settings)
    assert (receipt.exit_code, receipt.gaps) == (0, [])


async def test_targets_are_read_anew_and_a_bad_line_changes_nothing(settings: Settings) -> None:
    file = settings.project / "targets.csv"
    file.write_text("period,currency,target\n2026,EUR,5\n")
    await replay(settings)
    await replay(settings)  # the rows are the file's, not the earlier warehouse's beside them
    assert query(settings.warehouse, "SELECT line, period, target::INT FROM meta.targets") == [(2, "2026", 5)]
    file.write_text("period,currency,target\nsoon,EUR,5\n")
    with pytest.raises(ConfigError, match="line 2: period is 'SOON'"):
        await replay(settings)


async def test_an_empty_archive_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="There is nothing to replay"):
        await replay(config.load(tmp_path))


async def test_one_stream_can_t_be_rebuilt_without_a_file_that_has_the_others(settings: Settings) -> None:
    project.work_path(settings).unlink()
    with pytest.raises(ConfigError, match="Rebuild all of them"):
        await replay(settings, ["deals"])
