"""Serves every operation that no module of its own serves, from what the documents say of it (data/api.json).

A *shelf* holds the records of one kind below one parent, or of the company: the notes, the followers of a deal.
Paths name them, and their operations follow from method and path, as those of any REST API do. A shelf is made up
when it is first asked for (see `made_up`), and from then on keeps what is written to it; every write is in the
journal.
Assumption: what the documents leave open (which fields a list filters by, what an action answers) is what the same
words mean elsewhere in the API.
"""

from __future__ import annotations

import base64
import functools
import json
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from pdsync.sandbox.company.data import api
from pdsync.sandbox.company.fabricate import Fabricator
from pdsync.sandbox.company.table import Row, encode
from pdsync.sandbox.operations.collections import (
    ALIASES,
    KINDS,
    PARENT_KEYS,
    V1_KEYS,
    Kind,
    first_counts,
    first_records,
)
from pdsync.sandbox.operations.nested_lists import NESTED, deals_summary, records_of
from pdsync.sandbox.protocol.errors import bad_request, feature_off, not_found
from pdsync.sandbox.protocol.list_params import read_limit, read_start
from pdsync.sandbox.protocol.messages import (
    Call,
    Reply,
    Route,
    success,
)
from pdsync.sandbox.protocol.v1_parts import remembered

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pdsync.sandbox.company.company import Company
    from pdsync.sandbox.company.table import Record

Parents = tuple[str, ...]
Shelf = dict[str, Row]  # id as text → the record
MOST_IDS, MOST_ROWS = 100, 500


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
    if parts in KINDS:
        return KINDS[parts]
    return Kind("_".join(part for part in parts if part != "{}"), few=3)


@functools.cache
def shape_of(kind: str) -> Record:
    """Every key that any version shows of a record of this kind."""
    whole: Record = {}
    for facts in operations().values():
        collection, _ = split(facts)
        if facts.method == "GET" and kind_of(collection).name == kind:
            told = {name: shape for name, shape in facts.item.items() if name not in whole or "|" in str(shape)}
            whole = {**whole, **told}
    return whole


def pattern(parts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple("{}" if part.startswith("{") else part for part in parts)


def split(facts: DocumentedOperation) -> tuple[tuple[str, ...], bool]:
    """The collection that an operation is about, and whether it is about one of its records."""
    parts = pattern(facts.parts)
    parts = ALIASES.get(parts, parts)
    if parts[-1] == "{}":
        return ALIASES.get(parts[:-1], parts[:-1]), True
    return parts, False


def routes(taken: set[tuple[str, str, tuple[str, ...]]]) -> list[Route]:
    """A route for each documented operation that is not `taken` (version, method, path)."""
    made = []
    for name, facts in operations().items():
        version, id = name.split(" ")
        key = (version, facts.method, pattern(facts.parts))
        if key not in taken:
            made.append(Route(version, facts.method, key[2], id, facts.cost, answer, None, name))
    # Literal parts before placeholders: `deals/products` before `deals/{}`.
    return sorted(made, key=lambda route: tuple(part == "{}" for part in route.pattern))


def answer(call: Call, route: Route) -> Reply:
    """Carry out any operation."""
    facts = operations()[route.kind]
    collection, is_one = split(facts)
    _check_off(call.company, collection)
    for name in facts.needed:
        if not call.query.get(name):
            raise bad_request(f"{name} is required", name)
    params = tuple(call.params)
    parents, id = (params[:-1], params[-1]) if is_one else (params, None)
    _check_parents(call, collection, parents)
    match facts.method:
        case "GET" if id is not None:
            return _shown(facts, _row(call, collection, parents, id))
        case "GET" if isinstance(facts.answer.get("data"), list) or facts.holder:
            return _list(call, facts, collection, parents)
        case "GET":
            return _single(call, facts, collection, parents)
        case "POST":
            return _add(call, facts, collection, parents)
        case "DELETE":
            return _delete(call, facts, collection, parents, id)
    return _update(call, facts, collection, parents, id)


def receive_message(call: Call, route: Route) -> Reply:
    """Take a message in; the first one of a conversation begins it. Assumption: nothing lists either of them."""
    reply, sent = answer(call, route), call.json()
    conversations, channel = ("channels", "{}", "conversations"), (str(sent["channel_id"]),)
    id = str(sent["conversation_id"])
    if id not in shelf(call.company, conversations, channel):
        begun = Row(0, "live", encode({"id": id, "channel_id": channel[0]}), ())
        keep(call.company, conversations, channel, "add", id, begun, call.request_id)
    return reply


# -- shelves -----------------------------------------------------------------------------------------


def shelf(company: Company, collection: tuple[str, ...], parents: Parents) -> Shelf:
    """The records at a path: made up the first time, kept from the first write on."""
    kind = kind_of(collection)
    key = (kind.name, parents)
    if key not in company.shelves:
        made: Shelf = {}
        for known in first_records(company, kind, parents):
            maker = Fabricator(company, kind.name, (parents, known.get("id", len(made))))
            record = maker.record(shape_of(kind.name), known)
            made[_id(kind, record, len(made))] = Row(0, kind.state(record), encode(record), ())
        if not parents:
            company.shelves[key] = made
        return made
    return company.shelves[key]


def _id(kind: Kind, record: Record, place: int) -> str:
    return str(record.get(kind.key, place))


def keep(
    company: Company,
    collection: tuple[str, ...],
    parents: Parents,
    op: str,
    id: str,
    row: Row | None,
    request: str | None = None,
) -> None:
    """Put a record on its shelf, or take it off, and note it in the journal."""
    kind = kind_of(collection)
    held = shelf(company, collection, parents)
    company.shelves[kind.name, parents] = held
    before = held.get(id)
    if row is not None:
        held[id] = row
    else:
        del held[id]
    if kind.name == "deal_products":
        company.touch("deals", int(parents[0]))
    company.note_shelf(kind.name, _noted(parents, id), op, before, row, request)


def _noted(parents: Parents, id: str) -> int | str:
    """An id as the API shows it, after its parents' if it has any; as the dump, whose ids are texts, tells it."""
    return _number("/".join(part for part in (*parents, id) if part))


def rows_of(company: Company, kind: str) -> Iterator[tuple[Parents, str, Row]]:
    """Every record of a kind, whoever its parent is: the truth."""
    collection = next(parts for parts, each in KINDS.items() if each.name == kind)
    for parents in _places(company, collection):
        for id, row in shelf(company, collection, parents).items():
            yield parents, id, row


@remembered
def counts_of(company: Company, kind: str) -> dict[str, int]:
    """How many records of a kind there are in each state. None is made up for it."""
    collection, of = next((parts, each) for parts, each in KINDS.items() if each.name == kind)
    counts = {"live": 0, "archived": 0}
    for parents in _places(company, collection):
        held = company.shelves.get((kind, parents))
        if held is None:
            for state, count in first_counts(company, of, parents).items():
                counts[state] += count
        for row in (held or {}).values():
            counts[row.state] += 1
    return counts


def _places(company: Company, collection: tuple[str, ...]) -> list[Parents]:
    return [(str(id),) for id in parent_ids(company, collection)] if "{}" in collection else [()]


def parent_ids(company: Company, collection: tuple[str, ...]) -> list[Any]:
    """The ids of all records that can have a shelf at `collection`."""
    first = collection[0]
    if first in company.tables:
        return list(company.tables[first].rows)
    return list(shelf(company, (first,), ()))


def _check_off(company: Company, collection: tuple[str, ...]) -> None:
    kind = kind_of(collection).name
    if kind in company.features_off or kind_of(collection[:1]).name in company.features_off:
        raise feature_off(kind)


def _check_parents(call: Call, collection: tuple[str, ...], parents: Parents) -> None:
    if not parents:
        return
    first = collection[0]
    if first in call.company.tables:
        row = call.company.tables[first].rows.get(int(parents[0]) if parents[0].isdigit() else -1)
        if row is None or row.state == "deleted":
            raise not_found(first.rstrip("s"))
    elif (first,) in KINDS and parents[0] not in shelf(call.company, (first,), ()):
        raise not_found(KINDS[first,].one)


def _row(call: Call, collection: tuple[str, ...], parents: Parents, id: str) -> Row:
    row = shelf(call.company, collection, parents).get(id)
    if row is None:
        raise not_found(kind_of(collection).one)
    return row


# -- reading -----------------------------------------------------------------------------------------


def _list(call: Call, facts: DocumentedOperation, collection: tuple[str, ...], parents: Parents) -> Reply:
    kind = kind_of(collection)
    if facts.answer.get("data") in (["int"], ["num"]) and kind.key == "user_id":
        rows = list(shelf(call.company, collection, parents).values())
        return _enveloped(facts, [row.record["user_id"] for row in rows], more=False)
    if facts.answer.get("data") in (["int"], ["num"]):  # ids of those who may see a record
        maker = Fabricator(call.company, kind.name, parents)
        users = call.company["users"].rows
        return _enveloped(facts, [id for id in users if maker.dice(id) % 3], more=False)
    if collection in NESTED:
        return _nested(call, facts, collection, int(parents[0]))
    batch = next((name for name in facts.needed if name.endswith("_ids")), None)
    if batch:  # deals/products?deal_ids=1,2
        ids = [part for part in call.query[batch].split(",") if part]
        if len(ids) > MOST_IDS:
            raise bad_request(f"{batch} takes at most {MOST_IDS} ids", batch)
        known = call.company.tables[collection[0]].rows
        inside = (collection[0], "{}", collection[1])
        rows = [
            row
            for id in ids
            if id.isdigit() and int(id) in known
            for row in shelf(call.company, inside, (id,)).values()
        ]
    else:
        rows = list(shelf(call.company, collection, parents).values())
        wanted = "archived" if pattern(facts.parts)[-1] == "archived" else "live"
        rows = [row for row in rows if row.state == wanted]
    records = [row.record for row in rows]
    records = _sorted(call, [record for record in records if _matches(call, facts, record)])
    start, limit = 0, len(records) or 1
    if facts.paging == "offset":
        start, limit = (
            read_start(call.query),
            read_limit({"limit": str(min(kind.limit, 100)), **call.query}, kind.limit),
        )
    elif facts.paging == "cursor":
        start, limit = _cursor(call.query.get("cursor")), read_limit(call.query, MOST_ROWS)
    page = [present(record, facts.item) for record in records[start : start + limit]]
    return _enveloped(facts, page, more=len(records) > start + limit, start=start, limit=limit)


def _nested(call: Call, facts: DocumentedOperation, collection: tuple[str, ...], parent: int) -> Reply:
    records = records_of(call.company, collection, parent)
    start, limit = read_start(call.query), read_limit(call.query, MOST_IDS)
    return _enveloped(
        facts, records[start : start + limit], more=len(records) > start + limit, start=start, limit=limit
    )


def _enveloped(facts: DocumentedOperation, page: list[Any], *, more: bool, start: int = 0, limit: int = 0) -> Reply:
    data: Any = {facts.holder: page} if facts.holder else page
    extra: Record = {}
    shape = facts.answer.get("additional_data")
    if isinstance(shape, dict) and facts.paging == "offset":
        paging = {"start": start, "limit": limit, "more_items_in_collection": more}
        paging |= {"next_start": start + limit} if more else {}
        extra["additional_data"] = {"pagination": paging} if "pagination" in shape else paging
    elif facts.paging == "cursor":
        cursor = base64.urlsafe_b64encode(json.dumps({"at": start + limit}).encode()).decode() if more else None
        extra["additional_data"] = {"next_cursor": cursor}
    known = {"status": "ok", "statusCode": 200, "statusText": "OK", "related_objects": {}}
    extra |= {key: known[key] for key in facts.answer if key in known}
    return Reply(facts.status, encode({"success": True, "data": data, **extra}))


def _cursor(text: str | None) -> int:
    if not text:
        return 0
    try:
        return int(json.loads(base64.urlsafe_b64decode(text))["at"])
    except (ValueError, KeyError, TypeError):
        raise bad_request("Invalid cursor", "cursor") from None


def _matches(call: Call, facts: DocumentedOperation, record: Record) -> bool:
    for name in facts.query:
        value = call.query.get(name)
        if not value or name in ("sort", "start", "limit", "cursor", "filter_id", "status"):
            continue
        if name == "updated_since":
            if str(record.get("update_time") or "") < value.replace(".000Z", "Z"):
                return False
        elif name == "org_id" and "rel_owner_org_id" in record:  # a relation belongs to both of its ends
            ends = (record["rel_owner_org_id"], record["rel_linked_org_id"])
            if value not in [str(end["value"] if isinstance(end, dict) else end) for end in ends]:
                return False
        elif name in record and record[name] is not None and str(record[name]).lower() != value.lower():
            return False
    return True


def _sorted(call: Call, records: list[Record]) -> list[Record]:
    text = call.query.get("sort") or f"{call.query.get('sort_by', '')} {call.query.get('sort_direction', 'asc')}"
    name, _, direction = text.split(",")[0].strip().partition(" ")
    if not name:
        return records
    return sorted(
        records,
        key=lambda record: (record.get(name) is not None, record.get(name)),
        reverse=direction.lower() == "desc",
    )


def _single(call: Call, facts: DocumentedOperation, collection: tuple[str, ...], parents: Parents) -> Reply:
    """A document that there is one of: the settings of a role, a statistic."""
    kind = kind_of(collection)
    if collection[:2] == ("deals", "summary"):
        return success(deals_summary(call, archived=collection[-1] == "archived"))
    asked = tuple(sorted((name, value) for name, value in call.query.items() if name in facts.query))
    held = call.company.shelves.get((kind.name, parents), {}).get("")
    record = held.record if held else Fabricator(call.company, kind.name, (parents, asked)).record(facts.item, {})
    return success(present(record, facts.item), facts.status)


def present(record: Record, shape: Record) -> Record:
    """Of a record what one version shows, its times as that version writes them; custom fields always."""
    shown = {name: record[name] for name in record if name in shape or len(name) >= 40}
    for old, new in V1_KEYS.items():
        if old in shape and new in record:
            shown[old] = _as_v1(record[new], is_list=isinstance(shape[old], list))
    for name, kind in shape.items():
        value = shown.get(name)
        if kind == "oldtime" and isinstance(value, str):
            shown[name] = value.replace("T", " ").removesuffix("Z")
    return shown


def _wrapped(facts: DocumentedOperation, record: Record) -> Record:
    shown = present(record, facts.item)
    return {facts.wrapper: shown} if facts.wrapper else shown


def _as_v1(value: Any, *, is_list: bool) -> Any:
    if isinstance(value, bool):
        return int(value)
    return value if is_list or not isinstance(value, list) else next(iter(value), None)


def _as_v2(sent: Record, shape: Record) -> Record:
    """What was sent, with v1's keys called as they are kept."""
    kept = {}
    for name, value in sent.items():
        new = V1_KEYS.get(name)
        if new is None or new not in shape:
            kept[name] = value
        elif new == "is_done":
            kept[new] = None if value is None else bool(value)
        else:
            kept[new] = value if isinstance(value, list) else [] if value is None else [value]
    return kept


def _shown(facts: DocumentedOperation, row: Row) -> Reply:
    return success(present(row.record, facts.item), facts.status)


# -- writing -----------------------------------------------------------------------------------------


def _sent(call: Call, facts: DocumentedOperation) -> Record:
    """The body, checked against the documented types."""
    if call.upload is not None:
        return {**(call.form or {}), "file_name": call.upload.file_name, "file_size": len(call.upload.content)}
    try:
        body = msgspec.json.decode(call.body or b"{}") if call.form is None else dict(call.form)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise bad_request("The request body is not valid JSON") from None
    if isinstance(body, list):
        return {"items": body}
    if not isinstance(body, dict):
        raise bad_request("The request body is not an object")
    shape = facts.body if isinstance(facts.body, dict) else {}
    for name, value in body.items():
        _check_type(name, value, shape.get(name), is_form=call.form is not None)
    return body


def _check_type(name: str, value: Any, shape: Any, *, is_form: bool) -> None:
    types: dict[str, tuple[type, ...]] = {"int": (int,), "num": (int, float), "bool": (bool, int), "str": (str,)}
    wrong = (
        isinstance(shape, str)
        and shape in types
        and value is not None
        and not is_form
        and (not isinstance(value, types[shape]) or (isinstance(value, bool) and shape != "bool"))
    )
    if wrong or (isinstance(shape, list) and value is not None and not isinstance(value, list | str)):
        raise bad_request(f"{name} is not of the right type", name)
    if isinstance(shape, str) and ("|" in shape or shape.startswith("#")) and value is not None:
        choices = shape.removeprefix("#").split("|")  # behind # they are numbers, and flags are numbers too
        if str(int(value) if isinstance(value, bool) and shape.startswith("#") else value) not in choices:
            raise bad_request(f"{name} must be one of {', '.join(choices)}", name)


def _add(call: Call, facts: DocumentedOperation, collection: tuple[str, ...], parents: Parents) -> Reply:
    sent = _sent(call, facts)
    for name in facts.required:
        if call.upload is None and sent.get(name) in (None, "") and "items" not in sent:
            raise bad_request(f"{name} is required", name)
    kind = kind_of(collection)
    now = call.company.clock.stamp()
    shape = shape_of(kind.name) or facts.item
    id = sent.get(kind.key) if kind.key != "id" else None  # a follower is known by the user that was sent
    if id is None:
        id = _next_id(call, collection, parents)
    stamps: Record = {name: now for name in ("add_time", "update_time") if name in shape}
    owner: Record = {
        name: call.viewer.user_id for name in ("owner_id", "user_id", "creator_id", "added_by_user_id") if name in shape
    }
    links: Record = {name: _number(id) for name, id in zip(PARENT_KEYS.get(collection[0], ()), parents, strict=False)}
    flags: Record = {
        name: True if shape[name] == "bool" else 1 for name in ("active_flag", "is_active") if name in shape
    }
    known: Record = {name: value for name, value in _as_v2(sent, shape).items() if name in shape or len(name) >= 40}
    record: Record = dict.fromkeys(shape)
    for part in (owner, links, flags, known, {kind.key: id}, stamps):
        record.update(part)
    row = Row(0, "live", encode(record), ())
    keep(call.company, collection, parents, "add", _id(kind, record, 0), row, call.request_id)
    return success(_wrapped(facts, record) if facts.item else {"id": id}, facts.status)


def _number(text: str) -> int | str:
    return int(text) if text.isdigit() else text


def _next_id(call: Call, collection: tuple[str, ...], parents: Parents) -> int | str:
    kind = kind_of(collection)
    held = shelf(call.company, collection, parents)
    if kind.ids == "int":
        most = max((int(id) for id in held if id.isdigit()), default=0)
        return max(most + 1, call.company.next_shelf_id())
    maker = Fabricator(call.company, kind.name, ("new", call.company.next_shelf_id()))
    return maker.uuid() if kind.ids == "uuid" else maker.uuid().replace("-", "")


def _update(
    call: Call, facts: DocumentedOperation, collection: tuple[str, ...], parents: Parents, id: str | None
) -> Reply:
    sent = _sent(call, facts)
    if id is None:  # the one document of a parent
        held = call.company.shelves.get((kind_of(collection).name, parents), {}).get("")
        before = (
            held.record
            if held
            else Fabricator(call.company, kind_of(collection).name, (parents, ())).record(facts.item, {})
        )
        record = {**before, **sent}
        row = Row(0, "live", encode(record), ())
        keep(call.company, collection, parents, "update", "", row, call.request_id)
        return success(record, facts.status)
    row = _row(call, collection, parents, id)
    shape = shape_of(kind_of(collection).name) or facts.item
    known = {name: value for name, value in _as_v2(sent, shape).items() if name in shape or len(name) >= 40}
    record = {**row.record, **known}
    if "update_time" in shape:
        record["update_time"] = call.company.clock.stamp()
    state = "archived" if record.get("is_archived") is True else "live"
    changed = Row(0, state, encode(record), ())
    keep(call.company, collection, parents, "update", id, changed, call.request_id)
    return success(_wrapped(facts, record) if facts.item else {"id": _number(id)}, facts.status)


def _delete(
    call: Call, facts: DocumentedOperation, collection: tuple[str, ...], parents: Parents, id: str | None
) -> Reply:
    if id is not None:
        _row(call, collection, parents, id)
        keep(call.company, collection, parents, "delete", id, None, call.request_id)
        return success(True if facts.answer.get("data") == "bool" else {"id": _number(id)})
    held = shelf(call.company, collection, parents)
    ids = [part for part in call.query.get("ids", "").split(",") if part] or _named(call, held)
    if not ids and not call.body:  # the only one there is: a product's image
        ids = list(held)
    for each in ids:
        if each in held:
            keep(call.company, collection, parents, "delete", each, None, call.request_id)
    return success({"id": [_number(each) for each in ids]})


def _named(call: Call, held: Shelf) -> list[str]:
    """The records that the body of a DELETE names by one of their fields: a role's assignment by its user."""
    if not call.body:
        return []
    sent = call.json()
    return [id for id, row in held.items() if any(row.record.get(name) == value for name, value in sent.items())]
