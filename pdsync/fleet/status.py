"""Measures the state of each account: its own status, and how its last command of the fleet ended. Makes no request."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from pdsync.errors import PdsyncError
from pdsync.fleet import accounts as fleet_accounts
from pdsync.fleet import run_log
from pdsync.runner import status
from pdsync.runner.pipelines import pipeline

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pdsync.fleet.accounts import Account, Fleet
    from pdsync.fleet.job import AccountResult
    from pdsync.fleet.run_log import FleetRun
    from pdsync.runner.status import Status

FRESH = timedelta(hours=36)  # a nightly sync, and half a day
_WHOLE_SYNC = re.compile(r"sync( --full| --fail-on-gap| --budget \S+)*( --pipeline (?P<pipeline>\S+))?")


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
    runs = run_log.read(folder) if folder.exists() else []
    ends = {account.name: _ends_of(account, runs) for account in accounts}
    states = [_measure(account, ends[account.name], now) for account in accounts]
    if not fleet.store:
        return states
    return [_as_in_store(state, ends[state.name], now) for state in states]


def _ends_of(account: Account, runs: Sequence[FleetRun]) -> _Ends:
    """How the commands of an account ended in `runs`, which are in order, oldest first."""
    last = synced = None
    for run in runs:
        if account.name in run.results:
            last = run.ended_at[account.name], run.results[account.name]
            synced = last if _is_whole_sync(run.command, account) else synced
    return _Ends(last, synced)


class _Ends(Struct, frozen=True):
    """How an account's commands in fleet runs ended, and when."""

    last: tuple[datetime, AccountResult] | None = None
    synced: tuple[datetime, AccountResult] | None = None  # the last sync of all that it follows

    @property
    def unmended(self) -> list[tuple[datetime, AccountResult]]:
        """The last sync and the last command, where they are not complete: no other command makes up for a sync."""
        different = [self.last] if self.last is self.synced else [self.synced, self.last]
        return [each for each in different if each and not each[1].complete]


def _is_whole_sync(command: tuple[str, ...], account: Account) -> bool:
    """Whether a command of a fleet run syncs all that an account follows: no streams by name, no other pipeline."""
    found = _WHOLE_SYNC.fullmatch(" ".join(command))
    return found is not None and found["pipeline"] in (None, account.pipeline or pipeline.DEFAULT)


def _as_in_store(state: AccountStatus, ends: _Ends, now: datetime) -> AccountStatus:
    """The state of an account that a worker with another disk synced last: what that worker reported.

    What it did not report (rows, tokens, queue, streams with a gap) is that of the folder here, which may be older.
    """
    if ends.synced is None or state.last_run == ends.synced[1].run_id or not ends.synced[1].run_id:
        return state
    result = ends.synced[1]
    began = datetime.fromtimestamp(result.started_at, UTC)
    if state.last_run_at and state.last_run_at > began:
        return state
    return msgspec.structs.replace(
        state,
        complete=result.complete,
        fresh=result.complete and now - began < FRESH,
        complete_until=began if result.complete else state.complete_until,
        last_run=result.run_id,
        last_command="fleet",
        last_run_at=began,
        exit_code=result.exit_code,
        attention=[_attention(state.name, each) for _, each in ends.unmended],
    )


def _measure(account: Account, ends: _Ends, now: datetime) -> AccountStatus:
    try:
        settings = fleet_accounts.settings_of(account)
        state = status.measure_status(settings, now) if settings.control.exists() else None
        if state is None or (state.last_run is None and state.error is None):
            return _without_data(account, ends, "It has never been synced.", f"pdsync fleet sync {account.name}")
    except PdsyncError as error:
        text = str(error).split("\n", 1)[0]
        return _without_data(account, ends, text, f"pdsync fleet check {account.name}", error=text)
    attention = [
        *_of_fleet_runs(account, ends, state),
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
        outcome=ends.last[1].outcome if ends.last else None,
        queue=state.queue,
        attention=attention,
        error=str(state.error).split("\n", 1)[0] if state.error else "",
    )


def _without_data(account: Account, ends: _Ends, problem: str, command: str, error: str = "") -> AccountStatus:
    attention = Attention("account", problem, command)
    return AccountStatus(
        account.name, account.tags, str(account.folder), complete=False, fresh=False, complete_until=None,
        incomplete=[], rows=0, tokens_left=None, token_limit=0, last_run=None, last_command=None, last_run_at=None,
        exit_code=None, running=None, outcome=ends.last[1].outcome if ends.last else None, queue={},
        attention=[*_of_fleet_runs(account, ends, None), attention], error=error,
    )  # fmt: skip


def _of_fleet_runs(account: Account, ends: _Ends, state: Status | None) -> list[Attention]:
    """What the fleet runs say of an account, where its own last run doesn't: the command never got that far."""
    own = state.last_run if state else None
    return [
        _attention(account.name, result)
        for at, result in ends.unmended
        if result.outcome != "interrupted" and not (own and (own.run_id == result.run_id or own.started_at > at))
    ]


def _attention(name: str, result: AccountResult) -> Attention:
    problem = f"{result.outcome}: {result.message.split(chr(10), 1)[0]}"
    check = result.outcome == "refused"
    return Attention("fleet run", problem, f"pdsync fleet {'check' if check else 'sync'} {name}")


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
