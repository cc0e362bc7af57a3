"""`pdsync fleet plan`: what a sync of every account would cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pdsync.cli import fleet_job, tables
from pdsync.cli.app import App, Command
from pdsync.cli.fleet_job import FleetCommand
from pdsync.cli.fleet_options import Place, Selection, placing, selecting
from pdsync.cli.fleet_progress import describe
from pdsync.cli.job import exit_with
from pdsync.cli.layout import Rows
from pdsync.cli.share_done import format_duration
from pdsync.core.wording import counted
from pdsync.fleet.dispatch import RetryPolicy

if TYPE_CHECKING:
    from pdsync.fleet.accounts import Account
    from pdsync.fleet.job import AccountResult


@click.command(cls=Command)
@click.option("--full", is_flag=True, help="Estimate a full read.")
@click.option("--no-requests", "is_offline", is_flag=True, help="Measure nothing: an unread list counts as a page.")
@placing
@selecting
@click.pass_obj
def plan(app: App, selection: Selection, place: Place, full: bool, is_offline: bool) -> None:
    """Show what a sync of every ACCOUNT would cost: requests, tokens, share of its day's budget, time.

    Lists that were never read are measured once a day, for at most 150 tokens an account. With --json: an object for
    each account, then a summary with the sums.
    """
    options = [*(["--full"] if full else []), *(["--no-requests"] if is_offline else [])]

    def for_account(account: Account) -> tuple[str, ...]:
        return ("plan", *options, *(["--pipeline", account.pipeline] if account.pipeline else []))

    command = FleetCommand(
        ("plan", *options), for_account, is_continued=False, is_listing=True, policy=RetryPolicy(tries=1)
    )
    _, outcome = fleet_job.carry_out(app, selection, place, command)
    estimated = [result for result in outcome.results.values() if result.complete]
    sums = {key: sum(result.summary.get(key) or 0 for result in estimated) for key in ("requests", "tokens")}
    longest = max((result.summary.get("seconds") or 0.0 for result in estimated), default=0.0)
    if app.json:
        for result in outcome.results.values():
            app.emit({"name": result.name, "complete": result.complete, "message": result.message, **result.summary})
        app.emit({"event": "summary", "complete": outcome.complete, "exit_code": outcome.exit_code, "streams": {},
                  "accounts": {name: each.summary for name, each in outcome.results.items()},
                  **sums, "longest_s": longest})  # fmt: skip
    else:
        headers = ["account", "requests", "tokens", "at most", "share of a day", "seconds"]
        ordered = sorted(estimated, key=lambda each: -(each.summary.get("tokens") or 0))
        tables.show(app, Rows(headers, [_row(each) for each in ordered], counts=True, hints=tables.JSON))
        for result in outcome.results.values():
            if not result.complete:
                app.note(describe(result), style="yellow")
        time = f"; the longest takes {format_duration(longest)} at its rate limit" if longest else ""
        app.note(
            f"\nAbout {counted(sums['requests'], 'request')} and {counted(sums['tokens'], 'token')} for"
            f" {counted(len(estimated), 'account')}{time}."
        )
    exit_with(outcome.exit_code)


def _row(result: AccountResult) -> list[Any]:
    facts = result.summary
    share = f"{facts['share']:.1%}" if facts.get("share") is not None else ""
    return [
        result.name,
        facts.get("requests"),
        facts.get("tokens"),
        facts.get("most_tokens"),
        share,
        facts.get("seconds"),
    ]
