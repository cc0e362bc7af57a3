"""Windows of one list are read side by side: every record once, no request too many, and an end for every walk."""

from __future__ import annotations

import asyncio
import json
import random
from datetime import UTC, datetime, timedelta
from math import inf
from typing import TYPE_CHECKING

import msgspec
import pytest

from pdsync.core import catalogue
from pdsync.core.answer import Answer
from pdsync.core.control.windows import Window
from pdsync.errors import BadAnswer
from pdsync.extract.windows import (
    ThrottledCaller,
    WindowProgress,
    WindowScheduler,
    WindowSet,
    last_change,
    read,
)
from pdsync.model import Page, Walk

from .conftest import NOW

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pdsync.model import Operation

DEALS = catalogue.stream("deals")
LIST = catalogue.operation("getDeals", "v2")
START = datetime(2026, 1, 1, tzinfo=UTC)
PAGE = 10


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def window(since: float, until: float, id: int = 1, stream: str = "deals") -> Window:
    times = at(since), at(until)
    return Window(id, "job", stream, "all", "v2", "getDeals", *times, *times)


def progress(since: float, until: float, *, is_divisible: bool = True) -> WindowProgress:
    return WindowProgress(window(since, until), page_rows=PAGE, divisible=is_divisible)


class Cuts:
    """Stores windows in memory."""

    def __init__(self) -> None:
        self.moments: list[datetime] = []

    def cut(self, window: Window, at: datetime) -> tuple[Window, Window]:
        assert window.since < at < window.until
        self.moments.append(at)
        replace = msgspec.structs.replace
        return replace(window, since=at), replace(window, until=at, asked_until=at, walk=None)


class Reading:
    """Reads the records of a list, given by their seconds, in windows; a page at a time, newest first."""

    def __init__(self, seconds: Sequence[int]) -> None:
        self.seconds = sorted(seconds, reverse=True)
        self.store = Cuts()
        self.read: list[int] = []
        self.pages = self.walks = self.under_way = self.most_under_way = 0
        self.fails_at: int | None = None

    async def walk(self, part: WindowProgress) -> None:
        self.walks += 1
        left = [second for second in self.seconds if at(second) < part.window.until]
        while left:
            page, left = left[:PAGE], left[PAGE:]
            async with self.scheduler.turn(part):
                self.under_way += 1
                self.most_under_way = max(self.most_under_way, self.under_way)
                await asyncio.sleep(0)
                self.under_way -= 1
            self.pages += 1
            if self.pages == self.fails_at:
                raise BadAnswer("the server is down")
            self.read += [second for second in page if at(second) >= part.window.since]
            self.scheduler.record_page(part, len(page), at(page[-1]))
            if at(page[-1]) < part.window.since:
                return

    async def all(self, windows: Sequence[WindowProgress], helpers: int, at_once: float = inf) -> None:
        self.scheduler = WindowScheduler(helpers=helpers, at_once=lambda: at_once)
        self.windows = WindowSet(windows, self.store, self.walk)
        await self.scheduler.read(self.windows)


# -- cutting -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("helpers", [1, 2, 8])
@pytest.mark.parametrize("seed", range(3))
async def test_every_record_is_read_once_however_the_windows_are_cut(helpers: int, seed: int) -> None:
    random_ = random.Random(seed)
    dense = [random_.randrange(100) for _ in range(400)]
    reading = Reading(dense + [random_.randrange(10_000) for _ in range(600)])
    await reading.all([progress(0, 5000), progress(5000, 10_000)], helpers)
    assert sorted(reading.read, reverse=True) == reading.seconds
    assert reading.walks == 2 + len(reading.store.moments)
    assert (helpers > 2) <= (reading.walks > 2)


async def test_a_list_in_one_second_is_not_cut() -> None:
    reading = Reading([100] * 500)
    await reading.all([progress(0, 10_000)], helpers=8)
    assert (reading.walks, reading.read) == (1, reading.seconds)


async def test_a_list_that_can_not_be_limited_is_not_cut() -> None:
    reading = Reading(range(500))
    await reading.all([progress(0, 10_000, is_divisible=False)], helpers=8)
    assert reading.walks == 1


async def test_l1_no_more_walks_than_use_up_the_rate_limit() -> None:
    """Every cut costs a page: where the limit is used up, none is made."""
    slow, fast = Reading(range(2000)), Reading(range(2000))
    await slow.all([progress(0, 2000)], helpers=16, at_once=1)
    await fast.all([progress(0, 2000)], helpers=16)
    assert slow.most_under_way <= 3 < fast.most_under_way
    assert slow.walks < fast.walks
    assert slow.pages < 2000 / PAGE + slow.walks


@pytest.mark.parametrize(
    ("rows", "seconds", "helpers", "expected"),
    [
        (0, 0, 4, None),  # nothing was read
        (PAGE, 500, 4, None),  # half of it is read: two pages are left
        (10 * PAGE, 100, 2, 450),  # 90 pages are left, of which the walk keeps 45
        (10 * PAGE, 100, 100, 740),  # at least 16
    ],
)
def test_a_window_is_cut_where_the_helpers_have_as_much_as_its_walk(
    rows: int, seconds: int, helpers: int, expected: int | None
) -> None:
    part = progress(0, 1000)
    if rows:
        part.advance(rows, at(1000 - seconds))
    assert part.cut_at(helpers) == (None if expected is None else at(expected))


def test_pages_without_a_time_do_not_move_a_window() -> None:
    part = progress(0, 1000)
    part.advance(PAGE, None)
    assert (part.rows, part.reached, part.pages_left) == (PAGE, at(1000), 0.0)
    part.advance(PAGE, at(500))
    assert part.pages_left == pytest.approx(2.0)
    part.advance(0, at(700))  # a page that is out of order takes nothing back
    assert part.reached == at(500)


# -- the end of all ----------------------------------------------------------------------------------


async def test_an_error_ends_every_walk_after_its_page() -> None:
    reading = Reading(range(2000))
    reading.fails_at = 40
    with pytest.raises(BadAnswer, match="down"):
        await reading.all([progress(0, 1000), progress(1000, 2000)], helpers=4)
    assert reading.windows.stopped is not None
    assert len(reading.read) < 2000
    assert reading.under_way == 0


async def test_of_a_stream_that_failed_no_further_window_begins() -> None:
    scheduler = WindowScheduler(helpers=1)
    begun: list[tuple[str, datetime]] = []

    async def walk(part: WindowProgress) -> None:
        begun.append((part.window.stream, part.window.until))
        if part.window.stream == "deals":
            windows.drop("deals")
            assert not part.divisible

    windows = WindowSet(
        [
            WindowProgress(window(0, 10, stream="deals"), page_rows=PAGE, divisible=True),
            WindowProgress(window(10, 20, stream="deals"), page_rows=PAGE, divisible=True),
            WindowProgress(window(0, 30, stream="persons"), page_rows=PAGE, divisible=True),
        ],
        Cuts(),
        walk,
    )
    await scheduler.read(windows)
    assert begun == [("persons", at(30)), ("deals", at(20))]


async def test_a_walk_that_is_cancelled_while_it_waits_leaves_its_turn_to_the_next() -> None:
    scheduler = WindowScheduler(helpers=1, at_once=lambda: 0.0)  # one at a time
    order: list[str] = []

    async def request(name: str, part: WindowProgress) -> None:
        async with scheduler.turn(part):
            order.append(name)
            await asyncio.sleep(0)

    long = progress(0, 1000)
    long.advance(PAGE, at(900))
    async with scheduler.turn(progress(0, 10)):
        waiting = [
            asyncio.create_task(request("short", progress(0, 10))),
            asyncio.create_task(request("cancelled", progress(0, 10))),
            asyncio.create_task(request("long", long)),
        ]
        await asyncio.sleep(0)
        waiting[1].cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert order == ["long", "short"]  # the one with the most pages left comes first


# -- requests ----------------------------------------------------------------------------------------


class TimedList:
    """Answers getDeals from records by their times, as the documents say it does."""

    def __init__(self, seconds: Sequence[float]) -> None:
        self.records = [
            {"id": id, "update_time": at(second).strftime("%Y-%m-%dT%H:%M:%SZ")} for id, second in enumerate(seconds)
        ]
        self.queries: list[dict[str, str]] = []

    async def call(self, operation: Operation, path: str | None = None, *, query: Mapping[str, str] | None) -> Answer:
        query = dict(query or {})
        self.queries.append(query)
        records = [each for each in self.records if each["update_time"] >= query["updated_since"]]  # type: ignore[operator]
        if "updated_until" in query:
            records = [each for each in records if each["update_time"] <= query["updated_until"]]  # type: ignore[operator]
            records.sort(key=lambda each: str(each["update_time"]), reverse=True)
        start = int(query.get("cursor", 0))
        more = start + PAGE < len(records)
        body = {
            "success": True,
            "data": records[start : start + PAGE],
            "additional_data": {"next_cursor": str(start + PAGE) if more else None},
        }
        return Answer(200, {}, json.dumps(body).encode(), NOW)


WALK = Walk(1, "run", "deals", "all", "v2", "getDeals", None, None)


async def pages_of(client: TimedList, part: WindowProgress) -> list[tuple[Page, datetime | None]]:
    return [page async for page in read(client, DEALS, DEALS.v2[0], LIST, WALK, part)]


async def test_a_window_is_requested_newest_first_and_ends_with_the_page_that_leaves_it() -> None:
    client = TimedList(range(100))
    found = await pages_of(client, progress(35, 75))
    assert client.queries[0].items() >= {
        "updated_since": "2026-01-01T00:00:35Z",
        "updated_until": "2026-01-01T00:01:15Z",
        "sort_by": "update_time",
        "sort_direction": "desc",
    }.items()  # fmt: skip
    assert [reached for _, reached in found] == [at(66), at(56), at(46), at(36), at(35)]
    assert found[-1][0].next is None


async def test_a_window_that_is_cut_while_it_is_read_ends_at_the_cut() -> None:
    client, part = TimedList(range(100)), progress(0, 100)
    found: list[tuple[datetime | None, str | None]] = []
    async for page, reached in read(client, DEALS, DEALS.v2[0], LIST, WALK, part):
        found.append((reached, page.next))
        if len(found) == 2:
            part.window = msgspec.structs.replace(part.window, since=at(75))
    assert found == [(at(90), "10"), (at(80), "20"), (at(70), None)]
    assert len(client.queries) == 3


async def test_s5_a_window_is_read_to_the_end_of_the_second_that_it_begins_with() -> None:
    client, part = TimedList([80] * 25 + [70] * 5), progress(0, 100)
    rows = 0
    async for page, _ in read(client, DEALS, DEALS.v2[0], LIST, WALK, part):
        part.window = msgspec.structs.replace(part.window, since=at(80))
        rows += page.rows
    assert rows == 30


async def test_a_list_that_can_not_be_limited_is_read_to_its_end_without_times() -> None:
    client = TimedList(range(30))
    found = await pages_of(client, progress(15, 20, is_divisible=False))
    assert [reached for _, reached in found] == [None, None]
    assert "updated_until" not in client.queries[0]


def page_of(*records: bytes) -> Page:
    return Page(1, 0, b"", len(records), None, NOW, records=[msgspec.Raw(each) for each in records])


def test_s3_a_window_that_is_not_in_its_order_is_refused() -> None:
    records = [json.dumps(each).encode() for each in TimedList([50, 40, 30]).records]
    assert last_change(page_of(*records), "update_time", at(60)) == at(30)
    for page, before in ((page_of(*records[::-1]), at(60)), (page_of(*records), at(45))):
        with pytest.raises(BadAnswer, match="requested order of update_time"):
            last_change(page, "update_time", before)


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([], None),
        ([b'{"id":1}', b'{"id":2,"update_time":null}'], None),
        ([b'{"update_time":"no time"}', b'{"update_time":"2026-01-01 00:00:05"}', b'{"update_time":""}'], at(5)),
        ([b'{"update_time":"2026-01-01T01:00:05+01:00"}'], at(5)),
        ([b'{"name":"\\ud83d","update_time":"2026-01-01T00:00:05Z"}', b"[]", b'{"update_time":7}'], at(5)),
        ([b'{"name":"\xff"}', b'{"update_time":"2026-01-01T00:00:05Z"}'], at(5)),
    ],
)
def test_records_without_a_readable_time_are_passed_over(records: list[bytes], expected: datetime | None) -> None:
    assert last_change(page_of(*records), "update_time", at(60)) == expected


async def test_a_call_waits_for_its_turn() -> None:
    client = TimedList(range(3))
    scheduler = WindowScheduler(helpers=1, at_once=lambda: 0.0)
    part = progress(0, 10)
    caller = ThrottledCaller(client, scheduler, part)
    async with scheduler.turn(part):
        call = asyncio.create_task(caller.call(LIST, query={"updated_since": ""}))
        await asyncio.sleep(0)
        assert client.queries == []
    assert (await call).status == 200
