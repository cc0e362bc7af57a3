"""Carries out one command for many accounts: with live progress, a log that survives a crash, and a summary."""

from __future__ import annotations

import secrets
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from pdsync.cli import tables
from pdsync.cli.fleet_progress import FleetProgress, describe, facts_of
from pdsync.cli.layout import Rows
from pdsync.cli.share_done import format_duration
from pdsync.core.wording import counted, plural
from pdsync.errors import Stopped
from pdsync.fleet import order, run_log
from pdsync.fleet.dispatch import Dispatcher, Observer, RetryPolicy
from pdsync.fleet.job import AccountJob, AccountResult, Counts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pdsync.cli.app import App
    from pdsync.cli.fleet_options import Place, Selection
    from pdsync.fleet.accounts import Account, Fleet
    from pdsync.fleet.cluster import ClusterEngine
    from pdsync.fleet.local import LocalEngine
    from pdsync.fleet.rollup import RollUpTarget

_COUNTS = ("requests", "tokens", "read", "inserted", "updated", "deleted", "unchanged")
_BESIDE = 8  # lines of a screen for the header and the summary
_LEAST = 10


class FleetCommand(Struct, frozen=True):
    """What runs for each account."""

    words: tuple[str, ...]  # as they are stored with the run
    for_account: Callable[[Account], tuple[str, ...]]
    as_json: bool = True
    is_continued: bool = True  # the same command goes on with an interrupted run, and runs once at a time
    is_listing: bool = False  # only its result is shown, and no event
    policy: RetryPolicy = RetryPolicy()


class FleetOutcome(Struct, frozen=True):
    """What became of a run of the fleet."""

    run_id: str
    results: dict[str, AccountResult]  # in the order of fleet.toml
    seconds: float
    continued: int  # accounts that were complete already

    @property
    def complete(self) -> bool:
        return all(result.complete for result in self.results.values())

    @property
    def exit_code(self) -> int:
        """0 if every account is complete, else 4."""
        return 0 if self.complete else 4


def carry_out(app: App, selection: Selection, place: Place, command: FleetCommand) -> tuple[Fleet, FleetOutcome]:
    """Run `command` for each selected account.

    Raises:
        ConfigError: fleet.toml can't be understood, or the cluster can't be used. Nothing was called.
        Stopped: the run goes on in another process, or the cluster is lost; the same command resumes it.
        StorageError: what has ended can't be written to the run's file.
        KeyboardInterrupt: it was interrupted, also by SIGTERM; the commands under way were ended in order.
    """
    fleet, accounts = selection.load(app)
    began = time.monotonic()
    folder = fleet.data / "runs"
    earlier = order.last_results(run_log.read(folder), command.words[0]) if folder.exists() else {}
    log = run_log.begin(folder, command.words, selection.words, restart=place.restart, is_alone=command.is_continued)
    session = name_session(log.run_id)
    all_jobs = {account.name: _job(fleet, account, command, session) for account in accounts}
    results = log.find_complete(all_jobs.values())
    due = [account for account in order.in_order(accounts, earlier) if account.name not in results]
    if results:
        app.note(
            f"The run {log.run_id} was interrupted, and goes on: {counted(len(results), 'account')} of"
            f" {len(accounts):,} {'is' if len(results) == 1 else 'are'} complete already (--restart runs all)."
        )
    jobs = [all_jobs[account.name] for account in due]
    continued = len(results)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # like Ctrl-C: children are ended in order
    try:
        if jobs:
            results |= _run(app, _open_engine(fleet, place, session), jobs, log, command)
        outcome = FleetOutcome(
            log.run_id,
            {account.name: results[account.name] for account in accounts if account.name in results},
            round(time.monotonic() - began, 3),
            continued,
        )
        log.end(outcome.exit_code)
    finally:
        signal.signal(signal.SIGTERM, before)
        log.close()
    return fleet, outcome


def name_session(run_id: str) -> str:
    """A name for what this process does of a run.

    The next process that goes on with the run has another one: workers still refuse what was stopped under this name,
    and a task that the last process has left behind must not answer for a new one.
    """
    return f"{run_id}-{secrets.token_hex(3)}"


def _job(fleet: Fleet, account: Account, command: FleetCommand, session: str) -> AccountJob:
    return AccountJob(
        account,
        command.for_account(account),
        session,
        fleet.timeout_s,
        as_json=command.as_json,
        store=fleet.store,
        endpoint=fleet.endpoint,
        region=fleet.region,
        rollup=_rollup(fleet),
    )


def _rollup(fleet: Fleet) -> RollUpTarget | None:
    """Where the accounts' tables are brought together after each command; None if no table is chosen."""
    if not fleet.rollup:
        return None
    from pdsync.fleet.rollup import target_of  # noqa: PLC0415 - only with a roll-up

    return target_of(fleet)


def _open_engine(fleet: Fleet, place: Place, session: str) -> LocalEngine | ClusterEngine:
    """The engine that runs the accounts: a pool of processes, a cluster that is started for them, or one that exists.

    Raises:
        ConfigError: the cluster can't run them. Nothing was called, and nothing that was started is left.
    """
    engine: ClusterEngine
    if place.workers:
        from pdsync.fleet.local_cluster import LocalClusterEngine  # noqa: PLC0415 - in the extra `fleet`

        engine = LocalClusterEngine(place.workers, session, place.processes or 0)
    elif place.scheduler:
        from pdsync.fleet.cluster import ClusterEngine  # noqa: PLC0415 - in the extra `fleet`

        engine = ClusterEngine(place.scheduler, session, place.processes or 0)
    else:
        from pdsync.fleet.local import LocalEngine  # noqa: PLC0415 - one of three

        return LocalEngine(session, place.processes or fleet.processes)
    try:
        engine.check(None if fleet.store else fleet.folder)
    except BaseException:
        engine.close()
        raise
    return engine


def _run(
    app: App,
    engine: LocalEngine | ClusterEngine,
    jobs: Sequence[AccountJob],
    log: run_log.RunLog,
    command: FleetCommand,
) -> dict[str, AccountResult]:
    with FleetProgress(app, len(jobs), engine.dashboard, is_listing=command.is_listing) as progress:
        settings = {job.account.name: job.settings for job in jobs}

        def on_result(result: AccountResult) -> None:
            log.add(result, settings[result.name])
            progress.on_result(result)

        observer = Observer(progress.on_start, progress.on_progress, progress.on_retry, on_result, progress.on_note)
        dispatcher = Dispatcher(engine, observer, command.policy)
        try:
            return dispatcher.run(jobs)
        except KeyboardInterrupt:
            ended = sum(result.complete for result in dispatcher.results.values())
            app.note(f"Interrupted: {ended:,} of {counted(len(jobs), 'account')} had ended.")
            raise
        except Stopped:
            app.note(f"{len(dispatcher.results):,} of {counted(len(jobs), 'account')} had ended; they are kept.")
            raise
        finally:
            engine.close()


# The summary.


def show_outputs(app: App, outcome: FleetOutcome) -> None:
    """Show what the command printed for each account; with --json each line as an object with the account's name."""
    for result in outcome.results.values():
        if app.json:
            for line in result.output.splitlines():
                app.emit({"account": result.name, **_object(line)})
        elif result.output:
            app.result(f"== {result.name}" if len(outcome.results) > 1 else "", end="\n" * (len(outcome.results) > 1))
            app.result(result.output, end="")


def _object(line: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(line, type=dict[str, Any])
    except msgspec.DecodeError:
        return {"line": line}


def show_outcome(app: App, outcome: FleetOutcome, **more: Any) -> None:
    """Show what became of each account: a table for people; for programs the summary line, which includes `more`."""
    if app.json:
        app.emit(_summary(outcome) | more)
        return
    if app.verbosity < 0:
        return
    is_whole = app.verbosity > 0 or tables.terminal_width(app.err) is None
    tables.show_aside(app, account_rows(outcome, None if is_whole else app.err.height))
    app.note("")
    for result in outcome.results.values():
        if not result.complete:
            app.note(describe(result), style="yellow")
    kinds = Counter(result.outcome for result in outcome.results.values() if not result.complete)
    complete = len(outcome.results) - kinds.total()
    others = "".join(f", {count:,} {kind}" for kind, count in kinds.items())
    counts = sum((result.counts for result in outcome.results.values()), Counts())
    total = len(outcome.results)
    rows = f": {counted(counts.read, 'row')} read, {counts.inserted:,} new, {counts.updated:,} changed,"
    rows += f" {counts.deleted:,} deleted"
    spent = f" {counted(counts.requests, 'request')}, {counted(counts.tokens, 'token')}."
    app.note(
        f"{complete:,} of {total:,} {'account' if total == 1 else plural('account')} complete{others}"
        f"{rows if counts.read else ''}, in {format_duration(outcome.seconds)}.{spent if counts.requests else ''}",
        style="green" if outcome.complete else "yellow",
    )


def _summary(outcome: FleetOutcome) -> dict[str, Any]:
    streams: dict[str, dict[str, Any]] = {}
    for result in outcome.results.values():
        for name, stream in result.streams.items():
            sums = streams.setdefault(name, {**dict.fromkeys(_COUNTS, 0), "complete": True})
            for key in _COUNTS:
                sums[key] += stream.get(key) or 0
            sums["complete"] = sums["complete"] and bool(stream.get("complete", True))
    counts = sum((result.counts for result in outcome.results.values()), Counts())
    return {
        "event": "summary",
        "complete": outcome.complete,
        "exit_code": outcome.exit_code,
        "run_id": outcome.run_id,
        "seconds": outcome.seconds,
        **msgspec.to_builtins(counts),
        "continued": outcome.continued,
        "accounts": {name: facts_of(result) for name, result in outcome.results.items()},
        "streams": streams,
    }


def account_rows(outcome: FleetOutcome, height: int | None) -> Rows:
    """The accounts; on a screen of `height` lines those that are not complete, then those with the most changes."""
    results = sorted(outcome.results.values(), key=lambda each: (each.complete, -_changes(each.counts)))
    room = len(results) if height is None else max(height - _BESIDE, _LEAST)
    shown, rest = (results, []) if len(results) <= room else (results[: room - 1], results[room - 1 :])
    rows = [_row(f"{'✓' if each.complete else '✗'} {each.name}", each.outcome, each.counts, each.seconds, each.attempts)
            for each in shown]  # fmt: skip
    if rest:
        counts = sum((each.counts for each in rest), Counts())
        complete = all(each.complete for each in rest)
        rows.append(_row(f"{'✓' if complete else '✗'} {len(rest):,} more", "", counts, sum(x.seconds for x in rest), 0))
    headers = ["  account", "", "read", "new", "changed", "deleted", "requests", "tokens", "seconds", "attempts"]
    # Without the columns that say the same of all, the table fits into 80 columns.
    silent = {1} if outcome.complete else set[int]()
    silent |= {len(headers) - 1} if all(each.attempts <= 1 for each in results) else set()
    headers, *rows = [[cell for at, cell in enumerate(row) if at not in silent] for row in (headers, *rows)]
    return Rows(headers, rows, counts=True)


def _changes(counts: Counts) -> int:
    return counts.inserted + counts.updated + counts.deleted


def _row(name: str, outcome: str, counts: Counts, seconds: float, attempts: int) -> list[Any]:
    figures = (counts.read, counts.inserted, counts.updated, counts.deleted, counts.requests, counts.tokens)
    return [name, outcome, *figures, round(seconds, 1), attempts or None]
