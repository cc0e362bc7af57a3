"""Commands that are killed, and whose resume is killed too, end as if they had not been interrupted.

This is a slice: `python -m tests.proofs.kills` kills every command at every named place, and at random instants.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import TYPE_CHECKING

import pytest

from pdsync.sandbox import Limits, Sizes, generate_company, running
from tests.support.forks import Forks
from tests.support.matrix import CALM, Scenes, scenes, tables
from tests.support.places import Place, every, hits
from tests.support.world import Project

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.proof


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks() as forks:
        yield forks


@pytest.fixture(scope="module")
def scene(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenes]:
    with scenes(tmp_path_factory.mktemp("scenes"), forks, deals=30) as scene:
        yield scene


def test_s1_a_backfill_that_dies_at_its_beginning_still_reads_every_list(
    scene: Scenes, forks: Forks, tmp_path: Path
) -> None:
    case = scene.case("backfill")
    planned = Place("pdsync.core.control.windows", "Windows.plan", after=True)
    sealed = Place("pdsync.core.control", "Control.record_pages", after=True)
    trial = case.trial(tmp_path, forks, [planned.death(1), sealed.death(3)])
    assert trial.wrong == []
    assert trial.kills == 2


def test_s1_s11_an_export_that_dies_leaves_nothing_behind(scene: Scenes, forks: Forks, tmp_path: Path) -> None:
    case = scene.case("export")
    put = Place("pdsync.load.export_target", "_Folder.put", after=True)
    removed = Place("pdsync.load.export_target", "_Folder.remove")
    last = case.calls[put]  # the catalogue itself
    for deaths in ([put.death(last // 2), put.death(2)], [put.death(last), removed.death(2)]):
        trial = case.trial(tmp_path, forks, deaths)
        assert trial.wrong == []
        assert trial.kills == 2


def test_s1_s7_a_repair_that_dies_is_finished_and_reports_all_findings(
    scene: Scenes, forks: Forks, tmp_path: Path
) -> None:
    case = scene.case("reconcile")
    buried = Place("pdsync.load.tombstones", "tombstone", after=True)
    kept = Place("pdsync.runner.reconcile.findings", "save_findings")
    assert case.trial(tmp_path / "trial", forks, [buried.death(2), kept.death(2)]).wrong == []
    found = "SELECT stream, key, kind, repaired FROM meta.findings ORDER BY ALL"
    calm, shaken = case.copy(tmp_path / "calm"), case.copy(tmp_path / "shaken")
    assert forks.run(calm, *case.arguments, first=CALM).code == 0
    assert forks.run(shaken, *case.arguments, first=f"{CALM}\n{kept.death(2)}").code == -9
    assert forks.run(shaken, *case.arguments, first=CALM).code == 0
    assert shaken.ask(found) == calm.ask(found)
    assert {row[-1] for row in calm.ask(found)} == {True}


def test_s14_what_a_cut_repair_had_sealed_comes_before_what_the_next_one_finds(forks: Forks, tmp_path: Path) -> None:
    sizes = Sizes(deals=6, persons=16, organizations=2, products=1, activities=1, files=1)
    company = generate_company(seed=3, sizes=sizes, now=datetime.now(UTC) - timedelta(hours=1))
    with running(company, limits=Limits(burst=None, search_burst=None, daily_tokens=None)) as box:
        project = Project(tmp_path / "project")
        project.configure(base_url=box.url, api_token=box.token)
        assert forks.run(project, "sync", "persons", first=CALM).code == 0
        box.clock.advance(3600)
        purged, changed = (entry["record"] for entry in box.dump("persons")[:2])
        with box.company.lock:
            box.company.remove("persons", purged["id"], "purged")
            box.company.put("persons", "silent", {**changed, "name": "changed in silence"})
        repair = ("reconcile", "persons", "--repair", "--deep")
        for place in (Place("pdsync.load.commit", "commit"), Place("pdsync.load.tombstones", "tombstone")):
            assert forks.run(project, *repair, first=f"{CALM}\n{place.death(1)}").code == -9
            box.clock.advance(60)  # whatever is dated anew has another date
        assert forks.run(project, *repair, first=CALM).code == 0
        assert project.ask("SELECT id FROM persons WHERE _deleted_at IS NOT NULL") == [(purged["id"],)]
        assert project.control("SELECT count(*) FROM walks WHERE state IN ('open', 'sealed')") == [(0,)]
        before = tables(project, None)
        assert forks.run(project, "replay", first=CALM).code == 0
        assert tables(project, None) == before


def test_a_place_that_is_passed_often_is_met_at_its_first_second_middle_and_last() -> None:
    assert [hits(times) for times in (0, 1, 2, 3, 9)] == [[], [1], [1, 2], [1, 2, 3], [1, 2, 5, 9]]


@pytest.mark.parametrize("place", {(p.module, p.name): p for p in every()}.values(), ids=str)
def test_each_named_place_is_there(place: Place) -> None:
    """Places are named as text: one that was renamed would be passed over without a word."""
    found: object = import_module(place.module)
    for name in place.name.split("."):
        found = getattr(found, name)
    assert callable(found)
