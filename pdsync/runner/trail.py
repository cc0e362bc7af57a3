"""Copies the outbox into meta.mutations, so that the whole trail of every change can be queried with SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa

from pdsync.core import catalogue
from pdsync.load import publish as publishing
from pdsync.runner import project
from pdsync.runner.loader import Loader
from pdsync.writeback.outbox import Outbox
from pdsync.writeback.shapes import shape, stream_of

if TYPE_CHECKING:
    from pdsync.core.config import Settings
    from pdsync.core.control import Control
    from pdsync.model import Mutation

_ENDS = {"applied", "rejected", "conflict", "needs_review", "cancelled"}
_JSON = ("payload", "base_image", "after_image", "evidence", "resolution")


def keep(loader: Loader, control: Control) -> None:
    """Write every mutation of the outbox into the work file; in the loader's thread."""
    outbox = Outbox(control)
    mutations = outbox.mutations()
    known = loader.connection.execute("SELECT count(*) FROM meta.mutations").fetchall()[0][0]
    if not mutations and not known:
        return
    rows = pa.Table.from_pylist([_row(outbox, each) for each in mutations], schema=_schema(loader))
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


async def publish(settings: Settings) -> None:
    """Bring the trail into the warehouse, and nothing else.

    Raises:
        Busy: a run holds the project.
        StorageError: it can't be written.
    """
    with project.locked(settings) as control:
        company = control.company()
        if company is None or not settings.warehouse.exists():
            return
        project.ready_work_file(settings)
        loader = Loader(project.work_path(settings))
        try:
            await loader.do(loader.open, *company)
            await loader.do(keep, loader, control)
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
    }
    return facts | {
        name: None if facts[name] is None else msgspec.json.encode(facts[name], enc_hook=str).decode() for name in _JSON
    }
