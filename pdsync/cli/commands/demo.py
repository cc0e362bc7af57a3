"""`pdsync demo`: a first sync, changes, a second sync and SQL, in half a minute and without an account."""

from __future__ import annotations

import os
import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from pdsync.cli import tables
from pdsync.cli.app import App, Command
from pdsync.cli.commands.report import write_report
from pdsync.cli.commands.sql import answer_rows, ask
from pdsync.cli.commands.sync import carry_out
from pdsync.cli.job import show_receipt
from pdsync.cli.layout import Rows
from pdsync.core import config
from pdsync.errors import ConfigError
from pdsync.runner import unlocked
from pdsync.runner.sync.sync_request import SyncRequest

if TYPE_CHECKING:
    from pdsync.core.config import Settings
    from pdsync.model import Receipt

FOLDER = Path("pdsync-demo")
_MARK = ".pdsync-demo"  # only a folder with this file may be emptied
_FUNNEL = """
select pipeline, stage, currency, deals, value, average from sales.funnel where deals >= 3 limit 12
"""
_CHANGED = """
select id, title, lag(status) over version as was, status as now, lag(value) over version as value_was,
       value as value_now, _valid_from as since
from history.deals
window version as (partition by id order by _valid_from)
qualify was is not null and _deleted_at is null
order by was = now, value_was = value_now, id limit 5
"""


@click.command(cls=Command)
@click.option("--deals", default=2_000, show_default=True, type=click.IntRange(min=0), help="The size of the company.")
@click.option("--seed", default=7, show_default=True, help="Another seed, another company.")
@click.pass_obj
def demo(app: App, deals: int, seed: int) -> None:
    """Sync a made-up company into DuckDB, let it work for a day, sync the changes, and ask the first question.

    Starts a local Pipedrive with that company; nothing leaves this machine. The warehouse stays in the folder
    pdsync-demo, or in --project DIR.
    """
    from pdsync.sandbox import Limits, Sizes, generate_company, running  # noqa: PLC0415 - only this command needs it

    folder = _empty_folder(app.project if app.project != Path() else FOLDER)
    app.note(f"1. A made-up company with {deals:,} deals, behind a local Pipedrive with the limits of the real one.\n")
    company = generate_company(seed=seed, sizes=Sizes(deals=deals), now=datetime.now(UTC) - timedelta(days=1))
    with running(company, limits=Limits(burst=40, daily_tokens=30_000)) as box:
        os.environ["PDSYNC_API_TOKEN"] = box.token
        settings = config.load(folder, {"account.base_url": box.url, "limits.burst": 40})
        app.__dict__["settings"] = settings
        app.project = Path(folder.name) if folder.parent == Path.cwd() else folder
        app.note("2. The first sync reads everything.\n")
        first = _sync(app, settings)
        app.note("\n3. Where do the open deals stand? One SQL query on sales.funnel:\n")
        _show(app, settings, _FUNNEL)
        app.note(
            "\n4. The company works for a day: edits, wins, new deals, a deletion. The second sync reads only that.\n"
        )
        box.change(share=0.02, advance_s=86_400)
        second = _sync(app, settings)
    page = settings.project / "data" / "report.html"
    size = write_report(app, page)
    app.note("\n5. Earlier versions of a row are kept in history.*: the deals that changed, then and now.\n")
    _show(app, settings, _CHANGED)
    program = "pdsync" if shutil.which("pdsync") else sys.argv[0]
    command = f"{program}{app.project_option}"
    app.note(
        f"\nThe warehouse is {settings.warehouse}: open it with any DuckDB from 1.5 on.\n"
        f"The report is {page} ({size / 1024:,.0f} KB): open it with a browser. Try next:\n\n"
        f'  {command} sql "from labeled.deals limit 5"\n'
        f'  {command} sql "show all tables"\n'
        f"  {command} fields\n"
        f"  {command} status\n\n"
        f"With your own company:  {program} init, {program} sync"
    )
    code = first.exit_code or second.exit_code
    if app.json:
        app.emit({"event": "summary", "complete": not code, "exit_code": code, "run_id": second.run_id,
                  "streams": msgspec.to_builtins(second.streams), "first": msgspec.to_builtins(first)})  # fmt: skip
    if code:
        raise click.exceptions.Exit(code)


def _empty_folder(folder: Path) -> Path:
    """The demo's folder, empty. Only a folder that an earlier demo made is emptied."""
    folder = folder.absolute()
    if folder.exists() and any(folder.iterdir()):
        if not (folder / _MARK).exists():
            raise ConfigError(
                f"{folder} contains files that no demo created. Nothing was changed; name another folder: "
                f"pdsync --project DIR demo"
            )
        shutil.rmtree(folder)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / _MARK).write_text("Created by `pdsync demo`, which empties this folder when it runs again.\n")
    return folder


def _sync(app: App, settings: Settings) -> Receipt:
    receipt = carry_out(app, settings, SyncRequest())
    if not app.json:
        show_receipt(app, receipt, receipt.exit_code)
    return receipt


def _show(app: App, settings: Settings, query: str) -> None:
    with unlocked.open_warehouse(settings) as warehouse:
        answer = ask(warehouse, query)
    if not app.json:
        tables.show(app, Rows(answer.column_names, answer_rows(answer), is_data=True), may_page=False)
