"""Finds the credentials of a project: PDSYNC_API_TOKEN in the environment, else what `core.secret_store` has.

    credentials = auth.credentials(settings)     # an ApiToken, or an OAuth that renews itself

Every secret that is read here is hidden from all output from then on (`core.log.hide`).
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import msgspec

from pdsync.core.credentials import ApiToken
from pdsync.core.log import hide
from pdsync.core.oauth import OAuth
from pdsync.core.secret_store import (
    Grant,
    SecretLocation,
    StoredSecret,
    StoredToken,
    Vault,
)
from pdsync.errors import AuthError

if TYPE_CHECKING:
    from pdsync.core.config import Settings
    from pdsync.core.secret_store import Secret

ENVIRONMENT = "PDSYNC_API_TOKEN"


def credentials(settings: Settings) -> ApiToken | OAuth:
    """What authenticates the requests of this project.

    Raises:
        AuthError: there is no token, or it is stored where others could read it. Nothing was called.
    """
    stored = find_secret(settings)
    if stored is None:
        raise AuthError(
            f"There is no token for {settings.base_url} yet. Nothing was called.\n"
            f"Store one: pdsync auth login (or set {ENVIRONMENT})"
        )
    if isinstance(stored.secret, Grant):
        return OAuth(Vault(settings), stored.secret, stored.location)
    return ApiToken(stored.secret.token)


def find_secret(settings: Settings) -> StoredSecret | None:
    """The secret of this project and where it is; None where there is none.

    Raises:
        AuthError: it is malformed, or stored where others could read it.
    """
    token = os.environ.get(ENVIRONMENT, "").strip()
    if token:
        return StoredSecret(StoredToken(check_token(token, ENVIRONMENT)), "environment")
    return Vault(settings).find()


def check_token(token: str, where: str) -> str:
    """`token` without the blanks around it, hidden from now on.

    Raises:
        AuthError: it can't be a token: no header could carry it.
    """
    return _check_secret(token, f"The token ({where})", "from Pipedrive: Settings, Personal preferences, API")


def check_client_secret(secret: str) -> str:
    """The client secret of an OAuth app without the blanks around it, hidden from now on.

    Raises:
        AuthError: it can't be one: no header could carry it.
    """
    return _check_secret(secret, "The client secret", "from the app in Pipedrive's Developer Hub")


def _check_secret(secret: str, what: str, source: str) -> str:
    """`secret` without the blanks around it, hidden; `what` it is and its `source` are for the message."""
    secret = secret.strip()
    hide(secret)
    if not secret:
        raise AuthError(f"{what} is empty. Nothing was stored or called.")
    if not (secret.isascii() and secret.isprintable()) or " " in secret:
        raise AuthError(
            f"{what} has blanks, line breaks or characters that it can't have. Nothing was called.\nCopy it {source}."
        )
    return secret


def store(settings: Settings, secret: Secret) -> SecretLocation:
    """Store `secret` for this project instead of the one before; returns where it is.

    It counts as newer than the one before, even if the clock was set back or a renewal came in between: of two
    secrets, every process uses the newer one.

    Raises:
        AuthError: it would go into the file, which is damaged, or which others could read.
        ProjectLocked: another process has the vault locked for two minutes.
        StorageError: it could not be stored.
    """
    vault = Vault(settings)
    with vault.locked():
        before = None
        with contextlib.suppress(AuthError):  # what can't be read has no time to compare with
            before = vault.find()
        if before and before.secret.saved_at >= secret.saved_at:
            secret = msgspec.structs.replace(secret, saved_at=before.secret.saved_at + 0.001)
        return vault.put(secret)


def forget(settings: Settings) -> list[SecretLocation]:
    """Forget what is stored for this project; returns where it was.

    Raises:
        AuthError, StorageError: as `Vault.clear`.
        ProjectLocked: another process has the vault locked for two minutes.
    """
    vault = Vault(settings)
    if not vault.folder.exists():
        return vault.clear()
    with vault.locked():
        return vault.clear()
