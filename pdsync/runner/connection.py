"""Opens the client of one company, with its credentials and its budget."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from pdsync.core import auth
from pdsync.core.budget import Budget

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pdsync.core.config import Settings
    from pdsync.core.http import Http

_CONCURRENCY_WITHOUT_LIMIT = 16
_MAX_CONCURRENCY = 32


def concurrency(settings: Settings) -> int:
    """How many requests may be in flight: enough to use the whole rate limit at half a second per page.

    limits.concurrency wins, up to 32.
    """
    if settings.origins["limits.concurrency"] != "default":
        return min(settings.concurrency, _MAX_CONCURRENCY)
    enough = min(settings.burst // 4 + 2, _MAX_CONCURRENCY) if settings.burst else _CONCURRENCY_WITHOUT_LIMIT
    return max(settings.concurrency, enough)


@asynccontextmanager
async def connect(settings: Settings, *, run_tokens: int | None = None) -> AsyncIterator[Http]:
    """Open a client of the company that the project's token belongs to.

    Raises:
        AuthError: there is no token. Nothing was called.
        CoolingDown: Pipedrive asked for a pause that has not ended.
    """
    from pdsync.core.http import Http  # noqa: PLC0415 - slow to import, and many commands make no request

    credentials = auth.credentials(settings)
    budget = Budget(
        settings.control,
        credentials.ledger_key,
        burst=settings.burst,
        daily_tokens=settings.daily_tokens,
        run_tokens=run_tokens,
    )
    try:
        async with Http(settings.base_url, credentials, budget, concurrency=concurrency(settings)) as http:
            yield http
    finally:
        budget.close()
