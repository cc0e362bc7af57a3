"""Merges two records into one, which keeps the linked records of both.

The record in `merge_with_id` stays and wins where both have a value; the one in the path is deleted. Empty values of
the winner are filled from the loser, and activities, notes, files, mails, deals and persons are linked to the winner.
Assumptions: leads are linked to the winner too; of lists (labels, e-mails, phones) both sides are kept; large texts of
persons and organizations are joined; update_time is set on the winner, and on moved records unless
`Company.merge_touches_children` is off; an additional participant of an activity is not replaced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pdsync.sandbox.company.table import Row, encode
from pdsync.sandbox.operations.generic_records import records_at, store_record
from pdsync.sandbox.operations.writes import find
from pdsync.sandbox.protocol.errors import bad_request, not_found
from pdsync.sandbox.protocol.messages import is_number

if TYPE_CHECKING:
    from pdsync.sandbox.company.company import Company
    from pdsync.sandbox.company.resources import Resource
    from pdsync.sandbox.company.table import Record
    from pdsync.sandbox.protocol.messages import Call

LINK = {"deals": "deal_id", "persons": "person_id", "organizations": "org_id"}
# By the kind that is merged: collections whose records link to it, with the name of the link.
COLLECTIONS = {
    "deals": {"notes": "deal_id"},
    "persons": {"notes": "person_id", "leads": "person_id"},
    "organizations": {"notes": "org_id", "leads": "organization_id"},
}
LISTS = ("label_ids", "emails", "phones", "im")
FIXED = ("id", "add_time", "update_time", "is_deleted", "is_archived", "status", "custom_fields")


def merge(call: Call, resource: Resource) -> tuple[Row, int]:
    """The merged winner, and the id of the loser."""
    loser_id, winner_id = call.id(), call.json().get("merge_with_id")
    if isinstance(winner_id, str) and is_number(winner_id):
        winner_id = int(winner_id)
    if not isinstance(winner_id, int) or isinstance(winner_id, bool):
        raise bad_request("merge_with_id is required", "merge_with_id")
    if winner_id == loser_id:
        raise bad_request("A record cannot be merged with itself", "merge_with_id")
    find(call, resource, loser_id)
    winner_row = find(call, resource, winner_id)
    if winner_row.state == "archived":
        raise not_found(resource.one)
    return merge_records(call.company, resource.kind, loser_id, winner_id, call.request_id), loser_id


def merge_records(company: Company, kind: str, loser_id: int, winner_id: int, request: str | None) -> Row:
    table, now = company[kind], company.clock.stamp()
    loser, winner = table.rows[loser_id].record, table.rows[winner_id].record
    texts = _large_texts(company, kind)
    for code, value in loser.items():
        if code not in FIXED:
            winner[code] = _both(winner.get(code), value, code in LISTS)
    custom = winner["custom_fields"]
    for code, value in loser["custom_fields"].items():
        if code in texts and custom.get(code) and value and custom[code] != value:
            custom[code] = f"{custom[code]}\n{value}"
        else:
            custom[code] = _both(custom.get(code), value, False)
    winner["update_time"] = now
    merged = company.put(kind, "update", winner, request=request)
    _move(company, LINK[kind], (loser_id, winner_id), now, request)
    for name, link in COLLECTIONS[kind].items():
        _move_in_collection(company, (name,), link, (loser_id, winner_id), now, request)
    company.remove(kind, loser_id, "merged", merged_into=winner_id, request=request)
    return merged


def _large_texts(company: Company, kind: str) -> set[str]:
    if kind == "deals":
        return set()
    return {field.code for field in company.fields[kind] if field.custom and field.type == "text"}


def _both(winner: Any, loser: Any, is_list: bool) -> Any:
    if not is_list:
        return loser if winner in (None, "") else winner
    kept = list(winner or ())
    known = [one["value"] if isinstance(one, dict) else one for one in kept]
    for one in loser or ():
        if (one["value"] if isinstance(one, dict) else one) not in known:
            kept.append({**one, "primary": not kept} if isinstance(one, dict) else one)
    return kept


def _move(company: Company, link: str, ids: tuple[int, int], now: str, request: str | None) -> None:
    loser_id, winner_id = ids
    for kind, table in company.tables.items():
        if link not in table.position:
            continue
        for row in list(table.where(link, loser_id)):
            record: Record = row.record
            hidden = None
            if link in record:
                record[link] = winner_id
            else:
                hidden = {link: winner_id}
            if link == "person_id" and "participants" in record:
                record["participants"] = _without_duplicates(record["participants"], loser_id, winner_id)
            if company.merge_touches_children and kind != "mail_threads":
                record["update_time"] = now
            company.put(kind, "update", record, hidden=hidden, request=request)


def _move_in_collection(
    company: Company, collection: tuple[str, ...], link: str, ids: tuple[int, int], now: str, request: str | None
) -> None:
    loser_id, winner_id = ids
    shown = encode({link: loser_id})[1:-1]  # as a record has it: only such are decoded
    for id, row in list(records_at(company, collection, ()).items()):
        if shown in row.body and (record := row.record).get(link) == loser_id:
            record[link] = winner_id
            if company.merge_touches_children:
                record["update_time"] = now
            moved = Row(0, row.state, encode(record), ())
            store_record(company, collection, (), "update", id, moved, request)


def _without_duplicates(participants: list[Record], loser_id: int, winner_id: int) -> list[Record]:
    """Each person once, the loser replaced by the winner."""
    kept: dict[int, Record] = {}
    for one in participants:
        id = winner_id if one["person_id"] == loser_id else one["person_id"]
        kept[id] = {"person_id": id, "primary": one["primary"] or kept.get(id, one)["primary"]}
    return list(kept.values())
