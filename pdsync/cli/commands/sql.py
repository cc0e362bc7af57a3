"""`pdsync sql` and `pdsync shell`: read-only SQL on the warehouse."""

from __future__ import annotations

import csv
import io
import sys
from datetime import datetime  # noqa: TC003 - part of the signatures
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import click
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from pdsync.cli import render
from pdsync.cli.app import App, Command
from pdsync.cli.job import Moment
from pdsync.core import cells
from pdsync.errors import ConfigError
from pdsync.load import results
from pdsync.runner import project

if TYPE_CHECKING:
    from collections.abc import Iterable

FORMATS = ["table", "json", "ndjson", "csv", "parquet"]


@click.command(cls=Command)
@click.argument("query")
@click.option("-o", "--output", type=click.Choice(FORMATS), help="[default: table, or ndjson with --json]")
@click.option("--as-of", type=Moment(), help="Read every table as it was at this time.")
@click.option("--raw-csv", is_flag=True, help="Write values that a spreadsheet would run as formulas unchanged.")
@click.pass_obj
def sql(app: App, query: str, output: str | None, as_of: datetime | None, raw_csv: bool) -> None:
    """Answer QUERY from the warehouse, read-only.

    \b
    pdsync sql "from deals limit 5"
    pdsync sql "select status, count(*), sum(value) from deals group by status" -o csv
    pdsync sql --as-of 2026-01-31 "from labeled.deals where status = 'open'"
    """
    text = sys.stdin.read() if query == "-" else query
    with project.open_warehouse(app.settings, as_of, text) as warehouse:
        answer = ask(warehouse, text)
    _write(app, answer, output or ("ndjson" if app.json else "table"), raw_csv=raw_csv)


def ask(warehouse: duckdb.DuckDBPyConnection, query: str) -> pa.Table:
    """Run `query`.

    Raises:
        ConfigError: DuckDB refuses the query; the message is DuckDB's.
    """
    try:
        relation = warehouse.sql(query)
        return results.fetch_table(relation) if relation is not None else pa.table({})
    except duckdb.Error as error:
        raise ConfigError(f'{str(error).strip()}\nTables: pdsync sql "show all tables"') from error


def _write(app: App, answer: pa.Table, output: str, *, raw_csv: bool) -> None:
    if output == "parquet":
        _write_parquet(answer)
        return
    names, rows = answer.column_names, answer_rows(answer)
    if output == "table":
        app.out.print(render.table(names, rows))
        app.note(f"{answer.num_rows:,} row{'' if answer.num_rows == 1 else 's'}")
    elif output == "csv":
        app.result(_csv(names, rows, raw=raw_csv), end="")
    else:
        facts = [dict(zip(names, row, strict=True)) for row in rows]
        if output == "ndjson":
            for fact in facts:
                app.emit(fact)
        else:
            app.emit_list(facts)


def _write_parquet(answer: pa.Table) -> None:
    if sys.stdout.isatty():
        raise ConfigError("Parquet is binary: redirect it to a file, as in pdsync sql … -o parquet > deals.parquet")
    buffer = io.BytesIO()  # complete before any of it is written
    try:
        pq.write_table(answer, buffer, compression="zstd")
    except pa.ArrowException as error:
        raise ConfigError(
            f"Parquet can't hold this answer: {error}. Nothing was written.\nCast the column to text: column::VARCHAR"
        ) from error
    sys.stdout.buffer.write(buffer.getbuffer())


def answer_rows(answer: pa.Table) -> list[list[Any]]:
    """The rows of an Arrow table as Python values; a value without a Python type becomes text."""
    columns = [results.python_values(column) for column in answer.columns]
    return [list(row) for row in zip(*columns, strict=True)]


def _csv(names: list[str], rows: Iterable[list[Any]], *, raw: bool) -> str:
    """CSV text; a cell that a spreadsheet would run as a formula gets a leading quote, unless `raw`."""

    def csv_cell(value: Any) -> str:
        text = cells.cell_text(value)
        return text if raw or isinstance(value, int | float | Decimal) else cells.guarded(text)

    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(map(csv_cell, names))
    writer.writerows([csv_cell(value) for value in row] for row in rows)
    return buffer.getvalue()


@click.command(cls=Command)
@click.pass_obj
def shell(app: App) -> None:
    """Open a prompt for read-only SQL on the warehouse. End a query with a semicolon; leave with Ctrl-D."""
    with project.open_warehouse(app.settings) as warehouse:
        app.note("Read-only. Try: from deals limit 5;   show all tables;   Ctrl-D leaves.")
        pending = ""
        while True:
            try:
                pending += input("pdsync> " if not pending else "   …> ") + "\n"
            except EOFError:
                app.note("")
                return
            except KeyboardInterrupt:
                pending = ""
                app.note("")
                continue
            if not pending.rstrip().endswith(";"):
                continue
            query, pending = pending.strip().rstrip(";"), ""
            if query in ("exit", "quit", ".exit", ".quit"):
                return
            try:
                answer = ask(warehouse, query)
            except ConfigError as error:
                app.note(str(error))
            else:
                app.out.print(render.table(answer.column_names, answer_rows(answer)))
