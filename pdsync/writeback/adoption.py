"""Restores the queue where control.db was lost or is an older copy, and completes the journal where that was lost.

A mutation is recorded in control.db, in the journal of the raw archive, and in meta.mutations of the warehouse. Where
the records differ, the one with the greatest progress (`Snapshot.progress`) is the newest, and counts.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from pdsync.errors import StorageError
from pdsync.model import Mutation
from pdsync.sql import quoted, quoted_list
from pdsync.writeback.outbox import free_key
from pdsync.writeback.queue_reader import JSON_COLUMNS, RESOLUTION_COLUMNS
from pdsync.writeback.snapshot import Progress, to_json

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping

    from pdsync.writeback.outbox import Outbox
    from pdsync.writeback.snapshot import Snapshot


def adopt(outbox: Outbox, snapshots: Iterable[Snapshot], read: Mapping[str, int] | None = None) -> list[Mutation]:
    """Store the snapshots that are newer than what control.db has, in one transaction.

    Args:
        outbox: of the project.
        snapshots: from the journal or the warehouse. Of each mutation the one with the greatest progress counts, and of
            several with the same the last, so those of the journal come in its order.
        read: by file of the journal, the bytes of it that were read.

    Returns:
        The mutations that were stored, as control.db has them now.

    Raises:
        StorageError: one is of another company. Nothing was changed.
    """
    newest: dict[str, Snapshot] = {}
    for each in snapshots:
        other = newest.get(each.mutation.id)
        if other is None or each.progress >= other.progress:
            newest[each.mutation.id] = each
    stored = outbox.progress()
    newer = [each for id, each in newest.items() if id not in stored or each.progress > stored[id]]
    if not newer and not read:
        return []
    company = outbox.control.company()
    for each in newer:
        if company and each.mutation.company_id not in (None, company[0]):
            raise StorageError(
                f"Mutation {each.mutation.id} is of company {each.mutation.company_id}, and this project is of company"
                f" {company[0]}.\nNothing was sent. The warehouse, or the folder outbox in the raw archive, belongs to"
                f" another project: restore this project's own."
            )
    newer.sort(key=lambda each: each.mutation.seq)
    with outbox.control.transaction() as db:
        for each in newer:
            _store(db, each)
        db.executemany("INSERT OR REPLACE INTO raw_files VALUES (?, ?)", list((read or {}).items()))
    return [outbox.get(each.mutation.id) for each in newer]


def complete_journal(outbox: Outbox) -> None:
    """Append to the journal every mutation that it lacks, or of which control.db has a newer record."""
    if outbox.journal is None:
        return
    stored = outbox.progress()
    if not stored:
        return
    journaled = dict[str, Progress]()
    for _, _, snapshots in outbox.journal.read({}):
        for each in snapshots:
            journaled[each.mutation.id] = max(each.progress, journaled.get(each.mutation.id, each.progress))
    outbox.write_journal(*(id for id, progress in stored.items() if id not in journaled or progress > journaled[id]))


def _store(db: sqlite3.Connection, snapshot: Snapshot) -> None:
    """Store a mutation, its attempts, probes and resolutions, in place of those that control.db has."""
    mutation = snapshot.mutation
    facts: dict[str, Any] = {name: getattr(mutation, name) for name in Mutation.__struct_fields__}
    facts |= {name: to_json(facts[name]) for name in JSON_COLUMNS}
    facts |= {name: None if facts[name] is None else facts[name].isoformat() for name in ("queued_at", "settled_at")}
    if mutation.state == "approved":  # by a push that is over
        facts |= {"state": "queued", "push_id": None}
    seq = db.execute("SELECT seq FROM mutations WHERE id = ?", (mutation.id,)).fetchone()
    if seq is None:
        free_key(db, snapshot.dedupe_key)
        taken = db.execute("SELECT 1 FROM mutations WHERE seq = ?", (mutation.seq,)).fetchone()
        in_use = db.execute("SELECT 1 FROM mutations WHERE dedupe_key = ?", (snapshot.dedupe_key,)).fetchone()
        facts |= {"seq": None if taken else mutation.seq, "dedupe_key": None if in_use else snapshot.dedupe_key}
    else:
        facts |= {"seq": int(seq[0])}
    is_bound = db.execute(
        "SELECT 1 FROM mutations WHERE bound = ? AND id <> ?", (snapshot.bound, mutation.id)
    ).fetchone()
    facts |= {"bound": None if is_bound else snapshot.bound}
    columns = list(facts)
    db.execute(
        f"INSERT INTO mutations ({quoted_list(columns)}) VALUES ({', '.join('?' * len(columns))})"
        " ON CONFLICT (id) DO UPDATE SET "
        + ", ".join(f"{quoted(each)} = excluded.{quoted(each)}" for each in columns if each not in ("id", "seq")),
        tuple(facts.values()),
    )
    for table in ("attempts", "probes", "resolutions"):
        db.execute(f"DELETE FROM {quoted(table)} WHERE mutation = ?", (mutation.id,))
    for each in snapshot.attempts:
        body = to_json(each.body)
        answered = each.answered_at.isoformat() if each.answered_at else None
        db.execute(
            "INSERT INTO attempts (mutation, n, push_id, pid, armed_at, method, path, body, body_sha256, marker, seen,"
            " status, headers, answer, answered_at, closed_as, error, read_until)"
            " VALUES (?, ?, ?, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                mutation.id, each.n, each.push_id or mutation.push_id or "", each.armed_at.isoformat(), each.method,
                each.path, body, hashlib.sha256((body or "").encode()).hexdigest(), each.marker, to_json(each.seen),
                each.status, to_json(each.headers), each.answer, answered, each.closed_as, each.error,
                each.read_until.isoformat() if each.read_until else None,
            ),
        )  # fmt: skip
    for probe in snapshot.probes:
        db.execute(
            "INSERT INTO probes VALUES (?, ?, ?, ?, ?, ?)",
            (mutation.id, probe["n"], probe["at"], probe["request"], to_json(probe["found"]), probe["verdict"]),
        )
    for resolution in snapshot.resolutions:
        values = (resolution[name] for name in RESOLUTION_COLUMNS)
        db.execute("INSERT INTO resolutions VALUES (?, ?, ?, ?, ?, ?, ?)", (mutation.id, *values))
    if mutation.push_id and facts["push_id"]:
        moments = [each.armed_at for each in snapshot.attempts] + [mutation.settled_at or mutation.queued_at]
        db.execute(
            "INSERT OR IGNORE INTO pushes VALUES (?, '', ?, ?, NULL)",
            (mutation.push_id, min(moments).isoformat(), max(moments).isoformat()),
        )
