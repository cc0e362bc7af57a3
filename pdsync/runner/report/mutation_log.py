"""Copies the outbox into meta.mutations, so that the whole trail of every change can be queried with SQL.

The trail is a copy in both directions: where control.db was lost, or replaced by an older one, what it lacks is taken
from here and from the journal in the raw archive before anything is sent, or written over.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa

from pdsync.core import catalogue
from pdsync.extract.raw_archive import Archive
from pdsync.load import publish as publishing
from pdsync.model import OPEN, Mutation
from pdsync.runner import project
from pdsync.runner.loader import Loader
from pdsync.runner.report import applied_changes
from pdsync.runner.report import receipt as receipts
from pdsync.writeback.journal import Journal
from pdsync.writeback.outbox import Attempt, Outbox, Snapshot
from pdsync.writeback.shapes import shape, stream_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import duckdb

    from pdsync.core.config import Settings
    from pdsync.core.control import Control
    from pdsync.model import Receipt

_ENDS = {"applied", "rejected", "conflict", "needs_review", "cancelled"}
_JSON = ("payload", "expected", "base_image", "after_image", "evidence", "resolution")
_SHOWN = 5  # mutations that a note names
_LOST = (
    "control.db was lost while this waited, and nothing says whether it was sent since: look at the record, then queue"
    " it again if it was not"
)


def outbox_of(settings: Settings, control: Control) -> Outbox:
    """The project's outbox, with its journal in the raw archive."""
    return Outbox(control, Journal(settings.raw))


def reconcile(outbox: Outbox, connection: duckdb.DuckDBPyConnection | None) -> list[str]:
    """Take over what the journal and the warehouse know of mutations and control.db does not.

    That is so where control.db was lost, or replaced by an older copy: what was sent since must not be sent again. To
    be called before the outbox is read or changed, and before `keep` writes it into the warehouse.

    Args:
        outbox: with its journal.
        connection: to a warehouse file; None where there is none.

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
    told = _told(outbox, connection, {each.mutation.id for each in written}) if connection else []
    taken = outbox.adopt([*written, *told], read)
    if not taken:
        return []
    shown = ", ".join(_said(each) for each in taken[:_SHOWN])
    more = f", and {len(taken) - _SHOWN:,} more" if len(taken) > _SHOWN else ""
    return [
        f"control.db was lost or is an older copy: what became of {len(taken):,} changes is known again from the raw"
        f" archive and the warehouse ({shown}{more}). What was sent is not sent again. All of them: pdsync queue list"
        " --all"
    ]


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
    values = {name: None if row.get(name) is None else msgspec.json.decode(row[name]) for name in _JSON}
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


def keep(loader: Loader, outbox: Outbox, reflected: Mapping[str, str]) -> None:
    """Write every mutation of the outbox into the work file; in the loader's thread.

    Args:
        loader: the open work file.
        outbox: it knows all that the file says of mutations already: see `reconcile`.
        reflected: by mutation, the run that brought what it changed into the tables.
    """
    mutations = outbox.mutations()
    known = loader.connection.execute("SELECT count(*) FROM meta.mutations").fetchall()[0][0]
    if not mutations and not known:
        return
    done = {**reflected, **applied_changes.reflected(loader.connection)}
    table = [_row(outbox, each) | {"reflected_by": done.get(each.id)} for each in mutations]
    rows = pa.Table.from_pylist(table, schema=_schema(loader))
    loader.connection.register("trail_rows", rows)
    loader.connection.execute("BEGIN")
    try:
        loader.connection.execute("DELETE FROM meta.mutations")
        loader.connection.execute("INSERT INTO meta.mutations BY NAME SELECT * FROM trail_rows")
        loader.connection.execute("COMMIT")
    except BaseException:
        loader.connection.execute("ROLLBACK")
        raise
    finally:
        loader.connection.unregister("trail_rows")


async def bring_in(
    settings: Settings, control: Control, loader: Loader, archive: Archive, receipt: Receipt, now: datetime
) -> list[str]:
    """At the end of a run: bring what pushes did, and the trail of it, into the open work file.

    Returns:
        What a person should know.
    """
    outbox = outbox_of(settings, control)
    notes = await loader.do(lambda: reconcile(outbox, loader.connection))
    found = await loader.do(lambda: applied_changes.pending(outbox, loader.connection, settings.overlap_s))
    done = await applied_changes.bury(settings, control, loader, archive, receipt.run_id, now, found)
    done |= applied_changes.read_by(receipt, outbox.mutations(["applied", "needs_review"], images=False))
    await loader.do(keep, loader, outbox, dict.fromkeys(done, receipt.run_id))
    return notes


async def publish(settings: Settings) -> None:
    """Bring the trail, and what pushes have taken away, into the warehouse, and nothing else.

    Raises:
        Busy: a run holds the project.
        StorageError: it can't be written.
    """
    with project.locked(settings) as control:
        if control.company() is not None and settings.warehouse.exists():
            await _publish(settings, control, always=True)


async def catch_up(settings: Settings, control: Control) -> None:
    """Bring what pushes have taken away into the warehouse, if it lacks any of it. The project's lock is held."""
    if outbox_of(settings, control).has_taken_away() and settings.warehouse.exists():
        await _publish(settings, control, always=False)


async def _publish(settings: Settings, control: Control, *, always: bool) -> None:
    company = control.company()
    if company is None:
        return
    project.ready_work_file(settings)
    outbox, loader = outbox_of(settings, control), Loader(project.work_path(settings))
    try:
        await loader.do(loader.open, *company)
        await loader.do(lambda: reconcile(outbox, loader.connection))
        found = await loader.do(lambda: applied_changes.pending(outbox, loader.connection, settings.overlap_s))
        if not found and not always:
            return
        done = set[str]()
        if found:
            receipt = receipts.begun("push, what it took away")
            control.start_run(receipt.run_id, receipt.command, receipt.started_at)
            async with Archive(settings.raw, control, receipt.run_id, company[0]) as archive:
                now = receipt.started_at
                done = await applied_changes.bury(settings, control, loader, archive, receipt.run_id, now, found)
            receipt.finished_at, receipt.exit_code = datetime.now(UTC), 0
            await loader.do(receipts.keep, loader, receipt)
            control.finish_run(receipt)
        await loader.do(keep, loader, outbox, dict.fromkeys(done, receipt.run_id if done else ""))
    finally:
        await loader.close()
    publishing.publish(project.work_path(settings), settings.warehouse)


def _schema(loader: Loader) -> pa.Schema:
    """The columns of meta.mutations, JSON as text."""
    kinds = {"BIGINT": pa.int64(), "TIMESTAMP WITH TIME ZONE": pa.timestamp("us", "UTC")}
    rows = loader.connection.execute(
        "SELECT column_name, data_type FROM duckdb_columns() WHERE database_name = current_database()"
        " AND schema_name = 'meta' AND table_name = 'mutations' ORDER BY column_index"
    ).fetchall()
    return pa.schema([(name, kinds.get(kind, pa.string())) for name, kind in rows])


def _row(outbox: Outbox, mutation: Mutation) -> dict[str, Any]:
    stream = stream_of(mutation.kind)
    attempts = outbox.attempts(mutation.id)
    key, bound = outbox.names_of(mutation.id)
    evidence = {"attempts": attempts, "probes": outbox.probes(mutation.id)} if attempts else None
    shaped = shape(catalogue.operation(mutation.operation))
    target = mutation.target.rsplit("/", 1)[-1] if mutation.target and shaped.verb != "add" else None
    facts: dict[str, Any] = {
        "seq": mutation.seq,
        "id": mutation.id,
        "queued_at": mutation.queued_at,
        "queued_by": mutation.queued_by,
        "operation": mutation.operation,
        "verb": mutation.verb,
        "entity": stream.name if stream else mutation.kind,
        "target_id": target,
        "payload": mutation.payload,
        "base_image": mutation.base_image,
        "after_image": mutation.after_image,
        "state": mutation.state,
        "outcome": mutation.state if mutation.state in _ENDS else None,
        "reason": mutation.reason,
        "detail": mutation.detail,
        "remote_id": mutation.remote_id or target,
        "push_id": mutation.push_id,
        "attempts": len(attempts),
        "settled_at": mutation.settled_at,
        "undo_of": mutation.undo_of,
        "evidence": evidence,
        "resolution": outbox.resolution(mutation.id) if mutation.state == "needs_review" else None,
        "batch": mutation.batch,
        "dedupe_key": key,
        "company_id": mutation.company_id,
        "expected": mutation.expected,
        "supersedes": mutation.supersedes,
        "bound": bound,
    }
    return facts | {
        name: None if facts[name] is None else msgspec.json.encode(facts[name], enc_hook=str).decode() for name in _JSON
    }
