"""Stores lost, or restored from before a push: nothing is sent twice, and what was applied reaches the tables."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.world import Project, serving, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.world import Ran, Remote

pytestmark = pytest.mark.proof

YES = ("push", "--yes", "--json", "--settle-seconds", "0.1")
STREAMS = ("deals", "persons", "organizations", "users", "stages", "pipelines")


@pytest.fixture(scope="module")
def remote() -> Iterator[Remote]:
    with serving("--deals", "60", "--seed", "6") as remote:
        yield remote


@pytest.fixture(scope="module")
def synced(remote: Remote, tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = Project(tmp_path_factory.mktemp("restored") / "project", remote)
    ran = project.here("sync", "-q", *STREAMS)
    assert ran.code == 0, ran
    return project.folder


@pytest.fixture
def project(remote: Remote, synced: Path, tmp_path: Path) -> Iterator[Project]:
    """A copy of a synced project with an empty queue."""
    shutil.copytree(synced, tmp_path / "project")
    remote.clear_log()
    yield Project(tmp_path / "project", remote)
    remote.clear_faults()


def queue(project: Project, *words: str) -> dict[str, Any]:
    ran = project.here("queue", "add", *words, "--json")
    assert ran.code == 0, ran
    return ran.summary


def push(project: Project, *options: str, code: int = 0) -> Ran:
    ran = project.here(*YES, *options)
    assert ran.code == code, ran
    return ran


def live(remote: Remote, kind: str) -> list[dict[str, Any]]:
    return [entry["record"] for entry in remote.dump(kind) if entry["state"] == "live"]


def called(remote: Remote, kind: str, name: str) -> list[int]:
    field = "title" if kind == "deals" else "name"
    return [record["id"] for record in live(remote, kind) if record[field] == name]


def writes(remote: Remote) -> list[str]:
    return [entry["path"] for entry in remote.log() if entry["method"] != "GET"]


def fate(project: Project, queued: dict[str, Any]) -> tuple[str, str | None]:
    rows = project.control("SELECT state, reason FROM mutations WHERE id = ?", queued["id"])
    return rows[0][0], rows[0][1]


def save(project: Project, into: Path) -> None:
    """Copy control.db as a backup would, also while it is in use."""
    with (
        contextlib.closing(sqlite3.connect(project.data / "control.db")) as source,
        contextlib.closing(sqlite3.connect(into)) as target,
    ):
        source.backup(target)


def lose(project: Project, *stores: str) -> None:
    """Lose stores: control, warehouse, raw (all of it), journal (the outbox's own part of raw)."""
    for store in stores:
        if store == "control":
            for path in project.data.glob("control.db*"):
                path.unlink()
        elif store == "warehouse":
            for path in project.data.glob("warehouse*.duckdb*"):
                path.unlink()
        else:
            shutil.rmtree(project.data / "raw" / ("outbox" if store == "journal" else ""))


def restore(project: Project, saved: Path) -> None:
    lose(project, "control")
    shutil.copy(saved, project.data / "control.db")


def test_w2_a_lost_journal_is_written_again(remote: Remote, project: Project, tmp_path: Path) -> None:
    queued = queue(project, "addDeal", "title=Known to each store")
    older = tmp_path / "outbox"
    shutil.copytree(project.data / "raw" / "outbox", older)
    push(project)
    lose(project, "journal")
    shutil.copytree(older, project.data / "raw" / "outbox")  # it says: queued
    assert project.here("sync", "-q", "stages").code == 0
    lose(project, "control", "warehouse")
    push(project)
    assert len(writes(remote)) == 1
    assert fate(project, queued)[0] == "applied"


@pytest.mark.parametrize("first", ["push", "sync"])
def test_w2_both_warehouse_files_are_read_for_what_was_sent(
    remote: Remote, project: Project, tmp_path: Path, first: str
) -> None:
    queued = queue(project, "addDeal", f"title=Known to one file, then {first}")
    save(project, tmp_path / "control.db")
    push(project)
    work, published = project.data / "warehouse.work.duckdb", project.data / "warehouse.duckdb"
    shutil.copy(work, tmp_path / "knows")
    restore(project, tmp_path / "control.db")
    lose(project, "journal", "warehouse")
    assert project.here("replay", "-q").code == 0  # a published warehouse that knows nothing of the push, and is newer
    assert project.here("sync", "-q", "stages").code == 0
    restore(project, tmp_path / "control.db")
    lose(project, "journal")
    shutil.copy(tmp_path / "knows", work)
    assert project.ask("SELECT state FROM meta.mutations") == [("queued",)]
    assert published.exists()
    if first == "sync":
        assert project.here("sync", "-q", "stages").code == 0
    push(project)
    assert len(writes(remote)) == 1
    assert fate(project, queued)[0] == "applied"


@pytest.mark.parametrize("lost", [(), ("warehouse",), ("journal",), ("raw",)])
def test_w2_a_restored_queue_does_not_send_again(
    remote: Remote, project: Project, tmp_path: Path, lost: tuple[str, ...]
) -> None:
    deal, title = live(remote, "deals")[3], f"Only once {lost}"
    queued = [
        queue(project, "addDeal", f"title={title}"),
        queue(project, "addNote", f"content={title}", f"deal_id={deal['id']}"),
        queue(project, "updateDeal", f"id={deal['id']}", f"title=Changed {lost}"),
    ]
    save(project, tmp_path / "control.db")
    push(project)
    sent = writes(remote)
    assert len(sent) == 3
    restore(project, tmp_path / "control.db")
    lose(project, *lost)
    assert [fate(project, each)[0] for each in queued] == ["queued"] * 3
    told = project.here("queue", "list", "--all")
    assert "control.db was lost or is an older copy" in told.err
    (made,) = called(remote, "deals", title)
    assert f"addDeal: applied as {made}" in told.err
    ran = push(project)
    assert ran.summary["mutations"]["open"] == 0
    assert writes(remote) == sent
    assert called(remote, "deals", title) == [made]
    assert [fate(project, each)[0] for each in queued] == ["applied"] * 3
    assert "older copy" not in project.here("queue", "list").err  # it is told once


@pytest.mark.parametrize("lost", [("control",), ("control", "warehouse"), ("control", "journal"), ("control", "raw")])
def test_w1_w2_a_lost_queue_is_restored_and_sends_nothing_twice(
    remote: Remote, project: Project, lost: tuple[str, ...]
) -> None:
    name = f"Known again {lost}"
    sent = queue(project, "addPerson", f"name={name}", "emails=a@example.com", "--key", "k1")
    push(project)
    before = writes(remote)
    waits = queue(project, "addPerson", f"name=Waits {lost}", "--key", "k2")
    dropped = queue(project, "addPerson", f"name=Dropped {lost}")
    assert project.here("sync", "-q", "users").code == 0  # the trail in the warehouse shows all three as queued
    assert project.here("queue", "drop", dropped["id"]).code == 0
    lose(project, *lost)
    again = queue(project, "addPerson", f"name={name}", "emails=a@example.com", "--key", "k1")
    assert again["id"] == sent["id"]  # the key still keeps it from being queued twice
    assert fate(project, sent) == ("applied", None)
    if "journal" in lost or "raw" in lost:  # only the warehouse knows it, and not whether it was sent since
        assert fate(project, waits) == ("needs_review", "state_lost")
        assert fate(project, dropped) == ("needs_review", "state_lost")
        push(project)
        assert writes(remote) == before
    else:
        assert (fate(project, waits), fate(project, dropped)) == (("queued", None), ("cancelled", "dropped"))
        push(project)
        assert len(writes(remote)) == len(before) + 1
    assert len(called(remote, "persons", name)) == 1
    assert called(remote, "persons", f"Dropped {lost}") == []


@pytest.mark.parametrize("lost", [(), ("warehouse", "journal")])
def test_w4_a_queue_restored_from_the_middle_of_a_push_probes_before_it_sends(
    remote: Remote, project: Project, tmp_path: Path, lost: tuple[str, ...]
) -> None:
    name = f"Amid {lost}"
    queued = queue(project, "addPerson", f"name={name}")
    remote.fault(kind="latency", method="POST", path="/api/v2/persons$", ms=1500, nth=1)
    process = project.start(*YES)
    while not writes(remote):
        pass
    save(project, tmp_path / "control.db")
    ran = wait_for(process)
    assert ran.code == 0, ran
    restore(project, tmp_path / "control.db")
    assert fate(project, queued) == ("armed", None)
    lose(project, *lost)
    push(project)
    assert len(writes(remote)) == len(called(remote, "persons", name)) == 1
    assert fate(project, queued) == ("applied", "seen" if lost else None)


def test_w12_undo_of_a_push_that_control_db_has_forgotten(remote: Remote, project: Project) -> None:
    deal = live(remote, "deals")[5]
    queue(project, "updateDeal", f"id={deal['id']}", "title=To be undone")
    queue(project, "addOrganization", "name=To be removed")
    push_id = push(project).summary["run_id"]
    lose(project, "control", "warehouse")
    ran = project.here("undo", push_id, "--json")
    assert (ran.code, ran.summary["queued"]) == (0, 2), ran
    push(project, "--allow", "delete")
    assert next(each for each in live(remote, "deals") if each["id"] == deal["id"])["title"] == deal["title"]
    assert called(remote, "organizations", "To be removed") == []
    lose(project, "control", "warehouse")
    assert project.here("undo", push_id, "--json").summary["queued"] == 0  # it was undone already


def test_w9_a_saved_plan_is_carried_out_once_also_after_a_restore(
    remote: Remote, project: Project, tmp_path: Path
) -> None:
    queue(project, "addPerson", "name=Planned once")
    plan = str(tmp_path / "plan.json")
    assert project.here("push", "--dry-run", "--out", plan).code == 0
    save(project, tmp_path / "control.db")
    push(project, plan)
    restore(project, tmp_path / "control.db")
    ran = project.here(*YES, plan)
    assert (ran.code, "is applied now" in ran.err + ran.out) == (2, True), ran
    assert len(called(remote, "persons", "Planned once")) == 1


def test_o4_a_damaged_journal_stops_a_push_that_needs_it(remote: Remote, project: Project, tmp_path: Path) -> None:
    queue(project, "addPerson", "name=Damaged")
    save(project, tmp_path / "control.db")
    push(project)
    (path,) = (project.data / "raw" / "outbox").glob("*.ndjson")
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"Damaged"', b'"Damage2"'))
    assert project.here("raw", "verify").code == 4
    restore(project, tmp_path / "control.db")
    ran = project.here(*YES)
    assert (ran.code, "its checksum is wrong" in ran.err + ran.out) == (1, True), ran
    path.write_bytes(whole + b'{"sha256": "torn')  # an append that a kill has cut: it was never acknowledged
    push(project)
    assert len(called(remote, "persons", "Damaged")) == 1
    queue(project, "addPerson", "name=After it")
    assert b"torn" not in path.read_bytes()


# What was applied, and the tables.


def row_of(project: Project, table: str, id: int) -> bool:
    """Whether the row of a record is marked as gone."""
    return bool(project.ask(f"SELECT _deleted_at IS NOT NULL FROM {table} WHERE id = ?", id)[0][0])


def merges(project: Project, loser: int) -> list[tuple[Any, ...]]:
    return project.ask("SELECT winner_id, confidence FROM meta.merges WHERE entity = 'persons' AND loser_id = ?", loser)


def taken_away(remote: Remote, project: Project) -> tuple[int, int, int]:
    """Queue a deletion and a merge: the deal that goes, the person that goes, and the one that stays."""
    deal = live(remote, "deals")[10]["id"]
    loser, winner = [each["id"] for each in live(remote, "persons")[:2]]
    queue(project, "deleteDeal", f"id={deal}")
    queue(project, "mergePersons", f"id={loser}", f"merge_with_id={winner}")
    return deal, loser, winner


TAKING = ("--allow", "delete,merge")


def test_w13_what_was_pushed_during_a_sync_is_loaded_by_that_sync(remote: Remote, project: Project) -> None:
    deal, loser, winner = taken_away(remote, project)
    remote.fault(kind="latency", method="GET", path="/v1/users$", ms=6000, nth=1)
    sync = project.start("sync", "-q", "users")
    while not any(entry["path"] == "/v1/users" for entry in remote.log()):
        pass
    ran = push(project, *TAKING)
    assert "Another run has the project" in ran.err
    assert not row_of(project, "deals", deal)
    done = wait_for(sync)
    assert done.code == 0, done
    assert row_of(project, "deals", deal)
    assert merges(project, loser) == [(winner, "exact")]


@pytest.mark.parametrize("opener", ["push", "sync", "reconcile", "backfill", "replay", "load"])
def test_w13_what_a_killed_push_applied_is_synced_by_the_next_command_on_the_warehouse(
    remote: Remote, project: Project, opener: str, tmp_path: Path
) -> None:
    deal, loser, winner = taken_away(remote, project)
    ran = project.run(*YES, *TAKING, first="knobs.die('pdsync.runner.read_back', 'read_back')")
    assert ran.code == -9, ran
    assert not row_of(project, "deals", deal)
    answers = tmp_path / "users.json"
    answers.write_text('{"success": true, "data": [{"id": 1, "name": "Somebody", "email": "s@example.com"}]}')
    commands = {
        "push": YES,
        "sync": ("sync", "-q", "stages"),
        "reconcile": ("reconcile", "-q", "stages"),
        "backfill": ("backfill", "-q", "notes", "--since", "2020-01-01", "--until", "2020-02-01"),
        "replay": ("replay", "-q"),
        "load": ("load", "--stream", "users", str(answers)),
    }
    ran = project.here(*commands[opener])
    assert ran.code in (0, 4), ran
    assert row_of(project, "deals", deal)
    assert row_of(project, "persons", loser)
    assert merges(project, loser) == [(winner, "exact")]
    assert project.ask("SELECT count(*) FROM meta.mutations WHERE reflected_by IS NULL") == [(0,)]


@pytest.mark.parametrize("fault", [{"kind": "status", "status": 403}, {"kind": "html_200"}])
def test_w13_a_push_that_could_not_read_back_leaves_its_record_in_the_warehouse(
    remote: Remote, project: Project, fault: dict[str, Any]
) -> None:
    deal, loser, winner = taken_away(remote, project)
    remote.fault(**fault, path="^/v1/users/me", nth=2)  # the first one is the push's own
    ran = push(project, *TAKING)
    remote.clear_faults()
    assert "The warehouse does not show this push yet" in ran.err
    assert row_of(project, "deals", deal)
    assert merges(project, loser) == [(winner, "exact")]
    for path in (
        *project.data.glob("control.db*"),
        *project.data.glob("raw/**/*.zst"),
        project.data / "raw" / "outbox",
    ):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    assert {each["state"] for each in project.here("queue", "list", "--all", "--json").events if "state" in each} == {
        "applied"
    }


def test_s8_a_record_restored_after_our_deletion_is_not_marked_by_a_late_catch_up(
    remote: Remote, project: Project, tmp_path: Path
) -> None:
    deal = live(remote, "deals")[10]["id"]
    queue(project, "deleteDeal", f"id={deal}")
    push(project, "--allow", "delete")
    assert row_of(project, "deals", deal)
    remote.advance(3600)
    remote.post("act", method="PATCH", path=f"/api/v2/deals/{deal}", body={"is_deleted": False})
    assert project.here("sync", "-q", "deals").code == 0
    assert not row_of(project, "deals", deal)
    lose(project, "warehouse")  # nothing says any more that the deletion was brought in
    for _ in range(2):
        assert project.here("sync", "-q", "deals").code == 0
        assert not row_of(project, "deals", deal)
