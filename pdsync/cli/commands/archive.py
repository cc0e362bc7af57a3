"""`pdsync replay`, `pdsync raw` and `pdsync forget`: jobs on the raw archive, without a request."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click
import msgspec

from pdsync.cli import render
from pdsync.cli.app import App, Command, Group
from pdsync.cli.interruption import run_interruptible
from pdsync.cli.job import show_receipt
from pdsync.cli.progress import Expected, Progress
from pdsync.core.log import clean
from pdsync.core.wording import counted
from pdsync.errors import ConfigError
from pdsync.runner import project
from pdsync.runner.archive import erase as forgetting
from pdsync.runner.archive import replay as replaying
from pdsync.runner.archive import upkeep
from pdsync.runner.session import Event

if TYPE_CHECKING:
    from pdsync.runner.archive.upkeep import Fault


@click.command(cls=Command)
@click.argument("streams", nargs=-1)
@click.option("--accept-loss", is_flag=True, help="Replay even if pages are missing that the warehouse was built from.")
@click.pass_obj
def replay(app: App, streams: tuple[str, ...], accept_loss: bool) -> None:
    """Rebuild the tables of STREAMS from the raw archive; without STREAMS, the whole warehouse.

    Makes no request. Tables, histories and the schema log are the same as before; after an upgrade they also have the
    new columns of the catalogue, filled for the past too. Readers see the old warehouse until the new one is complete.
    """
    rows = replaying.count_sealed_rows(app.settings, streams) if app.is_watched else {}
    with Progress(app, {name: Expected(0, rows=count) for name, count in rows.items()}) as progress:
        for name in rows:
            progress(Event("selected", name))
        report = run_interruptible(replaying.replay(app.settings, streams, progress, accept_loss=accept_loss))
    show_receipt(app, report, report.exit_code)
    if report.exit_code:
        raise click.exceptions.Exit(report.exit_code)


@click.group(cls=Group)
def raw() -> None:
    """Verify the archive of answers, and remove old ones. It has the sealed answers that the tables are built from."""


@raw.command(cls=Command)
@click.pass_obj
def verify(app: App) -> None:
    """Read every sealed page and compare it with its checksum; exit code 4 if one is missing or damaged.

    Changes nothing. If all pages are whole, a replay can rebuild everything.
    """
    result = upkeep.verify(app.settings, lambda fault: _show_fault(app, fault))
    code = 4 if result.faults else 0
    if app.json:
        facts = {"pages": result.pages, "bytes": result.bytes, "faults": len(result.faults), "unnamed": result.unnamed}
        facts |= {"unindexed": result.unindexed}
        app.emit({"event": "summary", "complete": not result.faults, "exit_code": code, **facts})
    else:
        if result.unnamed:
            app.note(f"Files without a page in use: {len(result.unnamed):,}; pdsync raw prune removes them in time.")
        if result.unindexed:
            app.note(f"Pages not in control.db yet: {result.unindexed:,}; the next sync or replay indexes them.")
        state = f"{len(result.faults):,} missing or damaged" if result.faults else "all whole"
        app.note(f"{counted(result.pages, 'page')} ({render.size(result.bytes)}): {state}.")
    if code:
        raise click.exceptions.Exit(code)


def _show_fault(app: App, fault: Fault) -> None:
    if app.json:
        app.emit(msgspec.to_builtins(fault))
    else:
        what = f"page {fault.seq} of walk {fault.walk} ({fault.stream})" if fault.stream else "a part of the file"
        app.result(clean(f"{fault.name}: {what} is {fault.kind}"))
        app.note(f"  {fault.detail}\n  {fault.advice}")


@raw.command(cls=Command)
@click.option("--keep-days", type=click.IntRange(min=0), metavar="N", help="Keep the last N days.  [default: 30]")
@click.option("--damaged", is_flag=True, help="Also remove damaged pages whose list was read in full since.")
@click.option("--dry-run", is_flag=True, help="Show what would be removed.")
@click.option("--yes", is_flag=True, help="Remove without asking.")
@click.pass_obj
def prune(app: App, keep_days: int | None, damaged: bool, dry_run: bool, yes: bool) -> None:
    """Remove sealed pages that no replay needs.

    A walk that wrote anything is kept for good: rows, versions, deletions, schema changes. A walk that found no change
    only shows how fresh the rows were, so the newest of each list is enough. Pages younger than retention.raw_days, and
    pages that are not loaded yet, are kept.
    """
    with project.locked(app.settings) as control:
        days = app.settings.raw_days if keep_days is None else keep_days
        planned = upkeep.plan_prune(app.settings, control, days, damaged=damaged)
        what = f"{counted(len(planned.pages), 'page')} of {counted(len(planned.walks), 'walk')},"
        what += f" {counted(len(planned.unnamed), 'unused file')}"
        if not dry_run and (planned.pages or planned.unnamed):
            confirm(app, f"This removes {what} ({render.size(planned.bytes)}) for good", yes=yes)
            upkeep.prune(app.settings, control, planned)
    if app.json:
        facts = {"pages": len(planned.pages), "walks": len(planned.walks), "unnamed": planned.unnamed}
        facts |= {"bytes": planned.bytes, "dry_run": dry_run}
        app.emit({"event": "summary", "complete": True, "exit_code": 0, **facts})
    else:
        app.note(f"{'Would remove' if dry_run else 'Removed'} {what}: {render.size(planned.bytes)}.")


def confirm(app: App, what: str, *, yes: bool) -> None:
    """Ask before removing data that can't be restored.

    Raises:
        ConfigError: there is no terminal to ask at, and --yes was not given.
        click.Abort: the answer is no.
    """
    if yes:
        return
    if app.no_input or not sys.stdin.isatty():
        raise ConfigError(f"{what}. Nothing was removed; add --yes if you mean it.")
    click.confirm(clean(f"{what}. Continue?"), abort=True, err=True)


@click.group(cls=Group)
def forget() -> None:
    """Remove a person's data from tables, history and archive. Downloaded and uploaded files are removed, too."""


@forget.command(cls=Command)
@click.argument("id", type=int)
@click.option("--also", multiple=True, metavar="TEXT", help="Another text that identifies the person. May be repeated.")
@click.option("--dry-run", is_flag=True, help="Show what would be removed.")
@click.option("--yes", is_flag=True, help="Remove without asking.")
@click.pass_obj
def person(app: App, id: int, also: tuple[str, ...], dry_run: bool, yes: bool) -> None:
    """Forget the person ID: remove their records, and mentions of them in other records.

    Cleans the sealed answers and rebuilds the warehouse from them, without a request. Ids alone are kept. Delete the
    person in Pipedrive first, or the next sync brings them back. Earlier exports are not changed.
    """
    if not dry_run:
        what = f"This removes person {id} from everything under {app.settings.state} and {app.settings.raw} for good"
        confirm(app, what, yes=yes)
    report = run_interruptible(forgetting.forget_person(app.settings, id, also, app.note, dry_run=dry_run))
    if app.json:
        facts = msgspec.to_builtins(report)
        app.emit({"event": "summary", "complete": True, "exit_code": 0, "dry_run": dry_run, **facts})
        return
    if report.resumed and dry_run:
        app.note(
            f"Person {id}: a run that forgets them was interrupted. The same command without --dry-run completes it."
        )
        return
    if report.resumed:
        app.note(f"Person {id}: the interrupted run is completed. The warehouse was rebuilt.")
    if report.resumed and not report.pages:
        return
    for title, counts in (("records removed", report.records), ("records that mentioned them", report.mentions)):
        app.note(f"{title}: " + (", ".join(f"{count:,} {name}" for name, count in counts.items()) or "none"))
    app.note(
        f"{counted(report.pages, 'sealed page')} in {counted(report.raw_files, 'raw file')},"
        f" {counted(report.downloads, 'downloaded file')}, {counted(report.uploads, 'file')} kept for uploads,"
        + (
            " and texts of the queue, which a dry run does not count."
            if report.cells is None
            else f" {report.cells:,} other texts; the warehouse was rebuilt."
        )
    )
    if report.shared:
        app.note(
            f"{report.shared} of their names also belong to others, or are a single word: kept where no id shows that"
            f" this person is meant. To remove one everywhere: --also TEXT"
        )
