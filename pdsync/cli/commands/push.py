"""`pdsync push`: show before → after, and send the queue."""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
from click.core import ParameterSource

from pdsync.cli import plan_html, render, tables
from pdsync.cli.app import App, Command
from pdsync.cli.interruption import run_interruptible
from pdsync.cli.layout import Rows
from pdsync.cli.plan_labels import PlanLabels
from pdsync.cli.share_done import describe_share
from pdsync.core.log import clean
from pdsync.core.wording import counted, number_ranges
from pdsync.errors import ConfigError
from pdsync.runner import push as pushing
from pdsync.runner.push import ENDS
from pdsync.writeback import guards
from pdsync.writeback import plan as planning
from pdsync.writeback.guards import Consent

if TYPE_CHECKING:
    from collections.abc import Collection

    from pdsync.model import Mutation
    from pdsync.runner.push import PushReceipt, PushRequest
    from pdsync.writeback.plan import Change, Plan, Step
    from pdsync.writeback.precondition import Policy

_SHOWN = 30  # steps on a screen; what is refused, conflicts, merges and deletions are always shown
_RANKS = ("rejected", "conflict", "merge", "deletion", "change", "already_so")  # of steps on a screen
_OF_PLANS = ("policy", "operation", "batch", "limit")  # options that decide what is planned, and how
_TRIES = 3  # to answer a question
_REASONS = 3  # why something can't be undone
_FATES = {"send": "", "already_so": "already so", "rejected": "refused", "conflict": "conflict"}


@click.command(cls=Command)
@click.argument("plan", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--dry-run", is_flag=True, help="Show what would happen; send nothing but reads.")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), metavar="PLAN", help="With --dry-run: save the plan."
)
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="With --dry-run: write the plan as a page to read.")  # fmt: skip
@click.option("--yes", is_flag=True, help="Send without asking.")
@click.option(
    "--allow",
    metavar="WHAT",
    default="",
    help=f"What else may be sent, separated by commas: {', '.join(guards.ALLOWABLE)}.",
)
@click.option(
    "--max-changes", type=click.IntRange(min=0), metavar="N", help="[default: 500 or 5 % of a table, the larger]"
)
@click.option(
    "--max-deletes", type=click.IntRange(min=0), metavar="N", help="[default: 50 or 1 % of a table, the smaller]"
)
@click.option("--policy", type=click.Choice(["field", "record", "theirs", "ours", "append"]), default="field",
              show_default=True, help="What to do if someone else changed the record: see the docs.")  # fmt: skip
@click.option("--operation", help="Only mutations of this operation.")
@click.option("--batch", help="Only those that were queued together.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N.")
@click.option("--budget", type=click.IntRange(min=1), metavar="TOKENS", help="Spend no more than this.")
@click.option("--settle-seconds", type=click.FloatRange(min=0), default=5.0, show_default=True, metavar="S",
              help="How long a write whose answer was lost may take to show.")  # fmt: skip
@click.option("--create-doubt", type=click.Choice(["probe", "review"]), default="probe", show_default=True,
              help="Look for the record of an addition whose answer was lost, or leave it to you.")  # fmt: skip
@click.option("--check-lost-updates", is_flag=True,
              help="Search the changelog for edits that an update overwrote; 20 tokens each.")  # fmt: skip
@click.option("--settle", type=click.FloatRange(min=0), hidden=True)  # older names of --settle-seconds and
@click.option("--audit", type=click.Choice(["changelog"]), hidden=True)  # --check-lost-updates
@click.pass_obj
def push(
    app: App,
    plan: Path | None,
    dry_run: bool,
    out: Path | None,
    html: Path | None,
    yes: bool,
    allow: str,
    max_changes: int | None,
    max_deletes: int | None,
    policy: Policy,
    operation: str | None,
    batch: str | None,
    limit: int | None,
    budget: int | None,
    settle_seconds: float,
    create_doubt: str,
    check_lost_updates: bool,
    settle: float | None,
    audit: str | None,
) -> None:
    """Show before → after of everything in the queue, or of a saved PLAN, then send it.

    Each record is read just before its change is sent, and again to verify it. Nothing is sent twice: where an answer
    is lost, pdsync checks whether the change was made.
    """
    if (out or html) and not dry_run:
        raise ConfigError("--out and --html go with --dry-run. Nothing was sent.")
    if plan and dry_run:
        raise ConfigError("A saved plan is carried out as it is; --dry-run plans the queue. Nothing was sent.")
    context = click.get_current_context()
    chosen = [each for each in _OF_PLANS if context.get_parameter_source(each) is ParameterSource.COMMANDLINE]
    if plan and chosen:
        raise ConfigError(
            f"A saved plan is carried out as it is: --{' and --'.join(chosen)} can't change it. Nothing was sent.\n"
            "Make a plan with that option: push --dry-run --out"
        )
    allowed = frozenset(word.strip() for word in allow.split(",") if word.strip())
    if unknown := allowed - set(guards.ALLOWABLE):
        raise ConfigError(f"--allow {', '.join(unknown)}: it may be {', '.join(guards.ALLOWABLE)}. Nothing was sent.")
    request = pushing.PushRequest(
        plan=plan, policy=policy, operation=operation, batch=batch, limit=limit, budget=budget,
        settle_s=settle_seconds if settle is None else settle, create_doubt=create_doubt,
        check_lost_updates=check_lost_updates or audit is not None, consent=Consent(allowed, max_changes, max_deletes),
    )  # fmt: skip
    if dry_run:
        _dry_run(app, request, out, html)
        return
    if not yes and (app.no_input or not sys.stdin.isatty()):
        raise ConfigError("A push may change data. Nothing was sent; add --yes, or preview it: pdsync push --dry-run")
    began = time.monotonic()
    receipt = _carry_out(app, request, yes=yes)
    if receipt is None:
        app.note("Nothing was sent.")
        raise click.exceptions.Exit(130)
    _show_receipt(app, receipt, time.monotonic() - began)
    if receipt.exit_code:
        raise click.exceptions.Exit(receipt.exit_code)


def _dry_run(app: App, request: PushRequest, out: Path | None, html: Path | None) -> None:
    progress = _Progress(app)
    try:
        plan, held_back = run_interruptible(pushing.dry_run(app.settings, request, app.note, out=out))
    finally:
        progress.stop()
    if out:
        planning.save(plan, out)
    if html:
        with pushing.opened(app.settings) as (_, names):
            page = plan_html.render_page(plan, held_back, PlanLabels(names.names))
        html.write_text(page, encoding="utf-8")
    if app.json:
        for step in plan.steps:
            app.emit({"event": "step", **msgspec.to_builtins(step)})
        app.emit({"event": "summary", "complete": True, "exit_code": 0, "dry_run": True, "run_id": None, "streams": {},
                  **_totals(plan), "held_back": held_back, "plan": str(out) if out else None})  # fmt: skip
        return
    _show_plan(app, plan)
    if held_back:
        app.note(f"\nA guard would hold this push back: {held_back}")
    if out:
        app.note(f"\nThe plan is saved: pdsync push {out}")


def _carry_out(app: App, request: PushRequest, *, yes: bool) -> PushReceipt | None:
    progress = _Progress(app)

    def confirm(plan: Plan) -> bool:
        progress.stop()
        if not app.json and app.verbosity >= 0:
            _show_plan(app, plan, to_err=True)
        if not (yes or _consents(app, plan)):
            return False
        progress.start(len(plan.steps), plan.tokens)
        return True

    def on_end(mutation: Mutation) -> None:
        progress.count(mutation.state, mutation.reason)
        if app.json:
            shown = ("id", "operation", "target", "state", "reason", "detail", "remote_id")
            facts = {name: getattr(mutation, name) for name in shown}
            app.emit({"event": "mutation", "name": f"#{mutation.seq}", **facts})
        elif mutation.state != "applied" or mutation.reason == "unverified":
            what = f"#{mutation.seq} {mutation.operation} {mutation.target or ''}".rstrip()
            app.note(f"{what}: {mutation.state.replace('_', ' ')}, {mutation.detail or mutation.reason or ''}")

    try:
        return run_interruptible(pushing.push(app.settings, request, confirm, on_end, app.note))
    finally:
        progress.stop()


class _Progress:
    """A line on the terminal that says how far a push is; nothing where no person is watching."""

    def __init__(self, app: App) -> None:
        self._status = app.err.status("Reading what the changes are about") if app.is_watched else None
        self._total, self._tokens, self._ends = 0, 0, Counter[str]()
        self._began = time.monotonic()
        if self._status:
            self._status.start()

    def start(self, total: int, tokens: int = 0) -> None:
        """Show the progress of a push, by the number of its mutations; `tokens`: what all of them cost."""
        self._total, self._tokens, self._began = total, tokens, time.monotonic()
        self._ends.clear()  # those of an earlier push
        if self._status:
            self._status.start()
            self._update()

    def count(self, state: str, reason: str | None) -> None:
        """Count a mutation that has ended in this state."""
        is_so = (state, reason) == ("applied", "already_so")
        self._ends["already so" if is_so else state.replace("_", " ")] += 1
        self._update()

    @property
    def text(self) -> str:
        """The share that has ended, what is left, and how many ended how."""
        ended, left = self._ends.total(), max(self._total - self._ends.total(), 0)
        counts = "".join(f", {count:,} {outcome}" for outcome, count in self._ends.items())
        if not left:
            return f"{ended:,} of {self._total:,} done{counts}; bringing it into the warehouse"
        tokens = round(self._tokens * left / self._total)
        remaining = counted(left, "change") + (f" and {counted(tokens, 'token')}" if tokens else "")
        share = describe_share(ended, left, time.monotonic() - self._began, remaining)
        return f"{share}; {ended:,} of {self._total:,} done{counts}"

    def stop(self) -> None:
        """Remove the line."""
        if self._status:
            self._status.stop()

    def _update(self) -> None:
        if self._status and self._total:
            self._status.update(self.text)


def _consents(app: App, plan: Plan) -> bool:
    """Ask a person for consent. For merges, which can't be undone, they type the number."""
    for field, value, count, total in planning.mass_changes(plan):
        what = "emptied" if value in (None, "", []) else f"set to {render.brief(render.cell(value, exact=True))}"
        if not _confirm(app, clean(f"{count:,} of {total:,} records get {field} {what}. Is this intended?")):
            return False
    if len(plan.sending) == plan.waiting:
        return True
    what = f"{counted(len(plan.sending) - plan.waiting, 'change')} to {clean(plan.company)}"
    merges = sum(step.verb == "merge" for step in plan.sending)
    if not merges:
        return _confirm(app, f"Send {what}?")
    app.note(f"A merge can't be undone, so yes is not enough. To send {what},\ntype the number of merges.")
    expected = f"the number, {merges}, or n to send nothing"
    return _ask(app, "Number of merges", expected, yes={str(merges)}, no={"n", "no"})


def _confirm(app: App, question: str) -> bool:
    expected = "y, or n to send nothing"
    return _ask(app, f"{question} [y/N]", expected, yes={"y", "yes"}, no={"", "n", "no"})


def _ask(app: App, question: str, expected: str, *, yes: Collection[str], no: Collection[str]) -> bool:
    """Ask until the answer is one of `yes` or `no`; after `_TRIES` other answers it counts as no."""
    for left in reversed(range(_TRIES)):
        typed = str(click.prompt(question, default="", show_default=False, err=True)).strip().lower()
        if typed in yes or typed in no:
            return typed in yes
        if left:
            app.note(f"Nothing was sent yet. Type {expected}.")
    return False


def _show_plan(app: App, plan: Plan, *, to_err: bool = False) -> None:
    steps = sorted(plan.steps, key=_rank)
    hidden = steps[max(_SHOWN, sum(_rank(step) < _RANKS.index("change") for step in steps)) :]
    steps = steps[: len(steps) - len(hidden)]
    if steps:
        headers = ["", "operation", "record", "title", "before → after"]
        shown = Rows(headers, [_step_row(step) for step in steps], notes=True)
        if to_err:
            tables.show_aside(app, shown)
        else:
            tables.show(app, shown)
    if hidden:
        kinds = Counter(_operation_name(step) if step.fate == "send" else _FATES[step.fate] for step in hidden)
        counts = ", ".join(f"{count:,} {kind}" for kind, count in kinds.items())
        app.note(f"… and {len(hidden):,} more: {counts} (--json or --html FILE shows all)")
    same = [step.seq for step in plan.steps if step.fate == "already_so"]
    if same and hidden:
        app.note(f"{len(same):,} already so: {number_ranges(same)}")
    app.note("\n" + _summarize(plan))
    for field, value, count, total in planning.mass_changes(plan):
        what = "emptied" if value in (None, "", []) else f"set to {render.brief(render.cell(value, exact=True))}"
        app.note(f"Check this: {count:,} of {total:,} records get {field} {what}.")


def _rank(step: Step) -> int:
    """The position of a step on the screen: first what is not sent and why, and what can't be taken back."""
    if step.fate != "send":
        return _RANKS.index(step.fate)
    return _RANKS.index("merge" if step.verb == "merge" else "deletion" if step.deletes else "change")


def _operation_name(step: Step) -> str:
    return step.operation.split(" ")[-1]


def _change_text(change: Change) -> str:
    before, after = render.brief_pair(change.before, change.after, (change.before_currency, change.after_currency))
    if change.field == planning.RECORD:
        return "deleted"
    if change.field.startswith("("):  # the entries of a list that are deleted
        return f"deleted {change.field.strip('()')}: {before}"
    return f"{change.field}: {before} → {after}"


def _step_row(step: Step) -> list[Any]:
    """A step as a row: what it does to which record, and its changes and warnings."""
    changes = [_change_text(change) for change in step.changes]
    fate = ": ".join(part for part in (_FATES[step.fate], step.detail) if part)
    remarks = [*changes, *([fate] if fate else []), *step.warnings]
    record = f"{step.target} → {step.into.rpartition('/')[2]}" if step.target and step.into else step.target
    return [f"#{step.seq}", _operation_name(step), record, step.title, remarks]


def _totals(plan: Plan) -> dict[str, Any]:
    fates = {fate: sum(step.fate == fate for step in plan.steps) for fate in _FATES}
    return {
        "mutations": len(plan.steps),
        "fates": fates,
        "requests": len(plan.sending) - plan.waiting,
        "waiting": plan.waiting,
        "tokens": plan.tokens,
        "tokens_spent": plan.spent_tokens,
        "deletes": sum(step.deletes for step in plan.sending if not step.waits),
        "merges": sum(step.verb == "merge" for step in plan.sending),
        "hash": plan.hash,
        "expires_at": plan.expires_at.isoformat(),
    }


def _summarize(plan: Plan) -> str:
    if not plan.steps:
        return "The queue is empty: there is nothing to push. Queue something: pdsync queue add --help"
    totals = _totals(plan)
    final = [counted(totals[f"{what}s"], what) for what in ("merge", "delete") if totals[f"{what}s"]]
    parts = [f"{totals['requests']:,} to send" + (f" ({', '.join(final)})" if final else "")]
    parts += [f"{plan.waiting:,} held back"] if plan.waiting else []
    parts += [f"{count:,} {_FATES[fate]}" for fate, count in totals["fates"].items() if count and fate != "send"]
    return (
        f"{counted(len(plan.steps), 'change')}: {', '.join(parts)}.\n"
        f"About {counted(plan.total_tokens, 'token')} of {plan.company},"
        f" {plan.spent_tokens:,} of them spent on this plan."
    )


def _show_receipt(app: App, receipt: PushReceipt, seconds: float) -> None:
    if app.json:
        facts = msgspec.to_builtins(receipt)
        app.emit({"event": "summary", "complete": receipt.complete, "exit_code": receipt.exit_code,
                  "run_id": receipt.push_id, **facts, "streams": {name: {} for name in receipt.streams},
                  "mutations": {**receipt.outcomes, "open": receipt.open}, "seconds": round(seconds, 3)})  # fmt: skip
        return
    changed = receipt.outcomes.get("applied", 0) - receipt.already_so
    counts = {"applied": changed, "already so": receipt.already_so}
    counts |= {end.replace("_", " "): receipt.outcomes.get(end, 0) for end in ENDS if end != "applied"}
    counts["still in the queue"] = receipt.open
    parts = [f"{count:,} {outcome}" for outcome, count in counts.items() if count]
    after = f" and {receipt.read_back_tokens:,} to bring it into the warehouse" if receipt.read_back_tokens else ""
    app.note(f"\nPush {receipt.push_id}: {', '.join(parts) or 'nothing to do'}.")
    if receipt.looked_up:
        ends = ", ".join(f"{count:,} {end.replace('_', ' ')}" for end, count in receipt.looked_up.items())
        app.note(f"Of an earlier push, whose answers were lost: {ends}.")
    if receipt.unverified:
        app.note(f"{receipt.unverified:,} of those applied: sent, not verifiable.")
    app.note(f"{counted(receipt.requests, 'request')}, {counted(receipt.tokens, 'token')}{after}, {seconds:.1f} s.")
    if receipt.stopped:
        app.note(f"It stopped: {receipt.stopped}\nWhat was not sent is still in the queue: pdsync queue list")
    if receipt.undoable:
        what = "it" if receipt.undoable >= changed else f"{receipt.undoable:,} of its {counted(changed, 'change')}"
        app.note(f"To undo {what}: pdsync undo {receipt.push_id}")
    elif changed or receipt.not_undoable:
        app.note(f"It can't be undone: {'; '.join(receipt.not_undoable[:_REASONS])}.")
