"""Reads what the report shows from the published warehouse and control.db: the rows and the sentence of each figure.

Nothing in it depends on the clock of this machine: "now" is the time of the newest reading, so the same warehouse and
control.db give the same page.
"""

from __future__ import annotations

import sqlite3
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from pdsync.core import catalogue
from pdsync.core.views import views
from pdsync.runner.report import freshness
from pdsync.runner.report.health import is_optional
from pdsync.runner.report.page import charts, formats
from pdsync.sql import first, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import duckdb
    from jinja2 import Environment

    from pdsync.core.config import Settings
    from pdsync.runner.report.page.charts import Chart
    from pdsync.runner.report.page.formats import Row

_DAYS = 365  # of the report, unless a first day is given
_BUDGET_DAYS = 30
_MOST_CURRENCIES = 3  # that have figures of their own; all of them are in the table of money
_LEAST_SHARE = 0.05  # of the open deals


class Clock(Struct, frozen=True):
    """The moment that the report is of, by the warehouse and not by this machine, and the days that it shows."""

    moment: datetime | None  # of the newest reading; None: nothing was read yet
    today: date  # in the company's zone
    zone: str
    since: date  # first day of what the report shows


class Figure(Struct, frozen=True):
    """A figure as it is shown: the chart's rows are the table's."""

    chart: Chart
    key: str
    title: str
    sentence: str  # HTML, escaped
    rows: list[Row]
    command: str = ""  # what brings the view to this warehouse, if it is not there
    estimated: bool = False  # some rows are inferred from the present, as no history is stored


def read_clock(warehouse: duckdb.DuckDBPyConnection, since: date | None) -> Clock:
    """The time of the newest reading, and the company's zone."""
    moment = first(warehouse.execute("SELECT epoch(max(as_of)) FROM meta.runs"))[0]
    zone = "UTC"
    if has_view(warehouse, "sales._clock"):
        zone = str(first(warehouse.execute("SELECT timezone FROM sales._clock"))[0])
    return clock_at(moment, zone, since)


def clock_at(moment: float | None, zone: str, since: date | None) -> Clock:
    """The clock that stands at `moment`, in seconds since 1970; None: nothing was read yet."""
    at = datetime.fromtimestamp(moment, UTC) if moment is not None else None
    today = at.astimezone(formats.timezone(zone)).date() if at else date(1970, 1, 1)
    return Clock(at, today, zone, since or today - timedelta(days=min(_DAYS, (today - date(1970, 1, 1)).days)))


def has_view(warehouse: duckdb.DuckDBPyConnection, name: str) -> bool:
    """Whether the warehouse has a table or view of that name: `sales.funnel`."""
    schema, _, table = name.partition(".")
    return bool(
        first(
            warehouse.execute(
                "SELECT count(*) FROM information_schema.tables WHERE table_schema = ? AND table_name = ?",
                [schema, table],
            )
        )[0]
    )


def read_figures(
    warehouse: duckdb.DuckDBPyConnection, settings: Settings, clock: Clock, sections: Sequence[str], env: Environment
) -> list[Figure]:
    """The figures of `sections` in the order of the page; one whose view is missing says why, and how to get it.

    Args:
        warehouse: published; it is only read.
        settings: of the project; its control.db has the tokens that were spent.
        clock: what `read_clock` gave.
        sections: `health`, `sales`.
        env: renders the sentences: `formats.environment`.
    """
    main = _main_currencies(warehouse)
    figures: list[Figure] = []
    for chart in charts.charts():
        if chart.section not in sections:
            continue
        if not chart.source and not has_view(warehouse, chart.view):
            reason, command = _how_to_get(warehouse, chart.view)
            figures.append(Figure(chart, chart.name, chart.title, reason, [], command=command))
            continue
        figures += make_figures(chart, _read_rows(warehouse, settings, clock, chart), main, env)
    return figures


def make_figures(chart: Chart, rows: list[Row], main: Sequence[str], env: Environment) -> list[Figure]:
    """The figure of a chart with its rows, or one for each currency of `main` that they have.

    Where they have none of `main`, up to three others have a figure; rows without a currency are in none.
    """
    if not chart.by_currency or not rows:
        return [_make(chart, chart.name, chart.title, rows, env, "")]
    existing = {row["currency"] for row in rows if row["currency"]}
    figures = []
    for currency in [each for each in main if each in existing] or sorted(existing)[:_MOST_CURRENCIES]:
        own = [row for row in rows if row["currency"] == currency]
        figures.append(_make(chart, f"{chart.name}-{currency}", f"{chart.title}, {currency}", own, env, currency))
    return figures


def read_money(warehouse: duckdb.DuckDBPyConnection, today: date, view: str = "sales.forecast") -> list[Row]:
    """What is open now, and what was won this month and last month, by currency; the most used currency first."""
    if not has_view(warehouse, view):
        return []
    return read_rows(
        warehouse.execute(
            "SELECT coalesce(currency, '(none)') AS currency, sum(open_deals)::BIGINT AS open_deals,"
            " sum(open_value) AS open_value,"
            " coalesce(sum(won_deals) FILTER (month = $month), 0)::BIGINT AS won_deals,"
            " coalesce(sum(won_value) FILTER (month = $month), 0) AS won_value,"
            " coalesce(sum(won_value) FILTER (month = $month - INTERVAL 1 MONTH), 0) AS won_before"
            f" FROM {quoted(*view.split('.'))} GROUP BY ALL HAVING sum(open_deals) + sum(won_deals) > 0"
            " ORDER BY sum(open_deals) DESC, currency",
            {"month": today.replace(day=1)},
        )
    )


def _main_currencies(warehouse: duckdb.DuckDBPyConnection) -> list[str]:
    """The currencies of most open deals, up to three; a rare one has no figures of its own."""
    if not has_view(warehouse, "sales.funnel"):
        return []
    rows = warehouse.execute(
        "SELECT currency, sum(deals) / sum(sum(deals)) OVER () AS share FROM sales.funnel"
        " WHERE deals > 0 AND currency IS NOT NULL"
        " GROUP BY currency ORDER BY share DESC, currency"
    ).fetchmany(_MOST_CURRENCIES)
    return [str(row[0]) for nr, row in enumerate(rows) if nr == 0 or row[1] >= _LEAST_SHARE]


def _make(chart: Chart, key: str, title: str, rows: list[Row], env: Environment, currency: str) -> Figure:
    if not rows:
        return Figure(chart, key, title, env.from_string("{{ text }}").render(text=chart.empty), [])
    sentence = env.from_string(chart.sentence).render(rows=rows, currency=currency)
    return Figure(chart, key, title, sentence, rows, estimated=any(row.get("basis") == "estimate" for row in rows))


def _read_rows(warehouse: duckdb.DuckDBPyConnection, settings: Settings, clock: Clock, chart: Chart) -> list[Row]:
    if chart.source == "freshness":
        return _read_freshness(warehouse, settings, clock)
    if chart.source == "budget":
        return _read_budget(settings, clock)
    return read_chart(warehouse, clock, chart)


def read_chart(database: duckdb.DuckDBPyConnection, clock: Clock, chart: Chart) -> list[Row]:
    """The rows of the chart's query."""
    query = "\n".join(chart.query)
    return read_rows(database.execute(query, {"since": clock.since} if "$since" in query else None))


def read_rows(answer: duckdb.DuckDBPyConnection) -> list[Row]:
    """The rows of an answer by column name."""
    names = [column[0] for column in answer.description or []]
    return [dict(zip(names, row, strict=True)) for row in answer.fetchall()]


def _read_freshness(warehouse: duckdb.DuckDBPyConnection, settings: Settings, clock: Clock) -> list[Row]:
    """Each stream that was read, the oldest first; those that are read on request only come last."""
    rows = []
    for stream, until, full in freshness.read_checkpoints(warehouse, settings):
        behind = max((clock.moment - until).total_seconds(), 0) / 3600 if clock.moment else 0.0
        bucket = "older" if behind > 168 else "up to 7 days" if behind > 24 else "up to 1 day"
        bucket = "up to 1 hour" if behind <= 1 else bucket
        count = first(warehouse.execute(f"SELECT count(*) FROM {quoted('main', stream)} WHERE _deleted_at IS NULL"))[0]
        rows.append(
            {
                "stream": stream,
                "complete_until": until,
                "hours": round(behind, 1),
                "bucket": "on request" if is_optional(stream) else bucket,
                "rows": int(count),
                "last_full": full,
            }
        )
    return sorted(rows, key=lambda row: (row["bucket"] == "on request", row["complete_until"], row["stream"]))


def _read_budget(settings: Settings, clock: Clock) -> list[Row]:
    """The tokens of each of the last 30 days by the ledger; none if nothing was sent in them."""
    if clock.moment is None or not settings.control.exists():
        return []
    last = clock.moment.date()  # the ledger's days are of UTC
    days = [last - timedelta(days=back) for back in range(_BUDGET_DAYS - 1, -1, -1)]
    connection = sqlite3.connect(settings.control, timeout=30)
    try:
        found = connection.execute("SELECT day, spent, server_limit FROM tokens").fetchall()
    finally:
        connection.close()
    spent = {day: (int(tokens), limit) for day, tokens, limit in found}
    if not any(day.isoformat() in spent for day in days):
        return []
    limit = next((spent[key][1] for key in sorted(spent, reverse=True) if spent[key][1]), settings.daily_tokens) or None
    return [{"day": day, "tokens": spent.get(day.isoformat(), (0, None))[0], "limit": limit} for day in days]


def _how_to_get(warehouse: duckdb.DuckDBPyConnection, view: str) -> tuple[str, str]:
    """Why there is no such view, as a sentence, and the command after which there is."""
    rows = warehouse.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = 'main'").fetchall()
    missing = sorted(_streams_needed(view) - {str(row[0]) for row in rows})
    if not missing:
        return f"{view} is not in this warehouse; the next run creates it.", "pdsync sync"
    return f"This needs {', '.join(missing)}, which this warehouse does not have.", f"pdsync sync {' '.join(missing)}"


def _streams_needed(view: str) -> set[str]:
    """The streams with which one of the view's queries works: the fewest."""
    options = []
    for query in views()[view].queries:
        streams = {need for need in query.needs if need in catalogue.streams()}
        options.append(streams.union(*(_streams_needed(need) for need in query.needs if need in views())))
    return min(options, key=len, default=set())


def to_chart_rows(figures: Iterable[Figure]) -> dict[str, Any]:
    """What the page's script needs: the specs of `figures`, and the rows of each."""
    drawn = [figure for figure in figures if figure.chart.spec and figure.rows]
    return {
        "specs": {figure.chart.name: charts.compiled(figure.chart.name) for figure in drawn},
        "charts": {
            figure.key: {
                "spec": figure.chart.name,
                "rows": [{name: formats.to_json(value) for name, value in row.items()} for row in figure.rows],
            }
            for figure in drawn
        },
    }
