"""Walks and their sealed pages: how far each list has been read, and where each page is in the raw archive."""

from __future__ import annotations

import hashlib
import secrets
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from pdsync.core.control.db import Database
from pdsync.model import BACKFILL, Page, Walk

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator, Mapping

NO_BODY = hashlib.sha256(b"").digest()  # of a page that only marks the end of a list
LastWalks = dict[tuple[str, str, bool], tuple[int, int]]  # (stream, source, the whole list was read) → pages, rows
_EPOCH = datetime(2024, 1, 1, tzinfo=UTC).timestamp()
_RANDOM_BITS = 12
PAGE_COLUMNS = "walk, seq, file, at, bytes, rows, sha256, next, served_at, context"


class SealedPage(msgspec.Struct, frozen=True):
    """The position of a page in the raw archive: one zstd frame of `length` bytes at offset `at` of `file`."""

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


class Walks(Database):
    """Walks and sealed pages in control.db."""

    def open_walk(
        self, run_id: str, stream: str, source: str, version: str, operation: str, since: datetime | None
    ) -> Walk:
        """Begin a walk; `since` is None for a whole list."""
        with self.transaction() as db:
            walk_id = insert_walk(db, run_id, stream, source, version, operation, since)
        return self.walk(walk_id)

    def walk(self, walk_id: int) -> Walk:
        """The walk `walk_id`."""
        return next(self._walks("w.id = ?", walk_id))

    def unfinished_walks(self, stream: str | None = None) -> list[tuple[Walk, str]]:
        """Walks that are not in the warehouse yet, oldest first, each with its state: open or sealed."""
        where = "w.state IN ('open', 'sealed') AND (w.stream = ? OR ? IS NULL)"
        return list(self._walks_with_states(where, stream, stream))

    def requeue_missing_walks(self, loaded: Mapping[tuple[str, int], int]) -> int:
        """Mark applied walks as sealed whose pages the warehouse lacks; the number of them.

        Args:
            loaded: run and walk → the number of its last page in the warehouse.
        """
        lost = [walk for run, walk, last in self._last_pages("applied") if loaded.get((run, walk), -1) < last]
        with self.transaction() as db:
            db.executemany("UPDATE walks SET state = 'sealed' WHERE id = ?", [(walk,) for walk in lost])
        return len(lost)

    def drop_outdated_walks(self, loaded: Mapping[tuple[str, int], int]) -> int:
        """Drop open walks of which the warehouse has more pages than this file; the number of them.

        That is so where this file is an older copy. Such a walk must not continue: the warehouse would take its next
        pages for those that it has.

        Args:
            loaded: run and walk → the number of its last page in the warehouse.
        """
        known = {(run, walk): last for run, walk, last in self._last_pages("open")}
        rows = self.rows("SELECT run_id, id FROM walks WHERE state = 'open'")  # also those without a page
        opened = [(str(run), int(str(walk))) for run, walk in rows]
        outdated = [key[1] for key in opened if loaded.get(key, -1) > known.get(key, -1)]
        with self.transaction() as db:
            db.executemany("UPDATE walks SET state = 'dropped' WHERE id = ?", [(walk,) for walk in outdated])
        return len(outdated)

    def _last_pages(self, state: str) -> list[tuple[str, int, int]]:
        """Run, walk and number of the last sealed page of each walk in `state`; walks without a page are left out."""
        rows = self.rows(
            "SELECT w.run_id, w.id, max(p.seq) FROM walks w JOIN pages p ON p.walk = w.id WHERE w.state = ? GROUP BY 2",
            state,
        )
        return [(str(run), int(str(walk)), int(str(last))) for run, walk, last in rows]

    def finished_lists(self, run_id: str) -> set[tuple[str, str, str]]:
        """The lists (stream, source, version) that a run has read to their ends."""
        query = "SELECT stream, source, version FROM walks WHERE run_id = ? AND state IN ('sealed', 'applied')"
        return {(str(stream), str(source), str(version)) for stream, source, version in self.rows(query, run_id)}

    def continued_walks(self, run_id: str) -> dict[int, int]:
        """The walks of lists that older runs have begun and a run has continued → its first page of each."""
        rows = self.rows(
            "SELECT p.walk, min(p.seq) FROM pages p JOIN walks w ON w.id = p.walk"
            " WHERE w.run_id <> ? AND p.file LIKE ? AND w.source NOT LIKE ? GROUP BY 1",
            run_id,
            f"{run_id}-%",  # each run seals in files that have its name
            f"{BACKFILL}%",
        )
        return {int(str(walk)): int(str(first)) for walk, first in rows}

    def lists_read_by_members(self) -> set[tuple[str, str, str]]:
        """The lists (stream, source, version) that may lack records: read with a token that may not see all of them.

        Read so since they were last begun whole, or then.
        """
        rows = self.rows(
            "WITH members AS MATERIALIZED (SELECT id FROM runs WHERE instr(receipt, '\"is_admin\":false') > 0),"
            " whole AS (SELECT stream, source, version, max(id) AS id FROM walks"
            " WHERE since IS NULL AND state IN ('applied', 'pruned') GROUP BY 1, 2, 3)"
            " SELECT DISTINCT stream, source, version FROM walks w JOIN whole USING (stream, source, version)"
            " WHERE w.id >= whole.id AND w.run_id IN (SELECT id FROM members)"
        )
        return {(str(stream), str(source), str(version)) for stream, source, version in rows}

    def began_at(self, run_id: str) -> datetime | None:
        """When the first walk of a run began, by the server's clock; None where it had none."""
        began = self.rows("SELECT min(started_at) FROM walks WHERE run_id = ?", run_id)[0][0]
        return datetime.fromisoformat(str(began)) if began else None

    def full_walks(self, run_id: str) -> dict[tuple[str, str], datetime]:
        """The lists (stream, source) that a run has read as a whole → when that walk began."""
        walks = self._walks("w.run_id = ? AND w.since IS NULL AND w.state = 'applied'", run_id)
        return {(walk.stream, walk.source): walk.started_at for walk in walks if walk.is_of_a_list and walk.started_at}

    def _walks(self, where: str, *values: object) -> Iterator[Walk]:
        return (walk for walk, _ in self._walks_with_states(where, *values))

    def _walks_with_states(self, where: str, *values: object) -> Iterator[tuple[Walk, str]]:
        # In the order of their runs: ids are unique, but rise only where this machine's clock does.
        rows = self.rows(
            "SELECT w.state, w.id, w.run_id, w.stream, w.source, w.version, w.operation, w.since, w.started_at"
            f" FROM walks w LEFT JOIN runs r ON r.id = w.run_id WHERE {where} ORDER BY r.rowid, w.id",
            *values,
        )
        for state, *row in rows:
            yield msgspec.convert(dict(zip(Walk.__struct_fields__, row, strict=True)), Walk), str(state)

    def end_walk(self, walk_id: int, state: str) -> None:
        """Set the final state of a walk: applied, dropped or pruned.

        Where a walk is pruned that was not applied, the window of a backfill that it read is read again.
        """
        with self.transaction() as db:
            if state == "pruned":
                db.execute(
                    "UPDATE windows SET walk = NULL, asked_since = since, asked_until = until WHERE walk ="
                    " (SELECT id FROM walks WHERE id = ? AND state NOT IN ('applied', 'pruned'))",
                    (walk_id,),
                )
            db.execute("UPDATE walks SET state = ? WHERE id = ?", (state, walk_id))

    def record_pages(self, pages: Iterable[tuple[Page, SealedPage]]) -> None:
        """Insert pages that are on disk; the last page of a walk seals the walk."""
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
        rows = self.rows(f"SELECT {PAGE_COLUMNS} FROM pages WHERE walk = ? AND seq >= ? ORDER BY seq", walk_id, start)
        return [read_page(row) for row in rows]

    def last_page(self, walk_id: int) -> SealedPage | None:
        """The newest sealed page of a walk."""
        rows = self.rows("SELECT max(seq) FROM pages WHERE walk = ?", walk_id)
        return None if rows[0][0] is None else self.sealed_pages(walk_id, int(str(rows[0][0])))[0]

    def pages_of_unfinished_walks(self) -> dict[tuple[str, str, str], int]:
        """(stream, version, operation) → the number of sealed pages of walks that are not in the warehouse yet.

        Those of backfills do not count.
        """
        rows = self.rows(
            "SELECT w.stream, w.version, w.operation, count(*) FROM walks w JOIN pages p ON p.walk = w.id"
            " WHERE w.state IN ('open', 'sealed') AND w.source NOT LIKE ? GROUP BY 1, 2, 3",
            f"{BACKFILL}%",
        )
        return {(str(r[0]), str(r[1]), str(r[2])): int(str(r[3])) for r in rows}

    def pages_of_last_walks(self) -> LastWalks:
        """(stream, source, whether it is a whole list) → pages and rows of the newest applied walk.

        Walks of backfills, and pages without a body, do not count.
        """
        rows = self.rows(
            "SELECT w.stream, w.source, w.since IS NULL, count(*) FILTER (WHERE p.sha256 <> ?), sum(p.rows)"
            " FROM walks w JOIN pages p ON p.walk = w.id"
            " WHERE w.id IN (SELECT max(id) FROM walks WHERE state = 'applied' AND source NOT LIKE ?"
            " GROUP BY stream, source, since IS NULL) GROUP BY 1, 2, 3",
            NO_BODY,  # without a request of its own
            f"{BACKFILL}%",  # a window is no forecast for a sync
        )
        return {(str(r[0]), str(r[1]), bool(r[2])): (int(str(r[3])), int(str(r[4]))) for r in rows}


def insert_walk(
    db: sqlite3.Connection,
    run_id: str,
    stream: str,
    source: str,
    version: str,
    operation: str,
    since: datetime | None,
) -> int:
    """Insert an open walk; its id. Ids rise and never repeat, even where control.db is an older copy."""
    newest = int(db.execute("SELECT coalesce(max(id), 0) FROM walks").fetchone()[0])
    # Microseconds and 12 random bits fit into 63 bits until 2095. Where the clock is behind the newest id, the id
    # must not be its successor: an older copy of this file would give that one again.
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


def read_page(row: tuple[object, ...]) -> SealedPage:
    return msgspec.convert(
        dict(zip(SealedPage.__struct_fields__, row, strict=True)), SealedPage, builtin_types=(bytes,)
    )
