"""Shows a job while it works, on one screen: the streams under way, the others as a count, totals, the share done.

The share counts requests, those made against those expected; of a job that makes none, rows. It is shown once the size
of every list that is left is known from an earlier run, or was measured by `pdsync plan`; until then the expected
requests are a lower bound, and no share is shown. The rate of a stream is that of its own time: from its start until
its end, or until now.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from pdsync.cli import layout, tables
from pdsync.cli.layout import Line, Rows
from pdsync.cli.share_done import describe_share, format_duration
from pdsync.cli.text_width import wrap
from pdsync.core.wording import counted
from pdsync.model import StreamReceipt

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from rich.live import Live
    from rich.text import Text

    from pdsync.cli.app import App
    from pdsync.runner.session import Event

_ENDED = 5  # streams, the last ones, that are shown with those under way
_LEAST_ROWS = 3  # of the table, on however low a screen
_HEADERS = ["  stream", "requests", "rows", "tokens", "rows/s"]


class Expected(Struct, frozen=True):
    """How many requests a stream will need, and what they cost; of a job that makes none, how many rows it loads."""

    requests: int
    at_least: bool = False  # the size of a list is not known yet
    tokens: int = 0  # 0: not known
    rows: int = 0


class _Work(Struct):
    """What a run did for a stream so far."""

    receipt: StreamReceipt
    began: float | None = None  # seconds, of the run's clock
    ended: float | None = None

    @property
    def rows(self) -> int:
        """Rows that were read; of a job that makes no request, rows that were loaded."""
        return self.receipt.read or self.receipt.inserted + self.receipt.updated + self.receipt.unchanged

    @property
    def has_begun(self) -> bool:
        return bool(self.receipt.requests or self.rows)

    @property
    def is_under_way(self) -> bool:
        return self.ended is None and self.has_begun

    def row(self, name: str, now: float) -> list[Any]:
        took = (now if self.ended is None else self.ended) - (self.began or 0.0)
        rate = round(self.rows / took) if took >= 0.1 else None
        mark = "…" if self.ended is None else "✓"
        return [f"{mark} {name}", self.receipt.requests, self.rows, self.receipt.tokens, rate]


class Progress:
    """Live progress on a terminal; with --json, events. Otherwise only the notes of the run are shown."""

    def __init__(
        self,
        app: App,
        expected: Mapping[str, Expected] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """A display for one job.

        Args:
            app: where to.
            expected: the requests of each stream; None where they can't be estimated.
            clock: seconds from any beginning.
        """
        self._app, self._expected, self._clock = app, expected, clock
        self._began = clock()
        self._streams: dict[str, _Work] = {}
        self._live: Live | None = None

    def __enter__(self) -> Progress:
        if self._app.is_watched:
            from rich.live import Live  # noqa: PLC0415 - not for --help

            self._live = Live(console=self._app.err, refresh_per_second=8, transient=True, get_renderable=self._frame)
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
        elif event.stream:
            self._record(event)
        if self._app.json and event.kind in ("started", "finished", "note"):
            facts: dict[str, Any] = {"event": event.kind, "stream": event.stream or None, "text": event.text or None}
            if event.kind == "finished" and event.receipt:
                facts |= {name: getattr(event.receipt, name) for name in ("requests", "tokens", "read")}
            self._app.emit({key: value for key, value in facts.items() if value is not None})

    def _record(self, event: Event) -> None:
        work = self._streams.setdefault(event.stream, _Work(StreamReceipt()))
        work.receipt = event.receipt or work.receipt
        if event.kind == "finished":
            work.ended = self._clock() if work.ended is None else work.ended
        elif event.kind in ("started", "page") and work.began is None:
            work.began = self._clock()

    def _frame(self) -> Text:
        size = self._app.err.size
        return tables.to_text(self.lay_out(size.width, size.height))

    def lay_out(self, width: int, height: int) -> list[Line]:
        """The lines of the display: at most `height` - 1, none wider than `width`."""
        now = self._clock()
        state, *totals = self._summary(now)
        sentences = [state] if len(state) <= width else state.replace(". Streams:", ".\nStreams:").split("\n")
        below = [Line(line) for sentence in sentences for line in wrap(sentence, width)]
        below += [Line(line, "dim") for text in totals for line in wrap(text, width)]
        room = max(height - 1 - len(below) - 1, 0)  # the table has a header
        under_way = [name for name, work in self._streams.items() if work.is_under_way]
        ended = sorted(
            (name for name, work in self._streams.items() if work.ended is not None and work.has_begun),
            key=lambda name: self._streams[name].ended or 0.0,
        )
        shown = under_way[:room]
        rest = min(room - len(shown), _ENDED, len(ended))
        shown = [*ended[len(ended) - rest :], *shown]
        if room < _LEAST_ROWS or not shown:
            return below[-max(height - 1, 1) :]
        rows = [self._streams[name].row(name, now) for name in shown]
        is_offline = not any(work.receipt.requests for work in self._streams.values())
        columns = [0, 2, 4] if is_offline else range(len(_HEADERS))
        table = [[row[column] for column in columns] for row in (_HEADERS, *rows)]
        lines = layout.lay_out(Rows([str(name) for name in table[0]], table[1:], counts=True), width)
        return [*lines, *below] if len(lines) == len(rows) + 1 else below  # not where the screen is too narrow for it

    def _summary(self, now: float) -> list[str]:
        """Two sentences: the share done and how many streams are in which state; totals."""
        elapsed = now - self._began
        works = self._streams.values()
        if not works:
            return [f"Starting, {format_duration(elapsed)}"]
        done = sum(work.ended is not None for work in works)
        under_way = sum(work.is_under_way for work in works)
        waiting = len(works) - done - under_way
        requests, tokens = (sum(getattr(work.receipt, name) for work in works) for name in ("requests", "tokens"))
        rows = sum(work.rows for work in works)
        state = f"{self._share_done(requests, elapsed)}{done:,} done, {under_way:,} under way, {waiting:,} waiting"
        if done == len(works):
            state = "Every stream is read; finishing the tables"
        spent = f", {counted(requests, 'request')}, {counted(tokens, 'token')}" if requests else ""
        return [state, f"{counted(rows, 'row')}{spent} in {format_duration(elapsed)}"]

    def _share_done(self, requests: int, elapsed: float) -> str:
        """The share of the requests, and the time left; where the total is not known, the requests that are left."""
        left, tokens, is_known = 0, 0, True
        for name, work in self._streams.items():
            if work.ended is None:
                expected = (self._expected or {}).get(name, Expected(1, at_least=True))
                if expected.rows:
                    return self._share_of_rows(elapsed)
                left += max(expected.requests - work.receipt.requests, 1)
                tokens += max(expected.tokens - work.receipt.tokens, 0)
                is_known = is_known and not expected.at_least
        if not self._expected or not left:
            return "Streams: "
        if not is_known:
            return f"At least {left:,} more requests. Streams: "
        remaining = counted(left, "request") + (f" and {counted(tokens, 'token')}" if tokens else "")
        return f"{describe_share(requests, left, elapsed, remaining)}. Streams: "

    def _share_of_rows(self, elapsed: float) -> str:
        """The share of the rows, and the time left, of a job that makes no request."""
        done, left = sum(work.rows for work in self._streams.values()), 0
        for name, work in self._streams.items():
            if work.ended is None:
                left += max((self._expected or {}).get(name, Expected(0, rows=1)).rows - work.rows, 1)
        return f"{describe_share(done, left, elapsed, counted(left, 'row'))}. Streams: "
