"""The operations as the vendor's documents describe them (data/api.json), and the kinds of record they are about.

Paths name the collections: their operations follow from method and path, as in any REST API.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from pdsync.sandbox.company.data import api
from pdsync.sandbox.operations.collections import ALIASES, KINDS, Kind

if TYPE_CHECKING:
    from pdsync.sandbox.company.table import Record


class DocumentedOperation(Struct):
    """One operation, as the documents describe it."""

    method: str
    path: str
    cost: int
    paging: str
    status: int
    query: list[str]
    answer: dict[str, Any]
    needed: list[str] = []
    body: Any = None
    required: list[str] = []
    content: str = "application/json"

    @property
    def parts(self) -> tuple[str, ...]:
        parts = tuple(self.path.strip("/").split("/"))
        return parts[2:] if parts[0] == "api" else parts[1:]

    @property
    def item(self) -> Record:
        """The shape of one record."""
        data = self.answer.get("data")
        if isinstance(data, dict) and self.holder:
            data = data[self.holder]
        if isinstance(data, list):
            data = data[0] if data else {}
        if isinstance(data, dict) and self.wrapper:
            data = data[self.wrapper]
        return data if isinstance(data, dict) else {}

    @property
    def wrapper(self) -> str | None:
        """The key of `data` that holds the one record, where `data` itself is not it."""
        data = self.answer.get("data")
        alone = isinstance(data, dict) and len(data) == 1 and isinstance(next(iter(data.values())), dict)
        return next(iter(data)) if isinstance(data, dict) and alone else None

    @property
    def holder(self) -> str | None:
        """The key of `data` that holds the list, where `data` itself is not it."""
        data = self.answer.get("data")
        lists = [key for key, value in data.items() if isinstance(value, list)] if isinstance(data, dict) else []
        return lists[0] if isinstance(data, dict) and len(data) == 1 and lists else None


@functools.cache
def operations() -> dict[str, DocumentedOperation]:
    """Every operation of the documents by version and id."""
    return msgspec.convert(api(), dict[str, DocumentedOperation])


@functools.cache
def kind_of(parts: tuple[str, ...]) -> Kind:
    """The kind of record that the collection at a path holds."""
    parts = ALIASES.get(parts, parts)
    inside = (parts[0], "{}", *parts[1:])  # deals/products: the products of several deals
    if parts in KINDS or inside in KINDS:
        return KINDS.get(parts) or KINDS[inside]
    return Kind("_".join(part for part in parts if part != "{}"), few=3)


@functools.cache
def shape_of(kind: str) -> Record:
    """Every key that any version shows of a record of this kind."""
    shape: Record = {}
    for read in _reads_by_kind().get(kind, ()):
        shape |= {name: value for name, value in read.item.items() if name not in shape or "|" in str(value)}
    return shape


@functools.cache
def _reads_by_kind() -> dict[str, list[DocumentedOperation]]:
    reads: dict[str, list[DocumentedOperation]] = {}
    for operation in operations().values():
        if operation.method == "GET":
            reads.setdefault(kind_of(split(operation)[0]).name, []).append(operation)
    return reads


def pattern(parts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple("{}" if part.startswith("{") else part for part in parts)


def split(facts: DocumentedOperation) -> tuple[tuple[str, ...], bool]:
    """The collection that an operation is about, and whether it is about one of its records."""
    parts = pattern(facts.parts)
    parts = ALIASES.get(parts, parts)
    if parts[-1] == "{}":
        return ALIASES.get(parts[:-1], parts[:-1]), True
    return parts, False
