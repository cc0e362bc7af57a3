"""Lists the updates of a deal, a person or an organization: changes, activities, notes, files, mail, deals.

Assumptions: planned activities are shown under the time they were added, done ones under the time they were done; the
mail of a record is shown from every mailbox; followers, participants, calls, invoices and documents are not shown.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from pdsync.sandbox.company.clock import v1_time
from pdsync.sandbox.operations.changelog import changes_of
from pdsync.sandbox.operations.documented import operations
from pdsync.sandbox.operations.generic import present
from pdsync.sandbox.operations.nested_lists import MAILED, messages_of, plain
from pdsync.sandbox.operations.notes import notes_of
from pdsync.sandbox.operations.writes import find
from pdsync.sandbox.protocol import v1_parts, v1_records
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
    from pdsync.sandbox.operations.changelog import Change
    from pdsync.sandbox.protocol.messages import Call, Reply, Route

    Happening = tuple[str, str, Callable[[], Record]]  # time, object, what to show of it

LIVE = Selection()
CUSTOM_LENGTH = 40  # of the hex digits that the key of a custom field begins with


def list_flow(call: Call, route: Route) -> Reply:
    """A page of what happened, newest first."""
    assert route.resource is not None  # noqa: S101 - routes give one
    kind, row = route.resource.kind, find(call, route.resource, call.id(), deleted=True)
    wanted = {name.strip() for name in call.query.get("items", "").split(",") if name.strip()}
    if "change" in wanted:
        wanted |= {"dealChange", "personChange", "organizationChange"}
    found = [one for one in _happenings(call, kind, row) if not wanted or one[1] in wanted]
    found.sort(key=lambda one: one[0], reverse=True)
    start, limit = read_start(call.query), read_limit(call.query, V2_LIMIT)
    page = found[start : start + limit]
    more = len(found) > start + limit
    paging = {"start": start, "limit": limit, "more_items_in_collection": more}
    return success(
        [{"object": name, "timestamp": time, "data": show()} for time, name, show in page],
        additional_data={"pagination": paging | ({"next_start": start + limit} if more else {})},
        related_objects=v1_parts.related(call.company, kind, [row]),
    )


def list_mail(call: Call, route: Route) -> Reply:
    """A page of the mail messages of a record, newest first."""
    assert route.resource is not None  # noqa: S101 - routes give one
    kind, row = route.resource.kind, find(call, route.resource, call.id())
    found = messages_of(call.company, MAILED[kind], row.id, with_body=call.query.get("include_body") == "1")
    start, limit = read_start(call.query), read_limit(call.query, V2_LIMIT)
    more = len(found) > start + limit
    paging = {"start": start, "limit": limit, "more_items_in_collection": more}
    return success(
        found[start : start + limit],
        additional_data={"pagination": paging | ({"next_start": start + limit} if more else {})},
    )


def _happenings(call: Call, kind: str, row: Row) -> Iterator[Happening]:
    company, link = call.company, MAILED[kind]
    name = f"{kind.removesuffix('s')}Change"
    for change in changes_of(company, kind, row):
        if len(change.key) < CUSTOM_LENGTH or call.query.get("all_changes") == "1":
            yield v1_time(change.time) or "", name, partial(_change, call, row, change)
    for each in _seen(call, "activities", link, row.id):
        record = each.record
        time = record["marked_as_done_time"] if record["done"] else record["add_time"]
        name = "activity" if record["done"] else "plannedActivity"
        yield v1_time(time) or "", name, partial(v1_records.shape, company, "activities", each)
    for each in _seen(call, "files", link, row.id):
        time = company["files"].facet(each, "add_time")
        yield v1_time(time) or "", "file", partial(v1_records.shape, company, "files", each)
    if kind != "deals":
        for each in _seen(call, "deals", link, row.id):
            time = company["deals"].facet(each, "add_time")
            yield v1_time(time) or "", "deal", partial(_plain, call, each)
    shape = operations()["v1 getNotes"].item
    for note in notes_of(company, link, row.id):
        yield v1_time(note["add_time"]) or "", "note", partial(present, note, shape)
    for mail in messages_of(company, link, row.id):
        yield mail["timestamp"], mail["object"], partial(mail.__getitem__, "data")


def _seen(call: Call, kind: str, link: str, id: int) -> Iterator[Row]:
    """The live rows of a kind that name a record, of those that one may see."""
    table = call.company[kind]
    return filter(matcher(table, LIVE, call.viewer, call.company), list(table.where(link, id)))


def _plain(call: Call, deal: Row) -> Record:
    return plain(v1_records.shape(call.company, "deals", deal))


NAMED = {
    "stage_id": "stages", "pipeline_id": "pipelines", "user_id": "users", "owner_id": "users",
    "person_id": "persons", "org_id": "organizations",
}  # fmt: skip


def _change(call: Call, row: Row, change: Change) -> Record:
    named = NAMED.get(change.key)
    names: dict[str, Any] = {}
    for part, value in (("old", change.old), ("new", change.new)) if named else ():
        names[f"{part}_value_formatted"] = v1_parts.name_of(call.company, named, int(value)) if value else None
    return {
        "id": change.id,
        "item_id": row.id,
        "user_id": change.user_id,
        "field_key": change.key,
        "old_value": change.old,
        "new_value": change.new,
        "is_bulk_update_flag": change.is_bulk or None,
        "log_time": v1_time(change.time),
        "change_source": change.source,
        "change_source_user_agent": change.agent,
        "additional_data": names or [],
    }
