"""Queues a mutation a second time that a push did not apply: once, so that two retries do not both take effect.

What refers to the record that the first one was to add refers to that of the retry from then on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from pdsync.errors import ConfigError
from pdsync.writeback.enqueue import copy_for_retry

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pdsync.model import Mutation
    from pdsync.writeback.outbox import Entry
    from pdsync.writeback.queue_reader import QueueReader

_ENDED = ("rejected", "conflict", "needs_review")  # states after which a mutation may be queued again


def make_retries(queue: QueueReader, mutations: Iterable[Mutation]) -> list[Entry]:
    """The second tries of `mutations`, each one once.

    Raises:
        ConfigError: one of them can't be retried, was queued again already, or was applied as a person has found out.
    """
    once = {each.id: each for each in mutations}
    for each in once.values():
        if each.state not in _ENDED:
            raise ConfigError(f"#{each.seq} is {each.state}: it can't be retried. Nothing was queued.")
        if retry := queue.retry_of(each.id):
            again = f"\nTo queue it once more: pdsync queue retry {retry.seq}" if retry.state in _ENDED else ""
            raise ConfigError(
                f"#{each.seq} was queued again already, as #{retry.seq}, which is {retry.state}. Nothing was queued."
                f"{again}"
            )
        if (queue.resolution(each.id) or {}).get("verdict") == "applied":
            raise ConfigError(
                f"#{each.seq} is recorded as applied: it must not be sent again. Nothing was queued.\n"
                f"If that is wrong: pdsync queue resolve {each.seq} --as rejected"
            )
    return [copy_for_retry(each) for each in once.values()]


def follow_retries(queue: QueueReader, mutations: Iterable[Mutation]) -> list[Mutation]:
    """`mutations`, whose references to one that was queued again are to its last retry, which comes before them.

    Otherwise they stay in the order in which they were given.
    """
    followed = {each.id: _follow(queue, each) for each in mutations}
    ordered: dict[str, Mutation] = {}

    def place(mutation: Mutation) -> None:
        for id in sorted(mutation.references & followed.keys() - ordered.keys()):
            place(followed[id])
        ordered.setdefault(mutation.id, mutation)

    for each in followed.values():
        place(each)
    return list(ordered.values())


def _follow(queue: QueueReader, mutation: Mutation) -> Mutation:
    payload = {name: _followed(queue, value) for name, value in mutation.payload.items()}
    return replace(mutation, payload=payload) if payload != mutation.payload else mutation


def _followed(queue: QueueReader, value: Any) -> Any:
    if not isinstance(value, dict) or "$ref" not in value:
        return value
    try:
        return {"$ref": queue.stand_in(value["$ref"])[0].id}
    except ConfigError:  # it is not in the queue any more
        return value
