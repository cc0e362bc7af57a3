"""What authenticates a request: a fixed API token, or OAuth that renews itself (`core.oauth`)."""

from __future__ import annotations

from typing import Protocol


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
