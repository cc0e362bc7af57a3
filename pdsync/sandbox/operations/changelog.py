"""Lists the changes of a deal, a person or an organization: the field, both values, the time and the user.

Changes since the start of the sandbox are those of the journal. Earlier ones are generated so that they end in the
record as it was at the start: it was added, moved, won, archived or deleted at the times that it has, and edited once
at its update_time unless another change explains that time.

Assumptions: fields have the names and values of v1, as text; a new record is one change, of add_time; several
e-mails or phones are shown with commas; values that follow from another field (stage_change_time, the local dates) are
not shown; neither are silent edits through /_admin.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from pdsync.sandbox.company.clock import v1_time
from pdsync.sandbox.company.company import BROWSER, acting_user_id
from pdsync.sandbox.company.data import words
from pdsync.sandbox.company.fabricate import Fabricator
from pdsync.sandbox.company.fields import ADDRESS_PARTS
from pdsync.sandbox.company.table import encode
from pdsync.sandbox.operations.writes import find
from pdsync.sandbox.protocol.errors import bad_request
from pdsync.sandbox.protocol.list_params import V2_LIMIT, read_limit
from pdsync.sandbox.protocol.messages import success
from pdsync.sandbox.protocol.v1_parts import custom, spread

if TYPE_CHECKING:
    from pdsync.sandbox.company.company import Company, Entry
    from pdsync.sandbox.company.table import Record, Row
    from pdsync.sandbox.protocol.messages import Call, Reply, Route

FOLLOWING = frozenset(
    words("id update_time stage_change_time local_won_date local_lost_date local_close_date is_deleted custom_fields")
)
V1_NAMES = {"label_ids": "label", "emails": "email", "phones": "phone"}
# What the one edit of the past was, of the first of these that the record has.
EDITED = {"deals": "value", "persons": "phone", "organizations": "address"}
MOST_CHANGES = 100_000  # of one record; it makes their ids differ from those of others


class Change(Struct, frozen=True):
    """One field of one record got another value."""

    id: int
    key: str  # v1's name of the field
    old: str | None
    new: str | None
    time: str
    user_id: int | None
    source: str = "app"
    agent: str | None = BROWSER
    is_bulk: bool = False


def list_changes(call: Call, route: Route) -> Reply:
    """A page of changes, newest first."""
    assert route.resource is not None  # noqa: S101 - routes give one
    row = find(call, route.resource, call.id(), deleted=True)
    return page(call, [(change.id, _shown(change)) for change in changes_of(call.company, route.resource.kind, row)])


def page(call: Call, changes: list[tuple[int, Record]]) -> Reply:
    """A page of `changes`, by their ids. The cursor names the first of the next page, so nothing new moves it."""
    limit, start = read_limit(call.query, V2_LIMIT), 0
    if call.query.get("cursor"):
        first = _read_cursor(call.query["cursor"])
        start = next((at for at, (id, _) in enumerate(changes) if id == first), -1)
        if start < 0:
            raise bad_request("Invalid cursor", "cursor")
    following = changes[start + limit : start + limit + 1]
    cursor = base64.b64encode(f"id:{following[0][0]}".encode()).decode() if following else None
    return success([shown for _, shown in changes[start : start + limit]], additional_data={"next_cursor": cursor})


def _read_cursor(text: str) -> int:
    try:
        name, _, id = base64.b64decode(text, validate=True).decode().partition(":")
        if name == "id":
            return int(id)
    except (binascii.Error, ValueError):
        pass
    raise bad_request("Invalid cursor", "cursor")


def _shown(change: Change) -> Record:
    return {
        "field_key": change.key,
        "old_value": change.old,
        "new_value": change.new,
        "actor_user_id": change.user_id,
        "time": v1_time(change.time),
        "change_source": change.source,
        "change_source_user_agent": change.agent,
        "is_bulk_update_flag": change.is_bulk,
    }


def changes_of(company: Company, kind: str, row: Row) -> list[Change]:
    """Every change of a record, newest first."""
    entries = company.history.get((kind, row.id), ())
    first: Row | None = entries[0].before if entries else row
    made = [] if first is None else _past(company, kind, first)
    for entry in entries:
        if entry.op != "silent":
            made += _differences(company, kind, entry)
    numbered = [Change(row.id * MOST_CHANGES + number, *rest) for number, rest in enumerate(made, 1)]
    return sorted(numbered, key=lambda change: (change.time, change.id), reverse=True)


def stored(company: Company, kind: str, record: Record) -> Record:
    """The fields of a record by v1's names, with what v1 keeps in them."""
    kept = {V1_NAMES.get(name, name): value for name, value in record.items() if name not in FOLLOWING}
    if kind == "deals":
        kept["user_id"] = kept.pop("owner_id")
        kept["status"] = "deleted" if record["is_deleted"] else record["status"]
    else:
        kept["active_flag"] = not record["is_deleted"]
    for name in ("address", "postal_address"):
        if name in kept:
            spread(kept, name, kept[name], ADDRESS_PARTS)
    return kept | custom(company, kind, record["custom_fields"])


def _differences(company: Company, kind: str, entry: Entry) -> list[tuple[Any, ...]]:
    before, after = entry.before, entry.after
    if after is None:
        return []
    table, actor = company[kind], entry.actor
    stamp = table.facet(after, "update_time")
    time = stamp if stamp and (before is None or stamp != table.facet(before, "update_time")) else entry.time
    end = (time, acting_user_id(entry), actor.source, actor.agent, actor.is_bulk)
    new = stored(company, kind, after.record)
    if before is None:
        return [("add_time", None, text("add_time", new["add_time"]), *end)]
    old = stored(company, kind, before.record)
    pairs = [(key, old.get(key), new.get(key)) for key in {**old, **new}]
    changes = [(key, text(key, was), text(key, value)) for key, was, value in pairs if was != value]
    return [(*each, *end) for each in changes if each[1] is not None or each[2] is not None]


def _part(each: Any) -> str:
    return str(each.get("value", encode(each).decode()) if isinstance(each, dict) else each)


def text(key: str, value: Any) -> str | None:
    """A value as the changelog writes it: text, whatever it is; None for nothing."""
    match value:
        case None | [] | "":
            return None
        case bool():
            return str(int(value))
        case float() if value.is_integer():
            return str(int(value))
        case list():
            return ",".join(_part(each) for each in value)
        case dict():
            return encode(value).decode()
        case str() if key.endswith("_time") and value[10:11] == "T":
            return v1_time(value)
    return str(value)


def _past(company: Company, kind: str, row: Row) -> list[tuple[Any, ...]]:
    """What led to the record as it was when the sandbox met it."""
    record, maker = row.record, Fabricator(company, "changelog", (kind, row.id))
    kept = stored(company, kind, record)
    owner, added = record["owner_id"], record["add_time"]
    made: list[tuple[Any, ...]] = [
        ("add_time", None, text("add_time", added), added, record.get("creator_user_id", owner))
    ]

    def tell(key: str, old: str | None, time: str | None, new: str | None = None) -> None:
        new = new or text(key, kept[key])
        if time and added and time > added and old != new:
            made.append((key, old, new, time, owner))

    if kind == "deals":
        stages = sorted(company["stages"].ids_where("pipeline_id", record["pipeline_id"]))
        others = [id for id in stages if id != record["stage_id"]]
        if others:
            tell("stage_id", str(maker.one_of(others, "stage")), record["stage_change_time"])
        if record["status"] != "open":
            tell("status", "open", record[f"{record['status']}_time"], record["status"])
        tell("is_archived", "0", record["archive_time"])
    last = max(time or "" for *_, time, _ in made)
    if record["is_deleted"]:
        key, old = ("status", record["status"]) if kind == "deals" else ("active_flag", "1")
        tell(key, old, record["update_time"])
    elif (record["update_time"] or "") > last:
        key = EDITED[kind] if text(EDITED[kind], kept[EDITED[kind]]) else "visible_to"
        lower = text("value", round((record.get("value") or 0) * 0.8, 2))
        tell(key, {"value": lower, "visible_to": "5"}.get(key), record["update_time"])
    return sorted(made, key=lambda change: change[3] or "")
