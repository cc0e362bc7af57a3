"""The requests in flight that use up the rate limit, and the share of each list in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from pdsync.core import catalogue
from pdsync.core.budget import WINDOW_S
from pdsync.runner.sync.pacing import Pacing
from tests.runner.kit import open_session

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from pathlib import Path

    from pdsync.model import Page
    from pdsync.runner.session import OnlineSession
    from pdsync.sandbox import RunningSandbox

NOTES = catalogue.stream("notes")
SOURCE = NOTES.v1[0]


@pytest.fixture
async def session(box: RunningSandbox, tmp_path: Path) -> AsyncIterator[OnlineSession]:
    async with open_session(tmp_path, box) as opened:
        yield opened


async def nothing() -> AsyncGenerator[Page]:
    for page in list["Page"]():
        yield page


@pytest.mark.parametrize(("burst", "answer_s", "whole"), [(80, 0.25, 80 / WINDOW_S * 0.25), (0, 9.0, 4.0)])
async def test_l1_the_lists_that_are_read_at_the_same_time_share_the_rate_limit(
    session: OnlineSession, burst: int, answer_s: float, whole: float
) -> None:
    session.settings = replace(session.settings, burst=burst)
    session.http.budget.answer_s = answer_s
    pacing = Pacing(session)
    assert pacing.share() == pytest.approx(whole)

    async def listing() -> AsyncGenerator[Page]:
        assert pacing.share() == pytest.approx(whole / 2)
        async for page in nothing():
            yield page

    async def other() -> AsyncGenerator[Page]:
        assert [page async for page in pacing.sharing(listing(), in_windows=True)] == []
        async for page in nothing():
            yield page

    assert [page async for page in pacing.sharing(other())] == []
    assert pacing.share() == pytest.approx(whole)


@pytest.mark.parametrize(
    ("last_time", "read", "expected"), [(5000, 500, 6), (1000, 500, 1), (400, 500, 0), (None, 20_000, 2)]
)
async def test_no_more_pages_are_requested_ahead_than_there_were_last_time(
    session: OnlineSession, last_time: int | None, read: int, expected: int
) -> None:
    session.settings = replace(session.settings, burst=20)
    session.http.budget.answer_s = 0.4
    pacing = Pacing(session)
    pacing._rows_last_time = {} if last_time is None else {(NOTES.name, SOURCE.name): last_time}
    operation = replace(catalogue.operation(SOURCE.operation, "v1"), page_size=500)
    assert pacing.pages_ahead(NOTES, SOURCE, operation, read) == expected
