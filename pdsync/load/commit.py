"""Commits one batch of staged rows: data, history, batch id and watermark in one transaction, or none of them.

A staged row is compared with the row in the table by the hash of its content. Only rows that differ are written; the
rows that they replace move to `versions`. There is no primary key, so only this module keeps keys unique, and it checks
that they are.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from msgspec import Struct

from pdsync.core.watermark import Checkpoint, advance
from pdsync.errors import StorageError
from pdsync.load.transaction import transaction
from pdsync.load.unmentioned import keep_unmentioned
from pdsync.sql import first, literal, quoted, quoted_list

if TYPE_CHECKING:
    from collections.abc import Sequence

    import duckdb

    from pdsync.core.custom_fields import SchemaChange
    from pdsync.model import Unmentioned, Walk


_CLOCKS_DIFFER = "INTERVAL 2 DAYS"  # at most: the server's at the times of two runs, one fast and the other one slow


class Target(Struct, frozen=True):
    """The table that a batch goes to."""

    name: str
    key: str
    columns: tuple[str, ...]  # those of the staging table
    cursor: str | None = None
    deleted: str | None = None  # the flag of deleted records; "!" negates it
    labels: dict[str, tuple[str, str, bool]] = {}  # label column → (id column, field code, many)


class Batch(Struct, frozen=True):
    """Pages of a walk that are committed together: `number` identifies them in the walk."""

    walk: Walk
    number: int
    last_page: int
    closes_walk: bool
    read: int
    quarantined: Sequence[tuple[int, int, bytes, str]] = ()  # page, position, record, reason
    changes: Sequence[SchemaChange] = ()
    unmentioned: Sequence[Unmentioned] = ()  # what the rows of saved answers do not mention
    at: datetime | None = None  # when it counts as loaded; None: now
    shows_all: bool = False  # it is the whole list, although the walk reads changes


class Counts(Struct):
    """The rows that a batch changed."""

    read: int = 0
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    unchanged: int = 0
    quarantined: int = 0
    schema_changes: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, name) + getattr(other, name) for name in Counts.__struct_fields__))


def commit(connection: duckdb.DuckDBPyConnection, target: Target, staged: str | None, batch: Batch) -> Counts:
    """Bring the staged rows into the table and remember the batch: both, or neither.

    A batch that was loaded before changes nothing, so a killed run can simply be run again. A row that was served
    before the one in the table is left out, as pages may arrive late, unless that one is of another run, has an older
    time of change, and was served so little later that the clocks may be wrong.

    Args:
        connection: to the work file.
        target: the table.
        staged: the staging table, quoted; None where the batch has no row.
        batch: its pages; the last one of a walk moves the watermark too.

    Returns:
        The changes, in rows; of a batch that was loaded before, those of that time.

    Raises:
        duckdb.Error: nothing was written, and the watermark did not move.
        StorageError: likewise; a key would be in the table twice, or the walk has no start time.
    """
    loaded = first(
        connection.execute(
            "SELECT read, inserted, updated, deleted, unchanged, quarantined, schema_changes FROM meta._applied_batches"
            " WHERE run_id = ? AND walk = ? AND batch = ?",
            [batch.walk.run_id, batch.walk.id, batch.number],
        )
    )
    if loaded:
        return Counts(*loaded)
    if staged:
        _keep_last_of_each_key(connection, target, staged)
        table = (target.name, target.key, target.deleted)
        keep_unmentioned(connection, staged, table, target.columns, batch.unmentioned)
        _compare(connection, target, staged, batch.walk)
    with transaction(connection):
        counts = _apply(connection, target, staged, batch) if staged else Counts()
        counts.read, counts.quarantined = batch.read, len(batch.quarantined)
        counts.schema_changes = _note_changes(connection, batch)
        note_batch(connection, batch, counts)
        if batch.closes_walk:
            _move_watermark(
                connection, target, staged, batch.walk, is_whole=batch.shows_all or batch.walk.since is None
            )
    return counts


def _keep_last_of_each_key(connection: duckdb.DuckDBPyConnection, target: Target, staged: str) -> None:
    """A record that changes during a walk may be read twice; the later page wins."""
    key = quoted(target.key)
    doubled = first(connection.execute(f"SELECT count(*) > count(DISTINCT {key}) FROM {staged}"))
    if doubled and doubled[0]:
        connection.execute(
            f"DELETE FROM {staged} WHERE rowid NOT IN"
            f" (SELECT arg_max(rowid, (_seq, rowid)) FROM {staged} GROUP BY {key})"
        )


def _compare(connection: duckdb.DuckDBPyConnection, target: Target, staged: str, walk: Walk) -> None:
    """Make temp.delta, a row for each staged row: what becomes of it.

    `changed`: it is written, as it is new (`is_new`), or differs and is not older than the row in the table.
    `confirmed`: it equals that row and was served later. One that is neither changes nothing. `valid_from`: from when
    it holds.
    """
    key = quoted(target.key)
    older = "s._served_at < t._verified_at"
    if target.cursor:
        cursor = quoted(target.cursor)
        # Older, not "as old": two edits within one second share an update_time, and both must be loaded.
        earlier = f"coalesce(s.{cursor} < t.{cursor}, false)"
        full = f"({older} OR (s._served_at = t._verified_at AND {earlier}))"
        older = full if walk.since is None else f"({older} OR {earlier})"
        # Times of one run are comparable. Across runs, whose clocks may differ by a day, a newer time of change wins,
        # unless the record was removed since.
        newer = (
            f"t._run_id <> {literal(walk.run_id)} AND s.{cursor} > t.{cursor}"
            f" AND s._served_at > t._verified_at - {_CLOCKS_DIFFER}"
            f" AND (t._deleted_at IS NULL OR s.{cursor} > t._deleted_at)"
        )
        older = f"({older} AND NOT coalesce({newer}, false))"
    since = _valid_from(target)
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE delta AS SELECT s.rowid AS staged_row, s.{key} AS key,"
        f" t.{key} IS NULL AS is_new,"
        f" t.{key} IS NULL OR (t._row_hash <> s._row_hash AND NOT {older}) AS changed,"
        f" t._row_hash = s._row_hash AND s._served_at > t._verified_at AS confirmed,"
        f" CASE WHEN t.{key} IS NULL OR {since} > t._valid_from THEN {since}"
        f" ELSE greatest(s._served_at, t._valid_from + INTERVAL 1 MICROSECOND) END AS valid_from,"
        f" t._deleted_at IS NOT NULL AS was_deleted, s._served_at AS served_at"
        f" FROM {staged} s LEFT JOIN {quoted('main', target.name)} t ON t.{key} = s.{key}"
    )


def _valid_from(target: Target) -> str:
    """When a staged row became valid: its own time of change, unless that is in the future."""
    if not target.cursor:
        return "s._served_at"
    cursor = f"s.{quoted(target.cursor)}"
    return f"coalesce(CASE WHEN {cursor} <= s._served_at THEN {cursor} END, s._served_at)"


def _apply(connection: duckdb.DuckDBPyConnection, target: Target, staged: str, batch: Batch) -> Counts:
    main, key = quoted("main", target.name), quoted(target.key)
    totals = first(
        connection.execute(
            "SELECT count(*), count(*) FILTER (is_new), count(*) FILTER (changed AND NOT is_new),"
            " count(*) FILTER (confirmed AND NOT changed) FROM temp.delta"
        )
    ) or (0, 0, 0, 0)
    rows, new, changed, confirmed = (int(count) for count in totals)
    counts = Counts(inserted=new, updated=changed, unchanged=rows - new - changed)
    if changed:
        connection.execute(
            f"INSERT INTO {quoted('versions', target.name)} BY NAME SELECT t.*, d.valid_from AS _valid_to FROM {main} t"
            f" JOIN temp.delta d ON d.key = t.{key} WHERE d.changed AND NOT d.is_new"
        )
        connection.execute(
            f"DELETE FROM {main} WHERE {key} IN (SELECT key FROM temp.delta WHERE changed AND NOT is_new)"
        )
    if new or changed:
        deleted = _insert(connection, target, staged, batch, all_new=new == rows)
        counts.deleted = deleted
        counts.updated -= min(deleted, changed)
    if confirmed:
        connection.execute(
            f"UPDATE {main} t SET _verified_at = d.served_at FROM temp.delta d"
            f" WHERE d.key = t.{key} AND d.confirmed AND NOT d.changed"
        )
    if new or changed:
        _check_unique(connection, target, new + changed)
    if changed:
        forget_merges(connection, target, "delta")
    return counts


def forget_merges(connection: duckdb.DuckDBPyConnection, target: Target, table: str) -> None:
    """Delete the merges of records that are alive and have changed since: they were not merged away.

    An unchanged one may be shown by a list that lags behind its merge.

    Args:
        connection: to the work file.
        target: the table.
        table: the temporary table with the keys of the records: "gone", or those that have changed of "delta".
    """
    if not target.cursor:
        return
    key = f"t.{quoted(target.key)}::VARCHAR"
    changed = " WHERE changed" if table == "delta" else ""
    connection.execute(
        f"DELETE FROM meta.merges m USING {quoted('main', target.name)} t"
        f" WHERE m.entity = {literal(target.name)} AND m.loser_id::VARCHAR = {key} AND t._deleted_at IS NULL"
        f" AND t.{quoted(target.cursor)} > m.seen_at AND {key} IN (SELECT key::VARCHAR FROM"
        f" {quoted('temp', table)}{changed})"
    )


def _insert(connection: duckdb.DuckDBPyConnection, target: Target, staged: str, batch: Batch, *, all_new: bool) -> int:
    """Insert new and changed rows; the number of rows that were alive and are deleted now."""
    flag = target.deleted.removeprefix("!") if target.deleted else None
    gone = "false"
    if flag and target.deleted:
        gone = f"{'NOT ' if target.deleted.startswith('!') else ''}s.{quoted(flag)}"
    since = f"coalesce(s.{quoted(target.cursor)}, s._served_at)" if target.cursor else "s._served_at"
    joins, labels = _labels(target)
    columns = quoted_list([*target.columns, *labels, "_extra", "_synced_at", "_verified_at", "_run_id", "_deleted_at"])
    values = ", ".join([quoted_list(list(target.columns), "s."), *labels.values()])
    # A first load does not need the comparison.
    valid_from = _valid_from(target) if all_new else "d.valid_from"
    delta = "" if all_new else "JOIN temp.delta d ON d.staged_row = s.rowid AND d.changed"
    connection.execute(
        f"INSERT INTO {quoted('main', target.name)} ({columns}, _valid_from, _row_hash)"
        f" SELECT {values}, s._extra, ?, s._served_at, ?, CASE WHEN {gone} THEN {since} END, {valid_from}, s._row_hash"
        f" FROM {staged} s {delta} {joins}",
        [batch.at or datetime.now(UTC), batch.walk.run_id],
    )
    if not flag or all_new:
        return 0
    counted = first(
        connection.execute(
            f"SELECT count(*) FROM temp.delta d JOIN {staged} s ON d.staged_row = s.rowid"
            f" WHERE d.changed AND NOT d.is_new AND NOT d.was_deleted AND {gone}"
        )
    )
    return int(counted[0]) if counted else 0


def _labels(target: Target) -> tuple[str, dict[str, str]]:
    """Joins and expressions that look up option labels: by join for one option, in a map for several."""
    joins, expressions = [], {}
    for index, (column, (ids, code, many)) in enumerate(target.labels.items()):
        where = f"entity = {literal(target.name)} AND field_code = {literal(code)}"
        alias = f"l{index}"
        if many:
            joins.append(
                f"CROSS JOIN (SELECT coalesce(map_from_entries(list((option_id::BIGINT, label))), MAP {{}}) AS labels"
                f" FROM meta.field_options WHERE {where} AND TRY_CAST(option_id AS BIGINT) IS NOT NULL) {alias}"
            )
            expressions[column] = f"list_transform(s.{quoted(ids)}, lambda i: {alias}.labels[i])"
        else:
            joins.append(
                f"LEFT JOIN (SELECT option_id, label FROM meta.field_options WHERE {where}) {alias}"
                f" ON {alias}.option_id = s.{quoted(ids)}::VARCHAR"
            )
            expressions[column] = f"{alias}.label"
    return " ".join(joins), expressions


def refresh_labels(connection: duckdb.DuckDBPyConnection, target: Target) -> int:
    """Bring the label columns up to date after options were renamed; the number of values that changed.

    A renamed option moves no record's update_time, and is no new version of the record either. The label of an option
    that was deleted, or whose field was, stays beside its id: the rows and their history have it from nowhere else.
    """
    changed = 0
    for column, (ids, _, many) in target.labels.items():
        only = Target(target.name, target.key, (), labels={column: target.labels[column]})
        joins, expressions = _labels(only)
        now, before = expressions[column], f"s.{quoted(column)}"
        if many:
            set_ids = f"len(s.{quoted(ids)}) > 0"
            label = f"list_transform({now}, lambda label, position: coalesce(label, {before}[position]))"
        else:
            set_ids, label = f"s.{quoted(ids)} IS NOT NULL", f"coalesce({now}, {before})"
        connection.execute(
            f"CREATE OR REPLACE TEMP TABLE relabeled AS SELECT s.rowid AS row, {label} AS label"
            f" FROM {quoted('main', target.name)} s {joins}"
            f" WHERE {set_ids} AND {before} IS DISTINCT FROM {label}"
        )
        done = first(
            connection.execute(
                f"UPDATE {quoted('main', target.name)} t SET {quoted(column)} = r.label"
                " FROM temp.relabeled r WHERE t.rowid = r.row"
            )
        )
        changed += int(done[0]) if done else 0
    return changed


def _check_unique(connection: duckdb.DuckDBPyConnection, target: Target, written: int) -> None:
    """Check that each written key is in the table once, as a primary key would guarantee."""
    key = quoted(target.key)
    counted = first(
        connection.execute(
            f"SELECT count(*), count(DISTINCT {key}) FROM {quoted('main', target.name)} WHERE {key} IN"
            " (SELECT key FROM temp.delta WHERE changed)"
        )
    )
    if counted and not counted[0] == counted[1] == written:
        raise StorageError(
            f"{target.name} would have {counted[0]} rows for {counted[1]} keys: the batch was not committed.\n"
            f"Please report this, with the output of: pdsync doctor --json"
        )


def _note_changes(connection: duckdb.DuckDBPyConnection, batch: Batch) -> int:
    new = 0
    for page, position, record, reason in batch.quarantined:
        connection.execute(
            "INSERT INTO meta.quarantine VALUES (?, ?, ?, ?, ?, ?, ?)",
            [batch.walk.run_id, batch.walk.stream, batch.walk.id, page, position, reason, record],
        )
    for change in batch.changes:
        new += note_change(connection, batch.walk.run_id, change, batch.at)
    return new


def note_change(
    connection: duckdb.DuckDBPyConnection, run_id: str, change: SchemaChange, at: datetime | None = None
) -> int:
    """Record a schema change, seen at the time `at` or now; 1 if it is new.

    What each run sees again (a field that is gone, an unknown key, a value that doesn't fit) is new only once.
    """
    row = first(
        connection.execute(
            "INSERT INTO meta.schema_changes SELECT $run_id, $at, $entity, $kind, $name, $detail"
            " WHERE $kind IN ('field_added', 'field_renamed', 'field_retyped') OR NOT EXISTS"
            " (SELECT 1 FROM meta.schema_changes"
            " WHERE entity = $entity AND kind = $kind AND name = $name AND detail = $detail)",
            {
                "run_id": run_id,
                "at": at or datetime.now(UTC),
                "entity": change.stream,
                "kind": change.kind,
                "name": change.name,
                "detail": change.detail,
            },
        )
    )
    return int(row[0]) if row else 0


def note_batch(connection: duckdb.DuckDBPyConnection, batch: Batch, counts: Counts) -> None:
    connection.execute(
        "INSERT INTO meta._applied_batches VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            batch.walk.id,
            batch.number,
            batch.last_page,
            batch.walk.run_id,
            batch.walk.stream,
            batch.at or datetime.now(UTC),
            counts.read,
            counts.inserted,
            counts.updated,
            counts.deleted,
            counts.unchanged,
            counts.quarantined,
            counts.schema_changes,
        ],
    )


def _move_watermark(
    connection: duckdb.DuckDBPyConnection, target: Target, staged: str | None, walk: Walk, *, is_whole: bool
) -> None:
    """Note until when the list is complete, after a walk that was read to its end: see `core.watermark`."""
    if walk.started_at is None:
        raise StorageError(f"Walk {walk.id} of {walk.stream} has no start time; its watermark was not moved.")
    checkpoint = [walk.stream, walk.source, walk.version]
    before = first(
        connection.execute(
            "SELECT watermark, full_at, newest FROM meta.checkpoints WHERE stream = ? AND source = ? AND version = ?",
            checkpoint,
        )
    )
    newest = ended_at = None
    if target.cursor:
        newest = first(connection.execute(f"SELECT max({quoted(target.cursor)}) FROM {quoted('main', target.name)}"))[0]
        ended_at = first(connection.execute(f"SELECT max(_served_at) FROM {staged}"))[0] if staged else None
    after = advance(
        Checkpoint(*before) if before else None,
        since=walk.since,
        started_at=walk.started_at,
        ended_at=ended_at,
        is_whole=is_whole,
        newest=newest,
    )
    if after is None:
        return
    connection.execute("DELETE FROM meta.checkpoints WHERE stream = ? AND source = ? AND version = ?", checkpoint)
    connection.execute(
        "INSERT INTO meta.checkpoints VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [*checkpoint, after.watermark, after.full_at, walk.id, walk.run_id, after.newest],
    )
