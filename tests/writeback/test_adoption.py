"""A lost or older control.db takes over what the journal knows, and the newest record of a mutation counts."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from pdsync.errors import StorageError
from pdsync.writeback.adoption import adopt, complete_journal
from tests.writeback.kit import COMPANY, bring_to, entry, open_outbox

if TYPE_CHECKING:
    from pathlib import Path

    from pdsync.model import State
    from pdsync.writeback.outbox import Outbox
    from pdsync.writeback.snapshot import Snapshot


@pytest.fixture
def source(tmp_path: Path) -> Outbox:
    (tmp_path / "source").mkdir()
    return open_outbox(tmp_path / "source")


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    (tmp_path / "copy").mkdir()
    return open_outbox(tmp_path / "copy")


def full(source: Outbox) -> Snapshot:
    """A mutation with everything: attempts, probes, a resolution, a key and a binding."""
    source.read_until = datetime(2026, 11, 22, 12, tzinfo=UTC)
    mutation = bring_to(source, "unknown", source.add([entry(key="k")])[0])
    source.record_probe(mutation.id, "read deals/12", {"title": "Old"}, "absent", again=True)
    bring_to(source, "needs_review", source.get(mutation.id), bound="deals/12", detail="several")
    source.resolve(mutation.id, "applied", "12", "looked")
    return source.snapshot(mutation.id)


def test_w1_a_lost_mutation_is_restored_with_all_of_its_evidence(source: Outbox, outbox: Outbox) -> None:
    snapshot = full(source)
    assert {each.read_until for each in snapshot.attempts} == {source.read_until}
    assert [each.id for each in adopt(outbox, [snapshot])] == [snapshot.mutation.id]
    assert outbox.snapshot(snapshot.mutation.id) == snapshot


def test_adopting_the_same_again_changes_nothing(source: Outbox, outbox: Outbox) -> None:
    snapshot = full(source)
    adopt(outbox, [snapshot])
    assert adopt(outbox, [snapshot]) == []
    assert adopt(outbox, []) == []
    assert outbox.snapshot(snapshot.mutation.id) == snapshot


@pytest.mark.parametrize(
    ("stored", "offered", "is_newer"),
    [
        ("queued", "armed", True),  # more attempts
        ("armed", "applied", True),  # as many, and it has ended
        ("queued", "cancelled", True),
        ("applied", "armed", False),
        ("armed", "queued", False),
        ("armed", "unknown", False),  # neither has come further
    ],
)
def test_w2_the_record_with_the_greater_progress_counts(
    source: Outbox, outbox: Outbox, stored: State, offered: State, is_newer: bool
) -> None:
    queued = source.add([entry()])[0]
    first = source.snapshot(queued.id)
    adopt(outbox, [first])
    bring_to(outbox, stored, outbox.get(queued.id))
    bring_to(source, offered, queued)
    adopted = adopt(outbox, [source.snapshot(queued.id)])
    assert bool(adopted) is is_newer
    assert outbox.get(queued.id).state == (offered if is_newer else stored)


def test_of_several_records_in_any_order_the_newest_counts(source: Outbox, outbox: Outbox) -> None:
    queued = source.add([entry()])[0]
    old = source.snapshot(queued.id)
    bring_to(source, "applied", queued)
    new = source.snapshot(queued.id)
    adopt(outbox, [new, old])
    assert outbox.get(queued.id).state == "applied"


def test_what_a_push_that_is_over_had_approved_is_queued(source: Outbox, outbox: Outbox) -> None:
    mutation = bring_to(source, "approved")
    adopt(outbox, [source.snapshot(mutation.id)])
    restored = outbox.get(mutation.id)
    assert (restored.state, restored.push_id) == ("queued", None)


def test_the_push_of_a_restored_mutation_is_listed(source: Outbox, outbox: Outbox) -> None:
    adopt(outbox, [source.snapshot(bring_to(source, "applied").id)])
    assert [each["id"] for each in outbox.push_log.pushes()] == ["push-1"]


def test_x1_a_mutation_of_another_company_is_refused_and_nothing_changes(source: Outbox, outbox: Outbox) -> None:
    mine, foreign = (source.snapshot(each.id) for each in source.add([entry(), entry()]))
    foreign = replace(foreign, mutation=replace(foreign.mutation, company_id=COMPANY + 1))
    with pytest.raises(StorageError, match="is of company 8, and this project is of company 7"):
        adopt(outbox, [mine, foreign], {"outbox/2026-11.ndjson": 10})
    assert outbox.mutations() == []
    assert outbox.control.indexed_sizes() == {}


def test_a_number_that_is_taken_is_replaced_by_the_next(source: Outbox, outbox: Outbox) -> None:
    own = outbox.add([entry()])[0]
    lost = source.snapshot(source.add([entry(key="k")])[0].id)
    restored = adopt(outbox, [lost])[0]
    assert (own.seq, restored.seq, restored.id) == (1, 2, lost.mutation.id)


def test_a_key_and_a_binding_that_are_taken_stay_where_they_are(source: Outbox, outbox: Outbox) -> None:
    own = outbox.add([entry(key="k")])[0]
    outbox.settle(own.id, "applied", remote_id="12", bound="deals/12")
    lost = full(source)
    restored = adopt(outbox, [lost])[0]
    assert outbox.key_and_binding(own.id) == ("k", "deals/12")
    assert outbox.key_and_binding(restored.id) == (None, None)


def test_the_bytes_that_were_read_are_stored(outbox: Outbox) -> None:
    assert adopt(outbox, [], {"outbox/2026-11.ndjson": 10}) == []
    assert outbox.control.indexed_sizes() == {"outbox/2026-11.ndjson": 10}


def test_a_lost_journal_is_written_again(outbox: Outbox) -> None:
    assert outbox.journal
    mutation = bring_to(outbox, "applied")
    for path in outbox.journal.folder.iterdir():
        path.unlink()
    complete_journal(outbox)
    lines = [each for _, _, snapshots in outbox.journal.read({}) for each in snapshots]
    assert [(each.mutation.id, each.mutation.state) for each in lines] == [(mutation.id, "applied")]
    complete_journal(outbox)
    assert len([each for _, _, snapshots in outbox.journal.read({}) for each in snapshots]) == 1


def test_only_what_the_journal_lacks_is_appended(outbox: Outbox) -> None:
    assert outbox.journal
    outbox.add([entry()])
    behind = outbox.add([entry()])[0]
    journal, outbox.journal = outbox.journal, None
    outbox.settle(behind.id, "rejected")
    outbox.journal = journal
    complete_journal(outbox)
    lines = [each for _, _, snapshots in journal.read({}) for each in snapshots]
    assert [(each.mutation.seq, each.mutation.state) for each in lines] == [
        (1, "queued"), (2, "queued"), (2, "rejected"),
    ]  # fmt: skip


def test_an_empty_queue_writes_no_journal(outbox: Outbox) -> None:
    complete_journal(outbox)
    assert outbox.journal
    assert not outbox.journal.folder.exists()
    outbox.journal = None
    complete_journal(outbox)
