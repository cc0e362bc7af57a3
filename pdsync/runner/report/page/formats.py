"""Formats the numbers of the report, for its sentences and its tables; and what templates may compute of rows."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytz
from jinja2 import Environment, StrictUndefined

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import tzinfo

    from pdsync.runner.report.page.charts import Format

    Row = dict[str, Any]

_NOTHING = "–"
_JOINED = "\N{NO-BREAK SPACE}"
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip  # of the page's language, whatever the locale of this machine


def environment(zone: str) -> Environment:
    """The templates' environment: everything is escaped, times are shown in `zone`."""
    made = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters |= formatters(zone) | {
        "sum_of": sum_of,
        "largest": lambda rows, name: max(row[name] or 0 for row in rows),
        "with_largest": lambda rows, name: max(rows, key=lambda row: abs(row[name] or 0)),
        "furthest": _furthest,
        "money": format_money,
        "percent": lambda value: _NOTHING if value is None else f"{value:.1f}".removesuffix(".0") + f"{_JOINED}%",
    }
    return made


def formatters(zone: str) -> dict[Format, Callable[[Any], str]]:
    """How a value of a kind of column is written; "–" where there is none."""
    where = timezone(zone)
    return {
        "text": lambda value: _NOTHING if value is None else str(value),
        "count": lambda value: _NOTHING if value is None else f"{value:,.0f}",
        "number": lambda value: _NOTHING if value is None else f"{value:,.1f}",
        "money": lambda value: _NOTHING if value is None else f"{value:,.2f}".replace("-", "−"),
        "percent": lambda value: _NOTHING if value is None else f"{value:.1f}{_JOINED}%",
        "day": lambda value: _NOTHING if value is None else format_day(value),
        "month": lambda value: _NOTHING if value is None else _format_month(value),
        "time": lambda value: _NOTHING if value is None else format_time(value, where),
    }


def timezone(zone: str) -> tzinfo:
    """The time zone of that name; UTC where Python does not know it."""
    try:
        return pytz.timezone(zone)
    except pytz.UnknownTimeZoneError:
        return UTC


def format_day(day: date | str) -> str:
    """29 November 2026; a day of a mistyped year, for which Python has no date, as DuckDB writes it."""
    return day if isinstance(day, str) else f"{day.day}{_JOINED}{_MONTHS[day.month - 1]} {day.year}"


def _format_month(day: date | str) -> str:
    """November 2026, of one of its days; of a mistyped year the day, as DuckDB writes it."""
    return day if isinstance(day, str) else f"{_MONTHS[day.month - 1]} {day.year}"


def format_time(moment: datetime | str, where: tzinfo) -> str:
    """29 November 2026, 03:12; a time of a mistyped year as DuckDB writes it."""
    if isinstance(moment, str):
        return moment
    local = moment.astimezone(where)
    return f"{format_day(local)}, {local:%H:%M}"


def format_money(value: Decimal | float | None, currency: str) -> str:
    """EUR 1,234,567: whole units, for a sentence."""
    return f"{currency}{_JOINED}{value or 0:,.0f}".replace("-", "−")


def sum_of(rows: Sequence[Row], name: str) -> Any:
    """The sum of a column; NULL counts as nothing."""
    return sum((row[name] or 0 for row in rows), start=0)


def _furthest(rows: Sequence[Row], left: str, right: str) -> Row:
    return max(rows, key=lambda row: abs((row[left] or 0) - (row[right] or 0)))


def to_json(value: Any) -> Any:
    """What a chart can draw of a cell: times and days in ISO 8601, numbers as they are."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, datetime):  # in the zone of the reader's machine
        value = value.astimezone(UTC)
    return value.isoformat() if isinstance(value, date) else value
