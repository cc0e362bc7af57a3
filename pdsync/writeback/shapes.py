"""Derives from the paths of the catalogue what an operation does to which record, and how its effect can be read.

    POST   /api/v2/deals                      adds to `deals`; getDeals lists them, getDeal reads one
    PATCH  /api/v2/deals/{id}                 updates one of `deals`
    DELETE /api/v2/deals/{id}/followers/{id}  deletes one of `deals/followers`, which only the list shows
    PUT    /v1/deals/{id}/merge               merges two of `deals`
    POST   /api/v2/projects/{id}/archive      something else: schemas/effects.toml says what shows that it was done

An operation that is new in the catalogue can be queued, previewed and verified without new code.
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

_PATH_PARAM = re.compile(r"{(.+?)}")
_CODE = re.compile(r"[0-9a-f]{40}")  # of a custom field
_PREFIX = re.compile(r"^/(api/)?v[12]/")
_KEYS = ("id", "field_code", "uuid", "user_id")  # fields that identify a record; the first that it has counts
LINKED_RECORDS = ("rel_owner_org_id", "rel_linked_org_id")  # that a relationship of organizations links
_BULK = ("ids",)  # parameters that take several records at once


class Shape(Struct, frozen=True):
    """What an operation does, and what shows that it was done."""

    verb: Verb
    kind: str  # of the record: "deals", "deals/products"
    path_params: tuple[str, ...] = ()  # of the operation, outermost first
    item: Operation | None = None  # reads one record; of an addition, its path has one parameter more
    listing: Operation | None = None  # lists the records of the same kind and parent
    relation: bool = False  # it links two records; it has the id of one of them, and can be added again

    @property
    def root(self) -> str:
        """The kind of the outermost record: a change of `deals/products` is one of a deal, too."""
        return self.kind.split("/", 1)[0]

    def target(self, params: Mapping[str, Any]) -> str | None:
        """The path of the record, such as `deals/12/products/7`; of an addition, that of its list: `deals/12/products`.

        None if a record of the path does not exist yet, or if the operation's path has no parameter.
        """
        values = [params.get(name) for name in self.path_params]
        if any(value is None or isinstance(value, dict) for value in values):
            return None
        parts: list[str] = []
        for index, segment in enumerate(self.kind.split("/")):
            parts += [segment, *([str(values[index])] if index < len(values) else [])]
        return "/".join(parts) if values else None


def shape(operation: Operation) -> Shape:
    """The shape of an operation that changes data."""
    return _shape(operation.version, operation.id)


@cache
def _shape(version: Version, id: str) -> Shape:
    operation = catalogue.operations(version)[id]
    tail = _strip_prefix(operation.path)
    path_params = tuple(_PATH_PARAM.findall(operation.path))
    segments = [segment for segment in tail.split("/") if segment != "{}"]
    if operation.method == "PUT" and tail.endswith("/{}/merge"):
        kind = "/".join(segments[:-1])
        return Shape("merge", kind, path_params, *_find_reads(operation.version, kind, tail.removesuffix("/merge")))
    kind = "/".join(segments)
    if tail.endswith("/{}") and operation.method in ("PUT", "PATCH", "DELETE"):
        verb: Verb = "delete" if operation.method == "DELETE" else "update"
        item, listing = _find_reads(operation.version, kind, tail)
        if item or listing or verb == "delete":
            return Shape(verb, kind, path_params, item, listing)
    if operation.method == "POST" and not operation.body_list:
        item, listing = _find_reads(operation.version, kind, f"{tail}/{{}}")
        if listing and (listing.paging != "none" or listing.records == "list"):
            return Shape("add", kind, path_params, item, listing, relation=_is_relation(operation))
    return Shape("other", kind, path_params)


def count_records(operation: Operation, params: Mapping[str, Any]) -> int:
    """How many records a request changes: the guards count each of them."""
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
def find_stream(kind: str) -> Stream | None:
    """The stream of records of `kind`: preferably one that lists all of them, not one with a request per parent."""
    found = [
        (source.parent is not None, stream.optional, stream.name, stream)
        for stream in catalogue.streams().values()
        for version, sources in (("v2", stream.v2), ("v1", stream.v1))
        for source in sources
        if _find_kind(catalogue.operations(version)[source.operation].path) == kind
    ]
    return min(found, key=lambda each: each[:3])[3] if found else None


def row_key(stream: Stream, target: str) -> str:
    """The key of the row of the record at `target` in the table of `stream`."""
    ids = target.split("/")[1::2]
    return "/".join(ids) if stream.column(stream.key).join else ids[-1]


def is_field_of_record(operation: Operation, name: str) -> bool:
    """Whether the record that an operation changes may show a field `name`, as `equality.fields` names it."""
    shaped = shape(operation)
    stream, add = find_stream(shaped.kind), find_add_operation(shaped.kind, operation.version)
    code = name.removeprefix("custom_fields/") if operation.version == "v2" else name
    is_custom = bool(_CODE.match(code)) and (operation.version == "v1" or code != name)
    if stream is None or is_custom or name in operation.body or (add and name in add.body):
        return True
    return any(stream.column(each).path(each, operation.version).split("/")[0] == name for each in stream.columns)


def describe_self_link(operation: Operation, params: Mapping[str, Any]) -> str | None:
    """How an operation would merge a record with itself, link it to itself or make it its own parent; None if not."""
    own = params.get(list(operation.path_params)[-1]) if operation.path_params else None
    for name, value in params.items():
        if value is None or name not in operation.body:
            continue
        is_own = own is not None and _is_same_id(value, own)
        if name == "merge_with_id" and is_own:
            return f"{_describe_id(own)} can't be merged with itself"
        if name.startswith("parent_") and name.endswith("_id") and is_own:
            return f"{name}={_describe_id(own)} would put it under itself"
    linked = [params.get(name) for name in LINKED_RECORDS]
    if linked[0] is not None and linked[1] is not None and _is_same_id(*linked):
        return f"{' and '.join(LINKED_RECORDS)} are both {_describe_id(linked[0])}: it would be linked to itself"
    return None


def _is_same_id(one: Any, other: Any) -> bool:
    return str(one).strip() == str(other).strip()


def _describe_id(id: Any) -> str:
    return "the new record" if not isinstance(id, str | int) else str(id)


def record_key(record: Mapping[str, Any]) -> str | None:
    """The id or code that identifies a record; None if it has none."""
    return next((str(record[key]) for key in _KEYS if record.get(key) is not None), None)


def find_add_operation(kind: str, version: Version) -> Operation | None:
    """The operation that adds records of `kind`."""
    return next((each for each in _list_writes(kind, version) if shape(each).verb == "add"), None)


def find_delete_operation(kind: str, version: Version) -> Operation | None:
    """The operation that deletes a record of `kind`."""
    return next((each for each in _list_writes(kind, version) if shape(each).verb == "delete"), None)


def _list_writes(kind: str, version: Version) -> list[Operation]:
    other: Version = "v1" if version == "v2" else "v2"
    return [
        each
        for one in (version, other)
        for each in catalogue.operations(one).values()
        if each.mutates and not each.removed and _find_kind(each.path) == kind
    ]


def _is_relation(operation: Operation) -> bool:
    """Whether an addition only links a record to another: a follower, a participant, an assignment."""
    return "{" in operation.path and bool(operation.body) and all(name.endswith("_id") for name in operation.body)


def _find_reads(version: Version, kind: str, path: str) -> tuple[Operation | None, Operation | None]:
    """The operations that read the record at `path` and list its kind; of the operation's own version if possible."""
    versions: tuple[Version, ...] = ("v2", "v1") if version == "v2" else ("v1", "v2")
    item = next((found for each in versions if (found := _find_read(each, path))), None)
    listing = next((found for each in versions if (found := _find_read(each, path.removesuffix("/{}")))), None)
    if listing is None and item is None and "/" in kind:
        return None, None
    return item, listing


@cache
def _index_reads(version: Version) -> dict[str, Operation]:
    return {
        _strip_prefix(each.path): each
        for each in catalogue.operations(version).values()
        if each.method == "GET" and not each.removed and not each.binary
    }


def _find_read(version: Version, path: str) -> Operation | None:
    return _index_reads(version).get(path)


def _strip_prefix(path: str) -> str:
    return _PREFIX.sub("", _PATH_PARAM.sub("{}", path))


def _find_kind(path: str) -> str:
    return "/".join(segment for segment in _strip_prefix(path).split("/") if segment != "{}")
