"""Shows that the rate limit bounds a first sync, not the latency.

    python -m benchmarks.limits                     # two cases, limits of 20, 40, 80 and 120 per 2 s, medians of three
    python -m benchmarks.limits --scale 0.1 --repeat 1 --limits 40   # a try
    python -m benchmarks.limits --json limits.json

Two first syncs: of 250,000 deals and persons, and of all nightly streams of a company with 40,000 deals. Each answer
takes 150 ± 100 ms, the server has a process of its own, and its records have been served once before.

The figure is the time from the arrival of the first request to the last answer, by the sandbox's log, divided by the
shortest time that the limit allows for as many requests: requests ÷ limit × 2 s. `one cursor` is the same sync with
limits.concurrency = 1: one page after the other of one list after the other. More requests than that are the cost
of reading side by side.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from benchmarks import record
from benchmarks.backfill import WINDOW_S, admin
from benchmarks.company import served
from benchmarks.measure import clean_env, run

if TYPE_CHECKING:
    from benchmarks.company import Company

LATENCY = {"kind": "latency", "ms": 150.0, "jitter_ms": 100.0}


@dataclass(frozen=True)
class Case:
    """A company, and what is read of it."""

    name: str
    records: dict[str, int]
    streams: tuple[str, ...]  # none: all nightly ones

    @classmethod
    def all(cls, scale: float) -> list[Case]:
        """Both cases, with `scale` times as many records."""

        def scaled(**records: int) -> dict[str, int]:
            return {kind: max(int(count * scale), 1) for kind, count in records.items()}

        company = scaled(
            deals=40_000, persons=30_000, organizations=14_000, activities=56_000, products=1_000, files=4_000,
            mail_threads=4_000,
        )  # fmt: skip
        return [
            Case("two streams", scaled(deals=150_000, persons=100_000), ("deals", "persons")),
            Case("company", company, ()),
        ]


@dataclass
class Read:
    """One first sync."""

    case: str
    limit: int  # requests per 2 s
    walks: str  # "one cursor" or "side by side"
    rows: int
    requests: int
    tokens: int
    seconds: float  # first request's arrival to the last one's, and the mean latency of an answer
    densest: int  # requests in any rolling 2 s, as the server saw them
    refused: int  # answers of 429

    @property
    def ratio(self) -> float:
        """Time ÷ (requests ÷ limit)."""
        return self.seconds / (self.requests / self.limit * WINDOW_S)


def measure(company: Company, case: Case, limit: int, *, alone: bool = False, latency: bool = True) -> Read:
    """One first sync into an empty project; `limit` 0 and without `latency` to have each record served once.

    Raises:
        BenchmarkError: it failed.
    """
    admin(company, "POST", "limits", {"burst": limit or None})
    admin(company, "DELETE", "faults")
    if latency:
        admin(company, "POST", "faults", LATENCY)
    admin(company, "DELETE", "log")
    time.sleep(WINDOW_S + 0.1)  # requests without a limit still count in the server's window
    with tempfile.TemporaryDirectory(prefix="pdsync-bench-") as name:
        env = clean_env(
            HOME=name, PDSYNC_BASE_URL=company.url, PDSYNC_API_TOKEN=company.token, PDSYNC_BURST=str(limit),
            PDSYNC_DAILY_TOKENS="0", PYTHONPATH=os.pathsep.join(sys.path),
            **({"PDSYNC_CONCURRENCY": "1"} if alone else {}),
        )  # fmt: skip
        run([sys.executable, "-m", "pdsync", "--project", name, "sync", *case.streams], env=env, folder=Path(name))
        with duckdb.connect(str(Path(name) / "data" / "warehouse.duckdb"), read_only=True) as connection:
            rows = connection.execute("SELECT sum(read) FROM meta.streams").fetchall()[0][0]
    entries: list[dict[str, Any]] = [json.loads(line) for line in admin(company, "GET", "log").splitlines()]
    arrived = sorted(entry["monotonic_s"] for entry in entries)
    window = json.loads(admin(company, "GET", "window"))
    return Read(
        case=case.name,
        limit=limit,
        walks="one cursor" if alone else "side by side",
        rows=int(rows or 0),
        requests=len(entries),
        tokens=sum(entry.get("cost") or 0 for entry in entries),
        seconds=arrived[-1] - arrived[0] + (LATENCY["ms"] / 1000 if latency else 0),  # type: ignore[operator]
        densest=window["max"],
        refused=window["count_429"],
    )


def show(reads: list[Read]) -> None:
    """The table."""
    print(
        f"{'case':<12} {'limit per 2 s':>13} {'walks':>13} {'rows':>9} {'requests':>9} {'tokens':>8} {'seconds':>8}"
        f" {'bound s':>8} {'ratio':>6} {'densest':>8} {'429':>4}"
    )
    for each in reads:
        bound = each.requests / each.limit * WINDOW_S
        print(
            f"{each.case:<12} {each.limit:>13} {each.walks:>13} {each.rows:>9,} {each.requests:>9,} {each.tokens:>8,}"
            f" {each.seconds:>8.1f} {bound:>8.1f} {each.ratio:>6.2f} {each.densest:>8} {each.refused:>4}"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--scale", type=float, default=1.0, help="times as many records")
    parser.add_argument("--repeat", type=int, default=3, help="the number of syncs; medians are shown")
    parser.add_argument("--limits", type=int, nargs="+", default=[20, 40, 80, 120])
    parser.add_argument("--cases", nargs="+", default=["two streams", "company"])
    parser.add_argument("--alone", action=argparse.BooleanOptionalAction, default=True, help="also with one cursor")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args()
    medians = []
    for case in Case.all(options.scale):
        if case.name not in options.cases:
            continue
        with tempfile.TemporaryDirectory(prefix="pdsync-bench-") as folder:
            print(f"{case.name}: making {sum(case.records.values()):,} records …", file=sys.stderr)
            with served(case.records, Path(folder)) as company:
                measure(company, case, 0, latency=False)
                runs = [(limit, False) for limit in options.limits]
                for limit, alone in [*([(max(options.limits), True)] if options.alone else []), *runs]:
                    reads = [measure(company, case, limit, alone=alone) for _ in range(1 if alone else options.repeat)]
                    medians.append(sorted(reads, key=lambda read: read.ratio)[len(reads) // 2])
                    show(medians[-1:])
    show(medians)
    if options.json:
        record.save(options.json, "limits", {"reads": [asdict(read) | {"ratio": read.ratio} for read in medians]})


if __name__ == "__main__":
    main()
