"""The queue is found by number, id or the beginning of one, and shows what is known about records."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pdsync.errors import ConfigError
from tests.writeback.kit import bring_to, entry, open_outbox

if TYPE_CHECKING:
    from pathlib import Path

    from pdsync.writeback.outbox import Outbox


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return open_outbox(tmp_path, journal=False)


def test_a_mutation_is_found_by_number_id_and_the_beginning_of_its_id(outbox: Outbox) -> None:
    mutation = outbox.add([entry()])[0]
    with outbox.control.transaction() as db:
        db.execute("UPDATE mutations SET id = 'abcdef12-0000'")
    for name in (1, "1", "#1", "abcdef12-0000", "abcdef", "abcdef12-"):
        assert outbox.get(name).seq == mutation.seq


@pytest.mark.parametrize("name", ["2", "#0", "abcde", "abcdeg", "", "#"])
def test_a_name_that_fits_no_mutation_is_refused(outbox: Outbox, name: str) -> None:
    outbox.add([entry()])
    with outbox.control.transaction() as db:
        db.execute("UPDATE mutations SET id = 'abcdef12-0000'")
    with pytest.raises(ConfigError, match="There is no mutation"):
        outbox.get(name)


def test_the_beginning_of_two_ids_is_refused(outbox: Outbox) -> None:
    outbox.add([entry(), entry()])
    with outbox.control.transaction() as db:
        db.execute("UPDATE mutations SET id = 'abcdef-' || seq")
    with pytest.raises(ConfigError, match="There is no mutation abcdef"):
        outbox.get("abcdef")
    assert outbox.get("abcdef-2").seq == 2


def test_mutations_are_filtered_by_state_operation_and_batch(outbox: Outbox) -> None:
    applied = bring_to(outbox, "applied", after={"id": 12})
    other = outbox.add([entry("v2 addDeal", {"title": "A"})])[0]
    assert [each.seq for each in outbox.mutations()] == [1, 2]
    assert [each.seq for each in outbox.mutations(["applied"])] == [1]
    assert outbox.mutations([]) == []
    assert [each.seq for each in outbox.mutations(operation="v2 addDeal")] == [2]
    assert [each.seq for each in outbox.mutations(batch=other.batch)] == [2]
    assert [each.seq for each in outbox.mutations_of_push("push-1")] == [1]
    assert outbox.mutations(["applied"])[0].after_image == applied.after_image == {"id": 12}
    assert outbox.mutations(["applied"], images=False)[0].after_image is None
    assert outbox.counts() == {"applied": 1, "queued": 1}


@pytest.mark.parametrize(
    ("operation", "payload", "state", "reason", "seen"),
    [
        ("v2 updateDeal", {"id": 12, "title": "N"}, "applied", None, True),
        ("v2 updateDeal", {"id": 12, "title": "N"}, "applied", "already_so", True),
        ("v2 updateDeal", {"id": 12, "title": "N"}, "conflict", None, False),
        ("v2 updateDeal", {"id": 13, "title": "N"}, "applied", None, False),
        ("v2 deleteDeal", {"id": 12}, "applied", None, True),
        ("v2 deleteDeal", {"id": 12}, "applied", "already_so", False),
    ],
)
def test_s8_a_record_was_there_if_one_of_our_changes_reached_it(
    outbox: Outbox, operation: str, payload: dict[str, object], state: str, reason: str | None, seen: bool
) -> None:
    mutation = outbox.add([entry(operation, payload)])[0]
    outbox.settle(mutation.id, state, reason)  # type: ignore[arg-type]
    assert outbox.has_seen("deals", "deals/12") is seen


def test_a_record_that_we_added_was_there(outbox: Outbox) -> None:
    mutation = outbox.add([entry("v2 addDeal", {"title": "A"})])[0]
    outbox.settle(mutation.id, "applied", remote_id="12")
    assert outbox.has_seen("deals", "deals/12")
    assert not outbox.has_seen("persons", "persons/12")


def test_a_merge_shows_the_winner_and_that_records_were_removed(outbox: Outbox) -> None:
    assert not outbox.has_removed_records()
    mutation = outbox.add([entry("v1 mergeDeals", {"id": 12, "merge_with_id": 13})])[0]
    assert outbox.merged_into("deals/12") is None
    outbox.settle(mutation.id, "applied", remote_id="13")
    assert outbox.merged_into("deals/12") == "13"
    assert outbox.merged_into("deals/13") is None
    assert outbox.has_removed_records()


def test_what_was_gone_already_was_not_removed_by_us(outbox: Outbox) -> None:
    mutation = outbox.add([entry("v2 deleteDeal", {"id": 12})])[0]
    outbox.settle(mutation.id, "applied", "already_so")
    assert not outbox.has_removed_records()


def test_a_snapshot_has_all_that_is_stored_of_a_mutation(outbox: Outbox) -> None:
    mutation = bring_to(outbox, "needs_review", outbox.add([entry(key="k")])[0], bound="deals/12")
    outbox.record_probe(mutation.id, "read deals/12", {"title": "Old"}, "unclear")
    outbox.resolve(mutation.id, "applied", "12", "looked")
    snapshot = outbox.snapshot(mutation.id)
    assert (snapshot.mutation, snapshot.dedupe_key, snapshot.bound) == (mutation, "k", "deals/12")
    assert [each.n for each in snapshot.attempts] == [1]
    assert [each["verdict"] for each in snapshot.probes] == ["unclear"]
    assert [each["note"] for each in snapshot.resolutions] == ["looked"]
    assert snapshot.progress == outbox.progress()[mutation.id] == (1, True, 1)
