"""Carries out a backfill: a bounded part of the past, read again in windows side by side.

It moves no watermark, and what the table knows from later stays: an old answer never takes the place of a newer one.
Every window is a walk in control.db, so a backfill that was stopped, by its budget or by anything else, is taken up
by the same command where it was, days later too.

Fetching and loading are apart here. Walks only seal their pages; a window that was read to its end is loaded from the
raw archive, one after the other. So no walk waits for the loader, and memory holds no more than the pages under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from pdsync.core import catalogue
from pdsync.core.account import fetch_account
from pdsync.core.budget import WINDOW_S
from pdsync.core.list_response import open_envelope
from pdsync.core.log import log
from pdsync.core.windows import Windows
from pdsync.errors import (
    ApiError,
    BadAnswer,
    BudgetSpent,
    ConfigError,
    FeatureOff,
    Forbidden,
    PdsyncError,
    Stopped,
    StorageError,
)
from pdsync.extract import raw_archive
from pdsync.extract import windows as slices
from pdsync.extract.raw_archive import Archive
from pdsync.extract.windows import ThrottledCaller, WindowProgress, WindowScheduler
from pdsync.load import publish
from pdsync.model import IncompleteStream, Page, Receipt, StreamReceipt
from pdsync.runner import connection, project
from pdsync.runner.loader import Loader
from pdsync.runner.report import mutation_log
from pdsync.runner.report import receipt as receipts
from pdsync.runner.report.completeness import measure_completeness
from pdsync.runner.sync.settle import settle
from pdsync.runner.sync.sync import Event, SyncRequest, sync

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pdsync.core.config import Settings
    from pdsync.core.control import Control
    from pdsync.core.http import Http
    from pdsync.core.windows import Window
    from pdsync.model import Operation, Source, Stream, Version, Walk

_LOADED_TOGETHER = 16  # pages
_HELPERS_WITHOUT_LIMIT = 16
_MOST_HELPERS = 32


class BackfillRequest(Struct, frozen=True):
    """What a backfill is asked to do."""

    since: datetime
    until: datetime | None = None  # None: until it begins
    streams: tuple[str, ...] = ()  # none: all that can be asked for a part of their past
    budget: int | None = None  # tokens
    per_day: bool = False  # the budget is for all backfills of a day, not for one run

    @property
    def command(self) -> str:
        """The command as it would be typed; a backfill that was stopped is taken up by the same one."""
        words = ["backfill", *self.streams, f"--since={self.since.isoformat()}"]
        return " ".join(words + ([f"--until={self.until.isoformat()}"] if self.until else []))

    def lists(self, prefer: Version) -> list[tuple[Stream, Version, Source, Operation]]:
        """The lists to read.

        Raises:
            ConfigError: a stream that was named can't be asked for a part of its past. Nothing was called.
        """
        wanted = [catalogue.stream(name) for name in self.streams] or [*catalogue.streams().values()]
        found = [entry for stream in wanted if not stream.parents(prefer) for entry in _bounded(stream, prefer)]
        able = {stream.name for stream, *_ in found}
        if unable := [stream.name for stream in wanted if self.streams and stream.name not in able]:
            names = sorted({s.name for each in catalogue.streams().values() for s, *_ in _bounded(each, prefer)})
            raise ConfigError(
                f"{', '.join(unable)}: Pipedrive's list can't be asked for what changed since a time. Nothing was"
                f" called.\nRead it whole with pdsync sync {' '.join(unable)} --full. A backfill can read:"
                f" {', '.join(names)}."
            )
        return found


def _bounded(stream: Stream, prefer: Version) -> list[tuple[Stream, Version, Source, Operation]]:
    version, sources = stream.sources(prefer)
    found = [(stream, version, source, catalogue.operations(version)[source.operation]) for source in sources]
    return [entry for entry in found if stream.cursor and "updated_since" in entry[3].query]


async def backfill(
    settings: Settings, asked: BackfillRequest, tell: Callable[[Event], None] = lambda event: None
) -> Receipt:
    """Read a part of the past again and publish the warehouse.

    Args:
        settings: of the project.
        asked: which streams, and from when until when.
        tell: is called with each event, in the event loop's thread.

    Returns:
        The receipt; its `exit_code` is 0 only if every window was read to its end and loaded.

    Raises:
        ConfigError, AuthError, WrongCompany: nothing was written.
        BudgetSpent: the day's share is used up already; nothing was called.
        Busy, Blocked: another run holds the project; Pipedrive asked for silence.
        PdsyncError: it could not even begin, or its end could not be kept.
    """
    lists = asked.lists(settings.api)
    _check_times(asked)
    budget, begun = _before(settings, asked)
    fields = tuple(dict.fromkeys(stream.fields for stream, *_ in lists if stream.fields))
    if fields and not begun:  # without their definitions, custom fields would have no columns
        defined = await sync(settings, SyncRequest(fields, budget=budget), tell)
        if defined.exit_code:
            return defined
        budget = budget and max(budget - defined.tokens, 0)
    helpers = _side_by_side(settings)

    def note(text: str) -> None:
        tell(Event("note", text=text))

    with project.locked(settings, note) as control:
        async with connection.connect(replace(settings, concurrency=helpers), run_tokens=budget) as http:
            http.clock.not_before(control.newest_time())
            identity = await fetch_account(http)
            control.check_company(identity.company_id, identity.company_name)
            if found := project.ready_work_file(settings):
                note(found)
            loader = Loader(project.work_path(settings))
            try:
                await loader.do(loader.open, identity.company_id, identity.company_name)
                control.bind_company(identity.company_id, identity.company_name, identity.company_domain)
                for found in await loader.do(settle, loader, control, http.clock):
                    note(found)
                windows = Windows(control)
                receipt = _begin(control, windows, asked, lists, identity.served_at or datetime.now(UTC))
                receipt.is_admin = identity.is_admin
                async with Archive(settings.raw, control, receipt.run_id, identity.company_id) as archive:
                    run = BackfillRun(settings, control, windows, http, archive, loader, receipt, lists, tell)
                    await run.all(helpers)
                await loader.do(loader.views)
                await loader.do(
                    measure_completeness, loader, control, receipt, settings, identity.served_at or receipt.started_at
                )
                await loader.do(receipts.save_receipt, loader, receipt)
            finally:
                await loader.close()
            publish.publish(project.work_path(settings), settings.warehouse)
            control.finish_run(receipt)
        await mutation_log.catch_up(settings, control)
    return receipt


def _check_times(asked: BackfillRequest) -> None:
    until = asked.until or datetime.now(UTC)
    if asked.since >= until:
        raise ConfigError(
            f"--since {asked.since:%Y-%m-%d %H:%M:%S} does not lie before {until:%Y-%m-%d %H:%M:%S} UTC, where the"
            " backfill ends. Nothing was called."
        )


def _before(settings: Settings, asked: BackfillRequest) -> tuple[int | None, bool]:
    """The tokens that this run may spend, and whether it takes up an earlier one.

    Raises:
        BudgetSpent: the day's share is used up already.
    """
    with project.opened(settings) as control:
        windows = Windows(control)
        begun = windows.job(asked.command) is not None
        if asked.budget is None or not asked.per_day:
            return asked.budget, begun
        pages = windows.pages_of_day(f"{datetime.now(UTC):%Y-%m-%d}")
    spent = sum((catalogue.operation(op, version).cost or 0) * count for (version, op), count in pages.items())
    if spent >= asked.budget:
        raise BudgetSpent(spent=spent, limit=asked.budget, resets_at=datetime.now(UTC).replace(hour=0, minute=0))
    return asked.budget - spent, begun


def _side_by_side(settings: Settings) -> int:
    """How many walks: enough to use the limit up at half a second a page, within limits.concurrency if it was set."""
    enough = min(settings.burst // 4 + 2, _MOST_HELPERS) if settings.burst else _HELPERS_WITHOUT_LIMIT
    return (
        max(settings.concurrency, enough)
        if settings.origins["limits.concurrency"] == "default"
        else min(settings.concurrency, _MOST_HELPERS)
    )


def _begin(
    control: Control,
    windows: Windows,
    asked: BackfillRequest,
    lists: Sequence[tuple[Stream, Version, Source, Operation]],
    began: datetime,
) -> Receipt:
    """The receipt of the backfill to take up, or a new one with a window for each list."""
    receipt = receipts.begin_receipt(asked.command)
    if job := windows.job(asked.command):
        return replace(receipt, run_id=job, resumed=True)
    control.start_run(receipt.run_id, receipt.command, receipt.started_at)
    since = asked.since.astimezone(UTC).replace(microsecond=0)
    until = min(asked.until or began, began).astimezone(UTC).replace(microsecond=0)
    if since < until:
        # All at once: a run that is taken up takes the windows that it finds for all that there are.
        asked_for = [(stream.name, source.name, version, operation.id) for stream, version, source, operation in lists]
        windows.plan(receipt.run_id, asked_for, since, until)
    return receipt


class BackfillRun:
    """One backfill under way."""

    def __init__(
        self,
        settings: Settings,
        control: Control,
        windows: Windows,
        http: Http,
        archive: Archive,
        loader: Loader,
        receipt: Receipt,
        lists: Sequence[tuple[Stream, Version, Source, Operation]],
        tell: Callable[[Event], None],
    ) -> None:
        self.settings, self.control, self.windows, self.http = settings, control, windows, http
        self.archive, self.loader, self.receipt, self.tell = archive, loader, receipt, tell
        self.lists = {(stream.name, source.name): (stream, source, operation) for stream, _, source, operation in lists}
        self.streams = list({stream.name: stream for stream, *_ in lists}.values())
        self.live = {stream.name: StreamReceipt() for stream in self.streams}
        self.errors: dict[str, PdsyncError] = {}
        self.slices = WindowScheduler([], windows, helpers=1)
        self.interrupted = False
        self.lost: str | None = None  # why a walk that was sealed could not be loaded
        self._read: asyncio.Queue[Walk | None] = asyncio.Queue()  # walks that wait for the loader

    async def all(self, helpers: int) -> None:
        """Read and load every window that is left, and write the receipt."""
        pieces = []
        for stream in self.streams:
            self.tell(Event("started", stream.name, self.live[stream.name]))
            await self.loader.do(self.loader.sync_custom_fields, stream, self.receipt.run_id)
            await self.loader.do(self.loader.table, stream, stream.sources(self.settings.api)[0])
        for window, state in self.windows.left(self.receipt.run_id):
            if state == "sealed" and window.walk is not None:
                self._read.put_nowait(self.control.walk(window.walk))
            elif (window.stream, window.source) in self.lists:
                again = replace(window, walk=None, asked_since=window.since, asked_until=window.until)
                pieces.append(self._piece(again if state == "dropped" else window))  # that can't go on: see `stores`
        self.slices = WindowScheduler(pieces, self.windows, helpers=helpers, at_once=self._at_once)
        loading = asyncio.create_task(self._load_all())
        stopped: PdsyncError | None = None
        try:
            await self.slices.read(self._guarded)
        except (Stopped, StorageError) as error:
            stopped = error
        except asyncio.CancelledError:
            self.interrupted = True
        finally:
            self._read.put_nowait(None)
            await asyncio.shield(loading)
        await self._conclude(stopped)

    def _piece(self, window: Window) -> WindowProgress:
        operation = self.lists[window.stream, window.source][2]
        return WindowProgress(window, page_rows=operation.page_size or 100, divisible=slices.divisible(operation))

    # Fetching.

    def _at_once(self) -> float:
        """How many requests are under way when the limit is used up; without one, as many as may be."""
        if not self.settings.burst:
            return math.inf
        return self.settings.burst / WINDOW_S * self.http.budget.answer_s

    async def _guarded(self, piece: WindowProgress) -> None:
        """Read a window; what fails for good fails its stream, and the others go on."""
        stream, source, operation = self.lists[piece.window.stream, piece.window.source]
        if stream.name in self.errors:
            return
        try:
            walk = self._walk_of(piece, self.receipt.run_id)
            try:
                last = await self._take_up(piece, walk, stream, operation)
            except raw_archive.LostPage as error:
                walk, last = self._begin_again(piece, error), None
            try:
                await self._fetch(stream, source, operation, walk, piece, last)
            except (BadAnswer, ApiError) as error:
                if last is None or isinstance(error, Forbidden | FeatureOff):
                    raise
                # The place where an earlier run left off is no longer there: read the window anew, once.
                walk = self._begin_again(piece, error)
                await self._fetch(stream, source, operation, walk, piece, None)
        except (Stopped, StorageError):
            raise
        except PdsyncError as error:
            log.info("%s failed: %s", stream.name, error)
            self.errors[stream.name] = error
            self.slices.drop(stream.name)

    def _begin_again(self, piece: WindowProgress, why: Exception) -> Walk:
        log.info("%s: a window begins again, its place is lost (%s)", piece.window.stream, why)
        walk = self.windows.begin(piece.window, self.receipt.run_id)
        again = self._piece(replace(piece.window, asked_since=piece.window.since, asked_until=piece.window.until))
        piece.window, piece.reached, piece.rows = again.window, again.reached, 0
        return walk

    def _walk_of(self, piece: WindowProgress, run_id: str) -> Walk:
        if piece.window.walk is None:
            walk = self.windows.begin(piece.window, run_id)
            piece.window = replace(piece.window, walk=walk.id)
            return walk
        return self.control.walk(piece.window.walk)

    async def _take_up(self, piece: WindowProgress, walk: Walk, stream: Stream, operation: Operation) -> Page | None:
        """The last page that an earlier run sealed of a window; the piece is brought up to there."""
        newest = self.control.last_page(walk.id)
        if newest is None:
            return None
        body = await asyncio.to_thread(raw_archive.read, self.settings.raw, newest)
        records = open_envelope(body, operation).records
        page = Page(walk.id, newest.seq, body, newest.rows, newest.next, newest.served_at, records=records)
        if piece.divisible and stream.cursor:
            field = stream.column(stream.cursor).path(stream.cursor, walk.version)
            reached = slices.last_change(page, field, piece.window.until)
            self.slices.advanced(piece, sum(each.rows for each in self.control.sealed_pages(walk.id)), reached)
        return replace(page, records=None)

    async def _fetch(
        self,
        stream: Stream,
        source: Source,
        operation: Operation,
        walk: Walk,
        piece: WindowProgress,
        after: Page | None,
    ) -> None:
        """Seal the pages of a window that are not here yet, each while the next one is asked for."""
        live = self.live[stream.name]
        sealing: asyncio.Task[None] | None = None
        reading = slices.read(
            ThrottledCaller(self.http, self.slices, piece), stream, source, operation, walk, piece, after=after
        )
        ended = False
        try:
            async with contextlib.aclosing(reading):
                async for page, reached in reading:
                    live.requests += 1
                    live.tokens += operation.cost or 0
                    live.read += page.rows
                    self.slices.advanced(piece, page.rows, reached)
                    self.tell(Event("page", stream.name, live))
                    if sealing:
                        await sealing
                    sealing = asyncio.create_task(self.archive.seal(walk, replace(page, records=None)))
                    ended = page.next is None
                    if self.slices.stopped:
                        break
        finally:
            if sealing:  # whatever happened: what was fetched is kept
                await asyncio.shield(sealing)
        if ended:
            self._read.put_nowait(self.control.walk(walk.id))

    # Loading.

    async def _load_all(self) -> None:
        """Load the walks that were read to their ends, one after the other, until there are no more to come."""
        while (walk := await self._read.get()) is not None:
            if self.interrupted:  # what is sealed is safe: the next run loads it
                continue
            try:
                await self._load(catalogue.stream(walk.stream), walk)
            except raw_archive.LostPage as error:  # its window is left, and read again by the next run
                self.control.end_walk(walk.id, "dropped")
                self.lost = self.lost or str(error).split("\n", 1)[0]
            except PdsyncError as error:
                self.errors[walk.stream] = error
                self.slices.drop(walk.stream)
                if isinstance(error, StorageError):
                    self.slices.stop(error)
                    return

    async def _load(self, stream: Stream, walk: Walk) -> None:
        """Load what the warehouse lacks of a walk from its sealed pages."""
        live = self.live.setdefault(stream.name, StreamReceipt())
        waiting = self.control.sealed_pages(walk.id, await self.loader.do(self.loader.pages_loaded, walk))
        for start in range(0, len(waiting), _LOADED_TOGETHER):
            together = []
            for entry in waiting[start : start + _LOADED_TOGETHER]:
                body = await asyncio.to_thread(raw_archive.read, self.settings.raw, entry)
                context = msgspec.json.decode(entry.context or "{}", type=dict[str, str])
                together.append(
                    Page(walk.id, entry.seq, body, entry.rows, entry.next, entry.served_at, context=context)
                )
            counts = await self.loader.add(stream, walk, together)
            if counts:
                live.inserted += counts.inserted
                live.updated += counts.updated
                live.deleted += counts.deleted
                live.unchanged += counts.unchanged
                self.tell(Event("page", stream.name, live))
        self.control.end_walk(walk.id, "applied")

    # The end.

    async def _conclude(self, stopped: PdsyncError | None) -> None:
        receipt = self.receipt
        receipt.finished_at = datetime.now(UTC)
        receipt.tokens, receipt.requests = self.http.budget.spent, self.http.budget.requests
        receipt.as_of = self.windows.until(receipt.run_id)
        left: dict[str, int] = {}
        for window, _ in self.windows.left(receipt.run_id):
            left[window.stream] = left.get(window.stream, 0) + 1
        counted = await self.loader.do(receipts.count_changes, self.loader, receipt.run_id)
        for stream in self.streams:
            entry, live = counted.get(stream.name, StreamReceipt()), self.live[stream.name]
            entry.requests, entry.tokens = live.requests, live.tokens
            error = self.errors.get(stream.name)
            windows = left.get(stream.name, 0)
            entry.error, entry.note = str(error) if error else None, self._note(stream)
            entry.complete = not error and not windows and not entry.quarantined
            receipt.streams[stream.name] = entry
            if error:
                receipt.gaps.append(
                    IncompleteStream(stream.name, receipts.kind_of_gap(error), str(error).split("\n", 1)[0])
                )
            elif windows:
                why = str(stopped).split("\n", 1)[0] if stopped else self.lost or "interrupted"
                receipt.gaps.append(IncompleteStream(stream.name, "stopped", f"{windows} windows are left. {why}"))
            elif entry.quarantined:
                detail = f"{entry.quarantined} records can't be read: meta.quarantine"
                receipt.gaps.append(IncompleteStream(stream.name, "quarantined", detail))
            self.tell(Event("finished", stream.name, live, str(error or "")))
        guard = stopped if isinstance(stopped, Stopped) else None
        receipt.exit_code = receipts.exit_code(receipt, self.errors, guard, interrupted=self.interrupted)

    def _note(self, stream: Stream) -> str | None:
        """What a backfill can't promise of a stream."""
        mine = [(source, operation) for each, source, operation in self.lists.values() if each.name == stream.name]
        told = [
            f"{source.name}: its list takes no end, so it was read from --since until now, in one walk"
            for source, operation in mine
            if not slices.divisible(operation)
        ]
        _, sources = stream.sources(self.settings.api)
        told += [
            f"{source.name}: its list takes no time and was left out; pdsync sync {stream.name} --full reads it"
            for source in sources
            if (stream.name, source.name) not in self.lists
        ]
        return "; ".join(told) or None
