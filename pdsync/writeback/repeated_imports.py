"""Recognises a file, or the rows of a query, that were queued before: by a hash of the changes that they make.

The hash is of the operations and their values in order, as they are in the queue. So it lasts as long as the queue,
whichever store that is restored from, and a file is recognised under another name, in another format, and after it was
saved again.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import structs

from pdsync.core.wording import counted, number_ranges
from pdsync.errors import ConfigError
from pdsync.writeback.outbox import Reference

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pdsync.model import Mutation
    from pdsync.writeback.outbox import Entry
    from pdsync.writeback.queue_reader import QueueReader

_WITHOUT_EFFECT = ("cancelled", "rejected", "conflict")  # states after which the same may be queued again


def leave_out_repeated(
    queue: QueueReader, entries: Sequence[Entry], where: str, on_message: Callable[[str], None]
) -> list[Entry]:
    """Leave out the entries that are in the queue already, and refuse entries all of which were queued before.

    Args:
        queue: the queue.
        entries: to be queued.
        where: the file or query that they come from.
        on_message: is called with a line about those that are left out.

    Returns:
        The other entries.

    Raises:
        ConfigError: all of them were queued before. Nothing was queued.
    """
    earlier = find_earlier(queue, entries)
    kept, waiting = (list(entries), []) if earlier else split_waiting(queue, entries)
    if earlier or (waiting and not kept):
        raise ConfigError(
            f"What {where} changes was queued before, {describe(earlier or waiting)}. Nothing was queued.\n"
            f"To queue it a second time: --again"
        )
    if waiting:
        on_message(
            f"{len(waiting):,} of {counted(len(entries), 'change')} of {where} left out: in the queue already as"
            f" {number_ranges([each.seq for each in waiting])}. To queue everything a second time: --again"
        )
    return kept


def find_earlier(queue: QueueReader, entries: Sequence[Entry]) -> list[Mutation]:
    """The mutations of the newest batch that makes the same changes as `entries`, in order; empty where there is none.

    A batch none of whose mutations had an effect does not count, and neither do entries that all have a key of their
    own, which keeps them from being queued twice.
    """
    if not entries or all(each.key is not None for each in entries):
        return []
    names = {entry.name: position for position, entry in enumerate(entries) if entry.name is not None}
    wanted = _hash(entries, lambda name: names.get(name, f"#{name.lstrip('#')}"))
    for batch in reversed(queue.batches_of(len(entries))):
        positions = {mutation.id: position for position, mutation in enumerate(batch)}

        def number(id: str, positions: dict[str, int] = positions) -> object:
            return positions[id] if id in positions else f"#{queue.get(id).seq}"

        if any(each.state not in _WITHOUT_EFFECT for each in batch) and _hash(batch, number) == wanted:
            return batch
    return []


def split_waiting(queue: QueueReader, entries: Sequence[Entry]) -> tuple[list[Entry], list[Mutation]]:
    """The entries whose change does not wait in the queue, and the mutations that make the changes of the others.

    A mutation stands for one entry; for an update or a deletion only where no other change of its record comes between,
    as their order decides what the record has in the end. A reference to an entry that is left out becomes one to its
    mutation. Entries with a key of their own are left to their keys.
    """
    waiting: dict[str, list[Mutation]] = {}
    last: dict[str | None, str] = {}  # target → the hash of the last change of it, in the queue or of `entries`
    if any(each.key is None for each in entries):
        for mutation in queue.mutations(["queued"], images=False):
            hashed = _hash([mutation], lambda other: f"#{queue.get(other).seq}")
            waiting.setdefault(hashed, []).append(mutation)
            last[mutation.target] = hashed
    numbers: dict[str, str] = {}  # of the mutations of named entries, by the name
    kept: list[Entry] = []
    found: list[Mutation] = []
    for each in entries:
        hashed = _hash([each], lambda name: f"#{numbers.get(name, name).lstrip('#')}")
        same = waiting.get(hashed)
        may_repeat = each.target is not None and each.verb in ("update", "delete")
        is_overtaken = may_repeat and last.get(each.target) != hashed
        last[each.target] = hashed
        if each.key is not None or not same or is_overtaken:
            kept.append(each)
            continue
        found.append(same.pop(0))
        if each.name is not None:
            numbers[each.name] = f"#{found[-1].seq}"
    return [_renumbered(each, numbers) for each in kept], sorted(found, key=lambda each: each.seq)


def describe(batch: Sequence[Mutation]) -> str:
    """When the mutations of a batch were queued, and what has become of them, for people."""
    states = Counter("still in the queue" if each.state == "queued" else each.state.replace("_", " ") for each in batch)
    counts = ", ".join(f"{count:,} {state}" for state, count in states.most_common())
    return f"on {batch[0].queued_at:%Y-%m-%d %H:%M} UTC as {number_ranges([each.seq for each in batch])} ({counts})"


def _renumbered(entry: Entry, numbers: Mapping[str, str]) -> Entry:
    """An entry whose references to the names in `numbers` are to mutations of the queue."""
    payload = {
        name: Reference(numbers[value.name]) if isinstance(value, Reference) and value.name in numbers else value
        for name, value in entry.payload.items()
    }
    return structs.replace(entry, payload=payload)


def _hash(changes: Sequence[Entry] | Sequence[Mutation], number: Callable[[str], object]) -> str:
    """A hash of operations and payloads; `number` says how a reference to another mutation counts."""
    digest = hashlib.sha256()
    for each in changes:
        plain = {name: _plain(value, number) for name, value in each.payload.items()}
        digest.update(msgspec.json.encode([each.operation, plain], order="deterministic", enc_hook=str) + b"\n")
    return digest.hexdigest()


def _plain(value: Any, number: Callable[[str], object]) -> Any:
    if isinstance(value, Reference):
        return {"$ref": number(value.name)}
    if isinstance(value, dict) and "$ref" in value:
        return {"$ref": number(str(value["$ref"]))}
    return str(value) if type(value) is int else value  # an id is a number in a query and a text in a file
