"""A long list is read in windows as one walk: every record, at the limit, for a few more requests than one cursor."""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_left, bisect_right, insort
from collections import deque
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec
import pytest
from msgspec.structs import replace

from pdsync.core import catalogue
from pdsync.core.answer import Answer
from pdsync.errors import ApiError, BadAnswer
from pdsync.extract.long_list import LONG, LongList
from pdsync.extract.parallel import is_parallel, parallel_pages
from pdsync.extract.windows import WindowScheduler
from pdsync.model import Page, Walk
from tests.support.virtual_time import run_virtually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pdsync.model import Operation

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
PAGE, LIMIT_S = 20, 2.0
FASTER, SLICE_S = 3.0, 0.2
STREAMS = {"getDeals": "deals", "getPersons": "persons"}


def text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


class Server:
    """Answers lists as the documents say: sorted, limited by update_time, with cursors; at most `burst` per 2 s."""

    def __init__(self, *, burst: int = 0, seed: int = 1) -> None:
        self.burst, self.random = burst, random.Random(seed)
        self.by_time: dict[str, list[tuple[str, int]]] = {name: [] for name in STREAMS}  # "": never changed
        self.queries: list[tuple[str, tuple[tuple[str, str], ...]]] = []
        self.answer_s = 0.15
        self.on_request: Callable[[], None] = lambda: None
        self._answered, self._in_flight, self._turn = deque[float](), 0, asyncio.Lock()
        self._sent = deque[float]()

    def put(self, operation: str, id: int, moment: datetime | None) -> None:
        """Add a record, or change it."""
        rows = self.by_time[operation]
        rows[:] = [row for row in rows if row[1] != id]
        insort(rows, (text(moment) if moment else "", id))

    def fill(self, operation: str, count: int, when: Callable[[int], datetime | None]) -> None:
        moments = [(id, when(id)) for id in range(1, count + 1)]
        self.by_time[operation] = sorted((text(moment) if moment else "", id) for id, moment in moments)

    def at_once(self) -> float:
        """As `runner.sync.pacing`."""
        return self.burst / LIMIT_S * self.answer_s if self.burst else 4.0

    async def call(self, operation: Operation, path: str | None = None, *, query: Mapping[str, str] | None) -> Answer:
        query = dict(query or {})
        await self._wait()
        self.queries.append((operation.id, tuple(sorted(query.items()))))
        began = asyncio.get_running_loop().time()
        await asyncio.sleep(self.random.uniform(0.05, 0.25))
        self._in_flight -= 1
        self._answered.append(asyncio.get_running_loop().time())
        self.answer_s += (asyncio.get_running_loop().time() - began - self.answer_s) / 8
        self.on_request()
        rows, cursor = self.list(operation.id, query)
        data = [{"id": id} | ({"update_time": time} if time else {}) for time, id in rows]
        body = {"success": True, "data": data, "additional_data": {"next_cursor": cursor}}
        return Answer(200, {}, msgspec.json.encode(body), NOW)

    def list(self, operation: str, query: Mapping[str, str]) -> tuple[list[tuple[str, int]], str | None]:
        rows = self.by_time[operation]
        if query["sort_by"] == "id":
            rows = sorted(rows, key=lambda row: row[1])
            rows = rows[bisect_right(rows, int(query.get("cursor", 0)), key=lambda row: row[1]) :]
            return rows[:PAGE], str(rows[PAGE - 1][1]) if len(rows) > PAGE else None
        low = bisect_left(rows, (query.get("updated_since", ""), 0))
        high = bisect_right(rows, (query.get("updated_until", "~"), 10**9))
        time, _, id = query.get("cursor", "").partition(",")
        if query["sort_direction"] == "asc":
            low = max(low, bisect_right(rows, (time, int(id))) if id else 0)
            page, more = rows[low : min(high, low + PAGE)], low + PAGE < high
        else:
            high = min(high, bisect_left(rows, (time, int(id))) if id else high)
            page, more = rows[max(low, high - PAGE) : high][::-1], high - PAGE > low
        return page, f"{page[-1][0]},{page[-1][1]}" if more else None

    async def _wait(self) -> None:
        """As `core.budget`: a request counts until two seconds after its answer, and few are sent at the same time."""
        loop = asyncio.get_running_loop()
        async with self._turn:
            if self.burst and len(self._sent) >= self.burst * FASTER * SLICE_S / LIMIT_S:
                await asyncio.sleep(max(self._sent.popleft() + SLICE_S - loop.time(), 0))
            while self.burst and self._in_flight + len(self._answered) >= self.burst:
                free = self._answered[0] + LIMIT_S if self._answered else loop.time() + 0.01
                await asyncio.sleep(max(free - loop.time(), 0) + 1e-6)
                while self._answered and self._answered[0] <= loop.time() - LIMIT_S:
                    self._answered.popleft()
            self._in_flight += 1
            self._sent.append(loop.time())


def target_of(server: Server, operation: str = "getDeals", scheduler: WindowScheduler | None = None) -> LongList:
    stream = catalogue.stream(STREAMS[operation])
    entry = replace(catalogue.operation(operation, "v2"), page_size=PAGE)
    walk = Walk(len(operation), "run", stream.name, "live", "v2", operation, None, None)
    scheduler = scheduler or WindowScheduler(helpers=32, at_once=server.at_once)
    return LongList(server, stream, stream.v2[0], entry, walk, scheduler=scheduler, overlap=timedelta(seconds=120))


async def read(target: LongList, after: Page | None = None, most: int = 10**6) -> list[Page]:
    """At most `most` pages of a list."""
    found = []
    reading = parallel_pages(target, after)
    async for page in reading:
        found.append(page)
        if len(found) == most:
            break
    await reading.aclose()
    return found


def ids(pages: Iterable[Page]) -> set[int]:
    return {msgspec.json.decode(record)["id"] for page in pages for record in page.records or ()}


def spread(seed: int) -> Callable[[int], datetime]:
    """Changes over two years; a fifth of them in one of three seconds."""
    numbers = random.Random(seed)

    def when(id: int) -> datetime:
        days = numbers.choice([0.01, 30, 400]) if numbers.random() < 0.2 else numbers.uniform(0, 730)
        return NOW - timedelta(days=days)

    return when


def newest_often(seed: int) -> Callable[[int], datetime]:
    numbers = random.Random(seed)
    return lambda _: NOW - timedelta(days=min(numbers.expovariate(1 / 120), 729))


def partly_untimed(seed: int) -> Callable[[int], datetime | None]:
    """Some records without a time, and an import of one second that changed every twentieth."""
    numbers, often = random.Random(seed), newest_often(seed)

    def when(id: int) -> datetime | None:
        if id % 200 == 0:
            return None
        return NOW - timedelta(days=20) if numbers.random() < 0.05 else often(id)

    return when


@pytest.mark.parametrize("times", [spread, newest_often, partly_untimed])
@pytest.mark.parametrize("burst", [20, 40, 80, 120])
def test_l1_the_rate_limit_sets_the_pace_for_a_few_percent_more_requests(
    burst: int, times: Callable[[int], Callable[[int], datetime | None]]
) -> None:
    counts = {"getDeals": 150_000 * PAGE // 500, "getPersons": 100_000 * PAGE // 500}  # as many pages as 250,000 rows
    server, when = Server(burst=burst), times(1)
    for operation, count in counts.items():
        server.fill(operation, count, when)
    scheduler = WindowScheduler(helpers=32, at_once=server.at_once)

    async def both() -> list[list[Page]]:
        return await asyncio.gather(*(read(target_of(server, name, scheduler)) for name in counts))

    found, seconds = run_virtually(both())
    assert [ids(pages) for pages in found] == [set(range(1, count + 1)) for count in counts.values()]
    # A request counts while it is answered, besides the two seconds; the last pages of each list come in turn.
    assert seconds <= {20: 1.08, 40: 1.07, 80: 1.15, 120: 1.35}[burst] * len(server.queries) / burst * LIMIT_S
    assert len(server.queries) <= 1.06 * sum(counts.values()) / PAGE
    assert len(set(server.queries)) == len(server.queries)


@pytest.mark.parametrize(("pages", "more"), [(1, 0), (2, 1), (3, 1), (LONG, 1)])
def test_a_short_list_is_read_with_one_cursor_for_one_more_request_at_most(pages: int, more: int) -> None:
    server = Server()
    server.fill("getDeals", pages * PAGE, newest_often(1))
    found, _ = run_virtually(read(target_of(server)))
    assert (len(found), len(server.queries)) == (pages, pages + more)
    assert not any(is_parallel(page) for page in found)


@pytest.mark.parametrize(("pages", "requests"), [(1, 3), (3, 5), (LONG, LONG + 2)])
def test_a_short_list_that_seemed_long_is_read_with_one_cursor_for_two_more_requests(pages: int, requests: int) -> None:
    server = Server()
    server.fill("getDeals", pages * PAGE, newest_often(1))
    found, _ = run_virtually(read(replace(target_of(server), seems_long=True)))
    assert ids(found) == set(range(1, pages * PAGE + 1))
    assert (len(found), len(server.queries)) == (pages, requests)
    assert not any(is_parallel(page) for page in found)


def test_the_ends_of_a_list_that_seems_long_are_requested_with_its_first_page() -> None:
    server, seconds = Server(), dict[bool, float]()
    server.fill("getDeals", 2 * LONG * PAGE, newest_often(1))
    for seems_long in (False, True):
        server.queries.clear()
        found, seconds[seems_long] = run_virtually(read(replace(target_of(server), seems_long=seems_long)))
        assert ids(found) == set(range(1, 2 * LONG * PAGE + 1))
        first = [(dict(query)["sort_by"], dict(query)["sort_direction"]) for _, query in server.queries[:3]]
        assert sorted(first) == [("id", "asc"), ("update_time", "asc"), ("update_time", "desc")]
    assert seconds[True] < seconds[False]


@pytest.mark.parametrize("pages", [1, 2 * LONG])
def test_an_end_that_is_refused_does_not_fail_the_list_it_was_requested_with(pages: int) -> None:
    server = Server()
    server.fill("getDeals", pages * PAGE, newest_often(1))
    listed = server.list

    def answer(operation: str, query: Mapping[str, str]) -> tuple[list[tuple[str, int]], str | None]:
        if query["sort_by"] != "id":
            raise ApiError("400", status=400, operation=operation)
        return listed(operation, query)

    server.list = answer  # type: ignore[method-assign]
    found, _ = run_virtually(read(replace(target_of(server), seems_long=True)))
    assert ids(found) == set(range(1, pages * PAGE + 1))
    assert len(found) == pages


def test_a_list_that_is_given_up_after_its_first_page_requests_nothing_more() -> None:
    server = Server()
    server.fill("getDeals", 2 * LONG * PAGE, newest_often(1))

    async def give_up() -> int:
        await read(replace(target_of(server), seems_long=True), most=1)
        before = len(server.queries)
        await asyncio.sleep(60)
        assert len(server.queries) == before
        return len(asyncio.all_tasks())

    assert run_virtually(give_up())[0] == 1


@pytest.mark.parametrize("shared", [0, PAGE + PAGE // 2])
def test_what_the_oldest_page_shows_is_not_read_again_but_for_its_last_second(shared: int) -> None:
    server, when = Server(), newest_often(1)
    oldest = NOW - timedelta(days=730)  # `shared` records are of this second: more than a page shows
    server.fill("getDeals", 2 * LONG * PAGE, lambda number: oldest if number <= shared else when(number))
    found, _ = run_virtually(read(target_of(server)))
    assert ids(found) == set(range(1, 2 * LONG * PAGE + 1))
    last_shown, _ = server.by_time["getDeals"][PAGE - 1]
    queries = [dict(query) for _, query in server.queries]
    assert min(query["updated_since"] for query in queries if "updated_until" in query) == last_shown
    assert (last_shown == text(oldest)) == bool(shared)


@pytest.mark.parametrize("first", STREAMS)
@pytest.mark.parametrize("burst", [20, 40, 80, 120])
def test_a_list_that_other_lists_wait_for_is_read_before_the_others(burst: int, first: str) -> None:
    server, ends = Server(burst=burst), dict[str, float]()
    scheduler = WindowScheduler(helpers=32, at_once=server.at_once)
    for operation in STREAMS:
        server.fill(operation, 300 * PAGE, newest_often(1))

    async def read_one(operation: str) -> None:
        target = target_of(server, operation, scheduler)
        found = await read(replace(target, requests_after=0.02) if operation == first else target)
        assert ids(found) == set(range(1, 300 * PAGE + 1))
        ends[operation] = asyncio.get_running_loop().time()

    async def both() -> None:
        await asyncio.gather(*map(read_one, STREAMS))

    run_virtually(both())
    assert ends.pop(first) < 0.8 * min(ends.values())


def test_a_second_that_many_records_share_is_begun_at_once() -> None:
    server, when, shared = Server(), newest_often(1), NOW - timedelta(days=100)
    server.fill("getDeals", 2 * LONG * PAGE, lambda number: shared if number % 4 == 0 else when(number))
    found, _ = run_virtually(read(target_of(server)))
    assert ids(found) == set(range(1, 2 * LONG * PAGE + 1))
    begun = [dict(query).get("updated_until") for _, query in server.queries[:6]]  # three are the opening
    assert text(shared + timedelta(seconds=1)) in begun


@pytest.mark.parametrize("untimed", [0, 1, PAGE, 3 * PAGE + 5])
def test_s1_records_without_a_time_of_change_are_read_too(untimed: int) -> None:
    server, when = Server(), newest_often(2)
    count = 2 * LONG * PAGE
    server.fill("getDeals", count, lambda number: None if number > count - untimed else when(number))
    found, _ = run_virtually(read(target_of(server)))
    assert ids(found) == set(range(1, count + 1))
    assert any(is_parallel(page) for page in found)


@pytest.mark.parametrize("seed", range(3))
def test_s1_s3_what_changes_or_appears_while_a_list_is_read_is_in_it(seed: int) -> None:
    server, numbers = Server(seed=seed), random.Random(seed)
    count = 2 * LONG * PAGE
    server.fill("getDeals", count, newest_often(seed))
    changed: dict[int, str] = {}

    def change() -> None:
        id, moment = numbers.randrange(1, count + 40), NOW + timedelta(seconds=len(changed) // 3)
        changed[id] = text(moment)
        server.put("getDeals", id, moment)

    server.on_request = change
    found, _ = run_virtually(read(target_of(server)))
    assert ids(found) >= set(range(1, count + 1))
    newest: dict[int, str] = {}
    for page in found:
        for record in page.records or ():
            row = msgspec.json.decode(record)
            newest[row["id"]] = max(newest.get(row["id"], ""), row["update_time"])
    late = set(list(changed)[-8:])  # of the last requests: the next sync reads them, from the beginning of this walk
    assert {id for id, time in changed.items() if newest.get(id) != time} <= late


@pytest.mark.parametrize("cut", range(1, 86, 6))
def test_s1_a_walk_in_windows_continues_after_any_page_and_requests_none_again(cut: int) -> None:
    server = Server()
    server.fill("getDeals", 80 * PAGE, newest_often(3))
    first, _ = run_virtually(read(target_of(server), most=cut))
    assert first[-1].next
    sealed = {page.cursor for page in first}
    rest, _ = run_virtually(read(target_of(server), replace(first[-1], records=None, body=b"")))
    assert ids([*first, *rest]) == set(range(1, 80 * PAGE + 1))
    assert sealed.isdisjoint(page.cursor for page in rest)
    assert [page.seq for page in rest] == list(range(cut, cut + len(rest)))
    assert rest[-1].next is None
    assert all(page.next for page in [*first, *rest][:-1])


def test_s4_a_list_that_does_not_keep_its_order_is_not_taken_for_complete() -> None:
    server = Server()
    server.fill("getDeals", 80 * PAGE, newest_often(3))
    listed = server.list

    def shuffled(operation: str, query: Mapping[str, str]) -> tuple[list[tuple[str, int]], str | None]:
        rows, cursor = listed(operation, query)
        return (rows[::-1] if "updated_until" in query else rows), cursor

    server.list = shuffled  # type: ignore[method-assign]
    with pytest.raises(BadAnswer, match="not in the requested order"):
        run_virtually(read(target_of(server)))


@pytest.mark.parametrize("trouble", ["unsorted", "untimed last", "untimed first in both", "refused"])
def test_s1_a_list_that_can_not_be_relied_upon_to_sort_is_read_with_one_cursor(trouble: str) -> None:
    server = Server()
    server.fill("getDeals", 80 * PAGE, newest_often(3))
    listed = server.list

    def answer(operation: str, query: Mapping[str, str]) -> tuple[list[tuple[str, int]], str | None]:
        rows, cursor = listed(operation, query)
        if query["sort_by"] == "id":
            return [("" if id == 3 and trouble == "untimed last" else time, id) for time, id in rows], cursor
        if trouble == "refused":
            raise ApiError("400", status=400, operation=operation)
        if trouble == "unsorted":
            rows = sorted(rows, key=lambda row: row[1] % 7)
        if trouble == "untimed first in both":
            rows = [("", 3), *rows[1:]]
        return rows, cursor

    server.list = answer  # type: ignore[method-assign]
    found, _ = run_virtually(read(target_of(server)))
    assert ids(found) == set(range(1, 80 * PAGE + 1))
    assert len(found) == 80
    assert not any(is_parallel(page) for page in found)
    assert all(before.next for before, _ in pairwise(found))


@pytest.mark.parametrize("way", ["asc", "desc"])
def test_s4_an_empty_page_that_names_a_next_one_is_no_end_of_a_window(way: str) -> None:
    server, when, empty = Server(), newest_often(2), 0
    count = 2 * LONG * PAGE
    server.fill("getDeals", count, lambda number: None if number > count - 3 * PAGE else when(number))
    listed = server.list

    def answer(operation: str, query: Mapping[str, str]) -> tuple[list[tuple[str, int]], str | None]:
        nonlocal empty
        cursor = query.get("cursor", "")
        if cursor and not cursor.endswith(" ") and query["sort_direction"] == way:
            empty += 1
            return [], f"{cursor} "
        return listed(operation, query)

    server.list = answer  # type: ignore[method-assign]
    found, _ = run_virtually(read(target_of(server)))
    assert any(is_parallel(page) for page in found)
    assert len(ids(found)) == count
    assert empty
