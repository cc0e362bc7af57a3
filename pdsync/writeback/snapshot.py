"""All that is known of one mutation, as one value: what the journal keeps, and what control.db is restored from."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - msgspec reads it at run time
from typing import Any

from msgspec import Struct

from pdsync.model import OPEN, Mutation


class Attempt(Struct, frozen=True):
    """One try at sending a mutation: what went out and what came back."""

    n: int
    armed_at: datetime
    body: Any
    marker: str | None
    seen: Any  # what was known of the list before: the largest id, or all ids
    status: int | None
    closed_as: str | None
    error: str | None
    answer: str | None
    method: str
    path: str
    push_id: str | None = None
    answered_at: datetime | None = None
    headers: dict[str, str] | None = None  # of the answer


class Snapshot(Struct, frozen=True):
    """All that is known of one mutation: enough to go on with it where control.db has lost it."""

    mutation: Mutation
    dedupe_key: str | None = None
    bound: str | None = None
    attempts: tuple[Attempt, ...] = ()
    probes: tuple[dict[str, Any], ...] = ()
    resolutions: tuple[dict[str, Any], ...] = ()

    @property
    def progress(self) -> tuple[int, bool, int]:
        """Which of two is the newer: the one with more attempts, the one that has ended, the one that was looked at."""
        return len(self.attempts), self.mutation.state not in OPEN, len(self.resolutions)
