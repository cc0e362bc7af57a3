"""The outcome of a mutation says what is known of its effect: added again, never existed, sent but not verifiable."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.queueing import push, queue
from tests.support.world import Project, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.world import Remote


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


@pytest.fixture
def bare(remote: Remote, tmp_path: Path) -> Iterator[Project]:
    """A project without a warehouse: its pushes are quick."""
    remote.clear_log()
    yield Project(tmp_path / "bare", remote)
    remote.clear_faults()


def live(remote: Remote, kind: str) -> list[dict[str, Any]]:
    return [entry["record"] for entry in remote.dump(kind) if entry["state"] == "live"]


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
def test_w2_a_follower_who_left_can_be_added_again_and_again(remote: Remote, bare: Project, kind: str) -> None:
    add, delete = FOLLOWED[kind]
    record, user = live(remote, kind)[0]["id"], live(remote, "users")[-1]["id"]
    for _ in range(2):
        added = queue(bare, add, f"id={record}", f"user_id={user}")
        push(bare)
        assert fate(bare, added) == ("applied", None)
        removed = queue(bare, delete, f"id={record}", f"follower_id={user}")
        push(bare)
        assert fate(bare, removed) == ("applied", None)
    assert sent(remote) == [f"POST {add}", f"DELETE {delete}"] * 2


def test_w2_a_participant_who_left_can_be_added_again(remote: Remote, bare: Project) -> None:
    deal, person = live(remote, "deals")[0]["id"], live(remote, "persons")[-1]["id"]
    for _ in range(2):
        added = queue(bare, "addDealParticipant", f"id={deal}", f"person_id={person}")
        push(bare)
        assert fate(bare, added) == ("applied", None)
        (key,) = bare.control("SELECT remote_id FROM mutations WHERE id = ?", added)[0]
        queue(bare, "deleteDealParticipant", f"id={deal}", f"deal_participant_id={key}")
        push(bare)


def test_w2_who_follows_already_is_not_added_twice(remote: Remote, bare: Project) -> None:
    person, user = live(remote, "persons")[1]["id"], live(remote, "users")[-1]["id"]
    first, second = (queue(bare, "addPersonFollower", f"id={person}", f"user_id={user}") for _ in range(2))
    push(bare)
    assert [fate(bare, each) for each in (first, second)] == [("applied", None), ("applied", "already_so")]
    third = queue(bare, "addPersonFollower", f"id={person}", f"user_id={user}")
    push(bare)
    assert fate(bare, third) == ("applied", "already_so")
    assert sent(remote) == ["POST addPersonFollower"]


@pytest.mark.parametrize("fault", ["reset_after", "reset_before"])
def test_w2_the_answer_to_a_second_addition_of_a_follower_is_lost(remote: Remote, bare: Project, fault: str) -> None:
    person, user = live(remote, "persons")[2]["id"], live(remote, "users")[-1]["id"]
    queue(bare, "addPersonFollower", f"id={person}", f"user_id={user}")
    queue(bare, "deletePersonFollower", f"id={person}", f"follower_id={user}")
    push(bare)
    again = queue(bare, "addPersonFollower", f"id={person}", f"user_id={user}")
    before = len(remote.lines("journal"))
    remote.fault(kind=fault, method="POST", nth=1)
    push(bare)
    assert fate(bare, again)[0] == "applied"
    assert len(remote.lines("journal")) == before + 1
    queue(bare, "deletePersonFollower", f"id={person}", f"follower_id={user}")
    push(bare)


def test_w1_an_error_of_our_own_after_the_answer_does_not_come_back_in_every_push(
    remote: Remote, bare: Project
) -> None:
    """A trigger in control.db refuses that anything ends as applied, as the unique index once did."""
    added, other = queue(bare, "addPerson", "name=Stumbling block"), live(remote, "persons")[3]["id"]
    with contextlib.closing(sqlite3.connect(bare.data / "control.db")) as control, control:
        control.execute(
            "CREATE TRIGGER stumble BEFORE UPDATE ON mutations WHEN new.state = 'applied' AND new.kind = 'persons'"
            f" AND new.id = '{added}' BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
    try:
        push(bare, code=5)
        assert fate(bare, added) == ("needs_review", "local_error")
        after = queue(bare, "updatePerson", f"id={other}", "name=Comes after it")
        push(bare)
        assert fate(bare, after) == ("applied", None)
    finally:
        with contextlib.closing(sqlite3.connect(bare.data / "control.db")) as control, control:
            control.execute("DROP TRIGGER stumble")
    assert len([each for each in live(remote, "persons") if each["name"] == "Stumbling block"]) == 1


# What was never there is not "already so".

NEVER_THERE = [
    ("deleteDeal", ["id=99999999"]),
    ("deletePerson", ["id=99999999"]),
    ("deleteActivity", ["id=99999999"]),  # of which no table tells
    ("deleteUserProviderLink", ["id=00000000-0000-4000-8000-000000000000"]),  # that nothing can read
    ("deleteDealField", ["id=" + "f" * 40]),
    ("deleteDealProduct", ["id={deal}", "product_attachment_id=99999999"]),
    ("deleteDealFollower", ["id=99999999", "follower_id={user}"]),
    ("updateDeal", ["id=99999999", "title=Of none"]),
    ("mergePersons", ["id=99999999", "merge_with_id={person}"]),
    ("mergePersons", ["id={person}", "merge_with_id=99999999"]),
]


@pytest.mark.parametrize(("operation", "words"), NEVER_THERE, ids=lambda each: "" if isinstance(each, list) else each)
def test_w2_a_record_that_never_existed_is_refused_and_not_already_so(
    remote: Remote, project: Project, operation: str, words: list[str]
) -> None:
    known = {
        kind.removesuffix("s"): live(remote, kind)[0]["id"] for kind in ("deals", "persons", "users", "organizations")
    }
    queued = queue(project, operation, *(word.format(**known) for word in words))
    before = len(remote.lines("journal"))
    push(project, code=5)
    assert fate(project, queued) == ("rejected", "not_found")
    assert len(remote.lines("journal")) == before


def test_w2_the_refusal_names_similar_ids(remote: Remote, project: Project) -> None:
    deal = live(remote, "deals")[10]["id"]
    queued = queue(project, "deleteDeal", f"id={deal}{deal}{deal}")
    near = queue(project, "deleteDeal", f"id=9{deal}")
    push(project, code=5)
    details = [project.control("SELECT detail FROM mutations WHERE id = ?", id)[0][0] for id in (queued, near)]
    assert all(f"there is no deals/{id}" in each for id, each in zip((f"{deal}" * 3, f"9{deal}"), details, strict=True))
    assert str(deal) in details[1].rpartition("the warehouse has")[2]


def test_w2_a_record_known_to_have_existed_is_already_so(remote: Remote, project: Project) -> None:
    tombstoned, in_the_table = (live(remote, "persons")[-number]["id"] for number in (1, 2))
    for id in (tombstoned, in_the_table):
        remote.post("act", method="DELETE", path=f"/api/v2/persons/{id}")
    ours = queue(project, "addActivity", "subject=Ours")
    push(project)
    (id,) = project.control("SELECT remote_id FROM mutations WHERE id = ?", ours)[0]
    remote.post("act", method="DELETE", path=f"/api/v2/activities/{id}")
    remote.post("clock", advance_s=31 * 86_400)  # all are purged
    remote.clear_log()
    queued = [
        queue(project, "deletePerson", f"id={tombstoned}"),
        queue(project, "deletePerson", f"id={in_the_table}"),
        queue(project, "deleteActivity", f"id={id}"),
    ]
    push(project)
    assert [fate(project, each) for each in queued] == [("applied", "already_so")] * 3
    assert sent(remote) == []


def test_a_field_to_delete_is_named_by_its_label_or_its_column_and_not_by_its_number_in_v1(
    remote: Remote, project: Project
) -> None:
    customs = [each for each in live(remote, "deal_fields") if each["is_custom_field"]]
    labels = [each["field_name"] for each in customs]
    field = next(each for each in customs if labels.count(each["field_name"]) == 1)
    code = field["field_code"]
    (column,) = project.ask("SELECT column_name FROM meta.custom_fields WHERE field_code = ?", code)[0]
    for name in (field["field_name"], field["field_name"].upper(), column, code):
        ran = project.here("queue", "add", "deleteDealField", f"id={name}", "--json")
        assert ran.code == 0, ran
        assert ran.summary["payload"] == {"field_code": code}
    ran = project.here("queue", "add", "deleteDealField", "id=12477")
    assert ran.code == 2
    assert '"v1 deleteDealField" id=12477' in ran.err
    ran = project.here("queue", "add", "deleteDealField", "id=No such label")
    assert ran.code == 2
    assert "Nothing was queued" in ran.err
    project.here("queue", "drop", "--all")
    queued = queue(project, "deleteDealField", f"id={field['field_name']}")
    push(project)
    assert fate(project, queued) == ("applied", None)
    assert code not in {each["field_code"] for each in live(remote, "deal_fields")}


# Merges.

TO_ITSELF = [
    ("mergeDeals", ["id=10", "merge_with_id=10"]),
    ("mergePersons", ["id=10", "merge_with_id=10"]),
    ("mergeOrganizations", ["id=10", "merge_with_id=10"]),
    ("addOrganizationRelationship", ["type=parent", "rel_owner_org_id=5", "rel_linked_org_id=5"]),
    ("updateTask", ["id=7", "parent_task_id=7"]),
    ("updateRole", ["id=7", "parent_role_id=7"]),
]


@pytest.mark.parametrize(("operation", "words"), TO_ITSELF, ids=[each for each, _ in TO_ITSELF])
def test_a_record_is_not_merged_with_or_linked_to_itself(project: Project, operation: str, words: list[str]) -> None:
    ran = project.here("queue", "add", operation, *words)
    assert ran.code == 2
    assert "itself" in ran.err
    assert project.control("SELECT count(*) FROM mutations WHERE state = 'queued'") == [(0,)]


def test_w1_a_queued_merge_with_itself_is_rejected_and_blocks_nothing(remote: Remote, project: Project) -> None:
    one, other = (each["id"] for each in live(remote, "deals")[:2])
    merge = queue(project, "mergeDeals", f"id={one}", f"merge_with_id={other}")
    with contextlib.closing(sqlite3.connect(project.data / "control.db")) as control, control:
        control.execute(
            "UPDATE mutations SET payload = json_set(payload, '$.merge_with_id', ?) WHERE id = ?", (one, merge)
        )
    update = queue(project, "updateDeal", f"id={other}", "title=Beside it")
    push(project, code=5)
    assert fate(project, merge) == ("rejected", "not_valid")
    assert fate(project, update) == ("applied", None)


def test_w2_what_was_merged_is_not_merged_again(remote: Remote, project: Project) -> None:
    one, two, three = (each["id"] for each in live(remote, "organizations")[-3:])
    merges = []
    for loser, winner, code in ((one, two, 0), (one, two, 0), (one, three, 5), (three, one, 5)):
        merges.append(queue(project, "mergeOrganizations", f"id={loser}", f"merge_with_id={winner}"))
        push(project, code=code)
    assert [fate(project, each) for each in merges] == [
        ("applied", None), ("applied", "already_so"), ("conflict", "target_gone"), ("conflict", "target_gone"),
    ]  # fmt: skip
    assert sent(remote) == ["PUT mergeOrganizations"]
    (detail,) = project.control("SELECT detail FROM mutations WHERE id = ?", merges[2])[0]
    assert f"organizations/{one} was merged into {two}" in detail


@pytest.mark.parametrize("kind", ["deals", "persons", "organizations"])
def test_w5_a_merge_goes_on_from_what_the_same_push_has_changed(remote: Remote, project: Project, kind: str) -> None:
    name, title = kind[:-1].capitalize(), "title" if kind == "deals" else "name"
    first, second, winner = (
        remote.post("act", method="POST", path=f"/api/v2/{kind}", body={title: f"Copy {number}"})["data"]["id"]
        for number in range(3)
    )
    remote.advance(60)
    queued = [
        queue(project, f"update{name}", f"id={first}", f"{title}=Corrected"),
        queue(project, f"update{name}", f"id={winner}", f"{title}=Kept"),
        queue(project, f"merge{name}s", f"id={first}", f"merge_with_id={winner}"),
        queue(project, f"merge{name}s", f"id={second}", f"merge_with_id={winner}"),
    ]
    push(project)
    assert [fate(project, each) for each in queued] == [("applied", None)] * 4
    assert {each["id"] for each in live(remote, kind)} & {first, second, winner} == {winner}


def test_w6_a_merge_is_not_sent_where_others_have_changed_what_the_same_push_had_changed(
    remote: Remote, project: Project
) -> None:
    one, other = (each["id"] for each in live(remote, "persons")[7:9])
    update = queue(project, "updatePerson", f"id={one}", "name=Ours")
    merge = queue(project, "mergePersons", f"id={one}", f"merge_with_id={other}")
    plan = project.folder / "plan.json"
    push(project, "--dry-run", "--out", str(plan))
    remote.advance(60)
    remote.post("act", method="PATCH", path=f"/api/v2/persons/{other}", body={"name": "Theirs"})
    assert project.here("push", str(plan), "--yes", "--allow", "merge", "--settle-seconds", "0.05").code == 5
    assert (fate(project, update), fate(project, merge)) == (("applied", None), ("conflict", "changed"))


def test_a_merge_says_in_words_what_moves_to_the_other(remote: Remote, project: Project) -> None:
    one, two = (each["id"] for each in live(remote, "persons")[5:7])
    before = project.here("queue", "list", "--json")
    assert before.code == 0
    for number in range(2):
        queue(project, "addNote", f"content=Note {number}", f"person_id={one}")
    queue(project, "addActivity", "subject=Call", f'participants=[{{"person_id": {one}, "primary": true}}]')
    push(project)
    queue(project, "mergePersons", f"id={one}", f"merge_with_id={two}")
    ran = project.here("push", "--dry-run", "--json")
    (step,) = [event for event in ran.events if event["event"] == "step"]
    (moving,) = [warning for warning in step["warnings"] if warning.startswith("moves")]
    assert "notes" in moving
    assert "get" not in moving
