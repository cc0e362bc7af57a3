"""The schedules that are installed for a project are found again, and their next times are right."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from pdsync.runner.pipelines import installed, schedule
from pdsync.runner.pipelines.schedule import Job

if TYPE_CHECKING:
    from pathlib import Path

    from pdsync.runner.pipelines.schedule import Interval


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine one hour east of UTC, whose crontab is the file `table`."""
    crontab = tmp_path / "crontab"
    crontab.write_text(f'#!/bin/sh\nif [ "$1" = -l ]; then /bin/cat {tmp_path}/table; fi\n')
    crontab.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TZ", "XXX-1")
    time.tzset()


def jobs_of(project: Path) -> list[Job]:
    return [
        Job("nightly", project, "day", 2, 15),
        Job("hourly", project, "hour", 0, 5),
        Job("reconcile", project, "week", 23, 0),
    ]


@pytest.mark.parametrize("kind", ["cron", "systemd", "launchd"])
@pytest.mark.parametrize("name", ["project", 'a "b" 100% $HOME'])
def test_what_schedule_installs_is_found_for_its_project(tmp_path: Path, kind: str, name: str) -> None:
    project, table = tmp_path / name, tmp_path / "table"
    table.write_text("0 1 * * * mine\n")
    for job in [*jobs_of(project), Job("nightly", tmp_path / "other", "day", 1, 1)]:
        for path, text in schedule.render_files(kind, job).items():
            if kind == "cron":
                table.write_text(table.read_text() + text)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            if path.suffix == ".timer":  # enabled
                wanted = path.parent / "timers.target.wants"
                wanted.mkdir(exist_ok=True)
                (wanted / path.name).symlink_to(path)
    found = installed.find_jobs(project)
    assert sorted(found, key=lambda job: job.pipeline) == sorted(jobs_of(project), key=lambda job: job.pipeline)
    assert installed.find_jobs(tmp_path / "third") == []
    assert installed.longest_pause(found, project) == timedelta(hours=1)
    assert installed.longest_pause([found[-1], Job("gone", project, "hour", 0, 0)], project) in (None, timedelta(1))


@pytest.mark.parametrize(
    ("every", "hour", "minute", "at"),
    [
        ("hour", 0, 31, "2026-11-28 11:31"),
        ("hour", 0, 30, "2026-11-28 12:30"),  # not now
        ("day", 12, 31, "2026-11-28 11:31"),
        ("day", 2, 15, "2026-11-29 01:15"),
        ("week", 2, 15, "2026-11-29 01:15"),  # Sunday
    ],
)
def test_the_next_time_is_a_local_one(tmp_path: Path, every: Interval, hour: int, minute: int, at: str) -> None:
    now = datetime(2026, 11, 28, 11, 30, tzinfo=UTC)  # a Saturday
    run = installed.next_run([Job("nightly", tmp_path, every, hour, minute)], now)
    assert run is not None
    assert f"{run.at:%Y-%m-%d %H:%M}" == at
    sunday = installed.next_run([Job("reconcile", tmp_path, "week", 12, 0)], now + timedelta(days=1))
    assert sunday is not None
    assert f"{sunday.at:%Y-%m-%d %H:%M}" == "2026-12-06 11:00"
    assert installed.next_run([], now) is None
