"""Splits one long walk into windows of time that are read in parallel: the rate limit sets the pace, and not latency.

A list with cursors can only be read one page after the other: at 150 ms a page that is a handful a second, however
high the limit is. But v2 lists can also be limited to records changed *before* a moment. So a list is read in windows
of update_time, each from its newest record to its oldest, the newest windows first.

The density of a window shows only while it is read. So a list begins with one window or a few, and one scheduler
decides over all lists of a run: the window with the most pages left (by estimate) is cut after its walk's position, the
walk keeps the newer part with its cursor, and another walk begins with the older one. That happens only while the rate
limit would otherwise not be used up, because every cut costs tokens: the page in which two windows meet is requested
twice. Where many records share a second no cut is possible, and none is made.

Records that change meanwhile leave the windows. The changes since the beginning are read after them: at the end of a
walk (see `extract.parallel`), or by the sync after a backfill. Times are whole seconds, UTC.
"""

from __future__ import annotations

import asyncio
import json
import math
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from heapq import heappop, heappush
from itertools import count, pairwise
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from msgspec.structs import replace

from pdsync.errors import BadAnswer
from pdsync.extract.pages import pages, query_of

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        AsyncIterator,
        Awaitable,
        Callable,
        Iterable,
        Iterator,
        Mapping,
        Sequence,
    )

    from msgspec import Raw

    from pdsync.core.answer import Answer
    from pdsync.core.control.windows import Window
    from pdsync.extract.pages import Caller
    from pdsync.model import Operation, Page, Source, Stream, Walk

_FEW_PAGES = 16.0  # that a walk keeps when its window is cut, or half of the rest where that is less
_MANY_PAGES = 32.0  # of a window that was not begun: with fewer it is not cut, as their number is a rough estimate
WORTH_A_CUT = 4.0  # pages: below that, a cut costs about as much as it saves
SPARE_WALKS = 1.5  # for each walk that the limit needs: some answers take longer
_SPARE_REQUESTS = 2.0  # for each request in flight that the limit needs: an unused window is used up at once
_EXPECTED_PAGES = 2.0  # that the expected density of a window counts for: its newest part may be much denser


class Store(Protocol):
    """Stores the windows."""

    def cut(self, window: Window, at: datetime) -> tuple[Window, Window]:
        """Cut `window` in two and store both: the newer part, whose walk continues, and the older one."""


class WindowProgress:
    """A window, and the progress of its walk."""

    def __init__(
        self,
        window: Window,
        *,
        page_rows: int,
        divisible: bool,
        density: float | None = None,
        requests_after: float = 0.0,
    ) -> None:
        """
        Args:
            window: to read.
            page_rows: the number of records of a full page.
            divisible: whether it may be cut.
            density: rows for each second, by estimate; None: not known before the first page.
            requests_after: requests that can only be made once its list is read: those for the lists of its records.
        """
        self.window, self.page_rows, self.divisible = window, page_rows, divisible
        self.requests_after = requests_after
        self.reached = window.until  # records before this were not read yet
        self.is_in_one_second = False  # its last page began and ended in the same one: what is left can't be told
        self.rows = 0
        self.density = self._expected = density

    def advance(self, rows: int, reached: datetime | None) -> None:
        """Count a page: its number of rows, and the time of its last one."""
        self.rows += rows
        if reached is not None and self.divisible:
            self.is_in_one_second = reached == self.reached
            self.reached = min(reached, self.reached)
            covered, read = max((self.window.until - self.reached).total_seconds(), 1.0), float(self.rows)
            if self._expected:
                covered += _EXPECTED_PAGES * self.page_rows / self._expected
                read += _EXPECTED_PAGES * self.page_rows
            self.density = read / covered

    @property
    def pages_left(self) -> float:
        """Estimate of the pages that its walk has left; 0 where nothing is known."""
        if not self.divisible or not self.density:
            return 0.0
        return (self.reached - self.window.since).total_seconds() * self.density / self.page_rows

    @property
    def urgency(self) -> tuple[float, float]:
        """The higher, the earlier its next request is made: the most round trips come after it, one after the other."""
        is_indivisible = self.is_in_one_second or not self.divisible
        return (math.inf, 0.0) if is_indivisible else (self.requests_after, self.pages_left)

    def cut_at(self, walks: int) -> datetime | None:
        """The moment to cut it at, with `walks` for what is left of it; None where that would not help."""
        left = self.pages_left
        least = WORTH_A_CUT if self.rows else _MANY_PAGES
        # In one second, how many pages of it are left is not known: what follows it is read by another walk.
        if left < (1.0 if self.is_in_one_second else least) or not self.density:
            return None
        kept = 0.0 if self.is_in_one_second else max(left / walks, min(_FEW_PAGES, left / 2))
        at = (self.reached - timedelta(seconds=max(kept * self.page_rows / self.density, 1.0))).replace(microsecond=0)
        return at if self.window.since < at < self.reached else None


class WindowSet:
    """Windows that are read with one function: those of a list, or of all lists of a backfill."""

    def __init__(
        self, windows: Iterable[WindowProgress], store: Store, walk: Callable[[WindowProgress], Awaitable[None]]
    ) -> None:
        """
        Args:
            windows: to read.
            store: stores the windows that are cut.
            walk: reads a window, reports each of its pages to `WindowScheduler.record_page`, and ends after a page once
                `stopped` is set.
        """
        self.waiting, self.store, self.walk = list(windows), store, walk
        self.running = dict[WindowProgress, asyncio.Task[None]]()
        self.stopped: BaseException | None = None
        self.ended = asyncio.Event()

    @property
    def is_ended(self) -> bool:
        """Whether no window is read, and none will be."""
        return not self.running and (not self.waiting or self.stopped is not None)

    def stop(self, error: BaseException) -> None:
        """Begin no further page; `WindowScheduler.read` raises `error` after the current ones."""
        self.stopped = self.stopped or error

    def drop(self, stream: str) -> None:
        """Begin no further window of `stream`."""
        self.waiting = [progress for progress in self.waiting if progress.window.stream != stream]
        for progress in self.running:
            if progress.window.stream == stream:
                progress.divisible = False


class WindowScheduler:
    """Decides which windows are read at the same time, over all lists of a run, and which of them is cut.

    scheduler = WindowScheduler(helpers=8, at_once=lambda: 3.5)
    await scheduler.read(WindowSet(windows, store, walk))

    `at_once` gives the number of concurrent requests that use up the rate limit: the limit times the time an answer
    takes. A few more walks than that are read, and the next request is made by the one with the most pages left: so
    all of them end at about the same time.
    """

    def __init__(self, *, helpers: int, at_once: Callable[[], float] = lambda: math.inf) -> None:
        """
        Args:
            helpers: the most walks at the same time.
            at_once: the number of concurrent requests that use up the rate limit.
        """
        self._helpers, self._at_once = helpers, at_once
        self._sets: list[WindowSet] = []
        self._active = 0  # requests
        self._queue: list[tuple[float, float, int, asyncio.Future[None]]] = []  # the most urgent ones come first
        self._turns = count()

    async def read(self, windows: WindowSet) -> None:
        """Read every window of a set to its end; several sets may be read at the same time.

        The first error that a walk raises is raised here, after the other walks of the set have ended: `stopped` tells
        them to.
        """
        self._sets.append(windows)
        try:
            self._begin_walks()
            if not windows.is_ended:
                await windows.ended.wait()
        finally:
            self._sets.remove(windows)
            tasks = list(windows.running.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._begin_walks()
        if windows.stopped:
            raise windows.stopped

    def record_page(self, progress: WindowProgress, rows: int, reached: datetime | None) -> None:
        """Count a page of a walk, which may be helped now."""
        progress.advance(rows, reached)
        self._begin_walks()

    def _begin_walks(self) -> None:
        running = sum(len(each.running) for each in self._sets)
        while running < self._helpers and (taken := self._take()):
            windows, progress = taken
            windows.running[progress] = asyncio.create_task(self._walk(windows, progress))
            running += 1

    async def _walk(self, windows: WindowSet, progress: WindowProgress) -> None:
        try:
            await windows.walk(progress)
        except Exception as error:
            windows.stop(error)
        finally:
            del windows.running[progress]
            if windows in self._sets:
                self._begin_walks()
            if windows.is_ended:
                windows.ended.set()

    def _take(self) -> tuple[WindowSet, WindowProgress] | None:
        """The newest waiting window, or else the older part of a running one.

        That is one of the list that the most requests wait for; of those, the one with the most pages left.
        """
        sets = [each for each in self._sets if not each.stopped]
        for each in sets:
            if each.waiting:
                newest = max(each.waiting, key=lambda progress: progress.window.until)
                each.waiting.remove(newest)
                return each, newest
        running = [(each, progress) for each in sets for progress in each.running]
        running.sort(key=lambda entry: (entry[1].requests_after, entry[1].pages_left), reverse=True)
        at_once, left = self._at_once(), sum(progress.pages_left for _, progress in running)
        room = min(self._helpers, at_once * SPARE_WALKS + 1)
        for windows, progress in running:
            rivals = sum(other.requests_after >= progress.requests_after for _, other in running)
            # There are enough walks; but one with more than its share would run alone after the others.
            if rivals >= room and (progress.pages_left - WORTH_A_CUT) * at_once <= left:
                continue
            if (at := progress.cut_at(max(math.ceil(room) - rivals + 1, 2))) is not None:
                progress.window, older = windows.store.cut(progress.window, at)
                return windows, WindowProgress(
                    older,
                    page_rows=progress.page_rows,
                    divisible=True,
                    density=progress.density,
                    requests_after=progress.requests_after,
                )
        return None

    @asynccontextmanager
    async def turn(self, progress: WindowProgress) -> AsyncIterator[None]:
        """Wait until the rate limit has room for a request of `progress`; the longest walks come first.

        Where many records share a second, a walk can't be split, so it comes before all others.
        """
        if self._active < self._room:
            self._active += 1
        else:
            admitted = asyncio.get_running_loop().create_future()
            after, pages_left = progress.urgency
            heappush(self._queue, (-after, -pages_left, next(self._turns), admitted))
            try:
                await admitted
            except asyncio.CancelledError:
                if admitted.done() and not admitted.cancelled():
                    self._leave()
                raise
        try:
            yield
        finally:
            self._leave()

    @property
    def _room(self) -> float:
        return self._at_once() * _SPARE_REQUESTS + 1

    def _leave(self) -> None:
        self._active -= 1
        while self._queue and self._active < self._room:
            *_, admitted = heappop(self._queue)
            if not admitted.done():
                self._active += 1
                admitted.set_result(None)


class ThrottledCaller:
    """Makes the calls of one walk, each in its turn."""

    def __init__(self, client: Caller, scheduler: WindowScheduler, progress: WindowProgress) -> None:
        self._client, self._scheduler, self._progress = client, scheduler, progress

    async def call(self, operation: Operation, path: str | None = None, *, query: Mapping[str, str] | None) -> Answer:
        """See `Caller.call`."""
        async with self._scheduler.turn(self._progress):
            return await self._client.call(operation, path, query=query)


async def read(
    client: Caller,
    stream: Stream,
    source: Source,
    operation: Operation,
    walk: Walk,
    progress: WindowProgress,
    *,
    after: Page | None = None,
) -> AsyncGenerator[tuple[Page, datetime | None]]:
    """Yield the pages of a window, newest first, each with the time of its last record (None: no record has one).

    The window may be cut while it is read; the walk ends at the window's current end, and its last page has no `next`.
    A list that can't be limited to a window is read from the window's beginning to its own end, without times.

    Raises:
        BadAnswer: the records are not in the requested order, so the end of the window can't be seen.
        PdsyncError: what `pages` raises.
    """
    query = query_of(stream, source, walk.version, operation, progress.window.since)
    query["updated_since"] = parameter(progress.window.asked_since)
    if not progress.divisible:
        async for page in pages(client, operation, walk, query, after=after):
            yield page, None
        return
    field = stream.column(stream.cursor or "").path(stream.cursor or "", walk.version)
    query |= {"sort_by": field, "sort_direction": "desc", "updated_until": parameter(progress.window.asked_until)}
    before = progress.reached
    async for page in pages(client, operation, walk, query, after=after):
        reached = last_change(page, field, before)
        if reached is not None and reached < progress.window.since:
            page = replace(page, next=None)  # noqa: PLW2901 - what follows belongs to other windows
        yield page, reached
        if page.next is None:
            return
        before = reached or before


def last_change(page: Page, field: str, before: datetime) -> datetime | None:
    """When the last record of a page changed; None where no record has a time.

    Only the first record and the last are looked at, unless one of them has no time: reading the times of all would
    take as long as splitting the page.

    Raises:
        BadAnswer: a record changed later than the one before it, or than `before`.
    """
    records = page.records or []
    times = list(times_of_change(records[:1] + records[-1:], field))
    if len(times) < 2:
        times = list(times_of_change(records, field))
    if any(later > earlier for earlier, later in pairwise([before, *times])):
        raise BadAnswer(f"Page {page.seq} of a window is not in the requested order of {field}.")
    return times[-1] if times else None


def times_of_change(records: Sequence[Raw], field: str) -> Iterator[datetime]:
    """The times of change of the records that have one."""
    try:
        texts = [getattr(record, field) for record in _decoder(field).decode(b"[" + b",".join(records) + b"]")]
    except (msgspec.DecodeError, UnicodeDecodeError):  # a lone surrogate, or a time that is no string
        texts = [_parsed_time(record, field) for record in records]
    for text in texts:
        try:
            moment = datetime.fromisoformat(text or "")
        except ValueError:
            continue
        yield moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def _parsed_time(record: Raw, field: str) -> str | None:
    try:
        parsed = json.loads(bytes(record))
    except ValueError:
        return None
    text = parsed.get(field) if isinstance(parsed, dict) else None
    return text if isinstance(text, str) else None


@cache
def _decoder(field: str) -> msgspec.json.Decoder[Any]:
    """Reads one key of each record in a list and skips the others, which is much quicker."""
    return msgspec.json.Decoder(list[msgspec.defstruct("Timed", [(field, str | None, None)])])  # type: ignore[misc]


def parameter(moment: datetime) -> str:
    """A time as a parameter of a request."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
