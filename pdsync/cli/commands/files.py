"""`pdsync files`: contents of attachments, from Pipedrive to a folder and back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import duckdb

from pdsync.cli import render
from pdsync.cli.app import App, Command, Group
from pdsync.cli.commands.api import consent, run, session
from pdsync.cli.layout import Rows
from pdsync.cli.moment import Moment
from pdsync.cli.share_done import ShareLine
from pdsync.cli.tables import show_aside
from pdsync.core import catalogue
from pdsync.core.account import fetch_account
from pdsync.core.config import expand
from pdsync.core.log import clean
from pdsync.core.request_builder import check
from pdsync.core.uploads import file_part
from pdsync.core.wording import counted
from pdsync.errors import ApiError, BadAnswer, ConfigError, Stopped
from pdsync.extract import attachments as contents
from pdsync.extract.download_folder import Folder
from pdsync.model import IncompleteStream
from pdsync.runner import unlocked

if TYPE_CHECKING:
    from datetime import datetime

    from pdsync.core.http import Http
    from pdsync.extract.attachments import DownloadPlan, DownloadReport, FileToFetch
    from pdsync.extract.download_folder import ManifestEntry

# Assumption: Pipedrive takes files of up to 50 MB. The documents name no limit; --max-size allows more.
MOST_UPLOADED = 50


@click.group(cls=Group)
def files() -> None:
    """Download attachments, and upload files."""


@files.command(cls=Command)
@click.argument("file_ids", nargs=-1, type=click.IntRange(1, 2**63 - 1), metavar="[FILE_ID]…")
@click.option("--stream", type=click.Choice(list(contents.LINKS)), help="Files of these records.")
@click.option(
    "--id", "ids", multiple=True, metavar="ID", help="With --stream: only files of this record. May be repeated."
)
@click.option("--all", "everything", is_flag=True, help="Every file that is not deleted.")
@click.option("--since", type=Moment(), help="Files that were added or changed from this time on.")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Where to.  [default: data/files]")
@click.option("--budget", type=click.IntRange(min=1), help="Stop before spending more tokens than this.")
@click.option("--max-size", default=2048, show_default=True, type=click.IntRange(min=1), metavar="MIB",
              help="Skip larger files.")  # fmt: skip
@click.option("--any-size", is_flag=True, help="Keep a file whose size differs from its record.")
@click.option("--dry-run", is_flag=True, help="Show what would be fetched and its cost. Makes no request.")
@click.pass_obj
def download(
    app: App,
    file_ids: tuple[int, ...],
    stream: str | None,
    ids: tuple[str, ...],
    everything: bool,
    since: datetime | None,
    out: Path | None,
    budget: int | None,
    max_size: int,
    any_size: bool,
    dry_run: bool,
) -> None:
    """Download the contents of files: those with a FILE_ID, or a selection of those in the warehouse.

    Costs 20 tokens per file. Complete files are not fetched again, so the same command continues after an interruption.
    Files are named by their ids; DIR/files.ndjson lists their names and the records that they belong to.

    \b
    pdsync files download 42 43
    pdsync files download --stream deals --id 7
    pdsync files download --all --budget 2000
    """
    if not (file_ids or stream or everything or since):
        raise ConfigError("Name the files: FILE_ID…, --stream deals --id 7, --since 2026-01-31 or --all.")
    if (file_ids and (stream or everything or since)) or (ids and not stream) or (everything and stream):
        raise ConfigError("FILE_ID, --stream (with --id) and --all exclude each other: give one of them.")
    if file_ids:
        chosen, linked = _select_by_id(app, dict.fromkeys(file_ids)), 0
    else:
        chosen, linked = _select_from_warehouse(app, stream, ids, since)
    if linked:
        what = "is a link" if linked == 1 else "are links"
        app.note(f"{linked:,} more {what} to Google Drive: there is nothing to download.")
    folder = expand(out).absolute() if out else app.settings.state / "files"
    with Folder(folder) as opened:
        work = _download(app, chosen, opened, budget, max_size * 2**20, any_size=any_size, dry_run=dry_run)
        done, spent, requests = run(app, work)
    if dry_run:
        return
    if not file_ids and not _is_list_complete(app):
        detail = "the list of files was never read to its end, so some are not known: pdsync sync files"
        done.gaps.append(IncompleteStream("files", "incomplete", detail))
        _show_file(app, done.gaps[-1])
    _show(app, done, folder, spent, requests)
    if done.exit_code:
        raise click.exceptions.Exit(done.exit_code)


async def _download(
    app: App,
    chosen: list[FileToFetch],
    folder: Folder,
    budget: int | None,
    most_bytes: int,
    *,
    any_size: bool,
    dry_run: bool,
) -> tuple[DownloadReport, int, int]:
    if dry_run:
        company = None
        if app.settings.control.exists():
            with unlocked.open_control(app.settings) as control:
                company = control.company()
        _announce(
            app,
            contents.plan_download(chosen, folder, company[0] if company else None, any_size=any_size),
            dry_run=True,
        )
        return contents.DownloadReport(), 0, 0
    async with session(app, run_tokens=budget) as http:
        company_id = await _company(app, http)
        planned = contents.plan_download(chosen, folder, company_id, any_size=any_size)
        _announce(app, planned, dry_run=False)
        total, cost = len(planned.todo), planned.cost_tokens
        with ShareLine(app) as line:
            finished = 0

            def on_file(outcome: ManifestEntry | IncompleteStream) -> None:
                nonlocal finished
                finished += 1
                tokens = cost * (total - finished) // total
                line.update(finished, total, f"{counted(total - finished, 'file')} and {counted(tokens, 'token')}")
                _show_file(app, outcome)

            report = await contents.download(
                http,
                planned,
                folder,
                company_id,
                concurrency=app.settings.concurrency,
                most_bytes=most_bytes,
                any_size=any_size,
                on_file=on_file,
            )
        return report, http.budget.spent, http.budget.requests


async def _company(app: App, http: Http) -> int:
    """The company of the token, checked against the project: the same ids name other files elsewhere."""
    identity = await fetch_account(http)
    with unlocked.open_control(app.settings) as control:
        control.check_company(identity.company_id, identity.company_name)
    return identity.company_id


def _announce(app: App, planned: DownloadPlan, *, dry_run: bool) -> None:
    count, existing, cost = len(planned.todo), len(planned.in_folder), planned.cost_tokens
    if app.json:
        event = {"event": "summary", "complete": True, "exit_code": 0} if dry_run else {"event": "started"}
        app.emit({**event, "files": count, "already": existing, "bytes": planned.least_bytes, "tokens": cost})
        return
    day = app.settings.daily_tokens
    share = f", {cost / day:.1%} of a day's {day:,}" if day else ""
    size = f", {render.size(planned.least_bytes)}" if planned.least_bytes else ""
    what = counted(count, "file")
    app.note(f"{what} to fetch{size}: {counted(cost, 'token')}{share}. {existing:,} already here.")


def _show_file(app: App, outcome: ManifestEntry | IncompleteStream) -> None:
    if isinstance(outcome, IncompleteStream):
        if app.json:
            app.emit({"event": "gap", "kind": outcome.kind, "detail": clean(outcome.detail)})
        else:
            app.err.print(clean(f"✗ {outcome.kind}: {outcome.detail}"), style="yellow")
        return
    entry = outcome
    if app.json:
        note = {"note": entry.note} if entry.note else {}
        app.emit({"event": "file", "id": entry.id, "name": entry.name, "path": entry.path, "size": entry.size, **note})
    elif entry.note:
        app.note(f"! {entry.path} ({entry.name}) {entry.note}.")
    elif app.verbosity > 0:
        app.note(f"{entry.path}  {render.size(entry.size)}  {entry.name}")


def _show(app: App, done: DownloadReport, folder: Path, spent: int, requests: int) -> None:
    complete = done.exit_code == 0
    if app.json:
        counts = {"read": done.fetched + done.already, "inserted": done.fetched, "updated": 0, "deleted": 0}
        stream = {"requests": requests, "tokens": spent, **counts, "unchanged": done.already, "complete": complete}
        app.emit(
            {
                "event": "summary",
                "complete": complete,
                "exit_code": done.exit_code,
                "run_id": None,
                "streams": {"files": stream},
                "out": str(folder),
                "fetched": done.fetched,
                "already": done.already,
                "left": done.left,
                "bytes": done.bytes,
                "requests": requests,
                "tokens": spent,
                "gaps": [{"kind": gap.kind, "detail": clean(gap.detail)} for gap in done.gaps],
                "message": clean(str(done.stopped)) if done.stopped else None,
            }
        )
        return
    if done.stopped:
        app.err.print(clean(str(done.stopped)), style="yellow")
    gone = sum(gap.kind != "incomplete" for gap in done.gaps)
    missing = f", {gone:,} missing" if gone else ""
    left = f", {done.left:,} left" if done.left else ""
    app.note(
        f"{done.fetched:,} fetched ({render.size(done.bytes)}), {done.already:,} already here{missing}{left};"
        f" {counted(requests, 'request')}, {counted(spent, 'token')}. They are in {folder}"
    )


# Which files.


def _rows(app: App, where: str, values: list[Any]) -> list[dict[str, Any]]:
    try:
        with unlocked.open_warehouse(app.settings) as warehouse:
            found = warehouse.execute(f"SELECT * FROM main.files WHERE {where} ORDER BY id", values)
            names = [column[0] for column in found.description or ()]
            return [dict(zip(names, row, strict=True)) for row in found.fetchall()]
    except duckdb.CatalogException as error:
        raise ConfigError("The warehouse has no files yet. Read their records: pdsync sync files") from error


def _is_list_complete(app: App) -> bool:
    """Whether a sync has read the list of files to its end."""
    with unlocked.open_warehouse(app.settings) as warehouse:
        return bool(warehouse.execute("SELECT 1 FROM meta.checkpoints WHERE stream = 'files' LIMIT 1").fetchall())


def _select_by_id(app: App, ids: dict[int, None]) -> list[FileToFetch]:
    """The files with these ids; of those that the warehouse does not know, the download requests the record."""
    rows: list[dict[str, Any]] = []
    if app.settings.warehouse.exists():
        try:
            rows = _rows(app, "list_contains(?, id)", [list(ids)])
        except ConfigError:
            rows = []
    in_warehouse = {row["id"]: contents.file_to_fetch(row) for row in rows}
    return [in_warehouse.get(id) or contents.FileToFetch(id, has_record=False) for id in ids]


def _select_from_warehouse(
    app: App, stream: str | None, ids: tuple[str, ...], since: datetime | None
) -> tuple[list[FileToFetch], int]:
    """The files in the warehouse that match, and how many more are only links."""
    where, values = ["_deleted_at IS NULL", "id > 0"], list[Any]()
    if stream:
        where.append(f"{contents.LINKS[stream]} IS NOT NULL")
    if stream and ids:
        where.append(f"list_contains(?, {contents.LINKS[stream]}::VARCHAR)")
        values.append(list(ids))
    if since:
        where.append("coalesce(update_time, add_time) >= ?")
        values.append(since)
    rows = _rows(app, " AND ".join(where), values)
    downloadable = [row for row in rows if row.get("remote_location") != "googledrive"]
    return [contents.file_to_fetch(row) for row in downloadable], len(rows) - len(downloadable)


# Upload.


@files.command(cls=Command)
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PATH…")
@click.option("--deal", type=int, help="The deal that the files belong to.")
@click.option("--person", type=int)
@click.option("--org", type=int)
@click.option("--product", type=int)
@click.option("--activity", type=int)
@click.option("--lead", metavar="UUID")
@click.option("--project-id", "project_id", type=int, metavar="INTEGER", help="A project of Pipedrive.")
@click.option("--max-size", default=MOST_UPLOADED, show_default=True, type=click.IntRange(min=1), metavar="MIB",
              help="Refuse larger files.")  # fmt: skip
@click.option("--yes", is_flag=True, help="Send without asking.")
@click.pass_obj
def upload(app: App, /, paths: tuple[Path, ...], max_size: int, yes: bool, **links: Any) -> None:
    """Upload each PATH, and attach it to a deal, a person, …

    Costs 10 tokens per file. If an upload ends without an answer, the file is not sent again: it may have arrived.
    """
    record_ids = {
        name if name.endswith("_id") else f"{name}_id": value for name, value in links.items() if value is not None
    }
    if not record_ids:
        raise ConfigError(
            "Name the record that the files belong to: --deal 7, --person 7, --org 7, … Nothing was sent."
        )
    operation = catalogue.operation("addFile", "v1")
    calls, rows, total = [], [], 0
    for path in paths:
        part = file_part("file", path)
        size = path.stat().st_size
        if size > max_size * 2**20:
            raise ConfigError(f"{path} has {size:,} bytes; the limit is {max_size} MiB (--max-size). Nothing was sent.")
        if size == 0:
            raise ConfigError(f"{path} is empty. Nothing was sent.")
        calls.append(check(operation, {"file": path, **record_ids}))
        rows.append([part.file_name, render.size(size), part.content_type])
        total += size
    if not app.json and app.verbosity >= 0:
        show_aside(app, Rows(["file", "size", "type"], rows))
    to = ", ".join(f"{name.removesuffix('_id')} {value}" for name, value in record_ids.items())
    cost = len(calls) * (operation.cost or 0)
    what = "a file" if len(calls) == 1 else counted(len(calls), "file")
    consent(app, f"Adding {what} ({render.size(total)}, {counted(cost, 'token')}) to {to}", yes=yes)
    refused = run(app, _upload(app, calls, to), doubtful="the upload under way")
    if refused:
        raise click.exceptions.Exit(5 if refused < len(calls) else 1)


async def _upload(app: App, calls: list[Any], to: str) -> int:
    """Send the files one by one.

    Returns:
        How many were refused.

    Raises:
        ServerTrouble, BadAnswer: it is unknown whether a file arrived. The files after it were not sent.
    """
    sent, refused = list[int](), 0
    async with session(app) as http:
        await _company(app, http)
        for call in calls:
            name = call.files["file"].name
            try:
                record = _record((await http.carry_out(call)).json())
            except ApiError as error:
                refused += 1
                if app.json:
                    app.emit({"event": "refused", "name": name, "detail": clean(str(error))})
                else:
                    app.err.print(clean(f"✗ {name}: {error}"), style="yellow")
                continue
            except BaseException as error:  # also an interruption
                left = len(calls) - len(sent) - refused - 1
                app.err.print(clean(f"✗ {name}: {len(sent)} were uploaded before it, {left} not sent."), style="yellow")
                if not isinstance(error, Stopped | ConfigError):
                    app.note("To see whether it arrived: pdsync api getFiles sort='id DESC' limit=10")
                raise
            id, size = record["id"], call.files["file"].stat().st_size
            sent.append(id)
            if record.get("file_size") not in (None, size):
                app.err.print(clean(f"! {name} has {size:,} bytes, and {record['file_size']} arrived."), style="yellow")
            if app.json:
                app.emit({"event": "uploaded", "id": id, "name": name})
            else:
                app.note(f"✓ {name} is file {id}.")
        spent, requests = http.budget.spent, http.budget.requests
    code = (5 if sent else 1) if refused else 0
    facts = {"uploaded": len(sent), "refused": refused, "ids": sent, "requests": requests, "tokens": spent}
    if app.json:
        app.emit({"event": "summary", "complete": not refused, "exit_code": code, **facts})
    else:
        app.note(f"{len(sent)} uploaded to {to}{f', {refused} refused' if refused else ''}; {counted(spent, 'token')}.")
    return refused


def _record(answer: Any) -> dict[str, Any]:
    """The record of the new file."""
    record = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(record, dict) or not isinstance(record.get("id"), int):
        raise BadAnswer("The answer does not contain the record of a new file. The file may have arrived.")
    return record
