"""Shows that the rate limit bounds a backfill, not the latency.

    python -m benchmarks.backfill                  # 200,000 deals, 150 ms per answer, limits of 20, 40 and 120 per 2 s
    python -m benchmarks.backfill --deals 20000    # a try

The same company is read by `pdsync backfill deals`, first in one sequential walk (limits.concurrency = 1), then under
each limit in windows side by side. The figure is the time between the arrival of the first page's request and the
last page's answer, by the sandbox's log, compared with the shortest time that the limit allows for as many
requests: requests ÷ limit × 2 s. `pages needed` are those of the sequential walk; more pages are the cost of windows.
`until published` is the whole program, from its start to its exit, with typing, history and the published warehouse.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb

from benchmarks.company import Company, listings, served
from benchmarks.measure import BenchmarkError, clean_env, run

WINDOW_S = 2.0
_SINCE = "2000-01-01"
_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


@dataclass
class Read:
    """One backfill."""

    limit: int  # requests per 2 s; 0: none
    walks: str  # "one" or "side by side"
    requests: int
    walk_s: float  # first page's request to the last page's, by their arrival, and the latency of an answer
    total_s: float
    densest: int  # requests in any rolling 2 s, as the server saw them
    refused: int  # answers of 429

    @property
    def least_s(self) -> float:
        """The shortest time that the limit allows."""
        return self.requests / self.limit * WINDOW_S if self.limit else 0.0

    @property
    def ratio(self) -> float | None:
        """Time ÷ (requests ÷ limit)."""
        return self.walk_s / self.least_s if self.limit else None


def admin(company: Company, method: str, path: str, body: object = None) -> bytes:
    """Send a request to the sandbox's admin interface."""
    data = None if body is None else json.dumps(body).encode()
    with _open(urllib.request.Request(f"{company.url}/_admin/{path}", data, method=method), timeout=120) as answer:
        found: bytes = answer.read()
        return found


def measure(company: Company, rows: int, limit: int, latency_ms: float, *, alone: bool) -> Read:
    """One backfill into an empty project.

    Raises:
        BenchmarkError: it failed, or the table differs from the sandbox's lists.
    """
    admin(company, "POST", "limits", {"burst": limit or None})
    admin(company, "DELETE", "faults")
    admin(company, "POST", "faults", {"kind": "latency", "ms": latency_ms, "path": "deals"})
    admin(company, "DELETE", "log")
    time.sleep(WINDOW_S + 0.1)  # requests without a limit still count in the server's window
    with tempfile.TemporaryDirectory(prefix="pdsync-bench-") as name:
        folder = Path(name)
        env = clean_env(
            HOME=name, PDSYNC_BASE_URL=company.url, PDSYNC_API_TOKEN=company.token, PDSYNC_BURST=str(limit),
            PDSYNC_DAILY_TOKENS="0", PYTHONPATH=os.pathsep.join(sys.path),
        )  # fmt: skip
        if alone:
            env |= {"PDSYNC_CONCURRENCY": "1"}
        command = [sys.executable, "-m", "pdsync", "--project", name, "--no-input", "backfill", "deals"]
        usage = run([*command, "--since", _SINCE], env=env, folder=folder)
        _verify(folder / "data" / "warehouse.duckdb", rows)
    entries: list[dict[str, Any]] = [json.loads(line) for line in admin(company, "GET", "log").splitlines()]
    listed = sorted(each["monotonic_s"] for each in entries if each["operation"] in ("getDeals", "getArchivedDeals"))
    window = json.loads(admin(company, "GET", "window"))
    return Read(
        limit=limit,
        walks="one" if alone else "side by side",
        requests=len(listed),
        walk_s=listed[-1] - listed[0] + latency_ms / 1000,
        total_s=usage.seconds,
        densest=window["max"],
        refused=window["count_429"],
    )


def _verify(warehouse: Path, rows: int) -> None:
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        problems = connection.execute("SELECT count(*), count(DISTINCT id) FROM deals").fetchall()[0]
    if problems != (rows, rows):
        raise BenchmarkError(f"The table holds {problems[0]:,} rows, {problems[1]:,} ids; the lists show {rows:,}.")


def count(company: Company) -> int:
    """Count the deals of the list of changes without pdsync, page by page.

    Deals that were never edited have no update_time, and are in no list of changes. Also warms up the sandbox.
    """
    rows = 0
    for each in listings({"deals": 0}):
        cursor = ""
        while cursor is not None:
            query = {**each.query, "updated_since": f"{_SINCE}T00:00:00Z", **({"cursor": cursor} if cursor else {})}
            url = f"{company.url}{each.path}?{urllib.parse.urlencode(query)}"
            request = urllib.request.Request(url, headers={"x-api-token": company.token})
            with _open(request, timeout=120) as answer:
                page = json.load(answer)
            rows += len(page["data"])
            cursor = page["additional_data"]["next_cursor"]
    return rows


def show(reads: list[Read]) -> None:
    """The table."""
    print(
        f"{'limit per 2 s':>13} {'walks':>13} {'requests':>9} {'walking s':>10} {'limit s':>8} {'ratio':>6}"
        f" {'densest':>8} {'429':>4} {'until published s':>18}"
    )
    for each in reads:
        ratio = f"{each.ratio:.3f}" if each.ratio is not None else "–"
        print(
            f"{each.limit or 'none':>13} {each.walks:>13} {each.requests:>9,} {each.walk_s:>10.2f} {each.least_s:>8.2f}"
            f" {ratio:>6} {each.densest:>8} {each.refused:>4} {each.total_s:>18.1f}"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--deals", type=int, default=200_000)
    parser.add_argument("--latency-ms", type=float, default=150.0)
    parser.add_argument("--limits", type=int, nargs="+", default=[20, 40, 120])
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pdsync-bench-") as folder:
        print(f"Making a company of {options.deals:,} deals …", file=sys.stderr)
        with served({"deals": options.deals}, Path(folder)) as company:
            rows = count(company)
            reads = []
            for limit, alone in [(max(options.limits), True), *((limit, False) for limit in options.limits)]:
                print(f"Reading {rows:,} deals, {limit} requests per 2 s …", file=sys.stderr)
                reads.append(measure(company, rows, limit, options.latency_ms, alone=alone))
    print(f"{rows:,} deals, {options.latency_ms:.0f} ms an answer; pages needed: {reads[0].requests:,}")
    show(reads)
    worst = max(each.ratio or 0.0 for each in reads[1:])
    print(f"time ÷ (requests ÷ limit): at most {worst:.3f}")
    if options.json:
        options.json.write_text(json.dumps([asdict(each) | {"ratio": each.ratio} for each in reads], indent=2) + "\n")


if __name__ == "__main__":
    main()
