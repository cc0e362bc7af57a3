"""Fetches records by their keys: a hundred per request if the list takes ids, otherwise one per request."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pdsync.core import catalogue
from pdsync.core.request_builder import check
from pdsync.errors import ApiError, NotFound
from pdsync.reconcile import evidence

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pdsync.core.answer import Answer
    from pdsync.model import Operation, Source, Stream, Version
    from pdsync.runner.session import OnlineSession

_IDS_PER_REQUEST = 100


async def fetch_by_key(
    session: OnlineSession, stream: Stream, version: Version, source: Source, keys: Sequence[str]
) -> tuple[Operation | None, list[Answer]]:
    """Fetch the records with these `keys`, as far as they exist.

    Returns:
        The operation and its answers, without those of records that can't be read; None and no answers if no operation
        reads single records of the stream, or its list has no pages: then reading the list costs one request.

    Raises:
        PdsyncError: as `core.http.Http.carry_out`.
    """
    http, listing = session.http, catalogue.operations(version)[source.operation]
    query = {name: value for name, value in source.query.items() if name == "include_fields"}
    if "ids" in listing.query and version == "v2":
        parts = [keys[at : at + _IDS_PER_REQUEST] for at in range(0, len(keys), _IDS_PER_REQUEST)]
        calls = [check(listing, {**query, "ids": ",".join(part), "limit": _IDS_PER_REQUEST}) for part in parts]
        return listing, list(await asyncio.gather(*(http.carry_out(call) for call in calls)))
    item = evidence.find_item_operation(stream, session.settings.api)
    if item is None or listing.paging == "none":
        return None, []
    query = {name: value for name, value in query.items() if name in item.query}
    answers = await asyncio.gather(*(_fetch_one(session, item, key, query) for key in keys))
    return item, [answer for answer in answers if answer]


async def _fetch_one(session: OnlineSession, item: Operation, key: str, query: dict[str, str]) -> Answer | None:
    """The answer with one record; None where it can't be read."""
    try:
        return await session.http.carry_out(check(item, {list(item.path_params)[-1]: key, **query}))
    except NotFound:
        return None
    except ApiError as error:
        if error.status in (400, 403):
            return None
        raise
