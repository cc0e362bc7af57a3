"""The share of a job that is done, what is left of it, and the time that takes: one sentence for every job."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from pdsync.cli.app import App

_PACE_S = 3.0  # shorter than this, a job is no measure of the time left


def describe_share(done: float, left: float, elapsed_s: float, remaining: str = "") -> str:
    """`37 % done, 128 requests and 1,650 tokens left, about 2 min`.

    Args:
        done: of any unit.
        left: of the same unit, more than 0 as long as the job works.
        elapsed_s: since the job began.
        remaining: what is left, in words.
    """
    parts = [f"{int(100 * done / (done + left)) if done else 0} % done"]
    time_left = f"about {format_duration(elapsed_s * left / done)}" if done and left and elapsed_s >= _PACE_S else ""
    parts += [f"{remaining} left"] if remaining else []
    parts += [time_left if remaining else f"{time_left} left"] if time_left else []
    return ", ".join(parts)


def format_duration(seconds: float) -> str:
    """`a second`, `45 s`, `12 min`, `3.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 1 else "a second"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


class ShareLine:
    """A line on the terminal with the share of a job's items that are done; nothing where no person is watching."""

    def __init__(self, app: App, clock: Callable[[], float] = time.monotonic) -> None:
        self._status = app.err.status("Starting") if app.is_watched else None
        self._clock = clock
        self._began = clock()

    def __enter__(self) -> ShareLine:
        if self._status:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status:
            self._status.stop()

    def update(self, done: int, total: int, remaining: str) -> str:
        """Show that `done` of `total` items are done; `remaining`: what is left, in words. Returns the sentence."""
        text = describe_share(done, total - done, self._clock() - self._began, remaining)
        if self._status:
            self._status.update(text)
        return text
