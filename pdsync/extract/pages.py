"""Walks a list operation page by page.

A walk asks for the next page only when that page is wanted, keeps none, and can go on from any page that an earlier
one sealed. It trusts no list blindly: a cursor that comes back, a page that repeats, a full page that says nothing
of the next one end the walk with an error, because each of them would otherwise be a silent gap. A server may serve
fewer records a page than it is asked for, so a page that says nothing of paging and holds fewer proves no end either:
offsets are asked for until none has more, and a cursor's page must be shorter than those that had a next one.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from pdsync.core.list_response import Envelope, open_envelope
from pdsync.errors import BadAnswer
from pdsync.model import Operation, Page, Source, Stream, Version, Walk

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from pdsync.core.answer import Answer

_DEFAULT_ROWS = 100  # of a page, where a cursor list is asked for no number (or heeds none)
REPEATS = 3  # how often an unusable page is asked for, or a list is begun anew


class _Keyed(msgspec.Struct):
    id: int | str


class Caller(Protocol):
    """What a walk needs of the client."""

    async def call(self, operation: Operation, path: str | None = None, *, query: Mapping[str, str] | None) -> Answer:
        """Carry out `operation`."""


def query_of(
    stream: Stream, source: Source, version: Version, operation: Operation, since: datetime | None
) -> dict[str, str]:
    """The parameters that every page of a walk shares; `since` is None where everything is asked for.

    Everything is read in the order of ids, where the list can sort: a row that is edited meanwhile keeps its place.
    Changes are read in the order of their times: a row that is edited meanwhile moves to the end, and is met again.
    """
    query = dict(source.query)
    if operation.page_size:
        query["limit"] = str(operation.page_size)
    cursor = stream.cursor
    if since is not None:
        query |= source.since_query
    if cursor is None or source.way in ("full", "changed_parents"):
        return query
    if version == "v2":
        if "sort_by" in operation.query:
            query |= {"sort_by": "id" if since is None else cursor, "sort_direction": "asc"}
        if since is not None and source.way == "updated_since":
            query["updated_since"] = since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    elif "sort" in operation.query:
        query["sort"] = "id ASC" if since is None else f"{cursor} DESC"
    return query


async def pages(
    client: Caller,
    operation: Operation,
    walk: Walk,
    query: Mapping[str, str],
    *,
    after: Page | None = None,
    newest_first: str | None = None,
    path: str | None = None,
    attempts: int = REPEATS,
) -> AsyncGenerator[Page]:
    """Yield the pages of `walk`, one in memory at a time, until the list names no next one.

    Args:
        client: makes the calls.
        operation: the list operation.
        walk: what the pages belong to; its `since` ends a walk that reads newest first.
        query: the parameters that every page shares.
        after: the last page that an earlier walk sealed; None from the start. Its body may be left out, where the
            list has cursors.
        path: the operation's path with its placeholders filled, where it has any.
        newest_first: the key of a record that holds its last change, where the list is sorted by it, newest first.
        attempts: how often a page is asked for whose answer can't be right.

    Raises:
        BadAnswer: the list can't be walked to its end; asking again did not help.
        PdsyncError: what `client.call` raises.
    """
    seq, place = (after.seq + 1, after.next) if after else (0, None)
    reached = _Reached(after.rows if after and after.next else 0)
    before: tuple[int, bytes, bytes] | None = None
    begin, keys, restarts = 0, list[object](), 0  # of the page before, where the list counts offsets
    if operation.paging == "offset" and after and after.next:
        reached.end = int(after.next) + _overlap(after.rows)
        begin, keys = reached.end - after.rows, _keys(open_envelope(after.body, operation)) if after.body else []
    seen = {place}
    while True:
        asked = {**query, **_place(operation, place)}
        page, envelope = await _ask(client, operation, walk, asked, seq, place, newest_first, path, reached, attempts)
        if operation.paging == "offset":
            start, found = int(place or 0), _keys(envelope)
            can_tell = bool(found) or not envelope.records
            if can_tell and start < begin + len(keys) and not set(keys) & set(found):
                # More rows vanished meanwhile than pages overlap: some slipped through between. Back, until they meet;
                # where none is left of the page before, everything is read once more.
                if start:
                    place = str(max(start - max(len(keys) // 2, 1), 0))
                    seen.clear()
                    reached.end = 0  # what the page before showed is no measure any more
                    continue
                restarts += 1
                if restarts > REPEATS:
                    raise BadAnswer(f"{operation.id}: its records change places faster than they can be read.")
            begin, keys, reached.end = start, found, start + page.rows
        if page.next is not None and page.next in seen:
            raise BadAnswer(
                f"{operation.id}: the list leads back to a page that was read already ({page.next[:40]!r})."
            )
        shape = _shape(envelope)
        if shape is not None and shape == before:
            page = _end_of_unpaged(operation, page, envelope, asked)
        seen.add(page.next)
        before, reached.rows = shape, max(reached.rows, page.rows)
        yield page
        if page.next is None:
            return
        seq, place = seq + 1, page.next


def _end_of_unpaged(operation: Operation, page: Page, envelope: Envelope, asked: Mapping[str, str]) -> Page:
    """A page that repeats the one before as the last one, where the list heeds no offset because it has no pages.

    Raises:
        BadAnswer: it has pages: it says so, or the page is full.
    """
    if operation.paging != "offset" or envelope.more is not None or page.rows >= int(asked.get("limit") or 0):
        raise BadAnswer(f"{operation.id}: two pages in a row hold the same {page.rows} records.")
    return replace(page, next=None)


class _Reached(Struct):
    """How far a walk has come, and what its pages were like."""

    rows: int = 0  # of the largest page
    end: int = 0  # the offset after the last record of the page before


async def _ask(
    client: Caller,
    operation: Operation,
    walk: Walk,
    asked: Mapping[str, str],
    seq: int,
    place: str | None,
    newest_first: str | None,
    path: str | None,
    reached: _Reached,
    attempts: int,
) -> tuple[Page, Envelope]:
    """One page; an answer that can't be right is asked for again, a few times."""
    for attempt in range(1, attempts + 1):
        answer = await client.call(operation, path, query=asked)
        try:
            envelope = open_envelope(answer.body, operation)
            following = _next(operation, envelope, asked, walk, newest_first, reached)
            if operation.paging == "cursor" and not envelope.described and len(envelope.records) == _DEFAULT_ROWS:
                await _see_that_it_speaks(client, operation, path, asked)
        except BadAnswer as error:
            if attempt == attempts:
                raise BadAnswer(f"{operation.id}: {error}") from error
            continue
        page = Page(
            walk=walk.id,
            seq=seq,
            body=answer.body,
            rows=len(envelope.records),
            next=following,
            served_at=answer.served_at,
            asked_for=place,
            records=envelope.records,
        )
        return page, envelope
    raise AssertionError("unreachable")


def _keys(envelope: Envelope) -> list[object]:
    """The ids of a page's records; none where they have none."""
    try:
        return [msgspec.json.decode(record, type=_Keyed).id for record in envelope.records]
    except msgspec.DecodeError:
        return []


def _shape(envelope: Envelope) -> tuple[int, bytes, bytes] | None:
    """What tells one page from another: two pages with the same first and last record are one."""
    records = envelope.records
    return (len(records), bytes(records[0]), bytes(records[-1])) if records else None


def _place(operation: Operation, place: str | None) -> dict[str, str]:
    if operation.paging == "offset":
        return {"start": place or "0"}
    return {"cursor": place} if place is not None else {}


async def _see_that_it_speaks(client: Caller, operation: Operation, path: str | None, asked: Mapping[str, str]) -> None:
    """Ask for less than a page that says nothing of a next one: if the list names one now, that page was the last.

    Raises:
        BadAnswer: it says nothing where there is more for certain, so its silence proves no end.
    """
    answer = await client.call(operation, path, query={**asked, "limit": str(_DEFAULT_ROWS - 1)})
    if open_envelope(answer.body, operation).next_cursor is None:
        raise BadAnswer(f"a page of {_DEFAULT_ROWS} records does not say whether there is another one")


def _next(
    operation: Operation,
    envelope: Envelope,
    asked: Mapping[str, str],
    walk: Walk,
    newest_first: str | None,
    reached: _Reached,
) -> str | None:
    """Where the next page begins; None after the last one."""
    rows, limit = len(envelope.records), int(asked.get("limit") or 0)
    if operation.paging == "none":
        if envelope.more or envelope.next_cursor:
            raise BadAnswer("a list without pages says that it has more of them")
        return None
    if operation.paging == "cursor":
        if envelope.was_null:
            raise BadAnswer("the list answered null instead of records")
        # The limit is what is asked for, and the largest page what the server gives at most.
        full = min(filter(None, (limit, reached.rows)), default=0)
        if not envelope.described and full and rows >= full:
            raise BadAnswer("a full page does not say whether there is another one")
        return envelope.next_cursor
    start = int(asked.get("start") or 0)
    if newest_first and walk.since and rows and _changed(envelope, newest_first) < walk.since:
        return None  # sorted newest first: all that follows is older than what we have
    if rows == 0 and envelope.more:
        raise BadAnswer("an empty page says that more of them follow")
    # Some lists say nothing of paging at all. They end where a page shows no more than the one before.
    if rows == 0 or not (start + rows > reached.end if envelope.more is None else envelope.more):
        return None
    # Rows that vanish meanwhile move the rest towards the start: pages overlap, so that none slips through between.
    return str(start + rows - _overlap(rows))


def _overlap(rows: int) -> int:
    return min(rows // 10, 10)


def _changed(envelope: Envelope, field: str) -> datetime:
    """When the oldest record of a page, its last, was changed. Records without a time count as changed just now."""
    record = msgspec.json.decode(envelope.records[-1])
    text = str(record.get(field) or "") if isinstance(record, dict) else ""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return datetime.now(UTC) + timedelta(days=1)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found
