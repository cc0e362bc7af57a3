"""Counts what a run did, from the stores; concludes the receipt, and saves it in the warehouse."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from msgspec import Struct

from pdsync.core.control import ONLY_ARCHIVED
from pdsync.errors import FeatureOff, Forbidden, PdsyncError, Stopped
from pdsync.load.commit import Counts
from pdsync.load.transaction import transaction
from pdsync.model import IncompleteStream, Receipt, StreamReceipt
from pdsync.sql import quoted_list

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import duckdb

    from pdsync.core.budget import Budget
    from pdsync.core.control import Control
    from pdsync.runner.loader import Loader


_PROVED = ("at_source", "here", "verified", "oldest_verified_at")  # columns of meta.streams, fields of Proof


def begin_receipt(command: str) -> Receipt:
    """The receipt of a run that begins now. Runs of the same second keep their order by `started_at`."""
    now = datetime.now(UTC)
    return Receipt(f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(3)}", command, now)


def count_changes(loader: Loader, run_id: str, continued: Mapping[int, int] | None = None) -> dict[str, StreamReceipt]:
    """What the batches of a run changed, by stream: over all its attempts, also interrupted ones.

    What the first reading of a stream shows is no change of its schema.

    Args:
        loader: of the open work file.
        run_id: of the run.
        continued: walks of older runs → the first page that this run has read of each. Records that can't be read
            count from the first page on: the run that ends a list reports all of them.
    """
    walks = list((continued or {}).items())
    rows = loader.connection.execute(
        "WITH continued AS (SELECT unnest($walks::BIGINT[]) AS walk, unnest($pages::BIGINT[]) AS page),"
        " batches AS (SELECT b.*, c.page IS NULL OR b.last_page >= c.page AS own FROM meta._applied_batches b"
        " LEFT JOIN continued c ON c.walk = b.walk WHERE b.run_id = $run OR c.walk IS NOT NULL)"
        " SELECT stream, sum(read) FILTER (own), sum(inserted) FILTER (own), sum(updated) FILTER (own),"
        " sum(deleted) FILTER (own), sum(unchanged) FILTER (own), sum(quarantined) FROM batches GROUP BY stream",
        {"run": run_id, "walks": [walk for walk, _ in walks], "pages": [page for _, page in walks]},
    ).fetchall()
    changes = dict(
        loader.connection.execute(
            "SELECT entity, count(*) FROM meta.schema_changes WHERE run_id = $run AND entity IN"
            " (SELECT stream FROM meta.streams WHERE run_id <> $run AND read > 0) GROUP BY entity",
            {"run": run_id},
        ).fetchall()
    )
    return {
        row[0]: StreamReceipt(
            read=int(row[1] or 0),
            inserted=int(row[2] or 0),
            updated=int(row[3] or 0),
            deleted=int(row[4] or 0),
            unchanged=int(row[5] or 0),
            quarantined=int(row[6] or 0),
            schema_changes=int(changes.get(row[0], 0)),
        )
        for row in rows
    }


class StreamEnd(Struct, frozen=True):
    """How a job ended for one stream."""

    counts: StreamReceipt  # becomes the stream's entry of the receipt
    progress: StreamReceipt | None = None  # with the requests and tokens of this process
    error: PdsyncError | None = None
    note: str | None = None
    missing: str | None = None  # what was not read although nothing failed


def conclude(receipt: Receipt, ends: Mapping[str, StreamEnd], budget: Budget | None = None) -> None:
    """Write into a receipt how each stream ended, and the gaps; all but the exit code.

    A stream is complete unless a gap names it: it failed, was not read to its end, or has records that can't be read.

    Args:
        receipt: of the job; may have gaps already.
        ends: by stream.
        budget: of the job; None if it makes no request.
    """
    receipt.finished_at = datetime.now(UTC)
    if budget:
        receipt.tokens, receipt.requests = budget.spent, budget.requests
    for name, end in ends.items():
        entry = end.counts
        if end.progress:
            entry.requests, entry.tokens = end.progress.requests, end.progress.tokens
        entry.error, entry.note = str(end.error) if end.error else None, end.note
        if end.error:
            detail = str(end.error).split("\n", 1)[0]
            receipt.gaps.append(IncompleteStream(name, kind_of_gap(end.error), detail))
        elif end.missing:
            receipt.gaps.append(IncompleteStream(name, "stopped", end.missing))
        elif entry.quarantined:
            detail = f"{entry.quarantined} records can't be read: meta.quarantine"
            receipt.gaps.append(IncompleteStream(name, "quarantined", detail))
        entry.complete = not any(gap.stream == name for gap in receipt.gaps)
        receipt.streams[name] = entry


def add_counts(entry: StreamReceipt, counts: Counts, names: Sequence[str] = Counts.__struct_fields__) -> None:
    """Add what batches changed to a stream's entry of a receipt: the counts called `names`."""
    for name in names:
        setattr(entry, name, getattr(entry, name) + getattr(counts, name))


def kind_of_gap(error: PdsyncError) -> str:
    """The kind of the gap that `error` leaves in a stream: "stopped", "forbidden" (by rights or plan) or "failed"."""
    if isinstance(error, Stopped):
        return "stopped"
    return "forbidden" if isinstance(error, Forbidden | FeatureOff) else "failed"


def exit_code(receipt: Receipt, errors: dict[str, PdsyncError], stopped: Stopped | None, *, interrupted: bool) -> int:
    """The exit code of a run, by how its streams ended."""
    if interrupted:
        return 130
    if stopped:
        return stopped.exit_code
    if receipt.complete:
        return 0
    if errors and all(isinstance(error, Stopped) for error in errors.values()):
        return Stopped.exit_code
    only_forbidden = all(isinstance(error, Forbidden | FeatureOff) for error in errors.values())
    return 4 if errors and only_forbidden and not any(s.quarantined for s in receipt.streams.values()) else 1


def finish_run(control: Control, receipt: Receipt) -> None:
    """End a run whose warehouse is published: its duration is measured, and its receipt stored for good."""
    receipt.seconds = max((datetime.now(UTC) - receipt.started_at).total_seconds(), 0.0)
    control.finish_run(receipt)


def save_receipt(loader: Loader, receipt: Receipt) -> None:
    """Save the receipt in meta.runs and meta.streams; replaces that of the same run."""
    connection = loader.connection
    with transaction(connection):
        connection.execute("DELETE FROM meta.runs WHERE run_id = ?", [receipt.run_id])
        connection.execute("DELETE FROM meta.streams WHERE run_id = ?", [receipt.run_id])
        connection.execute(
            "INSERT INTO meta.runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                receipt.run_id,
                receipt.command,
                receipt.started_at,
                receipt.finished_at,
                receipt.complete,
                receipt.exit_code,
                receipt.requests,
                receipt.tokens,
                [f"{gap.stream}: {gap.kind}: {gap.detail}" for gap in receipt.gaps],
                receipt.as_of,
                receipt.user_id,
                receipt.user,
                receipt.is_admin,
            ],
        )
        for name, entry in receipt.streams.items():
            connection.execute(
                "INSERT INTO meta.streams VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    receipt.run_id,
                    name,
                    entry.requests,
                    entry.tokens,
                    entry.read,
                    entry.inserted,
                    entry.updated,
                    entry.deleted,
                    entry.unchanged,
                    entry.quarantined,
                    entry.schema_changes,
                    entry.complete,
                    entry.error or entry.note,
                    *(getattr(entry.proof, name, None) for name in _PROVED),
                ],
            )


def load_receipts(connection: duckdb.DuckDBPyConnection) -> list[Receipt]:
    """The receipts in a warehouse file, in the order in which they were saved."""
    streams: dict[str, dict[str, StreamReceipt]] = {}
    columns = ("requests", "tokens", "read", "inserted", "updated", "deleted", "unchanged", "quarantined")
    for run, stream, changes, complete, error, *counts in connection.execute(
        f"SELECT run_id, stream, schema_changes, complete, error, {quoted_list(list(columns))} FROM meta.streams"
    ).fetchall():
        entry = StreamReceipt(schema_changes=changes or 0, complete=bool(complete), error=error)
        for name, count in zip(columns, counts, strict=True):
            setattr(entry, name, count or 0)
        streams.setdefault(run, {})[stream] = entry
    found = connection.execute("SELECT * FROM meta.runs WHERE finished_at IS NOT NULL ORDER BY rowid")
    named = [column[0] for column in found.description or ()]
    rows = [dict(zip(named, row, strict=True)) for row in found.fetchall()]
    return [
        Receipt(
            row["run_id"],
            row["command"] or "",
            row["started_at"].astimezone(UTC),
            row["finished_at"].astimezone(UTC),
            streams.get(row["run_id"], {}),
            [IncompleteStream(*gap.split(": ", 2)) for gap in row["gaps"] or () if gap.count(": ") >= 2],
            row["tokens"] or 0,
            row["requests"] or 0,
            row["exit_code"] or 0,
            # The file of an older pdsync, which is opened read-only, lacks these.
            as_of=row["as_of"].astimezone(UTC) if row.get("as_of") else None,
            is_admin=row.get("is_admin"),
            user_id=row.get("user_id"),
            user=row.get("user_name"),
        )
        for row in rows
    ]


def adopt_receipts(connection: duckdb.DuckDBPyConnection, control: Control) -> set[str]:
    """Copy the receipts that control.db lacks from a warehouse file.

    A run that is in control.db without a receipt was interrupted, and can be continued, whatever the warehouse has.

    Returns:
        The runs with a receipt in that file.
    """
    existing = {receipt.run_id: receipt for receipt in control.receipts(-1)}
    in_file = load_receipts(connection)
    control.restore_receipts(
        [each for each in in_file if each.run_id not in existing or existing[each.run_id].command == ONLY_ARCHIVED]
    )
    return {receipt.run_id for receipt in in_file}
