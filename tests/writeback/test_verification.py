"""W7: how a write ends, given what a read shows after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pdsync.writeback.effects import EffectReading
from pdsync.writeback.prepared import prepare
from pdsync.writeback.verification import judge_addition, judge_effect, judge_update
from tests.writeback.kit import entry, open_outbox

if TYPE_CHECKING:
    from pathlib import Path

    from pdsync.writeback.prepared import PreparedMutation


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
