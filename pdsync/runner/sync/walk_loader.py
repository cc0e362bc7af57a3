"""Seals and loads the pages of walks for every job: those just fetched, and those that an earlier run sealed."""

from __future__ import annotations

import asyncio
from itertools import groupby
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from pdsync.core.list_response import open_envelope
from pdsync.extract import raw_archive
from pdsync.load.commit import Counts
from pdsync.model import FINDINGS, REPAIR, Page

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pdsync.core.answer import Answer
    from pdsync.model import Operation, Stream, Tombstone, Version, Walk
    from pdsync.runner.session import OnlineSession, Session

_PAGES_PER_READ = 16


def page_of(operation: Operation, answer: Answer, walk: int = 0) -> Page:
    """An answer as the only page of a walk."""
    rows = len(open_envelope(answer.body, operation).records)
    return Page(walk, 0, answer.body, rows, None, answer.served_at)


async def sync_custom_fields(session: Session, stream: Stream) -> bool:
    """Update the custom fields of a stream from the definitions that were synced, before anything of it is loaded.

    Where rows were stored without the columns that it gets now, its unfinished walks are dropped: they would move the
    watermark past those rows, which the next walk requests again.

    Returns:
        Whether there are such rows: what was read of the stream before does not count as read.
    """
    loader, control = session.loader, session.control
    is_late = await loader.do(loader.has_late_fields, stream)
    if is_late:
        for walk, _ in control.unfinished_walks(stream.name):
            if walk.is_of_a_list:
                control.end_walk(walk.id, "dropped")
    await loader.do(loader.sync_custom_fields, stream, session.receipt.run_id)
    return is_late


async def load(session: Session, stream: Stream, walk: Walk, pages: Sequence[Page]) -> None:
    """Load pages of a walk, in order, and count the changes of the batches that they complete.

    Raises:
        BadAnswer: a page is no list of records.
        StorageError: the work file can't be written; no batch was committed in part.
    """
    session.record_changes(stream.name, await session.loader.add(stream, walk, pages))


async def load_rest(session: Session, stream: Stream, walk: Walk, pages: Sequence[Page]) -> None:
    """Load the last pages that an attempt has read of a walk that it did not read to its end.

    They are committed though they complete no batch: readers see them when this run ends.

    Raises:
        BadAnswer, StorageError: as `load`.
    """
    await load(session, stream, walk, pages)
    session.record_changes(stream.name, await session.loader.commit_staged(stream, walk))


async def load_sealed(session: Session, stream: Stream, walk: Walk) -> Counts:
    """Load the sealed pages of a walk that the work file lacks; the counts of changes.

    Each attempt has sealed its pages in a file of its own, and its last page ends a batch.

    Raises:
        LostPage: one of them is missing or damaged. Whole batches before it are loaded.
    """
    total, loader = Counts(), session.loader
    start = await loader.do(loader.pages_loaded, walk)
    for _, in_file in groupby(session.control.sealed_pages(walk.id, start), lambda entry: entry.file):
        entries = list(in_file)
        for at in range(0, len(entries), _PAGES_PER_READ):
            chunk = entries[at : at + _PAGES_PER_READ]
            pages = [await asyncio.to_thread(raw_archive.read_page, session.settings.raw, entry) for entry in chunk]
            total += await loader.add(stream, walk, pages) or Counts()
        total += await loader.commit_staged(stream, walk) or Counts()
    return total


async def seal_and_load(
    session: Session, stream: Stream, version: Version, operation: Operation, pages: Sequence[Page]
) -> None:
    """Seal and load pages of a list, which may come from different walks, as a new walk. It moves no watermark."""
    walk = session.control.open_walk(session.receipt.run_id, stream.name, REPAIR, version, operation.id, None)
    for seq, each in enumerate(pages):
        page = replace(each, walk=walk.id, seq=seq, next=None if seq + 1 == len(pages) else str(seq + 1))
        if seq == 0:
            walk = replace(walk, started_at=page.served_at)
        await session.archive.seal(walk, page)
        await load(session, stream, walk, [page])
    session.control.end_walk(walk.id, "applied")


async def load_single_records(
    session: Session, stream: Stream, version: Version, operation: Operation, answers: Sequence[Answer]
) -> None:
    """Seal and load answers to requests for single records, as one repair walk.

    No watermark moves, and a key without an answer gets no tombstone.
    """
    await seal_and_load(session, stream, version, operation, [page_of(operation, answer) for answer in answers])


async def tombstone(session: OnlineSession, stream: Stream, gone: Sequence[Tombstone]) -> None:
    """Seal tombstones with their evidence, then mark the rows.

    They have the time of this run by the server's clock. With this machine's clock, a record that is restored later
    could look older than its tombstone and would stay marked.
    """
    version, sources = stream.sources(session.settings.api)
    walk = session.control.open_walk(session.receipt.run_id, stream.name, FINDINGS, version, sources[0].operation, None)
    gone = [replace(each, at=session.began) for each in gone]
    page = Page(walk.id, 0, msgspec.json.encode(gone), len(gone), None, session.began)
    await session.archive.seal(walk, page)
    await load(session, stream, replace(walk, started_at=session.began), [page])
    session.control.end_walk(walk.id, "applied")
