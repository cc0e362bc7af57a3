"""The queue of changes in control.db: the one place that moves a mutation from state to state.

    queued ─► approved ─► armed ─► applied | rejected | conflict
                 ▲          └────► unknown ─► (probes) ─► applied | conflict | approved | needs_review
                 └─────────────────────────────────────────────────────────────┘

Every step is one transaction with `synchronous=FULL`, so it is on disk before the next one is taken. A mutation that
was about to be sent when the process died stands as `armed`: whether it was sent is looked up, never guessed. What has
ended stays as it is; a second try is a new mutation that `supersedes` the first.
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
from pdsync.errors import ConfigError
from pdsync.model import Mutation

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping, Sequence

    from pdsync.core.control import Control
    from pdsync.core.http import Answer
    from pdsync.model import State, Verb

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


class Attempt(Struct, frozen=True):
    """One try at sending a mutation: what went out and what came back."""

    n: int
    armed_at: datetime
    body: Any
    marker: str | None
    seen: Any  # what was known of the list before: the largest id, or all ids
    status: int | None
    closed_as: str | None
    error: str | None
    answer: str | None
    method: str
    path: str


class Outbox:
    """The mutations of one project."""

    def __init__(self, control: Control) -> None:
        self.control = control

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
        with self.control.transaction() as db:
            for entry in entries:
                db.execute(  # what came to nothing does not stand in the way of a second try
                    "UPDATE mutations SET dedupe_key = NULL WHERE dedupe_key = ?"
                    " AND state IN ('cancelled', 'rejected', 'conflict')",
                    (entry.key,),
                )
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
        self, states: Iterable[State] | None = None, *, operation: str | None = None, batch: str | None = None
    ) -> list[Mutation]:
        """Mutations in the order in which they were queued; of all states where none is named."""
        wanted = msgspec.json.encode(list(states)).decode() if states is not None else None
        return self._select(
            "(?1 IS NULL OR state IN (SELECT value FROM json_each(?1))) AND (?2 IS NULL OR operation = ?2)"
            " AND (?3 IS NULL OR batch = ?3)",
            wanted,
            operation,
            batch,
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
        names = Attempt.__struct_fields__
        facts = [dict(zip(names, row, strict=True)) for row in rows]
        return [
            msgspec.convert(each | {name: _value(each[name]) for name in ("body", "seen")}, Attempt) for each in facts
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
        return int(n)

    def not_executed(self, id: str, error: str) -> None:
        """Close the attempt that the server surely did not carry out; the mutation may be sent again."""
        self._close(id, "approved", "not_executed", error=error)

    def doubt(self, id: str, error: str) -> None:
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

    def recover(self) -> list[Mutation]:
        """After a crash: what was about to be sent is in doubt, what was only approved is queued. Those in doubt."""
        with self.control.transaction() as db:
            db.execute("UPDATE mutations SET state = 'unknown' WHERE state = 'armed'")
            db.execute("UPDATE attempts SET closed_as = 'unknown', error = 'the process ended' WHERE closed_as IS NULL")
            db.execute("UPDATE mutations SET state = 'queued', push_id = NULL WHERE state = 'approved'")
        return self.mutations(["unknown"])

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
