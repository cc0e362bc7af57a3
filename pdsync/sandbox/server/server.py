"""Answers requests: token, limits, route, the operation itself, and faults.

The order: log the request; a fault that acts before any work; the token; the limits; the route; the operation, under
the company's lock; the charge; a fault that spoils the answer. Everything except the socket is plain functions of a
`Call`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode

from aiohttp import web
from msgspec import Struct

from pdsync.sandbox.activity.simulate import LiveChanges, simulate_changes
from pdsync.sandbox.company.company import Actor, Viewer
from pdsync.sandbox.company.data import scopes
from pdsync.sandbox.company.table import encode
from pdsync.sandbox.operations.rights import check_rights
from pdsync.sandbox.protocol.errors import Refused, refused, unauthorized
from pdsync.sandbox.protocol.messages import Call, Reply, Upload
from pdsync.sandbox.protocol.render import Renderer
from pdsync.sandbox.protocol.row_finder import Finder
from pdsync.sandbox.server.faults import (
    Delivery,
    Faults,
    Scripted,
    plan_delivery,
)
from pdsync.sandbox.server.limits import GatewayBlocked, Limits, RateLimiter
from pdsync.sandbox.server.oauth import OAuth, Settings, read_basic
from pdsync.sandbox.server.request_log import Log, LogEntry
from pdsync.sandbox.server.routes import find_route

if TYPE_CHECKING:
    from collections.abc import Callable

    from pdsync.sandbox.company.company import Company

BASES = {"v1": "v1", "api/v1": "v1", "api/v2": "v2"}
MAX_BODY_BYTES = 256 * 2**20
FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
SEARCHES = ("search", "itemSearch")
LOGGED_HEADERS = ("x-ratelimit-", "x-daily-", "retry-after")


class Caller(Struct, frozen=True):
    """The viewer whose token a request has."""

    name: str  # of the viewer; oauth:<viewer> for an OAuth token
    viewer: Viewer
    scopes: frozenset[str] | None = None  # of an OAuth token; an API token needs none

    @property
    def is_oauth(self) -> bool:
        return self.scopes is not None

    def may_use(self, operation: str) -> bool:
        """Whether the token has one of the scopes that the documents name for the operation ("v2 getDeals").

        True for an API token, and where they name none.
        """
        by_operation = scopes()
        # A removed operation of v1 needs what its replacement of that name does.
        needed = by_operation.get(operation) or by_operation.get(operation.replace("v1 ", "v2 "))
        return self.scopes is None or not needed or not self.scopes.isdisjoint(needed)


class IncomingRequest(Struct):
    """A request as it arrived, and its log entry."""

    method: str
    path: str
    query: dict[str, str]  # without the token
    target: str  # path and query, as faults match it
    caller: Caller | None  # None: no valid token
    entry: LogEntry
    body: bytes = b""
    form: dict[str, str] | None = None
    upload: Upload | None = None
    agent: str | None = None
    content_type: str = ""


class Sandbox:
    """A company with an API: `serve()` answers HTTP requests, `act()` does what users do in the app."""

    def __init__(
        self,
        company: Company,
        limits: Limits | None = None,
        *,
        oauth: Settings | None = None,
        live_changes: LiveChanges | None = None,
        gzip: bool = False,
    ) -> None:
        self.company, self.gzip, self.live_changes = company, gzip, live_changes
        self.limiter = RateLimiter(limits or Limits(), company.clock)
        self.oauth = OAuth(company, oauth)
        self.faults = Faults(company.seed)
        self.log = Log()
        self.on_exchange: Callable[[IncomingRequest, Reply], None] | None = (
            None  # called with each request and its answer
        )
        self.renderer, self.finder = Renderer(company), Finder(company)
        self._requests = 0

    # -- HTTP ------------------------------------------------------------------------------------

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer an HTTP request, with the faults that apply to it."""
        path = request.rel_url.path
        incoming = self._log_request(request, path)
        plan = self.faults.plan(incoming.method, incoming.target)
        incoming.entry.fault = ",".join(scripted.fault.kind for scripted in plan) or None
        reply = await self._reply(request, incoming, plan)
        if self.on_exchange:
            self.on_exchange(incoming, reply)
        reply.headers.setdefault("x-correlation-id", incoming.entry.request)
        how = plan_delivery(plan, len(reply.body), self.faults.random)
        if not how.reset:
            incoming.entry.status, incoming.entry.bytes = reply.status, len(reply.body)
            incoming.entry.headers = {k: v for k, v in reply.headers.items() if k.startswith(LOGGED_HEADERS)}
        return await self._send(request, reply, how)

    def _log_request(self, request: web.BaseRequest, path: str) -> IncomingRequest:
        """Read the request line and the headers, and log the request."""
        arrived_s = time.monotonic()
        query = dict(parse_qsl(request.rel_url.raw_query_string, keep_blank_values=True))
        logged_query = urlencode({name: value for name, value in query.items() if name != "api_token"})
        caller = self.identify(request.headers, query)
        self._requests += 1
        entry = LogEntry(
            seq=self._requests,
            monotonic_s=arrived_s,
            time=self.company.clock.stamp(),
            method=request.method,
            path=path,
            query=logged_query,
            token=caller.name if caller else None,
            request=f"sandbox-{self._requests:08}",
        )
        self.log.append(entry)
        query.pop("api_token", None)
        target, agent = f"{path}?{logged_query}" if logged_query else path, request.headers.get("user-agent")
        return IncomingRequest(request.method, path, query, target, caller, entry, agent=agent)

    async def _reply(self, request: web.BaseRequest, incoming: IncomingRequest, plan: list[Scripted]) -> Reply:
        before = [s for s in plan if not s.is_after and s.fault.kind not in ("latency", "read_lag")]
        if before:
            return self.faults.answer_instead(
                before[0].fault, self.limiter.limits.burst or 20, self.limiter.daily_refusal()
            )
        incoming.content_type = request.headers.get("content-type", "")
        incoming.body, incoming.form, incoming.upload = await _read(request)
        lag_s = next((s.fault.seconds for s in plan if s.fault.kind == "read_lag"), None)
        with self.company.lock:
            if incoming.path.startswith("/oauth/"):
                reply = self._oauth(request, incoming)
            else:
                self._change_records(incoming.entry.seq)
                reply = self.answer(incoming, lag_s)
            for scripted in plan:
                if scripted.is_after:
                    reply = self.faults.spoil(scripted, reply, incoming.target, incoming.query)
            self.faults.remember(incoming.target, reply)
        return reply

    async def _send(self, request: web.BaseRequest, reply: Reply, how: Delivery) -> web.StreamResponse:
        if how.wait_s:
            await asyncio.sleep(how.wait_s)
        date = self.company.clock.http_date()
        response = _response(reply, date)
        transport = request.transport
        if how.reset:
            if transport is not None:
                transport.abort()
        elif how.is_spoiled and transport is not None:
            await _write_spoiled(transport, reply, how, date)
        elif self.gzip and "gzip" in request.headers.get("accept-encoding", ""):
            response.enable_compression(web.ContentCoding.gzip)
        return response

    # -- the API ---------------------------------------------------------------------------------

    def identify(self, headers: Any, query: dict[str, str]) -> Caller | None:
        """Whose API token or OAuth token the request has; None without a valid one."""
        token = headers.get("x-api-token") or query.get("api_token")
        if token:
            for name, valid_token in self.company.tokens.items():
                if token == valid_token:
                    return Caller(name, self.company.viewers[name])
            return None
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        viewer = self.oauth.viewer_of(bearer.strip()) if scheme.lower() == "bearer" else None
        if viewer is None:
            return None
        return Caller(f"oauth:{viewer}", self.company.viewers[viewer], self.oauth.scopes_of(bearer.strip()))

    def answer(self, incoming: IncomingRequest, lag_s: float | None = None) -> Reply:
        """Answer a logged request, without faults; a refusal is an answer too. Hold the company's lock.

        `lag_s`: lists show the records of that long ago.
        """
        caller = incoming.caller
        parts = tuple(incoming.path.strip("/").split("/"))
        try:
            if caller is None:
                raise unauthorized()
            is_search = any(part in SEARCHES for part in parts)
            self.limiter.admit(caller.name, is_search=is_search, is_oauth=caller.is_oauth)
        except GatewayBlocked as blocked:
            return blocked.reply()
        except Refused as refusal:
            return _refusal(refusal)
        actor = Actor(caller.viewer.user_id, "api", incoming.agent)
        reply = self._carry_out(incoming, caller.viewer, actor, lag_s)
        self.limiter.charge(incoming.entry.cost)
        is_write = incoming.method in ("POST", "PUT")  # the requests that x-daily-requests-left is documented to count
        reply.headers.update(self.limiter.headers(caller.name, is_oauth=caller.is_oauth, is_write=is_write))
        return reply

    def act(
        self, method: str, target: str, body: Any = None, user_id: int | None = None, *, is_bulk: bool = False
    ) -> Reply:
        """Carry out a request of the API as that user would in the app: neither counted, limited nor logged.

        Args:
            method, target: as in a request to the API: PATCH, /api/v2/deals/1.
            body: sent as JSON.
            user_id: who does it; by default an active user who is not a viewer, where there is one.
            is_bulk: whether the changelog shows the changes as part of a bulk update.
        """
        path, _, text = target.partition("?")
        user_id = user_id or self._choose_colleague()
        viewer = Viewer("app", user_id, True, self.company.groups[user_id])
        now = self.company.clock.stamp()
        entry = LogEntry(seq=0, monotonic_s=0, time=now, method=method, path=path, query=text, token=None, request="")
        incoming = IncomingRequest(
            method, path, dict(parse_qsl(text)), target, None, entry, b"" if body is None else encode(body)
        )
        with self.company.lock:
            return self._carry_out(incoming, viewer, Actor(user_id, is_bulk=is_bulk))

    def _choose_colleague(self) -> int:
        """The id of an active user without a token; of the last active user where all have one."""
        viewers = [viewer.user_id for viewer in self.company.viewers.values()]
        users = [id for id, row in self.company["users"].rows.items() if row.record["active_flag"]]
        return next((id for id in users if id not in viewers), users[-1])

    def _carry_out(self, incoming: IncomingRequest, viewer: Viewer, actor: Actor, lag_s: float | None = None) -> Reply:
        entry = incoming.entry
        try:
            version, rest = _split(tuple(incoming.path.strip("/").split("/")))
            route, params = find_route(version, incoming.method, rest)
            entry.operation, entry.cost = route.operation, route.cost
            if incoming.caller and not incoming.caller.may_use(f"{version} {route.operation}"):
                raise refused(403, "Scope and URL mismatch")
            self.company.purge()
            call = Call(
                company=self.company,
                renderer=self.renderer,
                finder=self.finder,
                viewer=viewer,
                request_id=entry.request,
                version=version,
                method=incoming.method,
                path=incoming.path,
                query=incoming.query,
                body=incoming.body,
                form=incoming.form,
                upload=incoming.upload,
                params=params,
                overlay=None if lag_s is None else self._overlay(lag_s),
            )
            check_rights(call, route)
            with self.company.acting(actor):
                return route.answer(call, route)
        except Refused as refusal:
            return _refusal(refusal)

    def _overlay(self, lag_s: float) -> dict[str, dict[int, Any]]:
        """The state `lag_s` ago of the records that changed since, by kind and id."""
        since = self.company.clock.seconds() - lag_s
        overlay: dict[str, dict[int, Any]] = {}
        for change in reversed(self.company.journal):
            if change.at_s <= since:
                break
            if isinstance(change.id, int):
                overlay.setdefault(change.kind, {})[change.id] = change.before  # the oldest change since then wins
        return overlay

    def _change_records(self, seq: int) -> None:
        """Simulate changes by users, if they are due at this request."""
        live = self.live_changes
        if live and seq % live.every == 0:
            simulate_changes(
                self.company,
                records=live.records,
                seed=live.seed,
                kinds=live.kinds,
                advance_s=0,
                only=live.only,
            )

    def _oauth(self, request: web.BaseRequest, incoming: IncomingRequest) -> Reply:
        match incoming.method, incoming.path:
            case "GET", "/oauth/authorize":
                incoming.entry.operation = "authorize"
                return self.oauth.authorize(incoming.query)
            case "POST", "/oauth/token":
                if request.content_type != FORMS[0]:
                    return self.oauth.refuse_content()
                form = incoming.form or {}
                client_id, secret = read_basic(request.headers.get("authorization", ""))
                incoming.entry.operation = (
                    "refresh-tokens" if form.get("grant_type") == "refresh_token" else "get-tokens"
                )
                shown = [(name, form[name]) for name in ("grant_type", "redirect_uri") if name in form]
                incoming.entry.form = urlencode([*shown, ("client_id", client_id)])
                return self.oauth.token(client_id, secret, form)
            case _, "/oauth/token/":
                return Reply(
                    301, b"", {"location": "/oauth/token"}
                )  # a client that follows it turns the POST into a GET
        return _refusal(refused(404, "Not found"))

    @property
    def requests(self) -> int:
        return self._requests


def _split(parts: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    for size in (1, 2):
        version = BASES.get("/".join(parts[:size]))
        if version and len(parts) > size:
            return version, parts[size:]
    raise refused(404, "Unknown method .")


async def _read(request: web.BaseRequest) -> tuple[bytes, dict[str, str] | None, Upload | None]:
    """The body as bytes, or as a form with at most one file."""
    if request.content_type not in FORMS:
        return (await request.read() if request.can_read_body else b""), None, None
    form, upload = {}, None
    for name, value in (await request.post()).items():
        if isinstance(value, web.FileField):
            upload = Upload(value.filename, value.file.read())
        else:
            form[name] = value if isinstance(value, str) else value.decode("utf-8", "replace")
    return b"", form, upload


def _response(reply: Reply, date: str) -> web.Response:
    headers = {"Date": date, "Server": "sandbox", **reply.headers, "Content-Type": reply.content_type}
    return web.Response(status=reply.status, body=reply.body, headers=headers)


def _refusal(refusal: Refused) -> Reply:
    return Reply(refusal.status, encode(refusal.body), dict(refusal.headers))


async def _write_spoiled(transport: asyncio.Transport, reply: Reply, how: Delivery, date: str) -> None:
    """Write to the socket without aiohttp, which refuses to send an answer of another length than declared."""
    head = [f"HTTP/1.1 {reply.status} Sandbox", f"Content-Type: {reply.content_type}", f"Date: {date}"]
    head += [f"{name}: {value}" for name, value in reply.headers.items()]
    head += [f"Content-Length: {len(reply.body) + how.declare_more}", "Connection: close", "", ""]
    transport.write("\r\n".join(head).encode())
    body = reply.body if how.keep_bytes is None else reply.body[: how.keep_bytes]
    step = max(1, int(how.bytes_per_s / 10)) if how.bytes_per_s else len(body) or 1
    with contextlib.suppress(ConnectionError):
        for offset in range(0, len(body), step):
            if transport.is_closing():
                return
            transport.write(body[offset : offset + step])
            await asyncio.sleep(step / how.bytes_per_s if how.bytes_per_s else 0)
    transport.close()
