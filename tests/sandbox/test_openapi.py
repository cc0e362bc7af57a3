"""Every answer of the sandbox is what the vendor's OpenAPI documents say, but for what stands here with its reason."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from pdsync.sandbox.server.routes import ROUTES, find_route

from .contract import differences, is_described

if TYPE_CHECKING:
    from pdsync.sandbox import RunningSandbox

# Where the documents are not to be taken at their word: (operation, difference), both matched from the beginning.
EXPLAINED: list[tuple[str, str, str]] = [
    (
        ".*",
        r".*: (type|enum) .*, got null",
        "they say `nullable` in few places, and their own examples show nulls in these",
    ),
    (
        "get.*Fields?$",
        r"data.*/field_type: enum ",
        "they list what can be added; fields of the system have other types too",
    ),
    ("getRecents", r"data/\*: anyOf ", "each branch asks for a record of one kind and forgets `nullable` in it"),
    (
        "get(Archived)?DealsTimeline",
        r'data: type "object", got list',
        "the text says `grouped into periods`: it is a list",
    ),
    ("search(Leads|Deals|Item)", r'data/items/\*/item/value: type "integer", got float', "money has fractions"),
    (
        "searchProducts",
        r'data/items/\*/item/code: type "integer", got str',
        "a product's code is text, its list says",
    ),
    (".*", r'.*/has_pic: type "boolean", got int', "v1 writes flags as 0 and 1 inside a nested user; see its examples"),
    ("getOrganizationRelationship", r'data/active_flag: type "string", got bool', "the list of them says boolean"),
]
# What operations can't do without: the part of the path that stands in for it, or the query.
QUERIES = {
    "term": "an", "field": "title", "item_type": "deal", "start_date": "2026-01-01", "end_date": "2026-12-31",
    "interval": "month", "amount": "3", "field_key": "add_time", "since_timestamp": "2020-01-01 00:00:00",
    "org_id": "1", "board_id": "1", "deal_ids": "1,2,3", "entity_type": "deals", "match": "beginning",
    "period.start": "2026-01-01", "period.end": "2026-12-31", "folder": "inbox", "item_types": "deal",
}  # fmt: skip
# In turn, until one of them is answered.
ASKED = ("", "?term=an", "?entity_type=deal&term=an&field=title&match=beginning", f"?{urlencode(QUERIES)}")
# Where the ids come from of what no list of its own shows.
COLLECTIONS = {"/v1/legacyTeams/user": "/v1/users", "/api/v2/users": "/v1/users", "/v1/goals": "/v1/goals/find"}
NEEDS_MORE = {
    "getDealConversionStatus": "a conversion under way", "getLeadConversionStatus": "a conversion under way",
    "getComment": "a comment by its UUID",
    "getMailMessage": "a mailbox", "getMailThread": "a mailbox", "getMailThreadMessages": "a mailbox",
}  # fmt: skip


def path_of(box: RunningSandbox, route: Any) -> str:
    """The path of a route, with what its collections hold first in place of the braces."""
    path = "/api/v2" if route.version == "v2" else "/v1"
    for part in route.pattern:
        path += f"/{_first(box, path) if part == '{}' else part}"
    return path


def _first(box: RunningSandbox, collection: str) -> Any:
    for query in ASKED:
        reply = box.sandbox.act("GET", COLLECTIONS.get(collection, collection) + query)
        data = json.loads(reply.body).get("data") if reply.status == 200 else None
        if isinstance(data, dict):
            data = next((each for each in data.values() if isinstance(each, list)), None)
        if data and isinstance(data[0], dict):
            return data[0].get("field_code") or data[0].get("id") or 1
    return 1


def answered(box: RunningSandbox, route: Any) -> Any:
    path = path_of(box, route)
    replies = (box.sandbox.act("GET", path + query) for query in ASKED)
    return next((reply for reply in replies if reply.status == 200), None)


def explained(operation: str, difference: str) -> bool:
    return any(re.match(of, operation) and re.match(what, difference) for of, what, _ in EXPLAINED)


def test_every_read_answers_as_documented(shared_box: RunningSandbox) -> None:
    wrong: dict[str, set[str]] = {}
    unanswered = set()
    for route in ROUTES:
        operation = route.operation.split(" ")[-1]
        if route.method != "GET" or not is_described(route.version, operation):
            continue
        reply = answered(shared_box, route)
        if reply is None:
            unanswered.add(operation)
            continue
        left = {each for each in differences(route.version, operation, reply.body) if not explained(operation, each)}
        if left:
            wrong[f"{route.version} {operation}"] = left
    assert wrong == {}
    assert unanswered <= NEEDS_MORE.keys()


def test_each_explanation_is_still_needed(shared_box: RunningSandbox) -> None:
    used = set()
    for route in ROUTES:
        operation = route.operation.split(" ")[-1]
        known = route.method == "GET" and is_described(route.version, operation)
        if known and (reply := answered(shared_box, route)) is not None:
            found = differences(route.version, operation, reply.body)
            pairs = [(of, what) for of, what, _ in EXPLAINED if re.match(of, operation)]
            used |= {(of, what) for of, what in pairs for each in found if re.match(what, each)}
    assert used == {(of, what) for of, what, _ in EXPLAINED}


# What changes data, in an order in which each has what it needs: method, path, body. {} is the id that came last.
WRITES: list[tuple[str, str, dict[str, Any] | None]] = [
    ("POST", "/api/v2/organizations", {"name": "Contract Ltd"}),
    ("PATCH", "/api/v2/organizations/{}", {"name": "Contract Inc"}),
    ("DELETE", "/api/v2/organizations/{}", None),
    ("POST", "/api/v2/persons", {"name": "Con Tract", "emails": [{"value": "c@example.com", "primary": True}]}),
    ("PATCH", "/api/v2/persons/{}", {"name": "Con T. Ract"}),
    ("POST", "/api/v2/persons/{}/followers", {"user_id": 1}),
    ("POST", "/api/v2/deals", {"title": "Contract"}),
    ("PATCH", "/api/v2/deals/{}", {"value": 12.5, "status": "won"}),
    ("POST", "/api/v2/activities", {"subject": "Sign", "due_date": "2026-12-01"}),
    ("PATCH", "/api/v2/activities/{}", {"done": True}),
    ("DELETE", "/api/v2/activities/{}", None),
    ("POST", "/api/v2/products", {"name": "Paper", "prices": [{"currency": "EUR", "price": 3}]}),
    ("PATCH", "/api/v2/products/{}", {"code": "P-1"}),
    ("POST", "/api/v2/products/{}/variations", {"name": "A4"}),
    ("POST", "/api/v2/pipelines", {"name": "Contracts"}),
    ("PATCH", "/api/v2/pipelines/{}", {"name": "Contracts 2"}),
    ("POST", "/api/v2/stages", {"name": "Signed", "pipeline_id": 1}),
    ("POST", "/v1/notes", {"content": "a note", "deal_id": 1}),
    ("PUT", "/v1/notes/{}", {"content": "another"}),
    ("DELETE", "/v1/notes/{}", None),
    ("POST", "/v1/leads", {"title": "A lead", "person_id": 1}),
    ("PATCH", "/v1/leads/{}", {"title": "A better lead"}),
    ("DELETE", "/v1/leads/{}", None),
    ("POST", "/v1/leadLabels", {"name": "New", "color": "green"}),
    ("POST", "/v1/activityTypes", {"name": "Signing", "icon_key": "call"}),
    ("POST", "/v1/filters", {"name": "Mine", "type": "deals", "conditions": {"glue": "and", "conditions": [
        {"glue": "and", "conditions": []}, {"glue": "or", "conditions": []}]}}),
    ("POST", "/v1/roles", {"name": "Signers"}),
    ("POST", "/v1/webhooks", {"subscription_url": "https://example.com/h", "event_action": "*",
                            "event_object": "*", "name": "Hook"}),
    ("POST", "/api/v2/dealFields", {"field_name": "Clause", "field_type": "varchar"}),
    ("DELETE", "/api/v2/dealFields/{}", None),
]  # fmt: skip


def test_every_write_answers_as_documented(box: RunningSandbox) -> None:
    wrong: dict[str, set[str]] = {}
    last: Any = 1
    for method, target, body in WRITES:
        reply = box.sandbox.act(method, target.format(last), body)
        assert reply.status in (200, 201), (method, target, reply.body)
        version, _, rest = ("v2", *target.partition("/api/v2/")[1:]) if "/v2/" in target else ("v1", "", target[4:])
        route, _ = find_route(version, method, tuple(rest.format(last).split("/")))
        operation = route.operation.split(" ")[-1]
        data = json.loads(reply.body).get("data")
        if method == "POST" and isinstance(data, dict) and rest.count("/") == 0:
            last = data.get("field_code") or data["id"]
        if is_described(version, operation):
            found = differences(version, operation, reply.body)
            if left := {each for each in found if not explained(operation, each)}:
                wrong[f"{version} {operation}"] = left
    assert wrong == {}
