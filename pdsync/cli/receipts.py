"""Shows a run to people: live progress while it works, and its receipt at the end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from pdsync.cli import layout, tables
from pdsync.cli.layout import Rows
from pdsync.core.log import clean
from pdsync.core.wording import counted

if TYPE_CHECKING:
    from types import TracebackType

    from rich.live import Live
    from rich.text import Text

    from pdsync.cli.app import App
    from pdsync.model import Receipt, StreamReceipt
    from pdsync.runner.session import Event


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


class Progress:
    """Live progress on a terminal, one row per stream; with --json, events. Otherwise nothing is shown."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._began = time.monotonic()
        self._streams: dict[str, tuple[StreamReceipt, str]] = {}
        self._live: Live | None = None

    def __enter__(self) -> Progress:
        if self._app.is_watched:
            from rich.live import Live  # noqa: PLC0415 - not for --help

            self._live = Live(console=self._app.err, refresh_per_second=8, transient=True, get_renderable=self._table)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, event: Event) -> None:
        """Show an event of the run."""
        if event.kind == "note":
            self._app.note(event.text)
        if event.receipt is not None:
            self._streams[event.stream] = (event.receipt, event.kind)
        if self._app.json and event.kind in ("started", "finished", "note"):
            facts: dict[str, Any] = {"event": event.kind, "stream": event.stream or None, "text": event.text or None}
            self._app.emit({key: value for key, value in facts.items() if value is not None})

    def _table(self) -> Text:
        elapsed = max(time.monotonic() - self._began, 0.001)
        marks = {"finished": "✓", "page": "…", "started": "…"}
        rows = [
            [f"{marks[kind]} {name}", entry.requests, entry.read, entry.tokens, int(entry.read / elapsed)]
            for name, (entry, kind) in self._streams.items()
        ]
        table = Rows(["  stream", "pages", "rows", "tokens", "rows/s"], rows, counts=True)
        return tables.to_text(layout.lay_out(table, self._app.err.width))
