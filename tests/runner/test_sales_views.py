"""Sales views of a company of thirteen deals, each with an edge of its own; every number is worked out by hand.

The company is in Berlin. Two users are called Ann, two pipelines Sales. Days are of October and November 2026.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from pdsync.core import catalogue
from pdsync.core.targets import read_targets
from pdsync.core.views import views
from pdsync.load import history, sales_views, warehouse
from pdsync.runner.loader import Loader
from tests.proofs.sales import compare
from tests.runner.kit import COMPANY, load_rows, text

if TYPE_CHECKING:
    from collections.abc import Iterator

    import duckdb

FIRST = datetime(2026, 11, 1, 6, tzinfo=UTC)  # the first sync
SECOND = datetime(2026, 11, 20, 6, tzinfo=UTC)  # the one on which the tables stand
LEAD, OFFER, CONTRACT, OLD, INTAKE = 11, 12, 13, 14, 21  # stages; the last is of the other pipeline called Sales
NAMES = {LEAD: "lead", OFFER: "offer", CONTRACT: "contract", OLD: "old", INTAKE: "intake", None: None}


def at(day: int, hour: int = 9, month: int = 10, second: int = 0) -> datetime:
    return datetime(2026, month, day, hour, 0, second, tzinfo=UTC)


def deal(id: int, added: datetime, stage: int, **more: Any) -> dict[str, Any]:
    """A deal as the API shows it."""
    times = {name: text(value) for name, value in more.items() if isinstance(value, datetime)}
    updated = max([text(added), *times.values()])
    return {
        "id": id, "title": f"deal {id}", "add_time": text(added), "update_time": updated, "stage_id": stage,
        "pipeline_id": 2 if stage == INTAKE else 1, "status": "open", "value": 100, "currency": "EUR", "owner_id": 1,
        "creator_user_id": 1, "is_deleted": False, "is_archived": False, "probability": None, **more, **times,
    }  # fmt: skip


def won(at: datetime) -> dict[str, Any]:
    return {"status": "won", "won_time": at, "close_time": at, "update_time": at}


def lost(at: datetime, reason: str | None = None) -> dict[str, Any]:
    return {"status": "lost", "lost_time": at, "close_time": at, "update_time": at, "lost_reason": reason}


DEALS = {
    "first": [
        deal(1, at(1), CONTRACT, value=120, stage_change_time=at(10), **won(at(20))),
        deal(2, at(2), CONTRACT, **lost(at(30, 23), " Too  expensive")),  # 31 October in Berlin
        deal(3, at(3), CONTRACT, expected_close_date="2026-12-15", stage_change_time=at(9), update_time=at(28)),
        deal(4, at(4), OFFER, stage_change_time=at(12), is_archived=True),
        deal(5, at(5), INTAKE, stage_change_time=at(11), owner_id=2, update_time=at(13)),
        deal(6, at(6), OFFER, first_won_time=at(8), **lost(at(16), "too expensive")),
        deal(7, at(7), LEAD, **lost(at(14))),
        deal(8, at(8), CONTRACT, value=50, currency="USD", stage_change_time=at(18)),
        deal(9, at(9), OFFER, stage_change_time=at(19)),
        deal(10, at(10), OFFER, **won(at(25))),
        deal(11, at(11), LEAD, **won(at(11, second=10))),
        deal(12, at(12), LEAD, value=80, expected_close_date="2026-11-10"),
        deal(13, at(13), LEAD),
    ],
    "second": [
        deal(7, at(7), LEAD, **(lost(at(14)) | {"update_time": at(5, month=11), "is_deleted": True})),
        deal(12, at(12), OFFER, value=90, owner_id=2, expected_close_date="2026-12-10",
             stage_change_time=at(12, month=11), update_time=at(15, month=11)),
        deal(13, at(13), LEAD, update_time=at(10, month=11), is_deleted=True),
    ],
}  # fmt: skip
LOG = [  # deal, field, time, old, new, author
    (1, "add_time", at(1), None, "2026-10-01 09:00:00", 1),
    (1, "stage_id", at(5), LEAD, OFFER, 1),
    (1, "value", at(6), 100, 120, 2),
    (1, "stage_id", at(10), OFFER, CONTRACT, 1),
    (1, "status", at(20), "open", "won", 1),
    (2, "add_time", at(2), None, "2026-10-02 09:00:00", 1),
    (2, "status", at(30, 23), "open", "lost", 1),
    (3, "add_time", at(3), None, "2026-10-03 09:00:00", 1),
    (3, "stage_id", at(9), LEAD, CONTRACT, 1),
    (3, "expected_close_date", at(20), "2026-10-15", "2026-11-15", 1),  # after it had passed
    (3, "expected_close_date", at(28), "2026-11-15", "2026-12-15", 2),  # before it was due
    (4, "add_time", at(4), None, "2026-10-04 09:00:00", 1),
    (4, "stage_id", at(8), OFFER, CONTRACT, 1),
    (4, "stage_id", at(12), CONTRACT, OFFER, 1),
    (5, "add_time", at(5), None, "2026-10-05 09:00:00", 1),
    (5, "stage_id", at(11), LEAD, INTAKE, 2),
    (5, "pipeline_id", at(11), 1, 2, 2),
    (5, "user_id", at(13), 1, 2, 2),
    (6, "add_time", at(6), None, "2026-10-06 09:00:00", 1),
    (6, "status", at(8), "open", "won", 1),
    (6, "status", at(10), "won", "open", 1),
    (6, "status", at(16), "open", "lost", 1),
    (8, "add_time", at(8), None, "2026-10-08 09:00:00", 1),
    (8, "stage_id", at(18), OFFER, CONTRACT, 1),  # within one second, and not in the order of the log
    (8, "stage_id", at(18), LEAD, OFFER, 1),
    (8, "value", at(18), 70, 50, 1),
    (8, "currency", at(18), "EUR", "USD", 1),
]


def stage(id: int, name: str, number: int, pipeline: int = 1, probability: int = 50, **more: Any) -> dict[str, Any]:
    return {
        "id": id, "name": name, "pipeline_id": pipeline, "order_nr": number, "deal_probability": probability,
        "is_deleted": False, "is_deal_rot_enabled": True, "days_to_rotten": 20, **more,
    }  # fmt: skip


def make(loader: Loader) -> None:
    """Load the company, as two syncs and a reading of the changelog leave it."""
    user = {"is_deleted": False, "active_flag": True, "timezone_name": "Europe/Berlin", "default_currency": "EUR"}
    users = [{"id": 1, "name": "Ann", "is_you": True, **user}, {"id": 2, "name": "Ann", **user}]
    load_rows(loader, "users", *users, number=1, at=FIRST)
    pipelines = [
        {"id": id, "name": "Sales", "is_deal_probability_enabled": id == 1, "is_deleted": False} for id in (1, 2)
    ]
    load_rows(loader, "pipelines", *pipelines, number=2, at=FIRST)
    stages = [stage(LEAD, "lead", 1, probability=10), stage(OFFER, "offer", 2), stage(CONTRACT, "contract", 3)]
    stages += [stage(OLD, "old", 4, is_deleted=True), stage(INTAKE, "intake", 1, 2)]
    load_rows(loader, "stages", *stages, number=3, at=FIRST)
    load_rows(loader, "deals", *DEALS["first"], number=4, at=FIRST)
    load_rows(loader, "deals", *DEALS["second"], number=5, at=SECOND)
    loader.table(catalogue.stream("deal_changelog"), "v2")
    for number, (id, field, time, old, new, author) in enumerate(LOG):
        loader.connection.execute(
            "INSERT INTO main.deal_changelog (id, deal_id, field_key, time, old_value, new_value, actor_user_id,"
            " _valid_from) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [number, id, field, time, old, new, author, FIRST],
        )  # fmt: skip
    for run, as_of in (("run-4", FIRST), ("run-5", SECOND)):
        loader.connection.execute("INSERT INTO meta.runs (run_id, as_of) VALUES (?, ?)", [run, as_of])


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    loader = Loader(tmp_path_factory.mktemp("sales") / "work.duckdb")
    loader.open(COMPANY, "Acme")
    make(loader)
    for name in catalogue.streams():  # the other tables are empty
        loader.table(catalogue.stream(name), "v2")
    loader.create_views()
    yield loader.connection
    asyncio.run(loader.close())


def ask(company: duckdb.DuckDBPyConnection, query: str) -> list[tuple[Any, ...]]:
    return company.execute(query).fetchall()


L, H, E = "changelog", "history", "estimate"
VISITS = {  # deal → stage, entered, left, exit, value at entry, value at exit, basis
    1: [(LEAD, at(1), at(5), "advanced", 100, 100, L), (OFFER, at(5), at(10), "advanced", 100, 120, L),
        (CONTRACT, at(10), at(20), "won", 120, 120, L)],
    2: [(CONTRACT, at(2), at(30, 23), "lost", 100, 100, L)],  # created late
    3: [(LEAD, at(3), at(9), "advanced", 100, 100, L), (CONTRACT, at(9), None, "open", 100, 100, L)],
    4: [(OFFER, at(4), at(8), "advanced", 100, 100, L), (CONTRACT, at(8), at(12), "regressed", 100, 100, L),
        (OFFER, at(12), None, "open", 100, 100, L)],
    5: [(LEAD, at(5), at(11), "moved_pipeline", 100, 100, L), (INTAKE, at(11), None, "open", 100, 100, L)],
    6: [(OFFER, at(6), at(8), "won", 100, 100, L), (OFFER, at(10), at(16), "lost", 100, 100, L)],
    7: [(LEAD, at(7), at(14), "lost", 100, 100, E)],  # deleted later: it had left the stage before
    8: [(LEAD, at(8), at(18), "advanced", 70, 70, L), (OFFER, at(18), at(18), "advanced", 50, 50, L),
        (CONTRACT, at(18), None, "open", 50, 50, L)],
    9: [(None, at(9), at(19), None, 100, 100, E), (OFFER, at(19), None, "open", 100, 100, H)],
    10: [(OFFER, at(10), at(25), "won", 100, 100, E)],
    11: [(LEAD, at(11), at(11, second=10), "won", 100, 100, E)],
    12: [(LEAD, at(12), at(12, month=11), "advanced", 80, 80, E),
         (OFFER, at(12, month=11), None, "open", 80, 90, H)],
    13: [(LEAD, at(13), at(10, month=11), "removed", 100, 100, E)],
}  # fmt: skip


@pytest.mark.parametrize("id", VISITS)
def test_the_stages_that_a_deal_went_through(company: duckdb.DuckDBPyConnection, id: int) -> None:
    rows = ask(
        company,
        "SELECT stage_id, entered_at, left_at, exit, entry_value::INT, exit_value::INT, basis FROM sales.stage_visits"
        f" WHERE deal_id = {id} ORDER BY visit",
    )
    assert rows == VISITS[id]


def test_visits_cover_the_open_time_of_a_deal_without_gap_or_overlap(company: duckdb.DuckDBPyConnection) -> None:
    assert ask(company, """
        WITH open_time AS (
            SELECT deal_id, min(from_at) AS first, sum(epoch(coalesce(to_at, '2026-12-01') - from_at)) AS seconds
            FROM sales.deal_states WHERE status = 'open' GROUP BY deal_id
        ), visited AS (
            SELECT deal_id, min(entered_at) AS first,
                   sum(epoch(coalesce(left_at, '2026-12-01') - entered_at)) AS seconds
            FROM sales.stage_visits GROUP BY deal_id
        )
        FROM open_time o FULL JOIN visited v USING (deal_id)
        WHERE o.first IS DISTINCT FROM v.first OR o.seconds IS DISTINCT FROM v.seconds""") == []  # fmt: skip
    assert ask(company, """
        SELECT deal_id FROM (
            SELECT deal_id, to_at, lead(from_at) OVER (PARTITION BY deal_id ORDER BY state) AS next
            FROM sales.deal_states)
        WHERE to_at IS DISTINCT FROM next""") == []  # fmt: skip


def test_the_entries_of_a_stage_are_its_seven_exits_added_up(company: duckdb.DuckDBPyConnection) -> None:
    rows = ask(company, """
        SELECT stage_id, sum(entries), sum(advanced + regressed + moved_pipeline + won + lost + removed + still_open)
        FROM sales.stage_conversion GROUP BY ALL ORDER BY ALL""")  # fmt: skip
    assert rows == [(LEAD, 8, 8), (OFFER, 9, 9), (CONTRACT, 5, 5), (INTAKE, 1, 1)]


def test_changes_replayed_from_created_on_end_in_the_present_row(company: duckdb.DuckDBPyConnection) -> None:
    """Whatever the source of the changes."""
    for field, kind in [("stage_id", "stage"), ("owner_id", "owner"), ("value", "value"), ("currency", "currency"),
                        ("expected_close_date", "close_date"), ("status", "status")]:  # fmt: skip
        assert ask(company, f"""
            WITH told AS (
                SELECT deal_id, time, seq, CASE kind WHEN 'created' THEN new ->> '{field}' ELSE new END AS new
                FROM sales.deal_changes WHERE kind IN ('created', '{kind}')
            )
            SELECT t.deal_id, arg_max(coalesce(t.new, ''), (t.time, t.seq)) AS replayed,
                   any_value(d.{field})::VARCHAR AS now
            FROM told t JOIN main.deals d ON d.id = t.deal_id GROUP BY ALL
            HAVING CASE WHEN '{field}' = 'value' THEN replayed::DOUBLE <> now::DOUBLE
                        ELSE replayed <> coalesce(now, '') END
            """) == [], field  # fmt: skip


def test_who_changed_what_and_by_how_much(company: duckdb.DuckDBPyConnection) -> None:
    assert ask(company, """
        SELECT deal_id, kind, old, new, delta_value::INT, delta_days, author, basis FROM sales.deal_changes
        WHERE kind IN ('value', 'close_date', 'owner', 'currency') ORDER BY deal_id, time, kind""") == [
        (1, "value", "100", "120", 20, None, 2, "changelog"),
        (3, "close_date", "2026-10-15", "2026-11-15", None, 31, 1, "changelog"),
        (3, "close_date", "2026-11-15", "2026-12-15", None, 30, 2, "changelog"),
        (5, "owner", "1", "2", None, None, 2, "changelog"),
        (8, "currency", "EUR", "USD", None, None, 1, "changelog"),
        (8, "value", "70", "50", None, None, 1, "changelog"),  # not comparable: the currency changed with it
        (12, "close_date", "2026-11-10", "2026-12-10", None, 30, None, "history"),
        (12, "owner", "1", "2", None, None, None, "history"),
        (12, "value", "80.0000", "90.0000", 10, None, None, "history"),
    ]  # fmt: skip


def test_pushes_tell_planning_from_neglect(company: duckdb.DuckDBPyConnection) -> None:
    assert ask(company, """
        SELECT deal_id, later_moves, later_months, days_later, before_due, after_due, last_author_id, basis
        FROM sales.pushes ORDER BY deal_id""") == [
        (3, 2, 2, 61, 1, 1, 2, "changelog"),
        (12, 1, 1, 30, 0, 1, None, "history"),  # seen on 15 November, after the 10th
    ]  # fmt: skip


def test_the_funnel_keeps_apart_what_only_shares_a_name(company: duckdb.DuckDBPyConnection) -> None:
    rows = ask(
        company, "SELECT pipeline_id, pipeline, stage, currency, deals, archived_deals, value::INT FROM sales.funnel"
    )
    assert rows == [
        (1, "Sales", "offer", "EUR", 3, 1, 290),
        (1, "Sales", "contract", "EUR", 1, 0, 100),
        (1, "Sales", "contract", "USD", 1, 0, 50),
        (2, "Sales", "intake", "EUR", 1, 0, 100),
    ]


def test_two_owners_of_one_name_are_two_rows_and_a_rate_is_of_the_owner(company: duckdb.DuckDBPyConnection) -> None:
    rows = ask(
        company, "SELECT owner_id, owner, open, won, lost, closed, win_rate FROM sales.by_owner ORDER BY owner_id"
    )
    assert rows == [(1, "Ann", 4, 3, 2, 5, 60.0), (2, "Ann", 2, 0, 0, 0, None)]
    values = "SELECT owner_id, currency, open, open_value::INT, won_value::INT FROM sales.value_by_owner ORDER BY ALL"
    assert ask(company, values) == [(1, "EUR", 3, 300, 320), (1, "USD", 1, 50, 0), (2, "EUR", 2, 190, 0)]


def test_months_are_those_of_the_company(company: duckdb.DuckDBPyConnection) -> None:
    months = "SELECT month, deals, value::INT FROM sales.won_by_month"
    assert ask(company, months) == [(date(2026, 10, 1), 3, 320)]
    rates = "SELECT month, won, lost, closed, win_rate FROM sales.win_rate WHERE closed > 0"
    assert ask(company, rates) == [(date(2026, 10, 1), 3, 2, 5, 60.0)]


def test_lost_reasons_are_by_the_stage_that_was_left(company: duckdb.DuckDBPyConnection) -> None:
    rows = ask(company, "SELECT stage, reason, deals, share, spellings FROM sales.lost_reasons ORDER BY stage")
    assert rows == [
        ("contract", "too expensive", 1, 50.0, [" Too  expensive"]),
        ("offer", "too expensive", 1, 50.0, ["too expensive"]),
    ]


def test_a_cohort_never_grows_from_stage_to_stage(company: duckdb.DuckDBPyConnection) -> None:
    rows = ask(company, "SELECT pipeline_id, stage, created, reached, touched, estimated FROM sales.funnel_cohort")
    assert rows == [  # 1, 2, 3, 4, 6, 8, 9, 10 and 12; 11 was imported as won, 7 and 13 are gone
        (1, "lead", 9, 9, 4, 3),
        (1, "offer", 9, 9, 7, 3),
        (1, "contract", 9, 6, 5, 3),
        (2, "intake", 1, 1, 1, 0),
    ]


def test_the_cycle_leaves_out_what_was_imported_as_closed(company: duckdb.DuckDBPyConnection) -> None:
    rows = ask(company, "SELECT deals, median_days, mean_days, median_days_in_pipeline FROM sales.sales_cycle")
    assert rows == [(2, 17.0, 17.0, 17.0)]  # 19 and 15 days


def test_the_win_curve_counts_lost_as_an_exit_and_open_deals_until_now(company: duckdb.DuckDBPyConnection) -> None:
    """Ten deals: lost at 10 and 28 days, won at 15 and 19; six open, at least 38 days old."""
    rows = ask(
        company, "SELECT age_days, at_risk, won, lost, won_share, lost_share FROM sales.win_curve WHERE won + lost > 0"
    )
    assert rows == [
        (10, 10, 0, 1, 0.0, 10.0),
        (15, 9, 1, 0, 10.0, 10.0),
        (19, 8, 1, 0, 20.0, 10.0),
        (28, 7, 0, 1, 20.0, 20.0),
    ]


def test_time_in_stage_counts_what_has_not_ended(company: duckdb.DuckDBPyConnection) -> None:
    """Contract: 10, 28.6, 4 days ended; 42 and 33 days so far."""
    rows = ask(company, """SELECT visits, settled, median_days, mean_days, km_median_days, basis
                           FROM sales.time_in_stage WHERE stage = 'contract'""")  # fmt: skip
    assert rows == [(5, 3, 10.0, 14.2, 29, "changelog")]


def test_time_in_stage_of_the_visits_that_began_in_a_period(company: duckdb.DuckDBPyConnection) -> None:
    """Contract was entered on the 2nd, 8th, 9th, 10th and 18th; two of those from the 8th to the 10th ended."""
    between = "SELECT visits, settled, median_days FROM sales.time_in_stage_between('2026-10-08', '2026-10-10')"
    assert ask(company, f"{between} WHERE stage = 'contract'") == [(3, 2, 7.0)]
    everything = ask(company, "FROM sales.time_in_stage ORDER BY ALL")
    assert ask(company, "FROM sales.time_in_stage_between(NULL, NULL) ORDER BY ALL") == everything
    assert ask(company, "FROM sales.time_in_stage_between('2026-12-01', NULL)") == []


def test_the_forecast_drops_no_deal(company: duckdb.DuckDBPyConnection) -> None:
    rows = ask(company, """SELECT bucket, month, pipeline_id, currency, open_deals, open_value::INT,
                           weighted_value::INT, unweighted_rest::INT, won_value::INT
                           FROM sales.forecast ORDER BY ALL""")  # fmt: skip
    assert rows == [
        ("month", date(2026, 10, 1), 1, "EUR", 0, 0, None, 0, 320),
        ("month", date(2026, 12, 1), 1, "EUR", 2, 190, 95, 0, 0),
        ("no date", None, 1, "EUR", 2, 200, 100, 0, 0),
        ("no date", None, 1, "USD", 1, 50, 25, 0, 0),
        ("no date", None, 2, "EUR", 1, 100, None, 100, 0),
    ]


def test_what_became_of_the_deals_that_were_due(company: duckdb.DuckDBPyConnection) -> None:
    """On 1 October nothing was open. On 1 November deal 12 was due on the 10th: it slipped into December."""
    rows = ask(
        company,
        "SELECT month, baseline, won, lost, slipped, overdue, removed, baseline_value::INT, basis FROM sales.slippage",
    )
    assert rows == [(date(2026, 11, 1), 1, 0, 0, 1, 0, 0, 80, "history")]


def test_the_waterfall_closes_to_the_cent(company: duckdb.DuckDBPyConnection) -> None:
    """Deals due from 1 to 20 November, and those due from 11 October to the end of the year."""
    flows = ["opening", "created", "pulled_in", "pushed_in", "reopened", "raised", "lowered", "won", "lost", "removed",
             "pushed_out", "currency_changed", "closing"]  # fmt: skip
    rows = ask(
        company, f"SELECT currency, {', '.join(flows)} FROM sales.waterfall_between(['2026-10-31', '2026-11-20'])"
    )
    assert [
        (row[0], {name: int(value) for name, value in zip(flows, row[1:], strict=True) if value}) for row in rows
    ] == [
        ("EUR", {"opening": 80, "pushed_out": 80}),
    ]
    rows = ask(
        company, f"SELECT currency, {', '.join(flows)} FROM sales.waterfall_between(['2026-10-10', '2026-12-31'])"
    )
    assert [
        (row[0], {name: int(value) for name, value in zip(flows, row[1:], strict=True) if value}) for row in rows
    ] == [
        ("EUR", {"opening": 100, "created": 90, "closing": 190}),
    ]
    for row in ask(company, f"SELECT {', '.join(flows)} FROM sales.waterfall"):
        told = dict(zip(flows, row, strict=True))
        gains = sum(told[name] for name in flows[1:6]) + told["currency_changed"]
        assert told["opening"] + gains - sum(told[name] for name in flows[6:11]) == told["closing"]


def test_the_pipeline_of_each_day(company: duckdb.DuckDBPyConnection) -> None:
    rows = ask(company, """SELECT day, sum(deals)::INT, sum(value)::INT FROM sales.pipeline_daily
        WHERE day IN ('2026-10-01', '2026-10-09', '2026-10-31', '2026-11-20')
        AND currency = 'EUR' GROUP BY day ORDER BY day""")  # fmt: skip
    assert rows == [
        (date(2026, 10, 1), 1, 100),
        (date(2026, 10, 9), 8, 790),  # 1 to 5 and 7 to 9; 6 was won on the 8th; 1 is worth 120, 8 worth 70
        (date(2026, 10, 31), 6, 580),  # 3, 4, 5, 9, 12 and 13; 2 was lost at midnight in Berlin
        (date(2026, 11, 20), 5, 490),
    ]


def test_open_on_is_the_table_as_of_a_moment_after_the_first_sync(
    company: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    days = [date(2026, 11, 1), date(2026, 11, 11), date(2026, 11, 19)]
    told = {day: ask(company, f"SELECT id, stage_id, value FROM sales.open_on('{day}') ORDER BY id") for day in days}
    path = path_of(company)
    company.execute("CHECKPOINT warehouse")
    copy = tmp_path / "copy.duckdb"
    copy.write_bytes(path.read_bytes())
    for day in days:
        past = warehouse.attach(copy, "published")
        moment = datetime(day.year, day.month, day.day, 23, tzinfo=UTC) - timedelta(microseconds=1)
        history.show_as_of(past, "published", moment, "from sales.funnel")
        assert past.execute(
            "SELECT id, stage_id, value FROM deals WHERE status = 'open' AND _deleted_at IS NULL ORDER BY id"
        ).fetchall() == told[day]  # fmt: skip
        past.close()
    assert [len(told[day]) for day in days] == [7, 6, 6]
    funnel = "SELECT stage, currency, deals, value::INT FROM sales.funnel_on('2026-11-12')"
    assert ask(company, funnel) == [
        ("offer", "EUR", 3, 280),  # deal 12 has moved on that day, and was read on the 20th
        ("contract", "EUR", 1, 100),
        ("contract", "USD", 1, 50),
        ("intake", "EUR", 1, 100),
    ]


def test_each_view_as_of_the_newest_reading_is_what_it_is_now(
    company: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    """Of two runs: a clock with a row for each would count every deal twice.

    Views whose rows are stored are of the deals being recomputed: none now, all as of a moment.
    """
    shown = [view for view in views().values() if view.schema == "sales" and not view.parameters]
    names = [view.name for view in shown if not view.stored_in]
    now = {name: sorted(map(repr, ask(company, f"FROM {name}"))) for name in names}
    company.execute("CHECKPOINT warehouse")
    copy = tmp_path / "copy.duckdb"
    copy.write_bytes(path_of(company).read_bytes())
    past = warehouse.attach(copy, "published")
    history.show_as_of(past, "published", SECOND)
    assert ask(past, "SELECT count(*), any_value(moment) FROM sales._clock") == [(1, SECOND)]
    differing = [name for name in names if sorted(map(repr, ask(past, f"FROM {name}"))) != now[name]]
    past.close()
    assert len(names) > 40
    assert differing == []


def test_s12_a_deal_that_was_deleted_and_restored_was_not_open_in_between(loader: Loader) -> None:
    """Both are deleted on the 10th; 31 is restored on the 15th and moved on the 18th, 32 changes while deleted."""
    make(loader)
    first = {id: deal(id, at(1), LEAD) for id in (31, 32)}
    load_rows(loader, "deals", *first.values(), number=6, at=FIRST)
    for number, day, changes in (
        (7, 10, {31: {"is_deleted": True}, 32: {"is_deleted": True}}),
        (8, 15, {31: {}, 32: {"is_deleted": True, "value": 70}}),
        (9, 18, {31: {"stage_id": OFFER}}),
    ):
        moment = at(day, month=11)
        records = [{**first[id], **change, "update_time": text(moment)} for id, change in changes.items()]
        load_rows(loader, "deals", *records, number=number, at=moment + timedelta(hours=1))
    loader.create_views()
    states = (
        "SELECT from_at, to_at, status, stage_id, value::INT FROM sales.deal_states WHERE deal_id = {} ORDER BY state"
    )
    deleted, second, moved = (at(day, month=11) for day in (10, 15, 18))
    assert ask(loader.connection, states.format(31)) == [
        (at(1), deleted, "open", LEAD, 100),
        (deleted, second, "removed", LEAD, 100),
        (second, moved, "open", LEAD, 100),
        (moved, None, "open", OFFER, 100),
    ]
    assert ask(loader.connection, states.format(32)) == [
        (at(1), deleted, "open", LEAD, 100),
        (deleted, second, "removed", LEAD, 100),
        (second, None, "removed", LEAD, 70),
    ]
    open_on = "SELECT id FROM sales.open_on('2026-11-{:02}') WHERE id > 30 ORDER BY id"
    open_deals = {day: [id for (id,) in ask(loader.connection, open_on.format(day))] for day in (9, 12, 16)}
    assert open_deals == {9: [31, 32], 12: [], 16: [31]}


def test_open_on_knows_the_past_before_the_first_sync(company: duckdb.DuckDBPyConnection) -> None:
    rows = ask(company, """SELECT id, stage_id, value::INT, basis, is_archived IS NOT NULL
        FROM sales.open_on('2026-10-15') ORDER BY id""")  # fmt: skip
    assert rows == [  # the last column: whether there is a version of that day
        (1, CONTRACT, 120, "changelog", False),
        (2, CONTRACT, 100, "changelog", False),
        (3, CONTRACT, 100, "changelog", False),
        (4, OFFER, 100, "changelog", True),
        (5, INTAKE, 100, "changelog", True),
        (6, OFFER, 100, "changelog", False),  # it was won before, and lost on the 16th
        (8, LEAD, 70, "changelog", False),
        (9, None, 100, "estimate", False),
        (10, OFFER, 100, "estimate", False),
        (12, LEAD, 80, "history", True),
        (13, LEAD, 100, "history", True),
    ]
    for day in (date(2026, 10, 9), date(2026, 10, 15), date(2026, 10, 31), date(2026, 11, 12)):
        open_then = ask(company, f"SELECT count(*), sum(value)::INT FROM sales.open_on('{day}')")
        assert open_then == ask(company, f"""SELECT sum(deals)::INT, sum(value)::INT FROM sales.pipeline_daily
            WHERE day = '{day}'""")  # fmt: skip


def path_of(company: duckdb.DuckDBPyConnection) -> Path:
    rows = company.execute("SELECT path FROM duckdb_databases() WHERE database_name = 'warehouse'").fetchall()
    return Path(rows[0][0])


@pytest.mark.proof
def test_every_view_is_equal_from_clients_in_other_time_zones(company: duckdb.DuckDBPyConnection) -> None:
    """The building blocks too: between two clocks of a zone with summer time a day is not always 24 hours."""
    names = [view.name for view in views().values() if not view.parameters]
    in_utc = {name: ask(company, f"SELECT * FROM {name} ORDER BY ALL") for name in names}
    try:
        for zone in ("Asia/Tokyo", "America/Los_Angeles", "Europe/London"):  # with other summer times
            company.execute(f"SET TimeZone = '{zone}'")
            for name, rows in in_utc.items():
                assert ask(company, f"SELECT * FROM {name} ORDER BY ALL") == rows, (name, zone)
    finally:
        company.execute("SET TimeZone = 'UTC'")


def test_stored_rows_are_what_a_query_would_compute(company: duckdb.DuckDBPyConnection) -> None:
    """Row by row: only the deals that changed are computed again, and the result is the same."""
    stored = {
        name: ask(company, f"FROM sales.{name} ORDER BY ALL")
        for name in ("_tracked_changes", "_tracked_states", "_tracked_visits")
    }
    company.execute("INSERT INTO sales._scope SELECT deal_id FROM sales._recorded")
    try:
        for name, rows in stored.items():
            assert ask(company, f"FROM sales.{name.replace('_tracked', '')} ORDER BY ALL") == rows
    finally:
        company.execute("DELETE FROM sales._scope")


def test_only_deals_that_changed_are_computed_again(tmp_path: Path) -> None:
    loader = Loader(tmp_path / "work.duckdb")
    loader.open(COMPANY, "Acme")
    make(loader)
    loader.create_views()
    connection = loader.connection
    connection.execute("UPDATE sales._tracked_states SET value = -1")  # a mark: it stays where nothing is computed
    load_rows(
        loader,
        "deals",
        deal(3, at(3), CONTRACT, value=777, update_time=at(18, month=11)),
        number=6,
        at=SECOND + timedelta(1),
    )
    loader.create_views()
    rows = connection.execute(
        "SELECT DISTINCT deal_id FROM sales._tracked_states WHERE value <> -1 ORDER BY ALL"
    ).fetchall()
    assert rows == [(3,)]
    connection.execute("UPDATE main.stages SET order_nr = 9 WHERE id = 11")  # a stage moved: exits may differ
    loader.create_views()
    assert connection.execute("SELECT count(*) FROM sales._tracked_states WHERE value = -1").fetchall() == [(0,)]
    assert Decimal(777) in {
        value for (value,) in connection.execute("SELECT value FROM sales._tracked_states").fetchall()
    }
    asyncio.run(loader.close())


def test_views_agree_with_plain_python_over_random_lives(tmp_path: Path) -> None:
    """A slice of `python -m tests.proofs.sales`."""
    compared = compare(600, 7, tmp_path)
    assert [example for _, _, examples in compared.values() for example in examples] == []
    assert all(rows > 10 for rows, _, _ in compared.values())


def test_the_vendor_s_statistics_beside_ours_with_each_difference_explained(company: duckdb.DuckDBPyConnection) -> None:
    """October, first user, first pipeline. Deal 3 is not listed, 4 is archived, 5 given away, 7 deleted."""
    statistics = "(pipeline_id, start_date, end_date, user_id, _verified_at,"
    company.execute(
        f"INSERT INTO main.pipeline_movement_statistics {statistics} new_deals_ids, won_deals_ids, lost_deals_ids,"
        " deals_left_open_ids) VALUES (1, '2026-10-02', '2026-10-31', NULL, '2026-11-19 12:00:00+00',"
        " [1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 99], [1, 6, 10, 11], [2, 6], [8, 9])"
    )
    steps = "[{from_stage_id: 11, to_stage_id: 12, conversion_rate: 100},"
    steps += " {from_stage_id: 12, to_stage_id: 13, conversion_rate: 20}]"
    company.execute(
        f"INSERT INTO main.pipeline_conversion_statistics {statistics} won_conversion, lost_conversion,"
        f" stage_conversions) VALUES (1, '2026-10-02', '2026-10-31', 1, '2026-11-19 12:00:00+00', 28, 40, {steps})"
    )
    try:
        compared = "SELECT metric, pipedrive, pdsync, only_pipedrive, only_pdsync, explanation FROM sales.vendor_check"
        assert ask(company, compared) == [
            ("left open", 2, 3, [], [3], "not explained: 1"),
            ("lost", 2, 2, [], [], "equal"),
            (
                "new",
                12,
                7,
                [1, 4, 5, 7, 12, 99],
                [3],
                "of another owner now: 2; archived: 1; deleted: 1;"
                " near midnight, in another time zone: 1; not explained: 1; not in the tables: 1",
            ),
            ("won", 4, 3, [6], [], "reopened, or closed otherwise: 1"),
        ]
        rates = "SELECT metric, from_stage_id, pdsync, went_on, deals, explanation[:13] FROM sales.vendor_check_rates"
        assert ask(
            company, rates
        ) == [  # 2, 3, 6, 8, 9, 10 and 11; 2, 3 and 8 reached the last stage, 10 and 11 are won
            ("stage", LEAD, 100.0, 7, 7, "equal"),
            ("stage", OFFER, 71.4, 5, 7, "not explained"),
            ("won", None, 28.6, 2, 7, "equal"),
            ("lost", None, 28.6, 2, 7, "not explained"),
        ]
    finally:
        for name in ("movement", "conversion"):
            company.execute(f"DELETE FROM main.pipeline_{name}_statistics")


def test_the_value_of_a_deal_is_divided_among_its_products(company: duckdb.DuckDBPyConnection) -> None:
    """Deal 3 is worth 100: 60 and 20 of two products, and one that is not enabled. All else is without products."""
    for number, (product, total, enabled) in enumerate([(7, 60, True), (8, 20, True), (9, 500, False)]):
        company.execute(
            'INSERT INTO main.deal_products (id, deal_id, product_id, name, "sum", is_enabled, currency)'
            " VALUES (?, 3, ?, 'licence', ?, ?, 'EUR')",
            [number, product, total, enabled],
        )
    try:
        shown = "SELECT product_id, product, value FROM sales.product_pipeline WHERE product_id IS NOT NULL"
        assert ask(company, shown) == [(7, "licence", 75), (8, "licence", 25)]
        sums = "SELECT stage_id, currency, sum(value) FROM sales.{} GROUP BY ALL ORDER BY ALL"
        assert ask(company, sums.format("product_pipeline")) == ask(company, sums.format("funnel"))
        company.execute('UPDATE main.deal_products SET "sum" = 20, is_enabled = true')  # a third of 100 each
        thirds = [(7, "licence", Decimal("33.33")), (8, "licence", Decimal("33.33")), (9, "licence", Decimal("33.34"))]
        assert sorted(ask(company, shown)) == thirds
        assert ask(company, sums.format("product_pipeline")) == ask(company, sums.format("funnel"))
    finally:
        company.execute("DELETE FROM main.deal_products")


def test_money_is_decimal_in_the_views(company: duckdb.DuckDBPyConnection) -> None:
    """So that sums are exact and a CSV has no digits of binary fractions."""
    views = ["coverage", "forecast", "funnel", "product_pipeline", "targets", "value_by_owner", "won_by_month"]
    money = (
        "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = 'sales'"
        " AND table_name IN (SELECT unnest(?)) AND regexp_matches(column_name, '(^|_)(value|average|target|missing)$')"
    )
    columns = company.execute(money, [views]).fetchall()
    assert {view for view, _, _ in columns} == set(views)
    assert [each for each in columns if not each[2].startswith("DECIMAL")] == []


def test_targets_beside_what_is_won_and_open(company: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    """Won in October: 120 of deal 1, 100 of 10 and of 11. Open and due in December: 100 of deal 3, 90 of 12."""
    lines = ["2026-10,,,EUR,400", "2026-10,2,,EUR,400", "2026-Q4,1,1,EUR,500", "2026-12,,,USD,10", "2026-12,2,,EUR,60"]
    (tmp_path / "targets.csv").write_text("\n".join(["period,owner_id,pipeline_id,currency,target", *lines]))
    sales_views.store_targets(company, read_targets(tmp_path))
    try:
        reached = "SELECT line, owner, pipeline, won_value::INT, reached FROM sales.targets"
        assert ask(company, reached) == [
            (2, None, None, 320, 80.0), (3, "Ann", None, 0, 0.0), (4, "Ann", "Sales", 320, 64.0),
            (5, None, None, 0, 0.0), (6, "Ann", None, 0, 0.0),
        ]  # fmt: skip
        covered = "SELECT goal_id, title, assignee_id, missing::INT, open_value::INT, coverage FROM sales.coverage"
        assert ask(company, covered) == [  # October has ended
            (None, "2026-Q4", 1, 180, 100, 0.56),
            (None, "2026-12", None, 10, 0, 0.0),
            (None, "2026-12", 2, 60, 90, 1.5),
        ]
    finally:
        sales_views.store_targets(company, [])
    assert ask(company, "FROM sales.targets") == []


def test_money_is_converted_at_the_rate_of_the_day_and_what_has_none_is_counted(tmp_path: Path) -> None:
    loader = Loader(tmp_path / "work.duckdb")
    loader.open(COMPANY, "Acme")
    make(loader)
    loader.table(catalogue.stream("deals_summary"), "v1")
    for day, dollar in ((19, 0.5), (20, 0.8)):
        sums = {"USD": {"value": 10, "value_converted": 10 * dollar}, "EUR": {"value": 7, "value_converted": 7}}
        loader.connection.execute(
            "INSERT INTO main.deals_summary (status, values_total, _valid_from) VALUES (?, ?, ?)",
            [f"state {day}", msgspec.json.encode(sums).decode(), at(day)],
        )
    loader.create_views()
    rows = ask(loader.connection, "SELECT day, currency, base, rate FROM meta.rates ORDER BY ALL")
    assert rows == [
        (date(2026, 10, 19), "EUR", "EUR", 1.0), (date(2026, 10, 19), "USD", "EUR", 0.5),
        (date(2026, 10, 20), "EUR", "EUR", 1.0), (date(2026, 10, 20), "USD", "EUR", 0.8),
    ]  # fmt: skip
    funnel = "SELECT currency, sum(value)::INT, sum(base_value) FROM sales.funnel GROUP BY ALL ORDER BY ALL"
    assert ask(loader.connection, funnel) == [("EUR", 490, 490), ("USD", 50, 40)]  # open ones: at the newest rate
    forecast = "SELECT currency, sum(base_open_value), sum(base_weighted_value) FROM sales.forecast GROUP BY ALL"
    assert ask(loader.connection, f"{forecast} ORDER BY ALL") == [("EUR", 490, 195), ("USD", 40, 20)]
    owners = "SELECT currency, base_currency, sum(base_open_value) FROM sales.value_by_owner GROUP BY ALL ORDER BY ALL"
    assert ask(loader.connection, owners) == [("EUR", "EUR", 490), ("USD", "EUR", 40)]
    lost = (
        "SELECT currency, sum(value)::INT, sum(base_value), sum(unconverted)::INT FROM sales.lost_reasons GROUP BY ALL"
    )
    assert ask(loader.connection, lost) == [("EUR", 200, 100, 1)]
    velocity = "SELECT value_per_day = base_value_per_day FROM sales.velocity WHERE days = 90 AND currency = 'EUR'"
    assert ask(loader.connection, velocity) == [(True,)]
    slippage = "SELECT baseline_value::INT, base_baseline_value, base_slipped_value FROM sales.slippage"
    assert ask(loader.connection, slippage) == [(80, 80, 80)]
    waterfall = "SELECT base_currency, rate FROM sales.waterfall_between(['2026-10-10', '2026-10-18', '2026-10-31'])"
    assert set(ask(loader.connection, waterfall)) <= {(None, None), ("EUR", 1), ("EUR", 0.8)}
    won = "SELECT deals, value::INT, base_value, unconverted FROM sales.won_by_month"
    assert ask(loader.connection, won) == [(3, 320, 220, 1)]  # deal 11 was won on the 11th, before any rate was known
    asyncio.run(loader.close())


def test_converted_money_takes_the_rate_of_the_stated_day(tmp_path: Path) -> None:
    """A dollar is 0.9 euros from 1 November, 0.75 from the 12th and 0.6 from the 15th; a pound has no rate."""
    loader = Loader(tmp_path / "work.duckdb")
    loader.open(COMPANY, "Acme")
    make(loader)
    closed, early = at(12, month=11), at(15)
    deals = [
        deal(20, at(2), OFFER, value=100, currency="USD", expected_close_date="2026-11-15", **won(closed)),
        deal(21, at(3), OFFER, value=60, currency="USD", expected_close_date="2026-11-05"),
        deal(22, at(4), OFFER, value=40, currency="GBP", expected_close_date="2026-11-10"),
        deal(23, at(5), OFFER, value=30, currency="USD", **lost(closed, "budget")),
        deal(24, at(6), OFFER, value=10, currency="GBP", **lost(closed, "budget")),
        deal(25, at(7), OFFER, value=30, currency="USD", **lost(early, "budget")),  # before any rate is known
        deal(26, at(8), OFFER, value=40, currency="GBP", **won(closed)),
    ]
    load_rows(loader, "deals", *deals, number=6, at=SECOND)
    log: list[tuple[Any, ...]] = [(row["id"], "add_time", row["add_time"], None, row["add_time"]) for row in deals]
    log += [(row["id"], "status", row["close_time"], "open", row["status"]) for row in deals if row["status"] != "open"]
    for number, (id, field, time, old, new) in enumerate(log, 100):
        loader.connection.execute(
            "INSERT INTO main.deal_changelog (id, deal_id, field_key, time, old_value, new_value, actor_user_id,"
            " _valid_from) VALUES (?, ?, ?, ?, ?, ?, 1, ?)",
            [number, id, field, time, old, new, FIRST],
        )
    for name in ("deal_products", "products", "deals_summary"):
        loader.table(catalogue.stream(name), "v1" if name == "deals_summary" else "v2")
    for id, parent, value, currency in ((1, 20, 100, "USD"), (2, 20, 5, "GBP"), (3, 26, 40, "GBP")):
        loader.connection.execute(
            'INSERT INTO main.deal_products (id, deal_id, product_id, name, "sum", is_enabled, currency)'
            " VALUES (?, ?, 1, 'Seat', ?, true, ?)",
            [id, parent, value, currency],
        )
    for day, dollar in ((1, 0.9), (12, 0.75), (15, 0.6)):
        sums = {"USD": {"value": 100, "value_converted": 100 * dollar}}
        loader.connection.execute(
            "INSERT INTO main.deals_summary (status, values_total, _valid_from) VALUES (?, ?, ?)",
            [f"state {day}", msgspec.json.encode(sums).decode(), at(day, month=11)],
        )
    loader.create_views()
    days = "['2026-10-31', '2026-11-12', '2026-11-20']"
    november = "month = '2026-11-01' AND currency <> 'EUR' ORDER BY currency"
    cents = Decimal
    tables = {
        f"SELECT currency, base_baseline_value, base_slipped_value FROM sales.slippage WHERE {november}": [
            ("GBP", None, None), ("USD", cents(144), cents(54))],
        f"SELECT currency, base_weighted_forecast, base_won_value FROM sales.forecast_accuracy WHERE {november}": [
            ("GBP", None, None), ("USD", cents(72), cents(90))],
        f"SELECT currency, base_currency, base_value, unconverted FROM sales.product_revenue WHERE {november}": [
            ("GBP", None, None, 2), ("USD", "EUR", cents(75), 0)],
        "SELECT month, currency, base_value, unconverted FROM sales.lost_reasons WHERE reason = 'budget'"
        " ORDER BY ALL": [
            (date(2026, 10, 1), "USD", None, 1), (date(2026, 11, 1), "GBP", None, 1),
            (date(2026, 11, 1), "USD", cents("22.5"), 0)],
        "SELECT currency, value_per_day > 0, base_value_per_day / value_per_day BETWEEN 0.59 AND 0.61"
        " FROM sales.velocity WHERE days = 90 AND currency <> 'EUR' ORDER BY ALL": [
            ("GBP", True, None), ("USD", True, True)],
        "SELECT currency, opening::INT, won::INT, closing::INT, base_currency, rate"
        f" FROM sales.waterfall_between({days}) WHERE currency <> 'EUR' ORDER BY ALL": [
            ("GBP", 40, 0, 40, None, None), ("USD", 60, 0, 60, "EUR", 0.75)],
        "SELECT currency, opening::INT, won::INT, closing::INT, base_currency, rate"
        " FROM sales.waterfall WHERE " + november: [
            ("GBP", 40, 0, 40, None, None), ("USD", 160, 100, 60, "EUR", 0.6)],
    }  # fmt: skip
    answers = {query: ask(loader.connection, query) for query in tables}
    asyncio.run(loader.close())
    assert answers == tables


def person(id: int, name: str, mail: str | None = None, phone: str | None = None) -> dict[str, Any]:
    values = {"emails": mail, "phones": phone}
    return {
        "id": id, "name": name,
        **{key: [{"value": value, "label": "work", "primary": True}] for key, value in values.items() if value},
    }  # fmt: skip


def organization(id: int, name: str, website: str | None = None) -> dict[str, Any]:
    return {"id": id, "name": name, "website": website}


def test_probable_duplicates_score_the_sum_of_their_reasons(tmp_path: Path) -> None:
    """60 + 40 + 20 is capped. A placeholder website, a switchboard and a shared mailbox are no evidence alone."""
    persons = [
        person(1, "Zoë Ray", "zoe@ray.example", "+49 30 1234567"),
        person(2, "zoë ray ", "Zoe@Ray.example", "030 1234567"),
        person(3, "Bo Lind", "bo@lind.example"), person(4, "Bo Lind", "BO@lind.example"),
        person(5, "Cleo", "cleo@x.example"), person(6, "Dora", "cleo@x.example"),
        person(7, "Emil", None, "040 7654321"), person(8, "Fay", None, "+40 7654321"),
        person(9, "Bob Jones"), person(10, "Bob Jones"),  # one name is no evidence
        *(person(id, f"Worker {id}", "info@big.example", "0800 5555555") for id in range(20, 26)),  # 20 + 10
        *(person(id, "Gus Hall", "gus@hall.example", "0700 1111111") for id in range(30, 36)),  # 20 + 10 + 10
    ]  # fmt: skip
    organizations = [
        organization(1, "Acme", "https://www.acme.example/de"), organization(2, "ACME", "acme.example"),
        organization(3, "Nord GmbH", "nord.example"), organization(4, "Nord, Ltd.", "http://nord.example:80"),
        organization(5, "Süd"), organization(6, "süd"),
        organization(7, "West Inc."), organization(8, "West"),
        organization(9, "Alpha", "shop.example?x=1"), organization(10, "Beta", "shop.example"),
        organization(11, "East AG", "https://example.com"), organization(12, "East", "https://example.com"),
        *(organization(id, f"Other {id}", "https://example.com") for id in range(20, 25)),  # seven of that website
        *(organization(id, "Chain", "chain.example") for id in range(30, 36)),  # 30 + 10
        organization(40, "株式会社北"), organization(41, "株式会社北"),
    ]  # fmt: skip
    loader = Loader(tmp_path / "work.duckdb")
    loader.open(COMPANY, "Acme")
    load_rows(loader, "persons", *persons, number=1)
    load_rows(loader, "organizations", *organizations, number=2)
    loader.create_views()
    rows = ask(loader.connection, "SELECT entity, id_1, id_2, score, reasons FROM sales.duplicates ORDER BY ALL")
    asyncio.run(loader.close())
    many = [("organizations", 30, 36), ("persons", 30, 36)]
    for entity, first, end in many:
        pairs = [row for row in rows if row[0] == entity and first <= row[1] < end]
        assert [row[1:4] for row in pairs] == [(a, b, 40) for a in range(first, end) for b in range(a + 1, end)]
        rows = [row for row in rows if row not in pairs]
    assert rows == [
        ("organizations", 1, 2, 100, ["equal name", "equal domain"]),
        ("organizations", 3, 4, 80, ["equal domain", "similar name"]),
        ("organizations", 5, 6, 60, ["equal name"]),
        ("organizations", 7, 8, 40, ["similar name"]),
        ("organizations", 9, 10, 40, ["equal domain"]),
        ("organizations", 11, 12, 50, ["similar name", "equal common domain"]),
        ("organizations", 40, 41, 60, ["equal name"]),
        ("persons", 1, 2, 100, ["equal e-mail", "equal phone", "equal name"]),
        ("persons", 3, 4, 80, ["equal e-mail", "equal name"]),
        ("persons", 5, 6, 60, ["equal e-mail"]),
        ("persons", 7, 8, 40, ["equal phone"]),
    ]
