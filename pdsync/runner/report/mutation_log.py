"""Copies the outbox into meta.mutations, so that the history of every change can be queried with SQL.

If control.db is lost, the queue is restored from that table too: see `runner.queue_recovery`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa

from pdsync.core.log import log
from pdsync.extract.raw_archive import Archive
from pdsync.load.transaction import transaction
from pdsync.runner import project
from pdsync.runner.loader import Loader
from pdsync.runner.queue_recovery import JSON_COLUMNS, open_outbox, recover
from pdsync.runner.report import applied_changes
from pdsync.runner.report import receipt as receipts
from pdsync.writeback.adoption import complete_journal
from pdsync.writeback.shapes import find_stream

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pdsync.core.config import Settings
    from pdsync.core.control import Control
    from pdsync.model import Mutation, Receipt
    from pdsync.writeback.outbox import Outbox

_ENDS = {"applied", "rejected", "conflict", "needs_review", "cancelled"}


def save_mutation_log(loader: Loader, outbox: Outbox, reflected: Mapping[str, str]) -> None:
    """Write every mutation of the outbox into the work file; in the loader's thread.

    Args:
        loader: the open work file.
        outbox: of the project, after `queue_recovery.recover`, so that no row of the file is newer.
        reflected: by mutation: the run that wrote its effect into the tables.

    Rows of mutations that the outbox does not have are kept.
    """
    mutations = outbox.mutations()
    if not mutations:
        return
    runs = {**reflected, **applied_changes.reflecting_runs(loader.connection)}
    table = [_row(outbox, each) | {"reflected_by": runs.get(each.id)} for each in mutations]
    rows = pa.Table.from_pylist(table, schema=_schema(loader))
    loader.connection.register("mutation_rows", rows)
    try:
        with transaction(loader.connection):
            loader.connection.execute("DELETE FROM meta.mutations WHERE id IN (SELECT id FROM mutation_rows)")
            loader.connection.execute("INSERT INTO meta.mutations BY NAME SELECT * FROM mutation_rows")
    finally:
        loader.connection.unregister("mutation_rows")


async def apply_pushes(
    settings: Settings, control: Control, loader: Loader, archive: Archive, receipt: Receipt, now: datetime
) -> list[str]:
    """At the end of a run, write the deletions and merges of pushes, and the mutations, into the open work file.

    `now` is the server's time.

    Returns:
        Messages for the user.
    """
    outbox = open_outbox(settings, control)
    notes = await loader.do(lambda: recover(outbox, loader.connection))
    pending = await loader.do(lambda: applied_changes.find_pending(outbox, loader.connection, settings.overlap_s, now))
    done = await applied_changes.tombstone_applied(settings, control, loader, archive, receipt.run_id, now, pending)
    done |= applied_changes.find_read(receipt, outbox.mutations(["applied", "needs_review"], images=False))
    complete_journal(outbox)
    await loader.do(save_mutation_log, loader, outbox, dict.fromkeys(done, receipt.run_id))
    return notes


async def publish(settings: Settings, on_note: Callable[[str], None] = log.warning) -> None:
    """Write the mutations, and the deletions and merges of pushes, into the warehouse, and nothing else.

    Raises:
        ProjectLocked: another run has the lock.
        StorageError: it can't be written.
    """
    with project.locked(settings, on_note) as control:
        if control.company() is not None and settings.warehouse.exists():
            await _publish(settings, control, on_note, always=True)


async def catch_up(settings: Settings, control: Control, on_note: Callable[[str], None]) -> None:
    """Write deletions and merges of pushes that the warehouse lacks. The caller has the project's lock."""
    if open_outbox(settings, control).has_removed_records() and settings.warehouse.exists():
        await _publish(settings, control, on_note, always=False)


async def _publish(settings: Settings, control: Control, on_note: Callable[[str], None], *, always: bool) -> None:
    company = control.company()
    if company is None:
        return
    before = project.ready_work_file(settings, control, on_note)
    outbox, loader = open_outbox(settings, control), Loader(project.work_path(settings))
    try:
        await loader.do(loader.open, *company)
        for note in await loader.do(lambda: recover(outbox, loader.connection)):
            on_note(note)
        found = await loader.do(lambda: applied_changes.find_pending(outbox, loader.connection, settings.overlap_s))
        # What was read since waits for a sync: it knows the server's time, and whether that of the reading was wrong.
        pending = [each for each in found if not each.was_read_since]
        if not pending and not always:
            return
        done = set[str]()
        if pending:
            receipt = receipts.begin_receipt("push, deletions and merges")
            control.start_run(receipt.run_id, receipt.command, receipt.started_at)
            async with Archive(settings.raw, control, receipt.run_id, company[0]) as archive:
                times = [control.newest_time(), *(each.tombstone.at for each in pending)]
                now = max(filter(None, times))
                done = await applied_changes.tombstone_applied(
                    settings, control, loader, archive, receipt.run_id, now, pending
                )
            receipt.finished_at, receipt.exit_code = datetime.now(UTC), 0
            await loader.do(receipts.save_receipt, loader, receipt)
            control.finish_run(receipt)
        complete_journal(outbox)
        await loader.do(save_mutation_log, loader, outbox, dict.fromkeys(done, receipt.run_id if done else ""))
        for note in await loader.do(loader.create_project_views, settings.project):
            on_note(note)
    finally:
        await loader.close()
    project.publish(settings, on_note, before)


def _schema(loader: Loader) -> pa.Schema:
    """The columns of meta.mutations as an Arrow schema, JSON as text."""
    kinds = {"BIGINT": pa.int64(), "TIMESTAMP WITH TIME ZONE": pa.timestamp("us", "UTC")}
    rows = loader.connection.execute(
        "SELECT column_name, data_type FROM duckdb_columns() WHERE database_name = current_database()"
        " AND schema_name = 'meta' AND table_name = 'mutations' ORDER BY column_index"
    ).fetchall()
    return pa.schema([(name, kinds.get(kind, pa.string())) for name, kind in rows])


def _row(outbox: Outbox, mutation: Mutation) -> dict[str, Any]:
    stream = find_stream(mutation.kind)
    attempts = outbox.attempts(mutation.id)
    key, bound = outbox.key_and_binding(mutation.id)
    evidence = {"attempts": attempts, "probes": outbox.probes(mutation.id)} if attempts else None
    target = mutation.target.rsplit("/", 1)[-1] if mutation.target and mutation.verb != "add" else None
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
        name: None if facts[name] is None else msgspec.json.encode(facts[name], enc_hook=str).decode()
        for name in JSON_COLUMNS
    }
