"""How a mutation ends: its state with the reason and the evidence, and how that is stored in the outbox."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from pdsync.core.log import log
from pdsync.errors import StorageError
from pdsync.model import State  # noqa: TC001 - msgspec reads it at run time

if TYPE_CHECKING:
    from pdsync.model import Mutation
    from pdsync.writeback.outbox import Outbox
    from pdsync.writeback.prepared import PreparedMutation

UNVERIFIED = "sent, not verifiable"  # the reason `unverified` in words
MACHINE_ERRORS = (OSError, MemoryError, StorageError, sqlite3.OperationalError)  # nothing can be stored either


class Ending(Struct, frozen=True):
    """The end of a mutation, before it is stored."""

    state: State  # or `unknown`: `detail` says why the answer does not show whether it was carried out
    reason: str | None = None
    detail: str | None = None
    after: dict[str, Any] | None = None  # the record as it is now
    base: dict[str, Any] | None = None  # the record as it was before
    remote_id: str | None = None  # of the record that it added
    bound: str | None = None  # that record's name, which no second mutation may have
    alarm: str | None = None  # why the rest of the push must stop: Pipedrive ignores what it is sent


def settle(outbox: Outbox, push_id: str, mutation: Mutation, ending: Ending) -> State:
    """Store the end of a mutation.

    Returns:
        Its state.

    Raises:
        ConfigError: it has ended already.
    """
    if ending.state == "unknown":
        outbox.doubt_answer(mutation.id, ending.detail or "")
        return "unknown"
    outbox.settle(
        mutation.id, ending.state, ending.reason, ending.detail, push_id=push_id, after=ending.after,
        base=ending.base, remote_id=ending.remote_id, bound=ending.bound,
    )  # fmt: skip
    return ending.state


def give_up(outbox: Outbox, push_id: str, id: str, error: Exception) -> State:
    """End a mutation at which pdsync itself fails, so that it does not fail again in every push."""
    log.debug("mutation %s: an unexpected error", id, exc_info=error)
    mutation = outbox.get(id)
    if mutation.state in ("armed", "unknown"):
        detail = f"it may have been carried out; then pdsync failed with {brief(error)}"
        return settle(outbox, push_id, mutation, Ending("needs_review", "local_error", detail))
    detail = f"not sent: pdsync failed with {brief(error)}"
    return settle(outbox, push_id, mutation, Ending("rejected", "local_error", detail))


def bound_name(prepared: PreparedMutation, key: str | None) -> str | None:
    """The name of the record that an addition made ("deals/12"): no second mutation can have made it.

    None for a relation, which can be removed and added again under the same name.
    """
    if key is None or prepared.mutation.verb != "add" or prepared.shape.relation:
        return None
    parents = [str(prepared.payload[name]) for name in prepared.shape.places]
    return "/".join([prepared.mutation.kind, *parents, key])


def brief(error: Exception) -> str:
    """The type of an error and its first line."""
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}".rstrip(": ")
