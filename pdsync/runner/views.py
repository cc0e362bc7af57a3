"""Brings the views of a work file in line with its tables, and creates them again only if they changed.

Creating some three hundred views takes longer than the rest of a quiet night.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pdsync.core import catalogue
from pdsync.core.views import views
from pdsync.load import sales_views, warehouse
from pdsync.load.transaction import transaction
from pdsync.sql import first

if TYPE_CHECKING:
    from collections.abc import Callable

    import duckdb

    from pdsync.model import Stream, Version
    from pdsync.normalise.tables import Table


def create_views(
    connection: duckdb.DuckDBPyConnection, table_of: Callable[[Stream, Version], Table], timezone: str
) -> None:
    """(Re)create every view whose tables exist, and recompute the stored rows of deals that changed.

    Args:
        connection: to the work file.
        table_of: the table of a stream, created or widened where needed.
        timezone: in which days and months are cut; empty: the zone of the token's user.

    Raises:
        duckdb.Error: nothing was changed.
    """
    existing = warehouse.tables(connection)
    present = [stream for stream in catalogue.streams().values() if stream.name in existing]
    names = {stream.name for stream in present}
    tables = {stream.name: table_of(stream, "v2") for stream in present}
    columns = warehouse.columns_of_tables(connection)
    wanted = []
    for stream in present:
        wanted += _views_of(stream, tables[stream.name], columns[stream.name], names)
    zone = sales_views.timezone_of(connection, timezone, names)
    answers = sales_views.statements(views().values(), names, zone)
    made_of = sales_views.digest([*wanted, *answers, *(f"{name}: {columns[name]}" for name in sorted(names))])
    if first(connection.execute("SELECT any_value(made_of) FROM meta._views"))[0] != made_of:
        with transaction(connection):
            for statement in wanted:
                connection.execute(statement)
            sales_views.create(connection, answers)
            connection.execute("DELETE FROM meta._views")
            connection.execute("INSERT INTO meta._views VALUES (?)", [made_of])
    sales_views.refresh(connection, views().values())


def _views_of(stream: Stream, table: Table, columns: list[str], present: set[str]) -> list[str]:
    """What creates the views of one table: its versions, the lists in it, and its labels."""
    statements = [warehouse.history_view(stream.name)]
    for name, child in stream.children.items():
        items = list(stream.column(child.of).items)
        statements += warehouse.child_views(name, stream.name, stream.key, child.parent, child.of, items, child.value)
    references = {
        column: (other, catalogue.stream(other).key, catalogue.stream(other).title)
        for column, other in stream.labels.items()
        if other in present
    }
    replaced = {column.label_of: column.name for column in table.columns if column.label_of}
    statements.append(warehouse.labeled_view(stream.name, columns, references, replaced))
    return statements
