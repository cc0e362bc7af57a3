"""Requests the owner of a token, for commands that run without a project, or when it is damaged."""

from __future__ import annotations

import contextlib
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pdsync.core.account import Account, fetch_account
from pdsync.core.budget import Budget
from pdsync.core.control import Control
from pdsync.errors import WrongCompany

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pdsync.core.config import Settings
    from pdsync.core.credentials import Credentials


async def ask_account(settings: Settings, credentials: Credentials) -> Account:
    """Request the owner of the token: one request, 2 tokens, counted like any other if control.db can be written.

    Raises:
        AuthError: the token is refused.
        BudgetSpent, CoolingDown: no request may be sent for now.
        ServerTrouble: the host can't be reached.
        BadAnswer: the answer names no user or no company.
    """
    from pdsync.core.http import Http  # noqa: PLC0415 - slow to import, and not for --help

    with _ledger(settings) as path:
        budget = Budget(path, credentials.ledger_key, burst=settings.burst, daily_tokens=settings.daily_tokens)
        try:
            async with Http(settings.base_url, credentials, budget, backoff_s=0.2) as http:
                return await fetch_account(http)
        finally:
            budget.close()


def check_company(settings: Settings, company_id: int, name: str) -> None:
    """Check that the project belongs to this company, or to none yet.

    Raises:
        WrongCompany: the project belongs to another one. Nothing was written.
    """
    if not settings.control.exists():
        return
    with contextlib.closing(Control(settings.control)) as control:
        company = control.company()
    if company and company[0] != company_id:
        raise WrongCompany(expected=company[0], found=company_id, name=name)


@contextmanager
def _ledger(settings: Settings) -> Iterator[Path]:
    """The file with the ledger of requests; a temporary one where the project has none that can be written."""
    if settings.control.exists() and os.access(settings.state, os.W_OK) and os.access(settings.control, os.W_OK):
        Control(settings.control).close()
        yield settings.control
        return
    with tempfile.TemporaryDirectory(prefix="pdsync-") as folder:
        path = Path(folder) / "control.db"
        Control(path).close()
        yield path
