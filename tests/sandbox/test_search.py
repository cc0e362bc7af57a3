"""Search finds what the records hold, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pdsync.sandbox.operations.search import SEARCHABLE

if TYPE_CHECKING:
    from .api import Api

KINDS = {"deals": "title", "persons": "name", "organizations": "name", "products": "name"}


def records(api: Api, kind: str, *states: str) -> list[dict[str, Any]]:
    return [entry["record"] for entry in api.box.dump(kind) if entry["state"] in (states or ("live", "archived"))]


def found(api: Api, path: str, **query: Any) -> list[Any]:
    return [item["item"]["id"] for page in api.walk(path, **query) for item in page.data["items"]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("version", ["api/v2", "v1"])
def test_a_part_of_a_name_finds_all_that_have_it(reader: Api, kind: str, version: str) -> None:
    name, every = KINDS[kind], records(reader, kind)
    term = every[len(every) // 2][name][:4].strip()
    wanted = [record["id"] for record in every if term.casefold() in record[name].casefold()]
    assert found(reader, f"/{version}/{kind}/search", term=term, fields=name) == wanted
    assert found(reader, f"/{version}/{kind}/search", term=term.upper(), fields=name, limit=2) == wanted
    whole = every[0][name]
    assert found(reader, f"/{version}/{kind}/search", term=whole, fields=name, exact_match="true") == [
        record["id"] for record in every if record[name].casefold() == whole.casefold()
    ]


def test_each_field_is_looked_at_when_asked_for(api: Api) -> None:
    company = api.box.company
    id = api.post("/api/v2/persons", name="Zyx", emails=[{"value": "qqw@mail.example"}], phones=[{"value": "+99 77"}])
    person = id.data["id"]
    api.post("/v1/notes", content="<p>xylo<b>phone</b></p>", person_id=person)
    field = next(f for f in company.fields["persons"] if f.custom and f.type == "varchar")
    api.patch(f"/api/v2/persons/{person}", custom_fields={field.code: "Ünique wörd"})
    terms = {"name": "Zyx", "email": "QQW@", "phone": "99 77", "notes": "xylophone", "custom_fields": "ÜNIQUE WÖ"}
    for name, term in terms.items():
        assert found(api, "/api/v2/persons/search", term=term) == [person], name
        assert found(api, "/api/v2/persons/search", term=term, fields=name) == [person], name
        others = ",".join(other for other in terms if other != name)
        assert found(api, "/api/v2/persons/search", term=term, fields=others) == [], name
    (item,) = api.get("/api/v2/persons/search", term="ünique").data["items"]
    assert (item["item"]["custom_fields"], item["item"]["emails"]) == (["Ünique wörd"], ["qqw@mail.example"])


def test_only_documented_types_of_custom_fields_are_searched(api: Api) -> None:
    field = next(f for f in api.box.company.fields["deals"] if f.custom and f.type == "date")
    assert field.type not in SEARCHABLE
    deal = api.live("deals")[0]
    api.patch(f"/api/v2/deals/{deal}", custom_fields={field.code: "1984-02-03"})
    assert found(api, "/api/v2/deals/search", term="1984-02-03") == []


def test_deals_are_filtered_by_status_and_contacts(reader: Api) -> None:
    deals = [deal for deal in records(reader, "deals") if deal["person_id"]]
    deal = deals[0]
    term = deal["title"][:3]
    same = [d["id"] for d in records(reader, "deals") if term.casefold() in d["title"].casefold()]
    asked = {"term": term, "fields": "title"}
    by_status = {s: found(reader, "/api/v2/deals/search", **asked, status=s) for s in ("open", "won", "lost")}
    assert sorted(id for ids in by_status.values() for id in ids) == same
    assert by_status[deal["status"]]
    mine = found(reader, "/api/v2/deals/search", **asked, person_id=deal["person_id"])
    assert mine == [d["id"] for d in deals if d["id"] in same and d["person_id"] == deal["person_id"]]


def test_all_types_are_searched_at_once_a_hundred_at_a_time(reader: Api) -> None:
    pages = reader.walk("/api/v2/itemSearch", term="al", limit=100)
    items = [item["item"] for page in pages for item in page.data["items"]]
    assert len({(item["type"], item["id"]) for item in items}) == len(items)
    assert len({item["type"] for item in items}) > 3
    for type, path in (("deal", "deals"), ("organization", "organizations"), ("lead", "leads")):
        assert [i["id"] for i in items if i["type"] == type] == found(reader, f"/api/v2/{path}/search", term="al")
    assert found(reader, "/api/v2/itemSearch", term="al", item_types="person") == [
        item["id"] for item in items if item["type"] == "person"
    ]
    assert found(reader, "/v1/itemSearch", term="al", limit=9) == [item["id"] for item in items]
    assert reader.get("/api/v2/itemSearch", term="al", limit=101).status == 400


def test_what_hangs_on_people_and_organizations_is_found_along(reader: Api) -> None:
    deal = next(deal for deal in records(reader, "deals", "live") if deal["org_id"] in reader.live("organizations"))
    organization = reader.truth("organizations")[deal["org_id"]]["record"]
    asked = {"term": organization["name"], "item_types": "organization", "exact_match": "true"}
    data = reader.get("/api/v2/itemSearch", **asked, search_for_related_items="true").data
    related = {(item["item"]["type"], item["item"]["id"]) for item in data["related_items"]}
    assert ("deal", deal["id"]) in related
    people = {p["id"] for p in records(reader, "persons", "live") if p["org_id"] == organization["id"]}
    assert {id for type, id in related if type == "person"} >= people
    assert reader.get("/api/v2/itemSearch", **asked).data["related_items"] == []


@pytest.mark.parametrize(
    ("match", "part", "hits"),
    [("exact", slice(None), True), ("exact", slice(0, 3), False), ("beginning", slice(0, 3), True),
     ("beginning", slice(1, 4), False), ("middle", slice(1, 4), True)],
)  # fmt: skip
def test_the_values_of_a_field_match_case_and_all(api: Api, match: str, part: slice, hits: bool) -> None:
    id = api.post("/api/v2/organizations", name="Qxyzzy").data["id"]
    term, path = "Qxyzzy"[part], "/api/v2/itemSearch/field"
    asked = {"entity_type": "organization", "field": "name", "match": match}
    assert api.get(path, term=term, **asked).data == ([{"id": id, "name": "Qxyzzy"}] if hits else [])
    assert api.get(path, term=term.swapcase(), **asked).data == []


def test_what_search_does_not_know_is_refused(reader: Api) -> None:
    for query in (
        {"term": "a"}, {"term": "al", "fields": "colour"}, {"term": "al", "exact_match": "maybe"},
        {"term": "al", "status": "deleted"}, {"term": "al", "cursor": "nonsense"}, {"term": "al", "colour": "red"},
        {"term": "al", "person_id": "x"}, {"term": "al", "limit": "501"}, {"term": "al", "include_fields": "x"}, {},
    ):  # fmt: skip
        assert reader.get("/api/v2/deals/search", **query).status == 400, query
    asked = {"term": "al", "entity_type": "deal", "field": "title"}
    for wrong in ({"entity_type": "user"}, {"field": "colour"}, {"match": "end"}):
        assert reader.get("/api/v2/itemSearch/field", **{**asked, **wrong}).status == 400, wrong


def test_searches_cost_what_is_documented(api: Api) -> None:
    api.get("/api/v2/deals/search", term="al")
    api.get("/v1/deals/search", term="al")
    api.get("/api/v2/itemSearch", term="al")
    api.get("/v1/users/find", term="al")
    assert [seen.cost for seen in api.box.log] == [20, 40, 20, 40]


def test_users_are_found_by_name_or_by_email(reader: Api) -> None:
    users = records(reader, "users", "live", "deleted")
    name, email = users[2]["name"][1:5], users[2]["email"].partition("@")[2]
    assert [user["id"] for user in reader.get("/v1/users/find", term=name).data] == [
        user["id"] for user in users if name.casefold() in user["name"].casefold()
    ]
    by_email = reader.get("/v1/users/find", term=email, search_by_email=1).data
    assert [user["id"] for user in by_email] == [user["id"] for user in users if email in user["email"]]
    assert reader.get("/v1/users/find", term=f"@{email}").data == []


def test_one_finds_what_one_may_see(api: Api) -> None:
    api.box.company.viewers["limited"].group = 99
    mine, every = api.box.company.viewers["limited"].user_id, records(api, "deals")
    api.token = api.box.tokens["limited"]
    ids = found(api, "/api/v2/deals/search", term="er")
    seen = {d["id"] for d in every if d["visible_to"] == 7 or d["owner_id"] == mine}
    assert ids
    assert set(ids) <= seen


def test_search_lags_behind_when_told_to(api: Api) -> None:
    api.admin("POST", "clock", {"advance_s": 60})
    id = api.post("/api/v2/organizations", name="Qxyzzy").data["id"]
    api.box.faults.add(kind="read_lag", path="/search", seconds=30, times=1)
    assert found(api, "/api/v2/organizations/search", term="Qxyzzy") == []
    assert found(api, "/api/v2/organizations/search", term="Qxyzzy") == [id]
