"""`pdsync describe`: what the tables of the warehouse and their columns are. It makes no request."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, NamedTuple, get_args

import click

from pdsync.cli import overview, tables
from pdsync.cli.app import App, Command
from pdsync.cli.layout import Rows
from pdsync.core import catalogue
from pdsync.core.comments import defaults
from pdsync.core.views import views
from pdsync.errors import ConfigError
from pdsync.load import comments
from pdsync.load.comments import Macro, Named
from pdsync.model import Topic
from pdsync.runner import unlocked

if TYPE_CHECKING:
    from collections.abc import Sequence

    import duckdb

    from pdsync.cli.layout import Line

_ALSO = (
    "Most are also labeled.TABLE, with names in place of ids, and history.TABLE, with every version. Columns of one:"
    " pdsync describe TABLE"
)


_SCHEMAS = ("main", "sales", "my", "meta")  # `my`: the user's own views


class Listed(NamedTuple):
    """A table, view or macro in the list."""

    name: str  # without the schema main; of a macro with its parameters
    rows: int | None  # None: a view or macro
    comment: str | None

    @property
    def schema(self) -> str:
        """The schema, which the names of main are without."""
        return self.name.split(".", 1)[0] if "." in self.name else "main"


@click.command(cls=Command)
@click.argument("table", required=False)
@click.option("--all", "everything", is_flag=True, help="List every table, on a terminal too.")
@click.pass_obj
def describe(app: App, table: str | None, everything: bool) -> None:
    """List the columns of TABLE: type, what they are, unit, what they reference. Without TABLE: the tables.

    \b
    pdsync describe
    pdsync describe deals
    pdsync describe sales
    pdsync describe sales.funnel
    pdsync describe sales.funnel_on

    With a schema (main, sales, my, meta) instead of TABLE, its tables. Without either, a terminal shows the tables by
    topic; --all, a file or a pipe lists every table.

    The same texts are comments in the warehouse, which other programs show. Views have no row count. A name with
    parameters is a macro: from sales.funnel_on('2026-06-30').
    """
    with unlocked.open_warehouse(app.settings) as warehouse:
        relations, macros = comments.relations(warehouse), comments.macros(warehouse)
        if table is None or table in _SCHEMAS:
            listed = [each for each in list_tables(warehouse, relations, macros) if table in (None, each.schema)]
            if app.json:
                for each in listed:
                    app.emit({"name": each.name, "rows": each.rows, "comment": each.comment})
                return
            if overview.is_wanted(app, everything=everything or table is not None):
                overview.show(app, *lay_out_tables(listed, app.out.width))
                return
            tables.show(app, list_rows(listed), may_page=False)
            app.note(f"\n{_ALSO}")
            return
        relation = find([*relations, *macros], table)
        columns = read_columns(warehouse, relation)
    if app.json:
        for name, kind, comment in columns:
            app.emit({"name": name, "type": kind, "comment": comment})
        return
    call = f"\nIt takes parameters: from {relation.call}" if isinstance(relation, Macro) else ""
    app.note(f"{relation.comment or 'There is no comment on it.'}{call}\n")
    tables.show(app, column_rows(columns))


def read_columns(warehouse: duckdb.DuckDBPyConnection, relation: Named | Macro) -> list[tuple[str, str, str | None]]:
    """The columns of a table, view or macro, in order: name, type, comment."""
    if isinstance(relation, Named):
        return comments.columns(warehouse, relation.schema, relation.name)
    view = views().get(f"{relation.schema}.{relation.name}")
    texts = defaults().sales | (view.columns if view else {})
    return [(name, kind, texts.get(name)) for name, kind in comments.macro_columns(warehouse, relation)]


def list_tables(
    warehouse: duckdb.DuckDBPyConnection, relations: Sequence[Named], macros: Sequence[Macro] = ()
) -> list[Listed]:
    """The tables, views and macros of main, sales, my and meta, except pdsync's own building blocks."""
    shown = [each for each in relations if each.schema in _SCHEMAS and not each.name.startswith("_")]
    counts = comments.count_rows(warehouse, [(each.schema, each.name) for each in shown if each.is_table])
    listed = [Listed(_short(each), counts.get((each.schema, each.name)), each.comment) for each in shown]
    listed += [Listed(each.call, None, each.comment) for each in macros if not each.name.startswith("_")]
    return sorted(listed, key=lambda each: _SCHEMAS.index(each.schema))


def find(relations: Sequence[Named | Macro], table: str) -> Named | Macro:
    """The table, view or macro called `table`, with or without its schema, and parameters.

    Raises:
        ConfigError: there is none; the message has similar names, but none of a building block.
    """
    name = table.partition("(")[0].strip().lower()
    for each in relations:  # main comes first
        if name in (f"{each.schema}.{each.name}".lower(), each.name.lower()):
            return each
    names = [_short(each) for each in relations if not each.name.startswith("_")]
    near = difflib.get_close_matches(name, names, n=3)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise ConfigError(f"The warehouse has no table {table}.{hint}\nList them: pdsync describe")


def list_rows(listed: Sequence[Listed]) -> Rows:
    """The list of tables, to be shown."""
    return Rows(["table", "rows", "comment"], listed, counts=True)


def lay_out_tables(listed: Sequence[Listed], width: int) -> list[list[Line]]:
    """The overview: the tables by topic, the largest first with their rows, and the views that answer questions."""
    topics: dict[str, str] = {}
    for stream in catalogue.streams().values():
        topics |= dict.fromkeys((stream.name, *stream.children), stream.topic)
    by_topic: dict[str, list[Listed]] = {topic: [] for topic in (*get_args(Topic), "other")}
    for each in listed:
        if each.schema == "main":
            by_topic[topics.get(each.name, "other")].append(each)
    groups = [
        overview.Group(
            topic,
            [len(group)],
            [
                f"{each.name} {each.rows:,}" if each.rows else each.name
                for each in sorted(group, key=lambda each: ("_" in each.name, -(each.rows or 0)))
            ],
        )
        for topic, group in by_topic.items()
        if group
    ]
    views = [
        overview.Group(f"{schema}.*", [len(names)], names)
        for schema in _SCHEMAS[1:]
        if (names := [each.name.split(".", 1)[1] for each in listed if each.schema == schema])
    ]
    return [
        overview.lay_out_groups(["topic", "tables", "tables, and how many rows they have"], groups, width),
        overview.lay_out_groups(
            ["schema", "tables", "answers about sales, your own views, what pdsync did"], views, width, most_lines=3
        ),
        overview.lay_out_commands(
            [
                ("Columns of one", "pdsync describe deals"),
                ("Names in place of ids", "pdsync describe labeled.deals"),
                ("Each view with its question", "pdsync describe sales"),
                ("Every table", "pdsync describe --all"),
            ],
            width,
        ),
    ]


def column_rows(columns: Sequence[tuple[str, str, str | None]]) -> Rows:
    """The columns of a table, to be shown; comments that do not fit are below their columns."""
    rows = [
        (name, kind.replace("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ"), [comment] if comment else [])
        for name, kind, comment in columns
    ]
    return Rows(["column", "type", "comment"], rows, notes=True)


def _short(relation: Named | Macro) -> str:
    return relation.name if relation.schema == "main" else f"{relation.schema}.{relation.name}"
