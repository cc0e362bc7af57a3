"""Lists recent changes of all kinds together (`recents`), the oldest first.

Since December 2024 it reaches back one month at most, and shortens an older `since_timestamp` silently.
Assumptions: a month is 30 days; a change in the second of `since_timestamp` is included; a record without update_time
is not; deleted records are shown for their 30 days, archived ones and those of other kinds than listed are not.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import partial
from typing import TYPE_CHECKING

from pdsync.sandbox.company.clock import (
    DAY_S,
    from_v1_time,
    iso,
    v1_time,
)
from pdsync.sandbox.operations.documented import operations
from pdsync.sandbox.operations.generic import present
from pdsync.sandbox.operations.generic_records import records_at
from pdsync.sandbox.operations.nested_lists import plain
from pdsync.sandbox.protocol import v1_records
from pdsync.sandbox.protocol.errors import bad_request
from pdsync.sandbox.protocol.list_params import (
    V2_LIMIT,
    read_limit,
    read_start,
)
from pdsync.sandbox.protocol.messages import success
from pdsync.sandbox.protocol.row_finder import Selection, matcher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pdsync.sandbox.company.table import Record, Row
    from pdsync.sandbox.protocol.messages import Call, Reply, Route

    Recent = tuple[str, str, int, Callable[[], Record]]  # time, item, id, what to show

TABLES = {
    "activity": "activities", "deal": "deals", "file": "files", "person": "persons", "organization": "organizations",
    "pipeline": "pipelines", "product": "products", "stage": "stages", "user": "users",
}  # fmt: skip
COLLECTIONS = {"activityType": "activityTypes", "filter": "filters", "note": "notes"}  # item: path
ITEMS = (*TABLES, *COLLECTIONS)
SEEN = Selection(states=("live", "deleted"))
MONTH_S = 30 * DAY_S


def list_recents(call: Call, route: Route) -> Reply:
    """A page of what was changed since `since_timestamp`."""
    since = _since(call)
    wanted = [part for raw in call.query.get("items", "").split(",") if (part := raw.strip())]
    for item in wanted:
        if item not in ITEMS:
            raise bad_request(f"items: {item!r} is not one of {', '.join(ITEMS)}", "items")
    found = sorted((one for item in wanted or ITEMS for one in _changed(call, item, since)), key=lambda one: one[:3])
    start, limit = read_start(call.query), read_limit(call.query, V2_LIMIT)
    page, more = found[start : start + limit], len(found) > start + limit
    paging = {"start": start, "limit": limit, "more_items_in_collection": more}
    return success(
        [{"item": item, "id": id, "data": show()} for _, item, id, show in page],
        additional_data={
            "since_timestamp": v1_time(since),
            "last_timestamp_on_page": v1_time(page[-1][0]) if page else None,
            "pagination": paging | ({"next_start": start + limit} if more else {}),
        },
    )


def _since(call: Call) -> str:
    text = call.query.get("since_timestamp", "")
    try:
        if len(text) != len("2026-01-01 00:00:00"):
            raise ValueError(text)
        since = from_v1_time(text)
    except ValueError:
        raise bad_request("since_timestamp must be a time as YYYY-MM-DD HH:MM:SS", "since_timestamp") from None
    return max(since, iso(int(call.company.clock.seconds()) - MONTH_S))


def _changed(call: Call, item: str, since: str) -> Iterator[Recent]:
    company = call.company
    if item in COLLECTIONS:
        path = COLLECTIONS[item]
        shape = operations()[f"v1 get{path[:1].upper()}{path[1:]}"].item
        for row in records_at(company, (path,), ()).values():
            record = row.record
            time = record.get("update_time")
            if row.state == "live" and time and time >= since:
                yield time, item, record["id"], partial(present, record, shape)
        return
    table = company[TABLES[item]]
    matches, order = matcher(table, SEEN, call.viewer, company), table.order("update_time")
    for time, id in order[bisect_left(order, (since, 0)) :]:
        if matches(table.rows[id]):
            yield time, item, id, partial(_shown, call, item, table.rows[id])


def _shown(call: Call, item: str, row: Row) -> Record:
    shown = v1_records.shape(call.company, TABLES[item], row)
    return plain(shown) if item == "deal" else shown
