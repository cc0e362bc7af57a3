"""Keeps what was asked: one entry a request, and how close together they came.

The log sees every request to the API as it arrives, also those that were refused or whose answer was lost.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from pdsync.sandbox.server.limits import WINDOW_S


class LogEntry(Struct):
    seq: int
    monotonic_s: float  # when it arrived
    time: str  # the same on the sandbox's clock
    method: str
    path: str
    query: str  # without the token
    token: str | None  # its name: admin, limited, …; None when there was none that is known
    request: str  # x-correlation-id, as the journal names it
    operation: str | None = None
    status: int = 0  # 0: no answer was sent
    cost: int = 0
    fault: str | None = None
    bytes: int = 0
    headers: dict[str, str] = {}  # x-ratelimit-* and retry-after, as they were answered


class Log(list[LogEntry]):
    def window(self) -> dict[str, Any]:
        """The most requests of one token in any rolling two seconds, for all and by token."""
        times: dict[str, list[float]] = {}
        for seen in self:
            times.setdefault(seen.token or "none", []).append(seen.monotonic_s)
        by_token = {token: densest(sorted(moments)) for token, moments in times.items()}
        every = densest(sorted(seen.monotonic_s for seen in self))
        refused = sum(seen.status == 429 for seen in self)
        return {"max": max(by_token.values(), default=0), "all": every, "by_token": by_token, "count_429": refused}


def densest(moments: list[float]) -> int:
    most = first = 0
    for at, moment in enumerate(moments):
        while moments[first] <= moment - WINDOW_S:
            first += 1
        most = max(most, at - first + 1)
    return most
