"""Reads whether the data of a published warehouse is right: until when it is complete, and which gaps there are."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from msgspec import Struct

from pdsync.core import catalogue
from pdsync.runner.report import freshness
from pdsync.sql import first

if TYPE_CHECKING:
    import duckdb

    from pdsync.core.config import Settings


class Health(Struct, frozen=True):
    """The state of the data by the newest run, as in `pdsync status`. Optional streams count if no other was read."""

    read_at: datetime | None  # the newest reading; None: nothing was read yet
    complete_until: datetime | None  # of the streams that are complete; None: none is
    streams: int
    complete_streams: int
    gaps: list[str]  # the stream of each gap


def read_health(warehouse: duckdb.DuckDBPyConnection, settings: Settings) -> Health:
    """The state of the data in `warehouse`."""
    last: dict[str, bool] = {}
    for stream, complete in warehouse.execute(
        "SELECT stream, s.complete FROM meta.streams s JOIN meta.runs r USING (run_id)"
        " WHERE r.finished_at IS NOT NULL ORDER BY r.started_at, r.run_id"
    ).fetchall():
        last[stream] = bool(complete)
    last = {stream: complete for stream, complete in last.items() if not is_optional(stream)} or last
    ends = [until for stream, until, _ in freshness.read_checkpoints(warehouse, settings) if last.get(stream)]
    moment = first(warehouse.execute("SELECT epoch(max(as_of)) FROM meta.runs"))[0]
    gaps = first(
        warehouse.execute(
            "SELECT gaps FROM meta.runs WHERE finished_at IS NOT NULL ORDER BY started_at DESC, run_id DESC LIMIT 1"
        )
    )
    left = [str(gap).split(":", 1)[0] for gap in gaps[0] or ()] if gaps else []
    left += [stream for stream, complete in last.items() if not complete and stream not in left]
    return Health(
        read_at=datetime.fromtimestamp(moment, UTC) if moment is not None else None,
        complete_until=min(ends, default=None),
        streams=len(last),
        complete_streams=sum(stream not in left for stream in last),
        gaps=left,
    )


def is_optional(stream: str) -> bool:
    """Whether a sync reads the stream only if it is named."""
    entry = catalogue.streams().get(stream)
    return bool(entry and entry.optional)
