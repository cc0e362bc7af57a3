"""The raw archive is checked page by page, and only pages that no replay needs are removed."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.end_to_end.test_replay import digests
from tests.support import knobs
from tests.support.world import Project, broken_history, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.world import Remote

pytestmark = pytest.mark.proof


@pytest.fixture(scope="module")
def remote() -> Iterator[Remote]:
    with serving("--deals", "60", "--seed", "9") as remote:
        remote.advance(3600)
        yield remote


@pytest.fixture(scope="module")
def grown(remote: Remote, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Five runs, of which the third and the fifth found something new."""
    project = Project(tmp_path_factory.mktemp("grown") / "project", remote)
    with knobs.smaller_pages(20):
        for number in range(5):
            assert project.here("sync", "products", "stages", "--full").code == 0
            remote.advance(1200)
            if number in (1, 3):
                remote.change(0.3, seed=number, kinds=["products"], only=["updated"])
                remote.advance(1200)
    return project


@pytest.fixture
def project(grown: Project, remote: Remote, tmp_path: Path) -> Project:
    copy = Project(tmp_path / "project", remote)
    shutil.copytree(grown.folder, copy.folder, dirs_exist_ok=True)
    return copy


def _zero(path: Path, at: int, length: int) -> None:
    content = bytearray(path.read_bytes())
    content[at : at + length] = bytes(length)
    path.write_bytes(content)


def _cut(path: Path, at: int, length: int) -> None:
    path.write_bytes(path.read_bytes()[: at + length - 1])


def _delete(path: Path, at: int, length: int) -> None:
    path.unlink()


def test_o4_verify_finds_nothing_where_nothing_is_wrong(project: Project) -> None:
    before = project.kept()
    ran = project.here("raw", "verify", "--json")
    assert ran.code == 0, ran
    assert ran.summary["pages"] == project.control("SELECT count(*) FROM pages")[0][0]
    assert project.kept() == before


@pytest.mark.parametrize(("harm", "kind"), [(_zero, "damaged"), (_cut, "short"), (_delete, "missing")])
def test_o4_verify_names_the_page_that_is_not_whole_and_what_to_do(
    project: Project, harm: Callable[[Path, int, int], None], kind: str
) -> None:
    name, walk, seq, at, length = project.control(
        "SELECT file, walk, seq, at, bytes FROM pages WHERE seq = 0 ORDER BY walk LIMIT 1"
    )[0]
    harm(project.data / "raw" / name, at, length)
    ran = project.here("raw", "verify", "--json")
    assert ran.code == 4, ran
    first = ran.events[0]
    assert (first["name"], first["walk"], first["seq"], first["kind"]) == (name, walk, seq, kind)
    assert "raw prune --damaged" in first["advice"]
    assert ran.summary["complete"] is False
    # The repair that is named works: a list that was read whole since makes up for the page.
    assert project.here("replay").code == 1
    assert project.here("raw", "prune", "--damaged", "--yes").code == 0
    assert project.here("raw", "verify").code == 0
    assert project.here("replay").code == 0
    truth = project.ask("SELECT count(*) FROM products")
    assert project.here("sync", "products", "--full", "--json").written["products"] == 0
    assert project.ask("SELECT count(*) FROM products") == truth


def test_o4_verify_finds_a_damaged_header_without_which_nothing_can_be_indexed_again(project: Project) -> None:
    name, walk, seq, at = project.control("SELECT file, walk, seq, at FROM pages WHERE seq = 0 ORDER BY walk LIMIT 1")[
        0
    ]
    path = project.data / "raw" / name
    content = bytearray(path.read_bytes())
    content[at - 4] ^= 0x80
    path.write_bytes(content)
    ran = project.here("raw", "verify", "--json")
    assert ran.code == 4, ran
    assert [(each["walk"], each["seq"], each["kind"]) for each in ran.events[:-1]] == [(walk, seq, "damaged")]
    assert project.here("replay").code == 0  # it reads bodies only
    assert project.here("raw", "prune", "--damaged", "--yes").code == 0
    assert project.here("raw", "verify").code == 0


def test_s14_prune_removes_nothing_that_a_replay_needs(project: Project) -> None:
    whole = next((project.data / "raw").glob("*.zst")).read_bytes()
    (project.data / "raw" / "20200101T000000-abcdef-1.zst").write_bytes(whole[:100])  # left by a kill
    before, pages = digests(project), project.control("SELECT count(*) FROM pages")[0][0]
    size = sum(path.stat().st_size for path in (project.data / "raw").iterdir())
    would = project.here("raw", "prune", "--keep-days", "0", "--dry-run", "--json")
    assert would.code == 0, would
    assert 0 < would.summary["pages"] < pages
    assert project.control("SELECT count(*) FROM pages") == [(pages,)]

    assert project.here("raw", "prune", "--keep-days", "0").code == 2  # nobody was asked
    assert project.here("raw", "prune", "--yes").code == 0  # all is younger than 30 days
    assert project.control("SELECT count(*) FROM pages") == [(pages,)]
    done = project.here("raw", "prune", "--keep-days", "0", "--yes", "--json")
    assert done.code == 0, done
    assert done.summary["pages"] == would.summary["pages"]
    assert project.control("SELECT count(*) FROM pages") == [(pages - would.summary["pages"],)]
    assert sum(path.stat().st_size for path in (project.data / "raw").iterdir()) < size
    assert not list((project.data / "raw").glob("2020*"))
    assert project.here("raw", "verify").code == 0

    assert project.here("replay").code == 0
    assert digests(project) == before
    assert broken_history(project) == []
    assert project.here("raw", "prune", "--keep-days", "0", "--yes", "--json").summary["pages"] == 0
    assert project.here("sync", "products", "stages", "--json").written == {
        "product_fields": 0,
        "products": 0,
        "stages": 0,
    }


def test_s1_a_prune_that_is_killed_loses_no_page_that_is_needed(project: Project) -> None:
    before = digests(project)
    for death in (
        "'pdsync.extract.raw_file', 'rewrite', after=True",
        "'pdsync.core.control', 'Control.replace_pages', after=True",
    ):
        ran = project.run("raw", "prune", "--keep-days", "0", "--yes", first=f"knobs.die({death})")
        assert ran.code == -9, ran
        assert project.here("raw", "verify").code == 0
    assert project.here("raw", "prune", "--keep-days", "0", "--yes").code == 0
    assert project.here("raw", "verify", "--json").summary["unnamed"] == []
    assert project.here("replay").code == 0
    assert digests(project) == before


def test_s3_s9_a_backfill_whose_pages_were_pruned_begins_again_and_is_not_continued(
    remote: Remote, tmp_path: Path
) -> None:
    project = Project(tmp_path / "project", remote)
    command = ("backfill", "deals", "--since", "2020-01-01", "--json")
    with knobs.smaller_pages(2):
        assert project.here("sync", "deals").code == 0
        assert project.here(*command).code == 0
        pruned = project.here("raw", "prune", "--keep-days", "0", "--yes", "--json")
        assert pruned.code == 0, pruned
        states = [state for (state,) in project.control("SELECT k.state FROM windows w JOIN walks k ON k.id = w.walk")]
        assert {*states} == {"pruned", "applied"}
        remote.advance(1200)
        changed = remote.change(0.5, seed=21, kinds=["deals"], only=["updated"])["deals"]["updated"]
        remote.advance(60)
        again = project.here(*command)
    assert again.code == 0, again
    assert again.written["deals"] == len(set(changed))
    assert project.control("SELECT count(DISTINCT job) FROM windows") == [(2,)]
