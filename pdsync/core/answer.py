"""An answer, and its meaning: a success, a refusal of some kind, or a failure that may be retried."""

from __future__ import annotations

import re
from datetime import datetime  # noqa: TC003 - msgspec reads it at run time
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from pdsync.core.config import without_secrets
from pdsync.core.list_response import says_no_success
from pdsync.core.log import clean, excerpt
from pdsync.errors import ApiError, AuthError, BadAnswer, FeatureOff, Forbidden, NotFound

if TYPE_CHECKING:
    from pdsync.core.budget import Budget
    from pdsync.core.request import Request

_LARGEST = 2.0**53  # number in a header; NaN and infinity are no numbers either
_SHOWN = 160  # characters of a body, in messages
WIRE_CAP = 16 * 2**20  # bytes of a body as it is sent
PLAIN_CAP = 128 * 2**20  # bytes of a body, unpacked
RETRYABLE = frozenset({408, *range(500, 600)} - {501, 505})  # these two say what the server can't do, ever
# Assumption: how a missing add-on is refused is not documented. 402 means it by its number, 403 and 410 by their words;
# without such words they mean a missing right, and a record or path that is gone.
_NOT_INCLUDED = re.compile(
    r"add-?on|feature|subscription|upgrade|\bsuite\b|not (?:enabled|included|part of|available (?:in|on|for))",
    re.IGNORECASE,
)


class Answer(Struct, frozen=True):
    """An answer: status, a few headers (lower case), and the unpacked body."""

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
                f"Pipedrive answered with something that is no JSON ({error}): {excerpt(self.body, _SHOWN)}"
            ) from error


class Retryable(Exception):
    """An attempt that failed and may be repeated."""

    def __init__(self, reason: str, wait_s: float | None = None, *, refused: bool = False) -> None:
        self.reason, self.wait_s, self.refused = reason, wait_s, refused
        super().__init__(reason)


def note_headers(answer: Answer, budget: Budget) -> None:
    """Report the daily tokens in the headers to the budget."""
    limit, remaining = (
        number_in(answer.headers.get(f"x-daily-ratelimit-token-{name}")) for name in ("limit", "remaining")
    )
    budget.observe(limit=limit, remaining=remaining)


def judge(answer: Answer, request: Request, budget: Budget) -> None:
    """Return for a success; raise the error that the answer means otherwise.

    Args:
        answer: as it was received.
        request: the request that it answers; errors contain its label and method.
        budget: is informed of a pause, an exhausted day, or abuse protection.

    Raises:
        Retryable: the attempt may be repeated: the server failed, or there were too many requests at once.
        ApiError: a refusal; FeatureOff, Forbidden or NotFound according to status and message.
        AuthError: the token is refused.
        BadAnswer: a redirect.
        BudgetSpent: the day's tokens are used up.
        CoolingDown: abuse protection blocks this machine.
    """
    method, label = request.method, request.label
    status = answer.status
    correlation = answer.headers.get("x-correlation-id")
    if 200 <= status < 300:
        if says_no_success(answer.body):
            raise ApiError(f"{label}: {error_text(answer)}", status=status, operation=label, correlation_id=correlation)
        budget.calm()
        return
    message = error_text(answer)
    if status == 429:
        raise _limited(answer, message, budget)
    if status in RETRYABLE:
        raise Retryable(f"the server answered {status}")
    if status == 401:
        raise AuthError(
            f"Pipedrive refuses the token ({message}).\nStore a valid one: pdsync auth login, or set PDSYNC_API_TOKEN."
        )
    if status == 403 and _is_page(answer):
        raise budget.cool_down()
    if 300 <= status < 400:
        raise BadAnswer(
            f"{label}: the server redirects to {without_secrets(answer.headers.get('location', 'nowhere'))!r};"
            f" the token was not sent on.\n"
            f"Check account.base_url."
        )
    kind = {402: FeatureOff, 403: Forbidden, 404: NotFound, 410: NotFound, 415: FeatureOff}.get(status, ApiError)
    if method == "GET" and status in (403, 410) and _NOT_INCLUDED.search(message):
        kind = FeatureOff
    verb = "may not be read with this token" if method == "GET" else "is not allowed for this token"
    detail = f"{label} {verb} ({message})" if status == 403 else f"{label}: Pipedrive answered {status}: {message}"
    raise kind(clean(detail), status=status, operation=label, correlation_id=correlation)


def _is_page(answer: Answer) -> bool:
    """Whether an answer is a web page, or at least no JSON. Its content decides, where that shows; else its type."""
    start = answer.body.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    return start == b"<" or (start != b"{" and "json" not in answer.headers.get("content-type", "").lower())


def _limited(answer: Answer, message: str, budget: Budget) -> Exception:
    """The error of a 429: a burst, or an exhausted day. Retry-After does not distinguish them."""
    if number_in(answer.headers.get("x-daily-ratelimit-token-remaining")) == 0 or "daily" in message.lower():
        return budget.exhausted()
    reset = number_in(answer.headers.get("x-ratelimit-reset")) or number_in(answer.headers.get("retry-after")) or 2
    budget.pause(min(reset, 30) + 0.05)
    return Retryable("too many requests at once", wait_s=0.0, refused=True)


def answer_is_unknown(failure: Retryable, method: str) -> bool:
    """Whether a repetition could write twice: the server may have carried out the write."""
    return method != "GET" and not failure.refused


def error_text(answer: Answer) -> str:
    """The error that the server reports, in one line; an excerpt of the body where it gives none."""
    try:
        content = msgspec.json.decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return excerpt(answer.body, _SHOWN) or f"status {answer.status}"
    if not isinstance(content, dict):
        return excerpt(answer.body, _SHOWN)
    parts = [str(content[key]) for key in ("error", "message", "errors", "code") if content.get(key)]
    return clean("; ".join(parts) or f"status {answer.status}")[:500]


def number_in(text: str | None) -> int | None:
    """The number in a header; None where there is none, or it is no count."""
    try:
        number = float(text) if text is not None else -1.0
    except ValueError:
        return None
    return int(number) if 0 <= number <= _LARGEST else None
