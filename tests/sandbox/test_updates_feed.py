"""What happened around a record, and its mail, are the company's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .api import Api

LINKS = {"deals": "deal_id", "persons": "person_id", "organizations": "org_id"}


def flow(api: Api, kind: str, id: int, **query: Any) -> list[dict[str, Any]]:
    return [one for page in api.walk(f"/v1/{kind}/{id}/flow", **query) for one in page.data]


def ids(told: list[dict[str, Any]], *objects: str) -> set[int]:
    return {one["data"]["id"] for one in told if one["object"] in objects}


@pytest.mark.parametrize("kind", LINKS)
def test_the_flow_holds_what_hangs_on_the_record(reader: Api, kind: str) -> None:
    link, box = LINKS[kind], reader.box
    linked = {
        name: [e["record"] for e in box.dump(name) if e["state"] == "live"] for name in ("activities", "files", "notes")
    }
    for id in sorted({record[link] for record in linked["notes"] if record[link]} & set(reader.live(kind)))[:10]:
        told = flow(reader, kind, id)
        times = [one["timestamp"] for one in told]
        assert times == sorted(times, reverse=True)
        for name, objects in (
            ("activities", ("activity", "plannedActivity")),
            ("files", ("file",)),
            ("notes", ("note",)),
        ):
            assert ids(told, *objects) == {record["id"] for record in linked[name] if record[link] == id}
        if kind != "deals":
            live = [entry["record"] for entry in box.dump("deals") if entry["state"] == "live"]
            assert ids(told, "deal") == {deal["id"] for deal in live if deal[link] == id}
        assert flow(reader, kind, id, items="note,file") == [one for one in told if one["object"] in ("note", "file")]
        assert flow(reader, kind, id, limit=2) == told


def test_a_change_is_in_the_flow_and_of_a_custom_field_when_asked_for(api: Api) -> None:
    id = api.live("deals")[0]
    field = next(f for f in api.box.company.fields["deals"] if f.custom and f.type == "varchar")
    answer = api.patch(f"/api/v2/deals/{id}", title="told", custom_fields={field.code: "told too"})

    (told,) = [one for one in flow(api, "deals", id, items="dealChange") if one["data"]["new_value"] == "told"]
    assert (told["object"], told["data"]["field_key"], told["data"]["item_id"]) == ("dealChange", "title", id)
    assert told["data"]["user_id"] == api.box.company.viewers["admin"].user_id
    assert told["timestamp"] == answer.data["update_time"].replace("T", " ").removesuffix("Z")
    every = [one["data"]["field_key"] for one in flow(api, "deals", id, items="change", all_changes="1")]
    assert field.code in every
    assert field.code not in [one["data"]["field_key"] for one in flow(api, "deals", id, items="change")]


def test_who_and_where_are_told_by_name(api: Api) -> None:
    id = api.live("deals")[0]
    deal = api.get(f"/api/v2/deals/{id}").data
    stages = {s["id"]: s["name"] for s in api.get("/api/v2/stages", pipeline_id=deal["pipeline_id"]).data}
    other = next(stage for stage in stages if stage != deal["stage_id"])
    api.patch(f"/api/v2/deals/{id}", stage_id=other)
    (newest, *_) = flow(api, "deals", id)
    assert newest["data"]["additional_data"] == {
        "old_value_formatted": stages[deal["stage_id"]],
        "new_value_formatted": stages[other],
    }


@pytest.mark.parametrize("kind", LINKS)
def test_the_mail_of_a_record_is_that_of_its_threads(reader: Api, kind: str) -> None:
    table = reader.box.company["mail_threads"]
    met = 0
    for id in reader.live(kind)[:60]:
        threads = [row for row in table.where(LINKS[kind], id) if row.state == "live"]
        told = [one for page in reader.walk(f"/v1/{kind}/{id}/mailMessages", limit=3) for one in page.data]
        assert len(told) == sum(table.facet(row, "message_count") for row in threads)
        assert {one["data"]["mail_thread_id"] for one in told} == {row.id for row in threads}
        assert {one["object"] for one in told} <= {"mailMessage"}
        met += len(told)
        if told:
            first = told[0]["data"]
            mine = reader.get(f"/v1/mailbox/mailThreads/{first['mail_thread_id']}/mailMessages")
            if mine.status == 200:  # one of one's own
                assert first["id"] in mine.ids
            assert "body" not in first
            assert reader.get(f"/v1/{kind}/{id}/mailMessages", include_body=1).data[0]["data"]["body"]
    assert met
    assert reader.get(f"/v1/{kind}/99999999/mailMessages").status == 404
