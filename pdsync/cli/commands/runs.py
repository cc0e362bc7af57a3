"""`pdsync runs`: the last runs, and their receipts. It makes no request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import msgspec

from pdsync.cli import ids, receipts, tables
from pdsync.cli.app import App, Group
from pdsync.cli.ids import IdCommand
from pdsync.cli.layout import Rows
from pdsync.runner import project

if TYPE_CHECKING:
    from pdsync.model import Proof, Receipt


@click.group(cls=Group, invoke_without_command=True)
@click.option("--last", "-n", default=20, show_default=True, type=click.IntRange(min=1), help="How many.")
@click.pass_context
def runs(context: click.Context, last: int) -> None:
    """List the last runs, newest first; `runs show`, `runs show RUN_ID` and `runs show -2` show a receipt."""
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
                "seconds": round((run.finished_at - run.started_at).total_seconds(), 1) if run.finished_at else None,
                "complete": run.complete,
                "exit_code": run.exit_code if run.finished_at else None,
                **total,
                "requests": run.requests,
                "tokens": run.tokens,
            }
        )
    tables.show_listing(app, rows, list(rows[0])[1:] if rows else [], "Nothing has run yet: pdsync sync")


@runs.command(cls=IdCommand, name="show")
@click.argument("run_id", default="last")
@click.pass_obj
def show_run(app: App, run_id: str) -> None:
    """Show the receipt of RUN_ID: an id or its beginning; `last`, the default; -2 for the one before it."""
    newest = {run.run_id: run for run in _newest_runs(app, ids.from_last(run_id) or 10_000)}
    run = newest[ids.find("run", list(newest), run_id, "List them: pdsync runs")]
    if app.json:
        app.emit({"name": run.run_id, **msgspec.to_builtins(run), "complete": run.complete})
        return
    seconds = (run.finished_at - run.started_at).total_seconds() if run.finished_at else 0.0
    app.note(f"{run.run_id}: {run.command}, {run.started_at:%Y-%m-%d %H:%M:%S} UTC\n")
    receipts.show_receipt(app, run, seconds)
    proofs = [(name, entry.proof) for name, entry in run.streams.items() if entry.proof]
    if proofs:
        headers = ["  proof", "at the source", "counted", "here", "differences left", "verified", "longest unseen"]
        app.err.print()
        tables.show_aside(app, Rows(headers, [_proof_row(name, proof) for name, proof in proofs], counts=True))


def _proof_row(name: str, proof: Proof) -> list[Any]:
    whole = proof.at_source is not None and proof.left == 0
    return [f"{'✓' if whole else '·'} {name}", proof.at_source, proof.counted_at, proof.here, proof.left,
            f"{proof.verified:.0%}", proof.oldest_verified_at]  # fmt: skip


def _newest_runs(app: App, last: int) -> list[Receipt]:
    """The receipts of the newest `last` runs, newest first; none where there is no project yet."""
    if not app.settings.control.exists():
        return []
    with project.opened(app.settings) as control:
        return control.receipts(last)
