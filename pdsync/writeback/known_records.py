"""Knows which records existed once that no read shows now: rows of the warehouse, deleted or not, and our own writes.

A record that is absent was deleted, merged into another, or never existed: only a known one is taken to have existed.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from pdsync.errors import ConfigError
from pdsync.sql import first, quoted
from pdsync.writeback.precondition import may_have_happened
from pdsync.writeback.shapes import find_stream, row_key, shape

if TYPE_CHECKING:
    from collections.abc import Collection

    import duckdb

    from pdsync.model import Mutation, Operation, Stream
    from pdsync.writeback.outbox import Outbox

_NEAR = 3  # ids that a hint names
_MOST_IDS = 50_000  # of a table that a hint looks through


class KnownRecords:
    """The records that the warehouse and the queue know.

    Args:
        warehouse: a connection; None where no sync has run yet.
        outbox: the queue.
    """

    def __init__(self, warehouse: duckdb.DuckDBPyConnection | None, outbox: Outbox) -> None:
        self._warehouse, self._outbox = warehouse, outbox

    def existed(self, kind: str, target: str) -> bool:
        """Whether the record of `kind` at `target` existed once."""
        if self._outbox.has_seen(kind, target):
            return True
        stream, table = self._table(kind)
        if stream is None or self._warehouse is None:
            return False
        sql = f"SELECT 1 FROM {table} WHERE {quoted(stream.key)}::VARCHAR = ? LIMIT 1"
        return bool(self._warehouse.execute(sql, [row_key(stream, target)]).fetchall())

    def merged_into(self, kind: str, id: str) -> str | None:
        """The id of the record that the one of `kind` with this id was merged into; None unless that is certain."""
        if into := self._outbox.merged_into(f"{kind}/{id}"):
            return into
        stream, _ = self._table(kind)
        if stream is None or self._warehouse is None or not id.isdecimal():
            return None
        rows = self._warehouse.execute(
            "SELECT winner_id FROM meta.merges WHERE entity = ? AND loser_id = ? AND confidence = 'exact'",
            [stream.name, int(id)],
        ).fetchall()
        return str(rows[0][0]) if rows and rows[0][0] is not None else None

    def children(self, listing: Operation, columns: tuple[str, ...], id: str) -> set[str]:
        """The keys of the records of a list that name the record with this id in one of `columns`."""
        stream, table = self._table(shape(listing).kind)
        column = next((name for name in columns if stream and name in stream.columns), None)
        if stream is None or self._warehouse is None or column is None or stream.column(column).type.endswith("[]"):
            return set()
        sql = (
            f"SELECT {quoted(stream.key)}::VARCHAR FROM {table} WHERE {quoted(column)}::VARCHAR = ?"
            " AND _deleted_at IS NULL"
        )
        values: list[object] = [id]
        if "is_archived" in stream.columns:
            sql += " AND is_archived = ?"
            values.append(listing.path.endswith("/archived"))
        rows = self._warehouse.execute(sql, values)
        return {row[0] for row in rows.fetchall()}

    def may_have_happened(self, id: str) -> bool:
        """Whether an earlier attempt of the mutation with this id may have been carried out."""
        return may_have_happened(self._outbox.attempts(id))

    def find_not_added(self, mutation: Mutation, planned: Collection[str]) -> int | str | None:
        """The number, or the id, of a mutation that `mutation` refers to and that has added nothing, nor will.

        Args:
            mutation: a mutation of the queue.
            planned: ids of mutations that the same push sends.
        """
        for id in sorted(mutation.references - set(planned)):
            try:
                other, remote_id = self._outbox.stand_in(id)
            except ConfigError:
                return id
            if remote_id is None and other.id not in planned:
                return other.seq
        return None

    def hint(self, kind: str, target: str) -> str:
        """A hint about a record that never existed: similar ids."""
        stream, table = self._table(kind)
        if stream is None or self._warehouse is None:
            return "see that the id is right"
        key = quoted(stream.key)
        rows = self._warehouse.execute(
            f"SELECT {key}::VARCHAR FROM {table} WHERE _deleted_at IS NULL ORDER BY {key} LIMIT {_MOST_IDS}"
        ).fetchall()
        near = difflib.get_close_matches(row_key(stream, target), [row[0] for row in rows], n=_NEAR, cutoff=0.7)
        if near:
            return f"the warehouse has the {'id' if len(near) == 1 else 'ids'} {', '.join(near)}"
        return (
            f"the warehouse has {len(rows):,} {stream.name}, from id {rows[0][0]} on"
            if rows
            else "see that the id is right"
        )

    def _table(self, kind: str) -> tuple[Stream | None, str]:
        """The stream of records of `kind`, and its table; None if the warehouse has no such table."""
        stream = find_stream(kind)
        if stream is None or self._warehouse is None:
            return None, ""
        sql = (
            "SELECT count(*) FROM duckdb_tables() WHERE schema_name = 'main' AND table_name = ?"
            " AND database_name = current_database()"
        )
        exists = first(self._warehouse.execute(sql, [stream.name]))[0]
        return (stream, quoted("main", stream.name)) if exists else (None, "")
