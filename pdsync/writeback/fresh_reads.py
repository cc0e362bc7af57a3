"""Reads records afresh: a hundred ids in a request where the list takes ids, one by one or from a list otherwise.

A read knows when it was made, because what it says holds for a moment only.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from pdsync.core.list_response import record_in, records_in
from pdsync.core.request_builder import check
from pdsync.errors import ApiError, NotFound
from pdsync.extract.records import records
from pdsync.writeback.shapes import key_of, stream_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pdsync.core.http import Http
    from pdsync.model import Operation
    from pdsync.writeback.shapes import Shape

BATCH = 100
_WORTH_A_LIST = 4  # records of a kind from which on a list of ids is cheaper than asking one by one


class FreshRecord(Struct, frozen=True):
    """What a record was at a moment; `record` is None where there is none, or none that can be seen."""

    record: dict[str, Any] | None
    at: float  # monotonic, s
    kind: str
    hidden: bool = False  # this token may not see it: nothing is known of it

    @property
    def gone(self) -> bool:
        """Whether there is nothing left to change: the record is not there, or marked as deleted."""
        if self.record is None:
            return not self.hidden
        stream = stream_of(self.kind)
        return stream is not None and stream.says_deleted(self.record, "v2" if stream.v2 else "v1")

    @property
    def archived(self) -> bool:
        """Whether it is archived: such a record takes no other change than to be taken back out."""
        return self.record is not None and self.record.get("is_archived") is True

    @property
    def age_s(self) -> float:
        """Seconds since."""
        return time.monotonic() - self.at


class RecordAddress(Struct, frozen=True):
    """A record to read: what it is and where it is."""

    shape: Shape
    target: str  # "deals/12"
    values: tuple[str, ...]  # of the path's parameters, outermost first


def address_of(shape: Shape, params: Mapping[str, Any]) -> RecordAddress | None:
    """Where the record of `params` is; None where nothing can read it, or it does not exist yet."""
    target = shape.target(params)
    if target is None or not (shape.item or shape.listing):
        return None
    return RecordAddress(shape, target, tuple(str(params[name]) for name in shape.places))


async def read(http: Http, places: Iterable[RecordAddress]) -> dict[str, FreshRecord]:
    """What the records at `places` are now, by their targets.

    Raises:
        PdsyncError: as `Http.call`; a record that is not there, or not to be seen, is no error.
    """
    groups: dict[str, list[RecordAddress]] = {}
    for each in {each.target: each for each in places}.values():
        groups.setdefault(each.shape.kind, []).append(each)
    found = await asyncio.gather(*(_group(http, group) for group in groups.values()))
    return {target: read for group in found for target, read in group.items()}


async def _group(http: Http, group: list[RecordAddress]) -> dict[str, FreshRecord]:
    shape = group[0].shape
    found: dict[str, FreshRecord] = {}
    listing = shape.listing
    if listing and "ids" in listing.query and len(shape.places) == 1 and len(group) >= _WORTH_A_LIST:
        parts = [group[at : at + BATCH] for at in range(0, len(group), BATCH)]
        for read in await asyncio.gather(*(_by_ids(http, listing, part) for part in parts)):
            found |= read
    rest = [each for each in group if each.target not in found]
    for one in await asyncio.gather(*(_single(http, each) for each in rest)):
        found |= one
    return found


async def _by_ids(http: Http, listing: Operation, part: list[RecordAddress]) -> dict[str, FreshRecord]:
    at = time.monotonic()
    query = {"ids": ",".join(each.values[-1] for each in part), "limit": str(BATCH)}
    listed = {key_of(each): each for each in records_in((await http.call(listing, query=query)).body)}
    return {
        each.target: FreshRecord(listed[each.values[-1]], at, each.shape.kind)
        for each in part
        if each.values[-1] in listed
    }


async def _single(http: Http, place: RecordAddress) -> dict[str, FreshRecord]:
    """One record by itself: also one that the list does not show, because it is archived or deleted."""
    at = time.monotonic()
    if place.shape.item is None:
        listed = await listing_of(http, place)
        return {place.target: FreshRecord(listed.get(place.values[-1]), at, place.shape.kind)}
    operation = place.shape.item
    params = dict(zip(operation.path_params, place.values, strict=True))
    try:
        answer = await http.carry_out(check(operation, params))
    except NotFound:
        return {place.target: FreshRecord(None, at, place.shape.kind)}
    except ApiError as error:
        if error.status in (400, 403):  # a refusal to show one record: hidden, or never there
            return {place.target: FreshRecord(None, at, place.shape.kind, hidden=error.status == 403)}
        raise
    return {place.target: FreshRecord(record_in(answer.body), at, place.shape.kind)}


async def listing_of(http: Http, place: RecordAddress) -> dict[str, dict[str, Any]]:
    """All records beside the one at `place`, by their keys.

    Raises:
        NotFound: what holds them is not there.
    """
    operation = place.shape.listing
    if operation is None:
        return {}
    params = dict(zip(operation.path_params, place.values, strict=False))
    call = check(operation, params)
    listed: dict[str, dict[str, Any]] = {}
    try:
        async for raw in records(http, operation, call.path, call.query):
            record = msgspec.json.decode(raw)
            if isinstance(record, dict) and (key := key_of(record)):
                listed[key] = record
    except NotFound:
        return {}
    return listed
