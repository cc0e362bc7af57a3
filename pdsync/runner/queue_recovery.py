"""Restores what control.db has lost of the queue, from the journal in the raw archive and from the warehouse files.

control.db may be lost, or be replaced by an older copy of itself. What was sent since must not be sent again, so the
other stores are read before the queue is used, and before a warehouse file is overwritten or replaced. From then on
control.db and the journal have what was restored.

A row of meta.mutations that this version can't read, because an older or newer pdsync wrote it, is skipped with a note.
If control.db still has its mutation as open, a person has to review that one: it may have been sent since.
"""

from __future__ import annotations

import contextlib
from datetime import UTC
from typing import TYPE_CHECKING, Any

import duckdb
import msgspec
from msgspec import Struct

from pdsync.core import catalogue
from pdsync.core.wording import counted
from pdsync.errors import CatalogueError, StorageError
from pdsync.load import warehouse
from pdsync.model import OPEN, Mutation
from pdsync.sql import quoted
from pdsync.writeback.adoption import adopt, complete_journal
from pdsync.writeback.journal import Journal
from pdsync.writeback.outbox import Outbox
from pdsync.writeback.queue_reader import RESOLUTION_COLUMNS
from pdsync.writeback.shapes import shape
from pdsync.writeback.snapshot import Attempt, Progress, Snapshot

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from pathlib import Path

    from pdsync.core.config import Settings
    from pdsync.core.control import Control

JSON_COLUMNS = ("payload", "expected", "base_image", "after_image", "evidence", "resolution")
_PROBE_KEYS = ("n", "at", "request", "found", "verdict")
_SHOWN = 5  # mutations that a note names
_LOST = (
    "control.db was lost while this waited, and no store shows whether it was sent since: look at the record, then"
    " queue it again if it was not sent"
)


class _UnreadableRow(Exception):
    """A row of meta.mutations that an older or newer pdsync wrote; says what can't be read."""


class _Unreadable(Struct, frozen=True):
    """A row that was skipped."""

    id: str
    progress: Progress
    description: str


class _Recorded(Struct, frozen=True):
    """The rows of meta.mutations that are newer than control.db: those that can be read, and those that can't."""

    snapshots: list[Snapshot] = []
    unreadable: list[_Unreadable] = []


def open_outbox(settings: Settings, control: Control) -> Outbox:
    """The project's outbox, with its journal in the raw archive."""
    return Outbox(control, Journal(settings.raw))


def recover(
    outbox: Outbox,
    connection: duckdb.DuckDBPyConnection | None = None,
    *,
    databases: Sequence[str] | None = None,
    files: Iterable[Path] = (),
) -> list[str]:
    """Restore the mutations that control.db lacks, or of which the journal or the warehouse has a newer record.

    Args:
        outbox: with its journal.
        connection: to a warehouse file; None where there is none.
        databases: the attached warehouse files to read on `connection`, skipping those that can't be read; the last one
            stays its current database. None reads the file that it is connected to.
        files: further warehouse files; one that is missing, damaged or locked by another process is skipped.

    Returns:
        Notes for the person: what was restored, and which rows were skipped.

    Raises:
        StorageError: the journal is damaged, or a mutation is of another company: nothing was changed. Or the journal
            can't be written.
        duckdb.Error: `databases` is None, and the file of `connection` can't be read. Nothing was changed.
    """
    read: dict[str, int] = {}
    from_journal = list[Snapshot]()
    if outbox.journal:
        for name, size, lines in outbox.journal.read(outbox.control.indexed_sizes()):
            read[name] = size
            from_journal += lines
    journaled = {each.mutation.id for each in from_journal}
    recorded = list[_Recorded]()
    if connection and databases is None:
        recorded.append(_read_warehouse(outbox, connection, journaled))
    elif connection:
        recorded += [_read_attached(outbox, connection, each, journaled) for each in databases or ()]
    recorded += [_read_file(outbox, path, journaled) for path in files]
    adopted = adopt(outbox, [*from_journal, *(each for one in recorded for each in one.snapshots)], read)
    if adopted:
        complete_journal(outbox)
    skipped = _skip_unreadable(outbox, [row for one in recorded for row in one.unreadable])
    return [*_note_restored(adopted), *_note_skipped(skipped)]


def _skip_unreadable(outbox: Outbox, rows: Iterable[_Unreadable]) -> list[str]:
    """Leave the rows out, but send no mutation about which one of them may record more than control.db has.

    Returns:
        A description of each row that was skipped.
    """
    stored = outbox.progress()
    skipped = {row.id: row.description for row in rows if row.id not in stored or row.progress > stored[row.id]}
    for id in skipped.keys() & stored.keys():
        if outbox.get(id).state in OPEN:
            outbox.settle(id, "needs_review", "state_lost", _LOST)
    return list(skipped.values())


def _note_restored(mutations: Sequence[Mutation]) -> list[str]:
    if not mutations:
        return []
    was = "was" if len(mutations) == 1 else "were"
    return [
        f"control.db was lost or is an older copy: {counted(len(mutations), 'change')} {was} restored from the raw"
        f" archive and the warehouse ({_list([_describe(each) for each in mutations])}). What was sent is not sent"
        " again. All of them: pdsync queue list --all"
    ]


def _note_skipped(rows: Sequence[str]) -> list[str]:
    if not rows:
        return []
    return [
        f"{counted(len(rows), 'row')} of meta.mutations, written by another version of pdsync, can't be restored to the"
        f" queue ({_list(rows)}). They stay in meta.mutations."
    ]


def _list(items: Sequence[str]) -> str:
    more = f", and {len(items) - _SHOWN:,} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more


def _describe(mutation: Mutation) -> str:
    added = f" as {mutation.remote_id}" if mutation.verb == "add" and mutation.remote_id else ""
    state = "outcome unknown" if mutation.state in ("armed", "unknown") else mutation.state.replace("_", " ")
    return f"#{mutation.seq} {mutation.operation.rpartition(' ')[2]}: {state}{added}"


def _read_file(outbox: Outbox, path: Path, journaled: Collection[str]) -> _Recorded:
    if not path.exists():
        return _Recorded()
    try:
        with contextlib.closing(warehouse.connect(path, read_only=True)) as connection:
            return _read_warehouse(outbox, connection, journaled)
    except (duckdb.Error, StorageError):
        return _Recorded()


def _read_attached(
    outbox: Outbox, connection: duckdb.DuckDBPyConnection, database: str, journaled: Collection[str]
) -> _Recorded:
    try:
        connection.execute(f"USE {quoted(database)}")
        return _read_warehouse(outbox, connection, journaled)
    except duckdb.Error:
        return _Recorded()


def _read_warehouse(outbox: Outbox, connection: duckdb.DuckDBPyConnection, journaled: Collection[str]) -> _Recorded:
    """The rows of meta.mutations that control.db lacks, or of which it has an older record.

    Args:
        outbox: of the project.
        connection: to the warehouse file.
        journaled: the mutations that the journal has; a row that only says that one of them waits adds nothing.
    """
    columns = {
        row[0]
        for row in connection.execute(
            "SELECT column_name FROM duckdb_columns() WHERE database_name = current_database()"
            " AND schema_name = 'meta' AND table_name = 'mutations'"
        ).fetchall()
    }
    if "evidence" not in columns:
        return _Recorded()
    has_resolution = "resolution IS NOT NULL" if "resolution" in columns else "false"
    stored = outbox.progress()
    newer: dict[str, Progress] = {}
    for id, state, attempts, is_resolved in connection.execute(
        f"SELECT id, state, attempts, {has_resolution} FROM meta.mutations"
    ).fetchall():
        progress = (int(attempts or 0), state not in OPEN, int(is_resolved))
        is_only_waiting = state in ("queued", "approved") and id in journaled
        if progress > stored[id] if id in stored else not is_only_waiting:
            newer[id] = progress
    if not newer:
        return _Recorded()
    cursor = connection.execute(
        "SELECT * FROM meta.mutations WHERE id IN (SELECT unnest(?::VARCHAR[])) ORDER BY seq", [list(newer)]
    )
    header = [column[0] for column in cursor.description]
    recorded = _Recorded([], [])
    for values in cursor.fetchall():
        row = dict(zip(header, values, strict=True))
        id = row["id"]
        try:
            recorded.snapshots.append(_snapshot(row, is_stored=id in stored))
        except _UnreadableRow as error:
            number = "?" if row["seq"] is None else row["seq"]
            description = f"#{number} {row['operation'] or id}: {error}"
            recorded.unreadable.append(_Unreadable(id, newer[id], description))
    return recorded


def _snapshot(row: dict[str, Any], *, is_stored: bool) -> Snapshot:
    """A row of meta.mutations as a snapshot.

    Args:
        row: its columns by name.
        is_stored: control.db has an older record of the mutation.

    Raises:
        _UnreadableRow: an older or newer pdsync wrote it.
    """
    try:
        return _checked_snapshot(row, is_stored=is_stored)
    except CatalogueError:
        raise _UnreadableRow("an unknown operation") from None
    except msgspec.DecodeError as error:
        raise _UnreadableRow(str(error)) from None


def _checked_snapshot(row: dict[str, Any], *, is_stored: bool) -> Snapshot:
    values = {
        name: None if row.get(name) is None else msgspec.json.decode(row[name], type=dict[str, Any])
        for name in JSON_COLUMNS
    }
    if row["operation"] is None:
        raise _UnreadableRow("no operation")
    shaped = shape(catalogue.operation(row["operation"]))
    payload = values["payload"] or {}
    state, reason, detail = row["state"], row["reason"], row["detail"]
    if state in ("queued", "approved") and not is_stored:
        # No store shows whether it was sent after this row was written: only a person can find out.
        state, reason, detail = "needs_review", "state_lost", _LOST
    facts = {
        "seq": row["seq"],
        "id": row["id"],
        "batch": row.get("batch") or "restored",
        "company_id": row.get("company_id"),
        "operation": row["operation"],
        "verb": shaped.verb,
        "kind": shaped.kind,
        "target": None if shaped.verb == "add" and not shaped.path_params else shaped.target(payload),
        "payload": payload,
        "expected": values["expected"],
        "queued_at": _in_utc(row["queued_at"]),
        "queued_by": row["queued_by"] or "",
        "state": state,
        "reason": reason,
        "detail": detail,
        "push_id": row["push_id"],
        "remote_id": row["remote_id"] if shaped.verb in ("add", "merge", "other") else None,
        "base_image": values["base_image"],
        "after_image": values["after_image"],
        "settled_at": _in_utc(row["settled_at"]),
        "undo_of": row.get("undo_of"),
        "supersedes": row.get("supersedes"),
    }
    evidence, resolution = values["evidence"] or {}, values["resolution"]
    probes = msgspec.convert(evidence.get("probes", []), list[dict[str, Any]])
    return Snapshot(
        msgspec.convert(facts, Mutation),
        row.get("dedupe_key"),
        row.get("bound"),
        tuple(msgspec.convert(evidence.get("attempts", []), list[Attempt])),
        tuple(_with_keys(each, _PROBE_KEYS) for each in probes),
        () if resolution is None else (_with_keys({"n": 1, **resolution}, RESOLUTION_COLUMNS),),
    )


def _in_utc(value: Any) -> Any:
    return None if value is None else value.astimezone(UTC)


def _with_keys(facts: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    missing = [key for key in keys if key not in facts]
    if missing:
        raise _UnreadableRow(f"its evidence lacks {', '.join(missing)}")
    return facts
