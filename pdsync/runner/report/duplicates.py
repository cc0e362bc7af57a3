"""Finds records that one addition created twice: the lists showed the first one only after the probes.

An addition whose answer was lost is sent again only if two probes did not find its record. That assumes that lists are
up to date by then. So every sync checks whether a second record has all values that such an addition sent.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from pdsync.core import catalogue
from pdsync.load import warehouse
from pdsync.sql import quoted
from pdsync.writeback.outbox import Outbox
from pdsync.writeback.shapes import find_stream, shape

if TYPE_CHECKING:
    import duckdb

    from pdsync.core.control import Control
    from pdsync.model import Mutation, Stream
    from pdsync.runner.loader import Loader

DUPLICATE = "duplicate_found"
_LATEST = timedelta(days=7)
_SKEW = timedelta(minutes=5)  # between the server's clock and this machine's


class DuplicateCreate(Struct, frozen=True):
    """A record that an addition seems to have created besides the one that it is bound to."""

    stream: str
    key: str
    original: str
    seq: int
    operation: str  # deletes it

    def __str__(self) -> str:
        return (
            f"{self.stream} {self.key} is the same as {self.original}, which #{self.seq} added: it may have been added"
            f" twice. Look at both; if so: pdsync queue add {self.operation} id={self.key}"
        )


def find_duplicate_creates(loader: Loader, control: Control, run_id: str) -> list[DuplicateCreate]:
    """Find records that were added twice in the last 7 days, and add the new ones to meta.findings.

    Returns:
        Those that no earlier sync has reported.
    """
    outbox = Outbox(control)
    since = datetime.now(UTC) - _LATEST
    reported = {
        (str(stream), str(key))
        for stream, key in loader.connection.execute(
            "SELECT stream, key FROM meta.findings WHERE kind = ?", [DUPLICATE]
        ).fetchall()
    }
    found = []
    for each in outbox.mutations(["applied"]):
        if each.verb == "add" and each.remote_id and each.settled_at and each.settled_at >= since:
            found += [
                duplicate
                for duplicate in _duplicates_of(loader, outbox, each)
                if (duplicate.stream, duplicate.key) not in reported
            ]
    for duplicate in found:
        loader.connection.execute(
            "INSERT INTO meta.findings VALUES (?, ?, ?, ?, ?, ?, ?, false)",
            [run_id, datetime.now(UTC), duplicate.stream, duplicate.key, DUPLICATE, str(duplicate), duplicate.original],
        )
    return found


def _duplicates_of(loader: Loader, outbox: Outbox, mutation: Mutation) -> list[DuplicateCreate]:
    attempts = outbox.attempts(mutation.id)
    stream = find_stream(mutation.kind)
    removal = _find_deletion(mutation)
    if len(attempts) < 2 or stream is None or removal is None or stream.name not in warehouse.tables(loader.connection):
        return []
    conditions, values = _payload_conditions(stream, mutation.payload)
    if not conditions:
        return []
    if "add_time" in stream.columns:
        conditions.append("add_time >= ?")
        values.append(attempts[0].armed_at - _SKEW)
    rows = _rows(loader.connection, stream, conditions, values)
    own = outbox.bound_ids(mutation.kind) | {str(mutation.remote_id)}
    return [
        DuplicateCreate(stream.name, key, str(mutation.remote_id), mutation.seq, removal)
        for key in rows
        if key not in own
    ]  # fmt: skip


def _rows(connection: duckdb.DuckDBPyConnection, stream: Stream, conditions: list[str], values: list[Any]) -> list[str]:
    query = f"SELECT {quoted(stream.key)}::VARCHAR FROM {quoted('main', stream.name)} WHERE _deleted_at IS NULL"
    return [str(row[0]) for row in connection.execute(f"{query} AND {' AND '.join(conditions)}", values).fetchall()]


def _payload_conditions(stream: Stream, payload: dict[str, Any]) -> tuple[list[str], list[Any]]:
    """SQL conditions that a row has the values that were sent, for columns of one value; and the values to bind."""
    conditions, values = [], []
    for name, value in payload.items():
        if name in stream.columns and isinstance(value, str | int | float) and not isinstance(value, bool):
            column = quoted(name)
            conditions.append(f"{column} IS NOT DISTINCT FROM TRY_CAST(? AS {stream.column(name).type})")
            values.append(str(value))
    return conditions, values


def _find_deletion(mutation: Mutation) -> str | None:
    """The operation that deletes a record of the same kind."""
    version = catalogue.operation(mutation.operation).version
    for each in catalogue.operations(version).values():
        if each.method == "DELETE" and not each.removed and list(each.path_params) == ["id"]:
            shaped = shape(each)
            if shaped.verb == "delete" and shaped.kind == mutation.kind:
                return each.id
    return None
