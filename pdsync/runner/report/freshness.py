"""Measures how fresh the published tables are, and how many of the day's tokens are left."""

from __future__ import annotations

import itertools
import sqlite3
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from msgspec import Struct

from pdsync.core import catalogue
from pdsync.core.budget import tokens_left
from pdsync.runner import project
from pdsync.sql import first, quoted

if TYPE_CHECKING:
    import duckdb

    from pdsync.core.config import Settings


class Freshness(Struct, frozen=True):
    """How fresh one table is."""

    stream: str
    rows: int  # not deleted
    deleted: int
    complete_until: datetime | None  # every change until then is loaded
    age: str
    last_full: datetime | None


def measure_freshness(settings: Settings) -> list[Freshness]:
    """The freshness of each synced stream; empty if there is no warehouse yet."""
    if not settings.warehouse.exists():
        return []
    tables = []
    with project.open_warehouse(settings) as warehouse:
        for stream, until, full in _read_checkpoints(warehouse, settings):
            counted = first(
                warehouse.execute(
                    f"SELECT count(*) FILTER (_deleted_at IS NULL), count(*) FILTER (_deleted_at IS NOT NULL)"
                    f" FROM {quoted('main', stream)}"
                )
            ) or (0, 0)
            moment = datetime.fromtimestamp(until, UTC)
            tables.append(
                Freshness(
                    stream=stream,
                    rows=int(counted[0]),
                    deleted=int(counted[1]),
                    complete_until=moment,
                    age=_format_age((datetime.now(UTC) - moment).total_seconds()),
                    last_full=datetime.fromtimestamp(full, UTC) if full else None,
                )
            )
    return tables


def _read_checkpoints(
    warehouse: duckdb.DuckDBPyConnection, settings: Settings
) -> list[tuple[str, float, float | None]]:
    """Each stream with the oldest watermark and the oldest full reading of its lists, in seconds since 1970.

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
        full = [row[4] for row in lists if row[4] is not None]
        found.append((name, min(row[3] for row in lists), min(full, default=None)))
    return found


def budget_left(settings: Settings) -> tuple[int | None, int]:
    """Tokens left today and the day's limit, by the last answer; (None, 0) if there is no limit."""
    connection = sqlite3.connect(settings.control, timeout=30)
    try:
        return tokens_left(connection, settings.daily_tokens)
    finally:
        connection.close()


def _format_age(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
