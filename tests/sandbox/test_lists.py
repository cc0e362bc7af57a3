"""Lists: pages tile, windows are half open, filters filter, and what is asked wrongly is refused."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from pdsync.sandbox import Limits, Sizes, generate_company, running

from .api import Api

V2_KINDS = ("deals", "persons", "organizations", "products", "activities", "pipelines", "stages")
V1_KINDS = (*V2_KINDS, "files")


@pytest.mark.parametrize("kind", V2_KINDS)
@pytest.mark.parametrize("limit", [1, 7, 100, 500])
def test_v2_pages_tile_the_live_records(reader: Api, kind: str, limit: int) -> None:
    if limit == 1 and kind not in ("pipelines", "stages", "products"):
        limit = 3
    assert reader.walk_ids(f"/api/v2/{kind}", limit=limit) == reader.live(kind)


@pytest.mark.parametrize("kind", V1_KINDS)
@pytest.mark.parametrize("base", ["/v1", "/api/v1"])
def test_v1_pages_tile_the_live_records(reader: Api, kind: str, base: str) -> None:
    if kind == "pipelines":
        assert reader.get(f"{base}/pipelines").ids == reader.live(kind)
        return
    everyones = {"user_id": 0} if kind == "activities" else {}
    assert reader.walk_ids(f"{base}/{kind}", limit=41, **everyones) == reader.live(kind)


def test_v1_activities_are_the_token_users_unless_a_user_is_named(reader: Api) -> None:
    owner = {id: entry["record"]["owner_id"] for id, entry in reader.truth("activities").items()}
    me = reader.get("/v1/users/me").data["id"]
    other = next(user for user in owner.values() if user != me)
    wanted = {None: me, me: me, other: other}
    for user, whose in wanted.items():
        query = {} if user is None else {"user_id": user}
        found = reader.walk_ids("/v1/activities", limit=500, **query)
        assert found == [id for id in reader.live("activities") if owner[id] == whose]
        assert found
    assert reader.get("/v1/activities", user_id="all").status == 400


@pytest.mark.parametrize("kind", V2_KINDS)
def test_every_order_tiles_in_both_directions(reader: Api, kind: str) -> None:
    sorts = reader.box.company[kind].resource.sorts
    for by in sorts:
        up = reader.walk(f"/api/v2/{kind}", sort_by=by, limit=23)
        down = reader.walk_ids(f"/api/v2/{kind}", sort_by=by, sort_direction="desc", limit=17)
        records = [record for page in up for record in page.data]
        keys = [(record[by] or ("" if isinstance(record[by], str | None) else 0), record["id"]) for record in records]
        assert keys == sorted(keys)
        assert [record["id"] for record in records] == down[::-1]
        assert sorted(down) == reader.live(kind)


@pytest.mark.parametrize("kind", ["deals", "persons", "organizations", "activities"])
def test_windows_are_half_open_and_tile(reader: Api, kind: str) -> None:
    records = [record for page in reader.walk(f"/api/v2/{kind}", limit=500) for record in page.data]
    times = sorted(record["update_time"] for record in records if record["update_time"])
    middle = times[len(times) // 2]
    before = reader.walk_ids(f"/api/v2/{kind}", updated_until=middle, limit=50)
    after = reader.walk_ids(f"/api/v2/{kind}", updated_since=middle, limit=50)
    dated = {record["id"] for record in records if record["update_time"]}
    assert set(before) | set(after) == dated
    assert not set(before) & set(after)
    assert {record["id"] for record in records if record["update_time"] == middle} <= set(after)


def test_a_window_understands_zones_and_fractions(reader: Api) -> None:
    record = reader.get("/api/v2/persons", limit=1, sort_by="update_time", sort_direction="desc").data[0]
    moment = record["update_time"]
    hour = int(moment[11:13])
    shifted = f"{moment[:11]}{(hour + 2) % 24:02}{moment[13:19]}+02:00" if hour < 22 else moment
    assert record["id"] in reader.get("/api/v2/persons", updated_since=shifted).ids
    assert record["id"] in reader.get("/api/v2/persons", updated_since=f"{moment[:19]}.000Z").ids
    assert record["id"] not in reader.get("/api/v2/persons", updated_since=f"{moment[:19]}.001Z").ids


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/api/v2/deals", {"limit": 501}),
        ("/api/v2/deals", {"limit": 0}),
        ("/api/v2/deals", {"limit": "many"}),
        ("/v1/files", {"limit": 101}),
        ("/v1/deals", {"limit": 501}),
        ("/v1/deals", {"start": -1}),
        ("/api/v2/deals", {"cursor": "nonsense"}),
        ("/api/v2/deals", {"cursor": "eyJhIjoxfQ"}),
        ("/api/v2/deals", {"updated_since": "yesterday"}),
        ("/api/v2/deals", {"updated_since": "2026-11-20 10:00:00"}),
        ("/api/v2/deals", {"sort_by": "title"}),
        ("/api/v2/deals", {"sort_direction": "up"}),
        ("/api/v2/deals", {"status": "open,lots"}),
        ("/api/v2/deals", {"owner_id": "me"}),
        ("/api/v2/deals", {"include_fields": "everything"}),
        ("/api/v2/deals", {"custom_fields": ",".join(f"{n:040x}" for n in range(16))}),
        ("/api/v2/deals", {"ids": ",".join(map(str, range(1, 102)))}),
        ("/api/v2/deals", {"filter_id": 99}),
        ("/api/v2/deals", {"colour": "red"}),
        ("/api/v2/products", {"updated_until": "2026-01-01T00:00:00Z"}),
        ("/api/v2/activities", {"type": "call"}),
        ("/api/v2/pipelines", {"updated_since": "2026-01-01T00:00:00Z"}),
    ],
)
def test_what_is_asked_wrongly_is_a_400(reader: Api, path: str, query: dict[str, Any]) -> None:
    answer = reader.get(path, **query)
    assert answer.status == 400
    assert answer.json["success"] is False
    assert answer.json["data"] is None


def test_v1_ignores_what_it_does_not_know(reader: Api) -> None:
    assert reader.get("/v1/deals", colour="red").status == 200


def test_a_cursor_is_base64url_of_a_place_and_keeps_its_order(reader: Api) -> None:
    page = reader.get("/api/v2/deals", limit=5, sort_by="update_time", sort_direction="desc")
    cursor = page.next_cursor or ""
    place = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    last = page.data[-1]
    assert place == {
        "field": "update_time",
        "fieldValue": last["update_time"],
        "sortDirection": "desc",
        "id": last["id"],
    }
    assert (
        reader.get("/api/v2/deals", limit=5, cursor=cursor).ids
        == (reader.get("/api/v2/deals", limit=10, sort_by="update_time", sort_direction="desc").ids[5:])
    )
    assert reader.get("/api/v2/deals", cursor=cursor, sort_by="id").status == 400


def test_filters_match_and_combine(reader: Api) -> None:
    records = [record for page in reader.walk("/api/v2/deals", limit=500) for record in page.data]
    for name in ("owner_id", "person_id", "org_id", "pipeline_id", "stage_id"):
        value = next(record[name] for record in records if record[name] is not None)
        wanted = [record["id"] for record in records if record[name] == value]
        assert reader.walk_ids("/api/v2/deals", **{name: value}, limit=4 if len(wanted) < 50 else 500) == wanted
    owner, status = records[0]["owner_id"], "won"
    wanted = [r["id"] for r in records if r["owner_id"] == owner and r["status"] == status]
    assert reader.walk_ids("/api/v2/deals", owner_id=owner, status=status) == wanted
    both = [r["id"] for r in records if r["status"] in ("open", "lost")]
    assert reader.walk_ids("/api/v2/deals", status="open,lost", limit=500) == both


def test_ids_leave_out_what_is_missing(reader: Api) -> None:
    states = {id: entry["state"] for id, entry in reader.truth("deals").items()}
    asked = [1, 2, 3, 999_999, *(id for id, state in states.items() if state != "live")]
    answer = reader.get("/api/v2/deals", ids=",".join(map(str, asked[:100])))
    assert answer.ids == [id for id in sorted(asked[:100]) if states.get(id) == "live"]


def test_a_filter_makes_the_other_filters_ignored(api: Api) -> None:
    owner = api.box.company.viewers["admin"].user_id
    id = api.add_filter("deals", ("deal", "owner_id", "=", owner))
    mine = api.walk_ids("/api/v2/deals", owner_id=owner, limit=500)
    assert api.walk_ids("/api/v2/deals", filter_id=id, owner_id=1, ids="1,2", status="won", limit=500) == mine


def test_deleted_deals_show_only_when_asked_for(reader: Api) -> None:
    truth = reader.truth("deals")
    deleted = [id for id, entry in truth.items() if entry["state"] == "deleted"]
    assert deleted
    assert reader.walk_ids("/api/v2/deals", status="deleted") == deleted
    assert all(record["is_deleted"] for record in reader.get("/api/v2/deals", status="deleted").data)
    open_ones = [id for id in reader.live("deals") if truth[id]["record"]["status"] == "open"]
    assert reader.walk_ids("/api/v2/deals", status="open,deleted", limit=500) == sorted(open_ones + deleted)
    assert reader.walk_ids("/v1/deals", status="deleted") == deleted


def test_archived_deals_are_in_their_own_list_only(reader: Api) -> None:
    archived = [id for id, entry in reader.truth("deals").items() if entry["state"] == "archived"]
    assert archived
    assert reader.walk_ids("/api/v2/deals/archived", limit=3) == archived
    assert reader.walk_ids("/v1/deals/archived", limit=3) == archived
    assert not set(archived) & set(reader.walk_ids("/api/v2/deals", limit=500))
    assert all(record["is_archived"] and record["archive_time"] for record in reader.get("/api/v2/deals/archived").data)


def test_include_fields_add_what_is_counted(reader: Api) -> None:
    truth = reader.truth("deals")
    resource = reader.box.company["deals"].resource
    page = reader.get("/api/v2/deals", limit=500, include_fields=",".join(resource.optional))
    assert [record["id"] for record in page.data] == reader.live("deals")
    for record in page.data:
        assert record == truth[record["id"]]["record"]
    activities = [e["record"] for e in reader.truth("activities").values() if e["state"] == "live"]
    for record in page.data:
        mine = [a for a in activities if a["deal_id"] == record["id"]]
        assert record["activities_count"] == len(mine)
        assert record["undone_activities_count"] == sum(not a["done"] for a in mine)
    plain = reader.get("/api/v2/deals", limit=1).data[0]
    assert not set(plain) & (set(resource.optional) - {"source_lead_id"})


def test_custom_fields_choose_among_keys(reader: Api) -> None:
    record = next(r for r in reader.get("/api/v2/deals").data if len(r["custom_fields"]) > 3)
    keys = sorted(record["custom_fields"])[:2]
    page = reader.get("/api/v2/deals", custom_fields=",".join(keys))
    for one in page.data:
        assert set(one["custom_fields"]) <= set(keys)
    assert next(r for r in page.data if r["id"] == record["id"])["custom_fields"] == {
        key: record["custom_fields"][key] for key in sorted(keys, key=list(record["custom_fields"]).index)
    }


def test_option_labels_and_labels(reader: Api) -> None:
    fields = {f["field_code"]: f for f in reader.get("/api/v2/dealFields", limit=500).data}
    page = reader.get("/api/v2/deals", limit=500, include_option_labels="true", include_labels="true")
    plain = {record["id"]: record for record in reader.get("/api/v2/deals", limit=500).data}
    seen = set()
    for record in page.data:
        labels = {option["id"]: option["label"] for option in fields["label_ids"]["options"]}
        assert record["labels"] == [{"id": id, "label": labels[id]} for id in record["label_ids"]]
        for code, value in record["custom_fields"].items():
            type_ = fields[code]["field_type"]
            was = plain[record["id"]]["custom_fields"][code]
            if type_ not in ("enum", "set") or value is None:
                assert value == was
                continue
            seen.add(type_)
            names = {option["id"]: option["label"] for option in fields[code]["options"]}
            if type_ == "enum":
                assert value == {"id": was, "label": names[was]}
            else:
                assert value == [{"id": id, "label": names[id]} for id in was]
    assert seen == {"enum", "set"}


def test_persons_of_a_deal(reader: Api) -> None:
    deal = next(r for r in reader.get("/api/v2/deals").data if r["person_id"] in reader.live("persons"))
    assert reader.get("/api/v2/persons", deal_id=deal["id"]).ids == [deal["person_id"]]


def test_v1_sort_takes_several_fields(reader: Api) -> None:
    records = [r for page in reader.walk("/v1/deals", sort="status ASC, value DESC", limit=60) for r in page.data]
    keys = [(record["status"], -record["value"]) for record in records]
    assert keys == sorted(keys)
    files = [r for page in reader.walk("/v1/files", sort="update_time DESC", limit=50) for r in page.data]
    assert [f["update_time"] for f in files] == sorted((f["update_time"] for f in files), reverse=True)


def test_v1_says_null_for_nothing(reader: Api) -> None:
    answer = reader.get("/v1/deals", user_id=1)
    assert answer.data is None
    assert answer.json["additional_data"]["pagination"] == {
        "start": 0,
        "limit": 100,
        "more_items_in_collection": False,
    }


def test_mail_is_the_token_owners_own_and_newest_first(reader: Api) -> None:
    mine = reader.box.company.viewers["admin"].user_id
    total = 0
    for folder in ("inbox", "drafts", "sent", "archive"):
        answer = reader.get("/v1/mailbox/mailThreads", folder=folder)
        assert "additional_data" not in answer.json
        for thread in answer.data or []:
            assert (thread["user_id"], thread["folders"]) == (mine, [folder])
        stamps = [thread["last_message_timestamp"] for thread in answer.data or []]
        assert stamps == sorted(stamps, reverse=True)
        total += len(stamps)
    truth = [e for e in reader.truth("mail_threads").values() if e["state"] == "live"]
    assert total == sum(entry["record"]["user_id"] == mine for entry in truth)
    thread = reader.get("/v1/mailbox/mailThreads").data[0]
    messages = reader.get(f"/v1/mailbox/mailThreads/{thread['id']}/mailMessages").data
    assert len(messages) == thread["message_count"]
    assert reader.get(f"/v1/mailbox/mailMessages/{messages[0]['id']}", include_body=1).data["body"].startswith("<p>")
    assert reader.get("/v1/mailbox/mailThreads", folder="spam").status == 400


def test_field_lists_page_in_both_versions() -> None:
    with running(generate_company(sizes=Sizes(deals=3, extra_deal_fields=150)), limits=Limits(burst=None)) as box:
        api = Api(box)
        codes = [field["field_code"] for page in api.walk("/api/v2/dealFields", limit=60) for field in page.data]
        keys = [field["key"] for page in api.walk("/v1/dealFields", limit=60) for field in page.data]
        assert len(codes) == len(set(codes)) == len(keys) > 200
        assert [code for code in codes if len(code) == 40] == [key for key in keys if len(key) == 40]
        assert len(api.get("/api/v2/dealFields").data) == 100
        assert api.get("/api/v2/dealFields", cursor="zzz").status == 400


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_deleted_deal_is_in_the_list_that_it_was_in_before(api: Api, version: str) -> None:
    base = {"v1": "/v1", "v2": "/api/v2"}[version]
    states = {id: entry["state"] for id, entry in api.truth("deals").items()}
    live, archived = (next(id for id, state in states.items() if state == wanted) for wanted in ("live", "archived"))
    for id in (live, archived):
        api.delete(f"/api/v2/deals/{id}")
    for path, shown, absent in (("deals", live, archived), ("deals/archived", archived, live)):
        found = api.walk_ids(f"{base}/{path}", status="deleted", limit=100)
        assert shown in found
        assert absent not in found
        assert shown not in api.walk_ids(f"{base}/{path}", limit=100)
