"""`pdsync fleet report`: one page over all accounts, with their sums, that loads nothing."""

from __future__ import annotations

import html
import json
import re
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from msgspec.structs import replace

from pdsync.fleet import report, rollup_tables
from pdsync.runner.report.page.charts import charts

if TYPE_CHECKING:
    from pathlib import Path

    from pdsync.fleet.accounts import Fleet
    from tests.fleet.companies import Companies


@pytest.fixture(scope="module")
def page(companies: Companies) -> str:
    return report.render_fleet(companies.fleet).decode()


def charts_of(page: str) -> dict[str, list[dict[str, Any]]]:
    """The rows of each drawn figure."""
    data = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[0]
    return {key: chart["rows"] for key, chart in json.loads(data)["charts"].items()}


def test_sums_are_those_of_each_warehouse(companies: Companies, page: str) -> None:
    wanted: dict[tuple[str, str], tuple[int, float]] = {}
    for name in ("acme", "bolt", "coda"):
        file = companies.fleet.accounts[name].folder / "data" / "warehouse.duckdb"
        with duckdb.connect(str(file), read_only=True) as warehouse:
            rows = warehouse.execute(
                "SELECT currency, count(*), sum(value)::DOUBLE FROM deals"
                " WHERE status = 'open' AND _deleted_at IS NULL GROUP BY currency"
            ).fetchall()
        wanted |= {(name, currency): (count, value) for currency, count, value in rows}
    shown = {
        (row["account"], row["currency"]): (row["deals"], row["value"])
        for key, rows in charts_of(page).items()
        if key.startswith("fleet_open-")
        for row in rows
    }
    assert len(shown) > 3
    assert shown == {key: each for key, each in wanted.items() if key[1] in {currency for _, currency in shown}}


def test_the_first_line_names_what_is_not_complete(companies: Companies, page: str) -> None:
    heading = html.unescape(re.sub(r"<[^>]+>", "", re.findall(r"<h1.*?</h1>", page, re.DOTALL)[0]))
    assert re.search(r"4 of 5 accounts are complete, the oldest to .*; nothing yet of never$", heading)
    only = replace(companies.fleet, accounts={"acme": companies.fleet.accounts["acme"]})
    assert '<h1><span class="mark" aria-hidden="true">✓</span> 1 of 1 account is complete' in report.render_fleet(
        only
    ).decode().replace("\n", "")


def test_the_same_roll_up_gives_the_same_bytes_and_loads_nothing(companies: Companies, page: str) -> None:
    assert report.render_fleet(companies.fleet).decode() == page
    assert set(re.findall(r"https?://[\w./-]+", page)) <= {
        "http://www.w3.org/1999/xlink", "http://www.w3.org/2000/svg", "http://www.w3.org/2000/xmlns/"
    }  # fmt: skip
    for chart in charts("fleet"):
        assert chart.title in html.unescape(page)


def test_a_fleet_without_a_roll_up_says_what_to_do(companies: Companies, tmp_path: Path) -> None:
    fleet: Fleet = replace(companies.fleet, file=tmp_path / "fleet.toml")
    page = report.render_fleet(fleet).decode()
    assert "No account has been read completely yet: pdsync fleet sync" in page
    assert charts_of(page) == {}


def test_each_figure_reads_a_table_of_the_roll_up() -> None:
    tables = {f"fleet.{table}" for table in (*rollup_tables.sales_tables(), rollup_tables.ACCOUNTS)}
    assert {chart.view for chart in charts("fleet")} <= tables
