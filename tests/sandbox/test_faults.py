"""Bad days: each kind of fault does what it says, at the request it is for, before or after the work."""

from __future__ import annotations

import http.client
import json
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from pdsync.sandbox import Fault

if TYPE_CHECKING:
    from .api import Api

LOST = (http.client.RemoteDisconnected, ConnectionResetError, http.client.BadStatusLine)


@pytest.mark.parametrize("kind", ["reset_before", "reset_after"])
def test_a_reset_loses_the_answer_and_maybe_the_work(api: Api, kind: str) -> None:
    api.box.faults.add(kind=kind, method="POST", path="/deals$", nth=1)
    with pytest.raises(LOST):
        api.post("/api/v2/deals", title="once")
    assert len(api.box.journal) == (kind == "reset_after")
    assert (api.box.log[-1].status, api.box.log[-1].fault) == (0, kind)
    assert api.post("/api/v2/deals", title="again").status == 200


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("html", [True, False])
def test_a_bad_gateway_may_come_before_or_after_the_work(api: Api, when: str, html: bool) -> None:
    api.box.faults.add(kind="status", status=502, when=when, html=html, method="PATCH")
    answer = api.patch(f"/api/v2/deals/{api.live('deals')[0]}", title="x")
    assert answer.status == 502
    assert answer.headers["content-type"].startswith("text/html" if html else "application/json")
    assert len(api.box.journal) == (when == "after")


def test_a_timeout_hangs_and_then_drops(api: Api) -> None:
    api.box.faults.add(kind="timeout", seconds=0.3, when="after", method="DELETE")
    began = time.monotonic()
    with pytest.raises(LOST):
        api.delete(f"/api/v2/deals/{api.live('deals')[0]}")
    assert time.monotonic() - began >= 0.3
    assert len(api.box.journal) == 1


@pytest.mark.parametrize(("kind", "extra"), [("truncate", {"at": 100}), ("truncate", {}), ("wrong_length", {})])
def test_a_body_may_be_shorter_than_it_says(api: Api, kind: str, extra: dict[str, Any]) -> None:
    whole = api.get("/api/v2/persons").body
    api.box.faults.add(kind=kind, **extra)
    with pytest.raises(http.client.IncompleteRead) as caught:
        api.get("/api/v2/persons")
    expected = whole if kind == "wrong_length" else whole[: extra.get("at", len(whole) // 2)]
    assert caught.value.partial == expected


def test_a_drip_is_slow_but_whole(api: Api) -> None:
    whole = api.get("/api/v2/pipelines").body
    api.box.faults.add(kind="slow_drip", bytes_per_s=len(whole) * 4)
    began = time.monotonic()
    assert api.get("/api/v2/pipelines").body == whole
    assert 0.15 < time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("kind", "status", "has"),
    [
        ("burst_429", 429, {"x-ratelimit-remaining": "0"}),
        ("daily_429", 429, {"x-daily-ratelimit-token-remaining": "0"}),
        ("permission_403", 403, {}),
        ("cap_403", 403, {}),
        ("html_403", 403, {"content-type": "text/html; charset=utf-8"}),
        ("401", 401, {}),
        ("invalid_cursor", 400, {}),
        ("html_200", 200, {"content-type": "text/html; charset=utf-8"}),
    ],
)
def test_a_refusal_looks_like_the_real_one_and_does_no_work(
    api: Api, kind: str, status: int, has: dict[str, str]
) -> None:
    api.box.faults.add(kind=kind)
    answer = api.get("/api/v2/deals")
    assert answer.status == status
    assert answer.headers.items() >= has.items()
    assert api.box.spent_tokens == (10 if kind == "html_200" else 0)


def test_a_429_may_come_without_headers(api: Api) -> None:
    api.box.faults.add(kind="burst_429", token_headers=False)
    assert not [name for name in api.get("/api/v2/deals").headers if "ratelimit" in name]


def test_a_redirect_names_the_other_host(api: Api) -> None:
    api.box.faults.add(kind="redirect", to="http://elsewhere.example/steal")
    answer = api.get("/api/v2/deals")
    assert (answer.status, answer.headers["location"]) == (302, "http://elsewhere.example/steal")


def test_pages_may_loop_repeat_or_lack_what_they_need(api: Api) -> None:
    first = api.get("/api/v2/deals", limit=10)
    second = api.get("/api/v2/deals", limit=10, cursor=first.next_cursor)
    api.box.faults.add(kind="cursor_loop")
    looped = api.get("/api/v2/deals", limit=10, cursor=first.next_cursor)
    assert (looped.data, looped.next_cursor) == (second.data, first.next_cursor)
    pagination = api.get("/v1/deals", limit=10, start=500).json["additional_data"]["pagination"]
    assert (pagination["more_items_in_collection"], pagination["next_start"]) == (True, 500)
    api.box.faults.clear()

    api.box.faults.add(kind="repeat_page", nth=2)
    api.get("/api/v2/deals", limit=10)
    repeated = api.get("/api/v2/deals", limit=10, cursor=first.next_cursor)
    assert (repeated.data, repeated.next_cursor) == (first.data, second.next_cursor)
    api.box.faults.clear()

    api.box.faults.add(kind="missing_additional_data")
    assert "additional_data" not in api.get("/api/v2/deals").json
    api.box.faults.clear()
    api.box.faults.add(kind="null_data")
    answer = api.get("/api/v2/deals").json
    assert answer["data"] is None
    assert answer["additional_data"]["next_cursor"]


def test_bodies_may_be_bent_by_pattern_text_or_function(api: Api) -> None:
    api.box.faults.add(kind="mutate", find=r'"id":(\d+)', replace=r'"id":1e400', times=1)
    api.box.faults.add(kind="mutate", body='{"success":true,"data":[{"id":1,"x":"\ud800"}]}', nth=2)
    api.box.faults.add({"kind": "mutate", "nth": 3}, mutate=lambda body: body[::-1])
    assert b'"id":1e400' in api.get("/api/v2/stages").body
    assert b"\xed\xa0\x80" in api.get("/api/v2/stages").body
    bent = api.get("/api/v2/stages").body
    assert json.loads(bent[::-1])["success"]


def test_lists_may_lag_behind_writes(api: Api) -> None:
    live = api.live("deals")
    changed, deleted = live[0], live[1]
    title = api.get(f"/api/v2/deals/{changed}").data["title"]
    api.patch(f"/api/v2/deals/{changed}", title="new")
    api.delete(f"/api/v2/deals/{deleted}")
    added = api.post("/api/v2/deals", title="added").data["id"]
    api.box.faults.add(kind="read_lag", seconds=60, path="/deals\\?|/deals$")
    for path in ("/api/v2/deals", "/v1/deals"):
        pages = api.walk(path, limit=100)
        records = {record["id"]: record for page in pages for record in page.data}
        assert sorted(records) == live
        assert records[changed]["title"] == title
    api.box.clock.advance(61)
    ids = api.walk_ids("/api/v2/deals", limit=100)
    assert added in ids
    assert deleted not in ids


def test_latency_only_waits(api: Api) -> None:
    api.box.faults.add(kind="latency", ms=200, jitter_ms=50)
    began = time.monotonic()
    assert api.get("/api/v2/stages").status == 200
    assert time.monotonic() - began > 0.14


@pytest.mark.parametrize(
    ("when", "hits"),
    [
        ({"nth": 3}, [3]),
        ({"nth": 2, "times": 3}, [2, 3, 4]),
        ({"every": 4}, [4, 8]),
        ({"every": 2, "times": 2}, [2, 4]),
        ({}, list(range(1, 11))),
        ({"times": 2}, [1, 2]),
        ({"probability": 0.0}, []),
    ],
)
def test_a_fault_strikes_when_it_should(api: Api, when: dict[str, Any], hits: list[int]) -> None:
    api.box.faults.add(kind="status", status=500, path=r"stages\?limit=5", **when)
    statuses = []
    for _ in range(10):
        api.get("/api/v2/deals", limit=1)  # does not match, so does not count
        statuses.append(api.get("/api/v2/stages", limit=5).status)
    assert [at for at, status in enumerate(statuses, 1) if status == 500] == hits


def test_random_faults_are_the_same_for_the_same_seed(api: Api) -> None:
    def struck() -> list[int]:
        api.box.faults.random.seed(5)
        api.box.faults.clear()
        api.box.faults.add(kind="status", probability=0.4)
        return [api.get("/api/v2/stages").status for _ in range(20)]

    first = struck()
    assert first == struck()
    assert set(first) == {200, 502}


def test_an_unknown_kind_of_fault_is_refused(api: Api) -> None:
    with pytest.raises(ValueError, match="not a kind of fault"):
        api.box.faults.add(kind="gremlins")
    with pytest.raises(msgspec.ValidationError, match="colour"):
        api.box.faults.add({"kind": "latency", "colour": "red"})
    assert api.ask("POST", "/_admin/faults", [{"kind": "latency", "colour": "red"}]).status == 400
    for fault in ({"kind": "latency", "path": "("}, {"kind": "mutate", "find": "["}):
        answer = api.ask("POST", "/_admin/faults", [fault])
        assert answer.status == 400
        assert b"is no regular expression" in answer.body
    assert Fault(kind="latency").ms == 100


@pytest.mark.parametrize("wrong", [{"path": "("}, {"find": "["}, {"find": "x", "replace": "\\2"}, {"every": 0}])
def test_a_fault_that_can_t_apply_is_refused_and_none_is_added(api: Api, wrong: dict[str, Any]) -> None:
    answer = api.ask("POST", "/_admin/faults", [{"kind": "latency"}, {"kind": "mutate", **wrong}])
    assert answer.status == 400
    assert str(next(iter(wrong.values()))) in answer.json["error"]
    assert api.admin("GET", "faults") == []
    assert api.get("/api/v2/stages").status == 200


def test_live_changes_happen_while_one_reads(api: Api) -> None:
    api.box.live(every=2, records=3, kinds=["deals"], only=["updated"])
    for _ in range(6):
        api.get("/api/v2/stages")
    api.box.live(None)
    assert [entry.op for entry in api.box.journal] == ["update"] * 9
    api.get("/api/v2/stages")
    assert len(api.box.journal) == 9
