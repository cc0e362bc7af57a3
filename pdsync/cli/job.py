"""What all commands with a receipt share: live progress, interruption, and the summary."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, TypeVar

import click
import msgspec

from pdsync.cli import receipts
from pdsync.cli.interruption import run_interruptible
from pdsync.cli.progress import Expected, Progress
from pdsync.core import catalogue
from pdsync.core.wording import counted
from pdsync.errors import PdsyncError
from pdsync.runner import unlocked
from pdsync.runner.pipelines import forecast, measure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from datetime import timedelta

    from pdsync.cli.app import App
    from pdsync.core.config import Settings
    from pdsync.model import Receipt
    from pdsync.runner.pipelines.measure import Measurement
    from pdsync.runner.sync.sync_request import SyncRequest

T = TypeVar("T")
_LEAST_BUDGET = 10 * measure.MOST_TOKENS  # that a measurement is worth a part of


def run_with_progress(
    app: App, work: Callable[[Progress], Awaitable[T]], expected: Mapping[str, Expected] | None = None
) -> T:
    """Run `work` with live progress; `expected`: the requests that each stream will need, where that is known.

    Returns:
        The result of `work`; of one that was interrupted its receipt, if it concludes one.

    Raises:
        KeyboardInterrupt: it was interrupted, by Ctrl-C or SIGTERM, and had no receipt to conclude.
    """
    with Progress(app, expected) as progress:
        if not gc.get_freeze_count():
            gc.freeze()  # imported modules stay for good: keep the garbage collector from scanning them
        return run_interruptible(work(progress))


def measure_unread(
    app: App, settings: Settings, request: SyncRequest, max_age: timedelta | None = measure.MEASURED_FOR
) -> Measurement | None:
    """Measure what a sync has never read; None if there was nothing to measure.

    Where it fails, a note says why, and only what it has spent is returned.

    Args:
        app: where the price is shown.
        settings: of the project.
        request: the sync.
        max_age: of an earlier measurement that is as good; None: any.
    """
    spent = measure.Measurement()

    def on_spent(requests: int, tokens: int) -> None:
        spent.requests, spent.tokens = requests, tokens

    try:
        measured = run_interruptible(measure.measure_unread(settings, request, max_age, on_spent=on_spent))
    except PdsyncError as error:
        app.note(f"What was never read is not measured, and counts as one page: {str(error).splitlines()[0]}")
        return spent
    if measured and measured.requests:
        app.note(
            f"Measured the lists that were never read: {counted(measured.requests, 'request')},"
            f" {counted(measured.tokens, 'token')}."
        )
    return measured


def measure_for_progress(app: App, settings: Settings, request: SyncRequest) -> SyncRequest:
    """Measure what a sync has never read, if a person is watching and the budget allows it: once for each list.

    Returns:
        The request; what was measured is part of its budget.
    """
    if not app.is_watched or (request.budget is not None and request.budget < _LEAST_BUDGET):
        return request
    measured = measure_unread(app, settings, request, max_age=None)
    if request.budget is None or measured is None:
        return request
    return msgspec.structs.replace(request, budget=request.budget - measured.tokens)


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
    """Show the receipt: a table for people; for programs the summary line, which includes `more`.

    It is complete with exit code 0 only: the verification after a sync may have found what the receipt does not say.
    """
    if app.json:
        facts = msgspec.to_builtins(receipt) | more | {"exit_code": code, "seconds": round(receipt.duration, 3)}
        app.emit({"event": "summary", "complete": receipt.complete and code == 0, **facts})
    elif app.verbosity >= 0:
        receipts.show_receipt(app, receipt, (None, app.settings.daily_tokens))


def exit_with(code: int) -> None:
    """End the command with `code`; return if it is 0."""
    if code:
        raise click.exceptions.Exit(code)
