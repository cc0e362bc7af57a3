"""Keeps the records of one kind, each as the JSON that API v2 shows by default.

A list page is then a join of bytes, a million records fit in memory, and what a record was before a write
is a value one can keep. Beside the JSON stand a few *facets* (owner, status, update_time, …): the values one
filters, sorts and counts by. Orders and indexes over them are built when first asked for and then kept
true by `put()` and `remove()`, so that a page costs the logarithm of the table and not its length.
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
    state: str  # live, archived, deleted; purged or merged once it left the table
    body: bytes
    facets: tuple[Any, ...]
    extra: Record | None = None  # what is shown only when asked for: attendees, pictures, mail messages

    @property
    def record(self) -> Record:
        record: Record = decode(self.body)
        return record


class RemovedRow(Struct, gc=False):
    """A record that is gone for good, and why."""

    row: Row
    state: str  # purged, merged
    merged_into: int | None = None


class Table:
    def __init__(self, resource: Resource) -> None:
        self.resource = resource
        self.rows: dict[int, Row] = {}
        self.left: dict[int, RemovedRow] = {}
        self.deleted: set[int] = set()
        self.next_id = 1
        self.position = {facet: at for at, facet in enumerate(resource.facets)}
        self._orders: dict[str, list[Key]] = {}
        self._indexes: dict[str, dict[Any, dict[int, None]]] = {}
        self._zero = {"order_nr": 0, "id": 0}

    def __len__(self) -> int:
        return len(self.rows)

    def row(self, record: Record, state: str, extra: Record | None = None, hidden: Record | None = None) -> Row:
        """Make, not keep, the row of `record`. `hidden` holds facets that the record itself does not show."""
        source = {**record, **hidden} if hidden else record
        facets = tuple(source.get(facet) for facet in self.resource.facets)
        return Row(record["id"], state, encode(record), facets, extra)

    def facet(self, row: Row, name: str) -> Any:
        return row.facets[self.position[name]]

    def put(self, row: Row) -> None:
        old = self.rows.get(row.id)
        self.rows[row.id] = row
        if row.id >= self.next_id:
            self.next_id = row.id + 1
        (self.deleted.add if row.state == "deleted" else self.deleted.discard)(row.id)
        self._reindex(old, row)

    def remove(self, id: int, state: str, merged_into: int | None = None) -> None:
        row = self.rows.pop(id)
        self.deleted.discard(id)
        self.left[id] = RemovedRow(row, state, merged_into)
        self._reindex(row, None)

    def restore(self, left: RemovedRow) -> None:
        del self.left[left.row.id]
        self.put(left.row)

    def order(self, by: str) -> list[Key]:
        """Every row's (value, id), ascending; a null sorts first.

        Assumption: nothing says where the API sorts a null.
        """
        order = self._orders.get(by)
        if order is None:
            at, zero = self.position[by], self._zero.get(by, "")
            order = sorted((zero if (value := row.facets[at]) is None else value, row.id) for row in self.rows.values())
            self._orders[by] = order
        return order

    def key(self, row: Row, by: str) -> Key:
        value = row.facets[self.position[by]]
        return (self._zero.get(by, "") if value is None else value, row.id)

    def ids_where(self, facet: str, value: Any) -> Iterable[int]:
        """Ids of the rows whose facet has this value, in no promised order."""
        index = self._indexes.get(facet)
        if index is None:
            index, at = {}, self.position[facet]
            for row in self.rows.values():
                index.setdefault(row.facets[at], {})[row.id] = None
            self._indexes[facet] = index
        return index.get(value, {})

    def where(self, facet: str, value: Any) -> Iterator[Row]:
        return (self.rows[id] for id in self.ids_where(facet, value))

    def _reindex(self, old: Row | None, new: Row | None) -> None:
        for by, order in self._orders.items():
            was = None if old is None else self.key(old, by)
            is_ = None if new is None else self.key(new, by)
            if was != is_:
                if was is not None:
                    del order[bisect_left(order, was)]
                if is_ is not None:
                    insort(order, is_)
        for facet, index in self._indexes.items():
            at = self.position[facet]
            if old is not None:
                index.get(old.facets[at], {}).pop(old.id, None)
            if new is not None:
                index.setdefault(new.facets[at], {})[new.id] = None
