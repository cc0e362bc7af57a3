"""Brings what a push wrote into the warehouse. The push is over: whatever fails here changes nothing of its outcome."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import duckdb

from pdsync.core.log import log
from pdsync.errors import PdsyncError, ProjectLocked, StorageError
from pdsync.runner import unlocked
from pdsync.runner.report import applied_changes, mutation_log
from pdsync.runner.sync import sync

if TYPE_CHECKING:
    from collections.abc import Callable

    from pdsync.core.config import Settings
    from pdsync.model import Mutation, Receipt
    from pdsync.runner.session import Event
    from pdsync.writeback.outbox import Outbox


def find_late(outbox: Outbox, warehouse: duckdb.DuckDBPyConnection | None, push_id: str) -> list[Mutation]:
    """What an earlier push applied and could not bring into the warehouse; nothing where that can't be read."""
    if warehouse is None:
        return []
    try:
        late = applied_changes.find_unreflected(outbox, warehouse)
    except duckdb.Error as error:  # `read_back` names it
        log.info("what the warehouse lacks of earlier pushes is not known: %s", error)
        return []
    return [each for each in late if each.push_id != push_id]


async def read_back(
    settings: Settings, mutations: list[Mutation], on_message: Callable[[str], None]
) -> tuple[tuple[str, ...], int]:
    """Sync what was written into the warehouse.

    Args:
        settings: of the project.
        mutations: what was written.
        on_message: is called with a line for people, also about what could not be read.

    Returns:
        The streams that were read to their ends, and the tokens that this took.
    """

    def on_event(event: Event) -> None:
        if event.kind == "note":
            on_message(event.text)

    if not settings.warehouse.exists():
        return (), 0
    try:
        affected = _affected_streams(settings, mutations)
        if not affected:
            await mutation_log.publish(settings, on_message)
            return (), 0
        synced = await sync.sync(settings, sync.SyncRequest(affected), on_event)
    except ProjectLocked:
        on_message("Another run has the project: it, or the next sync, brings what was written into the warehouse.")
    except (PdsyncError, duckdb.Error, OSError) as error:
        log.info("the warehouse does not show the push yet: %s", error)
        on_message(f"The warehouse does not show this push yet: {str(error).splitlines()[0]}\nRun: pdsync sync")
        if isinstance(error, PdsyncError) and not isinstance(error, StorageError):
            await _publish_record(settings)
    else:
        read = tuple(name for name in affected if name in synced.streams and synced.streams[name].complete)
        if synced.exit_code:
            on_message(_describe_rest(synced, [name for name in affected if name not in read]))
        return read, synced.tokens
    return (), 0


async def _publish_record(settings: Settings) -> None:
    """Write the mutations, deletions and merges into the warehouse, which takes no request.

    control.db and the raw archive may be lost before the next sync: then only the warehouse knows what was sent.
    """
    try:
        await mutation_log.publish(settings, log.info)
    except (PdsyncError, duckdb.Error, OSError) as error:
        log.info("the warehouse has no record of the push yet: %s", error)


def _affected_streams(settings: Settings, mutations: list[Mutation]) -> tuple[str, ...]:
    """The streams that show the effect of `mutations`, of those that were read before."""
    with contextlib.closing(unlocked.open_warehouse(settings)) as warehouse:
        read = {row[0] for row in warehouse.execute("SELECT DISTINCT stream FROM meta.checkpoints").fetchall()}
    return tuple(name for name in applied_changes.affected_streams(mutations) if name in read)


def _describe_rest(synced: Receipt, left: list[str]) -> str:
    """Which streams do not show the push yet, and why."""
    names = f": {', '.join(left)}" if left else ""
    gaps = "; ".join(f"{gap.stream}: {gap.detail.splitlines()[0]}" for gap in synced.gaps if gap.detail)
    why = f" ({gaps})" if gaps else ""
    return f"The warehouse does not show all of this push yet{names}{why}.\nRun: pdsync sync"
