"""Writes whose answer was lost while a colleague made a similar change: only proven effects count as ours."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.end_to_end.test_push_restored import TAKING, YES, called, fate, live, queue, writes
from tests.support.world import Project, serving, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.world import Ran, Remote

pytestmark = pytest.mark.proof


@pytest.fixture(scope="module")
def remote() -> Iterator[Remote]:
    with serving("--deals", "60", "--seed", "7") as remote:
        yield remote


@pytest.fixture(scope="module")
def synced(remote: Remote, tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("doubt") / "project", remote)
    ran = project.here("sync", "-q", "deals", "persons", "organizations", "users", "stages", "pipelines")
    assert ran.code == 0, ran
    return project


@pytest.fixture
def project(remote: Remote, synced: Project) -> Iterator[Project]:
    synced.here("queue", "drop", "--all")
    remote.clear_log()
    yield synced
    remote.clear_faults()


def another_user(remote: Remote) -> int:
    return int(live(remote, "users")[1]["id"])


def act(remote: Remote, method: str, path: str, **body: Any) -> dict[str, Any]:
    done = remote.post("act", method=method, path=path, body=body or None, user_id=another_user(remote))
    found: dict[str, Any] = done
    return found


def lost_while(remote: Remote, project: Project, method: str, path: str, then: Callable[[], object], *more: str) -> Ran:
    """Push one write that never reaches the server; meanwhile, before anybody looks, `then` happens."""
    remote.fault(kind="reset_before", method=method, path=path, nth=1)
    process = project.start(*YES[:-1], "1.5", *more)
    while remote.struck() < 1:
        time.sleep(0.01)
    then()
    return wait_for(process)


def detail(project: Project, queued: dict[str, Any]) -> str:
    return str(project.control("SELECT detail FROM mutations WHERE id = ?", queued["id"])[0][0])


# Additions.


@pytest.mark.parametrize(
    ("operation", "path", "kind", "words", "theirs"),
    [
        ("addPerson", "/api/v2/persons", "persons", [], {"emails": [{"value": "hers@example.com"}]}),
        ("addPerson", "/api/v2/persons", "persons", ["emails=ours@example.com"], {}),
        ("addOrganization", "/api/v2/organizations", "organizations", [], {}),
        ("addDeal", "/api/v2/deals", "deals", [], {"value": 12}),
        ("addProduct", "/api/v2/products", "products", [], {"code": "HERS"}),
    ],
)
def test_w2_a_colleagues_addition_is_not_adopted_and_not_deleted_by_undo(
    remote: Remote,
    project: Project,
    operation: str,
    path: str,
    kind: str,
    words: list[str],
    theirs: dict[str, Any],
) -> None:
    title = "title" if kind == "deals" else "name"
    name = f"Two of that name {operation} {len(words)}"
    queued = queue(project, operation, f"{title}={name}", *words)
    hers: list[int] = []

    def meanwhile() -> None:
        hers.append(int(act(remote, "POST", path, **{title: name}, **theirs)["data"]["id"]))

    ran = lost_while(remote, project, "POST", f"{path}$", meanwhile)
    bound = project.control("SELECT remote_id FROM mutations WHERE id = ?", queued["id"])[0][0]
    assert bound != str(hers[0]), ran
    if fate(project, queued)[0] == "applied":  # her name stood on it: ours was sent again
        assert len(called(remote, kind, name)) == 2
    else:
        assert fate(project, queued) == ("needs_review", "undecidable")
        assert str(hers[0]) in detail(project, queued)
        assert called(remote, kind, name) == hers
    push_id = ran.summary["run_id"]
    project.here("undo", push_id)
    project.here(*YES, "--allow", "delete")
    assert called(remote, kind, name) == hers


@pytest.mark.parametrize("what", ["renamed", "deleted"])
def test_w2_w4_an_addition_that_a_colleague_has_changed_meanwhile_is_not_sent_again(
    remote: Remote, project: Project, what: str
) -> None:
    name = f"Added, answer lost, {what}"
    queued = queue(project, "addProduct", f"name={name}")
    remote.fault(kind="reset_after", method="POST", path="/api/v2/products$", nth=1)
    process = project.start(*YES[:-1], "1.5")
    while not called(remote, "products", name):
        time.sleep(0.01)
    (id,) = called(remote, "products", name)
    remote.advance(2)
    if what == "renamed":
        act(remote, "PATCH", f"/api/v2/products/{id}", name="Another name")
    else:
        act(remote, "POST", "/api/v2/products", name="A later one")
        act(remote, "DELETE", f"/api/v2/products/{id}")
    ran = wait_for(process)
    assert fate(project, queued) == ("needs_review", "undecidable"), ran
    assert called(remote, "products", name) == []
    assert sum((entry["after"] or {}).get("name") == name for entry in remote.lines("journal")) <= 2  # added, deleted


def test_w2_an_addition_long_after_an_attempt_is_not_its_effect(remote: Remote, project: Project) -> None:
    """The request was lost before the server, the push killed; two days later a colleague adds the same by hand."""
    name = "Added by hand, days later"
    queued = queue(project, "addOrganization", f"name={name}")
    remote.fault(kind="reset_before", method="POST", path="/api/v2/organizations$", nth=1, times=9)
    ran = project.run(*YES, first="knobs.die('pdsync.writeback.unknown_outcomes', 'probe_write')")
    assert ran.code == -9, ran
    remote.clear_faults()
    remote.advance(2 * 86_400)
    me = project.ask("SELECT id FROM users WHERE is_you")[0][0]
    remote.post("act", method="POST", path="/api/v2/organizations", body={"name": name}, user_id=me)
    ran = project.here(*YES)
    assert fate(project, queued) == ("needs_review", "undecidable"), ran
    assert "after this was sent" in detail(project, queued)
    assert len(called(remote, "organizations", name)) == 1


def test_w12_undo_does_not_delete_what_a_colleague_has_worked_on(remote: Remote, project: Project) -> None:
    """Also where others of the push hang on it, and so move its update_time."""
    made = queue(project, "addOrganization", "name=Worked on")
    queue(project, "addPerson", "name=Of theirs", f"org_id=@#{made['name'].lstrip('#')}")
    ran = project.here(*YES)
    assert ran.code == 0, ran
    (id,) = called(remote, "organizations", "Worked on")
    act(remote, "PATCH", f"/api/v2/organizations/{id}", label_ids=None, address={"value": "Main Street 1"})
    project.here("undo", ran.summary["run_id"])
    done = project.here(*YES, "--allow", "delete", "--max-deletes", "9")
    assert done.code == 5, done
    assert called(remote, "organizations", "Worked on") == [id]
    assert called(remote, "persons", "Of theirs") == []


# Merges.


def pair(remote: Remote, kind: str, **loser: Any) -> tuple[int, int]:
    path, field = f"/api/v2/{kind}", "title" if kind == "deals" else "name"
    ids = [act(remote, "POST", path, **{field: f"Twin {kind}"}, **more)["data"]["id"] for more in (loser, {})]
    return int(ids[0]), int(ids[1])


def hang_on(remote: Remote, kind: str, id: int) -> None:
    """Add an activity to a record."""
    link = {"persons": "person_id", "organizations": "org_id", "deals": "deal_id"}[kind]
    named: dict[str, Any] = {link: id} if kind != "persons" else {"participants": [{"person_id": id, "primary": True}]}
    act(remote, "POST", "/api/v2/activities", subject="Hangs on it", **named)


KINDS = {"mergePersons": "persons", "mergeOrganizations": "organizations", "mergeDeals": "deals"}


@pytest.mark.parametrize("operation", KINDS)
@pytest.mark.parametrize("then", ["deleted", "merged elsewhere", "tidied by hand"])
def test_s13_a_merge_that_never_happened_is_not_claimed_because_the_loser_is_gone(
    remote: Remote, project: Project, operation: str, then: str
) -> None:
    kind = KINDS[operation]
    loser, winner = pair(remote, kind)
    third, _ = pair(remote, kind)
    hang_on(remote, kind, loser)
    queued = queue(project, operation, f"id={loser}", f"merge_with_id={winner}")

    def meanwhile() -> None:
        if then == "merged elsewhere":
            act(remote, "PUT", f"/v1/{kind}/{loser}/merge", merge_with_id=third)
        else:
            if then == "tidied by hand":
                act(remote, "PATCH", f"/api/v2/{kind}/{winner}", owner_id=another_user(remote))
            act(remote, "DELETE", f"/api/v2/{kind}/{loser}")

    ran = lost_while(remote, project, "PUT", "/merge$", meanwhile, *TAKING)
    assert ran.code == 5, ran
    assert fate(project, queued) == ("needs_review", "undecidable")
    assert "activit" in detail(project, queued)
    assert [path for path in writes(remote) if path.endswith("/merge")] == [f"/v1/{kind}/{loser}/merge"]
    assert project.ask("SELECT count(*) FROM meta.merges WHERE loser_id = ?", loser) == [(0,)]


@pytest.mark.parametrize("operation", KINDS)
@pytest.mark.parametrize("evidence", ["children", "values"])
def test_s13_a_merge_whose_answer_was_lost_is_known_by_what_it_moved(
    remote: Remote, project: Project, operation: str, evidence: str
) -> None:
    kind = KINDS[operation]
    values: dict[str, dict[str, Any]] = {
        "persons": {"emails": [{"value": "only@loser.example"}]},
        "organizations": {"address": {"value": "Main Street 1"}},
        "deals": {"expected_close_date": "2026-12-24"},
    }
    loser, winner = pair(remote, kind, **(values[kind] if evidence == "values" else {}))
    if evidence == "children":
        hang_on(remote, kind, loser)
    queued = queue(project, operation, f"id={loser}", f"merge_with_id={winner}")
    remote.fault(kind="reset_after", method="PUT", path="/merge$", nth=1)
    ran = project.here(*YES, *TAKING)
    assert ran.code == 0, ran
    assert fate(project, queued) == ("applied", "seen")
    found = project.ask("SELECT winner_id, confidence FROM meta.merges WHERE loser_id = ?", loser)
    assert found == [(winner, "exact")]


def test_w2_a_colleagues_deletion_is_no_effect_of_ours(remote: Remote, project: Project) -> None:
    person, _ = pair(remote, "persons")
    queued = queue(project, "deletePerson", f"id={person}")
    ran = lost_while(
        remote, project, "DELETE", "/persons/", lambda: act(remote, "DELETE", f"/api/v2/persons/{person}"), *TAKING
    )
    assert ran.code == 0, ran
    assert fate(project, queued) == ("applied", "already_so")
