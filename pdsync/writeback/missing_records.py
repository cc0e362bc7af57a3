"""Names the records of queued changes that the warehouse lacks: a mistyped id is noticed before the push.

The warehouse may be older than the record, so this is a warning and no refusal.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING

from pdsync.writeback.shapes import find_stream

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pdsync.model import Mutation
    from pdsync.writeback.company_names import CompanyNames
    from pdsync.writeback.queue_reader import QueueReader

_RECORD = re.compile(r"(\w+)/(\d+|[0-9a-fA-F]{8}-[0-9a-fA-F-]{27})(?=/|$)")  # a target, or the record that has it
_SHOWN = 10  # records in a message


def find_missing(names: CompanyNames, queue: QueueReader, mutations: Sequence[Mutation]) -> dict[str, list[int]]:
    """The records that neither the warehouse nor an earlier push has seen, like "deals/12".

    Args:
        names: of the company; a table that was never synced is not looked into.
        queue: the queue.
        mutations: changes of existing records; the record that a merge keeps counts too.

    Returns:
        By record, the numbers of the mutations that are about it, in order.
    """
    wanted: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for each in mutations:
        for kind, id in _records(each):
            wanted[kind][id].append(each.seq)
    missing: dict[str, list[int]] = {}
    for kind, ids in wanted.items():
        stream = find_stream(kind)
        if stream is None or not names.has_table(stream.name):
            continue
        absent = set(ids) - names.existing_keys(stream, list(ids))
        missing |= {f"{kind}/{id}": ids[id] for id in ids if id in absent and not queue.has_seen(kind, f"{kind}/{id}")}
    return missing


def describe_missing(missing: dict[str, list[int]]) -> str:
    """A warning for people about what `find_missing` returned."""
    shown = [f"{record} ({', '.join(f'#{seq}' for seq in seqs[:3])}{', …' if len(seqs) > 3 else ''})"
             for record, seqs in list(missing.items())[:_SHOWN]]  # fmt: skip
    more = f" and {len(missing) - _SHOWN:,} more" if len(missing) > _SHOWN else ""
    return (
        f"Check this: the warehouse has no {', '.join(shown)}{more}. The changes are queued, as the warehouse may be"
        f" older than the record.\nIf an id is wrong: pdsync queue drop; if the warehouse is old: pdsync sync"
    )


def _records(mutation: Mutation) -> Iterator[tuple[str, str]]:
    """The records that must exist: (kind, id)."""
    if match := _RECORD.match(mutation.target or ""):
        yield match[1], match[2]
    into = mutation.payload.get("merge_with_id")
    if mutation.verb == "merge" and isinstance(into, int | str):
        yield mutation.kind, str(into)
