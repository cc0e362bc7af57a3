"""Brings streams up to date: walks every list, seals every page, commits every batch, and writes a receipt.

An interrupted run is continued under its own id within an hour of its start: walks continue after their last sealed
page, and streams that it finished are not read again. Streams run side by side, and the failure of one does not affect
the others; an exhausted budget or abuse protection stops all of them. Everything read so far is kept.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pdsync.core import catalogue
from pdsync.core.log import log
from pdsync.errors import DependentsBudgetSpent, FeatureOff, PdsyncError, Stopped
from pdsync.model import StreamReceipt
from pdsync.runner.report.receipt import StreamEnd, conclude, count_changes, exit_code
from pdsync.runner.session import Event, begin_run, log_notes, open_session
from pdsync.runner.sync import walk_loader
from pdsync.runner.sync.sync_request import SyncRequest
from pdsync.runner.sync.turns import plan_turns, receive_nothing
from pdsync.runner.sync.walk_reader import WalkReader

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from pdsync.core.config import Settings
    from pdsync.model import Receipt, Source, Stream, Version
    from pdsync.runner.session import OnEvent, OnlineSession

__all__ = ["SyncRequest", "SyncRun", "sync"]


async def sync(settings: Settings, request: SyncRequest, on_event: OnEvent = log_notes) -> Receipt:
    """Bring the warehouse up to date and publish it.

    Args:
        settings: of the project.
        request: which streams, and how much of them.
        on_event: is called with each event, in the event loop's thread.

    Returns:
        The receipt; its `exit_code` is 0 only if every stream reached its end and nothing was quarantined. Errors of
        streams and an interruption while they are read are not raised: the receipt has them.

    Raises:
        ConfigError, AuthError, WrongCompany: nothing was written.
        ProjectLocked, CoolingDown: another run has the lock; Pipedrive asked for a pause.
        PdsyncError: the run could not begin, or its receipt could not be saved.
    """
    streams = request.selected()
    async with open_session(
        settings,
        lambda control, account: begin_run(control, request.command, account),
        on_event,
        run_tokens=request.budget,
    ) as session:
        turns = await session.loader.do(
            plan_turns,
            session.loader.connection,
            session.control,
            settings,
            request,
            session.began,
            session.receipt.run_id,
        )
        session.receipt.deferred = list(turns.deferred)
        run = SyncRun(session, request, turns.lists)
        await run.read_all([each for each in streams if each.name not in turns.deferred])
    return session.receipt


class SyncRun:
    """One sync: the order of the streams, and what happens to the others when one fails."""

    def __init__(self, session: OnlineSession, request: SyncRequest, waiting: Collection[tuple[str, str]] = ()) -> None:
        """
        Args:
            session: open.
            request: what is read.
            waiting: lists (stream, source) whose turn it is not: they are read only if a record may have come
                into them.
        """
        self.session, self.reader, self.waiting = session, WalkReader(session, request), waiting
        receipt = session.receipt
        # The lists (stream, source) that this run had read to their ends before it was interrupted.
        self.done = self._find_finished() if receipt.resumed else set()
        self.unread = set[tuple[str, str]]()  # of those that wait
        self.behind = set[str]()  # streams whose parents were not read to their ends before: no list of them is done
        self.lacks = dict[str, str]()  # by stream: what is missing, because its parents were not read to their ends
        self.errors: dict[str, PdsyncError] = {}
        self.stopped: Stopped | None = None

    def _find_finished(self) -> set[tuple[str, str]]:
        """The lists that this run has read to their ends; with the other version of the API it reads other lists."""
        control, prefer = self.session.control, self.session.settings.api
        return {
            (stream, source)
            for stream, source, version in control.finished_lists(self.session.receipt.run_id)
            if catalogue.stream(stream).sources(prefer)[0] == version
        }

    async def read_all(self, streams: Sequence[Stream]) -> None:
        """Sync `streams` side by side, each after its parents, and loaded after the definitions of its fields.

        Concludes the receipt. An interruption is not raised: it is the receipt's exit code.
        """
        is_interrupted = False
        for stream in streams:
            self.session.on_event(Event("selected", stream.name))
        try:
            await self._read_side_by_side(streams)
        except asyncio.CancelledError:
            is_interrupted = True
        finally:
            await self._conclude(streams, is_interrupted=is_interrupted)

    async def _read_side_by_side(self, streams: Sequence[Stream]) -> None:
        tasks = dict[str, asyncio.Task[None]]()

        async def read(stream: Stream) -> None:
            needed = stream.parents(self.session.settings.api) & tasks.keys()
            await asyncio.gather(*(tasks[name] for name in needed))
            if not all(map(self._was_done, needed)):  # it has read the children of those records that were there
                self.behind.add(stream.name)
            if failed := sorted(needed & self.errors.keys()):
                names = ", ".join(failed)
                self.lacks[stream.name] = f"not all of {names} was read, so the lists of the rest are missing"
            await self._read_stream_or_fail(stream, tasks.get(stream.fields or ""))

        tasks.update((stream.name, asyncio.create_task(read(stream))) for stream in streams)
        try:
            await asyncio.gather(*tasks.values())
        except BaseException:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)
            raise

    def _was_done(self, name: str) -> bool:
        """Whether this run had read all lists of a stream before it was interrupted."""
        _, sources = catalogue.stream(name).sources(self.session.settings.api)
        return {(name, source.name) for source in sources} <= self.done

    async def _read_stream_or_fail(self, stream: Stream, definitions: asyncio.Task[None] | None) -> None:
        """Bring one stream up to date; an error is recorded, and the other streams continue, unless it stops the run.

        Args:
            stream: to read.
            definitions: reads the definitions of its fields; None if this run does not.
        """
        progress = self.session.progress[stream.name] = StreamReceipt()
        try:
            if self.stopped:
                raise self.stopped
            await self._read_stream(stream, definitions)
        except FeatureOff as error:
            if await self.session.loader.do(self.session.loader.has_been_synced, stream):
                self.errors[stream.name] = error
            else:
                progress.note = f"not part of this company's plan ({error})"
        except DependentsBudgetSpent as error:
            self.errors[stream.name] = error
        except Stopped as error:
            self.stopped = self.stopped or error
            self.errors[stream.name] = error
        except PdsyncError as error:
            log.info("%s failed: %s", stream.name, error)
            self.errors[stream.name] = error
        text = str(self.errors.get(stream.name) or progress.note or "")
        self.session.on_event(Event("finished", stream.name, progress, text))

    async def _read_stream(self, stream: Stream, definitions: asyncio.Task[None] | None) -> None:
        """Bring one stream up to date: its custom fields, then each of its lists, walked to the end.

        A stream that was never read is requested at once, and loaded when the definitions of its fields are.
        """
        session, reader = self.session, self.reader
        session.on_event(Event("started", stream.name, session.progress[stream.name]))
        version, sources = stream.sources(session.settings.api)
        is_new = await reader.is_new(stream)
        preparing = self._prepare(stream, definitions, has_left_over=not is_new)
        prepared = reader.prepared[stream.name] = asyncio.create_task(preparing)
        try:
            if not is_new:
                await asyncio.shield(prepared)
            await self._read_lists(stream, sources, version)
            await asyncio.shield(prepared)
        finally:
            prepared.cancel()
            await asyncio.gather(prepared, return_exceptions=True)

    async def _prepare(self, stream: Stream, definitions: asyncio.Task[None] | None, *, has_left_over: bool) -> None:
        """Make the table of a stream ready for pages: wait for its fields, then load what earlier runs have sealed.

        Args:
            stream: to prepare.
            definitions: reads the definitions of its fields; None if this run does not.
            has_left_over: earlier runs may have sealed walks of it. Otherwise its walks are those that this run reads
                at the same time, and loads itself.

        Raises:
            Stopped: the run was stopped while it waited for the definitions; the pages stay for the next attempt.
            asyncio.CancelledError: it was interrupted then; likewise.
        """
        session, loader = self.session, self.session.loader
        if definitions:
            await asyncio.wait([definitions])
            if self.stopped:
                raise self.stopped
            if definitions.cancelled():
                raise asyncio.CancelledError
        if await walk_loader.sync_custom_fields(session, stream):
            self.done = {each for each in self.done if each[0] != stream.name}
        version, _ = stream.sources(session.settings.api)
        await loader.do(loader.table, stream, version)
        if has_left_over:
            await self.reader.load_left_over(stream, self.done)

    async def _read_lists(self, stream: Stream, sources: Sequence[Source], version: Version) -> None:
        """Walk the lists of a stream side by side; raises the error of one after the others have ended."""
        loader = self.session.loader
        readings = dict[str, asyncio.Task[None]]()

        async def read(source: Source) -> None:
            is_behind = stream.name in self.behind
            is_done = (stream.name, source.name) in self.done and not is_behind
            if source.origin and (stream.name, source.name) in self.waiting and not is_done:
                await asyncio.wait([readings[source.origin.source]])
                if await loader.do(receive_nothing, loader.connection, stream, source, self.session.receipt.run_id):
                    self.unread.add((stream.name, source.name))
                    return
            await self.reader.read_source(stream, source, version, is_done=is_done, is_behind=is_behind)

        readings.update((source.name, asyncio.create_task(read(source))) for source in sources)
        ends = await asyncio.gather(*readings.values(), return_exceptions=True)
        failures = [end for end in ends if isinstance(end, BaseException)]
        for failure in sorted(failures, key=lambda error: isinstance(error, PdsyncError)):
            raise failure

    async def _conclude(self, streams: Sequence[Stream], *, is_interrupted: bool) -> None:
        """Conclude the receipt: rows from the stores, over every attempt; requests and tokens of this process only.

        What it has read of the walks of older runs counts too: their own receipts have only what they read themselves.
        """
        session, receipt = self.session, self.session.receipt
        receipt.as_of = session.control.began_at(receipt.run_id)
        finished = self._find_finished()
        continued = session.control.continued_walks(receipt.run_id) | self.reader.adopted
        counted = await session.loader.do(count_changes, session.loader, receipt.run_id, continued)
        ends = {}
        for stream in streams:
            progress = session.progress.get(stream.name, StreamReceipt())
            _, sources = stream.sources(session.settings.api)
            is_read = progress.note or {(stream.name, source.name) for source in sources} <= finished | self.unread
            ends[stream.name] = StreamEnd(
                counted.get(stream.name, StreamReceipt()),
                progress,
                self.errors.get(stream.name),
                progress.note,
                self.lacks.get(stream.name) if is_read else "the run ended before its last page",
            )
        conclude(receipt, ends, session.http.budget)
        receipt.exit_code = exit_code(receipt, self.errors, self.stopped, interrupted=is_interrupted)
