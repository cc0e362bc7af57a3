"""A slice of `tests.proofs.fleet`: a worker is killed twice, the scheduler once, and every table is right."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

import pytest

from tests.proofs import fleet

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.proof, pytest.mark.timeout(900)]

OPTIONS = Namespace(companies=6, nights=1, deals=5, seed=1)


@pytest.mark.parametrize("part", [fleet.kills, fleet.scheduler, fleet.workers], ids=lambda part: part.__name__)
def test_a_fleet_whose_cluster_is_killed_gives_every_account_its_tables(tmp_path: Path, part: fleet.Part) -> None:
    report = fleet.Report()
    part(tmp_path / "proof", OPTIONS, report)
    assert report.failed == []
