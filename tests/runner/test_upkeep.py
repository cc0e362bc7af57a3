"""Verify finds every page that is not whole; a prune removes only pages that no replay needs."""

from __future__ import annotations

import os
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from pdsync.core import config
from pdsync.errors import ConfigError, StorageError
from pdsync.runner import project, unlocked
from pdsync.runner.archive.upkeep import Fault, forget_lost_walks, plan_prune, prune, verify
from tests.runner.kit import T0, deal, load, open_session

if TYPE_CHECKING:
    from pathlib import Path

    from pdsync.core.config import Settings
    from pdsync.core.control import SealedPage
    from pdsync.model import Walk

Step = tuple[dict[str, Any] | None, dict[str, Any]]  # a deal (None: no record), and how it was read


async def archive(folder: Path, *walks: Step, age_days: int = 60) -> tuple[Settings, list[Walk]]:
    """A project that has read one page of deals in each of several runs, all so many days ago."""
    made: list[Walk] = []
    for number, (record, options) in enumerate(walks):
        async with open_session(folder, run=f"run-{number}") as session:
            records = [record] if record else []
            made.append(await load(session, "deals", *records, at=T0 + timedelta(hours=number), **options))
            settings = session.settings
            started = datetime.now(UTC) - timedelta(days=age_days)
            session.receipt.started_at = started
            session.receipt.finished_at = started
            session.control.finish_run(session.receipt)
    return settings, made


def damage(settings: Settings, page: SealedPage, how: str) -> None:
    path = settings.raw / page.file
    content = bytearray(path.read_bytes())
    if how == "missing":
        path.unlink()
    elif how == "short":
        path.write_bytes(content[: page.at + page.length - 1])
    else:
        content[page.at + page.length // 2] ^= 0xFF
        path.write_bytes(content)


@pytest.mark.parametrize("how", ["missing", "short", "damaged"])
async def test_o4_each_page_that_is_not_whole_is_named(tmp_path: Path, how: str) -> None:
    settings, walks = await archive(tmp_path, (deal(1), {}), (deal(2), {}))
    reported: list[Fault] = []
    assert verify(settings, reported.append).faults == reported == []
    with unlocked.open_control(settings) as control:
        [page] = control.sealed_pages(walks[0].id)
    damage(settings, page, how)
    found = verify(settings, reported.append)
    assert found.faults == reported
    assert [(fault.name, fault.walk, fault.stream, fault.kind) for fault in reported] == [
        (page.file, walks[0].id, "deals", how)
    ]
    assert "pdsync sync deals --full" in reported[0].advice
    assert found.pages == 2


async def test_o4_pages_that_control_db_lost_are_checked_too(tmp_path: Path) -> None:
    settings, _ = await archive(tmp_path, (deal(1), {}))
    (settings.raw / "left-by-a-kill.zst").write_bytes(b"")
    before = verify(settings)
    assert (before.pages, before.unindexed, before.unnamed) == (1, 0, ["left-by-a-kill.zst"])
    settings.control.unlink()
    after = verify(settings)
    assert (after.pages, after.unindexed, after.faults, after.bytes) == (1, 1, [], before.bytes)


def test_a_project_without_an_archive_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="pdsync sync"):
        verify(config.load(tmp_path))


WROTE: Step = (deal(1), {})
SAME: Step = (deal(1), {})
CHANGES = {"since": T0}


@pytest.mark.parametrize(
    ("walks", "removed"),
    [
        ([WROTE], []),
        ([WROTE, SAME, SAME], [1]),  # the first wrote, and the last shows how fresh the rows are
        ([WROTE, (deal(1, title="x"), {}), SAME], []),  # each wrote something
        ([WROTE, (None, CHANGES), (None, CHANGES), SAME], [1]),  # the newest of changes stays too
        ([WROTE, (None, {"source": 1}), SAME], []),  # of each list
        ([WROTE, (deal(1), {"state": "dropped"}), SAME], [1]),
        ([WROTE, (deal(1), {"state": "sealed"}), SAME], []),  # it may not be loaded yet
    ],
)
async def test_s14_only_walks_that_wrote_nothing_are_removed(
    tmp_path: Path, walks: list[Step], removed: list[int]
) -> None:
    settings, made = await archive(tmp_path, *walks)
    with unlocked.open_control(settings) as control:
        planned = plan_prune(settings, control, 30)
        assert [made.index(next(each for each in made if each.id == walk.id)) for walk in planned.walks] == removed
        assert plan_prune(settings, control, 90).walks == []  # all of it is young
        assert planned.bytes == sum(page.length for page in planned.pages)
        prune(settings, control, planned)
        assert {walk.id for walk, state in control.walks() if state == "pruned"} == {made[n].id for n in removed}
        assert {page.walk for page in control.pages()} == {walk.id for walk in made} - {made[n].id for n in removed}
    assert verify(settings).faults == []


async def test_a_file_without_a_page_is_removed_when_it_is_old(tmp_path: Path) -> None:
    settings, _ = await archive(tmp_path, WROTE)
    for name, age in (("old.zst", 60), ("new.zst", 0)):
        (settings.raw / name).write_bytes(b"")
        at = (datetime.now(UTC) - timedelta(days=age)).timestamp()
        os.utime(settings.raw / name, (at, at))
    with unlocked.open_control(settings) as control:
        planned = plan_prune(settings, control, 30)
        assert planned.unnamed == ["old.zst"]
        prune(settings, control, planned)
    assert (settings.raw / "new.zst").exists()
    assert not (settings.raw / "old.zst").exists()


async def test_s14_a_file_whose_pages_can_t_be_listed_stays_however_old_it_is(tmp_path: Path) -> None:
    settings, _ = await archive(tmp_path, WROTE)
    (whole,) = settings.raw.glob("*.zst")
    damaged = settings.raw / "damaged.zst"
    damaged.write_bytes(b"\xff" * 8 + whole.read_bytes()[8:])
    os.utime(damaged, (0, 0))
    with unlocked.open_control(settings) as control:
        assert plan_prune(settings, control, 30).unnamed == []


async def test_s14_without_a_warehouse_nothing_is_removed(tmp_path: Path) -> None:
    settings, _ = await archive(tmp_path, WROTE, SAME, SAME)
    project.work_path(settings).unlink()
    with unlocked.open_control(settings) as control, pytest.raises(ConfigError, match="Nothing was removed"):
        plan_prune(settings, control, 30)


async def test_s14_by_a_warehouse_that_lacks_a_walk_nothing_is_removed(tmp_path: Path) -> None:
    settings, walks = await archive(tmp_path, WROTE)
    with closing(duckdb.connect(str(project.work_path(settings)))) as older:
        older.execute("DELETE FROM meta._applied_batches WHERE walk = ?", [walks[0].id])
    with unlocked.open_control(settings) as control, pytest.raises(ConfigError, match="lacks walks"):
        plan_prune(settings, control, 30)


@pytest.mark.parametrize(
    ("later", "is_replaceable"),
    [([], False), ([(deal(1), CHANGES)], False), ([(deal(1), {"source": 1})], False), ([(deal(1), {})], True)],
)
async def test_o4_a_damaged_walk_is_given_up_only_after_a_full_read(
    tmp_path: Path, later: list[Step], is_replaceable: bool
) -> None:
    settings, made = await archive(tmp_path, WROTE, *later, age_days=0)
    with unlocked.open_control(settings) as control:
        damage(settings, control.sealed_pages(made[0].id)[0], "damaged")
        if is_replaceable:
            assert [walk.id for walk in plan_prune(settings, control, 30, damaged=True).walks] == [made[0].id]
        else:
            with pytest.raises(StorageError, match="Nothing was removed"):
                plan_prune(settings, control, 30, damaged=True)
        assert plan_prune(settings, control, 30).walks == []


async def test_o4_lost_walks_are_forgotten_with_all_their_pages(tmp_path: Path) -> None:
    settings, made = await archive(tmp_path, WROTE, (deal(2), {}))
    with unlocked.open_control(settings) as control:
        damage(settings, control.sealed_pages(made[0].id)[0], "missing")
        assert forget_lost_walks(settings, control, ["persons"]) == 0
        assert forget_lost_walks(settings, control, ["deals"]) == 1
        assert {walk.id: state for walk, state in control.walks()} == {made[0].id: "pruned", made[1].id: "applied"}
        assert {page.walk for page in control.pages()} == {made[1].id}
        assert forget_lost_walks(settings, control, ["deals"]) == 0
