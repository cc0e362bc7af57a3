"""Each kind of fault that the sandbox accepts does something to an answer, and an example shows what."""

from __future__ import annotations

import http.client
import time
from typing import TYPE_CHECKING, Any

import pytest

from pdsync.sandbox.server.faults import KINDS

if TYPE_CHECKING:
    from .api import Api

# Kind → what a fault of this kind needs besides.
EXAMPLES: dict[str, dict[str, Any]] = {
    "401": {},
    "burst_429": {},
    "cap_403": {},
    "cursor_loop": {},
    "daily_429": {},
    "headers": {"headers": {"x-more": "1"}},
    "html_200": {},
    "html_403": {},
    "invalid_cursor": {},
    "latency": {"ms": 150},
    "missing_additional_data": {},
    "mutate": {"body": "[]"},
    "null_data": {},
    "permission_403": {},
    "read_lag": {"seconds": 60},
    "redirect": {"to": "http://elsewhere.example/"},
    "repeat_page": {},
    "reset_after": {},
    "reset_before": {},
    "slow_drip": {"bytes_per_s": 10_000},
    "status": {"status": 503},
    "timeout": {"seconds": 0.05},
    "truncate": {},
    "wrong_length": {},
}


SLOW = {"latency", "slow_drip"}  # the same answer, later


def second_page(api: Api, cursor: str) -> tuple[Any, ...]:
    """What a client sees of the second page of deals, right after the first one."""
    api.get("/api/v2/deals", limit=3)
    try:
        answer = api.get("/api/v2/deals", limit=3, cursor=cursor)
    except (http.client.HTTPException, OSError) as error:
        return (type(error).__name__,)
    return answer.status, answer.body, answer.headers.get("x-more")


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_each_kind_of_fault_changes_an_answer(api: Api, kind: str) -> None:
    cursor = api.get("/api/v2/deals", limit=3).next_cursor
    assert cursor
    api.patch(f"/api/v2/deals/{api.live('deals')[3]}", title="new")  # for lists that lag
    healthy = second_page(api, cursor)
    api.box.faults.add(kind=kind, path="deals" if kind == "repeat_page" else "cursor=", **EXAMPLES[kind])
    began = time.monotonic()
    answer = second_page(api, cursor)
    if kind in SLOW:
        assert time.monotonic() - began > 0.1
    else:
        assert answer != healthy
    api.box.faults.clear()
    assert second_page(api, cursor) == healthy


def test_there_is_an_example_of_each_kind() -> None:
    assert EXAMPLES.keys() == KINDS
