"""Copies the tables that can't be rebuilt to a rebuilt warehouse file, and clears the streams that are rebuilt.

Tables are rebuilt from the raw archive; so is most of meta.*, and receipts from control.db. The rest of meta.* (such
as the outcome of mutations) is in no page: it is copied from the earlier file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pdsync.load import warehouse
from pdsync.load.transaction import transaction
from pdsync.sql import literal, quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import duckdb

_BY_STREAM = {  # meta tables that are rebuilt with a stream → the column with its name
    "custom_fields": "entity",
    "field_options": "entity",
    "schema_changes": "entity",
    "merges": "entity",
    "checkpoints": "stream",
    "quarantine": "stream",
    "_applied_batches": "stream",
    "_row_hashes": "table_name",
    "_views": "part",
}
_REBUILT = {"company", "runs", "streams", "targets", *_BY_STREAM}


def forget_streams(connection: duckdb.DuckDBPyConnection, streams: Sequence[str]) -> None:
    """Drop the tables of `streams`, their histories, and their rows in meta.*, before they are rebuilt."""
    in_warehouse = warehouse.tables(connection)
    for stream in streams:
        for schema in ("main", "versions"):
            if stream in in_warehouse:
                connection.execute(f"DROP TABLE IF EXISTS {quoted(schema, stream)}")
        for table, column in _BY_STREAM.items():
            connection.execute(f"DELETE FROM {quoted('meta', table)} WHERE {quoted(column)} = ?", [stream])


def carry_over(connection: duckdb.DuckDBPyConnection, source: Path) -> list[str]:
    """Add the rows of the meta tables that can't be rebuilt, as the file `source` has them; the tables' names."""
    connection.execute(f"ATTACH {literal(str(source))} AS before (READ_ONLY)")
    try:
        rows = connection.execute(
            "SELECT table_name FROM duckdb_tables() WHERE database_name = 'before' AND schema_name = 'meta'"
        ).fetchall()
        kept = sorted(row[0] for row in rows if row[0] not in _REBUILT)
        with transaction(connection):
            for table in kept:
                old = quoted("before", "meta", table)
                connection.execute(f"CREATE TABLE IF NOT EXISTS {quoted('meta', table)} AS FROM {old} LIMIT 0")
                connection.execute(f"INSERT INTO {quoted('meta', table)} BY NAME FROM {old}")
    finally:
        connection.execute("DETACH before")
    return kept


def clean(connection: duckdb.DuckDBPyConnection, replace: Callable[[str, str, str | None], str]) -> int:
    """Replace the texts in the tables that `carry_over` copies; the number of those that changed.

    Args:
        connection: to the file.
        replace: gives the new text for a text, its column, and the id of the mutation whose row it is in.
    """
    changed = 0
    for table, column in connection.execute(
        "SELECT table_name, column_name FROM duckdb_columns() WHERE database_name = current_database()"
        " AND schema_name = 'meta' AND data_type IN ('VARCHAR', 'JSON') AND table_name IN (SELECT table_name"
        " FROM duckdb_tables() WHERE database_name = current_database() AND schema_name = 'meta')"
    ).fetchall():
        if table in _REBUILT:
            continue
        rows = f"FROM {quoted('meta', table)} WHERE {quoted(column)} IS NOT NULL"
        mutation = "id" if table == "mutations" else "NULL"
        for text, mutation_id, rowid in connection.execute(
            f"SELECT {quoted(column)}, {mutation}, rowid {rows}"
        ).fetchall():
            if (replacement := replace(text, column, mutation_id)) != text:
                connection.execute(
                    f"UPDATE {quoted('meta', table)} SET {quoted(column)} = ? WHERE rowid = ?", [replacement, rowid]
                )
                changed += 1
    return changed
