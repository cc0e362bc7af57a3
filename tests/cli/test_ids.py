"""An id on the command line may be shortened, or counted from the last one: of runs, pushes and mutations."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click
import pytest

from pdsync.cli import ids
from pdsync.core.control import Control
from pdsync.errors import ConfigError
from pdsync.model import Receipt
from pdsync.writeback.outbox import Entry, Outbox
from tests.support.world import Project

if TYPE_CHECKING:
    from pathlib import Path

IDS = ["20261129-b", "20261129-a", "20261128-c"]  # the newest first


@pytest.mark.parametrize(
    ("text", "id"),
    [("last", 0), ("last:1", 0), ("last:3", 2), ("20261129-a", 1), ("20261128", 2), ("20261129-b", 0)],
)
def test_an_id_is_found(text: str, id: int) -> None:
    assert ids.find("run", IDS, text, "") == IDS[id]


@pytest.mark.parametrize(
    ("existing", "text", "says"),
    [
        (IDS, "20261129", "2 run ids begin with 20261129: 20261129-b, 20261129-a. Type more of it."),
        (IDS, "last:4", "There is no run -4. The last ones: 20261129-b, 20261129-a, 20261128-c. See it."),
        (IDS, "", "There is no run ."),
        ([], "last", "There is no run yet. See it."),
        (["12", "1"], "1", None),
    ],
)
def test_what_fits_none_or_several_is_refused(existing: list[str], text: str, says: str | None) -> None:
    if says is None:
        assert ids.find("run", existing, text, "See it.") == text
        return
    with pytest.raises(ConfigError) as error:
        ids.find("run", existing, text, "See it.")
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("typed", "parsed"),
    [
        (["-1"], ("last:1", None)),
        (["-12", "--note", "-1"], ("last:12", "-1")),
        (["--note=-1", "-2"], ("last:2", "-1")),
        (["-2", "-n", "-1"], ("last:2", "-1")),
        (["--json", "-2"], ("last:2", None)),  # a flag takes no value
        (["-v", "-2"], ("last:2", None)),
        (["--project", "-2", "-3"], ("last:3", None)),
        (["--", "-2"], ("last:2", None)),
        (["--note", "x", "--", "-2"], ("last:2", "x")),
        (["--note", "--", "-2"], ("last:2", "--")),
        (["-0"], None),
        (["-x"], None),
    ],
)
def test_a_negative_number_is_an_id_and_no_option(typed: list[str], parsed: tuple[str, str | None] | None) -> None:
    @click.command(cls=ids.IdCommand)
    @click.argument("id")
    @click.option("--note", "-n")
    def command(id: str, note: str | None, **_: object) -> tuple[str, str | None]:
        return id, note

    if parsed is None:
        with pytest.raises(click.UsageError):
            command.main(typed, standalone_mode=False)
    else:
        assert command.main(typed, standalone_mode=False) == parsed


def test_runs_pushes_and_mutations_are_named_alike(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    control = Control(project.data / "control.db")
    began = datetime(2026, 11, 29, 8, tzinfo=UTC)
    for name in ("run-a", "run-b"):
        control.start_run(name, "sync", began)
        control.finish_run(Receipt(name, "sync", began, began + timedelta(seconds=5.60815)))
    outbox = Outbox(control)
    outbox.add([Entry("v2 updateDeal", "update", "deals", f"deals/{id}", {"id": id}) for id in (1, 2)])
    for name in ("push-a", "push-b"):
        outbox.push_log.start_push(name, name)
    control.close()

    rows = project.here("runs", "--json").events
    assert [(row["name"], row["run_id"], row["seconds"]) for row in rows] == [
        ("run-b", "run-b", 5.6), ("run-a", "run-a", 5.6),
    ]  # fmt: skip
    for text, name in ((None, "run-b"), ("last", "run-b"), ("-2", "run-a"), ("run-a", "run-a")):
        assert project.here("runs", "show", *([text] if text else []), "--json").events[0]["name"] == name
    assert "2 run ids begin with run-" in project.here("runs", "show", "run-").err
    for text, number in (("last", "#2"), ("-2", "#1"), ("2", "#2"), ("#1", "#1")):
        assert project.here("queue", "show", text, "--json").events[0]["name"] == number
    for text, name in (("last", "push-b"), ("-2", "push-a"), ("push-a", "push-a")):
        assert project.here("undo", text, "--json").summary["run_id"] == name
    assert "There is no push p9" in project.here("undo", "p9").err
    assert project.here("queue", "drop", "-1").code == 0
    assert [row["name"] for row in project.here("queue", "list", "--json").events] == ["#1"]


def test_the_queue_is_listed_by_state_and_emptied_without_an_error(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    control = Control(project.data / "control.db")
    outbox = Outbox(control)
    entries = [Entry("v2 updateDeal", "update", "deals", f"deals/{id}", {"id": id}) for id in (1, 2, 3)]
    outbox.settle(outbox.add(entries)[0].id, "rejected", "refused", "400")
    control.close()
    for arguments, names in (
        ([], ["#2", "#3"]),
        (["--all"], ["#1", "#2", "#3"]),
        (["--state", "rejected"], ["#1"]),
        (["--all", "--state", "rejected"], ["#1"]),
    ):
        assert [row["name"] for row in project.here("queue", "list", *arguments, "--json").events] == names
    for says in ("Dropped 2 of the queue.", "Nothing is queued."):
        ran = project.here("queue", "drop", "--all")
        assert (ran.code, says in ran.err) == (0, True), ran
    assert project.here("queue", "drop").code == 2


def test_the_second_undo_names_what_is_queued_already_and_queues_nothing(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    control = Control(project.data / "control.db")
    outbox = Outbox(control)
    entries = [Entry("v2 updateDeal", "update", "deals", f"deals/{id}", {"id": id, "title": "New"}) for id in (1, 2)]
    outbox.push_log.start_push("push-a", "hash")
    for each in outbox.add(entries):
        after, base = {"title": "New"}, {"title": "Old"}
        outbox.settle(each.id, "applied", push_id="push-a", after=after, base=base)
    control.close()
    queued = project.here("undo", "last")
    assert "Queued 2 changes that undo it. Preview them: pdsync push --dry-run" in queued.err
    again = project.here("undo", "last")
    assert "2 changes that undo it are queued already (#3–#4)" in again.err
    summary = project.here("undo", "push-a", "--json").summary
    assert (summary["queued"], summary["already_queued"]) == (0, ["#3", "#4"])
    project.here("queue", "drop", "3")
    queued = project.here("undo", "last")
    assert "1 change that undoes it is queued already (#4), 1 to send" in queued.err
    assert "Queued 1 change that undoes it. Preview it: pdsync push --dry-run" in queued.err


def test_a_conflict_is_shown_in_plain_lines_before_the_facts(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    control = Control(project.data / "control.db")
    outbox = Outbox(control)
    payload = {"id": 12, "value": 1080.5, "title": "Same"}
    mutation, late = outbox.add([Entry("v2 updateDeal", "update", "deals", "deals/12", payload)] * 2)
    base, after = {"value": 2450, "title": "Same"}, {"value": 4444, "title": "Same"}
    outbox.settle(mutation.id, "conflict", "changed", base=base, after=after)
    outbox.settle(late.id, "conflict", "changed", base=after)  # before an attempt: the record as it is now
    control.close()
    first, second, *_ = project.here("queue", "show", "1").out.splitlines()
    assert [number in first for number in ("2,450", "4,444", "1,080.50")] == [True] * 3
    assert second.endswith("pdsync queue retry 1")
    assert "when planned, now 4,444" in project.here("queue", "list", "--state", "conflict").out
    assert "is 4,444 now, you want 1,080.50" in project.here("queue", "show", "2").out.splitlines()[0]
