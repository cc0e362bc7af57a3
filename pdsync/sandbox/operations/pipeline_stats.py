"""Counts how the deals of a pipeline fared in a period: what came in, moved on, was won, was lost, is left.

Assumptions: conversion looks at the deals that were added in the period, and takes a deal to have passed every stage
before the one it is in, a won deal all of them; what is left open is what is open now and was added by the end of the
period; ages are those of these deals, in whole days until now; archived and deleted deals do not count.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from pdsync.sandbox.company.clock import DAY_S, seconds_of
from pdsync.sandbox.operations.changelog import changes_of
from pdsync.sandbox.operations.deals_timeline import read_date, read_number, values
from pdsync.sandbox.operations.writes import find
from pdsync.sandbox.protocol.errors import bad_request
from pdsync.sandbox.protocol.messages import success
from pdsync.sandbox.protocol.row_finder import Selection, matcher
from pdsync.sandbox.protocol.v1_parts import money

if TYPE_CHECKING:
    from pdsync.sandbox.company.table import Record, Row
    from pdsync.sandbox.protocol.messages import Call, Reply, Route


def conversion(call: Call, route: Route) -> Reply:
    """How many percent went from each stage to the next, were won and were lost."""
    first, last, rows = _read_query(call, route)
    deals = [record for row in rows if _within((record := row.record)["add_time"], first, last)]
    stages = _stages(call)
    reached = dict.fromkeys(stages, 0)
    for deal in deals:
        for stage in stages:
            reached[stage] += 1
            if deal["status"] != "won" and stage == deal["stage_id"]:
                break
    won, lost = (sum(deal["status"] == status for deal in deals) for status in ("won", "lost"))
    return success(
        {
            "stage_conversions": [
                {"from_stage_id": one, "to_stage_id": other, "conversion_rate": _percent(reached[other], reached[one])}
                for one, other in pairwise(stages)
            ],
            "won_conversion": _percent(won, len(deals)),
            "lost_conversion": _percent(lost, len(deals)),
        }
    )


def movement(call: Call, route: Route) -> Reply:
    """The deals that came, moved, were won, were lost and are left."""
    first, last, rows = _read_query(call, route)
    deals = [row.record for row in rows]
    moves = sum(
        change.key == "stage_id" and _within(change.time, first, last)
        for row in rows
        for change in changes_of(call.company, "deals", row)
    )
    left = [deal for deal in deals if deal["status"] == "open" and deal["add_time"][:10] <= last]
    now_s = int(call.company.clock.seconds())
    ages: dict[int, list[int]] = {stage: [] for stage in _stages(call)}
    for deal in left:
        entered = deal["stage_change_time"] or deal["add_time"]
        ages.setdefault(deal["stage_id"], []).append((now_s - seconds_of(entered)) // DAY_S)
    return success(
        {
            "movements_between_stages": {"count": moves},
            "new_deals": _group([deal for deal in deals if _within(deal["add_time"], first, last)]),
            "deals_left_open": _group(left),
            "won_deals": _group([deal for deal in deals if _within(deal["won_time"], first, last)]),
            "lost_deals": _group([deal for deal in deals if _within(deal["lost_time"], first, last)]),
            "average_age_in_days": {
                "across_all_stages": _mean([(now_s - seconds_of(deal["add_time"])) // DAY_S for deal in left]),
                "by_stages": [{"stage_id": stage, "value": _mean(days)} for stage, days in ages.items()],
            },
        }
    )


def _read_query(call: Call, route: Route) -> tuple[str, str, list[Row]]:
    """First and last day, and the deals of the pipeline of one user: by default the caller."""
    assert route.resource is not None  # noqa: S101 - routes give one
    pipeline = find(call, route.resource, call.id())
    first, last = read_date(call, "start_date"), read_date(call, "end_date")
    if last < first:
        raise bad_request("end_date is before start_date", "end_date")
    user_id = read_number(call, "user_id") or call.viewer.user_id
    table, chosen = call.company["deals"], Selection(equal=(("owner_id", user_id),))
    matches = matcher(table, chosen, call.viewer, call.company)
    rows = sorted(filter(matches, table.where("pipeline_id", pipeline.id)), key=lambda row: row.id)
    return first.isoformat(), last.isoformat(), rows


def _stages(call: Call) -> list[int]:
    """The stages of the pipeline in their order."""
    table = call.company["stages"]
    rows = table.where("pipeline_id", call.id())
    return [row.id for row in sorted(rows, key=lambda row: (table.facet(row, "order_nr"), row.id))]


def _within(time: str | None, first: str, last: str) -> bool:
    return time is not None and first <= time[:10] <= last


def _percent(part: int, whole: int) -> int:
    return round(100 * part / whole) if whole else 0


def _mean(days: list[int]) -> int:
    return round(sum(days) / len(days)) if days else 0


def _group(deals: list[Record]) -> Record:
    worth = values(deals)
    return {
        "count": len(deals),
        "deals_ids": [deal["id"] for deal in deals],
        "values": worth,
        "formatted_values": {currency: money(value, currency) for currency, value in worth.items()},
    }
