"""Definitions of fields are written as an administrator writes them: records, lists and the journal tell of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pdsync.sandbox import RunningSandbox
    from tests.sandbox.api import Api


def made(api: Api, **field: Any) -> dict[str, Any]:
    answer = api.post("/api/v2/dealFields", **{"field_name": "Made", "field_type": "varchar", **field})
    assert answer.status == 200
    found: dict[str, Any] = answer.data
    return found


def test_a_field_is_added_filled_renamed_and_deleted(api: Api, box: RunningSandbox) -> None:
    before = len(box.journal)
    code = made(api)["field_code"]
    assert len(code) == 40
    deal = api.get("/api/v2/deals", limit="1").data[0]
    moved = deal["update_time"]
    assert api.ask("PATCH", f"/api/v2/deals/{deal['id']}", {"custom_fields": {code: "text"}}).status == 200
    assert api.get(f"/api/v2/deals/{deal['id']}").data["custom_fields"][code] == "text"
    changed = api.get(f"/api/v2/deals/{deal['id']}").data["update_time"]
    assert api.ask("PATCH", f"/api/v2/dealFields/{code}", {"field_name": "Renamed"}).data["field_name"] == "Renamed"
    assert api.ask("DELETE", f"/api/v2/dealFields/{code}").status == 200
    assert api.get(f"/api/v2/dealFields/{code}").status == 410
    after = api.get(f"/api/v2/deals/{deal['id']}").data
    assert code not in after["custom_fields"]
    assert after["update_time"] == changed >= moved  # definitions move no record's time
    ops = [(entry.kind, entry.op) for entry in box.journal[before:]]
    assert [op for kind, op in ops if kind == "deal_fields"] == ["add", "update", "delete"]


def test_options_are_added_renamed_and_deleted_in_bulk_and_leave_the_records(api: Api) -> None:
    field = made(api, field_type="set", options=[{"label": "One"}, {"label": "Two"}])
    code, (one, two) = field["field_code"], [option["id"] for option in field["options"]]
    deal = api.get("/api/v2/deals", limit="1").data[0]["id"]
    assert api.ask("PATCH", f"/api/v2/deals/{deal}", {"custom_fields": {code: [one, two]}}).status == 200
    added = api.ask("POST", f"/api/v2/dealFields/{code}/options", [{"label": "Three"}])
    assert [option["label"] for option in added.data] == ["Three"]
    assert api.ask("PATCH", f"/api/v2/dealFields/{code}/options", [{"id": two, "label": "Second"}]).status == 200
    assert api.ask("DELETE", f"/api/v2/dealFields/{code}/options", [{"id": one}]).status == 200
    assert api.get(f"/api/v2/deals/{deal}").data["custom_fields"][code] == [two]
    left = api.get(f"/api/v2/dealFields/{code}").data["options"]
    assert [option["label"] for option in left] == ["Second", "Three"]


def test_through_v1_by_number_and_several_at_once(api: Api) -> None:
    first = api.post("/v1/personFields", name="First", field_type="double")
    second = api.post("/v1/personFields", name="Second", field_type="enum", options=[{"label": "A"}, {"label": "B"}])
    assert (first.status, second.status) == (200, 200)
    id, options = second.data["id"], second.data["options"]
    sent = [{**options[0], "label": "a"}, {"label": "c"}]
    assert [each["label"] for each in api.ask("PUT", f"/v1/personFields/{id}", {"options": sent}).data["options"]] == [
        "a", "c",
    ]  # fmt: skip
    assert api.ask("DELETE", f"/v1/personFields?ids={first.data['id']},{id}").data == {"id": [first.data["id"], id]}
    assert api.get(f"/v1/personFields/{id}").status == 410


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/api/v2/dealFields", {"field_type": "varchar"}, 400),
        ("POST", "/api/v2/dealFields", {"field_name": "x", "field_type": "picture"}, 400),
        ("POST", "/api/v2/dealFields", {"field_name": "x", "field_type": "enum"}, 400),
        ("DELETE", "/api/v2/dealFields/title", None, 403),
        ("DELETE", "/api/v2/dealFields/" + "0" * 40, None, 404),
        ("DELETE", "/v1/dealFields?ids=1", None, 400),
    ],
)
def test_what_can_t_be_done_is_refused_and_changes_nothing(
    api: Api, box: RunningSandbox, method: str, path: str, body: Any, status: int
) -> None:
    before = len(box.journal)
    assert api.ask(method, path, body).status == status
    assert len(box.journal) == before


def test_where_a_field_shows_is_kept(api: Api) -> None:
    shown = {"add_visible_flag": True, "details_visible_flag": False}
    made = api.post(
        "/api/v2/dealFields", field_name="Risk", field_type="varchar", description="Why", ui_visibility=shown,
        important_fields={"enabled": True, "stage_ids": [1]},
    ).data  # fmt: skip
    path = f"/api/v2/dealFields/{made['field_code']}"
    assert made["description"] == "Why"
    whole = api.get(path, include_fields="ui_visibility,important_fields,required_fields").data
    assert whole["ui_visibility"] == {**whole["ui_visibility"], **shown}
    assert whole["important_fields"] == {"enabled": True, "stage_ids": [1]}
    assert whole["required_fields"]["enabled"] is False
    number = next(field["id"] for field in api.get("/v1/dealFields").data if field["key"] == made["field_code"])
    assert api.get(f"/v1/dealFields/{number}").data["add_visible_flag"] is True
    assert api.put(f"/v1/dealFields/{number}", add_visible_flag=False).data["add_visible_flag"] is False
    assert api.get(path, include_fields="ui_visibility").data["ui_visibility"]["details_visible_flag"] is False
    assert api.patch(path, description=None).data["description"] is None


@pytest.mark.parametrize("field_type", ["enum", "set"])
def test_options_of_v1_may_be_plain_texts(api: Api, field_type: str) -> None:
    field = api.post("/v1/dealFields", name="Choice", field_type=field_type, options=["a", "b"]).data
    assert [option["label"] for option in field["options"]] == ["a", "b"]
    changed = api.put(f"/v1/dealFields/{field['id']}", options=[field["options"][1], "c"])
    assert changed.status == 200
    assert [option["label"] for option in changed.data["options"]] == ["b", "c"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"options": [{"label": ""}]}, {"options": [{"id": 1}]}, {"options": [{"id": "x", "label": "x"}]},
        {"options": "a"}, {"options": [None]}, {"options": [{"id": [], "label": "x"}]}, {"ui_visibility": "x"},
        {"description": 5}, {"add_visible_flag": []},
    ],
)  # fmt: skip
def test_a_change_of_a_field_that_is_refused_leaves_its_name_and_its_options(api: Api, wrong: dict[str, Any]) -> None:
    id = api.post("/v1/dealFields", name="Choice", field_type="enum", options=["a"]).data["id"]
    before = api.get(f"/v1/dealFields/{id}").data
    assert api.put(f"/v1/dealFields/{id}", name="Renamed", **wrong).status == 400
    assert api.get(f"/v1/dealFields/{id}").data == before
