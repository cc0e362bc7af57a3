"""Simulates Pipedrive's OAuth server: authorises without asking, exchanges codes, refreshes tokens.

With `rotate` each refresh token works once. Using it again is answered with invalid_grant and revokes
all tokens of the same authorisation, like a server that detects token reuse.
Assumption: Pipedrive itself is reported to send the same refresh token back, so that is the default.
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
SCOPE = "base deals:full contacts:full products:full activities:full mail:full users:read"


class Settings(Struct, kw_only=True):
    """The registered app, and how long its tokens are valid."""

    client_id: str = "sandbox-client"
    client_secret: str = "sandbox-secret"  # noqa: S105 - of a server that exists for a test
    expires_in: int = 3600
    rotate: bool = False
    viewer: str = "admin"  # the user who grants access


class Grant(Struct):
    """What a code or a token permits. `family` is shared by all tokens of one authorisation."""

    family: str
    viewer: str
    until_s: float
    redirect_uri: str = ""
    used: bool = False


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

    def expire_access_tokens(self) -> None:
        self._access.clear()

    def authorize(self, query: dict[str, str]) -> Reply:
        """Redirect to the app with a code, as if the user had consented."""
        target = query.get("redirect_uri", "")
        if query.get("client_id") != self.settings.client_id or not urlsplit(target).scheme:
            return _error(400, "invalid_client", "Unknown client_id, or no redirect_uri")
        code = self._make_secret("code")
        self._codes[code] = Grant(code, self.settings.viewer, self._now() + CODE_LIFE_S, target)
        query_back = {"code": code, **({"state": query["state"]} if "state" in query else {})}
        return Reply(302, b"", {"location": f"{target}{'&' if '?' in target else '?'}{urlencode(query_back)}"})

    def token(self, authorization: str, form: dict[str, str]) -> Reply:
        """Exchange a code or a refresh token for an access token. `authorization`: the request's header."""
        if not self._is_client(authorization):
            return _error(401, "invalid_client", "Client authentication failed")
        match form.get("grant_type"):
            case "authorization_code":
                grant = self._codes.pop(form.get("code", ""), None)
                if grant is None or grant.until_s <= self._now():
                    return _error(400, "invalid_grant", "Invalid or expired authorization code")
                if form.get("redirect_uri") != grant.redirect_uri:
                    return _error(400, "invalid_grant", "redirect_uri does not match")
                return self._issue(grant, None)
            case "refresh_token":
                return self._exchange(form.get("refresh_token", ""))
        return _error(400, "unsupported_grant_type", "grant_type is not supported")

    def _exchange(self, refresh_token: str) -> Reply:
        grant = self._refresh.get(refresh_token)
        if grant is None or grant.family in self._revoked or grant.until_s <= self._now():
            return _error(400, "invalid_grant", "Invalid refresh token")
        if grant.used:
            self._revoked.add(grant.family)
            return _error(400, "invalid_grant", "Refresh token was already exchanged")
        if not self.settings.rotate:
            grant.until_s = self._now() + REFRESH_LIFE_S
            return self._issue(grant, refresh_token)
        grant.used = True
        return self._issue(grant, None)

    def _issue(self, grant: Grant, refresh_token: str | None) -> Reply:
        access = f"v1u:{self._make_secret('access')}"
        self._access[access] = Grant(grant.family, grant.viewer, self._now() + self.settings.expires_in)
        if refresh_token is None:
            refresh_token = f"{self._company.id}:1:{self._make_secret('refresh')}"
            self._refresh[refresh_token] = Grant(grant.family, grant.viewer, self._now() + REFRESH_LIFE_S)
        answer = {
            "access_token": access,
            "token_type": "Bearer",
            "refresh_token": refresh_token,
            "scope": SCOPE,
            "expires_in": self.settings.expires_in,
            "api_domain": self.api_domain,
        }
        return Reply(200, encode(answer))

    def _is_client(self, authorization: str) -> bool:
        scheme, _, text = authorization.partition(" ")
        try:
            credentials = base64.b64decode(text, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return False
        return scheme.lower() == "basic" and credentials == f"{self.settings.client_id}:{self.settings.client_secret}"

    def _make_secret(self, kind: str) -> str:
        self._secret_count += 1
        return hashlib.blake2b(f"{self._company.id} {kind} {self._secret_count}".encode(), digest_size=20).hexdigest()

    def _now(self) -> float:
        return self._company.clock.seconds()


def _error(status: int, error: str, message: str) -> Reply:
    return Reply(status, encode({"success": False, "error": error, "message": message, "error_description": message}))
