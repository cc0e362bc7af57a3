"""The mutations of a project: their states in control.db, compared with the sandbox's journal.

    ledger = Ledger(project, box, work)
    ledger.queue(dice, 12, project.run, "n1")
    ledger.pushed(clean=True)   # after each push: what took effect, and which store has a record of it
    ledger.wrong()              # mutations that were lost, took effect twice, or have a wrong state: [] is right

Every mutation has a unique text, or is the only one that deletes or merges its record, so the journal shows how often
each took effect, also where control.db was lost or restored.
"""

from __future__ import annotations

import json
from collections import Counter
from sqlite3 import DatabaseError
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.model.company import FEWEST, TITLES
from tests.support.stores import HOLDERS

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from pdsync.sandbox import RunningSandbox
    from tests.model.company import Place, Work
    from tests.support.stores import Suffered
    from tests.support.world import Project, Ran

OPEN = ("queued", "approved", "armed", "unknown")
ENDS = ("applied", "rejected", "conflict", "needs_review", "cancelled")
_SPARE = FEWEST + 4  # a kind with more live records than this may lose some


class Queued(NamedTuple):
    """A mutation as it was queued."""

    id: str
    operation: str
    mark: str  # the text by which the journal shows its effect


class Ledger:
    """The mutations of one project."""

    def __init__(self, project: Project, box: RunningSandbox, work: Work) -> None:
        self.project, self.box, self.work = project, box, work
        self.queued: dict[str, Queued] = {}
        self.effects: Counter[str] = Counter()  # by mark
        self.fates: dict[str, str] = {}  # the last final state of each, in any control.db
        self.applied: set[str] = set()  # those that were ever in state applied, except already_so
        self.kept: set[str] = set()  # those that the present control.db has
        self.heard = {store: set[str]() for store in HOLDERS}  # by store: the mutations that it records as sent
        self.beyond = 0  # mutations that no store recorded as sent
        self.otherwise = 0  # mutations that were applied, and have another state in a restored control.db
        self.put_back: set[str] = set()  # took effect after the copy from which control.db was restored
        self._used: set[tuple[str, int]] = set()  # records that a mutation deletes or merges
        self._copies: dict[int, tuple[set[str], dict[str, set[str]]]] = {}
        self._read = len(box.journal)

    # Queueing.

    def queue(self, dice: Random, count: int, run: Callable[..., Ran], prefix: str) -> list[str]:
        """Queue `count` mutations in one file. Returns what is wrong with that.

        Args:
            dice: choose the mutations.
            count: how many.
            run: runs `pdsync` with these words in the project, as `Project.run`.
            prefix: of their texts, another one at each call.
        """
        rows, marks = self._rows(dice, count, prefix)
        before = {id for id, _, _ in self._states()}
        path = self.project.folder / "batch.ndjson"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        ran = run("queue", "import", str(path), "-q")
        if ran.code:
            return [f"queue import refused: {ran}"]
        added_ids = [id for id, _, _ in self._states() if id not in before]
        if len(added_ids) != len(rows):
            return [f"W11: {len(rows)} were queued, {len(added_ids)} are in control.db"]
        for id, row, mark in zip(added_ids, rows, marks, strict=True):
            self.queued[id] = Queued(id, row["_operation"], mark)
        self.kept.update(added_ids)
        return []

    def _rows(self, dice: Random, count: int, prefix: str) -> tuple[list[dict[str, Any]], list[str]]:
        rows: list[dict[str, Any]] = []
        marks: list[str] = []
        live = {kind: sorted(row.id for row in self.work.rows(kind, "live")) for kind in TITLES}
        for each in live.values():
            dice.shuffle(each)
        for number in range(count):
            mark = f"{prefix}-{number:03}"
            roll = dice.random()
            spare = [kind for kind in ("activities", "products", "persons", "deals") if len(live[kind]) > _SPARE]
            spare = [kind for kind in spare if (kind, live[kind][-1]) not in self._used]
            if roll < 0.4:
                kind = dice.choice(("deals", "persons", "organizations", "activities"))
                row = {"_operation": f"update{_one(kind)}", "id": dice.choice(live[kind]), TITLES[kind]: mark}
            elif roll < 0.85 or not spare:
                kind = dice.choice(("deals", "persons", "organizations", "activities", "products"))
                row = {"_operation": f"add{_one(kind)}", TITLES[kind]: mark}
            else:
                kind = dice.choice(spare)
                id = live[kind].pop()
                self._used.add((kind, id))
                if kind == "persons":
                    mark = f"merge {kind} {id}"
                    row = {"_operation": "mergePersons", "id": id, "merge_with_id": live[kind].pop()}
                else:
                    mark, row = f"delete {kind} {id}", {"_operation": f"delete{_one(kind)}", "id": id}
            rows.append(row)
            marks.append(mark)
        return rows, marks

    # States.

    def _states(self) -> list[tuple[str, str, str | None]]:
        """Id, state and reason of each mutation in control.db; none where it cannot be read."""
        if not (self.project.data / "control.db").exists():
            return []
        try:
            rows = self.project.control("SELECT id, state, reason FROM mutations ORDER BY seq")
        except DatabaseError:
            return []
        return [(str(id), str(state), reason) for id, state, reason in rows]

    def open(self) -> list[str]:
        return [id for id, state, _ in self._states() if state in OPEN]

    def pushed(self, *, clean: bool) -> None:
        """After a push: control.db and the raw archive record what was sent, also where the push failed.

        Args:
            clean: it ended, and no other process kept it from writing to the warehouse.
        """
        before = Counter(self.effects)
        self._look()
        sent = {id for id, each in self.queued.items() if self.effects[each.mark] and not before[each.mark]}
        self.heard["control"] |= sent
        self.heard["raw"] |= sent
        if clean and sent and (self.project.data / "warehouse.duckdb").exists():
            self.in_step()
        for id, state, reason in self._states():
            if state in ENDS:
                self.fates[id] = state
                if state == "applied" and reason != "already_so":
                    self.applied.add(id)

    def in_step(self) -> None:
        """After a push or a sync that ended: all stores have the same records of sent mutations."""
        in_control_db = {id for id, _, _ in self._states()}
        self.heard["control"] |= in_control_db & set().union(*self.heard.values())
        for store in HOLDERS[1:]:
            self.heard[store] |= self.heard["control"]

    def _count(self, id: str) -> int:
        """How often a mutation took effect; 0 where it was never queued."""
        return self.effects[self.queued[id].mark] if id in self.queued else 0

    def _look(self) -> None:
        """Count the writes over the API since the last call; changes in the app are no requests."""
        journal = self.box.journal
        for entry in journal[self._read :]:
            if entry.request is None:
                continue
            if entry.op in ("delete", "merge"):
                self.effects[f"{entry.op} {entry.kind} {entry.id}"] += 1
            if (name := TITLES.get(entry.kind)) and entry.after:
                mark = entry.after.record.get(name)
                if not entry.before or entry.before.record.get(name) != mark:
                    self.effects[str(mark)] += 1
        self._read = len(journal)

    # Stores that are lost.

    def copied(self, day: int) -> None:
        """The stores were copied."""
        self._copies[day] = set(self.kept), {store: set(ids) for store, ids in self.heard.items()}

    def suffered(self, event: Suffered) -> None:
        """Stores were lost or restored: they have the records of that time."""
        for store in HOLDERS:
            day = event.holds(store)
            if day is None:
                continue
            kept, heard = self._copies.get(day, (set[str](), {key: set[str]() for key in HOLDERS}))
            self.heard[store] = set(heard[store])
            if store == "control":
                self.kept = set(kept)
                self.put_back |= {id for id in self.queued if self._count(id)} - heard[store]

    def untold(self) -> set[Place]:
        """Records that were deleted or merged by mutations that no store records, or that need review."""
        heard = set().union(*self.heard.values())
        reviewed = {id for id, state, _ in self._states() if state == "needs_review"}
        marks = [
            each.mark.split()
            for id, each in self.queued.items()
            if self._count(id) and (id not in heard or id in reviewed)
        ]
        return {(mark[1], int(mark[2])) for mark in marks if mark[0] in ("delete", "merge")}

    def unknowable(self) -> list[str]:
        """Open mutations that took effect, and that no remaining store records as sent."""
        heard = set().union(*self.heard.values())
        return [id for id in self.open() if self._count(id) and id not in heard]

    # Result.

    def wrong(self) -> list[str]:
        """Violations of W1 and W2."""
        self._look()
        states = {id: (state, reason) for id, state, reason in self._states()}
        problems = [f"W1: {self.queued[id]} was queued and is gone" for id in self.kept - states.keys()]
        problems += [f"W1: {id} was never queued" for id in states.keys() - self.queued.keys()]
        for id, each in self.queued.items():
            count = self.effects[each.mark]
            if count > 1:
                problems.append(f"W2: {each} took effect {count} times")
            if id in self.applied and count != 1:
                problems.append(f"W2: {each} was applied and took effect {count} times")
            state, reason = states.get(id, (None, None))
            if state is None:
                continue
            if state in OPEN:
                problems.append(f"W1: {each} is still {state}")
            elif state in ("rejected", "conflict") and count:
                if id in self.put_back:
                    self.otherwise += 1
                else:
                    problems.append(f"W2: {each} is {state} ({reason}) and took effect {count} times")
        return problems


def _one(kind: str) -> str:
    """`kind` in the singular, as in the names of operations."""
    return kind.removesuffix("s").replace("ie", "y").title()
