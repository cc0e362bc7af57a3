"""Shows people the receipt of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pdsync.cli import tables
from pdsync.cli.layout import Rows
from pdsync.core.wording import counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pdsync.cli.app import App
    from pdsync.model import Receipt, StreamReceipt

_COUNTS = ("read", "inserted", "updated", "deleted", "unchanged", "requests", "tokens")
_BESIDE = 9  # lines of a screen for the header, the summary and some gaps
_LEAST = 10  # streams that are shown on however low a screen


def show_receipt(
    app: App,
    receipt: Receipt,
    left: tuple[int | None, int] | None = None,
    *,
    everything: bool = False,
) -> None:
    """Show what a run did: a table by stream, gaps and notes, and a summary.

    Args:
        app: where to.
        receipt: of the run.
        left: tokens left, and the limit of a day.
        everything: show every stream, also if they are too many for the screen.
    """
    streams = receipt.streams
    is_whole = everything or app.verbosity > 0 or tables.terminal_width(app.err) is None
    table = lay_out_streams(streams, None if is_whole else app.err.height)
    tables.show_aside(app, table)
    if len(table.values) < len(streams):
        app.note(f"Every stream: pdsync{app.project_option} runs show {receipt.run_id} --all", style="dim")
    app.note("")
    for gap in receipt.gaps:
        app.note(f"✗ {gap.stream}: {gap.kind}: {gap.detail}", style="yellow")
    for name, entry in streams.items():
        if entry.note:
            app.note(f"  {name}: {entry.note}", style="dim")
    if receipt.deferred:
        app.note(f"Read in another night of the verify cycle: {', '.join(receipt.deferred)}.", style="dim")
    schema_changes = sum(entry.schema_changes for entry in streams.values())
    if schema_changes:
        app.note(f'{counted(schema_changes, "schema change")}: pdsync sql "from meta.schema_changes"')
    totals = [sum(getattr(e, name) for e in streams.values()) for name in ("read", "inserted", "updated", "deleted")]
    outcome = "Complete" if receipt.complete else "Interrupted" if receipt.exit_code == 130 else "Not complete"
    share = f", {_share(receipt.tokens, left[1])} of a day's {left[1]:,}" if left and left[1] else ""
    app.note(
        f"{outcome}{' (continued)' if receipt.resumed else ''}: {counted(totals[0], 'row')} read, {totals[1]:,} new,"
        f" {totals[2]:,} changed, {totals[3]:,} deleted, in {receipt.duration:.1f} s."
        f" {counted(receipt.requests, 'request')}, {counted(receipt.tokens, 'token')}{share}.",
        style="green" if receipt.complete else "yellow",
    )
    if receipt.is_admin and receipt.user:
        app.note(f"Read as {describe_user(receipt)}.", style="dim")
    elif receipt.is_admin is False:
        text = f"Read as {describe_user(receipt)}: records that this user may not see are missing."
        app.note(text, style="yellow")
    if receipt.resumed and receipt.as_of:
        app.note(
            f"This finished an interrupted run: complete as of {receipt.as_of:%Y-%m-%d %H:%M:%S} UTC, when its first"
            f" list was started. Later changes come with the next run.",
        )


def lay_out_streams(streams: Mapping[str, StreamReceipt], height: int | None) -> Rows:
    """The streams of a run; for a screen of `height` lines those with gaps and changes, and the others together."""
    rows = [_row(f"{_mark([entry])} {name}", [entry]) for name, entry in streams.items()]
    if height is not None and len(rows) > (room := max(height - _BESIDE, _LEAST)):
        ordered = sorted(streams, key=lambda name: _rank(streams[name]))
        shown = [name for name in ordered if _changes(streams[name]) or not streams[name].complete][: room - 1]
        others = [entry for name, entry in streams.items() if name not in shown]
        rest = "more" if any(map(_changes, others)) else "without a change"
        rows = [_row(f"{_mark([streams[name]])} {name}", [streams[name]]) for name in shown]
        rows.append(_row(f"{_mark(others)} {len(others):,} {rest}", others))
    return Rows(["  stream", "read", "new", "changed", "deleted", "same", "requests", "tokens"], rows, counts=True)


def _rank(entry: StreamReceipt) -> tuple[bool, int, int]:
    """What comes first: what is not complete, then by the rows that changed, then by those that were read."""
    return entry.complete, -_changes(entry), -entry.read


def _changes(entry: StreamReceipt) -> int:
    return entry.inserted + entry.updated + entry.deleted


def _mark(entries: Sequence[StreamReceipt]) -> str:
    return "✓" if all(entry.complete for entry in entries) else "✗"


def _row(name: str, entries: Sequence[StreamReceipt]) -> list[Any]:
    return [name, *(sum(getattr(entry, each) for entry in entries) for each in _COUNTS)]


def describe_user(receipt: Receipt) -> str:
    """The user whose token a run had, and whether that is an administrator."""
    name = f"{receipt.user} (user {receipt.user_id})" if receipt.user else "the token's user"
    return f"{name}, {'an administrator' if receipt.is_admin else 'who is not an administrator'}"


def _share(part: int, whole: int) -> str:
    percent = 100 * part / whole
    return f"{percent:.0f} %" if percent >= 1 or part == 0 else f"{percent:.1f} %"
