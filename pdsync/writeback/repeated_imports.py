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

from pdsync.errors import ConfigError
from pdsync.writeback.outbox import Reference

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pdsync.model import Mutation
    from pdsync.writeback.outbox import Entry
    from pdsync.writeback.queue_reader import QueueReader

_WITHOUT_EFFECT = ("cancelled", "rejected", "conflict")  # states after which the same may be queued again


def check(queue: QueueReader, entries: Sequence[Entry], where: str) -> str | None:
    """Refuse entries all of which were queued before.

    Args:
        queue: the queue.
        entries: to be queued.
        where: the file or query that they come from.

    Returns:
        A line for people, if some of them are in the queue already; None otherwise.

    Raises:
        ConfigError: they were queued before. Nothing was queued.
    """
    if earlier := find_earlier(queue, entries):
        raise ConfigError(
            f"What {where} changes was queued before, {describe(earlier)}. Nothing was queued.\n"
            f"To queue it a second time: --again"
        )
    if not (unsent := find_unsent(queue, entries)):
        return None
    return (
        f"{where}: changes that are in the queue already, {len(unsent):,} of them, the first as #{unsent[0].seq}, are"
        f" queued a second time. To take them back: pdsync queue drop"
    )


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


def find_unsent(queue: QueueReader, entries: Sequence[Entry]) -> list[Mutation]:
    """The mutations in the queue that make the same change as one of `entries` without a key, in queue order."""
    wanted = {_hash([each], lambda name: f"#{name.lstrip('#')}") for each in entries if each.key is None}
    waiting = queue.mutations(["queued"], images=False) if wanted else []
    return [each for each in waiting if _hash([each], lambda other: f"#{queue.get(other).seq}") in wanted]


def describe(batch: Sequence[Mutation]) -> str:
    """When the mutations of a batch were queued, and what has become of them, for people."""
    states = Counter("still in the queue" if each.state == "queued" else each.state.replace("_", " ") for each in batch)
    first, last = batch[0], batch[-1]
    numbers = f"#{first.seq}" if first is last else f"#{first.seq} to #{last.seq}"
    counts = ", ".join(f"{count:,} {state}" for state, count in states.most_common())
    return f"on {first.queued_at:%Y-%m-%d %H:%M} UTC as {numbers} ({counts})"


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
