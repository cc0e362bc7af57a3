"""Reads the archive in the order in which it was written, and loads it in the same batches as the runs that wrote it.

Batches are ordered by the run, the file and the offset of their last page. Each run of a stream is loaded after the
same run of the stream that defines its custom fields, as in a sync.
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
    from pdsync.model import Receipt, Stream, Version
    from pdsync.runner.loader import Loader
    from pdsync.runner.session import OnEvent

_CHUNK_BYTES = 3 * 2**20  # compressed, about 24 MiB; read while the previous chunk is loaded


class ReplayBatch(Struct, frozen=True):
    """Pages of a walk that are loaded together, and their position in the archive.

    `closes`: the list ended after them, though the last page names a next one. The walk of a list with a parent ends
    so when no parent is left.
    """

    position: tuple[int, datetime, int]  # the run, the file in it, the offset in the file
    walk: Walk
    pages: Sequence[SealedPage]
    closes: bool = False


class ArchiveReload:
    """One replay: `load_all` carries it out."""

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
        self._file_starts: dict[str, datetime] = {}  # file → when its first page was served
        for page in control.pages():
            self._pages.setdefault(page.walk, []).append(page)
            self._file_starts[page.file] = min(page.served_at, self._file_starts.get(page.file, page.served_at))
        self._run_starts: dict[int, datetime] = {}  # run → when its first page was served
        for file, served_at in self._file_starts.items():
            run = self._runs.get(raw_file.sealing_run(file), -1)
            self._run_starts[run] = min(served_at, self._run_starts.get(run, served_at))

    async def load_all(self) -> list[Walk]:
        """Load the selected streams.

        Returns:
            The walks that are loaded to their ends now.
        """
        names = {stream.name for stream in self.streams}
        if self.everything:
            for name in sorted({walk.stream for walk, _ in self._walks} - names):
                self.receipt.gaps.append(
                    IncompleteStream(name, "unknown", "the catalogue has no such stream: its pages were not loaded")
                )
        loaded = list[Walk]()
        for stream in self.streams:
            if stream.fields in names:
                continue  # is loaded with its definitions
            users = [each for each in self.streams if each.fields == stream.name]
            loaded += await self._load_group(stream, users)
        return loaded

    def lists(self) -> set[tuple[str, Version, str]]:
        """The lists (stream, version, source) of the selected streams that were read, whole or in part."""
        names = {stream.name for stream in self.streams}
        return {
            (walk.stream, walk.version, walk.source)
            for walk, state in self._walks
            if walk.stream in names
            and walk.is_of_a_list
            and _is_known(walk)
            # A walk that was dropped before its first page was refused, or began again.
            and (state in ("sealed", "applied", "pruned") or walk.id in self._pages)
        }

    def walks_since_whole(self) -> list[Walk]:
        """The walks of lists that were not read whole since, the newest first."""
        walks, seen = list[Walk](), set[tuple[str, str]]()
        for walk, state in reversed(self._walks):
            # What was read as single records may be of any list of the stream.
            is_read_again = any(
                stream == walk.stream and (source == walk.source or not walk.is_of_a_list) for stream, source in seen
            )
            if not is_read_again:
                walks.append(walk)
            if walk.is_of_a_list and walk.since is None and state in ("sealed", "applied"):
                seen.add((walk.stream, walk.source))
        return walks

    async def _load_group(self, definitions: Stream, users: Sequence[Stream]) -> list[Walk]:
        """Load a stream and those whose fields it defines: run by run, the definitions first."""
        streams = [definitions, *users]
        batches = self._plan(streams)
        for run in sorted(batches):
            for stream in streams:
                if stream.name in batches[run]:
                    ordered = sorted(batches[run][stream.name], key=lambda batch: batch.position)
                    await self._load_run(stream, run, ordered)
        for stream in streams:
            if stream.name in self.receipt.streams:
                entry = self.receipt.streams[stream.name]
                entry.complete = not any(gap.stream == stream.name for gap in self.receipt.gaps)
                self.on_event(Event("finished", stream.name, entry))
        names = {stream.name for stream in streams}
        return [
            walk
            for walk, state in self._walks
            if walk.stream in names and state in ("sealed", "applied") and _is_known(walk)
        ]

    def _plan(self, streams: Sequence[Stream]) -> dict[int, dict[str, list[ReplayBatch]]]:
        """The batches of each run, by the run's position and by stream."""
        planned: dict[int, dict[str, list[ReplayBatch]]] = {}
        for stream in streams:
            walks = [(walk, state) for walk, state in self._walks if walk.stream == stream.name]
            if walks:
                self.receipt.streams[stream.name] = StreamReceipt()
            for walk, _ in walks:  # a walk without pages also created the stream's table and its custom fields
                planned.setdefault(self._runs.get(walk.run_id, -1), {}).setdefault(stream.name, [])
            for batch in self._cut_batches(stream, [(walk, state) for walk, state in walks if state != "pruned"]):
                planned.setdefault(batch.position[0], {}).setdefault(stream.name, []).append(batch)
        return planned

    def _cut_batches(self, stream: Stream, walks: Sequence[tuple[Walk, str]]) -> Iterator[ReplayBatch]:
        """The batches of `walks`, as a sync cuts them."""
        for walk, state in walks:
            if not _is_known(walk):
                detail = f"the catalogue has no operation {walk.version} {walk.operation}: its pages were not loaded"
                self.receipt.gaps.append(IncompleteStream(stream.name, "unknown", detail))
                continue
            pages = self._pages.get(walk.id, [])
            is_ended = state in ("sealed", "applied")
            if not pages:
                run = self._runs.get(walk.run_id, -1)
                if is_ended and run in self._run_starts:  # a list with a parent, and no parent was due
                    yield ReplayBatch(
                        (run, self._run_starts[run], 0),
                        replace(walk, started_at=self._run_starts[run]),
                        [],
                        closes=True,
                    )
                continue
            cuts = [
                list(cut) for _, cut in groupby(pages, lambda page: (page.seq // loader.PAGES_PER_BATCH, page.file))
            ]
            closes = is_ended and pages[-1].next is not None and walk.source != FROM_FILES
            for cut in cuts:
                last = cut[-1]
                run = self._runs.get(raw_file.sealing_run(last.file), -1)
                yield ReplayBatch(
                    (run, self._file_starts[last.file], last.at), walk, cut, closes=closes and cut is cuts[-1]
                )

    async def _load_run(self, stream: Stream, run: int, batches: Sequence[ReplayBatch]) -> None:
        """Load what one run read of a stream."""
        entry = self.receipt.streams[stream.name]
        self.on_event(Event("started", stream.name, entry))
        name = next((name for name, position in self._runs.items() if position == run), self.receipt.run_id)
        self.loader.loaded_at = self._run_starts.get(run, self.receipt.started_at)
        await self.loader.do(self.loader.sync_custom_fields, stream, name)
        version, _ = stream.sources(self.settings.api)
        await self.loader.do(self.loader.table, stream, version)
        for batch in batches:
            pages = self._pages.get(batch.walk.id, [])
            if pages:
                self.loader.loaded_at = pages[-1].served_at
            await self._load_batch(stream, batch, entry)

    async def _load_batch(self, stream: Stream, batch: ReplayBatch, entry: StreamReceipt) -> None:
        loaded: asyncio.Task[None] | None = None
        for chunk in _chunks(batch.pages):
            pages = await asyncio.to_thread(self._read_pages, chunk)
            if loaded:
                await loaded
            loaded = asyncio.create_task(self._add(stream, batch.walk, pages, entry))
        if loaded:
            await loaded
        if batch.closes:
            pages_loaded = batch.pages[-1].seq + 1 if batch.pages else 0
            add_counts(entry, await self.loader.do(self.loader.finish, stream, batch.walk, pages_loaded))
        elif counts := await self.loader.commit_staged(stream, batch.walk):  # an attempt ended after it
            add_counts(entry, counts)

    async def _add(self, stream: Stream, walk: Walk, pages: list[Page], entry: StreamReceipt) -> None:
        if counts := await self.loader.add(stream, walk, pages):
            add_counts(entry, counts)
        self.on_event(Event("page", stream.name, entry))

    def _read_pages(self, sealed: Sequence[SealedPage]) -> list[Page]:
        return [raw_archive.read_page(self.settings.raw, page) for page in sealed]


def _is_known(walk: Walk) -> bool:
    """Whether the catalogue has the operation of a walk: otherwise its pages can't be loaded."""
    return walk.operation in catalogue.operations(walk.version)


def _chunks(pages: Sequence[SealedPage]) -> Iterator[list[SealedPage]]:
    """Cut `pages` into chunks that are read together."""
    chunk, size = list[SealedPage](), 0
    for page in pages:
        chunk.append(page)
        size += page.length
        if size >= _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
