"""control.db: the state that must survive a kill at any instant, and that several processes share.

It holds the company this project belongs to, runs, walks and their sealed pages, and the limiter's ledger. It is
SQLite in WAL mode with `synchronous=FULL`: what was acknowledged is on disk. Whether a page has been *loaded* does
not stand here: the warehouse itself knows which batches it holds, so the two stores can't disagree.

The file may be lost, or replaced by an older copy, while the warehouse and the raw archive are not. So the ids of walks
and runs never repeat, and the raw archive, not this file, is the authority on which pages there are: see
`runner.stores`.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import sqlite3
import threading
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from pdsync.core.disk import guarding
from pdsync.errors import ProjectLocked, StorageError, WrongCompany
from pdsync.model import BACKFILL, Page, Receipt, Walk
from pdsync.sql import quoted, quoted_list

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

_OPENING_S = 10.0
# What brings control.db from each version to the next; a new file takes all of these steps.
_STEPS = (
    """
CREATE TABLE company (id INTEGER NOT NULL, name TEXT NOT NULL, domain TEXT) STRICT;
CREATE TABLE runs (id TEXT PRIMARY KEY, command TEXT NOT NULL, started_at TEXT NOT NULL, receipt TEXT) STRICT;
CREATE TABLE walks (
    id INTEGER PRIMARY KEY, run_id TEXT NOT NULL, stream TEXT NOT NULL, source TEXT NOT NULL, version TEXT NOT NULL,
    operation TEXT NOT NULL, since TEXT, started_at TEXT, state TEXT NOT NULL  -- open, sealed, applied, dropped, pruned
) STRICT;
CREATE TABLE pages (
    walk INTEGER NOT NULL REFERENCES walks, seq INTEGER NOT NULL, file TEXT NOT NULL, at INTEGER NOT NULL,
    bytes INTEGER NOT NULL, rows INTEGER NOT NULL, sha256 BLOB NOT NULL, next TEXT, served_at TEXT NOT NULL,
    PRIMARY KEY (walk, seq)
) STRICT, WITHOUT ROWID;
CREATE TABLE requests (  -- the ledger of the rolling window; one row a request, gone when it no longer counts
    id INTEGER PRIMARY KEY, token TEXT NOT NULL, pid INTEGER NOT NULL, sent REAL NOT NULL, done REAL
) STRICT;
CREATE INDEX requests_token ON requests (token);
CREATE TABLE tokens (  -- what a company's day has cost, by our own count and by the server's headers
    day TEXT NOT NULL, spent INTEGER NOT NULL, server_limit INTEGER, server_remaining INTEGER, spent_then INTEGER,
    PRIMARY KEY (day)
) STRICT;
CREATE TABLE pauses (kind TEXT PRIMARY KEY, until REAL NOT NULL, times INTEGER NOT NULL) STRICT;
""",
    # JSON: what a page was asked for beside the list itself; NULL for nothing.
    "ALTER TABLE pages ADD COLUMN context TEXT;\n",
    # The outbox: changes to send, every try at sending one, and every look whether a doubtful one happened.
    """
CREATE TABLE mutations (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, batch TEXT NOT NULL, dedupe_key TEXT UNIQUE,
    company_id INTEGER, operation TEXT NOT NULL, verb TEXT NOT NULL, kind TEXT NOT NULL, target TEXT,
    payload TEXT NOT NULL, expected TEXT, queued_at TEXT NOT NULL, queued_by TEXT NOT NULL, state TEXT NOT NULL,
    reason TEXT, detail TEXT, push_id TEXT, remote_id TEXT, base_image TEXT, after_image TEXT, settled_at TEXT,
    undo_of TEXT, supersedes TEXT, bound TEXT UNIQUE  -- an added record's kind and id: one mutation made it, not two
) STRICT;
CREATE INDEX mutations_state ON mutations (state);
CREATE INDEX mutations_push ON mutations (push_id);
CREATE TABLE attempts (
    mutation TEXT NOT NULL REFERENCES mutations (id), n INTEGER NOT NULL, push_id TEXT NOT NULL, pid INTEGER NOT NULL,
    armed_at TEXT NOT NULL, method TEXT NOT NULL, path TEXT NOT NULL, body TEXT, body_sha256 TEXT NOT NULL,
    marker TEXT, seen TEXT, status INTEGER, headers TEXT, answer TEXT, answered_at TEXT, closed_as TEXT, error TEXT,
    PRIMARY KEY (mutation, n)
) STRICT, WITHOUT ROWID;
CREATE TABLE probes (
    mutation TEXT NOT NULL REFERENCES mutations (id), n INTEGER NOT NULL, at TEXT NOT NULL, request TEXT NOT NULL,
    found TEXT, verdict TEXT NOT NULL, PRIMARY KEY (mutation, n)
) STRICT, WITHOUT ROWID;
CREATE TABLE plans (hash TEXT PRIMARY KEY, company_id INTEGER NOT NULL, made_at TEXT NOT NULL, steps INTEGER NOT NULL,
    pushed_as TEXT) STRICT;
CREATE TABLE pushes (
    id TEXT PRIMARY KEY, plan TEXT NOT NULL, started_at TEXT NOT NULL, finished_at TEXT, receipt TEXT
) STRICT;
""",
    # What was taken out of the archive after it was sealed.
    """
CREATE TABLE resealed (  -- pages whose content was changed after they were sealed, by whom and why
    walk INTEGER NOT NULL, seq INTEGER NOT NULL, run_id TEXT NOT NULL, reason TEXT NOT NULL,
    PRIMARY KEY (walk, seq, run_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE erasures (  -- whom a person asked to forget; `removed` is JSON, NULL until all of it is gone
    id INTEGER PRIMARY KEY, run_id TEXT NOT NULL, kind TEXT NOT NULL, record INTEGER NOT NULL, at TEXT NOT NULL,
    removed TEXT
) STRICT;
""",
    # What a person has found out about a mutation that needed a look.
    """
CREATE TABLE resolutions (
    mutation TEXT NOT NULL REFERENCES mutations (id), n INTEGER NOT NULL, at TEXT NOT NULL, by TEXT NOT NULL,
    verdict TEXT NOT NULL, remote_id TEXT, note TEXT, PRIMARY KEY (mutation, n)
) STRICT, WITHOUT ROWID;
""",
    # How much of each raw file has been compared with this state. Files only grow.
    "CREATE TABLE raw_files (name TEXT PRIMARY KEY, bytes INTEGER NOT NULL) STRICT, WITHOUT ROWID;\n",
    # Only a record with an id of its own, which never comes back, is bound to the mutation that added it.
    "UPDATE mutations SET bound = NULL WHERE bound IS NOT NULL AND (kind LIKE '%/followers'"
    " OR kind LIKE '%/participants' OR kind LIKE '%/assignments');\n",
)
VERSION = len(_STEPS)
ONLY_ARCHIVED = "(known from the raw archive only)"  # in place of the command of a run that nothing else tells of
NO_BODY = hashlib.sha256(b"").digest()  # of the page that marks the end of a list whose last answer did not


class SealedPage(msgspec.Struct, frozen=True):
    """Where a page lies in the raw archive: one zstd frame of `length` bytes at offset `at` of `file`."""

    walk: int
    seq: int
    file: str
    at: int
    length: int
    rows: int
    sha256: bytes
    next: str | None
    served_at: datetime
    context: str | None = None  # JSON


class Control:
    """An open control.db. Safe to use from several threads; several processes may hold it at once."""

    def __init__(self, path: Path) -> None:
        """Open `path`, creating it where it is missing.

        Raises:
            StorageError: it can't be opened, is damaged, or was written by a newer pdsync.
        """
        self.path = path
        self._lock = threading.RLock()
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            self._db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            self._switch_to_wal()
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("PRAGMA foreign_keys=ON")
            self._migrate()
        except (sqlite3.Error, OSError) as error:
            raise StorageError(
                f"The state file {path} can't be opened: {error}.\n"
                f"Nothing was fetched or changed. Check the disk's free space and the folder's rights: pdsync doctor"
            ) from error

    def _switch_to_wal(self) -> None:
        """Switch to WAL. SQLite's own timeout does not wait for another process that makes the file just now."""
        until = time.monotonic() + _OPENING_S
        while True:
            try:
                self._db.execute("PRAGMA journal_mode=WAL")
            except sqlite3.OperationalError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.02)
            else:
                return

    def _migrate(self) -> None:
        with self.transaction():
            found = self._db.execute("PRAGMA user_version").fetchone()[0]
            if found > VERSION:
                raise StorageError(
                    f"{self.path} was written by a newer pdsync (state {found}, this one knows {VERSION}).\n"
                    f"Upgrade pdsync; nothing was changed."
                )
            for step in _STEPS[found:]:
                for statement in step.split(";\n"):
                    self._db.execute(statement)
            if found < VERSION:
                self._db.execute(f"PRAGMA user_version={VERSION}")

    def close(self) -> None:
        """Release the file; what was committed stays."""
        with self._lock:
            self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One write transaction: all of it is on disk behind the `with`, or none."""
        with self._lock, guarding(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # a full disk has ended it already
                    self._db.execute("ROLLBACK")
                raise

    def rows(self, query: str, *values: object) -> list[tuple[object, ...]]:
        """What a query gives; values are bound."""
        with self._lock, guarding(self.path):
            return self._db.execute(query, values).fetchall()

    # The company: one for good.

    def company(self) -> tuple[int, str] | None:
        """Id and name of the company this project holds; None before the first run."""
        rows = self.rows("SELECT id, name FROM company")
        return (int(str(rows[0][0])), str(rows[0][1])) if rows else None

    def check_company(self, company_id: int, name: str) -> None:
        """See that the project is tied to no other company.

        Raises:
            WrongCompany: it is; nothing was written.
        """
        known = self.company()
        if known and known[0] != company_id:
            raise WrongCompany(expected=known[0], found=company_id, name=name)

    def bind_company(self, company_id: int, name: str, domain: str | None) -> None:
        """Tie the project to a company, or check that it is the same one as ever. Its name may change.

        Raises:
            WrongCompany: it is another one; nothing was written.
        """
        self.check_company(company_id, name)
        with self.transaction() as db:
            db.execute("DELETE FROM company")
            db.execute("INSERT INTO company VALUES (?, ?, ?)", (company_id, name, domain))

    # Runs and their receipts.

    def start_run(self, run_id: str, command: str, started_at: datetime) -> None:
        with self.transaction() as db:
            db.execute("INSERT INTO runs VALUES (?, ?, ?, NULL)", (run_id, command, started_at.isoformat()))

    def finish_run(self, receipt: Receipt) -> None:
        with self.transaction() as db:
            text = msgspec.json.encode(receipt).decode()
            db.execute("UPDATE runs SET receipt = ? WHERE id = ?", (text, receipt.run_id))

    def receipts(self, last: int) -> list[Receipt]:
        """The `last` runs, newest first; a run that was killed has a receipt without an end."""
        rows = self.rows("SELECT id, command, started_at, receipt FROM runs ORDER BY rowid DESC LIMIT ?", last)
        return [
            msgspec.json.decode(str(receipt), type=Receipt)
            if receipt
            else Receipt(str(run), str(command), datetime.fromisoformat(str(started)))
            for run, command, started, receipt in rows
        ]

    # Walks and their sealed pages.

    def open_walk(
        self, run_id: str, stream: str, source: str, version: str, operation: str, since: datetime | None
    ) -> Walk:
        """Begin a walk; `since` is None where everything is asked for."""
        with self.transaction() as db:
            walk_id = insert_walk(db, run_id, stream, source, version, operation, since)
        return self.walk(walk_id)

    def walk(self, walk_id: int) -> Walk:
        """The walk `walk_id`."""
        return next(self._walks("w.id = ?", walk_id))

    def unfinished(self, stream: str | None = None) -> list[tuple[Walk, str]]:
        """Walks that are not in the warehouse yet, oldest first, each with its state: open or sealed."""
        walks = self._walks("w.state IN ('open', 'sealed') AND (w.stream = ? OR ? IS NULL)", stream, stream)
        return [(walk, str(self.rows("SELECT state FROM walks WHERE id = ?", walk.id)[0][0])) for walk in walks]

    def requeue_missing_walks(self, held: Mapping[tuple[str, int], int]) -> int:
        """Mark walks as sealed that were applied to a warehouse which does not hold them; how many there are.

        Args:
            held: run and walk → the last of its pages that the warehouse holds.
        """
        lost = [walk for run, walk, last in self._last_pages("applied") if held.get((run, walk), -1) < last]
        with self.transaction() as db:
            db.executemany("UPDATE walks SET state = 'sealed' WHERE id = ?", [(walk,) for walk in lost])
        return len(lost)

    def drop_overtaken(self, held: Mapping[tuple[str, int], int]) -> int:
        """Drop open walks of which the warehouse holds more pages than are known here; how many there are.

        That is so where this file is an older copy. Such a walk must not go on: the warehouse would take its next
        pages for those that it holds.

        Args:
            held: run and walk → the last of its pages that the warehouse holds.
        """
        overtaken = [walk for run, walk, last in self._last_pages("open") if held.get((run, walk), -1) > last]
        with self.transaction() as db:
            db.executemany("UPDATE walks SET state = 'dropped' WHERE id = ?", [(walk,) for walk in overtaken])
        return len(overtaken)

    def _last_pages(self, state: str) -> list[tuple[str, int, int]]:
        """Run, walk and number of the last sealed page of each walk in `state`; walks without a page are left out."""
        rows = self.rows(
            "SELECT w.run_id, w.id, max(p.seq) FROM walks w JOIN pages p ON p.walk = w.id WHERE w.state = ? GROUP BY 2",
            state,
        )
        return [(str(run), int(str(walk)), int(str(last))) for run, walk, last in rows]

    def finished_lists(self, run_id: str) -> set[tuple[str, str]]:
        """The lists (stream, source) that a run has read to their ends."""
        rows = self.rows("SELECT stream, source FROM walks WHERE run_id = ? AND state IN ('sealed', 'applied')", run_id)
        return {(str(stream), str(source)) for stream, source in rows}

    def began_at(self, run_id: str) -> datetime | None:
        """When the first list of a run was begun, by the server's clock; None where none was."""
        began = self.rows("SELECT min(started_at) FROM walks WHERE run_id = ?", run_id)[0][0]
        return datetime.fromisoformat(str(began)) if began else None

    def full_walks(self, run_id: str) -> dict[tuple[str, str], datetime]:
        """The lists (stream, source) that a run has read whole, to their ends, and when each reading began."""
        walks = self._walks("w.run_id = ? AND w.since IS NULL AND w.state = 'applied'", run_id)
        return {(walk.stream, walk.source): walk.started_at for walk in walks if walk.is_of_a_list and walk.started_at}

    def _walks(self, where: str, *values: object) -> Iterator[Walk]:
        # In the order of their runs: ids are unique, and rise, but only as far as this machine's clock does.
        rows = self.rows(
            "SELECT w.id, w.run_id, w.stream, w.source, w.version, w.operation, w.since, w.started_at FROM walks w"
            f" LEFT JOIN runs r ON r.id = w.run_id WHERE {where} ORDER BY r.rowid, w.id",
            *values,
        )
        for row in rows:
            yield msgspec.convert(dict(zip(Walk.__struct_fields__, row, strict=True)), Walk)

    def end_walk(self, walk_id: int, state: str) -> None:
        """Note that a walk is sealed to its end, applied to the warehouse, or dropped."""
        with self.transaction() as db:
            db.execute("UPDATE walks SET state = ? WHERE id = ?", (state, walk_id))

    def record_pages(self, pages: Iterable[tuple[Page, SealedPage]]) -> None:
        """Remember pages that are safe on disk; a walk's last page seals the walk as well."""
        with self.transaction() as db:
            for page, sealed in pages:
                db.execute(
                    "INSERT INTO pages VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        sealed.walk,
                        sealed.seq,
                        sealed.file,
                        sealed.at,
                        sealed.length,
                        sealed.rows,
                        sealed.sha256,
                        sealed.next,
                        sealed.served_at.isoformat(),
                        sealed.context,
                    ),
                )
                if page.seq == 0:
                    db.execute(
                        "UPDATE walks SET started_at = ? WHERE id = ? AND started_at IS NULL",
                        (page.served_at.isoformat(), page.walk),
                    )
                if page.next is None:
                    db.execute("UPDATE walks SET state = 'sealed' WHERE id = ?", (page.walk,))

    def sealed_pages(self, walk_id: int, start: int = 0) -> list[SealedPage]:
        """The sealed pages of a walk in order, from page number `start` on."""
        rows = self.rows(f"SELECT {_PAGE} FROM pages WHERE walk = ? AND seq >= ? ORDER BY seq", walk_id, start)
        return [_page(row) for row in rows]

    def last_page(self, walk_id: int) -> SealedPage | None:
        """The newest sealed page of a walk."""
        rows = self.rows("SELECT max(seq) FROM pages WHERE walk = ?", walk_id)
        return None if rows[0][0] is None else self.sealed_pages(walk_id, int(str(rows[0][0])))[0]

    def pages_of_last_walks(self) -> dict[tuple[str, str, bool], tuple[int, int]]:
        """Per (stream, source, everything was asked for): pages and rows of the newest finished walk."""
        rows = self.rows(
            "SELECT w.stream, w.source, w.since IS NULL, count(*) FILTER (WHERE p.sha256 <> ?), sum(p.rows)"
            " FROM walks w JOIN pages p ON p.walk = w.id"
            " WHERE w.id IN (SELECT max(id) FROM walks WHERE state = 'applied' AND source NOT LIKE ?"
            " GROUP BY stream, source, since IS NULL) GROUP BY 1, 2, 3",
            NO_BODY,  # no request was made for it
            f"{BACKFILL}%",  # a window says nothing of what a sync will read
        )
        return {(str(r[0]), str(r[1]), bool(r[2])): (int(str(r[3])), int(str(r[4]))) for r in rows}

    # The archive as a whole.

    def walks(self) -> list[tuple[Walk, str]]:
        """Every walk with its state, oldest first."""
        states = {walk: str(state) for walk, state in self.rows("SELECT id, state FROM walks")}
        return [(walk, states[walk.id]) for walk in self._walks("true")]

    def run_order(self) -> dict[str, int]:
        """Runs by their place in the order in which they began, whatever the clock said."""
        return {str(run): int(str(place)) for place, run in self.rows("SELECT rowid, id FROM runs ORDER BY rowid")}

    def pages(self) -> list[SealedPage]:
        """Every sealed page, by walk and number."""
        rows = self.rows(f"SELECT {_PAGE} FROM pages ORDER BY walk, seq")
        return [_page(row) for row in rows]

    def replace_pages(
        self,
        moved: Iterable[SealedPage],
        gone: Iterable[tuple[int, int]],
        resealed: Iterable[tuple[int, int, str, str]],
    ) -> None:
        """Note where pages lie now that their file was written anew, all at once.

        Args:
            moved: the pages of the new file; they are known by walk and number.
            gone: walk and number of those that were left out.
            resealed: walk, number, run and reason of those whose content changed.
        """
        with self.transaction() as db:
            _put_pages(db, moved, resealed)
            db.executemany("DELETE FROM pages WHERE walk = ? AND seq = ?", gone)

    def erase(
        self,
        whom: tuple[str, str, int],
        moved: Iterable[SealedPage],
        resealed: Iterable[tuple[int, int, str, str]],
        clean: Callable[[str, str, str | None], str],
    ) -> int:
        """Begin an erasure: name the files without the person, and clean every text beside them, all at once.

        Args:
            whom: the run, and the kind and id of the record.
            moved: as `replace_pages` takes them.
            resealed: as `replace_pages` takes them.
            clean: makes a text harmless: text, column, and the mutation whose row it is in.

        Returns:
            How many texts were changed.
        """
        self._db.execute("PRAGMA secure_delete = ON")
        with self.transaction() as db:
            _put_pages(db, moved, resealed)
            db.execute("INSERT INTO erasures (run_id, kind, record, at) VALUES (?, ?, ?, datetime('now'))", whom)
            return _clean_texts(db, clean)

    def begun_erasures(self, kind: str, record: int) -> int:
        """How many erasures of a record were begun and not finished."""
        query = "SELECT count(*) FROM erasures WHERE kind = ? AND record = ? AND removed IS NULL"
        return int(str(self.rows(query, kind, record)[0][0]))

    def finish_erasures(self, kind: str, record: int, removed: str) -> None:
        """Note what was removed (JSON), and leave no byte of what this file held before.

        Raises:
            StorageError: another process reads this file; the erasure is not finished.
        """
        with self._lock, guarding(self.path):
            self._db.execute("VACUUM")
            if self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                raise StorageError(
                    f"Another process holds {self.path}, so its old pages can't be removed yet.\n"
                    f"All else is done. Close it and run the same command again."
                )
            with self.transaction() as db:
                db.execute(
                    "UPDATE erasures SET removed = ? WHERE kind = ? AND record = ? AND removed IS NULL",
                    (removed, kind, record),
                )

    def newest_time(self) -> datetime | None:
        """The latest moment, by the server's clock, at which an answer was served that is kept."""
        newest = self.rows("SELECT max(served_at) FROM pages")[0][0]
        return datetime.fromisoformat(str(newest)) if newest else None

    # What the raw archive tells, where this file lacks it.

    def known_sizes(self) -> dict[str, int]:
        """By raw file: up to which byte this state knows what is in it."""
        rows = self.rows(
            "SELECT file, max(bytes) FROM (SELECT file, max(at + bytes) AS bytes FROM pages GROUP BY file"
            " UNION ALL SELECT name, bytes FROM raw_files) GROUP BY 1"
        )
        return {str(file): int(str(size)) for file, size in rows}

    def resealed(self) -> set[tuple[int, int]]:
        """Walk and number of the pages whose content was changed on purpose after they were sealed."""
        return {(int(str(walk)), int(str(seq))) for walk, seq in self.rows("SELECT walk, seq FROM resealed")}

    def adopt(
        self,
        runs: Sequence[tuple[str, datetime]],
        walks: Iterable[tuple[Walk, str]],
        pages: Iterable[SealedPage],
        sizes: Mapping[str, int],
    ) -> None:
        """Take over what the raw archive tells that this state lacks, all at once.

        Args:
            runs: id and beginning of each, in their order; those that are known are left as they are.
            walks: each with its state; the state of one that is known is replaced.
            pages: one that is known by walk and number is said to be where this one says.
            sizes: by raw file, up to which byte it has been compared.
        """
        with self.transaction() as db:
            _merge_runs(db, runs)
            for walk, state in walks:
                since, first = (moment.isoformat() if moment else None for moment in (walk.since, walk.started_at))
                db.execute(
                    "INSERT INTO walks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET"
                    " state = excluded.state, started_at = coalesce(started_at, excluded.started_at)",
                    (walk.id, walk.run_id, walk.stream, walk.source, walk.version, walk.operation, since, first, state),
                )
            db.executemany(
                f"INSERT OR REPLACE INTO pages ({_PAGE}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        p.walk,
                        p.seq,
                        p.file,
                        p.at,
                        p.length,
                        p.rows,
                        p.sha256,
                        p.next,
                        p.served_at.isoformat(),
                        p.context,
                    )
                    for p in pages
                ],
            )
            db.executemany("INSERT OR REPLACE INTO raw_files VALUES (?, ?)", list(sizes.items()))

    def adopt_receipts(self, receipts: Sequence[Receipt]) -> None:
        """Take over the receipts of finished runs, oldest first, where this state lacks them."""
        with self.transaction() as db:
            _merge_runs(db, [(receipt.run_id, receipt.started_at) for receipt in receipts])
            for receipt in receipts:
                db.execute(
                    "UPDATE runs SET command = ?, receipt = ? WHERE id = ? AND receipt IS NULL",
                    (receipt.command, msgspec.json.encode(receipt).decode(), receipt.run_id),
                )


def insert_walk(
    db: sqlite3.Connection,
    run_id: str,
    stream: str,
    source: str,
    version: str,
    operation: str,
    since: datetime | None,
) -> int:
    """Insert an open walk; its id. Ids rise, and never repeat, also where control.db is an older copy of itself."""
    newest = int(db.execute("SELECT coalesce(max(id), 0) FROM walks").fetchone()[0])
    # Microseconds and 12 random bits fit into 63 bits until 2095. Where the clock stands behind what is known, the id
    # must not be the successor of the newest one: an older copy of this file would give it again.
    by_clock = int((time.time() - _EPOCH) * 1_000_000) << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)
    walk_id = by_clock if by_clock > newest else newest + 1 + secrets.randbits(32)
    db.execute(
        "INSERT INTO walks (id, run_id, stream, source, version, operation, since, state)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, 'open')",
        (walk_id, run_id, stream, source, version, operation, since.isoformat() if since else None),
    )
    return walk_id


def opened_at(walk_id: int) -> datetime | None:
    """When a walk was opened, by this machine's clock; None for one that an older pdsync has numbered."""
    microseconds = walk_id >> _RANDOM_BITS
    return datetime.fromtimestamp(_EPOCH, UTC) + timedelta(microseconds=microseconds) if microseconds else None


def _merge_runs(db: sqlite3.Connection, more: Sequence[tuple[str, datetime]]) -> None:
    """Insert the runs that are missing where they belong by time; those that are here keep their order."""
    rows = db.execute("SELECT id, command, started_at, receipt FROM runs ORDER BY rowid").fetchall()
    known = {row[0] for row in rows}
    missing = [(run, ONLY_ARCHIVED, began.isoformat(), None) for run, began in more if run not in known]
    if not missing:
        return
    merged, here = list[tuple[object, ...]](), [tuple(row) for row in rows]
    for run in missing:
        while here and datetime.fromisoformat(str(here[0][2])) <= datetime.fromisoformat(str(run[2])):
            merged.append(here.pop(0))
        merged.append(run)
    db.execute("DELETE FROM runs")
    db.executemany("INSERT INTO runs VALUES (?, ?, ?, ?)", merged + here)


_EPOCH = datetime(2024, 1, 1, tzinfo=UTC).timestamp()
_RANDOM_BITS = 12
_PAGE = "walk, seq, file, at, bytes, rows, sha256, next, served_at, context"


def _put_pages(
    db: sqlite3.Connection, moved: Iterable[SealedPage], resealed: Iterable[tuple[int, int, str, str]]
) -> None:
    db.executemany(
        "UPDATE pages SET file = ?, at = ?, bytes = ?, rows = ?, sha256 = ? WHERE walk = ? AND seq = ?",
        [(p.file, p.at, p.length, p.rows, p.sha256, p.walk, p.seq) for p in moved],
    )
    db.executemany("INSERT OR REPLACE INTO resealed VALUES (?, ?, ?, ?)", resealed)


def _clean_texts(db: sqlite3.Connection, clean: Callable[[str, str, str | None], str]) -> int:
    """Clean every text of every table, whatever wrote it: plans, before-images and answers of changes, receipts."""
    changed = 0
    tables = db.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'").fetchall()
    for (table,) in tables:
        columns = db.execute("SELECT name, type, pk FROM pragma_table_info(?)", (table,)).fetchall()
        keys = [column for column, _, place in columns if place]
        where = " AND ".join(f"{quoted(key)} = ?" for key in keys) if keys else "rowid = ?"
        chosen = quoted_list(keys) if keys else "rowid"
        mutation = "id" if table == "mutations" else "mutation" if "mutation" in keys else "NULL"
        for column in (column for column, kind, place in columns if kind in ("TEXT", "BLOB") and not place):
            rows = db.execute(
                f"SELECT {quoted(column)}, {mutation}, {chosen} FROM {quoted(table)} WHERE {quoted(column)} IS NOT NULL"
            )
            for value, of, *place in rows.fetchall():
                text = value if isinstance(value, str) else value.decode("utf-8", "surrogateescape")
                if (other := clean(text, column, of)) != text:
                    made = other if isinstance(value, str) else other.encode("utf-8", "surrogateescape")
                    db.execute(f"UPDATE {quoted(table)} SET {quoted(column)} = ? WHERE {where}", (made, *place))
                    changed += 1
    return changed


def _page(row: tuple[object, ...]) -> SealedPage:
    return msgspec.convert(
        dict(zip(SealedPage.__struct_fields__, row, strict=True)), SealedPage, builtin_types=(bytes,)
    )


class Lock:
    """The project's lock: one run at a time. The kernel frees it when the process dies, however it dies."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None

    def __enter__(self) -> Lock:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StorageError(f"{self.path} can't be written: {error}. Nothing was called.") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(self._file, 200, 0).decode(errors="replace").strip()
            os.close(self._file)
            self._file = None
            raise ProjectLocked(
                f"Another run holds this project{f' ({holder})' if holder else ''}.\n"
                f"Nothing was called. Wait for it to end and run the same command again."
            ) from None
        with suppress(OSError):  # who holds it is a courtesy, for which a full disk need not have room
            os.ftruncate(self._file, 0)
            told = f"process {os.getpid()} since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC\n"
            os.pwrite(self._file, told.encode(), 0)
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
