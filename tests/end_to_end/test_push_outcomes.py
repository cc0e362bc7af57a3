"""How a mutation ends says what is known of its effect: added again, never there, sent and not to be verified."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from tests.end_to_end.world import Project, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.end_to_end.world import Ran, Remote

PUSH = ("push", "--yes", "--json", "--settle", "0.05", "--allow", "delete,merge", "--max-deletes", "99")


@pytest.fixture(scope="module")
def remote() -> Iterator[Remote]:
    with serving("--deals", "40", "--seed", "31") as remote:
        yield remote


@pytest.fixture(scope="module")
def synced(remote: Remote, tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("outcomes") / "project", remote)
    ran = project.here("sync", "-q", "deals", "persons", "organizations", "products", "users", "deal_fields")
    assert ran.code == 0, ran
    return project


@pytest.fixture
def project(remote: Remote, synced: Project) -> Iterator[Project]:
    synced.here("queue", "drop", "--all")
    remote.clear_log()
    yield synced
    remote.clear_faults()


def live(remote: Remote, kind: str) -> list[dict[str, Any]]:
    return [entry["record"] for entry in remote.dump(kind) if entry["state"] == "live"]


def queue(project: Project, *words: str) -> str:
    ran = project.here("queue", "add", *words, "--json")
    assert ran.code == 0, ran
    return str(ran.summary["id"])


def push(project: Project, *options: str, code: int = 0) -> Ran:
    ran = project.here(*PUSH, *options)
    assert ran.code == code, ran
    return ran


def fate(project: Project, id: str) -> tuple[Any, ...]:
    return project.control("SELECT state, reason FROM mutations WHERE id = ?", id)[0]


def sent(remote: Remote) -> list[str]:
    return [f"{entry['method']} {entry['operation']}" for entry in remote.log() if entry["method"] != "GET"]


FOLLOWED = {
    "persons": ("addPersonFollower", "deletePersonFollower"),
    "organizations": ("addOrganizationFollower", "deleteOrganizationFollower"),
    "deals": ("addDealFollower", "deleteDealFollower"),
    "products": ("addProductFollower", "deleteProductFollower"),
}


@pytest.mark.parametrize("kind", FOLLOWED)
def test_w2_a_follower_who_left_can_be_added_again_and_again(remote: Remote, project: Project, kind: str) -> None:
    add, delete = FOLLOWED[kind]
    record, user = live(remote, kind)[0]["id"], live(remote, "users")[-1]["id"]
    for _ in range(2):
        added = queue(project, add, f"id={record}", f"user_id={user}")
        push(project)
        assert fate(project, added) == ("applied", None)
        removed = queue(project, delete, f"id={record}", f"follower_id={user}")
        push(project)
        assert fate(project, removed) == ("applied", None)
    assert sent(remote) == [f"POST {add}", f"DELETE {delete}"] * 2


def test_w2_a_participant_who_left_can_be_added_again(remote: Remote, project: Project) -> None:
    deal, person = live(remote, "deals")[0]["id"], live(remote, "persons")[-1]["id"]
    for _ in range(2):
        added = queue(project, "addDealParticipant", f"id={deal}", f"person_id={person}")
        push(project)
        assert fate(project, added) == ("applied", None)
        (key,) = project.control("SELECT remote_id FROM mutations WHERE id = ?", added)[0]
        queue(project, "deleteDealParticipant", f"id={deal}", f"deal_participant_id={key}")
        push(project)


def test_w2_who_follows_already_is_not_added_twice(remote: Remote, project: Project) -> None:
    person, user = live(remote, "persons")[1]["id"], live(remote, "users")[-1]["id"]
    first, second = (queue(project, "addPersonFollower", f"id={person}", f"user_id={user}") for _ in range(2))
    push(project)
    assert [fate(project, each) for each in (first, second)] == [("applied", None), ("applied", "already_so")]
    third = queue(project, "addPersonFollower", f"id={person}", f"user_id={user}")
    push(project)
    assert fate(project, third) == ("applied", "already_so")
    assert sent(remote) == ["POST addPersonFollower"]


@pytest.mark.parametrize("fault", ["reset_after", "reset_before"])
def test_w2_the_answer_to_a_second_addition_of_a_follower_is_lost(remote: Remote, project: Project, fault: str) -> None:
    person, user = live(remote, "persons")[2]["id"], live(remote, "users")[-1]["id"]
    queue(project, "addPersonFollower", f"id={person}", f"user_id={user}")
    queue(project, "deletePersonFollower", f"id={person}", f"follower_id={user}")
    push(project)
    again = queue(project, "addPersonFollower", f"id={person}", f"user_id={user}")
    before = len(remote.lines("journal"))
    remote.fault(kind=fault, method="POST", nth=1)
    push(project)
    assert fate(project, again)[0] == "applied"
    assert len(remote.lines("journal")) == before + 1
    queue(project, "deletePersonFollower", f"id={person}", f"follower_id={user}")
    push(project)


def test_w1_an_error_of_our_own_after_the_answer_does_not_come_back_in_every_push(
    remote: Remote, project: Project
) -> None:
    """A trigger in control.db refuses that anything ends as applied, as the unique index once did."""
    added, other = queue(project, "addPerson", "name=Stumbling block"), live(remote, "persons")[3]["id"]
    with contextlib.closing(sqlite3.connect(project.data / "control.db")) as control, control:
        control.execute(
            "CREATE TRIGGER stumble BEFORE UPDATE ON mutations WHEN new.state = 'applied' AND new.kind = 'persons'"
            f" AND new.id = '{added}' BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
    try:
        push(project, code=5)
        assert fate(project, added) == ("needs_review", "local_error")
        after = queue(project, "updatePerson", f"id={other}", "name=Comes after it")
        push(project)
        assert fate(project, after) == ("applied", None)
    finally:
        with contextlib.closing(sqlite3.connect(project.data / "control.db")) as control, control:
            control.execute("DROP TRIGGER stumble")
    assert len([each for each in live(remote, "persons") if each["name"] == "Stumbling block"]) == 1
