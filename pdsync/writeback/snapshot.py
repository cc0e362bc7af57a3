"""The full record of one mutation as one value: what the journal stores, and what control.db is restored from."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct

from pdsync.model import OPEN, Mutation

Progress = tuple[int, bool, int]  # how many attempts, whether it has ended, how many resolutions


class Attempt(Struct, frozen=True):
    """One try at sending a mutation: the request and its answer."""

    n: int
    armed_at: datetime
    body: Any
    marker: str | None
    seen: Any  # the list before the attempt: its largest id, or the ids that were read
    status: int | None
    closed_as: str | None
    error: str | None
    answer: str | None
    method: str
    path: str
    push_id: str | None = None
    answered_at: datetime | None = None
    headers: dict[str, str] | None = None  # of the answer
    read_until: datetime | None = None  # as `Outbox.read_until`


class Snapshot(Struct, frozen=True):
    """The full record of one mutation: enough to continue with it where control.db has lost it."""

    mutation: Mutation
    dedupe_key: str | None = None
    bound: str | None = None
    attempts: tuple[Attempt, ...] = ()
    probes: tuple[dict[str, Any], ...] = ()
    resolutions: tuple[dict[str, Any], ...] = ()

    @property
    def progress(self) -> Progress:
        """How far the mutation has come. Of two snapshots, the one with the greater progress is the newer."""
        return len(self.attempts), self.mutation.state not in OPEN, len(self.resolutions)


def to_json(value: Any) -> str | None:
    """A value as control.db stores it; None stays None."""
    return None if value is None else msgspec.json.encode(value, enc_hook=str).decode()


def from_json(text: object) -> Any:
    """The value that a column of control.db stores as JSON."""
    return None if text is None else msgspec.json.decode(str(text))


def now() -> datetime:
    """This machine's time in UTC, to the second, as control.db stores it."""
    return datetime.now(UTC).replace(microsecond=0)
