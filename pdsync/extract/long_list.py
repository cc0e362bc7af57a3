"""Describes a list that may be read in windows: what is requested of it, and its first pages in both orders."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from msgspec import Struct

from pdsync.extract.pages import pages, query_of
from pdsync.extract.windows import parameter, times_of_change

if TYPE_CHECKING:
    from datetime import timedelta

    from pdsync.extract.pages import Caller
    from pdsync.extract.windows import WindowScheduler
    from pdsync.model import Operation, Page, Source, Stream, Walk

LONG = 40  # pages: windows would cost a shorter list more than a few percent more requests
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)


def is_long(operation: Operation, rows: float) -> bool:
    """Whether a list of `rows` rows is long enough to be read in windows."""
    return rows >= LONG * (operation.page_size or 100)


class LongList(Struct, frozen=True):
    """A list that may be read in windows, and its walk."""

    client: Caller
    stream: Stream
    source: Source
    operation: Operation
    walk: Walk
    scheduler: WindowScheduler  # of all lists of the run
    overlap: timedelta  # for changes that become visible late
    rows: int | None = None  # as many as there were last time; None: never read
    all_timed: bool = True  # no record is known to lack a time of change
    requests_after: float = 0.0  # that can only be made once it is read: those for the lists of its records
    seems_long: bool = False  # it was never read, but may be long: its ends are requested with its first page

    @property
    def is_long(self) -> bool:
        """Whether it is known to be long enough to be read in windows."""
        return is_long(self.operation, self.rows or 0)

    @property
    def opens_at_once(self) -> bool:
        """Whether the pages from both of its ends are requested before any other one has come."""
        return self.is_long or (self.rows is None and self.seems_long)

    @property
    def page_rows(self) -> int:
        """The number of records of a full page."""
        return self.operation.page_size or 100

    @property
    def field(self) -> str:
        """The key of a record's time of change."""
        cursor = self.stream.cursor or ""
        return self.stream.column(cursor).path(cursor, self.walk.version)

    def parameters(self, since: datetime | None = None) -> dict[str, str]:
        """The parameters that every page shares."""
        return query_of(self.stream, self.source, self.walk.version, self.operation, since)

    def ordered(self, direction: str) -> dict[str, str]:
        """The parameters of the list in the order of changes, asc or desc."""
        return self.parameters() | {"sort_by": self.field, "sort_direction": direction}

    def times(self, page: Page) -> list[datetime]:
        """The times of change of a page's records; fewer than records where some have none."""
        return list(times_of_change(page.records or (), self.field))


async def first_page(target: LongList, direction: str, *, only_earliest: bool = False) -> Page:
    """The first page in the order of changes; `only_earliest`: only the first record that has a time of change."""
    earliest = {"updated_since": parameter(EARLIEST), "limit": "1"} if only_earliest else {}
    query = target.ordered(direction) | earliest
    reading = pages(target.client, target.operation, target.walk, query)
    async with contextlib.aclosing(reading):
        return await anext(reading)


class Ends:
    """The first pages of a list in both orders of change; each is requested when it is needed, or before.

    async with Ends(target) as ends:
        newest = await ends.page("desc")
    """

    def __init__(self, target: LongList, *, at_once: bool = False) -> None:
        """
        Args:
            target: the list.
            at_once: both are requested as the block begins.
        """
        self._target, self._at_once = target, at_once
        self._requested: dict[str, asyncio.Task[Page]] = {}  # by direction

    async def __aenter__(self) -> Ends:
        if self._at_once:
            for direction in ("desc", "asc"):
                self._requested[direction] = asyncio.create_task(first_page(self._target, direction))
        return self

    async def __aexit__(self, kind: object, error: object, traceback: object) -> None:
        """Wait for the requests that are still in flight; after an error, cancel them."""
        for task in self._requested.values() if kind else ():
            task.cancel()
        await asyncio.gather(*self._requested.values(), return_exceptions=True)

    async def page(self, direction: str) -> Page:
        """The first page in the order of changes, asc or desc."""
        if direction not in self._requested:
            return await first_page(self._target, direction)
        return await self._requested[direction]
