"""Reads records as they are now: a hundred in a request where the list takes ids, otherwise one by one or from a list.

Each read has its time: an update is sent only if the read it is decided by is a few seconds old.
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
from pdsync.writeback.shapes import find_stream, record_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pdsync.core.http import Http
    from pdsync.model import Operation
    from pdsync.writeback.shapes import Shape

BATCH = 100
_WORTH_A_LIST = 4  # records of a kind from which on one request by ids is cheaper than one each


class FreshRecord(Struct, frozen=True):
    """A record as it was read; `record` is None where there is none, or none that the token may see."""

    record: dict[str, Any] | None
    at: float  # monotonic, s
    kind: str
    is_hidden: bool = False  # this token may not see it

    @property
    def is_gone(self) -> bool:
        """Whether there is no record to change: none is there, or it is flagged as deleted."""
        if self.record is None:
            return not self.is_hidden
        stream = find_stream(self.kind)
        return stream is not None and stream.says_deleted(self.record, "v2" if stream.v2 else "v1")

    @property
    def is_archived(self) -> bool:
        """Whether it is archived: the only change it takes is to be un-archived."""
        return self.record is not None and self.record.get("is_archived") is True

    @property
    def age_s(self) -> float:
        """Seconds since the read."""
        return time.monotonic() - self.at


class RecordAddress(Struct, frozen=True):
    """The address of a record to read."""

    shape: Shape
    target: str  # "deals/12"
    values: tuple[str, ...]  # of the path's parameters, outermost first


def address_of(shape: Shape, params: Mapping[str, Any]) -> RecordAddress | None:
    """The address of the record of `params`; None where no operation reads it, or it does not exist yet."""
    target = shape.target(params)
    if target is None or not (shape.item or shape.listing):
        return None
    return RecordAddress(shape, target, tuple(str(params[name]) for name in shape.path_params))


async def read(http: Http, addresses: Iterable[RecordAddress]) -> dict[str, FreshRecord]:
    """Read the records at `addresses`: target → record.

    Raises:
        PdsyncError: as `Http.call`. A record that is absent is no error, and neither is one that is hidden, unless only
            a list shows it.
    """
    groups: dict[str, list[RecordAddress]] = {}
    for each in {each.target: each for each in addresses}.values():
        groups.setdefault(each.shape.kind, []).append(each)
    reads = await asyncio.gather(*(_read_group(http, group) for group in groups.values()))
    return {target: read for group in reads for target, read in group.items()}


def estimate_cost(addresses: Iterable[RecordAddress]) -> int:
    """The tokens of `read`, if all records are there and each list has one page."""
    groups: dict[str, dict[str, RecordAddress]] = {}
    for each in addresses:
        groups.setdefault(each.shape.kind, {})[each.target] = each
    total = 0
    for group in groups.values():
        shape = next(iter(group.values())).shape
        if _is_read_by_ids(shape, len(group)):
            total += _cost(shape.listing) * -(-len(group) // BATCH)
        elif shape.item:
            total += _cost(shape.item) * len(group)
        else:
            total += _cost(shape.listing) * len({each.values[:-1] for each in group.values()})
    return total


def _is_read_by_ids(shape: Shape, count: int) -> bool:
    listing = shape.listing
    return listing is not None and "ids" in listing.query and len(shape.path_params) == 1 and count >= _WORTH_A_LIST


def _cost(operation: Operation | None) -> int:
    return (operation.cost if operation else None) or 0


async def _read_group(http: Http, group: list[RecordAddress]) -> dict[str, FreshRecord]:
    """Read records of one kind."""
    shape = group[0].shape
    reads: dict[str, FreshRecord] = {}
    listing = shape.listing
    if listing and _is_read_by_ids(shape, len(group)):
        batches = [group[start : start + BATCH] for start in range(0, len(group), BATCH)]
        for batch in await asyncio.gather(*(_read_by_ids(http, listing, each) for each in batches)):
            reads |= batch
    missing = [each for each in group if each.target not in reads]
    singles = [_read_one(http, each, each.shape.item) for each in missing if each.shape.item]
    listed = _read_from_lists(http, [each for each in missing if each.shape.item is None])
    for found in await asyncio.gather(listed, *singles):
        reads |= found
    return reads


async def _read_by_ids(http: Http, listing: Operation, batch: list[RecordAddress]) -> dict[str, FreshRecord]:
    at = time.monotonic()
    query = {"ids": ",".join(each.values[-1] for each in batch), "limit": str(BATCH)}
    listed = {record_key(each): each for each in records_in((await http.call(listing, query=query)).body)}
    return {
        each.target: FreshRecord(listed[each.values[-1]], at, each.shape.kind)
        for each in batch
        if each.values[-1] in listed
    }


async def _read_from_lists(http: Http, group: list[RecordAddress]) -> dict[str, FreshRecord]:
    """Read records that only a list shows: one list for all records of a parent."""
    at = time.monotonic()
    parents = {each.values[:-1]: each for each in group}
    lists = await asyncio.gather(*(read_siblings(http, each) for each in parents.values()))
    listed = dict(zip(parents, lists, strict=True))
    return {
        each.target: FreshRecord(listed[each.values[:-1]].get(each.values[-1]), at, each.shape.kind) for each in group
    }


async def _read_one(http: Http, address: RecordAddress, operation: Operation) -> dict[str, FreshRecord]:
    """Read one record, also one that the list leaves out because it is archived or deleted."""
    at = time.monotonic()
    params = dict(zip(operation.path_params, address.values, strict=True))
    try:
        answer = await http.carry_out(check(operation, params))
    except NotFound:
        return {address.target: FreshRecord(None, at, address.shape.kind)}
    except ApiError as error:
        if error.status in (400, 403):  # hidden, or an id that no record can have
            return {address.target: FreshRecord(None, at, address.shape.kind, is_hidden=error.status == 403)}
        raise
    return {address.target: FreshRecord(record_in(answer.body), at, address.shape.kind)}


async def read_siblings(
    http: Http, address: RecordAddress, query: Mapping[str, Any] | None = None
) -> dict[str, dict[str, Any]]:
    """Read all records of the list that has the one at `address`: key → record.

    Args:
        http: the session.
        address: of the record.
        query: what the list can't be read without.

    Raises:
        PdsyncError: as `Http.call`; a parent that is absent has no records.
    """
    operation = address.shape.listing
    if operation is None:
        return {}
    params = dict(zip(operation.path_params, address.values, strict=False))
    call = check(operation, params | dict(query or {}))
    listed: dict[str, dict[str, Any]] = {}
    try:
        async for raw in records(http, operation, call.path, call.query):
            record = msgspec.json.decode(raw)
            if isinstance(record, dict) and (key := record_key(record)):
                listed[key] = record
    except NotFound:
        return {}
    return listed
