"""Cuts one long walk into windows of time that walk side by side, so that the rate limit decides, and not latency.

A list with cursors can only be read one page after the other: at 150 ms a page that is a handful a second, however
much the limit allows. But v2 lists can be asked for what changed *before* a moment too. So a list is read in windows
of update_time, each from its newest record to its oldest, the newest windows first.

How dense a window is shows only while it is read. So one begins with few, and whoever has nothing to do helps: the
window that seems to have the most pages left is cut behind the place where its walk is, the walk keeps the nearer
part with its cursor, and the helper begins with the older one. That is done only while the rate limit would not be
used up otherwise, because every cut costs tokens: the rest of the page in which two windows meet is asked for twice.
Where many records share a second no cut is possible, and none is made.

Records that change meanwhile leave the windows, because these end before the backfill began: they are for the next
sync to see. Times are whole seconds, UTC.
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

_FEW_PAGES, _MANY_PAGES = 16.0, 64.0  # what a walk keeps when its window is cut, or half where that is less
_WORTH_A_CUT = 4.0  # pages: below that, a helper costs about as much as it saves
_TO_SPARE = 1.5  # walks, for each that the limit needs: answers take longer now and then


class Store(Protocol):
    """Where windows are kept."""

    def cut(self, window: Window, at: datetime) -> tuple[Window, Window]:
        """Cut `window` in two, for good: the newer part, whose walk goes on, and the older one."""


class WindowProgress:
    """A window, and how far its walk is."""

    def __init__(self, window: Window, *, page_rows: int, divisible: bool) -> None:
        self.window, self.page_rows, self.divisible = window, page_rows, divisible
        self.reached = window.until  # what lies before this was not read yet
        self.rows = 0
        self.density: float | None = None  # rows a second, of the part that was read

    def advance(self, rows: int, reached: datetime | None) -> None:
        """Take in a page: its number of rows, and the time of its last one."""
        self.rows += rows
        if reached is not None and self.divisible:
            self.reached = min(reached, self.reached)
            covered = (self.window.until - self.reached).total_seconds()
            self.density = self.rows / max(covered, 1.0)

    @property
    def pages_left(self) -> float:
        """About how many pages are behind the place where its walk is; 0 where nothing tells yet."""
        if not self.divisible or not self.density:
            return 0.0
        return (self.reached - self.window.since).total_seconds() * self.density / self.page_rows

    def cut_at(self, helpers: int) -> datetime | None:
        """Where to cut it in two, with so many walks side by side; None where that would not help."""
        left = self.pages_left
        if left < _WORTH_A_CUT or not self.density:
            return None
        kept = min(max(left / helpers, min(_FEW_PAGES, left / 2)), _MANY_PAGES)
        at = (self.reached - timedelta(seconds=max(kept * self.page_rows / self.density, 1.0))).replace(microsecond=0)
        return at if self.window.since < at < self.reached else None


class WindowScheduler:
    """All windows of a backfill, shared by the walks that read them.

    slices = Slices(pieces, store, helpers=8, at_once=lambda: 3.5)
    await slices.read(walk)

    `at_once` tells how many requests have to be under way for the rate limit to be used up: the product of the two,
    limit and time an answer takes. More walks than that would only wait for each other.
    """

    def __init__(
        self,
        pieces: Iterable[WindowProgress],
        store: Store,
        *,
        helpers: int,
        at_once: Callable[[], float] = lambda: inf,
    ) -> None:
        self.helpers, self._at_once = helpers, at_once
        self._under_way = 0
        self._queue: list[tuple[float, int, asyncio.Future[None]]] = []  # those with the most to do come first
        self._asked = count()
        self.stopped: BaseException | None = None
        self._waiting = list(pieces)
        self._running: set[WindowProgress] = set()
        self._store = store
        self._news = asyncio.Event()

    async def read(self, walk: Callable[[WindowProgress], Awaitable[None]]) -> None:
        """Read every window by `walk`, as many side by side as there are helpers.

        `walk` tells of each page by `advanced`. What it raises ends all, once the pages that are under way are kept.
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
            piece = self._take()
            if piece is None:
                if not self._running:
                    return
                self._news.clear()
                await self._news.wait()
                continue
            self._running.add(piece)
            try:
                await walk(piece)
            except Exception as error:
                self.stop(error)
            finally:
                self._running.discard(piece)
                self._news.set()

    def stop(self, error: BaseException) -> None:
        """Begin no further page; `read` raises `error` when those under way are here."""
        self.stopped = self.stopped or error
        self._news.set()

    def drop(self, stream: str) -> None:
        """Begin no further window of `stream`."""
        self._waiting = [piece for piece in self._waiting if piece.window.stream != stream]
        for piece in self._running:
            if piece.window.stream == stream:
                piece.divisible = False

    def advanced(self, piece: WindowProgress, rows: int, reached: datetime | None) -> None:
        """A walk is a page further: whoever has nothing to do may help it."""
        piece.advance(rows, reached)
        self._news.set()

    @asynccontextmanager
    async def turn(self, piece: WindowProgress) -> AsyncIterator[None]:
        """Wait until a request of `piece` is among those that the limit can use, the longest walks first.

        Where many records share a second, a walk can't be helped: it must not wait as long as those that can.
        """
        if self._under_way < self._room:
            self._under_way += 1
        else:
            admitted = asyncio.get_running_loop().create_future()
            heappush(self._queue, (-piece.pages_left, next(self._asked), admitted))
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
        return self._at_once() * _TO_SPARE + 1

    def _leave(self) -> None:
        self._under_way -= 1
        while self._queue and self._under_way < self._room:
            _, _, admitted = heappop(self._queue)
            if not admitted.done():
                self._under_way += 1
                admitted.set_result(None)

    def _take(self) -> WindowProgress | None:
        """The newest window that waits, or else the older part of the one that has the most to do."""
        if self._waiting:
            newest = max(self._waiting, key=lambda piece: piece.window.until)
            self._waiting.remove(newest)
            return newest
        at_once = self._at_once()
        left = sum(piece.pages_left for piece in self._running)
        for piece in sorted(self._running, key=lambda piece: piece.pages_left, reverse=True):
            # Walks enough; but one with more than its share would be alone in the end, when the others are done.
            if len(self._running) >= self._room and piece.pages_left * at_once <= left:
                return None
            if (at := piece.cut_at(self.helpers)) is not None:
                piece.window, older = self._store.cut(piece.window, at)
                return WindowProgress(older, page_rows=piece.page_rows, divisible=True)
        return None


class ThrottledCaller:
    """Makes the calls of one walk when it is its turn."""

    def __init__(self, client: Caller, slices: WindowScheduler, piece: WindowProgress) -> None:
        self._client, self._slices, self._piece = client, slices, piece

    async def call(self, operation: Operation, path: str | None = None, *, query: Mapping[str, str] | None) -> Answer:
        """See `Caller.call`."""
        async with self._slices.turn(self._piece):
            return await self._client.call(operation, path, query=query)


def divisible(operation: Operation) -> bool:
    """Whether a list can be asked for what changed within a window, in the order of its times."""
    return {"updated_since", "updated_until", "sort_by", "sort_direction"} <= operation.query.keys()


async def read(
    client: Caller,
    stream: Stream,
    source: Source,
    operation: Operation,
    walk: Walk,
    piece: WindowProgress,
    *,
    after: Page | None = None,
) -> AsyncGenerator[tuple[Page, datetime | None]]:
    """Yield the pages of a window with the time of each one's last record, newest first, up to where it ends by then.

    The window may be cut while it is read. The page in which it ends says that none follows, whatever the list says.
    A list that can't be asked for windows is read from the window's beginning to its own end, in one walk; no times.

    Raises:
        BadAnswer: the records are not in the order that was asked for, so that nothing tells where a window ends.
        PdsyncError: what `pages` raises.
    """
    query = query_of(stream, source, walk.version, operation, piece.window.since)
    query["updated_since"] = _text(piece.window.asked_since)
    if not piece.divisible:
        async for page in pages(client, operation, walk, query, after=after):
            yield page, None
        return
    field = stream.column(stream.cursor or "").path(stream.cursor or "", walk.version)
    query |= {"sort_by": field, "sort_direction": "desc", "updated_until": _text(piece.window.asked_until)}
    before = piece.reached
    async for page in pages(client, operation, walk, query, after=after):
        reached = last_change(page, field, before)
        if reached is not None and reached < piece.window.since:
            page = replace(page, next=None)  # noqa: PLW2901 - what follows belongs to other windows
        yield page, reached
        if page.next is None:
            return
        before = reached or before


def last_change(page: Page, field: str, before: datetime) -> datetime | None:
    """When the last record of a page changed; None where no record says.

    Raises:
        BadAnswer: a record changed later than one in front of it, or than `before`.
    """
    last = None
    for moment in _moments(page.records or (), field):
        if moment > (last or before):
            raise BadAnswer(f"Page {page.seq} of a window is not in the order of {field} that was asked for.")
        last = moment
    return last


def _moments(records: Sequence[Raw], field: str) -> Iterator[datetime]:
    """When each record changed, of those that say so."""
    try:
        found = [getattr(record, field) for record in _decoder(field).decode(b"[" + b",".join(records) + b"]")]
    except (msgspec.DecodeError, UnicodeDecodeError):  # a lone surrogate, or a time that is no text
        found = [_said(record, field) for record in records]
    for text in found:
        try:
            moment = datetime.fromisoformat(text or "")
        except ValueError:
            continue
        yield moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def _said(record: Raw, field: str) -> str | None:
    try:
        found = json.loads(bytes(record))
    except ValueError:
        return None
    text = found.get(field) if isinstance(found, dict) else None
    return text if isinstance(text, str) else None


@cache
def _decoder(field: str) -> msgspec.json.Decoder[Any]:
    """Reads one key of each record in a list and passes over the others, which is what makes it quick."""
    return msgspec.json.Decoder(list[msgspec.defstruct("Timed", [(field, str | None, None)])])  # type: ignore[misc]


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
