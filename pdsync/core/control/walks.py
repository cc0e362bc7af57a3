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

NO_BODY = hashlib.sha256(b"").digest()  # of the page that marks the end of a list whose last answer did not
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
        """Begin a walk; `since` is None where everything is asked for."""
        with self.transaction() as db:
            walk_id = insert_walk(db, run_id, stream, source, version, operation, since)
        return self.walk(walk_id)

    def walk(self, walk_id: int) -> Walk:
        """The walk `walk_id`."""
        return next(self._walks("w.id = ?", walk_id))

    def unfinished_walks(self, stream: str | None = None) -> list[tuple[Walk, str]]:
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

    def drop_outdated_walks(self, held: Mapping[tuple[str, int], int]) -> int:
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
        rows = self.rows(f"SELECT {PAGE_COLUMNS} FROM pages WHERE walk = ? AND seq >= ? ORDER BY seq", walk_id, start)
        return [read_page(row) for row in rows]

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
    # Microseconds and 12 random bits fit into 63 bits until 2095. Where the clock is earlier than the newest id, the id
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


def read_page(row: tuple[object, ...]) -> SealedPage:
    return msgspec.convert(
        dict(zip(SealedPage.__struct_fields__, row, strict=True)), SealedPage, builtin_types=(bytes,)
    )
