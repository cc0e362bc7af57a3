"""Fault injection: what goes wrong with an answer, and for which requests.

A fault names the requests it applies to and its effect. Faults that act *before* leave the company unchanged;
those that act *after* let the request take effect and then spoil the answer, so that the outcome of a write is
unknown. `Faults.plan()` selects the faults of a request, `spoil()` changes its answer, `plan_delivery()` says how the
server sends the bytes.

    {"kind": "reset_after", "method": "POST", "path": "/api/v2/deals$", "nth": 2}
    {"kind": "status", "status": 502, "when": "after", "probability": 0.01}
"""

from __future__ import annotations

import re
from random import Random
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import Struct

from pdsync.sandbox.company.data import words
from pdsync.sandbox.company.table import encode
from pdsync.sandbox.protocol.errors import (
    BAD_GATEWAY_HTML,
    BLOCKED_HTML,
    Refused,
    forbidden,
    refused,
    unauthorized,
)
from pdsync.sandbox.protocol.messages import JSON, Reply

if TYPE_CHECKING:
    from collections.abc import Callable

BEFORE = frozenset(
    words("reset_before burst_429 daily_429 html_403 permission_403 cap_403 401 redirect invalid_cursor")
)
AFTER = frozenset(
    words(
        "reset_after truncate wrong_length slow_drip html_200 cursor_loop repeat_page missing_additional_data "
        "null_data mutate headers"
    )
)
EITHER = frozenset(("status", "timeout"))  # before, unless `when` is "after"
BESIDE = frozenset(("latency", "read_lag"))
KINDS = BEFORE | AFTER | EITHER | BESIDE
HTML = "text/html; charset=utf-8"


class Fault(Struct, kw_only=True, forbid_unknown_fields=True):
    """One fault. At most one of nth, every and probability; without any it applies to each matching request."""

    kind: str
    method: str = ""  # empty: any
    path: str = ""  # regular expression, searched in `path?query`
    nth: int | None = None  # the nth matching request, and the following ones up to `times`
    every: int | None = None
    probability: float | None = None
    times: int | None = None  # at most this often; default 1 with nth, unlimited without
    when: Literal["before", "after"] = "before"
    status: int | None = None  # 502, of a redirect 302
    body: str | None = None
    html: bool = False
    seconds: float = 30.0  # timeout: how long it waits; read_lag: how old lists are
    ms: float = 100.0  # latency
    jitter_ms: float = 0.0
    at: int | None = None  # truncate: keep this many bytes (half); wrong_length: bytes too many (10)
    bytes_per_s: float = 1.0  # slow_drip
    to: str = ""  # redirect
    find: str = ""  # mutate: regular expression over the body …
    replace: str = ""  # … and its replacement, with \\1 and so on
    headers: dict[str, str] = {}  # added by any kind but latency and read_lag; the only effect of kind "headers"
    token_headers: bool = True  # burst_429, daily_429: with the usual headers or without


class BadFaults(ValueError):
    """A file of faults can't be used: the message has the file, which fault, and why."""


class Scripted:
    """A fault, how many requests it matched (`seen`), and to how many it applied (`struck`)."""

    def __init__(self, fault: Fault, random: Random, mutate: Callable[[bytes], bytes] | None = None) -> None:
        if fault.kind not in KINDS:
            raise ValueError(f"{fault.kind!r} is not a kind of fault; the kinds are {', '.join(sorted(KINDS))}")
        if sum(choice is not None for choice in (fault.nth, fault.every, fault.probability)) > 1:
            raise ValueError("a fault takes only one of nth, every and probability")
        if fault.every is not None and fault.every < 1:
            raise ValueError(f"every must be 1 or more, not {fault.every}")
        self.fault, self.mutate = fault, mutate
        self.seen = self.struck = 0
        self._random = random
        for name, pattern in (("path", fault.path), ("find", fault.find)):
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{name} {pattern!r} is no regular expression: {error}") from error
        try:
            re.sub(fault.find.encode(), fault.replace.encode("utf-8", "surrogatepass"), b"")
        except re.error as error:
            raise ValueError(f"replace {fault.replace!r} does not fit find {fault.find!r}: {error}") from error
        self._path = re.compile(fault.path)

    def applies(self, method: str, target: str) -> bool:
        """Count a request if it matches, and say whether the fault applies to it."""
        fault = self.fault
        if (fault.method and fault.method.upper() != method) or not self._path.search(target):
            return False
        self.seen += 1
        most = fault.times if fault.times is not None else 1 if fault.nth else None
        if most is not None and self.struck >= most:
            return False
        if fault.nth is not None:
            hit = self.seen >= fault.nth
        elif fault.every is not None:
            hit = self.seen % fault.every == 0
        elif fault.probability is not None:
            hit = self._random.random() < fault.probability
        else:
            hit = True
        self.struck += hit
        return hit

    @property
    def is_after(self) -> bool:
        kind = self.fault.kind
        return kind in AFTER or (kind in EITHER and self.fault.when == "after")


class Delivery(Struct):
    """How the bytes of an answer are sent: after how long, how many, how fast, or not at all."""

    wait_s: float = 0.0
    reset: bool = False
    keep_bytes: int | None = None
    declare_more: int = 0
    bytes_per_s: float = 0.0

    @property
    def is_spoiled(self) -> bool:
        return self.keep_bytes is not None or bool(self.declare_more or self.bytes_per_s)


class Faults:
    """The faults that are in effect."""

    def __init__(self, seed: int = 0) -> None:
        self.random = Random(seed)  # noqa: S311 - not for secrets
        self.scripted: list[Scripted] = []
        self._last_page: dict[str, bytes] = {}

    def add(self, *faults: Fault | dict[str, Any], mutate: Callable[[bytes], bytes] | None = None, **one: Any) -> None:
        """Add faults: `add(kind="status", status=503, nth=2)`, or Faults, or dicts.

        `mutate` returns the body to send in place of an answer's; only faults of kind "mutate" call it.

        Raises:
            msgspec.ValidationError: a dict or the keywords are no fault.
            ValueError: a fault has an unknown kind, more than one of nth, every and probability, an `every` below 1, or
                a `path`, `find` or `replace` that is no regular expression. None of the faults is added.
        """
        self.scripted += [
            Scripted(each if isinstance(each, Fault) else msgspec.convert(each, Fault), self.random, mutate)
            for each in [*faults, *([one] if one else [])]
        ]

    def clear(self) -> None:
        self.scripted.clear()
        self._last_page.clear()

    def plan(self, method: str, target: str) -> list[Scripted]:
        """The faults that apply to this request."""
        return [scripted for scripted in self.scripted if scripted.applies(method, target)]

    def answer_instead(self, fault: Fault, burst_limit: int, daily: Refused) -> Reply:
        """The answer to a request whose fault acts before any work."""
        match fault.kind:
            case "burst_429":
                headers = {
                    "x-ratelimit-limit": str(burst_limit),
                    "x-ratelimit-remaining": "0",
                    "x-ratelimit-reset": "2",
                }
                body = encode({"success": False, "error": "request over limit", "errorCode": 429})
                reply = Reply(429, body, headers if fault.token_headers else {})
            case "daily_429":
                reply = Reply(429, encode(daily.body), dict(daily.headers) if fault.token_headers else {})
            case "html_403":
                reply = Reply(403, BLOCKED_HTML, {"server": "cloudflare"}, HTML)
            case "permission_403":
                reply = _refusal(forbidden())
            case "cap_403":
                reply = _refusal(forbidden("The limit is reached.", code="feature_capping_deals_limit"))
            case "401":
                reply = _refusal(unauthorized())
            case "invalid_cursor":
                reply = _refusal(refused(400, "Invalid cursor", code="ERR_SCHEMA_VALIDATION_FAILED"))
            case "redirect":
                reply = Reply(fault.status or 302, b"", {"location": fault.to})
            case _:
                reply = _failure(fault)
        return _with_headers(reply, fault)

    def spoil(self, scripted: Scripted, reply: Reply, target: str, query: dict[str, str]) -> Reply:
        """The answer with the effect of a fault that acts after the work, except for what `plan_delivery()` does."""
        fault, body = scripted.fault, reply.body
        match fault.kind:
            case "status":
                reply = _failure(fault)
            case "html_200":
                reply = Reply(200, (fault.body or "<html><body>Maintenance</body></html>").encode(), {}, HTML)
            case "mutate":
                if scripted.mutate is not None:
                    reply.body = scripted.mutate(body)
                elif fault.find:
                    replacement = fault.replace.encode("utf-8", "surrogatepass")
                    reply.body = re.sub(fault.find.encode(), replacement, body)
                elif fault.body is not None:
                    reply.body = fault.body.encode("utf-8", "surrogatepass")
            case "cursor_loop" | "missing_additional_data" | "null_data" | "repeat_page":
                reply.body = self._spoil_page(fault.kind, body, target, query)
        return _with_headers(reply, fault)

    def remember(self, target: str, reply: Reply) -> None:
        """Store the page for `repeat_page`."""
        if any(scripted.fault.kind == "repeat_page" for scripted in self.scripted):
            self._last_page[target.partition("?")[0]] = reply.body

    def _spoil_page(self, kind: str, body: bytes, target: str, query: dict[str, str]) -> bytes:
        try:
            page = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        except msgspec.DecodeError:
            return body
        if kind == "missing_additional_data":
            page.pop("additional_data", None)
        elif kind == "null_data":
            page["data"] = msgspec.Raw(b"null")
        elif kind == "repeat_page":
            last_page = self._last_page.get(target.partition("?")[0])
            if last_page is not None:
                page["data"] = msgspec.json.decode(last_page, type=dict[str, msgspec.Raw])["data"]
        elif "additional_data" in page:
            paging = msgspec.json.decode(page["additional_data"])
            if "next_cursor" in paging and "cursor" in query:
                paging["next_cursor"] = query["cursor"]
            if "pagination" in paging:
                start = int(query.get("start") or 0)
                paging["pagination"] |= {"more_items_in_collection": True, "next_start": start}
            page["additional_data"] = msgspec.Raw(encode(paging))
        return encode(page)


def plan_delivery(plan: list[Scripted], body_bytes: int, random: Random) -> Delivery:
    """How the faults of a request change the delivery of its answer."""
    how = Delivery()
    for fault in (scripted.fault for scripted in plan):
        match fault.kind:
            case "latency":
                how.wait_s += max(0.0, fault.ms + random.uniform(-fault.jitter_ms, fault.jitter_ms)) / 1000
            case "timeout":
                how.wait_s += fault.seconds
                how.reset = True
            case "reset_before" | "reset_after":
                how.reset = True
            case "truncate":
                how.keep_bytes = fault.at if fault.at is not None else body_bytes // 2
            case "wrong_length":
                how.declare_more = fault.at if fault.at is not None else 10
            case "slow_drip":
                how.bytes_per_s = fault.bytes_per_s
    return how


def _refusal(refusal: Refused) -> Reply:
    return Reply(refusal.status, encode(refusal.body), dict(refusal.headers))


def _failure(fault: Fault) -> Reply:
    status = fault.status or 502
    if fault.html:
        return Reply(status, fault.body.encode() if fault.body else BAD_GATEWAY_HTML, {}, HTML)
    body = fault.body.encode() if fault.body is not None else None
    default = {"success": False, "error": "Service temporarily unavailable", "errorCode": status}
    return Reply(status, encode(default) if body is None else body, {}, JSON)


def _with_headers(reply: Reply, fault: Fault) -> Reply:
    reply.headers = {**reply.headers, **fault.headers}
    return reply
