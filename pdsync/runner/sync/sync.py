"""Carries out a sync: every list walked, every page sealed, every batch committed, and a receipt at the end.

A run that was cut short is continued under its own id: walks go on behind their last sealed page, and streams that
it had finished a short while ago are not read again. Streams run side by side and fail by themselves; what stops one
of them for good (an exhausted budget, abuse protection) stops all, with everything so far kept.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from pdsync.core import catalogue
from pdsync.core.account import fetch_account
from pdsync.core.list_response import open_envelope
from pdsync.core.log import log
from pdsync.errors import ApiError, BadAnswer, DependentsBudgetSpent, FeatureOff, Forbidden, PdsyncError, Stopped
from pdsync.extract import raw_archive
from pdsync.extract.child_lists import dependents
from pdsync.extract.pages import pages, query_of
from pdsync.extract.raw_archive import Archive
from pdsync.load import publish
from pdsync.load.commit import Counts
from pdsync.model import (
    FINDINGS,
    REPAIR,
    IncompleteStream,
    Operation,
    Page,
    Parent,
    Receipt,
    Source,
    Stream,
    StreamReceipt,
    Tombstone,
    Version,
    Walk,
)
from pdsync.runner import connection, project
from pdsync.runner.loader import PAGES_A_BATCH, Loader
from pdsync.runner.report import duplicates, mutation_log
from pdsync.runner.report import receipt as receipts
from pdsync.runner.report.completeness import measure_completeness
from pdsync.runner.sync import parent_keys, removed_children
from pdsync.runner.sync.settle import settle
from pdsync.sql import first

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence

    from pdsync.core.account import Account
    from pdsync.core.config import Settings
    from pdsync.core.control import Control
    from pdsync.core.http import Answer, Http

_CONTINUED = timedelta(hours=1)  # streams that a killed run had finished so lately are not read again
_PAGES_AHEAD = 40 * 2**20  # bytes of one walk that wait for the loader


class SyncRequest(Struct, frozen=True):
    """What a sync is asked to do."""

    streams: tuple[str, ...] = ()  # none: all
    full: bool = False
    since: datetime | None = None
    budget: int | None = None  # tokens
    params: dict[str, str] = {}  # of streams that can be asked for otherwise
    words: str | None = None  # the command, where it is another than sync
    anew: tuple[str, ...] = ()  # streams that are read whole, though the others are not

    @property
    def command(self) -> str:
        """The command as it would be typed; a cut run is continued by the same one."""
        if self.words:
            return self.words
        words = ["sync", *self.streams, *(["--full"] if self.full else [])]
        words += [f"--since={self.since.isoformat()}"] if self.since else []
        words += [f"--param={name}={value}" for name, value in sorted(self.params.items())]
        words += [f"--full={name}" for name in self.anew]
        return " ".join(words)

    def reads_whole(self, stream: str) -> bool:
        """Whether all of a stream is asked for, whatever was read before."""
        return self.full or stream in self.anew

    def selected(self) -> list[Stream]:
        """The streams to sync and those whose definitions they need, in the order of the catalogue.

        When none is named, it is all that are not optional.

        Raises:
            CatalogueError: there is no such stream. Nothing was called.
        """
        wanted = {name: catalogue.stream(name) for name in self.streams} or {
            name: stream for name, stream in catalogue.streams().items() if not stream.optional
        }
        needed = {stream.fields for stream in wanted.values() if stream.fields}
        return [stream for name, stream in catalogue.streams().items() if name in wanted or name in needed]


class Event(Struct, frozen=True):
    """Something to show while a run goes on: pages and rows that came in for a stream, or a stream's end."""

    kind: str  # started, page, finished, note
    stream: str = ""
    receipt: StreamReceipt | None = None
    text: str = ""


async def sync(
    settings: Settings,
    asked: SyncRequest,
    tell: Callable[[Event], None] = lambda event: None,
) -> Receipt:
    """Bring the warehouse up to date and publish it.

    Args:
        settings: of the project.
        asked: which streams, and how much of them.
        tell: is called with each event, in the event loop's thread.

    Returns:
        The receipt; its `exit_code` is 0 only if every stream reached its end and nothing was quarantined.

    Raises:
        ConfigError, AuthError, WrongCompany: nothing was written.
        Busy, Blocked: another run holds the project; Pipedrive asked for silence.
        PdsyncError: the run could not even begin, or its end could not be kept.
    """
    streams = asked.selected()
    async with open_session(settings, asked, tell) as (run, done):
        await run.all(streams, done)
    return run.receipt


@contextlib.asynccontextmanager
async def open_session(
    settings: Settings, asked: SyncRequest, tell: Callable[[Event], None]
) -> AsyncIterator[tuple[SyncRun, set[tuple[str, str]]]]:
    """A run under way: lock, session, work file, archive; behind it everything is kept and published.

    Yields:
        The run, and the lists (stream, source) that it had read to their ends before it was cut short.

    Raises:
        As `sync`.
    """

    def note(text: str) -> None:
        tell(Event("note", text=text))

    with project.locked(settings, note) as control:
        async with connection.connect(settings, run_tokens=asked.budget) as http:
            http.clock.not_before(control.newest_time())
            identity = await fetch_account(http)
            control.check_company(identity.company_id, identity.company_name)
            if found := project.ready_work_file(settings):
                note(found)
            loader = Loader(project.work_path(settings))
            try:
                await loader.do(loader.open, identity.company_id, identity.company_name)
                # After the warehouse's own check: a lost control.db must not be tied to the wrong company.
                control.bind_company(identity.company_id, identity.company_name, identity.company_domain)
                for found in await loader.do(settle, loader, control, http.clock):
                    note(found)
                receipt, done = _begin(control, asked)
                receipt.is_admin = identity.is_admin
                async with Archive(settings.raw, control, receipt.run_id, identity.company_id) as archive:
                    yield SyncRun(settings, asked, control, http, archive, loader, receipt, tell, identity), done
                    now = identity.served_at or receipt.started_at
                    for found in await mutation_log.apply_pushes(settings, control, loader, archive, receipt, now):
                        note(found)
                await loader.do(loader.views)
                await loader.do(
                    measure_completeness, loader, control, receipt, settings, identity.served_at or receipt.started_at
                )
                await loader.do(receipts.save_receipt, loader, receipt)
                for twin in await loader.do(duplicates.find_duplicate_creates, loader, control, receipt.run_id):
                    tell(Event("note", text=str(twin)))
            finally:
                await loader.close()
            publish.publish(project.work_path(settings), settings.warehouse)
            control.finish_run(receipt)


def page_of(operation: Operation, answer: Answer, walk: int = 0) -> Page:
    """An answer as the only page of a walk."""
    rows = len(open_envelope(answer.body, operation).records)
    return Page(walk, 0, answer.body, rows, None, answer.served_at)


def _begin(control: Control, asked: SyncRequest) -> tuple[Receipt, set[tuple[str, str]]]:
    """A new receipt, or that of the run to continue; and the lists that it has read to their ends already."""
    for last in control.receipts(1):
        cut = last.finished_at is None or last.exit_code in (3, 130)
        if cut and last.command == asked.command and datetime.now(UTC) - last.started_at < _CONTINUED:
            receipt = Receipt(last.run_id, last.command, last.started_at, resumed=True)
            return receipt, control.finished_lists(last.run_id)
    receipt = receipts.begin_receipt(asked.command)
    control.start_run(receipt.run_id, receipt.command, receipt.started_at)
    return receipt, set()


class _PagesLost(Exception):
    """Sealed pages of a walk can't be read back: the walk is over, and its list has to be read again."""


class SyncRun:
    """One run under way."""

    def __init__(
        self,
        settings: Settings,
        asked: SyncRequest,
        control: Control,
        http: Http,
        archive: Archive,
        loader: Loader,
        receipt: Receipt,
        tell: Callable[[Event], None],
        identity: Account,
    ) -> None:
        self.settings, self.asked, self.control, self.http = settings, asked, control, http
        self.archive, self.loader, self.receipt, self.tell = archive, loader, receipt, tell
        self.identity = identity
        self.began = identity.served_at or datetime.now(UTC)  # the server's time
        self.dependents_spent = 0  # tokens
        self.live: dict[str, StreamReceipt] = {}  # of this process, for those who watch
        self.stopped: Stopped | None = None

    async def all(self, streams: Sequence[Stream], done: set[tuple[str, str]]) -> None:
        """Sync `streams`: definitions first, then the rest side by side, then what depends on their records."""
        definitions = {stream.fields for stream in streams}
        dependent = {stream.name for stream in streams if stream.parents(self.settings.api)}
        errors: dict[str, PdsyncError] = {}
        interrupted = False
        try:
            for group in (
                [stream for stream in streams if stream.name in definitions],
                [stream for stream in streams if stream.name not in definitions | dependent],
                [stream for stream in streams if stream.name in dependent],
            ):
                await self._group(group, done, errors)
        except asyncio.CancelledError:
            interrupted = True
        finally:
            await self._conclude(streams, errors, interrupted=interrupted)

    async def _group(
        self, streams: Sequence[Stream], done: set[tuple[str, str]], errors: dict[str, PdsyncError]
    ) -> None:
        tasks = {stream.name: asyncio.create_task(self._guarded(stream, done, errors)) for stream in streams}
        try:
            await asyncio.gather(*tasks.values())
        except BaseException:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)
            raise

    async def _guarded(self, stream: Stream, done: set[tuple[str, str]], errors: dict[str, PdsyncError]) -> None:
        self.live[stream.name] = StreamReceipt()
        try:
            if self.stopped:
                raise self.stopped
            await self.stream(stream, done)
        except FeatureOff as error:
            if await self.loader.do(self.loader.has_been_synced, stream):
                errors[stream.name] = error
            else:
                self.live[stream.name].note = f"not part of this company's plan ({error})"
        except DependentsBudgetSpent as error:
            errors[stream.name] = error
        except Stopped as error:
            self.stopped = self.stopped or error
            errors[stream.name] = error
        except PdsyncError as error:
            log.info("%s failed: %s", stream.name, error)
            errors[stream.name] = error
        text = str(errors.get(stream.name) or self.live[stream.name].note or "")
        self.tell(Event("finished", stream.name, self.live[stream.name], text))

    async def stream(self, stream: Stream, done: set[tuple[str, str]]) -> None:
        """Bring one stream up to date: its definitions taken over, each of its lists walked to the end."""
        self.tell(Event("started", stream.name, self.live[stream.name]))
        await self.loader.do(self.loader.sync_custom_fields, stream, self.receipt.run_id)
        version, sources = stream.sources(self.settings.api)
        await self.loader.do(self.loader.table, stream, version)
        await self._replay(stream, {source.name: source for source in sources}, version, done)
        ends = await asyncio.gather(
            *(self._source(stream, source, version, done) for source in sources), return_exceptions=True
        )
        failures = [end for end in ends if isinstance(end, BaseException)]
        for failure in sorted(failures, key=lambda error: isinstance(error, PdsyncError)):
            raise failure

    async def _replay(
        self, stream: Stream, sources: dict[str, Source], version: Version, done: set[tuple[str, str]]
    ) -> None:
        """Load what was sealed to its end but is not in the work file, in the order in which it was read.

        A record may have moved from one list of the stream to another: its versions come in order only if all lists
        are replayed together.
        """
        for walk, state in self.control.unfinished(stream.name):
            is_own = walk.version == version and walk.source in sources
            if state == "sealed" and (is_own or not walk.is_of_a_list):
                source = sources.get(walk.source, next(iter(sources.values())))
                is_loaded = await self._walk(stream, source, walk, sealed=True)
                # What an older run had read is complete now, but only as of then.
                if walk.run_id == self.receipt.run_id:
                    (done.add if is_loaded else done.discard)((stream.name, walk.source))
            elif walk.source == REPAIR:  # cut on its way: what it sealed counts, as far as it makes whole batches
                with contextlib.suppress(_PagesLost):
                    await self._reload(stream, walk)
                self.control.end_walk(walk.id, "dropped")

    async def resume_stream(self, stream: Stream) -> None:
        """Load what runs that were cut had sealed of a stream, before anything newer is."""
        if not self.control.unfinished(stream.name):
            return
        await self.loader.do(self.loader.sync_custom_fields, stream, self.receipt.run_id)
        version, sources = stream.sources(self.settings.api)
        await self.loader.do(self.loader.table, stream, version)
        await self._replay(stream, {source.name: source for source in sources}, version, set())

    async def _source(self, stream: Stream, source: Source, version: Version, done: set[tuple[str, str]]) -> None:
        cut = [pair for pair in self.control.unfinished(stream.name) if pair[0].source == source.name]
        fresh = (stream.name, source.name) in done
        for walk, state in cut:
            if walk.version == version:
                is_loaded = await self._walk(stream, source, walk, sealed=state == "sealed")
                # What an older run had begun is complete now, but only as of then.
                fresh = fresh or (is_loaded and walk.run_id == self.receipt.run_id)
            else:
                self.control.end_walk(walk.id, "dropped")
        if not fresh:
            await self._walk(stream, source, await self._begin_walk(stream, source, version))

    async def tombstone(self, stream: Stream, gone: Sequence[Tombstone]) -> None:
        """Keep that records are gone, and how that is known, in the archive; then mark their rows.

        They are marked as of this run by the server's clock. By ours, what is restored could look older than its
        tombstone, and stay marked for ever.
        """
        version, sources = stream.sources(self.settings.api)
        walk = self.control.open_walk(self.receipt.run_id, stream.name, FINDINGS, version, sources[0].operation, None)
        gone = [replace(each, at=self.began) for each in gone]
        page = Page(walk.id, 0, msgspec.json.encode(gone), len(gone), None, self.began)
        await self.archive.seal(walk, page)
        await self._load(stream, replace(walk, started_at=self.began), [page])
        self.control.end_walk(walk.id, "applied")

    async def refetch_stream(self, stream: Stream) -> list[tuple[Source, Walk]]:
        """Read all of a stream once more; its lists, and the walks that read them."""
        done = []
        version, sources = stream.sources(self.settings.api)
        for source in sources:
            walk = self.control.open_walk(
                self.receipt.run_id, stream.name, source.name, version, source.operation, None
            )
            await self._walk(stream, source, walk)
            done.append((source, walk))
        return done

    async def load_single_records(
        self, stream: Stream, version: Version, operation: Operation, bodies: Sequence[Answer]
    ) -> Counts:
        """Keep and load answers about single records, which were asked for by their keys. They move no watermark."""
        return await self.seal_and_load(stream, version, operation, [page_of(operation, answer) for answer in bodies])

    async def seal_and_load(
        self, stream: Stream, version: Version, operation: Operation, pages: Sequence[Page]
    ) -> Counts:
        """Seal and load `pages` of a list, which are not all of it. They move no watermark."""
        walk = self.control.open_walk(self.receipt.run_id, stream.name, REPAIR, version, operation.id, None)
        counts = Counts()
        for seq, each in enumerate(pages):
            page = replace(each, walk=walk.id, seq=seq, next=None if seq + 1 == len(pages) else str(seq + 1))
            if seq == 0:
                walk = replace(walk, started_at=page.served_at)
            await self.archive.seal(walk, page)
            counts = await self._load(stream, walk, [page]) or counts
        self.control.end_walk(walk.id, "applied")
        return counts

    async def _begin_walk(self, stream: Stream, source: Source, version: Version) -> Walk:
        since = None
        if source.way != "full" and not self.asked.reads_whole(stream.name):
            since = self.asked.since or await self.loader.do(self._watermark, stream, source, version)
        return self.control.open_walk(self.receipt.run_id, stream.name, source.name, version, source.operation, since)

    def _watermark(self, stream: Stream, source: Source, version: Version) -> datetime | None:
        """From when on changes are asked for: the moment the last walk began, and an overlap for late arrivals.

        Or the newest change that was seen, where that is earlier: the server's clock may have been wrong that night.
        """
        row = first(
            self.loader.connection.execute(
                "SELECT watermark, newest FROM meta.checkpoints WHERE stream = ? AND source = ? AND version = ?",
                [stream.name, source.name, version],
            )
        )
        if row is None:
            return None
        since: datetime = row[0].astimezone(UTC) - timedelta(seconds=self.settings.overlap_s)
        newest: datetime | None = row[1]
        if newest is None or source.parent:  # a parent may have changed later than what hangs on it
            return since
        return min(since, newest.astimezone(UTC).replace(microsecond=0) + timedelta(seconds=1))

    async def _walk(self, stream: Stream, source: Source, walk: Walk, *, sealed: bool = False) -> bool:
        """Load what a walk has sealed, then fetch the rest of it; False if sealed pages are lost, and with them it."""
        try:
            last = await self._reload(stream, walk)
        except _PagesLost:
            self.control.end_walk(walk.id, "dropped")
            return False
        if not sealed:
            try:
                await self._fetch(stream, source, walk, last)
            except (BadAnswer, ApiError) as error:
                if isinstance(error, Forbidden | FeatureOff) or last is None:
                    self.control.end_walk(walk.id, "dropped")
                    raise
                # The place where an earlier run left off is no longer there: read the list anew, once.
                log.info("%s: starts again, its place is lost (%s)", stream.name, error)
                self.control.end_walk(walk.id, "dropped")
                again = await self._begin_walk(stream, source, walk.version)
                await self._fetch(stream, source, again, None)
                walk = again
        if source.parent and source.parent.counts:
            await self._bury_unlisted(stream, source, source.parent, walk)
        self.control.end_walk(walk.id, "applied")
        return True

    async def _bury_unlisted(self, stream: Stream, source: Source, parent: Parent, walk: Walk) -> None:
        """Mark the rows that the lists of their parents, read to the end by `walk`, show no more."""
        sealed = self.control.sealed_pages(walk.id)
        absent = await self.loader.do(removed_children.absent, self.loader.connection, stream, parent, walk, sealed)
        if not absent:
            return
        pages = await asyncio.to_thread(
            removed_children.read, self.settings.raw, sealed, parent, {each.parent for each in absent}
        )
        table = await self.loader.do(self.loader.table, stream, walk.version)
        shown = await self.loader.do(removed_children.listed, self.loader.connection, table, source, walk, pages)
        lost = removed_children.gone(parent, [each for each in absent if each.key not in shown], self.began)
        if lost:
            await self.tombstone(stream, lost)

    async def _reload(self, stream: Stream, walk: Walk) -> Page | None:
        """Load the sealed pages that the warehouse lacks; the last page of the walk.

        Raises:
            _PagesLost: one of them is not in the archive, or damaged there. Whole batches before it are loaded.
        """
        try:
            return await self._load_sealed(stream, walk)
        except raw_archive.LostPage as error:
            detail = str(error).split("\n", 1)[0]
            self.tell(Event("note", stream.name, text=f"{stream.name}: {detail} What is lost is read again."))
            raise _PagesLost from error

    async def _load_sealed(self, stream: Stream, walk: Walk) -> Page | None:
        newest = self.control.last_page(walk.id)
        if newest is None:
            return None
        start = await self.loader.do(self.loader.pages_loaded, walk)
        start -= start % PAGES_A_BATCH if start <= newest.seq else 0
        for entry in self.control.sealed_pages(walk.id, start):
            body = await asyncio.to_thread(raw_archive.read, self.settings.raw, entry)
            context = msgspec.json.decode(entry.context or "{}", type=dict[str, str])
            page = Page(walk.id, entry.seq, body, entry.rows, entry.next, entry.served_at, context=context)
            await self.loader.add(stream, walk, [page])
        body = b""
        if catalogue.operations(walk.version)[walk.operation].paging == "offset":  # the next page is held against it
            body = await asyncio.to_thread(raw_archive.read, self.settings.raw, newest)
        return Page(walk.id, newest.seq, body, newest.rows, newest.next, newest.served_at)

    async def _fetch(self, stream: Stream, source: Source, walk: Walk, after: Page | None) -> None:
        live = self.live[stream.name]
        operation = catalogue.operations(walk.version)[source.operation]
        asked = {name: self._meant(self.asked.params.get(name, text)) for name, text in source.params.items()}
        walking = await self._walking(stream, source, walk, operation, asked, after)
        waiting: list[Page] = []
        loading: asyncio.Task[object] | None = None
        sealing: tuple[Page, asyncio.Task[None]] | None = None
        last = after
        try:
            async with contextlib.aclosing(walking):
                async for fetched in walking:
                    page = last = fetched if fetched.context else replace(fetched, context=asked)
                    live.requests += 1
                    live.tokens += operation.cost or 0
                    live.read += page.rows
                    self.tell(Event("page", stream.name, live))
                    if walk.started_at is None:
                        walk = replace(walk, started_at=page.served_at)
                    if sealing:
                        await sealing[1]
                        waiting.append(sealing[0])
                    sealing = (page, asyncio.create_task(self.archive.seal(walk, page)))
                    if sum(len(each.body) for each in waiting) >= _PAGES_AHEAD:
                        if loading:
                            await loading
                        loading = asyncio.create_task(self._load(stream, walk, waiting))
                        waiting = []
        finally:
            if sealing:  # whatever happened: what was fetched is kept
                await asyncio.shield(sealing[1])
                waiting.append(sealing[0])
            if loading:
                await asyncio.shield(loading)
        if source.parent and (last is None or last.next is not None):  # there was no parent, or none was left
            walk = walk if walk.started_at else replace(walk, started_at=self.began)
            end = Page(walk.id, last.seq + 1 if last else 0, b"", 0, None, self.began)  # no answer tells the end
            await self.archive.seal(walk, end)
            waiting.append(end)
        await self._load(stream, walk, waiting)

    async def _walking(
        self,
        stream: Stream,
        source: Source,
        walk: Walk,
        operation: Operation,
        asked: dict[str, str],
        after: Page | None,
    ) -> AsyncGenerator[Page]:
        """The pages that a walk lacks."""
        query = query_of(stream, source, walk.version, operation, walk.since) | asked
        if parent := source.parent:
            overlap = timedelta(seconds=self.settings.overlap_s)
            column = stream.parent_column(parent, walk.version) if parent.counts else None
            held = (stream.name, column) if column else None
            order = self.control.run_order()

            def wanted() -> list[int | str]:
                # What a person asks for with --since is meant as it is said.
                known = None
                if not self.asked.since:
                    known = parent_keys.last_reading(
                        self.loader.connection, stream.name, source.name, walk.version, order
                    )
                return parent_keys.keys(self.loader.connection, parent, walk.since, overlap, held=held, known=known)

            keys = await self.loader.do(wanted)
            return dependents(self.http, operation, walk, query, parent, keys, self.allow, after=after, context=asked)
        newest = None
        if source.way == "newest_first" and stream.cursor:
            newest = stream.column(stream.cursor).path(stream.cursor, walk.version)
        return pages(self.http, operation, walk, query, after=after, newest_first=newest)

    def allow(self, tokens: int) -> None:
        """Count what dependent streams spend, and stop them at their share of the day.

        Raises:
            ShareSpent: the share would not do for `tokens` more.
        """
        limit = self.settings.daily_tokens * self.settings.dependents_share // 100
        if self.settings.daily_tokens and self.dependents_spent + tokens > limit:
            raise DependentsBudgetSpent(spent=self.dependents_spent, limit=limit)
        self.dependents_spent += tokens

    def _meant(self, text: str) -> str:
        """A parameter's value; words that begin with @ stand for days, reckoned from the server's today."""
        if not text.startswith("@"):
            return text
        today = self.began.date()
        days = {
            "@today": today,
            "@month_start": today.replace(day=1),
            "@month_ago": today - timedelta(days=30),
            "@year_ago": today - timedelta(days=365),
        }
        return days[text].isoformat()

    async def _load(self, stream: Stream, walk: Walk, waiting: list[Page]) -> Counts | None:
        counts = await self.loader.add(stream, walk, waiting)
        if counts:
            live = self.live.setdefault(stream.name, StreamReceipt())
            live.inserted += counts.inserted
            live.updated += counts.updated
            live.deleted += counts.deleted
            live.unchanged += counts.unchanged
            self.tell(Event("page", stream.name, live))
        return counts

    async def _conclude(self, streams: Sequence[Stream], errors: dict[str, PdsyncError], *, interrupted: bool) -> None:
        """Write the receipt from what the stores say, not from what was counted on the way: it spans every attempt."""
        receipt = self.receipt
        receipt.finished_at = datetime.now(UTC)
        receipt.tokens, receipt.requests = self.http.budget.spent, self.http.budget.requests
        receipt.as_of = self.control.began_at(receipt.run_id)
        finished = self.control.finished_lists(receipt.run_id)
        counted = await self.loader.do(receipts.count_changes, self.loader, receipt.run_id)
        for stream in streams:
            entry = counted.get(stream.name, StreamReceipt())
            live = self.live.get(stream.name, StreamReceipt())
            entry.requests, entry.tokens = live.requests, live.tokens
            _, sources = stream.sources(self.settings.api)
            error = errors.get(stream.name)
            entry.error, entry.note = str(error) if error else None, live.note
            entry.complete = (
                not error
                and not entry.quarantined
                and (bool(live.note) or {(stream.name, s.name) for s in sources} <= finished)
            )
            receipt.streams[stream.name] = entry
            if error:
                receipt.gaps.append(
                    IncompleteStream(stream.name, receipts.kind_of_gap(error), str(error).split("\n", 1)[0])
                )
            elif entry.quarantined:
                receipt.gaps.append(
                    IncompleteStream(
                        stream.name, "quarantined", f"{entry.quarantined} records can't be read: meta.quarantine"
                    )
                )
            elif not entry.complete:
                receipt.gaps.append(IncompleteStream(stream.name, "stopped", "the run ended before its last page"))
        receipt.exit_code = receipts.exit_code(receipt, errors, self.stopped, interrupted=interrupted)
