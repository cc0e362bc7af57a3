"""The sandbox's clock, and the formats of its times.

The clock runs with the machine's monotonic clock from a chosen start, and can be moved. All times of the API are
whole seconds in UTC. Inside the sandbox a time is always a text like `2026-11-20T10:00:01Z`: such texts sort in the
order of their times, so lists need not parse them.
"""

from __future__ import annotations

import functools
import math
import time
from datetime import UTC, date, datetime, timedelta
from email.utils import formatdate

DAY_S = 86_400
COMPANY_OFFSET_S = 7_200  # the generated company is at UTC+2 all year round


class Clock:
    """The sandbox's time. `advance()` moves it, backwards too. `ahead_s` shifts the `Date` header of answers only."""

    def __init__(self, start: datetime | None = None) -> None:
        self.ahead_s = 0.0  # seconds by which the `Date` header is ahead of the times in records
        self._start_s = start.timestamp() if start else time.time()
        self._zero = time.monotonic()

    def seconds(self) -> float:
        """Seconds since 1970, with their fraction."""
        return self._start_s + time.monotonic() - self._zero

    def now(self) -> datetime:
        return datetime.fromtimestamp(int(self.seconds()), UTC)

    def stamp(self) -> str:
        return iso(int(self.seconds()))

    def advance(self, seconds: float) -> datetime:
        """Move the time on, and return it.

        Raises:
            ValueError, OverflowError: that time has no date; the clock is not moved.
        """
        datetime.fromtimestamp(int(self.seconds() + seconds), UTC)
        self._start_s += seconds
        return self.now()

    def http_date(self) -> str:
        return formatdate(int(self.seconds() + self.ahead_s), usegmt=True)

    def seconds_to_midnight(self) -> int:
        # Assumption: "midnight of the server's time zone" is midnight UTC.
        return DAY_S - int(self.seconds()) % DAY_S

    def day(self) -> int:
        return int(self.seconds()) // DAY_S


@functools.lru_cache(maxsize=8192)
def day_text(day: int) -> str:
    return (date(1970, 1, 1) + timedelta(days=day)).isoformat()


def iso(seconds: int) -> str:
    """`2026-11-20T10:00:01Z`. Twenty times as fast as datetime, which matters for millions of records."""
    day, rest = divmod(seconds, DAY_S)
    return f"{day_text(day)}T{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}Z"


def seconds_of(stamp: str) -> int:
    return int(datetime.fromisoformat(stamp).timestamp())


def v1_time(stamp: str | None) -> str | None:
    """The same time in the format of API v1: `2026-11-20 10:00:01`."""
    return None if stamp is None else f"{stamp[:10]} {stamp[11:19]}"


def from_v1_time(text: str) -> str:
    """A time of API v1 in the sandbox's format.

    Raises:
        ValueError: `text` is not a time.
    """
    return iso(int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()))


def local_date(stamp: str) -> str:
    """The date of `stamp` in the company's time zone."""
    return day_text((seconds_of(stamp) + COMPANY_OFFSET_S) // DAY_S)


def parse_rfc3339(text: str) -> str:
    """The first whole second at or after `text`; record times are whole seconds, so windows stay half-open.

    Raises:
        ValueError: not RFC 3339 with a zone.
    """
    if len(text) < 20 or text[10] not in "Tt ":
        raise ValueError(text)
    # An unescaped "+" of a zone arrives as a blank.
    zoned = text[:19] + text[19:].replace(" ", "+")
    moment = datetime.fromisoformat(zoned.upper())
    if moment.tzinfo is None:
        raise ValueError(text)
    return iso(math.ceil(moment.timestamp()))
