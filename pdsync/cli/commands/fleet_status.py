"""`pdsync fleet status`: which accounts are right and fresh, and what needs attention. Makes no request."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
import msgspec

from pdsync.cli import tables
from pdsync.cli.app import App, Command
from pdsync.cli.fleet_options import Selection, selecting
from pdsync.cli.layout import Rows
from pdsync.core.wording import counted
from pdsync.fleet.status import measure
from pdsync.runner.report.freshness import format_age

if TYPE_CHECKING:
    from pdsync.fleet.status import AccountStatus


@click.command(cls=Command)
@selecting
@click.pass_obj
def status(app: App, selection: Selection) -> None:
    """Show for each ACCOUNT whether its data is complete and fresh; without ACCOUNT, for all.

    Fresh: complete until less than 36 hours ago.

    Below the table is what needs attention, each with the command that comes next. Makes no request. With --json: an
    object for each account.
    """
    fleet, accounts = selection.load(app)
    states = measure(fleet, accounts)
    if app.json:
        for state in states:
            app.emit(msgspec.to_builtins(state))
        return
    now = datetime.now(UTC)
    rows = [_row(state, now) for state in states]
    headers = ["account", "complete", "until", "age", "rows", "tokens left", "last run", "attention"]
    tables.show(app, Rows(headers, rows, counts=True, hints=tables.JSON))
    for state in states:
        for each in state.attention:
            app.note(f"✗ {state.name}: {each.subject}: {each.problem}", style="yellow")
            app.note(f"    {each.command}")
    right = sum(state.complete and state.fresh for state in states)
    others = len(states) - right
    app.note(
        f"\n{right:,} of {counted(len(states), 'account')} {'is' if right == 1 else 'are'} complete and fresh"
        f"{f', {others:,} not' if others else ''}.",
        style="yellow" if others else "green",
    )


def _row(state: AccountStatus, now: datetime) -> list[Any]:
    until = state.complete_until
    complete = (
        "yes" if state.complete else "no data" if until is None else f"but {counted(len(state.incomplete), 'stream')}"
    )
    last = "" if state.last_run_at is None else f"{state.last_command} {format_age(now - state.last_run_at)} ago"
    if state.running:
        last = f"{state.last_command}, under way"
    return [
        state.name,
        complete,
        f"{until:%Y-%m-%d %H:%M}" if until else "",
        format_age(now - until) if until else "",
        state.rows,
        state.tokens_left,
        last,
        len(state.attention) or None,
    ]
