"""Which applied changes the tables do not show yet, and since when a removed record is gone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from pdsync.core.answer import Answer
from pdsync.model import FINDINGS, Receipt, StreamReceipt, Tombstone
from pdsync.runner.report.applied_changes import (
    PendingRemoval,
    affected_streams,
    find_pending,
    find_read,
    find_unreflected,
    tombstone_applied,
)
from pdsync.runner.report.mutation_log import save_mutation_log
from tests.runner.kit import T0, deal, load, open_session
from tests.writeback.kit import arm, bring_to, entry

if TYPE_CHECKING:
    from pathlib import Path

    from pdsync.model import Mutation
    from pdsync.runner.loader import Loader
    from pdsync.writeback.outbox import Outbox

DELETE, MERGE = ("v2 deleteDeal", {"id": 12}), ("v1 mergeDeals", {"id": 12, "merge_with_id": 13})
UPDATE = ("v2 updateDeal", {"id": 12, "title": "New"})


@pytest.fixture
def loader(loader: Loader) -> Loader:
    """The work file, with deal 12 as it was verified in November 2026."""
    loader.connection.execute(
        "CREATE TABLE main.deals (id BIGINT, _deleted_at TIMESTAMPTZ, _verified_at TIMESTAMPTZ);"
        "INSERT INTO main.deals VALUES (12, NULL, '2026-11-01 00:00:00+00'), (13, NULL, '2026-11-01 00:00:00+00')"
    )
    return loader


def end(
    outbox: Outbox, change: tuple[str, dict[str, Any]], state: Any = "applied", reason: str | None = None
) -> Mutation:
    mutation = outbox.add([entry(*change)])[0]
    outbox.settle(mutation.id, state, reason)
    return outbox.get(mutation.id)


@pytest.mark.parametrize(
    ("change", "state", "reason", "streams"),
    [
        (UPDATE, "applied", None, ("deals",)),
        (UPDATE, "needs_review", None, ("deals",)),
        (UPDATE, "rejected", None, ()),
        (UPDATE, "conflict", None, ()),
        (UPDATE, "applied", "already_so", ()),
        (("v2 deleteDealProduct", {"id": 12, "product_attachment_id": 3}), "applied", None, ("deal_products", "deals")),
    ],
)
def test_w13_the_streams_that_a_change_shows_in(
    outbox: Outbox, change: tuple[str, dict[str, Any]], state: str, reason: str | None, streams: tuple[str, ...]
) -> None:
    assert affected_streams([end(outbox, change, state, reason)]) == streams


def test_w13_a_change_is_unreflected_until_a_run_has_written_it(loader: Loader, outbox: Outbox) -> None:
    first, second = end(outbox, UPDATE), end(outbox, UPDATE)
    end(outbox, UPDATE, "rejected")
    end(outbox, UPDATE, "applied", "already_so")
    save_mutation_log(loader, outbox, {first.id: "run-1"})
    assert [each.id for each in find_unreflected(outbox, loader.connection)] == [second.id]


def test_a_warehouse_of_before_the_column_reflects_nothing(loader: Loader, outbox: Outbox) -> None:
    mutation = end(outbox, UPDATE)
    loader.connection.execute("ALTER TABLE meta.mutations DROP COLUMN reflected_by")
    assert [each.id for each in find_unreflected(outbox, loader.connection)] == [mutation.id]


@pytest.mark.parametrize(("change", "kind", "winner"), [(DELETE, "deleted", None), (MERGE, "merged", "13")])
def test_w13_a_removed_record_is_pending(
    loader: Loader, outbox: Outbox, change: tuple[str, dict[str, Any]], kind: str, winner: str | None
) -> None:
    mutation = end(outbox, change)
    [found] = find_pending(outbox, loader.connection, 0)
    assert (found.mutation, found.stream, found.was_read_since) == (mutation.id, "deals", False)
    assert (found.tombstone.key, found.tombstone.winner, found.tombstone.at) == ("12", winner, mutation.settled_at)
    assert kind in str(found.tombstone)


@pytest.mark.parametrize(
    ("change", "state", "reason"),
    [
        (UPDATE, "applied", None), (DELETE, "rejected", None), (DELETE, "needs_review", None),
        (DELETE, "applied", "already_so"), (("v2 deletePerson", {"id": 5}), "applied", None),  # persons: no table here
    ],
)  # fmt: skip
def test_s8_nothing_else_is_pending(
    loader: Loader, outbox: Outbox, change: tuple[str, dict[str, Any]], state: str, reason: str | None
) -> None:
    end(outbox, change, state, reason)
    assert find_pending(outbox, loader.connection, 0) == []


@pytest.mark.parametrize(("minutes", "is_back"), [(-5, False), (5, False), (15, True)])
def test_s8_a_record_that_was_read_later_came_back(loader: Loader, outbox: Outbox, minutes: int, is_back: bool) -> None:
    mutation = end(outbox, DELETE)
    assert mutation.settled_at
    read_at = mutation.settled_at + timedelta(minutes=minutes)
    loader.connection.execute("UPDATE main.deals SET _verified_at = ? WHERE id = 12", [read_at])
    assert [each.was_read_since for each in find_pending(outbox, loader.connection, 600)] == [is_back]


@pytest.mark.parametrize(
    ("header", "is_used"),
    [
        ("Sun, 22 Nov 2026 12:00:00 GMT", True), ("Sun, 22 Nov 2026 12:00:00", False), ("no date", False),
        (None, False),
    ],
)  # fmt: skip
def test_o5_a_record_is_gone_since_the_time_of_the_server(
    loader: Loader, outbox: Outbox, header: str | None, is_used: bool
) -> None:
    mutation = bring_to(outbox, "approved", outbox.add([entry(*DELETE)])[0])
    arm(outbox, mutation)
    server_time = datetime(2026, 11, 22, 12, tzinfo=UTC)
    outbox.record_answer(mutation.id, Answer(200, {"date": header} if header else {}, b"{}", server_time))
    outbox.settle(mutation.id, "applied")
    [found] = find_pending(outbox, loader.connection, 0)
    assert found.tombstone.at == (server_time if is_used else outbox.get(mutation.id).settled_at)


@pytest.mark.parametrize(
    ("read_until", "verified", "gone"),  # minutes after the server's `Date`
    [
        (None, -60, 0),
        (None, 5, 5),  # shown after it was removed: by a list that lags, or by a server whose clock is ahead
        (None, 15, None),
        (180, 180, 180), (180, 185, 185),  # the `Date` header is three hours behind
        (180, 195, None),
        (-60, -90, 0),
    ],
)  # fmt: skip
def test_s7_o5_a_deletion_is_later_than_what_was_read_before_it(
    loader: Loader, outbox: Outbox, read_until: int | None, verified: int, gone: int | None
) -> None:
    """Else a record that was read just before would count as restored, and would never be marked."""
    server_time = datetime(2026, 11, 22, 12, tzinfo=UTC)

    def after(minutes: int) -> datetime:
        return server_time + timedelta(minutes=minutes)

    outbox.read_until = None if read_until is None else after(read_until)
    mutation = bring_to(outbox, "approved", outbox.add([entry(*DELETE)])[0])
    arm(outbox, mutation)
    answer = Answer(200, {"date": "Sun, 22 Nov 2026 12:00:00 GMT"}, b"{}", server_time)
    outbox.record_answer(mutation.id, answer)
    outbox.settle(mutation.id, "applied")
    loader.connection.execute("UPDATE main.deals SET _verified_at = ? WHERE id = 12", [after(verified)])
    [found] = find_pending(outbox, loader.connection, 600)
    assert found.was_read_since == (gone is None)
    if gone is not None:
        assert found.tombstone.at == after(gone)


def test_s8_no_tombstone_is_later_than_now(loader: Loader, outbox: Outbox) -> None:
    end(outbox, DELETE)
    now = datetime(2026, 11, 2, tzinfo=UTC)
    [found] = find_pending(outbox, loader.connection, 600, now)
    assert found.tombstone.at == now


@pytest.mark.parametrize(
    ("change", "started", "complete", "is_read"),
    [
        (UPDATE, 1, True, True),
        (UPDATE, 0, True, True),
        (UPDATE, -1, True, False),  # the run had begun before
        (UPDATE, 1, False, False),
        (DELETE, 1, True, False),  # no list shows what is gone
    ],
)
def test_w13_a_complete_read_after_a_change_shows_it(
    outbox: Outbox, change: tuple[str, dict[str, Any]], started: int, complete: bool, is_read: bool
) -> None:
    mutation = end(outbox, change)
    assert mutation.settled_at
    receipt = Receipt("run-1", "sync", mutation.settled_at + timedelta(seconds=started))
    receipt.streams["deals"] = StreamReceipt(complete=complete)
    assert find_read(receipt, [mutation]) == ({mutation.id} if is_read else set())


async def test_w13_s14_removed_records_get_their_tombstones_through_the_archive(tmp_path: Path) -> None:
    gone = Tombstone("1", "deleted", "push p", T0 + timedelta(minutes=1))
    merged = Tombstone("2", "merged", "push p", T0 + timedelta(minutes=2), winner="3")
    back = Tombstone("3", "deleted", "push p", T0)
    async with open_session(tmp_path) as session:
        await load(session, "deals", *(deal(n) for n in (1, 2, 3)))
        pending = [
            PendingRemoval("a", "deals", gone, was_read_since=False),
            PendingRemoval("b", "deals", merged, was_read_since=False),
            PendingRemoval("c", "deals", back, was_read_since=True),
        ]
        now = T0 + timedelta(hours=1)
        shown = await tombstone_applied(
            session.settings, session.control, session.loader, session.archive, session.receipt.run_id, now, pending
        )
        assert shown == {"a", "b", "c"}
        rows = session.loader.connection.execute("SELECT id, _deleted_at FROM deals ORDER BY id").fetchall()
        assert rows == [(1, gone.at), (2, merged.at), (3, None)]
        merges = session.loader.connection.execute("SELECT loser_id, winner_id FROM meta.merges").fetchall()
        assert [tuple(map(str, row)) for row in merges] == [("2", "3")]
        [walk] = [walk for walk, _ in session.control.walks() if walk.source == FINDINGS]
        assert [page.rows for page in session.control.sealed_pages(walk.id)] == [2]
