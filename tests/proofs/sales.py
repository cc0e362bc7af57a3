"""Sales views against the same numbers worked out in plain Python, deal by deal, for a company of any size.

python -m tests.proofs.sales --deals 100000 --seed 1

The company is made of what happened to each deal: moves, new values, owners and dates, won, reopened, lost, deleted. A
third of the deals has a changelog, a third a version for each change, a third only its present row. The views see those
tables; the expectation is made of what happened.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pyarrow as pa

from pdsync.core import catalogue
from pdsync.runner.loader import Loader
from tests.runner.kit import COMPANY, load_rows
from tests.support.proof import Proof

if TYPE_CHECKING:
    from collections.abc import Iterator

    import duckdb

ZONE = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 20, 6, tzinfo=UTC)
STAGES = {10 * pipeline + number: (pipeline, number) for pipeline in (1, 2, 3) for number in (1, 2, 3, 4, 5)}
CURRENCIES = ("EUR", "USD", "SEK")
DAYS = [date(2025, 3, 31), date(2026, 2, 28), date(2026, 10, 25), date(2026, 11, 19)]
Rows = list[tuple[Any, ...]]


@dataclass(frozen=True)
class State:
    """How a deal stood from one change to the next."""

    at: datetime
    until: datetime | None
    status: str
    stage: int | None
    value: Decimal
    currency: str
    owner: int
    due: date | None


@dataclass
class Deal:
    """A deal: its states, and what of them is known from which source."""

    id: int
    known_from: str  # changelog, history, single
    states: list[State] = field(default_factory=list)

    @property
    def last(self) -> State:
        """How it stands now, if it is not deleted; else how it stood before."""
        return [state for state in self.states if state.status != "removed"][-1]

    @property
    def removed_at(self) -> datetime | None:
        """When it was deleted."""
        return self.states[-1].at if self.states[-1].status == "removed" else None

    def closed_at(self) -> datetime | None:
        """When it was won or lost, if it is."""
        if self.last.status == "open":
            return None
        at = None
        for state, before in zip(self.states[1:], self.states, strict=False):
            if state.status == self.last.status != before.status:
                at = state.at
        return at or self.states[0].at

    def moved_at(self) -> datetime | None:
        """When its stage last changed."""
        steps = zip(self.states[1:], self.states, strict=False)
        return max((state.at for state, before in steps if state.stage != before.stage), default=None)

    def visible(self) -> list[State]:
        """The states that can be known: all, or what the present row tells of the past."""
        if self.known_from != "single":
            return self.states
        last, added = self.last, self.states[0].at
        moved, closed, removed = self.moved_at(), self.closed_at(), self.removed_at
        marks = sorted({added, *(mark for mark in (moved, closed, removed) if mark and mark > added)})
        states = []
        for at, until in zip(marks, [*marks[1:], None], strict=True):
            status = "removed" if removed and at >= removed else "open" if closed and at < closed else last.status
            stage = None if moved and moved > added and at < moved else last.stage
            states.append(replace(last, at=at, until=until, status=status, stage=stage))
        return states


def local_day(moment: datetime) -> date:
    return moment.astimezone(ZONE).date()


def month(day: date) -> date:
    return day.replace(day=1)


def end_of(day: date) -> datetime:
    """The first moment after a day of the company."""
    following = day + timedelta(days=1)
    return datetime(following.year, following.month, following.day, tzinfo=ZONE).astimezone(UTC)


def state_on(states: list[State], moment: datetime) -> State | None:
    """How a deal stood just before `moment`."""
    at = [state for state in states if state.at < moment and (state.until is None or state.until >= moment)]
    return at[-1] if at else None


# What happened.


def live(rng: random.Random, id: int) -> Deal:
    """A deal with a life of its own: up to twelve changes in two years."""
    moment = NOW - timedelta(seconds=rng.randrange(86_400, 730 * 86_400))
    stage = rng.choice(list(STAGES))
    due = local_day(moment) + timedelta(days=rng.randrange(5, 120)) if rng.random() < 0.8 else None
    value, currency, owner = Decimal(rng.randrange(50_000)), rng.choice(CURRENCIES), rng.randrange(1, 9)
    state = State(moment, None, "open", stage, value, currency, owner, due)
    deal = Deal(id, ("changelog", "history", "single")[id % 3], [state])
    for _ in range(rng.randrange(12)):
        moment += timedelta(seconds=rng.randrange(1, 30 * 86_400))
        if moment >= NOW - timedelta(hours=1):
            break
        state = change(rng, state, moment)
        deal.states[-1] = replace(deal.states[-1], until=moment)
        deal.states.append(state)
        if state.status == "removed":
            break
    return deal


def change(rng: random.Random, state: State, moment: datetime) -> State:
    """The next state: one field changed, sometimes several at once."""
    after = replace(state, at=moment)
    if state.status != "open":
        return replace(after, status="removed") if rng.random() < 0.3 else replace(after, status="open")
    for _ in range(rng.choice((1, 1, 1, 2))):
        match rng.randrange(11):
            case 0 | 1 | 2:
                pipeline, number = STAGES[after.stage or 11]
                after = replace(after, stage=10 * pipeline + max(1, min(5, number + rng.choice((-1, 1, 1, 2)))))
            case 3:
                after = replace(after, stage=rng.choice(list(STAGES)))
            case 4:
                after = replace(after, value=Decimal(rng.randrange(0, 50_000)))
            case 5:
                after = replace(after, owner=rng.randrange(1, 9))
            case 6 | 7:
                due = local_day(moment) + timedelta(days=rng.randrange(-10, 90))
                after = replace(after, due=due if rng.random() < 0.9 else None)
            case 8:
                after = replace(after, currency=rng.choice(CURRENCIES), value=after.value * 2)
            case 9:
                after = replace(after, status="won")
            case _:
                after = replace(after, status="lost" if rng.random() < 0.8 else "removed")
    return after


# What the tables have.


def row(deal: Deal, upto: int, valid_to: datetime | None = None) -> dict[str, Any]:
    """The row of the deal after its first `upto` changes."""
    part = Deal(deal.id, deal.known_from, deal.states[: upto + 1])
    last, closed = part.last, part.closed_at()
    return {
        "id": deal.id, "title": f"deal {deal.id}", "creator_user_id": 1, "owner_id": last.owner, "value": last.value,
        "currency": last.currency, "stage_id": last.stage, "pipeline_id": STAGES[last.stage or 11][0],
        "status": last.status, "expected_close_date": last.due, "stage_change_time": part.moved_at(),
        "close_time": closed, "won_time": closed if last.status == "won" else None,
        "lost_time": closed if last.status == "lost" else None, "add_time": deal.states[0].at,
        "update_time": part.states[-1].at, "is_archived": False, "is_deleted": part.removed_at is not None,
        "_deleted_at": part.removed_at, "_valid_from": part.states[-1].at, "_valid_to": valid_to,
        "_synced_at": NOW, "_verified_at": NOW, "_run_id": "run-1", "_row_hash": deal.id,
    }  # fmt: skip


def log(deal: Deal) -> list[dict[str, Any]]:
    """The changelog of the deal."""
    names = {"status": "status", "stage": "stage_id", "value": "value", "currency": "currency", "owner": "user_id",
             "due": "expected_close_date"}  # fmt: skip
    entries: list[tuple[datetime, str, str | None, str | None]] = [
        (deal.states[0].at, "add_time", None, str(deal.states[0].at))
    ]
    for state, before in zip(deal.states[1:], deal.states, strict=False):
        if state.status == "removed":
            continue
        for name, key in names.items():
            old, new = getattr(before, name), getattr(state, name)
            if old != new:
                entries.append((state.at, key, None if old is None else str(old), None if new is None else str(new)))
    return [
        {"id": f"{deal.id}/{n}", "deal_id": deal.id, "field_key": key, "old_value": old, "new_value": new,
         "actor_user_id": 1, "time": at, "_valid_from": at}
        for n, (at, key, old, new) in enumerate(entries)
    ]  # fmt: skip


def fill(loader: Loader, deals: list[Deal]) -> None:
    """Write the tables that syncs of this company would leave."""
    users = [{"id": id, "name": f"user {id}", "is_you": id == 1, "timezone_name": str(ZONE)} for id in range(1, 9)]
    load_rows(loader, "users", *users, number=1)
    load_rows(loader, "pipelines", *({"id": id, "name": f"P{id}"} for id in (1, 2, 3)), number=2)
    stages = [{"id": id, "name": f"S{id}", "pipeline_id": pipeline, "order_nr": number}
              for id, (pipeline, number) in STAGES.items()]  # fmt: skip
    load_rows(loader, "stages", *stages, number=3)
    for name in ("deals", "deal_changelog", "activities"):
        loader.table(catalogue.stream(name), "v2")
    now, earlier, entries = [], [], []
    for deal in deals:
        now.append(row(deal, len(deal.states) - 1))
        if deal.known_from == "history":
            earlier += [row(deal, upto, deal.states[upto + 1].at) for upto in range(len(deal.states) - 1)]
        elif deal.known_from == "changelog":
            entries += log(deal)
    for each in now:
        del each["_valid_to"]
    insert(loader.connection, "main.deals", now)
    insert(loader.connection, "versions.deals", earlier)
    insert(loader.connection, "main.deal_changelog", entries)
    loader.connection.execute("INSERT INTO meta.runs (run_id, as_of) VALUES ('run-1', ?)", [NOW])


def insert(connection: duckdb.DuckDBPyConnection, table: str, rows: list[dict[str, Any]]) -> None:
    batch = pa.Table.from_pylist(rows)
    connection.register("batch", batch)
    connection.execute(f"INSERT INTO {table} BY NAME SELECT * FROM batch")
    connection.unregister("batch")


# The expectation.


@dataclass
class Visit:
    deal: int
    stage: int | None
    entered: datetime
    left: datetime | None
    exit: str | None
    entry_value: Decimal
    exit_value: Decimal


def visits_of(deal: Deal) -> list[Visit]:
    """The stages that a deal was in while it was open."""
    made: list[Visit] = []
    before: State | None = None
    for state in deal.visible():
        same = before is not None and before.status == state.status == "open" and before.stage == state.stage
        if before is not None and before.status == "open" and not same:
            made[-1].left, made[-1].exit = state.at, how(before, state)
        if state.status == "open" and not same:
            made.append(Visit(deal.id, state.stage, state.at, None, "open", state.value, state.value))
        if state.status == "open":
            made[-1].exit_value = state.value
        before = state
    return made


def how(before: State, after: State) -> str | None:
    """How a visit ended."""
    if after.status != "open":
        return after.status
    if before.stage is None or after.stage is None:
        return None
    (pipeline, number), (other, following) = STAGES[before.stage], STAGES[after.stage]
    return "moved_pipeline" if pipeline != other else "advanced" if following >= number else "regressed"


QUERIES = {
    "visits": "SELECT deal_id, stage_id, epoch(entered_at)::BIGINT, epoch(left_at)::BIGINT, exit, entry_value,"
    " exit_value FROM sales.stage_visits",
    "conversion": "SELECT month, stage_id, entries, advanced, regressed, moved_pipeline, won, lost, removed, still_open"
    " FROM sales.stage_conversion",
    "funnel": "SELECT stage_id, currency, deals, value FROM sales.funnel",
    "win_rate": "SELECT month, won, lost FROM sales.win_rate WHERE closed > 0",
    "cohorts": "SELECT month, days, created, won FROM sales.win_rate_cohort",
    "cycle": "SELECT month, pipeline_id, deals, median_days FROM sales.sales_cycle",
    "slippage": "SELECT month, currency, baseline, won, lost, slipped, overdue, still_due, removed, baseline_value"
    " FROM sales.slippage",
    "waterfall": "SELECT month, currency, opening, created + pulled_in + pushed_in + reopened, raised, lowered, won,"
    " lost, removed, pushed_out, currency_changed, closing FROM sales.waterfall",
    "daily": "SELECT day, stage_id, owner_id, currency, deals, value FROM sales.pipeline_daily"
    " WHERE day IN ('2025-03-31', '2026-02-28', '2026-10-25', '2026-11-19')",
    "pushes": "SELECT deal_id, later_moves, later_months, days_later, earlier_moves, after_due FROM sales.pushes",
}


def expectations(deals: list[Deal]) -> dict[str, Rows]:
    """By the names of QUERIES, the rows that each must give."""
    counting = [deal for deal in deals if deal.removed_at is None]
    visits = [visit for deal in deals for visit in visits_of(deal)]
    return {
        "visits": [
            (v.deal, v.stage, int(v.entered.timestamp()), v.left and int(v.left.timestamp()), v.exit, v.entry_value,
             v.exit_value) for v in visits
        ],
        "conversion": conversion(visits), "funnel": funnel(counting), "win_rate": win_rate(counting),
        "cohorts": cohorts(counting), "cycle": cycle(counting), "slippage": slippage(deals),
        "waterfall": waterfall(deals), "daily": daily(deals), "pushes": pushes(counting),
    }  # fmt: skip


def funnel(counting: list[Deal]) -> Rows:
    still_open = grouped(((d.last.stage, d.last.currency), d.last.value) for d in counting if d.last.status == "open")
    return [(*key, len(values), sum(values)) for key, values in still_open.items()]


def win_rate(counting: list[Deal]) -> Rows:
    closed = [(month(local_day(at)), deal.last.status) for deal in counting if (at := deal.closed_at())]
    return [(day, ends.count("won"), ends.count("lost")) for day, ends in grouped(closed).items()]


def cycle(counting: list[Deal]) -> Rows:
    groups: dict[Any, list[float]] = defaultdict(list)
    for deal in counting:
        closed = deal.closed_at()
        if closed and deal.last.status == "won" and closed - deal.states[0].at >= timedelta(minutes=1):
            key = month(local_day(closed)), STAGES[deal.last.stage or 11][0]
            groups[key].append((closed - deal.states[0].at).total_seconds() / 86_400)
    return [(*key, len(days), median(days)) for key, days in groups.items()]


def grouped(pairs: Any) -> dict[Any, list[Any]]:
    groups: dict[Any, list[Any]] = defaultdict(list)
    for key, value in pairs:
        groups[key].append(value)
    return groups


def conversion(visits: list[Visit]) -> Rows:
    exits = ("advanced", "regressed", "moved_pipeline", "won", "lost", "removed", "open")
    groups = grouped(((month(local_day(v.entered)), v.stage), v.exit) for v in visits if v.stage is not None)
    return [(*key, len(ends), *(ends.count(each) for each in exits)) for key, ends in groups.items()]


def cohorts(counting: list[Deal]) -> Rows:
    rows, today = [], local_day(NOW)
    ages: dict[date, list[float | None]] = defaultdict(list)
    for deal in counting:
        closed = deal.closed_at()
        age = (closed - deal.states[0].at).total_seconds() / 86_400 if closed else None
        if age is None or age >= 60 / 86_400:
            ages[month(local_day(deal.states[0].at))].append(age if deal.last.status == "won" else None)
    for day, won in ages.items():
        following = month(day + timedelta(days=31))
        rows += [(day, days, len(won), sum(age is not None and age <= days for age in won))
                 for days in (30, 60, 90, 180, 365) if following + timedelta(days=days) <= today]  # fmt: skip
    return rows


def months() -> list[tuple[date, date]]:
    """First and last day of the last 12 months, and of this one until today."""
    today = local_day(NOW)
    found, first = [], month(today)
    for _ in range(13):
        found.append((first, min(month(first + timedelta(days=31)) - timedelta(days=1), today)))
        first = month(first - timedelta(days=1))
    return found


def slippage(deals: list[Deal]) -> Rows:
    kinds = ("won", "lost", "slipped", "overdue", "still due", "removed")
    groups: dict[Any, list[tuple[str, Decimal]]] = defaultdict(list)
    for deal in deals:
        states = deal.visible()
        for first, last in months():
            start = state_on(states, end_of(first - timedelta(days=1)))
            if start and start.status == "open" and start.due and month(start.due) == first:
                end = state_on(states, end_of(last))
                assert end
                groups[first, start.currency].append((outcome(end, first), start.value))
    return [
        (*key, len(ends), *(sum(each == kind for each, _ in ends) for kind in kinds), sum(value for _, value in ends))
        for key, ends in groups.items()
    ]  # fmt: skip


def outcome(end: State, first: date) -> str:
    """What had become of a deal that was due in the month from `first` on."""
    if end.status != "open":
        return end.status
    if end.due is None or month(end.due) > first:
        return "slipped"
    return "still due" if end.due >= local_day(NOW) else "overdue"


def waterfall(deals: list[Deal]) -> Rows:
    flows: dict[Any, dict[str, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
    for deal in deals:
        states = deal.visible()
        for first, last in months():
            start, end = state_on(states, end_of(first - timedelta(days=1))), state_on(states, end_of(last))
            for key, name, value in flows_of(start, end, first, month(first + timedelta(days=31)) - timedelta(days=1)):
                flows[key][name] += value
    names = ("opening", "gained", "raised", "lowered", "won", "lost", "removed", "pushed_out", "currency", "closing")
    return [(*key, *(told[name] for name in names)) for key, told in flows.items()]


def flows_of(
    start: State | None, end: State | None, first: date, last: date
) -> Iterator[tuple[tuple[date, str], str, Decimal]]:
    """What a deal adds to the waterfall of a month: (month, currency), name, value."""
    before = start if start and start.status == "open" and start.due and first <= start.due <= last else None
    after = end if end and end.status == "open" and end.due and first <= end.due <= last else None
    if before:
        yield (first, before.currency), "opening", before.value
    if after:
        yield (first, after.currency), "closing", after.value
    if before and not after and end:
        yield (first, before.currency), end.status if end.status != "open" else "pushed_out", before.value
    if after and not before:
        yield (first, after.currency), "gained", after.value
    if before and after and before.currency == after.currency:
        name = "raised" if after.value > before.value else "lowered"
        yield (first, after.currency), name, abs(after.value - before.value)
    if before and after and before.currency != after.currency:
        yield (first, before.currency), "currency", -before.value
        yield (first, after.currency), "currency", after.value


def daily(deals: list[Deal]) -> Rows:
    groups: dict[Any, list[Decimal]] = defaultdict(list)
    for deal in deals:
        states = deal.visible()
        for day in DAYS:
            state = state_on(states, end_of(day))
            if state and state.status == "open":
                groups[day, state.stage, state.owner, state.currency].append(state.value)
    return [(*key, len(values), sum(values)) for key, values in groups.items()]


def pushes(counting: list[Deal]) -> Rows:
    rows = []
    for deal in counting:
        if deal.known_from == "single":
            continue
        moves = [(state.at, before.due, state.due) for state, before in zip(deal.states[1:], deal.states, strict=False)
                 if state.due != before.due]  # fmt: skip
        later = [(at, old, new) for at, old, new in moves if old and new and new > old]
        if moves:
            rows.append((deal.id, len(later), sum(month(new) > month(old) for _, old, new in later),
                         sum((new - old).days for _, old, new in later),
                         sum(bool(old and new and new < old) for _, old, new in moves),
                         sum(local_day(at) > old for at, old, _ in later)))  # fmt: skip
    return rows


def compare(count: int, seed: int, folder: Path) -> dict[str, tuple[int, int, list[str]]]:
    """By the names of QUERIES: how many rows are compared, how many differ, and some of those."""
    rng = random.Random(seed)
    deals = [live(rng, id) for id in range(1, count + 1)]
    loader = Loader(folder / "work.duckdb")
    loader.open(COMPANY, "Acme")
    fill(loader, deals)
    loader.create_views()
    compared = {}
    for name, expected in expectations(deals).items():
        rows = loader.connection.execute(QUERIES[name]).fetchall()
        if name == "cycle":  # the view rounds to a tenth of a day
            exact = {row[:-1]: row[-1] for row in expected}
            rows = [
                (*row[:-1], exact.get(row[:-1]) if abs(exact.get(row[:-1], -1) - row[-1]) < 0.06 else row[-1])
                for row in rows
            ]
        ours, theirs = Counter(rows), Counter(expected)
        differ = (ours - theirs) + (theirs - ours)
        examples = [f"{name}: {row}: {ours[row]} in the view, {theirs[row]} expected" for row in list(differ)[:4]]
        compared[name] = (len(expected), differ.total(), examples)
    asyncio.run(loader.close())
    return compared


def main() -> int:
    proof = Proof("tests.proofs.sales", __doc__, title="Sales views")
    proof.parser.add_argument("--deals", type=int, default=100_000)
    proof.parser.add_argument("--seed", type=int, default=1)
    options = proof.options()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        compared = compare(options.deals, options.seed, Path(folder))
    for name, (rows, differ, examples) in compared.items():
        sys.stdout.write("\n".join([f"{name:12} {rows:>9,} rows, {differ} differ", *examples, ""]))
    sys.stdout.write(f"{options.deals:,} deals in {time.perf_counter() - started:.0f} s\n")
    differing = sum(differ for _, differ, _ in compared.values())
    counts = {
        "deals": options.deals, "queries": len(compared),
        "rows compared": sum(rows for rows, _, _ in compared.values()), "rows that differ": differing,
    }  # fmt: skip
    return proof.end(passed=not differing, seeds=[options.seed], counts=counts)


if __name__ == "__main__":
    sys.exit(main())
