"""Finds records by their texts: deals, persons, organizations, products, leads, projects, files, users.

A term matches where it is a part of a field, or all of it with exact_match; case does not matter, except
in `itemSearch/field`. The searched fields, also the custom ones, are documented.
Assumptions: results come in the order of their types and ids, not of their scores; archived deals and leads are
found, deleted ones are not; of custom fields and notes those are shown that contain the term; there is no delay,
although the real index has one.
"""

from __future__ import annotations

import base64
import itertools
from bisect import bisect_right
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from pdsync.sandbox.company.table import decode, encode
from pdsync.sandbox.operations.changelog import text
from pdsync.sandbox.operations.generic_records import records_at
from pdsync.sandbox.operations.notes import content, noted, notes_of
from pdsync.sandbox.operations.search_results import (
    BY_KIND,
    TYPES,
    Hit,
    Type,
    item,
    related_items,
)
from pdsync.sandbox.protocol import v1_records
from pdsync.sandbox.protocol.errors import bad_request, feature_off
from pdsync.sandbox.protocol.list_params import (
    V2_LIMIT,
    read_limit,
    read_start,
)
from pdsync.sandbox.protocol.messages import is_number, success
from pdsync.sandbox.protocol.row_finder import Selection, matcher

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pdsync.sandbox.company.company import Company
    from pdsync.sandbox.company.table import Record
    from pdsync.sandbox.protocol.messages import Call, Reply, Route


SEARCHABLE = ("address", "varchar", "text", "varchar_auto", "double", "monetary", "phone")
SHORTEST_TERM = 2
ITEMS_LIMIT = 100
CODE_LENGTH = 40
FLAGS = {"true": True, "1": True, "false": False, "0": False, "": False}
PARAMETERS = frozenset(("term", "fields", "exact_match", "include_fields", "limit", "cursor", "start"))


class Wanted(Struct, frozen=True):
    """What is looked for."""

    term: str  # as it was sent
    fields: tuple[str, ...]
    match: str = "middle"  # or exact, beginning
    any_case: bool = True
    equal: dict[str, Any] = {}  # person_id, organization_id, status
    include: tuple[str, ...] = ()

    def score(self, found: str) -> float:
        """How well a text matches: 0 is not at all."""
        term, text = (self.term.casefold(), found.casefold()) if self.any_case else (self.term, found)
        if term == text:
            return 1.0
        hit = term in text if self.match == "middle" else text.startswith(term)
        return 0.5 if hit and self.match != "exact" else 0.0


# -- operations --------------------------------------------------------------------------------------


def search(call: Call, route: Route) -> Reply:
    """`deals/search` and its like: one type."""
    type_ = BY_KIND[route.pattern[0]]
    filters = {"deal": ("person_id", "organization_id", "status"), "person": ("organization_id",)}
    linked = ("person_id", "organization_id") if type_.is_generic else filters.get(type_.name, ())
    wanted = _wanted(call, type_.fields, {*linked}, type_.optional, linked)
    return _page(call, (type_,), wanted, V2_LIMIT)


def search_items(call: Call, route: Route) -> Reply:
    """`itemSearch`: several types at once, by default all."""
    types = [TYPES[name] for name in _choice(call, "item_types", tuple(TYPES))]
    fields = tuple(dict.fromkeys(field for type_ in types for field in type_.fields))
    optional = tuple(name for type_ in types for name in type_.optional)
    wanted = _wanted(call, fields, {"item_types", "search_for_related_items"}, optional)
    return _page(call, types, wanted, ITEMS_LIMIT, related=_flag(call, "search_for_related_items"))


def search_field(call: Call, route: Route) -> Reply:
    """`itemSearch/field`: the values of one field, case and all.

    Assumption: `name` is the value that was found, whichever field it is of.
    """
    _refuse_strangers(call, {"term", "entity_type", "match", "field", "limit", "cursor"})
    name, match, field = call.query.get("entity_type", ""), call.query.get("match") or "exact", call.query.get("field")
    if name not in TYPES or TYPES[name].kind == "files":
        raise bad_request(
            "entity_type must be one of deal, lead, person, organization, product, project", "entity_type"
        )
    if match not in ("exact", "beginning", "middle"):
        raise bad_request("match must be one of exact, beginning, middle", "match")
    type_ = TYPES[name]
    if field not in type_.fields and field not in _searchable(call.company, type_.custom):
        raise bad_request(f"{field!r} is no field of a {name} that can be searched", "field")
    wanted = Wanted(_term(call, exact=match == "exact"), (str(field),), match, any_case=False)
    hits, cursor = _cut(call, (type_,), wanted, V2_LIMIT)
    data = [{"id": hit.id, "name": hit.texts[0][1]} for hit in hits]
    return success(data, additional_data={"next_cursor": cursor})


def find_users(call: Call, route: Route) -> Reply:
    """Users whose name contains the term, or whose e-mail does with search_by_email."""
    term = call.query.get("term", "").strip().casefold()
    if not term:
        raise bad_request("term is required", "term")
    by = "email" if _flag(call, "search_by_email") else "name"
    shown = [
        {**v1_records.shape(call.company, "users", row), "is_you": row.id == call.viewer.user_id}
        for row in call.company["users"].rows.values()
    ]
    return success([user for user in shown if term in str(user[by]).casefold()])


# -- the query --------------------------------------------------------------------------------------


def _wanted(
    call: Call, fields: tuple[str, ...], more: set[str], optional: tuple[str, ...], filters: tuple[str, ...] = ()
) -> Wanted:
    _refuse_strangers(call, PARAMETERS | more)
    exact = _flag(call, "exact_match")
    equal: dict[str, Any] = {}
    for name in filters:
        value = call.query.get(name)
        if value and name == "status":
            equal[name] = _choice(call, "status", ("open", "won", "lost"))[0]
        elif value:
            if not is_number(value):
                raise bad_request(f"{name} must be a number", name)
            equal[name] = int(value)
    include = _choice(call, "include_fields", optional) if call.query.get("include_fields") else ()
    return Wanted(
        _term(call, exact=exact),
        _choice(call, "fields", fields),
        "exact" if exact else "middle",
        equal=equal,
        include=include,
    )


def _term(call: Call, *, exact: bool) -> str:
    term = call.query.get("term", "").strip()
    if len(term) < (1 if exact else SHORTEST_TERM):
        raise bad_request("term must have at least 2 characters, or 1 for an exact match", "term")
    return term


def _choice(call: Call, name: str, allowed: tuple[str, ...]) -> tuple[str, ...]:
    """The parts of a list, by default all that are allowed."""
    chosen = tuple(part for raw in call.query.get(name, "").split(",") if (part := raw.strip()))
    for part in chosen:
        if part not in allowed:
            raise bad_request(f"{name}: {part!r} is not one of {', '.join(allowed)}", name)
    return chosen or allowed


def _flag(call: Call, name: str) -> bool:
    text = call.query.get(name, "").lower()
    if text not in FLAGS:
        raise bad_request(f"{name} must be true or false", name)
    return FLAGS[text]


def _refuse_strangers(call: Call, known: Iterable[str]) -> None:
    for name in call.query if call.version == "v2" else ():
        if name not in known or name == "start":
            raise bad_request(f"Parameter {name!r} is not allowed", name)


# -- pages -------------------------------------------------------------------------------------------


def _page(call: Call, types: Iterable[Type], wanted: Wanted, most: int, *, related: bool = False) -> Reply:
    hits, cursor = _cut(call, tuple(types), wanted, most)
    data: Record = {"items": [{"result_score": hit.score, "item": item(call, hit, wanted.include)} for hit in hits]}
    if _is_of_all_types(call):
        data["related_items"] = related_items(call, hits) if related else []
    if call.version == "v2":
        return success(data, additional_data={"next_cursor": cursor})
    start, limit = read_start(call.query), read_limit(call.query, most)
    paging = {"start": start, "limit": limit, "more_items_in_collection": cursor is not None}
    return success(data, additional_data={"pagination": paging | ({"next_start": start + limit} if cursor else {})})


def _is_of_all_types(call: Call) -> bool:
    return call.path.rstrip("/").endswith("itemSearch")


def _cut(call: Call, types: tuple[Type, ...], wanted: Wanted, most: int) -> tuple[list[Hit], str | None]:
    limit, skip = read_limit(call.query, most), read_start(call.query) if call.version == "v1" else 0
    after: tuple[str, Any] | None = None
    if call.version == "v2" and call.query.get("cursor"):
        after = _read_cursor(call.query["cursor"])
        names = [type_.name for type_ in types]
        if after[0] not in names:
            raise bad_request("Invalid cursor", "cursor")
        types = types[names.index(after[0]) :]
    hits = (hit for type_ in types for hit in _hits(call, type_, wanted, after))
    found = list(itertools.islice(hits, skip, skip + limit + 1))
    more = len(found) > limit
    return found[:limit], _cursor(found[limit - 1]) if more else None


def _cursor(hit: Hit) -> str:
    return base64.urlsafe_b64encode(encode([hit.type, hit.id])).rstrip(b"=").decode()


def _read_cursor(text: str) -> tuple[str, int | str]:
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        return msgspec.json.decode(raw, type=tuple[str, int | str])
    except (ValueError, msgspec.DecodeError):
        raise bad_request("Invalid cursor", "cursor") from None


# -- looking -----------------------------------------------------------------------------------------


def _hits(call: Call, type_: Type, wanted: Wanted, after: tuple[str, Any] | None) -> Iterator[Hit]:
    """What matches among the records of one type, after the one that the cursor names."""
    if type_.kind in call.company.features_off:
        if _is_of_all_types(call):
            return
        raise feature_off(type_.kind)
    last = after[1] if after and after[0] == type_.name else None
    fields = tuple(field for field in wanted.fields if field in type_.fields or len(field) >= CODE_LENGTH)
    for record in (
        _in_collection(call, type_, wanted, last) if type_.is_generic else _in_table(call, type_, wanted, last)
    ):
        texts = tuple((name, text, wanted.score(text)) for name, text in _texts(call.company, type_, record, fields))
        best = max((score for *_, score in texts), default=0.0)
        if best:
            yield Hit(
                type_.name, record["id"], best, record, tuple((name, text) for name, text, score in texts if score)
            )


def _in_table(call: Call, type_: Type, wanted: Wanted, last: Any) -> Iterator[Record]:
    company, table = call.company, call.company[type_.kind]
    facets = {"organization_id": "org_id"}
    selection = Selection(
        equal=tuple((facets.get(name, name), value) for name, value in wanted.equal.items()),
        states=("live", "archived"),
    )
    matches = matcher(table, selection, call.viewer, company)
    # The bytes of a record hold the term if the record does, but for letters beyond ASCII, whose case is unknown.
    needle = encode(wanted.term)[1:-1].lower()
    in_notes = noted(company, type_.note, wanted.term) if type_.note and "notes" in wanted.fields else ()
    order = table.order("id")
    low = bisect_right(order, (last, last)) if isinstance(last, int) else 0
    overlay = (call.overlay or {}).get(type_.kind, {})
    for _, id in order[low:]:
        row = overlay.get(id, table.rows[id])
        if (
            row is None
            or not matches(row)
            or (needle.isascii() and needle not in row.body.lower() and id not in in_notes)
        ):
            continue
        record = decode(row.body)
        if type_.kind != "files" or (record["mail_message_id"] is not None) == (type_.name == "mail_attachment"):
            yield record


def _in_collection(call: Call, type_: Type, wanted: Wanted, last: Any) -> Iterator[Record]:
    rows = list(records_at(call.company, (type_.kind,), ()).items())
    if last is not None:
        places = [at for at, (id, _) in enumerate(rows) if id == str(last)]
        if not places:
            raise bad_request("Invalid cursor", "cursor")
        rows = rows[places[0] + 1 :]
    for _, row in rows:
        record = row.record
        if all(value in _linked(record, name) for name, value in wanted.equal.items()):
            yield record


def _linked(record: Record, name: str) -> list[Any]:
    """The ids under `person_id` or `organization_id`; a project has lists of them."""
    several = record.get({"person_id": "person_ids", "organization_id": "org_ids"}[name])
    return several if isinstance(several, list) else [record.get(name)]


def _texts(company: Company, type_: Type, record: Record, fields: Iterable[str]) -> Iterator[tuple[str, str]]:
    """What there is to look at in a record: field and text."""
    searchable = _searchable(company, type_.custom)
    for field in fields:
        match field:
            case "custom_fields":
                values: Record = record.get("custom_fields") or record
                for code in searchable:
                    if values.get(code) is not None:
                        yield field, _text(values[code])
            case "notes":
                for note in notes_of(company, type_.note, record["id"]):
                    yield field, content(note)
            case "email" | "phone":
                for each in record[f"{field}s"]:
                    yield field, each["value"]
            case _:
                value = (record.get("custom_fields") or record).get(field) if field in searchable else record[field]
                if value is not None:
                    yield field, _text(value)


def _text(value: Any) -> str:
    return text("", value["value"] if isinstance(value, dict) else value) or ""


def _searchable(company: Company, kind: str) -> list[str]:
    fields = company.fields[kind].custom if kind else {}
    return [code for code, field in fields.items() if field.type in SEARCHABLE]
