"""The canonical form of a warehouse: the definition of "the same tables".

The form of a table is its rows as NDJSON, keys and rows sorted, without the columns about runs; two tables are the same
if the SHA-256 of that text is. Views count as tables: histories and the tables of lists are compared too. So are the
tables of meta.* about records: custom fields, options, schema changes, checkpoints, quarantined records.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from msgspec import Struct

from pdsync.sql import quoted

if TYPE_CHECKING:
    import duckdb

# Times and ids of runs, and values that are computed from the rest of the row.
RUN_METADATA = ("_synced_at", "_verified_at", "_run_id", "_row_hash")
_META = {
    "custom_fields": ("first_seen", "last_seen"),
    "field_options": (),
    "schema_changes": ("run_id", "seen_at"),
    "checkpoints": ("run_id", "newest"),
    "quarantine": ("run_id",),
}
_SCHEMAS = ("main", "history")
_AT_ONCE = 20_000  # rows


class Digest(Struct, frozen=True):
    """A table in canonical form: the number of its rows, and the SHA-256 of its text in hexadecimal."""

    rows: int
    sha256: str


def canonical(connection: duckdb.DuckDBPyConnection) -> dict[str, Digest]:
    """The digests of the tables and views of main and history, and of those of meta.* named above, by `schema.table`.

    Args:
        connection: uses the warehouse.
    """
    digests = {}
    for schema, table in connection.execute(
        "SELECT table_schema, table_name FROM information_schema.tables WHERE table_catalog = current_database()"
        " ORDER BY 1, 2"
    ).fetchall():
        if schema in _SCHEMAS:
            digests[f"{schema}.{table}"] = _digest(connection, schema, table, RUN_METADATA)
        elif schema == "meta" and table in _META:
            digests[f"{schema}.{table}"] = _digest(connection, schema, table, _META[table])
    return digests


def _digest(connection: duckdb.DuckDBPyConnection, schema: str, table: str, leave_out: tuple[str, ...]) -> Digest:
    columns = [row[0] for row in connection.execute(f"DESCRIBE {quoted(schema, table)}").fetchall()]
    kept = ", ".join(quoted(column) for column in columns if column not in leave_out)
    cursor = connection.execute(f"SELECT to_json(o)::VARCHAR FROM (SELECT {kept} FROM {quoted(schema, table)}) o")
    # The order of a table's columns is no part of its content, hence sorted here and not by DuckDB.
    lines = list[str]()
    while rows := cursor.fetchmany(_AT_ONCE):
        lines += [json.dumps(json.loads(row[0]), sort_keys=True, ensure_ascii=False) for row in rows]
    lines.sort()
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode("utf-8", "surrogatepass") + b"\n")
    return Digest(len(lines), digest.hexdigest())
