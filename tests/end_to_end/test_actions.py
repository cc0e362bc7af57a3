"""Each read action of a well-known Pipedrive component: its command here, and its result checked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.world import Project, serving
from tests.vendor import stored

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.world import Remote

READS = ("picklist", "read_list", "read_one", "search", "download", "raw")

# Action → the operation and its parameters; in braces what the test fills in: {deals} is the id of a deal.
LISTS = {
    "selectDeal": "getDeals --all", "selectOrganization": "getOrganizations --all", "selectPerson": "getPersons --all",
    "getActivities": "getActivities --all", "getActivityFields": "getActivityFields --all",
    "getActivityTypes": "getActivityTypes", "getCompanyAddons": "getCompanyAddons", "getCurrencies": "getCurrencies",
    "getDealActivities": "getActivities deal_id={deals} --all", "getDealFields": "getDealFields --all",
    "getDealFiles": "getDealFiles id={deals} --all", "getDealFollowers": "getDealFollowers id={deals} --all",
    "getDealMailMessages": "getDealMailMessages id={deals} --all",
    "getDealParticipants": "getDealParticipants id={deals} --all", "getDealPersons": "getPersons deal_id={deals} --all",
    "getDealProducts": "getDealProducts id={sold} --all", "getDeals": "getDeals --all",
    "getFilters": "getFilters", "getLeadLabels": "getLeadLabels", "getLeadSources": "getLeadSources",
    "getLeads": "getLeads --all", "getMailThreadMessages": "getMailThreadMessages id={threads}",
    "getMailThreads": "getMailThreads folder=inbox --all", "getNoteFields": "getNoteFields",
    "getOrganizationActivities": "getActivities org_id={organizations} --all",
    "getOrganizationDeals": "getDeals org_id={organizations} --all",
    "getOrganizationFiles": "getOrganizationFiles id={organizations} --all",
    "getOrganizationFollowers": "getOrganizationFollowers id={organizations} --all",
    "getOrganizationMailMessages": "getOrganizationMailMessages id={organizations} --all",
    "getOrganizationPersons": "getPersons org_id={organizations} --all",
    "getOrganizationUpdates": "getOrganizationUpdates id={organizations} --all",
    "getOrganizationUsers": "getOrganizationUsers id={organizations}", "getOrganizations": "getOrganizations --all",
    "getPermissionSetAssignments": "getPermissionSetAssignments id={permissionSets} --all",
    "getPermissionSets": "getPermissionSets", "getPersonActivities": "getActivities person_id={persons} --all",
    "getPersonDeals": "getDeals person_id={persons} --all", "getPersonFields": "getPersonFields --all",
    "getPersonFiles": "getPersonFiles id={persons} --all",
    "getPersonFollowers": "getPersonFollowers id={persons} --all",
    "getPersonMailMessages": "getPersonMailMessages id={persons} --all",
    "getPersonProducts": "getPersonProducts id={persons}", "getPersonUpdates": "getPersonUpdates id={persons} --all",
    "getPersonUsers": "getPersonUsers id={persons}", "getPersons": "getPersons --all",
    "getPipelineDeals": "getDeals pipeline_id={pipelines} --all", "getPipelines": "getPipelines --all",
    "getProductDeals": "getProductDeals id={products} --all", "getProductFields": "getProductFields --all",
    "getProductFiles": "getProductFiles id={products} --all",
    "getProductFollowers": "v2:getProductFollowers id={products} --all",
    "getProductUsers": "getProductUsers id={products}",
    "getProducts": "getProducts --all", "getStageDeals": "getDeals stage_id={stages} --all",
    "getStages": "getStages --all", "getUserCallLogs": "getUserCallLogs --all",
    "getUserFollowers": "getUserFollowers id={users} --all",
    "getUserRoleAssignments": "getUserRoleAssignments id={users} --all", "getUsers": "getUsers",
    "getFiles": "getFiles --all",
}  # fmt: skip
ONES = {
    "getActivity": "getActivity id={activities}", "getCallLog": "getCallLog id={callLogs}",
    "getCurrentUser": "getCurrentUser", "getDeal": "getDeal id={deals}",
    "getDealField": "getDealField field_code={deal_fields}", "getDealUsers": "getDealUsers id={deals}",
    "getDealsSummary": "getDealsSummary", "getFile": "getFile id={files}", "getFilter": "getFilter id={filters}",
    "getDealsTimeline": "getDealsTimeline start_date=2026-01-01 interval=month amount=3 field_key=add_time",
    "getLead": "getLead id={leads}", "getMailMessage": "getMailMessage id={messages}",
    "getMailThread": "getMailThread id={threads}", "getOrganization": "getOrganization id={organizations}",
    "getPermissionSet": "getPermissionSet id={permissionSets}", "getPerson": "getPerson id={persons}",
    "getPersonField": "getPersonField field_code={person_fields}",
    "getPersonFieldDetails": "getPersonField field_code={person_fields}", "getPipeline": "getPipeline id={pipelines}",
    "getPipelineConversionStatistics":
        "getPipelineConversionStatistics id={pipelines} start_date=2026-01-01 end_date=2026-03-31",
    "getPipelineMovementStatistics":
        "getPipelineMovementStatistics id={pipelines} start_date=2026-01-01 end_date=2026-03-31",
    "getProduct": "getProduct id={products}", "getProductField": "getProductField field_code={product_fields}",
    "getStage": "getStage id={stages}", "getUser": "getUser id={users}", "getUserConnections": "getUserConnections",
    "getUserPermissions": "getUserPermissions id={users}", "getUserRoleSettings": "getUserRoleSettings id={users}",
    "getUserSettings": "getUserSettings",
}  # fmt: skip
SEARCHES = {
    "findUsersByName": "findUsersByName term={user_name}", "searchDeals": "searchDeals term={deal_title}",
    "searchLeads": "searchLeads term={lead_title}", "searchOrganization": "searchOrganization term={org_name}",
    "searchPersons": "searchPersons term={person_name}",
}  # fmt: skip
OTHERS = {"downloadFile": "downloadFile id={files}", "rawRequest": "--request GET /v1/currencies"}
REMOVED = {
    "findSubscriptionByDeal": "findSubscriptionByDeal dealId={deals}",
    "getSubscription": "getSubscription id=1",
    "getSubscriptionPayments": "getSubscriptionPayments id=1",
}
ACTIONS = {**LISTS, **ONES, **SEARCHES, **OTHERS, **REMOVED}
# What a list without parameters must hold: the truth's records of this kind, in these states.
WHOLE = {
    "getPersons": "persons", "getOrganizations": "organizations", "getProducts": "products",
    "getActivities": "activities",
    "getPipelines": "pipelines", "getStages": "stages", "getFiles": "files", "getLeads": "leads",
    "getLeadLabels": "lead_labels", "getFilters": "filters", "getActivityTypes": "activity_types",
    "getCurrencies": "currencies", "getPermissionSets": "permission_sets", "getUserCallLogs": "call_logs",
}  # fmt: skip


@pytest.fixture(scope="module")
def remote() -> Iterator[Remote]:
    with serving("--deals", "60", "--seed", "31", "--mail-threads", "60") as remote:
        yield remote


@pytest.fixture(scope="module")
def project(remote: Remote, tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("actions") / "project", remote)


@pytest.fixture(scope="module")
def known(remote: Remote, project: Project) -> dict[str, str]:
    """What the braces of the commands stand for: live records that are linked to others."""
    live = {
        kind: [entry["record"] for entry in remote.dump(kind) if entry["state"] == "live"]
        for kind in (
            "deals", "persons", "organizations", "products", "activities", "pipelines", "stages", "users", "files",
            "leads", "call_logs", "filters", "permission_sets", "deal_products",
        )
    }  # fmt: skip
    deal = next(deal for deal in live["deals"] if deal["person_id"] and deal["org_id"])
    threads = json.loads(project.here("api", "getMailThreads", "folder=inbox").out)["data"]
    thread = next(thread for thread in threads if thread["message_count"])
    message = json.loads(project.here("api", "getMailThreadMessages", f"id={thread['id']}").out)["data"][0]
    codes = {
        f"{kind}_fields": remote.dump(f"{kind}_fields")[-1]["record"]["field_code"]
        for kind in ("deal", "person", "product")
    }
    return {
        **{kind: str(records[0]["id"]) for kind, records in live.items() if records},
        **codes,
        "deals": str(deal["id"]), "persons": str(deal["person_id"]), "organizations": str(deal["org_id"]),
        "sold": str(live["deal_products"][0]["deal_id"]), "threads": str(thread["id"]), "messages": str(message["id"]),
        "callLogs": live["call_logs"][0]["id"], "permissionSets": live["permission_sets"][0]["id"],
        "user_name": live["users"][0]["name"], "deal_title": deal["title"], "lead_title": live["leads"][0]["title"],
        "org_name": live["organizations"][0]["name"], "person_name": live["persons"][0]["name"],
    }  # fmt: skip


def run(project: Project, known: dict[str, str], action: str) -> tuple[int, Any, str]:
    words = [word.format(**known) for word in ACTIONS[action].split(" ")]
    ran = project.here("api", *words)
    return ran.code, json.loads(ran.out) if ran.code == 0 and ran.out else None, ran.err


def test_every_read_action_is_covered() -> None:
    seed = stored("actions")
    assert {key for key, action in seed.items() if action["kind"] in READS} == ACTIONS.keys()
    for key, action in seed.items():
        if action["kind"] in READS and key != "rawRequest":
            operation = ACTIONS[key].split(" ")[0].split(":")[-1]
            assert operation in action["maps_to"].values(), key


@pytest.mark.parametrize("action", LISTS)
def test_a_list_has_every_record_of_the_company(
    remote: Remote, project: Project, known: dict[str, str], action: str
) -> None:
    code, found, err = run(project, known, action)
    assert code == 0, err
    records = found if isinstance(found, list) else found["data"] or []
    operation, *words = ACTIONS[action].split(" ")
    filters = {
        name: known[value.strip("{}")]
        for name, sign, value in (word.partition("=") for word in words)
        if sign and name.endswith("_id") and name != "deal_id"
    }
    for name, value in filters.items():
        assert {str(record[name]) for record in records} <= {value}
    if operation in WHOLE and not [word for word in words if "=" in word]:
        truth = {entry["record"]["id"] for entry in remote.dump(WHOLE[operation]) if entry["state"] == "live"}
        assert {record["id"] for record in records} >= truth
    elif operation == "getDeals" and filters:
        ((name, value),) = filters.items()
        deals = [entry["record"] for entry in remote.dump("deals") if entry["state"] == "live"]
        assert {record["id"] for record in records} == {deal["id"] for deal in deals if str(deal[name]) == value}


@pytest.mark.parametrize("action", ONES)
def test_a_single_record_is_the_one_that_was_asked_for(project: Project, known: dict[str, str], action: str) -> None:
    code, found, err = run(project, known, action)
    assert code == 0, err
    assert found["success"] is True
    words = dict(word.split("=") for word in ACTIONS[action].format(**known).split(" ")[1:])
    data = found["data"]
    assert data or action == "getDealUsers"
    if "id" in words and isinstance(data, dict) and "id" in data and "statistics" not in action.lower():
        assert str(data["id"]) == words["id"]
    if "field_code" in words:
        assert data["field_code"] == words["field_code"]


@pytest.mark.parametrize("action", SEARCHES)
def test_a_search_finds_the_record_by_its_name(project: Project, known: dict[str, str], action: str) -> None:
    words = ACTIONS[action].split(" ")
    term = known[words[1].partition("=")[2].strip("{}")]
    ran = project.here("api", words[0], f"term={term}")
    assert ran.code == 0, ran.err
    data = json.loads(ran.out)["data"]
    found = data if isinstance(data, list) else [each["item"] for each in data["items"]]
    assert term in [each.get("title") or each["name"] for each in found]


def test_a_file_is_printed_unchanged(remote: Remote, project: Project, known: dict[str, str], tmp_path: Path) -> None:
    size = next(e["record"]["file_size"] for e in remote.dump("files") if str(e["record"]["id"]) == known["files"])
    target = tmp_path / "content"
    ran = project.here("api", "downloadFile", f"id={known['files']}", "--out", str(target))
    assert ran.code == 0, ran.err
    assert target.stat().st_size == size


def test_a_raw_request_answers(project: Project, known: dict[str, str]) -> None:
    code, found, err = run(project, known, "rawRequest")
    assert code == 0, err
    assert found["data"]


@pytest.mark.parametrize("action", REMOVED)
def test_a_removed_operation_is_named(remote: Remote, project: Project, known: dict[str, str], action: str) -> None:
    remote.clear_log()
    code, _, err = run(project, known, action)
    assert code == 2
    assert "Pipedrive removed subscriptions on 2025-06-27" in err
    assert [entry["path"] for entry in remote.log()] == []
