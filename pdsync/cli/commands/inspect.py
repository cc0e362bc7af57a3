"""Commands that only show: runs, streams, operations, fields. None of them makes a request."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
import msgspec

from pdsync.cli import ids, receipts, tables
from pdsync.cli.app import App, Command, Group
from pdsync.cli.ids import IdCommand
from pdsync.cli.layout import Rows
from pdsync.core import catalogue
from pdsync.runner import project
from pdsync.runner.reconcile import rotation

if TYPE_CHECKING:
    from pdsync.model import Proof, Receipt

_VERIFIED = {
    "every_sync": "every sync", "in_turn": "in turn", "by_count": "in turn, by count",
    "by_record": "in turn, by record", "once": "read once", "never": "never",
}  # fmt: skip


def listing(app: App, rows: list[dict[str, Any]], headers: list[str], empty: str) -> None:
    """Show rows as JSON objects, one per line, or as a table of the columns `headers`; `empty` if there are none."""
    if app.json:
        for row in rows:
            app.emit(row)
    elif rows:
        names = [header.replace("_", " ") for header in headers]
        tables.show(app, Rows(names, [[r[h] for h in headers] for r in rows], counts=True, hints=tables.JSON))
    else:
        app.note(empty)


@click.group(cls=Group, invoke_without_command=True)
@click.option("--last", "-n", default=20, show_default=True, type=click.IntRange(min=1), help="How many.")
@click.pass_context
def runs(context: click.Context, last: int) -> None:
    """List the last runs, newest first; `runs show`, `runs show RUN_ID` and `runs show -2` show a receipt."""
    if context.invoked_subcommand:
        return
    app: App = context.obj
    rows = []
    for run in _newest_runs(app, last):
        total = {
            name: sum(getattr(e, name) for e in run.streams.values())
            for name in ("read", "inserted", "updated", "deleted")
        }
        rows.append(
            {
                "name": run.run_id,
                "run_id": run.run_id,
                "command": run.command,
                "started_at": run.started_at,
                "seconds": round((run.finished_at - run.started_at).total_seconds(), 1) if run.finished_at else None,
                "complete": run.complete,
                "exit_code": run.exit_code if run.finished_at else None,
                **total,
                "requests": run.requests,
                "tokens": run.tokens,
            }
        )
    listing(app, rows, list(rows[0])[1:] if rows else [], "Nothing has run yet: pdsync sync")


@runs.command(cls=IdCommand, name="show")
@click.argument("run_id", default="last")
@click.pass_obj
def show_run(app: App, run_id: str) -> None:
    """Show the receipt of RUN_ID: an id or its beginning; `last`, the default; -2 for the one before it."""
    newest = {run.run_id: run for run in _newest_runs(app, ids.from_last(run_id) or 10_000)}
    run = newest[ids.find("run", list(newest), run_id, "List them: pdsync runs")]
    if app.json:
        app.emit({"name": run.run_id, **msgspec.to_builtins(run), "complete": run.complete})
        return
    seconds = (run.finished_at - run.started_at).total_seconds() if run.finished_at else 0.0
    app.note(f"{run.run_id}: {run.command}, {run.started_at:%Y-%m-%d %H:%M:%S} UTC\n")
    receipts.show_receipt(app, run, seconds)
    proofs = [(name, entry.proof) for name, entry in run.streams.items() if entry.proof]
    if proofs:
        headers = ["  proof", "at the source", "counted", "here", "differences left", "verified", "longest unseen"]
        app.err.print()
        tables.show_aside(app, Rows(headers, [_proof_row(name, proof) for name, proof in proofs], counts=True))


def _proof_row(name: str, proof: Proof) -> list[Any]:
    whole = proof.at_source is not None and proof.left == 0
    return [f"{'✓' if whole else '·'} {name}", proof.at_source, proof.counted_at, proof.here, proof.left,
            f"{proof.verified:.0%}", proof.oldest_verified_at]  # fmt: skip


def _newest_runs(app: App, last: int) -> list[Receipt]:
    """The receipts of the newest `last` runs, newest first; none where there is no project yet."""
    if not app.settings.control.exists():
        return []
    with project.opened(app.settings) as control:
        return control.receipts(last)


@click.command(cls=Command)
@click.argument("streams", nargs=-1)
@click.pass_obj
def streams(app: App, streams: tuple[str, ...]) -> None:
    """List the streams: key, cursor, how changes are found and rows are verified, and the cost of a page.

    Rows are verified by every sync; in turn within the verify cycle: whole, by the counts of other records, or by a
    request for each record if limits.dependents_share suffices. "read once": they do not change. "never": the content
    depends on parameters. What the lists of a stream leave out, and no parameter asks for, is listed below.
    """
    selected = [catalogue.stream(name) for name in streams] or list(catalogue.streams().values())
    rows = []
    for stream in selected:
        version, sources = stream.sources(app.settings.api)
        operations = [catalogue.operations(version)[source.operation] for source in sources]
        rows.append(
            {
                "name": stream.name,
                "key": stream.key,
                "cursor": stream.cursor,
                "changes": sources[0].way,
                "read": "when named" if stream.optional else "always",
                "asked_once_a": sorted(stream.parents(app.settings.api)),
                "version": version,
                "operations": sorted({operation.id for operation in operations}),
                "lists": len(sources),
                "tokens_a_page": max(operation.cost or 0 for operation in operations),
                "rows_a_page": min(operation.page_size or 0 for operation in operations) or None,
                "deletes": "listed" if stream.deleted else "not shown",
                "verified": _VERIFIED[rotation.way_of(stream, app.settings.api)],
                "leaves_out": stream.leaves_out,
                "tables": [stream.name, *stream.children],
            }
        )
    listing(app, rows, [name for name in rows[0] if name != "leaves_out"], "")
    if not app.json:
        partial = [f"{row['name']} leaves out {row['leaves_out']}." for row in rows if row["leaves_out"]]
        app.note("\n".join(["", *partial]) if partial else "")


@click.command(cls=Command)
@click.argument("words", nargs=-1)
@click.option("--version", type=click.Choice(["v1", "v2"]), help="Only operations of this API version.")
@click.option("--all", "everything", is_flag=True, help="Include operations that Pipedrive has removed.")
@click.pass_obj
def operations(app: App, words: tuple[str, ...], version: str | None, everything: bool) -> None:
    """List the operations of the API; with WORDS, those whose id or path contains all of them."""
    rows = [
        {
            "operation_id": operation.id,
            "version": operation.version,
            "method": operation.method,
            "path": operation.path,
            "tokens": operation.cost,
            "paging": operation.paging,
            "state": "removed" if operation.removed else "deprecated" if operation.deprecated else "",
            "replaced_by": operation.replaced_by,
        }
        for api_version in catalogue.VERSIONS
        if version in (None, api_version)
        for operation in catalogue.operations(api_version).values()
        if (everything or not operation.removed or app.json)
        and all(word.lower() in f"{operation.id} {operation.path}".lower() for word in words)
    ]
    headers = ["operation_id", "version", "method", "path", "tokens", "state"]
    listing(app, rows, headers, "No operation matches. List all: pdsync operations --all")


@click.command(cls=Command)
@click.argument("entity", required=False)
@click.pass_obj
def fields(app: App, entity: str | None) -> None:
    """List the custom fields: label in Pipedrive, column in the warehouse, type, options."""
    if entity:
        catalogue.stream(entity)
    with project.open_warehouse(app.settings) as warehouse:
        rows = warehouse.execute(
            "SELECT column_name, entity, field_code, label, field_type, first_seen, last_seen, (SELECT list(o.label"
            " ORDER BY TRY_CAST(o.option_id AS BIGINT)) FROM meta.field_options o WHERE o.entity = f.entity AND"
            " o.field_code = f.field_code) AS options FROM meta.custom_fields f WHERE ? IS NULL OR entity = ?"
            " ORDER BY entity, column_name",
            [entity, entity],
        ).fetchall()
    names = ["name", "entity", "code", "label", "type", "first_seen", "last_seen", "options"]
    records = [dict(zip(names, row, strict=True)) for row in rows]
    listing(
        app,
        [{**row, "column": row["name"], "age": _format_age(row["last_seen"])} for row in records],
        ["entity", "column", "label", "type", "options", "code"],
        "No custom fields have been synced.",
    )


def _format_age(moment: datetime | None) -> str:
    return "" if moment is None else str(datetime.now(UTC) - moment.astimezone(UTC)).split(".", 1)[0]
