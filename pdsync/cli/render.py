"""Formats results: tables, receipts, live progress. Numbers get thousands separators, texts lose control characters."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime
from decimal import Decimal
from os.path import commonprefix
from typing import TYPE_CHECKING, Any

from rich.live import Live
from rich.table import Table

from pdsync.core.log import clean

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import TracebackType

    from pdsync.cli.app import App
    from pdsync.model import Receipt, StreamReceipt
    from pdsync.runner.session import Event


def table(headers: Sequence[str], rows: Iterable[Sequence[Any]], *, counts: bool = False) -> Table:
    """A plain table; columns of numbers are aligned right."""
    cells = [list(row) for row in rows]
    rendered = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for index, header in enumerate(headers):
        values = [row[index] for row in cells if row[index] is not None]
        right = bool(values) and all(isinstance(v, int | float | Decimal) and not isinstance(v, bool) for v in values)
        rendered.add_column(clean(header), justify="right" if right else "left", overflow="fold")
    for row in cells:
        rendered.add_row(*(cell(value, counts=counts) for value in row))
    return rendered


_LONG = 240  # characters; a longer text is truncated in a preview
_SHOWN = 160


def brief(text: str, begin: int = 0) -> str:
    """`text`, truncated if long: then an excerpt from position `begin` on, and the length of the whole."""
    if len(text) <= _LONG:
        return text
    end = begin + _SHOWN
    return f"{'… ' if begin else ''}{text[begin:end]}{' …' if end < len(text) else ''} ({len(text):,} characters)"


def brief_pair(before: Any, after: Any) -> tuple[str, str]:
    """Two values for people; of long ones an excerpt that begins shortly before the first difference."""
    texts = cell(before) or "–", cell(after) or "–"
    begin = max(len(commonprefix(texts)) - 40, 0)  # noqa: RUF071 - compared by character, not by path
    return brief(texts[0], begin), brief(texts[1], begin)


def cell(value: Any, *, counts: bool = False) -> str:
    """One value as text for people; integers get separators only if they are `counts`, not ids."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if counts and abs(value) >= 10_000 else str(value)
    if isinstance(value, Decimal):
        whole, _, fraction = f"{value:,f}".partition(".")
        fraction = fraction.rstrip("0")
        return f"{whole}.{fraction.ljust(2, '0')}" if fraction else whole
    if isinstance(value, float):
        return f"{value:,.6g}" if abs(value) < 1e6 else f"{value:,.2f}"
    if isinstance(value, datetime):
        moment = value.astimezone(UTC) if value.tzinfo else value
        return moment.replace(tzinfo=None).isoformat(sep=" ", timespec="seconds")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, list):
        return ", ".join(cell(each) for each in value)
    return clean(str(value))


def size(count: int) -> str:
    """A size in bytes, for people."""
    amount, unit = float(count), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{count:,} bytes" if unit == "bytes" else f"{amount:,.1f} {unit}"


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
    app.err.print(
        table(["  stream", "read", "new", "changed", "deleted", "same", "requests", "tokens"], rows, counts=True)
    )
    app.err.print()
    for gap in receipt.gaps:
        app.err.print(clean(f"✗ {gap.stream}: {gap.kind}: {gap.detail}"), style="yellow")
    for name, entry in streams.items():
        if entry.note:
            app.err.print(clean(f"  {name}: {entry.note}"), style="dim")
    schema_changes = sum(entry.schema_changes for entry in streams.values())
    if schema_changes:
        app.err.print(f'{schema_changes} schema changes: pdsync sql "from meta.schema_changes"')
    totals = [sum(getattr(e, name) for e in streams.values()) for name in ("read", "inserted", "updated", "deleted")]
    outcome = "Complete" if receipt.complete else "Interrupted" if receipt.exit_code == 130 else "Not complete"
    share = f", {_share(receipt.tokens, left[1])} of a day's {left[1]:,}" if left and left[1] else ""
    app.err.print(
        f"{outcome}{' (continued)' if receipt.resumed else ''}: {totals[0]:,} rows read, {totals[1]:,} new,"
        f" {totals[2]:,} changed,"
        f" {totals[3]:,} deleted, in {seconds:.1f} s. {receipt.requests:,} requests, {receipt.tokens:,} tokens{share}.",
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

    def _table(self) -> Table:
        elapsed = max(time.monotonic() - self._began, 0.001)
        marks = {"finished": "✓", "page": "…", "started": "…"}
        rows = [
            [f"{marks[kind]} {name}", entry.requests, entry.read, entry.tokens, int(entry.read / elapsed)]
            for name, (entry, kind) in self._streams.items()
        ]
        return table(["  stream", "pages", "rows", "tokens", "rows/s"], rows, counts=True)
