"""Simulates users who change generic records (leads, notes), as `simulate` does for the company's tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pdsync.sandbox.company.data import words
from pdsync.sandbox.company.fabricate import WORDS, Fabricator
from pdsync.sandbox.company.table import Row, encode
from pdsync.sandbox.operations.generic_records import records_at, store_record

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from pdsync.sandbox.company.company import Company
    from pdsync.sandbox.company.table import Record

GENERIC_KINDS = ("leads", "notes")
ARCHIVABLE = ("leads",)
OUTCOMES = words("agreed postponed answered unreachable interested")


def change_generic(
    company: Company,
    kind: str,
    count: int,
    random: Random,
    now: Callable[[], str],
    only: set[str],
) -> dict[str, list[Any]]:
    """Update `count` leads or notes, and add, delete and (leads) archive a twelfth as many, but at least one.

    Args:
        now: returns the time of a change.
        only: which changes to make: added, updated, deleted, archived.

    Returns:
        By change (added, updated, deleted, archived) the ids; each under one of them only.
    """
    path = (kind,)
    rows = records_at(company, path, ())
    live = [id for id, row in rows.items() if row.state == "live"]
    smaller_count = max(1, count // 12)
    chosen_ids = iter(random.sample(live, min(len(live), count + 2 * smaller_count)))
    ids_by_change: dict[str, list[Any]] = {"added": [], "updated": [], "deleted": [], "archived": []}

    def write(change_name: str, op: str, id: str, record: Record | None, state: str = "live") -> None:
        ids_by_change[change_name].append(rows[id].record["id"] if record is None else record["id"])
        store_record(company, path, (), op, id, None if record is None else Row(0, state, encode(record), ()))

    archived_count = smaller_count if kind in ARCHIVABLE else 0
    for change_name, times in (("deleted", smaller_count), ("archived", archived_count), ("updated", count)):
        for _ in range(times if change_name in only else 0):
            id = next(chosen_ids, None)
            if id is None:
                break
            record = {**rows[id].record, "update_time": now()}
            if change_name == "deleted":
                write(change_name, "delete", id, None)
            elif change_name == "archived":
                write(change_name, "archive", id, {**record, "is_archived": True}, "archived")
            else:
                write(change_name, "update", id, record | _draw_edit(kind, record, random))
    models = [id for id in live if id in rows]
    for _ in range(smaller_count if "added" in only and models else 0):
        model = rows[random.choice(models)]
        number, stamp = company.next_generic_id(), now()
        new_id: Any = number if kind == "notes" else Fabricator(company, kind, ("new", number)).uuid()
        record = {**model.record, "id": new_id, "add_time": stamp, "update_time": stamp}
        write("added", "add", str(new_id), record | _draw_edit(kind, record, random))
    return ids_by_change


def _draw_edit(kind: str, record: Record, random: Random) -> Record:
    """The columns that an edit of `record` changes."""
    text = f"{random.choice(WORDS)} {random.choice(OUTCOMES)} ({random.randint(1, 10**6)})"
    if kind == "notes":
        return {"content": f"<p>{text}</p>"}
    value = record.get("value")
    return {"title": text, "value": {**value, "amount": round(random.uniform(100, 9999), 2)} if value else value}
