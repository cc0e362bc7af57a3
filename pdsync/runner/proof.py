"""Proves how complete each table is: what the source had when all of it was read, and what stands here.

A list that was read whole shows every record that the token may see, so the rows that it showed are what is there.
Rows beyond them are no proof of anything: `reconcile` finds out what became of those.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from pdsync.core import catalogue
from pdsync.load import warehouse
from pdsync.model import Proof
from pdsync.sql import first
from pdsync.sql import name as quoted

if TYPE_CHECKING:
    from pdsync.core.config import Settings
    from pdsync.core.control import Control
    from pdsync.model import Receipt
    from pdsync.runner.loader import Loader

CYCLE = 7  # days, where no verify cycle is set


def prove(loader: Loader, control: Control, receipt: Receipt, settings: Settings, at: datetime) -> None:
    """Put into `receipt` how complete the tables of its streams are; in the loader's thread.

    Args:
        loader: holds the tables.
        control: knows which lists the run has read whole.
        receipt: of the run.
        settings: of the project.
        at: the server's time.
    """
    _count_whole_reads(loader, control, receipt, settings, at)
    have = warehouse.tables(loader.connection)
    for name, entry in receipt.streams.items():
        if name in have:
            entry.proof = _proof(loader, name, at - timedelta(days=settings.verify_cycle or CYCLE))


def _count_whole_reads(loader: Loader, control: Control, receipt: Receipt, settings: Settings, at: datetime) -> None:
    whole = control.whole_reads(receipt.run_id)
    for name, entry in receipt.streams.items():
        _, sources = catalogue.stream(name).sources(settings.api)
        began = [whole.get((name, source.name)) for source in sources]
        if not entry.complete or entry.note or None in began:
            continue
        since = min(moment for moment in began if moment)
        seen, here = first(
            loader.connection.execute(
                "SELECT count(*) FILTER (_verified_at >= ?), count(*)"
                f" FROM {quoted('main', name)} WHERE _deleted_at IS NULL",
                [since],
            )
        )
        loader.connection.execute(
            "DELETE FROM meta.sweeps WHERE run_id = ? AND stream = ?", [receipt.run_id, name]
        )  # of an attempt that was cut short
        loader.connection.execute(
            "INSERT INTO meta.sweeps VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [receipt.run_id, at, name, seen, here, seen, here - seen, True],
        )


def _proof(loader: Loader, name: str, since: datetime) -> Proof:
    here, verified, oldest = first(
        loader.connection.execute(
            "SELECT count(*), coalesce(count(*) FILTER (_verified_at >= ?) / nullif(count(*), 0), 1),"
            f" epoch(min(_verified_at)) FROM {quoted('main', name)} WHERE _deleted_at IS NULL",
            [since],
        )
    )
    counted = first(
        loader.connection.execute(
            "SELECT at_source, epoch(swept_at), differences FROM meta.sweeps WHERE stream = ? AND complete"
            " ORDER BY swept_at DESC, rowid DESC LIMIT 1",
            [name],
        )
    ) or (None, None, None)
    return Proof(here, counted[0], _moment(counted[1]), counted[2], float(verified), _moment(oldest))


def _moment(seconds: float | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds is not None else None
