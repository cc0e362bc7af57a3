"""Carries out a backfill: a bounded part of the past, read again in windows of time, side by side.

It moves no watermark, and rows that are newer than an answer are not changed. Every window is a walk in control.db, so
a backfill that was stopped, by its budget or otherwise, is continued by the same command, even days later.

Fetching and loading are separate. Walks only seal their pages; windows that were read to their ends are loaded from the
raw archive, one after the other. So no walk waits for the loader, and only the pages being fetched are in memory.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from pdsync.core import catalogue
from pdsync.core.control.windows import Windows
from pdsync.core.reading import divisible
from pdsync.errors import BudgetSpent, ConfigError, PdsyncError, Stopped, StorageError
from pdsync.extract import raw_archive
from pdsync.model import StreamReceipt
from pdsync.runner import connection, unlocked
from pdsync.runner.report.receipt import StreamEnd, begin_receipt, conclude, count_changes, exit_code
from pdsync.runner.session import Event, log_notes, open_session
from pdsync.runner.sync import walk_loader
from pdsync.runner.sync.sync import sync
from pdsync.runner.sync.sync_request import SyncRequest
from pdsync.runner.sync.window_reader import WindowReader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pdsync.core.config import Settings
    from pdsync.core.control import Control
    from pdsync.model import Operation, Receipt, Source, Stream, Version, Walk
    from pdsync.runner.session import OnEvent, OnlineSession


class BackfillRequest(Struct, frozen=True):
    """Which part of the past a backfill reads, and within which budget."""

    since: datetime
    until: datetime | None = None  # None: until it begins
    streams: tuple[str, ...] = ()  # none: all whose lists can be read by time
    budget: int | None = None  # tokens
    per_day: bool = False  # the budget is for all backfills of a day, not for one run

    @property
    def command(self) -> str:
        """The command line; a backfill that was stopped is continued by the same one."""
        arguments = ["backfill", *self.streams, f"--since={self.since.isoformat()}"]
        return " ".join(arguments + ([f"--until={self.until.isoformat()}"] if self.until else []))

    def lists(self, prefer: Version) -> list[tuple[Stream, Version, Source, Operation]]:
        """The lists to read.

        Raises:
            ConfigError: the list of a named stream can't be read by time. Nothing was called.
        """
        selected = [catalogue.stream(name) for name in self.streams] or [*catalogue.streams().values()]
        found = [entry for stream in selected if not stream.parents(prefer) for entry in _lists_by_time(stream, prefer)]
        readable = {stream.name for stream, *_ in found}
        if unreadable := [stream.name for stream in selected if self.streams and stream.name not in readable]:
            names = sorted({s.name for each in catalogue.streams().values() for s, *_ in _lists_by_time(each, prefer)})
            raise ConfigError(
                f"{', '.join(unreadable)}: Pipedrive's list can't be read by time of change. Nothing was"
                f" called.\nRead it whole with pdsync sync {' '.join(unreadable)} --full. A backfill can read:"
                f" {', '.join(names)}."
            )
        return found


def names_of(lists: Sequence[tuple[Stream, Version, Source, Operation]]) -> list[tuple[str, str, Version, str]]:
    """The names of stream and source, the version, and the operation of each list: what a window is of."""
    return [(stream.name, source.name, version, operation.id) for stream, version, source, operation in lists]


def _lists_by_time(stream: Stream, prefer: Version) -> list[tuple[Stream, Version, Source, Operation]]:
    version, sources = stream.sources(prefer)
    found = [(stream, version, source, catalogue.operations(version)[source.operation]) for source in sources]
    return [entry for entry in found if stream.cursor and "updated_since" in entry[3].query]


async def backfill(settings: Settings, request: BackfillRequest, on_event: OnEvent = log_notes) -> Receipt:
    """Read a part of the past again and publish the warehouse.

    Args:
        settings: of the project.
        request: which streams, and from when until when.
        on_event: is called with each event, in the event loop's thread.

    Returns:
        The receipt; its `exit_code` is 0 only if every window was read to its end and loaded. If the definitions of
        custom fields can't be synced first, that sync's receipt: no window was begun. An interruption while windows
        are read is not raised: the exit code is 130.

    Raises:
        ConfigError, AuthError, WrongCompany: nothing was written.
        BudgetSpent: the day's budget is used up already; nothing was called.
        ProjectLocked, CoolingDown: another run has the lock; Pipedrive asked for a pause.
        PdsyncError: it could not begin, or its receipt could not be saved.
    """
    lists = request.lists(settings.api)
    _check_times(request)
    budget, is_continued = _budget_left(settings, request, lists)
    fields = tuple(dict.fromkeys(stream.fields for stream, *_ in lists if stream.fields))
    if fields and not is_continued:  # without their definitions, custom fields would have no columns
        definitions = await sync(settings, SyncRequest(fields, budget=budget), on_event)
        if definitions.exit_code:
            return definitions
        budget = budget and max(budget - definitions.tokens, 0)
    async with open_session(
        settings,
        lambda control, account: _begin(
            control, Windows(control), request, lists, account.served_at or datetime.now(UTC)
        ),
        on_event,
        run_tokens=budget,
        records_pushes=False,
    ) as session:
        await BackfillRun(session, lists).read_all()
    return session.receipt


def _check_times(request: BackfillRequest) -> None:
    """Refuse a backfill that ends before it begins.

    Raises:
        ConfigError: `since` is not before `until` (None: now).
    """
    until = request.until or datetime.now(UTC)
    if request.since >= until:
        raise ConfigError(
            f"--since {request.since:%Y-%m-%d %H:%M:%S} is not before {until:%Y-%m-%d %H:%M:%S} UTC, where the"
            " backfill ends. Nothing was called."
        )


def _budget_left(
    settings: Settings, request: BackfillRequest, lists: Sequence[tuple[Stream, Version, Source, Operation]]
) -> tuple[int | None, bool]:
    """The tokens that this run may spend (None: no limit), and whether it continues an earlier one.

    Raises:
        BudgetSpent: the day's budget is used up already.
    """
    with unlocked.open_control(settings) as control:
        stored = Windows(control)
        is_continued = stored.job(request.command, names_of(lists)) is not None
        if request.budget is None or not request.per_day:
            return request.budget, is_continued
        pages = stored.pages_of_day(f"{datetime.now(UTC):%Y-%m-%d}")
    spent = sum((catalogue.operation(op, version).cost or 0) * count for (version, op), count in pages.items())
    if spent >= request.budget:
        raise BudgetSpent(spent=spent, limit=request.budget, resets_at=datetime.now(UTC).replace(hour=0, minute=0))
    return request.budget - spent, is_continued


def _begin(
    control: Control,
    stored: Windows,
    request: BackfillRequest,
    lists: Sequence[tuple[Stream, Version, Source, Operation]],
    began: datetime,
) -> Receipt:
    """The receipt of the backfill to continue, or a new one with a window for each list."""
    receipt = begin_receipt(request.command)
    if job := stored.job(request.command, names_of(lists)):
        return replace(receipt, run_id=job, resumed=True)
    control.start_run(receipt.run_id, receipt.command, receipt.started_at)
    since = request.since.astimezone(UTC).replace(microsecond=0)
    until = min(request.until or began, began).astimezone(UTC).replace(microsecond=0)
    if since < until:
        # In one transaction: a continued run takes the windows in control.db for all of them.
        stored.plan(receipt.run_id, names_of(lists), since, until)
    return receipt


class BackfillRun:
    """One backfill: windows are read side by side, and loaded one after the other as they reach their ends."""

    def __init__(self, session: OnlineSession, lists: Sequence[tuple[Stream, Version, Source, Operation]]) -> None:
        self.session, self.windows = session, Windows(session.control)
        self.lists = {(stream.name, source.name): (stream, source, operation) for stream, _, source, operation in lists}
        self.streams = list({stream.name: stream for stream, *_ in lists}.values())
        session.progress = {stream.name: StreamReceipt() for stream in self.streams}
        self.errors: dict[str, PdsyncError] = {}
        self.is_interrupted = False
        self.lost: str | None = None  # why a walk that was sealed could not be loaded
        self.sealed: asyncio.Queue[Walk | None] = asyncio.Queue()  # walks that wait for the loader; None ends it
        self.reader = WindowReader(session, self.windows, self.lists, self.errors, self.sealed)

    async def read_all(self) -> None:
        """Read and load every window that is left, and write the receipt."""
        session, loader = self.session, self.session.loader
        left = []
        for stream in self.streams:
            session.on_event(Event("started", stream.name, session.progress[stream.name]))
            await walk_loader.sync_custom_fields(session, stream)
            await loader.do(loader.table, stream, stream.sources(session.settings.api)[0])
        for window, state in self.windows.unfinished(session.receipt.run_id):
            if state == "sealed" and window.walk is not None:
                self.sealed.put_nowait(session.control.walk(window.walk))
            elif (window.stream, window.source) in self.lists:
                again = replace(window, walk=None, asked_since=window.since, asked_until=window.until)
                left.append(again if state == "dropped" else window)  # a dropped walk can't be continued: see `stores`
        loading = asyncio.create_task(self._load_all())
        stopped: PdsyncError | None = None
        try:
            await self.reader.read_all(left, helpers=connection.concurrency(session.settings))
        except (Stopped, StorageError) as error:
            stopped = error
        except asyncio.CancelledError:
            self.is_interrupted = True
        finally:
            self.sealed.put_nowait(None)
            await asyncio.shield(loading)
        if not isinstance(stopped, StorageError):
            await self._load_unfinished()
        await self._conclude(stopped)

    async def _load_all(self) -> None:
        """Load the walks that were read to their ends, one after the other, until no more can come."""
        while (walk := await self.sealed.get()) is not None:
            if self.is_interrupted:  # `_load_unfinished` loads what is sealed
                continue
            try:
                await self._load(catalogue.stream(walk.stream), walk)
            except raw_archive.LostPage as error:  # the next run reads its window again
                self.session.control.end_walk(walk.id, "dropped")
                self.lost = self.lost or str(error).split("\n", 1)[0]
            except PdsyncError as error:
                self.errors[walk.stream] = error
                self.reader.windows.drop(walk.stream)
                if isinstance(error, StorageError):
                    self.reader.windows.stop(error)
                    return

    async def _load_unfinished(self) -> None:
        """Load what was fetched of windows that were not read to their ends: readers see it when this run ends."""
        for window, state in self.windows.unfinished(self.session.receipt.run_id):
            if window.walk is None or state not in ("open", "sealed") or window.stream in self.errors:
                continue
            stream, walk = catalogue.stream(window.stream), self.session.control.walk(window.walk)
            with contextlib.suppress(raw_archive.LostPage):  # the next run reads its window again
                if state == "sealed":
                    await self._load(stream, walk)
                else:
                    counts = await walk_loader.load_sealed(self.session, stream, walk)
                    self.session.record_changes(stream.name, counts)

    async def _load(self, stream: Stream, walk: Walk) -> None:
        """Load the sealed pages of a walk that the warehouse lacks."""
        counts = await walk_loader.load_sealed(self.session, stream, walk)
        self.session.record_changes(stream.name, counts)
        self.session.control.end_walk(walk.id, "applied")

    async def _conclude(self, stopped: PdsyncError | None) -> None:
        """Write the receipt; `stopped`: the error that ended the run early."""
        session, receipt = self.session, self.session.receipt
        receipt.as_of = self.windows.until(receipt.run_id)
        left: dict[str, int] = {}
        for window, _ in self.windows.unfinished(receipt.run_id):
            left[window.stream] = left.get(window.stream, 0) + 1
        why = str(stopped).split("\n", 1)[0] if stopped else self.lost or "interrupted"
        counted = await session.loader.do(count_changes, session.loader, receipt.run_id)
        ends = {
            stream.name: StreamEnd(
                counted.get(stream.name, StreamReceipt()),
                session.progress[stream.name],
                self.errors.get(stream.name),
                self._limits(stream),
                f"{left[stream.name]} windows are left. {why}" if stream.name in left else None,
            )
            for stream in self.streams
        }
        conclude(receipt, ends, session.http.budget)
        for name in ends:
            session.on_event(Event("finished", name, session.progress[name], str(self.errors.get(name) or "")))
        guard = stopped if isinstance(stopped, Stopped) else None
        receipt.exit_code = exit_code(receipt, self.errors, guard, interrupted=self.is_interrupted)

    def _limits(self, stream: Stream) -> str | None:
        """Which lists of a stream don't take both ends of a window, or were omitted; None if there are none."""
        own = [(source, operation) for each, source, operation in self.lists.values() if each.name == stream.name]
        limits = [
            f"{source.name}: its list has no --until, so it was read from --since until now, in one walk"
            for source, operation in own
            if not divisible(operation)
        ]
        _, sources = stream.sources(self.session.settings.api)
        limits += [
            f"{source.name}: its list can't be read by time and was omitted; pdsync sync {stream.name} --full reads it"
            for source in sources
            if (stream.name, source.name) not in self.lists
        ]
        return "; ".join(limits) or None
