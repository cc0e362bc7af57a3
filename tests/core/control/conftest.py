"""A new control.db for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pdsync.core.control import Control

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    control = Control(tmp_path / "data" / "control.db")
    yield control
    control.close()
