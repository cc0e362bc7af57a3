"""docs/performance.md and its plots are what the JSON files in benchmarks/results give. Nothing is drawn here."""

from __future__ import annotations

import json
import platform
import re
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest

from benchmarks import page, plots, record
from benchmarks.all import commands

if TYPE_CHECKING:
    from pathlib import Path

RESULTS = sorted(record.RESULTS.glob("*.json"))
PLOTS = sorted(page.PLOTS.glob("*.svg"))


def usage(seconds: float, cpu_s: float, peak_mib: float) -> dict[str, Any]:
    figures = {"seconds": seconds, "cpu_s": cpu_s, "peak_mib": peak_mib}
    return {"median": figures, "runs": [figures]}


def size(rows: int, *, has_dlt: bool) -> dict[str, Any]:
    contest = usage(20.0, 25.5, 512.0) | {"rows": rows, "rows_per_s": rows / 20, "cpu_us_per_row": 25.5e6 / rows}
    contests = {"pdsync": contest} | ({"dlt, parquet": contest | {"rows_per_s": rows / 200}} if has_dlt else {})
    ratios = {"rows_per_s_pdsync_to_dlt_parquet": 10.0, "cpu_pdsync_to_dlt_parquet": 0.16} if has_dlt else {}
    return {"asked_for": {"deals": rows}, "rows": rows, "contests": contests, "ratios": ratios}


def read(walks: str, limit: int, ratio: float) -> dict[str, Any]:
    return {"case": "company", "limit": limit, "walks": walks, "rows": 250_000, "requests": 676, "tokens": 8166,
            "seconds": 35.4, "densest": limit, "refused": 0, "ratio": ratio}  # fmt: skip


SOURCE = {"at": "2026-01-02T03:04:05+00:00", "machine": {"cores": 2}, "command": "python -m benchmarks.some"}
MADE_UP: dict[str, Any] = {
    "sync": SOURCE | {"sizes": [size(200_000, has_dlt=False), size(679_000, has_dlt=True)]},
    "limits": SOURCE | {"reads": [read("side by side", 40, 1.0475), read("one cursor", 40, 3.2)]},
    "night": SOURCE
    | {
        "rows": 990_000,
        "dlt_strategy": "upsert",
        "nights": [
            {
                "share": 0.01,
                "changed": [10_801, 10_803, 10_802],
                "contests": {"pdsync": usage(4.25, 5.5, 321), "dlt, merge": usage(8.5, 9, 432)},
                "seconds_pdsync_to_dlt": 0.5,
            }
        ],
    },
}


def test_the_page_and_its_plots_are_what_the_results_give() -> None:
    assert page.differences(page.load()) == []


def test_another_figure_is_another_page_and_another_plot() -> None:
    wanted = {plot.name: plot.digest for plot in page.all_plots(MADE_UP)}
    changed: dict[str, Any] = json.loads(json.dumps(MADE_UP))
    changed["limits"]["reads"][0]["ratio"] = 1.2
    others = {plot.name: plot.digest for plot in page.all_plots(changed)}
    assert [name for name in wanted if wanted[name] != others[name]] == ["limits"]
    assert page.text(changed) != page.text(MADE_UP)
    assert "performance.md" in page.differences(changed)
    assert "limits.svg" in page.differences(changed)


@pytest.mark.parametrize(
    "line",
    [
        "| 679,000 rows: rows/s, pdsync ÷ dlt | ≥ 8 | 10.0 | reached |",
        "| 679,000 rows: processor time, pdsync ÷ dlt | ≤ 0.15 | 0.160 | missed |",
        "| Time ÷ bound, 40 per 2 s | ≤ 1.1 | 1.048 | reached |",
        "| 1 % of 1,000,000 rows changed: seconds, pdsync ÷ dlt | ≤ 1 | 0.500 | reached |",
        "| 679,000 | pdsync | 20.0 | 33,950 | 37.6 | 512 |",
        "| company | 40 | one cursor | 250,000 | 676 | 8,166 | 35.4 | 3.20 | 40 | 0 |",
        "| 1 % | 10,802 | pdsync | 4.25 | 5.50 | 321 |",
        "2026-01-02; 2 cores; `python -m benchmarks.some`.",
    ],
)
def test_the_page_shows_each_figure(line: str) -> None:
    assert line in page.text(MADE_UP).splitlines()


def test_figures_of_a_busy_machine_are_marked_and_judge_no_goal() -> None:
    busy: dict[str, Any] = json.loads(json.dumps(MADE_UP))
    assert "The machine was busy" not in page.text(busy)
    busy["night"]["machine"]["used_by_others"] = 0.31
    assert "other programs used 31% of it meanwhile" in page.text(busy)
    assert "| 1 % of 1,000,000 rows changed" not in page.text(busy)  # no goal is judged by such figures


def test_a_try_judges_no_goal() -> None:
    small: dict[str, Any] = json.loads(json.dumps(MADE_UP))
    small["night"]["rows"] = small["sync"]["sizes"][1]["asked_for"]["deals"] = 20_000
    for each in small["limits"]["reads"]:
        each["rows"] = 1_344
    assert "reached" in page.text(MADE_UP)
    assert "A try: too few rows" not in page.text(MADE_UP)
    assert "A try: too few rows" in page.text(small)
    assert not {"reached", "missed"} & set(re.findall(r"\w+", page.text(small)))


def test_a_section_without_results_is_left_out() -> None:
    assert "## At the rate limit" in page.text(MADE_UP)
    without = page.text({name: found for name, found in MADE_UP.items() if name != "limits"})
    assert "## At the rate limit" not in without
    assert "Time ÷ bound" not in without
    assert page.all_plots({}) == []


def test_plots_are_small_load_nothing_and_know_dark_pages() -> None:
    assert PLOTS
    for path in PLOTS:
        text = path.read_text(encoding="utf-8")
        tree = ET.fromstring(text)
        assert len(text) < 40_000
        assert "prefers-color-scheme:dark" in text
        assert not re.search(r"<script|<image|url\((?!#)|@import|href=\"(?!#)", text)
        assert next(iter(tree)).tag.endswith("title")
        assert any(element.tag.endswith("}text") for element in tree.iter())


def test_results_are_saved_with_what_repeats_them_and_no_name_of_a_host_or_folder(tmp_path: Path) -> None:
    path = tmp_path / "some.json"
    record.save(path, "some", {"figure": 1.23456789, "runs": [{"seconds": 2.00001}]})
    saved = json.loads(path.read_text(encoding="utf-8"))
    assert (saved["figure"], saved["runs"]) == (1.2346, [{"seconds": 2.0}])
    assert saved["command"].startswith("python -m benchmarks.some")
    assert {"at", "commit", "is_modified", "seed", "machine", "versions"} < saved.keys()
    assert {"cores", "memory_gib", "processor", "used_by_others"} < saved["machine"].keys()
    assert {"pdsync", "python", "duckdb", "dlt_parquet"} < saved["versions"].keys()
    for text in (path.read_text("utf-8"), *(each.read_text("utf-8") for each in RESULTS)):
        assert not re.search(r"/(home|root|tmp|Users|var|work)/", text)
        assert not re.search(rf"\b{re.escape(platform.node() or 'unnamed')}\b", text)


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        (["--json", "/home/me/some.json"], "--json some.json"),
        (["--json=/home/me/some.json"], "--json=some.json"),
        (["--json=../me/some.json", "~/me"], "--json=some.json me"),
        (["--json=benchmarks/results/some.json", "--deals=5"], "--json=benchmarks/results/some.json --deals=5"),
    ],
)
def test_the_saved_command_names_no_folder_outside_of_the_project(
    monkeypatch: pytest.MonkeyPatch, options: list[str], shown: str
) -> None:
    monkeypatch.setattr("sys.argv", ["some", *options])
    assert record.surroundings("benchmarks.some")["command"] == f"python -m benchmarks.some {shown}"


def test_one_command_measures_all_that_the_page_shows() -> None:
    full = commands(1, 3)
    assert full.keys() == MADE_UP.keys()
    assert full["sync"][:4] == ["--rows", "200000", "679000", "2000000"]
    assert full["night"] == ["--rows", "1000000", "--repeat", "3", "--json", "benchmarks/results/night.json"]


def test_a_plot_says_its_values_in_words() -> None:
    plot = plots.Plot("a", "Rows", "x", ("1k", "2k"), (plots.Series("pdsync", (1000.0, None)),))
    assert plot.text == "Rows. pdsync: 1,000 at 1k"
