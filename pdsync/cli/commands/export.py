"""`pdsync export`: the warehouse as files for other programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from pdsync.cli import render
from pdsync.cli.app import App, Command, Group
from pdsync.cli.share_done import ShareLine
from pdsync.core import catalogue
from pdsync.core.wording import counted
from pdsync.load.column_masks import Mask
from pdsync.runner.report import parquet as exporting

if TYPE_CHECKING:
    from pdsync.load.export import File


_OTHER = (
    "csv",
    "excel",
    "xlsx",
    "xls",
    "ods",
    "spreadsheet",
    "json",
    "ndjson",
)  # what `pdsync sql` writes, or CSV is for


class _Exports(Group):
    """The formats; of those that `pdsync sql` writes, its command is named."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that is named first in `args`."""
        if args[0].lower() in _OTHER:
            form = args[0].lower() if args[0].lower() in ("json", "ndjson") else "csv"
            spreadsheet = "\nExcel and LibreOffice open it (in Excel: Data > From Text/CSV)." if form == "csv" else ""
            ctx.fail(
                f"pdsync export writes Parquet only. A table, or the answer of any query, as {form.upper()}:\n"
                f'  pdsync sql "from labeled.deals" -o {form} > deals.{form}{spreadsheet}'
            )
        return super().resolve_command(ctx, args)


@click.group(cls=_Exports)
def export() -> None:
    """Write the tables as Parquet files for other programs."""


@export.command(cls=Command)
@click.argument("streams", nargs=-1)
@click.option("--out", metavar="DIR", help="A folder, or s3://bucket/prefix.  [default: data/export]")
@click.option(
    "--mask", "masks", multiple=True, metavar="COLUMN=HOW", help="hash, null or keep_domain. May be repeated."
)
@click.option("--changes", is_flag=True, help="Also write what each run changed since the last export.")
@click.option("--keep", type=click.IntRange(min=1), metavar="N", help="Keep the newest N snapshots.  [default: all]")
@click.option("--compact", default=30, show_default=True, type=click.IntRange(min=1), metavar="N",
              help="Merge the change files of a table when there are more than N.")  # fmt: skip
@click.option("--endpoint", metavar="URL", help="An S3 server other than Amazon's.")
@click.pass_obj
def parquet(
    app: App,
    streams: tuple[str, ...],
    out: str | None,
    masks: tuple[str, ...],
    changes: bool,
    keep: int | None,
    compact: int,
    endpoint: str | None,
) -> None:
    """Write STREAMS as Parquet files; without STREAMS, all tables.

    Each table becomes TABLE/snapshot=TIME/data.parquet; catalog.json, written last, names the complete files.

    \b
    pdsync export parquet --out /srv/lake --mask email=hash --mask phone=null
    pdsync export parquet deals --changes --out s3://bucket/pipedrive
    """
    request = exporting.ExportRequest(
        out or str(app.settings.state / "export"),
        streams,
        tuple(Mask.of(text) for text in masks),
        changes=changes,
        keep=keep or 0,
        most_files=compact,
        endpoint=endpoint,
    )
    with ShareLine(app) as line:
        report = exporting.export_parquet(
            app.settings,
            request,
            lambda table, file: _show_file(app, table, file),
            lambda done, total: line.update(done, total, counted(total - done, "row")),
        )
    files = [*report.written.values(), *report.changed.values()]
    size, rows = sum(file.bytes for file in files), sum(file.rows for file in report.written.values())
    if app.json:
        nothing = {"requests": 0, "tokens": 0, "inserted": 0, "updated": 0, "deleted": 0, "unchanged": 0}
        app.emit(
            {
                "event": "summary",
                "complete": True,
                "exit_code": 0,
                "run_id": report.run,
                "streams": {
                    name: {**nothing, "read": file.rows, "complete": True}
                    for name, file in report.written.items()
                    if name in catalogue.streams()
                },
                "out": report.where,
                "snapshot": report.snapshot,
                "tables": msgspec.to_builtins(report.written),
                "changes": msgspec.to_builtins(report.changed),
                "removed": report.removed,
                "bytes": size,
            }
        )
        return
    changed = f", changes of {len(report.changed)}" if changes else ""
    what = f"{counted(len(report.written), 'table')}{changed}: {counted(rows, 'row')}, {render.size(size)}"
    app.note(f"{what}, in {report.where}")


def _show_file(app: App, table: str, file: File) -> None:
    if app.json:
        app.emit({"event": "file", "table": table, **msgspec.to_builtins(file)})
    elif app.verbosity > 0:
        app.note(f"{file.path}: {counted(file.rows, 'row')}, {render.size(file.bytes)}")
