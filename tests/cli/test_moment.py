"""Times on the command line have a zone, may be relative, and what is not a time is refused with an example."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import click
import pytest

from pdsync.cli.moment import Moment, parse

CET = timezone(timedelta(hours=1))
NOW = datetime(2024, 3, 31, 9, 30, 15, tzinfo=UTC)  # a Sunday


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31T18:00:00Z", datetime(2026, 1, 31, 18, tzinfo=UTC)),
        ("2026-01-31 18:00", datetime(2026, 1, 31, 18, tzinfo=UTC)),
        ("2026-01-31T18:00:00+01:00", datetime(2026, 1, 31, 18, tzinfo=CET)),
    ],
)
def test_a_time_without_a_zone_is_utc(text: str, moment: datetime) -> None:
    converted = Moment().convert(text, None, None)
    assert converted == moment
    assert converted.tzinfo is not None


@pytest.mark.parametrize(
    ("text", "iso"),
    [
        ("now", "2024-03-31T09:30:15"),
        ("30 min", "2024-03-31T09:00:15"),
        ("90 minutes ago", "2024-03-31T08:00:15"),
        ("6h", "2024-03-31T03:30:15"),
        ("today", "2024-03-31T00:00:00"),
        ("Yesterday", "2024-03-30T00:00:00"),
        ("7d", "2024-03-24T00:00:00"),
        ("-7d", "2024-03-24T00:00:00"),
        ("1 day ago", "2024-03-30T00:00:00"),
        ("2 weeks", "2024-03-17T00:00:00"),
        ("1mo", "2024-02-29T00:00:00"),
        ("3 months ago", "2023-12-31T00:00:00"),
        ("1 year", "2023-03-31T00:00:00"),
        ("this week", "2024-03-25T00:00:00"),
        ("last  week", "2024-03-18T00:00:00"),
        ("this month", "2024-03-01T00:00:00"),
        ("last month", "2024-02-01T00:00:00"),
        ("last year", "2023-01-01T00:00:00"),
        ("monday", "2024-03-25T00:00:00"),
        ("last sunday", "2024-03-24T00:00:00"),
    ],
)
def test_a_relative_time_is_counted_from_now_and_a_day_from_midnight(text: str, iso: str) -> None:
    assert parse(text, NOW) == datetime.fromisoformat(iso + "+00:00")


@pytest.mark.parametrize(
    "text",
    ["31.01.2026", "tomorrow", "2026-02-30", "2026-01-31T25:00", "", "7", "7x", "3m", "last", "week", "99999 years"],
)
def test_what_is_not_a_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(click.BadParameter, match="2026-01-31T18:00:00Z, 7d, yesterday or 'last week'"):
        Moment().convert(text, None, None)


@pytest.mark.parametrize(
    "text", ["0001-01-01", "0001-01-01T00:00:00+05:00", "1969-12-31", "9999-12-31T23:59:59-05:00", "300 years"]
)
def test_s1_a_time_at_an_end_of_the_calendar_is_refused_before_a_walk_begins_there(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a time from 1970 on"):
        Moment().convert(text, None, None)
