"""What a read shows of an effect that no record of its own shows, and which entries an operation takes away.

`tests/end_to_end/test_effects.py` does so for every operation of the catalogue, against the sandbox.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from pdsync.core import catalogue
from pdsync.errors import ServerTrouble
from pdsync.writeback.effects import (
    EffectReading,
    EntriesToDelete,
    choose_read_back,
    find_effect,
    is_state,
    read_effect,
    read_entries_to_delete,
)
from tests.writeback.api import answering

if TYPE_CHECKING:
    from pathlib import Path

PRODUCTS = "/api/v2/deals/12/products"
FIELD = "/api/v2/dealFields/status"
TEAM = "/v1/legacyTeams/7/users"
JOB = "00000000-0000-4000-8000-000000000000"
GOALS = "/v1/goals/find"


@pytest.mark.parametrize(
    ("operation", "found", "state"),
    [
        ("v2 updateDeal", "record", False),
        ("v2 addDealFollower", "list", False),
        ("v2 deleteManyDealProducts", "effect", True),
        ("v2 updateDealFieldOptions", "effect", True),
        ("v2 addManyDealProducts", "effect", False),  # twice adds twice as many
        ("v1 duplicateDeal", "effect", False),  # only its answer names what to read
        ("v2 uploadProductImage", "effect", False),  # a file is not compared
        ("v1 saveUserProviderLink", "none", False),
    ],
)
def test_w7_how_an_operation_is_verified(operation: str, found: str, state: bool) -> None:
    declared = catalogue.operation(operation)
    assert (choose_read_back(declared), is_state(declared)) == (found, state)
    assert (find_effect(declared) is not None) is (found == "effect")


def line(id: int, **values: Any) -> dict[str, Any]:
    return {"id": id, "product_id": 3, "item_price": 5, "quantity": 1, **values}


SENT = [{"product_id": 3, "item_price": 5, "quantity": 1}, {"product_id": 3, "item_price": 6, "quantity": 2}]
OTHER = line(9, item_price=6, quantity=2)


@pytest.mark.parametrize(
    ("operation", "payload", "answers", "answer", "shown"),
    [
        # Gone: nothing of what was named is left, or nothing at all where nothing was named.
        ("v2 deleteManyDealProducts", {"id": 12, "ids": "1,2"}, {PRODUCTS: [line(3)]}, None, EffectReading("shown")),
        ("v2 deleteManyDealProducts", {"id": 12, "ids": "1,2"}, {PRODUCTS: [line(1), line(2)]}, None,
         EffectReading("missing", "2 still there (1, 2)", {"left": [line(1), line(2)]})),
        ("v2 deleteManyDealProducts", {"id": 12, "ids": "1, 2"}, {PRODUCTS: [line(2)]}, None,
         EffectReading("partly", "1 still there (2)", {"left": [line(2)]})),
        ("v2 deleteManyDealProducts", {"id": 12}, {PRODUCTS: [line(3)]}, None,
         EffectReading("missing", "1 still there (3)", {"left": [line(3)]})),
        ("v2 deleteManyDealProducts", {"id": 12}, {PRODUCTS: 404}, None, EffectReading("shown")),
        ("v1 deleteTeamUser", {"id": 7, "users": [1, 2]}, {TEAM: [1, 3]}, None,
         EffectReading("partly", "1 still there (1)", {"left": [{"value": 1}]})),
        # Sent: every entry is there, as it was sent.
        ("v1 addTeamUser", {"id": 7, "users": [1, 2]}, {TEAM: [1, 2, 3]}, None,
         EffectReading("shown", after={"entries": [{"value": 1}, {"value": 2}]})),
        ("v1 addTeamUser", {"id": 7, "users": [1, 2]}, {TEAM: [1]}, None,
         EffectReading("partly", "1 of 2 show in v1 getTeamUsers", {"entries": [{"value": 1}]})),
        ("v1 addTeamUser", {"id": 7, "users": [1, 2]}, {TEAM: []}, None,
         EffectReading("missing", "0 of 2 show in v1 getTeamUsers", {"entries": []})),
        ("v2 updateDealFieldOptions", {"field_code": "status", "body": [{"id": 4, "label": "New"}]},
         {FIELD: {"options": [{"id": 4, "label": "New", "color": "red"}]}}, None,
         EffectReading("shown", after={"entries": [{"id": 4, "label": "New", "color": "red"}]})),
        ("v2 updateDealFieldOptions", {"field_code": "status", "body": [{"id": 4, "label": "New"}]},
         {FIELD: {"options": [{"id": 4, "label": "Old"}]}}, None,
         EffectReading("missing", "0 of 1 show in v2 getDealField", {"entries": [{"id": 4, "label": "Old"}]})),
        # Of one that adds some and removes others, both halves count.
        ("v1 updateRolePipelines", {"id": 7, "visible_pipeline_ids": {"add": [1], "remove": [2]}},
         {"/v1/roles/7/pipelines": {"pipeline_ids": [1, 3]}}, None,
         EffectReading("shown", after={"entries": [{"value": 1}]})),
        ("v1 updateRolePipelines", {"id": 7, "visible_pipeline_ids": {"add": [1], "remove": [2]}},
         {"/v1/roles/7/pipelines": {"pipeline_ids": [1, 2]}}, None,
         EffectReading("partly", "1 of 2 show in v1 getRolePipelines", {"entries": [{"value": 1}]})),
        # Added: each entry of the answer is there, and each that was sent is one of them.
        ("v2 addManyDealProducts", {"id": 12, "data": SENT}, {PRODUCTS: [line(1), line(8), OTHER]}, [line(8), OTHER],
         EffectReading("shown", after={"entries": [line(8), OTHER]})),
        ("v2 addManyDealProducts", {"id": 12, "data": SENT[:1]}, {PRODUCTS: [line(8)]}, [line(8)],
         EffectReading("shown", after={"entries": [line(8)]}, added_id="8")),
        ("v2 addManyDealProducts", {"id": 12, "data": SENT}, {PRODUCTS: [line(1), line(8)]}, [line(8), OTHER],
         EffectReading("partly", "1 of 2 show in v2 getDealProducts", {"entries": [line(8)]})),
        ("v2 addManyDealProducts", {"id": 12, "data": SENT[:1]}, {PRODUCTS: [line(1)]}, [line(8)],
         EffectReading("missing", "0 of 1 show in v2 getDealProducts", {"entries": []})),
        # Set and unset: a value.
        ("v2 archiveProject", {"id": 7}, {"/api/v2/projects/7": {"id": 7, "archive_time": "2026-01-01 10:00:00"}},
         None,
         EffectReading("shown", "archive_time is '2026-01-01 10:00:00'", {"archive_time": "2026-01-01 10:00:00"})),
        ("v2 archiveProject", {"id": 7}, {"/api/v2/projects/7": {"id": 7}}, None,
         EffectReading("missing", "archive_time is None", {"archive_time": None})),
        ("v1 deletePersonPicture", {"id": 7}, {"/api/v2/persons/7": {"id": 7, "picture_id": None}}, None,
         EffectReading("shown", "picture_id is None", {"picture_id": None})),
        ("v1 deletePersonPicture", {"id": 7}, {"/api/v2/persons/7": {"id": 7, "picture_id": {"id": 4}}}, None,
         EffectReading("missing", "picture_id is 4", {"picture_id": 4})),
        ("v1 addOrUpdateRoleSetting", {"id": 7, "setting_key": "deal_default_visibility", "value": 3},
         {"/v1/roles/7/settings": {"deal_default_visibility": "3"}}, None,
         EffectReading("shown", "deal_default_visibility is '3'", {"deal_default_visibility": "3"})),
        ("v1 addOrUpdateRoleSetting", {"id": 7, "setting_key": "deal_default_visibility", "value": 3},
         {"/v1/roles/7/settings": {"deal_default_visibility": 1}}, None,
         EffectReading("missing", "deal_default_visibility is 1", {"deal_default_visibility": 1})),
        # What only the answer names.
        ("v1 duplicateDeal", {"id": 12}, {"/api/v2/deals/34": {"id": 34}}, {"id": 34},
         EffectReading("shown", "id is 34", {"id": 34}, added_id="34")),
        ("v1 duplicateDeal", {"id": 12}, {}, {"id": 34}, EffectReading("missing", "id is None", {"id": None})),
        ("v1 duplicateDeal", {"id": 12}, {}, None, EffectReading("unreadable", "the answer names no record to read")),
        # A job.
        *[("v2 convertDealToLead", {"id": 12}, {f"/api/v2/deals/12/convert/status/{JOB}": {"status": status} | made},
           {"conversion_id": JOB}, EffectReading(verdict, f"the job is {status}", {"status": status} | made, new))  # type: ignore[arg-type]
          for status, verdict, made, new in [
              ("completed", "shown", {"deal_id": 12, "lead_id": "b-2"}, "b-2"), ("failed", "failed", {}, None),
              ("running", "running", {}, None)]],
        ("v1 saveUserProviderLink", {"user_id": 1}, {}, None,
         EffectReading("unreadable", "nothing in the API shows it")),
    ],
)  # fmt: skip
async def test_w7_what_a_read_shows_of_an_effect(
    tmp_path: Path, operation: str, payload: dict[str, Any], answers: dict[str, Any], answer: Any, shown: EffectReading
) -> None:
    body = None if answer is None else msgspec.json.encode({"success": True, "data": answer})
    async with answering(tmp_path, answers) as api:
        assert await read_effect(api.http, catalogue.operation(operation), payload, body) == shown


async def test_w7_of_several_lists_each_one_counts(tmp_path: Path) -> None:
    goals = {"true": [{"id": "a", "title": "Sell"}], "false": [{"id": "b", "title": "Rest"}]}

    def listed(request: Any) -> Any:
        return {"goals": goals[request.query["is_active"]]}

    async with answering(tmp_path, {GOALS: listed}) as api:
        gone = await read_effect(api.http, catalogue.operation("v1 deleteGoal"), {"id": "b"})
    assert gone.verdict == "missing"
    assert api.requests == [GOALS, GOALS]


async def test_w7_a_read_that_fails_shows_nothing(tmp_path: Path) -> None:
    async with answering(tmp_path, {PRODUCTS: 500}) as api:
        with pytest.raises(ServerTrouble):
            await read_effect(api.http, catalogue.operation("v2 deleteManyDealProducts"), {"id": 12})


@pytest.mark.parametrize(
    ("payload", "answer", "to_delete"),
    [
        ({"id": 12}, [line(1), line(2)], EntriesToDelete([line(1), line(2)], are_named=False)),
        ({"id": 12, "ids": ""}, [line(1)], EntriesToDelete([line(1)], are_named=False)),
        ({"id": 12, "ids": "2,3"}, [line(1), line(2)], EntriesToDelete([line(2)])),
        ({"id": 12, "ids": "3"}, [], EntriesToDelete([])),
        ({"id": 12}, 404, EntriesToDelete([], are_named=False)),
        (
            {"id": 12},
            403,
            EntriesToDelete(unreadable="getDealProducts may not be read with this token (refused with 403)"),
        ),
    ],
)
async def test_w8_the_entries_that_an_operation_takes_away(
    tmp_path: Path, payload: dict[str, Any], answer: object, to_delete: EntriesToDelete
) -> None:
    async with answering(tmp_path, {PRODUCTS: answer}) as api:
        assert (
            await read_entries_to_delete(api.http, catalogue.operation("v2 deleteManyDealProducts"), payload)
            == to_delete
        )


@pytest.mark.parametrize("operation", ["v2 deleteDeal", "v1 addTeamUser", "v1 saveUserProviderLink"])
async def test_w8_an_operation_that_takes_nothing_away_reads_nothing(tmp_path: Path, operation: str) -> None:
    async with answering(tmp_path, {}) as api:
        assert await read_entries_to_delete(api.http, catalogue.operation(operation), {"id": 12}) is None
    assert api.requests == []
