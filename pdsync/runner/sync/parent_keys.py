"""Selects the parents whose lists a dependent stream reads: all of them at first, then those that changed."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from msgspec import Struct

from pdsync.core import catalogue
from pdsync.core.control import opened_at
from pdsync.errors import PdsyncError
from pdsync.load import warehouse
from pdsync.sql import first, quoted

if TYPE_CHECKING:
    from collections.abc import Mapping

    import duckdb

    from pdsync.extract.child_lists import Key
    from pdsync.model import Parent

_SECOND = timedelta(seconds=1)  # a walk began at a whole second by the server's header: within it, its run had loaded


class LastReading(Struct, frozen=True):
    """The run that last read a dependent list to its end: it orders changes without a clock that may be wrong."""

    run: str  # within it, this machine's clock orders
    opened_at: datetime  # by this machine's clock
    runs: list[str]  # that began after it


def find_last_reading(
    connection: duckdb.DuckDBPyConnection, stream: str, source: str, version: str, run_order: Mapping[str, int]
) -> LastReading | None:
    """When a list was last read to its end; None where it never was, or where control.db has lost its run.

    Args:
        connection: to the work file.
        stream, source, version: the list.
        run_order: every run's place in the order in which they began.
    """
    row = first(
        connection.execute(
            "SELECT run_id, walk FROM meta.checkpoints WHERE stream = ? AND source = ? AND version = ?",
            [stream, source, version],
        )
    )
    opened = opened_at(int(row[1])) if row else None
    if not row or opened is None or row[0] not in run_order:
        return None
    return LastReading(row[0], opened, [run for run, place in run_order.items() if place > run_order[row[0]]])


def select_parents(
    connection: duckdb.DuckDBPyConnection,
    parent: Parent,
    since: datetime | None,
    overlap: timedelta = timedelta(0),
    *,
    children: tuple[str, str] | None = None,
    reading: LastReading | None = None,
) -> list[Key]:
    """The keys of the parents whose lists are to be read, in descending order: the newest records first.

    Args:
        connection: to a file that holds the parent's table.
        parent: which stream, and the column that counts a record's children.
        since: None for all; otherwise those that changed, or were first loaded, since then.
        overlap: how far `since` was moved back for changes that show late; rows that were loaded need no overlap.
        children: the dependent table and its column with the parent's key: parents with rows there are included,
            whatever they count.
        reading: the last one, which tells which of the parents are newer than it; None tells it by `since`.

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
        has_children = f"coalesce({quoted(parent.having)}, 1) > 0"
        if children and children[0] in warehouse.tables(connection):
            table, column = quoted("main", children[0]), quoted(children[1])
            has_children = f"({has_children} OR {key} IN (SELECT {column} FROM {table} WHERE _deleted_at IS NULL))"
        wanted.append(has_children)
    if since is not None:
        if reading:
            changed = "(_run_id IN (SELECT unnest(?::VARCHAR[])) OR (_run_id = ? AND _synced_at >= ?))"
            values += [reading.runs, reading.run, reading.opened_at]
        else:
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
