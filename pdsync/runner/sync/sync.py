"""Brings streams up to date: walks every list, seals every page, commits every batch, and writes a receipt.

An interrupted run is continued under its own id within the hour: walks continue after their last sealed page, and
streams that it finished are not read again. Streams run side by side, and the failure of one does not affect the
others; an exhausted budget or abuse protection stops all of them. Everything read so far is kept.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pdsync.core.log import log
from pdsync.errors import DependentsBudgetSpent, FeatureOff, PdsyncError, Stopped
from pdsync.model import StreamReceipt
from pdsync.runner.report.receipt import StreamEnd, conclude, count_changes, exit_code
from pdsync.runner.session import Event, begin_run, log_notes, open_session
from pdsync.runner.sync.sync_request import SyncRequest
from pdsync.runner.sync.turns import plan_turns
from pdsync.runner.sync.walk_reader import WalkReader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pdsync.core.config import Settings
    from pdsync.model import Receipt, Stream
    from pdsync.runner.session import OnEvent, OnlineSession

__all__ = ["SyncRequest", "SyncRun", "sync"]


async def sync(settings: Settings, request: SyncRequest, on_event: OnEvent = log_notes) -> Receipt:
    """Bring the warehouse up to date and publish it.

    Args:
        settings: of the project.
        request: which streams, and how much of them.
        on_event: is called with each event, in the event loop's thread.

    Returns:
        The receipt; its `exit_code` is 0 only if every stream reached its end and nothing was quarantined.

    Raises:
        ConfigError, AuthError, WrongCompany: nothing was written.
        ProjectLocked, CoolingDown: another run has the lock; Pipedrive asked for a pause.
        PdsyncError: the run could not begin, or its receipt could not be saved.
    """
    streams = request.selected()
    async with open_session(
        settings, lambda control, _: begin_run(control, request.command), on_event, run_tokens=request.budget
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
        await SyncRun(session, request).read_all([each for each in streams if each.name not in turns.deferred])
    return session.receipt


class SyncRun:
    """One sync: the order of the streams, and what happens to the others when one fails."""

    def __init__(self, session: OnlineSession, request: SyncRequest) -> None:
        self.session, self.reader = session, WalkReader(session, request)
        receipt = session.receipt
        # The lists (stream, source) that this run had read to their ends before it was interrupted.
        self.done = session.control.finished_lists(receipt.run_id) if receipt.resumed else set()
        self.errors: dict[str, PdsyncError] = {}
        self.stopped: Stopped | None = None

    async def read_all(self, streams: Sequence[Stream]) -> None:
        """Sync `streams`: field definitions first, then the rest side by side, then streams after their parents."""
        definitions = {stream.fields for stream in streams}
        is_interrupted = False
        for stream in streams:
            self.session.on_event(Event("selected", stream.name))
        try:
            await self._read_group([stream for stream in streams if stream.name in definitions])
            await self._read_group([stream for stream in streams if stream.name not in definitions])
        except asyncio.CancelledError:
            is_interrupted = True
        finally:
            await self._conclude(streams, is_interrupted=is_interrupted)

    async def _read_group(self, streams: Sequence[Stream]) -> None:
        tasks = dict[str, asyncio.Task[None]]()

        async def read(stream: Stream) -> None:
            parents = stream.parents(self.session.settings.api)
            await asyncio.gather(*(tasks[name] for name in parents & tasks.keys()))
            await self._read_stream_or_fail(stream)

        tasks.update((stream.name, asyncio.create_task(read(stream))) for stream in streams)
        try:
            await asyncio.gather(*tasks.values())
        except BaseException:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)
            raise

    async def _read_stream_or_fail(self, stream: Stream) -> None:
        """Bring one stream up to date; an error is recorded, and the other streams continue."""
        progress = self.session.progress[stream.name] = StreamReceipt()
        try:
            if self.stopped:
                raise self.stopped
            await self._read_stream(stream)
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

    async def _read_stream(self, stream: Stream) -> None:
        """Bring one stream up to date: its custom fields, then each of its lists, walked to the end."""
        session, loader = self.session, self.session.loader
        session.on_event(Event("started", stream.name, session.progress[stream.name]))
        await loader.do(loader.sync_custom_fields, stream, session.receipt.run_id)
        version, sources = stream.sources(session.settings.api)
        await loader.do(loader.table, stream, version)
        await self.reader.load_left_over(stream, self.done)
        ends = await asyncio.gather(
            *(
                self.reader.read_source(stream, source, version, is_done=(stream.name, source.name) in self.done)
                for source in sources
            ),
            return_exceptions=True,
        )
        failures = [end for end in ends if isinstance(end, BaseException)]
        for failure in sorted(failures, key=lambda error: isinstance(error, PdsyncError)):
            raise failure

    async def _conclude(self, streams: Sequence[Stream], *, is_interrupted: bool) -> None:
        """Write the receipt from the stores, not from the counts of this process: it covers every attempt."""
        session, receipt = self.session, self.session.receipt
        receipt.as_of = session.control.began_at(receipt.run_id)
        finished = session.control.finished_lists(receipt.run_id)
        counted = await session.loader.do(count_changes, session.loader, receipt.run_id)
        ends = {}
        for stream in streams:
            progress = session.progress.get(stream.name, StreamReceipt())
            _, sources = stream.sources(session.settings.api)
            is_read = progress.note or {(stream.name, source.name) for source in sources} <= finished
            ends[stream.name] = StreamEnd(
                counted.get(stream.name, StreamReceipt()),
                progress,
                self.errors.get(stream.name),
                progress.note,
                None if is_read else "the run ended before its last page",
            )
        conclude(receipt, ends, session.http.budget)
        receipt.exit_code = exit_code(receipt, self.errors, self.stopped, interrupted=is_interrupted)
