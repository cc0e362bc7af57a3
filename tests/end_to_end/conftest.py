"""What tests of the queue share: a small company, and a project without a warehouse."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.world import Project, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.world import Remote


@pytest.fixture(scope="module")
def remote() -> Iterator[Remote]:
    """A company of 40 deals."""
    with serving("--deals", "40", "--seed", "31") as remote:
        yield remote


@pytest.fixture
def bare(remote: Remote, tmp_path: Path) -> Iterator[Project]:
    """A project without a warehouse: its pushes are quick."""
    remote.clear_log()
    yield Project(tmp_path / "bare", remote)
    remote.clear_faults()
