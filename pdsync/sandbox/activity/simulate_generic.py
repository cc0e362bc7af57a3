"""Simulates users changing generic records (leads, notes), as `simulate` does with the company's tables."""

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
    """Change `count` leads or notes, and a twelfth of that many in each other way.

    Returns:
        By what was done (added, updated, deleted, archived), the ids; each under one of them only.
    """
    path = (kind,)
    held = records_at(company, path, ())
    live = [id for id, row in held.items() if row.state == "live"]
    few = max(1, count // 12)
    drawn = iter(random.sample(live, min(len(live), count + 2 * few)))
    done: dict[str, list[Any]] = {what: [] for what in ("added", "updated", "deleted", "archived")}

    def write(what: str, op: str, id: str, record: Record | None, state: str = "live") -> None:
        done[what].append(held[id].record["id"] if record is None else record["id"])
        store_record(company, path, (), op, id, None if record is None else Row(0, state, encode(record), ()))

    for what, some in (("deleted", few), ("archived", few if kind in ARCHIVABLE else 0), ("updated", count)):
        for _ in range(some if what in only else 0):
            id = next(drawn, None)
            if id is None:
                break
            record = {**held[id].record, "update_time": now()}
            if what == "deleted":
                write(what, "delete", id, None)
            elif what == "archived":
                write(what, "archive", id, {**record, "is_archived": True}, "archived")
            else:
                write(what, "update", id, record | _edited(kind, record, random))
    models = [id for id in live if id in held]
    for _ in range(few if "added" in only and models else 0):
        model = held[random.choice(models)]
        number, stamp = company.next_generic_id(), now()
        new: Any = number if kind == "notes" else Fabricator(company, kind, ("new", number)).uuid()
        record = {**model.record, "id": new, "add_time": stamp, "update_time": stamp}
        write("added", "add", str(new), record | _edited(kind, record, random))
    return done


def _edited(kind: str, record: Record, random: Random) -> Record:
    said = f"{random.choice(WORDS)} {random.choice(OUTCOMES)} ({random.randint(1, 10**6)})"
    if kind == "notes":
        return {"content": f"<p>{said}</p>"}
    value = record.get("value")
    return {"title": said, "value": {**value, "amount": round(random.uniform(100, 9999), 2)} if value else value}
