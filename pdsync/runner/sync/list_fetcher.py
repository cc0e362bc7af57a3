"""Fetches the lists of a run, each in the way that uses up the rate limit: in windows, some pages ahead, or in turn."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from pdsync.core import catalogue
from pdsync.core.control.sizes import ListSizes
from pdsync.core.reading import side_by_side
from pdsync.errors import DependentsBudgetSpent
from pdsync.extract.child_lists import dependents
from pdsync.extract.long_list import LongList, is_long
from pdsync.extract.pages import pages, query_of
from pdsync.extract.parallel import parallel_pages
from pdsync.runner.sync import parent_keys
from pdsync.runner.sync.pacing import Pacing
from pdsync.sql import first, quoted

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from pdsync.extract.child_lists import Key
    from pdsync.model import Operation, Page, Parent, Source, Stream, Walk
    from pdsync.runner.session import OnlineSession
    from pdsync.runner.sync.sync_request import SyncRequest

_PER_STREAM = 20  # requests per 2 s for each stream of a run: above that, two more for a list hardly delay the others


class ListFetcher:
    """Fetches the lists of one run, which share the rate limit and the budget of dependent streams."""

    def __init__(self, session: OnlineSession, request: SyncRequest) -> None:
        """
        Args:
            session: open.
            request: the time from which it reads.
        """
        self._session, self._request = session, request
        self.pacing = Pacing(session)
        self.dependents_spent = 0  # tokens
        self._sizes = ListSizes(session.control).load()

    async def pages(
        self,
        stream: Stream,
        source: Source,
        walk: Walk,
        params: Mapping[str, str],
        after: Page | None,
        *,
        in_windows: bool = True,
    ) -> AsyncGenerator[Page]:
        """The pages of a walk after its page `after`.

        Args:
            stream, source: the list.
            walk: that reads it.
            params: parameters of the list that a person may set, and their values.
            after: the last page that an earlier attempt sealed.
            in_windows: whether a long list may be read in windows.
        """
        session, pacing = self._session, self.pacing
        operation = catalogue.operations(walk.version)[source.operation]
        way = "no" if pacing.is_sequential else side_by_side(stream, source, operation)
        if in_windows and way == "windows" and walk.since is None and not params:
            target = await self._long_list(stream, source, walk, operation)
            return pacing.sharing(parallel_pages(target, after), in_windows=True)
        query = query_of(stream, source, walk.version, operation, walk.since) | dict(params)
        if parent := source.parent:
            keys = await self._parent_keys(stream, source, parent, walk)
            reading = dependents(
                session.http,
                operation,
                walk,
                query,
                parent,
                keys,
                self.charge_dependents,
                after=after,
                context=params,
                ahead=pacing.ahead,
            )
            return pacing.sharing(reading)
        newest = None
        if source.way == "newest_first" and stream.cursor:
            newest = stream.column(stream.cursor).path(stream.cursor, walk.version)
        if way != "pages" or walk.since is not None:
            return pages(session.http, operation, walk, query, after=after, newest_first=newest)
        reading = pages(
            session.http,
            operation,
            walk,
            query,
            after=after,
            newest_first=newest,
            ahead=lambda read: pacing.pages_ahead(stream, source, operation, read),
        )
        return pacing.sharing(reading)

    async def _long_list(self, stream: Stream, source: Source, walk: Walk, operation: Operation) -> LongList:
        rows = self.pacing.rows_last_time(stream, source)
        return LongList(
            self._session.http,
            stream,
            source,
            operation,
            walk,
            scheduler=self.pacing.scheduler,
            overlap=timedelta(seconds=self._session.settings.overlap_s),
            rows=rows,
            all_timed=rows is None or await self._session.loader.do(self._all_timed, stream),
            requests_after=self._requests_after(stream),
            seems_long=self._seems_long(stream, source, operation),
        )

    def _requests_after(self, stream: Stream) -> float:
        """How many requests for the lists of its records wait until a stream is read, for each record, at most."""
        prefer = self._session.settings.api
        parents = [source.parent for each in self._request.selected() for source in each.sources(prefer)[1]]
        return sum(1 / parent.batch for parent in parents if parent and parent.stream == stream.name)

    def _seems_long(self, stream: Stream, source: Source, operation: Operation) -> bool:
        """Whether a list that was never read is measured to be long; unmeasured, whether the limit has room to try."""
        if size := self._sizes.get((stream.name, source.name)):
            return is_long(operation, size.rows)
        return self._session.settings.burst >= _PER_STREAM * len(self._request.selected())

    def _all_timed(self, stream: Stream) -> bool:
        """Whether every row of a stream has a time of change."""
        column = quoted(stream.cursor or "")
        query = f"SELECT count(*) FROM {quoted('main', stream.name)} WHERE {column} IS NULL AND _deleted_at IS NULL"
        return bool(first(self._session.loader.connection.execute(query)) == (0,))

    async def _parent_keys(
        self, stream: Stream, source: Source, parent: Parent, walk: Walk
    ) -> list[Key] | dict[Key, int | None]:
        """The keys of the parents whose lists a walk reads, in descending order.

        Where the parent stream has an exact count: each key → the length of its list, None where the record has none.

        Raises:
            PdsyncError: the parent stream was never synced.
        """
        session, connection = self._session, self._session.loader.connection
        overlap = timedelta(seconds=session.settings.overlap_s)
        column = stream.parent_column(parent, walk.version) if parent.counts else None
        children = (stream.name, column) if column else None
        reads_all = walk.since is None
        unread = (stream.name, stream.key) if source.way == "new_parents" and not reads_all else None
        order = session.control.run_order()

        def select() -> list[Key] | dict[Key, int | None]:
            reading = parent_keys.find_last_reading(connection, stream.name, source.name, walk.version, order)
            keys = parent_keys.select_parents(
                connection, parent, walk.since, overlap, children=children, reading=reading, unread=unread
            )
            if self._request.since:  # the last reading does not limit the parents, nor is one after it left out
                more = parent_keys.select_parents(connection, parent, walk.since, children=children, unread=unread)
                keys = sorted({*keys, *more}, reverse=True)
            return parent_keys.count_children(connection, parent, keys) if parent.counts else keys

        return await session.loader.do(select)

    def charge_dependents(self, tokens: int) -> None:
        """Count the tokens of dependent streams, and stop these at the share of a day's tokens that one run may take.

        Raises:
            DependentsBudgetSpent: `tokens` more would exceed the share.
        """
        limit = self._session.settings.dependents_tokens
        if limit is not None and not self.can_afford_dependents(tokens):
            raise DependentsBudgetSpent(spent=self.dependents_spent, limit=limit)
        self.dependents_spent += tokens

    def can_afford_dependents(self, tokens: int) -> bool:
        """Whether `tokens` more for dependent streams are within the share of a day's tokens that one run may take."""
        limit = self._session.settings.dependents_tokens
        return limit is None or self.dependents_spent + tokens <= limit
