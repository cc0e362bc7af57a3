"""Marks the rows of removed records. The row stays, with `_deleted_at`; its history gets a last version.

The hash of such a row is 0, which no other row has: a record that returns, even unchanged, counts as changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pdsync.load.commit import Batch, Counts, Target, forget_merges, note_batch
from pdsync.load.transaction import transaction
from pdsync.sql import first, quoted

if TYPE_CHECKING:
    from collections.abc import Sequence

    import duckdb

    from pdsync.model import Tombstone, Walk


def tombstone(
    connection: duckdb.DuckDBPyConnection, target: Target, walk: Walk, page: int, gone: Sequence[Tombstone]
) -> Counts:
    """Mark the rows of `gone`, note merges, and remember the page: all of it, or nothing.

    A page that was loaded before changes nothing. No row is marked that is already marked, or was read alive by another
    run since: a page may be loaded long after it was sealed, where the work file was lost. A merge is noted all the
    same, also of a record without a row, unless that record is alive and has changed since.

    Raises:
        duckdb.Error: nothing was written.
    """
    loaded = connection.execute(
        "SELECT deleted FROM meta._applied_batches WHERE run_id = ? AND walk = ? AND batch = ?",
        [walk.run_id, walk.id, page],
    ).fetchall()
    if loaded:
        return Counts(read=len(gone), deleted=int(loaded[0][0]))
    main, versions, key = quoted("main", target.name), quoted("versions", target.name), quoted(target.key)
    with transaction(connection):
        connection.execute("CREATE OR REPLACE TEMP TABLE gone (key VARCHAR, since TIMESTAMPTZ)")
        for each in gone:
            connection.execute("INSERT INTO temp.gone VALUES (?, ?)", [each.key, each.at])
        connection.execute(
            f"CREATE OR REPLACE TEMP TABLE removed AS SELECT t.{key} AS key,"
            f" greatest(min(g.since), t._valid_from + INTERVAL 1 MICROSECOND) AS since FROM {main} t"
            f" JOIN temp.gone g ON g.key = t.{key}::VARCHAR WHERE t._deleted_at IS NULL"
            f" AND (t._verified_at <= g.since OR t._run_id = ?) GROUP BY t.{key}, t._valid_from",
            [walk.run_id],
        )
        connection.execute(
            f"INSERT INTO {versions} BY NAME SELECT t.*, b.since AS _valid_to FROM {main} t"
            f" JOIN temp.removed b ON b.key = t.{key}"
        )
        connection.execute(
            f"UPDATE {main} t SET _deleted_at = b.since, _valid_from = b.since, _row_hash = 0, _run_id = ?,"
            f" _verified_at = greatest(t._verified_at, b.since) FROM temp.removed b WHERE b.key = t.{key}",
            [walk.run_id],
        )
        marked = int(first(connection.execute("SELECT count(*) FROM temp.removed"))[0])
        for each in gone:
            if each.winner is not None:
                _note_merge(connection, target.name, walk.run_id, each)
        forget_merges(connection, target, "gone")
        counts = Counts(read=len(gone), deleted=marked)
        note_batch(connection, Batch(walk, page, page, closes_walk=False, read=len(gone)), counts)
    return counts


def _note_merge(connection: duckdb.DuckDBPyConnection, entity: str, run_id: str, gone: Tombstone) -> None:
    connection.execute("DELETE FROM meta.merges WHERE entity = ? AND loser_id = ?", [entity, int(gone.key)])
    connection.execute(
        "INSERT INTO meta.merges VALUES (?, ?, ?, ?, ?, ?)",
        [entity, int(gone.key), int(str(gone.winner)), gone.confidence, gone.at, run_id],
    )
