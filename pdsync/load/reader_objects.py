"""Finds what readers have created in the published warehouse, and keeps its file before the next one replaces it.

The warehouse is replaced as a whole after each run, so a table that a reader created in it would vanish.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from glob import escape
from typing import TYPE_CHECKING

from pdsync.core import catalogue
from pdsync.load.publish import copy
from pdsync.sql import literal

if TYPE_CHECKING:
    from pathlib import Path

    import duckdb

_OWN = ("my", "sales", "labeled", "history", "versions", "meta")  # schemas of pdsync, whose objects have comments


def find(connection: duckdb.DuckDBPyConnection, work: str, published: str) -> list[str]:
    """The tables, views and macros that only the published warehouse has, by name with their schemas.

    Args:
        connection: that has both files.
        work: the name of the work file's database.
        published: the name of the warehouse's.

    Raises:
        duckdb.Error: a file can't be read.
    """

    def objects(database: str) -> str:
        of_database = f"WHERE database_name = {literal(database)} AND NOT internal"
        return (
            f"SELECT schema_name, table_name, comment FROM duckdb_tables() {of_database}"
            f" UNION ALL SELECT schema_name, view_name, comment FROM duckdb_views() {of_database}"
            f" UNION ALL SELECT schema_name, function_name, comment FROM duckdb_functions() {of_database}"
        )

    rows = connection.execute(
        f"SELECT DISTINCT schema_name, table_name, comment FROM ({objects(published)}) ANTI JOIN ({objects(work)})"
        " USING (schema_name, table_name) ORDER BY ALL"
    ).fetchall()
    streams = catalogue.streams()
    ours = streams.keys() | {child for stream in streams.values() for child in stream.children}
    return [
        f"{schema}.{name}"
        for schema, name, comment in rows
        if not ((schema == "main" and name in ours) or (schema in _OWN and (name in ours or comment is not None)))
    ]


def keep(warehouse: Path) -> Path:
    """Keep the file of the published warehouse beside it; the path that it is kept at.

    Its log is moved there, and both names may be of one file: the warehouse must be replaced now, and not written to.
    """
    kept = warehouse.with_name(f"{warehouse.stem}.own-{datetime.now(UTC):%Y%m%dT%H%M%S%f}.duckdb")
    try:
        os.link(warehouse, kept)
    except OSError:  # a file system without links
        copy(warehouse, kept)
    log = warehouse.with_name(f"{warehouse.name}.wal")
    if log.exists():  # of a program that writes to the file, or was killed: it must not be applied to another file
        log.replace(kept.with_name(f"{kept.name}.wal"))
    return kept


def find_kept(warehouse: Path) -> list[Path]:
    """The files that `keep` has left beside the warehouse, newest first."""
    return sorted(warehouse.parent.glob(f"{escape(warehouse.stem)}.own-*.duckdb"), reverse=True)
