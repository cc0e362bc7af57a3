"""Measures how fresh and how verified the published tables are, and how many of the day's tokens are left."""

from __future__ import annotations

import itertools
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from msgspec import Struct

from pdsync.core import catalogue
from pdsync.core.disk import state_errors
from pdsync.core.token_ledger import tokens_left
from pdsync.runner import unlocked
from pdsync.runner.report.observed import observed_from
from pdsync.sql import literal, quoted

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import duckdb

    from pdsync.core.config import Settings
    from pdsync.model import Stream


class Freshness(Struct, frozen=True):
    """How fresh one table is."""

    stream: str
    rows: int  # not deleted
    deleted: int
    complete_until: datetime | None  # every change until then is loaded
    age: str
    last_full: datetime | None
    unverified: int = 0  # rows that were compared with the source longer ago than the verify cycle
    oldest_verified_at: datetime | None = None  # of those rows that can be verified
    differences: int = 0  # rows that differed from the source when they were last compared
    compared_at: datetime | None = None  # when that was
    unreadable: int = 0  # records that can't be read: in meta.quarantine
    observed_from: datetime | None = None  # since when its history is complete; None: no sync has read it whole


def measure_freshness(settings: Settings, now: datetime | None = None) -> list[Freshness]:
    """The freshness of each synced stream at `now`; empty if there is no warehouse yet."""
    if not settings.warehouse.exists():
        return []
    now = now or datetime.now(UTC)
    since = now - timedelta(days=settings.cycle_days)
    with unlocked.open_warehouse(settings) as warehouse:
        tables = _find_tables(warehouse)
        compared = _read_comparisons(warehouse) if ("meta", "sweeps") in tables else {}
        unreadable = _count_unreadable(warehouse) if ("meta", "quarantine") in tables else {}
        observed = observed_from(warehouse)
        checkpoints = read_checkpoints(warehouse, settings)
        counts = _count_rows(warehouse, settings, [stream for stream, *_ in checkpoints], since, tables)
    return [
        Freshness(
            stream, rows, deleted, until, format_age(now - until), full, unverified,
            oldest_verified_at=None if oldest is None else datetime.fromtimestamp(oldest, UTC),
            differences=compared.get(stream, (0, None))[0], compared_at=compared.get(stream, (0, None))[1],
            unreadable=unreadable.get(stream, 0), observed_from=observed.get(stream),
        )
        for stream, until, full in checkpoints
        for rows, deleted, unverified, oldest in [counts[stream]]
    ]  # fmt: skip


def _find_tables(warehouse: duckdb.DuckDBPyConnection) -> set[tuple[str, str]]:
    """The schema and name of each table; the file of an older pdsync lacks some."""
    return set(warehouse.execute("SELECT schema_name, table_name FROM duckdb_tables()").fetchall())


def _count_rows(
    warehouse: duckdb.DuckDBPyConnection,
    settings: Settings,
    names: Sequence[str],
    since: datetime,
    tables: Collection[tuple[str, str]],
) -> dict[str, tuple[int, int, int, float | None]]:
    """By stream, of those in `names`: rows, deleted ones, unverified ones, and when the oldest was verified.

    Rows that were compared before `since` are unverified. One statement: one for each stream takes three times as long.
    """
    looked_into = set()  # rows with a finding were verified when it was made
    if ("meta", "findings") in tables:
        looked_into = {name for (name,) in warehouse.execute("SELECT DISTINCT stream FROM meta.findings").fetchall()}
    parts = []
    for name in names:
        stream = catalogue.streams().get(name)
        seen, joined = "t._verified_at", ""
        if stream and name in looked_into:
            seen = "greatest(t._verified_at, f.seen_at)"
            joined = (
                f" LEFT JOIN (SELECT key, max(seen_at) AS seen_at FROM meta.findings WHERE stream = {literal(name)}"
                f" GROUP BY 1) f ON f.key = t.{quoted(stream.key)}::VARCHAR"
            )
        condition = _can_be_verified(settings, stream, tables) if stream else "true"
        parts.append(
            f"SELECT {literal(name)}, count(*) FILTER (alive), count(*) FILTER (NOT alive),"
            " count(*) FILTER (alive AND checked AND seen < $since), epoch(min(seen) FILTER (alive AND checked))"
            f" FROM (SELECT t._deleted_at IS NULL AS alive, {seen} AS seen, {condition} AS checked"
            f" FROM {quoted('main', name)} t{joined})"
        )
    rows = warehouse.execute(" UNION ALL ".join(parts), {"since": since}).fetchall() if parts else []
    return {name: tuple(counts) for name, *counts in rows}


def _can_be_verified(settings: Settings, stream: Stream, tables: Collection[tuple[str, str]]) -> str:
    """The SQL condition for a row `t` whose source shows it again: not where its parent is deleted, or never asked."""
    version, sources = stream.sources(settings.api)
    if any(source.params for source in sources) or all(source.way == "new_parents" for source in sources):
        return "false"
    parent = sources[0].parent
    column = stream.parent_column(parent, version) if parent else None
    if not parent or not column or ("main", parent.stream) not in tables:
        return "true"
    return (
        f"t.{quoted(column)} IN (SELECT {quoted(catalogue.stream(parent.stream).key)} FROM"
        f" {quoted('main', parent.stream)} WHERE _deleted_at IS NULL)"
    )


def _read_comparisons(warehouse: duckdb.DuckDBPyConnection) -> dict[str, tuple[int, datetime]]:
    """By stream: how many rows differed when all were last compared with the source, and when that was."""
    rows = warehouse.execute(
        "SELECT stream, arg_max(differences, swept_at), epoch(max(swept_at)) FROM meta.sweeps WHERE complete GROUP BY 1"
    ).fetchall()
    return {stream: (int(differences or 0), datetime.fromtimestamp(at, UTC)) for stream, differences, at in rows}


def _count_unreadable(warehouse: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """By stream: how many records of the runs since its last full reading can't be read.

    A killed run has no receipt: when the walk was loaded counts.
    """
    rows = warehouse.execute(
        "SELECT q.stream, count(DISTINCT q.record) FROM meta.quarantine q LEFT JOIN meta.runs r USING (run_id)"
        " LEFT JOIN (SELECT run_id, walk, max(applied_at) AS applied_at FROM meta._applied_batches GROUP BY ALL) b"
        " ON b.run_id = q.run_id AND b.walk = q.walk"
        " LEFT JOIN (SELECT stream, min(full_at) AS full_at FROM meta.checkpoints GROUP BY 1) c ON c.stream = q.stream"
        " WHERE c.full_at IS NULL OR coalesce(r.finished_at, b.applied_at) >= c.full_at GROUP BY 1"
    ).fetchall()
    return dict(rows)


def read_checkpoints(
    warehouse: duckdb.DuckDBPyConnection, settings: Settings
) -> list[tuple[str, datetime, datetime | None]]:
    """Each stream with the oldest watermark and the oldest full reading of its lists.

    Lists of the other API version, or of an earlier version of pdsync, count only where no other list was read.
    """
    rows = warehouse.execute(
        "SELECT stream, source, version, epoch(watermark), epoch(full_at) FROM meta.checkpoints ORDER BY stream"
    ).fetchall()
    current = set()
    for name, stream in catalogue.streams().items():
        version, sources = stream.sources(settings.api)
        current |= {(name, source.name, version) for source in sources}
    found = []
    for name, group in itertools.groupby(rows, key=lambda row: str(row[0])):
        lists = list(group)
        lists = [row for row in lists if row[:3] in current] or lists
        full = [datetime.fromtimestamp(row[4], UTC) for row in lists if row[4] is not None]
        found.append((name, datetime.fromtimestamp(min(row[3] for row in lists), UTC), min(full, default=None)))
    return found


def budget_left(settings: Settings) -> tuple[int | None, int]:
    """Tokens left today and the day's limit, by the last answer; (None, 0) if there is no limit.

    Raises:
        StorageError: control.db can't be read.
    """
    with state_errors(settings.control), closing(sqlite3.connect(settings.control, timeout=30)) as connection:
        return tokens_left(connection, settings.daily_tokens)


def format_age(age: timedelta) -> str:
    """A length of time in one unit: `7 min`."""
    seconds = age.total_seconds()
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
