"""Measures how complete each table is: its rows, and the records at the source when it was last read whole.

A list that was read whole shows every record that the token may see. Rows that it did not show prove nothing:
`reconcile` finds out what happened to them. If they are many, the token may see less than before, and the run is not
complete until they are reconciled.
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


def measure_completeness(loader: Loader, control: Control, receipt: Receipt, settings: Settings, at: datetime) -> None:
    """Add to `receipt` the completeness of its tables, and gaps; in the loader's thread.

    The streams that the run read whole are recorded in meta.sweeps. A stream with a new gap stays marked as complete.

    Args:
        loader: of the open work file.
        control: has the lists that the run has read whole.
        receipt: of the run.
        settings: of the project.
        at: the server's time.
    """
    lost = _describe_lost_rights(control, receipt)
    if lost:
        receipt.gaps.append(IncompleteStream("account", "rights", f"{lost} Their changes are no longer read."))
    _count_whole_reads(loader, control, receipt, settings, at)
    tables = warehouse.tables(loader.connection)
    for name, entry in receipt.streams.items():
        if name in tables:
            entry.proof = _measure_proof(loader, name, at - timedelta(days=settings.cycle_days))


def _count_whole_reads(loader: Loader, control: Control, receipt: Receipt, settings: Settings, at: datetime) -> None:
    """Record in meta.sweeps the streams that the run read whole; a list that shows far fewer records is a gap."""
    whole = control.full_walks(receipt.run_id)
    for name, entry in receipt.streams.items():
        _, sources = catalogue.stream(name).sources(settings.api)
        starts = [whole.get((name, source.name)) for source in sources]
        if not entry.complete or entry.note or None in starts:
            continue
        since = min(start for start in starts if start)
        seen, in_warehouse, unknown = first(
            loader.connection.execute(
                "SELECT count(*) FILTER (t._verified_at >= $1), count(*), count(*) FILTER (t._verified_at < $1"
                " AND coalesce(f.seen_at < t._verified_at, true))"  # a row that was shown since then is unknown again
                f" FROM {quoted('main', name)} t"
                " LEFT JOIN (SELECT key, max(seen_at) AS seen_at FROM meta.findings WHERE stream = $2 GROUP BY 1) f"
                f" ON f.key = t.{quoted(catalogue.stream(name).key)}::VARCHAR WHERE t._deleted_at IS NULL",
                [since, name],
            )
        )
        # Rows that reconcile can't compare would stay a gap; a list with parameters shows other records each time.
        is_comparable = len(sources) == 1 or not any(source.parent for source in sources)
        has_params = any(source.params for source in sources)
        if is_comparable and not has_params and unknown > evidence.default_max_tombstones(in_warehouse):
            receipt.gaps.append(
                IncompleteStream(name, "fewer", _describe_fewer(control, receipt, name, seen, in_warehouse, unknown))
            )
        loader.connection.execute(
            "DELETE FROM meta.sweeps WHERE run_id = ? AND stream = ?", [receipt.run_id, name]
        )  # of an interrupted attempt
        loader.connection.execute(
            "INSERT INTO meta.sweeps VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [receipt.run_id, at, name, seen, in_warehouse, seen, in_warehouse - seen, True],
        )


def _describe_fewer(control: Control, receipt: Receipt, name: str, seen: int, rows: int, unknown: int) -> str:
    """The gap of a list that shows far fewer records than there are rows."""
    why = _describe_lost_rights(control, receipt, of_any_run=True) or (
        "The token is not an administrator's: records hidden from its user are not in the list."
        if receipt.is_admin is False
        else "Records may be deleted, or hidden from the token's user."
    )
    return (
        f"the list shows {seen:,} of {rows:,} rows; the state of {unknown:,} is unknown. {why}"
        f" To find out: pdsync reconcile {name}"
    )


def _describe_lost_rights(control: Control, receipt: Receipt, *, of_any_run: bool = False) -> str | None:
    """The message if the token was an administrator's in the previous run (or in any), and no longer is."""
    if receipt.is_admin is not False:
        return None
    for past in control.receipts(-1):
        if past.run_id != receipt.run_id and past.is_admin is not None:
            if past.is_admin:
                return (
                    f"The token was an administrator's on {past.started_at:%Y-%m-%d} (run {past.run_id}), and no"
                    " longer is: records hidden from its user are not in the lists."
                )
            if not of_any_run:
                return None
    return None


def _measure_proof(loader: Loader, name: str, since: datetime) -> Proof:
    """The completeness of a table; rows verified after `since` count as verified."""
    rows, verified, oldest = first(
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
    return Proof(rows, counted[0], _to_time(counted[1]), counted[2], float(verified), _to_time(oldest))


def _to_time(seconds: float | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds is not None else None
