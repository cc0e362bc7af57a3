"""Makes a warehouse differ from its source: some records of each class of difference, and their right classes.

drift = Drift(project, box, count=3, seed=1)
drift.make()                 # at the source, and directly in the work file
drift.expected               # {("deals", "12"): "stale", …}
drift.wrong(findings)        # differences that reconcile missed, invented or classified wrongly: [] is right
drift.counts                 # after wrong(): how many were planted, found, missed, …
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING, Any

import duckdb

if TYPE_CHECKING:
    from collections.abc import Callable

    from pdsync.sandbox import RunningSandbox
    from tests.support.world import Project

ADDED = 900_000_000  # ids above those of any company
# Merged and purged records look the same without a child that shows where they went: both answer 404.
SAME = {"merged": {"merged"}, "purged": {"purged"}}
KINDS = ("deals", "persons", "organizations", "products", "activities", "notes", "leads", "files")
TITLES = {"deals": "title", "persons": "name", "organizations": "name", "products": "name", "activities": "subject",
          "notes": "content", "leads": "title"}  # fmt: skip
PATHS = {"notes": "/v1/notes", "leads": "/v1/leads", "files": "/v1/files"}
POINTERS = {"persons": ("person_id",), "organizations": ("org_id", "organization_id"), "deals": ("deal_id",)}
LONG_AGO = "2001-01-01T00:00:00Z"  # before any company of the sandbox
MADE = {"deals": ("leads", "lead_id"), "leads": ("deals", "deal_id")}
MERGE = {"persons": "/v1/persons", "organizations": "/v1/organizations", "deals": "/v1/deals"}


@dataclass
class Drift:
    """The differences that were made."""

    project: Project
    box: RunningSandbox
    count: int
    seed: int = 1
    kinds: tuple[str, ...] = KINDS
    expected: dict[tuple[str, str], str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def make(self) -> None:
        random, lives = Random(self.seed), dict[str, list[Any]]()
        for kind in self.kinds:  # merges first: they move the children of the loser, which changes their update_time
            lives[kind] = [entry["record"]["id"] for entry in self.box.dump(kind) if entry["state"] == "live"]
            random.shuffle(lives[kind])
            if kind in MERGE:
                self._merge(kind, lives[kind])
        for kind, live in lives.items():
            if kind in MADE:
                self._converted(kind, live)
            for name in ("missing", "extra", "restored", "stale", "backdated", "soft_deleted", "purged", "archived"):
                make: Callable[[str, list[Any]], None] = getattr(self, f"_{name}")
                make(kind, live)

        self._correct_hidden_differences()

    def _correct_hidden_differences(self) -> None:
        """Correct `expected` where later changes hide a difference: merges that no child shows, a later update_time."""
        for kind, columns in POINTERS.items():
            moved: set[str] = set()
            for child in self.kinds:
                entries = [each for each in self.box.dump(child) if each["state"] in ("live", "archived")]
                live = {str(each["id"]): each["record"] for each in entries}
                with self._file() as file:
                    columns_in_warehouse = {row[0] for row in file.execute(f'DESCRIBE main."{child}"').fetchall()}
                    for column in columns:
                        if column in columns_in_warehouse:
                            rows = file.execute(
                                f'SELECT id::VARCHAR, "{column}"::VARCHAR FROM main."{child}"'
                            ).fetchall()
                            moved |= {str(old) for id, old in rows if id in live and str(live[id].get(column)) != old}
            for address, name in list(self.expected.items()):
                if name == "merged" and address[0] == kind and address[1] not in moved:
                    self.expected[address] = "purged"
        for kind, id in [address for address, name in self.expected.items() if name == "backdated"]:
            if self.box.company[kind].rows[int(id)].record["update_time"] != LONG_AGO:
                self.expected[kind, id] = "stale"

    def by_class(self) -> Counter[str]:
        return Counter(self.expected.values())

    def wrong(self, findings: list[dict[str, Any]]) -> list[str]:
        """What is wrong with `findings`, the events of `reconcile --json`."""
        found = {(each["stream"], each["key"]): each["kind"] for each in findings if "key" in each}
        missed = [address for address in self.expected if address not in found]
        misnamed = [address for address, kind in self.expected.items() if found.get(address, kind) != kind]
        touched = {kind for kind, _ in self.expected}
        # A merge moves the children of the loser and a deletion changes counts: such records are stale too.
        invented = [
            address
            for address, kind in found.items()
            if address not in self.expected and address[0] in touched and kind != "stale"
        ]
        self.counts = {
            "differences planted": len(self.expected),
            "differences found": len(self.expected) - len(missed),
            "differences missed": len(missed),
            "differences of a wrong class": len(misnamed),
            "false differences": len(invented),
        }
        problems = [f"{address} is {self.expected[address]} and was not found" for address in missed]
        problems += [f"{each} is {self.expected[each]} and was called {found[each]}" for each in misnamed]
        return problems + [f"{each} does not differ and was called {found[each]}" for each in invented]

    # At the source.

    def _take(self, live: list[Any]) -> list[Any]:
        return [live.pop() for _ in range(min(self.count, max(len(live) - 3, 0)))]

    def _act(self, method: str, path: str, body: Any = None) -> Any:
        answer = self.box.act(method, path, body)
        assert answer.get("success"), (method, path, body, answer)
        return answer["data"]

    def _path(self, kind: str) -> str:
        return PATHS.get(kind, f"/api/v2/{kind}")

    def _stale(self, kind: str, live: list[Any]) -> None:
        if kind not in TITLES or kind == "notes":
            return
        for id in self._take(live):
            self._act("PATCH", f"{self._path(kind)}/{id}", {TITLES[kind]: f"stale {id}"})
            self.expected[kind, str(id)] = "stale"

    def _backdated(self, kind: str, live: list[Any]) -> None:
        if kind not in ("deals", "persons", "organizations", "products", "activities"):
            return
        with self.box.company.lock:
            for id in self._take(live):
                record = self.box.company[kind].rows[id].record
                had_time = record["update_time"] is not None  # else any time is later than what it was
                record |= {TITLES[kind]: f"backdated {id}", "update_time": LONG_AGO}
                self.box.company.put(kind, "silent", record)
                self.expected[kind, str(id)] = "backdated" if had_time else "stale"

    def _soft_deleted(self, kind: str, live: list[Any]) -> None:
        if kind in ("leads", "notes"):
            return
        for id in self._take(live):
            self._act("DELETE", f"{self._path(kind)}/{id}")
            self.expected[kind, str(id)] = "soft_deleted"

    def _purged(self, kind: str, live: list[Any]) -> None:
        if kind in ("leads", "notes"):
            return
        with self.box.company.lock:
            for id in self._take(live):
                self.box.company.remove(kind, id, "purged")
                self.expected[kind, str(id)] = "purged"

    def _archived(self, kind: str, live: list[Any]) -> None:
        if kind != "deals":
            return
        for id in self._take(live):
            self._act("PATCH", f"{self._path(kind)}/{id}", {"is_archived": True})
            self.expected[kind, str(id)] = "archived"

    def _merge(self, kind: str, live: list[Any]) -> None:
        """Merge records that have a child, which then shows into which record they were merged."""
        column = {"persons": "person_id", "organizations": "org_id", "deals": "deal_id"}[kind]
        child = {"deals": "activities"}.get(kind, "deals")
        hangs = {entry["record"][column] for entry in self.box.dump(child) if entry["state"] == "live"}
        losers = [id for id in live if id in hangs][: min(self.count, len(live) // 6)]
        for loser in losers:
            live.remove(loser)
            winner = live.pop()
            self._act("PUT", f"{MERGE[kind]}/{loser}/merge", {"merge_with_id": winner})
            self.expected[kind, str(loser)] = "merged"
            self.expected[kind, str(winner)] = "stale"

    def _converted(self, kind: str, live: list[Any]) -> None:
        """Convert records: the source is gone, and the record that was made of it is missing."""
        created, id_of = MADE[kind]
        for id in self._take(live):
            job = self._act("POST", f"/api/v2/{kind}/{id}/convert/{created.removesuffix('s')}")["conversion_id"]
            done = self._act("GET", f"/api/v2/{kind}/{id}/convert/status/{job}")
            self.expected[kind, str(id)] = "converted"
            self.expected[created, str(done[id_of])] = "missing"

    # Directly in the work file.

    def _missing(self, kind: str, live: list[Any]) -> None:
        self._spoil(kind, "missing", f'DELETE FROM main."{kind}" WHERE id = ?', live)

    def _restored(self, kind: str, live: list[Any]) -> None:
        self._spoil(kind, "restored", f'UPDATE main."{kind}" SET _deleted_at = now(), _row_hash = 0 WHERE id = ?', live)

    def _extra(self, kind: str, live: list[Any]) -> None:
        if kind in ("leads", "notes", "files"):
            return
        with self._file() as file:
            for number in range(self.count):
                id = ADDED + number
                file.execute(
                    f'INSERT INTO main."{kind}" SELECT * REPLACE (?::BIGINT AS id, \'nobody\' AS _run_id)'
                    f' FROM main."{kind}" WHERE id = ?', [id, live[-1]],
                )  # fmt: skip
                self.expected[kind, str(id)] = "extra"

    def _spoil(self, kind: str, name: str, statement: str, live: list[Any]) -> None:
        with self._file() as file:
            for id in self._take(live):
                file.execute(statement, [id])
                self.expected[kind, str(id)] = name

    def _file(self) -> duckdb.DuckDBPyConnection:
        return duckdb.connect(str(self.project.data / "warehouse.work.duckdb"))


def later(box: RunningSandbox, **time: float) -> None:
    """Advance the sandbox's clock, so that changes from now on are later than what was read."""
    box.clock.advance(timedelta(**time).total_seconds())
