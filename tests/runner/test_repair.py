"""A repair fetches what differs, marks what is known to be deleted up to a limit, and claims only what it verified."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from pdsync.core import catalogue
from pdsync.model import Page, Receipt, StreamReceipt
from pdsync.reconcile.sweep import Sweep
from pdsync.runner.reconcile.by_count import CountReconciler
from pdsync.runner.reconcile.comparison import Comparison
from pdsync.runner.reconcile.findings import Finding, ReconcileRequest, ReconcileResult
from pdsync.runner.reconcile.repair import Repair
from tests.runner.kit import T0, deal, encode, load, open_session, text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pdsync.runner.session import OnlineSession
    from pdsync.sandbox import RunningSandbox

pytestmark = pytest.mark.asyncio(loop_scope="module")
DEALS = catalogue.stream("deals")
GET_DEALS = catalogue.operations("v2")["getDeals"]
LATER = T0 + timedelta(minutes=5)
UNKNOWN = 10**9


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session(box: RunningSandbox, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[OnlineSession]:
    async with open_session(tmp_path_factory.mktemp("project"), box) as opened:
        yield opened


async def repair(session: OnlineSession, *shown: dict[str, Any], **options: Any) -> Repair:
    """A repair after a sweep that has shown these deals; the table has deals 1001 to 1012 only."""
    session.loader.table(DEALS, "v2")
    session.loader.connection.execute("DELETE FROM deals")
    await load(session, "deals", *(deal(n) for n in range(1001, 1013)))
    comparison = Comparison(session, ReconcileRequest(repair=True, **options))
    comparison.sweeps["deals"] = Sweep(session.loader.connection, session.loader.table(DEALS, "v2"), 1)
    comparison.sweeps["deals"].add("live", GET_DEALS, [Page(-1, 0, encode(shown), len(shown), None, LATER)])
    return Repair(comparison)


def result(session: OnlineSession, *findings: Finding) -> ReconcileResult:
    session.receipt = Receipt(session.receipt.run_id, "reconcile", T0)
    return ReconcileResult(session.receipt, list(findings), swept={"deals": (0, 12, 0)})


def marked(session: OnlineSession) -> set[str]:
    rows = session.loader.connection.execute("SELECT id FROM deals WHERE _deleted_at IS NOT NULL").fetchall()
    return {str(id) for (id,) in rows}


@pytest.mark.parametrize(
    ("count", "options", "is_held_back"),
    [(10, {}, False), (11, {}, True), (11, {"max_tombstones": 11}, False), (1, {"max_tombstones": 0}, True)],
)
async def test_s8_more_tombstones_than_the_limit_mark_nothing(
    session: OnlineSession, count: int, options: dict[str, int], is_held_back: bool
) -> None:
    keys = {str(n) for n in range(1001, 1001 + count)}
    found = result(session, *(Finding("deals", key, "purged", "404") for key in sorted(keys)))
    own = await repair(session, **options)
    await own.repair_all([DEALS], found)
    assert marked(session) == (set() if is_held_back else keys)
    assert len(found.left) == (count if is_held_back else 0)
    assert bool(found.held_back) is is_held_back
    assert f"--max-tombstones {count}" in (found.held_back or f"--max-tombstones {count}")


async def test_s8_every_stream_over_its_limit_is_named_and_one_option_lets_all_of_them_pass(
    session: OnlineSession,
) -> None:
    gone = [Finding("deals", str(n), "purged", "404") for n in range(1001, 1013)]
    gone += [Finding("persons", str(n), "purged", "404") for n in range(1, 12)]
    found = result(session, *gone)
    found.swept["persons"] = (0, 11, 0)
    own = await repair(session)
    await own.repair_all([DEALS, catalogue.stream("persons")], found)
    text = found.held_back or ""
    assert "12 deals of 12 would be marked" in text
    assert "11 persons of 11 would be marked" in text
    assert text.count("--max-tombstones 1") == 1
    assert text.endswith("--max-tombstones 12")


@pytest.mark.parametrize(
    ("kind", "is_marked"),
    [("soft_deleted", True), ("purged", True), ("merged", True), ("converted", True), ("extra", True),
     ("hidden", False), ("absent_unknown", False)],
)  # fmt: skip
async def test_s8_only_evidence_marks_a_row(session: OnlineSession, kind: str, is_marked: bool) -> None:
    own = await repair(session)
    found = result(session, Finding("deals", "1001", kind, "evidence", winner="1002" if kind == "merged" else None))
    await own.repair_all([DEALS], found)
    assert marked(session) == ({"1001"} if is_marked else set())
    assert found.findings[0].repaired is is_marked
    if kind == "merged":
        merges = session.loader.connection.execute("SELECT entity, loser_id, winner_id FROM meta.merges").fetchall()
        assert [tuple(map(str, row)) for row in merges] == [("deals", "1001", "1002")]


@pytest.mark.parametrize(
    ("fetched", "listed", "is_confirmed", "is_different"),
    [
        (deal(1001), deal(1001), True, False),
        (deal(1001, title="x"), deal(1001), False, True),  # it was not loaded
        (deal(1001), deal(1001, LATER), False, True),  # the list has shown a newer version
        (None, deal(1001), False, False),  # no answer shows it
    ],
)
async def test_s7_a_repair_is_claimed_only_if_the_row_equals_the_source(
    session: OnlineSession,
    fetched: dict[str, Any] | None,
    listed: dict[str, Any],
    is_confirmed: bool,
    is_different: bool,
) -> None:
    own = await repair(session, listed)
    records = [fetched] if fetched else []
    pages = [Page(0, 0, encode(records), len(records), None, LATER)]
    confirmed = await own._confirm(DEALS, "v2", DEALS.v2[0], GET_DEALS, pages, ["1001"])
    assert confirmed == ({"1001"} if is_confirmed else set())
    assert own.still_different["deals"] == ({"1001"} if is_different else set())


async def test_s7_what_is_missing_is_fetched_and_what_no_longer_exists_stays_a_finding(
    session: OnlineSession, box: RunningSandbox
) -> None:
    live = next(entry["record"] for entry in box.dump("deals") if entry["state"] == "live")
    own = await repair(session)
    missing = [Finding("deals", str(id), "missing", source="live") for id in (live["id"], UNKNOWN)]
    found = result(session, *missing)
    await own.repair_all([DEALS], found)
    assert [each.key for each in found.left] == [str(UNKNOWN)]
    rows = session.loader.connection.execute("SELECT title FROM deals WHERE id = ?", [live["id"]]).fetchall()
    assert rows == [(live["title"],)]
    saved = session.loader.connection.execute("SELECT key FROM meta.findings").fetchall()
    assert {key for (key,) in saved} >= {str(live["id"]), str(UNKNOWN)}  # before the repair: a kill loses none
    assert found.receipt.gaps == []


async def test_s7_what_differs_after_its_repair_is_left_and_a_gap_of_the_run(
    session: OnlineSession, box: RunningSandbox
) -> None:
    live = next(entry["record"] for entry in box.dump("deals") if entry["state"] == "live")
    own = await repair(session, {**live, "update_time": "2100-01-01T00:00:00Z"})  # what a request by id lags behind
    found = result(session, Finding("deals", str(live["id"]), "stale", source="live"))
    await own.repair_all([DEALS], found)
    assert [each.key for each in found.left] == [str(live["id"])]
    assert [(gap.stream, gap.kind) for gap in found.receipt.gaps] == [("deals", "differs")]
    assert f"1 records still differ after the repair ({live['id']})" in found.receipt.gaps[0].detail


async def test_s7_a_row_that_could_not_be_marked_is_left_and_a_gap_of_the_run(session: OnlineSession) -> None:
    own = await repair(session)
    session.loader.connection.execute(
        "UPDATE deals SET _run_id = 'another', _verified_at = ? WHERE id = 1002", [session.began + timedelta(days=1)]
    )
    found = result(session, *(Finding("deals", key, "purged", "404") for key in ("1001", "1002")))
    await own.repair_all([DEALS], found)
    assert marked(session) == {"1001"}
    assert [each.key for each in found.left] == ["1002"]
    assert [(gap.stream, gap.kind) for gap in found.receipt.gaps] == [("deals", "differs")]


async def test_s7_of_a_list_that_is_read_again_whole_only_what_equals_its_rows_is_claimed(
    session: OnlineSession, box: RunningSandbox
) -> None:
    """No operation reads a single activity type, so all of them are read; one that is no longer listed stays."""
    types = catalogue.stream("activity_types")
    first, *_ = (entry["record"] for entry in box.dump("activity_types") if entry["state"] == "live")
    session.loader.table(types, "v1")
    session.progress["activity_types"] = StreamReceipt()
    comparison = Comparison(session, ReconcileRequest(repair=True))
    comparison.sweeps["activity_types"] = Sweep(session.loader.connection, session.loader.table(types, "v1"), 2)
    keys = [str(first["id"]), str(UNKNOWN)]
    found = result(session, *(Finding("activity_types", key, "missing") for key in keys))
    await Repair(comparison).repair_all([types], found)
    assert [each.key for each in found.left] == [str(UNKNOWN)]


async def test_s7_of_the_lists_of_parents_only_what_they_show_is_claimed(session: OnlineSession) -> None:
    products, connection = catalogue.stream("deal_products"), session.loader.connection
    parent = next(source.parent for source in products.v2 if source.parent)
    comparison = Comparison(session, ReconcileRequest(repair=True))
    counted = CountReconciler(comparison.reader, products, parent, None)
    shown = {"id": 21, "deal_id": 2, "product_id": 5, "update_time": text(T0)}
    counted.pages = [Page(-1, 0, encode([shown]), 1, None, LATER, context={"deal_ids": "2"})]
    sweep = Sweep(connection, session.loader.table(products, "v2"), 3)
    sweep.add("all", catalogue.operations("v2")["getDealsProducts"], counted.pages)
    comparison.counted["deal_products"], comparison.sweeps["deal_products"] = counted, sweep
    found = result(session, *(Finding("deal_products", key, "missing") for key in ("21", "22")))
    await Repair(comparison).repair_all([products], found)
    assert [each.key for each in found.left] == ["22"]
    assert connection.execute("SELECT id, deal_id FROM deal_products").fetchall() == [(21, 2)]
