"""A run that is killed, or finds its files damaged, gives the same tables and fetches nothing twice."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.support.kills import CONCURRENCY, SIDE_BY_SIDE, SMALL, chain, round_of
from tests.support.world import STREAMS, Project, broken_history, fingerprint, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.world import Remote

pytestmark = pytest.mark.proof

ROWS = 25
LISTS = ("products", "persons", "stages")
# In the order in which a run comes by, so that each attempt reaches its own: module, name, nth call.
DEATHS = [  # `python -m tests.proofs.kills` goes on to the streams and sizes that take longer
    "'pdsync.core.control', 'Control.start_run', after=True",
    "'pdsync.extract.raw_archive', '_write', after=True",
    "'pdsync.extract.raw_archive', '_write', 2, after=True",
    "'pdsync.core.control', 'Control.record_pages'",  # how many pages it gets at once depends on the machine
    "'pdsync.load.commit', '_move_watermark', after=True",
    "'pdsync.load.commit', 'note_batch', 2, after=True",
    "'pdsync.load.commit', 'commit', after=True",
    "'pdsync.core.control', 'Control.end_walk', after=True",
    "'pdsync.runner.report.receipt', 'save_receipt', after=True",
    "'pdsync.runner.loader', 'Loader._close'",
    "'os', 'replace'",
    "'os', 'replace', after=True",
    "'pdsync.core.control', 'Control.finish_run'",
]


@pytest.fixture(scope="module")
def remote() -> Iterator[Remote]:
    with serving("--deals", "200", "--seed", "5") as remote:
        remote.advance(3600)
        yield remote


@pytest.fixture
def slowly(remote: Remote) -> Iterator[Remote]:
    remote.fault(kind="latency", ms=40, jitter_ms=40, path="^/(?!v1/users/me)")
    yield remote
    remote.clear_faults()


def test_s1_s12_s15_a_run_that_is_killed_at_random_ends_in_the_same_tables_and_asks_for_no_sealed_page(
    slowly: Remote, tmp_path: Path
) -> None:
    calm, shaken = Project(tmp_path / "calm", slowly), Project(tmp_path / "shaken", slowly)
    outcome = round_of(slowly, calm, shaken, ("sync", "deals", *LISTS, "--json"), rows=ROWS, kills=4, seed=1)
    assert outcome.wrong == []
    assert outcome.kills > 0
    assert outcome.repeated <= outcome.kills * (CONCURRENCY + 1) * len(STREAMS)


def test_s1_s12_s15_a_first_load_side_by_side_that_is_killed_at_random_ends_in_the_same_tables(
    slowly: Remote, tmp_path: Path
) -> None:
    calm, shaken = Project(tmp_path / "calm", slowly), Project(tmp_path / "shaken", slowly)
    command = ("sync", "deals", "persons", "activities", "--json")
    outcome = round_of(slowly, calm, shaken, command, rows=15, kills=5, seed=2, first=SIDE_BY_SIDE)
    assert outcome.wrong == []
    assert outcome.kills > 0
    positions = calm.control("SELECT count(*) FROM pages WHERE next LIKE 'in windows:%'")
    assert positions[0][0] > 20


def test_s1_s4_a_run_that_dies_at_every_named_place_ends_in_the_same_tables(remote: Remote, tmp_path: Path) -> None:
    lists = ("products", "stages")
    calm = Project(tmp_path / "calm", remote)
    assert calm.run("sync", *lists).code == 0
    outcome, project = chain(remote, tmp_path / "shaken", DEATHS, ("sync", *lists, "--json"), rows=5)
    assert outcome.wrong == []
    assert fingerprint(project) == fingerprint(calm)
    assert broken_history(project) == []


def _none(work: Path) -> None:
    assert work.exists()


def _truncated(work: Path) -> None:
    os.truncate(work, work.stat().st_size // 3)


def _overwritten(work: Path) -> None:
    work.write_bytes(b"\xff" * work.stat().st_size)


def _flipped(work: Path) -> None:
    """One bit in each block."""
    content = bytearray(work.read_bytes())
    for at in range(3 * 4096 + 50_000, len(content), 262_144):
        content[at] ^= 16
    work.write_bytes(content)


def _deleted(work: Path) -> None:
    for path in work.parent.glob("warehouse*"):
        path.unlink()


def test_s14_o4_a_lost_warehouse_is_rebuilt_from_sealed_pages(remote: Remote, tmp_path: Path) -> None:
    lists, first = ("products", "stages"), SMALL.format(rows=5)
    project = Project(tmp_path / "project", remote)
    assert project.run("sync", *lists, first=first).code == 0
    whole = fingerprint(project)
    # The next run dies when all is loaded, and before it is published: only the work file and the archive hold it.
    remote.advance(1200)
    remote.change(0.3, kinds=["products"])
    remote.advance(1200)
    died = project.run("sync", *lists, "--full", first=f"{first}\nknobs.die('os', 'replace')")
    assert died.code == -9, died
    sealed = project.sealed()
    assert len(sealed) > 5

    harms = (_none, _truncated, _overwritten, _flipped, _deleted)
    copies = {harm: Project(tmp_path / harm.__name__, remote) for harm in harms}
    ends = []
    for harm, copy in copies.items():
        shutil.copytree(project.folder, copy.folder, dirs_exist_ok=True)
        harm(copy.data / "warehouse.work.duckdb")
        remote.clear_log()
        ran = copy.run("sync", *lists, "--full", "--json", first=first)
        if ran.code and harm is _flipped:  # noticed only where it is read: the repair is named, and works
            assert "Delete it" in ran.err
            (copy.data / "warehouse.work.duckdb").unlink()
            ran = copy.run("sync", *lists, "--full", "--json", first=first)
        assert ran.code == 0, ran
        assert {request["operation"] for request in remote.log()} == {"getCurrentUser"}
        assert copy.sealed() == sealed
        assert broken_history(copy) == []
        ends.append(fingerprint(copy))
    assert ends == [ends[0]] * len(harms)
    assert ends[0] != whole


def test_s14_s12_a_history_of_several_runs_is_rebuilt_unchanged(remote: Remote, tmp_path: Path) -> None:
    """Records move between the lists of one stream, and all of it is replayed: not a version may be lost or added."""
    project, first = Project(tmp_path / "project", remote), SMALL.format(rows=40)
    for number in range(2):
        assert project.run("sync", "deals", first=first).code == 0
        remote.advance(1200)
        remote.change(0.3, seed=number, kinds=["deals"], only=["updated", "archived"])
        remote.advance(1200)
    assert project.run("sync", "deals", first=first).code == 0
    whole = fingerprint(project)
    archived = "SELECT id FROM main.deals WHERE is_archived"
    moved = project.ask(f"SELECT count(*) FROM history.deals WHERE NOT is_archived AND id IN ({archived})")
    assert moved[0][0] > 3
    _deleted(project.data / "warehouse.work.duckdb")
    assert project.run("sync", "deals", first=first).code == 0
    assert fingerprint(project) == whole
    assert broken_history(project) == []
