"""The live display of a fleet run: one line an account, totals below, never wider or higher than the screen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pdsync.cli.app import App
from pdsync.cli.fleet_progress import FleetProgress, describe
from pdsync.cli.text_width import cell_width
from pdsync.fleet.accounts import Account
from pdsync.fleet.engine import Progressed
from pdsync.fleet.job import AccountJob, AccountResult, Counts, Progress

if TYPE_CHECKING:
    from collections.abc import Sequence

DONE = AccountResult("acme", 0, True, "complete", counts=Counts(requests=3, tokens=30, read=200), seconds=2.5)
FAILED = AccountResult("beta", 1, False, "failed", "No answer.\nTry later.", "ServerTrouble", attempts=2)


def job(name: str) -> AccountJob:
    return AccountJob(Account(name, Path("/", name)), ("sync",), "r1")


def display(app: App, names: Sequence[str], total: int, dashboard: str = "") -> FleetProgress:
    """A display with accounts under way, after a minute."""
    times = iter([0.0] * (len(names) + 1))
    progress = FleetProgress(app, total, dashboard, clock=lambda: next(times, 60.0))
    for name in names:
        progress.on_start(job(name))
    return progress


def test_each_account_under_way_has_a_line_and_the_totals_count_all() -> None:
    progress = display(App(), ["gamma", "delta"], 9, "http://127.0.0.1:8787/status")
    progress.on_progress(Progressed("gamma", Progress(12, 5, Counts(requests=7, tokens=70, read=1500))))
    progress.on_progress(Progressed("gamma", Progress(note="Waiting.")))
    progress.on_result(DONE)
    progress.on_retry(FAILED, 30.0)
    lines = [line.text for line in progress.lay_out(100, 24)]
    assert lines[0].split() == ["account", "streams", "requests", "rows", "tokens", "time"]
    assert lines[1].split() == ["…", "gamma", "5", "of", "12", "7", "1500", "70", "60", "s"]
    assert lines[2].split()[:2] == ["…", "delta"]
    assert "1 complete, 2 under way, 1 tried again later, 5 waiting" in lines[3]
    assert lines[4] == "1,700 rows, 10 requests, 100 tokens in 60 s"
    assert lines[5] == "Dashboard: http://127.0.0.1:8787/status"


@pytest.mark.parametrize("width", [30, 60, 120])
@pytest.mark.parametrize("height", [3, 6, 10, 50])
def test_the_display_fits_the_screen(width: int, height: int) -> None:
    progress = display(App(), [f"account-{number:03}" for number in range(40)], 200)
    lines = progress.lay_out(width, height)
    assert len(lines) <= height - 1
    assert max(cell_width(line.text) for line in lines) <= width


def test_programs_get_an_event_for_each_step_with_the_account_it_is_about(capsys: pytest.CaptureFixture[str]) -> None:
    app = App()
    app.json = True
    progress = display(app, ["acme"], 2)
    progress.on_progress(Progressed("acme", Progress(2, 1, Counts(requests=1, tokens=10, read=5))))
    progress.on_progress(Progressed("acme", Progress(note="Waiting.")))
    progress.on_retry(FAILED, 30.0)
    progress.on_result(DONE)
    progress.on_note("A worker is lost.")
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(event["event"], event.get("account")) for event in events] == [
        ("started", "acme"), ("progress", "acme"), ("note", "acme"), ("retry", "beta"), ("account", "acme"),
        ("note", None),
    ]  # fmt: skip
    assert events[1] == {
        "event": "progress", "account": "acme", "started": 2, "ended": 1, "requests": 1, "tokens": 10, "read": 5,
    }  # fmt: skip
    assert (events[4]["read"], events[4]["complete"], events[4]["outcome"]) == (200, True, "complete")


def test_a_command_that_lists_something_gets_no_events_between_its_rows(capsys: pytest.CaptureFixture[str]) -> None:
    app = App()
    app.json = True
    progress = FleetProgress(app, 1, is_listing=True)
    progress.on_start(job("acme"))
    progress.on_result(DONE)
    assert capsys.readouterr().out == ""


def test_a_result_is_one_line_with_why_it_is_not_complete() -> None:
    assert describe(DONE) == "✓ acme: 200 rows, 3 requests, 2.5 s"
    assert describe(FAILED) == "✗ beta: failed, 2 attempts: No answer."
