"""Answers every operation that has no module of its own, from the vendor's description of it (data/api.json).

Assumption: where the documents leave something open (which fields a list filters by, what an action answers), the
same words mean what they mean elsewhere in the API.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import msgspec

from pdsync.sandbox.company.fabricate import Fabricator
from pdsync.sandbox.company.table import Row, encode
from pdsync.sandbox.operations.body_checks import check_types
from pdsync.sandbox.operations.collections import KINDS, V1_KEYS
from pdsync.sandbox.operations.documented import DocumentedOperation, kind_of, operations, pattern, shape_of, split
from pdsync.sandbox.operations.generic_records import Parents, Rows, as_number, record_id, records_at, store_record
from pdsync.sandbox.operations.linked_values import fill_links, from_side
from pdsync.sandbox.operations.list_filters import PAGING, choose
from pdsync.sandbox.operations.nested_lists import NESTED, deals_summary, records_of
from pdsync.sandbox.operations.new_records import check_sent, new_record, stored_values
from pdsync.sandbox.protocol.errors import bad_request, feature_off, not_found
from pdsync.sandbox.protocol.list_params import read_limit, read_start
from pdsync.sandbox.protocol.messages import Call, Reply, Route, is_number, success

if TYPE_CHECKING:
    from pdsync.sandbox.company.company import Company
    from pdsync.sandbox.company.table import Record

MOST_IDS, MOST_ROWS = 100, 500
MOST_PAGE = 100  # the limit that a list without parameters for pages shows
CODE_LENGTH = 40  # of a custom field
ENVELOPE = {
    "status": "ok", "statusCode": 20000, "statusText": "OK", "service": "statistics-goals-api", "related_objects": {},
}  # fmt: skip


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
    _check_feature(call.company, collection)
    for name in facts.needed:
        if not call.query.get(name):
            raise bad_request(f"{name} is required", name)
    params = tuple(call.params)
    parents, id = (params[:-1], params[-1]) if is_one else (params, None)
    _check_parents(call, collection, parents)
    match facts.method:
        case "GET" if id is not None:
            return _reply(facts, _show(call, facts, _row(call, collection, parents, id).record))
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
    if id not in records_at(call.company, conversations, channel):
        begun = Row(0, "live", encode({"id": id, "channel_id": channel[0]}), ())
        store_record(call.company, conversations, channel, "add", id, begun, call.request_id)
    return reply


def _check_feature(company: Company, collection: tuple[str, ...]) -> None:
    kind = kind_of(collection).name
    if kind in company.features_off or kind_of(collection[:1]).name in company.features_off:
        raise feature_off(kind)


def _check_parents(call: Call, collection: tuple[str, ...], parents: Parents) -> None:
    if not parents:
        return
    first = collection[0]
    if first in call.company.tables:
        row = call.company.tables[first].rows.get(int(parents[0]) if is_number(parents[0]) else -1)
        if row is None or row.state == "deleted":
            raise not_found(first.rstrip("s"))
    elif (first,) in KINDS and parents[0] not in records_at(call.company, (first,), ()):
        raise not_found(KINDS[first,].one)


def _row(call: Call, collection: tuple[str, ...], parents: Parents, id: str) -> Row:
    row = records_at(call.company, collection, parents).get(id)
    if row is None:
        raise not_found(kind_of(collection).one)
    return row


# -- reading -----------------------------------------------------------------------------------------


def _list(call: Call, facts: DocumentedOperation, collection: tuple[str, ...], parents: Parents) -> Reply:
    kind = kind_of(collection)
    if facts.answer.get("data") in (["int"], ["num"]) and kind.key == "user_id":
        rows = list(records_at(call.company, collection, parents).values())
        return _envelope(facts, [row.record["user_id"] for row in rows], more=False)
    if facts.answer.get("data") in (["int"], ["num"]):  # ids of those who may see a record
        fabricator = Fabricator(call.company, kind.name, parents)
        users = call.company["users"].rows
        return _envelope(facts, [id for id in users if fabricator.stable_number(id) % 3], more=False)
    if collection in NESTED:
        records = records_of(call, collection, int(parents[0]))
        most = MOST_IDS if collection[-1] == "files" else MOST_ROWS
        start, limit = read_start(call.query), read_limit(call.query, most)
        more = len(records) > start + limit
        return _envelope(facts, records[start : start + limit], more=more, start=start, limit=limit)
    rows = _chosen(call, facts, collection, parents)
    start, limit = 0, len(rows) or 1
    if facts.paging == "offset":
        start, limit = (
            read_start(call.query),
            read_limit({"limit": str(min(kind.limit, 100)), **call.query}, kind.limit),
        )
    elif facts.paging == "cursor":
        start, limit = _cursor(call.query.get("cursor")), read_limit(call.query, MOST_ROWS)
    page = [_show(call, facts, row.record) for row in rows[start : start + limit]]
    return _envelope(facts, page, more=len(rows) > start + limit, start=start, limit=limit)


def _chosen(call: Call, facts: DocumentedOperation, collection: tuple[str, ...], parents: Parents) -> list[Row]:
    """The rows of a list, of which a page is a cut. A stored list's are remembered until the company changes."""
    key = ("list", facts.path, *sorted(item for item in call.query.items() if item[0] not in PAGING))
    if key in call.company.memo:
        rows: list[Row] = call.company.memo[key]
        return rows
    batch = next((name for name in facts.needed if name.endswith("_ids")), None)
    if batch:
        listed = _rows_of_parents(call, batch, collection)
    else:
        wanted: tuple[str, ...] = ("archived",) if pattern(facts.parts)[-1] == "archived" else ("live",)
        if call.query.get("include_archived") == "true" and "include_archived" in facts.query:
            wanted = ("live", "archived")
        listed = [row for row in records_at(call.company, collection, parents).values() if row.state in wanted]
    chosen = choose(call, facts, kind_of(collection).name, listed)
    if not parents and not batch:
        call.company.memo[key] = chosen
    return chosen


def _rows_of_parents(call: Call, batch: str, collection: tuple[str, ...]) -> list[Row]:
    """The rows of the parents that the parameter `batch` names: deals/products?deal_ids=1,2."""
    ids = [part for part in call.query[batch].split(",") if part]
    if len(ids) > MOST_IDS:
        raise bad_request(f"{batch} takes at most {MOST_IDS} ids", batch)
    known = call.company.tables[collection[0]].rows
    inside = (collection[0], "{}", collection[1])
    known_ids = [id for id in ids if is_number(id) and int(id) in known]
    return [row for id in known_ids for row in records_at(call.company, inside, (id,)).values()]


def _envelope(facts: DocumentedOperation, page: list[Any], *, more: bool, start: int = 0, limit: int = 0) -> Reply:
    data: Any = {facts.holder: page} if facts.holder else page
    extra: Record = {}
    shape = facts.answer.get("additional_data")
    if isinstance(shape, dict) and facts.paging == "offset":
        paging = {"start": start, "limit": limit, "more_items_in_collection": more}
        paging |= {"next_start": start + limit} if more else {}
        extra["additional_data"] = {"pagination": paging} if "pagination" in shape else paging
    elif facts.paging == "cursor" or (isinstance(shape, dict) and "next_cursor" in shape):
        cursor = base64.urlsafe_b64encode(json.dumps({"at": start + limit}).encode()).decode() if more else None
        extra["additional_data"] = {"next_cursor": cursor}
    elif isinstance(shape, dict) and "pagination" in shape:  # one page, which says that it is the last
        extra["additional_data"] = {"pagination": {"start": 0, "limit": MOST_PAGE, "more_items_in_collection": False}}
    return _reply(facts, data, extra)


def _reply(facts: DocumentedOperation, data: Any, extra: Record | None = None) -> Reply:
    """An answer with what the documents put around the data; without data where they have none."""
    around = {key: ENVELOPE[key] for key in facts.answer if key in ENVELOPE}
    shown = {"data": data} if "data" in facts.answer else {}
    return Reply(facts.status, encode({"success": True, **shown, **(extra or {}), **around}))


def _cursor(text: str | None) -> int:
    if not text:
        return 0
    try:
        return int(json.loads(base64.urlsafe_b64decode(text))["at"])
    except (ValueError, KeyError, TypeError):
        raise bad_request("Invalid cursor", "cursor") from None


def _single(call: Call, facts: DocumentedOperation, collection: tuple[str, ...], parents: Parents) -> Reply:
    """A document that there is one of: the settings of a role, a statistic."""
    kind = kind_of(collection)
    if collection[:2] == ("deals", "summary"):
        return success(deals_summary(call, archived=collection[-1] == "archived"))
    query = tuple(sorted((name, value) for name, value in call.query.items() if name in facts.query))
    stored = call.company.collections.get((kind.name, parents), {}).get("")
    record = stored.record if stored else Fabricator(call.company, kind.name, (parents, query)).record(facts.item, {})
    return _reply(facts, present(record, facts.item))


def present(record: Record, shape: Record) -> Record:
    """Of a record what one version shows, its times as that version writes them; custom fields always."""
    shown = {name: record[name] for name in record if name in shape or len(name) >= CODE_LENGTH}
    for old, new in V1_KEYS.items():
        if old in shape and new in record:
            shown[old] = _as_v1(record[new], is_list=isinstance(shape[old], list))
    for name, kind in shape.items():
        value = shown.get(name)
        if kind == "oldtime" and isinstance(value, str):
            shown[name] = value.replace("T", " ").removesuffix("Z")
    return shown


def _show(call: Call, facts: DocumentedOperation, record: Record) -> Record:
    """What the caller sees of a record: whether it is theirs, and a relation from the organization that they name."""
    shown = present(record, facts.item)
    if isinstance(shown.get("user"), dict) and "is_you" in shown["user"]:
        shown["user"] = {**shown["user"], "is_you": record["user_id"] == call.viewer.user_id}
    if "rel_owner_org_id" in shown and (org_id := call.query.get("org_id")):
        shown |= {name: value for name, value in from_side(record, org_id).items() if name in facts.item}
    return shown


def _wrap(call: Call, facts: DocumentedOperation, record: Record) -> Record:
    shown = _show(call, facts, record)
    return {facts.wrapper: shown} if facts.wrapper else shown


def _as_v1(value: Any, *, is_list: bool) -> Any:
    if isinstance(value, bool):
        return int(value)
    return value if is_list or not isinstance(value, list) else next(iter(value), None)


# -- writing -----------------------------------------------------------------------------------------


def _read_body(call: Call, facts: DocumentedOperation) -> Record:
    """The body, checked against the documented types. Assumption: a key that the documents do not have is ignored."""
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
    check_types(body, shape, is_form=call.form is not None)
    return {name: value for name, value in body.items() if not shape or name in shape or len(name) >= CODE_LENGTH}


def _add(call: Call, facts: DocumentedOperation, collection: tuple[str, ...], parents: Parents) -> Reply:
    sent = _read_body(call, facts)
    for name in facts.required:
        if call.upload is None and sent.get(name) in (None, "") and "items" not in sent:
            raise bad_request(f"{name} is required", name)
    kind = kind_of(collection)
    shape = shape_of(kind.name) or facts.item
    # A follower is known by the user that was sent, a message by the id that its provider gives it.
    id = sent.get(kind.key) if kind.key != "id" or "id" in (facts.body or {}) else None
    if id is None:
        id = _next_id(call, collection, parents)
        id = str(id) if facts.item.get(kind.key) == "str" else id
    record = new_record(call, collection, kind, parents, shape, id, sent)
    row = Row(0, "live", encode(record), ())
    store_record(call.company, collection, parents, "add", record_id(kind, record, 0), row, call.request_id)
    return _reply(facts, _wrap(call, facts, record) if facts.item else {"id": id})


def _next_id(call: Call, collection: tuple[str, ...], parents: Parents) -> int | str:
    kind = kind_of(collection)
    stored = records_at(call.company, collection, parents)
    if kind.ids == "int":
        most = max((int(id) for id in stored if is_number(id)), default=0)
        return max(most + 1, call.company.next_generic_id())
    fabricator = Fabricator(call.company, kind.name, ("new", call.company.next_generic_id()))
    if kind.ids == "code":
        return "".join(f"{fabricator.stable_number(part):016x}" for part in range(3))[:40]
    return fabricator.uuid() if kind.ids == "uuid" else fabricator.uuid().replace("-", "")


def _update(
    call: Call, facts: DocumentedOperation, collection: tuple[str, ...], parents: Parents, id: str | None
) -> Reply:
    sent = _read_body(call, facts)
    if id is None:  # the one document of a parent
        stored = call.company.collections.get((kind_of(collection).name, parents), {}).get("")
        before = (
            stored.record
            if stored
            else Fabricator(call.company, kind_of(collection).name, (parents, ())).record(facts.item, {})
        )
        record = {**before, **sent}
        row = Row(0, "live", encode(record), ())
        store_record(call.company, collection, parents, "update", "", row, call.request_id)
        return _reply(facts, record)
    row, kind = _row(call, collection, parents, id), kind_of(collection)
    shape = shape_of(kind.name) or facts.item
    check_sent(call, kind.name, sent, row.record)
    record = {**row.record, **stored_values(sent, shape)}
    if "last_update_user_id" in shape:
        record["last_update_user_id"] = call.viewer.user_id
    record = fill_links(call.company, kind.name, record, shape)
    if "update_time" in shape:
        record["update_time"] = call.company.clock.stamp()
    state = "archived" if record.get("is_archived") is True else "live"
    changed = Row(0, state, encode(record), ())
    store_record(call.company, collection, parents, "update", id, changed, call.request_id)
    return _reply(facts, _wrap(call, facts, record) if facts.item else {"id": as_number(id)})


def _delete(
    call: Call, facts: DocumentedOperation, collection: tuple[str, ...], parents: Parents, id: str | None
) -> Reply:
    if id is not None:
        record = _row(call, collection, parents, id).record
        store_record(call.company, collection, parents, "delete", id, None, call.request_id)
        return _reply(facts, _deleted(facts, id, record))
    stored = records_at(call.company, collection, parents)
    ids = [part for part in call.query.get("ids", "").split(",") if part] or _ids_in_body(call, stored)
    if not ids and not call.body:  # the only one there is: a product's image
        ids = list(stored)
    for each in ids:
        if each in stored:
            store_record(call.company, collection, parents, "delete", each, None, call.request_id)
    return success({"id": [as_number(each) for each in ids]})


def _deleted(facts: DocumentedOperation, id: str, record: Record) -> Any:
    """What the answer to a delete shows: that it is done, the id, or the record as it is now."""
    shape = facts.answer.get("data")
    if shape == "bool":
        return True
    if "user_id" in facts.item:  # v2 names the follower
        return {"user_id": as_number(id)}
    if len(facts.item) > len(("id", "data", "success")):
        flags = {"active_flag": False} if "active_flag" in facts.item else {}
        return {**present(record, facts.item), **flags}
    return {"id": as_number(id)}


def _ids_in_body(call: Call, stored: Rows) -> list[str]:
    """The records that the body of a DELETE names by one of their fields: a role's assignment by its user."""
    if not call.body:
        return []
    sent = call.json()
    return [id for id, row in stored.items() if any(row.record.get(name) == value for name, value in sent.items())]
