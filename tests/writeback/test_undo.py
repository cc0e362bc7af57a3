"""An undo restores only what is still ours, and names what it can't undo before anything is sent."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from pdsync.extract.redact import FORGOTTEN
from pdsync.writeback.enqueue import copy_for_retry
from pdsync.writeback.outbox import Entry
from pdsync.writeback.undo import find_reversals, make_undo
from tests.writeback.kit import COMPANY, entry, open_outbox

if TYPE_CHECKING:
    from pathlib import Path

    from pdsync.model import Mutation, State
    from pdsync.writeback.outbox import Outbox

PUSH = "push-1"


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return open_outbox(tmp_path, journal=False)


def push(outbox: Outbox, operation: str, payload: dict[str, Any], state: State = "applied", **settled: Any) -> Mutation:
    """A mutation that the push has ended."""
    mutation = outbox.add([entry(operation, payload)])[0]
    outbox.approve([mutation.id], PUSH, COMPANY)
    outbox.settle(mutation.id, state, push_id=PUSH, **settled)
    return outbox.get(mutation.id)


def undo(outbox: Outbox) -> Entry | str:
    """The one change that undoes the push, or why there is none."""
    entries, stuck = make_undo(outbox, PUSH)
    assert len(entries) + len(stuck) == 1
    return entries[0] if entries else stuck[0].why


# Updates.


def test_w12_an_update_is_undone_where_our_value_still_stands(outbox: Outbox) -> None:
    mutation = push(
        outbox, "v2 updateDeal", {"id": 12, "title": "New", "value": 5},
        base={"id": 12, "title": "Old", "value": 5}, after={"id": 12, "title": "New", "value": 5},
    )  # fmt: skip
    made = undo(outbox)
    assert isinstance(made, Entry)
    assert (made.operation, made.target) == ("v2 updateDeal", "deals/12")
    assert made.payload == {"id": 12, "title": "Old"}  # the value was the same before
    assert made.expected == {"title": "New"}  # checked again before it is sent
    assert (made.undo_of, made.key) == (mutation.id, f"undo:{mutation.id}")


def test_a_custom_field_and_a_reference_are_restored_as_the_api_takes_them(outbox: Outbox) -> None:
    code = "a" * 40
    push(
        outbox, "v2 updateDeal", {"id": 12, "custom_fields": {code: 7}, "person_id": 5},
        base={"custom_fields": {code: None}, "person_id": {"value": 4, "name": "Anna"}},
        after={"custom_fields": {code: 7}, "person_id": 5},
    )  # fmt: skip
    made = undo(outbox)
    assert isinstance(made, Entry)
    assert made.payload == {"id": 12, "custom_fields": {code: None}, "person_id": 4}
    assert made.expected == {f"custom_fields/{code}": 7, "person_id": 5}


def test_w12_a_reference_that_was_the_same_is_not_restored_though_its_record_has_a_new_name(outbox: Outbox) -> None:
    push(
        outbox, "v2 updateDeal", {"id": 12, "title": "New", "owner_id": 4},
        base={"title": "Old", "owner_id": {"id": 4, "name": "Anna"}},
        after={"title": "New", "owner_id": {"id": 4, "name": "Anna Berg"}},
    )  # fmt: skip
    made = undo(outbox)
    assert isinstance(made, Entry)
    assert made.payload == {"id": 12, "title": "Old"}


def test_an_empty_date_is_restored_as_null_and_an_empty_text_as_it_was(outbox: Outbox) -> None:
    payload = {"id": 12, "expected_close_date": "2026-01-05", "lost_reason": "No"}
    push(outbox, "v2 updateDeal", payload, base={"expected_close_date": "", "lost_reason": ""}, after=payload)
    made = undo(outbox)
    assert isinstance(made, Entry)
    assert made.payload == {"id": 12, "expected_close_date": None, "lost_reason": ""}


def test_w12_what_pipedrive_has_changed_along_with_a_field_is_restored_unless_it_was_empty(outbox: Outbox) -> None:
    push(
        outbox, "v2 updateDeal", {"id": 12, "status": "won"},
        base={"status": "lost", "lost_reason": "Dear", "lost_time": "2026-01-05T10:00:00Z", "won_time": None},
        after={"status": "won", "lost_reason": None, "lost_time": None, "won_time": "2026-02-05T10:00:00Z"},
    )  # fmt: skip
    made = undo(outbox)
    assert isinstance(made, Entry)
    assert made.payload == {"id": 12, "status": "lost", "lost_reason": "Dear", "lost_time": "2026-01-05T10:00:00Z"}
    assert made.expected == {"status": "won", "lost_reason": None, "lost_time": None}


@pytest.mark.parametrize(
    ("base", "why"),
    [
        (None, "the values before it are not known"),
        ({"title": "New"}, "it changed no value that the record shows"),
        ({"value": 5}, "it changed no value that the record shows"),
    ],
)
def test_w12_an_update_without_an_old_value_is_named(outbox: Outbox, base: dict[str, Any] | None, why: str) -> None:
    push(outbox, "v2 updateDeal", {"id": 12, "title": "New"}, base=base, after={"title": "New"})
    assert undo(outbox) == why


# Additions.


def added(outbox: Outbox, **settled: Any) -> Mutation:
    facts: dict[str, Any] = {
        "remote_id": "99", "after": {"id": 99, "title": "New", "update_time": "2026-11-22T12:00:00Z"}, **settled
    }  # fmt: skip
    return push(outbox, "v2 addDeal", {"title": "New"}, **facts)


def test_w12_an_addition_is_undone_by_a_deletion_of_the_unchanged_record(outbox: Outbox) -> None:
    added(outbox)
    made = undo(outbox)
    assert isinstance(made, Entry)
    assert (made.operation, made.verb, made.target, made.payload) == (
        "v2 deleteDeal", "delete", "deals/99", {"id": "99"},
    )  # fmt: skip
    assert made.expected == {"title": "New", "update_time": "2026-11-22T12:00:00Z"}


@pytest.mark.parametrize(
    ("settled", "why"),
    [
        ({"remote_id": None}, "nothing deletes such a record"),
        ({"after": None}, "a change since would not be noticed"),
        ({"reason": "seen", "after": {"title": "New", "expected_close_date": "2026-12-01"}}, "nothing proves that"),
    ],
)
def test_w12_an_addition_that_may_not_be_ours_is_left_alone(outbox: Outbox, settled: dict[str, Any], why: str) -> None:
    added(outbox, **settled)
    assert why in str(undo(outbox))


def test_an_addition_that_was_found_by_its_values_is_undone_where_nothing_speaks_against_it(outbox: Outbox) -> None:
    added(outbox, reason="seen")
    assert isinstance(undo(outbox), Entry)


@pytest.mark.parametrize(("reason", "is_undone"), [(None, True), ("seen", False)])
def test_w12_a_link_that_another_user_may_have_made_is_left_alone(
    outbox: Outbox, reason: str | None, is_undone: bool
) -> None:
    """Any user may have made it, so what it shows after a lost answer proves nothing."""
    settled: dict[str, Any] = {
        "remote_id": "5",
        "after": {"user_id": 5, "add_time": "2026-11-22T12:00:00Z"},
        "reason": reason,
    }
    push(outbox, "v2 addDealFollower", {"id": 12, "user_id": 5}, **settled)
    made = undo(outbox)
    assert isinstance(made, Entry) is is_undone
    assert is_undone or "nothing proves that deals/12/followers/5 is ours" in str(made)


@pytest.mark.parametrize("by_reference", [True, False])
def test_w12_what_the_push_itself_changed_later_is_undone_before_the_deletion(
    outbox: Outbox, *, by_reference: bool
) -> None:
    addition = added(outbox)
    push(
        outbox, "v2 updateDeal", {"id": {"$ref": addition.id} if by_reference else 99, "title": "Newer"},
        base={"title": "New"}, after={"id": 99, "title": "Newer", "update_time": "2026-11-22T12:00:05Z"},
    )  # fmt: skip
    entries, stuck = make_undo(outbox, PUSH)
    assert stuck == []
    assert [(each.verb, each.target) for each in entries] == [("update", "deals/99"), ("delete", "deals/99")]
    assert entries[1].expected == {"title": "New"}  # as the update before it leaves it


def test_w12_what_the_push_itself_changed_for_good_is_expected(outbox: Outbox) -> None:
    addition = added(outbox)
    push(outbox, "v2 updateDeal", {"id": {"$ref": addition.id}, "title": "Newer"}, after={"id": 99, "title": "Newer"})
    entries, stuck = make_undo(outbox, PUSH)
    assert [each.why for each in stuck] == ["the values before it are not known"]
    assert [(each.verb, each.expected) for each in entries] == [("delete", {"title": "Newer"})]


def test_a_record_that_others_of_the_push_depend_on_may_have_another_update_time(outbox: Outbox) -> None:
    organization = push(outbox, "v2 addOrganization", {"name": "Acme"}, remote_id="7",
                        after={"id": 7, "name": "Acme", "update_time": "x"})  # fmt: skip
    deal = outbox.add([entry("v2 addDeal", {"title": "D", "org_id": {"$ref": organization.id}})])[0]
    outbox.approve([deal.id], PUSH, COMPANY)
    outbox.settle(deal.id, "applied", remote_id="9", after={"id": 9, "title": "D"})
    entries, _ = make_undo(outbox, PUSH)
    assert [(each.target, each.expected) for each in entries] == [
        ("deals/9", {"title": "D"}), ("organizations/7", {"name": "Acme"}),
    ]  # fmt: skip


# Deletions, merges, others.


def test_w12_a_deleted_record_comes_back_only_in_pipedrive(outbox: Outbox) -> None:
    mutation = push(outbox, "v2 deleteDeal", {"id": 12}, base={"id": 12, "title": "Old"})
    assert mutation.settled_at
    until = (mutation.settled_at + timedelta(days=30)).date()
    assert undo(outbox) == f"restore deals/12 in Pipedrive itself (deleted items) until {until}"


def test_a_deleted_child_is_added_again(outbox: Outbox) -> None:
    push(outbox, "v2 deleteDealProduct", {"id": 12, "product_attachment_id": 3},
         base={"id": 3, "product_id": 8, "item_price": 5, "quantity": 2, "comments": ""})  # fmt: skip
    made = undo(outbox)
    assert isinstance(made, Entry)
    assert (made.operation, made.payload["product_id"], made.payload["id"]) == ("v2 addDealProduct", 8, 12)
    assert "comments" not in made.payload


def test_a_deleted_child_of_unknown_values_is_named(outbox: Outbox) -> None:
    push(outbox, "v2 deleteDealProduct", {"id": 12, "product_attachment_id": 3}, base={"id": 3, "quantity": 2})
    assert "which is not known" in str(undo(outbox))


def test_w12_a_merge_cannot_be_undone(outbox: Outbox) -> None:
    push(outbox, "v1 mergeDeals", {"id": 12, "merge_with_id": 13})
    assert "a merge is final" in str(undo(outbox))


# What is not undone at all.


@pytest.mark.parametrize("state", ["rejected", "conflict", "needs_review"])
def test_w12_what_was_not_applied_is_not_undone(outbox: Outbox, state: State) -> None:
    push(outbox, "v2 updateDeal", {"id": 12, "title": "New"}, state, base={"title": "Old"})
    assert make_undo(outbox, PUSH) == ([], [])


def test_w12_the_part_of_an_update_that_was_not_ignored_is_undone(outbox: Outbox) -> None:
    push(
        outbox, "v2 updateDeal", {"id": 12, "title": "New", "value": 7}, "rejected", reason="ignored_fields",
        base={"title": "Old", "value": 5}, after={"title": "New", "value": 5},
    )  # fmt: skip
    made = undo(outbox)
    assert isinstance(made, Entry)
    assert (made.payload, made.expected) == ({"id": 12, "title": "Old"}, {"title": "New"})


def test_w12_an_update_of_which_all_was_ignored_is_not_undone(outbox: Outbox) -> None:
    push(
        outbox, "v2 updateDeal", {"id": 12, "title": "New"}, "rejected", reason="ignored_fields",
        base={"title": "Old"}, after={"title": "Old"},
    )  # fmt: skip
    assert make_undo(outbox, PUSH) == ([], [])


def test_w12_an_update_that_overwrote_another_users_is_named(outbox: Outbox) -> None:
    push(
        outbox, "v2 updateDeal", {"id": 12, "title": "New"}, "conflict", reason="detected_late",
        detail="another user had written title = 'Theirs' meanwhile; it was overwritten",
        base={"title": "Old"}, after={"title": "New"},
    )  # fmt: skip
    assert "'Theirs'" in str(undo(outbox))


def test_w12_what_was_so_before_is_not_undone(outbox: Outbox) -> None:
    push(outbox, "v2 updateDeal", {"id": 12, "title": "New"}, reason="already_so", base={"title": "New"})
    assert make_undo(outbox, PUSH) == ([], [])


def test_another_push_is_not_touched(outbox: Outbox) -> None:
    push(outbox, "v2 updateDeal", {"id": 12, "title": "New"}, base={"title": "Old"}, after={"title": "New"})
    assert make_undo(outbox, "push-2") == ([], [])


def test_a_value_of_a_forgotten_person_is_not_sent_back(outbox: Outbox) -> None:
    push(outbox, "v2 updateDeal", {"id": 12, "title": "New"}, base={"title": FORGOTTEN}, after={"title": "New"})
    assert undo(outbox) == "it named a person who was forgotten since"


def test_the_same_undo_is_queued_once(outbox: Outbox) -> None:
    push(outbox, "v2 updateDeal", {"id": 12, "title": "New"}, base={"title": "Old"}, after={"title": "New"})
    first = outbox.add(make_undo(outbox, PUSH)[0])
    again = outbox.add(make_undo(outbox, PUSH)[0])
    assert [each.id for each in first] == [each.id for each in again]


def test_reversals_are_recognized_by_what_they_undo_unless_they_were_dropped(outbox: Outbox) -> None:
    push(outbox, "v2 updateDeal", {"id": 12, "title": "New"}, base={"title": "Old"}, after={"title": "New"})
    entries = make_undo(outbox, PUSH)[0]
    assert find_reversals(outbox, entries) == []
    (first,) = outbox.add(entries)
    assert [each.id for each in find_reversals(outbox, entries)] == [first.id]
    outbox.settle(first.id, "conflict", "changed")
    assert find_reversals(outbox, entries) == []
    (retry,) = outbox.add([copy_for_retry(outbox.get(first.id))])  # without the key of the first
    assert [each.id for each in find_reversals(outbox, entries)] == [retry.id]
    outbox.drop([retry.id])
    assert find_reversals(outbox, entries) == []
