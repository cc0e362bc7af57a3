"""Decides what adding, changing and deleting a record does.

A change sets what was sent to the values sent, and what follows from them: sent twice it ends the same. Every write
sets update_time to the whole second of the sandbox's clock. The rules of deals (status and its times, pipelines and
stages, archived deals) are at the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pdsync.sandbox.company.clock import local_date
from pdsync.sandbox.company.data import blank_records
from pdsync.sandbox.company.table import decode
from pdsync.sandbox.protocol.errors import (
    bad_request,
    feature_off,
    forbidden,
    not_found,
)
from pdsync.sandbox.protocol.row_finder import visibility
from pdsync.sandbox.protocol.v1_bodies import from_v1
from pdsync.sandbox.protocol.validation import check

if TYPE_CHECKING:
    from pdsync.sandbox.company.resources import Resource
    from pdsync.sandbox.company.table import Record, Row
    from pdsync.sandbox.protocol.messages import Call

CONTACT_SYNC = ("postal_address", "notes", "im", "birthday", "job_title")
CLOSED = ("won", "lost")


def find(call: Call, resource: Resource, id: int, *, deleted: bool = False) -> Row:
    """The row the call is about.

    Assumption: for 30 days a deleted record still answers a single GET, with is_deleted true; to change it is a
    404, as is anything about a record that is purged or was merged away. What one may not see is a 403.
    """
    if resource.kind in call.company.features_off:
        raise feature_off(resource.kind)
    table = call.company[resource.kind]
    row = table.rows.get(id)
    if row is None or (row.state == "deleted" and not deleted):
        raise not_found(resource.one)
    sees = visibility(table, call.viewer, call.company)
    if sees is not None and not sees(row):
        raise forbidden()
    return row


def read_body(call: Call, resource: Resource, old: Record | None) -> dict[str, Any]:
    """The body in v2 names, every value checked."""
    body = call.json()
    if call.version == "v1":
        body = from_v1(body, resource, call.company, old)
    checked: dict[str, Any] = {}
    for code, value in body.items():
        spec = resource.body.get(code)
        if spec is None or (code == "add_time" and old is not None and call.version == "v2"):
            # Assumption: v2 refuses keys that it does not know or cannot set.
            raise bad_request(f"{code} is not allowed", code)
        checked[code] = check(spec, value, code, call.company, resource.kind)
        if code in CONTACT_SYNC and resource.kind == "persons" and not call.company.contact_sync:
            raise forbidden("Contact sync is not enabled.", field_code=code)
    if old is None:
        for code, spec in resource.body.items():
            if spec.endswith("!") and code not in checked:
                raise bad_request(f"{code} is required", code)
    return checked


def add(call: Call, resource: Resource) -> Row:
    if resource.kind in call.company.features_off:
        raise feature_off(resource.kind)
    sent = read_body(call, resource, None)
    now = call.company.clock.stamp()
    table = call.company[resource.kind]
    record: Record = {"id": table.next_id, **_blank(call, resource.kind), "add_time": now, "update_time": now}
    state, extra = _apply(call, resource.kind, record, sent, now, new=True)
    return call.company.put(resource.kind, "add", record, state, extra=extra, request=call.request_id)


def new_deal(call: Call, sent: dict[str, Any], custom: Record, **known: Any) -> Row:
    """Add a deal that is made of something else. The caller has checked what was `sent`, also that stages exist."""
    now, table = call.company.clock.stamp(), call.company["deals"]
    record: Record = {"id": table.next_id, **_blank(call, "deals"), "add_time": now, "update_time": now, **known}
    state, extra = _apply(call, "deals", record, {**sent, "custom_fields": custom}, now, new=True)
    return call.company.put("deals", "add", record, state, extra=extra, request=call.request_id)


def update(call: Call, resource: Resource) -> Row:
    row = find(call, resource, call.id(), deleted=resource.kind == "deals")
    old = row.record
    sent = read_body(call, resource, old)
    op = "update"
    if row.state == "deleted":
        # Assumption: is_deleted false brings a deal back within its 30 days; nothing else may be sent to it.
        if set(sent) != {"is_deleted"} or sent["is_deleted"]:
            raise not_found(resource.one)
        op = "restore"
    elif sent.get("is_deleted"):
        raise bad_request("is_deleted cannot be set to true, delete the deal instead", "is_deleted")
    if row.state == "archived":
        if sent.get("is_archived") is not False:
            # Assumption: an archived deal refuses every change that does not unarchive it.
            raise bad_request("Archived deals cannot be edited", "is_archived")
        op = "unarchive"
    elif sent.get("is_archived"):
        op = "archive"
    # Assumption: a change that changes nothing still moves update_time.
    now = call.company.clock.stamp()
    record = {**old, "update_time": now}
    state, extra = _apply(call, resource.kind, record, sent, now, new=False)
    return call.company.put(resource.kind, op, record, state, extra=extra, request=call.request_id)


def delete(call: Call, resource: Resource) -> Row:
    row = find(call, resource, call.id())
    company, now = call.company, call.company.clock.stamp()
    if resource.kind == "pipelines":
        for stage in list(company["stages"].where("pipeline_id", row.id)):
            mark_deleted(company, "stages", stage, now, call.request_id)
    return mark_deleted(company, resource.kind, row, now, call.request_id)


def mark_deleted(company: Any, kind: str, row: Row, now: str, request: str | None) -> Row:
    record = row.record
    flag = {"files": ("active_flag", False), "mail_threads": ("deleted_flag", 1)}.get(kind, ("is_deleted", True))
    record[flag[0]] = flag[1]
    record["update_time"] = now
    deleted: Row = company.put(kind, "delete", record, "deleted", request=request)
    return deleted


def _blank(call: Call, kind: str) -> Record:
    """A new record before anything is sent, with its keys in the API's order."""
    blank: Record = decode(blank_records())[kind]
    return {name: call.viewer.user_id if value == "@me" else value for name, value in blank.items()}


def _apply(
    call: Call, kind: str, record: Record, sent: dict[str, Any], now: str, *, new: bool
) -> tuple[str | None, Record | None]:
    """Set what was sent, then what follows from it. Returns the state and extra to keep, None as they are."""
    custom = sent.pop("custom_fields", None)
    if custom is not None:
        # Assumption: an empty object clears every custom field, as one SDK found.
        record["custom_fields"] = {**record["custom_fields"], **custom} if custom or new else {}
    extra = {"attendees": sent.pop("attendees")} if "attendees" in sent else None
    before = dict(record)
    record.update(sent)
    match kind:
        case "deals":
            return _deal(call, record, before, sent, now, new=new), None
        case "persons" if "name" in sent:
            first, _, last = record["name"].strip().partition(" ")
            record["first_name"], record["last_name"] = first, last or None
        case "products" if "prices" in sent:
            record["prices"] = [{"product_id": record["id"], **price} for price in sent["prices"]]
        case "activities":
            if "participants" in sent:
                primary = (one["person_id"] for one in record["participants"] if one["primary"])
                record["person_id"] = next(primary, None)
            if record["done"] != before["done"] or new:
                record["marked_as_done_time"] = now if record["done"] else None
        case "pipelines" if new:
            record["order_nr"] = 1 + len(call.company["pipelines"])
        case "stages" if new:
            record["order_nr"] = 1 + len(list(call.company["stages"].where("pipeline_id", record["pipeline_id"])))
    return "live" if new else None, extra


def _deal(call: Call, record: Record, before: Record, sent: dict[str, Any], now: str, *, new: bool) -> str:
    company = call.company
    _place(call, record, before, sent, now, new=new)
    _status(record, before, sent, now)
    if sent.get("is_archived") and not before["is_archived"]:
        record["archive_time"] = sent.get("archive_time") or now
    elif not record["is_archived"]:
        record["archive_time"] = None
    if new:
        if sent.get("is_deleted"):
            raise bad_request("a deal cannot be added as deleted", "is_deleted")
        cap = company.deals_cap
        if cap is not None and sum(row.state == "live" for row in company["deals"].rows.values()) >= cap:
            raise forbidden("The limit of deals for your plan is reached.", code="feature_capping_deals_limit")
    return "archived" if record["is_archived"] else "live"


def _place(call: Call, record: Record, before: Record, sent: dict[str, Any], now: str, *, new: bool) -> None:
    """A stage brings its pipeline along; a pipeline alone puts the deal in its first stage."""
    stages = call.company["stages"]
    order = stages.position["order_nr"]

    def first_stage(pipeline_id: int | None) -> int | None:
        live = [row for row in stages.where("pipeline_id", pipeline_id) if row.state == "live"]
        return min(live, key=lambda row: row.facets[order]).id if live else None

    if "stage_id" in sent:
        pipeline = stages.facet(stages.rows[sent["stage_id"]], "pipeline_id")
        if sent.get("pipeline_id") not in (None, pipeline):
            raise bad_request("stage_id belongs to another pipeline", "stage_id")
        record["pipeline_id"] = pipeline
    elif "pipeline_id" in sent:
        if sent["pipeline_id"] != before["pipeline_id"]:
            record["stage_id"] = first_stage(sent["pipeline_id"])
    elif new:
        live = [row.id for row in call.company["pipelines"].rows.values() if row.state == "live"]
        record["pipeline_id"] = min(live, default=None)
        record["stage_id"] = first_stage(record["pipeline_id"])
    if not new and record["stage_id"] != before["stage_id"]:
        record["stage_change_time"] = now


def _status(record: Record, before: Record, sent: dict[str, Any], now: str) -> None:
    """won_time only when won, lost_time and lost_reason only when lost, close_time only when closed."""
    status = record["status"]
    for code, allowed in (("won_time", ("won",)), ("lost_time", ("lost",)), ("lost_reason", ("lost",))):
        if sent.get(code) is not None and status not in allowed:
            raise bad_request(f"{code} can only be set when status is {allowed[0]}", code)
    if sent.get("close_time") is not None and status not in CLOSED:
        raise bad_request("close_time can only be set when status is won or lost", "close_time")
    own = f"{status}_time"
    if status != before["status"] or (status in CLOSED and record[own] is None):
        for code in ("won_time", "lost_time", "close_time"):
            record[code] = sent.get(code)
        if status in CLOSED:
            record[own] = sent.get(own) or sent.get("close_time") or now
            record["close_time"] = sent.get("close_time") or record[own]
        if status != "lost":
            record["lost_reason"] = None
    for code in ("won", "lost", "close"):
        when = record[f"{code}_time"]
        record[f"local_{code}_date"] = local_date(when) if when else None
