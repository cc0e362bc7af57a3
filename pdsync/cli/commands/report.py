"""`pdsync report`: one HTML page with the health of the data and the answers of the sales views."""

from __future__ import annotations

import webbrowser
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pdsync.cli.app import App, Command
from pdsync.cli.moment import Moment
from pdsync.core.atomic_file import AtomicFile
from pdsync.errors import ConfigError, PdsyncError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date, datetime


@click.command(cls=Command)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Where to write it.  [default: data/report.html]")  # fmt: skip
@click.option("--open", "is_opened", is_flag=True, help="Show it in the browser.")
@click.option("--since", type=Moment(), help="First day of what it shows.  [default: a year ago]")
@click.option("--no-sales", is_flag=True, help="Only the health of the data.")
@click.option("--no-health", is_flag=True, help="Only the answers about sales.")
@click.pass_obj
def report(
    app: App, output: Path | None, is_opened: bool, since: datetime | None, no_sales: bool, no_health: bool
) -> None:
    """Write one HTML page: how complete and fresh the data is, and what the sales views answer, as charts and tables.

    The file loads nothing and can be sent by mail. It shows sums and counts; of persons, only the owners have names.
    Makes no request. The same data gives the same file.
    """
    if no_sales and no_health:
        raise ConfigError("--no-sales and --no-health leave nothing to show. Nothing was written.")
    path = (output or app.settings.project / "data" / "report.html").absolute()
    size = write_report(
        app, path, since=since.date() if since else None, with_health=not no_health, with_sales=not no_sales
    )
    if app.json:
        app.emit({"path": str(path), "bytes": size})
    else:
        app.result(f"{path}")
        app.note(f"{size / 1024:,.0f} KB, in one file that loads nothing.")
    if is_opened:
        webbrowser.open(path.as_uri())


def write_report(
    app: App, path: Path, *, since: date | None = None, with_health: bool = True, with_sales: bool = True
) -> int:
    """Write the report of the published warehouse to `path`; returns its bytes."""
    from pdsync.runner.report.page.page import render_report  # noqa: PLC0415 - templates are for this command only

    content = render_report(app.settings, since=since, with_health=with_health, with_sales=with_sales)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{path.parent} can't be created: {error.strerror or error}.") from error
    with AtomicFile(path) as file:
        file.write(content)
    return len(content)


@contextmanager
def reporting_to(app: App, path: str) -> Iterator[None]:
    """Write the report to `path` (in the project; empty: not at all) when the block ends, with whatever exit code.

    It is not written if the block raises any other error, or if there is no warehouse yet.

    A report that can't be written is a warning: the job's exit code stays.
    """
    try:
        yield
    except PdsyncError:
        raise
    except click.exceptions.Exit:
        _write_after_job(app, path)
        raise
    _write_after_job(app, path)


def _write_after_job(app: App, path: str) -> None:
    if not path or not app.settings.warehouse.exists():
        return
    target = app.settings.project / path
    if not target.parent.resolve().is_relative_to(app.settings.project.resolve()):
        app.note(f"The report was not written: {path} leads out of the project, by a symbolic link.")
        return
    try:
        size = write_report(app, target)
    except PdsyncError as error:
        app.note(f"The report was not written: {error}")
    else:
        app.note(f"Report: {target}, {size / 1024:,.0f} KB.")
