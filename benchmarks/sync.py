"""Compares a first sync by pdsync with one by dlt: the same company, the same lists, the same machine, the same run.

    python -m benchmarks.sync                                # 679,000 records
    python -m benchmarks.sync --rows 20000                   # a try
    python -m benchmarks.sync --rows 200000 679000 2000000   # by size; dlt loads at most 700,000 records

README.md in this folder says what is measured, and what is not.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python imports from this folder only

from benchmarks import contestants, record
from benchmarks.company import served, sizes
from benchmarks.measure import BenchmarkError, Usage, median

if TYPE_CHECKING:
    from benchmarks.company import Company

DOWNLOAD, PDSYNC = "download alone", "pdsync"
DLT_PARQUET, DLT_DEFAULT = "dlt, parquet", "dlt, default loader"
MIB = 1024 * 1024


@dataclass
class Contest:
    """One contestant's runs, all of the same rows."""

    name: str
    rows: int
    runs: list[Usage] = field(default_factory=list)
    bytes: int | None = None

    @property
    def usage(self) -> Usage:
        """The medians."""
        return median(self.runs)

    @property
    def rows_per_s(self) -> float:
        """Rows per second of wall time, from the start of the program to its exit."""
        return self.rows / self.usage.seconds

    @property
    def cpu_us_per_row(self) -> float:
        """Processor time, user's and system's."""
        return self.usage.cpu_s * 1e6 / self.rows

    def as_json(self) -> dict[str, object]:
        """Everything, with units in the names."""
        return {
            "rows": self.rows,
            "bytes": self.bytes,
            "rows_per_s": self.rows_per_s,
            "cpu_us_per_row": self.cpu_us_per_row,
            "median": asdict(self.usage),
            "runs": [asdict(each) for each in self.runs],
        }


def compare(records: dict[str, int], options: argparse.Namespace) -> list[Contest]:
    """Run the contestants on one company, and dlt's default loader on a smaller one.

    Returns:
        The download first, then pdsync, then dlt's loaders where they were run.
    """
    with tempfile.TemporaryDirectory(prefix="pdsync-bench-") as folder:
        _say(f"Making a company of {sum(records.values()):,} records …")
        with served(records, Path(folder)) as company:
            has_dlt = sum(records.values()) <= options.dlt_most
            names = (DOWNLOAD, PDSYNC, *((DLT_PARQUET,) if has_dlt else ()))
            contests = [Contest(name, company.total) for name in names]
            _say(f"{company.total:,} of them are listed. Warming up …")
            contestants.download(company)  # the sandbox renders each record once, here
            for number in range(1, options.repeat + 1):
                for contest in contests:
                    _say(f"Round {number} of {options.repeat}: {contest.name} …")
                    _run(contest, company, options)
    if has_dlt and (tenth := _tenth(records, options)):
        fewer = {"deals": tenth} if list(records) == ["deals"] else sizes(tenth)
        contests.append(_default_loader(fewer, options))
    return contests


def _run(contest: Contest, company: Company, options: argparse.Namespace) -> None:
    """Run a contestant once."""
    if contest.name == DOWNLOAD:
        usage, contest.bytes = contestants.download(company)
    elif contest.name == PDSYNC:
        usage = contestants.pdsync(company)
    else:
        usage = contestants.dlt(company, "parquet", options.cache, options.dlt_workers)
    contest.runs.append(usage)


def _tenth(records: dict[str, int], options: argparse.Namespace) -> int:
    """How many records dlt's default loader gets."""
    given: int | None = options.dlt_default_rows
    return sum(records.values()) // 10 if given is None else given


def _default_loader(records: dict[str, int], options: argparse.Namespace) -> Contest:
    with tempfile.TemporaryDirectory(prefix="pdsync-bench-") as folder:
        _say(f"Making a company of {sum(records.values()):,} records …")
        with served(records, Path(folder)) as company:
            contest = Contest(DLT_DEFAULT, company.total)
            contestants.download(company)
            for number in range(1, options.repeat + 1):
                _say(f"Round {number} of {options.repeat}: {DLT_DEFAULT}, {company.total:,} rows …")
                contest.runs.append(contestants.dlt(company, "default", options.cache, options.dlt_workers))
    return contest


def as_json(records: dict[str, int], contests: list[Contest]) -> dict[str, object]:
    """The contests on one company, and their ratios."""
    return {
        "asked_for": records,
        "rows": contests[0].rows,
        "contests": {contest.name: contest.as_json() for contest in contests},
        "ratios": _ratios(contests),
    }


def _ratios(contests: list[Contest]) -> dict[str, float]:
    named = {contest.name: contest for contest in contests}
    pdsync = named[PDSYNC]
    ratios = {"rows_per_s_pdsync_to_download": pdsync.rows_per_s / named[DOWNLOAD].rows_per_s}
    if rival := named.get(DLT_PARQUET):
        ratios["rows_per_s_pdsync_to_dlt_parquet"] = pdsync.rows_per_s / rival.rows_per_s
        ratios["cpu_pdsync_to_dlt_parquet"] = pdsync.usage.cpu_s / rival.usage.cpu_s
    return ratios


def _show(contests: list[Contest], options: argparse.Namespace) -> None:
    download = contests[0]
    assert download.bytes is not None
    rate = download.bytes / MIB / download.usage.seconds
    runs = "1 run" if options.repeat == 1 else f"medians of {options.repeat} runs"
    print(f"\n{download.bytes / MIB:,.0f} MiB of JSON, {rate:,.0f} MiB/s when downloaded alone; {runs} each.\n")
    _table(contests)
    print()
    for name, ratio in _ratios(contests).items():
        print(f"{name:34} {ratio:.2f} : 1")


def _show_growth(by_size: list[list[Contest]]) -> None:
    """How pdsync's memory grows with the company."""
    first, *_, last = sorted((contests[1] for contests in by_size), key=lambda contest: contest.rows)
    ratio = last.usage.peak_mib / first.usage.peak_mib
    print(f"\nPeak memory of pdsync: {ratio:.2f}× for {last.rows / first.rows:.2f}× the rows.")


def _table(contests: list[Contest]) -> None:
    wide = max(len(contest.name) for contest in contests)
    print(f"{'':{wide}}       rows  seconds   rows/s    CPU s  CPU µs/row  peak MiB")
    for each in contests:
        usage = each.usage
        print(
            f"{each.name:{wide}}  {each.rows:9,}  {usage.seconds:7,.1f}  {each.rows_per_s:7,.0f}  {usage.cpu_s:7,.1f}"
            f"  {each.cpu_us_per_row:10,.0f}  {usage.peak_mib:8,.0f}"
        )


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare a first sync by pdsync with one by dlt.")
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--rows", type=int, nargs="+", default=[679_000], metavar="TOTAL", help="records of five streams (679,000)"
    )
    size.add_argument("--deals-only", type=int, nargs="+", metavar="N", help="N deals, and nothing else")
    parser.add_argument(
        "--dlt-most", type=int, default=700_000, metavar="N", help="dlt loads no larger companies (700,000); 0: none"
    )
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="rounds; medians are shown (1)")
    parser.add_argument(
        "--dlt-default-rows", type=int, metavar="N", help="records for dlt's default loader (a tenth); 0 leaves it out"
    )
    parser.add_argument(
        "--dlt-workers", type=int, default=os.cpu_count() or 1, metavar="N", help="dlt's normalisers (one a core)"
    )
    parser.add_argument(
        "--cache", type=Path, default=contestants.CACHE, help="where dlt is installed (~/.cache/pdsync-bench)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there, every single run too")
    options = parser.parse_args()
    options.cache = options.cache.expanduser().resolve()
    if min(options.repeat, options.dlt_workers, *options.rows, *(options.deals_only or ())) < 1:
        parser.error("sizes, rounds and workers start at 1")
    return options


def main() -> int:
    """Run the comparison. Returns 1 if it failed."""
    # SIGTERM must unwind too, so that no child process and no folder is left.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options = _options()
    records = [{"deals": deals} for deals in options.deals_only or ()] or [sizes(rows) for rows in options.rows]
    by_size = []
    try:
        contestants.prepare(options.cache, *(("parquet", "default") if options.dlt_most else ()))
        for each in records:
            by_size.append(compare(each, options))
            _show(by_size[-1], options)
    except BenchmarkError as error:
        _say(f"Error: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    if len(by_size) > 1:
        _show_growth(by_size)
    if options.json:
        found = [as_json(size, contests) for size, contests in zip(records, by_size, strict=True)]
        record.save(options.json, "sync", {"dlt_workers": options.dlt_workers, "sizes": found})
    return 0


if __name__ == "__main__":
    sys.exit(main())
