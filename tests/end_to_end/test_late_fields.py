"""A custom field has its values in its columns, also where records were read before its definition was."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.truth import differences
from tests.support.world import Project, Remote, wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from pdsync.sandbox import RunningSandbox

SYNC = ("sync", "users", "deal_fields", "deals", "--json")


@pytest.fixture
def project(box: RunningSandbox, tmp_path: Path) -> Project:
    return Project(tmp_path / "project", Remote(box.url, box.token))


def columns(project: Project) -> set[str]:
    return {name for name, *_ in project.ask("DESCRIBE main.deals") if name.startswith("cf_")}


def wrong(project: Project, box: RunningSandbox) -> list[str]:
    assert columns(project)
    with project.warehouse() as warehouse:
        return differences(warehouse, "deals", box.dump("deals"))


def wait_until(project: Project, query: str) -> None:
    """Until control.db has a row of `query`."""
    while True:
        with contextlib.suppress(sqlite3.OperationalError):  # it is being made
            if (project.data / "control.db").exists() and project.control(query):
                return
        time.sleep(0.02)


def test_s9_a_first_sync_without_definitions_leaves_no_column_empty_after_the_next(
    project: Project, box: RunningSandbox
) -> None:
    box.faults.add(kind="status", status=500, path="/dealFields")
    first = project.here(*SYNC)
    assert [gap["stream"] for gap in first.summary["gaps"]] == ["deal_fields"]
    assert columns(project) == set()  # the values are in _extra
    box.faults.clear()
    assert project.here(*SYNC).code == 0
    assert wrong(project, box) == []


def test_s9_a_value_of_a_field_that_is_created_after_the_definitions_were_read_comes_with_the_next_sync(
    project: Project, box: RunningSandbox
) -> None:
    assert project.here(*SYNC).code == 0
    field = box.act("POST", "/api/v2/dealFields", {"field_name": "Region", "field_type": "varchar"})["data"]
    box.clock.advance(3600)
    deal = project.ask("SELECT id FROM deals WHERE NOT is_archived AND NOT is_deleted ORDER BY id DESC")[0][0]
    box.act("PATCH", f"/api/v2/deals/{deal}", {"custom_fields": {field["field_code"]: "North"}})
    box.faults.add(kind="status", status=500, path="/dealFields")
    box.clock.advance(3600)
    assert project.here(*SYNC).code != 0
    box.faults.clear()
    box.clock.advance(24 * 3600)  # longer than the overlap
    project.here("sync", "users")  # another run: the one that failed is not continued
    box.clear_log()
    ran = project.here(*SYNC)
    assert ran.code == 0
    assert project.ask("SELECT cf_region FROM deals WHERE id = ?", deal) == [("North",)]
    assert wrong(project, box) == []
    assert ran.summary["streams"]["deals"]["read"] < 20  # what has changed since, not all of them
    assert any("updated_since" in entry.query for entry in box.log if entry.path.endswith("/deals"))


@pytest.mark.proof
@pytest.mark.parametrize(
    ("stop", "open_list"),
    [(signal.SIGINT, "/deals/archived"), (signal.SIGTERM, "/users"), (signal.SIGKILL, "/deals/archived")],
)
def test_s1_a_sync_that_is_stopped_before_the_definitions_are_read_goes_on_to_the_right_columns(
    project: Project, box: RunningSandbox, stop: signal.Signals, open_list: str
) -> None:
    for path in ("/dealFields", open_list):
        box.faults.add(kind="latency", ms=20_000.0, path=path)
    process = project.start(*SYNC)
    wait_until(project, "SELECT 1 FROM walks w JOIN pages p ON p.walk = w.id WHERE w.stream = 'deals'")
    process.send_signal(stop)
    assert wait_for(process, 60).code == {signal.SIGKILL: -9}.get(stop, 130)
    box.faults.clear()
    assert project.here(*SYNC).code == 0
    assert wrong(project, box) == []


@pytest.mark.proof
def test_s1_a_sync_that_is_killed_after_the_definitions_failed_goes_on_to_the_right_columns(
    project: Project, box: RunningSandbox
) -> None:
    box.faults.add(kind="status", status=500, path="/dealFields")
    box.faults.add(kind="latency", ms=60_000.0, path="/deals/archived")
    process = project.start(*SYNC)
    wait_until(project, "SELECT 1 FROM walks WHERE stream = 'deals' AND source = 'live' AND state = 'applied'")
    process.kill()
    wait_for(process, 60)
    box.faults.clear()
    assert project.here(*SYNC).code == 0
    assert wrong(project, box) == []
