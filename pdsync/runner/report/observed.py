"""Since when the history of a table is complete: what was before its first sync was not observed."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from pdsync.core import catalogue
from pdsync.core.views import view
from pdsync.load import history
from pdsync.load.history import Past

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import duckdb

    from pdsync.model import Stream


_EPOCH = datetime.fromtimestamp(0, UTC)
_OPEN_ON = (
    " sales.open_on(day) has the deals that were open, and the basis of each:"
    " changelog where it was synced (pdsync sync deal_changelog), else an estimate from the present row."
)
_NAMED = 5  # streams in a warning


def observed_from(connection: duckdb.DuckDBPyConnection) -> dict[str, datetime | None]:
    """Stream → since when its history is complete: the end of the first sync that read it whole, as meta.observed_from.

    A stream that no sync has read whole has None; one that was never read is absent.
    """
    query = view("observed_from").queries[0].sql  # not the view: the file of an older pdsync lacks it
    rows = connection.execute(f"SELECT stream, epoch_us(observed_from) FROM ({query})").fetchall()
    return {stream: None if at is None else _EPOCH + timedelta(microseconds=at) for stream, at in rows}


def past_of(connection: duckdb.DuckDBPyConnection, stream: Stream, since: datetime | None) -> Past:
    """What is known of the records of `stream` from before their first versions.

    Args:
        connection: to the warehouse.
        stream: one with a table.
        since: from when its history is complete; None: it is not.
    """
    log = None
    if stream.changelog and history.has_table(connection, stream.changelog):
        labels = catalogue.stream(stream.changelog).labels
        log = (stream.changelog, next(column for column, other in labels.items() if other == stream.name))
    created = "add_time" if "add_time" in stream.columns else None
    return Past(created, since or datetime.now(UTC), log, stream.title)


def streams_of(query: str) -> list[str]:
    """The streams whose tables or lists an SQL query names; deals, if it names none but `sales`."""
    names = set(re.findall(r"\w+", query.lower()))
    streams = [name for name, each in catalogue.streams().items() if names & {name, *each.children}]
    return streams or (["deals"] if "sales" in names else [])


def unobserved(since: Mapping[str, datetime | None], streams: Iterable[str], at: datetime) -> str | None:
    """A warning that the state at `at` is not known for some of `streams`; None where it is for all."""
    late = [stream for stream in streams if stream in since and ((when := since[stream]) is None or when > at)]
    if not late:
        return None
    listed = ", ".join(f"{stream} {_format(since[stream])}" for stream in sorted(late)[:_NAMED])
    more = f" and {len(late) - _NAMED} more" if len(late) > _NAMED else ""
    return (
        f"The state at {at.astimezone(UTC):%Y-%m-%d %H:%M} UTC is not known: history is complete from the first sync on"
        f" ({listed}{more}, UTC).\nFrom before it there is only each record's last change: others are missing, and"
        " counts are too low." + (_OPEN_ON if "deals" in late else "")
    )


def latest(since: Mapping[str, datetime | None], streams: Iterable[str]) -> datetime | None:
    """Since when the histories of all of `streams` are complete; None if one of them is not."""
    times = [since[stream] for stream in streams if stream in since]
    return None if None in times else max((time for time in times if time), default=None)


def _format(moment: datetime | None) -> str:
    return "never read whole" if moment is None else f"{moment:%Y-%m-%d %H:%M}"
