"""What each step of the outbox writes down, and what it refuses."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from pdsync.core.answer import Answer
from pdsync.core.log import hide
from pdsync.errors import ConfigError, StorageError
from pdsync.writeback.outbox import ANSWER_CAP, Reference
from tests.writeback.kit import COMPANY, arm, bring_to, entry, open_outbox

if TYPE_CHECKING:
    from pathlib import Path

    from pdsync.model import State
    from pdsync.writeback.outbox import Entry, Outbox

OPEN_STATES: tuple[State, ...] = ("queued", "approved", "armed", "unknown")
ENDS: tuple[State, ...] = ("applied", "rejected", "conflict", "needs_review")


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return open_outbox(tmp_path)


def journaled(outbox: Outbox, id: str) -> str:
    """The state of a mutation in the last line about it in the journal."""
    assert outbox.journal
    snapshots = [each for _, _, lines in outbox.journal.read({}) for each in lines if each.mutation.id == id]
    return snapshots[-1].mutation.state


def damage_journal(folder: Path) -> None:
    """Let nothing be written to the journal any more."""
    for path in (folder / "raw" / "outbox").iterdir():
        path.unlink()
        path.mkdir()


def answer(body: bytes = b"{}", status: int = 200) -> Answer:
    return Answer(status, {"date": "Sun, 22 Nov 2026 12:00:00 GMT"}, body, datetime(2026, 11, 22, 12, tzinfo=UTC))


# Queueing.


def test_w11_a_batch_is_queued_in_order_with_its_company(outbox: Outbox) -> None:
    first, second = outbox.add([entry(), entry(payload={"id": 13, "title": "Other"})])
    assert [first.seq, second.seq] == [1, 2]
    assert first.batch == second.batch
    assert (first.state, first.company_id, first.target) == ("queued", COMPANY, "deals/12")
    assert second.payload == {"id": 13, "title": "Other"}
    assert journaled(outbox, second.id) == "queued"


def test_a_queue_of_a_project_without_a_company_belongs_to_none(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path, company=None)
    assert outbox.add([entry()])[0].company_id is None


def test_a_key_queues_one_mutation_only(outbox: Outbox) -> None:
    first = outbox.add([entry(key="k")])[0]
    again, other = outbox.add([entry(key="k"), entry()])
    assert again.id == first.id
    assert other.id != first.id
    assert len(outbox.mutations()) == 2


@pytest.mark.parametrize(
    ("state", "is_free"),
    [
        ("queued", False), ("approved", False), ("armed", False), ("unknown", False), ("applied", False),
        ("needs_review", False), ("cancelled", True), ("rejected", True), ("conflict", True),
    ],
)  # fmt: skip
def test_a_key_is_free_again_after_an_end_that_changed_nothing(outbox: Outbox, state: State, is_free: bool) -> None:
    first = bring_to(outbox, state, outbox.add([entry(key="k")])[0])
    again = outbox.add([entry(key="k")])[0]
    assert (again.id != first.id) is is_free
    assert outbox.key_and_binding(first.id)[0] == (None if is_free else "k")


def test_w5_a_reference_becomes_the_id_of_the_mutation_that_adds_the_record(outbox: Outbox) -> None:
    person = entry("v2 addPerson", {"name": "Anna"}, name="anna")
    deal = entry("v2 addDeal", {"title": "Deal", "person_id": Reference("anna")})
    added, referring = outbox.add([person, deal])
    assert referring.payload["person_id"] == {"$ref": added.id}
    by_number = outbox.add([entry("v2 addDeal", {"title": "Later", "person_id": Reference("#1")})])[0]
    assert by_number.references == {added.id}


@pytest.mark.parametrize("name", ["nobody", "#99", "#1"])
def test_w11_a_reference_that_fits_nothing_queues_nothing(outbox: Outbox, name: str) -> None:
    outbox.add([entry()])  # #1 adds nothing
    with pytest.raises(ConfigError, match=r"Nothing was queued"):
        outbox.add([entry(), entry("v2 addDeal", {"title": "D", "person_id": Reference(name)})])
    assert len(outbox.mutations()) == 1


def acme(**options: str) -> Entry:
    return entry("v2 addOrganization", {"name": "Acme"}, **options)


@pytest.mark.parametrize("state", ["queued", "applied"])
@pytest.mark.parametrize("is_first", [True, False])
def test_w5_a_reference_to_an_entry_whose_key_is_taken_is_to_the_mutation_that_has_it(
    outbox: Outbox, state: State, is_first: bool
) -> None:
    added = bring_to(outbox, state, outbox.add([acme(key="k", name="acme")])[0])
    person = entry("v2 addPerson", {"name": "Anna", "org_id": Reference("acme")})
    entries = [acme(key="k", name="acme"), person]
    queued = outbox.add(entries if is_first else entries[::-1])
    assert {each.id for each in queued} > {added.id}
    assert next(each for each in queued if each.kind == "persons").references == {added.id}


def test_w5_a_reference_to_the_second_of_two_entries_of_one_key_is_to_the_first(outbox: Outbox) -> None:
    person = entry("v2 addPerson", {"name": "Anna", "org_id": Reference("again")})
    first, second, referring = outbox.add([acme(key="k", name="acme"), acme(key="k", name="again"), person])
    assert second.id == first.id
    assert referring.references == {first.id}


def test_w5_a_key_that_another_kind_of_change_has_gives_references_nothing_to_stand_for(outbox: Outbox) -> None:
    outbox.add([entry(key="k")])
    person = entry("v2 addPerson", {"name": "Anna", "org_id": Reference("acme")})
    with pytest.raises(ConfigError, match="@acme refers to nothing"):
        outbox.add([acme(key="k", name="acme"), person])
    assert len(outbox.mutations()) == 1


def test_two_entries_of_one_name_are_refused(outbox: Outbox) -> None:
    with pytest.raises(ConfigError, match=r"Two entries are named 'a'. Nothing was queued"):
        outbox.add([entry(name="a"), entry(name="b"), entry(name="a")])
    assert outbox.mutations() == []


def test_w11_what_is_queued_though_its_journal_cannot_be_written_says_so(outbox: Outbox, tmp_path: Path) -> None:
    outbox.add([entry()])
    damage_journal(tmp_path)
    with pytest.raises(StorageError, match=r"Queued #2 to #3: control.db has it. Don't do it again.") as failed:
        outbox.add([entry(), entry()])
    assert "run the same command" not in str(failed.value)
    assert [each.state for each in outbox.mutations()] == ["queued"] * 3


# What a person does.


def test_a_step_whose_journal_cannot_be_written_says_that_it_is_done(outbox: Outbox, tmp_path: Path) -> None:
    dropped, resolved = bring_to(outbox, "queued"), bring_to(outbox, "needs_review")
    damage_journal(tmp_path)
    with pytest.raises(StorageError, match=r"Dropped #1: control.db has it. Don't do it again."):
        outbox.drop([dropped.id])
    with pytest.raises(StorageError, match=r"what was found out about #2: control.db has it. Don't do it again."):
        outbox.resolve(resolved.id, "applied", None, None)
    assert outbox.get(dropped.id).state == "cancelled"
    assert outbox.resolution(resolved.id)


def test_of_two_names_of_one_mutation_the_second_is_dropped_already(outbox: Outbox) -> None:
    mutation = outbox.add([entry()])[0]
    with pytest.raises(ConfigError, match=r"#1 is cancelled, not queued. None was dropped"):
        outbox.drop([mutation.id, mutation.id])
    assert outbox.get(mutation.id).state == "queued"


@pytest.mark.parametrize("state", [state for state in (*OPEN_STATES, *ENDS, "cancelled") if state != "queued"])
def test_w1_only_what_is_queued_is_dropped_and_all_or_none(outbox: Outbox, state: State) -> None:
    other = outbox.add([entry()])[0]
    mutation = bring_to(outbox, state)
    with pytest.raises(ConfigError, match=rf"#2 is {state}, not queued. None was dropped"):
        outbox.drop([other.id, mutation.id])
    assert outbox.get(other.id).state == "queued"


def test_a_dropped_mutation_is_cancelled(outbox: Outbox) -> None:
    dropped = outbox.drop([bring_to(outbox, "queued").id])[0]
    assert (dropped.state, dropped.reason) == ("cancelled", "dropped")
    assert dropped.settled_at is not None
    assert journaled(outbox, dropped.id) == "cancelled"


def test_w1_what_may_have_been_sent_is_not_dropped_though_it_is_queued(outbox: Outbox) -> None:
    mutation = bring_to(outbox, "unknown")
    outbox.record_probe(mutation.id, "list deals", [], "absent", again=True)
    outbox.release()
    assert outbox.get(mutation.id).state == "queued"
    with pytest.raises(ConfigError, match=r"#1 may have been sent before, so it can't be dropped. None was dropped"):
        outbox.drop([mutation.id])
    assert outbox.get(mutation.id).state == "queued"


def test_what_the_server_turned_away_can_be_dropped(outbox: Outbox) -> None:
    mutation = bring_to(outbox, "armed")
    outbox.mark_not_executed(mutation.id, "refused")
    outbox.release()
    assert outbox.drop([mutation.id])[0].state == "cancelled"


@pytest.mark.parametrize("state", [*OPEN_STATES, "applied", "rejected", "conflict", "cancelled"])
def test_w1_only_what_needs_a_review_is_resolved(outbox: Outbox, state: State) -> None:
    mutation = bring_to(outbox, state)
    with pytest.raises(ConfigError, match=f"#1 is {state}, and needs no review"):
        outbox.resolve(mutation.id, "applied", None, None)
    assert outbox.resolution(mutation.id) is None


def test_w1_a_resolution_leaves_the_end_as_it_is_and_the_last_one_counts(outbox: Outbox) -> None:
    mutation = bring_to(outbox, "needs_review", reason="several")
    outbox.resolve(mutation.id, "rejected", None, "not there")
    outbox.resolve(mutation.id, "applied", "99", "found it")
    last = outbox.resolution(mutation.id)
    assert last is not None
    assert (last["verdict"], last["remote_id"], last["note"]) == ("applied", "99", "found it")
    assert outbox.get(mutation.id) == mutation
    assert outbox.bound_ids("deals") == {"99"}
    assert outbox.progress()[mutation.id] == (1, True, 2)


# What a push does.


def test_x1_a_push_takes_the_mutations_of_its_company_only(outbox: Outbox) -> None:
    mine, others = outbox.add([entry(), entry()])
    with outbox.control.transaction() as db:
        db.execute("UPDATE mutations SET company_id = 8 WHERE id = ?", (others.id,))
    outbox.approve([mine.id, others.id], "push-1", COMPANY)
    assert (outbox.get(mine.id).state, outbox.get(mine.id).push_id) == ("approved", "push-1")
    assert (outbox.get(others.id).state, outbox.get(others.id).push_id) == ("queued", None)


def test_an_approved_mutation_belongs_to_the_company_of_the_push(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path, company=None)
    mutation = outbox.add([entry()])[0]
    outbox.approve([mutation.id], "push-1", COMPANY)
    assert outbox.get(mutation.id).company_id == COMPANY


def test_what_was_approved_and_not_sent_is_queued_again_with_the_reason(outbox: Outbox) -> None:
    blocked, free = outbox.add([entry(), entry()])
    outbox.approve([blocked.id, free.id], "push-1", COMPANY)
    outbox.release({blocked.id: "waits for #1"})
    first, second = outbox.get(blocked.id), outbox.get(free.id)
    assert (first.state, first.push_id, first.reason, first.detail) == ("queued", None, "blocked", "waits for #1")
    assert (second.state, second.push_id, second.reason) == ("queued", None, None)
    outbox.approve([blocked.id], "push-2", COMPANY)
    assert (outbox.get(blocked.id).reason, outbox.get(blocked.id).detail) == (None, None)


def test_w3_the_attempt_is_stored_and_journaled_before_it_is_sent(outbox: Outbox) -> None:
    mutation = bring_to(outbox, "approved")
    assert arm(outbox, mutation) == 1
    attempt = outbox.attempts(mutation.id)[0]
    assert (attempt.method, attempt.path, attempt.body) == ("PATCH", "/api/v2/deals/12", {"title": "New"})
    assert (attempt.push_id, attempt.status, attempt.closed_as) == ("push-1", None, None)
    assert outbox.get(mutation.id).base_image == {"title": "Old"}
    assert journaled(outbox, mutation.id) == "armed"


def test_the_record_before_the_first_attempt_is_kept_where_a_later_one_has_none(outbox: Outbox) -> None:
    mutation = bring_to(outbox, "armed")
    outbox.mark_not_executed(mutation.id, "refused")
    number = outbox.arm(
        outbox.get(mutation.id), "p", method="PATCH", path="/", body=None, base=None, marker=None, seen=[1, 2]
    )
    assert number == 2
    assert outbox.get(mutation.id).base_image == {"title": "Old"}
    assert outbox.attempts(mutation.id)[1].seen == [1, 2]


@pytest.mark.parametrize("state", [state for state in (*OPEN_STATES, *ENDS, "cancelled") if state != "approved"])
def test_w4_only_what_is_approved_is_armed(outbox: Outbox, state: State) -> None:
    mutation = bring_to(outbox, state)
    before = outbox.attempts(mutation.id)
    with pytest.raises(ConfigError, match="is not approved any more; it was not sent"):
        arm(outbox, mutation)
    assert outbox.attempts(mutation.id) == before
    assert outbox.get(mutation.id).state == state


def test_w3_a_journal_that_cannot_be_written_stops_the_request(outbox: Outbox, tmp_path: Path) -> None:
    mutation = bring_to(outbox, "approved")
    damage_journal(tmp_path)
    with pytest.raises(StorageError, match="Nothing is sent that is not written there first"):
        arm(outbox, mutation)
    assert outbox.get(mutation.id).state == "armed"  # in doubt, and looked up by the next push


def test_w4_an_attempt_that_was_not_executed_may_be_repeated(outbox: Outbox) -> None:
    mutation = bring_to(outbox, "armed")
    outbox.mark_not_executed(mutation.id, "429")
    assert outbox.get(mutation.id).state == "approved"
    assert [(each.closed_as, each.error) for each in outbox.attempts(mutation.id)] == [("not_executed", "429")]
    assert journaled(outbox, mutation.id) == "approved"


def test_w4_an_attempt_without_an_answer_is_unknown(outbox: Outbox) -> None:
    mutation = bring_to(outbox, "unknown")
    assert [each.closed_as for each in outbox.attempts(mutation.id)] == ["unknown"]
    outbox.mark_not_executed(mutation.id, "too late")
    assert outbox.get(mutation.id).state == "unknown"
    assert [each.closed_as for each in outbox.attempts(mutation.id)] == ["unknown"]


def test_an_answer_is_stored_before_the_mutation_moves(outbox: Outbox) -> None:
    mutation = bring_to(outbox, "armed")
    outbox.record_answer(mutation.id, answer(b"x" * (ANSWER_CAP + 9)))
    attempt = outbox.attempts(mutation.id)[0]
    assert (attempt.status, attempt.closed_as, attempt.error) == (200, "answered", None)
    assert attempt.headers == {"date": "Sun, 22 Nov 2026 12:00:00 GMT"}
    assert len(attempt.answer or "") == ANSWER_CAP
    assert outbox.get(mutation.id).state == "armed"


def test_a_secret_is_not_cut_in_half_at_the_end_of_a_stored_answer(outbox: Outbox) -> None:
    mutation = bring_to(outbox, "armed")
    hide("c4n4ry-of-an-answer")
    outbox.record_answer(mutation.id, answer(b"x" * (ANSWER_CAP - 6) + b"c4n4ry-of-an-answer"))
    assert "c4n4ry" not in (outbox.attempts(mutation.id)[0].answer or "")


def test_a_refusal_is_stored_with_its_status(outbox: Outbox) -> None:
    mutation = bring_to(outbox, "armed")
    outbox.record_refusal(mutation.id, 400, "bad title")
    attempt = outbox.attempts(mutation.id)[0]
    assert (attempt.status, attempt.closed_as, attempt.error) == (400, "answered", "bad title")
    assert outbox.get(mutation.id).state == "armed"


def test_an_answer_that_shows_nothing_leaves_the_outcome_unknown(outbox: Outbox) -> None:
    mutation = bring_to(outbox, "armed")
    outbox.record_answer(mutation.id, answer())
    outbox.doubt_answer(mutation.id, "no record in it")
    assert outbox.get(mutation.id).state == "unknown"
    assert outbox.attempts(mutation.id)[0].error == "no record in it"


def test_w4_only_a_probe_that_allows_it_lets_a_mutation_be_sent_again(outbox: Outbox) -> None:
    mutation = bring_to(outbox, "unknown")
    outbox.record_probe(mutation.id, "list deals", [], "absent")
    assert outbox.get(mutation.id).state == "unknown"
    outbox.record_probe(mutation.id, "list deals", ["9"], "absent", again=True)
    assert outbox.get(mutation.id).state == "approved"
    assert [(each["n"], each["verdict"], each["found"]) for each in outbox.probes(mutation.id)] == [
        (1, "absent", []), (2, "absent", ["9"]),
    ]  # fmt: skip


@pytest.mark.parametrize("before", OPEN_STATES)
@pytest.mark.parametrize("after", ENDS)
def test_w1_what_is_open_ends_once(outbox: Outbox, before: State, after: State) -> None:
    mutation = bring_to(outbox, before)
    outbox.settle(mutation.id, after, "why", "in words", push_id="push-9", after={"id": 12})
    ended = outbox.get(mutation.id)
    assert (ended.state, ended.reason, ended.detail) == (after, "why", "in words")
    assert ended.after_image == {"id": 12}
    assert ended.settled_at is not None
    assert ended.push_id == ("push-9" if before == "queued" else "push-1")
    assert journaled(outbox, mutation.id) == after
    with pytest.raises(ConfigError, match="has ended already; it stays as it is"):
        outbox.settle(mutation.id, "applied")
    assert outbox.get(mutation.id) == ended


def test_a_mutation_does_not_settle_into_an_open_state(outbox: Outbox) -> None:
    mutation = bring_to(outbox, "armed")
    with pytest.raises(ValueError, match="settle does not lead to queued"):
        outbox.settle(mutation.id, "queued")
    assert outbox.get(mutation.id).state == "armed"


def test_w2_a_record_is_bound_to_one_mutation(outbox: Outbox) -> None:
    first, second = outbox.add([entry("v2 addDeal", {"title": "A"}), entry("v2 addDeal", {"title": "A"})])
    outbox.settle(first.id, "applied", remote_id="9", bound="deals/9")
    outbox.settle(second.id, "needs_review", remote_id="9", bound="deals/9")
    assert outbox.key_and_binding(first.id) == (None, "deals/9")
    assert outbox.key_and_binding(second.id) == (None, None)
    assert outbox.is_bound("deals/9", to_other_than=second.id)
    assert not outbox.is_bound("deals/9", to_other_than=first.id)
    assert outbox.bound_ids("deals") == {"9"}
    assert outbox.bound_ids("persons") == set()


def test_w1_after_a_crash_what_was_armed_is_unknown_and_what_was_approved_is_queued(outbox: Outbox) -> None:
    states: tuple[State, ...] = (*OPEN_STATES, *ENDS, "cancelled")
    mutations = {state: bring_to(outbox, state) for state in states}
    doubtful = outbox.recover_after_crash()
    assert [each.id for each in doubtful] == [mutations["armed"].id, mutations["unknown"].id]
    now = {state: outbox.get(each.id) for state, each in mutations.items()}
    assert (now["approved"].state, now["approved"].push_id) == ("queued", None)
    assert [each.error for each in outbox.attempts(mutations["armed"].id)] == ["the process ended"]
    for state in ("queued", *ENDS, "cancelled"):
        assert now[state] == mutations[state]


def test_an_outbox_without_a_journal_writes_none(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path, journal=False)
    bring_to(outbox, "applied")
    assert not (tmp_path / "raw").exists()
