"""Carries out what is not simply adding, changing or deleting one record: many at once, a copy, an archive, a document.

Assumptions: a copy has all values of the original but its id and its times; an item of a project's plan is
put there when it is first given a phase; a remote file is kept like any other.
"""

from __future__ import annotations

import mimetypes
import uuid
from typing import TYPE_CHECKING, Any

import msgspec

from pdsync.sandbox.company.fabricate import Fabricator
from pdsync.sandbox.company.population.activities_files_mail import file_record
from pdsync.sandbox.company.resources import RESOURCES
from pdsync.sandbox.company.table import Row, encode
from pdsync.sandbox.operations.body_checks import check_option_ids, check_types, labels_of
from pdsync.sandbox.operations.documented import DocumentedOperation, kind_of, operations, shape_of, split
from pdsync.sandbox.operations.filters import check_conditions
from pdsync.sandbox.operations.generic import answer, present
from pdsync.sandbox.operations.generic_records import as_number, records_at, store_record
from pdsync.sandbox.operations.nested_lists import plain
from pdsync.sandbox.operations.new_records import new_record
from pdsync.sandbox.operations.writes import find
from pdsync.sandbox.protocol import v1_records
from pdsync.sandbox.protocol.errors import bad_request, not_found, refused
from pdsync.sandbox.protocol.messages import Reply, is_number, success
from pdsync.sandbox.protocol.render import PLAIN

if TYPE_CHECKING:
    from pdsync.sandbox.company.table import Record
    from pdsync.sandbox.protocol.messages import Call, Route

PRODUCTS, PLAN = ("deals", "{}", "products"), ("projects", "{}", "plan")
PROJECTS, CALLS, IMAGES = ("projects",), ("callLogs",), ("products", "{}", "images")
PROJECT_FIELDS = ("projectFields",)
MOST_PRODUCTS = 100


def add_many_products(call: Call, route: Route) -> Reply:
    """Put several products into a deal: all of them, or none."""
    sent = call.json().get("data")
    if not isinstance(sent, list) or not 0 < len(sent) <= MOST_PRODUCTS:
        raise bad_request("data takes 1 to 100 products", "data")
    _deal(call)
    shape, facts, parents = shape_of("deal_products"), operations()[route.kind], (call.params[0],)
    for each in sent:
        if not isinstance(each, dict) or any(each.get(key) is None for key in ("product_id", "item_price", "quantity")):
            raise bad_request("Each product needs product_id, item_price and quantity", "data")
        check_types(each, facts.body["data"][0])
        if each["product_id"] not in call.company["products"].rows:
            raise bad_request("There is no such product", "data")
    kind, company = kind_of(PRODUCTS), call.company
    made = [new_record(call, PRODUCTS, kind, parents, shape, company.next_generic_id(), each) for each in sent]
    first = len(records_at(company, PRODUCTS, parents)) + 1
    for order, record in enumerate(made, first):
        if "order_nr" in record:
            record["order_nr"] = order
        store_record(company, PRODUCTS, parents, "add", str(record["id"]), _live(record), call.request_id)
    return success([present(record, facts.item) for record in made], facts.status)


def delete_many_products(call: Call, route: Route) -> Reply:
    """Take products out of a deal: those named, or the first hundred; the answer says whether there are more."""
    _deal(call)
    parents = (call.params[0],)
    stored = records_at(call.company, PRODUCTS, parents)
    ids = [part for part in call.query.get("ids", "").split(",") if part] or list(stored)[:MOST_PRODUCTS]
    if len(ids) > MOST_PRODUCTS:
        raise bad_request(f"ids takes at most {MOST_PRODUCTS} ids", "ids")
    gone = [id for id in ids if id in stored]
    for id in gone:
        store_record(call.company, PRODUCTS, parents, "delete", id, None, call.request_id)
    more = bool(records_at(call.company, PRODUCTS, parents)) and "ids" not in call.query
    data = {"ids": [as_number(id) for id in gone]}
    return success(data, additional_data={"more_items_in_collection": more})


def _deal(call: Call) -> Row:
    return find(call, RESOURCES["deals"], call.id())


def duplicate_deal(call: Call, route: Route) -> Reply:
    return success(plain(v1_records.shape(call.company, "deals", _copy(call, "deals"))))


def duplicate_product(call: Call, route: Route) -> Reply:
    (shown,) = call.renderer.many("products", [_copy(call, "products")], PLAIN)
    return Reply(201, b'{"success":true,"data":%b}' % shown)


def _copy(call: Call, kind: str) -> Row:
    row, now = find(call, RESOURCES[kind], call.id()), call.company.clock.stamp()
    record = {**row.record, "id": call.company[kind].next_id, "add_time": now, "update_time": now}
    return call.company.put(kind, "add", record, row.state, extra=row.extra, request=call.request_id)


def add_remote_file(call: Call, route: Route) -> Reply:
    """Make a file in Google Drive, or link one: a record with no content."""
    sent, company = dict(call.form or {}), call.company
    named = {"deal": "deal_id", "organization": "org_id", "person": "person_id"}
    link = named.get(str(sent.get("item_type")))
    item = int(sent["item_id"]) if is_number(str(sent.get("item_id"))) else None
    if link is None or item is None:
        raise bad_request("item_type and item_id name a deal, an organization or a person", "item_type")
    links: dict[str, int | None] = {link: item}
    name, now = sent.get("title") or "Remote file", company.clock.stamp()
    id = company["files"].next_id
    record = file_record(id, call.viewer.user_id, name=name, stored=name, size=0, now=now, links=links)
    record |= {"remote_location": sent.get("remote_location"), "remote_id": sent.get("remote_id") or str(uuid.uuid4())}
    row = company.put("files", "add", record, "live", request=call.request_id)
    return success(v1_records.shape(company, "files", row))


def answer_filter(call: Call, route: Route) -> Reply:
    """Show, add or change a filter. What is added can be evaluated; `field_code` is shown on request."""
    if call.method != "GET":
        sent = call.json()
        if "conditions" in sent:
            call.body = encode({**sent, "conditions": check_conditions(call.company, sent["conditions"])})
    reply = answer(call, route)
    if call.query.get("include_field_code") == "true":
        return reply
    shown = msgspec.json.decode(reply.body)
    for group in (shown["data"].get("conditions") or {}).get("conditions", ()):
        for each in group["conditions"]:
            each.pop("field_code", None)
    return Reply(reply.status, encode(shown), reply.headers)


# -- one document of a record ------------------------------------------------------------------------


def _document(call: Call, facts: DocumentedOperation) -> Record:
    collection, _ = split(facts)
    name = kind_of(collection).name
    stored = call.company.collections.get((name, tuple(call.params)), {}).get("")
    return stored.record if stored else Fabricator(call.company, name, (tuple(call.params), ())).record(facts.item, {})


def _put_document(call: Call, facts: DocumentedOperation, record: Record) -> None:
    collection, _ = split(facts)
    parents = tuple(call.params)
    call.company.collections.setdefault((kind_of(collection).name, parents), {})
    store_record(call.company, collection, parents, "update", "", _live(record), call.request_id)


def product_image(call: Call, route: Route) -> Reply:
    """The one image of a product: shown, put there, replaced or taken away."""
    facts, parents = operations()["v2 getProductImage"], tuple(call.params)
    find(call, RESOURCES["products"], call.id())
    key = (kind_of(IMAGES).name, parents)
    stored = call.company.collections.get(key)
    record = stored[""].record if stored else _document(call, facts) if stored is None else None
    if call.method in ("POST", "PUT"):
        if call.upload is None:
            raise bad_request("data is required", "data")
        id, now = call.company.next_generic_id(), call.company.clock.stamp()
        record = {"id": id, "product_id": call.id(), "company_id": str(call.company.id), "add_time": now[:10]}
        record |= {
            "public_url": f"https://images.example/{id}",
            "mime_type": mimetypes.guess_type(call.upload.file_name)[0] or "image/png",
            "name": call.upload.file_name,
        }
        _put_document(call, facts, record)
        changing = operations()[route.kind]
        return success(present(record, changing.item), changing.status)
    if record is None:
        raise not_found("image")
    if call.method == "DELETE":
        call.company.collections.setdefault(key, {"": _live(record)})
        store_record(call.company, IMAGES, parents, "delete", "", None, call.request_id)
        return success({"id": record["id"]})
    return success(present(record, facts.item))


# -- generic records ---------------------------------------------------------------------------------


def archive_project(call: Call, route: Route) -> Reply:
    row = _find_row(call, PROJECTS, "project")
    now = call.company.clock.stamp()
    changed = _change(call, PROJECTS, row, is_archived=True, archive_time=now, update_time=now)
    return success(present(changed, operations()[route.kind].item))


def add_recording(call: Call, route: Route) -> Reply:
    if call.upload is None:
        raise bad_request("file is required", "file")
    row = _find_row(call, CALLS, "call log")
    if row.record.get("has_recording"):
        raise refused(409, "The call log already has an audio file")
    _change(call, CALLS, row, has_recording=True)
    return Reply(200, encode({"success": True}))


def plan_item(call: Call, route: Route) -> Reply:
    """Give an activity or a task of a project a phase and a group."""
    _find_row(call, PROJECTS, "project")
    parents, id, sent = (call.params[0],), call.id(1), call.json()
    check_types(sent, operations()[route.kind].body)
    what = "activity" if route.operation == "putProjectPlanActivity" else "task"
    record = {"item_id": id, "item_type": what, "phase_id": sent.get("phase_id"), "group_id": sent.get("group_id")}
    records_at(call.company, PLAN, parents)
    store_record(call.company, PLAN, parents, "update", f"{what}/{id}", _live(record), call.request_id)
    return success(record)


def change_project_options(call: Call, route: Route) -> Reply:
    """Add, rename or delete options of a project's field."""
    row = _find_row(call, PROJECT_FIELDS, "field")
    options = [dict(each) for each in row.record.get("options") or () if isinstance(each, dict)]
    try:
        sent = msgspec.json.decode(call.body, type=list[dict[str, Any]])
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise bad_request("The request body is not a list of options") from None
    ids = [each.get("id") for each in sent]
    if call.method != "POST":
        check_option_ids(ids, options, "id")
    if call.method == "POST":
        changed = [{"id": call.company.next_generic_id(), "label": label} for label in labels_of(sent)]
        options += changed
    elif call.method == "PATCH":
        labels = dict(zip(ids, labels_of(sent), strict=True))
        options = [{**each, "label": labels.get(each.get("id"), each.get("label"))} for each in options]
        changed = [{"id": id, "label": labels[id]} for id in ids]
    else:
        changed = [each for each in options if each.get("id") in ids]
        options = [each for each in options if each.get("id") not in ids]
    _change(call, PROJECT_FIELDS, row, options=options)
    return success([{"id": each["id"], "label": each.get("label")} for each in changed])


def _find_row(call: Call, collection: tuple[str, ...], what: str) -> Row:
    row = records_at(call.company, collection, ()).get(call.params[0])
    if row is None:
        raise not_found(what)
    return row


def _change(call: Call, collection: tuple[str, ...], row: Row, **changed: Any) -> Record:
    record = {**row.record, **changed}
    state = kind_of(collection).state(record)
    store_record(
        call.company, collection, (), "update", call.params[0], Row(0, state, encode(record), ()), call.request_id
    )
    return record


def _live(record: Record) -> Row:
    return Row(0, "live", encode(record), ())
