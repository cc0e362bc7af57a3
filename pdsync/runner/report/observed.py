"""Since when the history of a table is complete: what was before its first sync was not observed."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pdsync.core import catalogue

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import duckdb


def observed_from(connection: duckdb.DuckDBPyConnection) -> dict[str, datetime]:
    """Stream → when it was first loaded; later changes are in its history, earlier ones mostly are not."""
    rows = connection.execute("SELECT stream, min(applied_at) FROM meta._applied_batches GROUP BY 1").fetchall()
    return {stream: at.astimezone(UTC) for stream, at in rows}


def streams_of(query: str) -> list[str]:
    """The streams whose tables, lists or sales views an SQL query names."""
    names = set(re.findall(r"\w+", query.lower()))
    streams = [name for name, each in catalogue.streams().items() if names & {name, *each.children}]
    return streams or (["deals"] if "sales" in names else [])


def unobserved(since: Mapping[str, datetime], streams: Iterable[str], at: datetime) -> str | None:
    """A warning that the state at `at` is not known for some of `streams`; None where it is for all."""
    late = {stream: since[stream] for stream in streams if stream in since and since[stream] > at}
    if not late:
        return None
    listed = ", ".join(f"{stream} {when:%Y-%m-%d %H:%M}" for stream, when in sorted(late.items())[:5])
    more = f" and {len(late) - 5} more" if len(late) > 5 else ""
    return (
        f"The state at {at.astimezone(UTC):%Y-%m-%d %H:%M} UTC is not known: history is complete from the first sync on"
        f" ({listed}{more}, UTC).\nFrom before it there is only each record's last change: others are missing, and"
        " counts are too low. sales.deal_states has the past of deals by their changelog: pdsync sync deal_changelog"
    )
