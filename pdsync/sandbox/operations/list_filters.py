"""Chooses and sorts the records of a generic list by its documented query parameters.

Assumption: a parameter that has the name of a field (or of v2's list of it) is a condition on that field, and a record
that has no value there does not match.
"""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeVar

from pdsync.sandbox.operations.collections import V1_KEYS
from pdsync.sandbox.operations.filters import TYPES, matching_ids

if TYPE_CHECKING:
    from collections.abc import Callable

    from pdsync.sandbox.company.table import Record, Row
    from pdsync.sandbox.operations.documented import DocumentedOperation
    from pdsync.sandbox.protocol.messages import Call

T = TypeVar("T")
PAGING = frozenset(("start", "limit", "cursor"))
NO_CONDITIONS = PAGING | {"sort", "sort_by", "sort_direction", "order_by", "filter_id"}
PRECEDED = frozenset(("owner_id", "person_id", "organization_id"))  # by filter_id, the documents say of leads
FLAGS = {"1": True, "true": True, "0": False, "false": False}
LAST_SECOND = "T23:59:59Z"


def choose(call: Call, facts: DocumentedOperation, kind: str, rows: list[Row]) -> list[Row]:
    """The rows whose records match the query, in the order that it asks for."""
    ids = matching_ids(call, kind) if kind in TYPES.values() and "filter_id" in facts.query else None
    wanted = {name: value for name in facts.query if name not in NO_CONDITIONS and (value := call.query.get(name))}
    if ids is not None:
        wanted = {name: value for name, value in wanted.items() if name not in PRECEDED}
    chosen = [
        (record, row)
        for record, row in ((row.record, row) for row in rows)
        if (ids is None or record["id"] in ids)
        and all(CONDITIONS.get(name, _has)(record, name, value) for name, value in wanted.items())
    ]
    return [row for _, row in sort_by_query(call.query, chosen, itemgetter(0))]


def _has(record: Record, name: str, value: str) -> bool:
    if name not in record and V1_KEYS.get(name) in record:
        name = V1_KEYS[name]
    if name not in record and f"{name}s" in record:  # v2 keeps a list where v1 has one
        name = f"{name}s"
    if name not in record:
        return True  # no condition, but a way to show it
    stored = record[name]
    if value == "null":
        return stored is None
    return any(_equals(each, value) for each in (stored if isinstance(stored, list) else [stored]))


def _equals(stored: Any, value: str) -> bool:
    if isinstance(stored, dict):
        stored = stored.get("value", stored.get("id"))
    if isinstance(stored, bool):
        return stored == FLAGS.get(value.lower())
    return stored is not None and str(stored).lower() == value.lower()


def _since(record: Record, _: str, value: str) -> bool:
    return str(record.get("update_time") or "") >= value.replace(".000Z", "Z")


def _from_day(record: Record, name: str, value: str) -> bool:
    """Assumption: the days of notes are those on which they were added."""
    return str(record["add_time"]) >= value if "content" in record else _has(record, name, value)


def _to_day(record: Record, name: str, value: str) -> bool:
    return str(record["add_time"]) <= f"{value}{LAST_SECOND}" if "content" in record else _has(record, name, value)


def _organization(record: Record, name: str, value: str) -> bool:
    """A relation belongs to both of its ends."""
    if "rel_owner_org_id" not in record:
        return _has(record, name, value)
    return any(_equals(record[end], value) for end in ("rel_owner_org_id", "rel_linked_org_id"))


def _status(record: Record, _: str, value: str) -> bool:
    return record.get("status") in [part.strip() for part in value.split(",")]


def _term(record: Record, _: str, value: str) -> bool:
    return any(value.casefold() in str(record.get(name) or "").casefold() for name in ("name", "code"))


CONDITIONS: dict[str, Callable[[Record, str, str], bool]] = {
    "updated_since": _since,
    "start_date": _from_day,
    "end_date": _to_day,
    "org_id": _organization,
    "status": _status,
    "term": _term,
}


def sort_by_query(query: dict[str, str], items: list[T], record_of: Callable[[T], Record]) -> list[T]:
    """By `sort`, `sort_by` and `sort_direction`, or `order_by`; as they are without any."""
    text = query.get("sort") or query.get("order_by") or f"{query.get('sort_by', '')} {query.get('sort_direction', '')}"
    for part in reversed(text.split(",")):
        name, _, direction = part.strip().partition(" ")
        if name:
            items = sorted(
                items,
                key=lambda item: ((value := record_of(item).get(name)) is not None, value),
                reverse=direction.strip().lower() == "desc",
            )
    return items
