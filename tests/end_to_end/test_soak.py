"""A slice of `tests.proofs.soak`: a few nights leak no files, no handles and no memory, and lose no row."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.soak import KINDS, Soak
from tests.support.world import Project, serving

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.proof

NIGHTS = 4


def test_o6_nights_in_one_process_leave_nothing_behind_and_no_drift(tmp_path: Path) -> None:
    with serving("--deals", "60", "--seed", "2") as remote:
        soak = Soak(remote, Project(tmp_path / "project", remote), seed=2, streams=KINDS)
        for _ in range(NIGHTS):
            soak.night()
        assert soak.drift() == []
    assert [night.leftovers for night in soak.nights] == [()] * NIGHTS
    assert {night.wal_mb for night in soak.nights} == {0.0}
    assert {night.tasks for night in soak.nights} == {0}
    assert len({night.descriptors for night in soak.nights[1:]}) == 1  # the first night opens what stays open
    assert all(night.rows for night in soak.nights)
