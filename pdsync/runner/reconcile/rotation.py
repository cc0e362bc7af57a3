"""Selects the streams that a nightly run reconciles, so that every row is verified within the verify cycle.

Reading changes never shows what has no time of change: records that were purged, merged or relinked. Whole streams
take turns, the one that was read longest ago first, each night as many as make up one day's share of the cycle, less
what the sync has read in turn that night. Pages of 500 rows are read in order: that costs a fifth of requesting the
same rows by their ids, and shows missing rows too.

Lists of each record of another stream (line items, followers) take turns too: all of them, where a request reads a
hundred or their price is within `limits.dependents_share`; otherwise those whose record counts more or fewer. Streams
of which a sync reads all, each time or in turn (`runner.sync.turns`), take a turn here only when a row is missing from
their list, to find out what became of it; so do lists that are read newest first, where the newest page shows them all.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from pdsync.core import catalogue
from pdsync.load import warehouse
from pdsync.reconcile import evidence
from pdsync.reconcile.evidence import CANARIES
from pdsync.runner import unlocked
from pdsync.runner.sync import parent_keys
from pdsync.runner.sync.turns import price_turns
from pdsync.sql import first, quoted

if TYPE_CHECKING:
    from collections.abc import Collection

    import duckdb

    from pdsync.core.config import Settings
    from pdsync.model import Operation, Parent, Stream, Version

_DAY = timedelta(days=1)

# every_sync: each sync that reads it compares all of it. in_turn: as a whole. by_count: the lists of those records of
# another stream that count otherwise than the warehouse. by_record: the list of each record, if the price allows it.
# once: what was read does not change. never: its content depends on parameters that are chosen when it is read.
Way = Literal["every_sync", "in_turn", "by_count", "by_record", "once", "never"]


class DueStream(Struct, frozen=True):
    """A stream that is due for a reconciliation."""

    stream: str
    rows: int
    requests: int  # for its lists
    tokens: int  # with the canaries
    seen_at: datetime  # since when every row has been seen, or looked into


class _Price(Struct, frozen=True):
    requests: int
    tokens: int
    is_whole: bool = True  # every row is read, not only those whose count differs


def way_of(stream: Stream, prefer: Version) -> Way:
    """How the rows of a stream are verified while a pipeline with `verify` reads it every night."""
    _, sources = stream.sources(prefer)
    if any(source.params for source in sources):
        return "never"
    if all(source.way == "full" for source in sources):
        return "every_sync"
    if all(source.way == "new_parents" for source in sources):
        return "once"
    parent = sources[0].parent
    if parent is None or parent.batch > 1:
        return "in_turn"
    return "by_count" if parent.counts else "by_record"


def select_due(settings: Settings, names: Collection[str], tonight: int = 0) -> list[DueStream]:
    """Those of the streams called `names` that are due now, by the state of the published warehouse.

    Args:
        settings: of the project.
        names: of the streams of the pipeline.
        tonight: the tokens of what tonight's sync reads in turn: the more they are, the less is verified.
    """
    if not settings.verify_cycle or not settings.warehouse.exists():
        return []
    with unlocked.open_warehouse(settings) as connection:
        now = first(connection.execute("SELECT max(watermark) FROM meta.checkpoints"))[0]  # the server's time
        planned = [plan for name in names if (plan := _plan_stream(connection, settings, catalogue.stream(name), now))]
    with unlocked.open_control(settings) as control:
        turns = price_turns(control, settings.api, map(catalogue.stream, names))
    night = (sum(each.tokens for each in planned) + sum(turns.values())) / max(settings.verify_cycle - 1, 1)
    share = night - tonight
    due: list[DueStream] = []
    for plan in sorted(planned, key=lambda each: each.seen_at):
        age = now - plan.seen_at
        spent = sum(each.tokens for each in due)
        is_in_share = spent + plan.tokens / 2 <= share if due else share > 0
        if age >= _DAY and (is_in_share or age >= _DAY * (settings.verify_cycle - 1)):
            due.append(plan)
    return _within_dependents_share(due, settings)


def price_streams(settings: Settings, names: Collection[str]) -> dict[str, DueStream]:
    """What verifying each of the streams called `names` costs.

    Left out are streams that were never read whole, that have nothing to verify, or whose lists are never affordable.
    """
    if not settings.warehouse.exists():
        return {}
    with unlocked.open_warehouse(settings) as connection:
        planned = [_plan_stream(connection, settings, catalogue.stream(name)) for name in names]
    return {plan.stream: plan for plan in planned if plan}


def find_too_expensive(settings: Settings, names: Collection[str]) -> dict[str, int]:
    """Those of the streams called `names` that take no turn, as the lists of each record cost more than the share.

    Returns:
        Their names, each with the tokens that a turn would cost.
    """
    limit = settings.dependents_tokens
    if limit is None or not settings.verify_cycle or not settings.warehouse.exists():
        return {}
    found = {}
    with unlocked.open_warehouse(settings) as connection:
        tables = warehouse.tables(connection)
        for stream in map(catalogue.stream, names):
            version, (source, *_) = stream.sources(settings.api)
            parent = source.parent
            if parent and way_of(stream, settings.api) == "by_record" and {stream.name, parent.stream} <= tables:
                cost = catalogue.operations(version)[source.operation].cost or 0
                tokens = _count_requests(connection, stream, parent, version) * cost
                if tokens > limit:
                    found[stream.name] = tokens
    return found


def _within_dependents_share(due: list[DueStream], settings: Settings) -> list[DueStream]:
    """Those of `due` whose lists of each record are together within the share of dependent streams."""
    left, chosen = settings.dependents_tokens, list[DueStream]()
    for plan in due:
        if left is not None and catalogue.stream(plan.stream).parents(settings.api):
            if plan.tokens > left:
                continue
            left -= plan.tokens
        chosen.append(plan)
    return chosen


def _plan_stream(
    connection: duckdb.DuckDBPyConnection, settings: Settings, stream: Stream, now: datetime | None = None
) -> DueStream | None:
    """A stream and its cost; None where nothing is to be verified, it was never read whole, or it is never affordable.

    Args:
        connection: to the warehouse.
        settings: of the project.
        stream: to verify.
        now: the server's time, if what the syncs of this cycle have read whole needs no other look.
    """
    version, sources = stream.sources(settings.api)
    way = way_of(stream, settings.api)
    if way in ("once", "never") or stream.name not in warehouse.tables(connection):
        return None
    read_at, is_read_whole, swept_at = first(
        connection.execute(
            "SELECT min(full_at), coalesce(bool_and(full_at = watermark OR list_contains($4, source)), false),"
            " (SELECT max(swept_at) FROM meta.sweeps WHERE stream = $1 AND complete)"
            " FROM meta.checkpoints WHERE stream = $1 AND version = $2 AND source IN (SELECT unnest($3::VARCHAR[]))",
            [
                stream.name,
                version,
                [source.name for source in sources],
                [source.name for source in sources if source.origin],  # read whole when it had its turn
            ],
        )
    )
    if read_at is None and swept_at is None:
        return None
    is_fresh = now and read_at and now - read_at < _DAY * (settings.verify_cycle - 1)
    if is_fresh and is_read_whole and all(source.way == "newest_first" for source in sources):
        way = "every_sync"  # its lists are so short that one page shows all of them
    if way == "every_sync" and (sources[0].parent or not evidence.find_item_operation(stream, settings.api)):
        return None  # reconcile could not check its missing rows
    rows = int(first(connection.execute(f"SELECT count(*) FROM {quoted('main', stream.name)}"))[0])
    operations = [catalogue.operations(version)[source.operation] for source in sources]
    parent = sources[0].parent
    if parent and way != "every_sync":
        price = _price_of_lists(connection, settings, stream, parent, operations[0])
        if price is None:
            return None
    else:
        price = _price_of_pages(connection, settings, stream, operations, rows)
    seen_at = max(each for each in (read_at, swept_at) if each)
    tokens = price.tokens
    if way == "every_sync":
        missing, seen_at = _oldest_look(connection, stream, settings.api, unseen_since=read_at)
        if not missing:
            return None
        item = evidence.find_item_operation(stream, settings.api)
        tokens += min(missing, evidence.MAX_PROBES) * ((item.cost or 0) if item else 0)
    elif price.is_whole:
        seen_at = min(seen_at, _oldest_look(connection, stream, settings.api)[1] or seen_at)
    return DueStream(stream.name, rows, price.requests, tokens, seen_at)


def _oldest_look(
    connection: duckdb.DuckDBPyConnection, stream: Stream, prefer: Version, *, unseen_since: datetime | None = None
) -> tuple[int, datetime | None]:
    """The number of live rows, and when the one was seen, or looked into, for which that is longest ago.

    Rows of a parent that is deleted don't count: its list can't be requested.

    Args:
        connection: to the warehouse.
        stream: whose rows.
        prefer: the version of the API.
        unseen_since: only rows that the source has not shown since then.
    """
    version, sources = stream.sources(prefer)
    conditions = ["t._deleted_at IS NULL"]
    values: list[object] = [stream.name]
    if unseen_since is not None:
        conditions.append("t._verified_at < ?")
        values.append(unseen_since)
    parent = sources[0].parent
    if parent and (column := stream.parent_column(parent, version)):
        parents = catalogue.stream(parent.stream)
        conditions.append(
            f"t.{quoted(column)} IN (SELECT {quoted(parents.key)} FROM {quoted('main', parents.name)}"
            " WHERE _deleted_at IS NULL)"
        )
    row = first(
        connection.execute(
            f"SELECT count(*), min(greatest(t._verified_at, f.seen_at)) FROM {quoted('main', stream.name)} t"
            " LEFT JOIN (SELECT key, max(seen_at) AS seen_at FROM meta.findings WHERE stream = ? GROUP BY 1) f"
            f" ON f.key = t.{quoted(stream.key)}::VARCHAR WHERE {' AND '.join(conditions)}",
            values,
        )
    )
    return int(row[0]), row[1]


def _price_of_pages(
    connection: duckdb.DuckDBPyConnection, settings: Settings, stream: Stream, operations: list[Operation], rows: int
) -> _Price:
    """What it costs to read a stream's lists page by page."""
    first_list, *others = operations
    pages = max(math.ceil(rows / (first_list.page_size or 100)), 1) if first_list.paging != "none" else 1
    tokens = pages * (first_list.cost or 0) + sum(other.cost or 0 for other in others)
    # Where records were missing before, some will be again: canaries are then requested one by one.
    findings = first(connection.execute("SELECT count(*) FROM meta.findings WHERE stream = ?", [stream.name]))[0]
    item = evidence.find_item_operation(stream, settings.api)
    tokens += min(CANARIES, rows) * (item.cost or 0) if item and findings else 0
    return _Price(pages + len(others), tokens)


def _price_of_lists(
    connection: duckdb.DuckDBPyConnection, settings: Settings, stream: Stream, parent: Parent, operation: Operation
) -> _Price | None:
    """The requests and tokens to verify a stream that has a list for each record of the parent stream.

    The price of all lists, where a request reads several or the parents have no exact count, and if that is within
    `settings.dependents_tokens`; otherwise that of the lists of records whose count differs from their rows.

    Returns:
        None where the parent stream has no table, or where it has no count and all lists cost more than that.
    """
    version, _ = stream.sources(settings.api)
    column = stream.parent_column(parent, version) or parent.stream
    if parent.stream not in warehouse.tables(connection):
        return None
    if parent.batch > 1 or not parent.counts:
        requests = _count_requests(connection, stream, parent, version)
        tokens = requests * (operation.cost or 0)
        if settings.dependents_tokens is None or tokens <= settings.dependents_tokens:
            return _Price(requests, tokens)
        if not parent.counts:
            return None
    requests = math.ceil(_count_differing(connection, stream, parent, column) / parent.batch)
    return _Price(requests, requests * (operation.cost or 0), is_whole=False)


def _count_requests(connection: duckdb.DuckDBPyConnection, stream: Stream, parent: Parent, version: Version) -> int:
    """How many requests read the lists of all records of the parent stream that have one."""
    children = (stream.name, stream.parent_column(parent, version) or parent.stream)
    keys = parent_keys.select_parents(connection, parent, None, children=children)
    return math.ceil(len(keys) / parent.batch)


def _count_differing(connection: duckdb.DuckDBPyConnection, stream: Stream, parent: Parent, column: str) -> int:
    """How many records of the parent stream count otherwise than there are rows, as far as nothing explains it."""
    parents, of = catalogue.stream(parent.stream), quoted(column)
    row = first(
        connection.execute(
            f"SELECT count(*) FROM {quoted('main', parents.name)} p"
            f" LEFT JOIN (SELECT {of} AS key, count(*) AS here FROM {quoted('main', stream.name)}"
            f" WHERE _deleted_at IS NULL GROUP BY 1) c ON c.key = p.{quoted(parents.key)}"
            f" WHERE p._deleted_at IS NULL AND p.{quoted(parent.having or '')} <> coalesce(c.here, 0)"
            f" AND p.{quoted(parents.key)}::VARCHAR NOT IN (SELECT key FROM meta.counts_off WHERE stream = ?)",
            [stream.name],
        )
    )
    return int(row[0])
