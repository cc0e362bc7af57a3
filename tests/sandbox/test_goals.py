"""Goals: of the token's user, unless a parameter is given that is documented to find everyone's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from .api import Api

Goal = dict[str, Any]


def is_mine(goal: Goal, me: int) -> bool:
    return bool(goal["assignee"] == {"id": me, "type": "person"})


def of_metric(name: str) -> Callable[[Goal, int], bool]:
    return lambda goal, me: goal["is_active"] and goal["expected_outcome"]["tracking_metric"] == name


CASES: list[tuple[dict[str, str], Callable[[Goal, int], bool]]] = [
    ({}, lambda goal, me: is_mine(goal, me) and goal["is_active"]),
    ({"is_active": "true"}, lambda goal, me: is_mine(goal, me) and goal["is_active"]),
    ({"is_active": "false"}, lambda goal, me: is_mine(goal, me) and not goal["is_active"]),
    ({"assignee.type": "company"}, lambda goal, me: goal["assignee"]["type"] == "company" and goal["is_active"]),
    ({"type.name": "deals_won"}, lambda goal, me: goal["is_active"]),
    ({"type.name": "deals_won", "is_active": "false"}, lambda goal, me: not goal["is_active"]),
    ({"expected_outcome.tracking_metric": "quantity"}, of_metric("quantity")),
    ({"expected_outcome.tracking_metric": "sum"}, of_metric("sum")),
    (
        {"expected_outcome.currency_id": "1"},
        lambda goal, me: goal["is_active"] and goal["expected_outcome"].get("currency_id") == 1,
    ),
    ({"type.params.pipeline_id": "1"}, lambda goal, me: goal["is_active"]),
    ({"type.params.pipeline_id": "2"}, lambda goal, me: False),
    ({"period.start": "1990-01-01", "period.end": "1990-12-31", "type.name": "deals_won"}, lambda goal, me: False),
]


@pytest.mark.parametrize(("query", "expected"), CASES, ids=lambda case: str(case) if isinstance(case, dict) else "")
def test_goals_are_found_as_documented(
    reader: Api, query: dict[str, str], expected: Callable[[Goal, int], bool]
) -> None:
    me = reader.get("/v1/users/me").data["id"]
    all_goals = {id: entry["record"] for id, entry in reader.truth("goals").items()}

    found = reader.get("/v1/goals/find", **query).data["goals"]

    assert [goal["id"] for goal in found] == [id for id, goal in all_goals.items() if expected(goal, me)]


def test_one_metric_and_activity_after_the_other_give_every_goal(reader: Api) -> None:
    lists = [
        [goal["id"] for goal in reader.get("/v1/goals/find", **query).data["goals"]]
        for metric in ("quantity", "sum")
        for active in ("true", "false")
        for query in [{"expected_outcome.tracking_metric": metric, "is_active": active}]
    ]
    assert all(lists)
    assert sorted(id for found in lists for id in found) == sorted(reader.truth("goals"))


@pytest.mark.parametrize(
    "query", [{"type.name": "calls"}, {"is_active": "yes"}, {"period.start": "2026-01-01"}, {"assignee.type": "robot"}]
)
def test_what_is_no_documented_value_is_a_400(reader: Api, query: dict[str, str]) -> None:
    assert reader.get("/v1/goals/find", **query).status == 400
