"""Creates the views of schemas/views in the work file, and stores the rows of those that would be slow.

What a deal went through (its states, visits of stages, changes) is computed with windows over all its changes. That is
too slow for each query of a large company, so the rows of deals with recorded changes are stored, and recomputed for
those deals only whose versions or log have changed. Most deals have one version and no log: their rows are computed by
each query.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from pdsync.core.targets import FILE
from pdsync.core.views import CHOSEN_TIMEZONE, TIMEZONE, USER_TIMEZONE
from pdsync.load.comments import execute_all
from pdsync.load.transaction import transaction
from pdsync.load.warehouse import tables
from pdsync.sql import first, literal, quoted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    import duckdb

    from pdsync.core.targets import Target
    from pdsync.core.views import View

SCOPE = "_scope"  # the deals that are being recomputed
TRACKED = "_tracked"  # the deals whose rows are stored, and of what they were made
RECORDED = "_recorded"  # the view of the deals with recorded changes
_CATALOGUE = "catalogue"


class Timezones(Struct, frozen=True):
    """Where days and months of the views are cut, as names that DuckDB knows."""

    user: str  # of the token's user; UTC where it is not known
    chosen: str = ""  # by the setting; empty: the user's, and Pipedrive's own dates where it has them

    def fill(self, query: str) -> str:
        """`query` with the zones in place of their names."""
        chosen = literal(self.chosen) if self.chosen else "NULL::VARCHAR"
        filled = query.replace(TIMEZONE, literal(self.chosen or self.user)).replace(CHOSEN_TIMEZONE, chosen)
        return filled.replace(USER_TIMEZONE, literal(self.user))


def timezones_of(connection: duckdb.DuckDBPyConnection, setting: str, streams: Collection[str]) -> Timezones:
    """The time zones of the views.

    Args:
        connection: to the work file.
        setting: the user's choice; empty: none.
        streams: those that have a table.
    """
    query = "SELECT timezone_name FROM main.users JOIN pg_timezone_names() z ON z.name = timezone_name WHERE is_you"
    row = first(connection.execute(query)) if "users" in streams else None
    return Timezones(str(row[0]) if row else "UTC", setting)


def statements(views: Iterable[View], streams: Collection[str], timezones: Timezones) -> list[str]:
    """What creates every view whose needs are met, in order.

    Args:
        views: each after those that it needs.
        streams: those that have a table.
        timezones: for the queries.
    """
    existing = set(streams)
    made: list[str] = []
    listed: list[str] = []
    for view in views:
        if (query := view.choose_query(existing)) is None:
            continue
        existing.add(view.name)
        name, body = quoted(view.schema, view.base_name), timezones.fill(query.sql).strip()
        if view.parameters:
            made.append(f"CREATE MACRO {name}({', '.join(map(quoted, view.parameters))}) AS TABLE {body}")
            made.append(f"COMMENT ON MACRO TABLE {name} IS {literal(view.comment)}")
        else:
            made.append(f"CREATE VIEW {name} AS {body}")
            made.append(f"COMMENT ON VIEW {name} IS {literal(view.comment)}")
            made += [
                f"COMMENT ON COLUMN {name}.{quoted(column)} IS {literal(text)}" for column, text in view.columns.items()
            ]
        if view.stored_in:
            made += _stored(quoted(view.schema, view.stored_in), f"FROM {name}", f"Stored rows of {view.name}.")
        if view.base_name == RECORDED:
            tracked, scope = quoted(view.schema, TRACKED), quoted(view.schema, SCOPE)
            made += _stored(tracked, f"FROM {name}", "The deals whose rows are stored, and of what they were made.")
            made += _stored(scope, f"SELECT deal_id FROM {name}", "The deals that are being recomputed; else empty.")
        if view.question:
            row = (view.question, view.call, view.name, view.comment, view.insights)
            listed.append(f"({', '.join(map(literal, row))})")
    if listed:
        made.append(
            f"CREATE VIEW {quoted('sales', _CATALOGUE)} AS SELECT * FROM (VALUES {', '.join(listed)})"
            ' AS v("question", "call", "view", "definition", "insights")'
        )
        about = "The views that answer a question: one row for each."
        made.append(f"COMMENT ON VIEW {quoted('sales', _CATALOGUE)} IS {literal(about)}")
    return made


def _stored(table: str, query: str, comment: str) -> list[str]:
    """What creates an empty table for the rows of `query`."""
    return [f"CREATE TABLE {table} AS {query} LIMIT 0", f"COMMENT ON TABLE {table} IS {literal(comment)}"]


def create(connection: duckdb.DuckDBPyConnection, wanted: list[str]) -> None:
    """Replace the schema `sales`, and the views of `meta`, by `wanted`; with the stored rows, which are empty then."""
    for schema, kind, name in connection.execute(
        "SELECT schema_name, 'VIEW', view_name FROM duckdb_views() WHERE database_name = current_database()"
        " AND schema_name IN ('sales', 'meta') AND NOT internal"
        " UNION ALL SELECT schema_name, 'TABLE', table_name FROM duckdb_tables()"
        " WHERE database_name = current_database() AND schema_name = 'sales'"
        " UNION ALL SELECT DISTINCT schema_name, 'MACRO TABLE', function_name FROM duckdb_functions()"
        " WHERE database_name = current_database() AND schema_name = 'sales' AND function_type = 'table_macro'"
    ).fetchall():
        connection.execute(f"DROP {kind} IF EXISTS {quoted(schema, name)}")
    for statement in wanted:
        if not statement.startswith("COMMENT ON"):
            connection.execute(statement)
    execute_all(connection, [statement for statement in wanted if statement.startswith("COMMENT ON")])


def store_targets(connection: duckdb.DuckDBPyConnection, targets: Sequence[Target]) -> None:
    """Replace the rows of meta.targets by `targets`."""
    with transaction(connection):
        connection.execute("DELETE FROM meta.targets")
        for target in targets:
            row = [getattr(target, name) for name in target.__struct_fields__]
            connection.execute("INSERT INTO meta.targets VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)


def unknown_ids(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """A message for each id in targets.csv of a user or pipeline that does not exist: its line would show 0 won.

    Whether it exists is known at the end of a run, which may have read it for the first time; before users or pipelines
    were ever read it is not known at all.
    """
    messages = []
    existing = tables(connection)
    for column, table in (("owner_id", "users"), ("pipeline_id", "pipelines")):
        if table not in existing:
            continue
        known = f"FROM {quoted('main', table)}"
        rows = connection.execute(
            f"SELECT line, {quoted(column)} FROM meta.targets WHERE {quoted(column)} NOT IN (SELECT id {known})"
            f" AND EXISTS ({known}) ORDER BY line"
        ).fetchall()
        messages += [
            f"{FILE}, line {line}: {column} is {id}, which is none of the {table}: no deal counts for it. Expected: an"
            f' id from pdsync sql "select id, name from {table}".'
            for line, id in rows
        ]
    return messages


def refresh(connection: duckdb.DuckDBPyConnection, views: Iterable[View]) -> int:
    """Recompute the stored rows of each deal that has changed; all of them, or none.

    A deal is due when its row, its number of versions or log entries, or a stage differ from what its stored rows were
    made of: no clock decides.

    Returns:
        How many deals were recomputed.
    """
    if not has_table(connection, TRACKED):
        return 0
    recorded, tracked, scope = quoted("sales", RECORDED), quoted("sales", TRACKED), quoted("sales", SCOPE)
    with transaction(connection):
        connection.execute(
            f"CREATE OR REPLACE TEMP TABLE due AS SELECT coalesce(r.deal_id, t.deal_id) AS deal_id, r.made_of"
            f" FROM {recorded} r FULL JOIN {tracked} t ON t.deal_id = r.deal_id"
            f" WHERE r.made_of IS DISTINCT FROM t.made_of"
        )
        due = int(first(connection.execute("SELECT count(*) FROM temp.due"))[0])
        if not due:
            return 0
        connection.execute(f"INSERT INTO {scope} SELECT deal_id FROM temp.due WHERE made_of IS NOT NULL")
        for view in views:
            if view.stored_in:
                table = quoted("sales", view.stored_in)
                connection.execute(f"DELETE FROM {table} WHERE deal_id IN (SELECT deal_id FROM temp.due)")
                connection.execute(f"INSERT INTO {table} FROM {quoted(view.schema, view.base_name)}")
        connection.execute(f"DELETE FROM {tracked} WHERE deal_id IN (SELECT deal_id FROM temp.due)")
        connection.execute(f"INSERT INTO {tracked} SELECT deal_id, made_of FROM temp.due WHERE made_of IS NOT NULL")
        connection.execute(f"DELETE FROM {scope}")
    return due


def computed(table: str) -> str:
    """The query that shows what the stored `table` of schema `sales` would have, computed at once."""
    if table == TRACKED:
        return f"FROM {quoted('sales', RECORDED)}"
    if table == SCOPE:
        return f"SELECT deal_id FROM {quoted('sales', RECORDED)}"
    return f"FROM {quoted('sales', table.replace(TRACKED, ''))}"


def clock_at(view: str, moment: str) -> str:
    """The statement of the view `sales._clock`, with the SQL expression `moment` in place of the newest reading.

    It stays an aggregate: without one the view would have a row for each run, and none before the first.
    """
    return view.replace("max(as_of)", f"coalesce(max({moment}), {moment})")


def has_table(connection: duckdb.DuckDBPyConnection, table: str) -> bool:
    """Whether schema `sales` has the table."""
    return bool(
        first(
            connection.execute(
                "SELECT count(*) FROM duckdb_tables() WHERE database_name = current_database()"
                " AND schema_name = 'sales' AND table_name = ?",
                [table],
            )
        )[0]
    )
