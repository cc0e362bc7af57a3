"""Selects the streams that a sync leaves for a later night, as they take turns within the verify cycle.

The lists of some streams can't be requested for changes and hardly ever change, such as currencies or role settings.
Their entries in the catalogue say `takes_turns`. They are distributed over the nights of the cycle, all but the last,
so that a night costs about the same and one that fails breaks no promise. A stream is read with the streams that its
lists are requested for, so that what is new there is seen in the same night.

A list whose records come from another list of its stream, as archived leads do, takes turns too: it is read before its
turn only if a record has left that one, or if that one is not read whole (`SyncRun`).

A stream is due whatever the night if it was never read whole, if its last run left a gap, if a reading of it is
unfinished, if another night would be later than the cycle allows, or if a wrong clock dated it into the future.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from msgspec import Struct

from pdsync.core import catalogue
from pdsync.sql import first, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import duckdb

    from pdsync.core.config import Settings
    from pdsync.core.control import Control
    from pdsync.model import Source, Stream, Version
    from pdsync.runner.sync.sync_request import SyncRequest

_Turn = tuple[str, str | None]  # a stream; or one list of it, where the others are read every night
_DAY = timedelta(days=1)
_SPARE = timedelta(hours=4)  # two nights may lie so much less than a day apart


class Turns(Struct, frozen=True):
    """The streams of a sync that take turns, with the tokens that reading each costs."""

    due: dict[str, int]  # read by this sync
    deferred: dict[str, int]  # left for a later night
    lists: dict[tuple[str, str], int] = {}  # (stream, source), of other streams: left too, if no record came into it
    tokens: int = 0  # that the turns of this sync cost; 0 if none may wait: all are read, whatever the night


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
    prefer, selected = settings.api, request.selected()
    turning = _list_turns(selected, prefer)
    tokens = price_turns(control, prefer, selected)
    if connection is None or settings.verify_cycle <= 1 or not request.takes_turns:
        return Turns({name: cost for (name, source), cost in tokens.items() if source is None}, {})
    read_at = _find_last_readings(connection, turning, prefer)
    wanted = _find_incomplete(connection, {name for name, _ in turning}) | set(request.refetch)
    wanted |= {walk.stream for walk, _ in control.unfinished_walks()}
    wanted |= {stream for stream, *_ in control.finished_lists(run_id)} if run_id else set()
    due, nights = set[_Turn](), settings.verify_cycle - 1
    for night, groups in enumerate(_distribute(_group(turning, prefer), tokens, nights)):
        is_tonight = now.date().toordinal() % nights == night
        for group in groups:
            ages = [now - at if (at := read_at[turn]) else None for turn in group]
            is_late = not all(age is not None and -_SPARE <= age < nights * _DAY - _SPARE for age in ages)
            has_rested = all(age is None or age >= _DAY - _SPARE for age in ages)
            if is_late or (is_tonight and has_rested) or wanted & {name for name, _ in group}:
                due |= set(group)
    return Turns(
        {name: cost for (name, source), cost in tokens.items() if source is None and (name, source) in due},
        {name: cost for (name, source), cost in tokens.items() if source is None and (name, source) not in due},
        {(name, source): cost for (name, source), cost in tokens.items() if source and (name, source) not in due},
        sum(tokens[turn] for turn in due),
    )


def price_turns(control: Control, prefer: Version, streams: Iterable[Stream]) -> dict[_Turn, int]:
    """What takes turns among `streams`, with the tokens that it took last time; a list never read is one page."""
    last_walks, prices = control.pages_of_last_walks(), dict[_Turn, int]()
    for turn, sources in _list_turns(streams, prefer).items():
        operations = catalogue.operations(catalogue.stream(turn[0]).sources(prefer)[0])
        requests = {source.name: last_walks.get((turn[0], source.name, True), (1, 0))[0] for source in sources}
        prices[turn] = sum(requests[source.name] * (operations[source.operation].cost or 0) for source in sources)
    return prices


def price_turns_of(control: Control, prefer: Version, run_id: str) -> int:
    """The tokens of the turns that a run has read."""
    finished = {(stream, source) for stream, source, _ in control.finished_lists(run_id)}
    prices = price_turns(control, prefer, [catalogue.stream(name) for name in {name for name, _ in finished}])
    return sum(tokens for (name, source), tokens in prices.items() if source is None or (name, source) in finished)


def _list_turns(streams: Iterable[Stream], prefer: Version) -> dict[_Turn, Sequence[Source]]:
    """What takes turns among `streams`, with the lists that are read then."""
    turning: dict[_Turn, Sequence[Source]] = {}
    for stream, (_, sources) in ((each, each.sources(prefer)) for each in streams):
        if stream.takes_turns:
            turning[stream.name, None] = sources
        else:
            turning |= {(stream.name, source.name): [source] for source in sources if source.origin}
    return turning


def _group(turning: Iterable[_Turn], prefer: Version) -> list[list[_Turn]]:
    """What takes turns in groups: each stream with those that its lists are requested for."""
    parents = {turn: {(each, None) for each in catalogue.stream(turn[0]).parents(prefer)} for turn in turning}
    groups: list[set[_Turn]] = []
    for turn, above in parents.items():
        joined: set[_Turn] = {turn} | (above & parents.keys())
        related = [group for group in groups if group & joined]
        groups = [group for group in groups if not group & joined] + [joined.union(*related)]
    return [sorted(group, key=str) for group in groups]


def _distribute(groups: Sequence[list[_Turn]], tokens: Mapping[_Turn, int], nights: int) -> list[list[list[_Turn]]]:
    """Groups by night: the dearest first, each to the night that costs least so far."""
    costs = [0] * nights
    chosen: list[list[list[_Turn]]] = [[] for _ in range(nights)]
    dearest = sorted(groups, key=lambda group: (sum(tokens[turn] for turn in group), str(group)), reverse=True)
    for group in dearest:
        night = costs.index(min(costs))
        costs[night] += sum(tokens[turn] for turn in group)
        chosen[night].append(group)
    return chosen


def _find_last_readings(
    connection: duckdb.DuckDBPyConnection, turning: Mapping[_Turn, Sequence[Source]], prefer: Version
) -> dict[_Turn, datetime | None]:
    """Since when each list of what takes turns has been read whole; None if one never was."""
    rows = connection.execute("SELECT stream, source, version, full_at FROM meta.checkpoints").fetchall()
    full_at = {(str(name), str(source), str(version)): at for name, source, version, at in rows}
    readings: dict[_Turn, datetime | None] = {}
    for turn, sources in turning.items():
        version, _ = catalogue.stream(turn[0]).sources(prefer)
        times = [full_at.get((turn[0], source.name, version)) for source in sources]
        readings[turn] = None if None in times else min(time for time in times if time)
    return readings


def _find_incomplete(connection: duckdb.DuckDBPyConnection, streams: Iterable[str]) -> set[str]:
    """Those of `streams` that the last run which read them has a gap for."""
    rows = connection.execute(
        "SELECT s.stream FROM meta.streams s JOIN meta.runs r USING (run_id) WHERE s.stream IN (SELECT unnest(?))"
        " QUALIFY row_number() OVER (PARTITION BY s.stream ORDER BY r.started_at DESC) = 1 AND (NOT s.complete"
        " OR len(list_filter(r.gaps, lambda gap: starts_with(gap, s.stream || ': '))) > 0)",
        [list(streams)],
    ).fetchall()
    return {str(name) for (name,) in rows}


def receive_nothing(connection: duckdb.DuckDBPyConnection, stream: Stream, source: Source, run_id: str) -> bool:
    """Note that a list is complete though this run has not read it: no record has left the list that its records leave.

    Args:
        connection: to the work file.
        stream, source: the list, which has an origin.
        run_id: of the run, which has read the origin.

    Returns:
        Whether that is so. A record that came and went on between two runs is seen when the list has its turn.
    """
    origin, version = source.origin, "v1" if source in stream.v1 else "v2"
    read = first(
        connection.execute(
            "SELECT o.full_at FROM meta.checkpoints o JOIN meta.checkpoints c USING (stream, version) WHERE stream = ?"
            " AND version = ? AND o.source = ? AND c.source = ? AND o.run_id = ? AND o.full_at = o.watermark"
            " AND c.watermark < o.full_at",  # within one second it can't be seen which rows are missing
            [stream.name, version, origin.source if origin else "", source.name, run_id],
        )
    )
    if not origin or not read:
        return False
    left = first(
        connection.execute(
            f"SELECT count(*) FROM {quoted('main', stream.name)} WHERE _deleted_at IS NULL AND _verified_at < ?"
            f" AND NOT coalesce({quoted(origin.flag)}, false)",
            [read[0]],
        )
    )
    if left != (0,):
        return False
    connection.execute(
        "UPDATE meta.checkpoints SET watermark = ? WHERE stream = ? AND source = ? AND version = ?",
        [read[0], stream.name, source.name, version],
    )
    return True
