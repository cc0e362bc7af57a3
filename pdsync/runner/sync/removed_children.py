"""Finds rows that their parent's list no longer shows: a line item that was taken off a deal, a follower who left.

A row that is missing from a list is no evidence. It counts as gone where the source says so twice: the list of its
parent, read to its end, does not show it, and the parent's count is that of the rows that are left.
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
    """A row that its parent's list did not show."""

    key: str
    parent: str
    rows: int  # of its parent that are alive in the warehouse
    count: int  # that its parent shows


def find_missing(
    connection: duckdb.DuckDBPyConnection, stream: Stream, parent: Parent, walk: Walk, pages: Sequence[SealedPage]
) -> list[MissingChild]:
    """Live rows of the parents whose lists `walk` read, that those lists did not show.

    Args:
        connection: to the work file, into which the walk was loaded.
        stream: whose rows.
        parent: whose records each have a list, and count its rows.
        walk: the walk, at its end.
        pages: all of its pages.
    """
    if not pages or not {stream.name, parent.stream} <= warehouse.tables(connection):
        return []
    key, parents = quoted(stream.key), catalogue.stream(parent.stream)
    column, count = quoted(stream.parent_column(parent, walk.version) or ""), f"p.{quoted(parent.having or '')}"
    read = list({one for page in pages for one in _parents_of(page, parent)})
    rows = connection.execute(
        f"SELECT c.{key}::VARCHAR, c.{column}::VARCHAR, n.rows, {count} FROM {quoted('main', stream.name)} c"
        f" JOIN {quoted('main', parents.name)} p ON p.{quoted(parents.key)} = c.{column}"
        f" JOIN (SELECT {column} AS of, count(*) AS rows FROM {quoted('main', stream.name)}"
        f" WHERE _deleted_at IS NULL GROUP BY 1) n ON n.of = c.{column}"
        f" WHERE c._deleted_at IS NULL AND p._deleted_at IS NULL AND {count} IS NOT NULL AND c._verified_at < ?"
        f" AND c.{column}::VARCHAR IN (SELECT unnest(?::VARCHAR[])) ORDER BY 1",
        [pages[0].served_at, read],
    ).fetchall()
    return [MissingChild(str(one), str(owner), int(alive), int(count)) for one, owner, alive, count in rows]


def find_listed(
    connection: duckdb.DuckDBPyConnection, table: Table, source: Source, walk: Walk, pages: Sequence[Page]
) -> set[str]:
    """The keys that `pages` of a walk show, however old the shown versions are."""
    sweep = Sweep(connection, table, walk.id)
    try:
        sweep.add(source.name, catalogue.operations(walk.version)[walk.operation], pages)
        return {str(row[0]) for row in connection.execute(f"SELECT key FROM {sweep.relation}").fetchall()}
    finally:
        sweep.close()


def read_pages(raw: Path, pages: Sequence[SealedPage], parent: Parent, keys: Collection[str]) -> list[Page]:
    """Those pages of a walk that hold the list of one of the parents `keys`.

    Raises:
        StorageError: a page is damaged.
    """
    return [raw_archive.read_page(raw, page) for page in pages if not _parents_of(page, parent).isdisjoint(keys)]


def confirm_gone(parent: Parent, missing: Sequence[MissingChild], at: datetime) -> list[Tombstone]:
    """Tombstones for those of `missing` whose parent counts only the rows that are left without them."""
    lost = Counter(each.parent for each in missing)
    return [
        Tombstone(
            each.key,
            "deleted",
            f"{parent.stream}/{each.parent} no longer lists it, and its {parent.having} is {each.count}",
            at,
        )
        for each in missing
        if each.rows - lost[each.parent] == each.count
    ]


def _parents_of(page: SealedPage, parent: Parent) -> set[str]:
    """The keys of the parents whose lists a page answers for."""
    keys = msgspec.json.decode(page.context or "{}", type=dict[str, str]).get(parent.param)
    return set(keys.split(",")) if keys else set()
