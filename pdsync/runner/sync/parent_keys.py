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
    from collections.abc import Mapping, Sequence

    import duckdb

    from pdsync.extract.child_lists import Key
    from pdsync.model import Parent

_SECOND = timedelta(seconds=1)  # a walk's start is the server's whole second, within which its run may have loaded rows


class LastReading(Struct, frozen=True):
    """The run that last read a dependent list to its end; orders changes independently of the server's clock."""

    run: str  # rows of this run are newer if they were loaded after `opened_at`
    opened_at: datetime  # by this machine's clock
    runs: list[str]  # that began after it: all of their rows are newer
    continued: list[str] = []  # that began before it, and whose walks were loaded further since: newer by either clock


def find_last_reading(
    connection: duckdb.DuckDBPyConnection, stream: str, source: str, version: str, run_order: Mapping[str, int]
) -> LastReading | None:
    """When a list was last read to its end; None if it never was, or if control.db has lost its run.

    Args:
        connection: to the work file.
        stream, source, version: the list.
        run_order: run → its position in the order in which runs began.
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
    later = [run for run, position in run_order.items() if position > run_order[row[0]]]
    # A replay loads the batches stream by stream, each with the time at which its walk was served.
    continued = connection.execute(
        "SELECT DISTINCT run_id FROM meta._applied_batches, (SELECT min(rowid) AS row, min(applied_at) AS at"
        " FROM meta._applied_batches WHERE run_id = $1 AND walk = $2) reading"
        " WHERE (_applied_batches.rowid > reading.row OR applied_at >= reading.at)"
        " AND run_id <> $1 AND NOT list_contains($3::VARCHAR[], run_id) ORDER BY 1",
        [row[0], row[1], later],
    ).fetchall()
    return LastReading(row[0], opened, later, [str(run) for (run,) in continued])


def select_parents(
    connection: duckdb.DuckDBPyConnection,
    parent: Parent,
    since: datetime | None,
    overlap: timedelta = timedelta(0),
    *,
    children: tuple[str, str] | None = None,
    reading: LastReading | None = None,
    unread: tuple[str, str] | None = None,
) -> list[Key]:
    """The keys of the parents whose lists are to be read, in descending order: the newest records first.

    Args:
        connection: to a file with the parent's table.
        parent: the stream, and its column that counts a record's children.
        since: None for all; otherwise those that changed, or were first loaded, since then.
        overlap: how far `since` was moved back for changes that become visible late; loaded rows need no overlap.
        children: the dependent table and its column with the parent's key: parents with rows there are included,
            whatever their count.
        reading: the last one: parents that were loaded after it are included; None: those loaded since `since`.
        unread: the dependent table and its column with the parent's key: parents with rows there are left out.

    Raises:
        PdsyncError: the parent's table does not exist.
    """
    stream = catalogue.stream(parent.stream)
    if stream.name not in warehouse.tables(connection):
        raise PdsyncError(
            f"It is read for each record of {stream.name}, which was never synced: pdsync sync {stream.name}"
        )
    key = quoted(stream.key)
    conditions = ["_deleted_at IS NULL"]
    values: list[object] = []
    if parent.having:
        has_children = f"coalesce({quoted(parent.having)}, 1) > 0"
        if children and children[0] in warehouse.tables(connection):
            table, column = quoted("main", children[0]), quoted(children[1])
            has_children = f"({has_children} OR {key} IN (SELECT {column} FROM {table} WHERE _deleted_at IS NULL))"
        conditions.append(has_children)
    if parent.unless:
        conditions.append(f"NOT coalesce({quoted(parent.unless)}, false)")
    if unread and unread[0] in warehouse.tables(connection):
        conditions.append(f"{key} NOT IN (SELECT {quoted(unread[1])} FROM {quoted('main', unread[0])})")
    if since is not None:
        if reading:
            changed = (
                "(_run_id IN (SELECT unnest(?::VARCHAR[])) OR (_run_id = ? AND _synced_at >= ?)"
                " OR (_run_id IN (SELECT unnest(?::VARCHAR[])) AND (_synced_at >= ? OR _verified_at >= ?)))"
            )
            values += [reading.runs, reading.run, reading.opened_at]
            values += [reading.continued, reading.opened_at, since]
        else:
            changed = "_synced_at >= ?"
            values.append(since + overlap + _SECOND)
        if stream.cursor:
            changed = f"({changed} OR {quoted(stream.cursor)} >= ?)"
            values.append(since)
        conditions.append(changed)
    where = " AND ".join(conditions)
    rows = connection.execute(
        f"SELECT {key} FROM {quoted('main', stream.name)} WHERE {where} ORDER BY {key} DESC", values
    ).fetchall()
    return [row[0] for row in rows]


def count_children(connection: duckdb.DuckDBPyConnection, parent: Parent, keys: Sequence[Key]) -> dict[Key, int | None]:
    """How many children each of the parents called `keys` counts, in their order; None where it does not say.

    Args:
        connection: to a file with the parent's table.
        parent: the stream, and its column that counts a record's children.
        keys: of the parents.
    """
    stream = catalogue.stream(parent.stream)
    query = f"SELECT {quoted(stream.key)}, {quoted(parent.having or '')} FROM {quoted('main', stream.name)}"
    counts = dict(connection.execute(query).fetchall())
    return {key: counts.get(key) for key in keys}
