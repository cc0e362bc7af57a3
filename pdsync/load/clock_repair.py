"""Corrects times in the future, which a wrong clock has written.

A run whose server was hours ahead leaves rows that were "verified" tomorrow, versions that begin tomorrow, and lists
that are "complete until" tomorrow. Where the server and this machine agree on the time, that is an error, and it is
corrected: each such moment becomes now, or the least time earlier that preserves the order of a record's versions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pdsync.load.transaction import transaction
from pdsync.sql import first, quoted

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    import duckdb

_READ_TIMES = ("_verified_at", "_deleted_at")


def pull_back(
    connection: duckdb.DuckDBPyConnection, keys: Mapping[str, str], now: datetime, horizon: datetime
) -> dict[str, int]:
    """Correct all times after `horizon`, in one transaction.

    A list that is complete until a moment in the future is complete until the newest change that it showed; where
    that is unknown, it counts as never read, and the next sync reads it whole.

    Args:
        connection: to the work file.
        keys: table → the column of its key.
        now: the corrected time: before all pages that are read from now on, by the server's clock.
        horizon: a time later than this is wrong; not before `now`.

    Returns:
        By table, the number of rows with a time in the future; tables without any are left out.
    """
    corrected = {}
    with transaction(connection):
        for table, key in keys.items():
            if rows := _pull_rows(connection, table, key, now, horizon):
                corrected[table] = rows
        connection.execute("DELETE FROM meta.checkpoints WHERE watermark > ? AND newest IS NULL", [horizon])
        connection.execute(
            "UPDATE meta.checkpoints SET watermark = least(newest, $1),"
            " full_at = CASE WHEN full_at IS NOT NULL THEN least(full_at, newest, $1) END WHERE watermark > $2",
            [now, horizon],
        )
    return corrected


def _pull_rows(connection: duckdb.DuckDBPyConnection, table: str, key: str, now: datetime, horizon: datetime) -> int:
    main, versions, id = quoted("main", table), quoted("versions", table), quoted(key)
    late = "greatest(_verified_at, _valid_from, coalesce(_deleted_at, _valid_from)) > $1"
    rows = first(connection.execute(f"SELECT count(*) FROM {main} WHERE {late}", [horizon]))[0]
    if not rows:
        return 0
    # The moments of each record in their order, a microsecond apart, and the last one now.
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE pulled AS SELECT key, moment, $2::TIMESTAMPTZ"
        " - to_microseconds(row_number() OVER (PARTITION BY key ORDER BY moment DESC) - 1) AS becomes FROM ("
        f"SELECT {id} AS key, _valid_from AS moment FROM {main} UNION SELECT {id}, _valid_from FROM {versions}"
        f" UNION SELECT {id}, _valid_to FROM {versions}) WHERE moment > $1",
        [horizon, now],
    )
    for relation, columns in ((main, ("_valid_from",)), (versions, ("_valid_from", "_valid_to"))):
        for column in columns:
            connection.execute(
                f"UPDATE {relation} t SET {quoted(column)} = p.becomes FROM temp.pulled p"
                f" WHERE p.key = t.{id} AND p.moment = t.{quoted(column)}"
            )
        for column in _READ_TIMES:
            connection.execute(
                f"UPDATE {relation} SET {quoted(column)} = $2 WHERE {quoted(column)} > $1", [horizon, now]
            )
    return int(rows)
