"""The stores of a project are made consistent: what one lacks is found in the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from pdsync.core import catalogue, config
from pdsync.core.control import Control
from pdsync.errors import StorageError
from pdsync.load.commit import Counts
from pdsync.model import Page
from pdsync.runner import unlocked
from pdsync.runner.stores import (
    LoadedWalk,
    _assign_id,
    attached,
    count_rows_not_in_archive,
    index_archive,
    is_older,
    loaded_walks,
)
from tests.runner.kit import T0, deal, encode, open_session
from tests.runner.warehouse_files import load

if TYPE_CHECKING:
    from pathlib import Path

    from pdsync.model import Walk


def test_a_file_says_which_walks_it_was_made_from(tmp_path: Path) -> None:
    file = load(tmp_path / "a.duckdb", (1, [1, 2]), (2, [2]))
    assert loaded_walks(file) == {
        ("run-1", 1): LoadedWalk("deals", Counts(read=2, inserted=2)),
        ("run-2", 2): LoadedWalk("deals", Counts(read=1, unchanged=1)),
    }


def test_s2_rows_of_walks_without_a_page_are_what_the_archive_lacks(tmp_path: Path) -> None:
    file = load(tmp_path / "a.duckdb", (1, [1, 2]), (2, [2]), (3, [3]))
    control = Control(tmp_path / "control.db")
    try:
        assert count_rows_not_in_archive(file, control) == {"deals": 3}  # a walk that wrote nothing is no loss
    finally:
        control.close()


@pytest.mark.parametrize(("archived", "lost"), [(3, {}), (2, {"deals": 1}), (1, {"deals": 2}), (0, {"deals": 3})])
async def test_s14_rows_of_the_pages_that_a_walk_lacks_at_its_end_are_lost(
    tmp_path: Path, archived: int, lost: dict[str, int]
) -> None:
    async with open_session(tmp_path) as session:
        run = session.receipt.run_id
        walk = replace(session.control.open_walk(run, "deals", "live", "v2", "getDeals", None), started_at=T0)
        for seq in range(3):
            page = Page(walk.id, seq, encode([deal(seq)]), 1, None if seq == 2 else str(seq + 1), T0)
            if seq < archived:
                await session.archive.seal(walk, page)
            await session.loader.add(catalogue.stream("deals"), walk, [page])
            await session.loader.commit_staged(catalogue.stream("deals"), walk)
        path = session.loader.path
    with unlocked.open_control(config.load(tmp_path)) as control:
        assert count_rows_not_in_archive(path, control) == lost
        control.end_walk(walk.id, "pruned")  # what the user has given up is not counted
        assert count_rows_not_in_archive(path, control) == {}


@pytest.mark.parametrize(
    ("work", "published", "result"),
    [
        ([1, 2], [1, 2], (False, True)),
        ([1, 2], [1], (False, True)),
        ([1], [1, 2], (True, False)),  # it lacks a batch and has none of its own
        ([1, 3], [1, 2], (False, True)),  # each has its own: the one that was loaded last is used
    ],
)
def test_s2_the_file_that_lacks_batches_is_the_older_one(
    tmp_path: Path, work: list[int], published: list[int], result: tuple[bool, bool]
) -> None:
    theirs = load(tmp_path / "published.duckdb", *((number, [number]) for number in published))
    mine = load(tmp_path / "work.duckdb", *((number, [number]) for number in work))
    with attached(mine, theirs) as (connection, names):
        assert names == ("work", "published")
        assert is_older(connection) == result


def test_a_file_that_is_missing_or_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.duckdb"
    damaged.write_bytes(b"no database")
    published = load(tmp_path / "published.duckdb", (1, [1]))
    for work in (damaged, tmp_path / "missing.duckdb"):
        with attached(work, published) as (_, names):
            assert names == ("published",)


# The raw archive and its index.


async def seal(folder: Path, count: int, *, ends: bool = True, run: str = "run-1") -> Walk:
    """A walk of deals whose pages are sealed, and indexed in control.db."""
    async with open_session(folder, run=run) as session:
        walk = session.control.open_walk(run, "deals", "live", "v2", "getDeals", None)
        walk = replace(walk, started_at=T0)
        for seq in range(count):
            following = None if ends and seq == count - 1 else str(seq + 1)
            await session.archive.seal(walk, Page(walk.id, seq, encode([deal(seq)]), 1, following, T0))
    return walk


def index(folder: Path, notes: list[str]) -> tuple[dict[int, str], list[int], tuple[int, str] | None]:
    """The walks and pages that control.db knows after the archive was indexed, and the company."""
    settings = config.load(folder)
    with unlocked.open_control(settings) as control:
        index_archive(settings, control, notes.append)
        assert index_archive(settings, control, notes.append) == []
        states = {walk.id: state for walk, state in control.walks()}
        return states, [page.seq for page in control.pages()], control.company()


async def test_s14_a_note_about_one_page_is_about_one(tmp_path: Path) -> None:
    await seal(tmp_path, 1, ends=True)
    config.load(tmp_path).control.unlink()
    notes = list[str]()
    index(tmp_path, notes)
    assert notes == [f"control.db was lost: 1 page was indexed again from {config.load(tmp_path).raw}."]


@pytest.mark.parametrize(("ends", "state"), [(True, "applied"), (False, "dropped")])
async def test_s14_a_lost_control_db_is_indexed_again(tmp_path: Path, ends: bool, state: str) -> None:
    walk, notes = await seal(tmp_path, 3, ends=ends), list[str]()
    config.load(tmp_path).control.unlink()
    assert index(tmp_path, notes) == ({walk.id: state}, [0, 1, 2], (7, ""))
    assert notes == [f"control.db was lost: 3 pages were indexed again from {config.load(tmp_path).raw}."]


async def test_s15_a_page_that_a_kill_kept_out_of_the_index_continues_its_walk(tmp_path: Path) -> None:
    walk, notes = await seal(tmp_path, 3), list[str]()
    with unlocked.open_control(config.load(tmp_path)) as control, control.transaction() as db:
        db.execute("DELETE FROM pages WHERE seq > 0")
        db.execute("UPDATE walks SET state = 'open'")
        db.execute("DELETE FROM raw_files")
    assert index(tmp_path, notes) == ({walk.id: "sealed"}, [0, 1, 2], (7, "Acme"))
    assert notes == []  # nothing was lost


async def test_o4_a_torn_end_is_ignored_and_damage_is_reported_each_time(tmp_path: Path) -> None:
    await seal(tmp_path, 3)
    settings = config.load(tmp_path)
    [path] = settings.raw.glob("*.zst")
    with unlocked.open_control(settings) as control:
        last, middle = control.pages()[2], control.pages()[1]
    whole = path.read_bytes()
    settings.control.unlink()
    path.write_bytes(whole[: last.at + 2])  # a kill cut the last page
    notes: list[str] = []
    assert index(tmp_path, notes)[1] == [0, 1]
    assert len(notes) == 1
    settings.control.unlink()
    path.write_bytes(whole[: middle.at - 20] + b"x" * 40 + whole[middle.at + 20 :])
    with unlocked.open_control(settings) as control:
        for _ in range(2):
            [scan] = index_archive(settings, control, notes.append)
            assert [page.page.seq for page in scan.pages] == [0]


async def test_x1_the_answers_of_another_company_are_refused(tmp_path: Path) -> None:
    await seal(tmp_path, 1)
    settings = config.load(tmp_path)
    settings.control.unlink()
    with unlocked.open_control(settings) as control:
        control.bind_company(8, "Other", None)
        with pytest.raises(StorageError, match="answers of company 7"):
            index_archive(settings, control)
        assert control.pages() == []


def test_the_same_id_of_another_run_becomes_an_id_of_its_own() -> None:
    taken = {5: "run-1"}
    assert _assign_id("run-1", 5, taken) == 5
    assert _assign_id("run-2", 6, taken) == 6
    other = _assign_id("run-2", 5, taken)
    assert other not in taken
    assert other == _assign_id("run-2", 5, taken)  # and the same one each time
