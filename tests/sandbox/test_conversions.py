"""A deal becomes a lead and a lead a deal: told by a job, and by what was made of it."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .api import Api


def test_a_lead_becomes_a_deal_in_the_stage_that_was_asked_for(api: Api) -> None:
    lead = api.get("/v1/leads").data[0]
    stage = api.get("/api/v2/stages").data[-1]
    job = api.post(f"/api/v2/leads/{lead['id']}/convert/deal", stage_id=stage["id"]).data["conversion_id"]
    done = api.get(f"/api/v2/leads/{lead['id']}/convert/status/{job}").data
    assert done["status"] == "completed"
    deal = api.get(f"/api/v2/deals/{done['deal_id']}", include_fields="source_lead_id").data
    assert (deal["title"], deal["owner_id"], deal["org_id"]) == (
        lead["title"],
        lead["owner_id"],
        lead["organization_id"],
    )
    assert (deal["source_lead_id"], deal["stage_id"], deal["pipeline_id"]) == (
        lead["id"], stage["id"], stage["pipeline_id"],
    )  # fmt: skip
    assert api.get(f"/v1/leads/{lead['id']}").status == 404
    assert lead["id"] not in {each["id"] for each in api.get("/v1/leads", limit=500).data}
    assert api.post(f"/api/v2/leads/{lead['id']}/convert/deal").status == 404


def test_a_deal_becomes_a_lead_and_is_deleted(api: Api) -> None:
    id = api.live("deals")[0]
    deal = api.get(f"/api/v2/deals/{id}").data
    job = api.post(f"/api/v2/deals/{id}/convert/lead").data["conversion_id"]
    done = api.get(f"/api/v2/deals/{id}/convert/status/{job}").data
    lead = api.get(f"/v1/leads/{done['lead_id']}").data
    assert (lead["title"], lead["source_deal_id"], lead["person_id"]) == (deal["title"], id, deal["person_id"])
    assert api.get(f"/api/v2/deals/{id}").data["is_deleted"]
    assert [(e.kind, e.op) for e in api.box.journal[-2:]] == [("leads", "add"), ("deals", "delete")]


def test_a_job_is_known_to_its_record_and_for_three_days(api: Api) -> None:
    id, other = api.live("deals")[:2]
    job = api.post(f"/api/v2/deals/{id}/convert/lead").data["conversion_id"]
    assert api.get(f"/api/v2/deals/{other}/convert/status/{job}").status == 404
    assert api.get(f"/api/v2/deals/{id}/convert/status/{uuid.uuid4()}").status == 404
    api.box.clock.advance(4 * 86_400)
    assert api.get(f"/api/v2/deals/{id}/convert/status/{job}").status == 404


@pytest.mark.parametrize("name", ["stage_id", "pipeline_id"])
@pytest.mark.parametrize("wrong", [99_999, "x", [1], True])
def test_a_lead_stays_if_the_stage_or_the_pipeline_is_unknown(api: Api, name: str, wrong: Any) -> None:
    lead = api.get("/v1/leads").data[0]
    before = len(api.box.journal)
    assert api.post(f"/api/v2/leads/{lead['id']}/convert/deal", **{name: wrong}).status == 400
    assert api.get(f"/v1/leads/{lead['id']}").status == 200
    assert len(api.box.journal) == before
