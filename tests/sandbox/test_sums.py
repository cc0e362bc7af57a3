"""Recents, timelines and the statistics of pipelines are worked out from the company's records."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from pdsync.sandbox.company.clock import v1_time
from pdsync.sandbox.operations.rates import convert
from pdsync.sandbox.operations.recents import TABLES

if TYPE_CHECKING:
    from .api import Api

PERIOD = {"start_date": "2025-01-01", "end_date": "2026-11-22"}
MONTHS = {"start_date": "2026-01-01", "interval": "month", "amount": 12, "field_key": "add_time"}


def deals_of(api: Api, *states: str) -> list[dict[str, Any]]:
    return [entry["record"] for entry in api.box.dump("deals") if entry["state"] in states]


def test_recents_hold_what_was_changed_since(reader: Api) -> None:
    since = "2026-11-10T00:00:00Z"
    told = [one for page in reader.walk("/v1/recents", since_timestamp=v1_time(since), limit=50) for one in page.data]
    for item, kind in TABLES.items():
        table = reader.box.company[kind]
        wanted = {
            row.id
            for row in table.rows.values()
            if row.state in ("live", "deleted") and (table.facet(row, "update_time") or "") >= since
        }
        assert {one["id"] for one in told if one["item"] == item} == wanted
    notes = [entry["record"] for entry in reader.box.dump("notes")]
    assert {one["id"] for one in told if one["item"] == "note"} == {
        note["id"] for note in notes if note["update_time"] >= since
    }
    deal = next(one["data"] for one in told if one["item"] == "deal")
    assert isinstance(deal["user_id"], int)
    assert reader.get("/v1/recents", since_timestamp=v1_time(since), items="deal,user", limit=500).data == [
        one for one in told if one["item"] in ("deal", "user")
    ]


def test_recents_come_oldest_first_and_go_back_a_month(api: Api) -> None:
    whole = api.get("/v1/recents", since_timestamp="2020-01-01 00:00:00", limit=3).json["additional_data"]
    assert whole["since_timestamp"] == "2026-10-23 12:00:00"
    now = api.box.clock.stamp()
    id = api.live("persons")[0]
    changed = api.patch(f"/api/v2/persons/{id}", name="Now").data
    answer = api.get("/v1/recents", since_timestamp=v1_time(now), items="person").json
    assert [one["id"] for one in answer["data"]] == [id]
    assert answer["additional_data"]["last_timestamp_on_page"] == v1_time(changed["update_time"])
    for query in ({}, {"since_timestamp": "yesterday"}, {"since_timestamp": v1_time(now), "items": "unicorn"}):
        assert api.get("/v1/recents", **query).status == 400


@pytest.mark.parametrize(("path", "state"), [("timeline", "live"), ("timeline/archived", "archived")])
def test_a_timeline_groups_open_and_won_deals_by_their_date(reader: Api, path: str, state: str) -> None:
    periods = reader.get(f"/v1/deals/{path}", **MONTHS).data
    assert [period["period_start"][:7] for period in periods] == [f"2026-{month:02}" for month in range(1, 13)]
    assert periods[1]["period_end"] == "2026-02-28 23:59:59"
    deals = [deal for deal in deals_of(reader, state) if deal["status"] in ("open", "won")]
    assert any(period["deals"] for period in periods)
    for period in periods:
        mine = [deal for deal in deals if deal["add_time"][:7] == period["period_start"][:7]]
        assert {deal["id"] for deal in period["deals"]} == {deal["id"] for deal in mine}
        totals = period["totals"]
        assert totals["count"] == totals["open_count"] + totals["won_count"] == len(mine)
        sums: Counter[str] = Counter()
        for deal in mine:
            sums[deal["currency"]] += deal["value"] or 0
        assert totals["values"] == pytest.approx(dict(sums), abs=0.01)
    asked = {**MONTHS, "amount": 1, "start_date": "2026-03-01", "exclude_deals": 1}
    one = reader.get(f"/v1/deals/{path}", **asked, totals_convert_currency="EUR").data
    assert (one["totals"], "deals" in one) == (periods[2]["totals"], False)
    euros = sum(convert(value, currency) for currency, value in one["totals"]["values"].items())
    assert one["totals_converted"]["values"] == pytest.approx(euros, abs=0.01)
    dollars = reader.get(f"/v1/deals/{path}", **asked, totals_convert_currency="USD").data
    assert dollars["totals_converted"]["values"] == pytest.approx(euros * 1.08, abs=0.01)


def test_a_timeline_follows_custom_dates_and_filters(api: Api) -> None:
    field = next(f for f in api.box.company.fields["deals"] if f.custom and f.type == "date")
    deal = next(deal for deal in deals_of(api, "live") if deal["status"] == "open")
    api.patch(f"/api/v2/deals/{deal['id']}", custom_fields={field.code: "2031-05-07"})
    asked = {"start_date": "2031-05-01", "interval": "week", "amount": 1, "field_key": field.code}
    assert [one["id"] for one in api.get("/v1/deals/timeline", **asked).data["deals"]] == [deal["id"]]
    assert api.get("/v1/deals/timeline", **asked, user_id=deal["owner_id"]).data["totals"]["count"] == 1
    assert api.get("/v1/deals/timeline", **asked, user_id=999999).data["totals"]["count"] == 0
    assert api.get("/v1/deals/timeline", **{**asked, "start_date": "2031-04-30"}).data["deals"] == []


def test_statistics_of_a_pipeline_are_those_of_the_user_s_deals(reader: Api) -> None:
    me = reader.box.company.viewers["admin"].user_id
    owner, pipeline = Counter((d["owner_id"], d["pipeline_id"]) for d in deals_of(reader, "live")).most_common(1)[0][0]
    deals = [d for d in deals_of(reader, "live") if (d["owner_id"], d["pipeline_id"]) == (owner, pipeline)]
    new = [d for d in deals if d["add_time"][:10] >= "2025-01-01"]
    path = f"/v1/pipelines/{pipeline}/movement_statistics"

    told = reader.get(path, **PERIOD, user_id=owner).data
    assert told["new_deals"]["deals_ids"] == [d["id"] for d in new]
    for status in ("won", "lost"):
        closed = [d["id"] for d in deals if (d[f"{status}_time"] or "") >= "2025-01-01"]
        assert told[f"{status}_deals"]["deals_ids"] == closed
    assert told["deals_left_open"]["count"] == sum(d["status"] == "open" for d in deals)
    assert told["average_age_in_days"]["across_all_stages"] > 0
    mine = reader.get(path, **PERIOD).data
    assert mine == reader.get(path, **PERIOD, user_id=me).data

    rates = reader.get(f"/v1/pipelines/{pipeline}/conversion_statistics", **PERIOD, user_id=owner).data
    for status in ("won", "lost"):
        share = 100 * sum(d["status"] == status for d in new) / len(new)
        assert rates[f"{status}_conversion"] == round(share)
    stages = reader.get("/api/v2/stages", pipeline_id=pipeline, sort_by="order_nr").ids
    pairs = [(one["from_stage_id"], one["to_stage_id"]) for one in rates["stage_conversions"]]
    assert pairs == list(pairwise(stages))
    assert all(0 <= one["conversion_rate"] <= 100 for one in rates["stage_conversions"])


def test_a_move_is_counted(api: Api) -> None:
    deal = next(deal for deal in deals_of(api, "live") if deal["status"] == "open")
    asked = {"start_date": "2026-11-22", "end_date": "2026-11-23", "user_id": deal["owner_id"]}
    path = f"/v1/pipelines/{deal['pipeline_id']}/movement_statistics"
    before = api.get(path, **asked).data["movements_between_stages"]["count"]
    other = next(s for s in api.get("/api/v2/stages", pipeline_id=deal["pipeline_id"]).ids if s != deal["stage_id"])
    api.patch(f"/api/v2/deals/{deal['id']}", stage_id=other)
    assert api.get(path, **asked).data["movements_between_stages"]["count"] == before + 1


@pytest.mark.parametrize(
    ("path", "query", "wrong"),
    [
        ("deals/timeline", MONTHS, {"interval": "year", "amount": "0", "start_date": "2026-13-01", "field_key": "title",
                                    "filter_id": "77", "user_id": "me", "totals_convert_currency": "EURO"}),
        ("pipelines/1/movement_statistics", PERIOD, {"end_date": "2024-01-01", "start_date": "x", "user_id": "me"}),
        ("pipelines/1/conversion_statistics", PERIOD, {"end_date": "2024-01-01", "start_date": "x", "user_id": "me"}),
    ],
)  # fmt: skip
def test_what_is_needed_or_wrong_is_refused(
    reader: Api, path: str, query: dict[str, Any], wrong: dict[str, str]
) -> None:
    for name, value in wrong.items():
        assert reader.get(f"/v1/{path}", **{**query, name: value}).status == 400, name
    for name in query:
        assert reader.get(f"/v1/{path}", **{k: v for k, v in query.items() if k != name}).status == 400, name
