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

from . import admin
from .changes import KINDS, change
from .errors import Refused, refused, unauthorized
from .faults import Delivery, Faults, Scripted, delivery
from .http import Call, Reply, Upload
from .limits import Blocked, Gate, Limits
from .log import Log, Seen
from .oauth import OAuth, Settings
from .render import Renderer
from .routes import find_route
from .select import Finder
from .table import encode

if TYPE_CHECKING:
    from .company import Company, Viewer

BASES = {"v1": "v1", "api/v1": "v1", "api/v2": "v2"}
MOST_BODY_BYTES = 256 * 2**20
FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
LOGGED_HEADERS = ("x-ratelimit-", "x-daily-", "retry-after")


class LiveChanges(Struct, kw_only=True):
    """Change `records` of each kind at every n-th request."""

    every: int
    records: int = 2
    kinds: tuple[str, ...] = KINDS
    seed: int = 0
    only: tuple[str, ...] = ("added", "updated", "deleted", "archived", "merged")


class Known(Struct, frozen=True):
    """Whose request it is."""

    name: str
    viewer: Viewer
    is_oauth: bool


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
        self.gate = Gate(limits or Limits(), company.clock)
        self.oauth = OAuth(company, oauth)
        self.faults = Faults(company.seed)
        self.log = Log()
        self.renderer, self.finder = Renderer(company), Finder(company)
        self._requests = 0

    # -- HTTP ------------------------------------------------------------------------------------

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.rel_url.path
        if path.startswith("/_admin"):
            return _response(await admin.answer(self, request), self.company.clock.http_date())
        arrived = time.monotonic()
        with self.company.lock:
            self._requests += 1
            seq, stamp = self._requests, self.company.clock.stamp()
        request_id = f"sandbox-{seq:08}"
        query = dict(parse_qsl(request.rel_url.raw_query_string, keep_blank_values=True))
        told = urlencode({name: value for name, value in query.items() if name != "api_token"})
        target = f"{path}?{told}" if told else path
        plan = self.faults.plan(request.method, target)
        known = self.identify(request.headers, query)
        seen = Seen(
            seq,
            arrived,
            stamp,
            request.method,
            path,
            told,
            None,
            known and known.name,
            0,
            0,
            ",".join(scripted.fault.kind for scripted in plan) or None,
            0,
            request_id,
        )
        self.log.append(seen)
        reply = await self._reply(request, path, query, target, plan, known, seen)
        reply.headers.setdefault("x-correlation-id", request_id)
        how = delivery(plan, len(reply.body), self.faults.random)
        if not how.reset:
            seen.status, seen.bytes = reply.status, len(reply.body)
            seen.headers = {k: v for k, v in reply.headers.items() if k.startswith(LOGGED_HEADERS)}
        return await self._send(request, reply, how)

    async def _reply(
        self,
        request: web.BaseRequest,
        path: str,
        query: dict[str, str],
        target: str,
        plan: list[Scripted],
        known: Known | None,
        seen: Seen,
    ) -> Reply:
        before = [s for s in plan if not s.is_after and s.fault.kind not in ("latency", "read_lag")]
        if before:
            return self.faults.instead(before[0].fault, self.gate.limits.burst or 20, self.gate.daily_refusal())
        body, form, upload = await _read(request)
        if path.startswith("/oauth/"):
            return self._oauth(request, path, query, form or {})
        lag = next((s.fault.seconds for s in plan if s.fault.kind == "read_lag"), None)
        with self.company.lock:
            self._live()
            reply = self.answer(request.method, path, query, known, seen, body, form, upload, lag)
            for scripted in plan:
                if scripted.is_after:
                    reply = self.faults.spoil(scripted, reply, target, query)
            self.faults.remember(target, reply)
        return reply

    async def _send(self, request: web.BaseRequest, reply: Reply, how: Delivery) -> web.StreamResponse:
        if how.wait_s:
            await asyncio.sleep(how.wait_s)
        date = self.company.clock.http_date()
        response = _response(reply, date)
        spoiled = how.reset or how.keep_bytes is not None or how.declare_more or how.bytes_per_s
        if not spoiled:
            if self.gzip:
                response.enable_compression()
            return response
        transport = request.transport
        if how.reset:
            if transport is not None:
                transport.abort()
            return response
        # Written past aiohttp, which would never send an answer that is not what it says.
        head = [f"HTTP/1.1 {reply.status} Sandbox", f"Content-Type: {reply.content_type}", f"Date: {date}"]
        head += [f"{name}: {value}" for name, value in reply.headers.items()]
        head += [f"Content-Length: {len(reply.body) + how.declare_more}", "Connection: close", "", ""]
        body = reply.body if how.keep_bytes is None else reply.body[: how.keep_bytes]
        if transport is not None:
            transport.write("\r\n".join(head).encode())
            if how.bytes_per_s:
                await _drip(transport, body, how.bytes_per_s)
            else:
                transport.write(body)
            transport.close()
        return response

    # -- the API ---------------------------------------------------------------------------------

    def identify(self, headers: Any, query: dict[str, str]) -> Known | None:
        token = headers.get("x-api-token") or query.get("api_token")
        if token:
            for name, viewer in self.company.viewers.items():
                if token == self.company.token_of(name):
                    return Known(name, viewer, False)
            return None
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and (name := self.oauth.viewer_of(bearer.strip())):
            return Known(f"oauth:{name}", self.company.viewers[name], True)
        return None

    def answer(
        self,
        method: str,
        path: str,
        query: dict[str, str],
        known: Known | None,
        seen: Seen,
        body: bytes = b"",
        form: dict[str, str] | None = None,
        upload: Upload | None = None,
        lag_s: float | None = None,
    ) -> Reply:
        is_write = method in ("POST", "PUT", "PATCH")
        try:
            if known is None:
                raise unauthorized()
            parts = path.strip("/").split("/")
            is_search = parts[-1] == "search" or parts[-1] == "itemSearch"
            self.gate.enter(known.name, is_search=is_search, is_oauth=known.is_oauth)
        except Blocked as blocked:
            return Reply(
                blocked.reply.status, blocked.reply.body, dict(blocked.reply.headers), blocked.reply.content_type
            )
        except Refused as no:
            return _refusal(no)
        try:
            version, rest = _split(parts)
            route, params = find_route(version, method, rest)
            seen.operation, seen.cost = route.operation, route.cost
            self.company.purge()
            call = Call(
                company=self.company,
                renderer=self.renderer,
                finder=self.finder,
                viewer=known.viewer,
                request_id=seen.request,
                version=version,
                method=method,
                path=path,
                query={name: value for name, value in query.items() if name != "api_token"},
                body=body,
                form=form,
                upload=upload,
                params=params,
                overlay=None if lag_s is None else self._overlay(lag_s),
            )
            reply = route.answer(call, route)
        except Refused as no:
            reply = _refusal(no)
        self.gate.charge(seen.cost)
        reply.headers.update(self.gate.headers(known.name, is_oauth=known.is_oauth, is_write=is_write))
        return reply

    def _overlay(self, lag_s: float) -> dict[str, dict[int, Any]]:
        """What records looked like `lag_s` ago, of those that changed since."""
        since = self.company.clock.seconds() - lag_s
        overlay: dict[str, dict[int, Any]] = {}
        for entry in reversed(self.company.journal):
            if entry.at_s <= since:
                break
            overlay.setdefault(entry.kind, {})[entry.id] = entry.before
        return overlay

    def _live(self) -> None:
        live = self.live_changes
        if live and self._requests % live.every == 0:
            change(
                self.company,
                records=live.records,
                seed=live.seed,
                kinds=live.kinds,
                advance_s=0,
                only=live.only,
            )

    def _oauth(self, request: web.BaseRequest, path: str, query: dict[str, str], form: dict[str, str]) -> Reply:
        if path == "/oauth/authorize" and request.method == "GET":
            return self.oauth.authorize(query)
        if path == "/oauth/token" and request.method == "POST":
            return self.oauth.token(request.headers.get("authorization", ""), form)
        if path == "/oauth/token/":
            return Reply(301, b"", {"location": "/oauth/token"})  # turns a POST into a GET, as one client met
        return _refusal(refused(404, "Not found"))

    @property
    def requests(self) -> int:
        return self._requests


def _split(parts: list[str]) -> tuple[str, tuple[str, ...]]:
    for size in (1, 2):
        version = BASES.get("/".join(parts[:size]))
        if version and len(parts) > size:
            return version, tuple(parts[size:])
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


async def _drip(transport: asyncio.Transport, body: bytes, bytes_per_s: float) -> None:
    step = max(1, int(bytes_per_s / 10))
    with contextlib.suppress(ConnectionError):
        for at in range(0, len(body), step):
            if transport.is_closing():
                return
            transport.write(body[at : at + step])
            await asyncio.sleep(step / bytes_per_s)
