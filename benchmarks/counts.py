"""Counts the rows of tables in a DuckDB file, their distinct ids, and what changed since a time; prints JSON.

A separate program, because the file must be read by the DuckDB that wrote it.

    python counts.py FILE SCHEMA SINCE TABLE…
"""

from __future__ import annotations

import json
import sys

import duckdb


def main(file: str, schema: str, since: str, tables: list[str]) -> None:
    """Print {table: [rows, distinct ids, rows changed since a time]}."""
    counted = "count(*), count(DISTINCT id), count(*) FILTER (update_time > CAST(? AS TIMESTAMPTZ))"
    with duckdb.connect(file, read_only=True) as connection:
        counts = {
            table: connection.execute(f'SELECT {counted} FROM "{schema}"."{table}"', [since]).fetchall()[0]
            for table in tables
        }
    print(json.dumps(counts))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:])
