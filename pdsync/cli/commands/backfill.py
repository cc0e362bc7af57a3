"""`pdsync backfill`: reads a bounded part of the past again."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - part of the signatures
from typing import TYPE_CHECKING

import click

from pdsync.cli import webhook
from pdsync.cli.app import App, Command
from pdsync.cli.job import exit_with, run_with_progress, show_receipt
from pdsync.cli.moment import Moment
from pdsync.cli.progress import Expected, Progress
from pdsync.errors import ConfigError
from pdsync.runner.pipelines.backfill_cost import estimate_backfill
from pdsync.runner.session import Event
from pdsync.runner.sync.backfill import BackfillRequest
from pdsync.runner.sync.backfill import backfill as backfill_streams

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from pdsync.model import Receipt


@click.command(cls=Command)
@click.argument("streams", nargs=-1)
@click.option("--since", "--from", "since", type=Moment(), required=True, help="Read what changed from this time on.")
@click.option("--until", "--to", "until", type=Moment(), help="Read what changed before this time.  [default: now]")
@click.option("--budget", type=click.IntRange(min=1), help="Stop before spending more tokens than this.")
@click.option("--per-day", is_flag=True, help="The budget is for all backfills of a day (UTC), not for one run.")
@click.pass_obj
def backfill(
    app: App,
    streams: tuple[str, ...],
    since: datetime,
    until: datetime | None,
    budget: int | None,
    per_day: bool,
) -> None:
    """Read again what changed in STREAMS between two times; without STREAMS, in all whose lists take a time.

    \b
    pdsync backfill deals --since 2025-01-01 --until 2026-01-01
    pdsync backfill --since 2020-01-01 --budget 8000 --per-day

    Reads several windows of time at once, the newest first, as fast as the rate limit allows. Watermarks and newer rows
    are not changed. If it is interrupted, or its budget is spent (exit code 3), run the same command to continue.
    """
    if per_day and budget is None:
        raise ConfigError("--per-day goes with --budget. Nothing was called.")
    carry_out(app, BackfillRequest(since, until, streams, budget, per_day))


def carry_out(app: App, request: BackfillRequest) -> None:
    """Run a backfill, show its receipt, and end with its exit code."""
    expected = _expect(app, request)

    def work(progress: Progress) -> Awaitable[Receipt]:
        for name in expected:
            progress(Event("selected", name))
        return backfill_streams(app.settings, request, progress)

    receipt = run_with_progress(app, work, expected)
    show_receipt(app, receipt, receipt.exit_code)
    webhook.report_end(app, receipt, receipt.exit_code)
    exit_with(receipt.exit_code)


def _expect(app: App, request: BackfillRequest) -> dict[str, Expected]:
    """The requests that a backfill makes for each stream, by the rows that the warehouse has of that time."""
    if not app.is_watched:
        return {}
    return {
        each.stream: Expected(each.requests, each.at_least, each.tokens)
        for each in estimate_backfill(app.settings, request)
    }
