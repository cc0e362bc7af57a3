"""Measures the state of each account: its own status, and how its last command of the fleet ended. Makes no request."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from pdsync.errors import PdsyncError
from pdsync.fleet import accounts as fleet_accounts
from pdsync.fleet import run_log
from pdsync.runner import status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pdsync.fleet.accounts import Account, Fleet
    from pdsync.fleet.job import AccountResult
    from pdsync.runner.status import Status

FRESH = timedelta(hours=36)  # a nightly sync, and half a day


class Attention(Struct, frozen=True):
    """A problem of an account, and the command that comes next."""

    subject: str
    problem: str
    command: str


class AccountStatus(Struct, frozen=True):
    """The state of one account."""

    name: str
    tags: tuple[str, ...]
    folder: str
    complete: bool  # every change until `complete_until` is loaded, in all streams
    fresh: bool  # `complete_until` is not long ago: an account that is not complete may be fresh
    complete_until: datetime | None
    incomplete: list[str]  # streams with a gap
    rows: int
    tokens_left: int | None  # today; None: there is no limit
    token_limit: int
    last_run: str | None  # id of the account's own last run
    last_command: str | None
    last_run_at: datetime | None
    exit_code: int | None  # of the last run; None: it goes on, or was killed
    running: int | None  # the process that works on it
    outcome: str | None  # how its last command in a fleet run ended
    queue: dict[str, int]
    attention: list[Attention]
    error: str = ""  # why the state can't be measured


def measure(fleet: Fleet, accounts: Sequence[Account], now: datetime | None = None) -> list[AccountStatus]:
    """The state of `accounts` at `now`, in their order."""
    now = now or datetime.now(UTC)
    folder = fleet.data / "runs"
    last: dict[str, tuple[datetime, AccountResult]] = {}
    for run in run_log.read(folder) if folder.exists() else []:
        last |= {name: (run.ended_at[name], result) for name, result in run.results.items()}
    states = [_measure(account, last.get(account.name), now) for account in accounts]
    if not fleet.store:
        return states
    return [_as_in_store(state, last.get(state.name), now) for state in states]


def _as_in_store(state: AccountStatus, last: tuple[datetime, AccountResult] | None, now: datetime) -> AccountStatus:
    """The state of an account that a worker with another disk ran last: what that worker reported.

    What it did not report (rows, tokens, queue, streams with a gap) is that of the folder here, which may be older.
    """
    if last is None or state.last_run == last[1].run_id or not last[1].run_id:
        return state
    began = datetime.fromtimestamp(last[1].started_at, UTC)
    if state.last_run_at and state.last_run_at > began:
        return state
    problem = f"{last[1].outcome}: {last[1].message.split(chr(10), 1)[0]}"
    attention = [] if last[1].complete else [Attention("fleet run", problem, f"pdsync fleet sync {state.name}")]
    return msgspec.structs.replace(
        state,
        complete=last[1].complete,
        fresh=last[1].complete and now - began < FRESH,
        complete_until=began if last[1].complete else state.complete_until,
        last_run=last[1].run_id,
        last_command="fleet",
        last_run_at=began,
        exit_code=last[1].exit_code,
        attention=attention,
    )


def _measure(account: Account, last: tuple[datetime, AccountResult] | None, now: datetime) -> AccountStatus:
    try:
        settings = fleet_accounts.settings_of(account)
        state = status.measure_status(settings, now) if settings.control.exists() else None
        if state is None or (state.last_run is None and state.error is None):
            return _without_data(account, last, "It has never been synced.", f"pdsync fleet sync {account.name}")
    except PdsyncError as error:
        text = str(error).split("\n", 1)[0]
        return _without_data(account, last, text, f"pdsync fleet check {account.name}", error=text)
    attention = [
        *_of_fleet_run(account, last, state),
        *(Attention(each.subject, each.problem, command_for(account, each.command)) for each in state.notices),
    ]
    until, run = state.complete_until, state.last_run
    return AccountStatus(
        name=account.name,
        tags=account.tags,
        folder=str(account.folder),
        complete=until is not None and not state.incomplete and state.error is None,
        fresh=until is not None and now - until < FRESH,
        complete_until=until,
        incomplete=state.incomplete,
        rows=state.rows,
        tokens_left=state.tokens_left,
        token_limit=state.token_limit,
        last_run=run.run_id if run else None,
        last_command=run.command if run else None,
        last_run_at=run.started_at if run else None,
        exit_code=run.exit_code if run and run.finished_at else None,
        running=state.running,
        outcome=last[1].outcome if last else None,
        queue=state.queue,
        attention=attention,
        error=str(state.error).split("\n", 1)[0] if state.error else "",
    )


def _without_data(
    account: Account, last: tuple[datetime, AccountResult] | None, problem: str, command: str, error: str = ""
) -> AccountStatus:
    attention = Attention("account", problem, command)
    return AccountStatus(
        account.name, account.tags, str(account.folder), complete=False, fresh=False, complete_until=None,
        incomplete=[], rows=0, tokens_left=None, token_limit=0, last_run=None, last_command=None, last_run_at=None,
        exit_code=None, running=None, outcome=last[1].outcome if last else None, queue={},
        attention=[*_of_fleet_run(account, last, None), attention], error=error,
    )  # fmt: skip


def _of_fleet_run(
    account: Account, last: tuple[datetime, AccountResult] | None, state: Status | None
) -> list[Attention]:
    """What the last fleet run says of an account, where its own last run doesn't: the command never got that far."""
    if last is None or last[1].complete or last[1].outcome == "interrupted":
        return []
    at, result = last
    own = state.last_run if state else None
    if own and (own.run_id == result.run_id or own.started_at > at):
        return []
    problem = f"{result.outcome}: {result.message.split(chr(10), 1)[0]}"
    check = result.outcome == "refused"
    return [Attention("fleet run", problem, f"pdsync fleet {'check' if check else 'sync'} {account.name}")]


def command_for(account: Account, command: str) -> str:
    """A command of a project, as it is typed for an account of a fleet."""
    words = command.removeprefix("pdsync ")
    if words == command:
        return command
    return (
        f"pdsync fleet sync {account.name}"
        if words == "sync"
        else f"pdsync fleet run --account {account.name} -- {words}"
    )
