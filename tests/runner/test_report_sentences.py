"""The figures of the report say what is true of odd but real data: many stages, equal names, a month without deals."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from pdsync.runner.report.page import figures, formats
from pdsync.runner.report.page.charts import charts
from tests.runner.kit import text
from tests.runner.test_odd_sales import Company
from tests.runner.test_sales_views import LEAD, SECOND, at, deal, stage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pdsync.runner.report.page.figures import Figure

ZONE = "Europe/Berlin"


@pytest.fixture
def company(tmp_path: Path) -> Iterator[Company]:
    made = Company(tmp_path / "work.duckdb")
    yield made
    asyncio.run(made.loader.close())


def figure(company: Company, name: str) -> Figure:
    """The figure called `name`, of the first currency that it has."""
    company.ask("SELECT 1", tables=("activities",))
    chart = next(each for each in charts() if each.name == name)
    clock = figures.clock_at(SECOND.timestamp(), ZONE, None)
    rows = figures.read_chart(company.connection, clock, chart)
    return figures.make_figures(chart, rows, ["EUR"], formats.environment(ZONE))[0]


def test_the_sentence_on_open_deals_counts_the_stages_that_are_not_shown(company: Company) -> None:
    """Fifty stages; most deals are in the last one."""
    company.add("stages", *(stage(100 + number, f"step {number}", 10 + number) for number in range(50)))
    company.add("deals", *(deal(number, at(1), 100 + min(number, 49)) for number in range(52)))
    shown = figure(company, "funnel")
    assert len(shown.rows) == 40
    assert shown.sentence.startswith("52 deals are open in 50 stages; most of them, 3, in Sales › step 49")


def test_stages_and_persons_of_one_name_or_none_have_a_bar_each(company: Company) -> None:
    """Two stages are called alike, and two owners are not among the users."""
    company.add("stages", stage(101, "lead", 9))
    company.add("deals", deal(1, at(1), LEAD), deal(2, at(2), 101))
    assert [row["step"] for row in figure(company, "funnel").rows] == ["Sales › lead (11)", "Sales › lead (101)"]
    done = {"done": True, "is_deleted": False, "marked_as_done_time": text(at(18, month=11))}
    company.add("activities", *({"id": id, "owner_id": id, **done} for id in (7, 8)))
    assert [row["step"] for row in figure(company, "activity_by_owner").rows] == ["(user 7)", "(user 8)"]


def test_the_waterfall_is_of_no_other_month_where_nothing_is_due_in_this_one(company: Company) -> None:
    company.add("deals", deal(1, at(1, month=9), LEAD, expected_close_date="2026-10-15"))
    assert company.ask("SELECT max(month)::VARCHAR FROM sales.waterfall") == [("2026-10-01",)]
    shown = figure(company, "waterfall")
    assert (shown.rows, shown.sentence) == ([], shown.chart.empty)


def test_the_probability_that_is_furthest_off_is_named_among_many_stages(company: Company) -> None:
    """Fifty stages of 10 % in which nothing was won, and a last one of 90 %."""
    company.add("stages", *(stage(100 + n, f"step {n}", 10 + n, probability=90 if n == 50 else 10) for n in range(51)))
    company.add("deals", *(deal(n, at(1).replace(year=2025), 100 + n) for n in range(51)))
    shown = figure(company, "forecast_calibration")
    assert len(shown.rows) == 40
    assert "Sales › step 50: set to 90" in shown.sentence
