"""What answers look like: the keys of the vendor's examples, v1 and v2 telling the same, errors as known."""

from __future__ import annotations

import re
from typing import Any

import pytest

from pdsync.sandbox.server.routes import ROUTES
from tests.vendor import stored

from .api import Api

# Lists with an example of their own, and the keys in it that the sandbox does not show.
EXAMPLES = {
    "deals_v2": ("/api/v2/deals", set()),
    "deals_archived_v2": ("/api/v2/deals/archived", set()),
    "persons_v2": ("/api/v2/persons", {"notes", "im", "birthday", "job_title"}),
    "organizations_v2": ("/api/v2/organizations", set()),
    "products_v2": ("/api/v2/products", set()),
    "activities_v2": ("/api/v2/activities", {"attendees"}),
    "pipelines_v2": ("/api/v2/pipelines", set()),
    "stages_v2": ("/api/v2/stages", set()),
    "dealFields_v2": ("/api/v2/dealFields", set()),
    "personFields_v2": ("/api/v2/personFields", set()),
    "organizationFields_v2": ("/api/v2/organizationFields", set()),
    "productFields_v2": ("/api/v2/productFields", set()),
    "activityFields_v2": ("/api/v2/activityFields", set()),
    "deals_v1": ("/v1/deals", set()),
    "persons_v1": ("/v1/persons", {"notes", "im", "birthday", "job_title"}),
    "organizations_v1": (
        "/v1/organizations",
        {"website", "linkedin", "industry", "annual_revenue", "employee_count"},  # newer than the example
    ),
    "products_v1": ("/v1/products", set()),
    "activities_v1": ("/v1/activities", set()),
    "users_v1": ("/v1/users", set()),
    "files_v1": ("/v1/files", set()),
    "mailThreads_v1": ("/v1/mailbox/mailThreads", set()),
    "dealFields_v1": ("/v1/dealFields", {"options_deleted", "subfields"}),
    "personFields_v1": ("/v1/personFields", {"options_deleted", "subfields"}),
    "organizationFields_v1": ("/v1/organizationFields", {"options_deleted", "subfields"}),
    "productFields_v1": ("/v1/productFields", {"options_deleted", "subfields"}),
    "activityFields_v1": ("/v1/activityFields", {"options_deleted", "subfields"}),
}


def keys(record: dict[str, Any]) -> set[str]:
    """Without custom fields, and without the parts of a person's address, which v1 spreads out."""
    return {key for key in record if len(key) < 40 and not key.startswith("postal_address")}


def kind_of(value: Any) -> str:
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_list_has_the_keys_and_types_of_its_example(reader: Api, name: str) -> None:
    path, optional = EXAMPLES[name]
    example = stored("examples")[f"examples/{name}.json"]["answer"]
    answer = reader.get(path, limit=100).json if "users" not in path else reader.get(path).json
    assert set(answer) == set(example)
    wanted = set().union(*(keys(record) for record in example["data"])) - optional
    types: dict[str, set[str]] = {}
    for record in [*example["data"]]:
        for key in keys(record):
            types.setdefault(key, set()).add(kind_of(record[key]))
    for record in answer["data"]:
        assert keys(record) - optional == wanted
        for key in keys(record) & types.keys():
            if record[key] is not None and types[key] - {"NoneType"}:
                assert kind_of(record[key]) in types[key], key
    if "additional_data" in example:
        assert set(answer["additional_data"]) == set(example["additional_data"])


def test_routes_are_those_of_the_operations_and_cost_the_same() -> None:
    operations = {
        (name.split(" ")[0], op["method"], re.sub(r"{.+?}", "{}", re.sub("^/api/v2/|^/v1/", "", op["path"]))): (
            name,
            op,
        )
        for name, op in stored("listed").items()
    }
    for route in ROUTES:
        name, op = operations[route.version, route.method, "/".join(route.pattern)]
        assert name == f"{route.version} {route.operation}"
        assert op["token_cost"] == route.cost, name


def test_filters_and_options_are_those_of_the_specification(reader: Api) -> None:
    """Every query parameter that v2 documents for a list is accepted."""
    values = {"status": "open", "sort_by": "id", "sort_direction": "asc", "term": "pump", "fields": "name"}
    kinds = ("deals", "persons", "organizations", "products", "activities", "pipelines", "stages")
    lists = {f"/api/v2/{kind}" for kind in kinds}
    for facts in stored("operations").values():
        path = facts["path"]
        if facts["method"] != "GET" or path not in lists:
            continue
        for name in [match[1] for fact in facts if (match := re.fullmatch(r"query (\w+)", fact))]:
            if name in ("cursor", "filter_id"):
                continue
            value = values.get(name) or ("2026-01-01T00:00:00Z" if name.startswith("updated") else "1")
            if name == "include_fields":
                value = ",".join(facts["query include_fields enum"])
            assert reader.get(path, **{name: value}).status == 200, (path, name)


def test_v1_and_v2_tell_the_same_of_a_deal(reader: Api) -> None:
    types = {field.code: field.type for field in reader.box.company.fields["deals"] if field.custom}
    newer = {record["id"]: record for page in reader.walk("/api/v2/deals", limit=500) for record in page.data}
    older = {record["id"]: record for page in reader.walk("/v1/deals", limit=500) for record in page.data}
    assert newer.keys() == older.keys()
    for id, new in newer.items():
        old = older[id]
        for name in ("title", "value", "currency", "status", "stage_id", "pipeline_id", "lost_reason", "probability"):
            assert old[name] == new[name]
        for name in ("add_time", "update_time", "won_time", "lost_time", "close_time", "stage_change_time"):
            assert old[name] == (new[name] and new[name].replace("T", " ").rstrip("Z"))
        nested = {"user_id": "owner_id", "person_id": "person_id", "org_id": "org_id", "creator_user_id": ""}
        for v1_name, v2_name in nested.items():
            assert (old[v1_name] and old[v1_name]["value"]) == new[v2_name or v1_name]
        assert old["visible_to"] == str(new["visible_to"])
        assert (old["label"] or "") == ",".join(map(str, new["label_ids"]))
        for code, value in new["custom_fields"].items():
            match types[code]:
                case "monetary":
                    assert (old[code], old[f"{code}_currency"]) == (
                        (value["value"], value["currency"]) if value else (None, None)
                    )
                case "daterange" | "timerange":
                    assert (old[code], old[f"{code}_until"]) == (
                        (value["value"], value["until"]) if value else (None, None)
                    )
                case "address":
                    assert old[f"{code}_country"] == (value and value["country"])
                case "time":
                    assert old[f"{code}_timezone_id"] == (value and value["timezone_id"])
                case "enum":
                    assert old[code] == (None if value is None else str(value))
                case "set":
                    assert old[code] == (value and ",".join(map(str, value)))
                case _:
                    assert old[code] == value
        assert {key[:40] for key in old if len(key) >= 40} == set(new["custom_fields"])


@pytest.mark.parametrize("kind", ["persons", "organizations", "products", "activities", "pipelines", "stages"])
def test_v1_and_v2_agree_on_ids_times_and_names(reader: Api, kind: str) -> None:
    newer = [record for page in reader.walk(f"/api/v2/{kind}", limit=500) for record in page.data]
    for new in newer[:60]:
        old = reader.get(f"/v1/{kind}/{new['id']}").data
        assert old["update_time"] == (new["update_time"] and new["update_time"].replace("T", " ").rstrip("Z"))
        name = "subject" if kind == "activities" else "name"
        assert old[name] == new[name]


def test_related_objects_hold_what_the_page_names(reader: Api) -> None:
    page = reader.get("/v1/deals", limit=20).json
    for record in page["data"]:
        for name, kind in (("user_id", "user"), ("person_id", "person"), ("org_id", "organization")):
            if record[name]:
                found = page["related_objects"][kind][str(record[name]["value"])]
                assert found["name"] == record[name]["name"]


def test_a_v1_contact_without_addresses_has_one_empty_one(reader: Api) -> None:
    bare = next(r for page in reader.walk("/api/v2/persons", limit=500) for r in page.data if not r["emails"])
    assert reader.get(f"/v1/persons/{bare['id']}").data["email"] == [{"value": "", "primary": True}]


def test_users_me_tells_the_company(reader: Api) -> None:
    me = reader.get("/v1/users/me").data
    company = reader.box.company
    assert (me["company_id"], me["company_domain"], me["is_you"]) == (company.id, company.domain, True)
    assert [user["is_you"] for user in reader.get("/v1/users").data].count(True) == 1
    assert {user["is_deleted"] for user in reader.get("/v1/users").data} == {True, False}


def test_errors_have_their_known_bodies(reader: Api) -> None:
    known = stored("examples")["examples/errors.json"]["answer"]
    stranger = Api(reader.box, token="wrong").get("/api/v2/deals")
    unauthorized = {"error": "unauthorized access", "error_info": "Please check developers.pipedrive.com"}
    assert (stranger.status, stranger.json) == (401, {"success": False, "errorCode": 401, **unauthorized})
    assert stranger.json.keys() == known["401_gateway"]["body"].keys()
    assert "x-401-by-gw" in stranger.headers
    missing = reader.get("/api/v2/deals/999999")
    assert (missing.status, set(missing.json)) == (404, set(known["404_lead"]["body"]))


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/v2/unicorns", 404),
        ("GET", "/api/v3/deals", 404),
        ("GET", "/v2/deals", 404),
        ("GET", "/", 404),
        ("PUT", "/api/v2/deals/1", 405),
        ("PATCH", "/v1/deals/1", 405),
        ("DELETE", "/api/v2/deals", 405),
        ("GET", "/api/v2/deals/one", 400),
        ("GET", "/api/v2/users", 404),
        ("GET", "/api/v2/files", 404),
        ("GET", "/v1/activityFields/1", 404),
    ],
)
def test_what_is_not_there(reader: Api, method: str, path: str, status: int) -> None:
    assert reader.ask(method, path).status == status


def test_a_deleted_field_is_gone_and_leaves_the_records(api: Api) -> None:
    field = next(f for f in api.box.company.fields["products"] if f.custom)
    before = api.get("/api/v2/products", limit=1).data[0]
    changed = {"kind": "products", "op": "delete", "code": field.code}
    api.admin("POST", "fields", changed)
    assert api.get(f"/api/v2/productFields/{field.code}").status == 410
    after = api.get(f"/api/v2/products/{before['id']}").data
    assert field.code not in after["custom_fields"]
    assert after["update_time"] == before["update_time"]


def test_a_feature_that_is_off_answers_415(api: Api) -> None:
    api.box.company.features_off.add("products")
    assert api.get("/api/v2/products").status == 415
    assert api.get("/v1/products/1").status == 415


def test_search_finds_by_part_and_exactly(reader: Api) -> None:
    deal = reader.get("/api/v2/deals", limit=1).data[0]
    found = reader.get("/api/v2/deals/search", term=deal["title"], exact_match="true").data["items"]
    assert [item["item"]["id"] for item in found] == [deal["id"]]
    assert len(reader.get("/api/v2/persons/search", term="e").json) > 1
    assert reader.get("/api/v2/persons/search", term="e").status == 400
