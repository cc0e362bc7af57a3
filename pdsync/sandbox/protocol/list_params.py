"""Parses the query parameters of a list, or refuses them with a 400.

v2 refuses unknown parameters, v1 ignores them.
Assumption: this holds for all query parameters; one tool reports a 400 of v2, several that v1 ignores them. Limits
above the cap are refused as well; the documents do not say.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from pdsync.sandbox.company.clock import parse_rfc3339
from pdsync.sandbox.company.data import words
from pdsync.sandbox.company.table import encode
from pdsync.sandbox.protocol.errors import bad_request
from pdsync.sandbox.protocol.messages import is_number
from pdsync.sandbox.protocol.render import Shape
from pdsync.sandbox.protocol.row_finder import DEFAULT_LIMIT, LISTED, Page, Selection

if TYPE_CHECKING:
    from pdsync.sandbox.company.resources import Resource
    from pdsync.sandbox.protocol.messages import Call

MOST_IDS = 100
MOST_CUSTOM_FIELDS = 15
V2_LIMIT = 500
NUMERIC = frozenset(words("owner_id user_id person_id org_id deal_id pipeline_id stage_id filter_id"))
TRUE, FALSE = ("true", "1"), ("false", "0")


def read_v2(
    call: Call, resource: Resource, archived: bool, filtered: frozenset[int] | None
) -> tuple[Selection, Page, Shape]:
    query = dict(call.query)
    known = {"limit", "cursor", *resource.filters_v2, *resource.updated}
    known |= {"sort_by", "sort_direction"} if resource.sorts else set()
    known |= {"ids"} if resource.has_ids else set()
    known |= {"filter_id"} if resource.has_filter else set()
    known |= {"status"} if resource.kind == "deals" else set()
    known |= {"include_fields"} if resource.optional else set()
    known |= {"custom_fields"} if resource.custom_fields else set()
    known |= {"include_option_labels", "include_labels"} if resource.labels and not archived else set()
    _refuse_unknown(query, known)

    equal, ids = _filters(call, resource, resource.filters_v2, filtered)
    statuses, states = _statuses(query.get("status", ""), archived)
    equal += _home(resource, states, archived)
    if "filter_id" in query:
        statuses, states = None, ("archived",) if archived else LISTED
    elif "ids" in query:
        ids = _ids(query["ids"], ids)
    by = _one_of(query, "sort_by", resource.sorts)
    direction = _one_of(query, "sort_direction", ("asc", "desc"))
    after = None
    if "cursor" in query:
        cursor = decode_cursor(query["cursor"], resource.sorts)
        if (by and by != cursor.field) or (direction and direction != cursor.sort_direction):
            # Assumption: a cursor is valid for the order it was made in only.
            raise bad_request("Invalid cursor: it belongs to another sort order")
        by, direction, after = cursor.field, cursor.sort_direction, (cursor.field_value, cursor.id)
    selection = Selection(
        equal=equal,
        ids=ids,
        states=states,
        statuses=statuses,
        since=_time(query, "updated_since"),
        until=_time(query, "updated_until"),
        sort=((by or "id", direction == "desc"),),
    )
    return selection, Page(limit=read_limit(query, V2_LIMIT), after=after), read_shape(call, resource)


def read_one_v2(call: Call, resource: Resource) -> Shape:
    known = {"include_fields"} if resource.optional else set()
    known |= {"custom_fields"} if resource.labels else set()
    known |= {"include_option_labels", "include_labels"} if resource.labels else set()
    _refuse_unknown(call.query, known)
    return read_shape(call, resource)


def read_shape(call: Call, resource: Resource) -> Shape:
    include = _split(call.query.get("include_fields", ""))
    for name in include:
        if name not in resource.optional:
            raise bad_request(f"include_fields: {name!r} is not one of {', '.join(resource.optional)}")
    custom = None
    if "custom_fields" in call.query:
        custom = _split(call.query["custom_fields"])
        if len(custom) > MOST_CUSTOM_FIELDS:
            raise bad_request(f"custom_fields: at most {MOST_CUSTOM_FIELDS} keys are allowed")
    ordered = tuple(name for name in resource.optional if name in include)
    labels = _flag(call.query, "include_labels")
    return Shape(ordered, custom, bool(_flag(call.query, "include_option_labels")), bool(labels))


def read_v1(call: Call, resource: Resource, archived: bool, filtered: frozenset[int] | None) -> tuple[Selection, Page]:
    query = call.query
    equal, ids = _filters(call, resource, resource.filters_v1, filtered)
    if resource.kind == "deals" and query.get("owned_by_you") == "1" and "filter_id" not in query:
        equal = (*((facet, value) for facet, value in equal if facet != "owner_id"), ("owner_id", call.viewer.user_id))
    if resource.kind == "activities":  # of the token's user, where none is named; 0 is everyone
        user = _number("user_id", query.get("user_id") or str(call.viewer.user_id))
        equal = (*equal, ("owner_id", user)) if user else equal
    status = query.get("status", "")
    statuses, states = _statuses("" if status == "all_not_deleted" else status, archived)
    equal += _home(resource, states, archived)
    if resource.kind == "products" and "ids" in query:
        ids = _ids(query["ids"], ids)
    if resource.kind == "mail_threads":
        folder = _one_of(query, "folder", ("inbox", "drafts", "sent", "archive")) or "inbox"
        equal = (("folder", folder), ("user_id", call.viewer.user_id))
    selection = Selection(
        equal=equal,
        ids=ids,
        states=states,
        statuses=statuses,
        sort=_v1_sort(query.get("sort", ""), resource),
        first_char=query.get("first_char", "").lower()[:1],
    )
    return selection, Page(limit=read_limit(query, resource.limit_v1), start=read_start(query))


def read_start(query: dict[str, str]) -> int:
    text = query.get("start") or "0"
    if not is_number(text):
        raise bad_request("start must be a number that is not negative")
    return int(text)


def read_limit(query: dict[str, str], most: int) -> int:
    text = query.get("limit") or str(DEFAULT_LIMIT)
    if not is_number(text) or not 1 <= int(text) <= most:
        raise bad_request(f"limit must be a number from 1 to {most}")
    return int(text)


# -- cursors -----------------------------------------------------------------------------------------


class Cursor(Struct, frozen=True, rename="camel"):
    field: str
    field_value: Any
    sort_direction: str
    id: int


def encode_cursor(selection: Selection, key: tuple[Any, int]) -> str:
    by, descending = selection.sort[0]
    cursor = Cursor(by, key[0], "desc" if descending else "asc", key[1])
    return base64.urlsafe_b64encode(encode(cursor)).rstrip(b"=").decode()


def decode_cursor(text: str, sorts: tuple[str, ...]) -> Cursor:
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        cursor = msgspec.json.decode(raw, type=Cursor)
    except (binascii.Error, ValueError, msgspec.DecodeError):
        raise bad_request("Invalid cursor") from None
    number = cursor.field in ("id", "order_nr")
    if cursor.field not in sorts or cursor.sort_direction not in ("asc", "desc"):
        raise bad_request("Invalid cursor")
    if isinstance(cursor.field_value, bool) or not isinstance(cursor.field_value, int if number else str):
        raise bad_request("Invalid cursor")
    return cursor


def encode_field_cursor(code: str) -> str:
    return base64.urlsafe_b64encode(encode({"field_code": code})).rstrip(b"=").decode()


def read_field_cursor(text: str | None, codes: list[str]) -> int:
    """The position in `codes` after the one that the cursor names."""
    if not text:
        return 0
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        return codes.index(msgspec.json.decode(raw, type=dict[str, str])["field_code"]) + 1
    except (binascii.Error, ValueError, KeyError, msgspec.DecodeError):
        raise bad_request("Invalid cursor") from None


# -- single parameters -------------------------------------------------------------------------------


def _refuse_unknown(query: dict[str, str], known: set[str]) -> None:
    for name in query:
        if name not in known:
            raise bad_request(f"Parameter {name!r} is not allowed", name)


def _filters(
    call: Call, resource: Resource, known: dict[str, str], filtered: frozenset[int] | None
) -> tuple[tuple[tuple[str, Any], ...], frozenset[int] | None]:
    """The facets to match, and the ids that a saved filter or one over another table leaves.

    Args:
        filtered: the ids that `filter_id` leaves; the other filters are ignored then. None without a `filter_id`.
    """
    if filtered is not None:
        return (), filtered
    equal: list[tuple[str, Any]] = []
    ids: frozenset[int] | None = None
    for name, facet in known.items():
        text = call.query.get(name)
        if text is None or text == "":
            continue
        if facet == "done":
            equal.append((facet, _flag(call.query, name)))
        elif resource.kind == "persons" and facet == "deal_id":
            deal = call.company["deals"].rows.get(_number(name, text))
            person = None if deal is None else call.company["deals"].facet(deal, "person_id")
            ids = frozenset(() if person is None else (person,))
        else:
            equal.append((facet, _number(name, text) if name in NUMERIC else text))
    return tuple(equal), ids


def _statuses(text: str, archived: bool) -> tuple[frozenset[str] | None, tuple[str, ...]]:
    """The statuses and the row states to list; `deleted` is a status of the API and a state of its own here."""
    home = "archived" if archived else "live"
    wanted = _split(text)
    for status in wanted:
        if status not in ("open", "won", "lost", "deleted"):
            raise bad_request(f"status: {status!r} is not one of open, won, lost, deleted", "status")
    if not wanted:
        return None, (home,)
    states = ((home,) if set(wanted) - {"deleted"} else ()) + (("deleted",) if "deleted" in wanted else ())
    return frozenset(wanted), states


def _home(resource: Resource, states: tuple[str, ...], archived: bool) -> tuple[tuple[str, Any], ...]:
    """Assumption: a deal that was deleted while it was archived is in the list of archived deals, and there only."""
    return (("is_archived", archived),) if resource.kind == "deals" and "deleted" in states else ()


def _ids(text: str, also: frozenset[int] | None) -> frozenset[int]:
    ids = frozenset(_number("ids", part) for part in _split(text))
    if len(ids) > MOST_IDS:
        raise bad_request(f"ids: at most {MOST_IDS} are allowed", "ids")
    return ids if also is None else ids & also


def _v1_sort(text: str, resource: Resource) -> tuple[tuple[str, bool], ...]:
    """`name ASC, update_time DESC`. Assumption: a field that does not exist is ignored."""
    if resource.kind == "mail_threads":
        return (("last_message_timestamp", True), ("id", True))
    keys: list[tuple[str, bool]] = []
    for part in _split(text):
        name, _, direction = part.partition(" ")
        keys.append((resource.renamed_v1.get(name, name), direction.strip().upper() == "DESC"))
    return (*keys, ("id", False))


def _time(query: dict[str, str], name: str) -> str | None:
    text = query.get(name)
    if not text:
        return None
    try:
        return parse_rfc3339(text)
    except ValueError:
        raise bad_request(f"{name} must be a time in RFC3339 format, e.g. 2025-01-01T10:20:00Z", name) from None


def _one_of(query: dict[str, str], name: str, allowed: tuple[str, ...]) -> str:
    value = query.get(name, "")
    if value and value not in allowed:
        raise bad_request(f"{name} must be one of {', '.join(allowed)}", name)
    return value


def _number(name: str, text: str) -> int:
    if not is_number(text):
        raise bad_request(f"{name} must be a number", name)
    return int(text)


def _flag(query: dict[str, str], name: str) -> bool | None:
    text = query.get(name, "").lower()
    if text not in (*TRUE, *FALSE, ""):
        raise bad_request(f"{name} must be true or false", name)
    return None if text == "" else text in TRUE


def _split(text: str) -> tuple[str, ...]:
    return tuple(part for raw in text.split(",") if (part := raw.strip()))
