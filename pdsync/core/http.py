"""Sends requests: one session, the token in a header, and retries only where a repetition is safe.

Retried are reads (GET) after a broken connection, a timeout, a 5xx or a body that was cut off, and any request that the
server refused unprocessed (429, or 401 once, where the token can be refreshed); never a write whose outcome is
unknown, unless its `RetryPolicy` requests that. The retries of a session share one budget, so that a failing server is
not overloaded; those that only `RetryPolicy.all_errors` allows do not count in it.

Redirects are not followed: they would receive the token. A download may follow one without it (`core.downloads`).
Bodies have a maximum size, packed and unpacked.
"""

from __future__ import annotations

import asyncio
import io
import random
import zlib
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import aiohttp
import msgspec

from pdsync.core.answer import PLAIN_CAP, RETRYABLE, WIRE_CAP, Answer, Retryable, answer_is_unknown, judge, note_headers
from pdsync.core.config import is_loopback
from pdsync.core.downloads import (
    REDIRECTS,
    SLOWEST,
    GzipReader,
    bare_session,
    is_known_empty,
    redirect_target,
    stream,
)
from pdsync.core.log import clean, log
from pdsync.core.proxy import OWN_CA, certificate_message, proxy_for, proxy_options
from pdsync.core.request import Query, Request, RetryPolicy, request_of, request_of_call
from pdsync.core.server_clock import ServerClock
from pdsync.core.sinks import TooLarge
from pdsync.errors import ApiError, AuthError, BadAnswer, Forbidden, NotFound, ServerTrouble
from pdsync.version import __version__

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping
    from types import TracebackType

    from yarl import URL

    from pdsync.core.budget import Budget
    from pdsync.core.credentials import Credentials
    from pdsync.core.request_builder import Call
    from pdsync.core.sinks import ByteSink
    from pdsync.model import Operation

_CONNECT_S = 15.0
_SILENT_S = 30.0  # for the next byte of an answer
_MAX_RESERVED = 4 * 2**20  # bytes reserved for a body at most, whatever its Content-Length
_YEARS = range(1970, 9000)  # of a `Date`; at the ends of the calendar, no time before or after it can be calculated
_KEPT_HEADERS = ("date", "content-type", "x-correlation-id", "retry-after", "location", "content-disposition")


class Http:
    """One session with one company.

    Args:
        base_url: scheme and host.
        credentials: give the headers of each request.
        budget: decides when a request may be sent.
        concurrency: the most requests at the same time.
        timeout_s: for one attempt, from connecting to the last byte; 15 s without a connection, or 30 s without a byte
            of the answer, end it sooner; the latter not if a request's `RetryPolicy` has a longer timeout.
        backoff_s: before the second attempt.
    """

    def __init__(
        self,
        base_url: str,
        credentials: Credentials,
        budget: Budget,
        *,
        concurrency: int = 8,
        timeout_s: float = 60.0,
        backoff_s: float = 0.5,
    ) -> None:
        self.base_url, self.budget, self.clock = base_url, budget, ServerClock()
        self._credentials = credentials
        self._concurrency, self._timeout_s, self._backoff_s = concurrency, timeout_s, backoff_s
        self._slots = asyncio.Semaphore(concurrency)
        self._retry_tokens = 20.0
        self._session: aiohttp.ClientSession | None = None
        self._bare: aiohttp.ClientSession | None = None
        self._local = is_loopback(urlsplit(base_url).hostname or "")
        self._proxy = proxy_options(proxy_for(base_url))
        self._bare_proxied: aiohttp.ClientSession | None = None

    def _served_at(self, date: str | None) -> datetime:
        """The server's time by an answer's `Date`; by this machine's clock where there is none of a possible year."""
        try:
            server_time = parsedate_to_datetime(date or "").astimezone(UTC)
        except (ValueError, TypeError, IndexError, OverflowError):
            server_time = None
        if server_time is None or server_time.year not in _YEARS:
            server_time = datetime.now(UTC).replace(microsecond=0)
        return self.clock.read(server_time)

    async def __aenter__(self) -> Http:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._concurrency, ttl_dns_cache=300),
            timeout=_timeout(self._timeout_s, _SILENT_S),
            headers={"User-Agent": f"pdsync/{__version__}", "Accept": "application/json", "Accept-Encoding": "gzip"},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            raise_for_status=False,
            read_bufsize=2**20,  # about the size of a page: the socket pauses less often
        )
        # aiohttp repeats a GET itself where a kept-alive connection was closed; the ledger would not count it.
        self._session._retry_connection = False
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for session in (self._session, self._bare, self._bare_proxied):
            if session:
                await session.close()

    async def call(
        self, operation: Operation, path: str | None = None, *, query: Query | None = None, body: object = None
    ) -> Answer:
        """Carry out `operation`: see `request_of` and `send`."""
        return await self.send(request_of(operation, path, query=query, body=body))

    async def carry_out(self, call: Call) -> Answer:
        """Carry out a call that the catalogue has checked: see `request_of_call` and `send`."""
        return await self.send(request_of_call(call))

    async def send(self, request: Request) -> Answer:
        """Send `request`, again where that is safe, and return the answer, which is a success.

        Raises:
            AuthError: the token is refused.
            Forbidden, NotFound, ApiError: Pipedrive refuses the request.
            BudgetSpent, CoolingDown: no request may be sent for now.
            ServerTrouble: there was no usable answer; a write may have happened.
            BadAnswer: the answer can't be used: a redirect, or a body that is too large.
        """

        async def once(own: dict[str, str]) -> Answer:
            async with self._slots, self.budget.spend(request.cost, search=request.is_search) as answered:
                if request.before_send:
                    await request.before_send()
                answer = await self._exchange(request, own, answered)
            note_headers(answer, self.budget)
            judge(answer, request, self.budget)
            return answer

        return await self._repeated(once, request)

    async def download(self, request: Request, sink: ByteSink, *, most_bytes: int) -> Answer:
        """Send `request`, whose answer is a file, and write its bytes to `sink` as they come.

        Only a piece of the file is in memory, unless it is JSON that could be a refusal. Where the answer is a link to
        the file, it is followed once, without the token. Each attempt restarts the sink.

        Raises:
            TooLarge: it has more than `most_bytes` bytes.
            BadAnswer: the link redirects again, or leads to an address that is not allowed.
            PdsyncError: as `send`.
        """

        async def once(own: dict[str, str]) -> Answer:
            async with self._slots:
                async with self.budget.spend(request.cost, search=request.is_search) as answered:
                    headers = {**own, "Accept": "*/*", "Accept-Encoding": "identity"}
                    answer = await self._exchange(request, headers, answered, sink, most_bytes)
                note_headers(answer, self.budget)
                if answer.status in REDIRECTS:
                    link = answer.headers.get("location")
                    target = redirect_target(link, self.base_url + request.path, local=self._local)
                    return await self._fetch(target, sink, most_bytes, request.label)
            judge(answer, request, self.budget)
            if answer.status not in (200, 204):
                raise BadAnswer(f"{request.label}: status {answer.status} where a whole file should be.")
            if answer.status == 204 or _may_be_refusal(answer.headers):  # none of it is in the sink
                if len(answer.body) > most_bytes:
                    raise TooLarge(f"{len(answer.body):,} bytes came, and {most_bytes:,} are the most.")
                sink.begin()
                sink.write(answer.body)
            return answer

        return await self._repeated(once, request)

    async def _repeated(
        self,
        once: Callable[[dict[str, str]], Awaitable[Answer]],
        request: Request,
    ) -> Answer:
        """The answer of the first attempt that succeeds; attempts are repeated where that is safe."""
        method, label, retry = request.method, request.label, request.retry
        refreshed = False
        attempt = 0
        while True:
            attempt += 1
            headers = await self._credentials.headers()
            try:
                answer = await once(headers)
            except Retryable as failure:
                unknown = answer_is_unknown(failure, method)
                is_unsafe = unknown and not retry.repeats_writes
                if is_unsafe or attempt >= retry.attempts or self._retry_tokens < 1:
                    again = "so it was not sent again" if attempt == 1 else f"and it was sent {attempt} times"
                    advice = (
                        f"It is not known whether it was carried out, {again}. Check before you repeat it."
                        if unknown
                        else "What was fetched before is kept; run the same command again to continue."
                    )
                    raise ServerTrouble(
                        f"{label}: {clean(failure.reason)} (attempt {attempt} of {retry.attempts}).\n{advice}",
                        doubtful=unknown,
                    ) from failure
                self._retry_tokens -= 1
                wait = failure.wait_s if failure.wait_s is not None else self._backoff(attempt, retry)
                log.info("%s: %s; again in %.1f s", label, failure.reason, wait)
                await asyncio.sleep(wait)
            except AuthError:
                if refreshed or not await self._credentials.refresh(headers):
                    raise
                refreshed = True
            except ApiError as refusal:
                repeatable = retry.all_errors and (method == "GET" or refusal.status >= 400)
                if not repeatable or attempt >= retry.attempts:
                    raise
                wait = self._backoff(attempt, retry)
                log.info("%s: %s; again in %.1f s", label, refusal, wait)
                await asyncio.sleep(wait)
            else:
                self._retry_tokens = min(self._retry_tokens + 0.15, 20.0)
                return answer

    def _backoff(self, attempt: int, retry: RetryPolicy) -> float:
        first = self._backoff_s if retry.backoff_s is None else retry.backoff_s
        if not retry.exponential:
            return first
        wait = min(first * float(2 ** (attempt - 1)), max(20.0, first))
        least = 0.5 if retry.backoff_s is None else 1.0  # never sooner than requested
        return wait * random.uniform(least, least + 0.5)  # noqa: S311 - jitter

    async def _exchange(
        self,
        request: Request,
        own: dict[str, str],
        on_answer: Callable[[], None],
        sink: ByteSink | None = None,
        most_bytes: int = 0,
    ) -> Answer:
        """Send `request` once, with the additional headers `own`; the answer as it came, a file's body in `sink`."""
        if self._session is None:
            raise RuntimeError("Http is used inside `async with`.")
        data: bytes | aiohttp.FormData | None = None
        headers, timeout_s = {**(request.headers or {}), **own}, request.retry.timeout_s or self._timeout_s
        if isinstance(request.body, bytes):
            data = request.body
        elif request.body is not None:
            data = msgspec.json.encode(request.body)
            headers = {**headers, "Content-Type": "application/json"}
        silent_s = max(_SILENT_S, request.retry.timeout_s or 0)  # who asks for more time waits that long for an answer
        with _connection_errors(self.base_url, timeout_s, silent_s), ExitStack() as opened:
            if request.form:
                data = opened.enter_context(request.form.opened())
                timeout_s += request.form.size / SLOWEST
            query = request.query
            async with self._session.request(
                request.method,
                self.base_url + request.path,
                params=query if query and not isinstance(query, dict) else dict(query or {}),
                data=data,
                headers=headers,
                allow_redirects=False,
                timeout=_timeout(None if sink else timeout_s, silent_s),
                **self._proxy,
            ) as response:
                on_answer()
                kept = {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
                kept |= {k.lower(): v for k, v in response.headers.items() if "ratelimit" in k.lower()}
                if sink and response.status == 200 and not _may_be_refusal(kept):
                    await stream(response, sink, most_bytes, timeout_s)
                    plain = b""
                else:
                    plain = await self._read(response)
                log.debug("%s %s → %d, %d bytes", request.method, request.path, response.status, len(plain))
                return Answer(response.status, kept, plain, self._served_at(response.headers.get("Date")))

    async def _fetch(self, target: URL, sink: ByteSink, most_bytes: int, label: str) -> Answer:
        """The file that the link `target` names: no token, no cookie, no further redirect."""
        host = target.host or ""
        proxy = proxy_options(proxy_for(str(target)))
        if proxy:  # the proxy resolves the address
            session = self._bare_proxied = self._bare_proxied or bare_session(concurrency=self._concurrency)
        else:
            session = self._bare = self._bare or bare_session(local=self._local, concurrency=self._concurrency)
        with _connection_errors(host, self._timeout_s, _SILENT_S, is_secret=True):
            async with session.get(
                target, allow_redirects=False, timeout=_timeout(None, _SILENT_S), **proxy
            ) as response:
                status, headers = response.status, {k.lower(): v for k, v in response.headers.items()}
                log.debug("GET %s (the file's storage) → %d", host, status)
                if status == 200:
                    await stream(response, sink, most_bytes, self._timeout_s)
                    kept = {name: headers[name] for name in _KEPT_HEADERS if name in headers and name != "location"}
                    return Answer(status, kept, b"", self._served_at(headers.get("date")))
        if status in RETRYABLE or status == 429:
            raise Retryable(f"the file's storage ({host}) answered {status}")
        if status in REDIRECTS:
            raise BadAnswer(f"{label}: the file's storage ({host}) redirects once more. It was not followed.")
        kind = {401: Forbidden, 403: Forbidden, 404: NotFound, 410: NotFound}.get(status)
        message = f"{label}: the file's storage ({host}) answered {status}."
        raise kind(message, status=status, operation=label) if kind else BadAnswer(message)

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        """The body, unpacked; memory is bounded by WIRE_CAP and PLAIN_CAP."""
        packed = response.headers.get("Content-Encoding", "identity").lower()
        unpacker = GzipReader() if packed == "gzip" else None
        if unpacker is None and packed not in ("identity", ""):
            raise BadAnswer(f"The answer is packed with {packed!r}, which was not offered.")
        # One buffer instead of pieces to be joined: the body is in memory once, and not twice.
        wire, plain = 0, _buffer(0 if unpacker else response.content_length or 0)
        async for piece in response.content.iter_any():
            wire += len(piece)
            for data in unpacker.feed(piece) if unpacker else (piece,):
                plain.write(data)
                if plain.tell() > PLAIN_CAP:
                    break
            if wire > (WIRE_CAP if unpacker else PLAIN_CAP) or plain.tell() > PLAIN_CAP:
                response.close()
                raise BadAnswer(
                    f"The answer is larger than {PLAIN_CAP // 2**20} MiB unpacked, or {WIRE_CAP // 2**20} MiB packed."
                )
        if unpacker and not unpacker.complete and (wire or not is_known_empty(response)):
            raise EOFError("the packed answer ends early")
        plain.truncate()
        return plain.getvalue()


@contextmanager
def _connection_errors(where: str, timeout_s: float, silent_s: float, *, is_secret: bool = False) -> Iterator[None]:
    """Turn errors of the connection into errors with the information whether the attempt may be repeated.

    Args:
        where: the server.
        timeout_s: for the attempt.
        silent_s: for the next byte of the answer.
        is_secret: a library's message may contain a link that is a secret.
    """
    try:
        yield
    except aiohttp.ClientConnectorCertificateError as error:
        raise ServerTrouble(
            f"{certificate_message(where, error.certificate_error)} Nothing was sent.\n{OWN_CA}"
        ) from error
    except aiohttp.ClientHttpProxyError as error:
        advice = "HTTPS_PROXY takes user and password: http://user:password@host:port" if error.status == 407 else ""
        message = f"the proxy refuses the way to {where} (status {error.status}). {advice}".strip()
        raise Retryable(message, refused=True) from error
    except aiohttp.ClientConnectorError as error:  # before the first byte: it was not carried out
        why = error.os_error.strerror or type(error.os_error).__name__
        raise Retryable(f"can't reach {where}: {why}", refused=True) from error
    except aiohttp.ConnectionTimeoutError as error:  # as above
        raise Retryable(f"can't reach {where} within {_CONNECT_S:g} s", refused=True) from error
    except aiohttp.SocketTimeoutError as error:
        raise Retryable(f"no byte of an answer within {round(silent_s, 1):g} s") from error
    except TimeoutError as error:
        raise Retryable(f"no answer within {round(timeout_s, 1):g} s") from error
    except aiohttp.InvalidURL as error:
        raise BadAnswer(f"{where} is no host that could be called.") from error
    except (aiohttp.ClientError, ConnectionError, zlib.error, EOFError) as error:
        message = "" if is_secret else str(error)
        raise Retryable(f"the connection broke: {message or type(error).__name__}") from error


def _timeout(total_s: float | None, silent_s: float) -> aiohttp.ClientTimeout:
    """The timeouts of an attempt; `total_s` is None for files, whose speed `downloads.stream` checks."""
    return aiohttp.ClientTimeout(total=total_s, sock_connect=_CONNECT_S, sock_read=silent_s)


def _may_be_refusal(headers: Mapping[str, str]) -> bool:
    """Whether an answer of 200 may be an error in JSON, and not a file."""
    return "json" in headers.get("content-type", "").lower() and "content-disposition" not in headers


def _buffer(announced: int) -> io.BytesIO:
    """An empty buffer with room for the announced bytes, so that it is not moved while it grows."""
    buffer = io.BytesIO()
    if announced > 0:
        buffer.seek(min(announced, _MAX_RESERVED) - 1)
        buffer.write(b"\0")
        buffer.seek(0)
    return buffer
