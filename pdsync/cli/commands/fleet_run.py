"""`pdsync fleet sync`, `reconcile`, `export` and `run`: one command for each account, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pdsync.cli import fleet_job
from pdsync.cli.app import App, Command
from pdsync.cli.fleet_job import FleetCommand
from pdsync.cli.fleet_options import Place, Selection, file_option, placing, selecting
from pdsync.cli.job import exit_with
from pdsync.errors import ConfigError
from pdsync.fleet.dispatch import RetryPolicy

if TYPE_CHECKING:
    from pathlib import Path

    from pdsync.fleet.accounts import Account

_NOT_HERE = ("fleet", "demo", "init", "shell", "sandbox", "schedule")


@click.command(cls=Command)
@click.option("--full", is_flag=True, help="Read everything again, not only changes.")
@click.option("--pipeline", "pipeline", metavar="NAME", help="Follow this pipeline, not that of each account.")
@click.option("--budget", type=click.IntRange(min=1), metavar="TOKENS", help="Tokens that each account may spend.")
@click.option("--fail-on-gap", is_flag=True, help="An account with a gap is not complete, whatever the cause.")
@placing
@selecting
@click.pass_obj
def sync(
    app: App,
    selection: Selection,
    place: Place,
    full: bool,
    pipeline: str | None,
    budget: int | None,
    fail_on_gap: bool,
) -> None:
    """Bring every ACCOUNT up to date; without ACCOUNT, all.

    Accounts that were never complete come first, then those that take longest. One that fails is tried again after the
    others, and reported. Safe to interrupt and to repeat: the same command continues an interrupted run, and each
    account goes on where it stopped.

    Exit code 0 if all are complete, 4 if some are not.
    """
    options = [
        *(["--full"] if full else []),
        *(["--budget", str(budget)] if budget else []),
        *(["--fail-on-gap"] if fail_on_gap else []),
    ]

    def for_account(account: Account) -> tuple[str, ...]:
        name = pipeline or account.pipeline
        return ("sync", *options, *(["--pipeline", name] if name else []))

    words = ("sync", *options, *(["--pipeline", pipeline] if pipeline else []))
    _, outcome = fleet_job.carry_out(app, selection, place, FleetCommand(words, for_account))
    fleet_job.show_outcome(app, outcome)
    exit_with(outcome.exit_code)


@click.command(cls=Command)
@click.option("--repair", is_flag=True, help="Read records that differ again, and mark those known to be deleted.")
@click.option("--deep", is_flag=True, help="Compare values too, not only keys, times and flags.")
@click.option("--sample", type=click.IntRange(min=1), metavar="N", help="Compare only N records of each stream.")
@click.option("--budget", type=click.IntRange(min=1), metavar="TOKENS", help="Tokens that each account may spend.")
@placing
@selecting
@click.pass_obj
def reconcile(
    app: App,
    selection: Selection,
    place: Place,
    repair: bool,
    deep: bool,
    sample: int | None,
    budget: int | None,
) -> None:
    """Compare every record of every ACCOUNT with the source; without ACCOUNT, of all.

    An account with differences that are left is not complete. Exit code 0 if all are complete, 4 if some are not.
    """
    words = (
        "reconcile",
        "--exit-code",
        *(["--repair"] if repair else []),
        *(["--deep"] if deep else []),
        *(["--sample", str(sample)] if sample else []),
        *(["--budget", str(budget)] if budget else []),
    )
    _, outcome = fleet_job.carry_out(app, selection, place, FleetCommand(words, lambda _: words))
    fleet_job.show_outcome(app, outcome)
    exit_with(outcome.exit_code)


@click.command(cls=Command)
@click.option("--out", metavar="DIR", help="A folder, or s3://bucket/prefix, that gets a folder account=NAME for each."
              "  [default: data/export of each account]")  # fmt: skip
@click.option("--mask", "masks", multiple=True, metavar="COLUMN=HOW", help="hash, null or keep_domain. Repeatable.")
@click.option("--changes", is_flag=True, help="Also write what each run changed since the last export.")
@click.option("--keep", type=click.IntRange(min=1), metavar="N", help="Keep the newest N snapshots.  [default: all]")
@click.option("--endpoint", metavar="URL", help="An S3 server other than Amazon's.")
@placing
@selecting
@click.pass_obj
def export(
    app: App,
    selection: Selection,
    place: Place,
    out: str | None,
    masks: tuple[str, ...],
    changes: bool,
    keep: int | None,
    endpoint: str | None,
) -> None:
    """Write the tables of every ACCOUNT as Parquet files; without ACCOUNT, of all."""
    options = [
        *(option for mask in masks for option in ("--mask", mask)),
        *(["--changes"] if changes else []),
        *(["--keep", str(keep)] if keep else []),
        *(["--endpoint", endpoint] if endpoint else []),
    ]

    def for_account(account: Account) -> tuple[str, ...]:
        target = ["--out", f"{_absolute(out)}/account={account.name}"] if out else []
        return ("export", "parquet", *options, *target)

    words = ("export", "parquet", *options, *(["--out", out] if out else []))
    _, outcome = fleet_job.carry_out(app, selection, place, FleetCommand(words, for_account))
    fleet_job.show_outcome(app, outcome)
    exit_with(outcome.exit_code)


def _absolute(out: str) -> str:
    """A folder as an absolute path, since commands of accounts may run elsewhere; a URL as it is."""
    from pathlib import Path  # noqa: PLC0415 - for one option

    return out.rstrip("/") if "://" in out else str(Path(out).expanduser().absolute())


@click.command(cls=Command)
@click.argument("command", nargs=-1, required=True, metavar="-- COMMAND...")
@click.option("--account", "names", multiple=True, metavar="NAME", help="Only this account. May be repeated.")
@click.option("--tag", "tags", multiple=True, metavar="T", help="Only accounts with this tag. May be repeated.")
@file_option()
@placing
@click.pass_obj
def run(
    app: App,
    place: Place,
    command: tuple[str, ...],
    names: tuple[str, ...],
    tags: tuple[str, ...],
    file: Path | None,
) -> None:
    """Run any other COMMAND of pdsync for each account, and show what each prints.

    \b
    pdsync fleet run -- sync deals --since 2026-01-01
    pdsync fleet run --tag emea -- sql "select count(*) from deals"
    pdsync fleet run -- queue list

    Exit code 0 if it ended with 0 for all accounts, else 4. With --json each line of a command's output is an object
    with the account's name.
    """
    if command[0] in _NOT_HERE or command[0].startswith("-"):
        raise ConfigError(f"{command[0]!r} is not a command of one account. Nothing was called.")
    request = FleetCommand(
        command, lambda _: command, as_json=app.json, is_continued=False, policy=RetryPolicy(tries=1)
    )
    _, outcome = fleet_job.carry_out(app, Selection(names, tags, file), place, request)
    fleet_job.show_outputs(app, outcome)
    fleet_job.show_outcome(app, outcome)
    exit_with(outcome.exit_code)
