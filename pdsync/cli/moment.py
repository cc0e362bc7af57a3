"""A point in time on the command line: a date, a date and time, or a time relative to now. UTC unless it has a zone."""

from __future__ import annotations

import calendar
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

_AGO = re.compile(r"-?(\d{1,6}) ?([a-z]+?)s?( ago)?")
_UNITS = {
    "min": "minute", "minute": "minute", "h": "hour", "hour": "hour", "d": "day", "day": "day", "w": "week",
    "week": "week", "mo": "month", "month": "month", "y": "year", "year": "year",
}  # fmt: skip
_YEARS = range(1970, 9000)  # at the ends of the calendar, no time before or after it can be calculated
_DAYS = [name.lower() for name in calendar.day_name]


class Moment(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """A point in time: ISO 8601, or relative, like 7d, yesterday, last week."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Parse it."""
        if isinstance(value, datetime):
            return value
        try:
            moment = parse(str(value), datetime.now(UTC))
            is_calculable = moment.astimezone(UTC).year in _YEARS
        except (ValueError, OverflowError):
            is_calculable = False
        if not is_calculable:
            self.fail(
                f"{value!r} is not a time from 1970 on. Write it like 2026-01-31, 2026-01-31T18:00:00Z, 7d, yesterday"
                " or 'last week'.",
                param,
                ctx,
            )
        return moment


def parse(text: str, now: datetime) -> datetime:
    """The time that `text` means at `now`.

    Minutes and hours are counted from now; whatever is a day or longer begins at 00:00 UTC, and this or last week on
    Monday, so that a command that is repeated on the same day means the same time.

    Raises:
        ValueError, OverflowError: it means none.
    """
    words = " ".join(text.lower().split())
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if words == "now":
        return now
    if words in ("today", "yesterday"):
        return today - timedelta(days=words == "yesterday")
    if words.removeprefix("last ") in _DAYS:
        weekday = _DAYS.index(words.removeprefix("last "))
        return today - timedelta(days=(today.weekday() - weekday - 1) % 7 + 1)
    which, _, unit = words.partition(" ")
    if which in ("this", "last") and unit in _STARTS:
        start = _STARTS[unit](today)
        return _STARTS[unit](start - timedelta(days=1)) if which == "last" else start
    if (ago := _AGO.fullmatch(words)) and ago[2] in _UNITS:
        return _before(now, today, int(ago[1]), _UNITS[ago[2]])
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


_STARTS: dict[str, Callable[[datetime], datetime]] = {
    "week": lambda day: day - timedelta(days=day.weekday()),
    "month": lambda day: day.replace(day=1),
    "year": lambda day: day.replace(month=1, day=1),
}


def _before(now: datetime, today: datetime, number: int, unit: str) -> datetime:
    """The time `number` units before now."""
    match unit:
        case "minute":
            return now - timedelta(minutes=number)
        case "hour":
            return now - timedelta(hours=number)
        case "day":
            return today - timedelta(days=number)
        case "week":
            return today - timedelta(weeks=number)
    months = 12 * today.year + today.month - 1 - number * (12 if unit == "year" else 1)
    year, month = divmod(months, 12)
    return today.replace(year=year, month=month + 1, day=min(today.day, calendar.monthrange(year, month + 1)[1]))
