"""The client of one company: credentials, budget and session, opened together and checked against the warehouse."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import datetime  # noqa: TC003 - msgspec reads it at run time
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from pdsync.core import auth, catalogue
from pdsync.core.budget import Budget
from pdsync.core.http import Http
from pdsync.errors import BadAnswer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pdsync.core.config import Settings


class Identity(Struct, frozen=True):
    """Whose token it is. `company_id` never changes; names and domains may."""

    id: int
    name: str
    company_id: int
    company_name: str = ""
    company_domain: str | None = None
    default_currency: str | None = None
    access: list[dict[str, Any]] | None = None  # apps, and whether the user administers them
    served_at: datetime | None = None


class _WhoAmI(Struct):
    data: Identity


@asynccontextmanager
async def connect(settings: Settings, *, run_tokens: int | None = None) -> AsyncIterator[Http]:
    """A session with the company that the project's token belongs to.

    Raises:
        AuthError: there is no token. Nothing was called.
        Blocked: Pipedrive asked for silence, and it has not ended.
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


async def whoami(http: Http) -> Identity:
    """Ask whose token it is: 2 tokens.

    Raises:
        AuthError: the token is refused.
        BadAnswer: the answer names no company; without it nothing may be written.
    """
    answer = await http.call(catalogue.operation("getCurrentUser", "v1"))
    try:
        found = msgspec.json.decode(answer.body, type=_WhoAmI).data
    except msgspec.DecodeError as error:
        raise BadAnswer(
            f"Pipedrive did not say which company this token belongs to ({error}). Nothing was written."
        ) from error
    return msgspec.structs.replace(found, served_at=answer.served_at)
