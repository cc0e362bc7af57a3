"""What runner tests share: an open work file, an outbox without a journal, and a very small company to read from."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from pdsync.runner.loader import Loader
from pdsync.sandbox import Limits, Sizes, generate_company, running
from tests.runner.kit import T0
from tests.writeback.kit import COMPANY, open_outbox

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pdsync.sandbox import RunningSandbox
    from pdsync.writeback.outbox import Outbox


@pytest.fixture
def loader(tmp_path: Path) -> Iterator[Loader]:
    """The work file of a project."""
    loader = Loader(tmp_path / "work.duckdb")
    loader.open(COMPANY, "Acme")
    yield loader
    asyncio.run(loader.close())


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    """The queue of the project."""
    return open_outbox(tmp_path, journal=False)


@pytest.fixture(scope="package")
def box() -> Iterator[RunningSandbox]:
    """A company of eight deals, which no test changes."""
    company = generate_company(seed=8, sizes=Sizes(deals=8, files=1, mail_threads=1, activities=1), now=T0)
    with running(company, limits=Limits(burst=None, daily_tokens=None)) as box:
        yield box
