"""Reads schemas/views: one file a view, with its query, its comments and the question that it answers.

A view is created where all tables and views that it needs exist. An entry may have several queries: the first one whose
needs are met is taken, so that a view can use an optional stream and do without it.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from msgspec import Struct

from pdsync.core import catalogue
from pdsync.errors import CatalogueError

if TYPE_CHECKING:
    from collections.abc import Collection

# These stand in a query for string constants:
TIMEZONE = "{timezone}"  # the zone in which days are cut: the chosen one, else the user's
CHOSEN_TIMEZONE = "{chosen_timezone}"  # that of the setting sales.timezone; NULL if it is empty
USER_TIMEZONE = "{user_timezone}"  # that of the token's user, in which Pipedrive cuts its own statistics


class Query(Struct, frozen=True, forbid_unknown_fields=True):
    """One way to compute a view."""

    sql: str
    needs: tuple[str, ...] = ()  # streams by name, views with their schema: `deals`, `sales.stage_visits`


class View(Struct, frozen=True, forbid_unknown_fields=True):
    """A view or table macro. Its name tells the schema too: `sales.funnel`."""

    name: str
    comment: str  # what a row is, definition, edges
    queries: tuple[Query, ...]
    columns: dict[str, str] = {}  # column → its comment: definition and unit
    question: str = ""  # what it answers; empty: a building block, not listed
    insights: str = ""  # Pipedrive's own report of that kind, and how it differs
    parameters: tuple[str, ...] = ()  # a table macro takes these
    stored_in: str = ""  # the table that keeps its rows, recomputed for the deals that changed

    @property
    def schema(self) -> str:
        """Where it is: `sales` or `meta`."""
        return self.name.partition(".")[0]

    @property
    def base_name(self) -> str:
        """Its name without the schema."""
        return self.name.partition(".")[2]

    @property
    def call(self) -> str:
        """What follows FROM in a query: the name, with the parameters of a macro."""
        return f"{self.name}({', '.join(self.parameters)})" if self.parameters else self.name

    def choose_query(self, existing: Collection[str]) -> Query | None:
        """The first query of which everything needed is in `existing`; None where there is none."""
        return next((query for query in self.queries if set(query.needs) <= set(existing)), None)


def view(file: str) -> View:
    """The view in the file of that name in schemas/views, without reading the others or checking what it needs."""
    ((where, entry),) = catalogue.files("views", file)
    return catalogue.read(entry, View, where)


@cache
def views() -> dict[str, View]:
    """All views by name, each after those that it needs. The dict is shared.

    Raises:
        CatalogueError: an entry can't be understood, needs what doesn't exist, or needs itself.
    """
    read = {}
    for where, entry in catalogue.files("views"):
        view = catalogue.read(entry, View, where)
        if view.name in read or view.schema not in ("sales", "meta"):
            raise CatalogueError(f"{where}: the name {view.name!r} is taken, or is not of schema sales or meta.")
        read[view.name] = view
    ordered: dict[str, View] = {}
    while waiting := [view for name, view in read.items() if name not in ordered]:
        ready = [view for view in waiting if not _views_needed(view, read) - ordered.keys()]
        if not ready:
            raise CatalogueError(f"schemas/views: {', '.join(view.name for view in waiting)} need each other.")
        ordered |= {view.name: view for view in ready}
    return ordered


def _views_needed(view: View, read: dict[str, View]) -> set[str]:
    """The views that any query of `view` needs."""
    needed = {need for query in view.queries for need in query.needs}
    for need in needed:
        if need not in read and need not in catalogue.streams():
            raise CatalogueError(f"schemas/views: {view.name} needs {need!r}, which is no stream and no view.")
    return needed & read.keys()
