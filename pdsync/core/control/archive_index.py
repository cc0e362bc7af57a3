"""The index of the raw archive in control.db, and its restoration from the archive where control.db was lost."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from pdsync.core.control.runs import merge_runs
from pdsync.core.control.walks import PAGE_COLUMNS, SealedPage, Walks, read_page

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping, Sequence

    from pdsync.model import Walk


class ArchiveIndex(Walks):
    """All walks and pages of the archive, in control.db."""

    def walks(self) -> list[tuple[Walk, str]]:
        """Every walk with its state, oldest first."""
        states = {walk: str(state) for walk, state in self.rows("SELECT id, state FROM walks")}
        return [(walk, states[walk.id]) for walk in self._walks("true")]

    def pages(self) -> list[SealedPage]:
        """Every sealed page, by walk and number."""
        rows = self.rows(f"SELECT {PAGE_COLUMNS} FROM pages ORDER BY walk, seq")
        return [read_page(row) for row in rows]

    def last_page_by_walk(self) -> dict[tuple[str, int], int]:
        """Run and walk → the number of its last sealed page; walks without a page are left out."""
        rows = self.rows("SELECT w.run_id, w.id, max(p.seq) FROM walks w JOIN pages p ON p.walk = w.id GROUP BY 2")
        return {(str(run), int(str(walk))): int(str(last)) for run, walk, last in rows}

    def replace_pages(
        self,
        moved: Iterable[SealedPage],
        removed: Iterable[tuple[int, int]],
        resealed: Iterable[tuple[int, int, str, str]],
    ) -> None:
        """Record the new positions of pages whose file was rewritten, in one transaction.

        Args:
            moved: the pages of the new file; walk and number identify them.
            removed: walk and number of those that were left out.
            resealed: walk, number, run and reason of those whose content changed.
        """
        with self.transaction() as db:
            update_pages(db, moved, resealed)
            db.executemany("DELETE FROM pages WHERE walk = ? AND seq = ?", removed)

    def newest_time(self) -> datetime | None:
        """The latest time, by the server's clock, at which an archived answer was served."""
        newest = self.rows("SELECT max(served_at) FROM pages")[0][0]
        return datetime.fromisoformat(str(newest)) if newest else None

    def indexed_sizes(self) -> dict[str, int]:
        """Raw file → the number of its bytes, from the first on, that are indexed."""
        rows = self.rows(
            "SELECT file, max(bytes) FROM (SELECT file, max(at + bytes) AS bytes FROM pages GROUP BY file"
            " UNION ALL SELECT name, bytes FROM raw_files) GROUP BY 1"
        )
        return {str(file): int(str(size)) for file, size in rows}

    def resealed(self) -> set[tuple[int, int]]:
        """Walk and number of the pages whose content was changed on purpose after sealing."""
        return {(int(str(walk)), int(str(seq))) for walk, seq in self.rows("SELECT walk, seq FROM resealed")}

    def restore_from_archive(
        self,
        runs: Sequence[tuple[str, datetime]],
        walks: Iterable[tuple[Walk, str]],
        pages: Iterable[SealedPage],
        sizes: Mapping[str, int],
    ) -> None:
        """Insert runs, walks and pages of the raw archive that are missing here, in one transaction.

        Args:
            runs: id and beginning of each, in their order; existing ones are unchanged.
            walks: each with its state; the state of an existing one is replaced.
            pages: an existing one, by walk and number, is replaced.
            sizes: raw file → the number of its bytes, from the first on, that were compared.
        """
        with self.transaction() as db:
            merge_runs(db, runs)
            for walk, state in walks:
                since, first = (moment.isoformat() if moment else None for moment in (walk.since, walk.started_at))
                db.execute(
                    "INSERT INTO walks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET"
                    " state = excluded.state, started_at = coalesce(started_at, excluded.started_at)",
                    (walk.id, walk.run_id, walk.stream, walk.source, walk.version, walk.operation, since, first, state),
                )
            db.executemany(
                f"INSERT OR REPLACE INTO pages ({PAGE_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
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


def update_pages(
    db: sqlite3.Connection, moved: Iterable[SealedPage], resealed: Iterable[tuple[int, int, str, str]]
) -> None:
    db.executemany(
        "UPDATE pages SET file = ?, at = ?, bytes = ?, rows = ?, sha256 = ? WHERE walk = ? AND seq = ?",
        [(p.file, p.at, p.length, p.rows, p.sha256, p.walk, p.seq) for p in moved],
    )
    db.executemany("INSERT OR REPLACE INTO resealed VALUES (?, ?, ?, ?)", resealed)
