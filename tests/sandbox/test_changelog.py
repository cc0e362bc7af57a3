"""The changelog tells what was really written: by whom, when, from what to what, newest first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pdsync.sandbox.company.clock import v1_time

if TYPE_CHECKING:
    from .api import Api

KINDS = ("deals", "persons", "organizations")


def changes(api: Api, kind: str, id: int) -> list[dict[str, Any]]:
    data: list[dict[str, Any]] = api.get(f"/v1/{kind}/{id}/changelog").data
    return data


def test_a_write_over_the_api_is_told_field_by_field(api: Api) -> None:
    id = api.live("deals")[0]
    was, before = api.get(f"/api/v2/deals/{id}").data, changes(api, "deals", id)
    headers = {"user-agent": "pdsync/test"}
    now = api.ask("PATCH", f"/api/v2/deals/{id}", {"title": "told", "value": 1234.5}, headers).data

    new = changes(api, "deals", id)[: -len(before)]

    assert {(each["field_key"], each["old_value"], each["new_value"]) for each in new} == {
        ("title", was["title"], "told"),
        ("value", str(was["value"]).removesuffix(".0"), "1234.5"),
    }
    for each in new:
        assert each["actor_user_id"] == api.box.company.viewers["admin"].user_id
        assert (each["change_source"], each["change_source_user_agent"]) == ("api", "pdsync/test")
        assert (each["time"], each["is_bulk_update_flag"]) == (v1_time(now["update_time"]), False)
    assert changes(api, "deals", id)[len(new) :] == before


def test_what_a_colleague_does_is_in_the_journal_and_the_changelog(api: Api) -> None:
    id = api.live("persons")[0]
    mine = api.patch(f"/api/v2/persons/{id}", name="Mine").data
    asked = {"method": "PATCH", "path": f"/api/v2/persons/{id}", "body": {"name": "Theirs"}, "is_bulk": True}
    logged = len(api.box.log)

    answer = api.admin("POST", "act", asked)

    assert answer["data"]["name"] == "Theirs"
    assert len(api.box.log) == logged
    theirs, ours = [each for each in changes(api, "persons", id) if each["field_key"] == "name"][:2]
    assert (theirs["old_value"], theirs["new_value"]) == (mine["name"], "Theirs")
    assert (theirs["change_source"], theirs["is_bulk_update_flag"]) == ("app", True)
    assert theirs["actor_user_id"] not in (None, ours["actor_user_id"])
    entry = api.box.journal[-1]
    assert (entry.kind, entry.id, entry.op, entry.request) == ("persons", id, "update", None)
    assert entry.actor.user_id == theirs["actor_user_id"]


def test_a_colleague_is_held_to_the_rules_of_the_api(api: Api) -> None:
    no = api.box.act("PATCH", "/api/v2/deals/99999999", {"title": "x"})
    assert (no["success"], len(api.box.journal)) == (False, 0)
    someone = max(api.box.company["users"].rows)
    added = api.box.act("POST", "/api/v2/deals", {"title": "new"}, someone)["data"]
    assert added["creator_user_id"] == someone
    assert [each["field_key"] for each in changes(api, "deals", added["id"])] == ["add_time"]


def test_each_change_of_the_company_s_own_work_is_told(api: Api) -> None:
    before = {kind: api.truth(kind) for kind in KINDS}
    done = api.box.change(share=0.1, seed=5)
    for kind in KINDS:
        after = api.truth(kind)
        for id in [*done[kind]["updated"], *done[kind]["archived"], *done[kind]["deleted"]]:
            stamp = v1_time(after[id]["record"]["update_time"])
            new = [each for each in changes(api, kind, id) if each["time"] == stamp]
            assert new, (kind, id)
            owner = before[kind][id]["record"]["owner_id"]
            assert {(each["actor_user_id"], each["change_source"]) for each in new} == {(owner, "app")}


@pytest.mark.parametrize("kind", KINDS)
def test_the_past_ends_in_the_record(reader: Api, kind: str) -> None:
    table = reader.box.company[kind]
    for entry in reader.box.dump(kind)[:80]:
        if entry["id"] not in table.rows:
            continue
        told, record = changes(reader, kind, entry["id"]), entry["record"]
        times = [each["time"] for each in told]
        assert times == sorted(times, reverse=True)
        assert (told[-1]["field_key"], told[-1]["time"]) == ("add_time", v1_time(record["add_time"]))
        assert all(time <= v1_time(record["update_time"] or record["add_time"]) for time in times)
        newest = {each["field_key"]: each["new_value"] for each in reversed(told)}
        shown = reader.get(f"/v1/{kind}/{entry['id']}").data
        for key in newest.keys() & {"status", "stage_id", "value", "active_flag", "visible_to", "address"}:
            value = shown[key]
            wanted = str(int(value) if isinstance(value, bool) else value).removesuffix(".0")
            assert newest[key] == wanted, (entry["id"], key)


def test_a_walk_by_cursor_comes_to_its_end_and_meets_nothing_twice(api: Api) -> None:
    id = api.live("organizations")[0]
    for number in range(6):
        api.patch(f"/api/v2/organizations/{id}", name=f"name {number}")
    whole = changes(api, "organizations", id)
    first = api.get(f"/v1/organizations/{id}/changelog", limit=2)
    api.patch(f"/api/v2/organizations/{id}", name="meanwhile")
    walked, cursor = list(first.data), first.next_cursor
    while cursor:
        page = api.get(f"/v1/organizations/{id}/changelog", limit=2, cursor=cursor)
        assert 0 < len(page.data) <= 2
        walked, cursor = walked + page.data, page.next_cursor
    assert walked == whole
    assert api.get(f"/v1/organizations/{id}/changelog", cursor="nonsense").status == 400
    assert api.get("/v1/organizations/99999999/changelog").status == 404


def test_every_part_of_a_change_is_visible(api: Api) -> None:
    """What somebody overwrote must show, whatever kind of field it is in."""
    deal, id = api.live("deals")[0], api.live("persons")[0]
    field = next(f for f in api.box.company.fields["deals"] if f.custom and f.type == "monetary")
    api.patch(f"/api/v2/deals/{deal}", custom_fields={field.code: {"value": 10, "currency": "EUR"}})
    api.patch(f"/api/v2/deals/{deal}", custom_fields={field.code: {"value": 10, "currency": "USD"}})
    (newest, *_) = changes(api, "deals", deal)
    assert (newest["field_key"], newest["old_value"], newest["new_value"]) == (f"{field.code}_currency", "EUR", "USD")

    api.patch(f"/api/v2/persons/{id}", emails=[{"value": "a@b.example", "label": "work", "primary": True}])
    api.patch(f"/api/v2/persons/{id}", emails=[{"value": "a@b.example", "label": "home", "primary": True}])
    (newest, *_) = changes(api, "persons", id)
    assert (newest["field_key"], newest["old_value"], newest["new_value"]) == ("email", "a@b.example", "a@b.example")

    api.delete(f"/api/v2/persons/{id}")
    (newest, *_) = changes(api, "persons", id)
    assert (newest["field_key"], newest["old_value"], newest["new_value"]) == ("active_flag", "1", "0")


def test_a_silent_edit_is_not_told(api: Api) -> None:
    id = api.live("deals")[0]
    before = changes(api, "deals", id)
    api.admin("POST", "edit", {"kind": "deals", "id": id, "set": {"title": "Backdated"}})
    assert changes(api, "deals", id) == before
    api.patch(f"/api/v2/deals/{id}", title="seen")
    assert [(each["old_value"], each["new_value"]) for each in changes(api, "deals", id)[: -len(before)]] == [
        ("Backdated", "seen")
    ]


@pytest.mark.parametrize("kind", [*KINDS, "products"])
def test_who_follows_is_told_from_the_first_one_on(api: Api, kind: str) -> None:
    id, users = api.live(kind)[0], sorted(api.box.company["users"].rows)
    path = f"/api/v2/{kind}/{id}/followers"
    before = {follower["user_id"] for follower in api.get(path).data}
    told = api.get(f"{path}/changelog").data
    assert {each["follower_user_id"] for each in told} == before
    assert {each["action"] for each in told} <= {"added"}
    new = next(user for user in users if user not in before)

    made = api.post(path, user_id=new)
    assert made.status in (200, 201), made.body
    assert {follower["user_id"] for follower in api.get(path).data} == before | {new}
    assert api.delete(f"{path}/{new}").status == 200
    me, newest = api.box.company.viewers["admin"].user_id, api.get(f"{path}/changelog").data
    assert [(each["action"], each["follower_user_id"], each["actor_user_id"]) for each in newest[:2]] == [
        ("removed", new, me),
        ("added", new, me),
    ]
    assert newest[2:] == told
    walked = api.walk(f"{path}/changelog", limit=1)
    assert [each for page in walked for each in page.data] == newest


def test_participants_come_and_go(api: Api) -> None:
    deal = next(entry["record"] for entry in api.box.dump("deals") if entry["state"] == "live")
    path = f"/v1/deals/{deal['id']}/participants"
    before = api.get(f"{path}Changelog").data
    person = api.live("persons")[-1]
    made = api.post(path, person_id=person)
    assert made.status in (200, 201), made.body
    newest, *others = api.get(f"{path}Changelog").data
    assert (newest["action"], newest["person_id"]) == ("added", person)
    assert newest["time"] == v1_time(api.box.journal[-1].time)
    assert others == before
