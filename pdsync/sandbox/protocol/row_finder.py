"""Finds the rows of a page.

A v2 page starts where its cursor points in a kept order and takes what matches; when a filter leaves few rows
(a window of update_time, a link, ids), those are sorted instead of the table being walked. A v1 page is a cut
out of the whole result, which is remembered until the company changes.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Any

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pdsync.sandbox.company.company import Company, Viewer
    from pdsync.sandbox.company.table import Key, Row, Table

    Overlay = dict[int, Row | None]

LINKS = ("person_id", "org_id", "deal_id", "lead_id")
FEW = 4  # a candidate set below a quarter of the table is sorted rather than looked for
MOST_REMEMBERED = 8


LISTED = ("live",)
DEFAULT_LIMIT = 100


class Selection(Struct, frozen=True, kw_only=True):
    """Which rows, in which order."""

    equal: tuple[tuple[str, Any], ...] = ()  # facet, value
    ids: frozenset[int] | None = None
    states: tuple[str, ...] = LISTED
    statuses: frozenset[str] | None = None  # of deals; None is any
    since: str | None = None  # update_time from this time on …
    until: str | None = None  # … and before this one
    sort: tuple[tuple[str, bool], ...] = (("id", False),)  # facet or key, descending
    first_char: str = ""


class Page(Struct, frozen=True):
    limit: int = DEFAULT_LIMIT
    after: tuple[Any, int] | None = None  # cursor: (value, id) of the last row seen
    start: int = 0


class Finder:
    def __init__(self, company: Company) -> None:
        self.company = company
        self._remembered: dict[Any, list[int]] = {}
        self._sorted: dict[Any, list[Key]] = {}
        self._version = -1

    def after(
        self, table: Table, selection: Selection, page: Page, viewer: Viewer, *, overlay: Overlay | None = None
    ) -> tuple[list[Row], bool]:
        """The rows after the cursor, and whether there are more."""
        matches = matcher(table, selection, viewer, self.company)
        wanted: list[Row] = []
        for row in self._walk(table, selection, page.after, overlay):
            if matches(row):
                if len(wanted) == page.limit:
                    return wanted, True
                wanted.append(row)
        return wanted, False

    def cut(
        self, table: Table, selection: Selection, page: Page, viewer: Viewer, *, overlay: Overlay | None = None
    ) -> tuple[list[Row], bool]:
        """Rows `start` to `start + limit`, and whether there are more."""
        self._refresh()
        sees = (viewer.name, viewer.admin, viewer.group, frozenset(viewer.hidden_pipelines))
        key = (table.resource.kind, selection, sees)
        found = self._remembered.get(key)
        rows = _overlaid(table, overlay)
        if found is None or overlay is not None:
            found = self._all(table, rows, selection, viewer)
            if overlay is None:
                if len(self._remembered) >= MOST_REMEMBERED:
                    self._remembered.pop(next(iter(self._remembered)))
                self._remembered[key] = found
        end = page.start + page.limit
        return [rows[id] for id in found[page.start : end]], len(found) > end

    def _all(self, table: Table, rows: dict[int, Row], selection: Selection, viewer: Viewer) -> list[int]:
        matches = matcher(table, selection, viewer, self.company)
        found = [row for row in rows.values() if matches(row)]
        for by, descending in reversed(selection.sort):
            found.sort(key=_sort_value(table, by), reverse=descending)
        return [row.id for row in found]

    def _walk(
        self,
        table: Table,
        selection: Selection,
        after: Key | None,
        overlay: Overlay | None,
    ) -> Iterator[Row]:
        by, descending = selection.sort[0]
        rows = _overlaid(table, overlay)
        candidates: Iterable[int] | None = rows if overlay is not None else self._few(table, selection)
        if candidates is None:
            order = table.order(by)
            low, high = 0, len(order)
            if by == "update_time":
                low, high = _bounds(order, selection)
        else:
            order = self._in_order(table, selection, candidates, overlay)
            low, high = 0, len(order)
        if after is not None:
            if descending:
                high = min(high, bisect_left(order, after))
            else:
                low = max(low, bisect_right(order, after))
        span = range(high - 1, low - 1, -1) if descending else range(low, high)
        return (rows[order[at][1]] for at in span)

    def _in_order(
        self,
        table: Table,
        selection: Selection,
        candidates: Iterable[int],
        overlay: Overlay | None,
    ) -> list[Key]:
        rows, by = _overlaid(table, overlay), selection.sort[0][0]
        self._refresh()
        key = (table.resource.kind, selection)
        order = self._sorted.get(key)
        if order is None or overlay is not None:
            order = sorted(table.key(rows[id], by) for id in candidates if id in rows)
            if overlay is None:
                if len(self._sorted) >= MOST_REMEMBERED:
                    self._sorted.pop(next(iter(self._sorted)))
                self._sorted[key] = order
        return order

    def _refresh(self) -> None:
        """Forget what the last change made untrue."""
        if self._version != self.company.version:
            self._remembered.clear()
            self._sorted.clear()
            self._version = self.company.version

    def _few(self, table: Table, selection: Selection) -> Iterable[int] | None:
        """Ids among which all matches are, when they are few."""
        if selection.ids is not None:
            return selection.ids
        for facet, value in selection.equal:
            if facet in LINKS:
                return table.ids_where(facet, value)
        if (selection.since or selection.until) and selection.sort[0][0] != "update_time":  # else they are in order
            order = table.order("update_time")
            low, high = _bounds(order, selection)
            if (high - low) * FEW < len(table):
                return [id for _, id in order[low:high]]
        if selection.states == ("deleted",):
            return table.deleted
        return None


def matcher(table: Table, selection: Selection, viewer: Viewer, company: Company) -> Callable[[Row], bool]:
    """One function for all the conditions but the order."""
    states, since, until, ids = selection.states, selection.since, selection.until, selection.ids
    updated = table.position.get("update_time", 0)
    status = table.position.get("status", 0)
    name = table.position.get("name")
    equal = [(table.position[facet], value) for facet, value in selection.equal]
    statuses = selection.statuses
    sees = visibility(table, viewer, company)
    char = selection.first_char

    def matches(row: Row) -> bool:
        if row.state not in states:
            return False
        if ids is not None and row.id not in ids:
            return False
        facets = row.facets
        for at, value in equal:
            if facets[at] != value:
                return False
        if since is not None or until is not None:
            # Assumption: a record without update_time is in no window.
            when = facets[updated]
            if when is None or (since is not None and when < since) or (until is not None and when >= until):
                return False
        if statuses is not None and row.state != "deleted" and facets[status] not in statuses:
            return False
        if char and name is not None and (facets[name] or "")[:1].lower() != char:
            return False
        return sees is None or sees(row)

    return matches


def visibility(table: Table, viewer: Viewer, company: Company) -> Callable[[Row], bool] | None:
    """What `viewer` may see: None is everything.

    Assumption: visible_to 7 is everyone, 3 and 5 the owner's group, 1 the owner; a hidden pipeline hides its
    deals and stages; kinds without visible_to are open to all, except that mail is its owner's.
    """
    owner, level = table.position.get(table.resource.owner), table.position.get("visible_to")
    pipeline = table.position["id"] if table.resource.kind == "pipelines" else table.position.get("pipeline_id")
    hidden = viewer.hidden_pipelines
    if table.resource.kind == "mail_threads":
        return lambda row: row.facets[owner or 0] == viewer.user_id
    if viewer.admin and not hidden:
        return None

    def sees(row: Row) -> bool:
        if hidden and pipeline is not None and row.facets[pipeline] in hidden:
            return False
        if viewer.admin or level is None or owner is None or row.facets[level] == 7:
            return True
        if row.facets[owner] == viewer.user_id:
            return True
        return row.facets[level] != 1 and company.groups.get(row.facets[owner]) == viewer.group

    return sees


def _overlaid(table: Table, overlay: Overlay | None) -> dict[int, Row]:
    if not overlay:
        return table.rows
    merged: dict[int, Any] = {**table.rows, **overlay}
    return {id: row for id, row in merged.items() if row is not None}


def _bounds(order: list[Key], selection: Selection) -> tuple[int, int]:
    low = bisect_left(order, (selection.since, 0)) if selection.since else 0
    high = bisect_left(order, (selection.until, 0)) if selection.until else len(order)
    return low, max(low, high)


def _sort_value(table: Table, by: str) -> Callable[[Row], tuple[int, Any]]:
    at = table.position.get(by)
    if at is not None:
        return lambda row: _ranked(row.facets[at])
    return lambda row: _ranked(row.record.get(by))


def _ranked(value: Any) -> tuple[int, Any]:
    """Nulls, then numbers, then texts: no two ranks are ever compared by value."""
    if value is None:
        return 0, 0
    return (1, value) if isinstance(value, int | float) else (2, str(value))
