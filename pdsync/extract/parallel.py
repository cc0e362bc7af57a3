"""Reads a long list with cursors in several windows at once, as one walk.

A cursor gives one page per round trip, however high the rate limit is. A list that can be limited to a window of
update_time is therefore read in windows, which are cut while they are read (see `extract.windows`). To its reader it
is one walk like any other: pages come one at a time, and each has, as its `next`, the state of all windows after it.
So a walk that was interrupted continues every window after its last sealed page.

What the windows do not cover is read too:

- Records without a time of change, which no window contains. Where a list sorts them is not documented; windows are
  used only if they are its first ones in ascending order. They are read from there.
- Records that change while the list is read. They leave their windows, so the changes since the beginning are read
  last.

Assumption: a list that sorts by update_time has all records with a time, in that order; where a page is out of order,
the walk fails, and the list is read with one cursor.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from pdsync.core.control.windows import Window
from pdsync.core.log import log
from pdsync.errors import ApiError, BadAnswer
from pdsync.extract.long_list import EARLIEST, Ends, first_page, is_long
from pdsync.extract.pages import pages, record_ids
from pdsync.extract.windows import (
    WORTH_A_CUT,
    ThrottledCaller,
    WindowProgress,
    WindowSet,
    last_change,
    parameter,
    times_of_change,
)
from pdsync.model import Page

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from pdsync.extract.long_list import LongList

UNDECIDED = 1  # pages that are read with one cursor before the size of a list is estimated
_MOST_SHARED = 4  # seconds with many records for which a list is cut at its beginning
_WAITING = 8  # pages that were fetched and wait for the reader
_IN_WINDOWS = "in windows: "  # begins the `next` of a page; a cursor of the API has no blank
_LATEST = datetime.max.replace(tzinfo=UTC)


class _Part(Struct, omit_defaults=True):
    """What is left of a window after a page. Times are UTC."""

    since: datetime
    until: datetime
    asked_since: datetime | None = None  # None: without this limit, as only the first window is
    asked_until: datetime | None = None
    cursor: str | None = None  # None: not begun
    reached: datetime | None = None
    rows: int = 0
    density: float | None = None  # rows for each second, by estimate
    is_untimed: bool = False  # no window, but the records without a time

    @property
    def direction(self) -> str:
        """The order of its records: asc or desc."""
        return "asc" if self.is_untimed else "desc"


class _State(Struct):
    """What is left of a walk after a page."""

    windows: dict[int, _Part]
    changes_since: datetime  # the records that changed meanwhile, which are read last
    changes_cursor: str | None = None

    @property
    def text(self) -> str:
        return _IN_WINDOWS + msgspec.json.encode(self).decode()


class _Opening(Struct, frozen=True):
    """The pages from both ends of a long list, and what is left after them."""

    oldest: Page
    newest: Page
    state: _State


async def parallel_pages(target: LongList, after: Page | None = None) -> AsyncGenerator[Page]:
    """The pages of a whole list: with one cursor if it is short, otherwise in windows that are read side by side.

    Args:
        target: the list.
        after: the last page that an earlier attempt sealed; None from the start.

    Raises:
        BadAnswer: the list can't be walked to its end, or is not in the requested order.
        PdsyncError: what the calls raise.
    """
    state, seq, newest = _state_of(after), after.seq + 1 if after else 0, None
    if state is None:
        async with Ends(target, at_once=after is None and target.opens_at_once) as ends:
            opening = await _open(target, ends) if after is None and target.is_long else None
            if opening is None:
                reading = pages(target.client, target.operation, target.walk, target.parameters(), after=after)
                async with contextlib.aclosing(reading):
                    async for page in reading:
                        yield page
                        if page.next and target.rows is None and page.seq + 1 == UNDECIDED:
                            all_timed = target.all_timed and len(target.times(page)) == page.rows
                            opening = await _open(replace(target, all_timed=all_timed), ends, page)
                            if opening:
                                seq = page.seq + 1
                                break
        if opening is None:
            return
        state, newest = opening.state, opening.newest
        yield replace(opening.oldest, seq=seq, next=state.text, cursor=_address("asc"))
        seq += 1
    reading = _Windows(target, state).pages(newest)
    async with contextlib.aclosing(reading):
        async for page in reading:
            yield replace(page, seq=seq)
            seq += 1
    async for page in _changes(target, state, seq):
        yield page


def _address(
    direction: str, since: datetime | None = None, until: datetime | None = None, cursor: str | None = None
) -> str:
    """What a page was asked for, in the archive: the order, the limits of its window, the cursor."""
    return msgspec.json.encode([direction, since and parameter(since), until and parameter(until), cursor]).decode()


def is_parallel(page: Page | None) -> bool:
    """Whether the walk that sealed `page` last reads a list in windows."""
    return _state_of(page) is not None


def _state_of(page: Page | None) -> _State | None:
    if page is None or page.next is None or not page.next.startswith(_IN_WINDOWS):
        return None
    return msgspec.json.decode(page.next.removeprefix(_IN_WINDOWS), type=_State)


async def _open(target: LongList, ends: Ends, read: Page | None = None) -> _Opening | None:
    """Read one page from each end of a list; None if it is too short, or can't be relied upon to be in order.

    Args:
        target: the list.
        ends: gives the pages from both of its ends.
        read: the last page of those that were read in the order of ids; None if the list is known to be long.
    """
    try:
        newest = await ends.page("desc")
        expected = _pages_after(read, newest) * target.page_rows if read else float(target.rows or 0)
        if read and not is_long(target.operation, expected):
            return None
        oldest = await ends.page("asc")
        newest_times = target.times(newest)
        if not newest_times or len(newest_times) < newest.rows or not _is_ascending(newest_times[::-1]):
            return None
        oldest_times = target.times(oldest)
        earliest = oldest_times or target.times(await first_page(target, "asc", only_earliest=True))
    except (ApiError, BadAnswer) as error:
        log.info("%s is read with one cursor: it can't be sorted by %s (%s)", target.stream.name, target.field, error)
        return None
    begins_untimed = not list(times_of_change((oldest.records or ())[:1], target.field))
    if not _is_ascending(oldest_times) or begins_untimed == (len(oldest_times) == oldest.rows):
        return None
    if not target.all_timed and not begins_untimed:  # so they are somewhere else
        return None
    latest = newest_times[0]
    # What the oldest page shows is not read again, but for its last second, which the next page may have more of.
    since, until = oldest_times[-1] if oldest_times else (earliest or [EARLIEST])[0], latest + timedelta(seconds=1)
    left = _cut_after(_shared_seconds(target, read, expected), since, until, expected)
    if not oldest_times and oldest.next:
        left[len(left)] = _Part(EARLIEST, since, cursor=oldest.next, is_untimed=True)
    # Later changes are later than `latest`, unless they share its second: then one more page would not show all of it.
    changed = latest if newest_times[-1] < latest else until
    served = min(newest.served_at, oldest.served_at).astimezone(UTC)
    return _Opening(oldest, newest, _State(left, min(served - target.overlap, changed)))


def _shared_seconds(target: LongList, read: Page | None, expected: float) -> list[datetime]:
    """The seconds in which many pages of records changed, newest first, as far as a page in the order of ids shows.

    Args:
        target: the list.
        read: the page; None: nothing is known.
        expected: how many records the list has.
    """
    shared = Counter(target.times(read) if read else ()).most_common(_MOST_SHARED)
    at_least = WORTH_A_CUT * target.page_rows * (read.rows if read else 0) / expected
    return sorted((second for second, rows in shared if rows > 1 and rows >= at_least), reverse=True)


def _cut_after(seconds: list[datetime], since: datetime, until: datetime, expected: float) -> dict[int, _Part]:
    """The windows from `since` to `until`: one, and another one from each of `seconds`, newest first.

    The records of a second can only be read one page after the other, so their reading begins at once.
    """
    density = expected / max((until - since).total_seconds(), 1.0)
    ends = [second + timedelta(seconds=1) for second in seconds if since < second + timedelta(seconds=1) < until]
    parts = [_Part(since, end, since, end, density=density) for end in ends]
    for newer, end in zip([newest := _Part(since, until, density=density), *parts], ends, strict=False):
        newer.since = end
    return dict(enumerate([newest, *parts]))


def _is_ascending(times: Sequence[datetime]) -> bool:
    return all(a <= b for a, b in pairwise(times))


def _pages_after(read: Page, newest: Page) -> float:
    """Estimate of the pages after `read` in the order of ids: as many ids a page as in `read`."""
    ids = [key for key in record_ids(read.records or ()) if isinstance(key, int)]
    latest = [key for key in record_ids(newest.records or ()) if isinstance(key, int)]
    if not ids or not latest:
        return 0.0
    return (max(latest) - max(ids)) / (max(ids) - min(ids) + 1)


class _Windows:
    """The windows of a walk, and what is left of them after each page that its reader got."""

    def __init__(self, target: LongList, state: _State) -> None:
        self.target, self.state = target, state
        self._next_id = max(state.windows, default=0) + 1
        self._fetched: asyncio.Queue[tuple[int, Page, datetime | None] | None] = asyncio.Queue(_WAITING)

    def cut(self, window: Window, at: datetime) -> tuple[Window, Window]:
        """Cut `window` in two: the newer part, whose cursor continues, and the older one."""
        number, self._next_id = self._next_id, self._next_id + 1
        density = self.state.windows[window.id].density
        self.state.windows[number] = _Part(window.since, at, window.since, at, density=density)
        self.state.windows[window.id].since = at
        return replace(window, since=at), replace(window, id=number, until=at)

    async def pages(self, newest: Page | None) -> AsyncGenerator[Page]:
        """The pages of all windows as they come, each with the state after it as its `next`.

        Args:
            newest: the first page of window 0, where that was fetched already.
        """
        if newest:
            reached = self.target.times(newest)[-1]
            is_last = reached < self.state.windows[0].since
            yield self._account(0, replace(newest, next=None) if is_last else newest, reached)
        left = [self._progress(number, part) for number, part in self.state.windows.items()]
        windows = WindowSet(left, self, lambda progress: self._read(windows, progress))
        reading = asyncio.create_task(self._read_all(windows))
        try:
            while (fetched := await self._fetched.get()) is not None:
                yield self._account(*fetched)
            if windows.stopped:
                raise windows.stopped
            if self.state.windows:
                raise RuntimeError(f"{len(self.state.windows)} windows were not read to their ends.")
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    def _progress(self, number: int, part: _Part) -> WindowProgress:
        walk = self.target.walk
        window = Window(
            id=number,
            job=walk.run_id,
            stream=walk.stream,
            source=walk.source,
            version=walk.version,
            operation=walk.operation,
            since=part.since,
            until=part.until,
            asked_since=part.asked_since or part.since,
            asked_until=part.asked_until or part.until,
        )
        progress = WindowProgress(
            window,
            page_rows=self.target.page_rows,
            divisible=not part.is_untimed,
            density=part.density,
            requests_after=self.target.requests_after,
        )
        progress.advance(part.rows, part.reached)
        return progress

    def _account(self, number: int, page: Page, reached: datetime | None) -> Page:
        """Take a page out of what is left, and give it the rest as its `next`."""
        part = self.state.windows[number]
        address = _address(part.direction, part.asked_since, part.asked_until, page.cursor)
        if page.next is None:
            del self.state.windows[number]
        else:
            part.cursor, part.reached = page.next, reached or part.reached
            part.rows += page.rows
        return replace(page, next=self.state.text, cursor=address)

    async def _read_all(self, windows: WindowSet) -> None:
        """Fetch all windows; an error of one is raised after the pages of the others were handed over."""
        with contextlib.suppress(Exception):  # the reader raises it, once it has all pages
            await self.target.scheduler.read(windows)
        await self._fetched.put(None)

    async def _read(self, windows: WindowSet, progress: WindowProgress) -> None:
        """Fetch the pages of one window, newest first."""
        target, number, scheduler = self.target, progress.window.id, self.target.scheduler
        part = self.state.windows[number]
        after = None
        if part.cursor is not None:
            after = Page(target.walk.id, 0, b"", 0, part.cursor, target.walk.started_at or part.since)
        elif part.asked_since:
            part.asked_since = part.since  # it may have been cut before it began
        query = target.ordered(part.direction)
        if part.asked_since:
            query["updated_since"] = parameter(part.asked_since)
        if part.asked_until:
            query["updated_until"] = parameter(part.asked_until)
        before = part.reached or part.asked_until or _LATEST
        caller = ThrottledCaller(target.client, scheduler, progress)
        reading = pages(caller, target.operation, target.walk, query, after=after)
        async with contextlib.aclosing(reading):
            async for page in reading:
                if part.is_untimed:
                    reached, is_last = None, page.next is None or bool(target.times(page))
                else:
                    reached = last_change(page, target.field, before)
                    # Only the next cursor ends a list, never an empty page. Records without a time are not its own.
                    is_over = page.rows > 0 if reached is None else reached < progress.window.since
                    is_last = page.next is None or is_over
                scheduler.record_page(progress, page.rows, reached)
                progress.divisible = progress.divisible and not is_last
                await self._fetched.put((number, replace(page, next=None) if is_last else page, reached))
                before = reached or before
                if is_last or windows.stopped:
                    return


async def _changes(target: LongList, state: _State, seq: int) -> AsyncGenerator[Page]:
    """The records that changed while the windows were read, in the order of their changes."""
    query = target.parameters(state.changes_since)
    after = None
    if state.changes_cursor is not None:
        after = Page(target.walk.id, seq - 1, b"", 0, state.changes_cursor, state.changes_since)
    reading = pages(target.client, target.operation, target.walk, query, after=after)
    async with contextlib.aclosing(reading):
        async for page in reading:
            state.changes_cursor = page.next
            address = _address("asc", state.changes_since, cursor=page.cursor)
            yield replace(page, seq=seq, next=state.text if page.next else None, cursor=address)
            seq += 1
