"""The queue of changes in control.db: the one module that adds a mutation and moves it from state to state.

Which steps there are is the table of `transitions`. Every step is one transaction with `synchronous=FULL`, so it is on
disk before the next one is taken. A mutation that was about to be sent when the process died is `armed`: whether it was
sent is found out by probes, never guessed. A mutation that has ended does not change any more; a second try is a new
mutation that `supersedes` the first.

control.db may be lost, or be an older copy of itself. So the journal in the raw archive (`journal`) has a copy of
what was queued, what is about to be sent, and how each mutation ended; `adoption` restores the queue from it.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import uuid
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from pdsync.core.log import clean
from pdsync.errors import ConfigError
from pdsync.sql import quoted
from pdsync.writeback.journal import explain_failure
from pdsync.writeback.push_log import PushLog
from pdsync.writeback.queue_reader import QueueReader
from pdsync.writeback.snapshot import now, to_json
from pdsync.writeback.transitions import move, move_all

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from pdsync.core.answer import Answer
    from pdsync.core.control import Control
    from pdsync.model import Mutation, State, Verb
    from pdsync.writeback.journal import Journal

ANSWER_CAP = 64 * 2**10  # characters of an answer that are stored as evidence


class Entry(Struct, frozen=True):
    """A change to be queued; its names are resolved and its values checked."""

    operation: str
    verb: Verb
    kind: str
    target: str | None
    payload: dict[str, Any]
    key: str | None = None  # a second entry with the same key is not queued, unless the first changed nothing
    name: str | None = None  # by which other entries of the batch refer to the record that this one adds
    expected: dict[str, Any] | None = None
    undo_of: str | None = None
    supersedes: str | None = None


class Reference(Struct, frozen=True):
    """A reference to the record that another mutation adds."""

    name: str


class Outbox(QueueReader):
    """The mutations of one project.

    Args:
        control: the open control.db.
        journal: the copy in the raw archive; None for an outbox that is only read.
    """

    def __init__(self, control: Control, journal: Journal | None = None) -> None:
        super().__init__(control)
        self.journal, self.push_log = journal, PushLog(control)
        self.read_until: datetime | None = None  # the server's time at the last page that was read

    # By a person.

    def add(self, entries: Sequence[Entry]) -> list[Mutation]:
        """Queue `entries` as one batch: when this returns, all of them are on disk.

        A `Reference` is to the entry of that name, or to the addition `#seq`. For an entry whose key is taken, the
        mutation that has the key is returned.

        Raises:
            ConfigError: a reference fits no entry and no addition, or two entries have one name. Nothing was queued.
            StorageError, NotCopied: `write_journal` failed, and all are queued, as the message says; or control.db did,
                and none is.
        """
        batch = f"{now():%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"
        company = self.control.company()
        new: list[str] = []
        with self.control.transaction() as db:
            ids, named = _assign_ids(db, entries)
            for entry, (id, is_new) in zip(entries, ids, strict=True):
                if not is_new:
                    continue
                payload = {name: _dereferenced(db, value, named) for name, value in entry.payload.items()}
                db.execute(
                    "INSERT INTO mutations (id, batch, dedupe_key, company_id, operation, verb, kind, target, payload,"
                    " expected, queued_at, queued_by, state, undo_of, supersedes)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'queued', ?, ?)",
                    (
                        id, batch, entry.key, company[0] if company else None, entry.operation, entry.verb, entry.kind,
                        entry.target, to_json(payload), to_json(entry.expected), now().isoformat(), _user(),
                        entry.undo_of, entry.supersedes,
                    ),
                )  # fmt: skip
                new.append(id)
        with explain_failure("Queued", [self.get(id) for id in new]):
            self.write_journal(*new)
        return [self.get(id) for id, _ in ids]

    def drop(self, ids: Iterable[str]) -> list[Mutation]:
        """Cancel mutations that were never sent.

        Raises:
            ConfigError: one of them is no longer in the queue, or may have been sent before. None was dropped.
        """
        mutations = [self.get(id) for id in ids]
        with self.control.transaction() as db:
            for each in mutations:
                was_sent = db.execute(
                    "SELECT 1 FROM attempts WHERE mutation = ? AND closed_as IS NOT 'not_executed'", (each.id,)
                ).fetchone()
                if not move(db, "drop", each.id):
                    raise ConfigError(f"#{each.seq} is {self.get(each.id).state}, not queued. None was dropped.")
                if was_sent:
                    raise ConfigError(
                        f"#{each.seq} may have been sent before, so it can't be dropped. None was dropped.\n"
                        f"Its attempts: pdsync queue show {each.seq}. The next push ends it: pdsync push"
                    )
                db.execute(
                    "UPDATE mutations SET reason = 'dropped', settled_at = ? WHERE id = ?",
                    (now().isoformat(), each.id),
                )
        with explain_failure("Dropped", mutations):
            self.write_journal(*(each.id for each in mutations))
        return [self.get(each.id) for each in mutations]

    def resolve(self, id: str, verdict: str, remote_id: str | None, note: str | None) -> None:
        """Record what a person has found out about a mutation that needs a review; its state does not change.

        Raises:
            ConfigError: it needs no review.
        """
        mutation = self.get(id)
        if mutation.state != "needs_review":
            raise ConfigError(f"#{mutation.seq} is {mutation.state}, and needs no review. Nothing was written down.")
        with self.control.transaction() as db:
            db.execute(
                "INSERT INTO resolutions VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    mutation.id, _next_number(db, "resolutions", mutation.id), now().isoformat(), _user(), verdict,
                    remote_id, note,
                ),
            )  # fmt: skip
        with explain_failure("Recorded what was found out about", [mutation]):
            self.write_journal(mutation.id)

    # By a push.

    def approve(self, ids: Iterable[str], push_id: str, company_id: int) -> None:
        """Give queued mutations to a push: from now on they belong to its company. Another company's stay queued."""
        with self.control.transaction() as db:
            for id in ids:
                other = db.execute(
                    "SELECT 1 FROM mutations WHERE id = ? AND company_id IS NOT NULL AND company_id <> ?",
                    (id, company_id),
                ).fetchone()
                if other is None and move(db, "approve", id):
                    db.execute(
                        "UPDATE mutations SET push_id = ?, company_id = ?, reason = NULL, detail = NULL WHERE id = ?",
                        (push_id, company_id, id),
                    )

    def release(self, reasons: Mapping[str, str] | None = None) -> None:
        """Put approved mutations that were not sent back in the queue; `reasons` says why, by id."""
        with self.control.transaction() as db:
            _release_all(db)
            db.executemany(
                "UPDATE mutations SET reason = 'blocked', detail = ? WHERE id = ? AND state = 'queued'",
                [(why, id) for id, why in (reasons or {}).items()],
            )

    def arm(
        self,
        mutation: Mutation,
        push_id: str,
        *,
        method: str,
        path: str,
        body: Any,
        base: Mapping[str, Any] | None,
        marker: str | None,
        seen: Any,
        at: datetime | None = None,
    ) -> int:
        """Record that a request is about to be sent. It may be sent once this returns: the attempt is on disk.

        Args:
            mutation: an approved one.
            push_id: of the push that sends it.
            method: of the request.
            path: of the request.
            body: of the request.
            base: the record as it was read before.
            marker: the value by which the record can be recognised, if there is one.
            seen: what the list showed before (`probe.list_snapshot`).
            at: the server's time, UTC; this machine's where it is None.

        Returns:
            The number of the attempt, from 1 on.

        Raises:
            ConfigError: it is not approved: another process has taken it.
            StorageError, NotCopied: as `write_journal`. It must not be sent, and the caller has to close the attempt.
        """
        text = to_json(body)
        with self.control.transaction() as db:
            if not move(db, "arm", mutation.id):
                raise ConfigError(f"#{mutation.seq} is not approved any more; it was not sent.")
            db.execute(
                "UPDATE mutations SET base_image = ? WHERE id = ? AND ? IS NOT NULL",
                (to_json(base), mutation.id, to_json(base)),
            )
            n = _next_number(db, "attempts", mutation.id)
            db.execute(
                "INSERT INTO attempts (mutation, n, push_id, pid, armed_at, method, path, body, body_sha256, marker,"
                " seen, read_until) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    mutation.id, n, push_id, os.getpid(), (at or now()).isoformat(), method, path, text,
                    hashlib.sha256((text or "").encode()).hexdigest(), marker, to_json(seen),
                    self.read_until.isoformat() if self.read_until else None,
                ),
            )  # fmt: skip
        self.write_journal(mutation.id)
        return n

    def mark_not_executed(self, id: str, error: str) -> None:
        """Close the open attempt as one that the server certainly did not carry out; the mutation may be sent again."""
        with self.control.transaction() as db:
            _close_attempt(db, id, "not_executed", error)
            move(db, "reapprove", id)
        self.write_journal(id)

    def mark_unknown(self, id: str, error: str) -> None:
        """Close the open attempt as one whose outcome is not known."""
        with self.control.transaction() as db:
            _close_attempt(db, id, "unknown", error)
            move(db, "lose_answer", id)

    def record_answer(self, id: str, answer: Answer, error: str | None = None) -> None:
        """Store the answer to the open attempt, before it is acted on."""
        with self.control.transaction() as db:
            db.execute(
                "UPDATE attempts SET status = ?, headers = ?, answer = ?, answered_at = ?, closed_as = 'answered',"
                " error = ? WHERE mutation = ? AND closed_as IS NULL",
                (
                    answer.status,
                    to_json(answer.headers),
                    clean(answer.body.decode(errors="replace"))[:ANSWER_CAP],  # cut before, half a secret would be left
                    now().isoformat(),
                    error,
                    id,
                ),
            )

    def record_refusal(self, id: str, status: int, error: str) -> None:
        """Store that the server refused the open attempt, before it is acted on."""
        with self.control.transaction() as db:
            db.execute("UPDATE attempts SET status = ? WHERE mutation = ? AND closed_as IS NULL", (status, id))
            _close_attempt(db, id, "answered", error)

    def doubt_answer(self, id: str, why: str) -> None:
        """Record that the stored answer does not show whether the mutation was carried out: the outcome is unknown."""
        with self.control.transaction() as db:
            db.execute("UPDATE attempts SET error = ? WHERE mutation = ? AND error IS NULL", (clean(why), id))
            move(db, "lose_answer", id)

    def record_probe(self, id: str, request: str, found: Any, verdict: str, *, again: bool = False) -> None:
        """Record a probe whether a mutation was carried out.

        Args:
            id: of the mutation.
            request: what was read.
            found: the evidence.
            verdict: of the probe.
            again: the mutation was not carried out, and may be sent again.
        """
        with self.control.transaction() as db:
            n = _next_number(db, "probes", id)
            db.execute(
                "INSERT INTO probes VALUES (?, ?, ?, ?, ?, ?)",
                (id, n, now().isoformat(), request, to_json(found), verdict),
            )
            if again:
                move(db, "resend", id)

    def settle(
        self,
        id: str,
        state: State,
        reason: str | None = None,
        detail: str | None = None,
        *,
        push_id: str | None = None,
        after: Mapping[str, Any] | None = None,
        base: Mapping[str, Any] | None = None,
        remote_id: str | None = None,
        bound: str | None = None,
    ) -> None:
        """End a mutation.

        Args:
            id: of the mutation.
            state: applied, rejected, conflict or needs_review.
            reason: why, as a code.
            detail: why, for people.
            push_id: of the push that ended it; one that it already has is not replaced.
            after: the record as it is now.
            base: the record as it was before; one that it already has is not replaced.
            remote_id: of the record that it added; of a merge that of the record that stays.
            bound: the record that it added, like "deals/12". One that is bound to another mutation stays bound to that.

        Raises:
            ConfigError: it has ended already.
        """
        with self.control.transaction() as db:
            if not move(db, "settle", id, state):
                raise ConfigError(f"Mutation {id} has ended already; it stays as it is.")
            db.execute(
                "UPDATE mutations SET reason = ?, detail = ?, settled_at = ?, push_id = coalesce(push_id, ?),"
                " after_image = ?, base_image = coalesce(base_image, ?), remote_id = ?,"
                " bound = CASE WHEN EXISTS (SELECT 1 FROM mutations WHERE bound = ?) THEN NULL ELSE ? END"
                " WHERE id = ?",
                (
                    reason, clean(detail) if detail else None, now().isoformat(), push_id, to_json(after),
                    to_json(base), remote_id, bound, bound, id,
                ),
            )  # fmt: skip
        self.write_journal(id)

    def recover_after_crash(self) -> list[Mutation]:
        """After a crash, while no push runs: the outcome of armed mutations is unknown, approved ones are queued again.

        Returns:
            The mutations with an unknown outcome.
        """
        with self.control.transaction() as db:
            move_all(db, "lose_answer")
            db.execute("UPDATE attempts SET closed_as = 'unknown', error = 'the process ended' WHERE closed_as IS NULL")
            _release_all(db)
        return self.mutations(["unknown"])

    def write_journal(self, *ids: str) -> None:
        """Append the full record of some mutations to the journal, if the outbox has one.

        Raises:
            StorageError, NotCopied: it can't be written, or copied to the store. What control.db has stays there.
        """
        if self.journal and ids:
            self.journal.append(self.snapshot(id) for id in ids)


def free_key(db: sqlite3.Connection, key: str | None) -> None:
    """Take a deduplication key from a mutation that changed nothing, nor do its retries: another one may use it."""
    db.execute(
        "WITH RECURSIVE tries(id, state) AS (SELECT id, state FROM mutations WHERE dedupe_key = ?1"
        " UNION SELECT m.id, m.state FROM mutations m JOIN tries ON m.supersedes = tries.id)"
        " UPDATE mutations SET dedupe_key = NULL WHERE dedupe_key = ?1"
        " AND NOT EXISTS (SELECT 1 FROM tries WHERE state NOT IN ('cancelled', 'rejected', 'conflict'))",
        (key,),
    )


def _assign_ids(db: sqlite3.Connection, entries: Sequence[Entry]) -> tuple[list[tuple[str, bool]], dict[str, str]]:
    """The id of the mutation of each entry, and whether it is a new one; and by name the ids that references stand for.

    The mutation of an entry whose key is taken is the one that has the key. References stand for it only if it adds a
    record of the same kind.
    """
    names = [entry.name for entry in entries if entry.name is not None]
    duplicate = next((name for name in names if names.count(name) > 1), None)
    if duplicate is not None:
        raise ConfigError(f"Two entries are named {duplicate!r}. Nothing was queued.")
    ids: list[tuple[str, bool]] = []
    named: dict[str, str] = {}
    new: dict[str, tuple[str, str, str]] = {}  # key → id, verb and kind
    for entry in entries:
        holder: tuple[str, ...] | None = None
        if entry.key is not None:
            free_key(db, entry.key)
            row = db.execute("SELECT id, verb, kind FROM mutations WHERE dedupe_key = ?", (entry.key,)).fetchone()
            holder = tuple(map(str, row)) if row else new.get(entry.key)
        id = holder[0] if holder else str(uuid.uuid4())
        ids.append((id, holder is None))
        if holder is None and entry.key is not None:
            new[entry.key] = (id, entry.verb, entry.kind)
        if entry.name is not None and (holder is None or holder[1:] == (entry.verb, entry.kind)):
            named[entry.name] = id
    return ids, named


def _dereferenced(db: sqlite3.Connection, value: Any, ids: Mapping[str, str]) -> Any:
    """A value of a payload; a `Reference` as the id of the mutation that adds the record."""
    if not isinstance(value, Reference):
        return value
    if value.name in ids:
        return {"$ref": ids[value.name]}
    row = None
    if value.name.lstrip("#").isdecimal():
        row = db.execute("SELECT id, verb FROM mutations WHERE seq = ?", (int(value.name.lstrip("#")),)).fetchone()
    if row is None or row[1] != "add":
        raise ConfigError(
            f"@{value.name} refers to nothing that is queued in the same batch under that name.\n"
            f"Nothing was queued. Name the other one (--as {value.name}, or a column _as), or use @#12 for #12."
        )
    return {"$ref": str(row[0])}


def _next_number(db: sqlite3.Connection, table: str, id: str) -> int:
    """The number of the next row of `table` about a mutation, from 1 on."""
    return 1 + int(db.execute(f"SELECT count(*) FROM {quoted(table)} WHERE mutation = ?", (id,)).fetchone()[0])


def _close_attempt(db: sqlite3.Connection, id: str, closed_as: str, error: str) -> None:
    db.execute(
        "UPDATE attempts SET closed_as = ?, error = ?, answered_at = ? WHERE mutation = ? AND closed_as IS NULL",
        (closed_as, clean(error), now().isoformat(), id),
    )


def _release_all(db: sqlite3.Connection) -> None:
    """Put every approved mutation back in the queue."""
    db.execute("UPDATE mutations SET push_id = NULL WHERE state = 'approved'")
    move_all(db, "release")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
