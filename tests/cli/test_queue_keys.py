"""What has a key that was used before is not queued, and the command says so; and what it says of a restored queue."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.world import Project
from tests.writeback.kit import bring_to, open_outbox

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "project")


def imported(project: Project, rows: str, code: int = 0) -> str:
    file = project.folder / "rows.csv"
    file.write_text(f"_key,id,name\n{rows}", encoding="utf-8")
    ran = project.here("queue", "import", str(file), "--operation", "updateOrganization")
    assert ran.code == code, ran
    return ran.err


def test_w1_what_has_a_used_key_does_not_count_as_queued(project: Project) -> None:
    assert "Queued 2." in imported(project, "a,1,One\nb,2,Two\n")
    err = imported(project, "a,1,Other\nb,2,Two\nc,3,Three\n")
    assert "Queued 1." in err
    assert "2 changes not queued: their keys were used before, by #1 to #2. Another value needs another key." in err
    assert [seq for (seq,) in project.control("SELECT seq FROM mutations")] == [1, 2, 3]


def test_w1_nothing_is_queued_where_all_keys_were_used(project: Project) -> None:
    imported(project, "a,1,One\n")
    err = imported(project, "a,1,Other\n")
    assert "Nothing was queued." in err
    assert "Queued" not in err
    assert "1 change not queued: its key was used before, by #1." in err


def test_w1_a_key_that_is_twice_in_a_file_counts_once(project: Project) -> None:
    err = imported(project, "a,1,One\na,2,Two\n")
    assert "Queued 1." in err
    assert "1 change not queued: its key was used before in the same file." in err


def test_w1_a_single_change_with_a_used_key_is_not_queued(project: Project) -> None:
    words = ("queue", "add", "updateOrganization", "id=1", "--key", "a")
    assert "Queued 1." in project.here(*words, "name=One").err
    assert "Nothing was queued." in project.here(*words, "name=Two").err


@pytest.mark.parametrize(
    "command", [["queue", "list"], ["queue", "show", "1"], ["undo", "last"], ["queue", "list", "-v"]]
)
def test_what_was_restored_is_told_as_a_note_and_not_as_a_line_of_a_log(project: Project, command: list[str]) -> None:
    outbox = open_outbox(project.data)
    bring_to(outbox, "applied")
    outbox.control.close()
    (project.data / "control.db").unlink()
    told = project.here(*command).err.splitlines()
    assert any(line.startswith("control.db was lost or is an older copy: 1 change was restored") for line in told), told
    assert not [line for line in told if "WARNING" in line]


def test_what_was_restored_is_not_told_with_q(project: Project) -> None:
    outbox = open_outbox(project.data)
    bring_to(outbox, "applied")
    outbox.control.close()
    (project.data / "control.db").unlink()
    ran = project.here("-q", "queue", "list")
    assert (ran.code, ran.err) == (0, "")
