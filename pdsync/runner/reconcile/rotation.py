"""Selects the streams that a nightly run reconciles, so that every row is verified within the verify cycle.

Reading changes never shows what has no time of change: records that were purged, merged or relinked. Whole streams
take turns, the one that was read longest ago first, each night as many as make up one day's share of the cycle. Pages
of 500 rows are read in order: that costs a fifth of requesting the same rows by their ids, and shows missing rows too.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from msgspec import Struct

from pdsync.core import catalogue
from pdsync.load import warehouse
from pdsync.reconcile import evidence
from pdsync.reconcile.evidence import CANARIES
from pdsync.runner import project
from pdsync.sql import first, quoted

if TYPE_CHECKING:
    from collections.abc import Collection

    import duckdb

    from pdsync.core.config import Settings
    from pdsync.model import Stream

_DAY = timedelta(days=1)


class DueStream(Struct, frozen=True):
    """A stream that is due for a reconciliation."""

    stream: str
    rows: int
    requests: int  # for its lists
    tokens: int  # with the canaries
    seen_at: datetime  # when it was last read whole


def select_due(settings: Settings, names: Collection[str]) -> list[DueStream]:
    """Those of the streams called `names` that are due now, by the state of the published warehouse."""
    if not settings.verify_cycle or not settings.warehouse.exists():
        return []
    with project.open_warehouse(settings) as connection:
        now = first(connection.execute("SELECT max(watermark) FROM meta.checkpoints"))[0]  # the server's time
        planned = [plan for name in names if (plan := _plan_stream(connection, settings, catalogue.stream(name)))]
    share = math.ceil(sum(each.requests for each in planned) / settings.verify_cycle)
    due: list[DueStream] = []
    for plan in sorted(planned, key=lambda each: each.seen_at):
        age = now - plan.seen_at
        is_in_share = sum(each.requests for each in due) < share
        if age >= _DAY and (is_in_share or age >= _DAY * (settings.verify_cycle - 1)):
            due.append(plan)
    return due


def _plan_stream(connection: duckdb.DuckDBPyConnection, settings: Settings, stream: Stream) -> DueStream | None:
    """A stream and its cost; None if every sync reads it whole, if it was never read whole, or if it has parents."""
    version, sources = stream.sources(settings.api)
    if (
        stream.name not in warehouse.tables(connection)
        or stream.parents(settings.api)
        or any(source.params for source in sources)
        or all(source.way == "full" for source in sources)
    ):
        return None
    seen_at = first(
        connection.execute(
            "SELECT max(seen) FROM (SELECT min(full_at) AS seen FROM meta.checkpoints WHERE stream = $1 UNION ALL"
            " SELECT max(swept_at) FROM meta.sweeps WHERE stream = $1 AND complete)",
            [stream.name],
        )
    )[0]
    if seen_at is None:
        return None
    rows = int(first(connection.execute(f"SELECT count(*) FROM {quoted('main', stream.name)}"))[0])
    first_list, *others = [catalogue.operations(version)[source.operation] for source in sources]
    pages = math.ceil(rows / (first_list.page_size or 100))
    tokens = pages * (first_list.cost or 0) + sum(other.cost or 0 for other in others)
    # Where records were missing before, some will be again: canaries are then requested one by one.
    findings = first(connection.execute("SELECT count(*) FROM meta.findings WHERE stream = ?", [stream.name]))[0]
    item = evidence.find_item_operation(stream, settings.api)
    tokens += min(CANARIES, rows) * (item.cost or 0) if item and findings else 0
    return DueStream(stream.name, rows, pages + len(others), tokens, seen_at)
