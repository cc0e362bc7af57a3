"""The comparison with the documents finds what is wrong, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pdsync.sandbox.protocol.messages import Reply
from pdsync.sandbox.server.request_log import LogEntry
from pdsync.sandbox.server.server import IncomingRequest
from tests.support.exchanges import Recorder, answer_differences, explanations, find_operation

JSON = "application/json"


def request(method: str, target: str, body: Any = None, content_type: str = JSON) -> IncomingRequest:
    """A request as the sandbox hands it on."""
    path, _, query = target.partition("?")
    seen = LogEntry(seq=1, monotonic_s=0, time="", method=method, path=path, query=query, token=None, request="")
    pairs = dict(part.split("=") for part in query.split("&") if part)
    sent = b"" if body is None else json.dumps(body).encode()
    return IncomingRequest(method, path, pairs, target, None, seen, sent, content_type=content_type)


def differences(side: str, recorder: Recorder) -> list[str]:
    return [each.line for each, _ in recorder.differences if each.side == side]


def asked(method: str, target: str, body: Any = None, content_type: str = JSON) -> list[str]:
    recorder = Recorder("test")
    recorder(request(method, target, body, content_type), Reply(200, b'{"success":true}'))
    return differences("request", recorder)


@pytest.mark.parametrize(
    ("method", "target", "body", "lines"),
    [
        ("GET", "/api/v2/deals?limit=500&updated_since=2026-01-01T00:00:00Z&status=open,won", None, []),
        ("GET", "/v1/leads?sort=update_time DESC&start=0", None, []),
        ("GET", "/v1/projectFields", None, ["no document has it"]),
        ("GET", "/v1/deals", None, ["removed, replaced by v2.getDeals"]),
        ("GET", "/v1/legacyTeams", None, ["deprecated, replaced by None"]),
        ("GET", "/api/v2/deals?limit=501", None, ["query limit: at most 500, got 501"]),
        ("GET", "/api/v2/deals?colour=red", None, ["query colour: unknown"]),
        ("GET", "/api/v2/deals?owner_id=me", None, ["query owner_id: integer, got 'me'"]),
        ("GET", "/api/v2/deals/search", None, ["query term: required, got nothing"]),
        ("GET", "/api/v2/deals/x", None, ["path id: integer, got 'x'"]),
        ("GET", "/v1/notes?pinned_to_deal_flag=2", None, ["query pinned_to_deal_flag: one of 0, 1, got '2'"]),
        ("GET", "/api/v2/deals/1", {"a": 1}, ["body: none, got one"]),
        ("PATCH", "/api/v2/deals/1", {"value": 5, "custom_fields": {"a" * 40: 1}}, []),
        ("PATCH", "/api/v2/deals/1", {"value": "5"}, ['body value: type "number", got str']),
        ("PATCH", "/api/v2/deals/1", {"colour": 5}, ["body colour: unknown"]),
        ("POST", "/api/v2/deals", {"value": 5}, ["body : 'title' is a required property"]),
        ("POST", "/api/v2/deals", None, ["body: required, got nothing"]),
        ("POST", "/v1/leads", {"title": "A", "b" * 40: "of its own"}, []),
        (
            "POST",
            "/api/v2/deals/1/products/bulk",
            {"data": [{"product_id": 1, "item_price": 1, "quantity": 1, "tax": "7"}]},
            ['body data/*/tax: type "number", got str'],
        ),
        (
            "PATCH",
            "/api/v2/persons/1",
            {"emails": [{"value": "a@example.com", "kind": "work"}]},
            ["body emails/*/kind: unknown"],
        ),
    ],
)
def test_what_a_request_should_not_say_is_found(method: str, target: str, body: Any, lines: list[str]) -> None:
    assert asked(method, target, body) == lines


def test_the_form_of_a_body_is_the_documented_one() -> None:
    assert asked("PUT", "/v1/files/1", {"name": "a"}) == ["body: as form, got application/json"]


@pytest.mark.parametrize(
    ("operation", "status", "answer", "lines"),
    [
        ("v2 getDeal", 200, {"success": True, "data": {"id": 1, "title": "A"}}, None),
        ("v2 getDeal", 201, {"success": True, "data": {"id": 1}}, "status 201: one of 200"),
        ("v2 getDeal", 200, {"success": True, "data": {"id": "1"}}, 'data/id: type "integer", got str'),
        ("v2 getDeal", 200, {"success": True, "data": {"id": 1, "colour": 2}}, "data/colour: unknown"),
        ("v2 getDeals", 200, {"success": True, "data": []}, "additional_data: missing"),
        ("v1 getDealParticipants", 200, {"data": [{"person_id": 5}]}, 'data/*/person_id: type "object", got int'),
        ("v2 getDeal", 404, {"success": False, "error": "not found", "error_info": "-", "data": None}, None),
        ("v2 getDeal", 404, {"success": False, "colour": "red"}, "status 404: no refusal of the common shape"),
        ("v2 getDeal", 418, {"success": False, "error": "teapot"}, "status 418: one of 200"),
        ("v1 addWebhook", 400, {"success": False, "status": 5}, 'status: type "string", got int'),
    ],
)
def test_what_an_answer_should_not_say_is_found(operation: str, status: int, answer: Any, lines: str | None) -> None:
    found = [line for line in answer_differences(operation, status, answer) if "/" not in line or "missing" not in line]
    assert (found == []) if lines is None else any(line.startswith(lines) for line in found), found


def test_keys_that_were_asked_for_are_expected() -> None:
    answer = {"success": True, "data": {"id": 1, "notes_count": 2}}
    assert "data/notes_count: unknown" in set(answer_differences("v2 getDeal", 200, answer))
    assert "data/notes_count: unknown" not in set(
        answer_differences("v2 getDeal", 200, answer, frozenset({"notes_count"}))
    )


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("GET", "/api/v2/deals/archived", "v2 getArchivedDeals"),  # names go before placeholders
        ("GET", "/api/v2/deals/7", "v2 getDeal"),
        ("GET", "/api/v1/leads/7", "v1 getLead"),  # v1 has two addresses
        ("POST", "/v1/leads/7", None),
    ],
)
def test_a_request_is_known_by_its_method_and_path(method: str, path: str, name: str | None) -> None:
    assert find_operation(method, path)[0] == name


def test_what_looks_the_same_is_compared_once_in_a_scenario() -> None:
    recorder = Recorder("one")
    for scenario in ("one", "one", "two"):
        recorder.scenario = scenario
        recorder(request("GET", "/api/v2/deals?colour=red"), Reply(200, b"{}"))
    assert [scenario for each, scenario in recorder.differences if each.side == "request"] == ["one", "two"]


def test_an_explanation_covers_its_own_side_operation_and_scenario() -> None:
    recorder = Recorder("sync --api v1")
    recorder(request("GET", "/v1/deals"), Reply(200, b"{}"))
    assert recorder.unexplained() == []
    recorder.scenario = "sync"
    recorder(request("GET", "/v1/deals"), Reply(200, b"{}"))
    assert [line.split("    ")[0] for line in recorder.unexplained()] == [
        "request v1 getDeals: removed, replaced by v2.getDeals"
    ]
    assert len(recorder.unused()) == len(explanations()) - 1


def test_every_explanation_names_a_document() -> None:
    table = explanations()
    assert [each for each in table if not each.document] == []
    assert len({(each.side, each.operation, each.difference, each.scenario) for each in table}) == len(table)
