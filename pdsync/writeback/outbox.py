"""The queue of changes in control.db: the one place that moves a mutation from state to state.

    queued ─► approved ─► armed ─► applied | rejected | conflict
                 ▲          └────► unknown ─► (probes) ─► applied | conflict | approved | needs_review
                 └─────────────────────────────────────────────────────────────┘

Every step is one transaction with `synchronous=FULL`, so it is on disk before the next one is taken. A mutation that
was about to be sent when the process died stands as `armed`: whether it was sent is looked up, never guessed. What has
ended stays as it is; a second try is a new mutation that `supersedes` the first.

control.db may be lost, or be an older copy of itself. So what was queued, is about to be sent, or has ended is kept in
the raw archive as well (`journal`), and what stands there or in the warehouse and is newer is taken over (`adopt`).
"""

from __future__ import annotations

import getpass
import hashlib
import os
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from pdsync.core.log import clean
from pdsync.errors import ConfigError, StorageError
from pdsync.model import OPEN, Mutation
from pdsync.sql import quoted, quoted_list
from pdsync.writeback.snapshot import Attempt, Snapshot

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping, Sequence

    from pdsync.core.control import Control
    from pdsync.core.http import Answer
    from pdsync.model import State, Verb
    from pdsync.writeback.journal import Journal

_COLUMNS = ", ".join(Mutation.__struct_fields__)
_IMAGES = ("base_image", "after_image")  # whole records: most of what a mutation weighs
_PLAIN = ", ".join("NULL" if name in _IMAGES else name for name in Mutation.__struct_fields__)
_JSON = ("payload", "expected", *_IMAGES)
ANSWER_CAP = 64 * 2**10  # bytes of an answer that are kept as evidence


class Entry(Struct, frozen=True):
    """A change that is to be queued; names and types are checked already."""

    operation: str
    verb: Verb
    kind: str
    target: str | None
    payload: dict[str, Any]
    key: str | None = None  # a second one with the same key is not queued
    name: str | None = None  # by which others of the same batch refer to the record it adds
    expected: dict[str, Any] | None = None
    undo_of: str | None = None
    supersedes: str | None = None


class Outbox:
    """The mutations of one project.

    Args:
        control: holds them.
        journal: where what must survive the loss of control.db is written down as well.
    """

    def __init__(self, control: Control, journal: Journal | None = None) -> None:
        self.control, self.journal = control, journal

    # Queueing.

    def add(self, entries: Sequence[Entry]) -> list[Mutation]:
        """Queue `entries` as one batch: all of them are on disk behind this call, or none.

        Values `@name` in parameters that take an id refer to the entry of that name, or to a queued `#seq`.

        Raises:
            ConfigError: a reference leads nowhere. Nothing was queued.
        """
        batch = f"{_now():%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"
        ids: dict[str | None, str] = {entry.name: str(uuid.uuid4()) for entry in entries if entry.name}
        if len(ids) < sum(entry.name is not None for entry in entries):
            names = [entry.name for entry in entries if entry.name]
            twice = next(name for name in names if names.count(name) > 1)
            raise ConfigError(f"Two of them are called {twice!r}. Nothing was queued.")
        company = self.control.company()
        queued: list[str] = []
        fresh: list[str] = []
        with self.control.transaction() as db:
            for entry in entries:
                _free_key(db, entry.key)
                held = db.execute("SELECT id FROM mutations WHERE dedupe_key = ?", (entry.key,)).fetchone()
                if entry.key is not None and held:
                    queued.append(str(held[0]))
                    continue
                id = ids.get(entry.name) or str(uuid.uuid4())
                payload = {name: self._referred(db, value, ids) for name, value in entry.payload.items()}
                db.execute(
                    "INSERT INTO mutations (id, batch, dedupe_key, company_id, operation, verb, kind, target, payload,"
                    " expected, queued_at, queued_by, state, undo_of, supersedes)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'queued', ?, ?)",
                    (
                        id, batch, entry.key, company[0] if company else None, entry.operation, entry.verb, entry.kind,
                        entry.target, _text(payload), _text(entry.expected), _now().isoformat(), _who(),
                        entry.undo_of, entry.supersedes,
                    ),
                )  # fmt: skip
                queued.append(id)
                fresh.append(id)
        self._keep(*fresh)
        return [self.get(id) for id in queued]

    def _referred(self, db: sqlite3.Connection, value: Any, ids: Mapping[str | None, str]) -> Any:
        if not (isinstance(value, Reference)):
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

    # Reading.

    def get(self, id: str | int) -> Mutation:
        """The mutation with this id (or the beginning of it), or this number.

        Raises:
            ConfigError: there is none, or several begin so.
        """
        word = str(id).lstrip("#")
        found = self._select("seq = ?", int(word)) if word.isdecimal() else self._select("id = ?", word)
        if not found and len(word) >= 6:
            found = self._select("substr(id, 1, ?) = ?", len(word), word)
        if len(found) != 1:
            raise ConfigError(f"There is no mutation {id}. `pdsync queue list --all` shows them.")
        return found[0]

    def mutations(
        self,
        states: Iterable[State] | None = None,
        *,
        operation: str | None = None,
        batch: str | None = None,
        images: bool = True,
    ) -> list[Mutation]:
        """Mutations in the order in which they were queued; of all states where none is named."""
        wanted = msgspec.json.encode(list(states)).decode() if states is not None else None
        return self._select(
            "(?1 IS NULL OR state IN (SELECT value FROM json_each(?1))) AND (?2 IS NULL OR operation = ?2)"
            " AND (?3 IS NULL OR batch = ?3)",
            wanted,
            operation,
            batch,
            images=images,
        )

    def of_push(self, push_id: str, *, images: bool = True) -> list[Mutation]:
        """What a push was about; without the records before and after where they are not needed."""
        return self._select("push_id = ?", push_id, images=images)

    def counts(self) -> dict[str, int]:
        """State → how many."""
        rows = self.control.rows("SELECT state, count(*) FROM mutations GROUP BY state")
        return {str(state): int(str(count)) for state, count in rows}

    def attempts(self, id: str) -> list[Attempt]:
        """Every try at sending a mutation, in order."""
        rows = self.control.rows(
            f"SELECT {', '.join(Attempt.__struct_fields__)} FROM attempts WHERE mutation = ? ORDER BY n",
            id,
        )
        columns = Attempt.__struct_fields__
        facts = [dict(zip(columns, row, strict=True)) for row in rows]
        return [
            msgspec.convert(each | {name: _value(each[name]) for name in ("body", "seen", "headers")}, Attempt)
            for each in facts
        ]

    def probes(self, id: str) -> list[dict[str, Any]]:
        """Every look whether a doubtful one happened, in order."""
        rows = self.control.rows("SELECT n, at, request, found, verdict FROM probes WHERE mutation = ? ORDER BY n", id)
        return [
            {"n": n, "at": at, "request": request, "found": _value(found), "verdict": verdict}
            for n, at, request, found, verdict in rows
        ]

    def is_bound(self, bound: str, *, to_other_than: str) -> bool:
        """Whether a record is known to be the one that another mutation added."""
        return bool(self.control.rows("SELECT 1 FROM mutations WHERE bound = ? AND id <> ?", bound, to_other_than))

    def bound_ids(self, kind: str) -> set[str]:
        """The ids of records of `kind` that mutations of ours are known to have added."""
        rows = self.control.rows(
            "SELECT remote_id FROM mutations WHERE kind = ?1 AND bound IS NOT NULL UNION SELECT r.remote_id"
            " FROM resolutions r JOIN mutations m ON m.id = r.mutation WHERE m.kind = ?1 AND r.remote_id IS NOT NULL",
            kind,
        )
        return {str(row[0]) for row in rows}

    def has_seen(self, kind: str, target: str) -> bool:
        """Whether the record of `kind` at `target` is known to have been there: one of ours added or changed it."""
        holder, _, key = target.rpartition("/")
        return bool(
            self.control.rows(
                "SELECT 1 FROM mutations WHERE (target = ?1 AND state = 'applied' AND (verb = 'update'"
                " OR (verb IN ('delete', 'merge') AND reason IS NOT 'already_so'))) OR (verb = 'add' AND kind = ?2"
                " AND remote_id = ?3 AND (target IS NULL OR target = ?4)) LIMIT 1",
                target,
                kind,
                key,
                holder,
            )
        )

    def merged_into(self, target: str) -> str | None:
        """The id of the record that a mutation of ours merged the one at `target` into."""
        rows = self.control.rows(
            "SELECT remote_id FROM mutations WHERE target = ? AND verb = 'merge' AND state = 'applied'"
            " AND remote_id IS NOT NULL ORDER BY seq DESC LIMIT 1",
            target,
        )
        return str(rows[0][0]) if rows else None

    def resolution(self, id: str) -> dict[str, Any] | None:
        """What a person has found out about a mutation, last."""
        rows = self.control.rows(
            "SELECT verdict, remote_id, note, by, at FROM resolutions WHERE mutation = ? ORDER BY n DESC LIMIT 1", id
        )
        return dict(zip(("verdict", "remote_id", "note", "by", "at"), rows[0], strict=True)) if rows else None

    def _select(self, where: str, *values: object, images: bool = True) -> list[Mutation]:
        columns = _COLUMNS if images else _PLAIN
        rows = self.control.rows(f"SELECT {columns} FROM mutations WHERE {where} ORDER BY seq", *values)
        found = []
        for row in rows:
            facts = dict(zip(Mutation.__struct_fields__, row, strict=True))
            found.append(msgspec.convert(facts | {name: _value(facts[name]) for name in _JSON}, Mutation))
        return found

    # Steps.

    def drop(self, ids: Iterable[str]) -> list[Mutation]:
        """Take back what was never sent.

        Raises:
            ConfigError: one of them is no longer in the queue. None was dropped.
        """
        wanted = [self.get(id) for id in ids]
        with self.control.transaction() as db:
            for each in wanted:
                done = db.execute(
                    "UPDATE mutations SET state = 'cancelled', reason = 'dropped', settled_at = ?"
                    " WHERE id = ? AND state = 'queued' AND NOT EXISTS (SELECT 1 FROM attempts"
                    " WHERE mutation = mutations.id AND closed_as IS NOT 'not_executed')",
                    (_now().isoformat(), each.id),
                )
                if done.rowcount != 1:
                    raise ConfigError(f"#{each.seq} is {each.state}, not queued. None of them was dropped.")
        self._keep(*(each.id for each in wanted))
        return [self.get(each.id) for each in wanted]

    def resolve(self, id: str, verdict: str, remote_id: str | None, note: str | None) -> None:
        """Write down what a person has found out about a mutation that needed a look; how it ended stays as it was.

        Raises:
            ConfigError: nobody has to look at it.
        """
        mutation = self.get(id)
        if mutation.state != "needs_review":
            raise ConfigError(f"#{mutation.seq} is {mutation.state}: there is nothing to find out. Nothing was noted.")
        with self.control.transaction() as db:
            n = 1 + db.execute("SELECT count(*) FROM resolutions WHERE mutation = ?", (mutation.id,)).fetchone()[0]
            db.execute(
                "INSERT INTO resolutions VALUES (?, ?, ?, ?, ?, ?, ?)",
                (mutation.id, n, _now().isoformat(), _who(), verdict, remote_id, note),
            )
        self._keep(mutation.id)

    def approve(self, ids: Iterable[str], push_id: str, company_id: int) -> None:
        """Hand mutations to a push: they belong to its company from now on."""
        with self.control.transaction() as db:
            db.executemany(
                "UPDATE mutations SET state = 'approved', push_id = ?, company_id = ?, reason = NULL, detail = NULL"
                " WHERE id = ? AND state = 'queued' AND (company_id IS NULL OR company_id = ?)",
                [(push_id, company_id, id, company_id) for id in ids],
            )

    def release(self, reasons: Mapping[str, str] | None = None) -> None:
        """Give back what was approved and not sent; `reasons` says why, by id."""
        with self.control.transaction() as db:
            db.execute("UPDATE mutations SET state = 'queued', push_id = NULL WHERE state = 'approved'")
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
    ) -> int:
        """Write down that a request is about to go out; it may, behind this call. The number of the attempt.

        Raises:
            ConfigError: it is not approved: somebody else has it.
        """
        text = _text(body)
        with self.control.transaction() as db:
            done = db.execute(
                "UPDATE mutations SET state = 'armed', base_image = coalesce(?, base_image) WHERE id = ?"
                " AND state = 'approved'",
                (_text(base), mutation.id),
            )
            if done.rowcount != 1:
                raise ConfigError(f"#{mutation.seq} is not approved any more; it was not sent.")
            n = 1 + db.execute("SELECT count(*) FROM attempts WHERE mutation = ?", (mutation.id,)).fetchone()[0]
            db.execute(
                "INSERT INTO attempts (mutation, n, push_id, pid, armed_at, method, path, body, body_sha256, marker,"
                " seen) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    mutation.id, n, push_id, os.getpid(), _now().isoformat(), method, path, text,
                    hashlib.sha256((text or "").encode()).hexdigest(), marker, _text(seen),
                ),
            )  # fmt: skip
        self._keep(mutation.id)
        return int(n)

    def not_executed(self, id: str, error: str) -> None:
        """Close the attempt that the server surely did not carry out; the mutation may be sent again."""
        self._close(id, "approved", "not_executed", error=error)
        self._keep(id)

    def mark_unknown(self, id: str, error: str) -> None:
        """Close an attempt whose fate nobody knows."""
        self._close(id, "unknown", "unknown", error=error)

    def answered(self, id: str, answer: Answer, error: str | None = None) -> None:
        """Keep what came back, before anything is made of it."""
        with self.control.transaction() as db:
            db.execute(
                "UPDATE attempts SET status = ?, headers = ?, answer = ?, answered_at = ?, closed_as = 'answered',"
                " error = ? WHERE mutation = ? AND closed_as IS NULL",
                (
                    answer.status,
                    _text(answer.headers),
                    clean(answer.body[:ANSWER_CAP].decode(errors="replace")),
                    _now().isoformat(),
                    error,
                    id,
                ),
            )

    def _close(self, id: str, state: State, closed_as: str, *, error: str) -> None:
        with self.control.transaction() as db:
            db.execute(
                "UPDATE attempts SET closed_as = ?, error = ?, answered_at = ?"
                " WHERE mutation = ? AND closed_as IS NULL",
                (closed_as, clean(error), _now().isoformat(), id),
            )
            db.execute("UPDATE mutations SET state = ? WHERE id = ? AND state = 'armed'", (state, id))

    def refused(self, id: str, status: int, error: str) -> None:
        """Keep that the server refused, before anything is made of it."""
        with self.control.transaction() as db:
            db.execute(
                "UPDATE attempts SET status = ?, closed_as = 'answered', error = ?, answered_at = ?"
                " WHERE mutation = ? AND closed_as IS NULL",
                (status, clean(error), _now().isoformat(), id),
            )

    def reopen(self, id: str, why: str) -> None:
        """An answer came that says too little: whether it was carried out is in doubt."""
        with self.control.transaction() as db:
            db.execute("UPDATE attempts SET error = ? WHERE mutation = ? AND error IS NULL", (clean(why), id))
            db.execute("UPDATE mutations SET state = 'unknown' WHERE id = ? AND state = 'armed'", (id,))

    def probe(self, id: str, request: str, found: Any, verdict: str, *, again: bool = False) -> None:
        """Write down a look whether a doubtful mutation happened; `again` lets it be sent once more."""
        with self.control.transaction() as db:
            n = 1 + db.execute("SELECT count(*) FROM probes WHERE mutation = ?", (id,)).fetchone()[0]
            db.execute(
                "INSERT INTO probes VALUES (?, ?, ?, ?, ?, ?)",
                (id, n, _now().isoformat(), request, _text(found), verdict),
            )
            if again:
                db.execute("UPDATE mutations SET state = 'approved' WHERE id = ? AND state = 'unknown'", (id,))

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
        """End a mutation. `bound` names the record it added; one that is bound to another mutation stays so."""
        with self.control.transaction() as db:
            done = db.execute(
                "UPDATE mutations SET state = ?, reason = ?, detail = ?, settled_at = ?,"
                " push_id = coalesce(push_id, ?), after_image = ?, base_image = coalesce(base_image, ?),"
                " remote_id = ?,"
                " bound = CASE WHEN EXISTS (SELECT 1 FROM mutations WHERE bound = ?) THEN NULL ELSE ? END"
                " WHERE id = ? AND state IN ('queued', 'approved', 'armed', 'unknown')",
                (
                    state, reason, clean(detail) if detail else None, _now().isoformat(), push_id, _text(after),
                    _text(base), remote_id, bound, bound, id,
                ),
            )  # fmt: skip
            if done.rowcount != 1:
                raise ConfigError(f"Mutation {id} has ended already; it stays as it is.")
        self._keep(id)

    def recover(self) -> list[Mutation]:
        """After a crash: what was about to be sent is in doubt, what was only approved is queued. Those in doubt."""
        with self.control.transaction() as db:
            db.execute("UPDATE mutations SET state = 'unknown' WHERE state = 'armed'")
            db.execute("UPDATE attempts SET closed_as = 'unknown', error = 'the process ended' WHERE closed_as IS NULL")
            db.execute("UPDATE mutations SET state = 'queued', push_id = NULL WHERE state = 'approved'")
        return self.mutations(["unknown"])

    # Where control.db was lost, or is an older copy.

    def _keep(self, *ids: str) -> None:
        if self.journal and ids:
            self.journal.append(self.snapshot(id) for id in ids)

    def snapshot(self, id: str) -> Snapshot:
        """All that is known of a mutation."""
        key, bound = self.names_of(id)
        resolutions = self.control.rows(
            "SELECT n, at, by, verdict, remote_id, note FROM resolutions WHERE mutation = ? ORDER BY n", id
        )
        return Snapshot(
            self._select("id = ?", id)[0],
            key,
            bound,
            tuple(self.attempts(id)),
            tuple(self.probes(id)),
            tuple(dict(zip(_RESOLUTION, row, strict=True)) for row in resolutions),
        )

    def names_of(self, id: str) -> tuple[str | None, str | None]:
        """The key that keeps a mutation from being queued twice, and the record that it is bound to."""
        key, bound = self.control.rows("SELECT dedupe_key, bound FROM mutations WHERE id = ?", id)[0]
        return None if key is None else str(key), None if bound is None else str(bound)

    def has_taken_away(self) -> bool:
        """Whether anything was ever deleted or merged."""
        return bool(
            self.control.rows(
                "SELECT 1 FROM mutations WHERE state = 'applied' AND verb IN ('delete', 'merge')"
                " AND reason IS NOT 'already_so' LIMIT 1"
            )
        )

    def progress(self) -> dict[str, tuple[int, bool, int]]:
        """By mutation, how far it has come: see `Snapshot.progress`."""
        rows = self.control.rows(
            "SELECT id, state, (SELECT count(*) FROM attempts WHERE mutation = id),"
            " (SELECT count(*) FROM resolutions WHERE mutation = id) FROM mutations"
        )
        return {str(id): (int(str(tries)), state not in OPEN, int(str(looks))) for id, state, tries, looks in rows}

    def adopt(self, snapshots: Iterable[Snapshot], read: Mapping[str, int] | None = None) -> list[Mutation]:
        """Take over what is newer than what control.db holds, all at once.

        Args:
            snapshots: from the journal or the warehouse, in any order; of each mutation the newest counts.
            read: up to which byte each file of the journal was read.

        Returns:
            The mutations that were taken over, as they stand now.
        """
        newest: dict[str, Snapshot] = {}
        for each in snapshots:
            held = newest.get(each.mutation.id)
            if held is None or each.progress >= held.progress:
                newest[each.mutation.id] = each
        known = self.progress()
        wanted = [each for id, each in newest.items() if id not in known or each.progress > known[id]]
        if not wanted and not read:
            return []
        company = self.control.company()
        for each in wanted:
            if company and each.mutation.company_id not in (None, company[0]):
                raise StorageError(
                    f"Mutation {each.mutation.id} is of company {each.mutation.company_id}, and this project holds"
                    f" company {company[0]}.\nNothing was sent. The warehouse, or the folder outbox in the raw archive,"
                    f" is another project's: put this one's back."
                )
        with self.control.transaction() as db:
            for each in sorted(wanted, key=lambda each: each.mutation.seq):
                _put(db, each)
            db.executemany("INSERT OR REPLACE INTO raw_files VALUES (?, ?)", list((read or {}).items()))
        return [self.get(each.mutation.id) for each in sorted(wanted, key=lambda each: each.mutation.seq)]

    def complete_journal(self) -> None:
        """Write down again what the journal has lost with the raw archive, or never had."""
        if self.journal is None:
            return
        progress = self.progress()
        if not progress:
            return
        told = dict[str, tuple[int, bool, int]]()
        for _, _, snapshots in self.journal.read({}):
            for each in snapshots:
                told[each.mutation.id] = max(each.progress, told.get(each.mutation.id, each.progress))
        self._keep(*(id for id, known in progress.items() if id not in told or known > told[id]))

    # Plans and pushes.

    def save_plan(self, hash: str, company_id: int, steps: int) -> None:
        """Remember a plan: only a plan that was made here is carried out."""
        with self.control.transaction() as db:
            db.execute(
                "INSERT OR IGNORE INTO plans VALUES (?, ?, ?, ?, NULL)",
                (hash, company_id, _now().isoformat(), steps),
            )

    def plan(self, hash: str) -> tuple[int, str | None] | None:
        """The company that a plan is for, and the push that has carried it out."""
        rows = self.control.rows("SELECT company_id, pushed_as FROM plans WHERE hash = ?", hash)
        return (int(str(rows[0][0])), None if rows[0][1] is None else str(rows[0][1])) if rows else None

    def start_push(self, id: str, hash: str) -> None:
        with self.control.transaction() as db:
            db.execute("INSERT INTO pushes VALUES (?, ?, ?, NULL, NULL)", (id, hash, _now().isoformat()))
            db.execute("UPDATE plans SET pushed_as = ? WHERE hash = ?", (id, hash))

    def finish_push(self, id: str, receipt: Struct) -> None:
        with self.control.transaction() as db:
            text = msgspec.json.encode(receipt).decode()
            db.execute("UPDATE pushes SET finished_at = ?, receipt = ? WHERE id = ?", (_now().isoformat(), text, id))

    def pushes(self, last: int = 20) -> list[dict[str, Any]]:
        """The last pushes, newest first, with their receipts."""
        rows = self.control.rows(
            "SELECT id, started_at, finished_at, receipt FROM pushes ORDER BY rowid DESC LIMIT ?", last
        )
        return [{"id": id, "started_at": a, "finished_at": b, "receipt": _value(receipt)} for id, a, b, receipt in rows]


class Reference(Struct, frozen=True):
    """A value that stands for the record which another mutation adds."""

    name: str


_RESOLUTION = ("n", "at", "by", "verdict", "remote_id", "note")


def _free_key(db: sqlite3.Connection, key: str | None) -> None:
    """Take a key from what came to nothing: that does not stand in the way of a second try."""
    db.execute(
        "UPDATE mutations SET dedupe_key = NULL"
        " WHERE dedupe_key = ? AND state IN ('cancelled', 'rejected', 'conflict')",
        (key,),
    )


def _put(db: sqlite3.Connection, snapshot: Snapshot) -> None:
    """Put a mutation, its attempts, and what was found out about it in the place of what stands there."""
    mutation = snapshot.mutation
    facts: dict[str, Any] = {name: getattr(mutation, name) for name in Mutation.__struct_fields__}
    facts |= {name: _text(facts[name]) for name in _JSON}
    facts |= {name: None if facts[name] is None else facts[name].isoformat() for name in ("queued_at", "settled_at")}
    if mutation.state == "approved":  # by a push that is over
        facts |= {"state": "queued", "push_id": None}
    seq = db.execute("SELECT seq FROM mutations WHERE id = ?", (mutation.id,)).fetchone()
    if seq is None:
        _free_key(db, snapshot.dedupe_key)
        taken = db.execute("SELECT 1 FROM mutations WHERE seq = ?", (mutation.seq,)).fetchone()
        held = db.execute("SELECT 1 FROM mutations WHERE dedupe_key = ?", (snapshot.dedupe_key,)).fetchone()
        facts |= {"seq": None if taken else mutation.seq, "dedupe_key": None if held else snapshot.dedupe_key}
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
        body = _text(each.body)
        answered = each.answered_at.isoformat() if each.answered_at else None
        db.execute(
            "INSERT INTO attempts (mutation, n, push_id, pid, armed_at, method, path, body, body_sha256, marker, seen,"
            " status, headers, answer, answered_at, closed_as, error) VALUES (?, ?, ?, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,"
            " ?, ?, ?)",
            (
                mutation.id, each.n, each.push_id or mutation.push_id or "", each.armed_at.isoformat(), each.method,
                each.path, body, hashlib.sha256((body or "").encode()).hexdigest(), each.marker, _text(each.seen),
                each.status, _text(each.headers), each.answer, answered, each.closed_as, each.error,
            ),
        )  # fmt: skip
    for one in snapshot.probes:
        db.execute(
            "INSERT INTO probes VALUES (?, ?, ?, ?, ?, ?)",
            (mutation.id, one["n"], one["at"], one["request"], _text(one["found"]), one["verdict"]),
        )
    for one in snapshot.resolutions:
        values = (one[each] for each in _RESOLUTION)
        db.execute("INSERT INTO resolutions VALUES (?, ?, ?, ?, ?, ?, ?)", (mutation.id, *values))
    if mutation.push_id and facts["push_id"]:
        moments = [each.armed_at for each in snapshot.attempts] + [mutation.settled_at or mutation.queued_at]
        db.execute(
            "INSERT OR IGNORE INTO pushes VALUES (?, '', ?, ?, NULL)",
            (mutation.push_id, min(moments).isoformat(), max(moments).isoformat()),
        )


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _text(value: Any) -> str | None:
    return None if value is None else msgspec.json.encode(value, enc_hook=str).decode()


def _value(text: object) -> Any:
    return None if text is None else msgspec.json.decode(str(text))
