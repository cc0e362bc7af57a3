"""Erases records from control.db: records which erasures are unfinished, and cleans all texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from pdsync.core.control.archive_index import update_pages
from pdsync.core.control.db import Database
from pdsync.core.disk import storage_errors
from pdsync.errors import StorageError
from pdsync.sql import quoted, quoted_list

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable

    from pdsync.core.control.walks import SealedPage

# Of the index of the raw archive only these columns have content: a name may be the word for a list, or bytes of a
# checksum, and the pages would be lost.
_OF_INDEX = {"walks": (), "pages": ("next", "context"), "windows": (), "raw_files": (), "list_sizes": ()}


class ErasedRecord(Struct, frozen=True):
    """A record that is erased from a project, and the run that erases it."""

    run_id: str
    kind: str
    record: int


class Erasures(Database):
    """Erasures in control.db."""

    def erase(
        self,
        target: ErasedRecord,
        moved: Iterable[SealedPage],
        resealed: Iterable[tuple[int, int, str, str]],
        clean: Callable[[str, str, str | None], str],
    ) -> int:
        """Begin an erasure: record the rewritten files and clean all other texts, in one transaction.

        Args:
            target: the record, and the run that erases it.
            moved: as `replace_pages` takes them.
            resealed: as `replace_pages` takes them.
            clean: gives the new text for a text, its column, and the id of the mutation whose row it is in, or None.

        Returns:
            The number of texts that changed.
        """
        self._db.execute("PRAGMA secure_delete = ON")
        with self.transaction() as db:
            update_pages(db, moved, resealed)
            db.execute(
                "INSERT INTO erasures (run_id, kind, record, at) VALUES (?, ?, ?, datetime('now'))",
                (target.run_id, target.kind, target.record),
            )
            return _clean_texts(db, clean)

    def begun_erasures(self, kind: str, record: int) -> int:
        """The number of erasures of a record that have begun and not finished."""
        query = "SELECT count(*) FROM erasures WHERE kind = ? AND record = ? AND removed IS NULL"
        return int(str(self.rows(query, kind, record)[0][0]))

    def finish_erasures(self, kind: str, record: int, removed: str) -> None:
        """Record what was removed (JSON), and remove all bytes of the earlier content from this file.

        Raises:
            StorageError: another process reads this file; the erasure is not finished.
        """
        with self._lock, storage_errors(self.path):
            self._db.execute("VACUUM")
            if self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                raise StorageError(
                    f"Another process reads {self.path}, so its old pages can't be removed yet.\n"
                    f"All else is done. Close that process and run the same command again."
                )
            with self.transaction() as db:
                db.execute(
                    "UPDATE erasures SET removed = ? WHERE kind = ? AND record = ? AND removed IS NULL",
                    (removed, kind, record),
                )


def _clean_texts(db: sqlite3.Connection, clean: Callable[[str, str, str | None], str]) -> int:
    """Clean all texts of all tables, apart from primary keys and the index of the archive; the number that changed.

    They include before-images and answers of changes, and receipts.
    """
    changed = 0
    tables = db.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'").fetchall()
    for (table,) in tables:
        columns = db.execute("SELECT name, type, pk FROM pragma_table_info(?)", (table,)).fetchall()
        keys = [column for column, _, key_position in columns if key_position]
        where = " AND ".join(f"{quoted(key)} = ?" for key in keys) if keys else "rowid = ?"
        chosen = quoted_list(keys) if keys else "rowid"
        mutation = "id" if table == "mutations" else "mutation" if "mutation" in keys else "NULL"
        texts = [name for name, kind, key_position in columns if kind in ("TEXT", "BLOB") and not key_position]
        for column in _OF_INDEX.get(table, texts):
            rows = db.execute(
                f"SELECT {quoted(column)}, {mutation}, {chosen} FROM {quoted(table)} WHERE {quoted(column)} IS NOT NULL"
            )
            for value, mutation_id, *key in rows.fetchall():
                text = value if isinstance(value, str) else value.decode("utf-8", "surrogateescape")
                if (new_text := clean(text, column, mutation_id)) != text:
                    new_value = new_text if isinstance(value, str) else new_text.encode("utf-8", "surrogateescape")
                    db.execute(f"UPDATE {quoted(table)} SET {quoted(column)} = ? WHERE {where}", (new_value, *key))
                    changed += 1
    return changed
