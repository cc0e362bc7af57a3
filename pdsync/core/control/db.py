"""The file control.db: its schema, its migrations, its transactions, and the project's lock.

It is SQLite in WAL mode with `synchronous=FULL`: what a transaction has committed survives a crash.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pdsync.core.disk import storage_errors
from pdsync.errors import ProjectLocked, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_OPENING_S = 10.0
# What brings control.db from each version to the next; a new file takes all of these steps.
STEPS = (
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
    # The windows of backfills. A project in which a backfill was begun before this step has the table already.
    """
CREATE TABLE IF NOT EXISTS windows (
    id INTEGER PRIMARY KEY, job TEXT NOT NULL, stream TEXT NOT NULL, source TEXT NOT NULL, version TEXT NOT NULL,
    operation TEXT NOT NULL, since TEXT NOT NULL, until TEXT NOT NULL,
    asked_since TEXT NOT NULL, asked_until TEXT NOT NULL,  -- as the walk began: its cursor is good for these only
    walk INTEGER REFERENCES walks
) STRICT;
""",
    # What `plan` measured of lists that were never read.
    """
CREATE TABLE IF NOT EXISTS list_sizes (
    stream TEXT NOT NULL, source TEXT NOT NULL, version TEXT NOT NULL, rows INTEGER NOT NULL, most INTEGER NOT NULL,
    basis TEXT NOT NULL, is_assumed INTEGER NOT NULL, measured_at TEXT NOT NULL, PRIMARY KEY (stream, source, version)
) STRICT, WITHOUT ROWID;
""",
    # Of an attempt: the server's time (`core.server_clock`) at the last page that was read before its push.
    "ALTER TABLE attempts ADD COLUMN read_until TEXT;\n",
)
VERSION = len(STEPS)


class Database:
    """An open control.db. Safe to use from several threads; several processes may have it open at once."""

    def __init__(self, path: Path) -> None:
        """Open `path`, creating it where it is missing.

        Raises:
            StorageError: it can't be opened, is damaged, or was written by a newer pdsync.
        """
        self.path = path
        self._lock = threading.RLock()
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600))
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
            except sqlite3.OperationalError as error:
                is_busy = error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
                if not is_busy or time.monotonic() > until:
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
            for step in STEPS[found:]:
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
        """One write transaction: all of it is on disk after the `with`, or none. Transactions can't be nested."""
        with self._lock, storage_errors(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # a full disk has ended it already
                    self._db.execute("ROLLBACK")
                raise

    def rows(self, query: str, *values: object) -> list[tuple[object, ...]]:
        """Return the rows of a query; values are bound."""
        with self._lock, storage_errors(self.path):
            return self._db.execute(query, values).fetchall()


class Lock:
    """The project's lock: one run at a time. The kernel frees it when the process dies, however it dies.

    Raises:
        ProjectLocked: another run has it; entering does not wait.
        StorageError: its file can't be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None

    def __enter__(self) -> Lock:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
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
        with suppress(OSError):  # the owner is shown in messages only: a full disk does not matter
            os.ftruncate(self._file, 0)
            owner = f"process {os.getpid()} since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC\n"
            os.pwrite(self._file, owner.encode(), 0)
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
