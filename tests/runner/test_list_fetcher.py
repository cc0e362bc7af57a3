"""How the lists of a run are fetched: in windows or one page after the other, and within which share of the day."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from pdsync.core import catalogue
from pdsync.errors import DependentsBudgetSpent
from pdsync.extract import parallel
from pdsync.extract.parallel import is_parallel
from pdsync.runner.sync.list_fetcher import ListFetcher
from pdsync.runner.sync.sync_request import SyncRequest
from tests.runner.kit import T0, open_session
from tests.support import knobs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime
    from pathlib import Path

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
    monkeypatch.setattr(parallel, "LONG", 3)
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
