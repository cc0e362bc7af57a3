"""Which records of another stream a dependent list is asked for: all of them at first, then those that changed."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from pdsync.core import catalogue
from pdsync.errors import PdsyncError
from pdsync.load import warehouse
from pdsync.sql import name as quoted

if TYPE_CHECKING:
    from datetime import datetime

    import duckdb

    from pdsync.extract.dependents import Key
    from pdsync.model import Parent


def keys(
    connection: duckdb.DuckDBPyConnection, parent: Parent, since: datetime | None, overlap: timedelta = timedelta(0)
) -> list[Key]:
    """The keys of the parents to ask for, falling: the newest records first.

    Args:
        connection: to a file that holds the parent's table.
        parent: which stream, and which of its records have anything to tell.
        since: None for all; otherwise those that changed, or came to be known, since then.
        overlap: how much of `since` is for changes that show late; what the table took up has no need of it.

    Raises:
        PdsyncError: the parent's table is not there.
    """
    stream = catalogue.stream(parent.stream)
    if stream.name not in warehouse.tables(connection):
        raise PdsyncError(f"It is read for each of {stream.name}, which were never synced: pdsync sync {stream.name}")
    key = quoted(stream.key)
    wanted = ["_deleted_at IS NULL"]
    values: list[object] = []
    if parent.having:
        wanted.append(f"coalesce({quoted(parent.having)}, 1) > 0")
    if since is not None:
        changed = "_synced_at >= ?"
        values.append(since + overlap)
        if stream.cursor:
            changed = f"({changed} OR {quoted(stream.cursor)} >= ?)"
            values.append(since)
        wanted.append(changed)
    where = " AND ".join(wanted)
    rows = connection.execute(
        f"SELECT {key} FROM {quoted('main', stream.name)} WHERE {where} ORDER BY {key} DESC", values
    ).fetchall()
    return [row[0] for row in rows]
