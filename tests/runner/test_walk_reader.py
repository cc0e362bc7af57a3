"""What a walk requests: from which time on, and the values of parameters that stand for days."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from pdsync.runner.sync.walk_reader import param_value, resume_point

BEGAN = datetime(2026, 11, 22, 12, 0, 30, tzinfo=UTC)
OVERLAP = timedelta(seconds=60)


@pytest.mark.parametrize(
    ("newest", "since"),
    [
        (None, BEGAN - OVERLAP),
        (BEGAN, BEGAN - OVERLAP),  # seen within the overlap: the watermark is earlier
        (BEGAN - OVERLAP, BEGAN - OVERLAP),
        # The server's clock was ahead when the walk began: nothing from the second of the newest change on is left out.
        (BEGAN - timedelta(hours=1, microseconds=-7), BEGAN - timedelta(hours=1)),
        (BEGAN - timedelta(hours=1), BEGAN - timedelta(hours=1)),
    ],
)
def test_s3_s15_o5_no_change_is_passed_over_because_a_clock_was_ahead(newest: datetime | None, since: datetime) -> None:
    assert resume_point(BEGAN, newest, OVERLAP) == since


def test_times_of_the_work_file_are_taken_in_utc() -> None:
    local = BEGAN.astimezone(timezone(timedelta(hours=5)))
    assert resume_point(local, local - timedelta(hours=2), OVERLAP).utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("open", "open"),
        ("2026-01-01", "2026-01-01"),
        ("@today", "2026-03-31"),
        ("@month_start", "2026-03-01"),
        ("@month_ago", "2026-03-01"),
        ("@year_ago", "2025-03-31"),
    ],
)
def test_a_name_with_an_at_sign_is_a_day_by_the_servers_clock(text: str, value: str) -> None:
    assert param_value(text, date(2026, 3, 31)) == value


def test_an_unknown_day_is_an_error() -> None:
    with pytest.raises(KeyError):
        param_value("@yesterday", date(2026, 3, 31))
