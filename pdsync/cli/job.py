"""What commands that run share: points in time, live progress that can be interrupted, and the receipt at the end."""

from __future__ import annotations

import asyncio
import gc
import signal
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from pdsync.cli import render

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pdsync.cli.app import App
    from pdsync.model import Receipt

T = TypeVar("T")


class Moment(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """A point in time: a date, or a date and time; UTC where nothing else is said."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Parse ISO 8601."""
        if isinstance(value, datetime):
            return value
        try:
            found = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is no time. Write it like 2026-01-31 or 2026-01-31T18:00:00Z.", param, ctx)
        return found if found.tzinfo else found.replace(tzinfo=UTC)


def watched(app: App, work: Callable[[render.Progress], Awaitable[T]]) -> tuple[T, float]:
    """Do `work` with live progress; what it gave, and the seconds it took."""
    began = time.monotonic()
    with render.Progress(app) as progress:

        async def interruptible() -> T:
            task = asyncio.current_task()
            if task:  # as Ctrl-C does: what is under way is settled, then the receipt is written
                asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
            return await work(progress)

        if not gc.get_freeze_count():
            gc.freeze()  # what was imported stays: the collector need not look at it again and again
        done = asyncio.run(interruptible())
    return done, time.monotonic() - began


def show(app: App, done: Receipt, seconds: float, code: int, **more: object) -> None:
    """The receipt: a table for people; for programs the summary line, with `more` in it."""
    if app.json:
        facts = msgspec.to_builtins(done) | more
        app.emit(
            {"event": "summary", "complete": done.complete, **facts, "exit_code": code, "seconds": round(seconds, 3)}
        )
    elif app.verbosity >= 0:
        render.receipt(app, done, seconds, (None, app.settings.daily_tokens))


def leave(code: int) -> None:
    """End the command with `code`."""
    if code:
        raise click.exceptions.Exit(code)
