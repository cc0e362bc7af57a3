"""Compares the lists of the source with the warehouse: every key, every time of change, every flag.

A sweep reads each list of a stream to its end, and keeps of each record what shows a difference: its key, its time of
change, the hash of its row, whether it is deleted or archived, which list showed it, and which records it points to.
The comparison is one statement. A record that no list shows is only `absent`: `reconcile.evidence` decides what that
means.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from pdsync.core import catalogue
from pdsync.normalise.stage import StagingTable
from pdsync.sql import first, literal, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import duckdb

    from pdsync.model import Operation, Page, Stream
    from pdsync.normalise.tables import Table

MERGEABLE = ("deals", "persons", "organizations")
CONVERTED_FROM = {
    "leads": ("deals", "source_lead_id"),
    "deals": ("leads", "source_deal_id"),
}  # converted stream → the stream whose column names the original


class Difference(Struct, frozen=True):
    """A record that differs between source and warehouse, or that only one of them has."""

    key: str
    kind: str  # missing, restored, soft_deleted, archived, unarchived, stale, backdated, differs, absent
    source: str | None  # the list that showed it


def find_moved_before(
    connection: duckdb.DuckDBPyConnection, other: Stream, target: Stream, keys: Sequence[str]
) -> dict[str, set[str | None]]:
    """Find where records of `other` point now that pointed to a record of `target` when that was last seen.

    An earlier sync may have loaded their new versions already, so the older versions are read.

    Returns:
        By each of `keys`, which are of `target`: the keys to which they point now.
    """
    found: dict[str, set[str | None]] = {}
    key, main = quoted(other.key), quoted("main", target.name)
    for pointer, stream in other.labels.items():
        if stream != target.name:
            continue
        column = quoted(pointer)
        rows = connection.execute(
            f"SELECT v.{column}::VARCHAR, t.{column}::VARCHAR FROM {quoted('versions', other.name)} v"
            f" JOIN {quoted('main', other.name)} t ON t.{key} = v.{key}"
            f" JOIN {main} g ON g.{quoted(target.key)} = v.{column}"
            f" WHERE v.{column}::VARCHAR IN (SELECT unnest(?::VARCHAR[])) AND v._valid_to > g._verified_at"
            f" AND t.{column} IS DISTINCT FROM v.{column} AND t._deleted_at IS NULL",
            [list(keys)],
        ).fetchall()
        for old, new in rows:
            found.setdefault(str(old), set()).add(new)
    return found


class Sweep:
    """The records that the lists of one stream show. To be used in the loader's thread."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, table: Table, number: int) -> None:
        self.connection, self.table, self.stream = connection, table, table.stream
        self._name = f"swept_{number}"
        self._stages: dict[str, StagingTable] = {}
        self.rows = 0
        self.unreadable = 0
        columns = ["key VARCHAR", "since TIMESTAMPTZ", "hash UBIGINT", "is_gone BOOLEAN", "is_archived BOOLEAN",
                   "list VARCHAR", "served_at TIMESTAMPTZ"]  # fmt: skip
        columns += [f"{quoted(column)} VARCHAR" for column in self._context_columns]
        connection.execute(f"CREATE OR REPLACE TEMP TABLE {quoted(self._name)} ({', '.join(columns)})")

    @property
    def relation(self) -> str:
        """The quoted name of the temporary table."""
        return quoted("temp", self._name)

    @property
    def _context_columns(self) -> list[str]:
        """The columns that are evidence for other records: pointers to mergeable ones, origins, parents, and counts."""
        stream = self.stream
        columns = [column for column, other in stream.labels.items() if other in MERGEABLE]
        columns += [column for made, column in CONVERTED_FROM.values() if made == stream.name]
        for other in catalogue.streams().values():
            columns += [each.having for each in other.counted if each.stream == stream.name and each.having]
        parents = [source.parent for source in (*stream.v1, *stream.v2) if source.parent]
        columns += [column for each in parents if (column := stream.parent_column(each, self.table.version))]
        return list(dict.fromkeys(columns))

    def add(self, source: str, operation: Operation, pages: Sequence[Page]) -> None:
        """Add the records of `pages` of the list `source`."""
        if source not in self._stages:
            self._stages[source] = StagingTable(self.connection, f"{self._name}_{source}", self.table, operation)
        stage = self._stages[source]
        stage.add(pages)
        self.unreadable += len(stage.quarantined)
        if not stage.rows:
            stage.clear()  # of the unreadable ones, which would be counted again
            return
        stream = self.stream
        key = quoted(stream.key)
        flag = (stream.deleted or "").lstrip("!")
        gone = (
            f"coalesce({'NOT ' if (stream.deleted or '').startswith('!') else ''}{quoted(flag)}, false)"
            if flag
            else "false"
        )
        values = [
            f"{key}::VARCHAR",
            quoted(stream.cursor) if stream.cursor else "NULL",
            "_row_hash",
            gone,
            "coalesce(is_archived, false)" if "is_archived" in stream.columns else "false",
            literal(source),
            "_served_at",
            *(f"{quoted(column)}::VARCHAR" for column in self._context_columns),
        ]
        self.connection.execute(f"INSERT INTO {self.relation} SELECT {', '.join(values)} FROM {stage.relation}")
        self.rows += stage.rows
        stage.clear()

    def close(self) -> None:
        """Drop the temporary table."""
        self.connection.execute(f"DROP TABLE IF EXISTS {self.relation}")

    def differences(self, *, deep: bool, only: Iterable[str] | None = None) -> list[Difference]:
        """Every difference.

        Args:
            deep: also records whose values differ while their time of change is equal; of streams without such a time,
                they are always included.
            only: the keys that were requested; None: the whole list was read.
        """
        stream, key = self.stream, quoted(self.stream.key)
        cursor = f"t.{quoted(stream.cursor)}" if stream.cursor else "NULL::TIMESTAMPTZ"
        archived = "t.is_archived" if "is_archived" in stream.columns else "false"
        condition = ""
        if only is not None:
            self.connection.execute(
                "CREATE OR REPLACE TEMP TABLE requested_keys AS SELECT unnest(?::VARCHAR[]) AS key", [list(only)]
            )
            condition = f"AND t.{key}::VARCHAR IN (SELECT key FROM temp.requested_keys)"
        differs = "t._row_hash <> s.hash" if deep or stream.cursor is None else "false"
        rows = self.connection.execute(
            f"WITH s AS (SELECT * FROM {self.relation} QUALIFY row_number() OVER"
            " (PARTITION BY key ORDER BY served_at DESC, is_gone) = 1)"
            f" SELECT coalesce(s.key, t.{key}::VARCHAR), CASE"
            f" WHEN t.{key} IS NULL THEN 'missing'"
            f" WHEN s.key IS NULL THEN CASE WHEN t._deleted_at IS NULL {condition} THEN 'absent' END"
            " WHEN s.is_gone AND t._deleted_at IS NULL THEN 'soft_deleted'"
            " WHEN NOT s.is_gone AND t._deleted_at IS NOT NULL THEN 'restored'"
            " WHEN s.is_gone THEN NULL"
            f" WHEN s.is_archived AND NOT coalesce({archived}, false) THEN 'archived'"
            f" WHEN NOT s.is_archived AND coalesce({archived}, false) THEN 'unarchived'"
            f" WHEN s.since > {cursor} OR (s.since IS NOT NULL AND {cursor} IS NULL) THEN 'stale'"
            f" WHEN s.since < {cursor} THEN 'backdated'"
            f" WHEN {differs} THEN 'differs' END AS kind, s.list"
            f" FROM s FULL JOIN {quoted('main', stream.name)} t ON t.{key}::VARCHAR = s.key"
            " WHERE kind IS NOT NULL ORDER BY 1"
        ).fetchall()
        return [Difference(str(row[0]), str(row[1]), row[2]) for row in rows]

    def find_shown(self, keys: Sequence[str]) -> set[str]:
        """Those of `keys` that the lists showed."""
        rows = self.connection.execute(
            f"SELECT DISTINCT key FROM {self.relation} WHERE key IN (SELECT unnest(?::VARCHAR[]))", [list(keys)]
        ).fetchall()
        return {str(row[0]) for row in rows}

    def verify(self) -> int:
        """Set `_verified_at` of the rows that equal the source; how many of those are not deleted."""
        main, key = quoted("main", self.stream.name), quoted(self.stream.key)
        self.connection.execute(
            f"UPDATE {main} t SET _verified_at = s.served_at FROM {self.relation} s"
            f" WHERE s.key = t.{key}::VARCHAR AND s.hash = t._row_hash AND s.served_at > t._verified_at"
        )
        return int(
            first(
                self.connection.execute(
                    f"SELECT count(*) FROM {main} t WHERE t._deleted_at IS NULL AND EXISTS (SELECT 1"
                    f" FROM {self.relation} s WHERE s.key = t.{key}::VARCHAR AND s.hash = t._row_hash"
                    " AND s.served_at >= t._verified_at)"
                )
            )[0]
        )

    def count_alive(self, only: Iterable[str] | None = None) -> int:
        """The number of records at the source that are not deleted; of the keys `only` where they are given."""
        condition = "" if only is None else " AND key IN (SELECT unnest($only::VARCHAR[]))"
        return int(
            first(
                self.connection.execute(  # offset pages may overlap, and a record may be in two lists
                    f"SELECT count(*) FROM (SELECT key, is_gone FROM {self.relation} QUALIFY row_number() OVER"
                    f" (PARTITION BY key ORDER BY served_at DESC, is_gone) = 1) WHERE NOT is_gone{condition}",
                    {} if only is None else {"only": list(only)},
                )
            )[0]
        )

    def choose_canaries(self, most: int) -> list[str]:
        """At most `most` keys that the source has just shown: the oldest, the newest, and others."""
        half = max(most // 4, 1)
        rows = self.connection.execute(
            f"WITH s AS (SELECT key, TRY_CAST(key AS BIGINT) AS n FROM {self.relation} WHERE NOT is_gone)"
            " (SELECT key FROM s ORDER BY n, key LIMIT ?) UNION"
            " (SELECT key FROM s ORDER BY n DESC, key DESC LIMIT ?) UNION"
            " (SELECT key FROM s ORDER BY hash(key) LIMIT ?)",
            [half, half, most - 2 * half],
        ).fetchall()
        return [str(row[0]) for row in rows]

    def find_conversions(self, column: str, keys: Sequence[str]) -> dict[str, str]:
        """By each of `keys`: the record that names it as its origin."""
        rows = self.connection.execute(
            f"SELECT {quoted(column)}, key FROM {self.relation}"
            f" WHERE {quoted(column)} IN (SELECT unnest(?::VARCHAR[]))",
            [list(keys)],
        ).fetchall()
        return {str(origin): str(key) for origin, key in rows}

    def find_moved(self, target: str, keys: Sequence[str]) -> dict[str, set[str | None]]:
        """By each of `keys`, of the stream `target`: where records point now that point to it in the warehouse.

        A record that points to it at the source, wherever it points in the warehouse, is among them: it has not moved.
        """
        found: dict[str, set[str | None]] = {}
        main, own = quoted("main", self.stream.name), f"{quoted(self.stream.key)}::VARCHAR"
        for column, other in self.stream.labels.items():
            if other != target:
                continue
            pointer = quoted(column)
            rows = self.connection.execute(
                f"SELECT t.{pointer}::VARCHAR, s.{pointer} FROM {main} t JOIN {self.relation} s ON s.key = t.{own}"
                f" WHERE t.{pointer}::VARCHAR IN (SELECT unnest($keys::VARCHAR[])) AND NOT s.is_gone"
                f" UNION SELECT {pointer}, {pointer} FROM {self.relation}"
                f" WHERE {pointer} IN (SELECT unnest($keys::VARCHAR[])) AND NOT is_gone",
                {"keys": list(keys)},
            ).fetchall()
            for old, new in rows:
                found.setdefault(str(old), set()).add(new)
        return found
