"""Users, roles, teams, webhooks and what else administers a company, as the documents describe it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.sandbox.api import Api


def test_a_user_who_is_added_is_listed_and_can_be_deactivated(api: Api) -> None:
    added = api.post("/v1/users", email="ada@north.example", access=[{"app": "sales", "admin": True}]).data
    assert (added["email"], added["access"], added["active_flag"]) == (
        "ada@north.example",
        [{"app": "sales", "admin": True}],
        True,
    )
    assert api.put(f"/v1/users/{added['id']}", active_flag=False).data["active_flag"] is False
    listed = {user["id"]: user["active_flag"] for user in api.get("/v1/users").data}
    assert listed[added["id"]] is False
    assert api.get(f"/v1/users/{added['id']}").data["active_flag"] is False
    assert [(entry.kind, entry.op) for entry in api.box.journal[-2:]] == [("users", "add"), ("users", "update")]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/users", {"email": "nobody"}),
        ("PUT", "/v1/users/{user}", {"active_flag": 1}),
        ("POST", "/v1/roles/1/settings", {"setting_key": "colour", "value": 1}),
        ("POST", "/v1/roles/1/settings", {"setting_key": "deal_default_visibility", "value": 2}),
        ("PUT", "/v1/roles/1/pipelines", {"visible_pipeline_ids": [1]}),
        ("POST", "/v1/legacyTeams/1/users", {}),
        ("POST", "/v1/meetings/userProviderLinks", {"user_id": 1}),
    ],
)
def test_what_the_documents_do_not_allow_is_refused(api: Api, method: str, path: str, body: dict[str, Any]) -> None:
    before = len(api.box.journal)
    assert api.ask(method, path.format(user=api.live("users")[0]), body).status == 400
    assert len(api.box.journal) == before


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/v1/users/1", {"active_flag": True}),
        ("GET", "/v1/roles/99", None),
        ("GET", "/v1/roles/99/settings", None),
        ("DELETE", "/v1/roles/1/assignments", {"user_id": 1}),
        ("GET", "/v1/legacyTeams/99/users", None),
        ("DELETE", "/v1/meetings/userProviderLinks/0b5e5b0e-0000-4000-8000-000000000000", None),
    ],
)
def test_what_is_not_there_is_a_404(api: Api, method: str, path: str, body: dict[str, Any] | None) -> None:
    assert api.ask(method, path, body).status == 404


def test_a_setting_of_a_role_is_kept_and_shown_beside_the_role(api: Api) -> None:
    before = api.get("/v1/roles/1/settings").data
    changed = api.post("/v1/roles/1/settings", setting_key="lead_default_visibility", value=7)
    assert changed.data == {"id": 1, "lead_default_visibility": 7}
    after = {**before, "lead_default_visibility": 7}
    assert api.get("/v1/roles/1/settings").data == after
    assert api.get("/v1/roles/1").json["additional_data"] == {"settings": after}
    assert api.get("/v1/roles/2/settings").data == before


def test_a_role_sees_every_pipeline_but_those_that_are_hidden_from_it(api: Api) -> None:
    every = api.live("pipelines")
    assert api.get("/v1/roles/1/pipelines").data == {"pipeline_ids": every, "visible": True}
    hidden = api.put("/v1/roles/1/pipelines", visible_pipeline_ids={"add": [], "remove": every[:1]})
    assert hidden.data == {"pipeline_ids": every[1:], "visible": True}
    assert api.get("/v1/roles/1/pipelines", visible="false").data == {"pipeline_ids": every[:1], "visible": False}
    api.put("/v1/roles/1/pipelines", visible_pipeline_ids={"add": every[:1], "remove": []})
    assert api.get("/v1/roles/1/pipelines").data["pipeline_ids"] == every


def test_who_leaves_a_role_is_not_assigned_to_it_any_more(api: Api) -> None:
    user = api.get("/v1/roles/1/assignments").data[0]["user_id"]
    assert api.ask("DELETE", "/v1/roles/1/assignments", {"user_id": user}).data == {"id": 1}
    assert user not in [each["user_id"] for each in api.get("/v1/roles/1/assignments").data or []]


def test_members_of_a_team_are_users(api: Api) -> None:
    users = api.live("users")
    team = api.get("/v1/legacyTeams").data[0]
    assert set(team["users"]) <= set(users)
    path = f"/v1/legacyTeams/{team['id']}/users"
    assert set(api.post(path, users=users[:2]).data) == {*team["users"], *users[:2]}
    assert api.ask("DELETE", path, {"users": users}).data == []
    assert api.get(path).data == []


def test_webhooks_say_that_all_is_well_and_a_user_has_forty_of_them(api: Api) -> None:
    hook = {"subscription_url": "https://hook.example", "event_action": "*", "event_object": "deal", "name": "Hook"}
    me = api.get("/v1/users/me").data["id"]
    listed = api.get("/v1/webhooks")
    assert listed.json["status"] == "ok"
    owned = sum(each["owner_id"] == me for each in listed.data)
    answers = [api.post("/v1/webhooks", **hook) for _ in range(41 - owned)]
    assert [answer.status for answer in answers] == [201] * (40 - owned) + [422]
    assert answers[0].json["status"] == "ok"
    deleted = api.delete(f"/v1/webhooks/{answers[0].data['id']}")
    assert deleted.json == {"success": True, "status": "ok"}
    assert api.post("/v1/webhooks", **hook).status == 201


def test_a_call_has_one_recording(api: Api) -> None:
    call = api.get("/v1/callLogs").data[0]["id"]
    content = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.mp3"\r\n\r\nx\r\n--b--\r\n'
    kind = {"content-type": "multipart/form-data; boundary=b"}
    first, second = (api.ask("POST", f"/v1/callLogs/{call}/recordings", content, kind) for _ in range(2))
    assert (first.status, first.json) == (200, {"success": True})
    assert second.status == 409


def test_archived_mail_is_in_the_archive(api: Api) -> None:
    thread = api.get("/v1/mailbox/mailThreads", folder="inbox").data[0]["id"]
    for archived, folder in ((1, "archive"), (0, "inbox")):
        api.put(f"/v1/mailbox/mailThreads/{thread}", archived_flag=archived)
        found = [
            name
            for name in ("inbox", "archive", "sent", "drafts")
            if thread in [each["id"] for each in api.get("/v1/mailbox/mailThreads", folder=name).data or []]
        ]
        assert found == [folder]


def test_a_file_can_hang_on_a_lead_or_a_project(api: Api) -> None:
    lead, project = api.get("/v1/leads").data[0]["id"], api.get("/api/v2/projects").data[0]["id"]
    for name, id in (("lead_id", lead), ("project_id", project)):
        part = f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{id}\r\n'
        content = (
            part.encode() + b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nx\r\n--b--\r\n'
        )
        added = api.ask("POST", "/v1/files", content, {"content-type": "multipart/form-data; boundary=b"})
        assert added.data[name] == id


def test_ids_are_texts_where_the_documents_say_so(api: Api) -> None:
    channel = api.post("/v1/channels", name="Chat", provider_channel_id="c1").data["id"]
    assert isinstance(channel, str)
    message = api.post(
        "/v1/channels/messages/receive", id="m1", channel_id=channel, sender_id="s", conversation_id="a",
        message="Hello", status="sent", created_at="2026-01-05T10:00:00Z",
    )  # fmt: skip
    assert message.data["id"] == "m1"
    assert api.delete(f"/v1/channels/{channel}/conversations/a").json == {"success": True}
    field = api.post("/api/v2/projectFields", field_name="Risk", field_type="varchar").data["field_code"]
    assert len(field) == 40
    assert api.get(f"/api/v2/projectFields/{field}").data["field_name"] == "Risk"


def test_installments_of_several_deals_are_whole(api: Api) -> None:
    deals = {entry["record"]["deal_id"] for entry in api.box.dump("deal_installments")}
    shown = api.get("/api/v2/deals/installments", deal_ids=",".join(map(str, sorted(deals)[:9]))).data
    assert shown
    assert all({"id", "deal_id", "amount", "billing_date", "description"} <= each.keys() for each in shown)


def test_a_permission_set_counts_its_assignments(api: Api) -> None:
    for each in api.get("/v1/permissionSets").data:
        assert each["assignment_count"] == len(api.get(f"/v1/permissionSets/{each['id']}/assignments").data)
