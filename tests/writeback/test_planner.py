"""A plan follows each record through the mutations before, and says what stops one of them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from pdsync.writeback.fresh_reads import FreshRecord
from pdsync.writeback.known_records import KnownRecords
from pdsync.writeback.outbox import Reference
from pdsync.writeback.plan import RECORD
from pdsync.writeback.planner import Planner, title_of
from pdsync.writeback.prepared import prepare
from pdsync.writeback.resolver import NameResolver
from tests.writeback.kit import arm, entry, open_outbox

if TYPE_CHECKING:
    from pathlib import Path

    from pdsync.writeback.outbox import Entry, Outbox
    from pdsync.writeback.plan import Step
    from pdsync.writeback.precondition import Policy

LINK = "0b5e5b0e-0000-4000-8000-000000000000"
DEAL = {"id": 12, "title": "Old", "value": 5, "label_ids": [1], "update_time": "2026-01-01T00:00:00Z"}


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return open_outbox(tmp_path)


def steps(
    outbox: Outbox,
    entries: list[Entry],
    records: dict[str, dict[str, Any] | None],
    policy: Policy = "field",
    hidden: bool = False,
) -> list[Step]:
    reads = {
        target: FreshRecord(record, time.monotonic(), "/".join(target.split("/")[::2]), is_hidden=hidden)
        for target, record in records.items()
    }
    planner = Planner(NameResolver(None), policy, "EUR", reads, KnownRecords(None, outbox))
    return [planner.plan(prepare(each)) for each in outbox.add(entries)]


def fates(planned: list[Step]) -> list[tuple[str, str | None]]:
    return [(step.fate, step.reason) for step in planned]


def test_an_update_shows_before_and_after_and_the_values_that_must_still_be_there(outbox: Outbox) -> None:
    (step,) = steps(outbox, [entry()], {"deals/12": DEAL})
    assert [(each.before, each.after) for each in step.changes] == [("Old", "New")]
    assert (step.title, step.base, step.fate, step.seen) == ("Old", {"title": "Old"}, "send", True)


def test_an_amount_has_the_currency_of_its_record_beside(outbox: Outbox) -> None:
    """What is saved in the plan is the number as it is sent; another field has no currency."""
    deal = {**DEAL, "currency": "SEK"}
    entries = [
        entry(payload={"id": 12, "value": 99999.99, "title": "New"}),
        entry(payload={"id": 12, "value": 7, "currency": "EUR"}),
        entry("v2 addDeal", {"title": "X", "value": 12345.67}),
    ]
    shown = [
        [each.after for each in step.changes] + [(each.before_currency, each.after_currency) for each in step.changes]
        for step in steps(outbox, entries, {"deals/12": deal})
    ]
    assert shown == [
        [99999.99, "New", ("SEK", "SEK"), (None, None)],
        [7, "EUR", ("SEK", "EUR"), (None, None)],
        ["X", 12345.67, (None, None), (None, None)],
    ]


@pytest.mark.parametrize(
    ("operation", "payload", "shown"),
    [
        ("v2 addDealFollower", {"id": 12, "user_id": 3}, [("user_id", None, 3)]),
        ("v2 archiveProject", {"id": 5}, []),
        ("v1 deleteUserProviderLink", {"id": LINK}, [(RECORD, f"meetings/{LINK}/userProviderLinks", None)]),
        ("v1 deleteDealFields", {"ids": "8,9"}, [("ids", None, "8,9")]),
    ],
)
def test_w10_ids_that_the_target_has_are_no_changes(
    outbox: Outbox, operation: str, payload: dict[str, Any], shown: list[tuple[Any, ...]]
) -> None:
    (step,) = steps(outbox, [entry(operation, payload)], {})
    assert [(each.field, each.before, each.after) for each in step.changes] == shown


def test_w10_what_refers_to_an_addition_shows_to_which(outbox: Outbox) -> None:
    """It has no target yet."""
    queued = [entry("v2 addDeal", {"title": "A"}, name="deal"),
              entry("v2 addDealFollower", {"id": Reference("deal"), "user_id": 3})]  # fmt: skip
    follower = steps(outbox, queued, {})[1]
    assert [each.field for each in follower.changes] == ["id", "user_id"]


def test_policy_record_compares_the_time_of_the_last_change(outbox: Outbox) -> None:
    (step,) = steps(outbox, [entry()], {"deals/12": DEAL}, "record")
    assert step.base == {"title": "Old", "update_time": "2026-01-01T00:00:00Z"}


def test_policy_append_adds_to_the_list_of_the_record(outbox: Outbox) -> None:
    (step,) = steps(outbox, [entry(payload={"id": 12, "label_ids": [2]})], {"deals/12": DEAL}, "append")
    assert step.payload["label_ids"] == [1, 2]


def test_w5_an_update_is_planned_against_what_the_one_before_leaves(outbox: Outbox) -> None:
    back = entry(payload={"id": 12, "title": "Old"})
    planned = steps(outbox, [entry(), back, entry(payload={"id": 12, "title": "Old"})], {"deals/12": DEAL})
    assert fates(planned) == [("send", None), ("send", None), ("already_so", "already_so")]
    assert [(each.before, each.after) for each in planned[1].changes] == [("New", "Old")]


def test_w5_what_rests_on_an_unsent_mutation_says_so_and_waits_for_it(outbox: Outbox) -> None:
    def update(**values: object) -> Entry:
        return entry(payload={"id": 12, **values})

    merge = entry("v1 mergeDeals", {"id": 13, "merge_with_id": 12})
    queued = [
        update(title="Old"), update(title="New"), update(title="New"), update(value=5), update(title="Old"),
        update(title="Old", value=5), merge, merge, update(is_archived=True), update(value=6),
        entry("v2 deleteDeal", {"id": 12}), update(title="X"),
    ]  # fmt: skip
    planned = steps(outbox, queued, {"deals/12": DEAL, "deals/13": {**DEAL, "id": 13}})
    assert [(step.fate, step.after, step.detail) for step in planned if step.fate != "send"] == [
        ("already_so", None, "every field has that value already"),  # #1: before anything is sent
        ("already_so", 2, "after #2, every field has that value"),
        ("already_so", None, "every field has that value already"),  # #4: of another field
        ("already_so", 5, "after #5, every field has that value"),
        ("already_so", 7, "after #7, deals/13 was merged into 12"),
        ("conflict", 9, "after #9, it is archived; un-archive it first (is_archived=false)"),
        ("conflict", 11, "after #11, it is deleted or merged into another"),
    ]


def test_w5_what_follows_a_deletion_in_the_same_plan(outbox: Outbox) -> None:
    delete = entry("v2 deleteDeal", {"id": 12})
    planned = steps(outbox, [delete, delete, entry()], {"deals/12": DEAL})
    # The first deletion may fail, so the second one waits for it; an update has nothing left to change.
    assert fates(planned) == [("send", None), ("send", None), ("conflict", "target_gone")]


def test_w2_a_deletion_of_what_an_addition_of_the_same_plan_adds_is_sent(outbox: Outbox) -> None:
    add = entry("v2 addDealFollower", {"id": 12, "user_id": 3})
    delete = entry("v2 deleteDealFollower", {"id": 12, "follower_id": 3})
    read: dict[str, dict[str, Any] | None] = {"deals/12/followers/3": None}
    assert fates(steps(outbox, [delete], read)) == [("rejected", "not_found")]
    assert fates(steps(outbox, [add, delete], read)) == [("send", None), ("send", None)]


def test_w2_what_never_was_there_is_told_apart_from_what_is_gone(outbox: Outbox) -> None:
    delete = entry("v2 deleteDeal", {"id": 12})
    (never,) = steps(outbox, [delete], {"deals/12": None})
    assert (never.fate, never.reason, never.seen) == ("rejected", "not_found", False)
    assert never.detail == "there is no deals/12: see that the id is right"
    (mutation,) = outbox.add([entry()])
    outbox.approve([mutation.id], "push-1", 7)
    outbox.settle(mutation.id, "applied", push_id="push-1")
    assert fates(steps(outbox, [delete, entry()], {"deals/12": None})) == [
        ("already_so", "already_so"), ("conflict", "target_gone"),
    ]  # fmt: skip


def test_what_the_token_may_not_see_is_rejected(outbox: Outbox) -> None:
    assert fates(steps(outbox, [entry()], {"deals/12": None}, hidden=True)) == [("rejected", "permission")]


def test_a_mutation_that_is_not_valid_shows_nothing_of_the_record(outbox: Outbox) -> None:
    (step,) = steps(outbox, [entry(payload={"id": 12, "titel": "New"})], {"deals/12": DEAL})
    assert (step.fate, step.reason, step.changes, step.title) == ("rejected", "not_valid", (), None)


MERGE = {"id": 12, "merge_with_id": 7}


def test_a_merge_shows_what_is_filled_and_what_is_lost(outbox: Outbox) -> None:
    winner = {"id": 7, "title": "Other", "value": None, "update_time": "2026-01-02T00:00:00Z"}
    (step,) = steps(outbox, [entry("v1 mergeDeals", MERGE)], {"deals/12": DEAL, "deals/7": winner})
    assert (step.title, step.into) == ("Old (12) → Other (7, stays)", "deals/7")
    assert step.base == {"loser": "2026-01-01T00:00:00Z", "winner": "2026-01-02T00:00:00Z"}
    assert next(each.after for each in step.changes if each.before is None) == 5
    assert step.warnings[0].startswith("lost for good: ")
    assert "'Old'" in step.warnings[0]
    assert step.warnings[-1] == "a merge can't be undone"


def test_w2_a_merge_that_may_have_happened_is_left_to_the_sender_and_never_called_a_conflict(outbox: Outbox) -> None:
    (mutation,) = outbox.add([entry("v1 mergeDeals", MERGE)])
    outbox.approve([mutation.id], "push-1", 7)
    arm(outbox, mutation)
    outbox.mark_unknown(mutation.id, "no answer")
    winner = FreshRecord({"id": 7}, time.monotonic(), "deals")
    reads = {"deals/12": FreshRecord(None, time.monotonic(), "deals"), "deals/7": winner}
    planner = Planner(NameResolver(None), "field", None, reads, KnownRecords(None, outbox))
    step = planner.plan(prepare(mutation))
    assert (step.fate, step.reason, step.base) == ("send", "undecidable", None)


@pytest.mark.parametrize(
    ("record", "title"),
    [({"title": "A", "name": "B"}, "A"), ({"title": "", "name": "B"}, "B"), ({"name": 5}, None), ({}, None),
     ({"content": "x" * 100}, "x" * 80)],
)  # fmt: skip
def test_title(record: dict[str, Any], title: str | None) -> None:
    assert title_of(record) == title
