"""How far each list has been read: a walk is open, sealed, then applied, and is never confused with another."""

from __future__ import annotations

import shutil
import sqlite3
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pdsync.core.control import Control, SealedPage
from pdsync.core.control.walks import opened_at
from pdsync.model import BACKFILL, Page

from .kit import NOW, open_walk, page


def test_s3_a_walk_began_at_the_server_s_time_of_its_first_page(control: Control) -> None:
    walk = open_walk(control)
    assert walk.started_at is None
    control.record_pages([page(walk, 0, "a")])
    control.record_pages([page(walk, 1, None)])
    assert control.walk(walk.id).started_at == NOW


def test_a_walk_is_open_until_its_last_page_is_recorded(control: Control) -> None:
    deals, persons = open_walk(control), open_walk(control, stream="persons", since=NOW)
    assert control.unfinished_walks() == [(deals, "open"), (persons, "open")]
    control.record_pages([page(deals, 0, "a"), page(deals, 1, "b"), page(persons, 0, None)])
    assert [(walk.id, state) for walk, state in control.unfinished_walks()] == [
        (deals.id, "open"),
        (persons.id, "sealed"),
    ]
    assert [walk.id for walk, _ in control.unfinished_walks("persons")] == [persons.id]
    assert control.finished_lists("run") == {("persons", "all", "v2")}
    assert control.finished_lists("another") == set()
    control.end_walk(persons.id, "applied")
    control.end_walk(deals.id, "dropped")
    assert control.unfinished_walks() == []
    assert control.finished_lists("run") == {("persons", "all", "v2")}


def test_s3_a_walk_that_is_sealed_while_it_is_looked_up_is_not_sealed_without_its_start(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk, rows = open_walk(control), control.rows

    def rows_and_then_the_last_page(query: str, *values: object) -> list[tuple[object, ...]]:
        found = rows(query, *values)
        monkeypatch.undo()
        control.record_pages([page(walk, 0, None)])
        return found

    monkeypatch.setattr(control, "rows", rows_and_then_the_last_page)
    ((found, state),) = control.unfinished_walks()
    assert (found.started_at is None) == (state == "open")


def test_s15_a_resume_finds_the_last_page_and_where_it_goes_on(control: Control) -> None:
    walk, other = open_walk(control), open_walk(control)
    assert control.last_page(walk.id) is None
    recorded = [page(walk, seq, f"after {seq}") for seq in range(12)]
    control.record_pages([*recorded[:5], page(other, 0, "elsewhere")])
    control.record_pages(recorded[5:])
    assert control.sealed_pages(walk.id) == [sealed for _, sealed in recorded]
    assert control.sealed_pages(walk.id, 10) == [sealed for _, sealed in recorded[10:]]
    assert control.sealed_pages(walk.id, 12) == []
    last = control.last_page(walk.id)
    assert last == recorded[-1][1]
    assert last is not None
    assert last.next == "after 11"


def test_pages_of_a_walk_that_is_not_there_are_refused(control: Control) -> None:
    walk = open_walk(control)
    stray = Page(walk.id + 1, 0, b"{}", 2, None, NOW)
    with pytest.raises(sqlite3.IntegrityError):
        control.record_pages([(stray, SealedPage(walk.id + 1, 0, "f", 0, 1, 2, b"", None, NOW))])


def test_s14_walks_that_a_warehouse_lost_are_loaded_again(control: Control) -> None:
    kept, partly, lost, unapplied = (open_walk(control) for _ in range(4))
    control.record_pages(
        [page(walk, seq, None if seq else "a") for walk in (kept, partly, lost, unapplied) for seq in (0, 1)]
    )
    for walk in (kept, partly, lost):
        control.end_walk(walk.id, "applied")
    held = {(kept.run_id, kept.id): 1, (partly.run_id, partly.id): 0, ("another life", lost.id): 1}
    assert control.requeue_missing_walks(held) == 2
    assert [walk.id for walk, state in control.unfinished_walks() if state == "sealed"] == [
        partly.id,
        lost.id,
        unapplied.id,
    ]
    assert control.requeue_missing_walks(held) == 0


def test_s4_a_walk_of_which_the_warehouse_holds_more_is_never_continued(control: Control) -> None:
    overtaken, level, fresh, begun, unbegun = (open_walk(control) for _ in range(5))
    control.record_pages([page(walk, 0, "a") for walk in (overtaken, level, fresh)])
    held = {(overtaken.run_id, overtaken.id): 3, (level.run_id, level.id): 0, ("another life", fresh.id): 9}
    held |= {(begun.run_id, begun.id): 0}  # of which this file has no page
    assert control.drop_outdated_walks(held) == 2
    assert [walk.id for walk, _ in control.unfinished_walks()] == [level.id, fresh.id, unbegun.id]


def test_a_forecast_finds_the_newest_applied_walk_of_each_list(control: Control) -> None:
    full, newer, changes, open_one = (open_walk(control, since=since) for since in (None, None, NOW, NOW))
    control.record_pages([page(full, 0, "a"), page(full, 1, None)])
    control.record_pages([page(newer, seq, str(seq) if seq < 2 else None) for seq in range(3)])
    control.record_pages([page(changes, 0, None), page(open_one, 0, "a")])
    for walk in (full, newer, changes):
        control.end_walk(walk.id, "applied")
    assert control.pages_of_last_walks() == {("deals", "all", True): (3, 6), ("deals", "all", False): (1, 2)}


def test_s4_no_walk_gets_an_id_again_whatever_happened_to_the_file_or_the_clock(
    control: Control, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = [Control(Path(shutil.copy(control.path, tmp_path / f"copy-{number}.db"))) for number in range(2)]
    lives = [control, *copies]
    seen = [open_walk(each).id for each in lives]
    now = time.time
    for moved in (0, -86_400, 86_400, -86_400):  # a clock set back, and one set ahead
        monkeypatch.setattr(time, "time", lambda moved=moved: now() + moved)
        for each in lives:
            seen.append(open_walk(each).id)
            assert seen[-1] > seen[-1 - len(lives)]
    for each in copies:
        each.close()
    assert len(set(seen)) == len(seen)
    assert max(seen) < 2**62


def test_the_id_of_a_walk_has_the_time_of_its_opening(control: Control) -> None:
    opened = opened_at(open_walk(control).id)
    assert opened is not None
    assert abs(opened - datetime.now(UTC)) < timedelta(hours=1)
    assert opened_at(7) is None  # as an older pdsync numbered its walks


def test_a_run_began_with_its_first_list_and_has_read_whole_those_that_began_without_a_time(control: Control) -> None:
    whole, changes, unapplied = open_walk(control), open_walk(control, since=NOW), open_walk(control, stream="users")
    assert control.began_at("run") is None
    for second, walk in ((5, whole), (3, changes), (9, unapplied)):
        control.record_pages([page(walk, 0, "a", served=second), page(walk, 1, None)])
    for walk in (whole, changes):
        control.end_walk(walk.id, "applied")
    assert control.began_at("run") == NOW + timedelta(seconds=3)
    assert control.began_at("another") is None
    assert control.full_walks("run") == {("deals", "all"): NOW + timedelta(seconds=5)}


def test_a_forecast_counts_no_window_of_a_backfill(control: Control) -> None:
    window = control.open_walk("run", "deals", f"{BACKFILL}all", "v2", "getDeals", None)
    control.record_pages([page(window, 0, None)])
    control.end_walk(window.id, "applied")
    assert control.pages_of_last_walks() == {}
