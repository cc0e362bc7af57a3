"""The state machine of a mutation: one table of the steps that there are, and the only statements that set a state.

    queued ─► approved ─► armed ─► applied | rejected | conflict | needs_review
      │          ▲          └────► unknown ─► (probes) ─► the same, or approved to be sent again
      └─► cancelled

A state without a step out of it is final. Only `adoption` sets a state without a step: the one that a copy of the
queue has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec
from msgspec import Struct

from pdsync.model import OPEN, State

if TYPE_CHECKING:
    import sqlite3

StepName = Literal["drop", "approve", "release", "arm", "reapprove", "lose_answer", "resend", "settle"]


class Transition(Struct, frozen=True):
    """The states in which a step may be taken, and those that it may lead to."""

    before: frozenset[State]
    after: frozenset[State]


def _transition(before: State, after: State) -> Transition:
    return Transition(frozenset({before}), frozenset({after}))


TRANSITIONS: dict[StepName, Transition] = {
    "drop": _transition("queued", "cancelled"),  # by a person, before anything was sent
    "approve": _transition("queued", "approved"),  # a push takes it
    "release": _transition("approved", "queued"),  # the push ends without sending it
    "arm": _transition("approved", "armed"),  # its request is about to be sent
    "reapprove": _transition("armed", "approved"),  # the server refused the request before it looked at it
    "lose_answer": _transition("armed", "unknown"),  # whether the server carried it out is not known
    "resend": _transition("unknown", "approved"),  # probes have proved that it was not carried out
    "settle": Transition(OPEN, frozenset({"applied", "rejected", "conflict", "needs_review"})),
}


def move(db: sqlite3.Connection, step: StepName, id: str, to: State | None = None) -> bool:
    """Take a step with the mutation `id`, in the transaction of `db`.

    Args:
        db: control.db, in a transaction.
        step: the step.
        id: of the mutation.
        to: the state it leads to; needed where the table has several.

    Returns:
        Whether the mutation was in a state that allows the step. If not, nothing has changed.

    Raises:
        ValueError: the step does not lead to `to`.
    """
    before, after = _states(step, to)
    done = db.execute(
        "UPDATE mutations SET state = ? WHERE id = ? AND state IN (SELECT value FROM json_each(?))", (after, id, before)
    )
    return done.rowcount == 1


def move_all(db: sqlite3.Connection, step: StepName) -> None:
    """Take a step with every mutation that is in a state that allows it, in the transaction of `db`."""
    before, after = _states(step, None)
    db.execute("UPDATE mutations SET state = ? WHERE state IN (SELECT value FROM json_each(?))", (after, before))


def _states(step: StepName, to: State | None) -> tuple[str, State]:
    """The states before a step, as a JSON list, and the one after it."""
    transition = TRANSITIONS[step]
    if to is None and len(transition.after) == 1:
        to = next(iter(transition.after))
    if to is None or to not in transition.after:
        raise ValueError(f"{step} does not lead to {to}")
    return msgspec.json.encode(sorted(transition.before)).decode(), to
