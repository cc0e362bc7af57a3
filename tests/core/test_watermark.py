"""Until when a list is complete, and from when its changes are requested."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from pdsync.core.watermark import Checkpoint, advance, chosen_point, resume_point

BEGAN = datetime(2026, 11, 22, 12, 0, 30, tzinfo=UTC)
OVERLAP, HOUR = timedelta(seconds=60), timedelta(hours=1)


def test_s4_a_walk_that_ended_before_it_began_moves_no_watermark() -> None:
    """It began while a clock was ahead, was interrupted, and ended after the clock was corrected."""
    before = Checkpoint(BEGAN - 9 * HOUR, BEGAN - 9 * HOUR, None)
    for since in (None, BEGAN - 10 * HOUR):
        for ended_at, moves in ((BEGAN, True), (BEGAN - OVERLAP, True), (BEGAN - HOUR, False), (None, True)):
            after = advance(
                before, since=since, started_at=BEGAN, ended_at=ended_at, is_whole=since is None, newest=None
            )
            assert (after is not None) is moves


def test_s4_o5_changes_since_some_time_say_nothing_of_those_before_it_where_a_clock_was_ahead() -> None:
    seen = BEGAN - HOUR
    before = Checkpoint(BEGAN + 3 * HOUR, BEGAN, seen)
    for since, newest in ((seen, BEGAN), (seen + OVERLAP, seen)):
        after = advance(before, since=since, started_at=BEGAN, ended_at=BEGAN, is_whole=False, newest=BEGAN)
        assert after == Checkpoint(before.watermark, before.full_at, newest)


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
    ("chosen", "since"),
    [
        (BEGAN - HOUR, BEGAN - HOUR),
        (BEGAN - OVERLAP, BEGAN - OVERLAP),
        (BEGAN - timedelta(seconds=1), BEGAN - OVERLAP),
        (BEGAN, BEGAN - OVERLAP),
        (BEGAN + timedelta(seconds=1), BEGAN + timedelta(seconds=1)),  # it moves no watermark
    ],
)
def test_s3_s4_a_chosen_time_within_the_overlap_passes_over_nothing_that_becomes_visible_late(
    chosen: datetime, since: datetime
) -> None:
    assert chosen_point(chosen, BEGAN, resume_point(BEGAN, BEGAN, OVERLAP)) == since
