"""Walks a list operation page by page.

A walk requests the next page only when its reader asks for it, keeps none, and can resume after any page that an
earlier walk sealed. There are three strategies, one for each kind of paging in the catalogue: a list without pages, a
list with cursors, a list with offsets.

No list is trusted blindly: a cursor that comes back, a page that repeats, a full page that does not say whether there
is a next one end the walk with an error, because each would otherwise be a silent gap. A server may serve fewer records
a page than the limit, so a shorter page without paging information is no proof of the end either: offsets are
requested until a page has nothing new, or the record that the list belongs to counts no more, and the last page of a
cursor list must be shorter than those before it.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Protocol

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from pdsync.core.list_response import Envelope, open_envelope
from pdsync.errors import BadAnswer
from pdsync.model import Operation, Page, Source, Stream, Version, Walk

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence

    from msgspec import Raw

    from pdsync.core.answer import Answer

_DEFAULT_ROWS = 100  # of a page, where a cursor list gets no limit (or ignores it)
_FULL_PAGES = (10, 25)  # rows; the most that a server gives in a page is a multiple of one of them
REPEATS = 3  # how often an unusable page is requested, or a list is restarted

_Fingerprint = tuple[int, bytes, bytes]  # of a page


class _Keyed(Struct):
    id: int | str


class Caller(Protocol):
    """The part of the client that a walk uses."""

    async def call(self, operation: Operation, path: str | None = None, *, query: Mapping[str, str] | None) -> Answer:
        """Carry out `operation`."""


def query_of(
    stream: Stream, source: Source, version: Version, operation: Operation, since: datetime | None
) -> dict[str, str]:
    """The parameters that every page of a walk shares; `since` is None where the whole list is read.

    The whole list is read in the order of ids, where the list can sort: a row that is edited meanwhile does not move.
    Changes are read in the order of their times: a row that is edited meanwhile moves to the end, and is read again.
    """
    query = dict(source.query)
    if operation.page_size:
        query["limit"] = str(operation.page_size)
    cursor = stream.cursor
    if since is not None:
        query |= source.since_query
    if cursor is None or source.way in ("full", "changed_parents", "new_parents"):
        return query
    if version == "v2":
        if "sort_by" in operation.query:
            query |= {"sort_by": "id" if since is None else cursor, "sort_direction": "asc"}
        if since is not None and source.way == "updated_since":
            query["updated_since"] = since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    elif "sort" in operation.query:
        query["sort"] = "id ASC" if since is None else f"{cursor} DESC"
    return query


class _List(Struct, frozen=True):
    """A list operation with all that every page of it shares."""

    client: Caller
    operation: Operation
    walk: Walk
    query: Mapping[str, str]
    path: str | None
    newest_first: str | None
    attempts: int
    ahead: Callable[[int], int]
    expected: int | None


def pages(
    client: Caller,
    operation: Operation,
    walk: Walk,
    query: Mapping[str, str],
    *,
    after: Page | None = None,
    newest_first: str | None = None,
    path: str | None = None,
    attempts: int = REPEATS,
    ahead: Callable[[int], int] = lambda read: 0,
    expected: int | None = None,
) -> AsyncGenerator[Page]:
    """The pages of `walk`, one in memory at a time, until the list names no next one.

    Args:
        client: makes the calls.
        operation: the list operation.
        walk: the walk that the pages belong to; its `since` ends a walk that reads newest first.
        query: the parameters that every page shares.
        after: the last page that an earlier walk sealed; None from the start. Its body may be left out, where the
            list has cursors.
        path: the operation's path with its placeholders filled, where it has any.
        newest_first: the key of a record with the time of its last change, where the list is sorted by it, newest
            first.
        attempts: how often a page is requested whose answer can't be right.
        ahead: rows read → how many pages of a list with offsets to request before the next one has come.
        expected: how many records the parent of the list counts; None if it does not count them.

    Raises:
        BadAnswer: the list can't be walked to its end; requesting a page again did not help.
        PdsyncError: what `client.call` raises.
    """
    return _STRATEGIES[operation.paging](
        _List(client, operation, walk, query, path, newest_first, attempts, ahead, expected), after
    )


async def _only_page(target: _List, after: Page | None) -> AsyncGenerator[Page]:
    """The one page of a list without pages."""

    async def find_next(envelope: Envelope) -> str | None:
        if envelope.more or envelope.next_cursor:
            raise BadAnswer("a list without pages says that it has more of them")
        return None

    seq, address = _resume(after)
    page, _ = await _fetch(target, dict(target.query), seq, address, find_next)
    yield page


async def _cursor_pages(target: _List, after: Page | None) -> AsyncGenerator[Page]:
    """The pages of a list whose pages name the cursor of the next one."""
    seq, cursor = _resume(after)
    largest = after.rows if after and after.next else 0
    previous: _Fingerprint | None = None
    seen = {cursor}
    while True:
        query = {**target.query, **({} if cursor is None else {"cursor": cursor})}
        page, envelope = await _fetch(target, query, seq, cursor, partial(_next_cursor, target, query, largest))
        _check_not_seen(target.operation, page, seen)
        fingerprint = _fingerprint(envelope)
        if fingerprint is not None and fingerprint == previous:
            raise _repeated(target.operation, page)
        seen.add(page.next)
        previous, largest = fingerprint, max(largest, page.rows)
        yield page
        if page.next is None:
            return
        seq, cursor = seq + 1, page.next


class _AheadCaller:
    """Has the pages that are expected next requested, while the one before them is read."""

    def __init__(self, target: _List) -> None:
        self._target = target
        self._requested: dict[str, asyncio.Future[Answer]] = {}  # by offset
        self._forgotten: list[asyncio.Future[Answer]] = []

    async def call(self, operation: Operation, path: str | None = None, *, query: Mapping[str, str] | None) -> Answer:
        """See `Caller.call`; the answer may be on its way already."""
        requested = self._requested.pop((query or {}).get("start", ""), None)
        return await (requested or self._target.client.call(operation, path, query=query))

    def expect(self, offset: str | None, rows: int, read: int) -> None:
        """Request the pages from `offset` on, if all have as many rows as the one before; forget other ones."""
        step, target = rows - overlap(rows), self._target
        count = target.ahead(read) if offset is not None and step > 0 else 0
        offsets = [str(int(offset or 0) + at * step) for at in range(count + 1)] if count else []
        for other in self._requested.keys() - {offset, *offsets}:
            self._forgotten.append(self._requested.pop(other))
            self._forgotten[-1].cancel()
        for each in offsets:
            if each not in self._requested:
                call = target.client.call(target.operation, target.path, query={**target.query, "start": each})
                self._requested[each] = asyncio.ensure_future(call)

    async def close(self) -> None:
        """Cancel the requests that are still in flight."""
        for each in self._requested.values():
            each.cancel()
        await asyncio.gather(*self._requested.values(), *self._forgotten, return_exceptions=True)


async def _offset_pages(target: _List, after: Page | None) -> AsyncGenerator[Page]:
    """The pages of a list that is read by offsets, some of them requested ahead: see `_pages_by_offset`."""
    caller = _AheadCaller(target)
    async with contextlib.aclosing(_pages_by_offset(replace(target, client=caller), after)) as reading:
        try:
            async for page in reading:
                caller.expect(page.next, page.rows, int(page.cursor or 0) + page.rows)
                yield page
        finally:
            await caller.close()


async def _pages_by_offset(target: _List, after: Page | None) -> AsyncGenerator[Page]:
    """The pages of a list that is read by offsets. They overlap: rows that vanish meanwhile hide none."""
    operation = target.operation
    seq, offset = _resume(after)
    begin, end, keys = 0, 0, list[int | str]()  # of the page before
    if after and after.next:
        end = int(after.next) + overlap(after.rows)
        begin, keys = end - after.rows, record_ids(open_envelope(after.body, operation).records) if after.body else []
    previous: _Fingerprint | None = None
    seen, restarts, repeats = {offset}, 0, 0
    while True:
        start = int(offset or 0)
        query = {**target.query, "start": str(start)}
        page, envelope = await _fetch(target, query, seq, offset, partial(_next_offset, target, start, end))
        page_keys = record_ids(envelope.records)
        is_comparable = bool(page_keys) or not envelope.records
        if is_comparable and start < begin + len(keys) and not set(keys) & set(page_keys):
            # More rows vanished meanwhile than pages overlap, so some may have been skipped. Go back until the pages
            # overlap; at the start of the list, read all of it once more.
            if start:
                offset = str(max(start - max(len(keys) // 2, 1), 0))
                seen.clear()
                end = 0  # where the page before ended is no measure any more
                continue
            restarts += 1
            if restarts > REPEATS:
                raise BadAnswer(f"{operation.id}: its records move faster than they can be read.")
        begin, keys, end = start, page_keys, start + page.rows
        _check_not_seen(operation, page, seen)
        fingerprint = _fingerprint(envelope)
        repeats = repeats + 1 if fingerprint is not None and fingerprint == previous else 0
        # A page comes again where its records moved as far as the offset did. That hides none: the page after it must
        # overlap it. If it keeps coming, the list ignores offsets.
        has_pages = envelope.more is not None or page.rows >= int(query.get("limit") or 0)
        tolerated = (REPEATS if has_pages else 1) if page_keys and overlap(page.rows) else 0
        if repeats > tolerated:
            if has_pages:
                raise _repeated(operation, page)
            page = replace(page, next=None)
        seen.add(page.next)
        previous = fingerprint
        yield page
        if page.next is None:
            return
        seq, offset = seq + 1, page.next


_STRATEGIES: dict[str, Callable[[_List, Page | None], AsyncGenerator[Page]]] = {
    "none": _only_page,
    "cursor": _cursor_pages,
    "offset": _offset_pages,
}


def _resume(after: Page | None) -> tuple[int, str | None]:
    """Number and cursor (or offset) of the page to read next."""
    return (after.seq + 1, after.next) if after else (0, None)


async def _fetch(
    target: _List,
    query: Mapping[str, str],
    seq: int,
    address: str | None,
    find_next: Callable[[Envelope], Awaitable[str | None]],
) -> tuple[Page, Envelope]:
    """One page; where its answer can't be right, it is requested again, up to `target.attempts` times.

    Args:
        target: the list.
        query: the parameters of this page.
        seq: its number in the walk.
        address: its cursor or offset.
        find_next: gives the cursor or offset of the next page, None after the last one, or raises BadAnswer.
    """
    operation = target.operation
    for attempt in range(1, target.attempts + 1):
        answer = await target.client.call(operation, target.path, query=query)
        try:
            envelope = open_envelope(answer.body, operation)
            following = await find_next(envelope)
        except BadAnswer as error:
            if attempt == target.attempts:
                raise BadAnswer(f"{operation.id}: {error}") from error
            continue
        page = Page(
            walk=target.walk.id,
            seq=seq,
            body=answer.body,
            rows=len(envelope.records),
            next=following,
            served_at=answer.served_at,
            cursor=address,
            records=envelope.records,
        )
        return page, envelope
    raise AssertionError("unreachable")


async def _next_cursor(target: _List, query: Mapping[str, str], largest: int, envelope: Envelope) -> str | None:
    """The cursor of the next page; None after the last one.

    Args:
        target: the list.
        query: the parameters of the page.
        largest: rows of the largest page before it.
        envelope: the page.
    """
    rows, limit = len(envelope.records), int(query.get("limit") or 0)
    if envelope.was_null:
        raise BadAnswer("the list answered null instead of records")
    # The limit is what was requested, and the largest page what the server gives at most.
    full = min(filter(None, (limit, largest)), default=0)
    if not envelope.described and full and rows >= full:
        raise BadAnswer("a full page does not say whether there is another one")
    if not envelope.described and rows == _DEFAULT_ROWS:
        await _check_names_next(target, query)
    return envelope.next_cursor


async def _check_names_next(target: _List, query: Mapping[str, str]) -> None:
    """Request less than a page that names no next one: if the list names one now, that page was the last.

    Raises:
        BadAnswer: it names none although there is more, so that is no proof of the end.
    """
    answer = await target.client.call(target.operation, target.path, query={**query, "limit": str(_DEFAULT_ROWS - 1)})
    if open_envelope(answer.body, target.operation).next_cursor is None:
        raise BadAnswer(f"a page of {_DEFAULT_ROWS} records does not say whether there is another one")


async def _next_offset(target: _List, start: int, end: int, envelope: Envelope) -> str | None:
    """The offset of the next page; None after the last one.

    Args:
        target: the list.
        start: the offset of the page.
        end: the offset after the last record of the page before it.
        envelope: the page.
    """
    rows, since = len(envelope.records), target.walk.since
    if target.newest_first and since and rows and _changed(envelope, target.newest_first) < since:
        return None  # sorted newest first: all that follows is older than the watermark
    if rows == 0 and envelope.more:
        raise BadAnswer("an empty page says that more of them follow")
    # Some lists have no paging information at all. They end with the record that their parent counts last, or where a
    # page reaches no further than the one before. What may be a full page is no end: the count may be older than it.
    is_full = rows >= int(target.query.get("limit") or 0) or any(rows % size == 0 for size in _FULL_PAGES)
    if envelope.more is None and start + rows == target.expected and not is_full:
        return None
    if rows == 0 or not (start + rows > end if envelope.more is None else envelope.more):
        return None
    return str(start + rows - overlap(rows))


def overlap(rows: int) -> int:
    """By how many rows the page after one of `rows` rows overlaps it, in a list that is read by offsets."""
    return min(rows // 10, 10)


def _check_not_seen(operation: Operation, page: Page, seen: set[str | None]) -> None:
    if page.next is not None and page.next in seen:
        raise BadAnswer(f"{operation.id}: the list leads back to a page that was read already ({page.next[:40]!r}).")


def _repeated(operation: Operation, page: Page) -> BadAnswer:
    return BadAnswer(f"{operation.id}: two pages in a row have the same {page.rows} records.")


def record_ids(records: Sequence[Raw]) -> list[int | str]:
    """The ids of a page's records; none where they have none."""
    try:
        return [msgspec.json.decode(record, type=_Keyed).id for record in records]
    except msgspec.DecodeError:
        return []


def _fingerprint(envelope: Envelope) -> _Fingerprint | None:
    """The count, first and last record: two pages that share them are the same. None for an empty page."""
    records = envelope.records
    return (len(records), bytes(records[0]), bytes(records[-1])) if records else None


def _changed(envelope: Envelope, field: str) -> datetime:
    """When the oldest record of a page, its last, was changed. One without a time counts as later than any other."""
    record = msgspec.json.decode(envelope.records[-1])
    text = str(record.get(field) or "") if isinstance(record, dict) else ""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return datetime.max.replace(tzinfo=UTC)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
