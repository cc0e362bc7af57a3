"""A change that is queued again takes effect once, and stands for the first one where its key or its record counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.support.world import Project, Remote

PUSH = ("push", "--yes", "--json", "--settle-seconds", "0.05", "--allow", "delete", "--max-deletes", "9")


def queue(project: Project, *words: str) -> None:
    ran = project.here("queue", *words)
    assert ran.code == 0, ran


def push_refused(remote: Remote, project: Project) -> None:
    """A push whose first addition of an organization is refused."""
    remote.fault(kind="status", status=403, method="POST", path="/api/v2/organizations", nth=1)
    assert project.here(*PUSH).code == 5
    remote.clear_faults()


def push_in_doubt(remote: Remote, project: Project) -> None:
    """A push that leaves the first addition of an organization to a person."""
    remote.fault(kind="reset_before", method="POST", path="/api/v2/organizations", nth=1)
    assert project.here(*PUSH, "--create-doubt", "review").code == 5
    remote.clear_faults()


def live(remote: Remote, kind: str, name: str) -> list[dict[str, Any]]:
    return [each["record"] for each in remote.dump(kind) if each["record"]["name"] == name and each["state"] == "live"]


def test_w2_a_change_is_queued_again_only_once(remote: Remote, bare: Project) -> None:
    queue(bare, "add", "addOrganization", "name=Once")
    push_refused(remote, bare)
    queue(bare, "retry", "1", "#1")
    again = bare.here("queue", "retry", "1")
    assert (again.code, "#1 was queued again already, as #2, which is queued" in again.err) == (2, True)
    assert bare.here(*PUSH).code == 0
    assert bare.here("queue", "retry", "1").code == 2
    assert len(live(remote, "organizations", "Once")) == 1


def test_w2_a_retry_that_was_dropped_or_failed_leaves_one_more_try(remote: Remote, bare: Project) -> None:
    queue(bare, "add", "addOrganization", "name=Third")
    push_refused(remote, bare)
    queue(bare, "retry", "1")
    queue(bare, "drop", "2")
    queue(bare, "retry", "1")
    push_refused(remote, bare)
    assert "pdsync queue retry 3" in bare.here("queue", "retry", "1").err
    queue(bare, "retry", "3")
    assert bare.here(*PUSH).code == 0
    assert len(live(remote, "organizations", "Third")) == 1


def test_w2_what_a_person_has_found_applied_is_not_queued_again(remote: Remote, bare: Project) -> None:
    queue(bare, "add", "addOrganization", "name=Found")
    push_in_doubt(remote, bare)
    queue(bare, "resolve", "1", "--as", "applied")
    refused = bare.here("queue", "retry", "1")
    assert (refused.code, "recorded as applied" in refused.err) == (2, True)
    queue(bare, "resolve", "1", "--as", "rejected")
    queue(bare, "retry", "1")


def test_w2_a_key_stays_taken_while_a_retry_stands_for_its_change(remote: Remote, bare: Project) -> None:
    file = bare.folder / "rows.csv"
    file.write_text("_key,name\nk1,Keyed\n", encoding="utf-8")
    words = ("import", str(file), "--operation", "addOrganization")
    queue(bare, *words)
    push_refused(remote, bare)
    queue(bare, "retry", "1")
    push_refused(remote, bare)
    queue(bare, "retry", "2")
    assert bare.here(*PUSH).code == 0
    assert "1 change not queued: its key was used before, by #1." in bare.here("queue", *words).err
    assert bare.here(*PUSH).code == 0
    assert len(live(remote, "organizations", "Keyed")) == 1


def test_w2_a_key_is_free_where_no_retry_had_an_effect(remote: Remote, bare: Project) -> None:
    words = ("add", "addOrganization", "name=Free", "--key", "k")
    queue(bare, *words)
    push_refused(remote, bare)
    queue(bare, "retry", "1")
    queue(bare, "drop", "2")
    queue(bare, *words)
    assert bare.here(*PUSH).code == 0
    assert len(live(remote, "organizations", "Free")) == 1


def queue_children(project: Project, name: str) -> None:
    queue(project, "add", "addOrganization", f"name={name}")
    queue(project, "add", "addPerson", f"name={name}", "org_id=@#1")
    queue(project, "add", "updatePerson", "id=@#2", "phones=12")


def test_w1_what_refers_to_a_retried_addition_is_sent_after_it(remote: Remote, bare: Project) -> None:
    queue_children(bare, "Family")
    push_refused(remote, bare)
    queue(bare, "retry", "1")
    steps = [each for each in bare.here("push", "--dry-run", "--json").events if each["event"] == "step"]
    assert [(each["seq"], each["warnings"]) for each in steps] == [(4, []), (2, []), (3, [])]
    assert bare.here(*PUSH).code == 0
    ((organization,), (person,)) = (live(remote, kind, "Family") for kind in ("organizations", "persons"))
    assert (person["org_id"], person["phones"][0]["value"]) == (organization["id"], "12")
    assert bare.here("undo", "last").code == 0
    assert bare.here(*PUSH).code == 0
    assert live(remote, "organizations", "Family") == live(remote, "persons", "Family") == []


def test_w1_what_refers_to_an_addition_that_a_person_has_found_is_sent(remote: Remote, bare: Project) -> None:
    queue_children(bare, "Clan")
    push_in_doubt(remote, bare)
    assert bare.here(*PUSH).code == 5
    assert live(remote, "persons", "Clan") == []
    made = remote.post("act", method="POST", path="/api/v2/organizations", body={"name": "Clan"})["data"]
    queue(bare, "resolve", "1", "--as", "applied", "--record", str(made["id"]))
    assert bare.here(*PUSH).code == 0
    (person,) = live(remote, "persons", "Clan")
    assert (person["org_id"], person["phones"][0]["value"]) == (made["id"], "12")


def test_w1_what_refers_to_a_retry_that_failed_too_waits_for_the_next(remote: Remote, bare: Project) -> None:
    queue_children(bare, "Tribe")
    push_refused(remote, bare)
    queue(bare, "retry", "1")
    push_refused(remote, bare)
    (step, _) = (each for each in bare.here("push", "--dry-run", "--json").events if each["event"] == "step")
    assert step["warnings"] == ["not sent as long as #4, which it refers to, is not applied"]
    queue(bare, "retry", "4")
    assert bare.here(*PUSH, "--limit", "1").code == 0
    assert bare.here(*PUSH).code == 0
    assert len(live(remote, "persons", "Tribe")) == 1
