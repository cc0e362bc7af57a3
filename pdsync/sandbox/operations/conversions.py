"""Converts leads to deals and deals to leads: a job with a status, and a source that is deleted.

Assumptions: the job is completed at once; its result is kept for three days; title, owner, person, organization,
value, expected close date and custom fields go over, labels do not; linked records stay with the source; a lead that
was converted is in no list and answers 404, a deal is deleted like any other.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from pdsync.sandbox.company.clock import DAY_S
from pdsync.sandbox.company.company import Conversion
from pdsync.sandbox.company.resources import RESOURCES
from pdsync.sandbox.company.table import Row, encode
from pdsync.sandbox.operations.documented import shape_of
from pdsync.sandbox.operations.generic_records import records_at, store_record
from pdsync.sandbox.operations.writes import find, mark_deleted, new_deal
from pdsync.sandbox.protocol.errors import not_found
from pdsync.sandbox.protocol.messages import Reply, success
from pdsync.sandbox.protocol.validation import check

if TYPE_CHECKING:
    from pdsync.sandbox.protocol.messages import Call, Route

KEPT_S = 3 * DAY_S
LEADS = ("leads",)
PLACES = {"stage_id": "stages", "pipeline_id": "pipelines"}
COMMON = ("owner_id", "person_id", "title", "expected_close_date")


def convert_deal(call: Call, _: Route) -> Reply:
    """Make a lead of a deal."""
    company, now = call.company, call.company.clock.stamp()
    row = find(call, RESOURCES["deals"], call.id())
    deal = row.record
    id = str(uuid.uuid4())
    lead = dict.fromkeys(shape_of("leads")) | {name: deal[name] for name in COMMON}
    lead |= {
        "id": id, "creator_id": call.viewer.user_id, "organization_id": deal["org_id"], "source_deal_id": row.id,
        "value": {"amount": deal["value"], "currency": deal["currency"]} if deal["value"] else None, "label_ids": [],
        "is_archived": False, "was_seen": True, "add_time": now, "update_time": now, "source_name": "Deal",
    }  # fmt: skip
    store_record(
        company, LEADS, (), "add", id, Row(0, "live", encode(lead | deal["custom_fields"]), ()), call.request_id
    )
    mark_deleted(company, "deals", row, now, call.request_id)
    return _begun(call, Conversion(id, row.id, company.clock.seconds()))


def convert_lead(call: Call, _: Route) -> Reply:
    """Make a deal of a lead."""
    company, id = call.company, call.params[0]
    row = records_at(company, LEADS, ()).get(id)
    if row is None or row.state != "live":
        raise not_found("lead")
    lead, value = row.record, row.record["value"] or {}
    known = company.fields["deals"].custom
    sent: dict[str, Any] = {name: lead[name] for name in COMMON if lead[name] is not None}
    sent |= {"org_id": lead["organization_id"], "value": value.get("amount"), "currency": value.get("currency")}
    for name, each in call.json().items():
        if name in PLACES and each is not None:
            sent[name] = check(f"ref:{PLACES[name]}", each, name, company, "deals")
    custom = {code: each for code, each in lead.items() if code in known and each is not None}
    deal = new_deal(call, {name: each for name, each in sent.items() if each is not None}, custom, source_lead_id=id)
    store_record(company, LEADS, (), "delete", id, None, call.request_id)
    return _begun(call, Conversion(id, deal.id, company.clock.seconds()))


def conversion_status(call: Call, _: Route) -> Reply:
    """How far a job is."""
    of, job = call.params
    done: Conversion | None = call.company.conversions.get(job)
    if done is None or of not in (done.lead_id, str(done.deal_id)) or _age_s(call, done) > KEPT_S:
        raise not_found("conversion")
    return success(
        {"lead_id": done.lead_id, "deal_id": done.deal_id, "conversion_id": job, "status": "completed"},
        additional_data=None,
    )


def _age_s(call: Call, done: Conversion) -> float:
    return call.company.clock.seconds() - done.at_s


def _begun(call: Call, done: Conversion) -> Reply:
    job = str(uuid.uuid4())
    call.company.conversions[job] = done
    return success({"conversion_id": job}, additional_data=None)
