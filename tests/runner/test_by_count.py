"""Of a stream with a list for each parent, only the lists are read whose parents count otherwise than the warehouse."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from msgspec.structs import replace

from pdsync.core import catalogue
from pdsync.model import Page, Parent
from pdsync.reconcile.sweep import Sweep
from pdsync.runner.reconcile.by_count import CountReconciler, ParentCounts
from pdsync.runner.reconcile.findings import CountMismatch
from pdsync.runner.sync.walk_reader import WalkReader
from tests.runner.kit import T0, deal, encode, load, open_session, text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pdsync.runner.session import OnlineSession

pytestmark = pytest.mark.asyncio(loop_scope="module")
PRODUCTS = catalogue.stream("deal_products")
PARENT = next(source.parent for source in PRODUCTS.v2 if source.parent)


def product(number: int, deal_id: int, **more: Any) -> dict[str, Any]:
    return {"id": number, "deal_id": deal_id, "product_id": 5, "update_time": text(T0), **more}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[OnlineSession]:
    """Deals with their counts of products: 1 and 3 as in the warehouse, 2 more, 5 less, 4 without a count."""
    async with open_session(tmp_path_factory.mktemp("project")) as opened:
        counts = {1: 2, 2: 3, 3: 0, 4: None, 5: 1}
        await load(opened, "deals", *(deal(n, products_count=count) for n, count in counts.items()))
        owners = {11: 1, 12: 1, 21: 2, 41: 4, 51: 5, 52: 5}
        await load(opened, "deal_products", *(product(n, owner) for n, owner in owners.items()))
        yield opened


def reconciler(session: OnlineSession, *, deep: bool = False, parent: Parent | None = PARENT) -> CountReconciler:
    assert parent
    return CountReconciler(WalkReader(session), PRODUCTS, parent, None, deep=deep)


async def test_s7_the_lists_of_parents_with_another_count_are_read(session: OnlineSession) -> None:
    counts = reconciler(session)._compare_counts(session.loader.connection)
    assert counts == ParentCounts(at_source=2, in_warehouse=5, to_read={"2": 3, "5": 1}, unchanged={})


async def test_s7_counts_that_the_source_has_just_shown_come_first(session: OnlineSession) -> None:
    deals, loader = catalogue.stream("deals"), session.loader
    sweep = Sweep(loader.connection, loader.table(deals, "v2"), 90)
    page = Page(-1, 0, encode([deal(1, products_count=4), deal(2, products_count=1)]), 2, None, T0)
    sweep.add("live", catalogue.operations("v2")["getDeals"], [page])
    own = CountReconciler(WalkReader(session), PRODUCTS, PARENT, sweep)
    assert own._compare_counts(loader.connection).to_read == {"1": 4}


@pytest.mark.parametrize(
    ("record", "age", "deep", "is_read"),
    [
        ({"says": 3, "listed": 1, "here": 1}, 1, False, False),
        ({"says": 3, "listed": 1, "here": 1}, 1, True, True),
        ({"says": 3, "listed": 1, "here": 1}, 8, False, True),  # longer ago than a verify cycle
        ({"says": 4, "listed": 1, "here": 1}, 1, False, True),  # its count has changed since
        ({"says": 3, "listed": 1, "here": 2}, 1, False, True),  # its rows have
    ],
)
async def test_s7_a_mismatch_that_did_not_change_is_not_read_again(
    session: OnlineSession, record: dict[str, int], age: int, deep: bool, is_read: bool
) -> None:
    connection = session.loader.connection
    connection.execute("DELETE FROM meta.counts_off")
    connection.execute(
        "INSERT INTO meta.counts_off VALUES ('run', ?, 'deal_products', 'deals', '2', ?, ?, ?)",
        [T0 - timedelta(days=age), record["says"], record["listed"], record["here"]],
    )
    counts = reconciler(session, deep=deep)._compare_counts(connection)
    connection.execute("DELETE FROM meta.counts_off")
    assert ("2" in counts.to_read) is is_read
    assert ("2" in counts.unchanged) is not is_read
    assert counts.at_source == (2 if is_read else 3)  # with what its list showed then


async def test_a_stream_that_nothing_counts_is_read_whole(session: OnlineSession) -> None:
    counts = reconciler(session, parent=Parent("deals", "id"))._select_all(session.loader.connection)
    assert counts == ParentCounts(0, 0, dict.fromkeys(["5", "4", "3", "2", "1"]))


@pytest.mark.parametrize(
    ("reported", "listed", "kind"),
    [
        (1, 1, "purged"),
        (0, 0, "purged"),
        (2, 1, "absent_unknown"),
        (0, 1, "absent_unknown"),
        (None, 1, "absent_unknown"),
    ],
)
async def test_s8_a_row_is_gone_only_if_list_and_count_agree(
    session: OnlineSession, reported: int | None, listed: int, kind: str
) -> None:
    own = reconciler(session)
    own.counts = ParentCounts(0, 0, {"2": reported})
    verdict = own._judge("21", "2", {"2": listed} if listed else {})
    assert (verdict.key, verdict.kind) == ("21", kind)
    assert f"deals/2 lists {listed} without it" in verdict.evidence


@pytest.mark.parametrize(
    ("shown", "reported", "mismatch"),
    [
        ([product(21, 2)], 3, (3, 1, 1)),  # the warehouse agrees with the list, the count with neither
        ([], 3, (3, 0, 1)),  # nothing says what became of the row
        ([], 0, None),  # list and count agree: the row is to be removed
        ([product(21, 2)], 1, None),
        ([product(21, 2)], None, None),
        ([product(21, 2), product(22, 2)], 3, None),  # the warehouse lacks a row of the list
        ([product(21, 2, product_id=6)], 3, None),
    ],
)
async def test_s7_a_mismatch_is_named_only_where_nothing_is_to_be_repaired(
    session: OnlineSession, shown: list[dict[str, Any]], reported: int | None, mismatch: tuple[int, int, int] | None
) -> None:
    own, loader = reconciler(session), session.loader
    own.counts = ParentCounts(0, 0, {"2": reported})
    sweep = Sweep(loader.connection, loader.table(PRODUCTS, "v2"), 91)
    if shown:
        page = Page(-1, 0, encode(shown), len(shown), None, T0, context={"deal_ids": "2"})
        sweep.add("all", catalogue.operations("v2")["getDealsProducts"], [page])
    assert own.find_mismatches(sweep) == ([CountMismatch("deals", "2", *mismatch, T0)] if mismatch else [])


@pytest.mark.parametrize(
    ("daily_tokens", "to_read"),
    [
        (0, {"1": 2, "2": 3, "4": None, "5": 1}),  # all that have a list, by their count or by rows
        (100, {"2": 3, "5": 1}),  # a request costs 10 tokens, and the share is 5
    ],
)
async def test_s6_all_lists_are_compared_as_far_as_the_share_suffices(
    session: OnlineSession, monkeypatch: pytest.MonkeyPatch, daily_tokens: int, to_read: dict[str, int | None]
) -> None:
    share = replace(session.settings, daily_tokens=daily_tokens, dependents_share=5)
    monkeypatch.setattr(session, "settings", share)
    own, connection = reconciler(session, deep=True), session.loader.connection
    own.reads_all = own._can_afford_all(connection)
    assert own._compare_counts(connection).to_read == to_read
