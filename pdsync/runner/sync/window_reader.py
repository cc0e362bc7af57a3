"""Reads the windows of a backfill side by side: each is fetched as a walk, and its pages are sealed, not loaded."""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import TYPE_CHECKING

from msgspec.structs import replace

from pdsync.core.budget import WINDOW_S
from pdsync.core.list_response import open_envelope
from pdsync.core.log import log
from pdsync.core.reading import divisible
from pdsync.errors import ApiError, BadAnswer, FeatureOff, Forbidden, PdsyncError, Stopped, StorageError
from pdsync.extract import raw_archive, windows
from pdsync.extract.windows import ThrottledCaller, WindowProgress, WindowScheduler, WindowSet

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pdsync.core.control.windows import Window, Windows
    from pdsync.model import Operation, Page, Source, Stream, Walk
    from pdsync.runner.session import OnlineSession


class WindowReader:
    """Fetches the windows of one backfill."""

    def __init__(
        self,
        session: OnlineSession,
        stored: Windows,
        lists: Mapping[tuple[str, str], tuple[Stream, Source, Operation]],
        errors: dict[str, PdsyncError],
        sealed: asyncio.Queue[Walk | None],
    ) -> None:
        """
        Args:
            session: open.
            stored: the windows in control.db.
            lists: by names of stream and source.
            errors: by stream: its failure; is added to. No further window of a failed stream is begun.
            sealed: receives each walk that was read to its end.
        """
        self.session, self.stored, self.lists, self.errors, self.sealed = session, stored, lists, errors, sealed
        self.scheduler = WindowScheduler(helpers=1)
        self.windows = WindowSet([], stored, self._read_or_fail)

    async def read_all(self, left: Sequence[Window], *, helpers: int) -> None:
        """Read windows to their ends, `helpers` at a time.

        Raises:
            Stopped, StorageError: all of them were stopped. What was fetched is sealed, unless sealing is what failed.
        """
        self.scheduler = WindowScheduler(helpers=helpers, at_once=self._max_in_flight)
        self.windows.waiting = [self._progress_of(window) for window in left]
        await self.scheduler.read(self.windows)

    def _progress_of(self, window: Window) -> WindowProgress:
        operation = self.lists[window.stream, window.source][2]
        return WindowProgress(window, page_rows=operation.page_size or 100, divisible=divisible(operation))

    def _max_in_flight(self) -> float:
        """How many requests in flight use the whole rate limit; infinite if there is no limit."""
        burst = self.session.settings.burst
        return burst / WINDOW_S * self.session.http.budget.answer_s if burst else math.inf

    async def _read_or_fail(self, progress: WindowProgress) -> None:
        """Read a window; a final error fails its stream, and the others continue."""
        stream, source, operation = self.lists[progress.window.stream, progress.window.source]
        if stream.name in self.errors:
            return
        try:
            walk = self._walk_of(progress)
            try:
                last = await self._resume(progress, walk, stream, operation)
            except raw_archive.LostPage as error:
                walk, last = self._restart(progress, error), None
            try:
                await self._fetch(stream, source, operation, walk, progress, last)
            except (BadAnswer, ApiError) as error:
                if last is None or isinstance(error, Forbidden | FeatureOff):
                    raise
                # The cursor of an earlier run may have expired: read the window from its start, once.
                walk = self._restart(progress, error)
                await self._fetch(stream, source, operation, walk, progress, None)
        except (Stopped, StorageError):
            raise
        except PdsyncError as error:
            log.info("%s failed: %s", stream.name, error)
            self.errors[stream.name] = error
            self.windows.drop(stream.name)

    def _walk_of(self, progress: WindowProgress) -> Walk:
        if progress.window.walk is not None:
            return self.session.control.walk(progress.window.walk)
        walk = self.stored.begin(progress.window, self.session.receipt.run_id)
        progress.window = replace(progress.window, walk=walk.id)
        return walk

    def _restart(self, progress: WindowProgress, why: Exception) -> Walk:
        """Begin a window again, with a new walk."""
        log.info("%s: a window starts again, its cursor is no longer valid (%s)", progress.window.stream, why)
        walk = self.stored.begin(progress.window, self.session.receipt.run_id)
        restarted = self._progress_of(
            replace(progress.window, asked_since=progress.window.since, asked_until=progress.window.until)
        )
        progress.window, progress.reached, progress.rows = restarted.window, restarted.reached, 0
        return walk

    async def _resume(self, progress: WindowProgress, walk: Walk, stream: Stream, operation: Operation) -> Page | None:
        """Bring the progress of a window up to the last page that an earlier run sealed; that page.

        Raises:
            LostPage: it is missing or damaged.
        """
        control = self.session.control
        newest = control.last_page(walk.id)
        if newest is None:
            return None
        page = await asyncio.to_thread(raw_archive.read_page, self.session.settings.raw, newest)
        if progress.divisible and stream.cursor:
            opened = replace(page, records=open_envelope(page.body, operation).records)
            field = stream.column(stream.cursor).path(stream.cursor, walk.version)
            reached = windows.last_change(opened, field, progress.window.until)
            self.scheduler.record_page(progress, sum(each.rows for each in control.sealed_pages(walk.id)), reached)
        return page

    async def _fetch(
        self,
        stream: Stream,
        source: Source,
        operation: Operation,
        walk: Walk,
        progress: WindowProgress,
        after: Page | None,
    ) -> None:
        """Seal the pages of a window after its page `after`, each while the next one is fetched."""
        session = self.session
        sealing: asyncio.Task[None] | None = None
        reading = windows.read(
            ThrottledCaller(session.http, self.scheduler, progress),
            stream,
            source,
            operation,
            walk,
            progress,
            after=after,
        )
        is_ended = False
        try:
            async with contextlib.aclosing(reading):
                async for page, reached in reading:
                    self.scheduler.record_page(progress, page.rows, reached)
                    session.record_page(stream.name, operation, page)
                    if sealing:
                        await sealing
                    sealing = asyncio.create_task(session.archive.seal(walk, replace(page, records=None)))
                    is_ended = page.next is None
                    if self.windows.stopped:
                        break
        finally:
            if sealing:  # also after an error: what was fetched is kept
                await asyncio.shield(sealing)
        if is_ended:
            self.sealed.put_nowait(session.control.walk(walk.id))
