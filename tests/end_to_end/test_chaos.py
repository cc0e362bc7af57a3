"""A slice of `python -m tests.proofs.writes`: mutations under random faults and kills, compared with the journal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.chaos import FAULTS, WRITES, Batch
from tests.support.world import Project, serving

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.proof


def test_w1_w2_nothing_is_lost_and_nothing_happens_twice(tmp_path: Path) -> None:
    with serving("--deals", "120", "--seed", "11") as remote:
        project = Project(tmp_path / "project", remote)
        assert project.here("sync", "-q", "users", "deal_fields", "person_fields").code == 0
        batch = Batch(project, remote, count=60, seed=11)
        batch.queue()
        remote.post("faults", seed=11, faults=[{**fault, "path": WRITES} for fault in FAULTS])
        batch.push_to_the_end(kills=2)
        assert remote.struck() > 0
        remote.clear_faults()
        assert batch.wrong() == []
        assert batch.kills > 0
        states = batch.states()
        assert states["applied"] + states["needs_review"] == len(batch.marks)
