"""Measures how complete each table is: its rows, and those of the source when all of it was last read.

A list that was read whole shows every record that the token may see, so the rows that it showed are what exists.
Rows beyond them prove nothing: `reconcile` finds out what became of those. Where they are many, the token may see
less than before, and the run is not complete until they are reconciled.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from pdsync.core import catalogue
from pdsync.load import warehouse
from pdsync.model import IncompleteStream, Proof
from pdsync.reconcile import evidence
from pdsync.sql import first, quoted

if TYPE_CHECKING:
    from pdsync.core.config import Settings
    from pdsync.core.control import Control
    from pdsync.model import Receipt
    from pdsync.runner.loader import Loader

CYCLE = 7  # days, where no verify cycle is set


def measure_completeness(loader: Loader, control: Control, receipt: Receipt, settings: Settings, at: datetime) -> None:
    """Put into `receipt` how complete its tables are, and the gaps; in the loader's thread.

    Args:
        loader: of the open work file.
        control: knows which lists the run has read whole.
        receipt: of the run.
        settings: of the project.
        at: the server's time.
    """
    lost = _describe_lost_rights(control, receipt)
    if lost:
        receipt.gaps.append(IncompleteStream("account", "rights", f"{lost} Changes to that are no longer read."))
    _count_whole_reads(loader, control, receipt, settings, at)
    have = warehouse.tables(loader.connection)
    for name, entry in receipt.streams.items():
        if name in have:
            entry.proof = _measure_proof(loader, name, at - timedelta(days=settings.verify_cycle or CYCLE))


def _count_whole_reads(loader: Loader, control: Control, receipt: Receipt, settings: Settings, at: datetime) -> None:
    whole = control.full_walks(receipt.run_id)
    for name, entry in receipt.streams.items():
        _, sources = catalogue.stream(name).sources(settings.api)
        began = [whole.get((name, source.name)) for source in sources]
        if not entry.complete or entry.note or None in began:
            continue
        since = min(moment for moment in began if moment)
        seen, here, unknown = first(
            loader.connection.execute(
                "SELECT count(*) FILTER (_verified_at >= $1), count(*), count(*) FILTER (_verified_at < $1"
                f" AND {quoted(catalogue.stream(name).key)}::VARCHAR NOT IN"
                " (SELECT key FROM meta.findings WHERE stream = $2))"
                f" FROM {quoted('main', name)} WHERE _deleted_at IS NULL",
                [since, name],
            )
        )
        # Rows that reconcile can't compare would stay a gap; a list with chosen parameters shows other records.
        comparable = len(sources) == 1 or not any(source.parent for source in sources)
        chosen = any(source.params for source in sources)
        if comparable and not chosen and unknown > evidence.default_max_tombstones(here):
            receipt.gaps.append(
                IncompleteStream(name, "fewer", _describe_fewer(control, receipt, name, seen, here, unknown))
            )
        loader.connection.execute(
            "DELETE FROM meta.sweeps WHERE run_id = ? AND stream = ?", [receipt.run_id, name]
        )  # of an attempt that was cut short
        loader.connection.execute(
            "INSERT INTO meta.sweeps VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [receipt.run_id, at, name, seen, here, seen, here - seen, True],
        )


def _describe_fewer(control: Control, receipt: Receipt, name: str, seen: int, here: int, unknown: int) -> str:
    """What to say of a list that shows fewer records than there are rows, by more than usual changes explain."""
    why = _describe_lost_rights(control, receipt, of_any_run=True) or (
        "The token is no administrator's: what others hide from its user is not in the list."
        if receipt.is_admin is False
        else "Records may be gone, or hidden from the token's user."
    )
    return (
        f"the list shows {seen:,} of {here:,} rows, and nothing tells what became of {unknown:,}. {why}"
        f" Look into it: pdsync reconcile {name}"
    )


def _describe_lost_rights(control: Control, receipt: Receipt, *, of_any_run: bool = False) -> str | None:
    """What to say where the token was an administrator's in the run before (or in any), and is not any more."""
    if receipt.is_admin is not False:
        return None
    for past in control.receipts(-1):
        if past.run_id != receipt.run_id and past.is_admin is not None:
            if past.is_admin:
                return (
                    f"The token was an administrator's on {past.started_at:%Y-%m-%d} (run {past.run_id}), and no"
                    " longer is: what others hide from its user is not in the lists."
                )
            if not of_any_run:
                return None
    return None


def _measure_proof(loader: Loader, name: str, since: datetime) -> Proof:
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
    return Proof(here, counted[0], _to_time(counted[1]), counted[2], float(verified), _to_time(oldest))


def _to_time(seconds: float | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds is not None else None
