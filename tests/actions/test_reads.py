"""Every input of every action that only reads, by command and in Python: what it changes in the answer.

What is expected comes from the sandbox's truth and from the requests that it saw. Without the input the action is
carried out too, so that an input that changes nothing is noticed.
"""

# ruff: noqa: RUF059 - a case is unpacked whole

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from pdsync.core.actions import Action, actions, snake
from tests.actions.company import VIAS, Outcome, Via, World, open_world, reads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

INPUTS = [(each.key, name) for each in reads() for name in each.inputs]
# Required inputs: what they are given. A word names a record of `World.known`.
REQUIRED: dict[str, dict[str, str]] = {
    "getDealActivities": {"id": "activity_deal"}, "getPersonActivities": {"id": "activity_person"},
    "getOrganizationActivities": {"id": "activity_org"}, "getDealProducts": {"id": "sold"},
    "getDealFiles": {"id": "file_deal"}, "getPersonFiles": {"id": "file_person"},
    "getOrganizationFiles": {"id": "file_org"}, "getOrganizationDeals": {"id": "deal_of_org"},
    "getPersonDeals": {"id": "deal_of_person"}, "getActivity": {"id": "activity"}, "getCallLog": {"id": "call_log"},
    "getFile": {"id": "file"}, "downloadFile": {"id": "file"}, "getFilter": {"id": "filter"},
    "getLead": {"id": "lead"}, "getMailMessage": {"id": "message"}, "getPermissionSet": {"id": "permission_set"},
    "getPermissionSetAssignments": {"id": "permission_set"}, "getDealField": {"id": "deal_field"},
    "getPersonField": {"id": "person_field"}, "getProductField": {"id": "product_field"},
    "getPersonFieldDetails": {"fieldId": "person_field"}, "getMailThread": {"id": "thread"},
    "getMailThreadMessages": {"id": "thread"},
}  # fmt: skip
BY_ROOM = ("Deal", "Person", "Organization", "Product", "Pipeline", "Stage", "User")
OTHERS = {
    "getDealsTimeline": {"amount": "3", "fieldKey": "add_time", "interval": "month", "startDate": "2026-01-01"},
    "getPipelineConversionStatistics": {"startDate": "2026-01-01", "endDate": "2026-06-30"},
    "getPipelineMovementStatistics": {"startDate": "2026-01-01", "endDate": "2026-06-30"},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with open_world(tmp_path_factory.mktemp("reads")) as world:
        yield world


def required(world: World, action: Action) -> dict[str, Any]:
    """The inputs without which the action is refused."""
    found: dict[str, Any] = dict(OTHERS.get(action.key, {}))
    for name, each in action.inputs.items():
        if each.required and each.default is None and name not in found:
            word = REQUIRED.get(action.key, {}).get(name)
            if name == "term":
                found[name] = term(world, action.key)
            elif word:
                found[name] = world.known[word]
            else:
                room = next(room for room in BY_ROOM if f"get{room}" in action.key)
                room = {"Organization": "org"}.get(room, room.lower())
                found[name] = world.known["me"] if room == "user" else world.known[room]
    return found


def term(world: World, key: str) -> str:
    records = {"searchDeals": "deals", "searchLeads": "leads", "searchOrganization": "organizations",
               "searchPersons": "persons", "findUsersByName": "users"}  # fmt: skip
    record = world.live(records[key])[0]
    return str(record.get("email") if key == "findUsersByName" else record.get("title") or record["name"])


@pytest.mark.parametrize("via", VIAS)
@pytest.mark.parametrize("key", [each.key for each in reads()])
def test_an_action_answers_with_what_it_needs_alone(world: World, key: str, via: Via) -> None:
    action = actions()[key]
    given = required(world, action)
    outcome = world.read(via, key, given)
    assert outcome.code == 0, outcome.error
    assert outcome.answer == world.read("python", key, given).answer  # as it is streamed, and as Python has it
    assert outcome.answer.keys() == ({"result"} if action.kind == "picklist" else {"data", "contentType"}
                                     if action.kind == "download" else {"data"})  # fmt: skip
    if action.kind == "picklist":
        assert {each["key"] for each in outcome.records} == {str(each["id"]) for each in world.live(MODEL[key])}
    elif action.kind != "download":
        assert outcome.body["data"] is not None
        if "fetchAll" not in action.inputs:
            assert outcome.body["success"] is True


# What a list holds, by the truth: the kind, and the key that links its records to the required input.
MODEL = {
    "selectDeal": "deals", "selectPerson": "persons", "selectOrganization": "organizations",
    "getDeals": "deals", "getPersons": "persons", "getOrganizations": "organizations", "getProducts": "products",
    "getPipelines": "pipelines", "getStages": "stages", "getActivities": "activities",
    "getOrganizationPersons": "persons", "getPersonDeals": "deals", "getPipelineDeals": "deals",
    "getStageDeals": "deals", "getDealActivities": "activities", "getPersonActivities": "activities",
    "getOrganizationActivities": "activities", "getDealProducts": "deal_products", "getLeads": "leads",
    "getFiles": "files", "getDealFiles": "files",
}  # fmt: skip
LINKS = {
    "getOrganizationPersons": "org_id", "getPersonDeals": "person_id", "getPipelineDeals": "pipeline_id",
    "getStageDeals": "stage_id", "getDealActivities": "deal_id", "getOrganizationActivities": "org_id",
    "getDealProducts": "deal_id", "getDealFiles": "deal_id",
}  # fmt: skip
# Inputs whose answer the truth tells: the key of a record that holds what was asked for.
FILTERS = {"userId": "owner_id", "stageId": "stage_id", "ownerId": "owner_id", "pipelineId": "pipeline_id",
           "status": "status", "done": "done", "type": "type"}  # fmt: skip
# Inputs that may leave the answer as it was, and why.
MAY_CHANGE_NOTHING = {
    "fields": "the term stands in the fields that are named", "includeFields": "the optional field may be empty",
    "items": "all updates may be of that kind", "allChanges": "there may be no change of a custom field",
    "filterId": "of sums, every record may match", "totalsConvertCurrency": "all may be in that currency",
    "organizationId": "the record that was found is linked to it", "personId": "the record that was found is linked",
    "term": "the sandbox's currencies do not heed it", "userId": "all may be one user's",
}  # fmt: skip


def truth(world: World, key: str, given: dict[str, Any]) -> list[dict[str, Any]]:
    """The live records that the list holds with its required inputs alone."""
    records = sorted(world.live(MODEL[key]), key=lambda each: each["id"])
    if key == "getPersonActivities":
        return [each for each in records if given["id"] in {str(one["person_id"]) for one in each["participants"]}]
    if link := LINKS.get(key):
        records = [each for each in records if str(each[link]) == given["id"]]
    if key == "getActivities":
        records = [each for each in records if str(each["owner_id"]) == world.known["me"]]
    return records


def value(world: World, key: str, name: str, given: dict[str, Any]) -> str:
    """What an optional input is given, so that it changes something."""
    kinds = {"getActivities": "activity", "getProducts": "products", "getPersons": "people", "getOrganizations": "org",
             "getLeads": "leads"}  # fmt: skip
    match name:
        case "filterId":
            return world.filter(kinds.get(key, "deals"))
        case "sort":
            local = actions()[key].inputs["sort"].how == "sort"
            return ("title DESC" if "Deal" in key else "name DESC") if local else "id DESC"
        case "userId" | "ownerId":
            records = truth(world, key, given) if key in MODEL and key != "getActivities" else world.live("deals")
            return str(records[-1]["owner_id"])
        case "stageId":
            return str(truth(world, key, given)[0]["stage_id"]) if key in MODEL else world.known["stage"]
        case "type":
            return str(truth(world, key, given)[0]["type"]) if key in MODEL else "deals"
        case "startDate" | "endDate":
            dates = sorted(each["due_date"] for each in truth(world, key, given) if each["due_date"])
            return str(dates[len(dates) // 2])
        case "exclude":
            return ",".join(map(str, world.read("python", key, given).ids[:2]))
        case "firstChar":
            return str(truth(world, key, given)[-1]["name"][0])
        case "ids":
            return ",".join(str(each["id"]) for each in world.live("products")[:2])
        case "organizationId" | "personId":
            linked = world.live("leads" if "Lead" in key else "deals")[0]
            return str(linked.get("org_id" if name == "organizationId" else "person_id") or 1)
        case "fields":
            return {"searchDeals": "title", "searchLeads": "title"}.get(key, "name")
        case "includeFields":
            return {"searchDeals": "deal.cc_email", "searchLeads": "lead.was_seen"}.get(key, "person.picture")
    others: dict[str, str] = {
        "done": "1", "limit": "1", "start": "1", "searchByEmail": "0", "excludeDeals": "1", "status": "won",
        "pipelineId": world.known["pipeline"], "totalsConvertCurrency": "EUR", "archivedStatus": "archived",
        "includeBody": "0", "folder": "sent", "onlyPrimaryAssociation": "1", "allChanges": "1", "items": "activity",
        "everyone": "1", "getSummary": "true", "exactMatch": "true", "debugRequest": "true", "fetchAll": "true",
        "ownedByYou": "true", "includeProductData": "1", "includeDeletedFiles": "1", "term": "eur",
    }  # fmt: skip
    return others[name]


def sent(outcome: Outcome, parameter: str, wanted: str) -> bool:
    """Whether a request named `parameter` with the value, in its path or behind the question mark."""
    values = {wanted, {"1": "true", "0": "false"}.get(wanted, wanted)}
    return any(query.get(parameter) in values or wanted in path.split("/") for _, path, query in outcome.requests)


@pytest.mark.parametrize("via", VIAS)
@pytest.mark.parametrize(("key", "name"), INPUTS)
def test_every_input_of_every_read(world: World, key: str, name: str, via: Via) -> None:
    action, each = actions()[key], actions()[key].inputs[name]
    given = required(world, action)
    if name in given:
        _see_that_it_is_needed(world, action, name, given, via)
        return
    asked = value(world, key, name, given)
    if name == "exactMatch":
        given = {**given, "term": given["term"][:3]}
    before = world.read(via, key, given)
    after = world.read(via, key, {**given, name: asked})
    check = CHECKS.get(each.how, _parameter)
    if each.how != "refused":
        assert after.code == 0, after.error
    check(Case(world, key, name, asked, given, before, after, via))
    spelt = world.read(via, key, {**given, snake(name): asked})  # the same in snake_case
    assert (spelt.answer, spelt.error) == (after.answer, after.error)


def _see_that_it_is_needed(world: World, action: Action, name: str, given: dict[str, Any], via: Via) -> None:
    outcome = world.read(via, action.key, given)
    assert outcome.code == 0, outcome.error
    to = action.inputs[name].to or name
    assert sent(outcome, to, str(given[name])), outcome.requests
    without = {other: each for other, each in given.items() if other != name}
    refused = world.read(via, action.key, without)
    assert refused.code == 2
    assert f"needs {name}" in refused.error
    assert refused.requests == []
    if name == "id" and action.kind == "read_one" and isinstance(outcome.body["data"], dict):
        shown = outcome.body["data"].get("id", outcome.body["data"].get("field_code", given[name]))
        assert str(shown) == str(given[name])
    if name == "id" and action.key in MODEL and action.kind == "read_list":
        assert outcome.ids == [each["id"] for each in truth(world, action.key, given)][:100]


def _everything(world: World, key: str, given: dict[str, Any], via: Via) -> list[Any]:
    return world.read(via, key, {**given, "fetchAll": "true"}).records


class Case(NamedTuple):
    """An action without an input, and with it."""

    world: World
    key: str
    name: str
    asked: str
    given: dict[str, Any]
    before: Outcome
    after: Outcome
    via: Via


def _limit(case: Case) -> None:
    world, key, name, asked, given, before, after, via = case
    assert after.records == _everything(world, key, given, via)[: int(asked)]
    pagination = after.body.get("additional_data", {}).get("pagination")
    if len(before.records) > 1 and pagination:
        assert pagination["more_items_in_collection"] is True


def _start(case: Case) -> None:
    world, key, name, asked, given, before, after, via = case
    assert after.records == _everything(world, key, given, via)[1:101]


def _condition(case: Case) -> None:
    world, key, name, asked, given, before, after, via = case
    tests: dict[str, Callable[[dict[str, Any]], bool]] = {
        "type": lambda record: record["type"] == asked,
        "startDate": lambda record: (record["due_date"] or "") >= asked,
        "endDate": lambda record: "" < (record["due_date"] or "") <= asked,
        "firstChar": lambda record: record["name"].lower().startswith(asked.lower()),
        "exclude": lambda record: str(record["id"]) not in asked.split(","),
    }
    wanted = [each["id"] for each in truth(world, key, given) if tests[name](each)]
    assert after.ids == wanted[:100]
    assert after.ids != before.ids


def _sorted(case: Case) -> None:
    world, key, name, asked, given, before, after, via = case
    column = asked.split(" ", maxsplit=1)[0]
    shown = [str(each[column]).casefold() for each in after.records]
    assert shown == sorted(shown, reverse=True)
    assert after.ids != before.ids
    native = world.read(via, key, {**given, "sort": "add_time DESC"})  # Pipedrive sorts by that
    if key != "getOrganizationDeals":
        assert any(query.get("sort_by") == "add_time" for _, _, query in native.requests)
    times = [each["add_time"] for each in native.records]
    assert times == sorted(times, reverse=True)
    refused = world.read(via, key, {**given, "sort": "titel ASC"})
    assert "no record has it" in refused.error


def _fetch_all(case: Case) -> None:
    world, key, name, asked, given, before, after, via = case
    every = world.read(via, key, {**given, "limit": "1", name: asked})
    assert after.ids == every.ids == [each["id"] for each in truth(world, key, given)]


def _debug(case: Case) -> None:
    world, key, name, asked, given, before, after, via = case
    assert after.answer == before.answer
    assert "> GET http" in after.said
    assert "[secret]" in after.said
    assert world.box.token not in after.said
    assert "> GET" not in before.said


def _owner(case: Case) -> None:
    world, key, name, asked, given, before, after, via = case
    owner = world.known["me"] if name == "ownedByYou" else asked
    everyone = sorted(world.live(MODEL[key]), key=lambda each: each["id"])
    assert after.ids == [each["id"] for each in everyone if str(each["owner_id"]) == owner][:100]
    if name == "userId":
        assert before.ids == [each["id"] for each in everyone if str(each["owner_id"]) == world.known["me"]][:100]
        assert world.read(via, key, {**given, name: "0"}).ids == [each["id"] for each in everyone][:100]


def _product(case: Case) -> None:
    world, key, name, asked, given, before, after, via = case
    names = {each["id"]: each["name"] for each in world.live("products")}
    assert [each["product"]["name"] for each in after.records] == [names[each["product_id"]] for each in before.records]
    assert "product" not in before.records[0]


def _summary(case: Case) -> None:
    world, key, name, asked, given, before, after, via = case
    records = truth(world, key, given)
    extra = after.body["additional_data"]
    assert after.records == before.records
    if key == "getProducts":
        assert extra["summary"] == {"total_count": len(records)}
        return
    currencies = {each["currency"] for each in records}
    assert extra["deals_summary"]["per_currency"] == {
        currency: sum(each["currency"] == currency for each in records) for currency in currencies
    }
    euros = extra["deals_summary"]["per_currency_full"]["EUR"]["value"]
    assert euros == round(sum(each["value"] or 0 for each in records if each["currency"] == "EUR"), 2)


def _archived(case: Case) -> None:
    world, key, name, asked, given, before, after, via = case
    gone = [entry["record"]["id"] for entry in world.box.dump("leads") if entry["state"] == "archived"]
    assert sorted(after.ids) == sorted(gone)
    both = world.read(via, key, {**given, name: "all"})
    assert sorted(both.ids) == sorted([*before.ids, *gone])
    assert world.read(via, key, {**given, name: "not_archived"}).answer == before.answer
    assert "may be archived" in world.read(via, key, {**given, name: "gone"}).error


def _related(case: Case) -> None:
    world, key, name, asked, given, before, after, via = case
    org, deals = given["id"], sorted(world.live("deals"), key=lambda each: each["id"])
    persons = {each["id"] for each in world.live("persons") if str(each["org_id"]) == org}
    codes = {
        entry["record"]["field_code"]
        for entry in world.box.dump("deal_fields")
        if entry["record"]["field_type"] == "org" and entry["record"]["is_custom_field"]
    }
    assert after.ids == [each["id"] for each in deals if str(each["org_id"]) == org]
    assert before.ids == [
        each["id"]
        for each in deals
        if str(each["org_id"]) == org
        or each["person_id"] in persons
        or org in {str(each["custom_fields"].get(code)) for code in codes}
    ]


def _everyone(case: Case) -> None:
    world, key, name, asked, given, before, after, via = case
    user = value(world, key, "userId", given)
    narrowed = world.read(via, key, {**given, "userId": user})
    assert len(narrowed.ids) < len(before.ids)
    assert world.read(via, key, {**given, "userId": user, name: asked}).ids == before.ids


def _user_over_filter(case: Case) -> None:
    world, key, name, asked, given, before, after, via = case
    assert after.ids == [each["id"] for each in truth(world, key, given) if str(each["owner_id"]) == asked][:100]
    both = world.read(via, key, {**given, name: asked, "filterId": world.filter("deals")})
    assert both.ids == after.ids  # the user counts, not the filter


def _status(case: Case) -> None:
    world, key, name, asked, given, before, after, via = case
    if key in MODEL:  # deals of a product are made up in the sandbox
        assert after.ids == [each["id"] for each in truth(world, key, given) if each["status"] == asked][:100]
    assert world.read(via, key, {**given, name: "all_not_deleted"}).answer == before.answer


def _refused(case: Case) -> None:
    world, key, name, asked, given, before, after, via = case
    each = actions()[key].inputs[name]
    assert after.code == 2
    assert f"{key}: {name} can't be honoured. {each.reason}" in after.error
    assert after.requests == []
    for accepted in each.accepts:
        assert world.read(via, key, {**given, name: accepted}).answer == before.answer


def _parameter(case: Case) -> None:
    world, key, name, asked, given, before, after, via = case
    each = actions()[key].inputs[name]
    assert sent(after, each.to or name, asked), after.requests
    if each.default != asked:
        assert not sent(before, each.to or name, asked)
    if name in FILTERS and key in MODEL:
        wanted = "True" if name == "done" else asked
        matching = [one["id"] for one in truth(world, key, given) if str(one[FILTERS[name]]) == wanted]
        assert after.ids == matching[:100]
    elif name == "sort" and "Files" not in key:  # the sandbox does not sort what hangs on a record
        assert after.ids == sorted(before.ids, reverse=True)
    elif name == "filterId" and key in MODEL and key != "getLeads":  # the sandbox lists all leads whatever the filter
        records = sorted(world.live(MODEL[key]), key=lambda one: one["id"])
        assert after.ids == [one["id"] for one in records if str(one["owner_id"]) == world.known["owner"]][:100]
    elif name not in MAY_CHANGE_NOTHING and name != "sort":
        assert after.answer != before.answer


CHECKS: dict[str, Any] = {
    "limit": _limit, "start": _start, "one_of": _condition, "from_date": _condition, "until_date": _condition,
    "first_char": _condition, "not_in": _condition, "sort": _sorted, "fetch_all": _fetch_all, "debug": _debug,
    "owned_by_you": _owner, "owner_or_me": _owner, "product_data": _product, "deals_summary": _summary,
    "product_count": _summary, "archived": _archived, "related_deals": _related, "everyone": _everyone,
    "owner_over_filter": _user_over_filter, "status_filter": _status, "refused": _refused,
}  # fmt: skip


@pytest.mark.parametrize("via", VIAS)
def test_what_was_removed_and_has_a_replacement(world: World, via: Via) -> None:
    lines = [each for each in world.live("deal_products") if str(each["deal_id"]) == world.known["sold"]]
    path = f"/api/v2/deals/{world.known['sold']}/products/{lines[0]['id']}"
    assert world.box.act("PATCH", path, {"billing_frequency": "monthly", "billing_start_date": "2026-01-01"})["success"]
    for key, name in (("findSubscriptionByDeal", "dealId"), ("getSubscription", "id")):
        refused = world.run(via, key, {name: world.known["sold"]})
        assert "--replacement reads these" in refused.error
        found = world.run(via, key, {name: world.known["sold"]}, "--replacement")
        recurring = [each["id"] for each in found.records]
        assert lines[0]["id"] in recurring
        assert {each["billing_frequency"] for each in found.records} & {"one-time"} == set()
        assert set(recurring) <= {each["id"] for each in lines}
    paid = world.run(via, "getSubscriptionPayments", {"id": world.known["sold"]}, "--replacement")
    wanted = [each["id"] for each in world.live("deal_installments") if str(each["deal_id"]) == world.known["sold"]]
    assert sorted(paid.ids) == sorted(wanted)
    for key in ("deleteSubscription", "cancelRecurringSubscription", "addChannel", "getDeals"):
        assert "has no replacement that gives the same" in world.run(via, key, {}, "--replacement").error


def test_every_request_and_every_answer_of_these_is_as_documented(world: World) -> None:
    assert world.recorder.unexplained() == []
