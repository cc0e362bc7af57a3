"""OAuth 2.0 with Pipedrive: a person allows it once in a browser (`core.oauth_login`), then the grant renews itself.

Pipedrive may make refresh tokens single-use, so an answer that is lost is a grant that is lost. Hence the order of a
renewal: take the vault's lock, read the grant again, show that the disk takes a write, ask, store the answer safely,
and only then use it. All of that runs on a thread of its own: cancelling a run does not cut it in half. What no client
can cure is a kill between Pipedrive's answer and our write; then a person has to log in again.

A process that renews or adopts a grant uses its access token only after asking whose it is. It must be the company it
has always been. The grant is stored before that: a process that begins later does not ask again.

Times are seconds since 1970. A renewal goes to the token URL of the login. The token's `api_domain` is checked and
kept, and nothing is sent there: requests go to account.base_url alone.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import msgspec

from pdsync.core.log import log
from pdsync.core.oauth_app import default_url
from pdsync.core.oauth_token import LOG_IN_AGAIN, InvalidGrantError, ask_company, bearer, request_tokens
from pdsync.core.secret_store import Grant
from pdsync.errors import AuthError, ServerTrouble, WrongCompany

if TYPE_CHECKING:
    from pdsync.core.secret_store import SecretLocation, Vault

_ADOPT_S = 2.0  # how long to wait for another process's renewal when ours is refused


class OAuth:
    """Credentials that renew themselves, together with every other process that uses the same grant."""

    def __init__(self, vault: Vault, grant: Grant, location: SecretLocation) -> None:
        self._vault, self._grant, self._location = vault, grant, location
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
        return bearer(self._grant.access_token)

    async def refresh(self, refused: dict[str, str]) -> bool:
        """After a 401 for the headers `refused`: renew the grant, or adopt what another process has renewed.

        Raises:
            AuthError: Pipedrive does not accept the grant any more. It is kept, for a person to look at.
            WrongCompany: the new token belongs to another company. It is not used here, although it is stored.
            ServerTrouble: no usable answer; the same command tries again.
            ProjectLocked, StorageError: the vault can't be locked or written.
        """
        if bearer(self._grant.access_token) == refused:  # else another task has done it meanwhile
            await self._renewed(self._grant)
        return True

    async def _renewed(self, spent: Grant, *, early: bool = False) -> None:
        async with self._lock:
            if self._grant is spent and not (early and time.monotonic() < self._not_before):
                self._grant, self._location = await asyncio.to_thread(self._renew, spent)

    def _renew(self, spent: Grant) -> tuple[Grant, SecretLocation]:
        with self._vault.locked():
            grant, location = self._read_stored(spent)
            is_adopted = grant.access_token != spent.access_token and time.time() < grant.renew_at
            if not is_adopted:
                # A disk that can't take the new grant shows it now, while the old one still works.
                location = self._vault.put(grant, location)
                grant, location = self._exchange(grant, location)
        try:
            company_id, name = asyncio.run(ask_company(self._vault.base_url, grant.access_token))
        except AuthError:
            if is_adopted:  # what another process got is spent too
                return self._renew(grant)
            raise
        if company_id != spent.company_id:
            raise WrongCompany(expected=spent.company_id, found=company_id, name=name)
        return grant, location

    def _read_stored(self, ours: Grant) -> tuple[Grant, SecretLocation]:
        """The grant in the vault: ours, or what another process has renewed."""
        stored = self._vault.find()
        if stored is None and self._location == "file":
            raise AuthError(
                f"The project was logged out while this command was running. What was fetched is kept.\n{LOG_IN_AGAIN}"
            )
        if stored is None:  # a keyring that has been locked since: ours still counts
            return ours, self._location
        grant = stored.secret
        if not isinstance(grant, Grant) or grant.client_id != ours.client_id:
            raise AuthError(
                "Other credentials were stored for this project while this command was running.\n"
                "What was fetched is kept. Run the same command again to use them."
            )
        if grant.company_id != ours.company_id:
            raise WrongCompany(expected=ours.company_id, found=grant.company_id, name=grant.company_name)
        return (grant, stored.location) if grant.saved_at >= ours.saved_at else (ours, self._location)

    def _exchange(self, grant: Grant, location: SecretLocation) -> tuple[Grant, SecretLocation]:
        form = {"grant_type": "refresh_token", "refresh_token": grant.refresh_token}
        token_url = grant.token_url or default_url(self._vault.base_url, "get-tokens")
        try:
            answer = asyncio.run(request_tokens(token_url, grant.client_id, grant.client_secret, form))
        except InvalidGrantError as refusal:
            # A process that does not share our lock, perhaps on another machine, may have renewed it and be writing.
            until = time.monotonic() + _ADOPT_S
            while time.monotonic() < until:
                renewed, where = self._read_stored(grant)
                if renewed.refresh_token != grant.refresh_token:
                    return renewed, where
                time.sleep(0.1)
            raise AuthError(
                f"Pipedrive does not accept the stored OAuth grant any more ({refusal}).\n"
                f"It was revoked, or not used for 60 days, or a renewal was cut short. What was fetched is kept.\n"
                f"{LOG_IN_AGAIN}"
            ) from refusal
        now = time.time()
        new = msgspec.structs.replace(
            grant,
            access_token=answer.access_token,
            refresh_token=answer.refresh_token or grant.refresh_token,
            renew_at=now + answer.good_for_s,
            expires_at=now + answer.expires_in,
            api_domain=answer.api_domain or grant.api_domain,
            granted_scopes=answer.scopes or grant.granted_scopes,
            saved_at=max(now, grant.saved_at + 0.001),  # newer than the last one, even if the clock was set back
        )
        return new, self._vault.put(new, location)
