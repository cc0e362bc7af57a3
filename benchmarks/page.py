"""Writes docs/performance.md and its plots from the JSON files in benchmarks/results.

    python -m benchmarks.page          # after `pip install -e '.[benchmarks]'`
    python -m benchmarks.page --check  # 1 if the page or a plot is not what the JSON gives; draws nothing

Each number of the page comes from there. A section is left out while its file is missing.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from benchmarks import plots
from benchmarks.plots import Plot, Series
from benchmarks.record import RESULTS, ROOT

if TYPE_CHECKING:
    from pathlib import Path

Figures = dict[str, Any]

PAGE = ROOT / "docs" / "performance.md"
PLOTS = ROOT / "docs" / "performance"
_PDSYNC, _DLT, _MERGE, _DOWNLOAD = "pdsync", "dlt, parquet", "dlt, merge", "download alone"
_ONE_CURSOR = "one cursor"  # of a read: not side by side
_QUIET = 0.05  # of the machine's processor time, used by other programs
_SMALL = 150_000  # rows: below, most of the time is start-up

_INTRO = """\
# Performance

What a first load, the rate limit and a night cost, as measured by the programs in
[`benchmarks/`](../benchmarks/README.md). `python -m benchmarks.page` writes this page from the JSON files in
[`benchmarks/results/`](../benchmarks/results), which have each single run, all versions and the command that
repeats it.

The API is `pdsync sandbox serve`, a process of its own on the same machine. Time and processor time are the kernel's,
of the whole program from its start to its exit, with all its children; memory is the peak of its largest process.
Figures are medians.
"""
_LOAD = """
## A first load, by size

Five streams (deals, persons, organizations, activities, products) from a server without limits into an empty project:
each answer sealed, each row typed, custom fields under their names, history and receipt written, the warehouse
published. dlt's REST API source loads the same lists into DuckDB by Parquet, its fastest way, in the same run; it keeps
neither answers nor history.
"""
_LIMITS = """
## At the rate limit

Two first syncs from a server that takes 150 ± 100 ms for an answer: of deals and persons ("two streams"), and of all
nightly streams of a company ("company"). The bound is requests ÷ limit: no client can be faster. "One cursor" reads one
page after the other of one list after the other. In "most in 2 s", requests are counted by the server.
"""
_NIGHT = """
## A night, by share of changes

Everything was loaded before. A day passes, in which a share of the records of each of the five streams is updated and a
twelfth as many are added; then both programs read the same lists of changes. dlt merges them ({strategy}). pdsync also
keeps the version before each change, seals the answers, writes a receipt and publishes the warehouse in one step. The
rows that changed are counted in both databases after each night.
"""
_FAIR = """
## What these figures do not show

Pipedrive's own speed: there, both programs mostly wait for the rate limit. Records of other shapes than the sandbox's.
Deletions, which no list of changes shows: pdsync finds them in its nightly verification, which is not part of these
nights, and dlt's merge does not look for them. [benchmarks/README.md](../benchmarks/README.md) says what is fair and
what is not.
"""


def load(folder: Path = RESULTS) -> dict[str, Figures]:
    """The figures of each benchmark that has a file."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}


def text(results: dict[str, Figures]) -> str:
    """The page."""
    parts = [_INTRO, _goals(results)]
    if found := results.get("sync"):
        parts += [_LOAD, *_section(found, max(_rows(found)), load_plots(found), _load_table(found))]
    if found := results.get("limits"):
        rows = max(read["rows"] for read in found["reads"])
        parts += [_LIMITS, *_section(found, rows, limit_plots(found), _limit_table(found))]
    if found := results.get("night"):
        introduction = _NIGHT.format(strategy=f"`{found['dlt_strategy']}`")
        parts += [introduction, *_section(found, found["rows"], night_plots(found), _night_table(found))]
    return "\n".join(part.strip("\n") + "\n" for part in [*parts, _FAIR] if part)


def _section(found: Figures, rows: int, plots_of_it: list[Plot], table: str) -> list[str]:
    return [_doubts(found, rows), _images(plots_of_it), table, _source(found)]


def all_plots(results: dict[str, Figures]) -> list[Plot]:
    """The plots of the page."""
    makers = {"sync": load_plots, "limits": limit_plots, "night": night_plots}
    return [plot for name, make in makers.items() if name in results for plot in make(results[name])]


def load_plots(found: Figures) -> list[Plot]:
    """Rows per second, processor time and memory by size."""

    def plot(name: str, title: str, figure: str, *contestants: str) -> Plot:
        values = {
            each: tuple(_figure(size["contests"].get(each), figure) for size in found["sizes"]) for each in contestants
        }
        series = tuple(Series(each, line) for each, line in values.items() if any(v is not None for v in line))
        return Plot(name, title, "rows", tuple(_short(rows) for rows in _rows(found)), series)

    return [
        plot("load-speed", "Rows per second", "rows_per_s", _PDSYNC, _DLT),
        plot("load-cpu", "Processor time per row, µs", "cpu_us_per_row", _PDSYNC, _DLT),
        plot("load-memory", "Peak memory, MiB", "peak_mib", _PDSYNC, _DLT),
    ]


def limit_plots(found: Figures) -> list[Plot]:
    """Time ÷ bound, by limit."""
    reads = [read for read in found["reads"] if read["walks"] != _ONE_CURSOR]
    limits = sorted({read["limit"] for read in reads})
    series = tuple(
        Series(case, tuple(_ratio(reads, case, limit) for limit in limits))
        for case in dict.fromkeys(read["case"] for read in reads)
    )
    labels = tuple(str(limit) for limit in limits)
    title = "Time ÷ bound; 1 is what the limit allows"
    least = min(0.95, *(value for each in series for value in each.values if value is not None))
    return [Plot("limits", title, "limit, requests per 2 s", labels, series, least, ".2f")]


def night_plots(found: Figures) -> list[Plot]:
    """Time and processor time by share."""
    labels = tuple(_percent(night["share"]) for night in found["nights"])

    def plot(name: str, title: str, figure: str) -> Plot:
        series = tuple(
            Series(each, tuple(night["contests"][each]["median"][figure] for night in found["nights"]))
            for each in (_PDSYNC, _MERGE)
        )
        return Plot(name, title, f"changed of {_short(found['rows'])} rows", labels, series, format=".1f")

    return [plot("night-time", "A night, seconds", "seconds"), plot("night-cpu", "A night, CPU seconds", "cpu_s")]


def _goals(results: dict[str, Figures]) -> str:
    """What was to be reached, where it was measured at the size that the goal names, on a quiet machine."""
    results = {name: found for name, found in results.items() if not _is_busy(found)}
    rows: list[tuple[str, str, float, float, bool]] = []  # goal, format, bound, figure, whether the bound is the least
    sizes = {sum(size["asked_for"].values()): size for size in results.get("sync", {}).get("sizes", [])}
    if full := sizes.get(679_000):
        contests, ratios = full["contests"], full["ratios"]
        rows += [
            ("679,000 rows: rows/s, pdsync ÷ dlt", ".1f", 8, ratios["rows_per_s_pdsync_to_dlt_parquet"], True),
            ("679,000 rows: processor time, pdsync ÷ dlt", ".3f", 0.15, ratios["cpu_pdsync_to_dlt_parquet"], False),
            ("679,000 rows: CPU µs per row", ".1f", 28, contests[_PDSYNC]["cpu_us_per_row"], False),
            ("679,000 rows: peak memory, MiB", ".0f", 800, contests[_PDSYNC]["median"]["peak_mib"], False),
        ]
    if (least := sizes.get(200_000)) and (most := sizes.get(2_000_000)):
        peaks = [size["contests"][_PDSYNC]["median"]["peak_mib"] for size in (least, most)]
        rows.append(("Peak memory, 2,000,000 ÷ 200,000 rows", ".2f", 1.3, peaks[1] / peaks[0], False))
    reads = results.get("limits", {}).get("reads", [])
    is_full = max((read["rows"] for read in reads), default=0) >= _SMALL
    for limit in (20, 40, 80, 120) if is_full else ():
        ratios = [read["ratio"] for read in reads if read["limit"] == limit and read["walks"] != _ONE_CURSOR]
        if ratios:
            goal = f"Time ÷ bound, {limit} per 2 s"
            rows.append((goal, ".3f", 1.15 if limit == 120 else 1.1, max(ratios), False))
    night = results.get("night", {})
    one_percent = [each for each in night.get("nights", []) if each["share"] == 0.01]
    if one_percent and night["rows"] > 900_000:
        figure = one_percent[0]["seconds_pdsync_to_dlt"]
        rows.append(("1 % of 1,000,000 rows changed: seconds, pdsync ÷ dlt", ".3f", 1, figure, False))
    if not rows:
        return ""
    lines = ["| goal | | measured | |", "|---|---:|---:|---|"]
    for goal, form, bound, figure, is_least in rows:
        is_reached = figure >= bound if is_least else figure <= bound
        sign = "≥" if is_least else "≤"
        lines.append(f"| {goal} | {sign} {bound:g} | {figure:{form}} | {'reached' if is_reached else 'missed'} |")
    return "\n".join(lines)


def _load_table(found: Figures) -> str:
    lines = ["| rows | | seconds | rows/s | CPU µs/row | peak MiB |", "|---:|---|---:|---:|---:|---:|"]
    for size in found["sizes"]:
        for name, contest in size["contests"].items():
            usage = contest["median"]
            lines.append(
                f"| {contest['rows']:,} | {name} | {usage['seconds']:,.1f} | {contest['rows_per_s']:,.0f}"
                f" | {contest['cpu_us_per_row']:,.1f} | {usage['peak_mib']:,.0f} |"
            )
    return "\n".join(lines)


def _limit_table(found: Figures) -> str:
    lines = [
        "| | limit per 2 s | read | rows | requests | tokens | seconds | ÷ bound | most in 2 s | 429 |",
        "|---|---:|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {read['case']} | {read['limit']} | {read['walks']} | {read['rows']:,} | {read['requests']:,}"
        f" | {read['tokens']:,} | {read['seconds']:,.1f} | {read['ratio']:.2f} | {read['densest']}"
        f" | {read['refused']} |"
        for read in found["reads"]
    ]
    return "\n".join(lines)


def _night_table(found: Figures) -> str:
    lines = [
        "| share | records changed | | seconds | CPU s | peak MiB |",
        "|---:|---:|---|---:|---:|---:|",
    ]
    for night in found["nights"]:
        changed = sorted(night["changed"])[len(night["changed"]) // 2]
        for name, contest in night["contests"].items():
            usage = contest["median"]
            lines.append(
                f"| {_percent(night['share'])} | {changed:,} | {name} | {usage['seconds']:,.2f} | {usage['cpu_s']:,.2f}"
                f" | {usage['peak_mib']:,.0f} |"
            )
    return "\n".join(lines)


def _doubts(found: Figures, rows: int) -> str:
    """Why to doubt the figures of a section, if there is a reason."""
    doubts = ["A try: too few rows to mean more than start-up."] if rows < _SMALL else []
    if _is_busy(found):
        others = found["machine"]["used_by_others"]
        doubts.append(
            f"The machine was busy: other programs used {others:.0%} of it meanwhile. Seconds and rows/s compare"
            " nothing, processor time only roughly."
        )
    if found.get("is_modified"):
        doubts.append("With changes that are not in the commit.")
    return f"**{' '.join(doubts)}**" if doubts else ""


def _source(found: Figures) -> str:
    """When, where and by which command the figures of a section were measured."""
    machine, versions = found["machine"], found.get("versions", {})
    commit = f", commit `{found['commit']}`" if found.get("commit") else ""
    where = [f"{machine['cores']} cores"]
    where += [machine["processor"]] if "processor" in machine else []
    where += [f"{machine['memory_gib']:.0f} GiB"] if "memory_gib" in machine else []
    used = [f"{name} {versions[name]}" for name in ("python", "duckdb", "pyarrow") if name in versions]
    used += [f"dlt {versions['dlt_parquet']['dlt']}"] if "dlt_parquet" in versions else []
    return f"{found['at'][:10]}{commit}; {', '.join([*where, *used])}; `{found['command']}`."


def _is_busy(found: Figures) -> bool:
    return (found["machine"].get("used_by_others") or 0.0) > _QUIET


def _images(these: list[Plot]) -> str:
    return "\n".join(f"![{plot.text}](performance/{plot.name}.svg)" for plot in these)


def _rows(found: Figures) -> list[int]:
    return [size["rows"] for size in found["sizes"]]


def _figure(contest: Figures | None, figure: str) -> float | None:
    if contest is None:
        return None
    value: float = contest[figure] if figure in contest else contest["median"][figure]
    return value


def _ratio(reads: list[Figures], case: str, limit: int) -> float | None:
    return next((read["ratio"] for read in reads if (read["case"], read["limit"]) == (case, limit)), None)


def _percent(share: float) -> str:
    return f"{share * 100:.10g} %"


def _short(rows: int) -> str:
    """1,975,000 as 1.98M, 195,000 as 195k."""
    return f"{rows / 1e6:.3g}M" if rows >= 1e6 else f"{rows / 1e3:.3g}k"


def differences(results: dict[str, Figures]) -> list[str]:
    """The files that are not what `results` give."""
    wanted = {plot.name: plot for plot in all_plots(results)}
    drawn = {path.stem: path.read_text(encoding="utf-8") for path in PLOTS.glob("*.svg")}
    wrong = [
        f"{name}.svg"
        for name in sorted(wanted.keys() | drawn.keys())
        if name not in wanted or f"<desc>data {wanted[name].digest}</desc>" not in drawn.get(name, "")
    ]
    page = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    return ([PAGE.name] if page != text(results) else []) + wrong


def write(results: dict[str, Figures]) -> None:
    """Write the page and its plots; plots of sections that are left out are removed."""
    drawn = {plot.name: plots.draw(plot) for plot in all_plots(results)}
    PLOTS.mkdir(exist_ok=True)
    for path in PLOTS.glob("*.svg"):
        path.unlink()
    for name, svg in drawn.items():
        (PLOTS / f"{name}.svg").write_text(svg, encoding="utf-8")
    PAGE.write_text(text(results), encoding="utf-8")


def main() -> int:
    """Write the page and its plots."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if something is out of date")
    options = parser.parse_args()
    results = load()
    if options.check:
        wrong = differences(results)
        print("\n".join(f"{name} is not what the JSON gives." for name in wrong))
        return int(bool(wrong))
    write(results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
