"""Decides when each record was created and last edited, and whether it was deleted, archived or merged.

The number of records grows over time, mostly on weekdays in working hours. About 3 % of each kind were deleted
(half of them more than 30 days ago, so they are purged), 4 % of the deals are archived, 1 % of deals, persons
and organizations were merged into another one, and 10 % were never edited. An import and a bulk edit give many
records the same second.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from pdsync.sandbox.company.clock import DAY_S
from pdsync.sandbox.company.custom_values import Pools, make_record_generator

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
    """When each record was created and what happened to it; random numbers come from one stream a kind."""

    def __init__(self, seed: int, now_s: int, company: Company) -> None:
        self.seed, self.now_s, self.company = seed, now_s, company
        self.start_s = now_s - YEARS * 365 * DAY_S
        self.year_starts = [self.start_s - 30 * DAY_S + year * 365 * DAY_S for year in range(YEARS)]
        self.bulk_edit_s = now_s - 20 * DAY_S  # many records got another owner at once
        self.active_users: list[int] = []
        self.all_users: list[int] = []
        self.created_s: dict[str, list[int]] = {}  # by kind: seconds, of id 1, 2, …
        self.fate: dict[str, dict[int, str]] = {}
        self.merged_into: dict[str, dict[int, int]] = {}
        self._streams: dict[str, Random] = {}

    def random(self, name: str) -> Random:
        """The random stream of this name: the same numbers for the same seed, whatever other streams are used."""
        if name not in self._streams:
            self._streams[name] = Random(f"{self.seed}/{name}")  # noqa: S311 - believable, not secret
        return self._streams[name]

    def decide(self, kind: str, count: int, *, purged: float = 0.0, archived: float | None = None) -> None:
        """Draw for each of `count` records when it is created, and whether it is deleted, archived or merged.

        `purged` and `archived` are shares as in `Sizes`.
        """
        random = self.random(f"{kind}/fate")
        span = self.now_s - self.start_s - 3600
        chance, choice = random.random, random.choice
        moments = []
        for _ in range(count):
            moment = self.start_s + int(span * chance() ** 0.6)
            day = moment // DAY_S
            weekday = (day + 3) % 7  # 1970-01-01 was a Thursday
            if chance() < 0.85 and weekday > 4:
                day -= weekday - 4
            moment = day * DAY_S + choice(HOURS) * 3600 + int(chance() * 3600)
            moments.append(min(moment, self.now_s - 600))
        # An import half a year after the start: its records share one add_time.
        import_s = self.start_s + 182 * DAY_S + 36_000
        for index in range(round(count * IMPORTED)):
            moments[index] = import_s
        self.created_s[kind] = sorted(moments)

        fate = self.fate[kind] = {}
        for id in random.sample(range(1, count + 1), round(count * 0.03)):
            fate[id] = DELETED if chance() < 0.5 else PURGED
        for id in random.sample(range(1, count + 1), round(count * purged)):
            fate.setdefault(id, PURGED)
        if kind in ARCHIVED_KINDS:
            of_any_age = random.sample(range(1, count + 1), round(count * 0.04))
            for id in of_any_age if archived is None else range(1, round(count * archived) + 1):
                fate.setdefault(id, ARCHIVED)
        merged_into = self.merged_into[kind] = {}
        if kind in MERGED_KINDS and count > 1:
            losers = [id for id in random.sample(range(1, count + 1), round(count * 0.01)) if id not in fate]
            loser_ids = set(losers)
            alive = [id for id in range(1, count + 1) if id not in fate and id not in loser_ids]
            for loser in losers if alive else ():
                fate[loser], merged_into[loser] = MERGED, choice(alive)

    def link(self, kind: str, id: int | None) -> int | None:
        """The id that a link to `id` has today: None when that record was purged, the survivor's when it was merged."""
        if id is None:
            return None
        fate = self.fate[kind].get(id)
        return self.merged_into[kind][id] if fate == MERGED else None if fate == PURGED else id

    def count(self, kind: str) -> int:
        return len(self.created_s[kind])

    def draw_edit_s(self, random: Random, created_s: int, fate: str | None) -> int:
        """Draw the second of the last edit. One record in ten was never edited: it is the second of its creation."""
        if fate == DELETED:
            first = max(created_s, self.now_s - 29 * DAY_S)
            return first + int(random.random() * max(1, self.now_s - 300 - first))
        if fate == PURGED:
            return max(created_s, min(self.now_s - 31 * DAY_S, created_s + int(random.expovariate(1 / (90 * DAY_S)))))
        never, in_bulk, age = random.random() < 0.1, random.random() < BULK_EDITED, random.random()
        if never:
            return created_s
        if in_bulk and created_s < self.bulk_edit_s:
            return self.bulk_edit_s
        return created_s + int((self.now_s - 300 - created_s) * age**1.5)

    def custom_values_generator(self, kind: str) -> Callable[[int], Any]:
        """A function from the second a record was created in to its `custom_fields`."""
        return make_record_generator(
            self.company.fields[kind], self.random(f"{kind}/custom"), self._pools(), self.year_starts
        )

    def _pools(self) -> Pools:
        def alive(kind: str) -> list[int]:
            gone = {id for id, fate in self.fate[kind].items() if fate in (PURGED, MERGED)}
            return [id for id in range(1, self.count(kind) + 1) if id not in gone]

        return Pools(self.all_users, alive("persons"), alive("organizations"), self.now_s)

    def remove_gone(self, kind: str) -> None:
        """Move purged and merged records of `kind` out of the table. Call it after all records are in the table."""
        table = self.company.tables[kind]
        for id, fate in self.fate[kind].items():
            if fate in (PURGED, MERGED):
                table.remove(id, fate, self.merged_into[kind].get(id))

    def state(self, kind: str, id: int) -> str:
        """live, archived or deleted."""
        fate = self.fate[kind].get(id)
        return fate if fate in (DELETED, ARCHIVED) else "live"
