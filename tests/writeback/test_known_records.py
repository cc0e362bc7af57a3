"""What the warehouse and the queue remember of records that no read shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pdsync.core import catalogue
from pdsync.writeback.known_records import KnownRecords
from tests.writeback.kit import arm, bring_to, entry, open_outbox, open_warehouse

if TYPE_CHECKING:
    from pathlib import Path

    import duckdb

    from pdsync.writeback.outbox import Outbox


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return open_outbox(tmp_path)


@pytest.fixture
def warehouse() -> duckdb.DuckDBPyConnection:
    connection = open_warehouse()
    connection.execute("CREATE TABLE main.deals (id BIGINT, _deleted_at TIMESTAMPTZ)")
    connection.execute("INSERT INTO main.deals VALUES (101, NULL), (4711, NULL), (4713, NULL), (102, now())")
    return connection


def test_w2_rows_of_the_warehouse_were_there_deleted_ones_too(
    warehouse: duckdb.DuckDBPyConnection, outbox: Outbox
) -> None:
    known = KnownRecords(warehouse, outbox)
    assert [known.existed("deals", f"deals/{id}") for id in (101, 102, 103)] == [True, True, False]
    assert not known.existed("persons", "persons/101")  # that was never synced


def test_w2_without_a_warehouse_the_queue_knows_what_it_changed(outbox: Outbox) -> None:
    known = KnownRecords(None, outbox)
    assert not known.existed("deals", "deals/12")
    bring_to(outbox, "applied")
    assert known.existed("deals", "deals/12")


def test_children_are_the_live_rows_that_name_the_record_archived_ones_in_their_own_list(
    warehouse: duckdb.DuckDBPyConnection, outbox: Outbox
) -> None:
    known = KnownRecords(warehouse, outbox)
    warehouse.execute("DROP TABLE deals")
    warehouse.execute("CREATE TABLE deals (id BIGINT, person_id BIGINT, is_archived BOOLEAN, _deleted_at TIMESTAMPTZ)")
    warehouse.execute("INSERT INTO deals VALUES (1, 5, false, NULL), (2, 5, true, NULL), (3, 6, false, NULL)")
    warehouse.execute("INSERT INTO deals VALUES (4, 5, false, now())")
    columns = ("person_id", "person_ids")
    listed = [catalogue.operation(name) for name in ("v2 getDeals", "v2 getArchivedDeals", "v1 getNotes")]
    assert [known.children(each, columns, "5") for each in listed] == [{"1"}, {"2"}, set()]
    assert known.children(listed[0], ("lead_id",), "5") == KnownRecords(None, outbox).children(listed[0], columns, "5")


def test_a_merge_is_known_from_the_queue_or_exactly_from_the_warehouse(
    warehouse: duckdb.DuckDBPyConnection, outbox: Outbox
) -> None:
    for loser, winner, confidence in ((101, 7, "exact"), (102, 8, "likely")):
        warehouse.execute(
            "INSERT INTO meta.merges (entity, loser_id, winner_id, confidence) VALUES ('deals', ?, ?, ?)",
            [loser, winner, confidence],
        )
    known = KnownRecords(warehouse, outbox)
    assert [known.merged_into("deals", id) for id in ("101", "102", "103", "abc")] == ["7", None, None, None]
    (mutation,) = outbox.add([entry("v1 mergeDeals", {"id": 12, "merge_with_id": 9})])
    bring_to(outbox, "applied", mutation, remote_id="9")
    assert known.merged_into("deals", "12") == "9"


@pytest.mark.parametrize(
    ("target", "hint"),
    [
        ("deals/1011", "the warehouse has the id 101"),
        ("deals/4712", "the warehouse has the ids 4713, 4711"),
        ("deals/9", "the warehouse has 3 deals, from id 101 on"),
    ],
)
def test_a_hint_names_ids_that_are_similar(
    warehouse: duckdb.DuckDBPyConnection, outbox: Outbox, target: str, hint: str
) -> None:
    assert KnownRecords(warehouse, outbox).hint("deals", target) == hint


def test_a_hint_without_a_table(outbox: Outbox) -> None:
    assert KnownRecords(None, outbox).hint("deals", "deals/9") == "see that the id is right"


def test_w4_an_attempt_that_was_not_carried_out_is_none(outbox: Outbox) -> None:
    known = KnownRecords(None, outbox)
    mutation = bring_to(outbox, "approved")
    arm(outbox, mutation)
    outbox.mark_not_executed(mutation.id, "429")
    assert not known.may_have_happened(mutation.id)
    arm(outbox, mutation)
    assert known.may_have_happened(mutation.id)
