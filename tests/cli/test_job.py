"""Times on the command line have a zone, and what is not a time is refused with an example."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import click
import pytest

from pdsync.cli.job import Moment, exit_with

CET = timezone(timedelta(hours=1))


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


@pytest.mark.parametrize("text", ["31.01.2026", "yesterday", "2026-02-30", "2026-01-31T25:00", ""])
def test_what_is_not_a_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(click.BadParameter, match="2026-01-31T18:00:00Z"):
        Moment().convert(text, None, None)


def test_a_command_ends_with_its_exit_code_and_zero_is_no_error() -> None:
    exit_with(0)
    with pytest.raises(click.exceptions.Exit) as ended:
        exit_with(4)
    assert ended.value.exit_code == 4
