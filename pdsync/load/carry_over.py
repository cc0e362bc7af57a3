"""What a rebuilt warehouse file takes over from the one before it, and what it has to forget first.

Tables come from the raw archive; so does most of meta.*, and receipts from control.db. The rest of meta.* (what
became of merges and of changes that were sent) has no page that tells it: it is taken over.
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

_BY_STREAM = {  # what is made again with a stream → the column that names it
    "custom_fields": "entity",
    "field_options": "entity",
    "schema_changes": "entity",
    "merges": "entity",
    "checkpoints": "stream",
    "quarantine": "stream",
    "_applied_batches": "stream",
    "_row_hashes": "table_name",
}
_MADE_ANEW = {"company", "runs", "streams", *_BY_STREAM}


def forget_streams(connection: duckdb.DuckDBPyConnection, streams: Sequence[str]) -> None:
    """Drop the tables of `streams`, their histories, and what meta.* says of them: all is about to be made again."""
    here = warehouse.tables(connection)
    for stream in streams:
        for schema in ("main", "versions"):
            if stream in here:
                connection.execute(f"DROP TABLE IF EXISTS {quoted(schema, stream)}")
        for table, column in _BY_STREAM.items():
            connection.execute(f"DELETE FROM {quoted('meta', table)} WHERE {quoted(column)} = ?", [stream])


def carry_over(connection: duckdb.DuckDBPyConnection, source: Path) -> list[str]:
    """Take the meta tables that nothing else tells from the file `source`; their names."""
    connection.execute(f"ATTACH {literal(str(source))} AS before (READ_ONLY)")
    try:
        rows = connection.execute(
            "SELECT table_name FROM duckdb_tables() WHERE database_name = 'before' AND schema_name = 'meta'"
        ).fetchall()
        kept = sorted(row[0] for row in rows if row[0] not in _MADE_ANEW)
        with transaction(connection):
            for table in kept:
                old = quoted("before", "meta", table)
                connection.execute(f"CREATE TABLE IF NOT EXISTS {quoted('meta', table)} AS FROM {old} LIMIT 0")
                connection.execute(f"INSERT INTO {quoted('meta', table)} BY NAME FROM {old}")
    finally:
        connection.execute("DETACH before")
    return kept


def clean(connection: duckdb.DuckDBPyConnection, made: Callable[[str, str, str | None], str]) -> int:
    """Put what `made` makes of a text in its place, in the tables that `carry_over` takes; how many changed.

    Args:
        connection: to the file.
        made: is given the text, its column, and the mutation whose row it is in.
    """
    changed = 0
    for table, column in connection.execute(
        "SELECT table_name, column_name FROM duckdb_columns() WHERE database_name = current_database()"
        " AND schema_name = 'meta' AND data_type IN ('VARCHAR', 'JSON')"
    ).fetchall():
        if table in _MADE_ANEW:
            continue
        place = f"FROM {quoted('meta', table)} WHERE {quoted(column)} IS NOT NULL"
        mutation = "id" if table == "mutations" else "NULL"
        for text, of, rowid in connection.execute(f"SELECT {quoted(column)}, {mutation}, rowid {place}").fetchall():
            if (other := made(text, column, of)) != text:
                connection.execute(
                    f"UPDATE {quoted('meta', table)} SET {quoted(column)} = ? WHERE rowid = ?", [other, rowid]
                )
                changed += 1
    return changed
