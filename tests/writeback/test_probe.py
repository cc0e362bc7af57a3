"""The verdict of a probe, for each kind of change, from what a server shows."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from pdsync.core import catalogue
from pdsync.writeback import probe
from pdsync.writeback.prepared import prepare
from pdsync.writeback.shapes import shape
from tests.writeback.api import answering
from tests.writeback.kit import entry, open_outbox

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pdsync.writeback.probe import ProbeOutcome
    from tests.writeback.api import Answers

ME, OTHER = 1, 2
SENT = datetime(2026, 11, 22, 12, tzinfo=UTC)
OLD, NEW = {"id": 12, "title": "Old", "value": 5}, {"id": 12, "title": "New", "value": 5}
DEALS, DEAL = "/api/v2/deals", "/api/v2/deals/12"


def run(folder: Path, answers: Answers, operation: str, payload: Mapping[str, Any], **options: Any) -> ProbeOutcome:
    """Probe a write against a server that gives `answers`, and 404 for all else."""

    mutation = open_outbox(folder, journal=False).add([entry(operation, payload)])[0]

    async def probed() -> ProbeOutcome:
        defaults: dict[str, Any] = {"base": None, "seen": None, "me": ME, "bound": set()}
        async with answering(folder, answers) as api:
            return await probe.probe_write(api.http, prepare(mutation), **{**defaults, **options})

    return asyncio.run(probed())


def added(id: int, title: str = "New", **more: Any) -> dict[str, Any]:
    return {"id": id, "title": title, "creator_user_id": ME, "owner_id": ME, **more}


# Updates.


@pytest.mark.parametrize(
    ("answer", "base", "verdict"),
    [
        (NEW, OLD, "happened"),
        ({**NEW, "value": 99}, OLD, "happened"),  # another field is another's business
        (OLD, OLD, "absent"),
        ({**OLD, "value": 99}, OLD, "absent"),
        ({**OLD, "title": "Theirs"}, OLD, "moved"),
        (OLD, None, "moved"),  # what it was before is not known
        ({"id": 12, "value": 5}, OLD, "undecidable"),  # the field does not show
        (404, OLD, "moved"),
        ({**NEW, "is_deleted": True}, OLD, "moved"),
        (403, OLD, "unclear"),
    ],
)
def test_w4_an_update_is_judged_by_the_fields_it_set(
    tmp_path: Path, answer: object, base: dict[str, Any] | None, verdict: str
) -> None:
    outcome = run(tmp_path, {DEAL: answer}, "v2 updateDeal", {"id": 12, "title": "New"}, base=base)
    assert outcome.verdict == verdict
    assert outcome.request == "read deals/12"


# Deletions.


@pytest.mark.parametrize(
    ("answers", "verdict", "by_other"),
    [
        ({DEAL: OLD}, "absent", False),
        ({DEAL: {**OLD, "is_deleted": True}, DEALS: [added(1)]}, "happened", False),
        ({DEAL: 404, DEALS: [added(1)]}, "happened", False),
        ({DEAL: 404, DEALS: 403}, "unclear", False),  # the whole kind may be hidden
        ({DEAL: 404, DEALS: []}, "unclear", False),
        ({DEAL: 403}, "unclear", False),
    ],
)
def test_s8_a_deletion_is_proved_only_while_others_of_its_kind_show(
    tmp_path: Path, answers: Answers, verdict: str, by_other: bool
) -> None:
    outcome = run(tmp_path, answers, "v2 deleteDeal", {"id": 12})
    assert (outcome.verdict, outcome.by_other) == (verdict, by_other)


@pytest.mark.parametrize(("user", "by_other"), [(ME, False), (OTHER, True)])
def test_a_deletion_by_another_user_is_told_apart(tmp_path: Path, user: int, by_other: bool) -> None:
    changes = [{"field_key": "status", "new_value": "deleted", "actor_user_id": user}]
    answers = {DEAL: 404, DEALS: [added(1)], "/v1/deals/12/changelog": changes}
    outcome = run(tmp_path, answers, "v2 deleteDeal", {"id": 12})
    assert (outcome.verdict, outcome.by_other) == ("happened", by_other)


# Additions.


@pytest.mark.parametrize(
    ("records", "seen", "verdict", "keys"),
    [
        ([added(8)], 8, "absent", []),
        ([added(9), added(8)], 8, "happened", ["9"]),
        ([added(9), added(8)], ["8"], "happened", ["9"]),
        ([added(10), added(9), added(8)], 8, "several", ["10", "9"]),
        ([added(9, title="Other", creator_user_id=OTHER), added(8)], 8, "absent", []),
        ([added(9, creator_user_id=OTHER), added(8)], 8, "absent", []),  # another user added the same
        ([added(8)], None, "undecidable", None),
    ],
)
def test_w2_an_addition_is_the_new_record_that_has_what_was_sent(
    tmp_path: Path, records: list[Any], seen: Any, verdict: str, keys: list[str] | None
) -> None:
    outcome = run(tmp_path, {DEALS: records}, "v2 addDeal", {"title": "New"}, seen=seen)
    assert outcome.verdict == verdict
    if keys is not None:
        assert outcome.found == keys


@pytest.mark.parametrize(("value", "verdict"), [(5, "happened"), (7, "absent")])
def test_w2_w4_a_record_of_the_same_name_is_not_ours_unless_all_that_was_sent_is_equal(
    tmp_path: Path, value: int, verdict: str
) -> None:
    records = [added(9, value=value), added(8)]
    outcome = run(tmp_path, {DEALS: records}, "v2 addDeal", {"title": "New", "value": 5}, seen=8)
    assert outcome.verdict == verdict


def test_w2_a_record_that_another_mutation_added_is_not_taken(tmp_path: Path) -> None:
    records = [added(10), added(9), added(8)]
    outcome = run(tmp_path, {DEALS: records}, "v2 addDeal", {"title": "New"}, seen=8, bound={"10"})
    assert (outcome.verdict, outcome.found) == ("happened", ["9"])
    assert outcome.record == records[1]


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"owner_id": OTHER}, "owner_id is 2"),
        ({"expected_close_date": "2026-12-01"}, "it also has expected_close_date"),
        ({"custom_fields": {"a" * 40: "x"}}, "it also has custom field aaaaaaa…"),
        ({"add_time": (SENT + timedelta(hours=2)).isoformat()}, "it was added 2:00:00 after this was sent"),
    ],
)
def test_w2_a_record_with_more_than_was_sent_is_left_to_a_person(tmp_path: Path, more: Any, why: str) -> None:
    outcome = run(tmp_path, {DEALS: [added(9, **more), added(8)]}, "v2 addDeal", {"title": "New"}, seen=8, sent_at=SENT)
    assert outcome.verdict == "undecidable"
    assert why in outcome.found


@pytest.mark.parametrize(
    "records",
    [
        [added(10, title="Other", creator_user_id=OTHER), added(8)],  # 9 is gone: it may have been ours
        [added(9, title="Edited", add_time="2026-11-22 12:00:00", update_time="2026-11-22 12:00:09"), added(8)],
    ],
)
def test_w4_a_record_that_may_have_been_ours_is_no_proof_of_absence(tmp_path: Path, records: list[Any]) -> None:
    assert run(tmp_path, {DEALS: records}, "v2 addDeal", {"title": "New"}, seen=8).verdict == "undecidable"


@pytest.mark.parametrize(
    ("newest", "next", "more", "verdict"),
    [
        (8, 9, {"is_deleted": True}, "undecidable"),
        (8, 9, {"is_archived": True}, "undecidable"),
        (9, 10, {"is_deleted": True}, "undecidable"),  # another's came before it
        (8, 9, {}, "absent"),  # added after the list was read: the next probe finds it
        (8, 10, {"is_deleted": True}, "absent"),
    ],
)
def test_w4_the_newest_record_that_is_gone_already_may_have_been_ours(
    tmp_path: Path, newest: int, next: int, more: Any, verdict: str
) -> None:
    records = [added(id, title="Other", creator_user_id=OTHER) for id in range(newest, 7, -1)]
    answers = {DEALS: records, f"{DEALS}/{next}": added(next, **more)}
    outcome = run(tmp_path, answers, "v2 addDeal", {"title": "New"}, seen=8)
    assert outcome.verdict == verdict


def test_w4_a_full_page_of_new_records_proves_nothing(tmp_path: Path) -> None:
    listing = shape(catalogue.operation("v2 addDeal")).listing
    assert listing
    limit = listing.query["limit"].max
    assert limit
    records = [added(id, title="Other", creator_user_id=OTHER) for id in range(9 + limit, 9, -1)]
    outcome = run(tmp_path, {DEALS: records}, "v2 addDeal", {"title": "New"}, seen=8)
    assert outcome.verdict == "undecidable"


@pytest.mark.parametrize(("user", "verdict"), [(5, "happened"), (6, "absent")])
def test_a_relation_exists_or_not(tmp_path: Path, user: int, verdict: str) -> None:
    answers = {f"{DEAL}/followers": [{"user_id": user, "add_time": "2026-11-22T12:00:00Z"}]}
    assert run(tmp_path, answers, "v2 addDealFollower", {"id": 12, "user_id": 5}).verdict == verdict


# Merges.


@pytest.mark.parametrize(
    ("loser", "winner", "verdict"),
    [
        ({"id": 12, "title": "A", "update_time": "1"}, {"id": 13, "title": "B", "update_time": "1"}, "absent"),
        ({"id": 12, "title": "A", "update_time": "2"}, {"id": 13, "title": "B", "update_time": "1"}, "undecidable"),
        (404, {"id": 13, "title": "B", "update_time": "2"}, "undecidable"),  # somebody may have deleted it
        (404, 404, "undecidable"),
        (404, {"id": 13, "title": "B", "person_id": 77, "update_time": "2"}, "happened"),
    ],
)
def test_w2_a_merge_is_proved_by_what_only_it_moves(
    tmp_path: Path, loser: object, winner: object, verdict: str
) -> None:
    base = {
        "loser": {"id": 12, "title": "A", "update_time": "1", "person_id": 77},
        "winner": {"id": 13, "title": "B", "update_time": "1"},
    }
    if isinstance(loser, dict):
        loser = {**loser, "person_id": 77}
    answers = {f"{root}/deals/12": loser for root in ("/api/v2", "/v1")}
    answers |= {f"{root}/deals/13": winner for root in ("/api/v2", "/v1")}
    outcome = run(tmp_path, answers, "v1 mergeDeals", {"id": 12, "merge_with_id": 13}, base=base)
    assert outcome.verdict == verdict


# Everything else.


def test_an_operation_without_a_readable_effect_cannot_be_judged(tmp_path: Path) -> None:
    outcome = run(tmp_path, {}, "v1 addFileAndLinkIt", {"title": "x"})
    assert outcome.verdict == "undecidable"


# What is noted before.


@pytest.mark.parametrize(
    ("operation", "payload", "path", "data", "expected"),
    [
        ("v2 addDeal", {"title": "x"}, DEALS, [added(9), added(8)], 9),
        ("v2 addDeal", {"title": "x"}, DEALS, [], 0),
        ("v1 addLead", {"title": "x"}, "/v1/leads", [{"id": "b-2"}, {"id": "a-1"}], ["a-1", "b-2"]),
        # Lists that need to know of what: it is in what is added, or else nothing is noted.
        ("v2 addProjectPhase", {"name": "x", "board_id": 3}, "/api/v2/phases", [{"id": 5}], ["5"]),
        ("v2 addProjectPhase", {"name": "x"}, "/api/v2/phases", [{"id": 5}], None),
        (
            "v1 addOrganizationRelationship",
            {"type": "parent", "rel_owner_org_id": 1, "rel_linked_org_id": 2},
            "/v1/organizationRelationships",
            [{"id": 7}],
            ["7"],
        ),
        (  # called by its UUID, not by its author
            "v1 addNoteComment",
            {"id": 1, "content": "x"},
            "/v1/notes/1/comments",
            [{"uuid": "c-1", "user_id": ME}],
            ["c-1"],
        ),
    ],
)
def test_the_list_before_an_addition_is_noted(
    tmp_path: Path, operation: str, payload: dict[str, Any], path: str, data: list[Any], expected: object
) -> None:
    async def noted() -> Any:
        async with answering(tmp_path, {path: data}) as api:
            return await probe.list_snapshot(api.http, shape(catalogue.operation(operation)), payload)

    assert asyncio.run(noted()) == expected


def test_additions_with_equal_payloads_have_equal_fingerprints() -> None:
    one, same, other = {"title": "x", "value": 1}, {"value": 1, "title": "x"}, {"title": "x", "value": 2}
    assert probe.fingerprint("deals", one) == probe.fingerprint("deals", same)
    assert probe.fingerprint("deals", one) != probe.fingerprint("deals", other)
    assert probe.fingerprint("deals", one) != probe.fingerprint("persons", one)
