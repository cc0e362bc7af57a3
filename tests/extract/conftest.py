"""A sandbox with a small company, and a client that waits for nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from pdsync.core.budget import Budget
from pdsync.core.control import Control
from pdsync.core.credentials import ApiToken
from pdsync.core.http import Http
from pdsync.sandbox import Limits, Sizes, generate_company, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from pdsync.sandbox import RunningSandbox

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


@pytest.fixture(scope="package")
def company_box() -> Iterator[RunningSandbox]:
    company = generate_company(seed=5, sizes=Sizes(deals=60, mail_threads=20, files=130), now=NOW)
    with running(company, limits=Limits(burst=None, daily_tokens=None)) as box:
        yield box


@pytest.fixture
def box(company_box: RunningSandbox) -> RunningSandbox:
    """Nobody writes to the company here; faults and the log begin anew."""
    company_box.faults.clear()
    company_box.clear_log()
    return company_box


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    made = Control(tmp_path / "control.db")
    yield made
    made.close()


@pytest.fixture
async def client(box: RunningSandbox, control: Control) -> AsyncIterator[Http]:
    budget = Budget(control.path, box.token, burst=0, daily_tokens=0)
    async with Http(box.url, ApiToken(box.token), budget, backoff_s=0.001) as http:
        yield http
    budget.close()
