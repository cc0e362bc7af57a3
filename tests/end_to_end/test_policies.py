"""The policies compare with what others have changed: append with the list as it is when sent, record with the time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.support.world import Project, Remote

PUSH = ("push", "--yes", "--json", "--settle-seconds", "0.05")


def contacts(*values: str) -> list[dict[str, Any]]:
    return [{"value": value, "label": "work", "primary": at == 0} for at, value in enumerate(values)]


def person(remote: Remote) -> int:
    """A person of its own, with two e-mail addresses."""
    body = {"name": "Mine", "emails": contacts("a@example.com", "b@example.com")}
    return int(remote.post("act", method="POST", path="/api/v2/persons", body=body)["data"]["id"])


def emails(remote: Remote, id: int) -> list[str]:
    (found,) = (each["record"]["emails"] for each in remote.dump("persons") if each["record"]["id"] == id)
    return [each["value"] for each in found]


def queue(project: Project, *words: str) -> None:
    ran = project.here("queue", "add", "updatePerson", *words)
    assert ran.code == 0, ran


def edit(remote: Remote, id: int, *values: str) -> None:
    """A colleague's edit."""
    remote.post("act", method="PATCH", path=f"/api/v2/persons/{id}", body={"emails": contacts(*values)})


def test_w6_append_overwrites_no_other_field_that_a_colleague_has_changed_since_the_plan(
    remote: Remote, bare: Project
) -> None:
    id = person(remote)
    queue(bare, f"id={id}", "name=Ours", "emails=ours@example.com")
    plan = bare.folder / "plan.json"
    assert bare.here("push", "--dry-run", "--policy", "append", "--out", str(plan)).code == 0
    remote.post("act", method="PATCH", path=f"/api/v2/persons/{id}", body={"name": "Theirs"})
    assert bare.here(*PUSH, str(plan)).code == 5
    (found,) = (each["record"] for each in remote.dump("persons") if each["record"]["id"] == id)
    assert found["name"] == "Theirs"
    assert emails(remote, id) == ["a@example.com", "b@example.com"]
    assert bare.control("SELECT state, reason FROM mutations") == [("conflict", "changed")]


def test_w6_what_a_colleague_has_added_and_removed_since_the_plan_stays_so(remote: Remote, bare: Project) -> None:
    id = person(remote)
    queue(bare, f"id={id}", "emails=ours@example.com")
    queue(bare, f"id={id}", "emails=second@example.com")
    plan = bare.folder / "plan.json"
    assert bare.here("push", "--dry-run", "--policy", "append", "--out", str(plan)).code == 0
    edit(remote, id, "b@example.com", "theirs@example.com")
    ran = bare.here(*PUSH, str(plan))
    assert ran.code == 0, ran
    assert emails(remote, id) == ["b@example.com", "theirs@example.com", "ours@example.com", "second@example.com"]
    assert bare.here("undo", "last").code == 0
    assert bare.here(*PUSH).code == 0
    assert emails(remote, id) == ["b@example.com", "theirs@example.com"]


def test_w2_w4_the_next_push_recognizes_what_was_added_to_a_list(remote: Remote, bare: Project) -> None:
    id = person(remote)
    queue(bare, f"id={id}", "emails=ours@example.com")
    remote.fault(kind="status", status=500, method="GET", path=f"/api/v2/persons/{id}", nth=3, times=99)
    remote.fault(kind="reset_after", method="PATCH", nth=1)
    bare.here(*PUSH, "--policy", "append")
    assert bare.control("SELECT state FROM mutations") == [("unknown",)]
    assert emails(remote, id) == ["a@example.com", "b@example.com", "ours@example.com"]
    remote.clear_faults()
    ran = bare.here(*PUSH, "--policy", "append")
    assert ran.code == 0, ran
    assert bare.control("SELECT state, reason FROM mutations") == [("applied", "seen")]


def test_w6_under_policy_record_our_own_change_is_no_other_users(remote: Remote, bare: Project) -> None:
    id = person(remote)
    for words in ("name=First", "name=Second", "emails=c@example.com"):
        queue(bare, f"id={id}", words)
    remote.advance(60)  # the record's time of change moves with each of them
    ran = bare.here(*PUSH, "--policy", "record")
    assert ran.code == 0, ran
    assert bare.control("SELECT DISTINCT state FROM mutations") == [("applied",)]


def test_w6_under_policy_record_a_change_before_ours_is_another_users(remote: Remote, bare: Project) -> None:
    id = person(remote)
    queue(bare, f"id={id}", "name=Mine")  # nothing to send
    queue(bare, f"id={id}", "name=Second")
    plan = bare.folder / "plan.json"
    assert bare.here("push", "--dry-run", "--policy", "record", "--out", str(plan)).code == 0
    remote.advance(60)
    edit(remote, id, "theirs@example.com")
    assert bare.here(*PUSH, str(plan)).code == 5
    assert bare.control("SELECT state FROM mutations ORDER BY seq") == [("applied",), ("conflict",)]
