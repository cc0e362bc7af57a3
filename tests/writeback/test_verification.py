"""W7: how a write ends, given what a read shows after it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from pdsync.core.answer import Answer
from pdsync.writeback.effects import EffectReading
from pdsync.writeback.prepared import prepare
from pdsync.writeback.verification import Verifier, give_up, judge_addition, judge_effect, judge_update, settle
from tests.writeback.api import LOST, answering
from tests.writeback.kit import bring_to, entry, open_outbox

if TYPE_CHECKING:
    from pathlib import Path

    from pdsync.writeback.prepared import PreparedMutation
    from pdsync.writeback.verification import Ending
    from tests.writeback.api import Answers


def prepared(folder: Path, operation: str, payload: dict[str, Any]) -> PreparedMutation:
    return prepare(open_outbox(folder).add([entry(operation, payload)])[0])


@pytest.mark.parametrize(
    ("record", "ending", "alarms"),
    [
        ({"title": "New", "value": 5}, ("applied", None), False),
        ({"title": "New", "value": "5.00"}, ("applied", None), False),
        ({"title": "New"}, ("applied", "unverified"), False),  # no read shows the value
        ({"title": "Old", "value": 5}, ("rejected", "ignored_fields"), True),
    ],
)
def test_w7_update(tmp_path: Path, record: dict[str, Any], ending: tuple[str, str | None], alarms: bool) -> None:
    found = judge_update(prepared(tmp_path, "v2 updateDeal", {"id": 12, "title": "New", "value": 5}), record)
    assert ((found.state, found.reason), found.alarm is not None) == (ending, alarms)
    assert found.after == record


@pytest.mark.parametrize(
    ("record", "ending"),
    [
        ({"id": 4, "title": "New"}, ("applied", None)),
        ({"id": 4, "title": "Other"}, ("needs_review", "ignored_fields")),  # it is there: never "rejected"
        ({"id": 4}, ("applied", "unverified")),
    ],
)
def test_w7_addition(tmp_path: Path, record: dict[str, Any], ending: tuple[str, str | None]) -> None:
    found = judge_addition(prepared(tmp_path, "v2 addDeal", {"title": "New"}), record)
    assert (found.state, found.reason) == ending
    assert (found.remote_id, found.bound, found.alarm) == ("4", "deals/4", None)


def test_w2_a_relation_is_bound_to_no_mutation_as_it_can_be_added_again(tmp_path: Path) -> None:
    one = prepared(tmp_path, "v2 addDealFollower", {"id": 12, "user_id": 3})
    assert judge_addition(one, {"id": 3, "user_id": 3}).bound is None


@pytest.mark.parametrize(
    ("shown", "ending", "alarms"),
    [
        (EffectReading("shown"), ("applied", None), False),
        (EffectReading("unreadable", "hidden"), ("applied", "unverified"), False),
        (EffectReading("running", "the job is queued"), ("applied", "unverified"), False),
        (EffectReading("failed", "the job is failed"), ("rejected", "failed"), False),
        (EffectReading("partly", "1 still there"), ("needs_review", "not_shown"), False),
        (EffectReading("missing", "2 still there"), ("rejected", "ignored_fields"), True),  # a state, which only we set
    ],
)
def test_w7_effect(tmp_path: Path, shown: EffectReading, ending: tuple[str, str | None], alarms: bool) -> None:
    one = prepared(tmp_path, "v2 deleteManyDealProducts", {"id": 12, "ids": "1,2"})
    found = judge_effect(one, shown, None, None)
    assert ((found.state, found.reason), found.alarm is not None) == (ending, alarms)


def test_w7_a_deleted_record_that_is_still_there_needs_a_review(tmp_path: Path) -> None:
    found = judge_effect(prepared(tmp_path, "v2 deleteDeal", {"id": 12}), EffectReading("missing"), None, None)
    assert (found.state, found.reason, found.alarm) == ("needs_review", "not_shown", None)


# What is read where the answer shows less than what was sent.

DEAL, PRODUCTS, CHANGELOG = "/api/v2/deals/12", "/api/v2/deals/12/products", "/v1/deals/12/changelog"
UPDATE = ("v2 updateDeal", {"id": 12, "title": "New"})
ADD = ("v2 addDeal", {"title": "New"})
DELETE = ("v2 deleteDeal", {"id": 12})
EMPTY = ("v2 deleteManyDealProducts", {"id": 12})
NEW, OLD = {"id": 12, "title": "New"}, {"id": 12, "title": "Old"}


async def verify(
    folder: Path,
    change: tuple[str, dict[str, Any]],
    data: Any,
    answers: Answers,
    *,
    base: Any = None,
    check_lost_updates: bool = False,
) -> tuple[Ending, list[str]]:
    """How a write ends that was answered with `data`, and what was read for it; the second read is the last."""
    body = data if isinstance(data, bytes) else msgspec.json.encode({"success": True, "data": data})
    one = prepared(folder, *change)
    async with answering(folder, answers) as api:
        verifier = Verifier(api.http, me=1, waits_s=(0.0, 0.0), check_lost_updates=check_lost_updates)
        answer = Answer(200, {}, body, datetime(2026, 11, 22, tzinfo=UTC))
        return await verifier.verify(one, answer, base), api.requests


@pytest.mark.parametrize(
    ("change", "data", "answers", "ending", "requests"),
    [
        (UPDATE, NEW, {}, ("applied", None), []),
        (UPDATE, {"id": 12}, {DEAL: NEW}, ("applied", None), [DEAL]),
        (UPDATE, OLD, {DEAL: NEW}, ("applied", None), [DEAL]),  # the answer may be older than its own write
        (UPDATE, OLD, {DEAL: OLD}, ("rejected", "ignored_fields"), [DEAL]),
        (UPDATE, {"id": 12}, {DEAL: 403}, ("applied", "unverified"), [DEAL]),
        (UPDATE, None, {DEAL: 404}, ("unknown", None), [DEAL]),
        (UPDATE, b"<html>", {}, ("unknown", None), []),
        (ADD, None, {}, ("unknown", None), []),
        (ADD, {"id": 12}, {DEAL: NEW}, ("applied", None), [DEAL]),
        (DELETE, {"id": 12}, {DEAL: 404}, ("applied", None), [DEAL]),
        (DELETE, {"id": 12}, {DEAL: {**OLD, "is_deleted": True}}, ("applied", None), [DEAL]),
        (DELETE, {"id": 12}, {DEAL: (OLD, 404)}, ("applied", None), [DEAL, DEAL]),  # a read may lag
        (DELETE, {"id": 12}, {DEAL: OLD}, ("needs_review", "not_shown"), [DEAL, DEAL]),
        (DELETE, {"id": 12}, {DEAL: 403}, ("applied", "unverified"), [DEAL]),
        (EMPTY, None, {PRODUCTS: ([{"id": 1}], [])}, ("applied", None), [PRODUCTS, PRODUCTS]),
        (EMPTY, None, {PRODUCTS: 403}, ("applied", "unverified"), [PRODUCTS]),
    ],
)
async def test_w7_what_the_answer_does_not_show_is_read(
    tmp_path: Path,
    change: tuple[str, dict[str, Any]],
    data: Any,
    answers: Answers,
    ending: tuple[str, str | None],
    requests: list[str],
) -> None:
    found, read = await verify(tmp_path, change, data, answers)
    assert (found.state, found.reason) == ending
    assert read == requests


@pytest.mark.parametrize(
    ("checks", "changes", "ending"),
    [
        (True, [("Old", "New")], ("applied", None)),
        (True, [("Hers", "New")], ("conflict", "detected_late")),
        (False, [("Hers", "New")], ("applied", None)),
        (True, 403, ("applied", None)),  # a changelog that can't be read is no evidence
        (True, 500, ("applied", None)),
        (True, LOST, ("applied", None)),
        (True, b"<html>", ("applied", None)),
    ],
)
async def test_w6_an_edit_that_was_overwritten_is_a_conflict_where_the_changelog_is_checked(
    tmp_path: Path, checks: bool, changes: Any, ending: tuple[str, str | None]
) -> None:
    if isinstance(changes, list):
        changes = [
            {"field_key": "title", "old_value": old, "new_value": new, "actor_user_id": 1} for old, new in changes
        ]
    found, _ = await verify(tmp_path, UPDATE, NEW, {CHANGELOG: changes}, base=OLD, check_lost_updates=checks)
    assert (found.state, found.reason) == ending
    if found.reason:
        assert found.detail == "another user had written title = 'Hers' meanwhile; it was overwritten"


@pytest.mark.parametrize(
    ("state", "end"),
    [("armed", "needs_review"), ("unknown", "needs_review"), ("approved", "rejected")],
)
def test_w1_what_pdsync_fails_at_ends_by_whether_it_may_have_been_sent(tmp_path: Path, state: Any, end: str) -> None:
    outbox = open_outbox(tmp_path)
    mutation = bring_to(outbox, state)
    assert give_up(outbox, "push-1", mutation.id, ValueError("no\nmore")) == end
    found = outbox.get(mutation.id)
    assert (found.state, found.reason) == (end, "local_error")
    assert str(found.detail).endswith("pdsync failed with ValueError: no")


def test_w7_an_answer_that_shows_nothing_is_doubted_and_no_end(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path)
    mutation = bring_to(outbox, "armed")
    one = judge_update(prepared(tmp_path, *UPDATE), NEW)
    assert settle(outbox, "push-1", mutation, msgspec.structs.replace(one, state="unknown")) == "unknown"
    assert outbox.get(mutation.id).state == "unknown"
    assert settle(outbox, "push-1", mutation, one) == "applied"
