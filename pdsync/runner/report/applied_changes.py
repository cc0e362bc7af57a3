"""Writes the deletions and merges of pushes into the tables, as part of the next command that writes the warehouse.

A list does not show removed records, so they come from the outbox: Pipedrive's answer is the evidence. Which mutations
the tables show is in `meta.mutations.reflected_by`, not in memory: if a push was killed, or found the warehouse locked
by a sync, the next sync, push, reconcile, backfill, load or replay writes them.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from pdsync.core import catalogue
from pdsync.load import warehouse
from pdsync.model import FINDINGS, Page, Tombstone
from pdsync.sql import first, quoted
from pdsync.writeback.effects import find_effect
from pdsync.writeback.shapes import find_stream, row_key, shape

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import duckdb

    from pdsync.core.config import Settings
    from pdsync.core.control import Control
    from pdsync.core.server_clock import ServerClock
    from pdsync.extract.raw_archive import Archive
    from pdsync.model import Mutation, Receipt, Stream
    from pdsync.runner.loader import Loader
    from pdsync.writeback.outbox import Outbox


class PendingRemoval(Struct, frozen=True):
    """A deletion or merge that the tables do not show yet."""

    mutation: str
    stream: str
    tombstone: Tombstone
    was_read_since: bool  # the source showed the record later: it was restored, and gets no tombstone


def affected_streams(mutations: Iterable[Mutation]) -> tuple[str, ...]:
    """The streams that show the effect of applied mutations: of the records themselves, and of their parents."""
    names = set()
    for each in mutations:
        if each.state in ("applied", "needs_review") and each.reason != "already_so":
            operation = catalogue.operation(each.operation)
            streams = [find_stream(kind) for kind in (each.kind, shape(operation).root)]
            if effect := find_effect(operation):
                streams.append(find_stream(shape(catalogue.operation(effect.read or "")).kind))
            names |= {stream.name for stream in streams if stream}
    return tuple(sorted(names))


def find_unreflected(outbox: Outbox, connection: duckdb.DuckDBPyConnection) -> list[Mutation]:
    """The mutations whose effect the tables of `connection` do not show yet."""
    reflected = reflecting_runs(connection)
    sent = outbox.mutations(["applied", "needs_review"], images=False)
    return [each for each in sent if each.reason != "already_so" and each.id not in reflected]


def reflecting_runs(connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """Mutation → the run that wrote its effect into the tables."""
    has_column = first(
        connection.execute(
            "SELECT count(*) FROM duckdb_columns() WHERE database_name = current_database() AND schema_name = 'meta'"
            " AND table_name = 'mutations' AND column_name = 'reflected_by'"
        )
    )
    if not has_column[0]:
        return {}
    return dict(
        connection.execute("SELECT id, reflected_by FROM meta.mutations WHERE reflected_by IS NOT NULL").fetchall()
    )


def find_read(receipt: Receipt, mutations: Iterable[Mutation]) -> set[str]:
    """The mutations whose streams a run has read completely after they were applied.

    Applied deletions and merges are left out: lists do not show them.
    """
    complete = {name for name, entry in receipt.streams.items() if entry.complete}
    return {
        each.id
        for each in mutations
        if each.settled_at
        and each.settled_at <= receipt.started_at
        and (streams := affected_streams([each]))
        and complete.issuperset(streams)
        and _removed_record(each) is None
    }


def find_read_until(
    control: Control, connection: duckdb.DuckDBPyConnection | None, clock: ServerClock
) -> datetime | None:
    """The server's time at the last page that was read; None where this machine's clock confirms the server's `Date`.

    Pages never go back in time (`core.server_clock`); a push takes the `Date` of its answers as it comes. Where that is
    behind, a deletion would be older than the last reading of its record, and the record would count as restored.

    Args:
        control: the project's control.db.
        connection: to the warehouse; None if there is none.
        clock: of the session, after its first answer.
    """
    if clock.is_confirmed:
        return None
    times = [control.newest_time(), None if connection is None else warehouse.newest_time(connection)]
    return max(filter(None, times), default=None)


def find_pending(
    outbox: Outbox, connection: duckdb.DuckDBPyConnection, overlap_s: int, now: datetime | None = None
) -> list[PendingRemoval]:
    """The deletions and merges that the tables of `connection` do not show yet.

    Args:
        outbox: of the project.
        connection: to the work file.
        overlap_s: for so long a list may still show a removed record, in seconds.
        now: the server's time, the latest that a tombstone may have; None where there was no answer.
    """
    tables = warehouse.tables(connection)
    pending = []
    for each in find_unreflected(outbox, connection):
        removed = _removed_record(each)
        if removed is None or removed[0].name not in tables:
            continue
        stream, at = removed[0], _executed_at(outbox, each)
        if now is not None:
            at = min(at, now)
        row = connection.execute(
            f"SELECT _verified_at FROM {quoted('main', stream.name)}"
            f" WHERE {quoted(stream.key)}::VARCHAR = ? AND _deleted_at IS NULL",
            [removed[1].key],
        ).fetchone()
        seen_at = row[0].astimezone(UTC) if row else at
        is_back = seen_at > at + timedelta(seconds=overlap_s)
        # What was shown after it was removed is gone since it was shown.
        tombstone = replace(removed[1], at=at if is_back else max(at, seen_at))
        pending.append(PendingRemoval(each.id, stream.name, tombstone, was_read_since=is_back))
    return pending


def _removed_record(mutation: Mutation) -> tuple[Stream, Tombstone] | None:
    """The tombstone of a record that was deleted or merged away; None if it was not, or if no stream has it."""
    stream = find_stream(mutation.kind)
    if mutation.state != "applied" or mutation.verb not in ("delete", "merge") or not (stream and mutation.target):
        return None
    if mutation.reason == "already_so":  # the record could not be read: it is unknown whether it was deleted
        return None
    winner = str(mutation.payload["merge_with_id"]) if mutation.verb == "merge" else None
    at = mutation.settled_at or mutation.queued_at
    return stream, Tombstone(
        row_key(stream, mutation.target), "merged" if winner else "deleted", f"push {mutation.push_id}", at, winner
    )


def _executed_at(outbox: Outbox, mutation: Mutation) -> datetime:
    """When a mutation was carried out, but not before what was read before it.

    By the server's clock if an answer has a date, otherwise by this machine's.
    """
    attempts = outbox.attempts(mutation.id)
    date = (attempts[-1].headers or {}).get("date") if attempts else None
    read_until = attempts[-1].read_until if attempts else None
    try:
        at = parsedate_to_datetime(date) if date else None
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        at = mutation.settled_at or mutation.queued_at
    return max(filter(None, (at, read_until))).astimezone(UTC)


async def tombstone_applied(
    settings: Settings, control: Control, loader: Loader, archive: Archive, run_id: str, now: datetime,
    pending: Sequence[PendingRemoval],
) -> set[str]:  # fmt: skip
    """Write `pending` into the tables and record merges, through a page of the archive like any other data.

    What was read since gets no tombstone.

    Args:
        settings: of the project.
        control: its control.db.
        loader: the open work file.
        archive: of the run.
        run_id: of the run.
        now: the server's time, for the page.
        pending: the result of `find_pending`.

    Returns:
        The mutations that the tables show now.
    """
    by_stream: dict[str, list[Tombstone]] = {}
    for each in pending:
        if not each.was_read_since:
            by_stream.setdefault(each.stream, []).append(each.tombstone)
    for name, gone in by_stream.items():
        stream = catalogue.stream(name)
        version, sources = stream.sources(settings.api)
        walk = control.open_walk(run_id, name, FINDINGS, version, sources[0].operation, None)
        page = Page(walk.id, 0, msgspec.json.encode(gone), len(gone), None, now)
        await archive.seal(walk, page)
        await loader.add(stream, replace(walk, started_at=now), [page])
        control.end_walk(walk.id, "applied")
    return {each.mutation for each in pending}
