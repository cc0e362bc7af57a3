"""Selects the streams that a nightly run reconciles, so that every row is verified within the verify cycle.

Reading changes never shows what moves no time: records that were deleted for good, merged or relinked. Whole streams
take turns, the one that was seen longest ago first, as many a night as one share of the cycle comes to. Pages of 500
rows are read in order, which costs a fifth of asking for the same rows by their ids, and shows missing rows as well.
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


class Turn(Struct, frozen=True):
    """A stream that is due for a reconciliation."""

    stream: str
    rows: int
    requests: int  # for its lists
    tokens: int  # with the canaries
    seen_at: datetime  # when all of it was last read


def select_due(settings: Settings, among: Collection[str]) -> list[Turn]:
    """The streams of `among` to reconcile now, by the state of the published warehouse."""
    if not settings.verify_cycle or not settings.warehouse.exists():
        return []
    with project.open_warehouse(settings) as connection:
        now = first(connection.execute("SELECT max(watermark) FROM meta.checkpoints"))[0]  # the server's time
        turns = [turn for name in among if (turn := _plan_turn(connection, settings, catalogue.stream(name)))]
    share = math.ceil(sum(turn.requests for turn in turns) / settings.verify_cycle)
    chosen: list[Turn] = []
    for turn in sorted(turns, key=lambda turn: turn.seen_at):
        waits = now - turn.seen_at
        in_share = sum(each.requests for each in chosen) < share
        if waits >= _DAY and (in_share or waits >= _DAY * (settings.verify_cycle - 1)):
            chosen.append(turn)
    return chosen


def _plan_turn(connection: duckdb.DuckDBPyConnection, settings: Settings, stream: Stream) -> Turn | None:
    """A stream and its cost; None where every sync reads all of it, or where it was never read whole."""
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
    # Where records were gone before, some will be again: then canaries are requested one by one.
    gone = first(connection.execute("SELECT count(*) FROM meta.findings WHERE stream = ?", [stream.name]))[0]
    item = evidence.find_item_operation(stream, settings.api)
    tokens += min(CANARIES, rows) * (item.cost or 0) if item and gone else 0
    return Turn(stream.name, rows, pages + len(others), tokens, seen_at)
