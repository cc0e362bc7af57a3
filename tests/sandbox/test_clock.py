"""The sandbox's clock moves by what it is told, and its texts name the same second in each format."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pdsync.sandbox.company.clock import (
    Clock,
    from_v1_time,
    iso,
    local_date,
    parse_rfc3339,
    seconds_of,
    v1_time,
)

START = datetime(2026, 11, 20, 23, 59, 30, tzinfo=UTC)


def test_the_clock_moves_forwards_and_backwards() -> None:
    clock = Clock(START)
    assert clock.advance(3600) - START < timedelta(seconds=3660)
    clock.advance(-7200)
    assert clock.now() < START
    assert clock.stamp() == iso(int(clock.now().timestamp()))


def test_only_the_date_of_answers_is_ahead() -> None:
    clock = Clock(datetime(2026, 11, 20, 10, 0, 0, tzinfo=UTC))
    clock.ahead_s = 86_400
    assert clock.http_date().startswith("Sat, 21 Nov 2026 10:0")
    assert clock.stamp().startswith("2026-11-20T10:0")


def test_midnight_is_utc() -> None:
    clock = Clock(datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC))
    day = clock.day()
    assert 43_100 < clock.seconds_to_midnight() <= 43_200
    clock.advance(clock.seconds_to_midnight())
    assert clock.day() == day + 1


@pytest.mark.parametrize("second", [0, 951_782_399, 951_782_400, 1_795_219_201])
def test_a_second_is_the_same_in_each_format(second: int) -> None:
    stamp = iso(second)
    assert datetime.fromisoformat(stamp) == datetime.fromtimestamp(second, UTC)
    assert seconds_of(stamp) == second
    assert from_v1_time(v1_time(stamp) or "") == stamp
    assert v1_time(None) is None


def test_a_local_date_is_that_of_the_company() -> None:
    assert local_date("2026-11-20T21:59:59Z") == "2026-11-20"
    assert local_date("2026-11-20T22:00:00Z") == "2026-11-21"


@pytest.mark.parametrize(
    ("text", "stamp"),
    [
        ("2026-11-20T10:00:00Z", "2026-11-20T10:00:00Z"),
        ("2026-11-20t10:00:00z", "2026-11-20T10:00:00Z"),
        ("2026-11-20T10:00:00.000001Z", "2026-11-20T10:00:01Z"),  # the first whole second at or after it
        ("2026-11-20T10:00:00+02:00", "2026-11-20T08:00:00Z"),
        ("2026-11-20T10:00:00 02:00", "2026-11-20T08:00:00Z"),  # an unescaped plus
    ],
)
def test_a_time_with_a_zone_is_parsed(text: str, stamp: str) -> None:
    assert parse_rfc3339(text) == stamp


@pytest.mark.parametrize(
    "text", ["", "2026-11-20", "2026-11-20T10:00:00", "2026-13-20T10:00:00Z", "2026-11-20X10:00:00Z"]
)
def test_another_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the message is Python's or the text
        parse_rfc3339(text)
