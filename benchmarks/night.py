"""Compares a night by pdsync with a merge by dlt: the same company, the same changed records, the same run.

    python -m benchmarks.night                                  # 1,000,000 rows; 0, 0.1, 1 and 10 % of them change
    python -m benchmarks.night --rows 20000 --repeat 1          # a try
    python -m benchmarks.night --json benchmarks/results/night.json

Both have loaded everything before. Then, for each share, `--repeat` days pass: that share of each stream's records is
updated and a twelfth as many are added, at working hours; the changed records are fetched once, unmeasured, because the
sandbox renders each record once; at night both load what changed since their last load. The one that begins alternates.
After each night the tables are compared with the sandbox: rows, ids, and rows that changed that day.

pdsync reads the lists of changes of the five streams and their field definitions, seals every answer, writes the
versions of each row and a receipt, and publishes the warehouse. dlt reads the same lists and merges on `id`; it gets
the time of its last load as a parameter, so it keeps no state. Lists of changes show no deletions: none happen here.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import contestants, record
from benchmarks.backfill import admin
from benchmarks.company import served, sizes
from benchmarks.contestants import Changes
from benchmarks.measure import BenchmarkError, Usage, median

if TYPE_CHECKING:
    from benchmarks.company import Company

PDSYNC, DLT = "pdsync", "dlt, merge"
SHARES = (0.0, 0.001, 0.01, 0.1)
WORKING_S, EVENING_S = 8 * 3600, 16 * 3600  # of a day


@dataclass
class Nights:
    """The nights after days on which the same share of the records changed."""

    share: float
    changed: list[int] = field(default_factory=list)  # records, by night
    runs: dict[str, list[Usage]] = field(default_factory=lambda: {PDSYNC: [], DLT: []})

    def as_json(self) -> dict[str, object]:
        """Everything."""
        ours, theirs = (median(runs) for runs in self.runs.values())
        return {
            "share": self.share,
            "changed": self.changed,
            "contests": {
                name: {"median": asdict(median(runs)), "runs": [asdict(each) for each in runs]}
                for name, runs in self.runs.items()
            },
            "seconds_pdsync_to_dlt": ours.seconds / theirs.seconds,
            "cpu_pdsync_to_dlt": ours.cpu_s / theirs.cpu_s,
        }


@dataclass
class Contest:
    """Both programs, with the folders that they load into."""

    company: Company
    folder: Path
    options: argparse.Namespace

    def load(self, name: str, changes: Changes | None = None, since: datetime | None = None) -> Usage:
        """Run one of them; `changes` are what it must find, `since` is its last load."""
        place = self.folder / name.partition(",")[0]
        place.mkdir(exist_ok=True)
        if name == PDSYNC:
            return contestants.pdsync(self.company, place, changes)
        options = self.options
        return contestants.dlt(
            self.company,
            "parquet",
            options.cache,
            options.dlt_workers,
            folder=place,
            strategy=options.strategy,
            since=since,
            changes=changes,
        )


def compare(options: argparse.Namespace) -> dict[str, object]:
    """Load everything, let days pass, and return the figures of each night."""
    contestants.prepare(options.cache, "parquet")
    records = sizes(options.rows)
    with tempfile.TemporaryDirectory(prefix="pdsync-bench-") as name:
        folder = Path(name)
        _say(f"Making a company of {options.rows:,} records …")
        with served(records, folder) as company:
            contest = Contest(company, folder, options)
            _say(f"{company.total:,} of them are listed. Warming up …")
            contestants.download(company)
            since = _now(company)
            first = {}
            for each in (PDSYNC, DLT):
                _say(f"First load: {each} …")
                first[each] = asdict(contest.load(each))
            nights = [Nights(share) for share in options.shares]
            for each_share in nights:
                for number in range(options.repeat):
                    since = _night(contest, each_share, since, swap=bool(number % 2))
    show(nights)
    return {
        "rows": company.total,
        "by_stream": company.rows,
        "dlt_strategy": options.strategy,
        "dlt_workers": options.dlt_workers,
        "first_load": first,
        "nights": [each.as_json() for each in nights],
    }


def _night(contest: Contest, nights: Nights, since: datetime, *, swap: bool) -> datetime:
    """Let a day pass, then load what changed since `since`. Returns the time of the load."""
    changes, added = _day(contest.company, nights.share)
    rows = {stream: count + added[stream] for stream, count in contest.company.rows.items()}
    contest.company = replace(contest.company, rows=rows)  # deleted deals leave their list later, but not the tables
    contestants.download(contest.company, since)
    now = _now(contest.company)
    nights.changed.append(changes.total)
    for name in reversed(nights.runs) if swap else nights.runs:
        _say(f"{nights.share:.1%} changed, {changes.total:,} records, night {len(nights.changed)}: {name} …")
        nights.runs[name].append(contest.load(name, changes, since))
    return now


def _day(company: Company, share: float) -> tuple[Changes, dict[str, int]]:
    """Change a share of the records of each stream at working hours; it is night afterwards.

    Returns:
        What changed, and how many records were added, by stream.
    """
    now = _now(company)
    wanted = {"share": share, "kinds": list(company.rows), "only": ["updated", "added"], "advance_s": WORKING_S}
    changed: dict[str, Any] = json.loads(admin(company, "POST", "change", wanted))
    admin(company, "POST", "clock", {"advance_s": EVENING_S})
    added = {stream: len(ids["added"]) for stream, ids in changed.items()}
    return Changes(now, {stream: len(ids["updated"]) + added[stream] for stream, ids in changed.items()}), added


def _now(company: Company) -> datetime:
    """The time of the sandbox."""
    return datetime.fromisoformat(json.loads(admin(company, "GET", "summary"))["now"])


def show(nights: list[Nights]) -> None:
    """The table."""
    print(f"{'share':>6} {'changed':>9}  {'':10} {'seconds':>8} {'CPU s':>7} {'peak MiB':>9}")
    for each in nights:
        changed = statistics.median_low(each.changed)
        for name, runs in each.runs.items():
            usage = median(runs)
            print(
                f"{each.share:>6.1%} {changed:>9,}  {name:10} {usage.seconds:>8.2f}"
                f" {usage.cpu_s:>7.2f} {usage.peak_mib:>9.0f}"
            )


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rows", type=int, default=1_000_000, metavar="TOTAL", help="records of five streams")
    parser.add_argument(
        "--shares", type=float, nargs="+", default=list(SHARES), help="of the records, changed in a day"
    )
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="nights for each share; medians are shown")
    parser.add_argument(
        "--strategy", choices=["delete-insert", "upsert"], default="delete-insert", help="how dlt merges (its default)"
    )
    parser.add_argument(
        "--dlt-workers", type=int, default=1, metavar="N", help="dlt's normalisers (1: few rows are not worth more)"
    )
    parser.add_argument(
        "--cache", type=Path, default=contestants.CACHE, help="where dlt is installed (~/.cache/pdsync-bench)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there, every single run too")
    options = parser.parse_args()
    options.cache = options.cache.expanduser().resolve()
    if min(options.repeat, options.dlt_workers, options.rows) < 1:
        parser.error("sizes, nights and workers start at 1")
    return options


def main() -> int:
    """Run the comparison. Returns 1 if it failed."""
    # SIGTERM must unwind too, so that no child process and no folder is left.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options = _options()
    try:
        found = compare(options)
    except BenchmarkError as error:
        _say(f"Error: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    if options.json:
        record.save(options.json, "night", found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
