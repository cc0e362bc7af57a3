"""The log says how many requests came within any two seconds, by token and for all."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pdsync.sandbox.server.limits import WINDOW_S
from pdsync.sandbox.server.request_log import Log, LogEntry, max_in_window


def entry(monotonic_s: float, token: str | None, status: int = 200) -> LogEntry:
    return LogEntry(seq=1, monotonic_s=monotonic_s, time="", method="GET", path="/", query="", token=token, request="",
                    status=status)  # fmt: skip


@given(st.lists(st.integers(0, 40).map(lambda tenths: tenths / 4)).map(sorted))
def test_the_largest_window_is_that_of_a_count_by_hand(times_s: list[float]) -> None:
    counts = [sum(end - WINDOW_S < each <= end for each in times_s) for end in times_s]
    assert max_in_window(times_s) == max(counts, default=0)


def test_a_window_is_half_open() -> None:
    assert max_in_window([0.0, WINDOW_S]) == 1
    assert max_in_window([0.0, WINDOW_S - 0.01]) == 2


def test_tokens_are_counted_apart_and_together() -> None:
    log = Log([entry(0.0, "admin"), entry(0.5, "admin", 429), entry(1.0, "member"), entry(9.0, None)])
    assert log.window() == {
        "max": 2, "all": 3, "by_token": {"admin": 2, "member": 1, "none": 1}, "count_429": 1,
    }  # fmt: skip
    assert Log().window() == {"max": 0, "all": 0, "by_token": {}, "count_429": 0}
