"""Each scheduler accepts what `pdsync schedule` prints for it, whatever the name of the project folder."""

from __future__ import annotations

import ast
import json
import plistlib
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from pdsync.runner.pipelines import schedule
from pdsync.runner.pipelines.schedule import Job
from tests.support.world import Project

if TYPE_CHECKING:
    from pathlib import Path as Folder

ODD = "a b'c\"d %e$HOME é\\n"


@pytest.fixture
def job(tmp_path: Folder) -> Job:
    (tmp_path / ODD).mkdir()
    return Job("nightly", tmp_path / ODD, "day", 2, 15)


def only(kind: str, job: Job) -> str:
    (text,) = schedule.render_files(kind, job).values()
    return text


def test_cron_runs_the_command_as_it_is(job: Job) -> None:
    mark, line = only("cron", job).splitlines()
    assert mark.startswith("#")
    assert line.startswith("15 2 * * * ")
    command = line.removeprefix("15 2 * * * ").replace("\\%", "%")
    assert shlex.split(command)[: len(job.arguments)] == job.arguments
    assert "%" not in line.replace("\\%", "")


def test_launchd_gets_the_command_as_it_is(job: Job) -> None:
    agent = plistlib.loads(only("launchd", job).encode())
    assert agent["ProgramArguments"] == job.arguments
    assert agent["StartCalendarInterval"] == {"Minute": 15, "Hour": 2}


def test_github_reads_its_workflow_and_finds_no_secret_in_it(job: Job) -> None:
    text = only("github", job)
    flow = yaml.safe_load(text)
    assert flow[True]["schedule"] == [{"cron": "15 2 * * *"}]  # YAML 1.1 takes `on` for true
    steps = flow["jobs"]["sync"]["steps"]
    assert {"run": "pdsync --no-input sync --pipeline nightly"} in steps
    assert flow["jobs"]["sync"]["env"]["PDSYNC_API_TOKEN"] == "${{ secrets.PDSYNC_API_TOKEN }}"


@pytest.mark.parametrize("kind", ["airflow", "dagster"])
def test_python_reads_its_module_and_finds_the_command(job: Job, kind: str) -> None:
    tree = ast.parse(only(kind, job))
    lists = [ast.literal_eval(node) for node in ast.walk(tree) if isinstance(node, ast.List) and _constant(node)]
    assert job.arguments in lists


def _constant(node: ast.List) -> bool:
    return all(isinstance(each, ast.Constant) for each in node.elts)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd")
@pytest.mark.parametrize("every", ["hour", "day", "week"])
def test_systemd_accepts_its_units(tmp_path: Folder, job: Job, every: schedule.Interval) -> None:
    timed = Job("nightly", job.project, every, 23, 5)
    units = tmp_path / "units"
    units.mkdir()
    for number, (path, text) in enumerate(schedule.render_files("systemd", timed).items()):
        (units / f"x{path.suffix}").write_text(text)
        assert number < 2
    done = subprocess.run(
        ["systemd-analyze", "verify", "--user", str(units / "x.service"), str(units / "x.timer")],
        capture_output=True, text=True, check=False, env={"XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)},
    )  # fmt: skip
    ours = [line for line in done.stderr.splitlines() if "x.service" in line or "x.timer" in line]
    assert ours == []
    calendar = next(
        line.partition("=")[2] for line in (units / "x.timer").read_text().splitlines() if "OnCalendar" in line
    )
    told = subprocess.run(["systemd-analyze", "calendar", calendar], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr


def stand_in(folder: Folder, name: str, script: str) -> None:
    """A program of the system that this machine may lack."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_a_crontab_keeps_its_other_lines(tmp_path: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    table = tmp_path / "table"
    stand_in(programs, "crontab", f'if [ "$1" = -l ]; then cat {table} 2>/dev/null || exit 1; else cat > {table}; fi')
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    project = Project(tmp_path / "project")
    assert project.here("schedule", "--as", "cron", "--install").code == 0
    table.write_text("0 1 * * * mine\n" + table.read_text() + "0 2 * * * mine too\n")
    assert project.here("schedule", "--as", "cron", "--at", "04:30", "--install").code == 0
    assert project.here("schedule", "hourly", "--as", "cron", "--install").code == 0
    lines = table.read_text().splitlines()
    assert lines[:2] == ["0 1 * * * mine", "0 2 * * * mine too"]
    assert [line.split(" /")[0] for line in lines[2:] if not line.startswith("#")] == ["30 4 * * *", "15 * * * *"]


def test_units_are_installed_and_started(tmp_path: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    project = Project(tmp_path / "project")
    ran = project.here("schedule", "--as", "systemd", "--install")
    assert ran.code == 2
    assert "There is no systemctl on this machine" in ran.err
    stand_in(programs, "systemctl", f'echo "$@" >> {tmp_path}/calls')
    assert project.here("schedule", "--as", "systemd", "--install").code == 0
    assert (tmp_path / "calls").read_text().splitlines() == [
        "--user daemon-reload", "--user enable --now pdsync-project-nightly.timer",
    ]  # fmt: skip
    assert Path(project.env["HOME"], ".config/systemd/user/pdsync-project-nightly.service").exists()


def test_nothing_is_installed_without_the_flag_and_errors_are_named(tmp_path: Folder) -> None:
    project = Project(tmp_path / "project")
    for kind in schedule.list_kinds():
        ran = project.here("schedule", "--as", kind, "--json")
        assert ran.code == 0
        assert all(json.loads(line)["content"] for line in ran.out.splitlines())
    assert list(Path(project.env["HOME"]).rglob("*pdsync-*")) == []
    assert project.here("schedule", "wekly").code == 2
    assert project.here("schedule", "--at", "25:00").code == 2
    assert project.here("schedule", "--as", "github", "--install").code == 2
    assert not Path(tmp_path / "project" / "data").exists()
