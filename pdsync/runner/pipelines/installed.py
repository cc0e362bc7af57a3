"""Finds the schedules that `pdsync schedule --install` made on this machine for a project, and their next times."""

from __future__ import annotations

import itertools
import plistlib
import re
import shlex
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from msgspec import Struct

from pdsync.errors import PdsyncError
from pdsync.runner.pipelines import pipeline, schedule
from pdsync.runner.pipelines.schedule import Job

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pdsync.runner.pipelines.schedule import Interval

_CALENDAR = re.compile(r"^OnCalendar=(Sun )?\*-\*-\* (\*|\d\d):(\d\d):00$", re.MULTILINE)
_CRON = re.compile(r"(\d{1,2}) (\*|\d{1,2}) \* \* (\*|0) ")
LENGTHS: dict[Interval, timedelta] = {
    "hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(weeks=1),
}  # fmt: skip


class NextRun(Struct, frozen=True):
    """When a pipeline runs next."""

    pipeline: str
    at: datetime  # UTC


def next_run(jobs: list[Job], now: datetime) -> NextRun | None:
    """The first run of `jobs` after `now`; None if there are none."""
    runs = [NextRun(job.pipeline, _next_time(job, now)) for job in jobs]
    return min(runs, key=lambda run: run.at, default=None)


def longest_pause(jobs: list[Job], project: Path) -> timedelta | None:
    """The time between two runs of the most frequent of `jobs` that syncs; None if none does."""
    return min((LENGTHS[job.every] for job in jobs if _is_sync(job, project)), default=None)


def find_jobs(project: Path) -> list[Job]:
    """The jobs of the project in the folder `project` that are installed on this machine."""
    return [*_in_crontab(project), *_in_systemd(project), *_in_launchd(project)]


def _next_time(job: Job, now: datetime) -> datetime:
    """The next time of `job`, whose hours are local ones."""
    local = now.astimezone().replace(tzinfo=None)
    at = local.replace(minute=job.minute, second=0, microsecond=0)
    if job.every != "hour":
        at = at.replace(hour=job.hour)
    if job.every == "week":
        at += timedelta(days=(6 - at.weekday()) % 7)  # Sunday
    if at <= local:
        at += LENGTHS[job.every]
    return at.astimezone(UTC)


def _is_sync(job: Job, project: Path) -> bool:
    try:
        return pipeline.load(job.pipeline, project).job == "sync"
    except PdsyncError:  # its file is gone: the scheduler's log says so
        return False


def _make_job(pipeline: str, project: Path, hour: str, minute: str, *, weekly: bool) -> Job:
    every: Interval = "hour" if hour == "*" else "week" if weekly else "day"
    return Job(pipeline, project, every, 0 if hour == "*" else int(hour), int(minute))


def _in_crontab(project: Path) -> Iterator[Job]:
    lines = schedule.read_crontab()
    for marker, line in itertools.pairwise(lines):
        name = marker.removeprefix("# pdsync: ").removesuffix(f" of {project}")
        times = _CRON.match(line)
        if times and schedule.crontab_marker(name, project) == marker:
            yield _make_job(name, project, times[2], times[1], weekly=times[3] == "0")


def _in_systemd(project: Path) -> Iterator[Job]:
    folder = schedule.systemd_folder()
    for link in sorted((folder / "timers.target.wants").glob("pdsync-*.timer")):  # those that are enabled
        timer, service = _read(folder / link.name), _read((folder / link.name).with_suffix(".service"))
        times, command = _CALENDAR.search(timer), re.search(r'"--pipeline" "([^"]+)"$', service, re.MULTILINE)
        if times and command and f'"--project" {schedule.quote_for_systemd(str(project))} ' in service:
            yield _make_job(command[1], project, times[2], times[3], weekly=bool(times[1]))


def _in_launchd(project: Path) -> Iterator[Job]:
    for path in sorted(schedule.launchd_folder().glob("com.pdsync.*.plist")):
        try:
            agent = plistlib.loads(path.read_bytes())
            options = shlex.join(agent["ProgramArguments"])
            when = agent["StartCalendarInterval"]
            if f" --project {shlex.quote(str(project))} " in options:
                hour = str(when.get("Hour", "*"))
                name = agent["ProgramArguments"][-1]
                yield _make_job(name, project, hour, str(when["Minute"]), weekly="Weekday" in when)
        except (OSError, KeyError, ValueError):  # not one of ours
            continue


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
