"""The two halves of a project that runner tests join: an open work file, and an outbox without a journal."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from pdsync.runner.loader import Loader
from tests.writeback.kit import COMPANY, open_outbox

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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
