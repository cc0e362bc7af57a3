"""What a member may not do is refused, and changes nothing."""

from __future__ import annotations

from typing import Any

import pytest

from .api import Api

ADMINS_ONLY: list[tuple[str, str, Any]] = [
    ("POST", "/api/v2/pipelines", {"name": "x"}),
    ("PATCH", "/api/v2/pipelines/1", {"name": "x"}),
    ("DELETE", "/api/v2/pipelines/1", None),
    ("POST", "/v1/pipelines", {"name": "x"}),
    ("DELETE", "/v1/pipelines/1", None),
    ("POST", "/api/v2/stages", {"name": "x", "pipeline_id": 1}),
    ("PATCH", "/api/v2/stages/11", {"name": "x"}),
    ("DELETE", "/api/v2/stages/11", None),
    ("POST", "/v1/activityTypes", {"name": "x", "icon_key": "call"}),
    ("PUT", "/v1/activityTypes/1", {"name": "x"}),
    ("DELETE", "/v1/activityTypes/1", None),
    ("POST", "/v1/roles", {"name": "x"}),
    ("POST", "/v1/roles/1/settings", {"setting_key": "deal_default_visibility", "value": 3}),
    ("PUT", "/v1/roles/1/pipelines", {"visible_pipeline_ids": {"remove": [1]}}),
    ("POST", "/v1/users", {"email": "x@example.com"}),
    ("POST", "/v1/channels", {"name": "x", "provider_channel_id": "x"}),
    ("POST", "/api/v2/dealFields", {"field_name": "x", "field_type": "varchar"}),
]


@pytest.mark.parametrize(("method", "path", "body"), ADMINS_ONLY)
def test_a_member_administers_nothing(api: Api, method: str, path: str, body: Any) -> None:
    member, before = Api(api.box, api.box.tokens["member"]), len(api.box.journal)
    assert member.ask(method, path, body).status == 403
    assert len(api.box.journal) == before
    assert api.ask(method, path, body).status in (200, 201)


def test_a_member_works_with_records_and_webhooks(api: Api) -> None:
    member = Api(api.box, api.box.tokens["member"])
    deal = member.post("/api/v2/deals", title="x").data["id"]
    assert member.patch(f"/api/v2/deals/{deal}", title="y").status == 200
    assert member.post("/v1/notes", content="x", deal_id=deal).status == 200
    hook = {"subscription_url": "https://example.com/h", "event_action": "*", "event_object": "*", "name": "h"}
    assert member.post("/v1/webhooks", **hook).status == 201


def test_only_an_admin_writes_a_note_in_the_name_of_somebody_else(api: Api) -> None:
    member, other = Api(api.box, api.box.tokens["member"]), api.box.company.viewers["admin"].user_id
    deal = member.post("/api/v2/deals", title="x").data["id"]
    assert member.post("/v1/notes", content="x", deal_id=deal, user_id=other).status == 403
    note = api.post("/v1/notes", content="x", deal_id=deal, user_id=api.box.company.viewers["member"].user_id).data
    assert note["user_id"] == api.box.company.viewers["member"].user_id
