"""Brings the views and comments of a work file in line with its tables, and makes them again only where they changed.

Some three hundred views and seven thousand comments take longer than the rest of a quiet night: those of a stream are
made again when its columns, its custom fields or their labels change, those of schema sales when any column does.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from pdsync.core import catalogue
from pdsync.core.comments import defaults, meta, of_meta
from pdsync.core.views import views
from pdsync.load import sales_views, warehouse
from pdsync.load.comments import Relation, add_missing, execute_all
from pdsync.load.comments import statements as comment_statements
from pdsync.load.transaction import transaction
from pdsync.load.warehouse import LabeledColumn
from pdsync.runner import comments
from pdsync.writeback.record_names import STREAM_OF_TYPE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import duckdb

    from pdsync.model import Stream, Version
    from pdsync.normalise.tables import Table

_SALES, _META = "sales", "meta"  # the parts that are no stream


def create_views(
    connection: duckdb.DuckDBPyConnection, table_of: Callable[[Stream, Version], Table], timezone: str
) -> None:
    """Create views, and set comments, of what changed; recompute the stored rows of deals that changed.

    Args:
        connection: to the work file.
        table_of: the table of a stream, created or widened where needed.
        timezone: in which days and months are cut; empty: the zone of the token's user, and Pipedrive's own dates.

    Raises:
        duckdb.Error: views and comments are all as before, or all made; the stored rows are as before, or empty.
    """
    existing = warehouse.tables(connection)
    present = [stream for stream in catalogue.streams().values() if stream.name in existing]
    names = {stream.name for stream in present}
    tables = {stream.name: table_of(stream, "v2") for stream in present}
    columns = warehouse.columns_of_tables(connection)
    fields = comments.custom_fields(connection)
    options = _options(connection)
    wanted = {
        stream.name: _of_stream(
            stream, tables[stream.name], columns[stream.name], names, fields, options.get(stream.name, {})
        )
        for stream in present
    }
    wanted[_META] = _of_meta(connection)
    answers = sales_views.statements(views().values(), names, sales_views.timezones_of(connection, timezone, names))
    made_of = {part: _digest([*statements, str(columns.get(part))]) for part, statements in wanted.items()}
    made_of[_SALES] = _digest([*answers, *(f"{name}: {columns[name]}" for name in sorted(names)), repr(defaults())])
    before = dict(connection.execute("SELECT part, made_of FROM meta._views WHERE part IS NOT NULL").fetchall())
    if changed := [part for part in made_of if made_of[part] != before.get(part)]:
        with transaction(connection):
            execute_all(connection, [statement for part in changed for statement in wanted.get(part, [])])
            if _SALES in changed:
                sales_views.create(connection, answers)
                add_missing(connection, "sales", lambda column: defaults().sales.get(column, ""))
            connection.execute("DELETE FROM meta._views WHERE part IS NULL OR list_contains(?, part)", [changed])
            connection.executemany(
                "INSERT INTO meta._views (part, made_of) VALUES (?, ?)", [[part, made_of[part]] for part in changed]
            )
    sales_views.refresh(connection, views().values())


def _of_stream(
    stream: Stream,
    table: Table,
    columns: list[str],
    present: set[str],
    fields: comments.Fields,
    options: dict[str, LabeledColumn],
) -> list[str]:
    """What creates the views of one table (its versions, the lists in it, its labels), and comments on all of it."""
    statements = [warehouse.history_view(stream.name)]
    for name, child in stream.children.items():
        items = list(stream.column(child.of).items)
        statements += warehouse.child_views(name, stream.name, stream.key, child.parent, child.of, items, child.value)
    replaced = {column.label_of: column.name for column in table.columns if column.label_of}
    labeled = warehouse.labeled_columns(columns, _references(stream, present, fields), replaced, options)
    statements.append(warehouse.labeled_view(stream.name, labeled))
    for relation in comments.relations(stream, table, columns, labeled, fields):
        statements += comment_statements(relation)
    return statements


def _references(stream: Stream, present: set[str], fields: comments.Fields) -> dict[str, LabeledColumn]:
    """The columns of a stream with ids of records, and the names that are shown for them, where their table exists."""
    pointed_to = dict(stream.labels)
    for (name, _), variants in fields.items():
        if name == stream.name:
            pointed_to |= {each.column: STREAM_OF_TYPE[each.type] for each in variants if each.type in STREAM_OF_TYPE}
    references = {
        column: LabeledColumn(column, other, catalogue.stream(other).key, catalogue.stream(other).title)
        for column, other in pointed_to.items()
        if other in present
    }
    if stream.name == "leads" and "lead_labels" in present:  # a lead's labels are records, not options
        labels = catalogue.stream("lead_labels")
        references["label_ids"] = LabeledColumn("label_ids", labels.name, labels.key, labels.title, many=True)
    return references


def _options(connection: duckdb.DuckDBPyConnection) -> dict[str, dict[str, LabeledColumn]]:
    """The built-in fields whose options have ids, by stream and column; a code such as `won` is no id."""
    rows = connection.execute(
        "SELECT o.entity, o.field_code, any_value(c.data_type) LIKE '%[]' FROM meta.field_options o"
        " JOIN duckdb_columns() c ON c.database_name = current_database() AND c.schema_name = 'main'"
        " AND c.table_name = o.entity AND c.column_name = o.field_code"
        " GROUP BY o.entity, o.field_code HAVING bool_and(try_cast(o.option_id AS BIGINT) IS NOT NULL)"
    ).fetchall()
    options: dict[str, dict[str, LabeledColumn]] = {}
    for stream, column, many in rows:
        options.setdefault(stream, {})[column] = LabeledColumn(column, code=column, many=bool(many))
    return options


def _of_meta(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """What sets the comments on the tables of schema meta."""
    statements = []
    columns = warehouse.columns_of_tables(connection, "meta")
    for name, table in meta().tables.items():
        texts = {column: text for column in columns[name] if (text := of_meta(name, column))}
        statements += comment_statements(Relation("meta", name, "TABLE", table.comment, texts))
    return statements


def _digest(statements: Iterable[str]) -> str:
    """What changes whenever a statement does."""
    return hashlib.sha256("\n".join(statements).encode()).hexdigest()
