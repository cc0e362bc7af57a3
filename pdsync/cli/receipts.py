"""Shows people the receipt of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pdsync.cli import tables
from pdsync.cli.layout import Rows
from pdsync.core.log import clean
from pdsync.core.wording import counted

if TYPE_CHECKING:
    from pdsync.cli.app import App
    from pdsync.model import Receipt


def show_receipt(app: App, receipt: Receipt, seconds: float, left: tuple[int | None, int] | None = None) -> None:
    """Show what a run did: a table by stream, gaps and notes, and a summary."""
    streams = receipt.streams
    rows = [
        [
            ("✓" if entry.complete else "✗") + " " + name,
            entry.read,
            entry.inserted,
            entry.updated,
            entry.deleted,
            entry.unchanged,
            entry.requests,
            entry.tokens,
        ]
        for name, entry in streams.items()
    ]
    headers = ["  stream", "read", "new", "changed", "deleted", "same", "requests", "tokens"]
    tables.show_aside(app, Rows(headers, rows, counts=True))
    app.err.print()
    for gap in receipt.gaps:
        app.err.print(clean(f"✗ {gap.stream}: {gap.kind}: {gap.detail}"), style="yellow")
    for name, entry in streams.items():
        if entry.note:
            app.err.print(clean(f"  {name}: {entry.note}"), style="dim")
    schema_changes = sum(entry.schema_changes for entry in streams.values())
    if schema_changes:
        app.err.print(f'{counted(schema_changes, "schema change")}: pdsync sql "from meta.schema_changes"')
    totals = [sum(getattr(e, name) for e in streams.values()) for name in ("read", "inserted", "updated", "deleted")]
    outcome = "Complete" if receipt.complete else "Interrupted" if receipt.exit_code == 130 else "Not complete"
    share = f", {_share(receipt.tokens, left[1])} of a day's {left[1]:,}" if left and left[1] else ""
    app.err.print(
        f"{outcome}{' (continued)' if receipt.resumed else ''}: {counted(totals[0], 'row')} read, {totals[1]:,} new,"
        f" {totals[2]:,} changed, {totals[3]:,} deleted, in {seconds:.1f} s."
        f" {counted(receipt.requests, 'request')}, {counted(receipt.tokens, 'token')}{share}.",
        style="green" if receipt.complete else "yellow",
    )
    if receipt.resumed and receipt.as_of:
        app.err.print(
            f"This finished an interrupted run: complete as of {receipt.as_of:%Y-%m-%d %H:%M:%S} UTC, when its first"
            f" list was started. Later changes come with the next run.",
        )


def _share(part: int, whole: int) -> str:
    percent = 100 * part / whole
    return f"{percent:.0f} %" if percent >= 1 or part == 0 else f"{percent:.1f} %"
