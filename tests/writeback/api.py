"""A server whose answers a test writes out, with a log of its requests: for answers that the sandbox never gives."""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import msgspec
from aiohttp import web

from tests.core.servers import client, server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from pdsync.core.http import Http

# By "/path", or "METHOD /path" for what is no GET: the data of the answer; a number: the status of a refusal; bytes:
# the body as it is; LOST: no answer; a tuple: one after the other; a function of the request: what it returns.
Answers = dict[str, Any]
LOST = object()


class Api:
    """Gives `answers`, and 404 for all else; `requests` has each request, `bodies` what each write sent."""

    http: Http

    def __init__(self, answers: Mapping[str, Any]) -> None:
        self.answers = dict(answers)
        self.requests: list[str] = []
        self.bodies: list[Any] = []

    @property
    def writes(self) -> list[str]:
        """The requests that are no reads."""
        return [each for each in self.requests if " " in each]

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        name = unquote(request.path) if request.method == "GET" else f"{request.method} {unquote(request.path)}"
        self.requests.append(f"{name}?{unquote(request.query_string)}" if "ids" in request.query else name)
        if request.method != "GET":
            content = await request.read()
            self.bodies.append(msgspec.json.decode(content) if content else None)
        answer = self.answers.get(name, 404)
        if isinstance(answer, tuple):
            answer, *rest = answer
            if rest:
                self.answers[name] = tuple(rest)
        if callable(answer):
            answer = answer(request)
        if isinstance(answer, Awaitable):
            answer = await answer
        if isinstance(answer, web.StreamResponse):
            return answer
        if answer is LOST:
            if request.transport:
                request.transport.close()
            return web.Response()
        if isinstance(answer, bytes):
            return web.Response(body=answer, content_type="application/json")
        if isinstance(answer, int):
            return web.json_response({"success": False, "error": f"refused with {answer}"}, status=answer)
        return web.json_response(text=msgspec.json.encode({"success": True, "data": answer}).decode())


@asynccontextmanager
async def answering(folder: Path, answers: Mapping[str, Any]) -> AsyncIterator[Api]:
    """A server that gives `answers`, with pdsync's own client for it, whose control.db is in `folder`."""
    api = Api(answers)
    async with server(api.handle) as url, client(url, folder) as http:
        api.http = http
        yield api
