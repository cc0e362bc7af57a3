"""Simulates Pipedrive's OAuth server: the consent page, the Marketplace's installation, the token URL.

A person allows access at once, unless `allows` is False. An installation from the Marketplace sends the browser to the
registered redirect URI with a code and no state. The messages of refusals are those of the documents:
https://pipedrive.readme.io/docs/marketplace-oauth-and-api-proxy-status-codes

With `rotate` each refresh token works once. Using it again is answered with invalid_grant and revokes
all tokens of the same authorisation, like a server that detects token reuse.
Assumption: Pipedrive itself is reported to send the same refresh token back, so that is the default.
Assumption: a refused request leaves a code as it was; the app's scopes are granted whatever a request asks for.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

from msgspec import Struct

from pdsync.sandbox.company.table import encode
from pdsync.sandbox.protocol.messages import Reply

if TYPE_CHECKING:
    from pdsync.sandbox.company.company import Company

CODE_LIFE_S = 300
REFRESH_LIFE_S = 60 * 86_400
SCOPES = (
    "base admin deals:full contacts:full products:full activities:full leads:full projects:full goals:full mail:full"
    " users:read recents:read search:read deal-fields:full contact-fields:full product-fields:full project-fields:full"
    " phone-integration video-calls messengers-integration"
)


class Settings(Struct, kw_only=True, forbid_unknown_fields=True):
    """The app as it is registered, and the person at its consent page."""

    client_id: str = "sandbox-client"
    client_secret: str = "sandbox-secret"  # noqa: S105 - of a server that exists for a test
    redirect_uri: str = ""  # as registered; empty: any will do, but it can't be installed from the Marketplace
    scopes: str = SCOPES
    expires_in: int = 3600
    rotate: bool = False
    viewer: str = "admin"  # the user who grants access
    allows: bool = True  # or refuses it
    returns_state: bool = True  # False: as for apps for which Pipedrive has not enabled the state


class Grant(Struct):
    """What a code or a token permits. `family` is shared by all tokens of one authorisation."""

    family: str
    viewer: str
    until_s: float
    redirect_uri: str = ""
    used: bool = False
    scopes: frozenset[str] = frozenset()


class OAuth:
    """The codes and tokens that were issued."""

    def __init__(self, company: Company, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.api_domain = ""
        self._company = company
        self._codes: dict[str, Grant] = {}
        self._access: dict[str, Grant] = {}
        self._refresh: dict[str, Grant] = {}
        self._revoked: set[str] = set()
        self._secret_count = 0

    def viewer_of(self, access_token: str) -> str | None:
        """The name of the viewer whose token this is; None when it is unknown, expired or revoked."""
        grant = self._access.get(access_token)
        if grant is None or grant.family in self._revoked or grant.until_s <= self._company.clock.seconds():
            return None
        return grant.viewer

    def scopes_of(self, access_token: str) -> frozenset[str]:
        """The scopes of an access token: those that the app had when it was issued."""
        grant = self._access.get(access_token)
        return grant.scopes if grant else frozenset()

    def expire_access_tokens(self) -> None:
        self._access.clear()

    def authorize(self, query: dict[str, str]) -> Reply:
        """Show the consent page, where the person decides at once."""
        target, registered = query.get("redirect_uri", ""), self.settings.redirect_uri
        if query.get("client_id") != self.settings.client_id:
            return _refuse("invalid_client", "Invalid client: client is invalid")
        if not urlsplit(target).scheme or (registered and target != registered):
            return _refuse("invalid_request", "Invalid request: redirect_uri is invalid")
        has_state = "state" in query and self.settings.returns_state
        return self._send_back(target, {"state": query["state"]} if has_state else {})

    def install(self) -> Reply:
        """Install the app from its page in the Marketplace.

        Raises:
            ValueError: the app has no registered redirect URI.
        """
        if not self.settings.redirect_uri:
            raise ValueError("the app has no redirect_uri to which the Marketplace could send a browser")
        return self._send_back(self.settings.redirect_uri, {})

    def _send_back(self, target: str, state: dict[str, str]) -> Reply:
        answer = {"error": "user_denied"}
        if self.settings.allows:
            code = self._make_secret("code")
            self._codes[code] = Grant(code, self.settings.viewer, self._now() + CODE_LIFE_S, target)
            answer = {"code": code}
        location = f"{target}{'&' if '?' in target else '?'}{urlencode({**answer, **state})}"
        return Reply(302, b"", {"location": location})

    def refuse_content(self) -> Reply:
        """The answer to a token request whose body is no form."""
        return _refuse("invalid_request", "Invalid request: content must be application/x-www-form-urlencoded")

    def token(self, client_id: str, client_secret: str, form: dict[str, str]) -> Reply:
        """Exchange a code or a refresh token for an access token."""
        if not client_id or not client_secret:
            return _refuse("invalid_client", "Invalid client: cannot retrieve client credentials")
        if (client_id, client_secret) != (self.settings.client_id, self.settings.client_secret):
            return _refuse("invalid_client", "Invalid client: client is invalid")
        match form.get("grant_type"):
            case "authorization_code":
                return self._trade_code(form)
            case "refresh_token":
                return self._exchange(form.get("refresh_token", ""))
            case None:
                return _refuse("invalid_request", "Missing parameter: `grant_type`")
        return _refuse("unsupported_grant_type", "Unsupported grant type: `grant_type` is invalid")

    def _trade_code(self, form: dict[str, str]) -> Reply:
        code = form.get("code", "")
        grant = self._codes.get(code)
        if grant is None:  # none that was given, or one that was used
            return _refuse("invalid_grant", "Invalid grant: authorization_code is invalid")
        if grant.until_s <= self._now():
            return _refuse("invalid_grant", "Invalid grant: authorization_code has expired")
        if form.get("redirect_uri") != grant.redirect_uri:
            return _refuse("invalid_request", "Invalid request: redirect_uri is invalid")
        del self._codes[code]
        return self._issue(grant, None)

    def _exchange(self, refresh_token: str) -> Reply:
        grant = self._refresh.get(refresh_token)
        if grant is None or grant.family in self._revoked or grant.until_s <= self._now() or grant.used:
            if grant and grant.used:
                self._revoked.add(grant.family)
            return _refuse("invalid_grant", "Invalid grant: refresh_token is invalid")
        if not self.settings.rotate:
            grant.until_s = self._now() + REFRESH_LIFE_S
            return self._issue(grant, refresh_token)
        grant.used = True
        return self._issue(grant, None)

    def _issue(self, grant: Grant, refresh_token: str | None) -> Reply:
        access = f"v1u:{self._make_secret('access')}"
        scopes = frozenset(self.settings.scopes.replace(",", " ").split())
        until_s = self._now() + self.settings.expires_in
        self._access[access] = Grant(grant.family, grant.viewer, until_s, scopes=scopes)
        if refresh_token is None:
            refresh_token = f"{self._company.id}:1:{self._make_secret('refresh')}"
            self._refresh[refresh_token] = Grant(grant.family, grant.viewer, self._now() + REFRESH_LIFE_S)
        answer = {
            "access_token": access,
            "token_type": "Bearer",
            "refresh_token": refresh_token,
            "scope": self.settings.scopes,
            "expires_in": self.settings.expires_in,
            "api_domain": self.api_domain,
        }
        return Reply(200, encode(answer))

    def _make_secret(self, kind: str) -> str:
        self._secret_count += 1
        return hashlib.blake2b(f"{self._company.id} {kind} {self._secret_count}".encode(), digest_size=20).hexdigest()

    def _now(self) -> float:
        return self._company.clock.seconds()


def read_basic(authorization: str) -> tuple[str, str]:
    """Client id and secret of an Authorization header; empty where it has none."""
    scheme, _, text = authorization.partition(" ")
    try:
        credentials = base64.b64decode(text, validate=True).decode() if scheme.lower() == "basic" else ""
    except (binascii.Error, UnicodeDecodeError):
        credentials = ""
    client_id, _, client_secret = credentials.partition(":")
    return client_id, client_secret


def _refuse(error: str, message: str) -> Reply:
    return Reply(400, encode({"success": False, "error": error, "message": message, "error_description": message}))
