"""Decides whether a plan may be carried out at all: how much it changes, deletes, merges and costs.

Two limits stop a mass deletion, one in records and one as a share of the table: a mapping mistake usually breaks
one of them. A push that a guard stops sends nothing. Numbers are records, not requests: a bulk call counts each record.
All guards that a plan trips are named together, with the one command that lets it pass.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

from msgspec import Struct

from pdsync.core.wording import counted
from pdsync.errors import GuardTripped

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
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


class Refusal(Struct, frozen=True):
    """One guard that refuses a plan."""

    guard: str
    what: str
    options: dict[str, str] = {}  # of `push`, that let it pass: {"--allow": "delete"}
    advice: str = ""  # where no option lets it pass


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
    command: str = "pdsync push",
) -> None:
    """Check that `plan` may be carried out.

    Args:
        plan: what to do.
        consent: what a person allows beyond the default limits.
        rows: how many rows the table of a kind has; None where it has none.
        tokens_left: of the company's day, or of the push's own budget; None for no limit.
        now: the time.
        freeze: a file that stops every push while it exists.
        command: the push, without the options of `consent`: the message repeats it with the options that are missing.

    Raises:
        GuardTripped: it may not: which guards, by how much, and what lets it pass. Nothing was sent.
    """
    check_freeze(freeze)
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
    refusals = [*_check_allowed(plan, consent.allow), *_check_numbers(plan, consent, rows)]
    if tokens_left is not None and plan.tokens > tokens_left:
        what = f"This push costs about {counted(plan.tokens, 'token')}, and {tokens_left:,} are left."
        advice = "Push part of it (--limit N), or push again when the day has turned."
        refusals.append(Refusal("budget", what, advice=advice))
    if refusals:
        what = "\n".join(dict.fromkeys(each.what for each in refusals))
        _trip(refusals[0].guard, what, _advise(refusals, consent, command))


def check_freeze(freeze: Path) -> None:
    """Check that no file freezes every push. It needs no plan, so a push checks it before it spends tokens on one.

    Raises:
        GuardTripped: the file exists.
    """
    if freeze.exists():
        note = freeze.read_text(encoding="utf-8", errors="replace").strip()[:200]
        _trip(
            "freeze",
            f"Pushes are frozen: {freeze} exists{f' ({note})' if note else ''}.",
            "Remove the file to continue.",
        )


def _check_allowed(plan: Plan, allow: Collection[str]) -> Iterator[Refusal]:
    deletes = sum(step.deletes for step in plan.sending)
    merges = sum(step.verb == "merge" for step in plan.sending)
    if deletes and "delete" not in allow:
        yield Refusal("delete", f"This push deletes {_records(deletes)}.", {"--allow": "delete"})
    if merges and "merge" not in allow:
        yield Refusal("merge", f"This push merges {_records(merges)} for good.", {"--allow": "merge"})
    if merges > MOST_MERGES:
        what = f"This push merges {counted(merges, 'record')}; the limit is {MOST_MERGES}."
        yield Refusal("merge", what, advice="Push them in parts: --limit N")
    if plan.policy == "ours" and "overwrite" not in allow:
        what = "--policy ours overwrites what others have changed."
        yield Refusal("overwrite", what, {"--allow": "overwrite"})


def _check_numbers(plan: Plan, consent: Consent, rows: Callable[[str], int | None]) -> Iterator[Refusal]:
    changes = Counter[str]()
    deletes = Counter[str]()
    for step in plan.sending:
        changes[step.kind] += step.records
        deletes[step.kind] += step.deletes
    total, gone = changes.total(), deletes.total()
    more = {"--max-changes": str(total)}
    if consent.max_changes is not None and total > consent.max_changes:
        what = f"This push changes {_records(total)}; --max-changes allows {consent.max_changes}."
        yield Refusal("changes", what, more)
    for kind, count in changes.items():
        if consent.max_changes is None and count > (limit := compute_max_changes(rows(kind))):
            yield Refusal("changes", f"This push changes {count:,} of {kind}; the limit is {limit:,}.", more)
    more = {"--max-deletes": str(gone)}
    if consent.max_deletes is not None and gone > consent.max_deletes:
        what = f"This push deletes {_records(gone)}; --max-deletes allows {consent.max_deletes}."
        yield Refusal("deletes", what, more)
    for kind, count in deletes.items():
        if consent.max_deletes is None and count > (limit := compute_max_deletes(rows(kind))):
            yield Refusal("deletes", f"This push deletes {count:,} of {kind}; the limit is {limit:,}.", more)


def _advise(refusals: Sequence[Refusal], consent: Consent, command: str) -> str:
    """What lets a push pass: one command with all options, also those that were given already."""
    advice = [each.advice for each in refusals if each.advice]
    missing = [each.options for each in refusals if each.options]
    if missing:
        allowed = {*consent.allow, *(each["--allow"] for each in missing if "--allow" in each)}
        options = {"--allow": ",".join(word for word in ALLOWABLE if word in allowed)}
        options |= {"--max-changes": "" if consent.max_changes is None else str(consent.max_changes)}
        options |= {"--max-deletes": "" if consent.max_deletes is None else str(consent.max_deletes)}
        options |= {name: value for each in missing for name, value in each.items() if name != "--allow"}
        words = " ".join(f"{name} {value}" for name, value in options.items() if value)
        advice.append(f"If you mean it: {command} {words}")
    return "\n".join(advice)


def _records(count: int) -> str:
    return f"{count:,} record{'' if count == 1 else 's'}"


def _trip(guard: str, what: str, advice: str) -> None:
    raise GuardTripped(guard, f"{what}\nNothing was sent; the queue is unchanged.\n{advice}")
