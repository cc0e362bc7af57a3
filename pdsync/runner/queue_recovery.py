"""Takes back what control.db has lost of the queue: from the journal in the raw archive, and from the warehouse files.

control.db may be lost, or be replaced by an older copy of itself. What was sent since must not be sent again, so the
other stores are asked before the queue is read or changed, and before a warehouse file is written over or gives way.
What one of them is asked for once, control.db and the journal know from then on.
"""

from __future__ import annotations

import contextlib
from datetime import UTC
from typing import TYPE_CHECKING, Any

import duckdb
import msgspec

from pdsync.core import catalogue
from pdsync.errors import StorageError
from pdsync.load import warehouse
from pdsync.model import OPEN, Mutation
from pdsync.writeback.adoption import adopt, complete_journal
from pdsync.writeback.journal import Journal
from pdsync.writeback.outbox import Outbox
from pdsync.writeback.shapes import shape
from pdsync.writeback.snapshot import Attempt, Snapshot

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

    from pdsync.core.config import Settings
    from pdsync.core.control import Control

JSON_COLUMNS = ("payload", "expected", "base_image", "after_image", "evidence", "resolution")
_SHOWN = 5  # mutations that a note names
_LOST = (
    "control.db was lost while this waited, and nothing says whether it was sent since: look at the record, then queue"
    " it again if it was not"
)


def outbox_of(settings: Settings, control: Control) -> Outbox:
    """The project's outbox, with its journal in the raw archive."""
    return Outbox(control, Journal(settings.raw))


def recover(
    outbox: Outbox, connection: duckdb.DuckDBPyConnection | None = None, files: Iterable[Path] = ()
) -> list[str]:
    """Take over what the journal and the warehouse know of mutations and control.db does not.

    Args:
        outbox: with its journal.
        connection: to a warehouse file; None where there is none.
        files: further warehouse files; one that is missing, damaged or held by another process is passed over.

    Returns:
        What a person should know.

    Raises:
        StorageError: the journal is damaged, or another company's. Nothing was changed.
    """
    read: dict[str, int] = {}
    written = list[Snapshot]()
    if outbox.journal:
        for name, size, lines in outbox.journal.read(outbox.control.known_sizes()):
            read[name] = size
            written += lines
    journaled = {each.mutation.id for each in written}
    told = _told(outbox, connection, journaled) if connection else []
    for path in files:
        told += _told_by(outbox, path, journaled)
    taken = adopt(outbox, [*written, *told], read)
    if not taken:
        return []
    complete_journal(outbox)
    shown = ", ".join(_said(each) for each in taken[:_SHOWN])
    more = f", and {len(taken) - _SHOWN:,} more" if len(taken) > _SHOWN else ""
    return [
        f"control.db was lost or is an older copy: what became of {len(taken):,} changes is known again from the raw"
        f" archive and the warehouse ({shown}{more}). What was sent is not sent again. All of them: pdsync queue list"
        " --all"
    ]


def _told_by(outbox: Outbox, path: Path, journaled: Collection[str]) -> list[Snapshot]:
    if not path.exists():
        return []
    try:
        with contextlib.closing(warehouse.connect(path, read_only=True)) as connection:
            return _told(outbox, connection, journaled)
    except (duckdb.Error, StorageError):
        return []


def _said(mutation: Mutation) -> str:
    made = f" as {mutation.remote_id}" if mutation.verb == "add" and mutation.remote_id else ""
    state = "in doubt" if mutation.state in ("armed", "unknown") else mutation.state.replace("_", " ")
    return f"#{mutation.seq} {catalogue.operation(mutation.operation).id}: {state}{made}"


def _told(outbox: Outbox, connection: duckdb.DuckDBPyConnection, journaled: Collection[str]) -> list[Snapshot]:
    """What meta.mutations says of mutations that control.db knows less of."""
    columns = {
        row[0]
        for row in connection.execute(
            "SELECT column_name FROM duckdb_columns() WHERE database_name = current_database()"
            " AND schema_name = 'meta' AND table_name = 'mutations'"
        ).fetchall()
    }
    if "evidence" not in columns:
        return []
    resolved = "resolution IS NOT NULL" if "resolution" in columns else "false"
    known = outbox.progress()
    wanted = []
    for id, state, attempts, looked in connection.execute(
        f"SELECT id, state, attempts, {resolved} FROM meta.mutations"
    ).fetchall():
        progress = (int(attempts or 0), state not in OPEN, int(looked))
        if (id in known and progress > known[id]) or (
            id not in known and not (state in ("queued", "approved") and id in journaled)
        ):
            wanted.append(id)
    if not wanted:
        return []
    cursor = connection.execute(
        "SELECT * FROM meta.mutations WHERE id IN (SELECT unnest(?::VARCHAR[])) ORDER BY seq", [wanted]
    )
    header = [column[0] for column in cursor.description]
    rows = [dict(zip(header, row, strict=True)) for row in cursor.fetchall()]
    return [_snapshot(row, is_known=row["id"] in known) for row in rows]


def _snapshot(row: dict[str, Any], *, is_known: bool) -> Snapshot:
    values = {name: None if row.get(name) is None else msgspec.json.decode(row[name]) for name in JSON_COLUMNS}
    operation = catalogue.operation(row["operation"])
    shaped = shape(operation)
    payload = values["payload"] or {}
    state, reason, detail = row["state"], row["reason"], row["detail"]
    if state in ("queued", "approved") and not is_known:
        # Nothing says whether it was sent after this was written: only a person can tell.
        state, reason, detail = "needs_review", "state_lost", _LOST
    mutation = Mutation(
        seq=int(row["seq"]),
        id=row["id"],
        batch=row.get("batch") or "restored",
        company_id=row.get("company_id"),
        operation=row["operation"],
        verb=shaped.verb,
        kind=shaped.kind,
        target=None if shaped.verb == "add" and not shaped.places else shaped.target(payload),
        payload=payload,
        expected=values["expected"],
        queued_at=row["queued_at"].astimezone(UTC),
        queued_by=row["queued_by"] or "",
        state=state,
        reason=reason,
        detail=detail,
        push_id=row["push_id"],
        remote_id=row["remote_id"] if shaped.verb in ("add", "merge", "other") else None,
        base_image=values["base_image"],
        after_image=values["after_image"],
        settled_at=row["settled_at"].astimezone(UTC) if row["settled_at"] else None,
        undo_of=row["undo_of"],
        supersedes=row.get("supersedes"),
    )
    evidence = values["evidence"] or {}
    return Snapshot(
        mutation,
        row.get("dedupe_key"),
        row.get("bound"),
        tuple(msgspec.convert(evidence.get("attempts", []), list[Attempt])),
        tuple(evidence.get("probes", [])),
        () if values["resolution"] is None else ({"n": 1, **values["resolution"]},),
    )
