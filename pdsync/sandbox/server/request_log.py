"""The log of requests: one entry for each, and how many arrived within two seconds.

Every request to the API is logged as it arrives, also one that is refused or whose answer is lost.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from pdsync.sandbox.server.limits import WINDOW_S


class LogEntry(Struct):
    """One request, and what it was answered."""

    seq: int
    monotonic_s: float  # when it arrived
    time: str  # when it arrived, on the sandbox's clock
    method: str
    path: str
    query: str  # without the token
    token: str | None  # its name: admin, limited, …; None without a valid one
    request: str  # x-correlation-id, the same as in the journal
    operation: str | None = None
    status: int = 0  # 0: no answer was sent
    cost: int = 0
    fault: str | None = None
    bytes: int = 0
    form: str = ""  # what the token URL was sent, without secrets: grant_type, redirect_uri, client_id
    headers: dict[str, str] = {}  # of the answer: x-ratelimit-*, x-daily-* and retry-after


class Log(list[LogEntry]):
    """The requests in the order in which they arrived."""

    def window(self) -> dict[str, Any]:
        """The most requests in any rolling two seconds, refused ones too.

        Returns:
            max: of one token. all: of all tokens together. by_token: of each token, "none" without a valid one.
            count_429: how many requests were answered with 429, at any time.
        """
        times: dict[str, list[float]] = {}
        for entry in self:
            times.setdefault(entry.token or "none", []).append(entry.monotonic_s)
        by_token = {token: max_in_window(sorted(arrivals)) for token, arrivals in times.items()}
        all_tokens = max_in_window(sorted(entry.monotonic_s for entry in self))
        refused = sum(entry.status == 429 for entry in self)
        return {"max": max(by_token.values(), default=0), "all": all_tokens, "by_token": by_token, "count_429": refused}


def max_in_window(times_s: list[float]) -> int:
    """The largest number of `times_s`, which ascend, within any rolling two seconds."""
    largest = first = 0
    for index, time_s in enumerate(times_s):
        while times_s[first] <= time_s - WINDOW_S:
            first += 1
        largest = max(largest, index - first + 1)
    return largest
