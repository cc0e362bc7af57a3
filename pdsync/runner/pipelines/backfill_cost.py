"""Estimates what is left of a backfill, by the rows that the published warehouse has of each of its windows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pdsync.core import catalogue
from pdsync.core.control.windows import Windows
from pdsync.load import warehouse as files
from pdsync.runner import unlocked
from pdsync.runner.pipelines.forecast import StreamForecast
from pdsync.runner.pipelines.list_cost import count_requests
from pdsync.runner.sync.backfill import names_of
from pdsync.sql import first, quoted

if TYPE_CHECKING:
    import duckdb

    from pdsync.core.config import Settings
    from pdsync.model import Operation, Source, Stream
    from pdsync.runner.sync.backfill import BackfillRequest

_Part = tuple["Stream", "Source", "Operation", datetime, datetime]  # of a list, from when until when


def estimate_backfill(settings: Settings, request: BackfillRequest) -> list[StreamForecast]:
    """What is left of a backfill: requests and tokens by stream.

    Of one that begins, also a page of each list that defines the streams' fields. A stream without a table has a lower
    bound only. Makes no request.

    Raises:
        ConfigError: the list of a named stream can't be read by time.
    """
    parts, found = _remaining_parts(settings, request), dict[str, StreamForecast]()
    if parts is None:
        parts = _all_parts(settings, request)
        for name in dict.fromkeys(stream.fields for stream, *_ in parts if stream.fields):
            version, sources = catalogue.stream(name).sources(settings.api)
            cost = sum(catalogue.operations(version)[source.operation].cost or 0 for source in sources)
            found[name] = StreamForecast(name, "full", len(sources), cost, False)
    connection = unlocked.open_warehouse(settings) if settings.warehouse.exists() else None
    try:
        for stream, source, operation, since, until in parts:
            rows = _count_rows(connection, stream, source, since, until)
            requests = count_requests(operation, rows or 0)
            before = found.get(stream.name, StreamForecast(stream.name, "full", 0, 0, False))
            found[stream.name] = StreamForecast(
                stream.name,
                "full",
                before.requests + requests,
                before.tokens + requests * (operation.cost or 0),
                before.at_least or rows is None,
            )
    finally:
        if connection:
            connection.close()
    return list(found.values())


def _all_parts(settings: Settings, request: BackfillRequest) -> list[_Part]:
    until = request.until or datetime.now(UTC)
    lists = request.lists(settings.api)
    return [(stream, source, operation, request.since, until) for stream, _, source, operation in lists]


def _remaining_parts(settings: Settings, request: BackfillRequest) -> list[_Part] | None:
    """The windows that an interrupted backfill has still to read; None for one that begins."""
    if not settings.control.exists():
        return None
    with unlocked.open_control(settings) as control:
        windows = Windows(control)
        if (job := windows.job(request.command, names_of(request.lists(settings.api)))) is None:
            return None
        left = [window for window, state in windows.unfinished(job) if state != "sealed"]
    lists = {(part[0].name, part[1].name): part[:3] for part in _all_parts(settings, request)}
    return [
        (*lists[window.stream, window.source], window.since, window.until)
        for window in left
        if (window.stream, window.source) in lists
    ]


def _count_rows(
    connection: duckdb.DuckDBPyConnection | None, stream: Stream, source: Source, since: datetime, until: datetime
) -> int | None:
    """The rows of a list that changed in a window; None if the stream has no table."""
    if connection is None or stream.cursor is None or stream.name not in files.tables(connection):
        return None
    cursor = quoted(stream.cursor)
    condition = f"{cursor} >= ? AND {cursor} < ?"
    if "is_archived" in stream.columns:
        condition += f" AND coalesce(is_archived, false) = {'true' if 'archived' in source.name else 'false'}"
    table = quoted("main", stream.name)
    return int(first(connection.execute(f"SELECT count(*) FROM {table} WHERE {condition}", [since, until]))[0])
