"""Clocks that are wrong for a night: the server's, a file's, or this machine's. Every later change is still stored."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from tests.support.truth import BLIND, differences
from tests.support.world import Project, broken_history, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.world import Remote

pytestmark = pytest.mark.proof

STREAMS = ("deals", "stages")  # with a time of change, and without
HOUR_S = 3600
AHEAD = (3 * HOUR_S, 24 * HOUR_S, -24 * HOUR_S)


@pytest.fixture
def remote() -> Iterator[Remote]:
    with serving("--deals", "30", "--seed", "5") as remote:
        yield remote


def wrong(project: Project, remote: Remote) -> list[str]:
    with project.warehouse() as warehouse:
        found = [
            difference
            for stream in STREAMS
            for difference in differences(warehouse, stream, remote.dump(stream), leave_out=BLIND.get(stream, ()))
        ]
    return found + broken_history(project)


def synced(project: Project, *options: str) -> None:
    ran = project.here("sync", *STREAMS, *options)
    assert ran.code == 0, ran


def edit_silently(remote: Remote, seed: int) -> None:
    """Change what moves no time of change, and some that does."""
    stage = min(entry["id"] for entry in remote.dump("stages") if entry["state"] == "live")
    remote.post("edit", kind="stages", id=stage, set={"name": f"renamed {seed}"})
    remote.change(0.3, seed=seed, kinds=["deals"], only=["updated"], advance_s=2)


@pytest.mark.parametrize("later_s", [60, 20 * HOUR_S], ids=["a minute later", "a night later"])
@pytest.mark.parametrize("ahead_s", AHEAD)
@pytest.mark.parametrize("night", [0, 1], ids=["first", "second"])
def test_s3_s6_o5_changes_after_a_night_whose_date_was_wrong_land_in_the_next(
    remote: Remote, tmp_path: Path, night: int, ahead_s: int, later_s: int
) -> None:
    project = Project(tmp_path / "project", remote)
    for number in range(3):
        remote.post("clock", ahead_s=ahead_s if number == night else 0)
        synced(project)
        assert wrong(project, remote) == []
        remote.advance(later_s)
        edit_silently(remote, number)
        remote.advance(later_s)
    synced(project)
    assert wrong(project, remote) == []


@pytest.mark.parametrize("without_control", [False, True], ids=["", "control.db is lost"])
@pytest.mark.parametrize("is_read_back", [True, False], ids=["read back", "not read back"])
@pytest.mark.parametrize(("before_s", "after_s"), [(0, -3 * HOUR_S), (0, -24 * HOUR_S), (0, -20), (24 * HOUR_S, 0)])
def test_s7_o5_what_a_push_deleted_is_marked_though_the_clock_is_behind_that_of_the_last_reading(
    remote: Remote, tmp_path: Path, before_s: int, after_s: int, is_read_back: bool, without_control: bool
) -> None:
    project = Project(tmp_path / "project", remote)
    remote.post("clock", ahead_s=before_s)
    assert project.here("sync", "products").code == 0
    if without_control:
        for path in project.data.glob("control.db*"):
            path.unlink()
    gone = min(entry["id"] for entry in remote.dump("products") if entry["state"] == "live")
    remote.post("clock", ahead_s=after_s)
    assert project.here("queue", "add", "deleteProduct", f"id={gone}").code == 0
    if not is_read_back:
        remote.fault(kind="html_200", path="^/v1/users/me", nth=2)  # the first one is the push's own
    pushed = project.here("push", "--yes", "--allow", "delete")
    assert pushed.code == 0, pushed
    remote.clear_faults()
    assert project.here("sync", "products").code == 0
    assert project.ask("SELECT id FROM products WHERE _deleted_at IS NOT NULL") == [(gone,)]
    assert broken_history(project) == []


def test_s6_o5_rows_dated_by_a_wrong_clock_are_corrected(remote: Remote, tmp_path: Path) -> None:
    """As an older pdsync has left it: rows, versions and watermarks of tomorrow, and nothing that tells more."""
    project = Project(tmp_path / "project", remote)
    synced(project)
    edit_silently(remote, 1)
    synced(project)
    with duckdb.connect(str(project.data / "warehouse.work.duckdb")) as work:
        for table in STREAMS:
            for schema in ("main", "versions"):
                for column in ("_verified_at", "_valid_from", *(["_valid_to"] if schema == "versions" else [])):
                    work.execute(f'UPDATE {schema}.{table} SET "{column}" = "{column}" + INTERVAL 1 DAY')
        work.execute("UPDATE meta.checkpoints SET watermark = watermark + INTERVAL 1 DAY, newest = NULL")
    assert broken_history(project) == []
    edit_silently(remote, 2)
    ran = project.here("sync", *STREAMS)
    assert ran.code == 0, ran
    assert "a clock was ahead" in ran.err
    assert wrong(project, remote) == []
    now = datetime.now(UTC) + timedelta(minutes=1)
    for table in STREAMS:
        assert project.ask(
            f"SELECT count(*) FROM history.{table} WHERE _valid_from > ? OR _verified_at > ?", now, now
        ) == [(0,)]
        versions = project.ask(f"SELECT count(*) FROM versions.{table} WHERE _valid_from >= _valid_to")
        assert versions == [(0,)]
    assert project.ask("SELECT count(*) FROM meta.checkpoints WHERE watermark > ?", now) == [(0,)]


@pytest.mark.parametrize("how", ["its own time", "--as-of"])
def test_s6_a_file_that_says_it_is_from_tomorrow_outranks_nothing(remote: Remote, tmp_path: Path, how: str) -> None:
    project = Project(tmp_path / "project", remote)
    synced(project)
    deals: list[dict[str, Any]] = [entry["record"] for entry in remote.dump("deals") if entry["state"] == "live"]
    file = tmp_path / "deals.json"
    file.write_text(json.dumps([{**deal, "title": "saved"} for deal in deals]))
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    os.utime(file, (tomorrow.timestamp(), tomorrow.timestamp()))
    options = ["--as-of", tomorrow.isoformat()] if how == "--as-of" else []
    ran = project.here("load", str(file), "--stream", "deals", *options)
    assert ran.code == 0, ran
    assert project.ask("SELECT max(_verified_at) <= now() FROM deals") == [(True,)]
    remote.advance(5)
    edit_silently(remote, 1)
    synced(project, "--full")
    assert wrong(project, remote) == []


@pytest.mark.parametrize("off_s", [-365 * 24 * HOUR_S, 365 * 24 * HOUR_S], ids=["a year back", "a year ahead"])
def test_o5_this_machines_clock_decides_nothing(remote: Remote, tmp_path: Path, off_s: int) -> None:
    project = Project(tmp_path / "project", remote)
    synced(project)
    remote.advance(HOUR_S)
    edit_silently(remote, 1)
    moved = datetime.now(UTC).timestamp() + off_s
    assert project.run("sync", *STREAMS, first=f"knobs.local_clock({moved})").code == 0
    assert wrong(project, remote) == []
    remote.advance(HOUR_S)
    edit_silently(remote, 2)
    synced(project)
    assert wrong(project, remote) == []
