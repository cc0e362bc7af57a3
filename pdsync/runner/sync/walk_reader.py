"""Carries a walk of a list to its end: loads what is sealed of it, fetches the rest, seals every page, loads it.

A walk that an earlier run left open is continued after its last sealed page. Fetching, sealing and loading overlap: a
page is sealed while the next one is fetched, and a chunk is loaded while the next one is collected.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from pdsync.core import catalogue
from pdsync.core.log import log
from pdsync.core.watermark import chosen_point, resume_point
from pdsync.errors import ApiError, BadAnswer, FeatureOff, Forbidden
from pdsync.extract import raw_archive
from pdsync.extract.parallel import is_parallel
from pdsync.model import REPAIR, Page, Walk
from pdsync.runner.session import Event
from pdsync.runner.sync import removed_children, walk_loader
from pdsync.runner.sync.list_fetcher import ListFetcher
from pdsync.runner.sync.sync_request import SyncRequest
from pdsync.sql import first

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence
    from datetime import date, datetime

    from pdsync.model import Parent, Source, Stream, Version
    from pdsync.runner.session import OnlineSession

_SEALED_AT_ONCE = 4  # pages of one walk that are being sealed: one write to the disk can seal them all
_PAGES_AHEAD = 24 * 2**20  # bytes of one walk that wait for the loader; as many may be loaded meanwhile
_AHEAD_OF_ALL = 2 * _PAGES_AHEAD  # of all walks: many long lists take no more memory than a few


class _Fetched(Struct, eq=False):
    """What one attempt has fetched of a walk, as far as it is not loaded."""

    walk: Walk
    last: Page | None
    sealing: list[tuple[Page, asyncio.Task[None]]] = []
    waiting: list[Page] = []  # sealed, for the loader
    bytes: int = 0  # of them
    loading: asyncio.Task[None] | None = None


class _PagesLost(Exception):
    """Sealed pages of a walk can't be read: the walk is dropped, and its list has to be read again."""


async def _uninterrupted(work: Coroutine[None, None, None]) -> None:
    """Complete `work`; an interruption is raised after it, and a second one ends it."""
    task = asyncio.create_task(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise


def param_value(text: str, today: date) -> str:
    """The value of a parameter from the catalogue or the command line; a name that begins with @ stands for a day.

    Args:
        text: the value, or @today, @month_start, @month_ago (30 days), @year_ago (365 days).
        today: by the server's clock.

    Raises:
        KeyError: there is no such day.
    """
    if not text.startswith("@"):
        return text
    days = {
        "@today": today,
        "@month_start": today.replace(day=1),
        "@month_ago": today - timedelta(days=30),
        "@year_ago": today - timedelta(days=365),
    }
    return days[text].isoformat()


def default_params(source: Source, today: date) -> dict[str, str]:
    """The parameters of a list that a person may set, with their defaults, which are those of the catalogue."""
    return {name: param_value(text, today) for name, text in source.params.items() if text}


class WalkReader:
    """Reads the lists of one run, each as a walk."""

    def __init__(self, session: OnlineSession, request: SyncRequest | None = None) -> None:
        """
        Args:
            session: open.
            request: the time and the parameters of the lists.
        """
        self.session, self.request = session, request or SyncRequest()
        self.lists = ListFetcher(session, self.request)
        self.prepared = dict[str, asyncio.Task[None]]()  # by stream: makes its table ready for pages
        self.adopted = dict[int, int]()  # walks of killed runs, which left no receipt → the first page loaded here
        self._fetched: list[_Fetched] = []  # of all walks that are being fetched
        self._seen_in_part: set[tuple[str, str, str]] | None = None  # lists that have to be read whole, once known

    async def is_new(self, stream: Stream) -> bool:
        """Whether a stream was never read, not even in part, and needs nothing of the work file to be requested."""
        session = self.session
        _, sources = stream.sources(session.settings.api)
        if session.control.unfinished_walks(stream.name) or any(
            source.parent or self.lists.pacing.rows_last_time(stream, source) is not None for source in sources
        ):
            return False
        return not await session.loader.do(session.loader.has_been_synced, stream)

    async def read_source(
        self, stream: Stream, source: Source, version: Version, *, is_done: bool, is_behind: bool = False
    ) -> None:
        """Bring one list of a stream up to date: finish open walks of earlier runs, then walk it, unless it is done.

        Args:
            stream: of the list.
            source: the list.
            version: of the API.
            is_done: whether this run had read the list to its end before it was interrupted.
            is_behind: a walk that this run began before lacks the lists of parents that have come since.
        """
        control = self.session.control
        for walk, state in control.unfinished_walks(stream.name):
            if walk.source != source.name:
                continue
            if walk.version == version:
                is_read = await self.read_walk(stream, source, walk, is_sealed=state == "sealed")
                # The walk of an older run is complete now, but only as of the time it began.
                is_done = is_done or (is_read and not is_behind and walk.run_id == self.session.receipt.run_id)
            else:
                control.end_walk(walk.id, "dropped")
        if not is_done:
            await self.read_walk(stream, source, await self._begin_walk(stream, source, version))

    async def resume_stream(self, stream: Stream) -> None:
        """Load the walks of a stream that interrupted runs sealed, before anything newer: see `load_left_over`."""
        session = self.session
        if not session.control.unfinished_walks(stream.name):
            return
        await walk_loader.sync_custom_fields(session, stream)
        version, _ = stream.sources(session.settings.api)
        await session.loader.do(session.loader.table, stream, version)
        await self.load_left_over(stream, set())

    async def load_left_over(self, stream: Stream, done: set[tuple[str, str]]) -> None:
        """Load walks that were sealed to their ends but are not in the work file, in the order in which they were read.

        A record may have moved from one list of the stream to another: its versions are in order only if all lists are
        loaded together. A repair that was not sealed to its end is loaded as far as it was sealed, and dropped.

        Args:
            stream: of the walks.
            done: the lists (stream, source) that this run has read to their ends; is updated.
        """
        control = self.session.control
        version, lists = stream.sources(self.session.settings.api)
        sources = {source.name: source for source in lists}
        for walk, state in control.unfinished_walks(stream.name):
            is_own = walk.version == version and walk.source in sources
            if state == "sealed" and (is_own or not walk.is_of_a_list):
                source = sources.get(walk.source, lists[0])
                is_loaded = await self.read_walk(stream, source, walk, is_sealed=True)
                # The walk of an older run is complete now, but only as of the time it began.
                if walk.run_id == self.session.receipt.run_id:
                    (done.add if is_loaded else done.discard)((stream.name, walk.source))
            elif walk.source == REPAIR:  # interrupted: what it sealed is loaded
                with contextlib.suppress(_PagesLost):
                    await self._load_sealed(stream, walk)
                control.end_walk(walk.id, "dropped")

    async def refetch_stream(self, stream: Stream) -> list[tuple[Source, Walk]]:
        """Read all of a stream again; its lists, and the walks that read them."""
        walks = []
        version, sources = stream.sources(self.session.settings.api)
        for source in sources:
            walk = self._open_walk(stream, source, version, None)
            await self.read_walk(stream, source, walk)
            walks.append((source, walk))
        return walks

    async def read_walk(self, stream: Stream, source: Source, walk: Walk, *, is_sealed: bool = False) -> bool:
        """Load the sealed pages of a walk, then fetch and load the rest of it.

        A walk that can't be continued, or not be read in windows, is dropped, and a new one reads the list. Then rows
        that are missing from the lists of their parents are marked, where the parents' counts confirm it.

        Args:
            stream: of the list.
            source: the list.
            walk: new, or of an interrupted run.
            is_sealed: it is sealed to its end; nothing is fetched.

        Returns:
            Whether the walk was loaded to its end; False if sealed pages are lost: the walk is dropped.
        """
        control = self.session.control
        if walk.is_of_a_list and walk.run_id != self.session.receipt.run_id and control.was_killed(walk.run_id):
            self.adopted[walk.id] = await self.session.loader.do(self.session.loader.pages_loaded, walk)
        try:
            last = await self._load_sealed(stream, walk)
        except _PagesLost:
            control.end_walk(walk.id, "dropped")
            return False
        if not is_sealed:
            try:
                await self._fetch(stream, source, walk, last)
            except (BadAnswer, ApiError) as error:
                was_parallel = is_parallel(await self._last_page(walk))
                control.end_walk(walk.id, "dropped")
                if isinstance(error, Forbidden | FeatureOff) or (last is None and not was_parallel):
                    raise
                # The cursor of an earlier run may have expired, or the list can't be read in windows: it is read again.
                log.info("%s: starts again (%s)", stream.name, error)
                walk = await self._begin_walk(stream, source, walk.version)
                await self._fetch(stream, source, walk, None, in_windows=not was_parallel)
        if source.parent and source.parent.counts:
            await self._tombstone_unlisted(stream, source, source.parent, walk)
        control.end_walk(walk.id, "applied")
        return True

    async def _begin_walk(self, stream: Stream, source: Source, version: Version) -> Walk:
        since = None
        if source.way != "full" and not self.request.reads_whole(stream.name):
            since = await self.session.loader.do(self._since, stream, source, version)
        if since and not self.request.since and self._was_seen_in_part(stream, source, version):
            text = "an earlier token could not see all records, so the list is read whole."
            self.session.on_event(Event("note", stream.name, text=f"{stream.name} ({source.name}): {text}"))
            since = None
        return self._open_walk(stream, source, version, since)

    def _was_seen_in_part(self, stream: Stream, source: Source, version: Version) -> bool:
        """Whether the token sees more records of a list than one that has read it since it was last read whole.

        Records that become visible have no new time of change. Those of a list with a parent come with the parent.
        """
        if source.parent or not self.session.account.is_admin:
            return False
        if self._seen_in_part is None:
            self._seen_in_part = self.session.control.lists_read_by_members()
        return (stream.name, source.name, version) in self._seen_in_part

    def _open_walk(self, stream: Stream, source: Source, version: Version, since: datetime | None) -> Walk:
        run_id = self.session.receipt.run_id
        return self.session.control.open_walk(run_id, stream.name, source.name, version, source.operation, since)

    def _since(self, stream: Stream, source: Source, version: Version) -> datetime | None:
        """The time from which changes are requested: when the last walk began, less an overlap for late changes.

        Or the newest change that was seen, if that is earlier: the server's clock may have been wrong. Or the chosen
        time, moved back into that overlap where it is in it.
        """
        row = first(
            self.session.loader.connection.execute(
                "SELECT watermark, newest FROM meta.checkpoints WHERE stream = ? AND source = ? AND version = ?",
                [stream.name, source.name, version],
            )
        )
        chosen = self.request.since
        if row is None:
            return chosen
        overlap = timedelta(seconds=self.session.settings.overlap_s)
        newest = None if source.parent else row[1]  # a parent may have changed later than its children
        resume = resume_point(row[0], newest, overlap)
        return chosen_point(chosen, row[0], resume) if chosen else resume

    async def _load_sealed(self, stream: Stream, walk: Walk) -> Page | None:
        """Load the sealed pages that the work file lacks; the last sealed page of the walk.

        Raises:
            _PagesLost: one of them is not in the archive, or damaged there. Whole batches before it are loaded.
        """
        try:
            await walk_loader.load_sealed(self.session, stream, walk)
            return await self._last_page(walk)
        except raw_archive.LostPage as error:
            detail = str(error).split("\n", 1)[0]
            text = f"{stream.name}: {detail} The lost pages are read again."
            self.session.on_event(Event("note", stream.name, text=text))
            raise _PagesLost from error

    async def _last_page(self, walk: Walk) -> Page | None:
        """The last sealed page of a walk; with its body if the next page is compared with it."""
        newest = self.session.control.last_page(walk.id)
        if newest is None:
            return None
        body = b""
        if catalogue.operations(walk.version)[walk.operation].paging == "offset":
            body = await asyncio.to_thread(raw_archive.read, self.session.settings.raw, newest)
        context = msgspec.json.decode(newest.context or "{}", type=dict[str, str])
        return Page(walk.id, newest.seq, body, newest.rows, newest.next, newest.served_at, context=context)

    async def _tombstone_unlisted(self, stream: Stream, source: Source, parent: Parent, walk: Walk) -> None:
        """Mark rows that are missing from the lists of their parents, as `walk` read them, if the counts confirm it."""
        session, loader = self.session, self.session.loader
        sealed = session.control.sealed_pages(walk.id)
        missing = await loader.do(removed_children.find_missing, loader.connection, stream, parent, walk, sealed)
        if not missing:
            return
        pages = await asyncio.to_thread(
            removed_children.read_pages, session.settings.raw, sealed, parent, {each.parent for each in missing}
        )
        table = await loader.do(loader.table, stream, walk.version)
        listed = await loader.do(removed_children.find_listed, loader.connection, table, source, walk, pages)
        gone = removed_children.confirm_gone(
            parent, [each for each in missing if each.key not in listed], session.began
        )
        if gone:
            await walk_loader.tombstone(session, stream, gone)

    async def _fetch(
        self, stream: Stream, source: Source, walk: Walk, after: Page | None, *, in_windows: bool = True
    ) -> None:
        """Fetch, seal and load the pages of a walk after its page `after`; `in_windows`, if its list is a long one."""
        session = self.session
        operation = catalogue.operations(walk.version)[source.operation]
        today = session.began.date()
        chosen = {name: self.request.params.get(name, text) for name, text in source.params.items()}
        params = {name: param_value(text, today) for name, text in chosen.items() if text}
        fetching = await self.lists.pages(stream, source, walk, params, after, in_windows=in_windows)
        fetched, is_read = _Fetched(walk, after), False
        self._fetched.append(fetched)
        try:
            async with contextlib.aclosing(fetching):
                async for each in fetching:
                    page = fetched.last = each if each.context else replace(each, context=params)
                    session.record_page(stream.name, operation, page)
                    if fetched.walk.started_at is None:
                        fetched.walk = replace(walk, started_at=page.served_at)
                    seal = session.archive.seal(fetched.walk, page)
                    fetched.sealing.append((page, asyncio.create_task(seal)))
                    if len(fetched.sealing) >= _SEALED_AT_ONCE:
                        await asyncio.shield(fetched.sealing[0][1])
                        sealed, _ = fetched.sealing.pop(0)
                        fetched.waiting.append(sealed)
                        fetched.bytes += len(sealed.body)
                    if self._is_worth_loading(fetched):
                        if fetched.loading:
                            await asyncio.shield(fetched.loading)
                        load = self._load(stream, fetched.walk, fetched.waiting)
                        fetched.loading, fetched.waiting, fetched.bytes = asyncio.create_task(load), [], 0
            is_read = True
        finally:  # what was fetched is kept, and readers see it when this run ends
            self._fetched.remove(fetched)
            await _uninterrupted(self._load_fetched(stream, source, fetched, is_read=is_read))

    def _is_worth_loading(self, fetched: _Fetched) -> bool:
        """Whether to load what waits of a walk: it is much, or all walks together have much, and this one its share."""
        waiting = sum(each.bytes for each in self._fetched)
        return fetched.bytes >= _PAGES_AHEAD or (
            waiting >= _AHEAD_OF_ALL and fetched.bytes >= waiting / len(self._fetched)
        )

    async def _load_fetched(self, stream: Stream, source: Source, fetched: _Fetched, *, is_read: bool) -> None:
        """Seal and load what was fetched of a walk and is not loaded yet; `is_read`: to its end."""
        session, walk, last = self.session, fetched.walk, fetched.last
        for page, sealing in fetched.sealing:
            await sealing
            fetched.waiting.append(page)
        if fetched.loading:
            await fetched.loading
        if is_read and source.parent and (last is None or last.next is not None):  # no parent was due, or none is left
            walk = walk if walk.started_at else replace(walk, started_at=session.began)
            end = Page(walk.id, last.seq + 1 if last else 0, b"", 0, None, session.began)  # no answer marks the end
            await session.archive.seal(walk, end)
            fetched.waiting.append(end)
        await self._load(stream, walk, fetched.waiting, is_rest=not is_read)

    async def _load(self, stream: Stream, walk: Walk, pages: Sequence[Page], *, is_rest: bool = False) -> None:
        """Load pages of a walk once the stream's table is ready; `is_rest`: the last ones of this attempt."""
        if prepared := self.prepared.get(stream.name):
            await asyncio.shield(prepared)
        load = walk_loader.load_rest if is_rest else walk_loader.load
        await load(self.session, stream, walk, pages)
