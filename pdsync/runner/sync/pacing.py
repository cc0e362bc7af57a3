"""Decides how many requests of a list may be in flight: enough to use up the rate limit, and few that are wasted.

By Little's law, a limit is used up by as many requests in flight as it allows in the time that an answer takes. The
lists of a run that are read at the same time share them.
"""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING

from pdsync.core.budget import WINDOW_S
from pdsync.extract.windows import SPARE_WALKS, WindowScheduler
from pdsync.runner.connection import concurrency

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from pdsync.model import Operation, Page, Source, Stream
    from pdsync.runner.session import OnlineSession

_WITHOUT_LIMIT = 4.0  # requests in flight: more would only need more processor time at once
_WASTED = 20  # pages for each one that may be requested after the end of a list


class Pacing:
    """What the lists of one run have of the rate limit."""

    def __init__(self, session: OnlineSession) -> None:
        self._session = session
        self._lists = self._in_windows = 0  # that are read at the same time
        self._rows_last_time = {
            (stream, source): rows
            for (stream, source, whole), (_, rows) in session.control.pages_of_last_walks().items()
            if whole
        }
        self.scheduler = WindowScheduler(
            helpers=concurrency(session.settings), at_once=lambda: self.share() * self._in_windows
        )

    @property
    def is_sequential(self) -> bool:
        """Whether only one request may be in flight."""
        return concurrency(self._session.settings) == 1

    def rows_last_time(self, stream: Stream, source: Source) -> int | None:
        """How many rows a list had when it was last read whole; None: never, or the pages are gone."""
        return self._rows_last_time.get((stream.name, source.name))

    async def sharing(self, reading: AsyncGenerator[Page], *, in_windows: bool = False) -> AsyncGenerator[Page]:
        """`reading`, which has a share of the rate limit until it ends; `in_windows`: if its list may be a long one."""
        self._lists += 1
        self._in_windows += in_windows
        try:
            async with contextlib.aclosing(reading):
                async for page in reading:
                    yield page
        finally:
            self._lists -= 1
            self._in_windows -= in_windows

    def share(self) -> float:
        """How many requests in flight use up one list's share."""
        burst = self._session.settings.burst
        whole = burst / WINDOW_S * self._session.http.budget.answer_s if burst else _WITHOUT_LIMIT
        return whole / max(self._lists, 1)

    def ahead(self) -> int:
        """How many requests of one list to have in flight besides the one that is waited for."""
        return 0 if self.is_sequential else math.ceil(self.share() * SPARE_WALKS)

    def pages_ahead(self, stream: Stream, source: Source, operation: Operation, read: int) -> int:
        """How many pages of a list with offsets to request ahead after `read` rows.

        Pages after its end would cost tokens for nothing: no more than it had last time, or 5 % of what was read.
        """
        last_time = self.rows_last_time(stream, source)
        expected = (last_time - read) if last_time is not None else read // _WASTED
        return min(self.ahead(), max(expected, 0) // (operation.page_size or 100))
