"""Decides whether a request is admitted: by the burst limit of its token, and by the company's daily tokens.

Bursts are counted over any rolling two seconds of real time, separately for each API token; the OAuth tokens of one
user are counted together. The day is that of the sandbox's clock. A client that repeats refused requests gets the HTML
page of the gateway for some seconds.
Assumptions: a refused request is not counted in the window and costs nothing; every other request is charged,
also one that fails; a request is admitted while at least one token is left; the count starts again at
midnight UTC; an OAuth app has four times the burst limit of an API token.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from pdsync.sandbox.protocol.errors import (
    BLOCKED_HTML,
    Refused,
    daily_budget_spent,
    too_fast,
)
from pdsync.sandbox.protocol.messages import Reply

if TYPE_CHECKING:
    from pdsync.sandbox.company.clock import Clock

WINDOW_S = 2.0


class Limits(Struct, kw_only=True):
    """None lifts a limit. May be changed while the sandbox runs."""

    burst: int | None = 20  # requests of one token in any two seconds
    search_burst: int | None = 10
    daily_tokens: int | None = 30_000
    daily_requests: int = 10_000  # only reported, in x-daily-requests-left
    token_headers: bool = True  # the undocumented x-daily-ratelimit-token-*
    block_after: int = 10  # after this many refusals in a row the HTML 403; 0: never
    block_s: float = 10.0


class Meter(Struct):
    """The recent requests of one token."""

    recent: deque[float]
    recent_searches: deque[float]
    refusals: int = 0
    blocked_until: float = 0.0
    writes: int = 0


class GatewayBlocked(Exception):
    """The gateway refuses all requests of a token for a while, with an HTML page."""

    def reply(self) -> Reply:
        return Reply(403, BLOCKED_HTML, {"server": "cloudflare"}, "text/html; charset=utf-8")


class RateLimiter:
    """Counts the requests of each token and the tokens that the company has spent. Safe for threads."""

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self.limits, self._clock = limits, clock
        self._meters: dict[str, Meter] = {}
        self.spent_tokens = 0
        self.spent_all_days = 0
        self._day = clock.day()
        self._lock = threading.Lock()

    def admit(self, token: str, *, is_search: bool, is_oauth: bool) -> None:
        """Count a request as admitted.

        Raises:
            GatewayBlocked: the token repeated refused requests too often.
            Refused: 429, the burst limit is reached or the daily tokens are spent.
        """
        limits, now = self.limits, time.monotonic()
        with self._lock:
            meter = self._meters.setdefault(token, Meter(deque(), deque()))
            if now < meter.blocked_until:
                raise GatewayBlocked
            burst = limits.burst and limits.burst * (4 if is_oauth else 1)
            for recent, limit in ((meter.recent, burst), (meter.recent_searches, is_search and limits.search_burst)):
                _drop_expired(recent, now)
                if limit and len(recent) >= limit:
                    self._count_refusal(meter, now)
                    raise too_fast(limit, max(1, math.ceil(recent[0] + WINDOW_S - now)))
            self._start_new_day()
            if limits.daily_tokens is not None and self.spent_tokens >= limits.daily_tokens:
                raise self.daily_refusal()
            meter.refusals = 0
            meter.recent.append(now)
            if is_search:
                meter.recent_searches.append(now)

    def charge(self, tokens: int) -> None:
        """Add `tokens` to what is spent today."""
        with self._lock:
            self._start_new_day()
            self.spent_tokens += tokens
            self.spent_all_days += tokens

    def daily_refusal(self) -> Refused:
        return daily_budget_spent(self._clock.seconds_to_midnight(), self.limits.daily_tokens or 0)

    def headers(self, token: str, *, is_oauth: bool, is_write: bool) -> dict[str, str]:
        """The limits and what is left of them, as headers of an answer. Counts the request if `is_write`."""
        limits, now = self.limits, time.monotonic()
        with self._lock:
            meter = self._meters.setdefault(token, Meter(deque(), deque()))
            _drop_expired(meter.recent, now)
            headers: dict[str, str] = {}
            if limits.burst:
                burst = limits.burst * (4 if is_oauth else 1)
                reset = math.ceil(meter.recent[0] + WINDOW_S - now) if meter.recent else 0
                headers["x-ratelimit-limit"] = str(burst)
                headers["x-ratelimit-remaining"] = str(max(0, burst - len(meter.recent)))
                headers["x-ratelimit-reset"] = str(max(1, reset))
            meter.writes += is_write
            if not is_oauth:
                headers["x-daily-requests-left"] = str(max(0, limits.daily_requests - meter.writes))
            if limits.daily_tokens is not None and limits.token_headers:
                headers["x-daily-ratelimit-token-limit"] = str(limits.daily_tokens)
                headers["x-daily-ratelimit-token-remaining"] = str(max(0, limits.daily_tokens - self.spent_tokens))
            return headers

    def _count_refusal(self, meter: Meter, now: float) -> None:
        meter.refusals += 1
        if self.limits.block_after and meter.refusals > self.limits.block_after:
            meter.blocked_until, meter.refusals = now + self.limits.block_s, 0
            raise GatewayBlocked

    def _start_new_day(self) -> None:
        if self._clock.day() != self._day:
            self._day, self.spent_tokens = self._clock.day(), 0
            for meter in self._meters.values():
                meter.writes = 0

    def change(self, changes: dict[str, Any]) -> Limits:
        """Set limits by name: all of them, or none.

        Raises:
            ValueError: there is no limit of this name, or a value is not of the limit's type.
        """
        for name in changes:
            if name not in Limits.__struct_fields__:
                raise ValueError(f"limits have no {name!r}")
        changed = msgspec.convert({**msgspec.structs.asdict(self.limits), **changes}, Limits)
        for name in changes:
            setattr(self.limits, name, getattr(changed, name))
        return self.limits

    def reset(self) -> None:
        """Clear all windows and blocks."""
        with self._lock:
            self._meters.clear()


def _drop_expired(recent: deque[float], now: float) -> None:
    while recent and recent[0] <= now - WINDOW_S:
        recent.popleft()
