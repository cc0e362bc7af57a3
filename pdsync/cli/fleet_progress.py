"""Shows a fleet run while it works: one line for each account under way, totals below; events with --json.

Each account that has ended is a line on stderr, whether a person is watching or not; with --json it is an event.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from pdsync.cli import layout, tables
from pdsync.cli.layout import Line, Rows
from pdsync.cli.share_done import describe_share, format_duration
from pdsync.cli.text_width import wrap
from pdsync.core.wording import counted
from pdsync.fleet.job import Counts, Progress

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from rich.live import Live
    from rich.text import Text

    from pdsync.cli.app import App
    from pdsync.fleet.engine import Progressed
    from pdsync.fleet.job import AccountJob, AccountResult

_MARKS = {"complete": "✓"}
_LEAST_ROWS = 2
_HEADERS = ["  account", "streams", "requests", "rows", "tokens", "time"]


class _Work(Struct, frozen=True):
    """What an account did so far."""

    began: float
    progress: Progress = Progress()


class FleetProgress:
    """The display of one fleet run."""

    def __init__(
        self,
        app: App,
        total: int,
        dashboard: str = "",
        clock: Callable[[], float] = time.monotonic,
        *,
        is_listing: bool = False,
    ) -> None:
        """A display for one run.

        Args:
            app: where to.
            total: accounts that run.
            dashboard: the address of a page that shows more.
            clock: seconds from any beginning.
            is_listing: the command shows its result only: there are no events, and no line for each account.
        """
        self._app, self._total, self._dashboard, self._clock = app, total, dashboard, clock
        self._is_listing, self._began = is_listing, clock()
        self._working: dict[str, _Work] = {}
        self._retried: dict[str, str] = {}
        self._results: dict[str, AccountResult] = {}
        self._live: Live | None = None

    def __enter__(self) -> FleetProgress:
        if self._app.is_watched:
            from rich.live import Live  # noqa: PLC0415 - not for --help

            self._live = Live(console=self._app.err, refresh_per_second=4, transient=True, get_renderable=self._frame)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def on_start(self, job: AccountJob) -> None:
        """An account begins."""
        name = job.account.name
        self._retried.pop(name, None)
        self._working[name] = _Work(self._clock())
        self._emit("started", name, attempt=job.attempt)

    def on_progress(self, message: Progressed) -> None:
        """The command of an account reports how far it has come."""
        name, progress = message.name, message.progress
        if name in self._working and not progress.note:
            self._working[name] = _Work(self._working[name].began, progress)
        if progress.note:
            self._emit("note", name, text=progress.note)
        else:
            counts = {key: getattr(progress.counts, key) for key in ("requests", "tokens", "read")}
            self._emit("progress", name, started=progress.started, ended=progress.ended, **counts)

    def on_retry(self, result: AccountResult, delay_s: float) -> None:
        """An account has failed, and is tried again."""
        name, reason = result.name, result.message.split("\n", 1)[0]
        self._working.pop(name, None)
        self._retried[name] = reason
        self._emit("retry", name, attempt=result.attempts, delay_s=delay_s, message=result.message, error=result.error)
        self._say(f"↻ {name}: {reason} It is tried again in {format_duration(delay_s)}.", "yellow")

    def on_result(self, result: AccountResult) -> None:
        """An account has ended."""
        self._working.pop(result.name, None)
        self._results[result.name] = result
        if self._app.json and not self._is_listing:
            self._app.emit({"event": "account", "account": result.name, **facts_of(result), "summary": result.summary})
        self._say(describe(result), None if result.complete else "yellow")

    def on_note(self, text: str) -> None:
        """A message about the run."""
        self._emit("note", None, text=text)
        self._app.note(text)

    def _say(self, text: str, style: str | None) -> None:
        if not self._app.json and not self._is_listing:
            self._app.note(text, style)

    def _emit(self, kind: str, name: str | None, **facts: Any) -> None:
        if self._app.json and not self._is_listing:
            self._app.emit({"event": kind, **({"account": name} if name else {}), **facts})

    def _frame(self) -> Text:
        size = self._app.err.size
        return tables.to_text(self.lay_out(size.width, size.height))

    def lay_out(self, width: int, height: int) -> list[Line]:
        """The lines of the display: at most `height` - 1, none wider than `width`."""
        now = self._clock()
        below = [line for text in self._summary(now) for line in wrap(text, width)]
        room = max(height - 2 - len(below), 0)
        names = list(self._working)
        shown = names[: room - 1] if len(names) > room else names
        if room < _LEAST_ROWS or not shown:
            return [Line(text) for text in below[-max(height - 1, 1) :]]
        rows = [_row(name, self._working[name], now) for name in shown]
        if len(shown) < len(names):
            rows.append([f"… {len(names) - len(shown):,} more", None, None, None, None, ""])
        table = layout.lay_out(Rows(_HEADERS, rows, counts=True), width)
        first, *rest = below
        lines = [Line(first), *(Line(text, "dim") for text in rest)]
        return [*table, *lines] if len(table) == len(rows) + 1 else lines

    def _summary(self, now: float) -> list[str]:
        elapsed, done = now - self._began, len(self._results)
        complete = sum(result.complete for result in self._results.values())
        left = self._total - done
        waiting = left - len(self._working) - len(self._retried)
        share = f"{describe_share(done, left, elapsed)}. " if done and left else ""
        others = [f"{done - complete:,} not complete"] if done > complete else []
        retried = [f"{len(self._retried):,} tried again later"] if self._retried else []
        state = [
            f"{complete:,} complete",
            *others,
            f"{len(self._working):,} under way",
            *retried,
            f"{waiting:,} waiting",
        ]
        counts = sum((work.progress.counts for work in self._working.values()), Counts())
        counts = sum((result.counts for result in self._results.values()), counts)
        totals = (
            f"{counted(counts.read, 'row')}, {counted(counts.requests, 'request')}, {counted(counts.tokens, 'token')}"
            f" in {format_duration(elapsed)}"
        )
        dashboard = [f"Dashboard: {self._dashboard}"] if self._dashboard else []
        return [f"{share}Accounts: {', '.join(state)}", totals, *dashboard]


def _row(name: str, work: _Work, now: float) -> list[Any]:
    progress, counts = work.progress, work.progress.counts
    streams = f"{progress.ended} of {progress.started}" if progress.started else ""
    return [f"… {name}", streams, counts.requests, counts.read, counts.tokens, format_duration(now - work.began)]


def facts_of(result: AccountResult) -> dict[str, Any]:
    """A result for JSON, with its counts beside the other facts; without name, output and summary."""
    facts: dict[str, Any] = msgspec.to_builtins(result)
    counts = facts.pop("counts")
    del facts["name"], facts["output"], facts["summary"]
    return {**facts, **counts}


def describe(result: AccountResult) -> str:
    """A result as a line."""
    mark = _MARKS.get(result.outcome, "✗")
    tries = f", {result.attempts} attempts" if result.attempts > 1 else ""
    if not result.complete:
        first = result.message.split("\n", 1)[0]
        return f"{mark} {result.name}: {result.outcome}{tries}: {first}"
    counts = result.counts
    done = f"{counted(counts.read, 'row')}, {counted(counts.requests, 'request')}, " if counts.requests else ""
    return f"{mark} {result.name}: {done}{result.seconds:.1f} s{tries}"
