"""What control.db has lost of the queue comes back from the journal and the warehouse, and nothing is sent twice."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from pdsync.runner.loader import Loader
from pdsync.runner.queue_recovery import recover
from pdsync.runner.report.mutation_log import save_mutation_log
from pdsync.writeback.adoption import adopt
from tests.writeback.kit import COMPANY, bring_to, entry, open_outbox

if TYPE_CHECKING:
    from pathlib import Path

    from pdsync.model import State
    from pdsync.writeback.outbox import Outbox


@pytest.fixture
def source(tmp_path: Path) -> Outbox:
    """The queue as it was, without a journal: only the warehouse has a copy."""
    (tmp_path / "source").mkdir()
    return open_outbox(tmp_path / "source", journal=False)


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    """The queue of a control.db that was lost."""
    (tmp_path / "lost").mkdir()
    return open_outbox(tmp_path / "lost")


def test_w2_what_the_warehouse_records_is_restored_with_its_evidence(
    source: Outbox, outbox: Outbox, loader: Loader
) -> None:
    mutation = bring_to(source, "unknown", source.add([entry(key="k", expected={"title": "Old"})])[0])
    source.record_probe(mutation.id, "read deals/12", {"title": "Old"}, "unclear")
    source.settle(mutation.id, "needs_review", "several", "why", after={"id": 12}, bound="deals/12")
    source.resolve(mutation.id, "applied", "12", "looked")
    save_mutation_log(loader, source, {})
    notes = recover(outbox, loader.connection)
    assert outbox.snapshot(mutation.id) == source.snapshot(mutation.id)
    assert len(notes) == 1
    assert "1 change was restored" in notes[0]
    assert "#1 updateDeal: needs review" in notes[0]
    assert recover(outbox, loader.connection) == []


@pytest.mark.parametrize(
    ("recorded", "restored"),
    [
        ("queued", "needs_review"), ("approved", "needs_review"), ("armed", "armed"), ("unknown", "unknown"),
        ("applied", "applied"), ("rejected", "rejected"), ("conflict", "conflict"), ("cancelled", "cancelled"),
        ("needs_review", "needs_review"),
    ],
)  # fmt: skip
def test_w2_what_may_have_been_sent_since_is_not_queued_again(
    source: Outbox, outbox: Outbox, loader: Loader, recorded: State, restored: State
) -> None:
    mutation = bring_to(source, recorded)
    save_mutation_log(loader, source, {})
    recover(outbox, loader.connection)
    found = outbox.get(mutation.id)
    assert found.state == restored
    assert (found.reason == "state_lost") is (recorded in ("queued", "approved"))


def test_what_the_journal_has_as_waiting_still_waits(tmp_path: Path, outbox: Outbox, loader: Loader) -> None:
    (tmp_path / "other").mkdir()
    source = open_outbox(tmp_path / "other")
    mutation = bring_to(source, "queued")
    save_mutation_log(loader, source, {})
    outbox.journal = source.journal
    recover(outbox, loader.connection)
    assert outbox.get(mutation.id).state == "queued"


def test_w2_an_older_control_db_takes_over_what_ended_since(source: Outbox, outbox: Outbox, loader: Loader) -> None:
    mutation = source.add([entry()])[0]
    save_mutation_log(loader, source, {})
    adopt(outbox, [source.snapshot(mutation.id)])
    assert recover(outbox, loader.connection) == []  # the warehouse has nothing newer than control.db
    bring_to(source, "applied", mutation)
    save_mutation_log(loader, source, {})
    assert len(recover(outbox, loader.connection)) == 1
    assert outbox.get(mutation.id).state == "applied"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("operation = 'v3 beamDeal'", "#1 v3 beamDeal: an unknown operation"),
        ("operation = 'v2 beamDeal'", "#1 v2 beamDeal: an unknown operation"),
        ("operation = NULL", "no operation"),
        ("seq = NULL", "#? v2 updateDeal: Expected `int`, got `null` - at `$.seq`"),
        ("queued_at = NULL", "queued_at"),
        ("state = NULL", "Expected `str`, got `null` - at `$.state`"),
        ("state = 'pondering'", "Invalid enum value 'pondering' - at `$.state`"),
        ("payload = '[1]'", "Expected `object`, got `array`"),
        ('evidence = \'{"attempts": [{"n": 1}]}\'', "Object missing required field"),
        ("evidence = '{\"attempts\": 5}'", "Expected `array`, got `int`"),
        ('evidence = \'{"probes": [{"n": 1}]}\'', "its evidence lacks at, request, found, verdict"),
        ('resolution = \'{"verdict": "applied"}\'', "its evidence lacks at, by, remote_id, note"),
    ],
)
def test_a_row_of_another_version_is_skipped_with_a_note_and_the_others_are_restored(
    source: Outbox, outbox: Outbox, loader: Loader, change: str, why: str
) -> None:
    other, good = bring_to(source, "applied"), bring_to(source, "applied")
    save_mutation_log(loader, source, {})
    loader.connection.execute(f"UPDATE meta.mutations SET {change} WHERE id = ?", [other.id])
    notes = recover(outbox, loader.connection)
    assert [each.id for each in outbox.mutations()] == [good.id]
    assert len(notes) == 2
    assert "1 row of meta.mutations, written by another version of pdsync" in notes[1]
    assert why in notes[1]
    save_mutation_log(loader, outbox, {})
    rows = loader.connection.execute("SELECT id FROM meta.mutations").fetchall()
    assert {row[0] for row in rows} == {other.id, good.id}  # what was skipped is not lost


@pytest.mark.parametrize("column", ["batch", "queued_by", "payload", "push_id", "company_id", "evidence", "attempts"])
def test_a_column_that_may_be_null_is_no_obstacle(source: Outbox, outbox: Outbox, loader: Loader, column: str) -> None:
    mutation = bring_to(source, "applied")
    save_mutation_log(loader, source, {})
    loader.connection.execute(f"UPDATE meta.mutations SET {column} = NULL")
    recover(outbox, loader.connection)
    assert outbox.get(mutation.id).state == "applied"


def test_w2_a_mutation_whose_newer_record_cannot_be_read_is_not_sent(outbox: Outbox, loader: Loader) -> None:
    outbox.journal = None
    mutation = bring_to(outbox, "applied")
    save_mutation_log(loader, outbox, {})
    loader.connection.execute("""UPDATE meta.mutations SET evidence = '{"attempts": 5}'""")
    with outbox.control.transaction() as db:  # an older copy, from before it was sent
        db.execute("UPDATE mutations SET state = 'queued', push_id = NULL, settled_at = NULL")
        db.execute("DELETE FROM attempts")
    assert "written by another version" in recover(outbox, loader.connection)[0]
    found = outbox.get(mutation.id)
    assert (found.state, found.reason) == ("needs_review", "state_lost")


def test_a_warehouse_of_before_the_evidence_was_kept_restores_nothing(outbox: Outbox, loader: Loader) -> None:
    loader.connection.execute("ALTER TABLE meta.mutations DROP COLUMN evidence")
    loader.connection.execute("INSERT INTO meta.mutations (id, state) VALUES ('a', 'applied')")
    assert recover(outbox, loader.connection) == []


def test_a_warehouse_of_before_resolutions_restores_the_rest(source: Outbox, outbox: Outbox, loader: Loader) -> None:
    mutation = bring_to(source, "applied")
    save_mutation_log(loader, source, {})
    for column in ("resolution", "batch", "dedupe_key", "company_id", "expected", "supersedes", "bound", "undo_of"):
        loader.connection.execute(f"ALTER TABLE meta.mutations DROP COLUMN {column}")
    recover(outbox, loader.connection)
    assert (outbox.get(mutation.id).state, outbox.get(mutation.id).batch) == ("applied", "restored")


def test_a_file_that_is_missing_or_damaged_is_skipped(tmp_path: Path, outbox: Outbox) -> None:
    damaged = tmp_path / "damaged.duckdb"
    damaged.write_bytes(b"no database")
    assert recover(outbox, files=[tmp_path / "missing.duckdb", damaged]) == []


def test_a_file_beside_is_read_too(tmp_path: Path, source: Outbox, outbox: Outbox) -> None:
    mutation = bring_to(source, "applied")
    loader = Loader(tmp_path / "beside.duckdb")
    loader.open(COMPANY, "Acme")
    save_mutation_log(loader, source, {})
    asyncio.run(loader.close())
    assert len(recover(outbox, files=[loader.path])) == 1
    assert outbox.get(mutation.id).state == "applied"


def test_a_note_names_five_and_counts_the_rest(source: Outbox, outbox: Outbox, loader: Loader) -> None:
    for _ in range(7):
        bring_to(source, "applied")
    save_mutation_log(loader, source, {})
    note = recover(outbox, loader.connection)[0]
    assert "7 changes were restored" in note
    assert "#5 updateDeal: applied, and 2 more" in note
    assert "#6" not in note
