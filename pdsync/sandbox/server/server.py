"""Takes a request from the socket to an answer: who asks, may they, what is it, what goes wrong.

The order of things: a fault that acts before any work; the token; the limits; the route; the work itself, under
the company's lock; the charge; a fault that spoils the answer; the log. Everything but the socket is plain
functions of a `Call`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode

from aiohttp import web
from msgspec import Struct

from pdsync.sandbox.activity.simulate import LiveChanges, change
from pdsync.sandbox.company.company import Actor, Viewer
from pdsync.sandbox.company.table import encode
from pdsync.sandbox.protocol.errors import Refused, refused, unauthorized
from pdsync.sandbox.protocol.messages import Call, Reply, Upload
from pdsync.sandbox.protocol.render import Renderer
from pdsync.sandbox.protocol.row_finder import Finder
from pdsync.sandbox.server.faults import (
    Delivery,
    Faults,
    Scripted,
    delivery,
)
from pdsync.sandbox.server.limits import LimitReached, Limits, RateLimiter
from pdsync.sandbox.server.oauth import OAuth, Settings
from pdsync.sandbox.server.request_log import Log, LogEntry
from pdsync.sandbox.server.routes import find_route

if TYPE_CHECKING:
    from collections.abc import Callable

    from pdsync.sandbox.company.company import Company

BASES = {"v1": "v1", "api/v1": "v1", "api/v2": "v2"}
MOST_BODY_BYTES = 256 * 2**20
FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
SEARCHES = ("search", "itemSearch")
LOGGED_HEADERS = ("x-ratelimit-", "x-daily-", "retry-after")


class Caller(Struct, frozen=True):
    """Whose request it is."""

    name: str
    viewer: Viewer
    is_oauth: bool


class IncomingRequest(Struct):
    """A request as it came."""

    method: str
    path: str
    query: dict[str, str]  # without the token
    target: str  # path and query, as faults match it
    known: Caller | None
    seen: LogEntry
    body: bytes = b""
    form: dict[str, str] | None = None
    upload: Upload | None = None
    agent: str | None = None
    content_type: str = ""


class Sandbox:
    """A company with a front door. `answer()` is the API; `serve()` speaks HTTP."""

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
        self.gate = RateLimiter(limits or Limits(), company.clock)
        self.oauth = OAuth(company, oauth)
        self.faults = Faults(company.seed)
        self.log = Log()
        self.on_exchange: Callable[[IncomingRequest, Reply], None] | None = None  # told of each request and its answer
        self.renderer, self.finder = Renderer(company), Finder(company)
        self._requests = 0

    # -- HTTP ------------------------------------------------------------------------------------

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.rel_url.path
        asked = self._take(request, path)
        plan = self.faults.plan(asked.method, asked.target)
        asked.seen.fault = ",".join(scripted.fault.kind for scripted in plan) or None
        reply = await self._reply(request, asked, plan)
        if self.on_exchange:
            self.on_exchange(asked, reply)
        reply.headers.setdefault("x-correlation-id", asked.seen.request)
        how = delivery(plan, len(reply.body), self.faults.random)
        if not how.reset:
            asked.seen.status, asked.seen.bytes = reply.status, len(reply.body)
            asked.seen.headers = {k: v for k, v in reply.headers.items() if k.startswith(LOGGED_HEADERS)}
        return await self._send(request, reply, how)

    def _take(self, request: web.BaseRequest, path: str) -> IncomingRequest:
        """Note the request in the log as it arrives."""
        arrived = time.monotonic()
        query = dict(parse_qsl(request.rel_url.raw_query_string, keep_blank_values=True))
        told = urlencode({name: value for name, value in query.items() if name != "api_token"})
        known = self.identify(request.headers, query)
        self._requests += 1
        seen = LogEntry(
            seq=self._requests,
            monotonic_s=arrived,
            time=self.company.clock.stamp(),
            method=request.method,
            path=path,
            query=told,
            token=known.name if known else None,
            request=f"sandbox-{self._requests:08}",
        )
        self.log.append(seen)
        query.pop("api_token", None)
        target, agent = f"{path}?{told}" if told else path, request.headers.get("user-agent")
        return IncomingRequest(request.method, path, query, target, known, seen, agent=agent)

    async def _reply(self, request: web.BaseRequest, asked: IncomingRequest, plan: list[Scripted]) -> Reply:
        before = [s for s in plan if not s.is_after and s.fault.kind not in ("latency", "read_lag")]
        if before:
            return self.faults.instead(before[0].fault, self.gate.limits.burst or 20, self.gate.daily_refusal())
        asked.content_type = request.headers.get("content-type", "")
        asked.body, asked.form, asked.upload = await _read(request)
        lag_s = next((s.fault.seconds for s in plan if s.fault.kind == "read_lag"), None)
        with self.company.lock:
            if asked.path.startswith("/oauth/"):
                reply = self._oauth(request.headers.get("authorization", ""), asked)
            else:
                self._live(asked.seen.seq)
                reply = self.answer(asked, lag_s)
            for scripted in plan:
                if scripted.is_after:
                    reply = self.faults.spoil(scripted, reply, asked.target, asked.query)
            self.faults.remember(asked.target, reply)
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
            await _write_wrongly(transport, reply, how, date)
        elif self.gzip and "gzip" in request.headers.get("accept-encoding", ""):
            response.enable_compression(web.ContentCoding.gzip)
        return response

    # -- the API ---------------------------------------------------------------------------------

    def identify(self, headers: Any, query: dict[str, str]) -> Caller | None:
        token = headers.get("x-api-token") or query.get("api_token")
        if token:
            for name, known_token in self.company.tokens.items():
                if token == known_token:
                    return Caller(name, self.company.viewers[name], False)
            return None
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        viewer = self.oauth.viewer_of(bearer.strip()) if scheme.lower() == "bearer" else None
        return Caller(f"oauth:{viewer}", self.company.viewers[viewer], True) if viewer else None

    def answer(self, asked: IncomingRequest, lag_s: float | None = None) -> Reply:
        known, seen = asked.known, asked.seen
        parts = tuple(asked.path.strip("/").split("/"))
        try:
            if known is None:
                raise unauthorized()
            self.gate.enter(known.name, is_search=any(part in SEARCHES for part in parts), is_oauth=known.is_oauth)
        except LimitReached as blocked:
            return blocked.reply()
        except Refused as no:
            return _refusal(no)
        actor = Actor(known.viewer.user_id, "api", asked.agent)
        reply = self._carry_out(asked, known.viewer, actor, lag_s)
        self.gate.charge(seen.cost)
        is_write = asked.method in ("POST", "PUT")  # what x-daily-requests-left is said to count
        reply.headers.update(self.gate.headers(known.name, is_oauth=known.is_oauth, is_write=is_write))
        return reply

    def act(
        self, method: str, target: str, body: Any = None, user_id: int | None = None, *, is_bulk: bool = False
    ) -> Reply:
        """Carry out a request of the API as that user would in the app: neither counted, limited nor logged.

        Args:
            method, target: as of the API: PATCH, /api/v2/deals/1.
            body: what is sent as JSON.
            user_id: who does it; by default somebody who is none of the viewers, if there is.
            is_bulk: whether the changes are told to be part of a bulk update.
        """
        path, _, text = target.partition("?")
        user_id = user_id or self._colleague()
        viewer = Viewer("app", user_id, True, self.company.groups[user_id])
        now = self.company.clock.stamp()
        seen = LogEntry(seq=0, monotonic_s=0, time=now, method=method, path=path, query=text, token=None, request="")
        asked = IncomingRequest(
            method, path, dict(parse_qsl(text)), target, None, seen, b"" if body is None else encode(body)
        )
        with self.company.lock:
            return self._carry_out(asked, viewer, Actor(user_id, is_bulk=is_bulk))

    def _colleague(self) -> int:
        viewers = [viewer.user_id for viewer in self.company.viewers.values()]
        users = [id for id, row in self.company["users"].rows.items() if row.record["active_flag"]]
        return next((id for id in users if id not in viewers), users[-1])

    def _carry_out(self, asked: IncomingRequest, viewer: Viewer, actor: Actor, lag_s: float | None = None) -> Reply:
        seen = asked.seen
        try:
            version, rest = _split(tuple(asked.path.strip("/").split("/")))
            route, params = find_route(version, asked.method, rest)
            seen.operation, seen.cost = route.operation, route.cost
            self.company.purge()
            call = Call(
                company=self.company,
                renderer=self.renderer,
                finder=self.finder,
                viewer=viewer,
                request_id=seen.request,
                version=version,
                method=asked.method,
                path=asked.path,
                query=asked.query,
                body=asked.body,
                form=asked.form,
                upload=asked.upload,
                params=params,
                overlay=None if lag_s is None else self._overlay(lag_s),
            )
            with self.company.acting(actor):
                return route.answer(call, route)
        except Refused as no:
            return _refusal(no)

    def _overlay(self, lag_s: float) -> dict[str, dict[int, Any]]:
        """What records looked like `lag_s` ago, of those that changed since."""
        since = self.company.clock.seconds() - lag_s
        overlay: dict[str, dict[int, Any]] = {}
        for entry in reversed(self.company.journal):
            if entry.at_s <= since:
                break
            if isinstance(entry.id, int):
                overlay.setdefault(entry.kind, {})[entry.id] = entry.before  # the oldest one stays
        return overlay

    def _live(self, seq: int) -> None:
        live = self.live_changes
        if live and seq % live.every == 0:
            change(
                self.company,
                records=live.records,
                seed=live.seed,
                kinds=live.kinds,
                advance_s=0,
                only=live.only,
            )

    def _oauth(self, authorization: str, asked: IncomingRequest) -> Reply:
        match asked.method, asked.path:
            case "GET", "/oauth/authorize":
                return self.oauth.authorize(asked.query)
            case "POST", "/oauth/token":
                return self.oauth.token(authorization, asked.form or {})
            case _, "/oauth/token/":
                return Reply(301, b"", {"location": "/oauth/token"})  # turns a POST into a GET, as one client met
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
    """The body as it is, or as a form with at most one file."""
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


def _refusal(no: Refused) -> Reply:
    return Reply(no.status, encode(no.body), dict(no.headers))


async def _write_wrongly(transport: asyncio.Transport, reply: Reply, how: Delivery, date: str) -> None:
    """Past aiohttp, which would never send an answer that is not what it says it is."""
    head = [f"HTTP/1.1 {reply.status} Sandbox", f"Content-Type: {reply.content_type}", f"Date: {date}"]
    head += [f"{name}: {value}" for name, value in reply.headers.items()]
    head += [f"Content-Length: {len(reply.body) + how.declare_more}", "Connection: close", "", ""]
    transport.write("\r\n".join(head).encode())
    body = reply.body if how.keep_bytes is None else reply.body[: how.keep_bytes]
    step = max(1, int(how.bytes_per_s / 10)) if how.bytes_per_s else len(body) or 1
    with contextlib.suppress(ConnectionError):
        for at in range(0, len(body), step):
            if transport.is_closing():
                return
            transport.write(body[at : at + step])
            await asyncio.sleep(step / how.bytes_per_s if how.bytes_per_s else 0)
    transport.close()
