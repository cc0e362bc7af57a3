"""A slice of `tests.proofs.fleet`: a worker is killed twice, the scheduler once, and every table is right.

And whether the proof would see that two processes work on one account.
"""

from __future__ import annotations

import subprocess
import sys
import time
from argparse import Namespace
from typing import TYPE_CHECKING

import pytest

from tests.proofs import fleet
from tests.support.fleets import Watch
from tests.support.world import Project

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.proof, pytest.mark.timeout(900)]

OPTIONS = Namespace(companies=6, nights=1, deals=5, seed=1)


@pytest.mark.parametrize("part", [fleet.kills, fleet.scheduler, fleet.workers], ids=lambda part: part.__name__)
def test_a_fleet_whose_cluster_is_killed_gives_every_account_its_tables(tmp_path: Path, part: fleet.Part) -> None:
    report = fleet.Report()
    part(tmp_path / "proof", OPTIONS, report)
    assert report.failed == []


@pytest.mark.parametrize(("names", "seen"), [(["control.db"] * 2, True), (["control.db", "pdsync.lock"], False)])
def test_two_that_have_data_of_one_account_open_are_seen_and_not_one_that_is_refused(
    tmp_path: Path, names: list[str], seen: bool
) -> None:
    project = Project(tmp_path)
    project.data.mkdir()
    code = "import sys; file = open(sys.argv[1], 'a'); print(); sys.stdin.read()"
    rest = ["pdsync.fleet.child", "--project", str(project.folder)]
    with Watch({"acme": project}) as watch:
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", code, str(project.data / name), *rest],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            for name in names
        ]
        for process in processes:
            assert process.stdout
            process.stdout.readline()
        until = time.monotonic() + 60
        while len(watch.pids["acme"]) < 2 and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(0.5)
        for process in processes:
            process.communicate()
    assert len(watch.pids["acme"]) == 2
    assert bool(watch.overlaps) == seen
