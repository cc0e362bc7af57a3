"""`pdsync describe`: what the tables of the warehouse and their columns are. It makes no request."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, NamedTuple

import click

from pdsync.cli import tables
from pdsync.cli.app import App, Command
from pdsync.cli.layout import Rows
from pdsync.errors import ConfigError
from pdsync.load import comments
from pdsync.runner import project

if TYPE_CHECKING:
    from collections.abc import Sequence

    import duckdb

    from pdsync.load.comments import Named

_ALSO = (
    "Most are also labeled.TABLE, with names in place of ids, and history.TABLE, with every version. Columns of one:"
    " pdsync describe TABLE"
)


class Listed(NamedTuple):
    """A table or view in the list."""

    name: str  # without the schema main
    rows: int | None  # None: a view
    comment: str | None


@click.command(cls=Command)
@click.argument("table", required=False)
@click.pass_obj
def describe(app: App, table: str | None) -> None:
    """Show the columns of TABLE: type, what they are, unit, what they reference. Without TABLE: list the tables.

    \b
    pdsync describe
    pdsync describe deals
    pdsync describe sales.funnel

    The same texts are comments in the warehouse, which other programs show. Views have no row count.
    """
    with project.open_warehouse(app.settings) as warehouse:
        relations = comments.relations(warehouse)
        if table is None:
            listed = list_tables(warehouse, relations)
            if app.json:
                for each in listed:
                    app.emit(each._asdict())
                return
            tables.show(app, list_rows(listed), may_page=False)
            app.note(f"\n{_ALSO}")
            return
        relation = find(relations, table)
        columns = comments.columns(warehouse, relation.schema, relation.name)
    if app.json:
        for name, kind, comment in columns:
            app.emit({"name": name, "type": kind, "comment": comment})
        return
    app.note(f"{relation.comment or 'There is no comment on it.'}\n")
    tables.show(app, column_rows(columns))


def list_tables(warehouse: duckdb.DuckDBPyConnection, relations: Sequence[Named]) -> list[Listed]:
    """The tables and views of main, sales, my and meta, except pdsync's own building blocks."""
    listed = ("main", "sales", "my", "meta")
    shown = [each for each in relations if each.schema in listed and not each.name.startswith("_")]
    counts = comments.count_rows(warehouse, [(each.schema, each.name) for each in shown if each.is_table])
    return [Listed(_short(each), counts.get((each.schema, each.name)), each.comment) for each in shown]


def find(relations: Sequence[Named], table: str) -> Named:
    """The table or view called `table`, with or without its schema.

    Raises:
        ConfigError: there is none; the message has similar names.
    """
    for each in relations:  # main comes first
        if table.lower() in (f"{each.schema}.{each.name}".lower(), each.name.lower()):
            return each
    names = [_short(each) for each in relations]
    near = difflib.get_close_matches(table.lower(), names, n=3)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise ConfigError(f"The warehouse has no table {table}.{hint}\nList them: pdsync describe")


def list_rows(listed: Sequence[Listed]) -> Rows:
    """The list of tables, to be shown."""
    return Rows(["table", "rows", "comment"], listed, counts=True)


def column_rows(columns: Sequence[tuple[str, str, str | None]]) -> Rows:
    """The columns of a table, to be shown; comments that do not fit are below their columns."""
    rows = [
        (name, kind.replace("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ"), [comment] if comment else [])
        for name, kind, comment in columns
    ]
    return Rows(["column", "type", "comment"], rows, notes=True)


def _short(relation: Named) -> str:
    return relation.name if relation.schema == "main" else f"{relation.schema}.{relation.name}"
