"""OAuth 2.0 with Pipedrive: a person allows it once in the browser, and the grant renews itself from then on.

Pipedrive may make refresh tokens single-use, so an answer that is lost is a grant that is lost. Hence the order of a
renewal: take the vault's lock, read again what it holds, show that the disk takes a write, ask, keep the answer
safely, and only then use it. All of that runs on a thread of its own: cancelling a run does not cut it in half. What
no client can cure is a kill between Pipedrive's answer and our write; then a person has to log in again.

A new access token is used only after asking whose it is. It must be the company it has always been.

Times are seconds since 1970. The token's `api_domain` is checked and kept, and nothing is sent there: requests go to
account.base_url alone.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import secrets
import time
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

import aiohttp
import msgspec
from aiohttp import web
from msgspec import Struct

from pdsync.core import catalogue
from pdsync.core.account import read_account
from pdsync.core.config import check_base_url, is_loopback
from pdsync.core.log import clean, hide, log
from pdsync.core.proxy import OWN_CA, proxy_for, through, untrusted
from pdsync.core.secret_store import Grant
from pdsync.errors import AuthError, BadAnswer, ConfigError, ServerTrouble, WrongCompany
from pdsync.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pdsync.core.secret_store import Place, Vault

REDIRECT_URI = "http://127.0.0.1:8723/callback"
EARLY_S = 300.0  # how long before its end an access token is renewed
_ATTEMPTS = 4
_CAP = 1 << 20
_ADOPT_S = 2.0  # how long to wait for another process's renewal when ours is refused
_AGAIN = "Log in again: pdsync auth login --oauth"


class OAuth:
    """Credentials that renew themselves, together with every other process that uses the same grant."""

    def __init__(self, vault: Vault, grant: Grant, place: Place) -> None:
        self._vault, self._grant, self._place = vault, grant, place
        self._lock = asyncio.Lock()
        self._not_before = 0.0  # monotonic; after a failed early renewal the next one waits

    @property
    def ledger_key(self) -> str:
        """The app and the company, which have their limits together whatever the access token."""
        return f"oauth {self._grant.client_id} {self._grant.company_id}"

    @property
    def grant(self) -> Grant:
        """The grant in use."""
        return self._grant

    async def headers(self) -> dict[str, str]:
        """The header with an access token that is good for a while."""
        if time.time() >= self._grant.renew_at and time.monotonic() >= self._not_before:
            try:
                await self._renewed(self._grant, early=True)
            except ServerTrouble as trouble:
                if time.time() >= self._grant.expires_at:
                    raise
                log.warning("%s The present access token still works.", str(trouble).splitlines()[0])
                self._not_before = time.monotonic() + 60
        return _bearer(self._grant.access_token)

    async def refresh(self, refused: dict[str, str]) -> bool:
        """After a 401 for the headers `refused`: renew the grant, or adopt what another process has renewed.

        Raises:
            AuthError: Pipedrive does not accept the grant any more. It is kept, for a person to look at.
            WrongCompany: the new token belongs to another company. It is not used.
            ServerTrouble: no answer; the same command tries again.
        """
        if _bearer(self._grant.access_token) == refused:  # else another task has done it meanwhile
            await self._renewed(self._grant)
        return True

    async def _renewed(self, spent: Grant, *, early: bool = False) -> None:
        async with self._lock:
            if self._grant is spent and not (early and time.monotonic() < self._not_before):
                self._grant, self._place = await asyncio.to_thread(self._renew, spent)

    def _renew(self, spent: Grant) -> tuple[Grant, Place]:
        with self._vault.locked():
            grant, place = self._kept(spent)
            adopted = grant.access_token != spent.access_token and time.time() < grant.renew_at
            if not adopted:
                # A disk that can't take the new grant shows it now, while the old one still works.
                place = self._vault.put(grant, place)
                grant, place = self._exchange(grant, place)
        try:
            found, name = asyncio.run(ask_company(self._vault.base_url, grant.access_token))
        except AuthError:
            if adopted:  # what another process got is spent too
                return self._renew(grant)
            raise
        if found != spent.company_id:
            raise WrongCompany(expected=spent.company_id, found=found, name=name)
        return grant, place

    def _kept(self, ours: Grant) -> tuple[Grant, Place]:
        """What the vault holds by now: ours, or what another process has made of it."""
        found = self._vault.find()
        if found is None and self._place == "file":
            raise AuthError(
                f"The project was logged out while this command was running. What was fetched is kept.\n{_AGAIN}"
            )
        if found is None:  # a keyring that has been locked since: what we have still counts
            return ours, self._place
        kept = found.secret
        if not isinstance(kept, Grant) or kept.client_id != ours.client_id:
            raise AuthError(
                "Other credentials were stored for this project while this command was running.\n"
                "What was fetched is kept. Run the same command again to use them."
            )
        if kept.company_id != ours.company_id:
            raise WrongCompany(expected=ours.company_id, found=kept.company_id, name=kept.company_name)
        return (kept, found.place) if kept.saved_at >= ours.saved_at else (ours, self._place)

    def _exchange(self, grant: Grant, place: Place) -> tuple[Grant, Place]:
        form = {"grant_type": "refresh_token", "refresh_token": grant.refresh_token}
        try:
            answer = asyncio.run(_token(self._vault.base_url, grant.client_id, grant.client_secret, form))
        except _InvalidGrantError as refusal:
            # Somebody who does not share our lock, on another machine perhaps, may have renewed it and be writing.
            until = time.monotonic() + _ADOPT_S
            while time.monotonic() < until:
                kept, where = self._kept(grant)
                if kept.refresh_token != grant.refresh_token:
                    return kept, where
                time.sleep(0.1)
            raise AuthError(
                f"Pipedrive does not accept the stored OAuth grant any more ({refusal}).\n"
                f"It was revoked, or not used for 60 days, or a renewal was cut short. What was fetched is kept.\n"
                f"{_AGAIN}"
            ) from refusal
        now = time.time()
        new = msgspec.structs.replace(
            grant,
            access_token=answer.access_token,
            refresh_token=answer.refresh_token or grant.refresh_token,
            renew_at=now + answer.good_for_s,
            expires_at=now + answer.expires_in,
            api_domain=answer.api_domain or grant.api_domain,
            saved_at=max(now, grant.saved_at + 0.001),  # newer than the last one, even if the clock was set back
        )
        return new, self._vault.put(new, place)


async def authorize(
    base_url: str,
    client_id: str,
    client_secret: str,
    *,
    show: Callable[[str], object],
    redirect_uri: str = REDIRECT_URI,
    timeout_s: float = 300.0,
) -> Grant:
    """Let a person allow access in a browser, and return the grant. Nothing is stored.

    Args:
        base_url: the account's; of a sandbox on this machine, it is also where its OAuth server is.
        show: is given the address that the person has to open.
        redirect_uri: as registered with the app; on this machine, where the browser comes back to.
        timeout_s: how long the person has.

    Raises:
        AuthError: access was not allowed, in time or at all.
        ConfigError: the redirect URI can't work, or its port is taken.
    """
    hide(client_secret)
    state = secrets.token_urlsafe(32)
    query = {"response_type": "code", "client_id": client_id, "redirect_uri": redirect_uri, "state": state}
    async with _Callback(redirect_uri, state) as callback:
        show(f"{_oauth_host(base_url)}/oauth/authorize?{urlencode(query)}")
        try:
            code = await asyncio.wait_for(callback.code, timeout_s)
        except TimeoutError:
            raise AuthError(
                f"Nobody allowed access within {timeout_s / 60:.0f} minutes. Nothing was stored.\n{_AGAIN}"
            ) from None
    hide(code)
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri}
    try:
        answer = await _token(base_url, client_id, client_secret, form)
    except _InvalidGrantError as refusal:
        raise AuthError(f"Pipedrive refuses the authorisation ({refusal}). Nothing was stored.\n{_AGAIN}") from refusal
    if not answer.refresh_token:
        raise BadAnswer("Pipedrive gave no refresh token, so access would end within the hour. Nothing was stored.")
    company_id, name = await ask_company(base_url, answer.access_token)
    now = time.time()
    return Grant(
        client_id=client_id,
        client_secret=client_secret,
        access_token=answer.access_token,
        refresh_token=answer.refresh_token,
        renew_at=now + answer.good_for_s,
        expires_at=now + answer.expires_in,
        api_domain=answer.api_domain,
        company_id=company_id,
        company_name=name,
        saved_at=now,
    )


class _Callback:
    """The web server on this machine that the browser comes back to, once, with a code."""

    def __init__(self, redirect_uri: str, state: str) -> None:
        parts = urlsplit(redirect_uri)
        if parts.scheme != "http" or not is_loopback(parts.hostname or "") or not parts.port:
            raise ConfigError(
                f"The redirect URI is {redirect_uri!r}. It leads to this machine and names a port: {REDIRECT_URI}\n"
                f"Register the same one with the app in Pipedrive's Developer Hub."
            )
        self._host = "127.0.0.1" if parts.hostname == "localhost" else str(parts.hostname)
        self._port, self._path, self._state = parts.port, parts.path or "/", state
        self.code: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> _Callback:
        self._runner = web.ServerRunner(web.Server(self._answer, access_log=None), shutdown_timeout=1.0)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError as error:
            await self._runner.cleanup()
            raise ConfigError(
                f"Port {self._port} of this machine can't be used for the callback ({error.strerror}).\n"
                f"Free it, or register another redirect URI with the app and give it with --redirect-uri."
            ) from error
        return self

    async def __aexit__(self, *_: object) -> None:
        self.code.cancel()
        await self._runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        given = request.query.get("state")
        ours = given is not None and hmac.compare_digest(given.encode(), self._state.encode())
        code, error = request.query.get("code"), request.query.get("error")
        if request.path != self._path or request.method != "GET":
            return _page(404, "Nothing is here.")
        if self.code.done():
            return _page(410, "This was answered before. You can close this window.")
        if not ours or not (code or error):
            # Not the browser that we sent: whoever else knocks here can't end the login, or slip in another company.
            log.warning(
                "A request to the callback did not come from this login; it was refused, and the login goes on."
            )
            return _page(
                400,
                "This does not come from the login that pdsync began, which still waits. Nothing was done.\n"
                "If you have just refused access, end the login in its terminal with Ctrl-C.",
            )
        if error:
            self.code.set_exception(AuthError(f"Access was not allowed ({clean(error)[:100]}). Nothing was stored."))
            return _page(200, "pdsync was not given access. You can close this window.")
        self.code.set_result(str(code))
        return _page(200, "pdsync has access. You can close this window and go back to the terminal.")


def _page(status: int, text: str) -> web.Response:
    headers = {
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
        "Content-Security-Policy": "default-src 'none'",
    }
    return web.Response(status=status, text=text, headers=headers)


# The calls to Pipedrive that core.http can't make: it needs the credentials that these bring.


class _Token(Struct):
    access_token: str
    refresh_token: str | None = None
    expires_in: float = 3600.0
    api_domain: str = ""

    @property
    def good_for_s(self) -> float:
        """Until when it need not be renewed; of a very short life, the first half."""
        return max(self.expires_in - EARLY_S, self.expires_in / 2)


class _InvalidGrantError(Exception):
    """The server knows the app, and does not accept the code or refresh token."""


def _oauth_host(base_url: str) -> str:
    return base_url if is_loopback(urlsplit(base_url).hostname or "") else "https://oauth.pipedrive.com"


def _bearer(access_token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {access_token}"}


async def _token(base_url: str, client_id: str, client_secret: str, form: Mapping[str, str]) -> _Token:
    """Trade a code or a refresh token for tokens, which are hidden from then on."""
    basic = base64.b64encode(f"{client_id}:{client_secret}".encode()).decode()
    hide(basic)
    url = f"{_oauth_host(base_url)}/oauth/token"
    status, body = await _send("POST", url, {"Authorization": f"Basic {basic}"}, form)
    if status != 200:
        said = _error(body)
        if status in (400, 401) and said.startswith(("invalid_client", "unauthorized_client")):
            raise AuthError(f"Pipedrive does not know this app, or its secret ({said}). Check both.\n{_AGAIN}")
        if status in (400, 401):
            raise _InvalidGrantError(said)
        raise BadAnswer(f"{url} answered {status} ({said}), which is no token. What was stored is kept.")
    try:
        answer = msgspec.json.decode(body, type=_Token)
    except (msgspec.DecodeError, UnicodeDecodeError):  # whose message could quote the token
        raise BadAnswer(f"{url} answered with something that is no token. What was stored is kept.") from None
    hide(answer.access_token)
    hide(answer.refresh_token)
    if not (answer.access_token.isascii() and answer.access_token.isprintable()):
        raise BadAnswer(f"{url} answered with a token that no header can carry. What was stored is kept.")
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
        ServerTrouble: no answer.
    """
    operation = catalogue.operation("getCurrentUser", "v1")
    status, body = await _send(operation.method, base_url + operation.path, _bearer(access_token))
    if status in (401, 403):
        raise AuthError(f"Pipedrive refuses the access token it has just given ({_error(body)}).\n{_AGAIN}")
    account = read_account(body)
    return account.company_id, account.company_name


async def _send(
    method: str, url: str, headers: Mapping[str, str], form: Mapping[str, str] | None = None
) -> tuple[int, bytes]:
    """Status and body. Repeated after every kind of trouble, refresh tokens too.

    If the server has spent the token on an answer that was lost, nothing is lost by asking again.
    """
    failure = ""
    host = urlsplit(url).netloc
    way = through(proxy_for(url))
    headers = {**headers, "User-Agent": f"pdsync/{__version__}", "Accept": "application/json"}
    timeout = aiohttp.ClientTimeout(total=20, sock_connect=10)
    async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), headers=headers) as session:
        for attempt in range(_ATTEMPTS):
            if attempt:
                await asyncio.sleep(0.3 * 3 ** (attempt - 1))
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
                raise ServerTrouble(f"{untrusted(host, error.certificate_error)}\n{OWN_CA}") from error
            except (aiohttp.ClientError, OSError) as error:
                failure = clean(str(error) or type(error).__name__)
    raise ServerTrouble(
        f"{host} can't be asked for a token ({failure}; {_ATTEMPTS} attempts).\n"
        f"What is stored is kept; run the same command again."
    )


def _error(body: bytes) -> str:
    """What the server said went wrong: OAuth's `error` and its description, and nothing else of the answer."""
    try:
        said = msgspec.json.decode(body, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "no reason given"
    words = [str(said[key]) for key in ("error", "error_description", "message") if isinstance(said.get(key), str)]
    return clean(", ".join(dict.fromkeys(words)))[:200] or "no reason given"
