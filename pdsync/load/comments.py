"""Writes and reads the comments on tables, views and their columns, which any client of DuckDB shows.

A comment may contain a label, which is data: it enters SQL as a string constant.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import duckdb
from msgspec import Struct

from pdsync.sql import literal, quoted

if TYPE_CHECKING:
    from collections.abc import Callable

SCHEMAS = ("main", "labeled", "history", "sales", "my", "meta")  # those that people read


class Relation(Struct, frozen=True):
    """A table or view, and what its comments are to be."""

    schema: str
    name: str
    kind: Literal["TABLE", "VIEW"]
    comment: str
    columns: dict[str, str]  # column → comment


class Named(NamedTuple):
    """A table or view of a warehouse."""

    schema: str
    name: str
    is_table: bool
    comment: str | None


class Macro(NamedTuple):
    """A macro that takes parameters and returns a table."""

    schema: str
    name: str
    parameters: list[str]
    comment: str | None

    @property
    def call(self) -> str:
        """What follows FROM in a query."""
        return f"{self.schema}.{self.name}({', '.join(self.parameters)})"


def statements(relation: Relation) -> list[str]:
    """What sets the comments of a table or view, and of its columns."""
    name = quoted(relation.schema, relation.name)
    return [
        f"COMMENT ON {relation.kind} {name} IS {constant(relation.comment)}",
        *(
            f"COMMENT ON COLUMN {name}.{quoted(column)} IS {constant(text)}"
            for column, text in relation.columns.items()
        ),
    ]


def execute_all(connection: duckdb.DuckDBPyConnection, statements: list[str]) -> None:
    """Execute statements that change the catalogue only, some thousands of them at once.

    The optimizer has nothing to do there, but would take nearly half of the time.
    """
    connection.execute("PRAGMA disable_optimizer")
    try:
        connection.execute(";\n".join(statements))
    finally:
        with suppress(duckdb.TransactionException):  # a statement failed: the caller rolls back, and the run ends
            connection.execute("PRAGMA enable_optimizer")


def constant(text: str) -> str:
    """A comment as a string constant, in one line; a NUL, which no constant can contain, is left out."""
    return literal(" ".join(text.replace("\0", "").split()))


def add_missing(connection: duckdb.DuckDBPyConnection, schema: str, comment_of: Callable[[str], str]) -> None:
    """Set the comments that the columns of `schema` lack.

    Args:
        comment_of: gives the comment for the name of a column; empty: there is none.
    """
    rows = connection.execute(
        "SELECT table_name, column_name FROM duckdb_columns() WHERE database_name = current_database()"
        " AND schema_name = ? AND comment IS NULL AND NOT internal ORDER BY table_name, column_index",
        [schema],
    ).fetchall()
    missing = [
        f"COMMENT ON COLUMN {quoted(schema, table, column)} IS {constant(text)}"
        for table, column in rows
        if (text := comment_of(column))
    ]
    execute_all(connection, missing)


def relations(connection: duckdb.DuckDBPyConnection) -> list[Named]:
    """The tables and views that people read, by schema in the order of SCHEMAS, then by name."""
    rows = connection.execute(
        "SELECT schema_name, table_name, true, comment FROM duckdb_tables() WHERE database_name = current_database()"
        " UNION ALL SELECT schema_name, view_name, false, comment FROM duckdb_views()"
        " WHERE database_name = current_database() AND NOT internal"
    ).fetchall()
    named = [Named(*row) for row in rows]
    return sorted(
        (each for each in named if each.schema in SCHEMAS), key=lambda each: (SCHEMAS.index(each.schema), each.name)
    )


def macros(connection: duckdb.DuckDBPyConnection) -> list[Macro]:
    """The table macros that people use, by name."""
    rows = connection.execute(
        "SELECT schema_name, function_name, parameters, comment FROM duckdb_functions()"
        " WHERE database_name = current_database() AND function_type = 'table_macro' AND NOT internal ORDER BY ALL"
    ).fetchall()
    return [macro for macro in map(Macro._make, rows) if macro.schema in SCHEMAS]


def macro_columns(connection: duckdb.DuckDBPyConnection, macro: Macro) -> list[tuple[str, str]]:
    """The columns of what a macro returns, in order: name, type."""
    nothing = ", ".join("NULL" for _ in macro.parameters)
    query = f"DESCRIBE FROM {quoted(macro.schema, macro.name)}({nothing})"
    return [(name, kind) for name, kind, *_ in connection.execute(query).fetchall()]


def columns(connection: duckdb.DuckDBPyConnection, schema: str, name: str) -> list[tuple[str, str, str | None]]:
    """The columns of a table or view, in order: name, type, comment."""
    rows: list[tuple[str, str, str | None]] = connection.execute(
        "SELECT column_name, data_type, comment FROM duckdb_columns() WHERE database_name = current_database()"
        " AND schema_name = ? AND table_name = ? ORDER BY column_index",
        [schema, name],
    ).fetchall()
    return rows


def count_rows(connection: duckdb.DuckDBPyConnection, names: list[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """The number of rows of each table (schema, name)."""
    if not names:
        return {}
    counts: list[Any] = connection.execute(
        " UNION ALL ".join(
            f"SELECT {literal(schema)}, {literal(name)}, count(*) FROM {quoted(schema, name)}" for schema, name in names
        )
    ).fetchall()
    return {(schema, name): int(count) for schema, name, count in counts}
