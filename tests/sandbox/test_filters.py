"""Saved filters: every list that takes a `filter_id` shows what the filter's conditions leave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from .api import Api

LISTS = {  # type of a filter → the lists that take it, and the kind of their records
    "deals": (("/api/v2/deals", "/v1/deals"), "deals"),
    "people": (("/api/v2/persons", "/v1/persons"), "persons"),
    "org": (("/api/v2/organizations", "/v1/organizations"), "organizations"),
    "products": (("/api/v2/products",), "products"),
    "activity": (("/api/v2/activities",), "activities"),
    "leads": (("/v1/leads",), "leads"),
    "projects": (("/api/v2/projects", "/v1/projects"), "projects"),
}


@pytest.mark.parametrize("type", LISTS)
def test_every_listed_filter_can_be_used_on_the_lists_of_its_type(reader: Api, type: str) -> None:
    paths, kind = LISTS[type]
    saved = reader.get("/v1/filters", type=type).data
    assert saved
    for each in saved:
        (condition,) = reader.get(f"/v1/filters/{each['id']}").data["conditions"]["conditions"][0]["conditions"]
        live = [entry["record"] for entry in reader.truth(kind).values() if entry["state"] == "live"]
        wanted = {record["id"] for record in live if str(record["owner_id"]) == condition["value"]}
        for path in paths:
            assert {record["id"] for record in reader.get(path, filter_id=each["id"], limit=500).data or ()} == wanted


DEAL_FILTERS: list[tuple[str, tuple[Any, ...], Callable[[dict[str, Any]], bool]]] = [
    ("equal", ("status", "=", "won"), lambda deal: deal["status"] == "won"),
    ("not equal", ("status", "!=", "won"), lambda deal: deal["status"] != "won"),
    ("more", ("value", ">", "5000"), lambda deal: (deal["value"] or 0) > 5000),
    ("at most", ("value", "<=", 5000), lambda deal: deal["value"] is not None and deal["value"] <= 5000),
    ("contains", ("title", "LIKE '%$%'", "PILOT"), lambda deal: "pilot" in deal["title"].lower()),
    ("starts", ("title", "LIKE '$%'", "re"), lambda deal: deal["title"].lower().startswith("re")),
    ("starts not", ("title", "NOT LIKE '$%'", "re"), lambda deal: not deal["title"].lower().startswith("re")),
    ("empty", ("person_id", "IS NULL", None), lambda deal: deal["person_id"] is None),
    ("not empty", ("person_id", "IS NOT NULL", None), lambda deal: deal["person_id"] is not None),
    ("since a day", ("add_time", ">=", "2026-01-01"), lambda deal: deal["add_time"] >= "2026-01-01"),
]


@pytest.mark.parametrize(
    ("condition", "matches"), [case[1:] for case in DEAL_FILTERS], ids=[c[0] for c in DEAL_FILTERS]
)
def test_a_filter_that_was_added_leaves_what_its_condition_says(
    api: Api, condition: tuple[str, str, Any], matches: Callable[[dict[str, Any]], bool]
) -> None:
    id = api.add_filter("deals", ("deal", *condition))
    deals = [entry["record"] for entry in api.truth("deals").values() if entry["state"] == "live"]
    wanted = [deal["id"] for deal in deals if matches(deal)]
    assert 0 < len(wanted) < len(deals)
    assert sorted(api.walk_ids("/api/v2/deals", filter_id=id, limit=500)) == wanted
    assert api.get("/v1/deals/summary", filter_id=id).data["total_count"] == len(wanted)


def test_all_conditions_of_one_group_and_one_of_the_other_must_hold_also_of_linked_records(api: Api) -> None:
    owner = api.box.company.viewers["admin"].user_id
    some = (("deal", "status", "=", "won"), ("deal", "status", "=", "lost"))
    id = api.add_filter("deals", ("organization", "owner_id", "=", owner), some=some)
    organizations = api.truth("organizations")
    wanted = [
        deal["id"]
        for deal in (entry["record"] for entry in api.truth("deals").values() if entry["state"] == "live")
        if deal["status"] != "open"
        and organizations.get(deal["org_id"], {}).get("state") == "live"
        and organizations[deal["org_id"]]["record"]["owner_id"] == owner
    ]
    assert wanted
    assert sorted(api.walk_ids("/api/v2/deals", filter_id=id, limit=500)) == wanted


def test_a_changed_filter_leaves_something_else_and_a_deleted_one_is_refused(api: Api) -> None:
    id = api.add_filter("deals", ("deal", "status", "=", "won"))
    shown = api.get(f"/v1/filters/{id}", include_field_code="true").data["conditions"]
    condition = shown["conditions"][0]["conditions"][0]
    assert condition.pop("field_code") == "status"
    assert api.get(f"/v1/filters/{id}").data["conditions"]["conditions"][0]["conditions"] == [condition]
    condition["value"] = "lost"
    assert api.put(f"/v1/filters/{id}", conditions=shown).status == 200
    assert {deal["status"] for deal in api.get("/api/v2/deals", filter_id=id).data} == {"lost"}
    api.delete(f"/v1/filters/{id}")
    assert api.get("/api/v2/deals", filter_id=id).status == 400


NO_FILTER = [
    *("/api/v2/deals", "/api/v2/deals/archived", "/api/v2/persons", "/api/v2/organizations", "/api/v2/products"),
    *("/api/v2/activities", "/api/v2/projects", "/api/v2/projects/archived", "/v1/leads", "/v1/leads/archived"),
    *("/v1/deals/summary", "/v1/deals/summary/archived", "/v1/pipelines/1/deals", "/v1/stages/11/deals"),
    "/v1/deals/timeline?start_date=2026-01-01&interval=month&amount=2&field_key=add_time",
]


@pytest.mark.parametrize("path", NO_FILTER)
def test_a_filter_that_is_not_there_or_of_another_type_is_refused(reader: Api, path: str) -> None:
    other = reader.get("/v1/filters", type="people" if "person" not in path else "org").data[0]["id"]
    for id in (77_777, other):
        assert reader.get(f"{path}{'&' if '?' in path else '?'}filter_id={id}").status == 400


WRONG: list[tuple[str, Any]] = [
    ("glue", {"glue": "or", "conditions": []}),
    ("object", {"object": "universe", "field_id": "1", "operator": "="}),
    ("field", {"object": "deal", "field_id": "999999", "operator": "=", "value": "1"}),
    ("operator", {"object": "deal", "field_id": "1", "operator": "~", "value": "1"}),
]


@pytest.mark.parametrize("condition", [case[1] for case in WRONG], ids=[case[0] for case in WRONG])
def test_a_filter_that_cannot_be_evaluated_is_refused(api: Api, condition: dict[str, Any]) -> None:
    whole = condition
    if "object" in condition:
        whole = {"glue": "and", "conditions": [{"glue": "and", "conditions": [condition]}]}
    assert api.post("/v1/filters", name="x", type="deals", conditions=whole).status == 400


@pytest.mark.parametrize("path", ["pipelines", "stages"])
def test_the_deals_of_a_pipeline_or_a_stage_are_ones_own_open_ones_unless_others_are_asked_for(
    reader: Api, path: str
) -> None:
    deals = [entry["record"] for entry in reader.truth("deals").values() if entry["state"] == "live"]
    key, me = f"{path.removesuffix('s')}_id", reader.box.company.viewers["admin"].user_id
    inside = [deal for deal in deals if deal[key] == next(d[key] for d in deals if d["owner_id"] == me)]
    other = next(deal["owner_id"] for deal in inside if deal["owner_id"] != me)
    saved = next(each["id"] for each in reader.get("/v1/filters", type="deals").data)
    filtered = reader.walk_ids("/api/v2/deals", filter_id=saved, limit=500)
    url, mine = f"/v1/{path}/{inside[0][key]}/deals", [d for d in inside if d["owner_id"] == me]

    assert reader.walk_ids(url) == [deal["id"] for deal in mine if deal["status"] == "open"]
    assert reader.walk_ids(url, user_id=me) == [deal["id"] for deal in mine]
    assert reader.walk_ids(url, user_id=other) == [deal["id"] for deal in inside if deal["owner_id"] == other]
    assert reader.walk_ids(url, everyone=1, user_id=me) == [deal["id"] for deal in inside]
    assert reader.walk_ids(url, filter_id=saved) == [deal["id"] for deal in inside if deal["id"] in filtered]


def test_the_deals_of_a_product_are_those_that_have_it(reader: Api) -> None:
    lines = [entry["record"] for entry in reader.truth("deal_products").values()]
    deals = {id: entry["record"] for id, entry in reader.truth("deals").items() if entry["state"] == "live"}
    product = next(line["product_id"] for line in lines if line["deal_id"] in deals)
    wanted = sorted({line["deal_id"] for line in lines if line["product_id"] == product} & deals.keys())
    assert reader.walk_ids(f"/v1/products/{product}/deals") == wanted
    won = [id for id in wanted if deals[id]["status"] == "won"]
    assert reader.walk_ids(f"/v1/products/{product}/deals", status="won") == won
    shown = reader.get(f"/v1/products/{product}/deals").data[0]
    assert shown["user_id"]["id"] == deals[shown["id"]]["owner_id"]
