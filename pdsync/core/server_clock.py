"""Derives the server's time from the `Date` of its answers; it never goes back to an earlier session and never jumps.

The order of readings, and the beginning of the next reading of changes, depend on the server's time. A `Date` may be
wrong for a night, so no single one is trusted:

- Within a session, time advances with this process's monotonic clock. A `Date` that jumps is ignored. Answers that
  arrive in another order than they were served in keep the order of their `Date`s.
- From one session to the next it never goes back: an answer is later than all answers before, because every `Date` of
  the session is shifted by as much as the first. Unless this machine's clock agrees with the `Date`: then the earlier
  times were wrong, and are corrected (`load.clock_repair`).

This machine's wall clock alone decides nothing: it may be wrong too.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

TRUST = timedelta(minutes=5)  # clocks that are no farther apart agree; less than the overlap of two readings


class ServerClock:
    """The server's time in one session.

    Args:
        monotonic: this process's monotonic clock, in seconds.
        wall: this machine's clock.
    """

    def __init__(
        self, *, monotonic: Callable[[], float] = time.monotonic, wall: Callable[[], datetime] | None = None
    ) -> None:
        self._monotonic, self._wall = monotonic, wall or (lambda: datetime.now(UTC))
        self._floor: datetime | None = None
        self._last: datetime | None = None  # the latest time,
        self._at = 0.0  # and when it was, by the monotonic clock
        self._shift = timedelta(0)  # added to every `Date`: what the first one lacked to be later than the bound
        self.is_confirmed = False  # this machine's clock agrees with the first `Date`
        self.lag = timedelta(0)  # how much earlier the first `Date` is than the server's time before

    def not_before(self, moment: datetime | None) -> None:
        """Set a lower bound: the server had reached `moment` (UTC) before this session."""
        if moment is None or (self._floor and moment <= self._floor):
            return
        self._floor = moment
        if self._last is not None:
            self._begin(self._last)

    def read(self, date: datetime) -> datetime:
        """The server's time at an answer.

        Args:
            date: of the answer, UTC, whole seconds.
        """
        if self._last is None:
            self.is_confirmed = abs(date - self._wall()) <= TRUST
            self._begin(date)
            return self.now()
        expected, date = self.now(), date + self._shift
        served_at = date if abs(date - expected) <= TRUST else expected
        if self._floor and not self.is_confirmed:
            served_at = max(served_at, _after(self._floor))
        if served_at > self._last:
            self._last, self._at = served_at, self._monotonic()
        return served_at

    def now(self) -> datetime:
        """The server's time, in whole seconds: that of the latest answer, and the time since then.

        Raises:
            RuntimeError: there was no answer yet.
        """
        if self._last is None:
            raise RuntimeError("There is no answer yet that has the server's time.")
        return (self._last + timedelta(seconds=self._monotonic() - self._at)).replace(microsecond=0)

    def _begin(self, date: datetime) -> None:
        self._last, self._at = date, self._monotonic()
        if self._floor and date < self._floor and not self.is_confirmed:
            self.lag = max(self.lag, self._floor - date)
            self._last = _after(self._floor)
            self._shift += self._last - date


def _after(floor: datetime) -> datetime:
    """The first whole second after a lower bound: an answer at the bound itself is older than one that comes now."""
    return floor.replace(microsecond=0) + timedelta(seconds=1)
