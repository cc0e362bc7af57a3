"""Makes the requests of one action, and logs each of them on request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from pdsync.core.account import fetch_account
from pdsync.core.log import clean
from pdsync.core.request_builder import check
from pdsync.extract.records import records

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping

    from pdsync.core.account import Account
    from pdsync.core.answer import Answer
    from pdsync.core.http import Http
    from pdsync.core.raw_request import RawRequest
    from pdsync.core.request import Request, RetryPolicy
    from pdsync.core.sinks import ByteSink
    from pdsync.model import Operation

_SHOWN = 2000  # bytes of a body in the log


class Caller:
    """A client that logs: what `extract.records` walks a list with, and what the strategies of inputs ask.

    Args:
        http: makes the calls.
        on_request: receives a text for each request; None: nothing is logged.
    """

    def __init__(self, http: Http, on_request: Callable[[str], None] | None = None) -> None:
        self.http, self.on_request = http, on_request
        self.content_type: str | None = None  # of the last download
        self._account: Account | None = None

    async def call(self, operation: Operation, path: str | None = None, *, query: Mapping[str, str] | None) -> Answer:
        """Carry out a read operation whose path is filled in."""
        self._log(operation.method, path or operation.path, query)
        return await self.http.call(operation, path, query=query)

    async def ask(self, operation: Operation, params: Mapping[str, object]) -> Any:
        """Carry out an operation with parameters by name, and return its answer, decoded.

        Raises:
            ConfigError: a parameter does not fit. Nothing was called.
            PdsyncError: as `Http.call`.
        """
        call = check(operation, params)
        self._log(operation.method, call.path, call.query, call.body)
        return (await self.http.carry_out(call)).json()

    async def walk(self, operation: Operation, params: Mapping[str, object]) -> AsyncGenerator[dict[str, Any]]:
        """Every record of a list operation, each once, decoded."""
        call = check(operation, params)
        async for raw in records(self, operation, call.path, call.query):
            yield msgspec.json.decode(raw, type=dict[str, Any])

    async def request(self, request: RawRequest, policy: RetryPolicy) -> Answer:
        """Carry out a raw request."""
        self._log(request.method, request.path, dict(request.query), request.body, request.headers)
        return await self.http.send(request.request(policy))

    async def download(self, request: Request, sink: ByteSink, *, most_bytes: int) -> Answer:
        """Send a request whose answer is a file, and remember the file's content type."""
        self._log(request.method, request.path, dict(request.query or {}))
        answer = await self.http.download(request, sink, most_bytes=most_bytes)
        self.content_type = answer.headers.get("content-type")
        return answer

    async def account(self) -> Account:
        """Whose token it is: 2 tokens, once an action."""
        if self._account is None:
            self._log("GET", "/v1/users/me", None)
            self._account = await fetch_account(self.http)
        return self._account

    def _log(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        if self.on_request is None:
            return
        lines = [f"> {method} {self.http.base_url}{path}"]
        lines += [f">   ?{name}={value}" for name, value in (query or {}).items()]
        lines += [f">   {name}: {value}" for name, value in (headers or {}).items()]
        lines += [">   x-api-token or authorization: [secret]"]
        if body is not None:
            shown = body if isinstance(body, bytes) else msgspec.json.encode(body)
            more = " …" if len(shown) > _SHOWN else ""
            lines.append(f">   {shown[:_SHOWN].decode(errors='replace')}{more}")
        self.on_request(clean("\n".join(lines)))
