"""Decides when things happened, and what became of each record.

A company grows: later days see more. Most happens on weekdays in working hours. Of each kind about 3 % were
deleted (half of them so long ago that they are purged), 4 % of the deals are archived, 1 % of deals, persons
and organizations were merged into another one, and a tenth was never edited after it was made. An import and
a bulk edit put many records into one and the same second.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from pdsync.sandbox.company.clock import DAY_S
from pdsync.sandbox.company.custom_values import Pools, custom_values

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pdsync.sandbox.company.company import Company

YEARS = 3
IMPORTED = 0.03
BULK_EDITED = 0.05
HOURS = [7] * 2 + [8] * 6 + [9] * 10 + [10] * 11 + [11] * 9 + [12] * 5 + [13] * 8 + [14] * 10 + [15] * 9 + [16] * 7
HOURS += [17] * 4 + [18] * 2 + [20, 22, 3]
MERGED_KINDS = ("deals", "persons", "organizations")
ARCHIVED_KINDS = ("deals",)
DELETED, PURGED, MERGED, ARCHIVED = "deleted", "purged", "merged", "archived"


class Lifecycle:
    def __init__(self, seed: int, now_s: int, company: Company) -> None:
        self.seed, self.now_s, self.company = seed, now_s, company
        self.start_s = now_s - YEARS * 365 * DAY_S
        self.year_starts = [self.start_s - 30 * DAY_S + year * 365 * DAY_S for year in range(YEARS)]
        self.bulk_edit_s = now_s - 20 * DAY_S  # somebody gave many records another owner at once
        self.active_users: list[int] = []
        self.all_users: list[int] = []
        self.born: dict[str, list[int]] = {}  # by kind: seconds, of id 1, 2, …
        self.fate: dict[str, dict[int, str]] = {}
        self.merged_into: dict[str, dict[int, int]] = {}
        self._streams: dict[str, Random] = {}

    def stream(self, name: str) -> Random:
        if name not in self._streams:
            self._streams[name] = Random(f"{self.seed}/{name}")  # noqa: S311 - believable, not secret
        return self._streams[name]

    def decide(self, kind: str, count: int) -> None:
        """When each of `count` records was made, and how it ends."""
        random = self.stream(f"{kind}/fate")
        span = self.now_s - self.start_s - 3600
        rnd, choice = random.random, random.choice
        moments = []
        for _ in range(count):
            moment = self.start_s + int(span * rnd() ** 0.6)
            day = moment // DAY_S
            weekday = (day + 3) % 7  # 1970-01-01 was a Thursday
            if rnd() < 0.85 and weekday > 4:
                day -= weekday - 4
            moment = day * DAY_S + choice(HOURS) * 3600 + int(rnd() * 3600)
            moments.append(min(moment, self.now_s - 600))
        # Half a year in, somebody imported a list: so many records have one add_time.
        imported = self.start_s + 182 * DAY_S + 36_000
        for at in range(round(count * IMPORTED)):
            moments[at] = imported
        self.born[kind] = sorted(moments)

        fate = self.fate[kind] = {}
        for id in random.sample(range(1, count + 1), round(count * 0.03)):
            fate[id] = DELETED if rnd() < 0.5 else PURGED
        if kind in ARCHIVED_KINDS:
            for id in random.sample(range(1, count + 1), round(count * 0.04)):
                fate.setdefault(id, ARCHIVED)
        into = self.merged_into[kind] = {}
        if kind in MERGED_KINDS and count > 1:
            losers = [id for id in random.sample(range(1, count + 1), round(count * 0.01)) if id not in fate]
            lost = set(losers)
            alive = [id for id in range(1, count + 1) if id not in fate and id not in lost]
            for loser in losers if alive else ():
                fate[loser], into[loser] = MERGED, choice(alive)

    def link(self, kind: str, id: int | None) -> int | None:
        """What a link to `id` reads today: nothing when that was purged, the survivor when it was merged."""
        if id is None:
            return None
        fate = self.fate[kind].get(id)
        return self.merged_into[kind][id] if fate == MERGED else None if fate == PURGED else id

    def count(self, kind: str) -> int:
        return len(self.born[kind])

    def edited(self, random: Random, born_s: int, fate: str | None) -> int:
        """The second of the last edit: a tenth never saw one, most are recent for their age."""
        if fate == DELETED:
            first = max(born_s, self.now_s - 29 * DAY_S)
            return first + int(random.random() * max(1, self.now_s - 300 - first))
        if fate == PURGED:
            return max(born_s, min(self.now_s - 31 * DAY_S, born_s + int(random.expovariate(1 / (90 * DAY_S)))))
        never, in_bulk, age = random.random() < 0.1, random.random() < BULK_EDITED, random.random()
        if never:
            return born_s
        if in_bulk and born_s < self.bulk_edit_s:
            return self.bulk_edit_s
        return born_s + int((self.now_s - 300 - born_s) * age**1.5)

    def custom_values(self, kind: str) -> Callable[[int], Any]:
        """What the custom fields of a record hold that was made at a second."""
        return custom_values(self.company.fields[kind], self.stream(f"{kind}/custom"), self._pools(), self.year_starts)

    def _pools(self) -> Pools:
        def alive(kind: str) -> list[int]:
            gone = {id for id, fate in self.fate[kind].items() if fate in (PURGED, MERGED)}
            return [id for id in range(1, self.count(kind) + 1) if id not in gone]

        return Pools(self.all_users, alive("persons"), alive("organizations"), self.now_s)

    def settle(self, kind: str) -> None:
        """Move what is purged or merged out of the table, once it is written."""
        table = self.company.tables[kind]
        for id, fate in self.fate[kind].items():
            if fate in (PURGED, MERGED):
                table.remove(id, fate, self.merged_into[kind].get(id))

    def state(self, kind: str, id: int) -> str:
        fate = self.fate[kind].get(id)
        return fate if fate in (DELETED, ARCHIVED) else "live"
