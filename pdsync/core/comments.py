"""Reads the comments of schemas/: what each table and column is, its unit, and what it references.

A stream says only what differs from schemas/columns.toml; an element of a list is looked up as `options.label` and then
as `label`. The tables of schema meta are in schemas/warehouse/meta.toml.
"""

from __future__ import annotations

import tomllib
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from msgspec import Struct

from pdsync.core import catalogue

if TYPE_CHECKING:
    from pdsync.model import Stream

T = TypeVar("T", bound=Struct)
_EARLIER = "Column of an earlier version of pdsync; it is not filled any more."


class Defaults(Struct, frozen=True, forbid_unknown_fields=True):
    """Comments of columns that many tables have: column → comment."""

    system: dict[str, str]  # of the columns that pdsync adds
    items: dict[str, str]  # of elements of lists
    columns: dict[str, str]  # of records
    sales: dict[str, str]  # of building blocks of schema sales


class MetaTable(Struct, frozen=True, forbid_unknown_fields=True):
    """A table of schema meta."""

    comment: str
    columns: dict[str, str] = {}


class Meta(Struct, frozen=True, forbid_unknown_fields=True):
    """The tables of schema meta by name, and the comments of columns that several of them have."""

    columns: dict[str, str]
    tables: dict[str, MetaTable]


@cache
def defaults() -> Defaults:
    """The comments that tables share.

    Raises:
        CatalogueError: the file has an unknown key, lacks one, or has a value of the wrong type.
    """
    return _read("columns.toml", Defaults)


@cache
def meta() -> Meta:
    """The comments of schema meta.

    Raises:
        CatalogueError: the file has an unknown key, lacks one, or has a value of the wrong type.
    """
    return _read("warehouse/meta.toml", Meta)


def _read(file: str, kind: type[T]) -> T:
    entry = tomllib.loads((catalogue.schemas() / file).read_text(encoding="utf-8"))
    return catalogue.read(entry, kind, f"schemas/{file}")


def of_column(stream: Stream, name: str) -> str:
    """The comment of a column of the table of `stream` that is no custom field."""
    shared = defaults()
    if name in shared.system:
        return shared.system[name]
    if name not in stream.columns:
        return _EARLIER
    if joined := stream.column(name).join:
        return f"Key of the record, which has none of its own: {', '.join(joined)}, with / between them."
    return stream.comments.get(name) or shared.columns[name]


def of_element(stream: Stream, column: str, name: str) -> str:
    """The comment of `name` in the elements of the list `column` of `stream`."""
    qualified, shared = f"{column}.{name}", defaults().items
    return stream.comments.get(qualified) or shared.get(qualified) or shared[name]


def of_meta(table: str, column: str) -> str:
    """The comment of a column of schema meta; empty if there is none."""
    shared = meta()
    described = shared.tables.get(table)
    return (described.columns.get(column) if described else None) or shared.columns.get(column, "")
