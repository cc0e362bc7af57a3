"""Every input of every action that changes data, by command and in Python: sent at once, and found in the company.

An action is carried out once each way with all its inputs; each input is then looked for in the sandbox's truth.
"""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

import pytest

from pdsync.core.actions import Action, actions
from tests.actions.company import VIAS, Outcome, Via, World, open_world

if TYPE_CHECKING:
    from collections.abc import Iterator

WRITES = [each for each in actions().values() if each.is_queued and not each.removed]
INPUTS = [(each.key, name) for each in WRITES for name, one in each.inputs.items() if one.how != "refused"]
REFUSED = [(each.key, name) for each in WRITES for name, one in each.inputs.items() if one.how == "refused"]
REMOVED = [(each.key, name) for each in actions().values() if each.removed for name in each.inputs]
NUMBERS = itertools.count()
NOW = ("--now", "--yes", "--allow", "delete,merge", "--max-deletes", "99")
DELETED = {
    "deleteActivity": "activities", "deleteCallLog": "call_logs", "deleteDeal": "deals", "deleteFile": "files",
    "deleteLead": "leads", "deleteLeadLabel": "lead_labels", "deleteOrganization": "organizations",
    "deletePerson": "persons", "deletePipeline": "pipelines", "deleteProduct": "products", "deleteStage": "stages",
}  # fmt: skip
FOLLOWED = {"Deal": "deals", "Person": "persons", "Organization": "organizations", "Product": "products"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with open_world(tmp_path_factory.mktemp("writes"), seed=37) as world:
        yield world


@pytest.fixture(scope="module")
def runs(world: World) -> dict[tuple[str, Via], tuple[dict[str, Any], Outcome, list[Any]]]:
    """What was carried out: inputs, outcome, and the sandbox's journal of it."""
    return {}


class Records:
    """The records that inputs refer to; those that an action changes or deletes differ by way of calling."""

    def __init__(self, world: World, via: Via) -> None:
        self.world, self.via, self.turn = world, via, VIAS.index(via)
        self._live: dict[str, list[str]] = {}
        self.owner, self.follower = self.live("users")[2], self.live("users")[-1 - self.turn]

    def live(self, kind: str) -> list[str]:
        """The ids of all live records of a kind."""
        if kind not in self._live:
            self._live[kind] = [str(each["id"]) for each in self.world.live(kind)]
        return self._live[kind]

    def first(self, kind: str) -> str:
        return self.live(kind)[0]

    def lines(self) -> list[dict[str, Any]]:
        """The product lines of live deals."""
        return [each for each in self.world.live("deal_products") if str(each["deal_id"]) in self.live("deals")]


def given(world: World, key: str, via: Via) -> dict[str, Any]:
    """Every input of an action."""
    records = Records(world, via)
    if key.endswith("Follower"):
        kind = FOLLOWED[key.removesuffix("Follower").removeprefix("add").removeprefix("delete")]
        return {"id": records.first(kind), ("userId" if key.startswith("add") else "followerId"): records.follower}
    if key.startswith("merge"):
        loser, winner = records.live(key[5:].lower())[-1:-3:-1]
        return {"id": loser, "mergeWithId": winner}
    if key.startswith("delete"):
        return inputs_of_deletion(records, key)
    return {**inputs_about_deals(records), **inputs_about_other_records(records)}[key]


def inputs_of_deletion(records: Records, key: str) -> dict[str, Any]:
    world = records.world
    if key in DELETED:
        return {"id": records.live(DELETED[key])[-1]}
    if key.endswith("Field"):
        kind = key.removeprefix("delete").removesuffix("Field").lower()
        body = {"field_name": f"Doomed {next(NUMBERS)}", "field_type": "varchar"}
        field = world.box.act("POST", f"/api/v2/{kind}Fields", body)["data"]
        return {"id": field["field_code"] if records.turn else field["field_name"]}
    if key == "deleteMailThread":
        return {"id": str(world.threads()[-1]["id"])}
    if key == "deletePersonPicture":
        return {"id": next(str(each["id"]) for each in world.live("persons") if each["picture_id"])}
    if key == "deleteDealProduct":
        line = records.lines()[-1 - records.turn]
        return {"id": str(line["deal_id"]), "productAttachmentId": str(line["id"])}
    assert key == "deleteDealParticipant"
    deal = records.first("deals")
    answers = (
        world.box.act("POST", f"/v1/deals/{deal}/participants", {"person_id": int(id)})
        for id in reversed(records.live("persons"))
    )
    participant = next(answer for answer in answers if answer["success"])["data"]
    return {"id": deal, "dealParticipantId": str(participant["id"])}


def inputs_about_deals(records: Records) -> dict[str, dict[str, Any]]:
    """The inputs of actions on deals and their products, participants, calls and files, by action."""
    first, via, turn, world = records.first, records.via, records.turn, records.world
    path, line = world.project.folder / "up.txt", records.lines()[turn]
    path.write_text("an attachment", encoding="utf-8")
    deal = {
        "currency": "EUR", "expectedCloseDate": "2026-12-31", "orgId": first("organizations"), "personId":
        first("persons"), "probability": "40", "title": f"All {via}", "userId": records.owner, "value": "99.5",
        "visibleTo": "3", "status": "lost", "lostReason": "why", "pipelineId": "1",
        "stageId": next(str(each["id"]) for each in world.live("stages") if each["pipeline_id"] == 1),
    }  # fmt: skip
    product = {"comments": "c", "discountPercentage": "5", "enabledFlag": "true", "itemPrice": "11.5",
               "productVariationId": "1", "quantity": "4", "tax": "7"}  # fmt: skip
    return {
        "addCallLog": {
            "activityId": first("activities"), "dealId": first("deals"), "duration": "120", "startTime":
            "2026-01-05T10:00:00Z", "endTime": "2026-01-05T10:05:00Z", "fromPhoneNumber": "+491", "toPhoneNumber":
            "+492", "note": "noted", "orgId": first("organizations"), "outcome": "connected", "personId":
            first("persons"), "subject": "Call", "userId": records.owner,
        },
        "addDeal": deal, "updateDeal": {**deal, "id": records.live("deals")[3 + turn]},
        "addDealParticipant": {"id": first("deals"), "personId": records.live("persons")[3 + turn]},
        "addDealProduct": {**product, "id": records.live("deals")[5], "productId": first("products")},
        "updateDealProduct": {**product, "id": str(line["deal_id"]), "productAttachmentId": str(line["id"])},
        "addFile": {"entityId": first("deals"), "entityType": "deal", "file": str(path), "fileName": f"{via}.txt"},
        "updateFile": {"description": f"All {via}", "id": first("files"), "name": f"{via}.txt"},
    }  # fmt: skip


def inputs_about_other_records(records: Records) -> dict[str, dict[str, Any]]:
    """The inputs of all other actions that add or update, by action."""
    first, owner, name = records.first, records.owner, f"All {records.via}"
    field = next(
        each["record"] for each in records.world.box.dump("person_fields")
        if each["record"]["is_custom_field"] and each["record"]["field_type"] in ("varchar", "text")
    )  # fmt: skip
    return {
        "addLead": {"expectedCloseDate": "2026-12-31", "labelIds": first("lead_labels"), "organizationId":
                    first("organizations"), "ownerId": owner, "personId": first("persons"), "title": name,
                    "value": "5", "visibleTo": "3", "wasSeen": "true"},
        "addLeadLabel": {"color": "blue", "name": name},
        "addOrganization": {"addTime": "2024-01-05 10:00:00", "name": name, "ownerId": owner, "visibleTo": "3"},
        "addPerson": {"addTime": "2024-01-05 10:00:00", "email": "all@example.com", "marketingStatus": "no_consent",
                      "name": name, "orgId": first("organizations"), "ownerId": owner, "phone": "+49 30 1",
                      "visibleTo": "3"},
        "addPipeline": {"dealProbability": "true", "name": name},
        "addProduct": {"code": f"All-{records.via}", "name": name, "ownerId": owner, "selectable": "false", "tax": "19",
                       "prices": '[{"currency": "EUR", "price": 9, "cost": 3, "overhead_cost": 1}]', "unit": "pcs",
                       "visibleTo": "3"},
        "addStage": {"dealProbability": "30", "name": name, "pipelineId": "1", "rottenDays": "10",
                     "rottenFlag": "true"},
        "setFieldValueForPerson": {"customFieldKey": field["field_code"] if records.turn else field["field_name"],
                                   "personId": first("persons"), "value": name},
    }  # fmt: skip


def carried_out(world: World, runs: dict[Any, Any], key: str, via: Via) -> tuple[dict[str, Any], Outcome, list[Any]]:
    """The action with all its inputs, sent at once; once for each way."""
    if (key, via) not in runs:
        inputs = given(world, key, via)
        before = len(world.box.journal)
        outcome = world.run(via, key, inputs, *NOW)
        runs[key, via] = inputs, outcome, world.box.journal[before:]
    found: tuple[dict[str, Any], Outcome, list[Any]] = runs[key, via]
    return found


@pytest.mark.parametrize("via", VIAS)
@pytest.mark.parametrize(("key", "name"), INPUTS)
def test_every_input_of_every_change(world: World, runs: dict[Any, Any], key: str, name: str, via: Via) -> None:
    action = actions()[key]
    inputs, outcome, journal = carried_out(world, runs, key, via)
    assert outcome.code == 0, outcome.error or outcome.said
    assert outcome.body["success"] is True, outcome.body
    assert journal, "nothing was changed"
    assert name in inputs
    assert _took_effect(action, name, str(inputs[name]), outcome, journal), [each.after for each in journal]


def _took_effect(action: Action, name: str, asked: str, outcome: Outcome, journal: list[Any]) -> bool:
    """Whether the journal, or the path that was called, shows what the input asked for."""
    rows = [row for entry in journal for row in (entry.after, entry.before) if row is not None]
    each = action.inputs[name]
    to = {"customFieldKey": "custom_fields", "entityId": "deal_id", "fileName": "name"}.get(name, each.to or name)
    shown = [row.record for row in rows]
    if each.how in ("custom_field", "custom_value"):
        return any("All" in json.dumps(record.get("custom_fields")) for record in shown)
    if each.how in ("field", "entity_type", "file"):
        return bool(shown)
    paths = [path.split("/") for method, path, _ in outcome.requests if method != "GET"]
    if any(asked in path for path in paths) or any(asked == str(entry.id).rpartition("/")[2] for entry in journal):
        return True
    return any(_alike(record.get(to, record.get(name)), asked) for record in shown)


def _alike(held: Any, asked: str) -> bool:
    texts = json.dumps(held, default=str).lower()
    plain = asked.removesuffix(".0").lower().replace(" 10:00:00", "t10:00:00z")
    if asked.startswith("["):
        return "direct_cost" in texts and "eur" in texts
    return plain in texts


@pytest.mark.parametrize("via", VIAS)
@pytest.mark.parametrize("key", [each.key for each in WRITES])
def test_a_change_waits_in_the_queue_until_it_is_pushed(world: World, key: str, via: Via) -> None:
    inputs = given(world, key, via)
    before = len(world.box.journal)
    outcome = world.run(via, key, inputs)
    assert outcome.code == 0, outcome.error
    assert outcome.body["queued"]["state"] == "queued"
    assert {method for method, _, _ in outcome.requests} <= {"GET"}
    made = [each for each in world.box.journal[before:] if each.request]
    assert made == []
    assert world.project.here("queue", "drop", outcome.body["queued"]["id"]).code == 0
    needed = [name for name, each in actions()[key].inputs.items() if each.required and each.default is None]
    for name in needed:
        refused = world.run(via, key, {other: each for other, each in inputs.items() if other != name})
        assert (refused.code, refused.requests) == (2, [])
        assert f"needs {name}" in refused.error


@pytest.mark.parametrize("via", VIAS)
@pytest.mark.parametrize(("key", "name"), REFUSED)
def test_an_input_that_is_refused_says_why(world: World, key: str, name: str, via: Via) -> None:
    inputs = given(world, key, via)
    each = actions()[key].inputs[name]
    refused = world.run(via, key, {**inputs, name: "0"})
    assert refused.code == 2
    assert f"{key}: {name} can't be honoured. {each.reason}" in refused.error
    assert {method for method, _, _ in refused.requests} <= {"GET"}
    for accepted in each.accepts:
        queued = world.run(via, key, {**inputs, name: accepted})
        assert queued.code == 0, queued.error
        assert world.project.here("queue", "drop", queued.body["queued"]["id"]).code == 0


@pytest.mark.parametrize("via", VIAS)
@pytest.mark.parametrize(("key", "name"), REMOVED)
def test_what_pipedrive_removed_says_what_replaced_it(world: World, key: str, name: str, via: Via) -> None:
    for inputs in ({name: "1"}, {}):
        refused = world.run(via, key, inputs)
        assert (refused.code, refused.requests) == (2, [])
        assert str(actions()[key].removed) in refused.error


@pytest.mark.parametrize("via", VIAS)
def test_values_that_only_an_action_knows(world: World, via: Via) -> None:
    deleted = world.run(via, "updateDeal", {"id": "1", "status": "deleted"})
    assert "use deleteDeal" in deleted.error
    deal = next(each for each in world.live("deals") if each["currency"] == "EUR")
    product = next(each for each in world.live("products") if any(p["currency"] == "EUR" for p in each["prices"]))
    before = len(world.box.journal)
    made = world.run(via, "addDealProduct", {"id": str(deal["id"]), "product_id": str(product["id"])}, *NOW)
    assert made.code == 0, made.error
    price = next(each["price"] for each in product["prices"] if each["currency"] == "EUR")
    lines = [each.after for each in world.box.journal[before:] if each.kind == "deal_products"]
    shown = next(row.record for row in lines if row)
    assert (shown["item_price"], shown["quantity"]) == (price, 1)  # the product's own price, one of it
    unknown = world.run(via, "addFile", {"entityType": "planet", "entityId": "1", "file": "x", "fileName": "x"})
    assert "entityType is 'planet'" in unknown.error


def test_every_request_and_every_answer_of_these_is_as_documented(world: World) -> None:
    assert world.recorder.unexplained() == []
