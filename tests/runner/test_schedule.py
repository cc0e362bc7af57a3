"""Each scheduler accepts what is rendered for it, whatever the name of the project folder."""

from __future__ import annotations

import ast
import plistlib
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pdsync.errors import ConfigError
from pdsync.runner.pipelines import schedule
from pdsync.runner.pipelines.schedule import Job

ODD = "a b'c\"d %e$HOME é\\n"


@pytest.fixture
def job(tmp_path: Path) -> Job:
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


@pytest.mark.parametrize("kind", schedule.list_kinds())
def test_x10_a_folder_with_a_line_break_adds_no_line(tmp_path: Path, kind: str) -> None:
    with pytest.raises(ConfigError, match="control character"):
        schedule.render_files(kind, Job("nightly", tmp_path / "a\nExecStartPre=b", "day", 2, 15))


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
def test_systemd_accepts_its_units(tmp_path: Path, job: Job, every: schedule.Interval) -> None:
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


@pytest.mark.parametrize(
    ("every", "cron", "calendar", "launchd"),
    [
        ("hour", "15 * * * *", "*-*-* *:15:00", {"Minute": 15}),
        ("day", "15 2 * * *", "*-*-* 02:15:00", {"Minute": 15, "Hour": 2}),
        ("week", "15 2 * * 0", "Sun *-*-* 02:15:00", {"Minute": 15, "Hour": 2, "Weekday": 0}),
    ],
)
def test_each_scheduler_runs_it_at_the_same_times(
    job: Job, every: schedule.Interval, cron: str, calendar: str, launchd: dict[str, Any]
) -> None:
    timed = Job(job.pipeline, job.project, every, job.hour, job.minute)
    assert timed.cron == cron
    timer = next(text for path, text in schedule.render_files("systemd", timed).items() if path.suffix == ".timer")
    assert f"OnCalendar={calendar}\n" in timer
    assert plistlib.loads(only("launchd", timed).encode())["StartCalendarInterval"] == launchd


@pytest.mark.parametrize("is_success", [True, False])
def test_s9_a_backfill_that_stops_at_its_daily_budget_has_not_failed(job: Job, is_success: bool) -> None:
    stopping = Job(job.pipeline, job.project, "day", 2, 15, exit_3_is_success=is_success)
    service = next(
        text for path, text in schedule.render_files("systemd", stopping).items() if path.suffix == ".service"
    )
    assert ("SuccessExitStatus=3" in service) is is_success


@pytest.mark.parametrize("is_success", [True, False])
@pytest.mark.parametrize("code", [0, 3, 4])
@pytest.mark.parametrize("kind", ["github", "airflow"])
def test_s9_a_shell_of_a_platform_takes_exit_3_of_a_backfill_for_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, code: int, *, is_success: bool
) -> None:
    program = tmp_path / "pdsync"
    program.write_text(f"#!/bin/sh\nexit {code}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    text = only(kind, Job("backfill", tmp_path, "day", 2, 15, exit_3_is_success=is_success))
    if kind == "github":
        runs = [step.get("run", "") for step in yaml.safe_load(text)["jobs"]["sync"]["steps"]]
        (command,) = [run for run in runs if run.startswith("pdsync --no-input")]
    else:
        (value,) = [
            node.value
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.keyword) and node.arg == "bash_command"
        ]
        command = eval(ast.unparse(value), {"shlex": shlex})
    done = subprocess.run(["bash", "-e", "-c", command], check=False)
    assert (done.returncode == 0) is (code == 0 or (code == 3 and is_success))


@pytest.mark.parametrize("is_success", [True, False])
def test_s9_dagster_takes_exit_3_of_a_backfill_for_success(job: Job, *, is_success: bool) -> None:
    text = only("dagster", Job(job.pipeline, job.project, "day", 2, 15, exit_3_is_success=is_success))
    (test,) = [node.test for node in ast.walk(ast.parse(text)) if isinstance(node, ast.If)]
    for code in (0, 3, 4):
        is_failure = eval(ast.unparse(test), {"done": subprocess.CompletedProcess([], code)})
        assert is_failure is not (code == 0 or (code == 3 and is_success))


def test_pipelines_of_one_project_and_projects_of_one_name_are_told_apart(job: Job) -> None:
    names = {Job(name, job.project, "day", 2, 15).name for name in ("nightly", "hourly")}
    assert len(names) == 2
    folders = [Path(folder) for folder in ("/a/x", "/b/x")]
    assert len({Job("nightly", folder, "day", 2, 15).name for folder in folders}) == 2
    marks = {only("cron", Job("nightly", Path(folder), "day", 2, 15)).splitlines()[0] for folder in ("/a/x", "/b/x")}
    assert len(marks) == 2
