"""`pdsync runs`: the last runs, and their receipts. It makes no request."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
import msgspec

from pdsync.cli import ids, overview, receipts, tables
from pdsync.cli.app import App, Command, Group
from pdsync.cli.ids import IdCommand
from pdsync.cli.layout import Rows
from pdsync.core.wording import counted
from pdsync.model import OPEN
from pdsync.runner import unlocked
from pdsync.runner.push import ENDS
from pdsync.runner.report.freshness import format_age
from pdsync.writeback.push_log import PushLog
from pdsync.writeback.queue_reader import QueueReader

if TYPE_CHECKING:
    from pdsync.model import Proof, Receipt

_WIDE = 100  # cells of a terminal with room for one more column


@click.group(cls=Group, invoke_without_command=True)
@click.option("--last", "-n", default=20, show_default=True, type=click.IntRange(min=1), help="How many.")
@click.pass_context
def runs(context: click.Context, last: int) -> None:
    """List the last runs, and show their receipts. `runs pushes` lists pushes; `runs show -2` shows a receipt."""
    if context.invoked_subcommand:
        return
    app: App = context.obj
    rows = []
    for run in _newest_runs(app, last):
        total = {
            name: sum(getattr(e, name) for e in run.streams.values())
            for name in ("read", "inserted", "updated", "deleted")
        }
        rows.append(
            {
                "name": run.run_id,
                "run_id": run.run_id,
                "command": run.command,
                "started_at": run.started_at,
                "seconds": round(run.duration, 1) if run.finished_at else None,
                "complete": run.complete,
                "exit_code": run.exit_code if run.finished_at else None,
                **total,
                "requests": run.requests,
                "tokens": run.tokens,
            }
        )
    headers = list(rows[0])[1:] if rows else []
    if rows and overview.is_wanted(app, everything=False):
        for row in rows:
            row["result"] = _describe_end(row["exit_code"], is_complete=bool(row["complete"]))
            row["changes"] = row["inserted"] + row["updated"] + row["deleted"]
        headers = ["run_id", "command", "result", "seconds", "read", "changes", "tokens"]
        headers[1:1] = ["started_at"] if app.out.width >= _WIDE else []  # which the id begins with
    tables.show_listing(app, rows, headers, "Nothing has run yet: pdsync sync")


def _describe_end(code: int | None, *, is_complete: bool) -> str:
    if code is None:
        return "not ended"
    if code in (0, 4):
        return "complete" if is_complete else "with gaps"
    return {3: "stopped", 130: "interrupted"}.get(code, f"exit code {code}")


@runs.command(cls=IdCommand, name="show")
@click.argument("run_id", default="last")
@click.option("--all", "everything", is_flag=True, help="Show every stream, on a terminal too.")
@click.pass_obj
def show_run(app: App, run_id: str, everything: bool) -> None:
    """Show the receipt of RUN_ID: an id or its beginning; `last`, the default; -2 for the one before it.

    A terminal shows what is missing, what changed and what is not proved to be complete, and counts the rest; --all,
    a file or a pipe has every stream.
    """
    newest = {run.run_id: run for run in _newest_runs(app, ids.from_last(run_id) or 10_000)}
    run = newest[ids.find("run", list(newest), run_id, "List them: pdsync runs")]
    if app.json:
        app.emit({"name": run.run_id, **msgspec.to_builtins(run), "complete": run.complete,
                  "seconds": round(run.duration, 3) if run.finished_at else None})  # fmt: skip
        return
    app.note(f"{run.run_id}: {run.command}, {run.started_at:%Y-%m-%d %H:%M:%S} UTC\n")
    receipts.show_receipt(app, run, everything=everything)
    proofs = [(name, entry.proof) for name, entry in run.streams.items() if entry.proof]
    if overview.is_wanted(app, everything=everything):
        whole = [name for name, proof in proofs if _is_whole(proof) and proof.verified == 1]
        proofs = [(name, proof) for name, proof in proofs if name not in whole]
        if whole:
            app.note(f"\nAs at the source when last counted, every row verified: {counted(len(whole), 'stream')}.")
    if proofs:
        headers = ["  proof", "at source", "counted ago", "here", "left", "verified", "unseen for"]
        now = datetime.now(UTC)
        app.err.print()
        tables.show_aside(app, Rows(headers, [_proof_row(name, proof, now) for name, proof in proofs], counts=True))


@runs.command(cls=Command, name="pushes")
@click.option("--last", "-n", default=20, show_default=True, type=click.IntRange(min=1), help="How many.")
@click.pass_obj
def list_pushes(app: App, last: int) -> None:
    """List the last pushes, newest first, with what became of their changes; `pdsync undo PUSH_ID` takes one back."""
    rows: list[dict[str, Any]] = []
    if app.settings.control.exists():
        with unlocked.open_control(app.settings) as control:
            reader = QueueReader(control)
            rows = [_describe_push(each, reader) for each in PushLog(control).pushes(last)]
    headers = ["push_id", "result", "applied", "rejected", "conflict", "needs_review", "open", "tokens"]
    tables.show_listing(app, rows, headers, "Nothing was pushed yet: pdsync push --dry-run")


def _describe_push(push: dict[str, Any], reader: QueueReader) -> dict[str, Any]:
    """A push as a row; of one that has not ended, the counts are those in the queue, and the tokens are not known."""
    receipt = push["receipt"] or {}
    states = Counter(str(each.state) for each in reader.mutations_of_push(push["id"], images=False))
    counts = receipt.get("outcomes") or states
    code = receipt.get("exit_code")
    return {
        "name": push["id"],
        "push_id": push["id"],
        "started_at": push["started_at"],
        "finished_at": push["finished_at"],
        "result": _describe_end(code, is_complete=code == 0),
        "exit_code": code,
        **{end: counts.get(end, 0) for end in ENDS},
        "open": receipt.get("open", sum(states[state] for state in OPEN)),
        "tokens": receipt.get("tokens"),
        "undo": f"pdsync undo {push['id']}",
    }


def _proof_row(name: str, proof: Proof, now: datetime) -> list[Any]:
    ages = [format_age(now - each) if each else "" for each in (proof.counted_at, proof.oldest_verified_at)]
    return [f"{'✓' if _is_whole(proof) else '·'} {name}", proof.at_source, ages[0], proof.here, proof.left,
            f"{proof.verified:.0%}", ages[1]]  # fmt: skip


def _is_whole(proof: Proof) -> bool:
    """Whether the stream was as at the source when it was last read whole."""
    return proof.at_source is not None and proof.left == 0


def _newest_runs(app: App, last: int) -> list[Receipt]:
    """The receipts of the newest `last` runs, newest first; none where there is no project yet."""
    if not app.settings.control.exists():
        return []
    with unlocked.open_control(app.settings) as control:
        return control.receipts(last)
