"""Tells the server's time from the `Date` of its answers, so that it never runs backwards and never leaps.

What is ordered by time is ordered by the server's: which reading of a record is the later one, and from when on
changes are asked for. A `Date` may be wrong for a night, and the next one right, so no single one is trusted blindly:

- Within a session, time goes on as this process's monotonic clock does. A `Date` that leaps is passed over.
- From one session to the next it never goes back: what is read now is later than all that was read before. Unless this
  machine's clock agrees with the `Date`: then what was known before was wrong, and is put right (`load.clock_repair`).

This machine's wall clock alone decides nothing: it may be wrong too.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

TRUST = timedelta(minutes=5)  # clocks that are no farther apart agree; less than the overlap of two readings


class ServerClock:
    """The server's time in one session."""

    def __init__(self) -> None:
        self._floor: datetime | None = None
        self._last: datetime | None = None  # what was told last,
        self._at = 0.0  # and when, by the monotonic clock
        self.is_confirmed = False  # this machine's clock agrees with the first `Date`
        self.lag = timedelta(0)  # how far the first `Date` lies before what was known of the server's time

    def not_before(self, moment: datetime | None) -> None:
        """Take `moment`, UTC, for a time that the server had reached before this session."""
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
            self.is_confirmed = abs(date - datetime.now(UTC)) <= TRUST
            self._begin(date)
            return self.now()
        expected = self.now()
        told = date if abs(date - expected) <= TRUST else expected
        if told > self._last:
            self._last, self._at = told, time.monotonic()
        return told

    def now(self) -> datetime:
        """The server's time, whole seconds: by the last answer, and what has passed since.

        Raises:
            RuntimeError: there was no answer yet.
        """
        if self._last is None:
            raise RuntimeError("No answer has told the server's time yet.")
        return (self._last + timedelta(seconds=time.monotonic() - self._at)).replace(microsecond=0)

    def _begin(self, date: datetime) -> None:
        self._last, self._at = date, time.monotonic()
        if self._floor and date < self._floor and not self.is_confirmed:
            self.lag = max(self.lag, self._floor - date)
            # A whole second, and not before: what was read at the floor is older than what is read now.
            self._last = self._floor.replace(microsecond=0) + timedelta(seconds=1)
