"""Every branch of the one decision whether a mutation is sent."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from pdsync.model import Mutation
from pdsync.writeback.effects import EntriesToDelete
from pdsync.writeback.fresh_reads import FreshRecord
from pdsync.writeback.precondition import Before, EntriesState, Now, RecordState, decide, may_have_happened
from pdsync.writeback.prepared import prepare
from pdsync.writeback.snapshot import Attempt
from tests.writeback.kit import entry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pdsync.writeback.precondition import Policy

AT = datetime(2026, 1, 5, tzinfo=UTC)
OLD = {"id": 12, "title": "Old", "value": 5, "is_archived": False, "update_time": "2026-01-01T00:00:00Z"}
NEW, THEIRS = OLD | {"title": "New"}, OLD | {"title": "Theirs"}
TRIED = Before(may_have_happened=True)
MERGE = {"id": 12, "merge_with_id": 7}
STAMP = {"loser": "2026-01-01T00:00:00Z", "winner": "2026-01-02T00:00:00Z"}
WINNER = {"id": 7, "update_time": "2026-01-02T00:00:00Z"}


def mutation(
    operation: str, payload: Mapping[str, Any] | None = None, expected: dict[str, Any] | None = None
) -> Mutation:
    one = entry(operation, payload)
    return Mutation(
        1, "m1", "b1", None, operation, one.verb, one.kind, one.target, one.payload, expected, AT, "someone", "queued"
    )


def read(record: dict[str, Any] | None, *, kind: str = "deals", hidden: bool = False) -> FreshRecord:
    return FreshRecord(record, time.monotonic(), kind, hidden)


def state(record: dict[str, Any] | None, *, existed: bool = True, target: str = "deals/12") -> RecordState:
    return RecordState(target, read(record), existed)


def decided(
    one: Mutation, now: Now | RecordState, before: Before | None = None, policy: Policy = "field"
) -> tuple[str, str | None]:
    found = decide(prepare(one), before or Before(), now if isinstance(now, Now) else Now((now,)), policy)
    return found.outcome, found.reason


UPDATE = mutation("v2 updateDeal")
DELETE = mutation("v2 deleteDeal", {"id": 12})
HIDDEN = RecordState("deals/12", read(None, hidden=True))
PENDING = RecordState("deals/12", None)  # an earlier mutation of the plan deletes it
NEVER = state(None, existed=False)
ARCHIVED = OLD | {"is_archived": True}


@pytest.mark.parametrize(
    ("payload", "now", "before", "policy", "outcome"),
    [
        ({}, state(OLD), Before(), "field", ("send", None)),
        ({}, Now(), Before(), "field", ("send", None)),
        ({}, HIDDEN, Before(), "field", ("rejected", "permission")),
        ({}, NEVER, Before(), "field", ("rejected", "not_found")),
        ({}, state(None), Before(), "field", ("conflict", "target_gone")),
        ({}, state(OLD | {"is_deleted": True}), Before(), "field", ("conflict", "target_gone")),
        ({}, PENDING, Before(), "field", ("conflict", "target_gone")),
        ({}, state(NEW), Before(), "field", ("already_so", "already_so")),
        ({}, state(NEW), TRIED, "field", ("already_so", None)),
        ({}, state(NEW), Before(planned={"title": "Old"}), "field", ("already_so", "already_so")),
        ({}, state({"id": 12}), Before(), "field", ("send", None)),
        ({}, state(ARCHIVED), Before(), "field", ("conflict", "archived")),
        ({}, state(ARCHIVED), Before(planned={"title": "Old"}), "ours", ("conflict", "archived")),
        ({}, state(ARCHIVED | {"title": "New"}), Before(), "field", ("already_so", "already_so")),
        ({"is_archived": False}, state(ARCHIVED), Before(), "field", ("send", None)),
        ({"is_archived": True}, state(ARCHIVED), Before(), "field", ("conflict", "archived")),
        ({}, state(THEIRS), Before(planned={"title": "Old"}), "field", ("conflict", "changed")),
        ({}, state(THEIRS), Before(planned={"title": "Old"}), "record", ("conflict", "changed")),
        ({}, state(THEIRS), Before(planned={"title": "Old"}), "theirs", ("conflict", "kept_theirs")),
        ({}, state(THEIRS), Before(planned={"title": "Old"}), "ours", ("send", None)),
        ({}, state(THEIRS), Before(planned={"title": "Old"}), "append", ("conflict", "changed")),
        ({"label_ids": [1, 2]}, state(OLD | {"label_ids": [1, 3]}), Before(planned={"title": "Old", "label_ids": [1]}),
         "append", ("send", None)),
        ({"label_ids": [1, 2]}, state(THEIRS | {"label_ids": [1]}), Before(planned={"title": "Old", "label_ids": [1]}),
         "append", ("conflict", "changed")),
        ({}, state(OLD | {"value": 6}), Before(planned={"title": "Old"}), "field", ("send", None)),
        ({}, state(OLD), Before(planned={"update_time": "2025-12-31T00:00:00Z"}), "record", ("conflict", "changed")),
        # Another user was renamed, and still owns it.
        ({}, state(OLD | {"owner_id": {"id": 3, "name": "Ann Lee"}}),
         Before(planned={"owner_id": {"id": 3, "name": "Ann"}}), "field", ("send", None)),
        ({}, state(OLD | {"owner_id": {"id": 4, "name": "Ann"}}),
         Before(planned={"owner_id": {"id": 3, "name": "Ann"}}), "field", ("conflict", "changed")),
        # A field that has its new value already was changed in our sense, by whoever it was.
        ({"value": 6}, state(OLD | {"value": 6}), Before(planned={"title": "Old", "value": 5}), "field",
         ("send", None)),
    ],
)  # fmt: skip
def test_w6_update(
    payload: dict[str, Any], now: Now | RecordState, before: Before, policy: Policy, outcome: tuple[str, str | None]
) -> None:
    one = mutation("v2 updateDeal", {"id": 12, "title": "New"} | payload)
    assert decided(one, now, before, policy) == outcome


@pytest.mark.parametrize("policy", ["field", "record", "theirs", "ours", "append"])
def test_w6_an_undo_respects_what_others_changed_under_every_policy(policy: Policy) -> None:
    one = mutation("v2 updateDeal", expected={"title": "Old"})
    assert decided(one, state(OLD), policy=policy) == ("send", None)
    assert decided(one, state(THEIRS), policy=policy) == ("conflict", "changed")
    assert decided(mutation("v2 updateDeal", expected={"value": 4}), state(OLD), policy=policy)[0] == "conflict"


@pytest.mark.parametrize(
    ("now", "before", "outcome"),
    [
        (state(OLD), Before(), ("send", None)),
        (state(ARCHIVED), Before(), ("send", None)),
        (Now(), Before(), ("send", None)),
        (PENDING, Before(), ("send", None)),
        (HIDDEN, Before(), ("rejected", "permission")),
        (NEVER, Before(), ("rejected", "not_found")),
        (NEVER, TRIED, ("already_so", None)),
        (state(None), Before(), ("already_so", "already_so")),
        (state(None), TRIED, ("already_so", None)),
        (state(OLD | {"is_deleted": True}, existed=False), Before(), ("already_so", "already_so")),
        (state(THEIRS), Before(planned={"title": "Old"}), ("conflict", "changed")),
        (state(OLD), Before(planned={"title": "Old"}), ("send", None)),
    ],
)
def test_w2_delete(now: Now | RecordState, before: Before, outcome: tuple[str, str | None]) -> None:
    assert decided(DELETE, now, before) == outcome
    assert decided(DELETE, now, before, "ours") == outcome


def test_w6_a_deletion_that_expects_a_value_spares_a_record_that_others_changed() -> None:
    one = mutation("v2 deleteDeal", {"id": 12}, expected={"title": "Old"})
    assert [decided(one, state(each)) for each in (OLD, THEIRS)] == [("send", None), ("conflict", "changed")]


def both(loser: dict[str, Any] | None, winner: dict[str, Any] | None, *, existed: bool = True) -> Now:
    return Now((state(loser, existed=existed), state(winner, target="deals/7", existed=existed)))


@pytest.mark.parametrize(
    ("now", "before", "outcome"),
    [
        (both(OLD, WINNER), Before(), ("send", None)),
        (both(OLD, WINNER), Before(planned=STAMP), ("send", None)),
        (both(OLD, WINNER), Before(planned=STAMP | {"loser": "2025-01-01T00:00:00Z"}), ("conflict", "changed")),
        (both(OLD, WINNER), Before(planned={}), ("conflict", "changed")),  # the plan did not see both
        (both(None, WINNER), Before(), ("conflict", "target_gone")),
        (both(OLD, None), Before(), ("conflict", "target_gone")),
        (both(None, WINNER, existed=False), Before(), ("rejected", "not_found")),
        (both(None, WINNER), Before(merged_into="7"), ("already_so", "already_so")),
        (both(None, WINNER), Before(merged_into="9"), ("conflict", "target_gone")),
        (both(OLD, None), Before(merged_into="7"), ("conflict", "target_gone")),
        (both(None, WINNER), TRIED, ("needs_review", "undecidable")),
        (both(None, WINNER), Before(may_have_happened=True, merged_into="7"), ("needs_review", "undecidable")),
        (both(OLD, None), TRIED, ("needs_review", "undecidable")),
        (Now((PENDING, state(WINNER, target="deals/7"))), Before(), ("conflict", "target_gone")),
        (Now((HIDDEN, state(WINNER, target="deals/7"))), Before(), ("conflict", "target_gone")),
        (Now(), Before(), ("conflict", "target_gone")),
    ],
)
def test_w2_merge(now: Now, before: Before, outcome: tuple[str, str | None]) -> None:
    assert decided(mutation("v1 mergeDeals", MERGE), now, before) == outcome


@pytest.mark.parametrize(
    ("to_delete", "existed", "may_change", "before", "outcome"),
    [
        (EntriesToDelete([{"id": 1}]), False, False, Before(), ("send", None)),
        (EntriesToDelete([{"id": 1}]), False, False, Before(planned_entries=1), ("send", None)),
        (EntriesToDelete([{"id": 1}, {"id": 2}]), False, False, Before(planned_entries=1), ("conflict", "changed")),
        (EntriesToDelete(), False, False, Before(), ("rejected", "not_found")),
        (EntriesToDelete(), True, False, Before(), ("already_so", "already_so")),
        (EntriesToDelete(), False, False, TRIED, ("already_so", None)),
        (EntriesToDelete(are_named=False), False, False, Before(), ("already_so", "already_so")),
        (EntriesToDelete(), False, True, Before(), ("send", None)),
        (EntriesToDelete(unreadable="403"), True, True, Before(), ("rejected", "permission")),
    ],
)
def test_w8_a_list_that_is_emptied(
    to_delete: EntriesToDelete, existed: bool, may_change: bool, before: Before, outcome: tuple[str, str | None]
) -> None:
    one = mutation("v2 deleteManyDealProducts", {"id": 12, "ids": "1"})
    assert decided(one, Now(entries=EntriesState(to_delete, existed, may_change)), before) == outcome


@pytest.mark.parametrize(
    "one",
    [
        mutation("v2 addDeal", {"title": "New"}),
        mutation("v2 addDealFollower", {"id": 12, "user_id": 3}),
        mutation("v2 archiveProject", {"id": 12}),
    ],
)
def test_w2_what_is_not_about_a_record_is_sent_unless_its_effect_shows(one: Mutation) -> None:
    assert decided(one, Now()) == ("send", None)
    assert decided(one, Now(effect_shows=True)) == ("already_so", "already_so")
    assert decided(one, Now(effect_shows=True), TRIED) == ("already_so", None)


@pytest.mark.parametrize(
    ("one", "reason", "detail"),
    [
        (mutation("v2 updateDeal", {"id": 12, "titel": "New"}), "not_valid", "no parameter 'titel'"),
        (mutation("v2 updateDeal", {"id": 12, "value": "much"}), "not_valid", "value"),
        (mutation("v1 mergeDeals", {"id": 12, "merge_with_id": 12}), "not_valid", "with itself"),
    ],
)
def test_w2_what_is_not_valid_is_rejected_whatever_the_record_is(one: Mutation, reason: str, detail: str) -> None:
    for now in (Now(), Now((state(OLD),)), Now(effect_shows=True), Now((NEVER,))):
        found = decide(prepare(one), Before(), now, "ours")
        assert (found.outcome, found.reason) == ("rejected", reason)
        assert detail in (found.detail or "")


def test_the_detail_names_the_fields_as_people_call_them() -> None:
    one = mutation("v2 updateDeal", {"id": 12, "title": "New", "value": 7})
    found = decide(prepare(one), Before(planned={"title": "A", "value": 1}), Now((state(OLD),)), "field")
    assert found.fields == ("title", "value")
    assert found.message() == "another user has changed title, value since the plan"
    assert found.message(str.upper) == "another user has changed TITLE, VALUE since the plan"


@pytest.mark.parametrize(
    ("closed_as", "outcome"),
    [
        ([], False),
        (["not_executed"], False),
        (["not_executed", "unknown"], True),
        ([None], True),
        (["answered"], True),
    ],
)
def test_w4_only_an_attempt_that_was_certainly_not_carried_out_counts_as_none(
    closed_as: list[str | None], outcome: bool
) -> None:
    attempts = [
        Attempt(n, AT, None, None, None, None, each, None, None, "PATCH", "/") for n, each in enumerate(closed_as)
    ]
    assert may_have_happened(attempts) is outcome
