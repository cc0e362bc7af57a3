"""The back door: truth, log, journal, clock, changes; over HTTP as from Python, and never counted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from pdsync.sandbox.activity.simulate import KINDS, TABLE_KINDS
from pdsync.sandbox.activity.simulate_generic import GENERIC_KINDS
from pdsync.sandbox.server.admin import DUMPED, HANDLERS

if TYPE_CHECKING:
    from .api import Api


def lines(api: Api, path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in api.ask("GET", f"/_admin/{path}").body.splitlines()]


@pytest.mark.parametrize("kind", DUMPED)
def test_the_dump_tells_every_record_and_its_state(reader: Api, kind: str) -> None:
    told = lines(reader, f"dump?kind={kind}")
    assert told == [json.loads(json.dumps(entry)) for entry in reader.box.dump(kind)]
    assert [list(entry) for entry in told] == [["kind", "id", "state", "merged_into", "record"]] * len(told)
    assert told
    assert {entry["kind"] for entry in told} == {kind}
    assert all((entry["merged_into"] is not None) == (entry["state"] == "merged") for entry in told)


def test_the_whole_dump_is_the_sum_of_its_kinds(reader: Api) -> None:
    assert len(lines(reader, "dump")) == sum(len(reader.box.dump(kind)) for kind in DUMPED)
    assert reader.ask("GET", "/_admin/dump?kind=unicorns").status == 400


def test_the_log_tells_what_was_asked_and_nothing_of_the_back_door(api: Api) -> None:
    api.get("/api/v2/deals", limit=2, api_token=api.token)
    api.get("/_admin/summary")
    api.get("/api/v2/nothing")
    told = lines(api, "log")
    assert [(seen["seq"], seen["path"], seen["query"], seen["status"], seen["cost"]) for seen in told] == [
        (1, "/api/v2/deals", "limit=2", 200, 10),
        (2, "/api/v2/nothing", "", 404, 0),
    ]
    assert api.token not in json.dumps(told)
    assert (told[0]["operation"], told[0]["token"], told[0]["method"]) == ("getDeals", "admin", "GET")
    assert told[0]["bytes"] > 100
    api.admin("DELETE", "log")
    assert not api.box.log
    assert api.admin("GET", "window")["max"] == 0


def test_the_journal_tells_before_after_and_which_request(api: Api) -> None:
    id = api.live("deals")[0]
    answer = api.patch(f"/api/v2/deals/{id}", title="told")
    (entry,) = lines(api, "journal")
    assert (entry["seq"], entry["kind"], entry["id"], entry["op"]) == (1, "deals", id, "update")
    assert (entry["before"]["title"] != "told", entry["after"]["title"]) == (True, "told")
    assert entry["request"] == answer.headers["x-correlation-id"] == api.box.log[-1].request


def test_a_change_does_what_it_says_it_did(api: Api) -> None:
    before = {kind: api.truth(kind) for kind in TABLE_KINDS}
    stamp = api.box.clock.stamp()
    done = api.admin("POST", "change", {"share": 0.1, "seed": 3, "advance_s": 7200, "kinds": TABLE_KINDS})
    assert set(done) == set(TABLE_KINDS)
    assert sum(len(done[kind]["merged"]) for kind in TABLE_KINDS) == 1
    assert done["deals"]["archived"]
    for kind, what in done.items():
        after = api.truth(kind)
        every = [id for ids in what.values() for id in ids]
        assert len(every) == len(set(every))
        assert what["added"]
        assert what["deleted"]
        assert len(what["updated"]) >= round(len(before[kind]) * 0.08)
        for id in what["added"]:
            assert id not in before[kind]
        for state in ("deleted", "archived", "merged"):
            assert all(after[id]["state"] == state for id in what[state])
        for id in what["updated"] + what["added"]:
            assert after[id]["state"] == "live"
            assert stamp < after[id]["record"]["update_time"] <= api.box.clock.stamp()
            assert after[id]["record"] != before[kind].get(id, {}).get("record")
    won = [id for id in done["deals"]["updated"] if api.truth("deals")[id]["record"]["status"] == "won"]
    assert won
    assert api.box.clock.stamp() >= stamp


@pytest.mark.parametrize("kind", GENERIC_KINDS)
def test_leads_and_notes_change_as_well(api: Api, kind: str) -> None:
    assert kind in KINDS
    before = {str(id): entry for id, entry in api.truth(kind).items()}
    stamp, logged = api.box.clock.stamp(), len(api.box.journal)
    done = api.admin("POST", "change", {"share": 0.3, "seed": 3, "kinds": [kind]})[kind]
    after = {str(id): entry for id, entry in api.truth(kind).items()}
    every = [id for ids in done.values() for id in ids]
    assert len(every) == len(set(every))
    assert len(done["updated"]) == round(len(before) * 0.3)
    assert done["added"]
    assert done["deleted"]
    assert {str(id) for id in done["deleted"]} == before.keys() - after.keys()
    assert {str(id) for id in done["added"]} == after.keys() - before.keys()
    assert {after[str(id)]["state"] for id in done["archived"]} == ({"archived"} if kind == "leads" else set())
    for id in done["updated"]:
        assert stamp < after[str(id)]["record"]["update_time"] <= api.box.clock.stamp()
        assert after[str(id)]["record"] != before[str(id)]["record"]
    assert [(entry.kind, entry.id) for entry in api.box.journal[logged:]] == [
        (kind, id) for what in ("deleted", "archived", "updated", "added") for id in done[what]
    ]
    shown = {record["id"] for page in api.walk(f"/v1/{kind}", limit=500) for record in page.data}
    assert shown >= {*done["updated"], *done["added"]}


def test_changes_repeat_for_the_same_seed_and_differ_for_another(api: Api, reader: Api) -> None:
    done = api.box.change(share=0.05, seed=1, kinds=["deals"])
    assert done != api.box.change(share=0.05, seed=1, kinds=["deals"])
    assert list(done) == ["deals"]
    assert api.box.change(share=0)["deals"]["updated"] == []


def test_the_clock_moves_for_stamps_and_purges(api: Api) -> None:
    deleted = [id for id, entry in api.truth("deals").items() if entry["state"] == "deleted"]
    assert deleted
    moved = api.admin("POST", "clock", {"advance_s": 31 * 86_400})
    assert moved["data"]["now"].startswith("2026-12-23T12:")
    assert {api.truth("deals")[id]["state"] for id in deleted} == {"purged"}
    assert {entry.op for entry in api.box.journal} == {"purge"}


def test_limits_budget_and_faults_over_http(api: Api) -> None:
    api.admin("POST", "limits", {"burst": 3, "daily_tokens": 500})
    assert (api.box.limits.burst, api.box.limits.daily_tokens) == (3, 500)
    assert api.ask("POST", "/_admin/limits", {"speed": 3}).status == 400
    api.admin("POST", "spend", {"tokens": 480})
    assert api.admin("GET", "summary")["tokens_spent"] == 480
    api.admin("POST", "faults", [{"kind": "status", "status": 503, "times": 1}])
    assert api.get("/api/v2/stages").status == 503
    assert [(f["kind"], f["seen"], f["struck"]) for f in api.admin("GET", "faults")] == [("status", 1, 1)]
    api.admin("DELETE", "faults")
    assert api.admin("GET", "faults") == []


def test_the_summary_counts_by_kind_and_state(reader: Api) -> None:
    counts = reader.admin("GET", "summary")["counts"]
    for kind in counts:
        states = [entry["state"] for entry in reader.box.dump(kind)]
        assert {state: count for state, count in counts[kind].items() if count} == {
            state: states.count(state) for state in set(states)
        }


def test_a_silent_edit_leaves_no_trace_but_in_the_journal(api: Api) -> None:
    id = api.live("persons")[0]
    was = api.get(f"/api/v2/persons/{id}").data
    api.admin("POST", "edit", {"kind": "persons", "id": id, "set": {"name": "Backdated"}})
    now = api.get(f"/api/v2/persons/{id}").data
    assert (now["name"], now["update_time"]) == ("Backdated", was["update_time"])
    assert api.box.journal[-1].op == "silent"


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ({"op": "rename", "name": "select"}, ("field_name", "select")),
        ({"op": "retype", "type": "text"}, ("field_type", "text")),
    ],
)
def test_fields_can_be_renamed_and_retyped(api: Api, change: dict[str, Any], seen: tuple[str, str]) -> None:
    field = next(f for f in api.box.company.fields["deals"] if f.custom and f.type == "varchar")
    api.admin("POST", "fields", {"kind": "deals", "code": field.code, **change})
    assert api.get(f"/api/v2/dealFields/{field.code}").data[seen[0]] == seen[1]


def test_options_come_and_go_and_fields_are_added(api: Api) -> None:
    field = next(f for f in api.box.company.fields["deals"] if f.custom and f.type == "enum")
    first = (field.options or [])[0]["id"]
    told = {"kind": "deals", "code": field.code}
    api.admin("POST", "fields", {**told, "op": "rename_option", "option_id": first, "name": "renamed"})
    assert api.get(f"/api/v2/dealFields/{field.code}").data["options"][0]["label"] == "renamed"
    api.admin("POST", "fields", {**told, "op": "remove_option", "option_id": first})
    options = api.admin("POST", "fields", {**told, "op": "add_option", "name": "new"})["options"]
    assert first not in [option["id"] for option in options]
    assert options[-1]["label"] == "new"
    shown = next(f for f in api.get("/v1/dealFields", limit=500).data if f["key"] == field.code)
    assert first in [option["id"] for option in shown["options_deleted"]]
    added = api.admin("POST", "fields", {"kind": "deals", "op": "add", "name": "Later", "type": "date"})
    assert added["field_code"] in [f["field_code"] for f in api.get("/api/v2/dealFields", limit=500).data]


def test_the_back_door_says_what_it_has(reader: Api) -> None:
    answer = reader.ask("GET", "/_admin/unicorns")
    assert answer.status == 404
    assert "POST clock" in answer.json["error"]
    assert reader.ask("POST", "/_admin/clock", {}).status == 400


ODD: list[Any] = [
    None, [], [1], "x", 1, {}, {"advance_s": "inf"}, {"advance_s": 1e300}, {"advance_s": "x"}, {"ahead_s": 1e300},
    {"burst": "x"}, {"burst": 5, "daily_tokens": []}, {"share": None}, {"share": "nan"}, {"records": "x"},
    {"kinds": 5}, {"only": ["created"]}, {"tokens": None}, {"tokens": 1e999}, {"every": 0},
    {"every": 1, "kinds": ["unicorns"]}, {"every": 1, "only": ["created"]}, {"token": []},
    {"token": "admin", "hidden_pipelines": 5}, {"token": "admin", "group": "x"}, {"kind": [], "op": "add"},
    {"kind": "deals", "op": "x"}, {"kind": "deals", "id": "x", "set": {}}, {"kind": "deals", "id": 1, "set": 5},
    {"method": 5, "path": 5}, {"method": "GET", "path": "/api/v2/deals", "user_id": "x"}, {"method": "GET", "path": ""},
    {"allows": "x"}, {"scopes": 5}, {"kind": 5}, {"kind": "mutate", "find": "("}, {"seed": "x", "faults": []},
    {"faults": 5},
]  # fmt: skip


@pytest.mark.parametrize("path", [path for method, path in HANDLERS if method == "POST"])
def test_odd_requests_of_the_back_door_are_refused_and_break_nothing(api: Api, path: str) -> None:
    for odd in ODD:
        answer = api.ask("POST", f"/_admin/{path}", json.dumps(odd).encode())
        assert answer.status in (200, 400, 404), (odd, answer.body)
        assert api.get("/api/v2/deals", limit=2).status in (200, 429), odd
