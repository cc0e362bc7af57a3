"""Finds rows that were stored before the definitions of their custom fields were known, and has them read again.

The values of such a row are in `_extra`, under the codes of the fields; their columns are empty. That happens where the
definitions could not be read, and where a field is created after they were read.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pdsync.load import warehouse
from pdsync.sql import first, quoted

if TYPE_CHECKING:
    from collections.abc import Sequence

    import duckdb

    from pdsync.model import Stream

_BEFORE_ALL = datetime(1970, 1, 1, tzinfo=UTC)


def oldest_row(connection: duckdb.DuckDBPyConnection, stream: Stream, codes: Sequence[str]) -> datetime | None:
    """When the row was changed that has a value of `codes` in `_extra` and was not changed for the longest time.

    Args:
        connection: to the work file.
        stream: with custom fields.
        codes: of fields that have no column yet, or a new one.

    Returns:
        The time; the beginning of 1970 if a row has none; None if there is no such row.
    """
    if not codes or stream.name not in warehouse.tables(connection):
        return None
    changed = quoted(stream.cursor) if stream.cursor else "NULL"
    count, oldest = first(
        connection.execute(
            f"SELECT count(*), min(coalesce({changed}, $before_all)) FROM {quoted('main', stream.name)}"
            " WHERE _extra IS NOT NULL"
            " AND len(list_filter($codes, lambda code: contains(CAST(_extra AS VARCHAR), code))) > 0",
            {"before_all": _BEFORE_ALL, "codes": list(codes)},
        )
    )
    return oldest if count else None


def request_again(connection: duckdb.DuckDBPyConnection, stream: Stream, since: datetime) -> None:
    """Have the next walks of a stream request what has changed since `since`.

    A row that has no time of change is in no such answer: then the stream counts as never read, and is read whole.
    """
    if since <= _BEFORE_ALL:
        connection.execute("DELETE FROM meta.checkpoints WHERE stream = ?", [stream.name])
    else:
        connection.execute(
            "UPDATE meta.checkpoints SET watermark = least(watermark, $1) WHERE stream = $2", [since, stream.name]
        )
