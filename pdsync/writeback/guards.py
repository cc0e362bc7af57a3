"""Decides whether a plan may be carried out at all: how much it changes, deletes, merges and costs.

Two limits stop a mass deletion, one in records and one as a share of the table: a mapping mistake usually breaks
one of them. A push that a guard stops sends nothing. Numbers are records, not requests: a bulk call counts each record.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

from msgspec import Struct

from pdsync.core.wording import counted
from pdsync.errors import GuardTripped

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from datetime import datetime
    from pathlib import Path

    from pdsync.writeback.plan import Plan

MOST_MERGES = 10
ALLOWABLE = ("delete", "merge", "overwrite")
_SKEW = timedelta(minutes=5)  # how far a clock may be set back between a plan and its push


class Consent(Struct, frozen=True):
    """What a person allows beyond the default limits."""

    allow: frozenset[str] = frozenset()
    max_changes: int | None = None
    max_deletes: int | None = None


def compute_max_changes(rows: int | None) -> int:
    """How many records of a table of `rows` a push may change: 500 or 5 %, the larger."""
    return max(500, (rows or 0) * 5 // 100)


def compute_max_deletes(rows: int | None) -> int:
    """How many records of a table of `rows` a push may delete: 50 or 1 %, the smaller, but at least one."""
    return 50 if rows is None else max(1, min(50, rows // 100))


def check(
    plan: Plan,
    consent: Consent,
    rows: Callable[[str], int | None],
    *,
    tokens_left: int | None,
    now: datetime,
    freeze: Path,
) -> None:
    """Check that `plan` may be carried out.

    Args:
        plan: what to do.
        consent: what a person allows beyond the default limits.
        rows: how many rows the table of a kind has; None where it has none.
        tokens_left: of the company's day, or of the push's own budget; None for no limit.
        now: the time.
        freeze: a file that stops every push while it exists.

    Raises:
        GuardTripped: it may not: which guard, by how much, and what lets it pass. Nothing was sent.
    """
    if freeze.exists():
        note = freeze.read_text(encoding="utf-8", errors="replace").strip()[:200]
        _trip(
            "freeze",
            f"Pushes are frozen: {freeze} exists{f' ({note})' if note else ''}.",
            "Remove the file to continue.",
        )
    if plan.made_at > now + _SKEW:
        _trip(
            "age",
            f"This plan says it was made at {plan.made_at:%Y-%m-%d %H:%M} UTC, and it is {now:%Y-%m-%d %H:%M} UTC now."
            " One of the two clocks was wrong, so the age of the plan is not known.",
            "Set the clock, then make a new one: push --dry-run",
        )
    if now > plan.expires_at:
        _trip(
            "age",
            f"This plan is from {plan.made_at:%Y-%m-%d %H:%M} UTC and has expired.",
            "Make a new one: push --dry-run",
        )
    _check_allowed(plan, consent.allow)
    _check_numbers(plan, consent, rows)
    if tokens_left is not None and plan.tokens > tokens_left:
        _trip(
            "budget",
            f"This push costs about {counted(plan.tokens, 'token')}, and {tokens_left:,} are left.",
            "Push part of it (--limit N), or push again when the day has turned.",
        )


def _check_allowed(plan: Plan, allow: Collection[str]) -> None:
    deletes = sum(step.deletes for step in plan.sending)
    merges = sum(step.verb == "merge" for step in plan.sending)
    if deletes and "delete" not in allow:
        _trip("delete", f"This push deletes {_records(deletes)}.", "If you mean it: --allow delete")
    if merges and "merge" not in allow:
        _trip("merge", f"This push merges {_records(merges)} for good.", "If you mean it: --allow merge")
    if merges > MOST_MERGES:
        _trip(
            "merge",
            f"This push merges {counted(merges, 'record')}; the limit is {MOST_MERGES}.",
            "Push them in parts: --limit N",
        )
    if plan.policy == "ours" and "overwrite" not in allow:
        _trip("overwrite", "--policy ours overwrites what others have changed.", "If you mean it: --allow overwrite")


def _check_numbers(plan: Plan, consent: Consent, rows: Callable[[str], int | None]) -> None:
    changes = Counter[str]()
    deletes = Counter[str]()
    for step in plan.sending:
        changes[step.kind] += step.records
        deletes[step.kind] += step.deletes
    total = changes.total()
    if consent.max_changes is not None and total > consent.max_changes:
        _trip("changes", f"This push changes {_records(total)}; --max-changes allows {consent.max_changes}.", "")
    for kind, count in changes.items():
        if consent.max_changes is None and count > compute_max_changes(rows(kind)):
            allowed = compute_max_changes(rows(kind))
            what = f"This push changes {count:,} of {kind}; the limit is {allowed:,}."
            _trip("changes", what, f"If you mean it: --max-changes {total}")
    gone = deletes.total()
    if consent.max_deletes is not None and gone > consent.max_deletes:
        _trip("deletes", f"This push deletes {_records(gone)}; --max-deletes allows {consent.max_deletes}.", "")
    for kind, count in deletes.items():
        if consent.max_deletes is None and count > compute_max_deletes(rows(kind)):
            allowed = compute_max_deletes(rows(kind))
            what = f"This push deletes {count:,} of {kind}; the limit is {allowed:,}."
            _trip("deletes", what, f"If you mean it: --max-deletes {gone}")


def _records(count: int) -> str:
    return f"{count:,} record{'' if count == 1 else 's'}"


def _trip(guard: str, what: str, advice: str) -> None:
    raise GuardTripped(guard, f"{what}\nNothing was sent; the queue is unchanged. {advice}".rstrip())
