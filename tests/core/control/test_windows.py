"""The windows of a backfill: they cover its time without overlap, and survive a change of version."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from pdsync.core.control import Control
from pdsync.core.control.db import STEPS
from pdsync.core.control.windows import Windows

if TYPE_CHECKING:
    from pathlib import Path

    from pdsync.model import Version

SINCE, MIDDLE, UNTIL = (datetime(2026, month, 1, tzinfo=UTC) for month in (1, 2, 3))
LISTS: list[tuple[str, str, Version, str]] = [("deals", "list", "v2", "getDeals")]


def planned(path: Path) -> tuple[Control, Windows]:
    control = Control(path)
    control.start_run("job", "backfill", UNTIL)
    windows = Windows(control)
    windows.plan("job", LISTS, SINCE, UNTIL)
    return control, windows


def test_two_windows_of_a_cut_cover_the_time_without_overlap(tmp_path: Path) -> None:
    _, windows = planned(tmp_path / "control.db")
    [(window, state)] = windows.unfinished("job")
    assert (window.since, window.until, state) == (SINCE, UNTIL, "open")
    newer, older = windows.cut(window, MIDDLE)
    assert [(each.since, each.until) for each in (older, newer)] == [(SINCE, MIDDLE), (MIDDLE, UNTIL)]
    assert [each for each, _ in windows.unfinished("job")] == [newer, older]
    assert windows.until("job") == UNTIL


def test_a_window_is_done_when_its_walk_is_applied(tmp_path: Path) -> None:
    control, windows = planned(tmp_path / "control.db")
    [(window, _)] = windows.unfinished("job")
    first = windows.begin(window, "job")
    [(begun, _)] = windows.unfinished("job")
    second = windows.begin(begun, "job")  # the first walk is dropped
    assert {walk.id: state for walk, state in control.walks()} == {first.id: "dropped", second.id: "open"}
    control.end_walk(second.id, "applied")
    assert windows.unfinished("job") == []
    assert windows.job("backfill", LISTS) is None


@pytest.mark.parametrize(
    "others", [[], [("deals", "list", "v1", "getDeals")], [*LISTS, ("leads", "live", "v1", "getLeads")]]
)
def test_s9_a_job_of_other_lists_is_not_continued(tmp_path: Path, others: list[tuple[str, str, Version, str]]) -> None:
    _, windows = planned(tmp_path / "control.db")
    assert windows.job("backfill", LISTS) == "job"
    assert windows.job("backfill", others) is None


@pytest.mark.parametrize(("state", "is_left"), [("applied", False), ("sealed", True), ("dropped", True)])
def test_s9_a_pruned_window_is_done_only_if_it_was_applied(tmp_path: Path, state: str, is_left: bool) -> None:
    control, windows = planned(tmp_path / "control.db")
    window, _ = windows.cut(windows.unfinished("job")[0][0], MIDDLE)
    [(older, _)] = windows.unfinished("job")[1:]
    control.end_walk(windows.begin(older, "job").id, "applied")
    walk = windows.begin(window, "job")
    control.end_walk(walk.id, state)
    for _ in range(2):  # a kill may have the prune carried out again
        control.end_walk(walk.id, "pruned")
    again = replace(window, walk=None, asked_since=MIDDLE, asked_until=UNTIL)  # by a new walk: the old one has no pages
    assert windows.unfinished("job") == ([(again, "open")] if is_left else [])
    assert windows.job("backfill", LISTS) == ("job" if is_left else None)


def test_a_project_with_a_begun_backfill_of_the_version_before_keeps_its_windows(tmp_path: Path) -> None:
    path = tmp_path / "control.db"
    before_windows = next(number for number, step in enumerate(STEPS) if "EXISTS windows" in step)
    control, windows = planned(path)
    before = windows.unfinished("job")
    control.close()
    with sqlite3.connect(path) as db:
        db.execute("ALTER TABLE attempts DROP COLUMN read_until")  # a later step adds it again
        db.execute(f"PRAGMA user_version={before_windows}")
    assert Windows(Control(path)).unfinished("job") == before
