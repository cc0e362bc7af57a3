"""Simulates users at work: mostly updates, some new records, some deletions, a merge, a deal won.

The changes have the same effects as writes over the API, and are in the journal like them. Their times are between
the clock's time before the simulation and after it.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from pdsync.sandbox.activity.simulate_generic import GENERIC_KINDS, change_generic
from pdsync.sandbox.company.clock import iso, local_date
from pdsync.sandbox.company.data import load
from pdsync.sandbox.company.population.activities_files_mail import file_record
from pdsync.sandbox.operations.generic_records import records_at
from pdsync.sandbox.operations.merges import merge_records
from pdsync.sandbox.operations.writes import mark_deleted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pdsync.sandbox.company.company import Company
    from pdsync.sandbox.company.table import Record, Row

TABLE_KINDS = ("deals", "persons", "organizations", "products", "activities", "files")
KINDS = (*TABLE_KINDS, *GENERIC_KINDS)
MERGEABLE = ("deals", "persons", "organizations")
CHANGES = ("added", "updated", "deleted", "archived", "merged")
MAX_DRAWS = 50


class LiveChanges(Struct, kw_only=True):
    """Update `records` of each kind at every n-th request, and make the other changes of `simulate_changes`.

    Raises:
        ValueError: `every` is not positive, or one of `kinds` or `only` is unknown.
    """

    every: int
    records: int = 2
    kinds: tuple[str, ...] = TABLE_KINDS  # without leads and notes, which are fabricated on first use: that takes time
    seed: int = 0
    only: tuple[str, ...] = ("added", "updated", "deleted", "archived", "merged")

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"every must be 1 or more, not {self.every}")
        _check_names(self.kinds, self.only)


class _Simulation:
    """The random numbers and times of one simulation, and which records it has changed."""

    def __init__(self, company: Company, seed: int, advance_s: float) -> None:
        self.company, self.random = company, Random(f"{company.seed}/{seed}/{len(company.journal)}")  # noqa: S311
        self._first_s = int(company.clock.seconds())
        company.clock.advance(advance_s)
        self._last_s = int(company.clock.seconds())
        self._touched: dict[str, set[int]] = {}
        self._ids: dict[str, list[int]] = {}

    def now(self) -> str:
        """A time between the start and the end of the simulation."""
        return iso(self.random.randint(min(self._first_s + 1, self._last_s), self._last_s))

    def draw(self, kind: str, count: int) -> list[Row]:
        """At most `count` live rows that were not drawn before; fewer where too few are left, or drawn by chance."""
        table, touched = self.company[kind], self._touched.setdefault(kind, set())
        ids = self._ids.get(kind)
        if ids is None:
            ids = self._ids[kind] = sorted(table.rows)
        rows: list[Row] = []
        for _ in range(count * MAX_DRAWS):
            if len(rows) >= count or not ids:
                break
            id = self.random.choice(ids)
            row = table.rows.get(id)
            if row is not None and row.state == "live" and id not in touched:
                touched.add(id)
                rows.append(row)
        return rows


def simulate_changes(
    company: Company,
    *,
    share: float = 0.01,
    records: int | None = None,
    seed: int = 0,
    kinds: Iterable[str] = KINDS,
    advance_s: float = 3600,
    only: Iterable[str] = CHANGES,
) -> dict[str, dict[str, list[Any]]]:
    """Change a share of the records of each kind, and advance the clock.

    That share is updated. Of each kind a twelfth as many, but at least one, are added, deleted and (deals, leads)
    archived, and two records of one kind are merged.

    Args:
        share: of the records of a kind, between 0 and 1; at least one record is updated, unless it is 0.
        records: how many records of each kind to update, instead of a share; 0 changes nothing, as a share of 0 does.
        seed: another seed gives other changes.
        advance_s: by how much to advance the clock, in seconds; the changes have times in between.
        only: which of CHANGES to make.

    Returns:
        By kind and by change (added, updated, deleted, archived, merged) the ids. Each id is under one change
        only; survivors of a merge are under updated, losers under merged. Records that a merge links to the survivor
        are not among them.

    Raises:
        ValueError: one of `kinds` or `only` is unknown; nothing is changed.
    """
    kinds, only = tuple(kinds), set(only)
    _check_names(kinds, only)
    with company.lock:
        simulation = _Simulation(company, seed, advance_s)
        company.purge()
        mergeable = [kind for kind in kinds if kind in MERGEABLE]
        merging = simulation.random.choice(mergeable) if mergeable and "merged" in only else None
        return {kind: _change_kind(simulation, kind, share, records, only, merges=kind == merging) for kind in kinds}


def _check_names(kinds: Iterable[str], only: Iterable[str]) -> None:
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"cannot change {kind!r}; there are {', '.join(KINDS)}")
    for change in sorted(only):
        if change not in CHANGES:
            raise ValueError(f"cannot make the change {change!r}; there are {', '.join(CHANGES)}")


def _change_kind(
    simulation: _Simulation, kind: str, share: float, records: int | None, only: set[str], *, merges: bool
) -> dict[str, list[Any]]:
    company = simulation.company
    ids_by_change: dict[str, list[Any]] = {change_name: [] for change_name in CHANGES}
    total = len(records_at(company, (kind,), ()) if kind in GENERIC_KINDS else company[kind])
    count = records if records is not None else round(total * share)
    if not total or (count < 1 and (records is not None or share <= 0)):
        return ids_by_change
    count = max(1, count)
    if kind in GENERIC_KINDS:
        return ids_by_change | change_generic(company, kind, count, simulation.random, simulation.now, only)
    smaller_count = max(1, count // 12)
    pair = simulation.draw(kind, 2) if merges else []
    if len(pair) == 2:
        merge_records(company, kind, pair[0].id, pair[1].id, None)
        ids_by_change["merged"].append(pair[0].id)
        ids_by_change["updated"].append(pair[1].id)
    if "deleted" in only:
        for row in simulation.draw(kind, smaller_count):
            mark_deleted(company, kind, row, simulation.now(), None)
            ids_by_change["deleted"].append(row.id)
    if "archived" in only and kind == "deals":
        ids_by_change["archived"] += [_archive(simulation, row) for row in simulation.draw(kind, smaller_count)]
    if "updated" in only:
        rows = simulation.draw(kind, count)
        winner = rows[:1] if kind == "deals" else []
        ids_by_change["updated"] += [_update(simulation, kind, row, wins=row in winner) for row in rows]
    if "added" in only:
        models = [row for row in company[kind].rows.values() if row.state == "live"][-50:]
        for _ in range(smaller_count if models else 0):
            ids_by_change["added"].append(_add(simulation, kind, simulation.random.choice(models)).id)
    return ids_by_change


def _archive(simulation: _Simulation, row: Row) -> int:
    now = simulation.now()
    record = {**row.record, "is_archived": True, "archive_time": now, "update_time": now}
    return simulation.company.put("deals", "archive", record, "archived").id


def _update(simulation: _Simulation, kind: str, row: Row, *, wins: bool) -> int:
    record = simulation.company[kind].rows[row.id].record
    record["update_time"] = simulation.now()
    if wins:
        _win(record)
    else:
        _edit(simulation, kind, record)
    return simulation.company.put(kind, "update", record).id


def _win(record: Record) -> None:
    now = record["update_time"]
    record |= {"status": "won", "won_time": now, "close_time": now, "lost_time": None, "lost_reason": None}
    record |= {"local_won_date": local_date(now), "local_close_date": local_date(now), "local_lost_date": None}


def _edit(simulation: _Simulation, kind: str, record: Record) -> None:  # noqa: C901 - one case a kind
    random, words = simulation.random, load("words")
    match kind:
        case "deals":
            record["value"] = round((record["value"] or 100) * random.uniform(0.7, 1.6), 2)
            if random.random() < 0.4:
                record["title"] = f"{random.choice(words['deal_what'])} #{record['id']} (rev. {random.randint(2, 9)})"
            stages = simulation.company["stages"].ids_where("pipeline_id", record["pipeline_id"])
            others = [id for id in stages if id != record["stage_id"]]
            if others and random.random() < 0.3:
                record |= {"stage_id": random.choice(others), "stage_change_time": record["update_time"]}
        case "persons":
            phone = {"value": f"+49 170 {random.randint(10**6, 10**7)}", "primary": not record["phones"]}
            record["phones"] = [*record["phones"][:2], {**phone, "label": "mobile"}]
        case "organizations":
            record["employee_count"] = (record["employee_count"] or 3) + random.randint(1, 20)
        case "products":
            record["prices"] = [
                {**price, "price": round(price["price"] * random.uniform(0.9, 1.2), 2)} for price in record["prices"]
            ]
        case "activities":
            record["done"] = not record["done"]
            record["marked_as_done_time"] = record["update_time"] if record["done"] else None
        case "files":
            record["description"] = f"checked {random.randint(1, 99)}"
    custom = record.get("custom_fields")
    if custom:
        code = random.choice(sorted(custom))
        field = simulation.company.fields[kind].get(code)
        if field is not None and field.type in ("varchar", "varchar_auto", "text"):
            custom[code] = f"edited {random.randint(1, 10**6)}"


def _add(simulation: _Simulation, kind: str, model: Row) -> Row:
    """Add a record with the values of `model` but its id, its times and its title; of a file only its user and deal."""
    company, now = simulation.company, simulation.now()
    id = company[kind].next_id
    if kind == "files":
        record: dict[str, Any] = file_record(
            id,
            model.record["user_id"],
            name="notes.txt",
            stored=f"notes_{id}.txt",
            size=120,
            now=now,
            links={"deal_id": model.record["deal_id"]},
        )
    else:
        record = {**model.record, "id": id, "add_time": now, "update_time": now}
    if kind == "deals":
        record["title"] = f"New: {record['title']}"
    elif kind == "products":
        record["prices"] = [{**price, "product_id": id} for price in record["prices"]]
    elif kind == "persons":
        record["picture_id"] = None
    return company.put(kind, "add", record, "live", extra=model.extra)
