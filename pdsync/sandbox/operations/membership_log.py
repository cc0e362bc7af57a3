"""Lists the changes of followers of a record, and of participants of a deal.

Assumptions: those that a record has at the start of the sandbox were added with it, by its creator; the action of a
follower who leaves is "removed".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pdsync.sandbox.company.clock import v1_time
from pdsync.sandbox.company.company import acting_user_id
from pdsync.sandbox.operations.changelog import page
from pdsync.sandbox.operations.documented import kind_of
from pdsync.sandbox.operations.generic_records import records_at
from pdsync.sandbox.operations.writes import find

if TYPE_CHECKING:
    from pdsync.sandbox.company.table import Record
    from pdsync.sandbox.protocol.messages import Call, Reply, Route

ACTIONS = {"add": "added", "delete": "removed"}


def list_joined(call: Call, route: Route) -> Reply:
    """A page of changes, newest first: of `…/followers/changelog` or `…/participantsChangelog`."""
    assert route.resource is not None  # noqa: S101 - routes give one
    row = find(call, route.resource, call.id(), deleted=True)
    followers = route.pattern[-1] == "changelog"
    collection = (*route.pattern[:2], "followers" if followers else "participants")
    key, name = ("user_id", "follower_user_id") if followers else ("person_id", "person_id")
    parents = (str(row.id),)
    entries = call.company.history.get((kind_of(collection).name, parents[0]), [])
    first = {id: each.record for id, each in records_at(call.company, collection, parents).items()}
    for entry in reversed(entries):
        id = str(entry.id).partition("/")[2]
        first.pop(id, None)
        if entry.before is not None:
            first[id] = entry.before.record

    record = row.record
    maker = record.get("creator_user_id", record["owner_id"])
    changes = [_change(name, _id(member, key), "added", maker, record["add_time"]) for member in first.values()]
    for entry in entries:
        if entry.op in ACTIONS and (entry.before is None or entry.after is None):
            member = (entry.after or entry.before or row).record
            changes.append(_change(name, _id(member, key), ACTIONS[entry.op], acting_user_id(entry), entry.time))
    if route.version == "v1":
        changes = [{**each, "time": v1_time(each["time"])} for each in changes]
    return page(call, list(enumerate(changes, 1))[::-1])


def _change(name: str, id: Any, action: str, actor: int | None, time: str) -> Record:
    return {"action": action, "actor_user_id": actor, name: id, "time": time}


def _id(member: Record, key: str) -> Any:
    value = member.get(key)
    return value.get("value", value.get("id")) if isinstance(value, dict) else value
