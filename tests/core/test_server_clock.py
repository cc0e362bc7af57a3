"""The server's time: it goes on by itself, does not leap with one wrong `Date`, and never goes back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pdsync.core.server_clock import TRUST, ServerClock

HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def is_near(one: datetime, other: datetime) -> bool:
    return abs(one - other) <= timedelta(seconds=30)


def test_there_is_no_time_before_an_answer() -> None:
    with pytest.raises(RuntimeError):
        ServerClock().now()


@pytest.mark.parametrize("skew", [timedelta(0), TRUST - 30 * SECOND, 3 * HOUR, -24 * HOUR])
def test_o5_the_first_date_is_the_time_whatever_this_machine_says(skew: timedelta) -> None:
    clock, date = ServerClock(), now() + skew
    assert clock.read(date) == clock.now()
    assert is_near(clock.now(), date)
    assert clock.is_confirmed == (abs(skew) <= TRUST)


@pytest.mark.parametrize("leap", [3 * HOUR, -3 * HOUR, 365 * 24 * HOUR])
def test_s3_o5_a_date_that_leaps_within_a_session_is_passed_over(leap: timedelta) -> None:
    clock, date = ServerClock(), now()
    clock.read(date)
    assert is_near(clock.read(date + leap), date)
    assert is_near(clock.now(), date)


def test_a_date_a_little_later_is_followed_and_an_earlier_one_is_not_gone_back_to() -> None:
    clock, date = ServerClock(), now()
    clock.read(date)
    assert clock.read(date + 60 * SECOND) == date + 60 * SECOND
    assert clock.now() >= date + 60 * SECOND
    clock.read(date)
    assert clock.now() >= date + 60 * SECOND


def test_s3_o5_no_answer_is_as_early_as_an_earlier_session_and_their_order_is_kept() -> None:
    floor, passed = datetime(2026, 11, 22, 12, tzinfo=UTC), [0.0]
    clock = ServerClock(monotonic=lambda: passed[0], wall=lambda: floor + 3 * HOUR)
    clock.not_before(floor)
    read = [clock.read(floor + seconds * SECOND) for seconds in (-120, -119, -110, -115, -130)]
    assert [(moment - floor) / SECOND for moment in read] == [1, 2, 11, 6, 1]
    passed[0] = 400.0  # longer than clocks may differ and still agree
    assert clock.read(floor + 290 * SECOND) == clock.now() == floor + 411 * SECOND


@pytest.mark.parametrize("lag", [120, 10_000])
def test_s3_o5_a_bound_that_is_known_late_shifts_every_answer_after_it(lag: int) -> None:
    floor = datetime(2026, 11, 22, 12, tzinfo=UTC)
    clock = ServerClock(monotonic=lambda: 0.0, wall=lambda: floor + 3 * HOUR)
    clock.read(floor - lag * SECOND)
    clock.not_before(floor - 60 * SECOND)
    clock.not_before(floor)
    assert clock.read(floor - (lag - 5) * SECOND) == floor + 6 * SECOND
    assert clock.lag == max(lag - 60, 59) * SECOND


@pytest.mark.parametrize("order", ["known first", "answer first"])
def test_s3_o5_time_never_goes_back_from_one_session_to_the_next(order: str) -> None:
    """Neither clock agrees with what was known: what is read now is later all the same."""
    clock, known = ServerClock(), now() + 24 * HOUR
    date = now() + 3 * HOUR
    if order == "known first":
        clock.not_before(known)
        clock.read(date)
    else:
        clock.read(date)
        clock.not_before(known)
    assert clock.now() > known
    assert is_near(datetime.now(UTC) + clock.lag, datetime.now(UTC) + 21 * HOUR)


def test_o5_where_this_machine_agrees_what_was_known_before_was_wrong() -> None:
    clock, date = ServerClock(), now()
    clock.not_before(date + 24 * HOUR)
    clock.read(date)
    assert clock.is_confirmed
    assert is_near(clock.now(), date)


def test_an_earlier_floor_changes_nothing() -> None:
    clock, date = ServerClock(), now() + 3 * HOUR
    clock.read(date)
    clock.not_before(None)
    clock.not_before(date - HOUR)
    assert is_near(clock.now(), date)
    assert clock.lag == timedelta(0)
