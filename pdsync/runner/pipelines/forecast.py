"""Says what a sync will cost before it runs: requests, tokens and minutes, from what the last runs read."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from pdsync.core import catalogue
from pdsync.core.config import Settings  # noqa: TC001 - part of the signatures
from pdsync.errors import PdsyncError
from pdsync.runner import project
from pdsync.runner.reconcile import rotation
from pdsync.runner.sync import parent_keys
from pdsync.runner.sync.sync_request import SyncRequest  # noqa: TC001

if TYPE_CHECKING:
    import duckdb

    from pdsync.model import Parent, Source, Stream, Version
    from pdsync.runner.reconcile.rotation import Turn

Known = dict[tuple[str, str, bool], tuple[int, int]]  # (stream, source, everything was read) → pages, rows
IDENTITY_TOKENS = 2  # every run asks whose token it is


class Line(Struct, frozen=True):
    """One list: how it will be read, and what that costs."""

    stream: str
    operation: str
    version: str
    way: str  # full, changes or verify
    requests: int
    tokens: int
    basis: str
    at_least: bool  # its size is not known yet


class Forecast(Struct, frozen=True):
    """What a run will cost."""

    lines: list[Line]
    burst: int
    daily_tokens: int
    optional: list[Line] = []  # of streams that are not read unless they are named; not part of the totals

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
        }

    def sentence(self) -> str:
        """The totals in words."""
        totals = self.totals()
        about = "At least" if totals["at_least"] else "About"
        share = f", {totals['share']:.1%} of a day's {self.daily_tokens:,}" if self.daily_tokens else ""
        time = f", {_minutes(totals['seconds'])} at {self.burst} requests per 2 s" if self.burst else ""
        first = (
            " Lists that were never read count as one page; their size shows in the first run."
            if (totals["at_least"])
            else ""
        )
        return f"{about} {totals['requests']:,} requests, {totals['tokens']:,} tokens{share}{time}.{first}"


def forecast(settings: Settings, asked: SyncRequest, *, verify_too: bool = False) -> Forecast:
    """What `asked` will cost, and what each stream would that is not read unless it is named.

    Args:
        settings: of the project.
        asked: the sync.
        verify_too: after it, the streams that are due are reconciled (`runner.reconcile.rotation`).

    Makes no request and changes nothing.
    """
    streams = asked.selected()
    others = [] if asked.streams else [each for each in catalogue.streams().values() if each.optional]
    with contextlib.ExitStack() as held:
        known: Known = {}
        if settings.control.exists():
            known = held.enter_context(project.opened(settings)).pages_of_last_walks()
        warehouse = held.enter_context(project.open_warehouse(settings)) if settings.warehouse.exists() else None
        lines, optional = (
            [
                _line(stream, source, version, asked, known, warehouse)
                for stream in group
                for version, sources in [stream.sources(settings.api)]
                for source in sources
            ]
            for group in (streams, others)
        )
    if verify_too:
        lines += [
            _verified(turn, settings) for turn in rotation.select_due(settings, [stream.name for stream in streams])
        ]
    return Forecast(lines, settings.burst, settings.daily_tokens, optional)


def _verified(turn: Turn, settings: Settings) -> Line:
    version, sources = catalogue.stream(turn.stream).sources(settings.api)
    basis = f"{turn.rows:,} rows, seen {turn.seen_at:%Y-%m-%d}"
    return Line(turn.stream, sources[0].operation, version, "verify", turn.requests, turn.tokens, basis, False)


def _line(
    stream: Stream,
    source: Source,
    version: Version,
    asked: SyncRequest,
    known: Known,
    warehouse: duckdb.DuckDBPyConnection | None,
) -> Line:
    operation = catalogue.operations(version)[source.operation]
    whole = known.get((stream.name, source.name, True))
    changes = known.get((stream.name, source.name, False))
    incremental = source.way != "full" and not asked.reads_whole(stream.name) and whole is not None
    unknown = whole is None
    if source.parent:
        count = _parents(source.parent, known, warehouse, changed=incremental)
        requests = -(-count // source.parent.batch) if count is not None else 1
        if incremental and changes:  # not all that change have anything to tell
            requests = min(requests, changes[0])
        unknown = count is None
        basis = (
            f"{'all' if not incremental else 'changed'} {source.parent.stream}: {count if count is not None else '?'}"
        )
    elif incremental:
        requests = changes[0] if changes else 1
        basis = f"last time {changes[1]:,} rows" if changes else "a page of changes"
    elif whole:
        size = operation.page_size or 0
        requests = max(whole[0], math.ceil(whole[1] / size) if size and operation.paging != "none" else 1)
        basis = f"last time {whole[1]:,} rows"
    else:
        requests, basis = 1, "never read"
    return Line(
        stream=stream.name,
        operation=operation.id,
        version=version,
        way="changes" if incremental else "full",
        requests=requests,
        tokens=requests * (operation.cost or 0),
        basis=basis,
        at_least=unknown,
    )


def _parents(parent: Parent, known: Known, warehouse: duckdb.DuckDBPyConnection | None, *, changed: bool) -> int | None:
    """How many parents' lists will be read: all in the warehouse, or as many as changed the last time."""
    if warehouse is None:
        return None
    if changed:
        return sum(rows for (name, _, whole), (_, rows) in known.items() if name == parent.stream and not whole)
    try:
        return len(parent_keys.select_parents(warehouse, parent, None))
    except PdsyncError:
        return None


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
