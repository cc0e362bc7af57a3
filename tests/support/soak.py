"""Simulates nights of a company in one process, and measures the process and its folder after each.

    soak = Soak(remote, project, seed=1)
    for _ in range(100):
        soak.night()
    soak.nights          # the measurements
    soak.drift()         # [] if the tables equal the source

By day users change records, on every third day one of them so that no list of changes shows it, and on every sixth a
row of the work file is lost. By night pdsync syncs and pushes; sometimes it reconciles, prunes its archive and exports.
The sandbox is another process, so that only pdsync can grow in this one.
"""

from __future__ import annotations

import asyncio
import gc
import json
import time
from random import Random
from typing import TYPE_CHECKING

import duckdb
import psutil
from msgspec import Struct

from tests.support.truth import differences

if TYPE_CHECKING:
    from tests.support.world import Project, Ran, Remote

DAY_S = 86_400
KINDS = ("deals", "persons", "organizations", "products", "activities")
TITLES = {"deals": "title", "persons": "name", "organizations": "name", "products": "name", "activities": "subject"}
# The files of the data folder while no command runs; all others are leftovers.
KEPT = {"warehouse.duckdb", "warehouse.work.duckdb", "control.db", "pdsync.lock", "push.lock"}


class Night(Struct, frozen=True):
    """The measurements after a night."""

    cpu_s: float  # processor time of this process: others on the machine do not change it much
    rss_mb: float  # MiB, as all sizes here
    descriptors: int
    threads: int
    tasks: int  # of asyncio, not done
    control_mb: float
    wal_mb: float  # beside control.db and the DuckDB files
    raw_mb: float
    warehouse_mb: float
    leftovers: tuple[str, ...]
    rows: int  # read by the sync


class Soak:
    """One project through many nights.

    Args:
        remote: its company.
        project: its folder.
        seed: of everything random.
        streams: to sync; all by default.
    """

    def __init__(self, remote: Remote, project: Project, seed: int = 1, streams: tuple[str, ...] = ()) -> None:
        self.remote, self.project, self.streams = remote, project, streams
        self.random = Random(seed)
        self.process = psutil.Process()
        self.nights: list[Night] = []
        self.repaired = 0

    def night(self) -> None:
        """Simulate a day of the company and the night after it."""
        number = len(self.nights) + 1
        self._day(number)
        began = time.process_time()
        synced = self._run("sync", *self.streams, "--json")
        self._push(number)
        if number % 4 == 0:
            deep = ("--deep",) if number % 8 == 0 else ()
            reconciled = self._run("reconcile", *self.streams, "--repair", "--max-tombstones", "1000", "--json", *deep)
            self.repaired += sum(bool(event.get("repaired")) for event in reconciled.events[:-1])
        if number % 3 == 0:
            self._run("export", "parquet", "--keep", "2")
        if number % 4 == 0:
            self._run("raw", "prune", "--keep-days", "0", "--yes")
        rows = sum(stream["read"] for stream in synced.summary["streams"].values())
        self.nights.append(self._measured(time.process_time() - began, rows))

    def drift(self) -> list[str]:
        """How the tables differ from the source after a last repair, and the differences that reconcile still finds."""
        self._run("sync", *self.streams, "--full", "-q")
        self._run("reconcile", *self.streams, "--repair", "--deep", "--max-tombstones", "1000", "--json")
        remaining = self._run("reconcile", *self.streams, "--deep", "--json").events[:-1]
        problems = [f"reconcile still finds {event}" for event in remaining]
        with self.project.warehouse() as warehouse:
            for kind in KINDS:
                rows = warehouse.execute(f"SELECT id FROM {kind} WHERE _deleted_at IS NOT NULL").fetchall()
                tombstoned = {row[0] for row in rows}
                dump = self.remote.dump(kind)
                problems += differences(warehouse, kind, dump, gone=tombstoned)
                alive = {entry["id"] for entry in dump if entry["state"] in ("live", "archived")}
                problems += [f"{kind} {id} is marked as deleted and is alive" for id in tombstoned & alive]
        return problems

    def _run(self, *arguments: str) -> Ran:
        ran = self.project.here(*arguments)
        assert ran.code == 0, (arguments, ran)
        return ran

    # By day.

    def _day(self, number: int) -> None:
        self.remote.advance(DAY_S - 3600)
        self.remote.change(0.02, seed=self.random.randrange(2**31), advance_s=3600)
        for each in KINDS:  # or deletions and merges would empty the company
            self.remote.post("act", method="POST", path=f"/api/v2/{each}", body={TITLES[each]: f"of day {number}"})
        kind = self.random.choice(KINDS)
        record = self._some(kind)
        self.remote.post("act", method="DELETE", path=f"/api/v2/{kind}/{self._some(kind)}")
        if number % 3 == 0:  # without a new update_time
            past = {"update_time": "2020-01-01T00:00:00Z"} if number % 2 else {}
            self.remote.post("edit", kind=kind, id=record, set={TITLES[kind]: f"in silence, night {number}", **past})
        if number % 6 == 0 and self.nights:  # directly in the work file
            with duckdb.connect(str(self.project.data / "warehouse.work.duckdb")) as file:
                file.execute(f"DELETE FROM main.{kind} WHERE id = ?", [self._some(kind)])

    def _some(self, kind: str) -> int:
        live = [entry["id"] for entry in self.remote.dump(kind) if entry["state"] == "live"]
        return int(self.random.choice(live))

    # By night.

    def _push(self, number: int) -> None:
        deal = self._some("deals")
        self._run("queue", "add", "updateDeal", f"id={deal}", f"title=Pushed in night {number}")
        self._run("queue", "add", "addActivity", f"subject=Added in night {number}", f"deal_id={deal}")
        self._run("push", "--yes", "--settle-seconds", "0.1", "-q")

    def _measured(self, cpu_s: float, rows: int) -> Night:
        gc.collect()
        process, data = self.process, self.project.data
        files = {str(path.relative_to(data)): path.stat().st_size for path in data.rglob("*") if path.is_file()}

        def mb(*ends: str, under: str = "") -> float:
            return sum(size for name, size in files.items() if name.startswith(under) and name.endswith(ends)) / 2**20

        expected = [name for name in files if name in KEPT or (name.startswith("raw/") and name.endswith(".zst"))]
        journal = {name for name in files if name.startswith("raw/outbox/")}  # one file a month
        exported = set(self._exported())
        tasks = [each for each in gc.get_objects() if isinstance(each, asyncio.Task) and not each.done()]
        return Night(
            cpu_s=cpu_s,
            rss_mb=process.memory_info().rss / 2**20,
            descriptors=process.num_fds(),
            threads=process.num_threads(),
            tasks=len(tasks),
            control_mb=mb("control.db"),
            wal_mb=mb("-wal", "-shm", ".wal"),
            raw_mb=mb("", under="raw/"),
            warehouse_mb=mb("warehouse.duckdb"),
            leftovers=tuple(sorted(files.keys() - set(expected) - exported - journal)),
            rows=rows,
        )

    def _exported(self) -> list[str]:
        """The files that the catalogue of the last export names."""
        path = self.project.data / "export" / "catalog.json"
        if not path.exists():
            return []
        tables = json.loads(path.read_text("utf-8"))["tables"].values()
        files = [file for table in tables for file in (table["file"], *table["older"])]
        return ["export/catalog.json", *(f"export/{file['path']}" for file in files)]
