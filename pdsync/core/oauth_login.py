"""One login with an OAuth app: the address that a person opens, and the code that comes back to it, once.

The code comes to a web server on this machine's loopback interface, or a person pastes the address that the browser
was sent to (a machine without a browser). It counts only with the `state` of this login, compared in constant time: no
page of another site can end a login or slip in another company. An installation from Pipedrive's Marketplace brings a
code without a state; it is taken only with `allow_missing_state`, once, and only where a browser navigates to it.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import time
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

from pdsync.core.config import is_loopback
from pdsync.core.log import clean, hide, log
from pdsync.core.oauth_app import check_redirect_uri, missing_scopes
from pdsync.core.oauth_token import LOG_IN_AGAIN, InvalidGrantError, ask_company, request_tokens
from pdsync.core.secret_store import Grant
from pdsync.errors import AuthError, BadAnswer, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from urllib.parse import SplitResult

    from aiohttp import web

    from pdsync.core.oauth_app import OAuthApp

Query = dict[str, list[str]]  # every value of every parameter


class _ForeignAnswerError(Exception):
    """What came to the redirect URI is no answer to this login; says why."""


class OAuthLogin:
    """A login that has not ended. Nothing is stored here."""

    def __init__(self, app: OAuthApp, base_url: str, *, allow_missing_state: bool = False) -> None:
        """
        Args:
            base_url: of the account; asked which company the new token belongs to.
            allow_missing_state: take a code without a state, as an installation from the Marketplace sends it.
        """
        self._app, self._base_url, self._allow_missing_state = app, base_url, allow_missing_state
        self._state = secrets.token_urlsafe(32)
        self._redirect = check_redirect_uri(app.redirect_uri)
        hide(app.client_secret)

    @property
    def url(self) -> str:
        """The address to open in a browser.

        Pipedrive's documents name client_id, redirect_uri and state. OAuth itself requires response_type; scope is sent
        only if scopes were given, for servers in front of Pipedrive's.
        """
        query = {
            "response_type": "code",
            "client_id": self._app.client_id,
            "redirect_uri": self._app.redirect_uri,
            "state": self._state,
            **({"scope": " ".join(self._app.scopes)} if self._app.scopes else {}),
        }
        return f"{self._app.authorize_url}{'&' if '?' in self._app.authorize_url else '?'}{urlencode(query)}"

    async def wait_for_code(
        self, *, on_ready: Callable[[], object], port: int | None = None, timeout_s: float = 300.0
    ) -> str:
        """Serve the redirect URI on this machine until a browser brings the code of this login.

        Args:
            on_ready: called when the server listens.
            port: of this machine, to which a tunnel or proxy forwards the redirect URI; None: the redirect URI's own.
            timeout_s: how long the person has.

        Raises:
            AuthError: access was not allowed, in time or at all.
            ConfigError: the redirect URI does not lead to this machine, or the port is taken.
        """
        from aiohttp import web  # noqa: PLC0415 - slow to import, and for this only

        host, port = listening_address(self._app.redirect_uri, port)
        code: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        async def answer(request: web.BaseRequest) -> web.Response:
            return self._answer(request, code)

        runner = web.ServerRunner(web.Server(answer, access_log=None), shutdown_timeout=1.0)
        await runner.setup()
        try:
            try:
                await web.TCPSite(runner, host, port).start()
            except OSError as error:
                raise ConfigError(
                    f"Port {port} of this machine can't be used for the callback ({error.strerror}).\n"
                    f"Free it, or register another redirect URI with the app and give it with --redirect-uri."
                ) from error
            on_ready()
            return await asyncio.wait_for(code, timeout_s)
        except TimeoutError:
            raise AuthError(
                f"No one allowed access within {timeout_s / 60:.0f} minutes. Nothing was stored.\n{LOG_IN_AGAIN}"
            ) from None
        finally:
            code.cancel()
            await runner.cleanup()

    def read_code(self, address: str) -> str:
        """The code in the address that the browser was sent to, as a person copied it.

        Raises:
            AuthError: access was not allowed, or the address is not that of this login.
        """
        try:
            parts, redirect = urlsplit(address.strip()), self._redirect
            same = _origin(parts) == _origin(redirect) and (parts.path or "/") == (redirect.path or "/")
            query = parse_qs(parts.query, keep_blank_values=True)
        except ValueError:
            same, query = False, {}
        if not same:
            raise AuthError(
                f"What was pasted is not the address that the browser was sent to. It begins with"
                f" {self._app.redirect_uri} and ends with the code.\nNothing was stored. {LOG_IN_AGAIN}"
            )
        try:
            return self._read_answer(query)
        except _ForeignAnswerError as refusal:
            raise AuthError(
                f"The pasted address does not belong to this login: {refusal}. Nothing was stored.\n"
                f"Paste the one that follows from the address shown last. {LOG_IN_AGAIN}"
            ) from None

    async def exchange(self, code: str) -> Grant:
        """Trade the code for a grant.

        Raises:
            AuthError: the code is not accepted, the app is unknown, or has not all scopes that were asked for.
            BadAnswer: the answer is no token, or one that could not be renewed.
            ServerTrouble: no usable answer.
        """
        app = self._app
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": app.redirect_uri}
        try:
            answer = await request_tokens(app.token_url, app.client_id, app.client_secret, form)
        except InvalidGrantError as refusal:
            raise AuthError(
                f"Pipedrive refuses the authorisation ({refusal}). Nothing was stored.\n"
                f"A code is good for 5 minutes and works once, and the app must be registered with the redirect URI"
                f" {app.redirect_uri}\n{LOG_IN_AGAIN}"
            ) from refusal
        if not answer.refresh_token:
            raise BadAnswer("Pipedrive gave no refresh token, so access would end within the hour. Nothing was stored.")
        if answer.scopes and (missing := missing_scopes(app.scopes, answer.scopes)):
            raise AuthError(
                f"The app may not use {', '.join(missing)}: scopes belong to the app. Nothing was stored.\n"
                f"Add them in Pipedrive's Developer Hub, or leave them out of --scopes. {LOG_IN_AGAIN}"
            )
        company_id, name = await ask_company(self._base_url, answer.access_token)
        now = time.time()
        return Grant(
            client_id=app.client_id,
            client_secret=app.client_secret,
            access_token=answer.access_token,
            refresh_token=answer.refresh_token,
            renew_at=now + answer.good_for_s,
            expires_at=now + answer.expires_in,
            api_domain=answer.api_domain,
            company_id=company_id,
            company_name=name,
            saved_at=now,
            authorize_url=app.authorize_url,
            token_url=app.token_url,
            redirect_uri=app.redirect_uri,
            scopes=app.scopes,
            granted_scopes=answer.scopes,
        )

    def _answer(self, request: web.BaseRequest, code: asyncio.Future[str]) -> web.Response:
        """Answer one request to the redirect URI; an answer to this login ends it."""
        if request.path != unquote(self._redirect.path or "/") or request.method != "GET":
            return _page(404, "Nothing is here.")
        if code.done():
            return _page(410, "This was answered before. You can close this window.")
        query = {name: request.query.getall(name) for name in request.query}
        try:
            if not query.get("state") and not _is_navigation(request.headers):
                raise _ForeignAnswerError("a page asked for it, and not a person's browser")
            code.set_result(self._read_answer(query))
        except _ForeignAnswerError as refusal:
            log.warning("A request to the callback was refused, and the login goes on: %s.", refusal)
            return _page(
                400,
                "This does not come from the login that pdsync began, which still waits. Nothing was done.\n"
                "If you have just refused access, end the login in its terminal with Ctrl-C.",
            )
        except AuthError as denial:
            code.set_exception(denial)
            return _page(200, "pdsync was not given access. You can close this window.")
        return _page(200, "pdsync has the authorisation. You can close this window and go back to the terminal.")

    def _read_answer(self, query: Query) -> str:
        """The code in an answer to this login.

        Raises:
            AuthError: it says that access was not allowed.
            _ForeignAnswerError: it is not an answer to this login.
        """
        if any(len(query.get(name, [])) > 1 for name in ("state", "code", "error")):
            raise _ForeignAnswerError("a parameter stands in it twice")
        state, code, error = ((query.get(name) or [""])[0] for name in ("state", "code", "error"))
        if not state and not self._allow_missing_state:
            raise _ForeignAnswerError("it has no state; an installation from the Marketplace needs --marketplace")
        if state and not hmac.compare_digest(state.encode(errors="replace"), self._state.encode()):
            raise _ForeignAnswerError("it has the state of another login")
        if error:
            raise AuthError(f"Access was not allowed ({clean(error)[:100]}). Nothing was stored.")
        if not code:
            raise _ForeignAnswerError("it has no code")
        hide(code)
        return code


def listening_address(redirect_uri: str, port: int | None) -> tuple[str, int]:
    """Host and port to listen on: of the loopback interface, whatever the redirect URI.

    Raises:
        ConfigError: without `port`, the redirect URI names no port of this machine, over http.
    """
    redirect = check_redirect_uri(redirect_uri)
    host = redirect.hostname or ""
    port = port or (redirect.port if redirect.scheme == "http" else None)
    if not port:
        raise ConfigError(
            f"The redirect URI {redirect_uri} does not lead to a port of this machine over http.\n"
            f"If a tunnel or proxy forwards it to this machine, give the port here: --port PORT\n"
            f"Else paste the address that the browser is sent to: --paste"
        )
    return host if is_loopback(host) and host != "localhost" else "127.0.0.1", port


def _origin(parts: SplitResult) -> tuple[str, str, int]:
    return parts.scheme, parts.hostname or "", parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)


def _is_navigation(headers: Mapping[str, str]) -> bool:
    """Whether a person's browser opens the address, as far as it tells: no image, frame or fetch of another page."""
    return headers.get("Sec-Fetch-Dest", "document") == "document" and "Sec-Purpose" not in headers


def _page(status: int, text: str) -> web.Response:
    from aiohttp import web  # noqa: PLC0415 - as above

    headers = {
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
        "Content-Security-Policy": "default-src 'none'",
    }
    return web.Response(status=status, text=text, headers=headers)
