"""Sales views of companies with odd but real data: each test makes the few records that it is about.

The company is in Berlin. It has one user, two pipelines, and the stages of `test_sales_views`.
"""

from __future__ import annotations

import asyncio
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from pdsync.core import catalogue
from pdsync.core.views import views
from pdsync.load import history, warehouse
from pdsync.model import FINDINGS, Page, Tombstone, Walk
from pdsync.runner.loader import Loader
from tests.runner.kit import COMPANY, load_rows
from tests.runner.test_sales_views import (
    CONTRACT,
    FIRST,
    INTAKE,
    LEAD,
    OFFER,
    SECOND,
    at,
    deal,
    lost,
    stage,
    won,
)  # fmt: skip

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import duckdb

RESTORED = SECOND + timedelta(days=5)  # a third sync


class Company:
    """A company whose tables a test fills."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.loader = Loader(path)
        self.loader.open(COMPANY, "Acme")
        self._loads = 0
        self.add("users", {"id": 1, "name": "Ann", "is_you": True, "timezone_name": "Europe/Berlin"})
        pipelines = [{"id": id, "name": "Sales", "is_deal_probability_enabled": id == 1} for id in (1, 2)]
        self.add("pipelines", *pipelines)
        stages = [stage(LEAD, "lead", 1, probability=10), stage(OFFER, "offer", 2), stage(CONTRACT, "contract", 3)]
        self.add("stages", *stages, stage(INTAKE, "intake", 1, 2))

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """To the work file."""
        return self.loader.connection

    def add(self, name: str, *records: dict[str, Any], at: datetime = FIRST) -> None:
        """Load `records` as a sync at `at` does."""
        self._loads += 1
        load_rows(self.loader, name, *records, number=self._loads, at=at)

    def log(self, *entries: tuple[Any, ...]) -> None:
        """Entries of the changelog: deal, field, time, old, new, author."""
        self.loader.table(catalogue.stream("deal_changelog"), "v2")
        for number, entry in enumerate(entries):
            self.connection.execute(
                "INSERT INTO main.deal_changelog (id, deal_id, field_key, time, old_value, new_value, actor_user_id,"
                " _valid_from) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [number, *entry, FIRST],
            )

    def ask(
        self, query: str, *, read_at: datetime = SECOND, tables: tuple[str, ...] = (), timezone: str = ""
    ) -> list[tuple[Any, ...]]:
        """The answer from the views, made now; `tables` are those that may be empty, `timezone` is the setting."""
        for name in tables:
            self.loader.table(catalogue.stream(name), "v2")
        self.connection.execute("DELETE FROM meta.runs")
        self.connection.execute("INSERT INTO meta.runs (run_id, as_of) VALUES ('run', ?)", [read_at])
        self.loader.create_views(timezone)
        return self.connection.execute(query).fetchall()


@pytest.fixture
def company(tmp_path: Path) -> Iterator[Company]:
    made = Company(tmp_path / "work.duckdb")
    yield made
    asyncio.run(made.loader.close())


def deleted(at: datetime, **more: Any) -> dict[str, Any]:
    """What the API shows of a deleted deal: its status is `deleted` too."""
    return {"status": "deleted", "is_deleted": True, "update_time": at, **more}


OPEN_THEN = "SELECT deal_id, status FROM sales.deal_states ORDER BY deal_id, state"


def test_a_deal_whose_status_says_deleted_was_open_won_or_lost_before(company: Company) -> None:
    """Deal 1 was seen open, 2 and 3 only deleted, 4 was seen won; 5 has a log."""
    company.add("deals", deal(1, at(1), LEAD, expected_close_date="2026-11-15"),
                deal(2, at(2), LEAD, **deleted(at(20))), deal(3, at(3), LEAD, **deleted(at(20), lost_time=at(8))),
                deal(4, at(4), LEAD, **won(at(9))), deal(5, at(5), LEAD, **deleted(at(20))))  # fmt: skip
    company.add("deals", deal(1, at(1), LEAD, **deleted(at(10, month=11), expected_close_date="2026-11-15")),
                deal(4, at(4), LEAD, **(won(at(9)) | deleted(at(10, month=11)))), at=SECOND)  # fmt: skip
    company.log((5, "value", at(8), 70, 100, 1), (5, "status", at(20), "open", "deleted", 1))
    assert company.ask(OPEN_THEN) == [
        (1, "open"), (1, "removed"), (2, "open"), (2, "removed"), (3, "open"), (3, "lost"), (3, "removed"),
        (4, "open"), (4, "won"), (4, "removed"), (5, "open"), (5, "open"), (5, "removed"),
    ]  # fmt: skip
    assert company.ask("SELECT baseline, removed FROM sales.slippage") == [(1, 1)]
    daily = "SELECT deals FROM sales.pipeline_daily WHERE day = '2026-10-07'"
    assert company.ask(daily) == [(5,)]


def test_a_deal_that_was_deleted_and_restored_does_not_count_as_open_in_between(company: Company) -> None:
    company.add("deals", deal(1, at(1), LEAD), deal(2, at(2), LEAD))
    company.add("deals", deal(1, at(1), LEAD, **deleted(at(9, month=11))),
                deal(2, at(2), LEAD, update_time=at(9, month=11), is_deleted=True), at=SECOND)  # fmt: skip
    back = [deal(id, at(id), LEAD, update_time=at(22, month=11)) for id in (1, 2)]
    company.add("deals", *back, at=RESTORED)
    days = "SELECT day, deals FROM sales.pipeline_daily WHERE day IN ('2026-11-08', '2026-11-15', '2026-11-23')"
    assert company.ask(f"{days} ORDER BY day", read_at=RESTORED) == [(date(2026, 11, 8), 2), (date(2026, 11, 23), 2)]
    assert company.ask("SELECT id FROM sales.open_on('2026-11-15')", read_at=RESTORED) == []
    visits = "SELECT deal_id, entered_at, exit FROM sales.stage_visits ORDER BY ALL"
    assert company.ask(visits, read_at=RESTORED) == [
        (1, at(1), "removed"), (1, at(22, month=11), "open"), (2, at(2), "removed"), (2, at(22, month=11), "open"),
    ]  # fmt: skip


def test_the_waterfall_of_the_month_under_way_has_the_deals_due_in_its_rest(company: Company) -> None:
    """It begins with the value that slippage begins with. Deal 3 was moved within the month, from the 5th on."""
    company.add("deals", deal(1, at(1), LEAD, expected_close_date="2026-11-25"),
                deal(2, at(2), LEAD, expected_close_date="2026-12-15"),
                deal(3, at(3), LEAD, expected_close_date="2026-11-05"))  # fmt: skip
    moved = at(18, month=11)
    company.add("deals", deal(2, at(2), LEAD, expected_close_date="2026-11-30", update_time=moved),
                deal(3, at(3), LEAD, expected_close_date="2026-11-28", update_time=moved), at=SECOND)  # fmt: skip
    flows = "SELECT month, to_day, opening::INT, pulled_in::INT, pushed_out::INT, closing::INT FROM sales.waterfall"
    assert company.ask(flows) == [(date(2026, 11, 1), date(2026, 11, 20), 200, 100, 0, 300)]
    assert company.ask("SELECT baseline_value::INT FROM sales.slippage") == [(200,)]


def test_a_deal_that_is_still_to_come_in_the_month_under_way_has_not_slipped(company: Company) -> None:
    """Today is the 20th: one deal is due on the 25th, one today, one was on the 19th; one was moved to December."""
    due = {1: "2026-11-25", 2: "2026-11-20", 3: "2026-11-19", 4: "2026-11-12"}
    company.add("deals", *(deal(id, at(id), LEAD, expected_close_date=day) for id, day in due.items()))
    moved = deal(4, at(4), LEAD, expected_close_date="2026-12-01", update_time=at(18, month=11))
    company.add("deals", moved, at=SECOND)
    ends = "SELECT baseline, still_due, slipped, overdue, slip_rate, slipped_value::INT FROM sales.slippage"
    assert company.ask(ends) == [(4, 2, 1, 1, 50.0, 200)]


def test_the_last_author_of_pushes_is_unknown_where_the_last_move_has_none(company: Company) -> None:
    """The log ends in October; the move of November is known from versions only."""
    company.add("deals", deal(1, at(1), LEAD, expected_close_date="2026-12-15", update_time=at(28)))
    later = deal(1, at(1), LEAD, expected_close_date="2026-12-30", update_time=at(18, month=11))
    company.add("deals", later, at=SECOND)
    company.log((1, "expected_close_date", at(28), "2026-10-20", "2026-12-15", 7))
    assert company.ask("SELECT later_moves, last_move, last_author_id FROM sales.pushes") == [
        (2, at(18, month=11), None)
    ]


def test_the_average_as_in_pipedrive_is_of_the_deals_that_closed_in_the_pipeline(company: Company) -> None:
    """Deal 1 lay ten days in stage lead and was lost there; deal 2 was moved into the other pipeline, and won in it."""
    company.add("deals", deal(1, at(1), LEAD, **lost(at(11))), deal(2, at(3), INTAKE, **won(at(20))))
    company.log((2, "stage_id", at(15), LEAD, INTAKE, 1), (2, "status", at(20), "open", "won", 1))
    averages = "SELECT stage, visits, pipedrive_average FROM sales.time_in_stage ORDER BY stage"
    assert company.ask(averages) == [("intake", 1, 5.0), ("lead", 2, 10.0)]


def test_a_median_of_visits_that_last_is_known_where_the_curve_falls_to_one_half(company: Company) -> None:
    """Two of three visits last, but are young: the only one that was old enough ended on its tenth day."""
    company.add("deals", deal(1, at(1), LEAD, **lost(at(11))), deal(2, at(19, month=11), LEAD),
                deal(3, at(19, month=11), LEAD))  # fmt: skip
    company.add("deals", *(deal(id, at(1), OFFER) for id in (4, 5)), deal(6, at(1), OFFER, **lost(at(11))))
    medians = "SELECT stage, settled, visits, km_median_days FROM sales.time_in_stage ORDER BY stage"
    assert company.ask(medians) == [("lead", 1, 3, 10), ("offer", 1, 3, None)]
    told = views()["sales.time_in_stage"].columns["km_median_days"]
    assert told.endswith("NULL if the curve never falls to one half.")


def test_the_weakest_source_of_the_deals_that_were_due_is_named(company: Company) -> None:
    """In October deal 1 is known from the log, 2 by its present row only; in November 2 by its version."""
    company.add("deals", deal(1, at(1, month=9), LEAD, expected_close_date="2026-10-20"))
    company.log((1, "value", at(2, month=9), 70, 100, 1))
    slips, flows = "SELECT month, basis FROM sales.slippage ORDER BY 1", "SELECT month, basis FROM sales.waterfall"
    october, november = date(2026, 10, 1), date(2026, 11, 1)
    assert company.ask(slips) == company.ask(flows) == [(october, "changelog")]
    company.add("deals", deal(2, at(1, month=9), LEAD, expected_close_date="2026-11-25", update_time=at(20)))
    expected = [(october, "changelog"), (november, "history")]
    assert company.ask(slips) == company.ask(flows) == expected
    company.add("deals", deal(3, at(1, month=9), LEAD, expected_close_date="2026-10-25", update_time=at(20)))
    expected = [(october, "estimate"), (november, "history")]
    assert company.ask(slips) == company.ask(flows) == expected


def test_coverage_leaves_out_a_goal_that_has_not_begun(company: Company) -> None:
    company.add("deals", deal(1, at(1), LEAD, expected_close_date="2026-11-25"))
    company.loader.table(catalogue.stream("goals"), "v1")
    for id, first_day in ("a", "2027-01-01"), ("b", "2026-11-20"), ("c", None):
        company.connection.execute(
            "INSERT INTO main.goals (id, title, type_name, type_params, assignee_id, assignee_type, interval,"
            " duration_start, expected_outcome_target, expected_outcome_tracking_metric, expected_outcome_currency_id,"
            " is_active) VALUES (?, 'goal', 'deals_won', '{}', 1, 'person', 'monthly', ?, 1000, 'sum', 1, true)",
            [id, first_day],
        )
    assert company.ask("SELECT goal_id FROM sales.coverage", tables=("currencies",)) == [("b",), ("c",)]


def test_what_is_missing_for_the_goal_of_a_team_is_not_known(company: Company) -> None:
    company.add("deals", deal(1, at(1), LEAD, **won(at(10, month=11))))
    company.loader.table(catalogue.stream("goals"), "v1")
    company.add("currencies", {"id": 1, "code": "EUR", "name": "Euro", "active_flag": True})
    for id, kind, target in ("a", "team", 1000), ("b", "company", 1000), ("c", "company", 50):
        company.connection.execute(
            "INSERT INTO main.goals (id, title, type_name, type_params, assignee_id, assignee_type, interval,"
            " expected_outcome_target, expected_outcome_tracking_metric, expected_outcome_currency_id, is_active)"
            " VALUES (?, 'goal', 'deals_won', '{}', 1, ?, 'monthly', ?, 'sum', 1, true)",
            [id, kind, target],
        )
    shown = "SELECT goal_id, won_value::INT, missing::INT, coverage FROM sales.coverage ORDER BY goal_id"
    assert company.ask(shown) == [("a", None, None, None), ("b", 100, 900, 0.0), ("c", 100, 0, None)]


def test_a_deal_whose_beginning_is_not_known_has_no_age(company: Company) -> None:
    """It took no time in none of its stages, and was not open two years ago."""
    nameless = {"add_time": None}
    company.add("deals", deal(1, at(1), LEAD, **nameless), deal(2, at(2), LEAD, **won(at(20)), **nameless))
    for view in ("win_curve", "time_in_stage", "pipeline_daily"):
        assert company.ask(f"FROM sales.{view}") == [], view


@pytest.mark.parametrize(("timezone", "month"), [("", 10), ("Europe/Berlin", 10), ("Pacific/Auckland", 11)])
def test_days_of_closing_are_cut_in_the_chosen_zone(company: Company, timezone: str, month: int) -> None:
    """Noon of 31 October in UTC is November in Auckland. Without a choice Pipedrive's own dates count."""
    closed, day = at(31, 12), date(2026, 10, 31)
    dates = {"local_won_date": str(day), "local_close_date": str(day)}
    company.add("deals", deal(1, at(1), LEAD, **won(closed), **dates), deal(2, at(2), LEAD, **won(closed)),
                deal(3, at(3), LEAD, **lost(closed), local_lost_date=str(day)),
                deal(4, at(4), LEAD, status="lost", local_close_date=str(day), close_time=closed),
                deal(5, at(5), LEAD, status="won", local_won_date=str(day)))  # fmt: skip
    days = "SELECT deal_id, month(closed_on) FROM sales._deals ORDER BY ALL"
    assert company.ask(days, timezone=timezone) == [(1, month), (2, month), (3, month), (4, month), (5, 10)]
    reasons = "SELECT month, sum(deals)::INT FROM sales.lost_reasons GROUP BY ALL"
    assert company.ask(reasons, timezone=timezone) == [(date(2026, month, 1), 2)]


def test_a_chosen_zone_outranks_pipedrive_s_own_date_also_if_it_is_the_user_s(company: Company) -> None:
    company.add("deals", deal(1, at(1), LEAD, **won(at(31, 12)), local_won_date="2026-11-01"))
    days = "SELECT day(closed_on) FROM sales._deals"
    assert [company.ask(days, timezone=zone) for zone in ("", "Europe/Berlin")] == [[(1,)], [(31,)]]


@pytest.mark.parametrize("timezone", ["", "Pacific/Auckland"])
def test_pipedrive_s_statistics_are_compared_by_its_own_days(company: Company, timezone: str) -> None:
    """All three deals are of October in Berlin, the zone of Pipedrive's statistics, and of November in Auckland."""
    added, closed, day = at(31, 11), at(31, 13), "2026-10-31"
    company.add("deals", deal(1, added, LEAD, **won(closed), local_won_date=day), deal(2, added, LEAD),
                deal(3, added, LEAD, **lost(closed), local_lost_date=day))  # fmt: skip
    for name in ("movement", "conversion"):
        company.loader.table(catalogue.stream(f"pipeline_{name}_statistics"), "v1")
    statistics = "(pipeline_id, start_date, end_date, _verified_at,"
    company.connection.execute(
        f"INSERT INTO main.pipeline_movement_statistics {statistics} new_deals_ids, won_deals_ids, lost_deals_ids,"
        " deals_left_open_ids) VALUES (1, '2026-10-01', '2026-10-31', '2026-11-19', [1, 2, 3], [1], [3], [2])"
    )
    company.connection.execute(
        f"INSERT INTO main.pipeline_conversion_statistics {statistics} won_conversion, lost_conversion,"
        " stage_conversions) VALUES (1, '2026-10-01', '2026-10-31', '2026-11-19', 33, 33, [])"
    )
    for view in ("vendor_check", "vendor_check_rates"):
        explained = f"SELECT DISTINCT explanation FROM sales.{view}"
        assert company.ask(explained, timezone=timezone) == [("equal",)], view


def test_an_activity_is_overdue_after_its_day_in_the_company_s_zone(company: Company) -> None:
    """Of an activity with a time, day and time are UTC: 23:30 on the 19th is half past midnight on the 20th there."""
    times = {1: ("2026-11-19", "23:30:00"), 2: ("2026-11-19", "22:30:00"), 3: ("2026-11-19", None), 4: (None, None)}
    company.add(
        "activities",
        *(
            {"id": id, "subject": "call", "done": False, "due_date": day, "due_time": time, "is_deleted": False}
            for id, (day, time) in times.items()
        ),
    )
    due = "SELECT due_time IS NULL, overdue FROM sales.activities_due"
    assert company.ask(due) == [(False, True), (False, False), (True, True), (True, False)]
    assert company.ask(due, read_at=SECOND + timedelta(days=1)) == [
        (False, True), (False, True), (True, True), (True, False),
    ]  # fmt: skip


def test_the_broad_rate_of_a_month_without_a_closed_deal_is_zero_where_deals_derailed(company: Company) -> None:
    company.add("deals", deal(1, at(1, month=9), LEAD, **won(at(3, month=9))), deal(2, at(15), LEAD))
    rates = "SELECT month, closed, derailed, win_rate, broad_rate FROM sales.win_rate"
    assert company.ask(rates) == [(date(2026, 9, 1), 1, 0, 100.0, 100.0), (date(2026, 10, 1), 0, 1, None, 0.0)]


def test_a_day_of_the_pipeline_is_estimated_only_before_a_deal_s_first_version(company: Company) -> None:
    company.add("deals", deal(1, at(1), LEAD, update_time=at(10)))
    days = "day IN ('2026-10-09', '2026-10-10', '2026-11-20') ORDER BY day"
    assert company.ask(f"SELECT day, deals, estimated FROM sales.pipeline_daily WHERE {days}") == [
        (date(2026, 10, 9), 1, 1), (date(2026, 10, 10), 1, 0), (date(2026, 11, 20), 1, 0),
    ]  # fmt: skip
    for day, estimated in ("2026-10-09", 1), ("2026-10-10", 0), ("2026-11-20", 0):
        assert company.ask(f"SELECT estimated FROM sales.funnel_on('{day}')") == [(estimated,)]


def test_a_deal_that_lost_in_a_merge_was_open_before(company: Company, tmp_path: Path) -> None:
    """On the day before the merge both deals are in the funnel, also as of then; after it one is."""
    merged = at(15, month=11)
    company.add("deals", deal(1, at(1), LEAD), deal(2, at(2), LEAD))
    gone = [Tombstone("2", "merged", "test", merged, "1")]
    walk = Walk(99, "run-99", "deals", FINDINGS, "v2", "getDeals", None, merged)
    page = Page(99, 0, msgspec.json.encode(gone), 1, None, merged)
    asyncio.run(company.loader.add(catalogue.stream("deals"), walk, [page]))
    by_day = "SELECT deals FROM sales.pipeline_daily WHERE day = '{0}'"
    open_then = f"SELECT (SELECT deals FROM sales.funnel_on('{{0}}')), ({by_day})"
    assert company.ask(open_then.format("2026-11-14")) == [(2, 2)]
    assert company.ask(open_then.format("2026-11-16")) == [(1, 1)]
    company.connection.execute("CHECKPOINT warehouse")
    copy = tmp_path / "copy.duckdb"
    copy.write_bytes(company.path.read_bytes())
    for moment, deals in (merged - timedelta(days=1), 2), (merged + timedelta(days=1), 1):
        past = warehouse.attach(copy, "published")
        history.show_as_of(past, "published", moment, "from sales.funnel")
        assert past.execute("SELECT deals FROM sales.funnel").fetchall() == [(deals,)]
        past.close()
