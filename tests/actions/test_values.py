"""Values of inputs: what each strategy takes, what it refuses, and the guards that a change meets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.actions.company import VIAS, Via, World, open_world

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with open_world(tmp_path_factory.mktemp("values"), seed=53) as world:
        yield world


@pytest.mark.parametrize(
    ("key", "inputs", "message"),
    [
        ("getDeals", {"limit": "0"}, "limit is '0', and should be 1 or more"),
        ("getDeals", {"limit": "many"}, "limit is 'many', and should be a whole number"),
        ("getDeals", {"start": "-1"}, "start is '-1', and should be a whole number"),
        ("getDeals", {"fetchAll": "yes"}, "fetchAll is 'yes', and should be true or false"),
        ("getDeals", {"ownedByYou": "me"}, "ownedByYou is 'me', and should be true or false"),
        ("getDeals", {"debugRequest": "loud"}, "debugRequest is 'loud', and should be true or false"),
        ("getDeals", {"sort": "title UPWARDS"}, "Write it like: title ASC, id DESC"),
        ("getDeals", {"sort": "person_name DESC"}, "can't sort by 'person_name': no record has it"),
        ("getDeals", {"status": "opn"}, "Did you mean 'open'"),
        ("getDeals", {"userId": "someone"}, "owner_id is 'someone', and should be a whole number"),
        ("getActivities", {"startDate": "last week"}, "should be a date, like 2026-03-31"),
        ("getLeads", {"archivedStatus": "old"}, "may be archived, not_archived or all"),
        ("getDealField", {"id": "No such field"}, "no field has this code or label"),
        ("addFile", {"entityType": "deal", "entityId": "1", "file": "/no/such", "fileName": "x"}, "is no file"),
        ("addFile", {"entityType": "deal", "entityId": "1", "file": "x", "fileName": "a/b"}, "is no name of a file"),
        ("addLead", {"title": "x", "personId": "1", "value": "much"}, "value is 'much', and should be an amount"),
        ("rawRequest", {"method": "GET", "url": "/files", "headers": "no pair"}, "written like key=value"),
        ("rawRequest", {"method": "GET", "url": "/files", "queryParams": "{"}, "queryParams is no JSON"),
        ("rawRequest", {"method": "GET", "url": "/files", "maxRetries": "99"}, "a whole number up to 20"),
    ],
)
@pytest.mark.parametrize("via", VIAS)
def test_a_value_that_does_not_fit_is_refused(
    world: World, key: str, inputs: dict[str, Any], message: str, via: Via
) -> None:
    refused = world.run(via, key, inputs)
    assert refused.code == 2
    assert message in refused.error
    assert {method for method, _, _ in refused.requests} <= {"GET"}


@pytest.mark.parametrize("via", VIAS)
@pytest.mark.parametrize("kind", ["deal", "person", "product"])
def test_a_field_by_its_number_its_code_and_its_label(world: World, kind: str, via: Via) -> None:
    fields = world.box.act("GET", f"/v1/{kind}Fields?limit=500")["data"]
    names = [each["name"] for each in fields]
    field = next(
        each for each in fields if each["edit_flag"] and names.count(each["name"]) == 1 and each["name"].strip()
    )
    key = f"get{kind.title()}Field"
    answers = [world.run(via, key, {"id": str(field[by])}).answer for by in ("id", "key", "name")]
    assert answers[0]["data"]["data"]["field_code"] == field["key"]
    assert answers[0] == answers[1] == answers[2]


@pytest.mark.parametrize("via", VIAS)
def test_several_values_at_once(world: World, via: Via) -> None:
    deals = sorted(world.live("deals"), key=lambda each: each["id"])
    shown = world.run(via, "getDeals", {"status": "open,won", "fetchAll": "true"}).ids
    assert shown == [each["id"] for each in deals if each["status"] in ("open", "won")]
    filters = {"stageId": str(deals[0]["stage_id"]), "userId": str(deals[0]["owner_id"]), "status": deals[0]["status"]}
    shown = world.run(via, "getDeals", {**filters, "sort": "value DESC, id ASC", "fetchAll": "true"}).ids
    columns = {"stageId": "stage_id", "userId": "owner_id", "status": "status"}
    wanted = [each for each in deals if all(str(each[column]) == filters[name] for name, column in columns.items())]
    assert shown == [each["id"] for each in sorted(wanted, key=lambda each: (-(each["value"] or 0), each["id"]))]
    page = world.run(via, "getDeals", {"sort": "title ASC", "start": "5", "limit": "7"})
    whole = world.run(via, "getDeals", {"sort": "title ASC", "fetchAll": "true"})
    assert page.ids == whole.ids[5:12]
    assert page.body["additional_data"]["pagination"] == {
        "start": 5, "limit": 7, "more_items_in_collection": True, "next_start": 12
    }  # fmt: skip


@pytest.mark.parametrize("via", VIAS)
def test_pages_tile(world: World, via: Via) -> None:
    """Page after page by `next_start` is the whole list, whatever pages Pipedrive serves."""
    seen: list[Any] = []
    start = 0
    while True:
        page = world.run(via, "getActivities", {"userId": "0", "limit": "90", "start": str(start)})
        seen += page.ids
        pagination = page.body["additional_data"]["pagination"]
        if not pagination["more_items_in_collection"]:
            break
        start = pagination["next_start"]
    assert start > 0
    assert seen == sorted(each["id"] for each in world.live("activities"))


def test_a_change_meets_every_guard_of_a_push(world: World) -> None:
    deal = str(world.live("deals")[0]["id"])
    before = len(world.box.journal)
    refused = world.act("command", "deleteDeal", {"id": deal}, "--now")
    assert (refused.code, "add --yes" in refused.error) == (2, True)
    assert world.project.here("queue", "list", "--json").out == ""  # it was not queued either
    held = world.act("command", "deleteDeal", {"id": deal}, "--now", "--yes")
    assert held.code == 3
    assert "delete" in held.error
    assert len(world.box.journal) == before
    (waiting,) = world.project.here("queue", "list", "--json").events
    assert world.project.here("queue", "drop", waiting["id"]).code == 0
    preview = world.project.here("action", "updateDeal", f"id={deal}", "title=Previewed", "--now", "--yes")
    assert preview.code == 0, preview
    assert "Previewed" in preview.err  # before → after, on stderr
    assert '"title": "Previewed"' in preview.out


def test_now_is_for_changes_only(world: World) -> None:
    assert "omit --now" in world.act("command", "getDeals", {}, "--now", "--yes").error
    assert "--out takes the content" in world.act("command", "getDeals", {}, "--out", "x.json").error


def test_actions_are_listed_and_explained(world: World) -> None:
    listed = world.project.here("actions", "deal", "field")
    assert listed.code == 0
    assert "getDealField" in listed.out
    assert "getPersons" not in listed.out
    shown = world.project.here("actions", "getDealFiles")
    assert "Pipedrive no longer lists deleted files" in shown.out
    (facts,) = world.project.here("actions", "getDeals", "--json").events
    assert facts["inputs"]["userId"]["to"] == "owner_id"
    assert len(world.project.here("actions", "--json").events) == 149
