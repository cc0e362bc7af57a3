"""Estimates what a push costs beside its writes: the reads just before them, and the reads that verify them.

The reads are counted as the executor makes them: in its order, those of one batch together. What goes wrong is not
counted: an answer that is lost, a record that is edited meanwhile, an answer that does not show what was sent.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from pdsync.core import catalogue
from pdsync.writeback import fresh_reads
from pdsync.writeback.dependencies import find_predecessors
from pdsync.writeback.effects import find_effect, is_state
from pdsync.writeback.probe import ADDITIONS_PER_SNAPSHOT, has_snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pdsync.writeback.prepared import PreparedMutation

CANARY = 5  # mutations that a push sends alone at first
_BATCH = 15  # mutations that the executor at least reads together, at the burst of a Lite plan


def estimate_read_tokens(mutations: Sequence[PreparedMutation], sending: set[str]) -> int:
    """The tokens of the reads around the writes of a push.

    Args:
        mutations: that are carried out, in queue order.
        sending: the ids of those that the plan expects to be sent; the others are only read.
    """
    batches = sum(_cost_of_batch(batch) for batch in _batches(mutations))
    lists = Counter(key for each in mutations if (key := _list_of_addition(each)))
    snapshots = sum(cost * -(-count // ADDITIONS_PER_SNAPSHOT) for (_, cost), count in lists.items())
    return batches + snapshots + sum(_cost_of_one(each, each.mutation.id in sending) for each in mutations)


def _batches(mutations: Sequence[PreparedMutation]) -> Iterator[list[PreparedMutation]]:
    """The mutations by batches that are read together; what waits for others is read alone, as it gets ready."""
    depths: dict[str, int] = {}
    for id, before in find_predecessors([each.mutation for each in mutations]).items():
        depths[id] = 1 + max((depths[each] for each in before), default=-1)
    first = [each for each in mutations if depths[each.mutation.id] == 0]
    canary = 1 if any(each.mutation.verb == "merge" for each in mutations) else CANARY
    yield first[:canary]
    for start in range(canary, len(first), _BATCH):
        yield first[start : start + _BATCH]
    for each in mutations:
        if depths[each.mutation.id]:
            yield [each]


def _cost_of_batch(batch: Sequence[PreparedMutation]) -> int:
    return fresh_reads.estimate_cost([address for each in batch for address in each.addresses])


def _cost_of_one(prepared: PreparedMutation, is_sent: bool) -> int:
    """The tokens of the reads for one mutation alone: of an effect or a list before it, and after it of its effect."""
    effect, times = find_effect(prepared.operation), is_sent + 0
    if prepared.addresses:
        verified = prepared.mutation.verb in ("delete", "merge") and is_sent
        return fresh_reads.estimate_cost(prepared.addresses) if verified else 0
    if effect:
        times += is_state(prepared.operation)
        return (catalogue.operation(effect.read or "").cost or 0) * len(effect.queries) * times
    if prepared.mutation.verb == "add" and prepared.shape.relation and prepared.shape.listing:
        return prepared.shape.listing.cost or 0
    return 0


def _list_of_addition(prepared: PreparedMutation) -> tuple[str, int] | None:
    """The list whose state before an addition is read for several at once, with its cost; None if there is none."""
    shaped = prepared.shape
    if prepared.mutation.verb != "add" or shaped.relation or not has_snapshot(shaped, prepared.payload):
        return None
    parents = [str(prepared.payload.get(name)) for name in shaped.path_params]
    return "/".join([shaped.kind, *parents]), (shaped.listing.cost if shaped.listing else 0) or 0
