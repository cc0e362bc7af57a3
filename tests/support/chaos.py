"""Queues mutations once and pushes them again and again while answers are lost and the process is killed.

    batch = Batch(project, remote, count=40, seed=1)
    batch.queue()
    batch.push_to_the_end(kills=3)
    batch.wrong()        # mutations that are lost, or that took effect twice, by the sandbox's journal: [] is right

Every mutation has a unique text, so the journal shows how often each took effect.
"""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from .world import wait_for

if TYPE_CHECKING:
    from .world import Project, Remote

WRITES = "^/(v1|api/v2)/(?!users/me|oauth)"
FAULTS: list[dict[str, Any]] = [
    {"kind": "reset_before", "probability": 0.02},
    {"kind": "reset_after", "probability": 0.03},
    {"kind": "status", "status": 502, "when": "after", "probability": 0.02},
    {"kind": "status", "status": 503, "probability": 0.01},
    {"kind": "truncate", "probability": 0.02},
    {"kind": "html_200", "probability": 0.005},
    {"kind": "timeout", "seconds": 1, "when": "after", "probability": 0.005},
    {"kind": "burst_429", "probability": 0.01},
    {"kind": "401", "probability": 0.002},
]
OPEN = ("queued", "approved", "armed", "unknown")


@dataclass
class Batch:
    """Mutations of one project, and their effects at the source."""

    project: Project
    remote: Remote
    count: int
    seed: int = 1
    merges: int = 2
    marks: list[str] = field(default_factory=list)
    pushes: int = 0
    kills: int = 0
    losses: list[str] = field(default_factory=list)  # times at which mutations were missing in control.db

    def queue(self) -> None:
        """Queue them in one file: updates, additions, deletions and merges of several kinds."""
        rows = self._rows(Random(self.seed))
        path = self.project.folder / "batch.ndjson"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        ran = self.project.here("queue", "import", str(path), "-q")
        assert ran.code == 0, ran

    def _rows(self, random: Random) -> list[dict[str, Any]]:
        live = {kind: self._live(kind) for kind in ("deals", "persons", "activities")}
        mergeable = [live["persons"].pop() for _ in range(2 * self.merges)]
        rows: list[dict[str, Any]] = []
        for number in range(self.count):
            mark = f"m{self.seed}-{number:05}"
            roll = random.random()
            if roll < 0.45:
                rows.append({"_operation": "updateDeal", "id": random.choice(live["deals"]), "title": mark})
            elif roll < 0.55:
                rows.append({"_operation": "updatePerson", "id": random.choice(live["persons"]), "name": mark})
            elif roll < 0.67:
                rows.append({"_operation": "addPerson", "name": mark, "emails": f"{mark}@example.com"})
            elif roll < 0.77:
                rows.append({"_operation": "addDeal", "title": mark, "value": number, "currency": "EUR"})
            elif roll < 0.83:
                rows.append({"_operation": "addOrganization", "name": mark})
            elif roll < 0.9:
                rows.append({"_operation": "addNote", "content": mark, "deal_id": random.choice(live["deals"])})
            elif roll < 0.95 or len(live["activities"]) < 5:
                rows.append({"_operation": "addActivity", "subject": mark, "type": "call"})
            else:
                id = live["activities"].pop()
                mark = f"delete {id}"
                rows.append({"_operation": "deleteActivity", "id": id})
            self.marks.append(mark)
        for index in range(0, len(mergeable), 2):
            self.marks.append(f"merge {mergeable[index]}")
            rows.append({"_operation": "mergePersons", "id": mergeable[index], "merge_with_id": mergeable[index + 1]})
        return rows

    def _live(self, kind: str) -> list[int]:
        return [entry["id"] for entry in self.remote.dump(kind) if entry["state"] == "live"]

    def push_to_the_end(self, *, kills: int = 0, most: int = 60) -> None:
        """Push until no mutation is open, at most `most` times; kill pushes at random until `kills` were killed."""
        random = Random(self.seed)
        command = ("push", "--yes", "--allow", "delete,merge", "--max-changes", "100000", "--max-deletes", "100000",
                   "--settle-seconds", "0.3", "-q")  # fmt: skip
        for _ in range(most):
            self.pushes += 1
            process = self.project.start(*command)
            if self.kills < kills:
                time.sleep(random.uniform(0.8, 4.0))
                process.send_signal(signal.SIGKILL)
                self.kills += process.wait() == -signal.SIGKILL
                process.communicate()
            else:
                wait_for(process)
            states = self.states()
            if sum(states.values()) != len(self.marks):
                self.losses.append(f"after push {self.pushes}: {dict(states)}")
            if not any(states[state] for state in OPEN):
                return

    def states(self) -> Counter[str]:
        return Counter(state for (state,) in self.project.control("SELECT state FROM mutations"))

    def wrong(self) -> list[str]:
        """Violations of W1 (each mutation ends once, none is lost) and W2 (it takes effect once or not at all)."""
        effects = self.effects()
        problems = [*self.losses]
        rows = self.project.control("SELECT state, reason, operation FROM mutations ORDER BY seq")
        for mark, (state, reason, operation) in zip(self.marks, rows, strict=True):
            count = effects[mark]
            allowed = {
                "applied": {0} if reason == "already_so" else {1},
                "rejected": {0},
                "conflict": {0},
                "needs_review": {0, 1},
            }.get(state)
            if allowed is None:
                problems.append(f"{operation} {mark} is still {state} ({reason})")
            elif count not in allowed:
                problems.append(f"{operation} {mark} is {state} ({reason}) and took effect {count} times")
        evidence = self.project.control(
            "SELECT seq FROM mutations m WHERE state = 'needs_review' AND NOT EXISTS"
            " (SELECT 1 FROM probes WHERE mutation = m.id)"
            " AND NOT EXISTS (SELECT 1 FROM attempts WHERE mutation = m.id)"
        )
        return problems + [f"#{seq} needs review without evidence" for (seq,) in evidence]

    def effects(self) -> Counter[str]:
        """How often each mark was written into a record, or its record was deleted or merged."""
        counts: Counter[str] = Counter()
        marks = set(self.marks)
        for entry in self.remote.lines("journal"):
            if entry["op"] in ("delete", "merge"):
                counts[f"{entry['op']} {entry['id']}"] += 1
            for name in ("title", "name", "content", "subject"):
                mark = (entry["after"] or {}).get(name)
                if mark in marks and (entry["before"] or {}).get(name) != mark:
                    counts[mark] += 1
        return counts
