"""Writes what runs a pipeline regularly: a systemd timer, a crontab line, a launchd agent, a GitHub workflow, an
Airflow DAG or a Dagster schedule. None of it contains a secret, and it is installed only on request.
"""

from __future__ import annotations

import plistlib
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from pdsync.core.config import expand
from pdsync.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

Every = Literal["hour", "day", "week"]
HERE = ("systemd", "cron", "launchd")  # kinds that can be installed on this machine


class Job(Struct, frozen=True):
    """What is to run, and when. Times are the machine's own; a week begins its run on Sunday."""

    pipeline: str
    project: Path
    every: Every
    hour: int
    minute: int
    stops_are_fine: bool = False  # a backfill ends with 3 each day until it is through

    @property
    def name(self) -> str:
        """What it is called where it is installed: one for each project and pipeline."""
        return f"pdsync-{self.project.name or 'project'}-{self.pipeline}"

    @property
    def arguments(self) -> list[str]:
        """The command."""
        found = shutil.which("pdsync", path=str(Path(sys.executable).parent)) or shutil.which("pdsync")
        command = [found] if found else [sys.executable, "-m", "pdsync"]
        return [*command, "--project", str(self.project), "--no-input", "sync", "--pipeline", self.pipeline]

    @property
    def cron(self) -> str:
        """When, in five fields."""
        hour = "*" if self.every == "hour" else str(self.hour)
        return f"{self.minute} {hour} * * {'0' if self.every == 'week' else '*'}"


def files(kind: str, job: Job) -> dict[Path, str]:
    """Path → content of what has to be there; for cron, the lines of the table under the path `crontab`."""
    return _KINDS[kind](job)


def kinds() -> list[str]:
    """What can be written."""
    return list(_KINDS)


def default_kind() -> str:
    """The kind that fits this machine."""
    return "launchd" if sys.platform == "darwin" else "systemd" if shutil.which("systemctl") else "cron"


def _at_home(folder: str) -> Path:
    """`folder` of the home folder; as it is written, where this user has none."""
    try:
        return Path(folder).expanduser()
    except RuntimeError:
        return Path(folder)


def _systemd(job: Job) -> dict[Path, str]:
    def quoted(text: str) -> str:
        escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
        return f'"{escaped}"'

    day = {"hour": "*-*-* *", "day": f"*-*-* {job.hour:02}", "week": f"Sun *-*-* {job.hour:02}"}[job.every]
    folder = _at_home("~/.config/systemd/user")
    fine = "SuccessExitStatus=3\n" if job.stops_are_fine else ""
    return {
        folder / f"{job.name}.service": (
            f"[Unit]\nDescription=pdsync {job.pipeline}\nAfter=network-online.target\n\n"
            f"[Service]\nType=oneshot\nExecStart={' '.join(map(quoted, job.arguments))}\n{fine}"
            "# Interrupted like with Ctrl-C: what is under way is settled, and the next run goes on.\n"
            "KillSignal=SIGTERM\nTimeoutStopSec=60\n"
        ),
        folder / f"{job.name}.timer": (
            f"[Unit]\nDescription=pdsync {job.pipeline}, every {job.every}\n\n"
            f"[Timer]\nOnCalendar={day}:{job.minute:02}:00\nPersistent=true\n\n[Install]\nWantedBy=timers.target\n"
        ),
    }


def _cron(job: Job) -> dict[Path, str]:
    log = job.project / "data" / f"{job.pipeline}.log"
    command = f"{shlex.join(job.arguments)} >> {shlex.quote(str(log))} 2>&1".replace("%", "\\%")
    return {Path("crontab"): f"{_mark(job)}\n{job.cron} {command}\n"}


def _mark(job: Job) -> str:
    return f"# pdsync: {job.pipeline} of {job.project}"


def _launchd(job: Job) -> dict[Path, str]:
    when = {"Minute": job.minute} | ({} if job.every == "hour" else {"Hour": job.hour})
    label = f"com.pdsync.{job.name}"
    log = str(job.project / "data" / f"{job.pipeline}.log")
    agent = {
        "Label": label,
        "ProgramArguments": job.arguments,
        "StartCalendarInterval": when | ({"Weekday": 0} if job.every == "week" else {}),
        "StandardOutPath": log,
        "StandardErrorPath": log,
        "ProcessType": "Background",
    }
    path = _at_home("~/Library/LaunchAgents") / f"{label}.plist"
    return {path: plistlib.dumps(agent, sort_keys=False).decode()}


def _github(job: Job) -> dict[Path, str]:
    # What stands between braces is GitHub's, not ours.
    text = f"""\
# The repository must be private: its cache holds the company's data. It needs the secrets PDSYNC_API_TOKEN and
# PDSYNC_BASE_URL (https://yourcompany.pipedrive.com). Times are UTC.
name: pdsync {job.pipeline}
on:
  schedule:
    - cron: "{job.cron}"
  workflow_dispatch:
concurrency: pdsync
permissions:
  contents: read
jobs:
  sync:
    runs-on: ubuntu-latest
    timeout-minutes: 350
    env:
      PDSYNC_API_TOKEN: ${{{{ secrets.PDSYNC_API_TOKEN }}}}
      PDSYNC_BASE_URL: ${{{{ secrets.PDSYNC_BASE_URL }}}}
    steps:
      - uses: actions/checkout@v4
      - uses: actions/setup-python@v5
        with:
          python-version: "3.12"
      - uses: actions/cache/restore@v4
        with:
          path: data
          key: pdsync-${{{{ github.run_id }}}}
          restore-keys: pdsync-
      - run: pip install pdsync
      - run: pdsync --no-input sync --pipeline {job.pipeline}
      - uses: actions/cache/save@v4
        if: always()
        with:
          path: data
          key: pdsync-${{{{ github.run_id }}}}-${{{{ github.run_attempt }}}}
"""
    return {Path(f".github/workflows/pdsync-{job.pipeline}.yml"): text}


def _airflow(job: Job) -> dict[Path, str]:
    text = f'''\
"""pdsync {job.pipeline}, every {job.every}. A run that is repeated goes on where the last one stopped."""

import shlex
from datetime import datetime, timedelta

from airflow import DAG
from airflow.providers.standard.operators.bash import BashOperator  # Airflow 2: airflow.operators.bash

with DAG(
    dag_id={job.name!r},
    schedule={job.cron!r},
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
) as dag:
    BashOperator(
        task_id="sync",
        bash_command=shlex.join({job.arguments!r}),
        append_env=True,  # PDSYNC_API_TOKEN and others come from the worker's environment
        retries=2,
        retry_delay=timedelta(minutes=10),
    )
'''
    return {Path(f"dags/{job.name}.py".replace("-", "_")): text}


def _dagster(job: Job) -> dict[Path, str]:
    name = "".join(char if char.isalnum() else "_" for char in job.name)
    text = f'''\
"""pdsync {job.pipeline}, every {job.every}. A run that is repeated goes on where the last one stopped."""

import subprocess

import dagster


@dagster.op(retry_policy=dagster.RetryPolicy(max_retries=2, delay=600))
def sync(context: dagster.OpExecutionContext) -> None:
    done = subprocess.run({job.arguments!r}, capture_output=True, text=True, check=False)
    context.log.info(done.stderr)
    if done.returncode:
        raise dagster.Failure(f"pdsync ended with {{done.returncode}}: {{done.stderr[-2000:]}}")


@dagster.job
def {name}() -> None:
    sync()


defs = dagster.Definitions(
    jobs=[{name}],
    schedules=[dagster.ScheduleDefinition(job={name}, cron_schedule={job.cron!r})],
)
'''
    return {Path(f"{name}.py"): text}


_KINDS: dict[str, Callable[[Job], dict[Path, str]]] = {
    "systemd": _systemd, "cron": _cron, "launchd": _launchd, "github": _github, "airflow": _airflow,
    "dagster": _dagster,
}  # fmt: skip


# Installing.


def install(kind: str, job: Job) -> list[str]:
    """Put it in place and start it; how to see it and how to take it away again.

    Raises:
        ConfigError: it can't be installed here. What was written is named.
    """
    made = files(kind, job)
    for path in made:
        expand(path)  # before anything is written
    (job.project / "data").mkdir(parents=True, exist_ok=True)  # its log goes there
    if kind == "cron":
        return _install_cron(job, made[Path("crontab")])
    for path, text in made.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    if kind == "systemd":
        timer = f"{job.name}.timer"
        _run(["systemctl", "--user", "daemon-reload"], made)
        _run(["systemctl", "--user", "enable", "--now", timer], made)
        return [
            f"See it: systemctl --user list-timers {timer}; its log: journalctl --user -u {job.name}",
            f"Take it away: systemctl --user disable --now {timer}",
            "It runs while you are logged in; at any time: loginctl enable-linger",
        ]
    (path,) = made
    _run(["launchctl", "load", "-w", str(path)], made)
    return [f"Take it away: launchctl unload -w {shlex.quote(str(path))}"]


def _install_cron(job: Job, lines: str) -> list[str]:
    old = _ask(["crontab", "-l"]).splitlines()
    kept: list[str] = []
    skip = False
    for line in old:  # our mark, and the line below it, give way to the new ones
        if not skip and line != _mark(job):
            kept.append(line)
        skip = line == _mark(job)
    _run(["crontab", "-"], {}, "".join(f"{line}\n" for line in kept) + lines)
    return ["See it, and take it away: crontab -e"]


def _ask(command: list[str]) -> str:
    """What `command` prints; nothing where it fails, as `crontab -l` does when there is no table yet."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout  # noqa: S603 - ours
    except FileNotFoundError:
        return ""


def _run(command: list[str], written: dict[Path, str], given: str = "") -> None:
    said = f"Written were: {', '.join(map(str, written))}." if written else "Nothing was written."
    try:
        done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    except FileNotFoundError as error:
        raise ConfigError(f"There is no {command[0]} here. {said}\nChoose another kind with --as.") from error
    if done.returncode:
        raise ConfigError(f"{shlex.join(command)} failed: {(done.stderr or done.stdout).strip()}\n{said}")
