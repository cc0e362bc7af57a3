"""`pdsync fleet check`: whether every account can run: its settings, its token, its folder, its server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import msgspec

from pdsync.cli import fleet_job
from pdsync.cli.app import App, Command
from pdsync.cli.fleet_job import FleetCommand
from pdsync.cli.fleet_options import Place, Selection, placing, selecting
from pdsync.core.wording import counted
from pdsync.fleet.accounts import KEYRING, settings_of
from pdsync.fleet.check import Problem, find_blocked, find_problems
from pdsync.fleet.dispatch import RetryPolicy

if TYPE_CHECKING:
    from pdsync.fleet.accounts import Account
    from pdsync.fleet.job import AccountResult


@click.command(cls=Command)
@click.option("--no-requests", "is_offline", is_flag=True, help="Check the file, tokens and folders only.")
@placing
@selecting
@click.pass_obj
def check(app: App, selection: Selection, place: Place, is_offline: bool) -> None:
    """Check every ACCOUNT: fleet.toml, its token, its folder, its server; without ACCOUNT, all.

    Runs `pdsync doctor` for each account, for 2 tokens each, on the workers that would sync it. Exit code 0 if all
    checks pass, 4 if one fails. With --json: an object for each problem, then a summary.
    """
    fleet, accounts = selection.load(app)
    problems = find_problems(fleet, accounts) if not place.scheduler else []  # a worker's tokens are not here
    if not is_offline:
        command = FleetCommand(
            ("doctor",), lambda _: ("doctor",), is_continued=False, is_listing=True, policy=RetryPolicy(tries=1)
        )
        _, outcome = fleet_job.carry_out(app, selection, place, command)
        named = {problem.name for problem in problems}
        problems += [
            problem
            for result in outcome.results.values()
            if not result.complete and result.name not in named
            for problem in _of_doctor(result, fleet.accounts[result.name])
        ]
    failed = find_blocked(problems, accounts)
    if app.json:
        for problem in problems:
            app.emit(msgspec.to_builtins(problem))
        app.emit({"event": "summary", "complete": not failed, "exit_code": 4 if failed else 0, "streams": {},
                  "accounts": {account.name: {"ok": account.name not in failed} for account in accounts}})  # fmt: skip
    else:
        for problem in problems:
            app.result(f"✗ {problem.name or 'fleet'}: {problem.detail}")
            app.result("    " + problem.fix.replace("\n", "\n    "))
        ready = f"{len(accounts) - len(failed):,} of {counted(len(accounts), 'account')}"
        app.result(f"{'✗' if failed else '✓'} {ready} {'is' if len(accounts) == 1 else 'are'} ready.")
    if failed:
        raise click.exceptions.Exit(4)


def _of_doctor(result: AccountResult, account: Account) -> list[Problem]:
    """The failed checks of a doctor, without those that it could not make; its message, where it came to none."""
    checks = [line for line in map(_object, result.output.splitlines()) if line.get("ok") is False]
    if not checks:
        return [Problem(result.name, result.message or "pdsync doctor failed.", "pdsync fleet check -v")]
    made = [each for each in checks if each["fix"] != "See above."]
    return [
        Problem(result.name, f"{each['name']}: {each['detail']}", _fix_for(account, each))
        for each in made or checks  # whatever fails, the account is not ready
    ]


def _fix_for(account: Account, check: dict[str, Any]) -> str:
    """What to do about a failed check of an account: a fleet gives each its own token, in its own folder."""
    if check["name"] == "token" and account.token == KEYRING:
        address = settings_of(account).base_url
        return f"Store one in its folder: PDSYNC_BASE_URL={address} pdsync --project {account.folder} auth login"
    if check["name"] in ("token", "account"):
        return f"fleet.toml has {account.token} as its token."
    return str(check["fix"])


def _object(line: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(line, type=dict[str, Any])
    except msgspec.DecodeError:
        return {}
