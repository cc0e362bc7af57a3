"""Compares a first sync by pdsync with one by dlt: the same company, the same lists, the same machine, the same run.

    python benchmarks/sync.py                     # 679,000 records
    python benchmarks/sync.py --rows 20000        # a try
    python benchmarks/sync.py --memory            # pdsync's peak memory by the size of the company

README.md in this folder says what is measured, and what is not.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import signal
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python imports from this folder only

from benchmarks import contestants
from benchmarks.company import served, sizes
from benchmarks.measure import BenchmarkError, Usage, median

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


def compare(records: dict[str, int], options: argparse.Namespace) -> dict[str, object]:
    """Run every contestant, print the table, and return all of it."""
    tenth = options.dlt_default_rows
    if tenth is None:
        tenth = sum(records.values()) // 10
    for loader in ("parquet", *(("default",) if tenth else ())):
        contestants.dlt_python(loader, options.cache)
    contests = _full_size(records, options)
    if tenth:
        fewer = {"deals": tenth} if list(records) == ["deals"] else sizes(tenth)
        contests.append(_default_loader(fewer, options))
    named = {contest.name: contest for contest in contests}
    pdsync, rival = named[PDSYNC], named[DLT_PARQUET]
    ratios = {
        "rows_per_s_pdsync_to_dlt_parquet": pdsync.rows_per_s / rival.rows_per_s,
        "cpu_pdsync_to_dlt_parquet": pdsync.usage.cpu_s / rival.usage.cpu_s,
        "rows_per_s_pdsync_to_download": pdsync.rows_per_s / named[DOWNLOAD].rows_per_s,
    }
    _show(contests, ratios, options)
    return {
        "asked_for": records,
        "dlt_workers": options.dlt_workers,
        "contests": {name: contest.as_json() for name, contest in named.items()},
        "ratios": ratios,
    }


def _full_size(records: dict[str, int], options: argparse.Namespace) -> list[Contest]:
    with tempfile.TemporaryDirectory(prefix="pdsync-bench-") as folder:
        _say(f"Making a company of {sum(records.values()):,} records …")
        with served(records, Path(folder)) as company:
            contests = [Contest(name, company.total) for name in (DOWNLOAD, PDSYNC, DLT_PARQUET)]
            download, pdsync, dlt = contests
            _say(f"{company.total:,} of them are listed. Warming up …")
            contestants.download(company)  # the sandbox renders each record once, here
            for number in range(1, options.repeat + 1):
                _say(f"Round {number} of {options.repeat}: {DOWNLOAD} …")
                usage, download.bytes = contestants.download(company)
                download.runs.append(usage)
                _say(f"Round {number} of {options.repeat}: {PDSYNC} …")
                pdsync.runs.append(contestants.pdsync(company))
                _say(f"Round {number} of {options.repeat}: {DLT_PARQUET} …")
                dlt.runs.append(contestants.dlt(company, "parquet", options.cache, options.dlt_workers))
    return contests


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


def memory(options: argparse.Namespace) -> dict[str, object]:
    """Run pdsync on ever larger companies, print the peaks, and return all of it."""
    contests = []
    for deals in options.memory_deals:
        with tempfile.TemporaryDirectory(prefix="pdsync-bench-") as folder:
            _say(f"Making a company of {deals:,} deals …")
            with served({"deals": deals}, Path(folder)) as company:
                contest = Contest(f"pdsync, {deals:,} deals", company.total)
                for number in range(1, options.repeat + 1):
                    _say(f"Round {number} of {options.repeat}: {contest.name} …")
                    contest.runs.append(contestants.pdsync(company))
        contests.append(contest)
    _table(contests)
    first, last = contests[0], contests[-1]
    ratio = last.usage.peak_mib / first.usage.peak_mib
    print(f"\nPeak memory: {ratio:.2f}× for {last.rows / first.rows:.2f}× the rows.")
    return {"contests": {each.name: each.as_json() for each in contests}, "peak_ratio": ratio}


def _show(contests: list[Contest], ratios: dict[str, float], options: argparse.Namespace) -> None:
    download = contests[0]
    assert download.bytes is not None
    rate = download.bytes / MIB / download.usage.seconds
    runs = "1 run" if options.repeat == 1 else f"medians of {options.repeat} runs"
    print(f"{download.bytes / MIB:,.0f} MiB of JSON, {rate:,.0f} MiB/s when downloaded alone; {runs} each.\n")
    _table(contests)
    faster, cpu, pace = ratios.values()
    print(f"\npdsync : dlt, parquet     rows/s {faster:.2f} : 1     CPU {cpu:.2f} : 1")
    print(f"pdsync : download alone   rows/s {pace:.2f} : 1")


def _table(contests: list[Contest]) -> None:
    wide = max(len(contest.name) for contest in contests)
    print(f"{'':{wide}}       rows  seconds   rows/s    CPU s  CPU µs/row  peak MiB")
    for each in contests:
        usage = each.usage
        print(
            f"{each.name:{wide}}  {each.rows:9,}  {usage.seconds:7,.1f}  {each.rows_per_s:7,.0f}  {usage.cpu_s:7,.1f}"
            f"  {each.cpu_us_per_row:10,.0f}  {usage.peak_mib:8,.0f}"
        )


def _surroundings() -> dict[str, object]:
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"system": platform.platform(), "processor": platform.machine(), "cores": os.cpu_count()},
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("pdsync", "duckdb", "pyarrow", "aiohttp")},
            "dlt_parquet": contestants.pins("parquet"),
            "dlt_default": contestants.pins("default"),
        },
    }


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare a first sync by pdsync with one by dlt.")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--rows", type=int, default=679_000, metavar="TOTAL", help="records of five streams (679,000)")
    size.add_argument("--deals-only", type=int, metavar="N", help="N deals, and nothing else")
    size.add_argument("--memory", action="store_true", help="pdsync's peak memory by size, and nothing else")
    parser.add_argument(
        "--memory-deals", type=int, nargs="+", default=[200_000, 1_000_000], metavar="N", help="sizes for --memory"
    )
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="rounds; medians are shown (1)")
    parser.add_argument(
        "--dlt-default-rows", type=int, metavar="N", help="records for dlt's default loader (a tenth); 0 leaves it out"
    )
    parser.add_argument(
        "--dlt-workers", type=int, default=os.cpu_count() or 1, metavar="N", help="dlt's normalisers (one a core)"
    )
    cache = Path.home() / ".cache" / "pdsync-bench"
    parser.add_argument("--cache", type=Path, default=cache, help="where dlt is installed (~/.cache/pdsync-bench)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there, every single run too")
    options = parser.parse_args()
    options.cache = options.cache.expanduser().resolve()
    if min(options.repeat, options.dlt_workers, options.rows, *options.memory_deals) < 1:
        parser.error("sizes, rounds and workers start at 1")
    return options


def main() -> int:
    """Run the comparison. Returns 1 if it failed."""
    # SIGTERM must unwind too, so that no child process and no folder is left.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options = _options()
    try:
        if options.memory:
            found = memory(options)
        else:
            found = compare({"deals": options.deals_only} if options.deals_only else sizes(options.rows), options)
    except BenchmarkError as error:
        _say(f"Error: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    if options.json:
        options.json.write_text(json.dumps(_surroundings() | found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
