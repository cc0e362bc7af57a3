"""Stores of secrets for tests: a keyring in memory, and secrets to store."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import keyring.backend

from pdsync.core import auth
from pdsync.core.credentials import ApiToken
from pdsync.core.secret_store import Grant

if TYPE_CHECKING:
    from pdsync.core.config import Settings

TOKEN = "c4n4ry+token/which=nobody&may-see"


class Ring(keyring.backend.KeyringBackend):
    """A keyring in memory; `forgetful` takes everything and keeps nothing, as the null backend does."""

    priority = 9

    def __init__(self, *, forgetful: bool = False, hangs: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kept: dict[tuple[str, str], str] = {}
        self.forgetful, self.released = forgetful, threading.Event()
        if not hangs:
            self.released.set()

    def get_password(self, service: str, username: str) -> str | None:
        self.released.wait()
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        if not self.forgetful:
            self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.kept[service, username]


def headers_of(settings: Settings) -> dict[str, str]:
    found = auth.credentials(settings)
    assert isinstance(found, ApiToken)
    return found._headers


def a_grant(**changes: object) -> Grant:
    facts: dict[str, object] = {
        "client_id": "app",
        "client_secret": "client-secret",
        "access_token": "access-token",
        "refresh_token": "refresh-token",
        "renew_at": 0.0,
        "expires_at": 0.0,
        "api_domain": "https://acme.pipedrive.com",
        "company_id": 7,
    }
    return Grant(**{**facts, **changes})  # type: ignore[arg-type]
