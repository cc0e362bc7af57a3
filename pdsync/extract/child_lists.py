"""Walks a list that is requested once for each record of another stream: the participants of every deal.

Its reader sees one walk like any other: the pages are numbered through, and each has the cursor of the next one, so a
walk that was interrupted continues with the same parent and the next page of its list. The newest parents come first,
in the order of their keys, which is the same in each attempt.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from pdsync.errors import NotFound, PdsyncError
from pdsync.extract.pages import Caller, pages

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from pdsync.core.answer import Answer
    from pdsync.model import Operation, Page, Parent, Walk

Key = int | str
_MOST_REMOVED = 10  # parents that may all have been removed since their own stream was read


class _Cursor(Struct):
    """Where a walk continues: with the request of `key`, after `at` in its list."""

    key: Key
    at: str | None = None


async def dependents(
    client: Caller,
    operation: Operation,
    walk: Walk,
    query: Mapping[str, str],
    parent: Parent,
    keys: Sequence[Key] | Mapping[Key, int | None],
    charge: Callable[[int], None] = lambda tokens: None,
    *,
    after: Page | None = None,
    context: Mapping[str, str] | None = None,
    ahead: Callable[[], int] = lambda: 0,
) -> AsyncGenerator[Page]:
    """Yield the pages of `operation` for each of `keys`.

    A parent that was removed meanwhile is skipped; its own stream reports it. Where that is the last parent, the last
    page has a cursor to it, although the walk has ended. Where none of them has a list, it is the list that is missing.

    Args:
        client: makes the calls.
        operation: the list operation.
        walk: what the pages belong to.
        query: the parameters that every page shares.
        parent: which parameter takes the keys, and how many at a time.
        keys: of the parents, in descending order; with the number of records that each one counts, where it is known.
        charge: is called with the cost in tokens of each request before it is made; raises where that is too much. The
            lists that were begun before are still read, as far as they need no further request.
        after: the last page that an earlier attempt sealed, with its context.
        context: parameters that all records get, besides their parent's key.
        ahead: how many lists to begin before the current one is read: their requests are in flight together.

    Raises:
        BadAnswer, PdsyncError: as `pages` does; what `charge` raises.
        NotFound: a list of several parents, or that of every one, is not there.
    """
    start = msgspec.json.decode(after.next, type=_Cursor) if after and after.next else None
    left = [key for key in keys if start is None or key <= start.key]  # type: ignore[operator]  # all of one kind
    groups = [left[at : at + parent.batch] for at in range(0, len(left), parent.batch)]
    seq = after.seq + 1 if after else 0
    counts = keys if isinstance(keys, Mapping) else {}

    def begin(group: Sequence[Key]) -> _Reading:
        charge(operation.cost or 0)
        path, group_query = _request(operation, query, parent, group)
        # The cursor is of a list of the same parents: the children of another one may come before it.
        at = start.at if start and group[0] == start.key and _is_of(after, parent, group) else None
        inner_page = replace(after, next=at) if after and at is not None else None
        expected = counts.get(group[0]) if len(group) == 1 else None
        paying = _PayingCaller(client, charge)
        return _Reading(
            group, pages(paying, operation, walk, group_query, after=inner_page, path=path, expected=expected)
        )

    most_removed = 1 if walk.since is None and after is None else _MOST_REMOVED
    async with contextlib.aclosing(_in_order(groups, begin, ahead, parent.batch == 1, most_removed)) as reading:
        async for group, next_group, page in reading:
            next = _Cursor(group[0], page.next) if page.next else _Cursor(next_group[0]) if next_group else None
            yield replace(
                page,
                seq=seq,
                next=_text(next) if next else None,
                cursor=_text(_Cursor(group[0], page.cursor)),
                context={**(context or {}), parent.param: _joined(group)},
            )
            seq += 1


class _PayingCaller:
    """Charges each request of a list but the first, which is charged when the list is begun."""

    def __init__(self, client: Caller, charge: Callable[[int], None]) -> None:
        self._client, self._charge, self._is_first = client, charge, True

    async def call(self, operation: Operation, path: str | None = None, *, query: Mapping[str, str] | None) -> Answer:
        """See `Caller.call`.

        Raises:
            PdsyncError: what `charge` or the client raises.
        """
        if not self._is_first:
            self._charge(operation.cost or 0)
        self._is_first = False
        return await self._client.call(operation, path, query=query)


class _Reading:
    """The list of some parents; its first page is being fetched."""

    def __init__(self, group: Sequence[Key], pages: AsyncGenerator[Page]) -> None:
        self.group, self._pages = group, pages
        self._first = asyncio.create_task(self._fetch_first())

    async def _fetch_first(self) -> Page:
        return await anext(self._pages)

    async def pages(self) -> AsyncGenerator[Page]:
        """Its pages."""
        yield await self._first
        async for page in self._pages:
            yield page

    async def close(self) -> None:
        """Stop it."""
        self._first.cancel()
        await asyncio.gather(self._first, return_exceptions=True)
        await self._pages.aclose()


async def _in_order(
    groups: Sequence[Sequence[Key]],
    begin: Callable[[Sequence[Key]], _Reading],
    ahead: Callable[[], int],
    may_be_removed: bool,
    most_removed: int,
) -> AsyncGenerator[tuple[Sequence[Key], Sequence[Key], Page]]:
    """Yield the pages of all lists in the order of `groups`, each with its group and the next one (or none).

    Args:
        groups: of parents.
        begin: begins to read the list of a group, or raises if it may not be read.
        ahead: how many lists to begin before the current one is read.
        may_be_removed: whether a list that is not found is that of a parent that was removed, and is skipped.
        most_removed: how many of them may be skipped where none is found.
    """
    begun, removed, is_found = deque[_Reading](), list[NotFound](), False
    refused: PdsyncError | None = None
    try:
        for at, group in enumerate(groups):
            while not refused and len(begun) < min(1 + ahead(), len(groups) - at):
                try:
                    begun.append(begin(groups[at + len(begun)]))
                except PdsyncError as error:  # what was begun before it is read
                    refused = error
            if refused and not begun:
                raise refused
            try:
                async with contextlib.aclosing(begun[0].pages()) as reading:
                    async for page in reading:
                        is_found = True
                        yield group, groups[at + 1] if at + 1 < len(groups) else (), page
            except NotFound as error:
                removed.append(error)
                if not may_be_removed or (not is_found and len(removed) > _MOST_REMOVED):
                    raise
            await begun.popleft().close()
        if not is_found and len(removed) > most_removed:
            raise removed[-1]
    finally:
        for each in begun:
            await each.close()


def _request(
    operation: Operation, query: Mapping[str, str], parent: Parent, keys: Sequence[Key]
) -> tuple[str, dict[str, str]]:
    """Path and query of the request for the parents with `keys`."""
    if f"{{{parent.param}}}" in operation.path:
        return operation.path.replace(f"{{{parent.param}}}", quote(str(keys[0]), safe="")), dict(query)
    return operation.path, {**query, parent.param: _joined(keys)}


def _joined(keys: Sequence[Key]) -> str:
    return ",".join(map(str, keys))


def _is_of(page: Page | None, parent: Parent, keys: Sequence[Key]) -> bool:
    """Whether a page is of the list of the parents with `keys`, all of them."""
    return page is not None and page.context.get(parent.param) == _joined(keys)


def _text(cursor: _Cursor) -> str:
    return msgspec.json.encode(cursor).decode()
