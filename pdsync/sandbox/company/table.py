"""Stores the records of one kind, each as the JSON that API v2 shows by default.

So a list page is a join of bytes, a million records fit in memory, and the state of a record before a write
is a value that the journal can store. Each row also has a few *facets* (owner, status, update_time, …): the values
to filter, sort and count by. Orders and indexes over facets are built on first use and updated by `put()` and
`remove()`, so the cost of a page grows with the logarithm of the table's length.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pdsync.sandbox.company.resources import Resource

Record = dict[str, Any]
Key = tuple[Any, int]  # value of the facet sorted by, id

encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder().decode


class Row(Struct, gc=False):
    """One record. Never changed in place: a write makes a new one."""

    id: int
    state: str  # live, archived, deleted; in a RemovedRow: the one before its removal
    body: bytes
    facets: tuple[Any, ...]
    extra: Record | None = None  # not part of the record: an activity's attendees, shown only on request

    @property
    def record(self) -> Record:
        record: Record = decode(self.body)
        return record


class RemovedRow(Struct, gc=False):
    """A record that no longer exists, and why: it was purged or merged."""

    row: Row
    state: str  # purged, merged
    merged_into: int | None = None


class Table:
    """The rows of one kind by id, with orders and indexes over their facets."""

    def __init__(self, resource: Resource) -> None:
        self.resource = resource
        self.rows: dict[int, Row] = {}
        self.removed: dict[int, RemovedRow] = {}
        self.deleted: set[int] = set()
        self.next_id = 1
        self.position = {facet: at for at, facet in enumerate(resource.facets)}
        self._orders: dict[str, list[Key]] = {}
        self._indexes: dict[str, dict[Any, dict[int, None]]] = {}
        self._zero = {"order_nr": 0, "id": 0}

    def __len__(self) -> int:
        return len(self.rows)

    def row(self, record: Record, state: str, extra: Record | None = None, hidden: Record | None = None) -> Row:
        """Make the row of `record` without storing it. `hidden`: facets that are not in the record."""
        source = {**record, **hidden} if hidden else record
        facets = tuple(source.get(facet) for facet in self.resource.facets)
        return Row(record["id"], state, encode(record), facets, extra)

    def facet(self, row: Row, name: str) -> Any:
        return row.facets[self.position[name]]

    def put(self, row: Row) -> None:
        """Store `row`, instead of the row with its id if there is one."""
        old = self.rows.get(row.id)
        self.rows[row.id] = row
        if row.id >= self.next_id:
            self.next_id = row.id + 1
        (self.deleted.add if row.state == "deleted" else self.deleted.discard)(row.id)
        self._reindex(old, row)

    def remove(self, id: int, state: str, merged_into: int | None = None) -> None:
        """Move a row to `removed`. `state`: purged or merged."""
        row = self.rows.pop(id)
        self.deleted.discard(id)
        self.removed[id] = RemovedRow(row, state, merged_into)
        self._reindex(row, None)

    def restore(self, removed: RemovedRow) -> None:
        """Undo `remove()`."""
        del self.removed[removed.row.id]
        self.put(removed.row)

    def order(self, by: str) -> list[Key]:
        """Every row's (value, id), ascending; a null sorts first.

        Assumption: the documents do not say where the API sorts a null.
        """
        order = self._orders.get(by)
        if order is None:
            index, zero = self.position[by], self._zero.get(by, "")
            order = sorted(
                (zero if (value := row.facets[index]) is None else value, row.id) for row in self.rows.values()
            )
            self._orders[by] = order
        return order

    def key(self, row: Row, by: str) -> Key:
        value = row.facets[self.position[by]]
        return (self._zero.get(by, "") if value is None else value, row.id)

    def ids_where(self, facet: str, value: Any) -> Iterable[int]:
        """Ids of the rows whose facet has this value, in any order: the index itself, so copy it before a write."""
        index = self._indexes.get(facet)
        if index is None:
            index, position = {}, self.position[facet]
            for row in self.rows.values():
                index.setdefault(row.facets[position], {})[row.id] = None
            self._indexes[facet] = index
        return index.get(value, {})

    def where(self, facet: str, value: Any) -> Iterator[Row]:
        return (self.rows[id] for id in self.ids_where(facet, value))

    def _reindex(self, old: Row | None, new: Row | None) -> None:
        for by, order in self._orders.items():
            old_key = None if old is None else self.key(old, by)
            new_key = None if new is None else self.key(new, by)
            if old_key != new_key:
                if old_key is not None:
                    del order[bisect_left(order, old_key)]
                if new_key is not None:
                    insort(order, new_key)
        for facet, index in self._indexes.items():
            position = self.position[facet]
            if old is not None:
                index.get(old.facets[position], {}).pop(old.id, None)
            if new is not None:
                index.setdefault(new.facets[position], {})[new.id] = None
