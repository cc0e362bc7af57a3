"""Decides which mutations wait for which: those that touch one record go in queue order, the rest concurrently.

A change of a record waits for every earlier one that changes it, or a record that links to it; something that only
links to it (a note on a deal) waits for earlier changes of it, but not for other notes. What refers to a record that
another mutation adds waits for that one. Two additions of the same content are never in flight together: if an answer
were lost, a probe could not tell which of the two was carried out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pdsync.core import catalogue
from pdsync.writeback.probe import fingerprint
from pdsync.writeback.record_names import referenced_stream
from pdsync.writeback.shapes import shape

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from pdsync.model import Mutation


def find_predecessors(mutations: Sequence[Mutation]) -> dict[str, set[str]]:
    """The mutations that have to succeed before each one may be sent: id → ids.

    Args:
        mutations: in queue order.
    """
    own_ids = {each.id for each in mutations}
    writer: dict[str, str] = {}
    readers: dict[str, list[str]] = {}
    waits: dict[str, set[str]] = {}
    for each in mutations:
        writes, links = _find_records(each)
        before = {writer[record] for record in writes | links if record in writer}
        before |= {reader for record in writes for reader in readers.get(record, ())}
        waits[each.id] = (before | (each.references & own_ids)) - {each.id}
        for record in writes:
            writer[record] = each.id
            readers.pop(record, None)
        for record in links - writes:
            readers.setdefault(record, []).append(each.id)
    return waits


def find_waiting(mutations: Iterable[Mutation], unknown: Collection[Mutation]) -> dict[str, int]:
    """Those of `mutations` that would overtake one whose outcome is `unknown`: id → the number of that one."""
    held = {each.id: each.seq for each in unknown}
    waiting: dict[str, int] = {}
    for id, before in find_predecessors(sorted([*mutations, *unknown], key=lambda each: each.seq)).items():
        if id not in held and (first := [held[other] for other in before if other in held]):
            held[id] = waiting[id] = min(first)
    return waiting


def _find_records(mutation: Mutation) -> tuple[set[str], set[str]]:
    """The records that a mutation changes, and those that it only links to."""
    shaped = shape(catalogue.operation(mutation.operation))
    payload = mutation.payload
    writes: set[str] = set()
    if shaped.path_params and payload.get(shaped.path_params[0]) is not None:
        writes.add(f"{shaped.root}/{_name(payload[shaped.path_params[0]])}")
    if shaped.verb == "merge":
        writes.add(f"{shaped.root}/{_name(payload.get('merge_with_id'))}")
    if shaped.verb == "add":
        writes.add(fingerprint(mutation.kind, payload))
    if isinstance(payload.get("ids"), str):
        writes |= {f"{shaped.root}/{id.strip()}" for id in payload["ids"].split(",")}
    links = {
        f"{table}/{_name(value)}" for name, value in payload.items() if value and (table := referenced_stream(name))
    }
    return writes, links


def _name(value: Any) -> str:
    return str(value["$ref"]) if isinstance(value, dict) and "$ref" in value else str(value)
