"""`pdsync fleet sql`, `report`, `rollup` and `remove`: what all accounts have together."""

from __future__ import annotations

import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from pdsync.cli.app import App, Command
from pdsync.cli.commands.archive import confirm
from pdsync.cli.commands.sql import answer_options, ask, show_answer
from pdsync.cli.fleet_options import Selection, file_option, selecting
from pdsync.cli.moment import Moment
from pdsync.core.atomic_file import AtomicFile
from pdsync.core.wording import counted
from pdsync.errors import ConfigError
from pdsync.fleet import accounts, removal
from pdsync.fleet import rollup as rolling
from pdsync.fleet.ask import open_answers

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from pdsync.fleet.accounts import Account, Fleet
    from pdsync.fleet.rollup import RolledUp

_NAMED = 5  # accounts in a message


@click.command(cls=Command)
@click.argument("query")
@answer_options
@file_option()
@click.pass_obj
def sql(app: App, /, query: str, file: Path | None, **shown: Any) -> None:
    """Answer QUERY from the tables of all accounts, read-only.

    \b
    pdsync fleet sql "select account, currency, sum(value) from fleet.deals where status = 'open' group by all"
    pdsync fleet sql "select account, custom_fields->>'Tier' as tier, count(*) from fleet.deals group by all"
    pdsync fleet sql "from fleet.sales_won_by_month where account = 'acme'"
    pdsync fleet sql "from fleet.accounts"

    fleet.NAME has the rows of a stream that is chosen in fleet.toml ([fleet] rollup), fleet.sales_NAME those of a sales
    view, fleet.accounts a row for each account. All have the column account. Money of different currencies is never
    added: group by currency.
    """
    fleet, text = _load(app, file), sys.stdin.read() if query == "-" else query
    with open_answers(fleet, text) as answers:
        answer = ask(answers.connection, text, command="pdsync fleet sql")
    show_answer(app, answer, {}, **shown)
    for table, names in answers.missing.items():
        app.note(f"fleet.{table} has nothing of {_listed(names)}.")
    if changed := rolling.find_changed(fleet):
        app.note(f"Changed since: {_listed(each.name for each in changed)}. To bring that in: pdsync fleet rollup")


@click.command(cls=Command)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Where to write it.  [default: data/fleet/report.html]")  # fmt: skip
@click.option("--open", "is_opened", is_flag=True, help="Show it in the browser.")
@click.option("--since", type=Moment(), help="First day of what it shows.  [default: a year ago]")
@file_option()
@click.pass_obj
def report(app: App, output: Path | None, is_opened: bool, since: datetime | None, file: Path | None) -> None:
    """Write one HTML page over all accounts: health, and sales.

    Shows the health of each account's data, then sales by account and currency. Rolls up the accounts that have
    changed, unless the fleet has a store: there each command has done it. The file loads nothing and can be sent by
    mail. Makes no request to Pipedrive.

    Exit code 4 if an account that has changed can't be rolled up: the page shows it as it was.
    """
    from pdsync.fleet.report import render_fleet  # noqa: PLC0415 - templates are for this command only

    fleet = _load(app, file)
    failed = [result for result in _roll_up(app, fleet, rolling.find_changed(fleet)) if result.error]
    content = render_fleet(fleet, since.date() if since else None)
    path = (output or fleet.data / "report.html").absolute()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{path.parent} can't be created: {error.strerror or error}.") from error
    with AtomicFile(path) as writer:
        writer.write(content)
    if app.json:
        app.emit({"path": str(path), "bytes": len(content)})
    else:
        app.result(f"{path}")
        app.note(f"{len(content) / 1024:,.0f} KB, in one file that loads nothing.")
    if is_opened:
        webbrowser.open(path.as_uri())
    if failed:
        raise click.exceptions.Exit(4)


@click.command(cls=Command)
@click.option("--full", is_flag=True, help="Write all files again, not only those that changed.")
@selecting
@click.pass_obj
def rollup(app: App, selection: Selection, full: bool) -> None:
    """Bring the tables of all accounts together as Parquet.

    With ACCOUNT, only of those. With tables chosen in fleet.toml ([fleet] rollup = ["deals"]) each command of the fleet
    does so too. Files whose content is the same are not written again. Where the fleet has a store, what that has of
    each account is rolled up, and an account that a worker runs is left to it. Makes no request to Pipedrive.

    Exit code 0 if all are rolled up, 4 if some are not.
    """
    fleet, chosen = selection.load(app)
    _refuse_without_tables(fleet)
    results = _roll_up(app, fleet, chosen, full=full)
    failed = [result for result in results if result.error]
    if app.json:
        app.emit(
            {
                "event": "summary",
                "complete": not failed,
                "exit_code": 4 if failed else 0,
                "out": rolling.target_of(fleet).out,
                "accounts": {each.account: msgspec.to_builtins(each) for each in results},
            }
        )
    else:
        written, same = sum(len(each.written) for each in results), sum(each.unchanged for each in results)
        app.note(f"{counted(written, 'file')} written, {same:,} unchanged, in {rolling.target_of(fleet).out}")
        if absent := [each.account for each in results if not each.error and not each.written and not each.unchanged]:
            app.note(f"Nothing to roll up yet: {_listed(absent)}.")
    if failed:
        raise click.exceptions.Exit(4)


@click.command(cls=Command)
@click.argument("name")
@click.option("--yes", is_flag=True, help="Remove without asking.")
@file_option()
@click.pass_obj
def remove(app: App, name: str, yes: bool, file: Path | None) -> None:
    """Remove an account from the roll-up and the store.

    NAME is in fleet.toml no longer. Its folder on this machine stays.
    """
    fleet = accounts.load(app.project, file)
    found = removal.find(fleet, name)
    parts = [f"{counted(found.rolled_up, 'file')} of the roll-up"] if found.rolled_up else []
    parts += [f"{counted(found.stored, 'object')} in {fleet.store}"] if found.stored else []
    confirm(app, f"This removes {' and '.join(parts)} for good", yes=yes)
    removal.remove(fleet, name)
    if app.json:
        app.emit({"account": name, "rolled_up": found.rolled_up, "stored": found.stored})
    else:
        where = f" Its folder stays: {found.folder}" if found.folder else ""
        app.note(f"Nothing of {name} is left in {' and '.join(parts)}.{where}")


def _load(app: App, file: Path | None) -> Fleet:
    """The fleet, which has a roll-up or whose accounts are on this machine.

    Raises:
        ConfigError: no command of the fleet rolls anything up, and it can't be done here.
    """
    fleet = accounts.load(app.project, file)
    _refuse_without_tables(fleet)
    return fleet


def _refuse_without_tables(fleet: Fleet) -> None:
    if fleet.store and not fleet.rollup:
        raise ConfigError(
            f"The accounts are in a store, and no table is chosen to be brought together.\n"
            f'Choose one in {fleet.file}, [fleet]: rollup = ["deals"]. Then: pdsync fleet rollup'
        )


def _roll_up(app: App, fleet: Fleet, chosen: list[Account], *, full: bool = False) -> list[RolledUp]:
    """Roll up the accounts, with a note for each that fails."""

    def on_account(done: RolledUp) -> None:
        if done.error:
            app.note(f"{done.account}: {done.error}", style="yellow")
        elif app.verbosity > 0:
            app.note(f"{done.account}: {counted(len(done.written), 'file')} written, {done.unchanged:,} unchanged")

    if not fleet.store:
        return list(rolling.roll_up(fleet, chosen, on_account, full=full).values())
    from pdsync.fleet import stored_rollup  # noqa: PLC0415 - only with a store

    return list(stored_rollup.roll_up(fleet, chosen, on_account, app.note, full=full).values())


def _listed(names: Iterable[str]) -> str:
    """Accounts by name, the first few."""
    existing = list(names)
    more = f" and {len(existing) - _NAMED} more" if len(existing) > _NAMED else ""
    return ", ".join(existing[:_NAMED]) + more
