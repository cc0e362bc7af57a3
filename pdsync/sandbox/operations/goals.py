"""Finds goals: those of the token's user, unless a parameter is given that is documented to find everyone's.

Assumptions: a goal is yours if you are its assignee; a period finds the goals that run on one of its days; numbers and
ids are compared as they are written, a list as any of its elements.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pdsync.sandbox.company.data import words
from pdsync.sandbox.operations.documented import operations
from pdsync.sandbox.operations.generic import present
from pdsync.sandbox.operations.generic_records import records_at
from pdsync.sandbox.protocol.errors import bad_request, feature_off
from pdsync.sandbox.protocol.messages import success

if TYPE_CHECKING:
    from pdsync.sandbox.company.table import Record
    from pdsync.sandbox.protocol.messages import Call, Reply, Route

OF_EVERYONE = words(  # "If provided, everyone's goals will be returned."
    "type.name assignee.type expected_outcome.target expected_outcome.tracking_metric expected_outcome.currency_id "
    "type.params.pipeline_id type.params.stage_id type.params.activity_type_id"
)
CHOICES = {
    "type.name": words("deals_won deals_progressed activities_completed activities_added deals_started"),
    "assignee.type": words("person company team"),
    "expected_outcome.tracking_metric": words("quantity sum"),
    "is_active": words("true false"),
}


def find_goals(call: Call, route: Route) -> Reply:
    """The goals that match every parameter; without `is_active`, the active ones."""
    if "goals" in call.company.features_off:
        raise feature_off("goals")
    query = {"is_active": "true", **call.query}
    for name, allowed in CHOICES.items():
        if query.get(name, allowed[0]) not in allowed:
            raise bad_request(f"{name} must be one of {', '.join(allowed)}", name)
    if ("period.start" in query) != ("period.end" in query):
        raise bad_request("period.start and period.end must be given together", "period.start")
    if "assignee.id" not in query and not any(name in query for name in OF_EVERYONE):
        query |= {"assignee.id": str(call.viewer.user_id), "assignee.type": "person"}
    goals = [row.record for row in records_at(call.company, ("goals",), ()).values()]
    facts = operations()["v1 getGoals"]
    shape = facts.answer["data"]["goals"][0]
    found = [present(goal, shape) for goal in goals if _matches(goal, query)]
    return success({"goals": found}, statusCode=20000, statusText="OK", service="statistics-goals-api")


def _matches(goal: Record, query: dict[str, str]) -> bool:
    if "period.start" in query:
        duration = goal["duration"]
        begins, ends = duration.get("start") or "", duration.get("end") or "9999-12-31"
        if begins > query["period.end"] or ends < query["period.start"]:
            return False
    names = ("title", "is_active", "assignee.id", *OF_EVERYONE)
    return all(_equals(_at(goal, name), query[name]) for name in names if name in query)


def _at(goal: Record, path: str) -> Any:
    value: Any = goal
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _equals(value: Any, text: str) -> bool:
    if isinstance(value, list):
        return any(_equals(each, part) for each in value for part in text.split(","))
    if isinstance(value, bool):
        return str(value).lower() == text
    if isinstance(value, int | float):
        try:
            return float(text) == value
        except ValueError:
            return False
    return text == ("null" if value is None else str(value))
