"""A plan of a push: a step for each mutation, with before → after, what it costs, and why it is not sent if it is not.

A plan changes nothing. It belongs to one company, to the mutations as they were, and to its own hash: a saved plan
that was edited, has expired or was made for another company is not carried out. `planner` makes one.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import Struct

from pdsync.core import catalogue
from pdsync.errors import ConfigError
from pdsync.model import Verb  # noqa: TC001 - msgspec reads it at run time
from pdsync.writeback.precondition import Policy  # noqa: TC001

if TYPE_CHECKING:
    from pathlib import Path

Fate = Literal["send", "already_so", "rejected", "conflict"]
LIFE = timedelta(hours=24)
RECORD = "(the record)"  # in place of a field: all of it, which a deletion or a merge removes
_MASS_CHANGE = 20  # updates from which on a value that most of them have in common is pointed out


class Change(Struct, frozen=True, omit_defaults=True):
    """One field, before → after, as people read it; of an amount also the currencies, where they are known."""

    field: str
    before: Any
    after: Any
    before_currency: str | None = None
    after_currency: str | None = None


class Step(Struct, frozen=True):
    """What becomes of one mutation."""

    mutation: str
    seq: int
    operation: str
    verb: Verb
    kind: str
    target: str | None
    title: str | None  # what people call the record
    payload: dict[str, Any]  # as it will be sent
    base: dict[str, Any] | None  # the values that must still be there when it is sent
    changes: tuple[Change, ...]
    records: int  # how many the guards count
    cost: int  # tokens, without the reads before it
    fate: Fate
    seen: bool = False  # its record is there, or is known to have been there
    reason: str | None = None
    detail: str | None = None
    warnings: tuple[str, ...] = ()
    moves: dict[str, list[str]] = {}  # of a merge: what belongs to the loser, list operation → ids
    into: str | None = None  # of a merge: the target of the record that stays
    after: int | None = None  # the number of the unsent mutation whose effect decides the fate: it is carried out first
    waits: bool = False  # for another that is not applied: it stays in the queue

    @property
    def deletes(self) -> int:
        """How many records it deletes."""
        return self.records if self.verb == "delete" or catalogue.operation(self.operation).method == "DELETE" else 0


class Plan(Struct, frozen=True):
    """What a push does, and nothing else."""

    company_id: int
    company: str
    made_at: datetime
    expires_at: datetime
    policy: Policy
    steps: tuple[Step, ...]
    read_tokens: int  # estimated cost of the reads around the writes
    hash: str = ""
    spent_tokens: int = 0  # that the push had cost when the plan was made
    domain: str | None = None  # of the company: acme, of acme.pipedrive.com; None where it is unknown, or no company's

    @property
    def sending(self) -> list[Step]:
        """The steps that send something, also those that wait: guards count them."""
        return [step for step in self.steps if step.fate == "send"]

    @property
    def waiting(self) -> int:
        """How many of `sending` this push will not send, as they wait for another that is not applied."""
        return sum(step.waits for step in self.sending)

    @property
    def tokens(self) -> int:
        """The estimated cost of carrying it out, in tokens, beside what is spent already."""
        return self.read_tokens + sum(step.cost for step in self.sending)

    @property
    def total_tokens(self) -> int:
        """The estimated cost of the whole push, in tokens: of the plan, the reads and the writes."""
        return self.spent_tokens + self.tokens

    def sealed(self) -> Plan:
        """The plan with the hash of its content."""
        bare = msgspec.structs.replace(self, hash="")
        digest = hashlib.sha256(msgspec.json.encode(bare, order="deterministic")).hexdigest()
        return msgspec.structs.replace(self, hash=digest)


def save(plan: Plan, path: Path) -> None:
    """Write a plan to a file."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(plan), indent=1))


def load(path: Path) -> Plan:
    """Read a saved plan.

    Raises:
        ConfigError: the file can't be read, is no plan, or was changed since it was saved. Nothing was sent.
    """
    try:
        plan = msgspec.json.decode(path.read_bytes(), type=Plan)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no plan: {error}. Nothing was sent. Make one: push --dry-run --out") from error
    if plan.sealed().hash != plan.hash:
        raise ConfigError(
            f"{path} was changed since the plan was saved. Nothing was sent. Make a new one: push --dry-run"
        )
    return plan


def mass_changes(plan: Plan) -> list[tuple[str, Any, int, int]]:
    """Fields that more than nine in ten of at least 20 updates set to one value: (field, value, updates, of all)."""
    updates = [step for step in plan.sending if step.verb == "update"]
    values: Counter[tuple[str, str]] = Counter()
    for step in updates:
        values.update((change.field, msgspec.json.encode(change.after).decode()) for change in step.changes)
    return [
        (field, msgspec.json.decode(value), count, len(updates))
        for (field, value), count in values.items()
        if len(updates) >= _MASS_CHANGE and count > 0.9 * len(updates)
    ]
