"""Makes one call: one session, the token in a header, and retries only where repeating changes nothing.

What is retried: reading (GET) after a broken connection, a timeout, a 5xx or a cut body; anything that the server
refused before it looked at it (429, or 401 once, when the token can be refreshed). Never a write whose fate is
unknown. All retries of a run come out of one budget, so that a server on its knees is not kicked.

Redirects are not followed: the token would travel along. A download may take one, without it (`core.upload_download`).
Bodies are capped on the wire and unpacked.
"""

from __future__ import annotations

import asyncio
import io
import random
import re
import zlib
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

import aiohttp
import msgspec
from msgspec import Struct

from pdsync.core.config import is_loopback
from pdsync.core.list_response import says_no_success
from pdsync.core.log import clean, log
from pdsync.core.proxy import OWN_CA, proxy_for, through, untrusted
from pdsync.core.server_clock import ServerClock
from pdsync.core.upload_download import (
    REDIRECTS,
    SLOWEST,
    GzipReader,
    bare_session,
    form_of,
    redirect_target,
    stream,
)
from pdsync.errors import ApiError, AuthError, BadAnswer, FeatureOff, Forbidden, NotFound, ServerTrouble
from pdsync.version import __version__

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
    from types import TracebackType

    from yarl import URL

    from pdsync.core.budget import Budget
    from pdsync.core.request_builder import Call
    from pdsync.core.upload_download import ByteSink, Form
    from pdsync.model import Operation

    Query = Mapping[str, str] | Sequence[tuple[str, str]]

WIRE_CAP = 16 * 2**20
PLAIN_CAP = 128 * 2**20
_MOST_ANNOUNCED = 4 * 2**20  # as much room is made ahead for a body, whatever length it says it has
ATTEMPTS = 6
_LARGEST = 2.0**53  # number in a header; NaN and infinities are none either
_RETRYABLE = {408, 500, 502, 503, 504, 520, 521, 522, 523, 524}
# Assumption: how an add-on that a company has not booked is refused is not documented. 402 says so by its number, 403
# and 410 by their words; without them they mean a right that is missing, and a record or path that is gone.
_NOT_INCLUDED = re.compile(
    r"add-?on|feature|subscription|upgrade|\bsuite\b|not (?:enabled|included|part of|available (?:in|on|for))",
    re.IGNORECASE,
)
_KEPT_HEADERS = ("date", "content-type", "x-correlation-id", "retry-after", "location", "content-disposition")


class Answer(Struct, frozen=True):
    """What came back: status, a few headers (lower case), and the body, unpacked."""

    status: int
    headers: dict[str, str]
    body: bytes
    served_at: datetime  # the server's time, UTC: its own Date, where that can be true (`core.server_clock`)

    def json(self) -> object:
        """The body as Python values.

        Raises:
            BadAnswer: it is no JSON.
        """
        try:
            return msgspec.json.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadAnswer(
                f"Pipedrive answered with something that is no JSON ({error}): {_excerpt(self.body)}"
            ) from error


class RetryPolicy(Struct, frozen=True):
    """How long to wait for an answer, and how often to ask again. What is never repeated stays so."""

    attempts: int = ATTEMPTS
    timeout_s: float | None = None  # None: the session's
    backoff_s: float | None = None  # before the second attempt; None: the session's
    exponential: bool = True  # wait twice as long before each further one
    all_errors: bool = False  # ask again after a refusal too: what is not there yet may come
    repeats_writes: bool = False  # send a write again although it may have been carried out: only where that was asked


class Credentials(Protocol):
    """Where the token comes from: a fixed API token, or OAuth that renews itself."""

    @property
    def ledger_key(self) -> str:
        """The same text for as long as the same limits apply; `core.budget` stores its hash."""

    async def headers(self) -> dict[str, str]:
        """The headers that authenticate a request."""

    async def refresh(self, refused: dict[str, str]) -> bool:
        """After a 401 for the headers `refused`: get new ones. False: there is no way to."""


class ApiToken:
    """A personal API token. It does not expire, and can't be renewed."""

    def __init__(self, token: str) -> None:
        self._headers = {"x-api-token": token}
        self.ledger_key = token

    async def headers(self) -> dict[str, str]:
        return self._headers

    async def refresh(self, refused: dict[str, str]) -> bool:
        return False


class _Retryable(Exception):
    """An attempt that failed in a way that a repetition may cure."""

    def __init__(self, reason: str, wait_s: float | None = None, *, refused: bool = False) -> None:
        self.reason, self.wait_s, self.refused = reason, wait_s, refused
        super().__init__(reason)


class Http:
    """One session with one company.

    Args:
        base_url: scheme and host.
        credentials: give the headers of each request.
        budget: says when a request may go out.
        timeout_s: for one attempt, from connecting to the last byte.
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
        self._places = asyncio.Semaphore(concurrency)
        self._retry_tokens = 20.0
        self._session: aiohttp.ClientSession | None = None
        self._bare: aiohttp.ClientSession | None = None
        self._local = is_loopback(urlsplit(base_url).hostname or "")
        self._way = through(proxy_for(base_url))
        self._bare_proxied: aiohttp.ClientSession | None = None

    def _served_at(self, date: str | None) -> datetime:
        """The server's time by an answer's `Date`; by this machine's clock where there is none."""
        try:
            told = parsedate_to_datetime(date or "").astimezone(UTC)
        except (ValueError, TypeError, IndexError, OverflowError):
            told = datetime.now(UTC).replace(microsecond=0)
        return self.clock.read(told)

    async def __aenter__(self) -> Http:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._concurrency, ttl_dns_cache=300),
            timeout=aiohttp.ClientTimeout(total=self._timeout_s, sock_connect=15, sock_read=30),
            headers={"User-Agent": f"pdsync/{__version__}", "Accept": "application/json", "Accept-Encoding": "gzip"},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            raise_for_status=False,
            read_bufsize=2**20,  # a page is about that long: fewer pauses of the socket
        )
        # aiohttp repeats a GET by itself when a kept-alive connection has gone; the ledger would not know of it.
        self._session._retry_connection = False
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for session in (self._session, self._bare, self._bare_proxied):
            if session:
                await session.close()

    async def call(
        self,
        operation: Operation,
        path: str | None = None,
        *,
        query: Query | None = None,
        body: object = None,
        form: Form | None = None,
        headers: Mapping[str, str] | None = None,
        patience: RetryPolicy | None = None,
        before: Callable[[], Awaitable[None]] | None = None,
    ) -> Answer:
        """Carry out `operation` and return the answer, which is a success.

        Args:
            operation: from the catalogue.
            path: the operation's path with its placeholders filled; by default the path as it is.
            query: parameters behind the question mark.
            body: sent as JSON.
            form: sent as a form, in place of `body`.
            headers: sent besides ours.
            patience: other than usual.
            before: is awaited when the request may go out, before its first byte does: once for each attempt.

        Raises:
            AuthError: the token is refused.
            Forbidden, NotFound, ApiError: Pipedrive refuses the request.
            BudgetSpent, Blocked: nothing more may be sent for now.
            ServerTrouble: no usable answer; a write may or may not have happened.
            BadAnswer: an answer no client can use: a redirect, a body beyond the cap.
        """
        return await self.request(
            operation.method,
            path or operation.path,
            cost=operation.cost or 0,
            search=operation.search,
            label=operation.id,
            query=query,
            body=body,
            form=form,
            headers=headers,
            patience=patience,
            before=before,
        )

    async def carry_out(
        self,
        call: Call,
        *,
        headers: Mapping[str, str] | None = None,
        patience: RetryPolicy | None = None,
        before: Callable[[], Awaitable[None]] | None = None,
    ) -> Answer:
        """Like `call`, for a call that the catalogue has checked: as JSON or as a form, whatever its operation takes.

        Raises:
            ConfigError: a file that it sends can't be read. Nothing was sent.
        """
        form = form_of(call)
        return await self.call(
            call.operation,
            call.path,
            query=call.query,
            body=None if form else call.body,
            form=form,
            headers=headers,
            patience=patience,
            before=before,
        )

    async def request(
        self,
        method: str,
        path: str,
        *,
        cost: int,
        label: str,
        search: bool = False,
        query: Query | None = None,
        body: object = None,
        form: Form | None = None,
        headers: Mapping[str, str] | None = None,
        patience: RetryPolicy | None = None,
        before: Callable[[], Awaitable[None]] | None = None,
    ) -> Answer:
        """Like `call`, for a request that no operation of the catalogue describes; `label` names it in errors.

        A `search` counts in the burst limit of searches too. A `body` of bytes is sent as it is, under the
        Content-Type that `headers` name.
        """
        patience = patience or RetryPolicy()
        timeout_s = patience.timeout_s or self._timeout_s

        async def once(own: dict[str, str]) -> Answer:
            async with self._places, self.budget.spend(cost, search=search) as answered:
                if before:
                    await before()
                sent = {**(headers or {}), **own}
                answer = await self._send(
                    method, path, sent, query, body=body, form=form, timeout_s=timeout_s, answered=answered
                )
            self._headers_seen(answer)
            self._judge(answer, method, label)
            return answer

        return await self._repeated(once, method, label, patience)

    async def download(
        self,
        operation: Operation,
        path: str,
        sink: ByteSink,
        *,
        most_bytes: int,
        query: Query | None = None,
        headers: Mapping[str, str] | None = None,
        patience: RetryPolicy | None = None,
    ) -> Answer:
        """Carry out `operation`, whose answer is a file, and hand its bytes to `sink` as they come.

        Of the file no more than a piece is in memory. Where the answer is a link to it, the link is followed once,
        without the token. Each attempt begins the sink anew.

        Raises:
            TooLarge: there are more than `most_bytes` of it.
            BadAnswer: the link leads on, or where nobody should go.
            PdsyncError: as `call`.
        """
        patience = patience or RetryPolicy()

        async def once(own: dict[str, str]) -> Answer:
            async with self._places:
                async with self.budget.spend(operation.cost or 0, search=operation.search) as answered:
                    sent = {**(headers or {}), **own, "Accept": "*/*", "Accept-Encoding": "identity"}
                    answer = await self._send(
                        operation.method, path, sent, query, sink=sink, most_bytes=most_bytes,
                        timeout_s=patience.timeout_s or self._timeout_s, answered=answered,
                    )  # fmt: skip
                self._headers_seen(answer)
                if answer.status in REDIRECTS:
                    target = redirect_target(answer.headers.get("location"), self.base_url + path, local=self._local)
                    return await self._fetch(target, sink, most_bytes, operation.id)
            self._judge(answer, operation.method, operation.id)
            if answer.status not in (200, 204):
                raise BadAnswer(f"{operation.id}: status {answer.status} where a whole file should be.")
            if answer.body:  # JSON that was looked at, because it might have been a refusal
                sink.begin()
                sink.write(answer.body)
            return answer

        return await self._repeated(once, operation.method, operation.id, patience)

    async def _repeated(
        self,
        once: Callable[[dict[str, str]], Awaitable[Answer]],
        method: str,
        label: str,
        patience: RetryPolicy,
    ) -> Answer:
        """The answer of the first attempt that succeeds, where trying again is safe."""
        refreshed = False
        attempt = 0
        while True:
            attempt += 1
            headers = await self._credentials.headers()
            try:
                answer = await once(headers)
            except _Retryable as failure:
                unknown = answer_is_unknown(failure, method)
                stops = unknown and not patience.repeats_writes
                if stops or attempt >= patience.attempts or self._retry_tokens < 1:
                    again = "so it was not sent again" if attempt == 1 else f"and it was sent {attempt} times"
                    advice = (
                        f"Whether it was carried out is not known, {again}. Look before you repeat it."
                        if unknown
                        else "What was fetched before is kept; run the same command again to go on."
                    )
                    raise ServerTrouble(
                        f"{label}: {clean(failure.reason)} (attempt {attempt} of {patience.attempts}).\n{advice}",
                        doubtful=unknown,
                    ) from failure
                self._retry_tokens -= 1
                wait = failure.wait_s if failure.wait_s is not None else self._backoff(attempt, patience)
                log.info("%s: %s; again in %.1f s", label, failure.reason, wait)
                await asyncio.sleep(wait)
            except AuthError:
                if refreshed or not await self._credentials.refresh(headers):
                    raise
                refreshed = True
            except ApiError as refusal:
                repeatable = patience.all_errors and (method == "GET" or refusal.status >= 400)
                if not repeatable or attempt >= patience.attempts:
                    raise
                wait = self._backoff(attempt, patience)
                log.info("%s: %s; again in %.1f s", label, refusal, wait)
                await asyncio.sleep(wait)
            else:
                self._retry_tokens = min(self._retry_tokens + 0.15, 20.0)
                return answer

    def _backoff(self, attempt: int, patience: RetryPolicy) -> float:
        first = self._backoff_s if patience.backoff_s is None else patience.backoff_s
        if not patience.exponential:
            return first
        wait = min(first * float(2 ** (attempt - 1)), max(20.0, first))
        least = 0.5 if patience.backoff_s is None else 1.0  # never sooner than was asked for
        return wait * random.uniform(least, least + 0.5)  # noqa: S311 - jitter

    async def _send(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        query: Query | None,
        *,
        body: object = None,
        form: Form | None = None,
        sink: ByteSink | None = None,
        most_bytes: int = 0,
        timeout_s: float,
        answered: Callable[[], None],
    ) -> Answer:
        if self._session is None:
            raise RuntimeError("Http is used inside `async with`.")
        data: bytes | aiohttp.FormData | None = None
        if isinstance(body, bytes):
            data = body
        elif body is not None:
            data = msgspec.json.encode(body)
            headers = {**headers, "Content-Type": "application/json"}
        with self._troubles(self.base_url, timeout_s), ExitStack() as opened:
            if form:
                data = opened.enter_context(form.opened())
                timeout_s += form.size / SLOWEST
            async with self._session.request(
                method,
                self.base_url + path,
                params=query if query and not isinstance(query, dict) else dict(query or {}),
                data=data,
                headers=headers,
                allow_redirects=False,
                timeout=_patient(None if sink else timeout_s),
                **self._way,
            ) as response:
                answered()
                kept = {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
                kept |= {k.lower(): v for k, v in response.headers.items() if "ratelimit" in k.lower()}
                if sink and response.status == 200 and not _may_be_refusal(kept):
                    await stream(response, sink, most_bytes, timeout_s)
                    plain = b""
                else:
                    plain = await self._read(response)
                log.debug("%s %s → %d, %d bytes", method, path, response.status, len(plain))
                return Answer(response.status, kept, plain, self._served_at(response.headers.get("Date")))

    async def _fetch(self, target: URL, sink: ByteSink, most_bytes: int, label: str) -> Answer:
        """The file behind the link `target`: no token, no cookie, no further redirect."""
        host = target.host or ""
        way = through(proxy_for(str(target)))
        if way:  # it is the proxy that finds the address
            session = self._bare_proxied = self._bare_proxied or bare_session(concurrency=self._concurrency)
        else:
            session = self._bare = self._bare or bare_session(local=self._local, concurrency=self._concurrency)
        with self._troubles(host, self._timeout_s):
            async with session.get(target, allow_redirects=False, timeout=_patient(None), **way) as response:
                status, headers = response.status, {k.lower(): v for k, v in response.headers.items()}
                log.debug("GET %s (the file's storage) → %d", host, status)
                if status == 200:
                    await stream(response, sink, most_bytes, self._timeout_s)
                    kept = {name: headers[name] for name in _KEPT_HEADERS if name in headers and name != "location"}
                    return Answer(status, kept, b"", self._served_at(headers.get("date")))
        if status in _RETRYABLE or status == 429:
            raise _Retryable(f"the file's storage ({host}) answered {status}")
        if status in REDIRECTS:
            raise BadAnswer(f"{label}: the file's storage ({host}) redirects once more. It was not followed.")
        kind = {401: Forbidden, 403: Forbidden, 404: NotFound, 410: NotFound}.get(status)
        said = f"{label}: the file's storage ({host}) answered {status}."
        raise kind(said, status=status, operation=label) if kind else BadAnswer(said)

    @contextmanager
    def _troubles(self, where: str, timeout_s: float) -> Iterator[None]:
        """Say of each failure of the connection whether it may be tried again."""
        try:
            yield
        except aiohttp.ClientConnectorCertificateError as error:
            raise ServerTrouble(f"{untrusted(where, error.certificate_error)} Nothing was sent.\n{OWN_CA}") from error
        except aiohttp.ClientHttpProxyError as error:
            advice = (
                "HTTPS_PROXY takes user and password: http://user:password@host:port" if error.status == 407 else ""
            )
            said = f"the proxy refuses the way to {where} (status {error.status}). {advice}".strip()
            raise _Retryable(said, refused=True) from error
        except aiohttp.ClientConnectorError as error:  # before the first byte: surely not carried out
            why = error.os_error.strerror or type(error.os_error).__name__
            raise _Retryable(f"can't reach {where}: {why}", refused=True) from error
        except TimeoutError as error:
            raise _Retryable(f"no answer within {round(timeout_s, 1):g} s") from error
        except aiohttp.InvalidURL as error:
            raise BadAnswer(f"{where} is no host that could be called.") from error
        except (aiohttp.ClientError, ConnectionError, zlib.error, EOFError) as error:
            said = str(error) if where == self.base_url else ""  # a storage's link is a secret
            raise _Retryable(f"the connection broke: {said or type(error).__name__}") from error

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        """The body, unpacked; never more of it in memory than the caps allow."""
        packed = response.headers.get("Content-Encoding", "identity").lower()
        unpacker = GzipReader() if packed == "gzip" else None
        if unpacker is None and packed not in ("identity", ""):
            raise BadAnswer(f"The answer is packed with {packed!r}, which was not offered.")
        # One buffer, not pieces to be joined: the largest body is in memory once, and not twice.
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
        if unpacker and not unpacker.complete:
            raise EOFError("the packed answer ends early")
        plain.truncate()
        return plain.getvalue()

    def _headers_seen(self, answer: Answer) -> None:
        limit, remaining = (
            _number(answer.headers.get(f"x-daily-ratelimit-token-{name}")) for name in ("limit", "remaining")
        )
        self.budget.observe(limit=limit, remaining=remaining)

    def _judge(self, answer: Answer, method: str, label: str) -> None:
        """Return for a success; raise what the answer means otherwise."""
        status = answer.status
        is_json = "json" in answer.headers.get("content-type", "").lower()
        correlation = answer.headers.get("x-correlation-id")
        if 200 <= status < 300:
            if says_no_success(answer.body):
                raise ApiError(
                    f"{label}: {error_text(answer)}", status=status, operation=label, correlation_id=correlation
                )
            self.budget.calm()
            return
        said = error_text(answer)
        if status == 429:
            raise self._limited(answer, said)
        if status in _RETRYABLE:
            raise _Retryable(f"the server answered {status}")
        if status == 401:
            raise AuthError(
                f"Pipedrive refuses the token ({said}).\nStore a valid one: pdsync auth login, or set PDSYNC_API_TOKEN."
            )
        if status == 403 and not is_json:
            raise self.budget.cool_down()
        if 300 <= status < 400:
            raise BadAnswer(
                f"{label}: the server redirects to {answer.headers.get('location', 'nowhere')!r};"
                f" the token was not sent on.\n"
                f"Check account.base_url."
            )
        kind = {402: FeatureOff, 403: Forbidden, 404: NotFound, 410: NotFound, 415: FeatureOff}.get(status, ApiError)
        if method == "GET" and status in (403, 410) and _NOT_INCLUDED.search(said):
            kind = FeatureOff
        verb = "may not be read with this token" if method == "GET" else "is not allowed for this token"
        detail = f"{label} {verb} ({said})" if status == 403 else f"{label}: Pipedrive answered {status}: {said}"
        raise kind(clean(detail), status=status, operation=label, correlation_id=correlation)

    def _limited(self, answer: Answer, said: str) -> Exception:
        """Tell a burst from an exhausted day. Retry-After is no help: on an exhausted day it names hours."""
        if _number(answer.headers.get("x-daily-ratelimit-token-remaining")) == 0 or "daily" in said.lower():
            return self.budget.exhausted()
        reset = _number(answer.headers.get("x-ratelimit-reset")) or _number(answer.headers.get("retry-after")) or 2
        self.budget.pause(min(reset, 30) + 0.05)
        return _Retryable("too many requests at once", wait_s=0.0, refused=True)


def answer_is_unknown(failure: _Retryable, method: str) -> bool:
    """Whether repeating could do something twice: a write that the server may have carried out."""
    return method != "GET" and not failure.refused


def error_text(answer: Answer) -> str:
    """What the server said went wrong, in one line; an excerpt of the body where it said nothing."""
    try:
        said = msgspec.json.decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _excerpt(answer.body) or f"status {answer.status}"
    if not isinstance(said, dict):
        return _excerpt(answer.body)
    parts = [str(said[key]) for key in ("error", "message", "errors", "code") if said.get(key)]
    return clean("; ".join(parts) or f"status {answer.status}")[:500]


def _patient(total_s: float | None) -> aiohttp.ClientTimeout:
    """None for what is streamed: `transfer.stream` sees to it that it moves on."""
    return aiohttp.ClientTimeout(total=total_s, sock_connect=15, sock_read=30)


def _may_be_refusal(headers: Mapping[str, str]) -> bool:
    """Whether an answer of 200 may be an error in JSON, and not a file."""
    return "json" in headers.get("content-type", "").lower() and "content-disposition" not in headers


def _excerpt(body: bytes) -> str:
    return clean(" ".join(body[:160].decode("utf-8", errors="replace").split()))


def _number(text: str | None) -> int | None:
    """A header's number; None where there is none, or none that counts anything."""
    try:
        number = float(text) if text is not None else -1.0
    except ValueError:
        return None
    return int(number) if 0 <= number <= _LARGEST else None


def _buffer(announced: int) -> io.BytesIO:
    """An empty buffer with room for as many bytes as a body says it has, so that it is not moved while it grows."""
    buffer = io.BytesIO()
    if announced > 0:
        buffer.seek(min(announced, _MOST_ANNOUNCED) - 1)
        buffer.write(b"\0")
        buffer.seek(0)
    return buffer
