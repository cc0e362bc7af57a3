"""Previews a merge: what is kept, what is lost, and what moves to the winner. Pipedrive can't undo it.

The record named by `merge_with_id` stays and wins wherever both have a value; the one in the path is gone. What the
winner lacks is taken from the loser. Source: the vendor's pages on merging deals, persons and organizations.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from pdsync.core import catalogue
from pdsync.core.list_response import records_in
from pdsync.core.request_builder import check
from pdsync.errors import ApiError
from pdsync.writeback import fresh_reads
from pdsync.writeback.equality import equivalent
from pdsync.writeback.shapes import find_stream, record_key, shape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pdsync.core.http import Http
    from pdsync.model import Operation
    from pdsync.writeback.shapes import Shape

_PAGE = 100  # records of a page where the documents name no number
_LINKS = {"deals": ("deal_id",), "persons": ("person_id",), "organizations": ("org_id", "organization_id")}
# Set by the API, not by people: they are no loss.
_OWN = {"id", "add_time", "update_time", "is_deleted", "is_archived", "stage_change_time", "origin", "smart_bcc_email"}


def targets(shape: Shape, payload: Mapping[str, Any]) -> tuple[str, str]:
    """The targets of the loser and of the winner."""
    return f"{shape.kind}/{payload[shape.path_params[-1]]}", f"{shape.kind}/{payload['merge_with_id']}"


def winner_address(shape: Shape, payload: Mapping[str, Any]) -> fresh_reads.RecordAddress:
    """The address of the winner."""
    return fresh_reads.RecordAddress(shape, targets(shape, payload)[1], (str(payload["merge_with_id"]),))


def stamp(loser: Mapping[str, Any], winner: Mapping[str, Any]) -> dict[str, Any]:
    """The times of the last change of both: the same as long as neither was changed."""
    return {"loser": loser.get("update_time"), "winner": winner.get("update_time")}


def preview_outcome(
    loser: Mapping[str, Any], winner: Mapping[str, Any]
) -> tuple[list[tuple[str, Any, Any]], list[tuple[str, Any]]]:
    """The winner's fields that are filled (field, before, after), and the loser's values that are lost."""
    filled: list[tuple[str, Any, Any]] = []
    lost: list[tuple[str, Any]] = []
    for field, value in _flatten(loser):
        current = dict(_flatten(winner)).get(field)
        if field.split("_count")[0] != field or field in _OWN or _is_blank(value) or equivalent(value, current):
            continue
        if _is_blank(current):
            filled.append((field, current, value))
        elif not isinstance(value, list):  # of lists both sides are kept
            lost.append((field, value))
    return filled, lost


class Proof(Struct, frozen=True):
    """The evidence that a merge was carried out; where there is none, why."""

    shown: dict[str, Any]
    against: str = ""


async def find_proof(http: Http, kind: str, base: Mapping[str, Any], winner: str, now: Mapping[str, Any]) -> Proof:
    """Read what belongs to the winner of a merge now, of each list the first page, and look for proof: see `prove`.

    Args:
        http: the session.
        kind: of the two records.
        base: both as they were before (`loser`, `winner`), and what belonged to the loser (`moves`: list → ids).
        winner: the id of the record that stays.
        now: that record as it is.

    Raises:
        PdsyncError: a read failed; nothing is known. A list that Pipedrive refuses to show counts as empty.
    """
    lists = {listing.id: (listing, param) for listing, param in _find_lists(kind)}
    names = [name for name, ids in (base.get("moves") or {}).items() if ids and name in lists]
    of_winner = await asyncio.gather(*(_read_ids(http, *lists[name], winner) for name in names))
    return prove(base, now, {name: set(ids) for name, ids in zip(names, of_winner, strict=True)})


def prove(base: Mapping[str, Any], now: Mapping[str, Any], of_winner: Mapping[str, set[str]]) -> Proof:
    """Decide whether what is seen is an effect that only the merge of one record into another has.

    That the loser is gone is no evidence: others delete and merge, too. But records that belonged to it belong to the
    winner now, and the winner has values that only the loser had. What the winner had before is no evidence.

    Args:
        base: as for `find_proof`.
        now: the winner as it is.
        of_winner: what belongs to the winner now (list → ids), of the lists in which something belonged to the loser.
    """
    before, lost = dict(_flatten(base.get("winner") or {})), base.get("loser") or {}
    current = dict(_flatten(now))
    moves = {name: set(base["moves"][name]) for name in of_winner}
    left = {name: ids - of_winner[name] for name, ids in moves.items()}
    filled, _ = preview_outcome(lost, base.get("winner") or {})
    expected = {field: value for field, _, value in filled if not isinstance(value, list)}
    expected |= {
        field: value for field, value in _flatten(lost) if isinstance(value, list) and _own_items(value, before, field)
    }
    taken = [field for field, value in expected.items() if _is_taken(value, before, current, field)]
    if any(left.values()):
        remaining = ", ".join(describe_count(name, len(ids)) for name, ids in left.items() if ids)
        return Proof({}, f"{remaining} of it did not move to the other")
    # A person who tidies up by hand copies a value and deletes the rest, and does not move every linked record.
    if len(taken) < len(expected) and not (moves and taken):
        missing = ", ".join(sorted(expected.keys() - set(taken)))
        return Proof({}, f"the other does not have its {missing}")
    if not moves and not taken:
        return Proof({}, "no record belonged to it, and it had no value that the other lacked")
    return Proof({"moved": {name: sorted(ids) for name, ids in moves.items()}, "taken over": taken})


def _own_items(lost: list[Any], before: Mapping[str, Any], field: str) -> set[str]:
    """The entries that only the list of the loser had."""
    existing = before.get(field)
    return {_item(each) for each in lost} - {_item(each) for each in (existing if isinstance(existing, list) else ())}


def _is_taken(value: Any, before: Mapping[str, Any], current: Mapping[str, Any], field: str) -> bool:
    """Whether the winner has the value of the loser now; of a list, the entries that it did not have before."""
    now = current.get(field)
    if not isinstance(value, list):
        return equivalent(value, now)
    return isinstance(now, list) and _own_items(value, before, field) <= {_item(each) for each in now}


def _item(value: Any) -> str:
    return str(value.get("value", value.get("id"))) if isinstance(value, dict) else str(value)


async def read_children(
    http: Http, merge: Shape, payload: Mapping[str, Any], stored: Callable[[Operation, tuple[str, ...], str], set[str]]
) -> dict[str, list[str]]:
    """The records that belong to the loser of a merge: list operation → ids.

    Only records that name the loser themselves count: a list may show others, and may ignore its filter. Of each list
    the first page is read; where there are more, those that `stored` has count, too.

    Args:
        http: the session.
        merge: the shape of the merge.
        payload: of the merge.
        stored: the ids of the records of a list that the warehouse has, by the fields that may name the loser, and its
            id.

    Returns:
        List operation → ids. A list that this token may not see counts as empty.
    """
    loser, lists = str(payload[merge.path_params[-1]]), _find_lists(merge.kind)
    pages = await asyncio.gather(*(_read_page(http, listing, param, loser) for listing, param in lists))
    children: dict[str, list[str]] = {}
    for (listing, param), page in zip(lists, pages, strict=True):
        more = stored(listing, _names(param), loser) if len(page) >= page_size(listing) else set()
        children[listing.id] = list(dict.fromkeys([*_linked_ids(page, param, loser), *sorted(more)]))
    return children


def describe_count(listing: str, count: int) -> str:
    """A number of records of a list operation, for people: `3 notes`, `1 activity`, `2 archived deals`."""
    segments = [
        segment for segment in catalogue.operation(listing).path.split("/") if segment not in ("", "api", "v1", "v2")
    ]
    name = " ".join(reversed(segments))
    if count == 1:
        name = f"{name.removesuffix('ies')}y" if name.endswith("ies") else name.removesuffix("s")
    return f"{count:,} {name}"


def _find_lists(kind: str) -> list[tuple[Operation, str]]:
    """The lists that can be filtered by one record of `kind` and name it in each record, with that parameter."""
    found: dict[str, tuple[Operation, str]] = {}
    for version in catalogue.VERSIONS:
        for each in catalogue.operations(version).values():
            param = next((name for name in _LINKS.get(kind, ()) if name in each.query), None)
            needed = [name for name, known in {**each.path_params, **each.query}.items() if known.required]
            plain = each.method == "GET" and each.records == "list" and not (each.removed or needed)
            if not param or not plain or each.path.endswith("/search"):
                continue
            stream = find_stream(shape(each).kind)
            if stream and not stream.columns.keys().isdisjoint(_names(param)):
                found.setdefault(each.path.rsplit("/", 1)[-1], (each, param))
    return list(found.values())


def page_size(listing: Operation) -> int:
    """How many records of a list are read: as many as a page may have."""
    limit = listing.query.get("limit")
    return (limit.max if limit else None) or listing.page_size or _PAGE


async def _read_page(http: Http, listing: Operation, param: str, id: str) -> list[dict[str, Any]]:
    limit = {"limit": page_size(listing)} if "limit" in listing.query else {}
    try:
        return records_in((await http.carry_out(check(listing, {param: id, **limit}))).body)
    except ApiError:
        return []


async def _read_ids(http: Http, listing: Operation, param: str, id: str) -> list[str]:
    return _linked_ids(await _read_page(http, listing, param, id), param, id)


def _linked_ids(records: Iterable[Mapping[str, Any]], param: str, id: str) -> list[str]:
    return [key for record in records if (key := record_key(record)) and _is_linked(record, param, id)]


def _is_linked(record: Mapping[str, Any], param: str, id: str) -> bool:
    """Whether a listed record names the one with this id itself; a list may show others, of which it takes part."""
    linked = next((record[name] for name in _names(param) if name in record), None)
    return any(equivalent(id, each) for each in linked) if isinstance(linked, list) else equivalent(id, linked)


def _names(param: str) -> tuple[str, ...]:
    """The fields of a record that may name what the parameter of its list takes: of a project `person_ids`."""
    return param, f"{param}s", *(("organization_id",) if param == "org_id" else ())


def _flatten(record: Mapping[str, Any]) -> list[tuple[str, Any]]:
    custom = record.get("custom_fields")
    inner = [(f"custom_fields/{code}", value) for code, value in custom.items()] if isinstance(custom, dict) else []
    return [(field, value) for field, value in record.items() if field != "custom_fields"] + inner


def _is_blank(value: Any) -> bool:
    return equivalent(None, value)
