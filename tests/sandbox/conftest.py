"""A small company with a fixed past, behind a real socket."""

from __future__ import annotations

import copy
import functools
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from pdsync.sandbox import Clock, Limits, Sizes, generate_company, running

from .api import Api

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pdsync.sandbox import Company, RunningSandbox

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
SIZES = Sizes(deals=240, mail_threads=60, files=130)


@functools.cache
def _generated() -> Company:
    return generate_company(seed=7, sizes=SIZES, now=NOW)


def fresh_company() -> Company:
    """The company as it was generated: a copy, which shares the rows because they never change."""
    company = _generated()
    shared: dict[int, Any] = {id(row): row for table in company.tables.values() for row in table.rows.values()}
    shared |= {id(each.row): each.row for table in company.tables.values() for each in table.removed.values()}
    copied = copy.deepcopy(company, {**shared, id(company.lock): threading.RLock()})
    copied.clock = Clock(NOW)
    return copied


@pytest.fixture(scope="module")
def shared_box() -> Iterator[RunningSandbox]:
    """For tests that only read."""
    with running(fresh_company(), limits=Limits(burst=None, search_burst=None, daily_tokens=None)) as box:
        yield box


@pytest.fixture
def box() -> Iterator[RunningSandbox]:
    """For tests that write, move the clock or break things."""
    with running(fresh_company(), limits=Limits(burst=None, search_burst=None, daily_tokens=None)) as box:
        yield box


@pytest.fixture
def reader(shared_box: RunningSandbox) -> Api:
    return Api(shared_box)


@pytest.fixture
def api(box: RunningSandbox) -> Api:
    return Api(box)
