"""`pdsync schedule` prints, and installs on request; other entries of a crontab stay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pdsync.runner.pipelines import schedule
from tests.support.world import Project

if TYPE_CHECKING:
    from pathlib import Path as Folder


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
    name = schedule.Job("nightly", project.folder, "day", 2, 15).name
    ran = project.here("schedule", "--as", "systemd", "--install")
    assert ran.code == 2
    assert "There is no systemctl on this machine" in ran.err
    stand_in(programs, "systemctl", f'echo "$@" >> {tmp_path}/calls')
    assert project.here("schedule", "--as", "systemd", "--install").code == 0
    assert (tmp_path / "calls").read_text().splitlines() == [
        "--user daemon-reload", f"--user enable --now {name}.timer",
    ]  # fmt: skip
    assert Path(project.env["HOME"], f".config/systemd/user/{name}.service").exists()


@pytest.mark.parametrize(("kind", "program"), [("systemd", "systemctl"), ("launchd", "launchctl")])
def test_projects_in_folders_of_one_name_are_installed_side_by_side(
    tmp_path: Folder, monkeypatch: pytest.MonkeyPatch, kind: str, program: str
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    stand_in(programs, program, f'echo "$@" >> {tmp_path}/calls')
    first, other = (Project(tmp_path / folder / "x") for folder in "ab")
    for project in (first, other):
        project.env["HOME"] = str(tmp_path / "home")
    suffix = "*pdsync-x-nightly*" + (".service" if kind == "systemd" else ".plist")

    def installed() -> dict[str, str]:
        return {path.name: path.read_text() for path in (tmp_path / "home").rglob(suffix)}

    assert first.here("schedule", "--as", kind, "--install").code == 0
    # As an earlier version has named it.
    job = schedule.Job("nightly", first.folder, "day", 2, 15)
    for path in list((tmp_path / "home").rglob("*pdsync-x-*")):
        path.rename(path.with_name(path.name.replace(job.name, job.former_name)))
    (former,) = installed()
    assert other.here("schedule", "--as", kind, "--install").code == 0
    assert former in installed()
    assert len(installed()) == 2
    assert first.here("schedule", "--as", kind, "--install").code == 0
    assert former not in installed()
    assert sum(str(first.folder) in text for text in installed().values()) == 1
    assert sum(str(other.folder) in text for text in installed().values()) == 1
    stops = [line for line in (tmp_path / "calls").read_text().splitlines() if "disable" in line or "unload" in line]
    assert len(stops) == 1
    assert first.here("schedule", "--as", kind, "--install").code == 0
    assert len(installed()) == 2


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
