"""`pdsync sql` and `pdsync shell`: read-only SQL on the warehouse."""

from __future__ import annotations

import csv
import difflib
import io
import re
import sys
from datetime import datetime  # noqa: TC003 - part of the signatures
from decimal import Decimal
from typing import TYPE_CHECKING, Any, get_args

import click
import duckdb
import pyarrow as pa
from msgspec import structs

from pdsync.cli import layout, tables
from pdsync.cli.app import App, Command
from pdsync.cli.interruption import query_interruptible
from pdsync.cli.layout import Hints, Rows
from pdsync.cli.moment import Moment
from pdsync.core import cells
from pdsync.core.wording import counted
from pdsync.errors import ConfigError
from pdsync.load import comments, project_views, results
from pdsync.runner import unlocked
from pdsync.runner.report.observed import latest, observed_from, streams_of, unobserved

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

FORMS: tuple[tables.Form, ...] = get_args(tables.Form)
FORMATS = [*FORMS, "json", "ndjson", "csv", "parquet"]
_HINTS = Hints(
    columns="See them with -o vertical or -o glimpse, or choose: --columns {columns}",
    empty="--all shows them",
    rows="a file or pipe gets all",
)
_SHELL_HINTS = Hints(columns="See them with .mode vertical or .mode glimpse, or select fewer.", rows="add a limit")


def answer_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of how an answer is shown."""
    options = (
        click.option("-o", "--output", type=click.Choice(FORMATS), help="[default: table, or ndjson with --json]"),
        click.option("--columns", metavar="A,B", help="Only these columns, in this order."),
        click.option("--all", "everything", is_flag=True, help="Show columns that are empty in every row, too."),
        click.option(
            "--raw-csv", is_flag=True, help="Write values that a spreadsheet would run as formulas unchanged."
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command(cls=Command)
@click.argument("query")
@answer_options
@click.option("--as-of", type=Moment(), help="Read every table as it was at this time.")
@click.option("--strict", is_flag=True, help="With --as-of: exit with 4 if that time is before the first sync.")
@click.pass_obj
def sql(app: App, /, query: str, as_of: datetime | None, strict: bool, **shown: Any) -> None:
    """Answer QUERY from the warehouse, read-only.

    \b
    pdsync sql "from deals limit 5"
    pdsync sql "select status, count(*), sum(value) from deals group by status" -o csv
    pdsync sql --as-of 2026-01-31 "from labeled.deals where status = 'open'"

    A table fits the terminal: few rows are turned; of many columns the first are shown and the others named, ids
    beside a name among them. What is
    taller than the screen opens in $PAGER (less). vertical shows one record below the other, glimpse a line for each
    column. A file or pipe gets everything. Before the first sync the past is not known: a warning says so, and with
    JSON each row has observed_from, the time from which on it is.
    """
    text = sys.stdin.read() if query == "-" else query
    with unlocked.open_warehouse(app.settings, as_of, text) as warehouse:
        answer = ask(warehouse, text, app.settings.project)
    warning, since = None, None
    if as_of is not None:
        with unlocked.open_warehouse(app.settings) as warehouse:
            observed, streams = observed_from(warehouse), streams_of(text)
        warning, since = unobserved(observed, streams, as_of), latest(observed, streams)
    show_answer(app, answer, {"observed_from": since} if warning else {}, **shown)
    if warning:
        app.note(warning)
        if strict:
            raise click.exceptions.Exit(4)


def show_answer(
    app: App,
    answer: pa.Table,
    marks: dict[str, Any],
    *,
    output: str | None,
    columns: str | None,
    everything: bool,
    raw_csv: bool,
) -> None:
    """Show an answer as `answer_options` say; `marks` are added to each row of JSON, unless it has such columns."""
    if columns:
        answer = answer.select(_positions(answer.column_names, columns))
    output = output or ("ndjson" if app.json else "table")
    if output in FORMS:
        _show(app, answer, output, structs.replace(_HINTS, empty="") if everything else _HINTS)
    else:
        _write(app, answer, output, raw_csv=raw_csv, marks=marks)


def _positions(names: list[str], columns: str) -> list[int]:
    """The positions of the columns that --columns names."""
    by_name = {name.lower(): index for index, name in reversed(list(enumerate(names)))}
    try:
        wanted = [name.strip() for name in next(csv.reader([columns]))]
    except csv.Error as error:
        raise ConfigError(f"--columns is {columns!r}. It is written like --columns id,title ({error}).") from error
    for name in wanted:
        if name.lower() not in by_name:
            near = difflib.get_close_matches(name.lower(), by_name, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ConfigError(f"The answer has no column {name}.{hint}\nIt has: {', '.join(names)}")
    return [by_name[name.lower()] for name in wanted]


def _show(app: App, answer: pa.Table, form: tables.Form, hints: Hints) -> None:
    """Show an answer to people; a terminal gets the first rows of a long one, and their true count."""
    drawn = answer if tables.terminal_width(app.out) is None else answer.slice(0, layout.MOST_ROWS)
    types = _types(answer) if form == "glimpse" else []
    rows = Rows(answer.column_names, answer_rows(drawn), total=answer.num_rows, hints=hints, is_data=True)
    tables.show(app, rows, form, types)
    app.note(counted(answer.num_rows, "row"))


def _types(answer: pa.Table) -> list[str]:
    """The types of an answer's columns, as DuckDB names them."""
    with duckdb.connect() as database:
        types = database.from_arrow(answer.slice(0, 0)).types
    return [str(each).replace("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ") for each in types]


def ask(
    warehouse: duckdb.DuckDBPyConnection, query: str, project_folder: Path | None = None, command: str = "pdsync sql"
) -> pa.Table:
    """Run `query`, which was given to `command`.

    Raises:
        ConfigError: DuckDB refuses the query; the message is DuckDB's, with hints about macros and own views.
    """

    def work() -> pa.Table:
        relation = warehouse.sql(query)
        return results.fetch_table(relation) if relation is not None else pa.table({})

    try:
        return query_interruptible(warehouse, work)
    except duckdb.Error as error:
        lines = [str(error).strip(), *_hints(warehouse, query, project_folder), f'Tables: {command} "show all tables"']
        raise ConfigError("\n".join(lines)) from error


def _hints(warehouse: duckdb.DuckDBPyConnection, query: str, project_folder: Path | None) -> list[str]:
    """What a query that failed misses: the parameters of a macro, or views that no run has created yet."""
    named = query.lower().replace('"', "")
    hints = [
        f"{macro.schema}.{macro.name} takes parameters: from {macro.call}"
        for macro in comments.macros(warehouse)
        if re.search(rf"\b{re.escape(f'{macro.schema}.{macro.name}')}\b(?!\s*\(\s*[^\s)])", named)
    ]
    created = {f"{each.schema}.{each.name}".lower() for each in comments.relations(warehouse)}
    for file in sorted((project_folder / "views").glob("*.sql")) if project_folder else ():
        view = f"{project_views.SCHEMA}.{file.stem}".lower()
        if view not in created and re.search(rf"\b{re.escape(view)}\b", named):
            hints.append(f"views/{file.name} is no view yet: the next sync creates it, or says why not: pdsync sync")
    return hints


def _write(app: App, answer: pa.Table, output: str, *, raw_csv: bool, marks: dict[str, Any]) -> None:
    """Write an answer for programs; `marks` are added to each row of JSON, unless it has columns of those names."""
    if output == "parquet":
        _write_parquet(answer)
        return
    names, rows = answer.column_names, answer_rows(answer)
    if output == "csv":
        app.result(_csv(names, rows, raw=raw_csv), end="")
    else:
        keys = _distinct(names)
        facts = [marks | dict(zip(keys, row, strict=True)) for row in rows]
        if output == "ndjson":
            for fact in facts:
                app.emit(fact)
        else:
            app.emit_list(facts)


def _distinct(names: list[str]) -> list[str]:
    """The columns' names as keys of an object: one that was there before, as in a join, is followed by a number."""
    taken, keys = set(names), list[str]()
    for name in names:
        key, number = name, 0
        while key in keys or (number and key in taken):
            number += 1
            key = f"{name}_{number}"
        keys.append(key)
    return keys


def _write_parquet(answer: pa.Table) -> None:
    if sys.stdout.isatty():
        raise ConfigError("Parquet is binary: redirect it to a file, as in pdsync sql … -o parquet > deals.parquet")
    import pyarrow.parquet as pq  # noqa: PLC0415 - slow to import, and rarely needed

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


def _chosen_form(app: App, typed: str) -> tables.Form | None:
    """The form that `.mode` chooses; any other command is answered with a note."""
    command, _, choice = typed.partition(" ")
    if command == ".mode" and choice in FORMS:
        return choice
    app.note(f"Not a command: {typed}. There are .mode {' or '.join(FORMS)}, and .exit.")
    return None


@click.command(cls=Command)
@click.pass_obj
def shell(app: App) -> None:
    """Open a prompt for read-only SQL on the warehouse. End a query with a semicolon; leave with Ctrl-D.

    `.mode vertical` shows one record below the other, `.mode glimpse` a line for each column, `.mode table` tables.
    """
    form: tables.Form = "table"
    with unlocked.open_warehouse(app.settings) as warehouse:
        app.note("Read-only. Try: from deals limit 5;   show all tables;   Ctrl-D leaves.")
        pending = ""
        while True:
            prompt = "   …> " if pending else "pdsync> "
            try:
                pending += input(prompt if sys.stdin.isatty() else "") + "\n"
            except EOFError:
                app.note("")
                return
            except KeyboardInterrupt:
                pending = ""
                app.note("")
                continue
            is_command = pending.startswith(".")
            if not is_command and not pending.rstrip().endswith(";"):
                continue
            query, pending = pending.strip().rstrip(";"), ""
            if query in ("exit", "quit", ".exit", ".quit"):
                return
            if is_command:
                form = _chosen_form(app, query) or form
                continue
            try:
                answer = ask(warehouse, query, app.settings.project)
            except ConfigError as error:
                app.note(str(error))
            except KeyboardInterrupt:
                app.note("Interrupted.")
            else:
                _show(app, answer, form, _SHELL_HINTS)
