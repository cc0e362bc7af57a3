"""Counts the rows of tables in a DuckDB file, and their distinct ids; prints them as JSON.

A separate program, because the file must be read by the DuckDB that wrote it.

    python counts.py FILE SCHEMA TABLE…
"""

from __future__ import annotations

import json
import sys

import duckdb


def main(file: str, schema: str, tables: list[str]) -> None:
    """Print {table: [rows, distinct ids]}."""
    with duckdb.connect(file, read_only=True) as connection:
        counts = {
            table: connection.execute(f'SELECT count(*), count(DISTINCT id) FROM "{schema}"."{table}"').fetchall()[0]
            for table in tables
        }
    print(json.dumps(counts))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
