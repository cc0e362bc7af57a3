"""Adding, changing, deleting and merging: what is kept, what follows, what is refused, what the journal says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .api import Api

DAY_S = 86_400


def first_live(api: Api, kind: str, **facts: Any) -> dict[str, Any]:
    for entry in api.box.dump(kind):
        if entry["state"] == "live" and all(entry["record"][name] == value for name, value in facts.items()):
            record: dict[str, Any] = entry["record"]
            return record
    raise AssertionError((kind, facts))


def now(api: Api) -> str:
    return api.box.clock.stamp()


# -- adding and changing -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("deals", {"title": "Größe 🚀"}, 200),
        ("persons", {"name": "Zoë O'Brien", "emails": [{"value": "zoe@mail.example"}]}, 200),
        ("organizations", {"name": "株式会社", "address": {"value": "1 Mill Lane", "country": "Japan"}}, 200),
        ("products", {"name": "Pump", "prices": [{"price": 9.5, "currency": "EUR"}]}, 201),
        ("activities", {"subject": "Call", "due_date": "2026-12-01", "due_time": "09:30"}, 200),
        ("pipelines", {"name": "New"}, 200),
        ("stages", {"name": "New", "pipeline_id": 1}, 200),
    ],
)
def test_what_is_added_is_found_again_and_in_the_journal(api: Api, kind: str, body: Any, status: int) -> None:
    answer = api.post(f"/api/v2/{kind}", **body)
    assert answer.status == status
    record = answer.data
    for name, value in body.items():
        if isinstance(value, str | int) and name != "due_time":
            assert record[name] == value
    assert api.get(f"/api/v2/{kind}/{record['id']}").data == record
    assert api.walk_ids(f"/api/v2/{kind}", limit=500)[-1] == record["id"]
    entry = api.box.journal[-1]
    assert (entry.kind, entry.id, entry.op, entry.before) == (kind, record["id"], "add", None)
    assert entry.request == answer.headers["x-correlation-id"]
    known = next(e["record"] for e in api.box.dump(kind) if e["state"] == "live")
    custom_free = {name for name in known if name in record or name == "custom_fields"}
    assert set(record) <= set(known) | {"attendees"}
    assert custom_free == set(record)


def test_a_patch_sets_what_is_sent_and_the_time(api: Api) -> None:
    before = first_live(api, "deals", status="open")
    api.box.clock.advance(90)
    stamp = now(api)
    answer = api.patch(f"/api/v2/deals/{before['id']}", value=4200.5, title="Renamed")
    after = answer.data
    assert after["value"] == 4200.5
    assert stamp <= after["update_time"] <= now(api)
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"value", "title", "update_time"}
    assert api.get("/api/v2/deals", updated_since=stamp).ids == [before["id"]]


def test_lists_of_values_are_replaced_whole(api: Api) -> None:
    person = next(
        e["record"] for e in api.box.dump("persons") if e["state"] == "live" and len(e["record"]["emails"]) > 1
    )
    after = api.patch(f"/api/v2/persons/{person['id']}", emails=[{"value": "one@mail.example"}]).data
    assert after["emails"] == [{"value": "one@mail.example", "primary": True, "label": "work"}]
    product = first_live(api, "products")
    prices = api.patch(f"/api/v2/products/{product['id']}", prices=[{"price": 3, "currency": "SEK"}]).data["prices"]
    expected = {"product_id": product["id"], "price": 3, "currency": "SEK", "cost": None, "direct_cost": None}
    assert prices == [{**expected, "notes": ""}]


def test_address_parts_left_out_become_null(api: Api) -> None:
    org = next(e["record"] for e in api.box.dump("organizations") if e["state"] == "live" and e["record"]["address"])
    address = api.patch(f"/api/v2/organizations/{org['id']}", address={"value": "Elsewhere"}).data["address"]
    assert address["value"] == "Elsewhere"
    assert {value for name, value in address.items() if name != "value"} == {None}


@pytest.mark.parametrize(
    ("kind", "body", "field"),
    [
        ("deals", {}, "title"),
        ("deals", {"title": ""}, "title"),
        ("deals", {"title": None}, "title"),
        ("deals", {"title": "x", "value": "much"}, "value"),
        ("deals", {"title": "x", "owner_id": 1}, "owner_id"),
        ("deals", {"title": "x", "person_id": 999_999}, "person_id"),
        ("deals", {"title": "x", "stage_id": 999}, "stage_id"),
        ("deals", {"title": "x", "currency": "euro"}, "currency"),
        ("deals", {"title": "x", "status": "deleted"}, "status"),
        ("deals", {"title": "x", "visible_to": "3"}, "visible_to"),
        ("deals", {"title": "x", "expected_close_date": "soon"}, "expected_close_date"),
        ("deals", {"title": "x", "label_ids": [999]}, "label_ids"),
        ("deals", {"title": "x", "lost_reason": "price"}, "lost_reason"),
        ("deals", {"title": "x", "won_time": "2026-11-01T10:00:00Z"}, "won_time"),
        ("deals", {"title": "x", "close_time": "2026-11-01T10:00:00Z"}, "close_time"),
        ("deals", {"title": "x", "is_deleted": True}, "is_deleted"),
        ("deals", {"title": "x", "update_time": "2026-11-01T10:00:00Z"}, "update_time"),
        ("deals", {"title": "x", "custom_fields": {"f" * 40: 1}}, "f" * 40),
        ("activities", {"person_id": 1}, "person_id"),
        ("persons", {"name": "x", "emails": "a@b.example"}, "emails"),
        ("products", {"name": "x", "prices": [{"price": 1}]}, "prices.currency"),
        ("stages", {"name": "x"}, "pipeline_id"),
    ],
)
def test_a_bad_value_is_a_400_that_names_the_field(api: Api, kind: str, body: Any, field: str) -> None:
    answer = api.ask("POST", f"/api/v2/{kind}", body)
    assert (answer.status, answer.json["field_code"]) == (400, field)
    assert not api.box.journal


def test_add_time_is_for_new_records_only(api: Api) -> None:
    made = api.post("/api/v2/persons", name="Old", add_time="2020-01-02T03:04:05Z").data
    assert made["add_time"] == "2020-01-02T03:04:05Z"
    assert api.patch(f"/api/v2/persons/{made['id']}", add_time="2021-01-02T03:04:05Z").status == 400


def test_a_body_that_is_no_json_is_a_400(api: Api) -> None:
    assert api.ask("POST", "/api/v2/deals", b"{", {"content-type": "application/json"}).status == 400
    assert api.ask("POST", "/api/v2/deals", b"[]", {"content-type": "application/json"}).status == 400


# -- custom fields -----------------------------------------------------------------------------------

VALUES: dict[str, tuple[Any, Any]] = {  # type: a value that fits, one that does not
    "varchar": ("PO-1", 5),
    "text": ("long\ntext", ["x"]),
    "double": (1.5, "1.5"),
    "int": (7, 7.5),
    "boolean": (True, 1),
    "monetary": ({"value": 12.5, "currency": "GBP"}, 12.5),
    "date": ("2026-12-24", "24.12.2026"),
    "daterange": ({"value": "2026-01-01", "until": "2026-02-01"}, "2026-01-01"),
    "time": ({"value": "09:30:00", "timezone_name": "Europe/London"}, "09:30"),
    "timerange": ({"value": "09:00:00", "until": "11:00:00", "timezone_name": "Europe/London"}, 9),
    "phone": ("+44 20 1", 44),
    "address": ({"value": "1 Mill Lane"}, 1),
}


@pytest.mark.parametrize("type_", VALUES)
def test_custom_values_by_type(api: Api, type_: str) -> None:
    deal = first_live(api, "deals")
    code = next(f.code for f in api.box.company.fields["deals"] if f.custom and f.type == type_)
    fits, misfit = VALUES[type_]
    kept = api.patch(f"/api/v2/deals/{deal['id']}", custom_fields={code: fits}).data["custom_fields"][code]
    assert {**fits, **{k: kept[k] for k in kept if k not in fits}} == kept if isinstance(fits, dict) else kept == fits
    refused = api.patch(f"/api/v2/deals/{deal['id']}", custom_fields={code: misfit})
    assert (refused.status, refused.json["field_code"]) == (400, code)
    assert api.patch(f"/api/v2/deals/{deal['id']}", custom_fields={code: None}).data["custom_fields"][code] is None


def test_options_must_exist_and_a_set_cannot_be_empty(api: Api) -> None:
    deal = first_live(api, "deals")
    fields = api.box.company.fields["deals"]
    enum = next(f for f in fields if f.custom and f.type == "enum")
    several = next(f for f in fields if f.custom and f.type == "set")
    path = f"/api/v2/deals/{deal['id']}"
    options = [option["id"] for option in several.options or ()]
    body = {enum.code: (enum.options or [])[0]["id"], several.code: options[:2]}
    assert api.patch(path, custom_fields=body).data["custom_fields"].items() >= body.items()
    assert api.patch(path, custom_fields={enum.code: 10**6}).status == 400
    assert api.patch(path, custom_fields={several.code: []}).status == 400
    assert api.patch(path, custom_fields={several.code: None}).data["custom_fields"][several.code] is None
    assert set(api.patch(path, custom_fields={}).data["custom_fields"].values()) == set()


# -- rules of deals ----------------------------------------------------------------------------------


def test_winning_and_losing_set_their_times_and_reopening_clears_them(api: Api) -> None:
    path = f"/api/v2/deals/{first_live(api, 'deals', status='open')['id']}"
    won = api.patch(path, status="won").data
    assert won["won_time"] == won["close_time"] == won["update_time"]
    assert won["local_won_date"] == won["local_close_date"] == won["won_time"][:10]
    lost = api.patch(path, status="lost", lost_reason="Price", lost_time="2026-11-20T23:30:00Z").data
    assert (lost["won_time"], lost["lost_time"], lost["lost_reason"]) == (None, "2026-11-20T23:30:00Z", "Price")
    assert lost["local_lost_date"] == "2026-11-21"  # the company lives two hours ahead
    again = api.patch(path, status="open").data
    assert {again[name] for name in ("won_time", "lost_time", "close_time", "lost_reason", "local_close_date")} == {
        None
    }
    assert api.patch(path, lost_reason="Price").status == 400


def test_a_stage_brings_its_pipeline_and_a_pipeline_its_first_stage(api: Api) -> None:
    deal = first_live(api, "deals", pipeline_id=1)
    path = f"/api/v2/deals/{deal['id']}"
    stages = {e["id"]: e["record"] for e in api.box.dump("stages")}
    second = [id for id, stage in stages.items() if stage["pipeline_id"] == 2]
    moved = api.patch(path, pipeline_id=2).data
    assert moved["stage_id"] == min(second, key=lambda stage: stages[stage]["order_nr"])
    assert moved["stage_change_time"] == moved["update_time"]
    assert api.patch(path, stage_id=11).data["pipeline_id"] == 1
    assert api.patch(path, stage_id=11, pipeline_id=2).status == 400


def test_an_archived_deal_refuses_all_but_unarchiving(api: Api) -> None:
    deal = first_live(api, "deals")
    path = f"/api/v2/deals/{deal['id']}"
    archived = api.patch(path, is_archived=True).data
    assert archived["archive_time"] == archived["update_time"]
    assert deal["id"] in api.walk_ids("/api/v2/deals/archived", limit=500)
    assert deal["id"] not in api.walk_ids("/api/v2/deals", limit=500)
    assert api.patch(path, title="no").status == 400
    back = api.patch(path, is_archived=False).data
    assert (back["is_archived"], back["archive_time"]) == (False, None)
    assert [entry.op for entry in api.box.journal] == ["archive", "unarchive"]


def test_the_plans_cap_refuses_new_deals_only(api: Api) -> None:
    api.box.company.deals_cap = 5
    answer = api.post("/api/v2/deals", title="one more")
    assert (answer.status, answer.json["code"]) == (403, "feature_capping_deals_limit")
    assert api.patch(f"/api/v2/deals/{first_live(api, 'deals')['id']}", title="fine").status == 200


# -- deleting ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["deals", "persons", "organizations", "products", "activities", "stages"])
def test_deleting_hides_for_thirty_days_and_then_purges(api: Api, kind: str) -> None:
    id = first_live(api, kind)["id"]
    version = "v2"
    answer = api.delete(f"/api/{version}/{kind}/{id}")
    assert (answer.status, answer.data) == (200, {"id": id})
    assert id not in api.walk_ids(f"/api/v2/{kind}", limit=500)
    assert api.get(f"/api/v2/{kind}/{id}").data["is_deleted"] is True
    assert api.delete(f"/api/v2/{kind}/{id}").status == 404
    assert api.truth(kind)[id]["state"] == "deleted"
    api.box.clock.advance(30 * DAY_S - 60)
    assert api.get(f"/api/v2/{kind}/{id}").status == 200
    api.box.clock.advance(120)
    assert api.get(f"/api/v2/{kind}/{id}").status == 404
    assert api.truth(kind)[id]["state"] == "purged"


def test_a_deleted_deal_can_be_brought_back(api: Api) -> None:
    deal = first_live(api, "deals")
    path = f"/api/v2/deals/{deal['id']}"
    assert api.patch(path, is_deleted=True).status == 400
    api.delete(path)
    assert deal["id"] in api.walk_ids("/api/v2/deals", status="deleted", limit=500)
    assert api.patch(path, title="no").status == 404
    assert api.patch(path, is_deleted=False).data["is_deleted"] is False
    assert deal["id"] in api.walk_ids("/api/v2/deals", limit=500)


def test_a_pipeline_takes_its_stages_along(api: Api) -> None:
    api.delete("/api/v2/pipelines/2")
    assert not [s for s in api.get("/api/v2/stages").data if s["pipeline_id"] == 2]


# -- merging -----------------------------------------------------------------------------------------


def test_a_merge_of_persons_leaves_the_one_in_the_body(api: Api) -> None:
    deals = [e["record"] for e in api.box.dump("deals") if e["state"] == "live" and e["record"]["person_id"]]
    loser = api.truth("persons")[deals[0]["person_id"]]["record"]
    winner = first_live(api, "persons")
    if winner["id"] == loser["id"]:
        winner = next(e["record"] for e in api.box.dump("persons")[::-1] if e["state"] == "live")
    answer = api.put(f"/v1/persons/{loser['id']}/merge", merge_with_id=winner["id"])
    assert answer.status == 200
    assert (answer.data["id"], answer.data["merge_what_id"]) == (winner["id"], loser["id"])
    assert isinstance(answer.data["owner_id"], int)
    gone = api.truth("persons")[loser["id"]]
    assert (gone["state"], gone["merged_into"]) == ("merged", winner["id"])
    assert api.get(f"/api/v2/persons/{loser['id']}").status == 404
    after = api.get(f"/api/v2/persons/{winner['id']}").data
    assert after["name"] == winner["name"]
    values = {email["value"] for email in after["emails"]}
    assert values == {email["value"] for email in [*winner["emails"], *loser["emails"]]}
    assert not [e for e in api.box.dump("deals") if e["record"]["person_id"] == loser["id"] and e["state"] == "live"]
    assert api.get(f"/api/v2/deals/{deals[0]['id']}").data["person_id"] == winner["id"]
    activities = [e["record"] for e in api.box.dump("activities") if e["state"] == "live"]
    assert not [a for a in activities if loser["id"] in [p["person_id"] for p in a["participants"]]]
    assert api.box.journal[-1].op == "merge"


def test_a_merge_fills_what_the_winner_lacks(api: Api) -> None:
    records = [e["record"] for e in api.box.dump("organizations") if e["state"] == "live"]
    winner = next(r for r in records if r["address"] is None)
    loser = next(r for r in records if r["address"] is not None and r["id"] != winner["id"])
    assert api.put(f"/api/v1/organizations/{loser['id']}/merge", merge_with_id=winner["id"]).data == {
        "id": winner["id"]
    }
    after = api.get(f"/api/v2/organizations/{winner['id']}").data
    assert (after["name"], after["address"]) == (winner["name"], loser["address"])


def test_merges_that_make_no_sense_change_nothing(api: Api) -> None:
    id = first_live(api, "deals")["id"]
    assert api.put(f"/v1/deals/{id}/merge", merge_with_id=id).status == 400
    assert api.put(f"/v1/deals/{id}/merge").status == 400
    assert api.put(f"/v1/deals/{id}/merge", merge_with_id=999_999).status == 404
    assert not api.box.journal


# -- v1 ----------------------------------------------------------------------------------------------


def test_v1_writes_flat_keys_and_v2_shows_the_same(api: Api) -> None:
    fields = api.box.company.fields["deals"]
    code = {type_: next(f for f in fields if f.custom and f.type == type_) for type_ in ("monetary", "enum", "set")}
    option = (code["enum"].options or [])[1]["id"]
    options = [o["id"] for o in code["set"].options or ()][:2]
    body = {
        "title": "By v1",
        "user_id": api.box.company.viewers["member"].user_id,
        "value": "1200",
        code["monetary"].code: 5.5,
        f"{code['monetary'].code}_currency": "USD",
        code["enum"].code: str(option),
        code["set"].code: ",".join(map(str, options)),
        "nonsense": 1,
    }
    answer = api.ask("POST", "/v1/deals", body)
    assert answer.status == 201
    assert answer.data["user_id"]["value"] == body["user_id"]
    record = api.get(f"/api/v2/deals/{answer.data['id']}").data
    assert (record["owner_id"], record["value"]) == (body["user_id"], 1200)
    assert record["custom_fields"] == {
        code["monetary"].code: {"value": 5.5, "currency": "USD"},
        code["enum"].code: option,
        code["set"].code: options,
    }
    changed = api.put(f"/v1/deals/{record['id']}", **{f"{code['monetary'].code}_currency": "EUR"}).data
    assert changed[code["monetary"].code] == 5.5
    assert changed[f"{code['monetary'].code}_currency"] == "EUR"
    person = api.ask("POST", "/v1/persons", {"name": "A B", "email": "a@b.example", "phone": ["1", "2"]}).data
    assert [p["value"] for p in person["phone"]] == ["1", "2"]
    assert api.delete(f"/v1/persons/{person['id']}").data == {"id": person["id"]}


# -- files -------------------------------------------------------------------------------------------


def test_a_file_is_uploaded_renamed_downloaded_and_deleted(api: Api) -> None:
    deal = first_live(api, "deals")
    content = bytes(range(256)) * 5000
    form = (
        b'--x\r\nContent-Disposition: form-data; name="deal_id"\r\n\r\n%d\r\n' % deal["id"]
        + b'--x\r\nContent-Disposition: form-data; name="file"; filename="plan.bin"\r\n'
        + b"Content-Type: application/octet-stream\r\n\r\n"
        + content
        + b"\r\n--x--\r\n"
    )
    answer = api.ask("POST", "/v1/files", form, {"content-type": "multipart/form-data; boundary=x"})
    assert answer.status == 200
    record = answer.data
    assert (record["name"], record["file_size"], record["deal_id"]) == ("plan.bin", len(content), deal["id"])
    assert record["deal_name"] == deal["title"]
    assert api.get(f"/v1/files/{record['id']}/download").body == content
    headers = {"content-type": "application/x-www-form-urlencoded"}
    renamed = api.ask("PUT", f"/v1/files/{record['id']}", b"name=new+name.bin&description=d", headers).data
    assert (renamed["name"], renamed["description"]) == ("new name.bin", "d")
    assert api.delete(f"/v1/files/{record['id']}").data == {"id": record["id"]}
    assert record["id"] not in api.walk_ids("/v1/files")
    assert api.get(f"/v1/files/{record['id']}/download").status == 404


def test_generated_files_have_the_size_they_say_and_stay_the_same(api: Api) -> None:
    record = api.get("/v1/files", limit=1).data[0]
    first = api.get(f"/v1/files/{record['id']}/download")
    assert len(first.body) == record["file_size"]
    assert first.body == api.get(f"/v1/files/{record['id']}/download").body
    assert first.headers["content-type"] == "application/octet-stream"


def test_contact_sync_fields_need_contact_sync(api: Api) -> None:
    path = f"/api/v2/persons/{first_live(api, 'persons')['id']}"
    assert api.patch(path, job_title="CEO").data["job_title"] == "CEO"
    api.box.company.contact_sync = False
    assert api.patch(path, job_title="CFO").status == 403


def test_attendees_are_shown_when_asked_for_and_under_v1s_names(api: Api) -> None:
    guest = {"email": "guest@mail.example", "name": "Guest", "is_organizer": True}
    made = api.post("/api/v2/activities", subject="Demo", type="meeting", attendees=[guest]).data
    assert "attendees" not in made
    path = f"/api/v2/activities/{made['id']}"
    (kept,) = api.get(path, include_fields="attendees").data["attendees"]
    assert kept == {**guest, "status": None, "person_id": None, "user_id": None}
    (old,) = api.get(f"/v1/activities/{made['id']}").data["attendees"]
    assert (old["email_address"], old["is_organizer"]) == ("guest@mail.example", 1)
    assert api.patch(path, attendees=["guest@mail.example"]).status == 400
