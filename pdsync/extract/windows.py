"""Splits one long walk into windows of time that are read in parallel: the rate limit sets the pace, and not latency.

A list with cursors can only be read one page after the other: at 150 ms a page that is a handful a second, however
high the limit is. But v2 lists can also be limited to records changed *before* a moment. So a list is read in windows
of update_time, each from its newest record to its oldest, the newest windows first.

The density of a window shows only while it is read. So a backfill begins with few windows, and an idle worker
helps: the window with the most pages left (by estimate) is cut after its walk's position, the walk keeps the newer part
with its cursor, and the helper begins with the older one. That happens only while the rate limit would otherwise not be
used up, because every cut costs tokens: the page in which two windows meet is requested twice. Where many records
share a second no cut is possible, and none is made.

Records that change meanwhile leave the windows, because these end before the backfill began: the next sync reads
them. Times are whole seconds, UTC.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from heapq import heappop, heappush
from itertools import count
from math import inf
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

_FEW_PAGES, _MANY_PAGES = 16.0, 64.0  # that a walk keeps when its window is cut, or half of the rest where that is less
_WORTH_A_CUT = 4.0  # pages: below that, a cut costs about as much as it saves
_SPARE_WALKS = 1.5  # for each walk that the limit needs: some answers take longer


class Store(Protocol):
    """Stores the windows."""

    def cut(self, window: Window, at: datetime) -> tuple[Window, Window]:
        """Cut `window` in two and store both: the newer part, whose walk continues, and the older one."""


class WindowProgress:
    """A window, and the progress of its walk."""

    def __init__(self, window: Window, *, page_rows: int, divisible: bool) -> None:
        self.window, self.page_rows, self.divisible = window, page_rows, divisible
        self.reached = window.until  # records before this were not read yet
        self.rows = 0
        self.density: float | None = None  # rows for each second of the part that was read

    def advance(self, rows: int, reached: datetime | None) -> None:
        """Count a page: its number of rows, and the time of its last one."""
        self.rows += rows
        if reached is not None and self.divisible:
            self.reached = min(reached, self.reached)
            covered = (self.window.until - self.reached).total_seconds()
            self.density = self.rows / max(covered, 1.0)

    @property
    def pages_left(self) -> float:
        """Estimate of the pages that its walk has left; 0 before the first page."""
        if not self.divisible or not self.density:
            return 0.0
        return (self.reached - self.window.since).total_seconds() * self.density / self.page_rows

    def cut_at(self, helpers: int) -> datetime | None:
        """The moment to cut it at, with `helpers` walks in parallel; None where that would not help."""
        left = self.pages_left
        if left < _WORTH_A_CUT or not self.density:
            return None
        kept = min(max(left / helpers, min(_FEW_PAGES, left / 2)), _MANY_PAGES)
        at = (self.reached - timedelta(seconds=max(kept * self.page_rows / self.density, 1.0))).replace(microsecond=0)
        return at if self.window.since < at < self.reached else None


class WindowScheduler:
    """All windows of a backfill, shared by the walks that read them.

    scheduler = WindowScheduler(windows, store, helpers=8, at_once=lambda: 3.5)
    await scheduler.read(walk)

    `at_once` gives the number of concurrent requests that use up the rate limit: the limit times the time an answer
    takes. More walks than that would only wait for each other.
    """

    def __init__(
        self,
        windows: Iterable[WindowProgress],
        store: Store,
        *,
        helpers: int,
        at_once: Callable[[], float] = lambda: inf,
    ) -> None:
        self.helpers, self._at_once = helpers, at_once
        self._active = 0
        self._queue: list[tuple[float, int, asyncio.Future[None]]] = []  # those with the most pages left come first
        self._turns = count()
        self.stopped: BaseException | None = None
        self._waiting = list(windows)
        self._running: set[WindowProgress] = set()
        self._store = store
        self._wake = asyncio.Event()

    async def read(self, walk: Callable[[WindowProgress], Awaitable[None]]) -> None:
        """Read every window with `walk`, as many in parallel as there are helpers.

        `walk` reports each page to `record_page`. An error that it raises ends all walks, after their current pages are
        stored.
        """
        tasks = [asyncio.create_task(self._help(walk)) for _ in range(self.helpers)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if self.stopped:
            raise self.stopped

    async def _help(self, walk: Callable[[WindowProgress], Awaitable[None]]) -> None:
        while not self.stopped:
            progress = self._take()
            if progress is None:
                if not self._running:
                    return
                self._wake.clear()
                await self._wake.wait()
                continue
            self._running.add(progress)
            try:
                await walk(progress)
            except Exception as error:
                self.stop(error)
            finally:
                self._running.discard(progress)
                self._wake.set()

    def stop(self, error: BaseException) -> None:
        """Begin no further page; `read` raises `error` after the current ones."""
        self.stopped = self.stopped or error
        self._wake.set()

    def drop(self, stream: str) -> None:
        """Begin no further window of `stream`."""
        self._waiting = [progress for progress in self._waiting if progress.window.stream != stream]
        for progress in self._running:
            if progress.window.stream == stream:
                progress.divisible = False

    def record_page(self, progress: WindowProgress, rows: int, reached: datetime | None) -> None:
        """Count a page of a walk, and wake the idle workers, which may help it."""
        progress.advance(rows, reached)
        self._wake.set()

    @asynccontextmanager
    async def turn(self, progress: WindowProgress) -> AsyncIterator[None]:
        """Wait until the rate limit has room for a request of `progress`; the longest walks come first.

        Where many records share a second, a walk can't be split: it must not wait as long as those that can.
        """
        if self._active < self._room:
            self._active += 1
        else:
            admitted = asyncio.get_running_loop().create_future()
            heappush(self._queue, (-progress.pages_left, next(self._turns), admitted))
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
        return self._at_once() * _SPARE_WALKS + 1

    def _leave(self) -> None:
        self._active -= 1
        while self._queue and self._active < self._room:
            _, _, admitted = heappop(self._queue)
            if not admitted.done():
                self._active += 1
                admitted.set_result(None)

    def _take(self) -> WindowProgress | None:
        """The newest waiting window, or else the older part of the one with the most pages left."""
        if self._waiting:
            newest = max(self._waiting, key=lambda progress: progress.window.until)
            self._waiting.remove(newest)
            return newest
        at_once = self._at_once()
        left = sum(progress.pages_left for progress in self._running)
        for progress in sorted(self._running, key=lambda progress: progress.pages_left, reverse=True):
            # There are enough walks; but one with more than its share would run alone after the others.
            if len(self._running) >= self._room and progress.pages_left * at_once <= left:
                return None
            if (at := progress.cut_at(self.helpers)) is not None:
                progress.window, older = self._store.cut(progress.window, at)
                return WindowProgress(older, page_rows=progress.page_rows, divisible=True)
        return None


class ThrottledCaller:
    """Makes the calls of one walk, each in its turn."""

    def __init__(self, client: Caller, scheduler: WindowScheduler, progress: WindowProgress) -> None:
        self._client, self._scheduler, self._progress = client, scheduler, progress

    async def call(self, operation: Operation, path: str | None = None, *, query: Mapping[str, str] | None) -> Answer:
        """See `Caller.call`."""
        async with self._scheduler.turn(self._progress):
            return await self._client.call(operation, path, query=query)


def divisible(operation: Operation) -> bool:
    """Whether a list can be limited to changes within a window of time, in their order."""
    return {"updated_since", "updated_until", "sort_by", "sort_direction"} <= operation.query.keys()


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
    """Yield the pages of a window, newest first, each with the time of its last record.

    The window may be cut while it is read; the walk ends at the window's current end, and its last page has no `next`.
    A list that can't be limited to a window is read from the window's beginning to its own end, without times.

    Raises:
        BadAnswer: the records are not in the requested order, so the end of the window can't be seen.
        PdsyncError: what `pages` raises.
    """
    query = query_of(stream, source, walk.version, operation, progress.window.since)
    query["updated_since"] = _text(progress.window.asked_since)
    if not progress.divisible:
        async for page in pages(client, operation, walk, query, after=after):
            yield page, None
        return
    field = stream.column(stream.cursor or "").path(stream.cursor or "", walk.version)
    query |= {"sort_by": field, "sort_direction": "desc", "updated_until": _text(progress.window.asked_until)}
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

    Raises:
        BadAnswer: a record changed later than the one before it, or than `before`.
    """
    last = None
    for moment in _moments(page.records or (), field):
        if moment > (last or before):
            raise BadAnswer(f"Page {page.seq} of a window is not in the requested order of {field}.")
        last = moment
    return last


def _moments(records: Sequence[Raw], field: str) -> Iterator[datetime]:
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


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
