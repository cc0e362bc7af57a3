"""New generic records: what they need, what they show of what they link to, and the documented defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .api import Api


def test_notes_of_a_deal_are_those_that_link_to_it(reader: Api) -> None:
    notes = [entry["record"] for entry in reader.truth("notes").values()]
    for link in ("deal_id", "person_id", "org_id", "user_id"):
        id = next(note[link] for note in notes if note[link] is not None)
        assert reader.walk_ids("/v1/notes", **{link: id}) == [note["id"] for note in notes if note[link] == id]


def test_notes_are_listed_from_one_day_to_another(reader: Api) -> None:
    notes = [entry["record"] for entry in reader.truth("notes").values()]
    days = sorted(note["add_time"][:10] for note in notes)
    first, last = days[len(days) // 4], days[len(days) // 2]
    wanted = [note["id"] for note in notes if first <= note["add_time"][:10] <= last]
    assert 0 < len(wanted) < len(notes)
    assert reader.walk_ids("/v1/notes", start_date=first, end_date=last) == wanted


def test_notes_are_found_by_being_pinned_and_sorted(reader: Api) -> None:
    notes = [entry["record"] for entry in reader.truth("notes").values()]
    for flag in (0, 1):
        wanted = [note["id"] for note in notes if note["pinned_to_deal_flag"] == bool(flag)]
        assert reader.walk_ids("/v1/notes", pinned_to_deal_flag=flag) == wanted
    latest = [note["id"] for note in sorted(notes, key=lambda note: note["update_time"], reverse=True)]
    assert reader.walk_ids("/v1/notes", sort="update_time DESC") == latest


def test_a_note_shows_the_names_of_what_it_links_to_and_who_wrote_it(api: Api) -> None:
    deal, person = api.live("deals")[0], api.live("persons")[0]
    note = api.post("/v1/notes", content="x", deal_id=deal, person_id=person, pinned_to_deal_flag=1).data
    me = api.box.company.viewers["admin"].user_id
    assert note["deal"] == {"title": api.truth("deals")[deal]["record"]["title"]}
    assert note["person"] == {"name": api.truth("persons")[person]["record"]["name"]}
    assert (note["organization"], note["project"]) == (None, None)
    assert (note["user_id"], note["user"]["is_you"]) == (me, True)
    assert (note["pinned_to_deal_flag"], note["pinned_to_person_flag"]) == (True, False)
    changed = api.put(f"/v1/notes/{note['id']}", content="y", pinned_to_deal_flag=0).data
    assert (changed["pinned_to_deal_flag"], changed["last_update_user_id"]) == (False, me)


def test_a_note_keeps_the_time_that_it_was_given(api: Api) -> None:
    note = api.post("/v1/notes", content="x", deal_id=api.live("deals")[0], add_time="2021-03-04 05:06:07").data
    assert (note["add_time"], note["update_time"]) == ("2021-03-04 05:06:07", "2026-11-22 12:00:00")


PROJECT = {"title": "x", "board_id": 1, "phase_id": 1, "deal_ids": [987654]}
REFUSED: list[tuple[str, str, dict[str, Any]]] = [
    ("a note without a link", "notes", {"content": "x"}),
    ("a note of a deal that is not there", "notes", {"content": "x", "deal_id": 987654}),
    ("a note pinned to what it does not link to", "notes", {"content": "x", "deal_id": 1, "pinned_to_person_flag": 1}),
    ("a lead without a person and an organization", "leads", {"title": "x"}),
    ("a lead of an organization that is not there", "leads", {"title": "x", "organization_id": 987654}),
    ("a project of a deal that is not there", "projects", PROJECT),
    ("a participant who is not there", "deals/1/participants", {"person_id": 987654}),
    ("a lead of a person who is not there", "leads", {"title": "x", "person_id": 987654}),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_lacks_a_link_is_refused(api: Api, path: str, body: dict[str, Any]) -> None:
    before = len(api.box.journal)
    assert api.post(f"/v1/{path}", **body).status == 400
    assert len(api.box.journal) == before


def test_a_lead_cannot_lose_its_last_link(api: Api) -> None:
    lead = api.post("/v1/leads", title="x", person_id=api.live("persons")[0]).data
    assert api.patch(f"/v1/leads/{lead['id']}", person_id=None).status == 400
    organization = api.live("organizations")[0]
    moved = api.patch(f"/v1/leads/{lead['id']}", person_id=None, organization_id=organization).data
    assert (moved["person_id"], moved["organization_id"]) == (None, organization)


def test_a_lead_of_the_api_says_so(api: Api) -> None:
    lead = api.post("/v1/leads", title="x", person_id=api.live("persons")[0]).data
    assert (lead["source_name"], lead["origin"], lead["origin_id"]) == ("API", "API", None)
    assert (lead["is_archived"], lead["was_seen"], lead["label_ids"]) == (False, False, [])


def test_products_put_into_a_deal_together_are_all_shown_with_their_sums(api: Api) -> None:
    deal, product = api.live("deals")[0], api.live("products")[0]
    before = {line["id"] for line in api.get(f"/api/v2/deals/{deal}/products").data}
    lines = [
        {"product_id": product, "item_price": 10, "quantity": 3},
        {"product_id": product, "item_price": 10, "quantity": 3, "discount": 50, "tax": 10, "tax_method": "exclusive"},
        {"product_id": product, "item_price": 10, "quantity": 3, "discount": 5, "discount_type": "amount"},
    ]
    answer = api.post(f"/api/v2/deals/{deal}/products/bulk", data=lines)
    assert (answer.status, [line["sum"] for line in answer.data]) == (201, [30, 16.5, 25])
    assert {line["name"] for line in answer.data} == {api.truth("products")[product]["record"]["name"]}
    assert {line["currency"] for line in answer.data} == {api.truth("deals")[deal]["record"]["currency"]}
    after = {line["id"] for line in api.get(f"/api/v2/deals/{deal}/products").data}
    assert after == before | {line["id"] for line in answer.data}
    assert api.post(f"/api/v2/deals/{deal}/products/bulk", data=[]).status == 400
    assert api.post(f"/api/v2/deals/{deal}/products/bulk", data=[*lines, {"product_id": product}]).status == 400


@pytest.mark.parametrize(
    "wrong",
    [{}, {"product_id": 99_999}, {"product_id": "x"}, {"product_id": [1]}, {"item_price": "x"}, {"quantity": [1]}],
    ids=str,
)
def test_no_product_is_put_into_a_deal_if_one_of_them_is_refused(api: Api, wrong: dict[str, Any]) -> None:
    deal, (product, deleted) = api.live("deals")[0], api.live("products")[:2]
    assert api.delete(f"/api/v2/products/{deleted}").status == 200
    good, path = {"product_id": product, "item_price": 10, "quantity": 2}, f"/api/v2/deals/{deal}/products"
    before = api.get(path).data
    bad = {**good, "product_id": deleted} if not wrong else {**good, **wrong}
    assert api.post(f"{path}/bulk", data=[good, bad]).status == 400
    assert api.get(path).data == before


@pytest.mark.parametrize("what", ["activities", "tasks"])
@pytest.mark.parametrize("id", ["x", "1.5", "%C2%B2", "-1"])
def test_an_item_of_a_plan_is_named_by_a_number(api: Api, what: str, id: str) -> None:
    project = api.get("/api/v2/projects").data[0]["id"]
    assert api.put(f"/v1/projects/{project}/plan/{what}/{id}", phase_id=1).status == 400
    assert api.put(f"/v1/projects/{project}/plan/{what}/4", phase_id="x").status == 400
    assert api.put(f"/v1/projects/{project}/plan/{what}/4", phase_id=1).data["item_id"] == 4


def test_products_taken_out_of_a_deal_together_are_named_and_the_rest_is_told(api: Api) -> None:
    deal, product = api.live("deals")[0], api.live("products")[0]
    line = {"product_id": product, "item_price": 1, "quantity": 1}
    for _ in range(2):
        ids = [each["id"] for each in api.post(f"/api/v2/deals/{deal}/products/bulk", data=[line] * 60).data]
    gone = api.delete(f"/api/v2/deals/{deal}/products?ids={ids[0]},{ids[1]}").json
    assert gone["data"] == {"ids": ids[:2]}
    assert gone["additional_data"] == {"more_items_in_collection": False}
    rest = api.delete(f"/api/v2/deals/{deal}/products").json
    assert (len(rest["data"]["ids"]), rest["additional_data"]["more_items_in_collection"]) == (100, True)
    assert api.delete(f"/api/v2/deals/{deal}/products?ids={','.join(map(str, range(101)))}").status == 400


def test_a_participant_is_shown_as_a_person_and_not_as_a_number(api: Api) -> None:
    deal, person = api.live("deals")[0], api.live("persons")[0]
    made = api.post(f"/v1/deals/{deal}/participants", person_id=person).data
    truth = api.truth("persons")[person]["record"]
    listed = next(each for each in api.get(f"/v1/deals/{deal}/participants").data if each["id"] == made["id"])
    for shown in (made, listed):
        assert (shown["person_id"]["value"], shown["person_id"]["name"]) == (person, truth["name"])
        assert shown["added_by_user_id"]["value"] == api.box.company.viewers["admin"].user_id
        assert (shown["person"]["id"], shown["person"]["owner_id"]["value"]) == (person, truth["owner_id"])
        assert shown["related_item_data"] == {"deal_id": deal, "title": api.truth("deals")[deal]["record"]["title"]}


def test_a_relation_shows_both_organizations_and_what_it_is_from_either_side(api: Api) -> None:
    owner, linked = api.live("organizations")[:2]
    sent = {"type": "parent", "rel_owner_org_id": owner, "rel_linked_org_id": linked}
    made = api.post("/v1/organizationRelationships", **sent).data
    assert (made["rel_owner_org_id"]["value"], made["rel_linked_org_id"]["value"]) == (owner, linked)
    names = {id: api.truth("organizations")[id]["record"]["name"] for id in (owner, linked)}
    assert made["rel_owner_org_id"]["name"] == names[owner]
    for side, other, called in ((owner, linked, "daughter"), (linked, owner, "parent")):
        seen = next(e for e in api.get("/v1/organizationRelationships", org_id=side).data if e["id"] == made["id"])
        assert (seen["calculated_related_org_id"], seen["calculated_type"]) == (other, called)
        assert seen["related_organization_name"] == names[other]
    changed = api.put(f"/v1/organizationRelationships/{made['id']}", type="related", rel_linked_org_id=linked).data
    assert (changed["type"], changed["rel_linked_org_id"]["value"]) == ("related", linked)


def test_archived_deals_of_a_product_are_those_that_have_it(reader: Api) -> None:
    deals = {id for id, entry in reader.truth("deals").items() if entry["state"] == "archived"}
    lines = [entry["record"] for entry in reader.truth("deal_products").values() if entry["record"]["deal_id"] in deals]
    wanted = sorted({line["deal_id"] for line in lines if line["product_id"] == lines[0]["product_id"]})
    assert reader.walk_ids("/v1/deals/archived", product_id=lines[0]["product_id"]) == wanted


def test_an_archived_project_moves_to_the_list_of_archived_ones(api: Api) -> None:
    for path in ("/v1/projects", "/api/v2/projects"):
        project = api.get(path, limit=500).data[0]["id"]
        assert api.post(f"{path}/{project}/archive").data["archive_time"] is not None
        assert project not in api.walk_ids(path, limit=500)
        assert project in api.walk_ids("/api/v2/projects/archived", limit=500)
        assert project in api.walk_ids("/v1/projects", include_archived="true", limit=500)


def test_webhooks_say_ok_and_a_user_has_at_most_forty(api: Api) -> None:
    hook = {"subscription_url": "https://example.com/h", "event_action": "create", "event_object": "deal", "name": "h"}
    me = api.box.company.viewers["admin"].user_id
    mine = sum(each["user_id"] == me for each in api.get("/v1/webhooks").data)
    for _ in range(40 - mine):
        made = api.post("/v1/webhooks", **hook)
        assert (made.status, made.json["status"]) == (201, "ok")
    assert (made.data["version"], made.data["is_active"], made.data["company_id"]) == ("2.0", 1, api.box.company.id)
    assert api.post("/v1/webhooks", **hook).status == 422
    assert api.delete(f"/v1/webhooks/{made.data['id']}").json == {"status": "ok", "success": True}
    assert api.get("/v1/webhooks").json["status"] == "ok"
    assert api.post("/v1/webhooks", **hook).status == 201


DELETED: list[tuple[str, str, Any]] = [
    ("/v1/callLogs", "call_logs", {"success": True}),
    (
        "/v1/goals",
        "goals",
        {"success": True, "statusCode": 20000, "statusText": "OK", "service": "statistics-goals-api"},
    ),
]


@pytest.mark.parametrize(("path", "kind", "answer"), DELETED)
def test_a_delete_answers_no_more_than_is_documented(api: Api, path: str, kind: str, answer: Any) -> None:
    id = next(iter(api.truth(kind)))
    assert api.delete(f"{path}/{id}").json == answer


def test_a_deleted_activity_type_is_shown_as_inactive(api: Api) -> None:
    shown = api.get("/v1/activityTypes").data[0]
    gone = api.delete(f"/v1/activityTypes/{shown['id']}").data
    assert {**gone, "active_flag": shown["active_flag"]} == shown
    assert gone["active_flag"] is False
