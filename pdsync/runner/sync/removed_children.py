"""Finds what a record's own list shows no more: a line item that was taken off a deal, a follower who left.

That a list lacks a row proves nothing by itself. A row counts as gone where the source says so twice: the list of its
parent, read to its end, does not show it, and the parent's own count is that of the rows that are left.
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
    rows: int  # of its parent that are alive here
    count: int  # what its parent says


def absent(
    connection: duckdb.DuckDBPyConnection, stream: Stream, parent: Parent, walk: Walk, pages: Sequence[SealedPage]
) -> list[MissingChild]:
    """The rows of parents that `walk` asked for which have not been seen since.

    Args:
        connection: to the work file, into which the walk was loaded.
        stream: whose rows.
        parent: whose records have a list each, and count what is in it.
        walk: the walk, at its end.
        pages: all of its pages.
    """
    if not pages or not {stream.name, parent.stream} <= warehouse.tables(connection):
        return []
    key, above = quoted(stream.key), catalogue.stream(parent.stream)
    of, count = quoted(stream.parent_column(parent, walk.version) or ""), f"p.{quoted(parent.having or '')}"
    asked = list({one for page in pages for one in _parents(page, parent)})
    rows = connection.execute(
        f"SELECT c.{key}::VARCHAR, c.{of}::VARCHAR, n.rows, {count} FROM {quoted('main', stream.name)} c"
        f" JOIN {quoted('main', above.name)} p ON p.{quoted(above.key)} = c.{of}"
        f" JOIN (SELECT {of} AS of, count(*) AS rows FROM {quoted('main', stream.name)}"
        f" WHERE _deleted_at IS NULL GROUP BY 1) n ON n.of = c.{of}"
        f" WHERE c._deleted_at IS NULL AND p._deleted_at IS NULL AND {count} IS NOT NULL AND c._verified_at < ?"
        f" AND c.{of}::VARCHAR IN (SELECT unnest(?::VARCHAR[])) ORDER BY 1",
        [pages[0].served_at, asked],
    ).fetchall()
    return [MissingChild(str(one), str(of), int(here), int(says)) for one, of, here, says in rows]


def listed(
    connection: duckdb.DuckDBPyConnection, table: Table, source: Source, walk: Walk, pages: Sequence[Page]
) -> set[str]:
    """The keys that `pages` of a walk show, however old the shown versions are."""
    sweep = Sweep(connection, table, walk.id)
    try:
        sweep.add(source.name, catalogue.operations(walk.version)[walk.operation], pages)
        return {str(row[0]) for row in connection.execute(f"SELECT key FROM {sweep.relation}").fetchall()}
    finally:
        sweep.close()


def read(raw: Path, pages: Sequence[SealedPage], parent: Parent, keys: Collection[str]) -> list[Page]:
    """Those pages of a walk that answer for one of the parents `keys`.

    Raises:
        StorageError: a page is damaged.
    """
    return [raw_archive.read_page(raw, page) for page in pages if not _parents(page, parent).isdisjoint(keys)]


def gone(parent: Parent, absent: Sequence[MissingChild], at: datetime) -> list[Tombstone]:
    """Those of `absent` whose parent counts no more than what is left without them."""
    lost = Counter(each.parent for each in absent)
    return [
        Tombstone(
            each.key,
            "deleted",
            f"{parent.stream}/{each.parent} lists it no more, and its {parent.having} is {each.count}",
            at,
        )
        for each in absent
        if each.rows - lost[each.parent] == each.count
    ]


def _parents(page: SealedPage, parent: Parent) -> set[str]:
    """The keys of the parents whose lists a page answers for."""
    keys = msgspec.json.decode(page.context or "{}", type=dict[str, str]).get(parent.param)
    return set(keys.split(",")) if keys else set()
