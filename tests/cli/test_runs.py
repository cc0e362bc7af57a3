"""`pdsync runs` on a terminal: a line for each run, with how it ended; `runs show` what needs attention, and counts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from pdsync.cli.main import main
from pdsync.core.control import Control
from pdsync.model import IncompleteStream, Proof, Receipt, StreamReceipt
from pdsync.runner.push import PushReceipt
from pdsync.writeback.outbox import Entry, Outbox
from tests.cli.test_tables import on_screen, plain
from tests.support.world import Project

if TYPE_CHECKING:
    from pathlib import Path

START = datetime(2026, 11, 29, 8, tzinfo=UTC)
GAP = IncompleteStream("leads", "failed", "404")
ENDS = [
    ("complete", 0, []), ("with gaps", 4, [GAP]), ("stopped", 3, [GAP]), ("interrupted", 130, [GAP]),
    ("exit code 1", 1, [GAP]), ("not ended", None, []),
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a run for each way to end; each read sixty streams, of which one changed and one is not proved."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "data").mkdir()
    (folder / "pdsync.toml").touch()
    control = Control(folder / "data" / "control.db")
    for number, (_, code, gaps) in enumerate(ENDS):
        began = START + timedelta(minutes=number)
        streams = {
            f"stream_{each:02}": StreamReceipt(
                1, 10, 100, unchanged=100, complete=True, proof=Proof(100, 100 + (each == 9), began, int(each == 9))
            )
            for each in range(60)
        }
        streams["stream_05"].updated = 3
        run = Receipt(
            f"20261129T08000{number}-abcdef", "sync", began, began + timedelta(seconds=2), streams, list(gaps)
        )
        control.start_run(run.run_id, run.command, run.started_at)
        if code is not None:
            run.exit_code = code
            control.finish_run(run)
    control.close()
    return folder


def screen(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str) -> list[str]:
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", ["pdsync", "runs", *arguments])
    monkeypatch.setenv("PAGER", "cat")
    with on_screen(monkeypatch) as read:
        with pytest.raises(SystemExit):
            main()
        return plain(read()).splitlines()


def test_a_line_for_each_run_says_how_it_ended(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header, *lines = screen(monkeypatch, folder)
    assert header.split() == ["run", "id", "command", "result", "seconds", "read", "changes", "tokens"]
    assert max(map(len, lines)) <= 80
    assert [result in line for line, (result, *_) in zip(lines, reversed(ENDS), strict=True)] == [True] * len(ENDS)


def test_a_receipt_counts_what_needs_no_attention(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = screen(monkeypatch, folder, "show", "20261129T080000")
    assert [line.split()[1] for line in lines if line.startswith(("✓", "·"))] == ["stream_05", "59", "stream_09"]
    assert "As at the source when last counted, every row verified: 59 streams." in lines
    assert "Every stream: pdsync runs show 20261129T080000-abcdef --all" in lines
    assert len(lines) <= 24
    everything = screen(monkeypatch, folder, "show", "20261129T080000", "--all")
    assert len([line for line in everything if line.startswith(("✓", "·"))]) == 120


@pytest.mark.parametrize(
    ("in_environment", "named", "option"),
    [
        ("other", "a project", " --project 'a project'"),
        ("a project", "a project", ""),
        ("other", ".", " --project ."),
        ("", "a project", " --project 'a project'"),
        ("other", None, ""),
    ],
)
def test_a_command_to_be_typed_names_the_project_where_it_would_find_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folder: Path, in_environment: str, named: str | None, option: str
) -> None:
    for name in ("a project", "other"):
        (tmp_path / name).symlink_to(folder) if name == (named or "other") else (tmp_path / name).mkdir()
    monkeypatch.setenv("PDSYNC_PROJECT", str(tmp_path / in_environment) if in_environment else "")
    arguments = ["show", "20261129T080000", *(["--project", named] if named else [])]
    lines = screen(monkeypatch, folder if named == "." else tmp_path, *arguments)
    assert f"Every stream: pdsync{option} runs show 20261129T080000-abcdef --all" in " ".join(lines)


def test_pushes_are_listed_with_their_counts_also_one_that_was_interrupted(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    control = Control(project.data / "control.db")
    outbox = Outbox(control)
    first, left = outbox.add([Entry("v2 updateDeal", "update", "deals", f"deals/{id}", {"id": id}) for id in (1, 2)])
    outbox.push_log.start_push("push-a", "hash")
    receipt = PushReceipt("push-a", START, outcomes={"applied": 3, "conflict": 1}, tokens=40, exit_code=5)
    outbox.push_log.finish_push("push-a", receipt)
    outbox.push_log.start_push("push-b", "other")
    outbox.approve([left.id], "push-b", 1)
    outbox.settle(first.id, "applied", push_id="push-b")
    control.close()
    listed = project.here("runs", "pushes", "--json").events
    columns = ("name", "applied", "conflict", "open", "tokens", "exit_code", "undo")
    assert [tuple(each[name] for name in columns) for each in listed] == [
        ("push-b", 1, 0, 1, None, None, "pdsync undo push-b"),
        ("push-a", 3, 1, 0, 40, 5, "pdsync undo push-a"),
    ]
