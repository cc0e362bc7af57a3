"""Windows are sealed side by side; one stream's error ends that stream, and a lost cursor begins a window again."""

from __future__ import annotations

import asyncio
import math
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from pdsync.core import catalogue
from pdsync.core.budget import WINDOW_S
from pdsync.core.control.windows import Windows
from pdsync.errors import BudgetSpent
from pdsync.model import Page, StreamReceipt
from pdsync.runner.sync.window_reader import WindowReader
from tests.runner.kit import T0, deal, encode, open_session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from pdsync.core.control.windows import Window
    from pdsync.model import Operation, Source, Stream, Walk
    from pdsync.runner.session import OnlineSession
    from pdsync.sandbox import RunningSandbox

SINCE = T0 - timedelta(days=3650)


class Reading:
    """A backfill of deals and persons: one window each."""

    def __init__(self, session: OnlineSession) -> None:
        self.session, self.windows = session, Windows(session.control)
        self.lists: dict[tuple[str, str], tuple[Stream, Source, Operation]] = {}
        for name in ("deals", "persons"):
            stream = catalogue.stream(name)
            source = stream.v2[0]
            self.lists[name, source.name] = stream, source, catalogue.operations("v2")[source.operation]
            session.progress[name] = StreamReceipt()
        wanted = [(name, source, "v2", operation.id) for (name, source), (*_, operation) in self.lists.items()]
        self.windows.plan(session.receipt.run_id, wanted, SINCE, T0)  # type: ignore[arg-type]
        self.errors: dict[str, Any] = {}
        self.sealed: asyncio.Queue[Walk | None] = asyncio.Queue()
        self.reader = WindowReader(session, self.windows, self.lists, self.errors, self.sealed)

    def window(self, name: str) -> Window:
        return next(each for each, _ in self.windows.unfinished(self.session.receipt.run_id) if each.stream == name)

    async def read(self, *names: str) -> list[str]:
        """The streams whose windows were sealed to their ends."""
        await self.reader.read_all([self.window(name) for name in names], helpers=2)
        done = []
        while not self.sealed.empty():
            walk = self.sealed.get_nowait()
            assert walk
            done.append(walk.stream)
        return sorted(done)


@pytest.fixture
async def reading(box: RunningSandbox, tmp_path: Path) -> AsyncIterator[Reading]:
    async with open_session(tmp_path, box) as session:
        yield Reading(session)
    box.faults.clear()


async def test_s15_windows_are_sealed_and_not_loaded(reading: Reading) -> None:
    assert await reading.read("deals", "persons") == ["deals", "persons"]
    control = reading.session.control
    assert {state for _, state in control.walks()} == {"sealed"}
    assert all(control.sealed_pages(walk.id) for walk, _ in control.walks())
    assert reading.session.loader.loaded_pages_by_walk() == {}


async def test_s10_an_error_of_one_stream_leaves_the_other(reading: Reading, box: RunningSandbox) -> None:
    box.faults.add(kind="permission_403", path="/deals")
    assert await reading.read("deals", "persons") == ["persons"]
    assert set(reading.errors) == {"deals"}
    box.clear_log()
    assert await reading.read("deals") == []  # it has failed: nothing more of it is requested
    assert box.log == []


async def test_l3_an_exhausted_budget_stops_all(reading: Reading, box: RunningSandbox) -> None:
    box.faults.add(kind="daily_429")
    with pytest.raises(BudgetSpent):
        await reading.read("deals", "persons")


@pytest.mark.parametrize("is_lost", [False, True])
async def test_s15_a_window_whose_cursor_or_page_is_lost_begins_again(reading: Reading, is_lost: bool) -> None:
    session = reading.session
    walk = reading.windows.begin(reading.window("deals"), session.receipt.run_id)
    page = Page(walk.id, 0, encode([deal(1)]), 1, "no-cursor-of-this-list", T0)
    await session.archive.seal(replace(walk, started_at=T0), page)
    if is_lost:
        for path in session.settings.raw.glob("*.zst"):
            path.unlink()
    assert await reading.read("deals") == ["deals"]
    states = {each.id: state for each, state in session.control.walks()}
    assert states.pop(walk.id) == "dropped"
    assert list(states.values()) == ["sealed"]


@pytest.mark.parametrize(("burst", "answer_s", "most"), [(0, 0.5, math.inf), (20, 0.5, 20 / WINDOW_S * 0.5)])
async def test_l1_requests_in_flight_use_the_rate_limit_and_no_more(
    reading: Reading, burst: int, answer_s: float, most: float
) -> None:
    reading.session.settings = replace(reading.session.settings, burst=burst)
    reading.session.http.budget.answer_s = answer_s
    assert reading.reader._max_in_flight() == most
