"""Measures how fresh and how verified the published tables are, and how many of the day's tokens are left."""

from __future__ import annotations

import itertools
import sqlite3
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from pdsync.core import catalogue
from pdsync.core.token_ledger import tokens_left
from pdsync.runner import unlocked
from pdsync.runner.report.observed import observed_from
from pdsync.sql import first, quoted

if TYPE_CHECKING:
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
        compared, unreadable = _read_comparisons(warehouse), _count_unreadable(warehouse)
        observed = observed_from(warehouse)
        return [
            _measure(
                warehouse, settings, stream, since,
                Freshness(
                    stream, 0, 0, until, format_age(now - until), full,
                    differences=compared.get(stream, (0, None))[0], compared_at=compared.get(stream, (0, None))[1],
                    unreadable=unreadable.get(stream, 0), observed_from=observed.get(stream),
                ),
            )
            for stream, until, full in read_checkpoints(warehouse, settings)
        ]  # fmt: skip


def _measure(
    warehouse: duckdb.DuckDBPyConnection, settings: Settings, name: str, since: datetime, freshness: Freshness
) -> Freshness:
    """`freshness` with the counts of rows; those that were compared before `since` are unverified."""
    stream = catalogue.streams().get(name)
    seen, condition, joined = "t._verified_at", "true", ""
    if stream and _has_table(warehouse, "meta", "findings"):  # rows that were looked into are verified too
        seen = "greatest(t._verified_at, f.seen_at)"
        joined = (
            " LEFT JOIN (SELECT key, max(seen_at) AS seen_at FROM meta.findings WHERE stream = ? GROUP BY 1) f"
            f" ON f.key = t.{quoted(stream.key)}::VARCHAR"
        )
    if stream:
        condition = _can_be_verified(warehouse, settings, stream)
    row = first(
        warehouse.execute(
            "SELECT count(*) FILTER (alive), count(*) FILTER (NOT alive), count(*) FILTER (alive AND checked AND"
            " seen < ?), epoch(min(seen) FILTER (alive AND checked)) FROM (SELECT t._deleted_at IS NULL AS alive,"
            f" {seen} AS seen, {condition} AS checked FROM {quoted('main', name)} t{joined})",
            [since, *([name] if joined else [])],
        )
    )
    oldest = None if row[3] is None else datetime.fromtimestamp(row[3], UTC)
    return replace(freshness, rows=row[0], deleted=row[1], unverified=row[2], oldest_verified_at=oldest)


def _can_be_verified(warehouse: duckdb.DuckDBPyConnection, settings: Settings, stream: Stream) -> str:
    """The SQL condition for a row `t` whose source shows it again: not where its parent is deleted, or never asked."""
    version, sources = stream.sources(settings.api)
    if any(source.params for source in sources) or all(source.way == "new_parents" for source in sources):
        return "false"
    parent = sources[0].parent
    column = stream.parent_column(parent, version) if parent else None
    if not parent or not column or not _has_table(warehouse, "main", parent.stream):
        return "true"
    return (
        f"t.{quoted(column)} IN (SELECT {quoted(catalogue.stream(parent.stream).key)} FROM"
        f" {quoted('main', parent.stream)} WHERE _deleted_at IS NULL)"
    )


def _has_table(warehouse: duckdb.DuckDBPyConnection, schema: str, name: str) -> bool:
    """Whether there is a table; the file of an older pdsync lacks some."""
    counted = warehouse.execute(
        "SELECT count(*) FROM duckdb_tables() WHERE schema_name = ? AND table_name = ?", [schema, name]
    )
    return bool(first(counted)[0])


def _read_comparisons(warehouse: duckdb.DuckDBPyConnection) -> dict[str, tuple[int, datetime]]:
    """By stream: how many rows differed when all were last compared with the source, and when that was."""
    if not _has_table(warehouse, "meta", "sweeps"):
        return {}
    rows = warehouse.execute(
        "SELECT stream, arg_max(differences, swept_at), epoch(max(swept_at)) FROM meta.sweeps WHERE complete GROUP BY 1"
    ).fetchall()
    return {stream: (int(differences or 0), datetime.fromtimestamp(at, UTC)) for stream, differences, at in rows}


def _count_unreadable(warehouse: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """By stream: how many records of the runs since its last full reading can't be read."""
    if not _has_table(warehouse, "meta", "quarantine"):
        return {}
    rows = warehouse.execute(
        "SELECT q.stream, count(DISTINCT q.record) FROM meta.quarantine q JOIN meta.runs r USING (run_id)"
        " LEFT JOIN (SELECT stream, min(full_at) AS full_at FROM meta.checkpoints GROUP BY 1) c USING (stream)"
        " WHERE c.full_at IS NULL OR r.finished_at >= c.full_at GROUP BY 1"
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
    """Tokens left today and the day's limit, by the last answer; (None, 0) if there is no limit."""
    connection = sqlite3.connect(settings.control, timeout=30)
    try:
        return tokens_left(connection, settings.daily_tokens)
    finally:
        connection.close()


def format_age(age: timedelta) -> str:
    """A length of time in one unit: `7 min`."""
    seconds = age.total_seconds()
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
