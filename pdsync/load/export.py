"""Writes tables of the warehouse as Parquet files: snapshots of the current rows, and the changes of each run.

    catalog.json                                 the complete files: tables, files, rows, checksums; written last
    deals/snapshot=20260131T020000Z/data.parquet     every row of deals, deleted ones included
    changes/deals/until=<run>/data.parquet       the versions that runs have written since the file before

Reading `deals/*/*.parquet` with hive partitioning gives `snapshot` as a column. No folder
begins with `_` or `.`: pandas, pyarrow and Spark skip those without a word. Change files have whole versions with
their key, `_valid_from`, `_deleted_at` and `_run_id`: applied in order, the last one of a key wins.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from msgspec import Struct

from pdsync.core import catalogue
from pdsync.load.column_masks import selected
from pdsync.sql import first, literal, quoted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import duckdb

    from pdsync.load.column_masks import How, Kind


class File(Struct, frozen=True):
    """A Parquet file of an export: `path` is below the export's root, with "/" between."""

    path: str
    rows: int
    bytes: int
    sha256: str


def tables(connection: duckdb.DuckDBPyConnection, streams: Sequence[str] = ()) -> dict[str, str]:
    """The tables to export, each with its stream: those of `streams` or all, and the tables of their lists."""
    in_warehouse = {
        row[0]
        for row in connection.execute(
            "SELECT table_name FROM information_schema.tables"
            " WHERE table_catalog = current_database() AND table_schema = 'main'"
        ).fetchall()
    }
    exported: dict[str, str] = {}
    for name, stream in catalogue.streams().items():
        if name in in_warehouse and (not streams or name in streams):
            exported |= {table: name for table in (name, *stream.children) if table in in_warehouse}
    return exported


def count_rows(connection: duckdb.DuckDBPyConnection, table: str) -> int:
    """The number of rows of a table."""
    return int(first(connection.execute(f"SELECT count(*) FROM {quoted('main', table)}"))[0])


def columns(connection: duckdb.DuckDBPyConnection, schema: str, table: str) -> dict[str, Kind]:
    """The columns of a table that are exported, with their types."""
    relation = connection.sql(f"FROM {quoted(schema, table)} LIMIT 0")
    return {
        column: kind
        for column, kind in zip(relation.columns, relation.types, strict=True)
        if column not in ("_row_hash", "_valid_to")
    }


def snapshot(
    connection: duckdb.DuckDBPyConnection, table: str, masked: Mapping[str, How], key: str, target: Path
) -> dict[str, str]:
    """Write every row of `table` to the file `target`; the columns that were written, with their types."""
    chosen = selected(columns(connection, "main", table), masked, key)
    return _write(connection, f"SELECT {chosen} FROM {quoted('main', table)}", target)


def changes(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    runs: Sequence[str],
    masked: Mapping[str, How],
    key: str,
    target: Path,
) -> None:
    """Write the versions of the rows of `table` that `runs` have made to the file `target`, in their order."""
    chosen = selected(columns(connection, "history", table), masked, key)
    connection.execute("CREATE OR REPLACE TEMP TABLE exported_runs AS SELECT unnest(?::VARCHAR[]) AS run", [list(runs)])
    wanted = "WHERE _run_id IN (SELECT run FROM temp.exported_runs) ORDER BY _synced_at, _valid_from"
    _write(connection, f"SELECT {chosen} FROM {quoted('history', table)} {wanted}", target)


def merge(connection: duckdb.DuckDBPyConnection, sources: Sequence[Path], target: Path) -> None:
    """Write the rows of the Parquet files `sources` to one, in their order."""
    listed = ", ".join(literal(str(source)) for source in sources)
    query = f"SELECT * EXCLUDE (filename, file_row_number) FROM read_parquet([{listed}], union_by_name = true,"
    query += " hive_partitioning = false, filename = true, file_row_number = true)"
    order = " ".join(f"WHEN {literal(str(source))} THEN {index}" for index, source in enumerate(sources))
    _write(connection, f"{query} ORDER BY CASE filename {order} END, file_row_number", target)


def describe(target: Path, path: str) -> File:
    """The entry of catalog.json for the file `target`, at `path` below the export's root."""
    import pyarrow.parquet as pq  # noqa: PLC0415 - takes a tenth of a second, and most commands never need it

    with target.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return File(path, pq.read_metadata(target).num_rows, target.stat().st_size, digest)


def _write(connection: duckdb.DuckDBPyConnection, query: str, target: Path) -> dict[str, str]:
    connection.execute(f"COPY ({query}) TO {literal(str(target))} (FORMAT parquet, COMPRESSION zstd)")
    target.chmod(0o600)
    rows = connection.execute(f"DESCRIBE FROM read_parquet({literal(str(target))})").fetchall()
    return {row[0]: row[1] for row in rows}


def runs(connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """Each run in the warehouse → the time of its last write, in that order; killed ones too, which have no receipt."""
    rows = connection.execute(
        "SELECT run_id, coalesce(max(b.applied_at), any_value(r.finished_at))::VARCHAR AS written FROM meta.runs r"
        " FULL JOIN meta._applied_batches b USING (run_id) GROUP BY run_id"
        " ORDER BY written, max(b.walk) NULLS FIRST, run_id"
    ).fetchall()
    return dict(rows)


def company(connection: duckdb.DuckDBPyConnection) -> tuple[int, str]:
    """Id and name of the company."""
    row: tuple[int, str] = first(connection.execute("SELECT company_id, name FROM meta.company"))
    return row
