"""Writes the configuration that runs a pipeline regularly: a systemd timer, a crontab line, a launchd agent, a GitHub
workflow, an Airflow DAG or a Dagster schedule. None of it contains a secret, and it is installed only on request.
"""

from __future__ import annotations

import hashlib
import plistlib
import re
import shlex
import shutil
import subprocess
import sys
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from pdsync.core.config import expand
from pdsync.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

Interval = Literal["hour", "day", "week"]
INSTALLABLE_KINDS = ("systemd", "cron", "launchd")  # the others run on other machines


class Job(Struct, frozen=True):
    """A pipeline and its schedule. Times are local times of the machine; a weekly job runs on Sundays."""

    pipeline: str
    project: Path
    every: Interval
    hour: int
    minute: int
    exit_3_is_success: bool = False  # a backfill with a daily budget exits with 3 until it is done

    @property
    def name(self) -> str:
        """Its name in the scheduler: unique per project and pipeline, as the path of the project is part of it."""
        return f"{self.former_name}-{hashlib.sha256(str(self.project).encode()).hexdigest()[:8]}"

    @property
    def former_name(self) -> str:
        """The name that earlier versions gave it, which projects in folders of one name share."""
        return f"pdsync-{self.project.name or 'project'}-{self.pipeline}"

    @property
    def arguments(self) -> list[str]:
        """The command line to run."""
        executable = shutil.which("pdsync", path=str(Path(sys.executable).parent)) or shutil.which("pdsync")
        command = [executable] if executable else [sys.executable, "-m", "pdsync"]
        return [*command, "--project", str(self.project), "--no-input", "sync", "--pipeline", self.pipeline]

    @property
    def cron(self) -> str:
        """The schedule as the five fields of cron."""
        hour = "*" if self.every == "hour" else str(self.hour)
        return f"{self.minute} {hour} * * {'0' if self.every == 'week' else '*'}"


def render_files(kind: str, job: Job) -> dict[Path, str]:
    """The files that schedule `job`: path → content; for cron, its lines of the table under the path `crontab`.

    Raises:
        ConfigError: the project's path has a line break or the like, which would end a line of the file.
    """
    if re.search(r"[\x00-\x1f\x7f]", str(job.project)):
        raise ConfigError(f"The folder {str(job.project)!r} has a control character in its name. Rename it.")
    return _RENDERERS[kind](job)


def list_kinds() -> list[str]:
    """The kinds of schedulers."""
    return list(_RENDERERS)


def default_kind() -> str:
    """The kind that fits this machine."""
    return "launchd" if sys.platform == "darwin" else "systemd" if shutil.which("systemctl") else "cron"


def _expand_home(folder: str) -> Path:
    """`folder` with ~ expanded; unchanged if this user has no home folder."""
    try:
        return Path(folder).expanduser()
    except RuntimeError:
        return Path(folder)


def systemd_folder() -> Path:
    """The folder of the user's units."""
    return _expand_home("~/.config/systemd/user")


def launchd_folder() -> Path:
    """The folder of the user's agents."""
    return _expand_home("~/Library/LaunchAgents")


def quote_for_systemd(text: str) -> str:
    """An argument as a unit's command line has it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'


def _render_systemd(job: Job) -> dict[Path, str]:
    day = {"hour": "*-*-* *", "day": f"*-*-* {job.hour:02}", "week": f"Sun *-*-* {job.hour:02}"}[job.every]
    folder = systemd_folder()
    success = "SuccessExitStatus=3\n" if job.exit_3_is_success else ""
    return {
        folder / f"{job.name}.service": (
            f"[Unit]\nDescription=pdsync {job.pipeline}\nAfter=network-online.target\n\n"
            f"[Service]\nType=oneshot\nExecStart={' '.join(map(quote_for_systemd, job.arguments))}\n{success}"
            "# Stops as with Ctrl-C: requests in flight are finished, and the next run continues.\n"
            "KillSignal=SIGTERM\nTimeoutStopSec=60\n"
        ),
        folder / f"{job.name}.timer": (
            f"[Unit]\nDescription=pdsync {job.pipeline}, every {job.every}\n\n"
            f"[Timer]\nOnCalendar={day}:{job.minute:02}:00\nPersistent=true\n\n[Install]\nWantedBy=timers.target\n"
        ),
    }


def _render_cron(job: Job) -> dict[Path, str]:
    log = job.project / "data" / f"{job.pipeline}.log"
    command = f"{shlex.join(job.arguments)} >> {shlex.quote(str(log))} 2>&1".replace("%", "\\%")
    return {Path("crontab"): f"{crontab_marker(job.pipeline, job.project)}\n{job.cron} {command}\n"}


def crontab_marker(pipeline: str, project: Path) -> str:
    """The line above the entry of a pipeline."""
    return f"# pdsync: {pipeline} of {project}"


def read_crontab() -> list[str]:
    """The lines of the user's crontab; none if there is no crontab."""
    return _read_output(["crontab", "-l"]).splitlines()


def _render_launchd(job: Job) -> dict[Path, str]:
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
    path = launchd_folder() / f"{label}.plist"
    return {path: plistlib.dumps(agent, sort_keys=False).decode()}


def _render_github(job: Job) -> dict[Path, str]:
    # The doubled braces become expressions of GitHub.
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
      - run: pdsync --no-input sync --pipeline {job.pipeline}{_or_exit_3(job)}
      - uses: actions/cache/save@v4
        if: always()
        with:
          path: data
          key: pdsync-${{{{ github.run_id }}}}-${{{{ github.run_attempt }}}}
"""
    return {Path(f".github/workflows/pdsync-{job.pipeline}.yml"): text}


def _or_exit_3(job: Job) -> str:
    """What turns exit code 3 of a shell's command into success, where it is none of a failure."""
    return " || [ $? -eq 3 ]" if job.exit_3_is_success else ""


def _render_airflow(job: Job) -> dict[Path, str]:
    text = f'''\
"""pdsync {job.pipeline}, every {job.every}. A run that is repeated continues where the last one stopped."""

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
        bash_command=shlex.join({job.arguments!r}){f" + {_or_exit_3(job)!r}" if job.exit_3_is_success else ""},
        append_env=True,  # PDSYNC_API_TOKEN and others come from the worker's environment
        retries=2,
        retry_delay=timedelta(minutes=10),
    )
'''
    return {Path(f"dags/{job.name}.py".replace("-", "_")): text}


def _render_dagster(job: Job) -> dict[Path, str]:
    name = "".join(char if char.isalnum() else "_" for char in job.name)
    text = f'''\
"""pdsync {job.pipeline}, every {job.every}. A run that is repeated continues where the last one stopped."""

import subprocess

import dagster


@dagster.op(retry_policy=dagster.RetryPolicy(max_retries=2, delay=600))
def sync(context: dagster.OpExecutionContext) -> None:
    done = subprocess.run({job.arguments!r}, capture_output=True, text=True, check=False)
    context.log.info(done.stderr)
    if done.returncode not in {(0, 3) if job.exit_3_is_success else (0,)}:
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


_RENDERERS: dict[str, Callable[[Job], dict[Path, str]]] = {
    "systemd": _render_systemd,
    "cron": _render_cron,
    "launchd": _render_launchd,
    "github": _render_github,
    "airflow": _render_airflow,
    "dagster": _render_dagster,
}


def install(kind: str, job: Job) -> list[str]:
    """Write the files of `job` and start its schedule.

    Args:
        kind: one of INSTALLABLE_KINDS.
        job: replaces the installed one of the same name; of cron, that of the same pipeline and folder.

    Returns:
        Lines for the user: how to inspect it, and how to remove it.

    Raises:
        ConfigError: it can't be installed on this machine; names the files that were written.
    """
    rendered = render_files(kind, job)
    for path in rendered:
        expand(path)  # checked before anything is written
    (job.project / "data").mkdir(parents=True, exist_ok=True)  # its log goes there
    if kind == "cron":
        return _install_cron(job, rendered[Path("crontab")])
    for path, text in rendered.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    if kind == "systemd":
        timer = f"{job.name}.timer"
        _remove_former(kind, job, rendered)
        _run(["systemctl", "--user", "daemon-reload"], rendered)
        _run(["systemctl", "--user", "enable", "--now", timer], rendered)
        return [
            f"Show it: systemctl --user list-timers {timer}; its log: journalctl --user -u {job.name}",
            f"Remove it: systemctl --user disable --now {timer}",
            "It runs only while you are logged in; to run it at any time: loginctl enable-linger",
        ]
    (path,) = rendered
    _remove_former(kind, job, rendered)
    _run(["launchctl", "load", "-w", str(path)], rendered)
    return [f"Remove it: launchctl unload -w {shlex.quote(str(path))}"]


def _remove_former(kind: str, job: Job, written: dict[Path, str]) -> None:
    """Remove the installed job of the former name, if it is of this project and pipeline."""
    if kind == "systemd":
        paths = [systemd_folder() / f"{job.former_name}{suffix}" for suffix in (".service", ".timer")]
        command = ["systemctl", "--user", "disable", "--now", f"{job.former_name}.timer"]
        own = " ".join(map(quote_for_systemd, job.arguments[-6:]))
    else:
        paths = [launchd_folder() / f"com.pdsync.{job.former_name}.plist"]
        command = ["launchctl", "unload", "-w", str(paths[0])]
        own = "".join(f"\t\t<string>{escape(each)}</string>\n" for each in job.arguments[-6:])
    try:
        is_own = own in paths[0].read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        is_own = False
    if is_own:
        _run(command, written)
        for path in paths:
            path.unlink(missing_ok=True)


def _install_cron(job: Job, lines: str) -> list[str]:
    kept: list[str] = []
    skip, marker = False, crontab_marker(job.pipeline, job.project)
    for line in read_crontab():  # drop the marker and the line below it: the new ones replace them
        if not skip and line != marker:
            kept.append(line)
        skip = line == marker
    _run(["crontab", "-"], {}, "".join(f"{line}\n" for line in kept) + lines)
    return ["Show it: crontab -l; remove it: crontab -e"]


def _read_output(command: list[str]) -> str:
    """The output of `command`; empty if it fails, as `crontab -l` does without a table."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout  # noqa: S603 - ours
    except FileNotFoundError:
        return ""


def _run(command: list[str], written: dict[Path, str], stdin: str = "") -> None:
    """Run `command`; `written`: the files to name in an error.

    Raises:
        ConfigError: there is no such command, or it failed.
    """
    written_files = f"These files were written: {', '.join(map(str, written))}." if written else "Nothing was written."
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    except FileNotFoundError as error:
        raise ConfigError(
            f"There is no {command[0]} on this machine. {written_files}\nChoose another kind with --as."
        ) from error
    if done.returncode:
        raise ConfigError(f"{shlex.join(command)} failed: {(done.stderr or done.stdout).strip()}\n{written_files}")
