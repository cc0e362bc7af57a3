"""Opens the client of one company, with its credentials and its budget."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from pdsync.core import auth
from pdsync.core.budget import Budget
from pdsync.core.http import Http

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pdsync.core.config import Settings


@asynccontextmanager
async def connect(settings: Settings, *, run_tokens: int | None = None) -> AsyncIterator[Http]:
    """Open a client of the company that the project's token belongs to.

    Raises:
        AuthError: there is no token. Nothing was called.
        CoolingDown: Pipedrive asked for a pause that has not ended.
    """
    credentials = auth.credentials(settings)
    budget = Budget(
        settings.control,
        credentials.ledger_key,
        burst=settings.burst,
        daily_tokens=settings.daily_tokens,
        run_tokens=run_tokens,
    )
    try:
        async with Http(settings.base_url, credentials, budget, concurrency=settings.concurrency) as http:
            yield http
    finally:
        budget.close()
