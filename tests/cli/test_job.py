"""A command with a receipt ends with the exit code of its run."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click
import pytest

from pdsync.cli.app import App
from pdsync.cli.job import exit_with, expect_requests, measure_for_progress, show_receipt
from pdsync.cli.progress import Expected
from pdsync.core import config
from pdsync.core.control import Control, SealedPage
from pdsync.core.control.sizes import ListSize, ListSizes
from pdsync.model import Page, Receipt, StreamReceipt
from pdsync.runner.sync.sync_request import SyncRequest
from pdsync.sandbox import Limits, Sizes, generate_company, running

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def test_a_command_ends_with_its_exit_code_and_zero_is_no_error() -> None:
    exit_with(0)
    with pytest.raises(click.exceptions.Exit) as ended:
        exit_with(4)
    assert ended.value.exit_code == 4


@pytest.mark.parametrize(("code", "complete"), [(0, True), (1, False), (4, False)])
def test_s9_a_summary_is_complete_only_with_exit_code_0(
    capsys: pytest.CaptureFixture[str], code: int, complete: bool
) -> None:
    receipt = Receipt("r1", "sync", NOW, NOW, streams={"deals": StreamReceipt(complete=True)})
    app = App()
    app.json = True
    show_receipt(app, receipt, code)  # of a verification that failed or found differences
    summary = json.loads(capsys.readouterr().out)
    assert (summary["complete"], summary["exit_code"]) == (complete, code)


def test_a_first_sync_expects_what_the_plan_has_measured(tmp_path: Path) -> None:
    settings = config.load(tmp_path)
    request = SyncRequest(("persons", "users"))
    assert expect_requests(settings, request)["persons"].at_least
    control = Control(settings.control)
    fields = ListSize("person_fields", "all", "v2", 60, 1_000, "assumed", is_assumed=True)
    ListSizes(control).save([ListSize("persons", "all", "v2", 7_116, 7_473, "measured"), fields])
    walk = control.open_walk("run", "persons", "all", "v2", "getPersons", None)
    control.close()
    assert expect_requests(settings, request) == {
        "person_fields": Expected(1, tokens=10),
        "persons": Expected(16, tokens=160),
        "users": Expected(1, tokens=20),
    }
    control = Control(settings.control)
    for seq in range(4):  # of a run that was interrupted: they are not requested again
        page = Page(walk.id, seq, b"", 500, "next", NOW)
        control.record_pages([(page, SealedPage(walk.id, seq, "f", 0, 0, 500, b"", page.next, NOW))])
    control.close()
    assert expect_requests(settings, request)["persons"] == Expected(12, tokens=120)


class Screen(io.StringIO):
    """A terminal that keeps what is written to it."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("is_watched", "budget", "measures"),
    [(True, None, True), (True, 5_000, True), (True, 200, False), (False, None, False)],
)
def test_l5_a_first_sync_that_someone_watches_is_measured_once_within_its_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_watched: bool, budget: int | None, measures: bool
) -> None:
    company = generate_company(seed=3, sizes=Sizes(deals=600, activities=0, persons=0, organizations=0))
    with running(company, limits=Limits(burst=None)) as box, redirect_stderr(Screen() if is_watched else io.StringIO()):
        monkeypatch.setenv("PDSYNC_API_TOKEN", box.token)
        settings = config.load(tmp_path, {"account.base_url": box.url})
        request = SyncRequest(("deals", "persons"), budget=budget)
        changed = measure_for_progress(App(), settings, request)
        spent = sum(seen.cost for seen in box.log)
        assert (0 < spent <= 150) == measures
        assert (budget or 0) - (changed.budget or 0) == (spent if budget else 0)
        assert expect_requests(settings, changed)["deals"].at_least is not measures
        box.clear_log()
        assert measure_for_progress(App(), settings, request) == request
        assert len(box.log) == 0


def test_l5_a_measurement_that_fails_is_part_of_the_budget_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    company = generate_company(seed=3, sizes=Sizes(deals=600, activities=0, persons=0, organizations=0))
    with running(company, limits=Limits(burst=None)) as box, redirect_stderr(Screen()):
        monkeypatch.setenv("PDSYNC_API_TOKEN", box.token)
        box.faults.add(kind="status", status=401, nth=2)
        settings = config.load(tmp_path, {"account.base_url": box.url})
        changed = measure_for_progress(App(), settings, SyncRequest(("deals", "persons"), budget=5_000))
        assert [seen.status for seen in box.log] == [200, 401]
        assert changed.budget == 5_000 - 20
