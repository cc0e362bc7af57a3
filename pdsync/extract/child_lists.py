"""Walks a list that is asked for once for each record of another stream: the participants of every deal.

To its reader it is one walk like any other: its pages are counted through, and each names the place behind it, so a
walk that was cut goes on with the parent, and the page of that parent, where it was. Parents come with the newest
first, in the order of their keys, which holds still between two attempts.
"""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from pdsync.errors import NotFound
from pdsync.extract.pages import Caller, pages

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

    from pdsync.model import Operation, Page, Parent, Walk

Key = int | str


class _Place(Struct):
    """Where a walk goes on: with the request of `key`, and behind `at` in its list."""

    key: Key
    at: str | None = None


async def dependents(
    client: Caller,
    operation: Operation,
    walk: Walk,
    query: Mapping[str, str],
    parent: Parent,
    keys: Sequence[Key],
    allow: Callable[[int], None] = lambda tokens: None,
    *,
    after: Page | None = None,
    context: Mapping[str, str] | None = None,
) -> AsyncGenerator[Page]:
    """Yield the pages of `operation` for each of `keys`.

    A parent that is gone meanwhile has nothing more to tell, and is passed over: its own stream says so. When that is
    the last one, the last page names it as the next place, and the walk is at its end all the same.

    Args:
        client: makes the calls.
        operation: the list operation.
        walk: what the pages belong to.
        query: the parameters that every page shares.
        parent: which parameter takes the keys, and how many at a time.
        keys: of the parents, falling.
        allow: is told what a parent's request costs before it is made, and raises when that is too much.
        after: the last page that an earlier attempt sealed.
        context: what all records are to know besides their parent's key.

    Raises:
        BadAnswer, PdsyncError: as `pages` does; what `allow` raises.
    """
    place = msgspec.json.decode(after.next, type=_Place) if after and after.next else None
    left = [key for key in keys if place is None or key <= place.key]  # type: ignore[operator]  # all of one kind
    groups = [left[at : at + parent.batch] for at in range(0, len(left), parent.batch)]
    seq = after.seq + 1 if after else 0
    for group, behind in itertools.zip_longest(groups, groups[1:]):
        allow(operation.cost or 0)
        path, asking = _asked(operation, query, parent, group)
        known = {**(context or {}), parent.param: ",".join(map(str, group))}
        at = place.at if place and group[0] == place.key else None
        inside = replace(after, next=at) if after and at is not None else None
        with contextlib.suppress(NotFound):
            async with contextlib.aclosing(pages(client, operation, walk, asking, after=inside, path=path)) as walking:
                async for page in walking:
                    next = _Place(group[0], page.next) if page.next else _Place(behind[0]) if behind else None
                    yield replace(
                        page,
                        seq=seq,
                        next=_text(next) if next else None,
                        asked_for=_text(_Place(group[0], page.asked_for)),
                        context=known,
                    )
                    seq += 1


def _asked(
    operation: Operation, query: Mapping[str, str], parent: Parent, keys: Sequence[Key]
) -> tuple[str, dict[str, str]]:
    """Path and query of the request for the parents with `keys`."""
    if f"{{{parent.param}}}" in operation.path:
        return operation.path.replace(f"{{{parent.param}}}", quote(str(keys[0]), safe="")), dict(query)
    return operation.path, {**query, parent.param: ",".join(map(str, keys))}


def _text(place: _Place) -> str:
    return msgspec.json.encode(place).decode()
