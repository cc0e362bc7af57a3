"""Every answer of the sandbox is what the documents say, but for tests/vendor/explained.toml."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from pdsync.sandbox.server.routes import ROUTES
from tests.support.exchanges import Recorder, find_operation
from tests.vendor import stored

if TYPE_CHECKING:
    from pdsync.sandbox import RunningSandbox

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
COLLECTIONS = {
    "/v1/legacyTeams/user": "/v1/users",
    "/api/v2/users": "/v1/users",
    "/v1/goals": "/v1/goals/find?type.name=deals_won",
}
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


def compare_reads(box: RunningSandbox, recorder: Recorder) -> set[str]:
    """Compare the answer of each read with the documents; the operations that nothing was found for."""
    unanswered = set()
    for route in ROUTES:
        operation = route.operation.split(" ")[-1]
        if route.method != "GET" or f"{route.version} {operation}" not in stored("answers"):
            continue
        reply = answered(box, route)
        if reply is None:
            unanswered.add(operation)
            continue
        recorder.compare_answer(f"{route.version} {operation}", "", {}, reply)
    return unanswered


def test_every_read_answers_as_documented(shared_box: RunningSandbox) -> None:
    recorder = Recorder()
    assert compare_reads(shared_box, recorder) <= NEEDS_MORE.keys()
    assert recorder.unexplained() == []


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


def compare_writes(box: RunningSandbox, recorder: Recorder) -> None:
    """Compare the answers of a sequence of writes with the documents."""
    last: Any = 1
    for method, target, body in WRITES:
        reply = box.sandbox.act(method, target.format(last), body)
        assert reply.status in (200, 201), (method, target, reply.body)
        operation, _ = find_operation(method, target.format(last))
        data = json.loads(reply.body).get("data")
        if method == "POST" and isinstance(data, dict) and target.count("/") == (3 if "/v2/" in target else 2):
            last = data.get("field_code") or data["id"]
        assert operation is not None
        recorder.compare_answer(operation, target, {}, reply)


def test_every_write_answers_as_documented(box: RunningSandbox) -> None:
    recorder = Recorder()
    compare_writes(box, recorder)
    assert recorder.unexplained() == []
