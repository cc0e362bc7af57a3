"""`pdsync fleet report`: one HTML page over all accounts, from the roll-up: health by account, then sales by currency.

It is the page of `pdsync report` with the figures of schemas/report/fleet. The same roll-up gives the same bytes.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pdsync.core.wording import counted
from pdsync.fleet import ask
from pdsync.runner.report.page import figures, formats
from pdsync.runner.report.page.charts import charts
from pdsync.runner.report.page.page import Content, Verdict, render
from pdsync.sql import first

if TYPE_CHECKING:
    from datetime import date

    import duckdb

    from pdsync.fleet.accounts import Fleet

_NAMED = 3  # accounts in the first line
_ZONE = "UTC"  # of the page's times: the accounts have different ones
_MOST_CURRENCIES = 3  # that have figures of their own
_FORECAST = "fleet.sales_forecast"


def render_fleet(fleet: Fleet, since: date | None = None) -> bytes:
    """The report of the roll-up of `fleet`.

    Args:
        fleet: whose accounts are shown.
        since: first day of the months that it shows; None: a year before the newest reading.

    Raises:
        StorageError: the roll-up can't be read.
    """
    shown = charts("fleet")
    queries = "\n".join(line for chart in shown for line in (*chart.query, chart.view))
    with ask.open_answers(fleet, f"{queries} {_FORECAST}") as answers:
        database = answers.connection
        moment = first(database.execute("SELECT epoch(max(read_at)) FROM fleet.accounts"))[0]
        clock = figures.clock_at(moment, _ZONE, since)
        env = formats.environment(_ZONE)
        main = _main_currencies(database)
        content = Content(
            title=f"Fleet of {counted(len(fleet.accounts), 'account')}",
            clock=clock,
            figures=[
                figure
                for chart in shown
                for figure in figures.make_figures(chart, figures.read_chart(database, clock, chart), main, env)
            ],
            verdict=_judge(database),
            money=figures.read_money(database, clock.today, _FORECAST),
            definitions='pdsync fleet sql "show all tables"',
            source="the roll-up",
        )
    return render(content, env)


def _main_currencies(database: duckdb.DuckDBPyConnection) -> list[str]:
    """The currencies of most open deals of all accounts."""
    rows = database.execute(
        "SELECT currency FROM fleet.sales_forecast WHERE currency IS NOT NULL GROUP BY currency"
        " HAVING sum(open_deals) + sum(won_deals) > 0 ORDER BY sum(open_deals) DESC, currency"
    ).fetchmany(_MOST_CURRENCIES)
    return [str(row[0]) for row in rows]


def _judge(database: duckdb.DuckDBPyConnection) -> Verdict:
    """How many accounts are complete, until when all of them are, and which are not."""
    rows = database.execute(
        "SELECT account, epoch(complete_until), complete_streams = streams AND len(gaps) = 0 FROM fleet.accounts"
        " ORDER BY account"
    ).fetchall()
    unread = [name for name, until, _ in rows if until is None]
    gaps = [name for name, until, is_complete in rows if until is not None and not is_complete]
    ends = [until for _, until, _ in rows if until is not None]
    if not ends:
        return Verdict("No account has been read completely yet: pdsync fleet sync", good=False)
    oldest = datetime.fromtimestamp(min(ends), UTC)
    complete = len(rows) - len(unread) - len(gaps)
    text = f"{complete} of {counted(len(rows), 'account')} {'is' if complete == 1 else 'are'} complete,"
    text += f" the oldest to {oldest:%H:%M} on {formats.format_day(oldest)}"
    if gaps:
        text += f"; gaps in {_names(gaps)}"
    if unread:
        text += f"; nothing yet of {_names(unread)}"
    return Verdict(text, good=not gaps and not unread)


def _names(accounts: list[str]) -> str:
    more = f" and {len(accounts) - _NAMED} more" if len(accounts) > _NAMED else ""
    return ", ".join(accounts[:_NAMED]) + more
