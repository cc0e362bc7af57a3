"""A small company with a fixed past, behind a real socket."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from pdsync.sandbox import Limits, Sizes, generate_company, running

from .api import Api

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pdsync.sandbox import RunningSandbox

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
SIZES = Sizes(deals=240, mail_threads=60, files=130)


@pytest.fixture(scope="module")
def shared_box() -> Iterator[RunningSandbox]:
    """For tests that only read."""
    with running(
        generate_company(seed=7, sizes=SIZES, now=NOW), limits=Limits(burst=None, search_burst=None, daily_tokens=None)
    ) as box:
        yield box


@pytest.fixture
def box() -> Iterator[RunningSandbox]:
    """For tests that write, move the clock or break things."""
    with running(
        generate_company(seed=7, sizes=SIZES, now=NOW), limits=Limits(burst=None, search_burst=None, daily_tokens=None)
    ) as box:
        yield box


@pytest.fixture
def reader(shared_box: RunningSandbox) -> Api:
    return Api(shared_box)


@pytest.fixture
def api(box: RunningSandbox) -> Api:
    return Api(box)
