"""`pdsync report`: one file that loads nothing, the same for the same data, whatever the data has in it."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from pdsync.cli.app import App
from pdsync.cli.commands.report import reporting_to
from pdsync.core import config
from pdsync.runner.report.page.charts import charts
from pdsync.runner.report.page.page import render_report
from pdsync.sandbox import Limits, Sizes, generate_company, running
from tests.support.world import Project, Remote, clean_environment

if TYPE_CHECKING:
    from collections.abc import Iterator

STREAMS = ("users", "pipelines", "stages", "persons", "deals", "activities")
EVIL = "<script>alert(1)</script>"
SIZES = {"full": Sizes(deals=60, files=5), "empty": Sizes(deals=0, files=0)}


class Reader(HTMLParser):
    """What a page has: its elements with their attributes, the text of each heading, and each figure's parts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.scripts = 0
        self.figures: list[dict[str, int]] = []
        self.text = ""
        self._in = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in = tag
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]
        self.scripts += tag == "script"
        if tag == "figure":
            self.figures.append({})
        elif self.figures:
            kind = "chart" if ("class", "chart") in attrs else tag
            self.figures[-1][kind] = self.figures[-1].get(kind, 0) + 1

    def handle_data(self, data: str) -> None:
        if self._in not in ("script", "style"):
            self.text += data


@pytest.fixture(scope="module", params=SIZES)
def project(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A company, or an empty one, whose users are called as a script would be; it has a report."""
    company = generate_company(seed=11, sizes=SIZES[request.param], now=datetime.now(UTC))
    users = company["users"]
    for row in list(users.rows.values()):
        users.put(users.row({**row.record, "name": EVIL}, row.state))
    with running(company, limits=Limits(burst=None, search_burst=None, daily_tokens=None)) as box:
        made = Project(tmp_path_factory.mktemp(request.param), Remote(box.url, box.token))
        assert made.here("sync", *STREAMS, "-q").code == 0
        assert made.here("report", "-q").code == 0
        yield made


def charts_of(page: str) -> dict[str, Any]:
    """The charts of the page's data block, with their rows."""
    data = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[0]
    content: dict[str, Any] = json.loads(data)["charts"]
    return content


@pytest.fixture
def page(project: Project) -> str:
    return (project.data / "report.html").read_text(encoding="utf-8")


def test_the_same_data_gives_the_same_bytes(project: Project, page: str) -> None:
    again = project.folder / "again.html"
    answer = json.loads(project.here("report", "-o", str(again), "--json").out)
    assert answer == {"path": str(again), "bytes": len(page.encode())}
    assert again.read_text(encoding="utf-8") == page
    assert again.stat().st_mode & 0o077 == 0


def test_the_zone_of_the_machine_changes_nothing(project: Project, page: str) -> None:
    target = project.folder / "elsewhere.html"
    environment = {**clean_environment(), "PDSYNC_PROJECT": str(project.folder), "TZ": "Pacific/Auckland"}
    command = [sys.executable, "-m", "pdsync", "report", "-q", "-o", str(target)]
    assert subprocess.run(command, env=environment, capture_output=True, check=False, timeout=60).returncode == 0
    assert target.read_text(encoding="utf-8") == page


def test_it_is_one_small_file_that_names_no_address(page: str) -> None:
    assert len(page.encode()) <= 900_000
    read = Reader(page)
    assert read.addresses
    assert [address for address in read.addresses if not address.startswith("#")] == []
    assert set(re.findall(r"https?://[\w./-]+", page)) <= {
        "http://www.w3.org/1999/xlink", "http://www.w3.org/2000/svg", "http://www.w3.org/2000/xmlns/"
    }  # fmt: skip


def test_its_policy_allows_its_own_script_only(page: str) -> None:
    policy = html.unescape(re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)[0])
    script = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(script) == 1
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    assert policy.startswith(f"default-src 'none'; script-src 'sha256-{digest}';")


def test_a_user_called_like_a_script_stays_text(project: Project, page: str) -> None:
    read = Reader(page)
    assert read.scripts == 2  # the data, and what draws it
    assert EVIL not in page
    if project.ask("SELECT count(*) FROM sales.activity")[0][0]:
        assert "\\u003cscript>alert(1)" in page
        assert EVIL in read.text


def test_each_figure_has_a_heading_a_sentence_and_its_rows_as_a_table(page: str) -> None:
    figures = Reader(page).figures
    assert len(figures) >= len(charts())
    for figure in figures:
        assert figure["h3"] == 1
        assert figure["p"] >= 1
        assert figure.get("chart", 0) <= figure.get("table", 0) == figure.get("details", 0)
    drawn = charts_of(page)
    assert sorted(drawn) == sorted(re.findall(r'data-chart="([^"]+)"', page))
    assert all(chart["rows"] for chart in drawn.values())


def test_each_waterfall_closes_to_what_is_open_now(project: Project, page: str) -> None:
    figures = [chart["rows"] for key, chart in charts_of(page).items() if key.startswith("waterfall-")]
    this_month = "FROM sales.waterfall, sales._clock WHERE month = date_trunc('month', today)"
    assert bool(figures) == bool(project.ask(f"SELECT count(*) {this_month}")[0][0])
    for rows in figures:
        assert rows[0]["since"] == 0
        assert [row["since"] for row in rows[1:-1]] == [row["until"] for row in rows[:-2]]
        assert rows[-2]["until"] == rows[-1]["until"] == rows[-1]["amount"]


def test_only_later_months_are_shown_after_a_first_day(project: Project, page: str) -> None:
    target = project.folder / "since.html"
    first = project.ask("SELECT (today - 60)::VARCHAR, date_trunc('month', today - 60)::VARCHAR FROM sales._clock")[0]
    assert project.here("report", "-q", "-o", str(target), "--since", first[0]).code == 0
    later = charts_of(target.read_text(encoding="utf-8"))
    for name, rows in (
        (name, chart["rows"]) for name, chart in charts_of(page).items() if name in ("win_rate", "slippage")
    ):
        expected = [row for row in rows if row["month"] >= first[1][:10]]
        assert len(expected) < len(rows)
        assert later[name]["rows"] == expected


def test_the_first_line_says_until_when_the_data_is_complete(project: Project, page: str) -> None:
    heading = re.findall(r"<h1.*?</h1>", page, re.DOTALL)[0]
    streams = project.ask("SELECT count(DISTINCT stream) FROM meta.streams")[0][0]
    assert re.search(
        rf"Data complete to \d\d:\d\d on \d+\s\w+ 20\d\d, {streams} of {streams} streams complete, no gap", heading
    )


@pytest.mark.parametrize(
    ("gaps", "says"),
    [
        (["deals: fewer: 2 records"], "1 gap in deals"),
        (["deals: fewer: a", "deals: rights: b", "users: failed: c"], "3 gaps in deals, users"),
    ],
)
def test_a_stream_with_a_gap_is_not_counted_as_complete(
    project: Project, tmp_path: Path, gaps: list[str], says: str
) -> None:
    copy = Path(shutil.copytree(project.folder, tmp_path / "copy"))
    with duckdb.connect(str(copy / "data" / "warehouse.duckdb")) as warehouse:
        warehouse.execute("UPDATE meta.runs SET gaps = ?", [gaps])
    heading = re.findall(r"<h1.*?</h1>", render_report(config.load(copy)).decode(), re.DOTALL)[0]
    streams = project.ask("SELECT count(DISTINCT stream) FROM meta.streams")[0][0]
    complete = streams - len({gap.split(":")[0] for gap in gaps})
    assert f", {complete} of {streams} streams complete, {says}" in heading


@pytest.mark.parametrize(
    ("flag", "shown", "left_out"), [("--no-sales", "health", "sales"), ("--no-health", "sales", "health")]
)
def test_a_section_can_be_left_out(project: Project, flag: str, shown: str, left_out: str) -> None:
    assert project.here("report", "-q", "-o", str(project.folder / "part.html"), flag).code == 0
    part = (project.folder / "part.html").read_text(encoding="utf-8")
    assert f'<section id="{shown}"' in part
    assert f'<section id="{left_out}"' not in part


def test_nothing_to_show_is_refused(project: Project) -> None:
    assert project.here("report", "--no-sales", "--no-health").code == 2


def test_no_person_but_owners_has_a_name_in_it(project: Project, page: str) -> None:
    names = project.ask("SELECT name FROM persons WHERE length(name) > 4")
    assert [name for (name,) in names if name in page] == []


def test_x7_a_pipeline_s_report_replaces_no_file_outside_of_the_project(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site, cloned = tmp_path / "site", tmp_path / "cloned"
    site.mkdir()
    (site / "index.html").write_text("precious")
    (cloned / "data").mkdir(parents=True)
    shutil.copy(project.data / "warehouse.duckdb", cloned / "data")
    (cloned / "pub").symlink_to(site)
    app = App()
    app.project = cloned
    with reporting_to(app, "pub/index.html"):
        pass
    assert "leads out of the project" in capsys.readouterr().err
    assert (site / "index.html").read_text() == "precious"


def test_without_a_warehouse_it_says_what_to_do(tmp_path: Path) -> None:
    ran = Project(tmp_path, Remote("http://127.0.0.1:1", "0" * 40)).here("report")
    assert (ran.code, "pdsync sync" in ran.err) == (2, True)


def test_what_was_not_synced_is_named_with_the_command_that_gets_it(tmp_path: Path) -> None:
    company = generate_company(seed=11, sizes=SIZES["empty"], now=datetime.now(UTC))
    with running(company, limits=Limits(burst=None, search_burst=None, daily_tokens=None)) as box:
        project = Project(tmp_path, Remote(box.url, box.token))
        assert project.here("sync", "users", "stages", "-q").code == 0
        assert project.here("report", "-q").code == 0
        (tmp_path / "pipelines").mkdir()
        text = 'description = "x"\nstreams = ["users"]\nreport = "data/night/report.html"\n'
        (tmp_path / "pipelines" / "night.toml").write_text(text)
        assert "Report: " in project.here("sync", "--pipeline", "night").err
    page = (project.data / "report.html").read_text(encoding="utf-8")
    assert "This needs deals, pipelines, which this warehouse does not have." in page
    assert "To get it: <code>pdsync sync deals pipelines</code>" in page
    assert (project.data / "night" / "report.html").stat().st_size > 500_000
