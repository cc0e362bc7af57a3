"""A work file with one small table, and batches for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .kit import Work

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Work]:
    made = Work(tmp_path / "work.duckdb")
    yield made
    made.close()
