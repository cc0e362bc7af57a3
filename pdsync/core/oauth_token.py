"""The requests of OAuth: a code or refresh token for new tokens, and whose a new token is.

`core.http` can't make them: it needs the credentials that these bring. Every secret that is sent or answered is hidden
from all output first (`core.log.hide`); redirects are not followed, because the secret would travel along.
"""

from __future__ import annotations

import asyncio
import base64
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from pdsync.core import catalogue
from pdsync.core.account import read_account
from pdsync.core.answer import number_in
from pdsync.core.config import check_base_url
from pdsync.core.log import clean, hide
from pdsync.core.proxy import OWN_CA, certificate_message, proxy_for, proxy_options
from pdsync.errors import AuthError, BadAnswer, ConfigError, ServerTrouble
from pdsync.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

_LIFE_S = 3600.0  # of an access token, where the answer does not say
EARLY_S = 300.0  # how long before its end an access token is renewed
LOG_IN_AGAIN = "Log in again: pdsync auth login --oauth"
_ATTEMPTS = 4
_BACKOFF_S = 0.3  # before the second attempt; three times as long before each further one
_CAP = 1 << 20


class Tokens(Struct):
    """What the token URL answers. Lives are in seconds."""

    access_token: str
    refresh_token: str | None = None
    expires_in: float = _LIFE_S
    api_domain: str = ""
    scope: str = ""

    def __repr__(self) -> str:
        return "Tokens(…)"

    @property
    def good_for_s(self) -> float:
        """For how many seconds it need not be renewed; of a very short life, the first half."""
        return max(self.expires_in - EARLY_S, self.expires_in / 2)

    @property
    def scopes(self) -> tuple[str, ...]:
        """The scopes that were granted; empty where the answer names none. Documents divide them both ways."""
        return tuple(re.findall(r"[^\s,]+", self.scope))


class _Answer(Struct):
    """The token URL's answer as it comes. Only the tokens must be right: a renewal can't be repeated."""

    access_token: str
    refresh_token: str | None = None
    expires_in: Any = None
    api_domain: str | None = None
    scope: Any = None

    def tokens(self) -> Tokens:
        scope = " ".join(map(str, self.scope)) if isinstance(self.scope, list) else self.scope
        return Tokens(
            self.access_token,
            self.refresh_token,
            _LIFE_S if (life := number_in(str(self.expires_in))) is None else float(life),
            self.api_domain or "",
            scope if isinstance(scope, str) else "",
        )


class InvalidGrantError(Exception):
    """The server knows the app, and does not accept the code or refresh token."""


def bearer(access_token: str) -> dict[str, str]:
    """The header that authenticates a request with `access_token`."""
    return {"Authorization": f"Bearer {access_token}"}


async def request_tokens(token_url: str, client_id: str, client_secret: str, form: Mapping[str, str]) -> Tokens:
    """Trade a code or a refresh token for tokens, which are hidden from then on.

    Args:
        form: `grant_type`, and the code with its redirect URI or the refresh token.

    Raises:
        InvalidGrantError: the code or refresh token is not accepted.
        AuthError: the app is not known, or the answer names a place of the data that is not Pipedrive.
        BadAnswer: the answer is no token.
        ServerTrouble: no usable answer.
    """
    for secret in (client_secret, form.get("code"), form.get("refresh_token")):
        hide(secret)
    basic = base64.b64encode(f"{client_id}:{client_secret}".encode()).decode()
    hide(basic)
    status, body = await _send("POST", token_url, {"Authorization": f"Basic {basic}"}, form)
    if status != 200:
        reason = _reason(body)
        if status in (400, 401) and reason.startswith(("invalid_client", "unauthorized_client")):
            raise AuthError(
                f"Pipedrive does not know this app, or its secret ({reason}). Check both.\n"
                f"Log in again: pdsync auth login --oauth --client-id ID --client-secret -"
            )
        if status in (400, 401):
            raise InvalidGrantError(reason)
        raise BadAnswer(f"{token_url} answered {status} ({reason}), which is no token. What was stored is kept.")
    try:
        answer = msgspec.json.decode(body, type=_Answer).tokens()
    except (msgspec.DecodeError, UnicodeDecodeError):  # whose message could quote the token
        raise BadAnswer(f"{token_url} answered with something that is no token. What was stored is kept.") from None
    hide(answer.access_token)
    hide(answer.refresh_token)
    if not (answer.access_token.isascii() and answer.access_token.isprintable()):
        raise BadAnswer(f"{token_url} answered with a token that no header can carry. What was stored is kept.")
    if answer.api_domain:
        try:
            check_base_url(answer.api_domain, trusted=False)
        except ConfigError:
            host = urlsplit(answer.api_domain).hostname
            raise AuthError(
                f"The OAuth server names {clean(str(host))!r} as the place of the data, which is not Pipedrive.\n"
                f"Its answer was refused, and nothing of it was stored or used. Check account.base_url: pdsync doctor"
            ) from None
    return answer


async def ask_company(base_url: str, access_token: str) -> tuple[int, str]:
    """Id and name of the company that an access token belongs to: 2 tokens of its daily budget.

    Raises:
        AuthError: the token is refused.
        BadAnswer: the answer names no company.
        ServerTrouble: no usable answer.
    """
    operation = catalogue.operation("getCurrentUser", "v1")
    status, body = await _send(operation.method, base_url + operation.path, bearer(access_token))
    if status in (401, 403):
        raise AuthError(f"Pipedrive refuses the access token it has just given ({_reason(body)}).\n{LOG_IN_AGAIN}")
    account = read_account(body)
    return account.company_id, account.company_name


async def _send(
    method: str, url: str, headers: Mapping[str, str], form: Mapping[str, str] | None = None
) -> tuple[int, bytes]:
    """Status and body. Repeated after every kind of trouble but an untrusted certificate, refresh tokens too.

    If the server has spent the token on an answer that was lost, nothing is lost by asking again.
    """
    import aiohttp  # noqa: PLC0415 - slow to import, and needed only once an hour

    failure = ""
    host = urlsplit(url).netloc
    way = proxy_options(proxy_for(url))
    headers = {**headers, "User-Agent": f"pdsync/{__version__}", "Accept": "application/json"}
    timeout = aiohttp.ClientTimeout(total=20, sock_connect=10)
    async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), headers=headers) as session:
        for attempt in range(_ATTEMPTS):
            if attempt:
                await asyncio.sleep(_BACKOFF_S * 3 ** (attempt - 1))
            try:
                # Redirects are not followed: the secret would travel along.
                async with session.request(method, url, data=form, allow_redirects=False, **way) as response:
                    body = b""
                    async for piece in response.content.iter_chunked(1 << 16):
                        body += piece
                        if len(body) > _CAP:
                            raise BadAnswer(f"The answer of {host} is larger than any that makes sense.")
                    if response.status < 500 and response.status != 429:
                        return response.status, body
                    failure = f"it answered {response.status}"
            except TimeoutError:
                failure = "no answer in time"
            except aiohttp.ClientConnectorCertificateError as error:
                raise ServerTrouble(f"{certificate_message(host, error.certificate_error)}\n{OWN_CA}") from error
            except (aiohttp.ClientError, OSError) as error:
                failure = clean(str(error) or type(error).__name__)
    raise ServerTrouble(
        f"{host} can't be asked for a token ({failure}; {_ATTEMPTS} attempts).\n"
        f"What is stored is kept; run the same command again."
    )


def _reason(body: bytes) -> str:
    """Why the server refused: OAuth's `error` and its description, and nothing else of the answer."""
    try:
        refusal = msgspec.json.decode(body, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "no reason given"
    reasons = [
        str(refusal[key]) for key in ("error", "error_description", "message") if isinstance(refusal.get(key), str)
    ]
    return clean(", ".join(dict.fromkeys(reasons)))[:200] or "no reason given"
