"""How the lists of a run are fetched: in windows or one page after the other, and within which share of the day."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from pdsync.core import catalogue
from pdsync.core.control.sizes import ListSize, ListSizes
from pdsync.errors import DependentsBudgetSpent
from pdsync.extract import long_list
from pdsync.extract.parallel import is_parallel, parallel_pages
from pdsync.runner.sync import list_fetcher
from pdsync.runner.sync.list_fetcher import ListFetcher
from pdsync.runner.sync.sync_request import SyncRequest
from tests.runner.kit import T0, open_session
from tests.support import knobs

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from datetime import datetime
    from pathlib import Path

    from pdsync.extract.long_list import LongList
    from pdsync.model import Page
    from pdsync.runner.session import OnlineSession
    from pdsync.sandbox import RunningSandbox

DEALS = catalogue.stream("deals")
LIVE = DEALS.v2[0]


@pytest.fixture
async def session(box: RunningSandbox, tmp_path: Path) -> AsyncIterator[OnlineSession]:
    async with open_session(tmp_path, box) as opened:
        await opened.loader.do(opened.loader.table, DEALS, "v2")
        yield opened


@pytest.mark.parametrize(
    ("since", "concurrency", "params", "in_windows", "expected"),
    [
        (None, 8, {}, True, True),
        (T0, 8, {}, True, False),  # changes are few
        (None, 1, {}, True, False),
        (None, 8, {"owner_id": "1"}, True, False),  # a part of the list
        (None, 8, {}, False, False),  # its order can't be relied upon
    ],
)
async def test_a_long_list_is_read_in_windows_if_all_of_it_is_read(
    session: OnlineSession,
    monkeypatch: pytest.MonkeyPatch,
    since: datetime | None,
    concurrency: int,
    params: dict[str, str],
    in_windows: bool,
    expected: bool,
) -> None:
    monkeypatch.setattr(long_list, "LONG", 3)
    origins = {**session.settings.origins, "limits.concurrency": "pdsync.toml"}
    session.settings = replace(session.settings, concurrency=concurrency, origins=origins)
    walk = session.control.open_walk("run", "deals", LIVE.name, "v2", LIVE.operation, since)
    with knobs.smaller_pages(1):
        lists = ListFetcher(session, SyncRequest())
        reading = await lists.pages(DEALS, LIVE, walk, params, None, in_windows=in_windows)
        found = [page async for page in reading]
    assert any(is_parallel(page) for page in found) == expected


@pytest.mark.parametrize(
    ("daily", "share", "charges", "is_stopped"),
    [(1000, 10, [40, 60], False), (1000, 10, [40, 61], True), (0, 10, [10**9], False)],
)
async def test_l5_dependent_streams_stop_at_their_share_of_the_day(
    session: OnlineSession, daily: int, share: int, charges: list[int], is_stopped: bool
) -> None:
    session.settings = replace(session.settings, daily_tokens=daily, dependents_share=share)
    lists = ListFetcher(session, SyncRequest())
    for tokens in charges[:-1]:
        lists.charge_dependents(tokens)
    if is_stopped:
        with pytest.raises(DependentsBudgetSpent):
            lists.charge_dependents(charges[-1])
        assert lists.dependents_spent == sum(charges[:-1])  # what is refused is not spent
    else:
        lists.charge_dependents(charges[-1])
        assert lists.dependents_spent == sum(charges)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[LongList]:
    """The lists that may be read in windows, as they are begun."""
    found: list[LongList] = []

    def read(target: LongList, after: Page | None) -> AsyncGenerator[Page]:
        found.append(target)
        return parallel_pages(target, after)

    monkeypatch.setattr(list_fetcher, "parallel_pages", read)
    return found


async def read_deals(session: OnlineSession, request: SyncRequest) -> None:
    walk = session.control.open_walk("run", "deals", LIVE.name, "v2", LIVE.operation, None)
    reading = await ListFetcher(session, request).pages(DEALS, LIVE, walk, {}, None)
    assert [page.next async for page in reading] == [None]


@pytest.mark.parametrize(
    ("burst", "streams", "measured", "requests"),
    [
        (40, ("deals",), None, 3),  # with the definitions of its fields, that is all of the run
        (20, ("deals",), None, 1),
        (120, (), None, 1),  # the other streams need the limit
        (0, ("deals",), None, 1),  # nothing is left unused without one
        (120, ("deals",), 19_999, 1),
        (20, (), 20_000, 3),
    ],
)
async def test_the_ends_of_a_list_are_requested_with_its_first_page_where_that_costs_no_time_or_it_is_long(
    session: OnlineSession,
    box: RunningSandbox,
    burst: int,
    streams: tuple[str, ...],
    measured: int | None,
    requests: int,
) -> None:
    session.settings = replace(session.settings, burst=burst)
    if measured is not None:
        ListSizes(session.control).save([ListSize("deals", LIVE.name, "v2", measured, measured, "measured")])
    box.clear_log()
    await read_deals(session, SyncRequest(streams))
    assert len(box.log) == requests


@pytest.mark.parametrize(
    ("streams", "after"),
    [
        (("deals",), 0.0),
        (("deals", "deal_products"), 0.01),
        (("deals", "deal_products", "deal_installments", "persons"), 0.02),
        (("deals", "deal_changelog"), 1.0),
    ],
)
async def test_a_list_is_read_the_earlier_the_more_lists_of_its_records_are_requested_after_it(
    session: OnlineSession, opened: list[LongList], streams: tuple[str, ...], after: float
) -> None:
    await read_deals(session, SyncRequest(streams))
    assert [target.requests_after for target in opened] == [after]
