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

_SECOND = timedelta(seconds=1)  # a walk began at a whole second by the server's header: within it, its run had loaded


def keys(
    connection: duckdb.DuckDBPyConnection,
    parent: Parent,
    since: datetime | None,
    overlap: timedelta = timedelta(0),
    *,
    held: tuple[str, str] | None = None,
) -> list[Key]:
    """The keys of the parents to ask for, falling: the newest records first.

    Args:
        connection: to a file that holds the parent's table.
        parent: which stream, and which of its records have anything to tell.
        since: None for all; otherwise those that changed, or came to be known, since then.
        overlap: how much of `since` is for changes that show late; what the table took up has no need of it.
        held: the dependent table and its column of the parent's key: who has rows there is asked, whatever it counts.

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
        asked = f"coalesce({quoted(parent.having)}, 1) > 0"
        if held and held[0] in warehouse.tables(connection):
            table, of = quoted("main", held[0]), quoted(held[1])
            asked = f"({asked} OR {key} IN (SELECT {of} FROM {table} WHERE _deleted_at IS NULL))"
        wanted.append(asked)
    if since is not None:
        changed = "_synced_at >= ?"
        values.append(since + overlap + _SECOND)
        if stream.cursor:
            changed = f"({changed} OR {quoted(stream.cursor)} >= ?)"
            values.append(since)
        wanted.append(changed)
    where = " AND ".join(wanted)
    rows = connection.execute(
        f"SELECT {key} FROM {quoted('main', stream.name)} WHERE {where} ORDER BY {key} DESC", values
    ).fetchall()
    return [row[0] for row in rows]
