"""What an operation does to which record, and how its effect can be read: all of it told by the paths of the catalogue.

    POST   /api/v2/deals                      adds to `deals`; getDeals lists them, getDeal reads one
    PATCH  /api/v2/deals/{id}                 updates one of `deals`
    DELETE /api/v2/deals/{id}/followers/{id}  deletes one of `deals/followers`, which only the list can show
    PUT    /v1/deals/{id}/merge               merges two of `deals`
    POST   /api/v2/projects/{id}/archive      something else: `effects` knows what shows that it was done

So an operation that is new in the catalogue can be queued, previewed and verified without a line of code.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from pdsync.core import catalogue

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pdsync.model import Operation, Stream, Verb, Version

_PLACE = re.compile(r"{(.+?)}")
_PREFIX = re.compile(r"^/(api/)?v[12]/")
_KEYS = ("id", "field_code", "uuid", "user_id")  # what a record is called by, in this order
ENDS = ("rel_owner_org_id", "rel_linked_org_id")  # the two that a relationship links
_BULK = ("ids",)  # parameters that name several records at once


class Shape(Struct, frozen=True):
    """What an operation does, and what shows that it was done."""

    verb: Verb
    kind: str  # of the record: "deals", "deals/products"
    places: tuple[str, ...] = ()  # the path's parameters, outermost first
    item: Operation | None = None  # reads one record; its path has the same places, and one more for "add"
    listing: Operation | None = None  # reads those of the same kind (and parent)

    relation: bool = False  # it ties two records together, and can come and go: it is called by one of the two

    @property
    def root(self) -> str:
        """The kind of the outermost record: a change of `deals/products` is one of a deal, too."""
        return self.kind.split("/", 1)[0]

    def target(self, params: Mapping[str, Any]) -> str | None:
        """Where the record is, such as `deals/12/products/7`; None as long as it, or what holds it, does not exist."""
        values = [params.get(place) for place in self.places]
        if any(value is None or isinstance(value, dict) for value in values):
            return None
        words = self.kind.split("/")
        parts: list[str] = []
        for index, word in enumerate(words):
            parts += [word, *([str(values[index])] if index < len(values) else [])]
        return "/".join(parts) if values else None


def shape(operation: Operation) -> Shape:
    """The shape of an operation that changes data."""
    return _shape(operation.version, operation.id)


@cache
def _shape(version: Version, id: str) -> Shape:
    operation = catalogue.operations(version)[id]
    tail = _tail(operation.path)
    places = tuple(_PLACE.findall(operation.path))
    words = [word for word in tail.split("/") if word != "{}"]
    if operation.method == "PUT" and tail.endswith("/{}/merge"):
        kind = "/".join(words[:-1])
        return Shape("merge", kind, places, *_reads(operation.version, kind, tail.removesuffix("/merge")))
    kind = "/".join(words)
    if tail.endswith("/{}") and operation.method in ("PUT", "PATCH", "DELETE"):
        verb: Verb = "delete" if operation.method == "DELETE" else "update"
        item, listing = _reads(operation.version, kind, tail)
        if item or listing or verb == "delete":
            return Shape(verb, kind, places, item, listing)
    if operation.method == "POST" and not operation.body_list:
        item, listing = _reads(operation.version, kind, f"{tail}/{{}}")
        if listing and (listing.paging != "none" or listing.records == "list"):
            return Shape("add", kind, places, item, listing, relation=_is_relation(operation))
    return Shape("other", kind, places)


def records_named(operation: Operation, params: Mapping[str, Any]) -> int:
    """How many records a request is about: the guards count each of them."""
    effect = catalogue.effects().get(operation.name)
    for name in (*_BULK, *([effect.names] if effect and effect.names else [])):
        value = params.get(name)
        if isinstance(value, list | str) and value:
            return len(value if isinstance(value, list) else value.split(","))
        if isinstance(value, dict):
            return sum(len(each) for each in value.values() if isinstance(each, list))
    body = params.get("body")
    return len(body) if operation.body_list and isinstance(body, list) else 1


@cache
def stream_of(kind: str) -> Stream | None:
    """The stream that lists records of `kind`: that of all of them, rather than one that asks parent by parent."""
    found = [
        (source.parent is not None, stream.optional, stream.name, stream)
        for stream in catalogue.streams().values()
        for version, sources in (("v2", stream.v2), ("v1", stream.v1))
        for source in sources
        if _kind(catalogue.operations(version)[source.operation].path) == kind
    ]
    return min(found, key=lambda each: each[:3])[3] if found else None


def row_key(stream: Stream, target: str) -> str:
    """The key of the row that holds the record at `target` in the table of `stream`."""
    ids = target.split("/")[1::2]
    return "/".join(ids) if stream.column(stream.key).join else ids[-1]


def link_to_itself(operation: Operation, params: Mapping[str, Any]) -> str | None:
    """In words, how a record would be merged with itself, linked to itself, or put under itself; None if it is not."""
    own = params.get(list(operation.path_params)[-1]) if operation.path_params else None
    for name, value in params.items():
        if value is None or name not in operation.body:
            continue
        is_own = own is not None and _same_id(value, own)
        if name == "merge_with_id" and is_own:
            return f"{_said(own)} can't be merged with itself"
        if name.startswith("parent_") and name.endswith("_id") and is_own:
            return f"{name}={_said(own)} would put it under itself"
    ends = [params.get(name) for name in ENDS]
    if ends[0] is not None and ends[1] is not None and _same_id(*ends):
        return f"{' and '.join(ENDS)} are both {_said(ends[0])}: it would be linked to itself"
    return None


def _same_id(one: Any, other: Any) -> bool:
    return str(one).strip() == str(other).strip()


def _said(id: Any) -> str:
    return "the new record" if not isinstance(id, str | int) else str(id)


def key_of(record: Mapping[str, Any]) -> str | None:
    """What a record is called by."""
    return next((str(record[key]) for key in _KEYS if record.get(key) is not None), None)


def adds_to(kind: str, version: Version) -> Operation | None:
    """The operation that adds records of `kind`."""
    return next((each for each in _writes(kind, version) if shape(each).verb == "add"), None)


def deletes_from(kind: str, version: Version) -> Operation | None:
    """The operation that deletes a record of `kind`."""
    return next((each for each in _writes(kind, version) if shape(each).verb == "delete"), None)


def _writes(kind: str, version: Version) -> list[Operation]:
    other: Version = "v1" if version == "v2" else "v2"
    return [
        each
        for place in (version, other)
        for each in catalogue.operations(place).values()
        if each.mutates and not each.removed and _kind(each.path) == kind
    ]


def _is_relation(operation: Operation) -> bool:
    """Whether an addition names nothing but a record to tie to another: a follower, a participant, an assignment."""
    return "{" in operation.path and bool(operation.body) and all(name.endswith("_id") for name in operation.body)


def _reads(version: Version, kind: str, path: str) -> tuple[Operation | None, Operation | None]:
    """What reads the record at `path`, and what lists those beside it; of the operation's own version if possible."""
    places: tuple[Version, ...] = ("v2", "v1") if version == "v2" else ("v1", "v2")
    item = next((found for place in places if (found := _get(place, path))), None)
    listing = next((found for place in places if (found := _get(place, path.removesuffix("/{}")))), None)
    if listing is None and item is None and "/" in kind:
        return None, None
    return item, listing


@cache
def _gets(version: Version) -> dict[str, Operation]:
    return {
        _tail(each.path): each
        for each in catalogue.operations(version).values()
        if each.method == "GET" and not each.removed and not each.binary
    }


def _get(version: Version, path: str) -> Operation | None:
    return _gets(version).get(path)


def _tail(path: str) -> str:
    return _PREFIX.sub("", _PLACE.sub("{}", path))


def _kind(path: str) -> str:
    return "/".join(word for word in _tail(path).split("/") if word != "{}")
