"""`pdsync replay`, `pdsync raw` and `pdsync forget`: what is done with the raw archive, without a request."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING

import click
import msgspec

from pdsync.cli import render
from pdsync.cli.app import App, Command, Group
from pdsync.cli.job import show
from pdsync.core.log import clean
from pdsync.errors import ConfigError
from pdsync.runner import project
from pdsync.runner.archive import erase as forgetting
from pdsync.runner.archive import replay as replaying
from pdsync.runner.archive import upkeep

if TYPE_CHECKING:
    from pdsync.runner.archive.upkeep import Fault


@click.command(cls=Command)
@click.argument("streams", nargs=-1)
@click.option("--accept-loss", is_flag=True, help="Also where pages are missing that the warehouse was made from.")
@click.pass_obj
def replay(app: App, streams: tuple[str, ...], accept_loss: bool) -> None:
    """Rebuild the tables of STREAMS from the raw archive: the whole warehouse, when none is named.

    Makes no request. Tables, histories and the schema log come out as they were; after an upgrade, with the columns
    that the catalogue has now, filled for the past too. Readers see the old warehouse until the new one is finished.
    """
    began = time.monotonic()
    with render.Progress(app) as progress:
        done = asyncio.run(replaying.replay(app.settings, streams, progress, accept_loss=accept_loss))
    show(app, done, time.monotonic() - began, done.exit_code)
    if done.exit_code:
        raise click.exceptions.Exit(done.exit_code)


@click.group(cls=Group)
def raw() -> None:
    """The raw archive: the sealed answers that everything else is made from."""


@raw.command(cls=Command)
@click.pass_obj
def verify(app: App) -> None:
    """Read every sealed page and compare it with its checksum; ends with 4 if one is missing or damaged.

    Changes nothing. Without a fault, a replay can rebuild everything.
    """
    found = upkeep.verify(app.settings, lambda fault: _show_fault(app, fault))
    code = 4 if found.faults else 0
    if app.json:
        facts = {"pages": found.pages, "bytes": found.bytes, "faults": len(found.faults), "unnamed": found.unnamed}
        facts |= {"unindexed": found.unindexed}
        app.emit({"event": "summary", "complete": not found.faults, "exit_code": code, **facts})
    else:
        if found.unnamed:
            app.note(f"{len(found.unnamed)} files hold no page that counts; pdsync raw prune removes them in time.")
        if found.unindexed:
            app.note(f"{found.unindexed:,} pages are not in control.db yet: the next sync or replay indexes them.")
        state = f"{len(found.faults):,} are not whole" if found.faults else "all whole"
        app.note(f"{found.pages:,} pages ({render.size(found.bytes)}): {state}.")
    if code:
        raise click.exceptions.Exit(code)


def _show_fault(app: App, fault: Fault) -> None:
    if app.json:
        app.emit(msgspec.to_builtins(fault))
    else:
        what = f"page {fault.seq} of walk {fault.walk} ({fault.stream})" if fault.stream else "a part of it"
        app.result(clean(f"{fault.name}: {what} is {fault.kind}"))
        app.note(f"  {fault.detail}\n  {fault.advice}")


@raw.command(cls=Command)
@click.option("--keep-days", type=click.IntRange(min=0), metavar="N", help="Leave the last N days.  [default: 30]")
@click.option("--damaged", is_flag=True, help="Also give up damaged pages whose list was read whole since.")
@click.option("--dry-run", is_flag=True, help="Say what would be removed.")
@click.option("--yes", is_flag=True, help="Remove without asking.")
@click.pass_obj
def prune(app: App, keep_days: int | None, damaged: bool, dry_run: bool, yes: bool) -> None:
    """Remove sealed pages that no replay needs.

    A walk stays for good if it wrote anything: rows, versions, deletions, schema changes. One that found everything as
    it was tells only how fresh that was, so just the newest of each list stays. Nothing younger than
    retention.raw_days is removed, and nothing that is not loaded.
    """
    with project.locked(app.settings) as control:
        days = app.settings.raw_days if keep_days is None else keep_days
        planned = upkeep.plan(app.settings, control, days, damaged=damaged)
        what = f"{len(planned.pages):,} pages of {len(planned.walks):,} walks, {len(planned.unnamed):,} unused files"
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
    """Ask before something is removed that can't be had again.

    Raises:
        ConfigError: nobody is there to be asked, and --yes was not given.
    """
    if yes:
        return
    if app.no_input or not sys.stdin.isatty():
        raise ConfigError(f"{what}. Nothing was removed; add --yes if you mean it.")
    click.confirm(clean(f"{what}. Go on?"), abort=True, err=True)


@click.group(cls=Group)
def forget() -> None:
    """Remove what must not be kept: from tables, histories, sealed answers and downloaded files."""


@forget.command(cls=Command)
@click.argument("id", type=int)
@click.option("--also", multiple=True, metavar="TEXT", help="Another text that names them. May be repeated.")
@click.option("--dry-run", is_flag=True, help="Say what would be removed.")
@click.option("--yes", is_flag=True, help="Remove without asking.")
@click.pass_obj
def person(app: App, id: int, also: tuple[str, ...], dry_run: bool, yes: bool) -> None:
    """Forget the person ID: their records go, and no other record names them any more.

    Cleans the sealed answers and makes the warehouse anew from them, without a request. Bare ids stay. Delete the
    person in Pipedrive first: what it still shows comes back with the next sync. Exports made before are not touched.
    """
    if not dry_run:
        what = f"This removes person {id} from everything under {app.settings.state} and {app.settings.raw} for good"
        confirm(app, what, yes=yes)
    done = asyncio.run(forgetting.forget_person(app.settings, id, also, dry_run=dry_run))
    if app.json:
        facts = msgspec.to_builtins(done)
        app.emit({"event": "summary", "complete": True, "exit_code": 0, "dry_run": dry_run, **facts})
        return
    if done.resumed:
        app.note(f"Person {id}: what an interrupted run had begun is done now. The warehouse was made anew.")
        return
    for title, counts in (("records removed", done.records), ("records that named them", done.mentions)):
        app.note(f"{title}: " + (", ".join(f"{count:,} {name}" for name, count in counts.items()) or "none"))
    app.note(
        f"{done.pages:,} sealed pages in {done.raw_files:,} raw files, {done.downloads:,} downloaded files,"
        f" {done.cells:,} other texts{'.' if dry_run else '; the warehouse was made anew.'}"
    )
    if done.shared:
        app.note(
            f"{done.shared} of their names are others' too, or one word: left where nothing points to this person."
            f" To remove one everywhere: --also TEXT"
        )
