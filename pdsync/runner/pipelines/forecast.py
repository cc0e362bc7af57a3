"""Estimates what a sync will cost before it runs: requests, tokens and minutes, from what the last runs read.

A list that was never read is measured first (`measure_unread`), and has an upper bound beside the likely number.
"""

from __future__ import annotations

import contextlib
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from pdsync.core import catalogue
from pdsync.core.config import Settings  # noqa: TC001 - part of the signatures
from pdsync.core.control.sizes import ListSizes
from pdsync.core.wording import counted
from pdsync.errors import PdsyncError
from pdsync.runner import unlocked
from pdsync.runner.pipelines.list_cost import estimate_unread
from pdsync.runner.reconcile import rotation
from pdsync.runner.sync import parent_keys
from pdsync.runner.sync.sync_request import SyncRequest  # noqa: TC001
from pdsync.runner.sync.turns import Turns, plan_turns

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import duckdb

    from pdsync.core.control.sizes import ListSize
    from pdsync.core.control.walks import LastWalks
    from pdsync.model import Parent, Source, Stream, Version
    from pdsync.runner.reconcile.rotation import DueStream

Sizes = dict[tuple[str, str], "ListSize"]  # (stream, source) → its size, for lists that were never read
_NAMED = 3  # streams, in a sentence
IDENTITY_TOKENS = 2  # every run requests the owner of the token


class ListForecast(Struct, frozen=True):
    """The cost of one list, and how it will be read."""

    stream: str
    operation: str
    version: str
    way: str  # full, changes or verify
    requests: int
    tokens: int
    basis: str
    at_least: bool  # its size is not known yet
    rows: int | None = None  # of a list that was never read: likely; of one by parent: the parents to request it for
    most_rows: int | None = None  # the upper bounds of such a list; None: there is none
    most_requests: int | None = None
    most_tokens: int | None = None
    assumed: bool = False  # its upper bound was not measured


class StreamForecast(Struct, frozen=True):
    """The cost of all lists of a stream."""

    stream: str
    way: str  # that of its lists, or `mixed`
    requests: int
    tokens: int
    at_least: bool  # the size of one of its lists is not known yet
    most_requests: int | None = None  # the upper bounds; None: one of its lists has none
    most_tokens: int | None = None
    assumed: bool = False  # the upper bound of one of its lists was not measured


class Forecast(Struct, frozen=True):
    """What a run will cost."""

    lines: list[ListForecast]
    burst: int
    daily_tokens: int
    optional: list[ListForecast] = []  # of streams that are not read unless they are named; not part of the totals
    unverified: dict[str, int] = {}  # streams that take no turn in the verification, and the tokens it would cost
    deferred: dict[str, int] = {}  # streams whose turn is in another night, and the tokens that this saves

    def totals(self) -> dict[str, Any]:
        """Requests, tokens, share of the day's tokens, and seconds at the rate limit."""
        requests = 1 + sum(line.requests for line in self.lines)
        tokens = IDENTITY_TOKENS + sum(line.tokens for line in self.lines)
        return {
            "requests": requests,
            "tokens": tokens,
            "daily_tokens": self.daily_tokens,
            "share": round(tokens / self.daily_tokens, 4) if self.daily_tokens else None,
            "seconds": round(requests / self.burst * 2, 1) if self.burst else None,
            "at_least": any(line.at_least for line in self.lines),
            "most_requests": _add(1, (line.most_requests for line in self.lines)),
            "most_tokens": _add(IDENTITY_TOKENS, (line.most_tokens for line in self.lines)),
            "assumed": sorted({line.stream for line in self.lines if line.assumed}),
        }

    def summary(self) -> str:
        """The totals in words."""
        totals = self.totals()
        about = "At least" if totals["at_least"] else "About"
        share = f", {totals['share']:.1%} of a day's {self.daily_tokens:,}" if self.daily_tokens else ""
        time = (
            f", {_format_duration(totals['seconds'])} at {counted(self.burst, 'request')} per 2 s" if self.burst else ""
        )
        unknown = (
            " Lists that were never read count as one page; the first run shows their size."
            if (totals["at_least"])
            else ""
        )
        most = ""
        if totals["most_tokens"] is not None and totals["most_tokens"] > totals["tokens"]:
            most = f" At most {counted(totals['most_requests'], 'request')}, {counted(totals['most_tokens'], 'token')}."
        if most and (assumed := totals["assumed"]):
            doubts = {each.stream: (each.most_tokens or 0) - each.tokens for each in sum_by_stream(self.lines)}
            first = sorted(assumed, key=lambda name: -doubts.get(name, 0))[:_NAMED]
            names = ", ".join(first) + (f" and {len(assumed) - _NAMED:,} more" if len(assumed) > _NAMED else "")
            most = f"{most[:-1]}, if what was not measured is no larger than assumed ({names})."
        return (
            f"{about} {counted(totals['requests'], 'request')}, {counted(totals['tokens'], 'token')}{share}"
            f"{time}.{most}{unknown}"
        )


def forecast(settings: Settings, request: SyncRequest, *, with_verification: bool = False) -> Forecast:
    """Estimate the cost of a sync, and of each stream that is read only when named.

    Args:
        settings: of the project.
        request: the sync.
        with_verification: include the streams that are due and reconciled after it (`runner.reconcile.rotation`).

    Makes no request and changes nothing.
    """
    streams = request.selected()
    others = [] if request.streams else [each for each in catalogue.streams().values() if each.optional]
    with contextlib.ExitStack() as stack:
        last_walks: LastWalks = {}
        sizes, turns = Sizes(), Turns({}, {})
        warehouse = stack.enter_context(unlocked.open_warehouse(settings)) if settings.warehouse.exists() else None
        if settings.control.exists():
            control = stack.enter_context(unlocked.open_control(settings))
            last_walks, sizes = control.pages_of_last_walks(), ListSizes(control).load()
            now = datetime.now(UTC)
            now = max(now, control.newest_time() or now)
            turns = plan_turns(warehouse, control, settings, request, now)
        lines, optional = (
            [
                _estimate_unread(stream, source, settings.api, last_walks, sizes)
                or _estimate(stream, source, version, request, last_walks, warehouse)
                for stream in group
                if stream.name not in turns.deferred
                for version, sources in [stream.sources(settings.api)]
                for source in sources
                if (stream.name, source.name) not in turns.lists
            ]
            for group in (streams, others)
        )
    unverified: dict[str, int] = {}
    if with_verification:
        names = [stream.name for stream in streams]
        lines += [_estimate_verification(due, settings) for due in rotation.select_due(settings, names, turns.tokens)]
        unverified = rotation.find_too_expensive(settings, names)
    return Forecast(lines, settings.burst, settings.daily_tokens, optional, unverified, turns.deferred)


def _estimate_unread(
    stream: Stream, source: Source, prefer: Version, last_walks: LastWalks, sizes: Sizes
) -> ListForecast | None:
    """The cost of a list that was never read but measured; None for others."""
    parent = source.parent.stream if source.parent else None
    if not sizes or any((name, whole) in ((stream.name, True), (parent, True)) for name, _, whole in last_walks):
        return None
    if (unread := estimate_unread(stream, source, prefer, sizes)) is None:
        return None
    version, _ = stream.sources(prefer)
    operation = catalogue.operations(version)[source.operation]
    cost = operation.cost or 0
    return ListForecast(
        stream=stream.name,
        operation=operation.id,
        version=version,
        way="full",
        requests=unread.requests,
        tokens=unread.requests * cost,
        basis=unread.basis,
        at_least=False,
        rows=unread.rows,
        most_rows=unread.most_rows,
        most_requests=unread.most_requests,
        most_tokens=unread.most_requests * cost,
        assumed=unread.is_assumed,
    )


def _add(start: int, numbers: Iterable[int | None]) -> int | None:
    """The sum; None if one of the numbers is not known."""
    known = [start, *numbers]
    return None if None in known else sum(number or 0 for number in known)


def sum_by_stream(lines: Sequence[ListForecast]) -> list[StreamForecast]:
    """The cost of the lists of each stream together; a stream that is read and verified has an entry for each."""
    groups: dict[tuple[str, bool], list[ListForecast]] = {}
    for line in lines:
        groups.setdefault((line.stream, line.way == "verify"), []).append(line)
    return [
        StreamForecast(
            stream,
            group[0].way if len({line.way for line in group}) == 1 else "mixed",
            sum(line.requests for line in group),
            sum(line.tokens for line in group),
            any(line.at_least for line in group),
            _add(0, (line.most_requests for line in group)),
            _add(0, (line.most_tokens for line in group)),
            any(line.assumed for line in group),
        )
        for (stream, _), group in groups.items()
    ]


def _estimate_verification(turn: DueStream, settings: Settings) -> ListForecast:
    version, sources = catalogue.stream(turn.stream).sources(settings.api)
    basis = f"{counted(turn.rows, 'row')}, seen {turn.seen_at:%Y-%m-%d}"
    return ListForecast(turn.stream, sources[0].operation, version, "verify", turn.requests, turn.tokens, basis, False)


def _estimate(
    stream: Stream,
    source: Source,
    version: Version,
    request: SyncRequest,
    last_walks: LastWalks,
    warehouse: duckdb.DuckDBPyConnection | None,
) -> ListForecast:
    operation = catalogue.operations(version)[source.operation]
    whole = last_walks.get((stream.name, source.name, True))
    changes = last_walks.get((stream.name, source.name, False))
    incremental = source.way != "full" and not request.reads_whole(stream.name) and whole is not None
    unknown = whole is None
    if source.parent:
        unread = (stream.name, stream.key) if source.way == "new_parents" and incremental else None
        changed = incremental and not unread
        count = _count_parents(source.parent, last_walks, warehouse, changed=changed, unread=unread)
        requests = -(-count // source.parent.batch) if count is not None else 1
        if changed and changes:  # not every changed parent has a list to read
            requests = min(requests, changes[0])
        if source.way == "full" and whole:  # some parents' lists have more than one page
            requests = max(requests, whole[0])
        unknown = count is None
        which = "new" if unread else "changed" if incremental else "all"
        basis = f"{which} {source.parent.stream}: {count if count is not None else '?'}"
    elif incremental:
        requests = changes[0] if changes else 1
        basis = f"last time {counted(changes[1], 'row')}" if changes else "a page of changes"
    elif whole:
        size = operation.page_size or 0
        requests = max(whole[0], math.ceil(whole[1] / size) if size and operation.paging != "none" else 1)
        basis = f"last time {counted(whole[1], 'row')}"
    else:
        requests, basis = 1, "never read"
    return ListForecast(
        stream=stream.name,
        operation=operation.id,
        version=version,
        way="changes" if incremental else "full",
        requests=requests,
        tokens=requests * (operation.cost or 0),
        basis=basis,
        at_least=unknown,
    )


def _count_parents(
    parent: Parent,
    last_walks: LastWalks,
    warehouse: duckdb.DuckDBPyConnection | None,
    *,
    changed: bool,
    unread: tuple[str, str] | None,
) -> int | None:
    """How many parents' lists will be read; None: unknown.

    All in the warehouse; those without a row in a table, where `unread` names it; or as many as changed last time.
    """
    if warehouse is None:
        return None
    if changed:
        return sum(rows for (name, _, whole), (_, rows) in last_walks.items() if name == parent.stream and not whole)
    try:
        return len(parent_keys.select_parents(warehouse, parent, None, unread=unread))
    except PdsyncError:
        return None


def _format_duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
