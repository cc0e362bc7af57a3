"""Finds rows that are missing from their parent's list: a line item that was removed from a deal, a former follower.

A row that is missing from a list is no evidence. It counts as deleted if the source shows it twice: it is missing from
the list of its parent, read to its end, and the parent's count equals the number of the other rows.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from pdsync.core import catalogue
from pdsync.extract import raw_archive
from pdsync.load import warehouse
from pdsync.model import Tombstone
from pdsync.reconcile.sweep import Sweep
from pdsync.sql import quoted

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime
    from pathlib import Path

    import duckdb

    from pdsync.core.control import SealedPage
    from pdsync.model import Page, Parent, Source, Stream, Walk
    from pdsync.normalise.tables import Table


class MissingChild(Struct, frozen=True):
    """A row that is missing from its parent's list."""

    key: str
    parent: str
    rows: int  # of its parent that are not deleted in the warehouse
    count: int  # of its parent, by the source


def find_missing(
    connection: duckdb.DuckDBPyConnection, stream: Stream, parent: Parent, walk: Walk, pages: Sequence[SealedPage]
) -> list[MissingChild]:
    """Live rows that `walk` has not verified in the lists of their parents.

    They are missing there, unless `find_listed` finds them: the list may have shown an older version.

    Args:
        connection: to the work file, into which the walk was loaded.
        stream: of the rows.
        parent: its records each have a list of rows, and count them.
        walk: was read to its end.
        pages: all of its pages.
    """
    if not pages or not {stream.name, parent.stream} <= warehouse.tables(connection):
        return []
    key, parent_stream = quoted(stream.key), catalogue.stream(parent.stream)
    column, count = quoted(stream.parent_column(parent, walk.version) or ""), f"p.{quoted(parent.having or '')}"
    parent_keys = list({key for page in pages for key in _parents_of(page, parent)})
    rows = connection.execute(
        f"SELECT c.{key}::VARCHAR, c.{column}::VARCHAR, n.rows, {count} FROM {quoted('main', stream.name)} c"
        f" JOIN {quoted('main', parent_stream.name)} p ON p.{quoted(parent_stream.key)} = c.{column}"
        f" JOIN (SELECT {column} AS parent, count(*) AS rows FROM {quoted('main', stream.name)}"
        f" WHERE _deleted_at IS NULL GROUP BY 1) n ON n.parent = c.{column}"
        f" WHERE c._deleted_at IS NULL AND p._deleted_at IS NULL AND {count} IS NOT NULL AND c._verified_at < ?"
        f" AND c.{column}::VARCHAR IN (SELECT unnest(?::VARCHAR[])) ORDER BY 1",
        [pages[0].served_at, parent_keys],
    ).fetchall()
    return [MissingChild(str(row[0]), str(row[1]), int(row[2]), int(row[3])) for row in rows]


def find_listed(
    connection: duckdb.DuckDBPyConnection, table: Table, source: Source, walk: Walk, pages: Sequence[Page]
) -> set[str]:
    """The keys in `pages` of a walk, however old the versions of the records are."""
    sweep = Sweep(connection, table, walk.id)
    try:
        sweep.add(source.name, catalogue.operations(walk.version)[walk.operation], pages)
        return {str(row[0]) for row in connection.execute(f"SELECT key FROM {sweep.relation}").fetchall()}
    finally:
        sweep.close()


def read_pages(raw: Path, pages: Sequence[SealedPage], parent: Parent, keys: Collection[str]) -> list[Page]:
    """The pages of a walk that contain the list of one of the parents `keys`.

    Raises:
        StorageError: a page is damaged.
    """
    return [raw_archive.read_page(raw, page) for page in pages if not _parents_of(page, parent).isdisjoint(keys)]


def confirm_gone(parent: Parent, missing: Sequence[MissingChild], at: datetime) -> list[Tombstone]:
    """Tombstones for those of `missing` whose parent's count equals the number of its other rows."""
    missing_rows = Counter(each.parent for each in missing)
    return [
        Tombstone(
            each.key,
            "deleted",
            f"{parent.stream}/{each.parent} no longer lists it, and its {parent.having} is {each.count}",
            at,
        )
        for each in missing
        if each.rows - missing_rows[each.parent] == each.count
    ]


def _parents_of(page: SealedPage, parent: Parent) -> set[str]:
    """The keys of the parents whose lists a page contains."""
    keys = msgspec.json.decode(page.context or "{}", type=dict[str, str]).get(parent.param)
    return set(keys.split(",")) if keys else set()
