"""What all commands with a receipt share: live progress, interruption, and the summary."""

from __future__ import annotations

import asyncio
import gc
import signal
from typing import TYPE_CHECKING, TypeVar

import click
import msgspec

from pdsync.cli import receipts
from pdsync.cli.progress import Expected, Progress
from pdsync.core import catalogue
from pdsync.errors import PdsyncError
from pdsync.runner import unlocked
from pdsync.runner.pipelines import forecast

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from pdsync.cli.app import App
    from pdsync.core.config import Settings
    from pdsync.model import Receipt
    from pdsync.runner.sync.sync_request import SyncRequest

T = TypeVar("T")


def run_with_progress(
    app: App, work: Callable[[Progress], Awaitable[T]], expected: Mapping[str, Expected] | None = None
) -> T:
    """Run `work` with live progress; `expected`: the requests that each stream will need, where that is known.

    Returns:
        The result of `work`.
    """
    with Progress(app, expected) as progress:

        async def interruptible() -> T:
            task = asyncio.current_task()
            if task:  # like Ctrl-C: requests in flight are settled, then the receipt is written
                asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
            return await work(progress)

        if not gc.get_freeze_count():
            gc.freeze()  # imported modules stay for good: keep the garbage collector from scanning them
        return asyncio.run(interruptible())


def expect_requests(settings: Settings, request: SyncRequest) -> dict[str, Expected]:
    """The requests that a sync will make for each stream, without those that an interrupted one has made already.

    Empty if it can't be estimated.
    """
    try:
        lines = forecast.forecast(settings, request).lines
        sealed: dict[str, list[int]] = {}
        if settings.control.exists():
            with unlocked.open_control(settings) as control:
                for (stream, version, operation), pages in control.pages_of_unfinished_walks().items():
                    cost = catalogue.operation(f"{version} {operation}").cost or 0
                    before = sealed.get(stream, [0, 0])
                    sealed[stream] = [before[0] + pages, before[1] + pages * cost]
    except PdsyncError:
        return {}
    expected = {}
    for each in forecast.sum_by_stream(lines):
        requests, tokens = sealed.get(each.stream, (0, 0))
        expected[each.stream] = Expected(max(each.requests - requests, 0), each.at_least, max(each.tokens - tokens, 0))
    return expected


def show_receipt(app: App, receipt: Receipt, code: int, **more: object) -> None:
    """Show the receipt: a table for people; for programs the summary line, which includes `more`."""
    if app.json:
        facts = msgspec.to_builtins(receipt) | more | {"exit_code": code, "seconds": round(receipt.duration, 3)}
        app.emit({"event": "summary", "complete": receipt.complete, **facts})
    elif app.verbosity >= 0:
        receipts.show_receipt(app, receipt, (None, app.settings.daily_tokens))


def exit_with(code: int) -> None:
    """End the command with `code`."""
    if code:
        raise click.exceptions.Exit(code)
