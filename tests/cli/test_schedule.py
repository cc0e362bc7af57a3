"""`pdsync schedule` prints, and installs on request; other entries of a crontab stay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from pdsync.runner.pipelines import schedule
from tests.support.world import Project

if TYPE_CHECKING:
    from pathlib import Path as Folder

    import pytest


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
