"""How a run ends: which streams are complete, which gaps are named, its exit code, and what the tables keep."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from pdsync.core.control import Control
from pdsync.core.custom_fields import SchemaChange
from pdsync.errors import BudgetSpent, FeatureOff, Forbidden, PdsyncError, ServerTrouble, Stopped
from pdsync.load.commit import Counts, note_change
from pdsync.model import IncompleteStream, Receipt, StreamReceipt
from pdsync.runner.loader import Loader
from pdsync.runner.report.receipt import (
    StreamEnd,
    add_counts,
    begin_receipt,
    conclude,
    count_changes,
    exit_code,
    finish_run,
    kind_of_gap,
    load_receipts,
    save_receipt,
)

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
STOPPED = BudgetSpent(spent=10, limit=10, resets_at=NOW)
FORBIDDEN = Forbidden("no right", status=403, operation="getDeals")
OFF = FeatureOff("not in the plan", status=402, operation="getProjects")
FAILED = PdsyncError("it broke\nhow")


def concluded(**ends: StreamEnd) -> Receipt:
    receipt = Receipt("run", "sync", NOW)
    conclude(receipt, ends)
    return receipt


def test_s9_a_stream_is_complete_only_if_no_gap_names_it() -> None:
    receipt = concluded(
        whole=StreamEnd(StreamReceipt(inserted=3)),
        failed=StreamEnd(StreamReceipt(), error=FAILED),
        cut=StreamEnd(StreamReceipt(), missing="2 windows are left"),
        bad=StreamEnd(StreamReceipt(quarantined=2)),
        off=StreamEnd(StreamReceipt(), note="not part of the plan"),
    )
    assert {name: entry.complete for name, entry in receipt.streams.items()} == {
        "whole": True, "failed": False, "cut": False, "bad": False, "off": True,
    }  # fmt: skip
    assert receipt.gaps == [
        IncompleteStream("failed", "failed", "it broke"),
        IncompleteStream("cut", "stopped", "2 windows are left"),
        IncompleteStream("bad", "quarantined", "2 records can't be read: meta.quarantine"),
    ]
    assert receipt.streams["failed"].error == "it broke\nhow"
    assert receipt.streams["off"].note == "not part of the plan"
    assert receipt.finished_at is not None


def test_s9_a_gap_that_was_found_before_counts_too() -> None:
    receipt = Receipt("run", "reconcile", NOW, gaps=[IncompleteStream("deals", "differs", "2 records")])
    conclude(receipt, {"deals": StreamEnd(StreamReceipt()), "persons": StreamEnd(StreamReceipt())})
    assert not receipt.streams["deals"].complete
    assert receipt.streams["persons"].complete


def test_requests_and_tokens_are_those_of_the_process() -> None:
    receipt = concluded(deals=StreamEnd(StreamReceipt(read=5), StreamReceipt(requests=2, tokens=40, read=9)))
    entry = receipt.streams["deals"]
    assert (entry.read, entry.requests, entry.tokens) == (5, 2, 40)


@pytest.mark.parametrize(
    ("error", "kind"),
    [(STOPPED, "stopped"), (FORBIDDEN, "forbidden"), (OFF, "forbidden"), (FAILED, "failed"),
     (ServerTrouble("503"), "failed")],
)  # fmt: skip
def test_each_error_is_one_kind_of_gap(error: PdsyncError, kind: str) -> None:
    assert kind_of_gap(error) == kind


@pytest.mark.parametrize(
    ("errors", "stopped", "interrupted", "code"),
    [
        ({}, None, False, 0),
        ({}, None, True, 130),
        ({"a": STOPPED}, STOPPED, True, 130),
        ({"a": STOPPED}, STOPPED, False, 3),
        ({"a": STOPPED}, None, False, 3),  # the share of dependent streams: nothing else was stopped
        ({"a": STOPPED, "b": FAILED}, None, False, 1),
        ({"a": FORBIDDEN}, None, False, 4),
        ({"a": FORBIDDEN, "b": OFF}, None, False, 4),
        ({"a": FORBIDDEN, "b": FAILED}, None, False, 1),
        ({"a": FAILED}, None, False, 1),
    ],
)
def test_the_exit_code_of_the_contract(
    errors: dict[str, PdsyncError], stopped: Stopped | None, interrupted: bool, code: int
) -> None:
    receipt = concluded(whole=StreamEnd(StreamReceipt()), **{
        name: StreamEnd(StreamReceipt(), error=error) for name, error in errors.items()
    })  # fmt: skip
    assert exit_code(receipt, errors, stopped, interrupted=interrupted) == code


def test_quarantined_records_outrank_a_missing_right() -> None:
    ends = {"a": StreamEnd(StreamReceipt(), error=FORBIDDEN), "b": StreamEnd(StreamReceipt(quarantined=1))}
    assert exit_code(concluded(**ends), {"a": FORBIDDEN}, None, interrupted=False) == 1


def test_counts_are_added_by_name() -> None:
    entry = StreamReceipt(requests=4, read=1, updated=1)
    add_counts(entry, Counts(read=10, inserted=2, updated=3, schema_changes=1), ("inserted", "updated"))
    assert (entry.requests, entry.read, entry.inserted, entry.updated, entry.schema_changes) == (4, 1, 2, 4, 0)
    add_counts(entry, Counts(1, 1, 1, 1, 1, 1, 1))
    assert (entry.read, entry.inserted, entry.deleted, entry.quarantined) == (2, 3, 1, 1)
    assert Counts(1, 2, 3) + Counts(4, 5, 6, 7) == Counts(5, 7, 9, 7)


def test_runs_of_one_moment_have_ids_of_their_own() -> None:
    assert len({begin_receipt("sync").run_id for _ in range(20)}) == 20


def test_the_short_form_of_a_receipt_has_two_lines_at_most() -> None:
    receipt = concluded(deals=StreamEnd(StreamReceipt(read=1234)), users=StreamEnd(StreamReceipt(read=1)))
    receipt.requests, receipt.tokens, receipt.exit_code = 5, 1000, 0
    assert repr(receipt) == "<Receipt run of sync: complete, rows=1,235 requests=5 tokens=1,000 exit_code=0>"
    receipt.gaps += [IncompleteStream(name, "failed", "why\nnot") for name in "abcd"]
    assert repr(receipt).splitlines()[1] == " gaps: a (failed), b (failed), c (failed) and 1 more>"
    assert len(repr(receipt).splitlines()) == 2


def test_a_run_lasts_until_its_warehouse_is_published(tmp_path: Path) -> None:
    with contextlib.closing(Control(tmp_path / "control.db")) as control:
        receipt = begin_receipt("sync")
        control.start_run(receipt.run_id, receipt.command, receipt.started_at)
        receipt.finished_at = receipt.started_at
        assert receipt.duration == 0
        finish_run(control, receipt)
        (stored,) = control.receipts(1)
    assert stored.duration == receipt.duration > 0
    assert Receipt("old", "sync", NOW, NOW + timedelta(seconds=3)).duration == 3  # of an older pdsync
    assert Receipt("killed", "sync", NOW).duration == 0


def test_s9_a_receipt_is_kept_and_replaced_as_a_whole(tmp_path: Path) -> None:
    loader = Loader(tmp_path / "work.duckdb")
    loader.open(1, "Example")
    try:
        receipt = concluded(deals=StreamEnd(StreamReceipt(read=3, inserted=2)), notes=StreamEnd(StreamReceipt()))
        receipt.gaps.append(IncompleteStream("deals", "fewer", "the list: it shows less"))
        receipt.exit_code, receipt.tokens, receipt.as_of = 4, 20, NOW
        save_receipt(loader, receipt)
        (stored,) = load_receipts(loader.connection)
        assert stored.gaps == receipt.gaps  # also with a colon in the detail
        assert (stored.exit_code, stored.tokens, stored.as_of) == (4, 20, NOW)
        assert (stored.streams["deals"].read, stored.streams["deals"].inserted) == (3, 2)
        del receipt.streams["notes"]
        receipt.gaps.clear()
        save_receipt(loader, receipt)
        (stored,) = load_receipts(loader.connection)
        assert set(stored.streams) == {"deals"}
        assert stored.gaps == []
    finally:
        asyncio.run(loader.close())


def test_what_the_first_reading_of_a_stream_shows_is_no_change_of_its_schema(tmp_path: Path) -> None:
    loader = Loader(tmp_path / "work.duckdb")
    loader.open(1, "Example")
    try:
        for run, read in (("1-failed", 0), ("2-first", 9), ("3-second", 9)):
            change = SchemaChange("deals", "unknown_key", run, "kept in _extra: no column takes it")
            note_change(loader.connection, run, change)
            batch = [1, 1, 1, run, "deals", NOW, read, 0, 0, 0, 0, 0, 1]
            loader.connection.execute(
                f"INSERT INTO meta._applied_batches VALUES ({', '.join('?' * len(batch))})", batch
            )
            receipt = Receipt(run, "sync", NOW, NOW, count_changes(loader, run))
            save_receipt(loader, receipt)
            assert receipt.streams["deals"].schema_changes == (run == "3-second")
    finally:
        asyncio.run(loader.close())
