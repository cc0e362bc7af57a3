"""Reads schemas/report: one file a figure of the report, with its query, its sentence and its Vega-Lite spec.

The folder `fleet` in it has the figures of the report over all accounts of a fleet. `compiled.json` in each has the
same specs as Vega, which is what the page draws; `python -m tests.charts` writes it.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import Struct

from pdsync.core import catalogue
from pdsync.errors import CatalogueError

if TYPE_CHECKING:
    from pathlib import Path

Format = Literal["text", "count", "number", "money", "percent", "day", "month", "time"]


class Column(Struct, frozen=True, forbid_unknown_fields=True):
    """A column of the figure's table."""

    name: str  # of the query
    title: str
    format: Format


class Chart(Struct, frozen=True, forbid_unknown_fields=True):
    """A figure of the report. One without a spec is a table only."""

    name: str
    order: int
    section: Literal["health", "sales"]
    title: str
    view: str  # what it shows, and where to look further: `sales.funnel`
    sentence: str  # a template of `rows` and `currency` that says the most important number
    empty: str  # what to say if there is no row
    columns: tuple[Column, ...]
    query: tuple[str, ...] = ()  # lines of SQL; `$since` is the first day of the report
    source: Literal["", "freshness", "budget"] = ""  # where the rows are from if there is no query
    by_currency: bool = False  # a figure for each of the most used currencies, by the column `currency`
    spec: dict[str, Any] | None = None


@cache
def charts(folder: str = "") -> tuple[Chart, ...]:
    """All figures in the order of the page.

    Args:
        folder: in schemas/report: `fleet`; empty: those of one project.

    Raises:
        CatalogueError: an entry can't be understood.
    """
    read = [_read(path) for path in sorted((_folder() / folder).glob("*.vl.json"))]
    return tuple(sorted(read, key=lambda chart: chart.order))


def compiled(name: str) -> dict[str, Any]:
    """The Vega spec of the figure; its data set `rows` has no values yet."""
    folder = "fleet" if name.startswith("fleet_") else ""
    spec: dict[str, Any] = _compiled(folder)["charts"][name]["spec"]
    return spec


def _read(path: Path) -> Chart:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Chart)
    except msgspec.DecodeError as error:
        raise CatalogueError(f"schemas/report/{path.name}: {error}.") from error


@cache
def _compiled(folder: str) -> dict[str, Any]:
    content: dict[str, Any] = msgspec.json.decode((_folder() / folder / "compiled.json").read_bytes())
    return content


def _folder() -> Path:
    return catalogue.schemas() / "report"
