"""Reads the archive in the order in which it was written, and loads it as it was loaded then.

A batch has its place among all others by the run, the file and the offset of its last page. Each run of a stream is
loaded after the same run of the stream that defines its custom fields, as in a sync.
"""

from __future__ import annotations

import asyncio
from itertools import groupby
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from pdsync.core import catalogue
from pdsync.core.control import SealedPage
from pdsync.extract import raw_archive, raw_file
from pdsync.model import FROM_FILES, IncompleteStream, Page, StreamReceipt, Walk
from pdsync.runner import loader
from pdsync.runner.report.receipt import add_counts
from pdsync.runner.session import Event

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from pdsync.core.config import Settings
    from pdsync.core.control import Control
    from pdsync.model import Receipt, Stream
    from pdsync.runner.loader import Loader
    from pdsync.runner.session import OnEvent

_AHEAD_BYTES = 3 * 2**20  # compressed, about 24 MiB: read while the chunk before it is loaded


class ReplayBatch(Struct, frozen=True):
    """Pages of a walk that are loaded together, and their position among all that was read.

    `closes` says that the list ended after them, though the last of them names a next page: so ends the walk
    of a list with a parent when no parent is left.
    """

    position: tuple[int, datetime, int]  # the run, the file in it, the offset in the file
    walk: Walk
    pages: Sequence[SealedPage]
    closes: bool = False


class ArchiveReload:
    """One replay under way: `all` carries it out."""

    def __init__(
        self,
        settings: Settings,
        control: Control,
        loader: Loader,
        streams: Sequence[Stream],
        receipt: Receipt,
        on_event: OnEvent,
        *,
        everything: bool,
    ) -> None:
        self.settings, self.loader, self.streams = settings, loader, streams
        self.receipt, self.on_event, self.everything = receipt, on_event, everything
        self._runs = control.run_order()
        self._walks = control.walks()
        self._pages: dict[int, list[SealedPage]] = {}
        self._files: dict[str, datetime] = {}  # when the first page of each was served
        for page in control.pages():
            self._pages.setdefault(page.walk, []).append(page)
            self._files[page.file] = min(page.served_at, self._files.get(page.file, page.served_at))
        self._begun: dict[int, datetime] = {}  # run → when its first page was served
        for file, served_at in self._files.items():
            run = self._runs.get(raw_file.sealing_run(file), -1)
            self._begun[run] = min(served_at, self._begun.get(run, served_at))

    async def all(self) -> list[Walk]:
        """Load everything that was chosen; the walks that are in the file to their ends now."""
        names = {stream.name for stream in self.streams}
        if self.everything:
            for name in sorted({walk.stream for walk, _ in self._walks} - names):
                self.receipt.gaps.append(
                    IncompleteStream(name, "unknown", "the catalogue has no such stream: its pages were left")
                )
        done = list[Walk]()
        for stream in self.streams:
            if stream.fields in names:
                continue  # comes with its definitions
            users = [each for each in self.streams if each.fields == stream.name]
            done += await self._group(stream, users)
        return done

    async def _group(self, definitions: Stream, users: Sequence[Stream]) -> list[Walk]:
        """Load a stream and those whose fields it defines: run by run, the definitions first."""
        streams = [definitions, *users]
        work = self._plan(streams)
        for run in sorted(work):
            for stream in streams:
                if stream.name in work[run]:
                    await self._run_of(stream, run, sorted(work[run][stream.name], key=lambda lot: lot.position))
        for stream in streams:
            if stream.name in self.receipt.streams:
                entry = self.receipt.streams[stream.name]
                entry.complete = not any(gap.stream == stream.name for gap in self.receipt.gaps)
                self.on_event(Event("finished", stream.name, entry))
        names = {stream.name for stream in streams}
        return [walk for walk, state in self._walks if walk.stream in names and state in ("sealed", "applied")]

    def _plan(self, streams: Sequence[Stream]) -> dict[int, dict[str, list[ReplayBatch]]]:
        """The batches of each run, by the run's position and by stream."""
        work: dict[int, dict[str, list[ReplayBatch]]] = {}
        for stream in streams:
            walks = [(walk, state) for walk, state in self._walks if walk.stream == stream.name]
            if walks:
                self.receipt.streams[stream.name] = StreamReceipt()
            for walk, _ in walks:  # also one that brought nothing made the stream's table, and learnt its fields
                work.setdefault(self._runs.get(walk.run_id, -1), {}).setdefault(stream.name, [])
            for lot in self._lots(stream, [(walk, state) for walk, state in walks if state != "pruned"]):
                work.setdefault(lot.position[0], {}).setdefault(stream.name, []).append(lot)
        return work

    def _lots(self, stream: Stream, walks: Sequence[tuple[Walk, str]]) -> Iterator[ReplayBatch]:
        """The batches of `walks`, as a sync cuts them."""
        for walk, state in walks:
            if walk.operation not in catalogue.operations(walk.version):
                detail = f"the catalogue has no operation {walk.version} {walk.operation}: its pages were left"
                self.receipt.gaps.append(IncompleteStream(stream.name, "unknown", detail))
                continue
            pages = self._pages.get(walk.id, [])
            ended = state in ("sealed", "applied")
            if not pages:
                run = self._runs.get(walk.run_id, -1)
                if ended and run in self._begun:  # a list with a parent, and there was none to ask for
                    yield ReplayBatch(
                        (run, self._begun[run], 0), replace(walk, started_at=self._begun[run]), [], closes=True
                    )
                continue
            lots = [list(lot) for _, lot in groupby(pages, lambda page: page.seq // loader.PAGES_A_BATCH)]
            closes = ended and pages[-1].next is not None and walk.source != FROM_FILES
            for lot in lots:
                last = lot[-1]
                run = self._runs.get(raw_file.sealing_run(last.file), -1)
                yield ReplayBatch((run, self._files[last.file], last.at), walk, lot, closes=closes and lot is lots[-1])

    async def _run_of(self, stream: Stream, run: int, lots: Sequence[ReplayBatch]) -> None:
        """Load what one run read of a stream."""
        entry = self.receipt.streams[stream.name]
        self.on_event(Event("started", stream.name, entry))
        name = next((name for name, position in self._runs.items() if position == run), self.receipt.run_id)
        self.loader.moment = self._begun.get(run, self.receipt.started_at)
        await self.loader.do(self.loader.sync_custom_fields, stream, name)
        version, _ = stream.sources(self.settings.api)
        await self.loader.do(self.loader.table, stream, version)
        for lot in lots:
            pages = self._pages.get(lot.walk.id, [])
            if pages:
                self.loader.moment = pages[-1].served_at
            await self._load(stream, lot, entry)

    async def _load(self, stream: Stream, lot: ReplayBatch, entry: StreamReceipt) -> None:
        loaded: asyncio.Task[None] | None = None
        for chunk in _chunks(lot.pages):
            pages = await asyncio.to_thread(self._read, chunk)
            if loaded:
                await loaded
            loaded = asyncio.create_task(self._add(stream, lot.walk, pages, entry))
        if loaded:
            await loaded
        if lot.closes:
            last = lot.pages[-1].seq + 1 if lot.pages else 0
            add_counts(entry, await self.loader.do(self.loader.finish, stream, lot.walk, last))

    async def _add(self, stream: Stream, walk: Walk, pages: list[Page], entry: StreamReceipt) -> None:
        if counts := await self.loader.add(stream, walk, pages):
            add_counts(entry, counts)
        self.on_event(Event("page", stream.name, entry))

    def _read(self, sealed: Sequence[SealedPage]) -> list[Page]:
        return [raw_archive.read_page(self.settings.raw, page) for page in sealed]


def _chunks(pages: Sequence[SealedPage]) -> Iterator[list[SealedPage]]:
    """Pages that are read together."""
    chunk, size = list[SealedPage](), 0
    for page in pages:
        chunk.append(page)
        size += page.length
        if size >= _AHEAD_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
