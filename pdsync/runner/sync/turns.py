"""Selects the streams that a sync leaves for a later night, as they take turns within the verify cycle.

The lists of some streams can't be requested for changes and hardly ever change, such as currencies or role settings.
Their entries in the catalogue say `takes_turns`. They are distributed over the nights of the cycle, all but the last,
so that a night costs about the same and one that fails breaks no promise. A stream is read with the streams that its
lists are requested for, so that what is new there is seen in the same night.

A stream is due whatever the night if it was never read whole, if its last run left a gap, if a reading of it is
unfinished, if another night would be later than the cycle allows, or if a wrong clock dated it into the future.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from msgspec import Struct

from pdsync.core import catalogue
from pdsync.core.control.walks import LastWalks  # noqa: TC001 - part of the signatures

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import duckdb

    from pdsync.core.config import Settings
    from pdsync.core.control import Control
    from pdsync.model import Stream, Version
    from pdsync.runner.sync.sync_request import SyncRequest

_DAY = timedelta(days=1)
_SPARE = timedelta(hours=4)  # two nights may lie so much less than a day apart


class Turns(Struct, frozen=True):
    """The streams of a sync that take turns, with the tokens that reading each costs."""

    due: dict[str, int]  # read by this sync
    deferred: dict[str, int]  # left for a later night


def plan_turns(
    connection: duckdb.DuckDBPyConnection | None,
    control: Control,
    settings: Settings,
    request: SyncRequest,
    now: datetime,
    run_id: str | None = None,
) -> Turns:
    """Which of the streams that take turns a sync reads, and which it leaves for a later night.

    Args:
        connection: to the warehouse; None if there is none yet.
        control: of the project.
        settings: of the project.
        request: the sync.
        now: the server's time.
        run_id: of the run; what an interrupted attempt of it has begun to read is due.
    """
    streams = [stream for stream in request.selected() if stream.takes_turns]
    sizes = control.pages_of_last_walks()
    tokens = {stream.name: _price(stream, settings.api, sizes) for stream in streams}
    if connection is None or settings.verify_cycle <= 1 or not request.takes_turns:
        return Turns(tokens, {})
    read_at = _find_last_readings(connection, streams, settings.api)
    wanted = _find_incomplete(connection, streams) | set(request.refetch)
    wanted |= {walk.stream for walk, _ in control.unfinished_walks()}
    wanted |= {stream for stream, _ in control.finished_lists(run_id)} if run_id else set()
    due, nights = set[str](), settings.verify_cycle - 1
    for night, groups in enumerate(_distribute(_group(streams, settings.api), tokens, nights)):
        is_tonight = now.date().toordinal() % nights == night
        for group in groups:
            ages = [now - at if (at := read_at[name]) else None for name in group]
            is_late = not all(age is not None and -_SPARE <= age < nights * _DAY - _SPARE for age in ages)
            has_rested = all(age is None or age >= _DAY - _SPARE for age in ages)
            if is_late or (is_tonight and has_rested) or wanted & set(group):
                due |= set(group)
    return Turns(
        {name: cost for name, cost in tokens.items() if name in due},
        {name: cost for name, cost in tokens.items() if name not in due},
    )


def _price(stream: Stream, prefer: Version, sizes: LastWalks) -> int:
    """The tokens that reading all lists of a stream takes, by the last time; a list that was never read is a page."""
    version, sources = stream.sources(prefer)
    requests = {source.name: sizes.get((stream.name, source.name, True), (1, 0))[0] for source in sources}
    operations = catalogue.operations(version)
    return sum(requests[source.name] * (operations[source.operation].cost or 0) for source in sources)


def _group(streams: Iterable[Stream], prefer: Version) -> list[list[str]]:
    """The names of `streams` in groups: each stream with those that its lists are requested for."""
    parents = {stream.name: stream.parents(prefer) for stream in streams}
    groups: list[set[str]] = []
    for name, above in parents.items():
        joined = {name} | (above & parents.keys())
        related = [group for group in groups if group & joined]
        groups = [group for group in groups if not group & joined] + [joined.union(*related)]
    return [sorted(group) for group in groups]


def _distribute(groups: Sequence[list[str]], tokens: dict[str, int], nights: int) -> list[list[list[str]]]:
    """Groups of streams by night: the dearest first, each to the night that costs least so far."""
    costs = [0] * nights
    chosen: list[list[list[str]]] = [[] for _ in range(nights)]
    for cost, group in sorted(((sum(tokens[name] for name in group), group) for group in groups), reverse=True):
        night = costs.index(min(costs))
        costs[night] += cost
        chosen[night].append(group)
    return chosen


def _find_last_readings(
    connection: duckdb.DuckDBPyConnection, streams: Sequence[Stream], prefer: Version
) -> dict[str, datetime | None]:
    """By stream: since when each of its lists has been read whole; None if one never was."""
    rows = connection.execute("SELECT stream, source, version, full_at FROM meta.checkpoints").fetchall()
    full_at = {(str(name), str(source), str(version)): at for name, source, version, at in rows}
    readings: dict[str, datetime | None] = {}
    for stream in streams:
        version, sources = stream.sources(prefer)
        times = [full_at.get((stream.name, source.name, version)) for source in sources]
        readings[stream.name] = None if None in times else min(time for time in times if time)
    return readings


def _find_incomplete(connection: duckdb.DuckDBPyConnection, streams: Sequence[Stream]) -> set[str]:
    """Those of `streams` that the last run which read them has a gap for."""
    rows = connection.execute(
        "SELECT s.stream FROM meta.streams s JOIN meta.runs r USING (run_id) WHERE s.stream IN (SELECT unnest(?))"
        " QUALIFY row_number() OVER (PARTITION BY s.stream ORDER BY r.started_at DESC) = 1 AND (NOT s.complete"
        " OR len(list_filter(r.gaps, lambda gap: starts_with(gap, s.stream || ': '))) > 0)",
        [[stream.name for stream in streams]],
    ).fetchall()
    return {str(name) for (name,) in rows}
