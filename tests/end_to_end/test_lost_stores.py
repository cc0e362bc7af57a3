"""Raw archive, control.db, warehouse: each lost, emptied, truncated or restored from an earlier day, alone or together.

The next sync ends in the tables of the source, or refuses and names the way out, which then leads there.
"""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import zstandard

from pdsync.core import config
from pdsync.core.control import Control
from pdsync.extract import raw_archive
from pdsync.extract.raw_archive import Archive
from pdsync.model import Page, Walk
from pdsync.runner import stores
from tests.end_to_end.test_replay import digests
from tests.support import knobs
from tests.support.truth import BLIND, differences
from tests.support.world import Project, broken_history, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.world import Ran, Remote

pytestmark = pytest.mark.proof

STREAMS = ("deals", "persons", "deal_participants")
TRUTHS = ("deals", "persons", "deal_fields", "person_fields")
CONTROL, WAREHOUSE, ARCHIVE = ("control.db*",), ("warehouse*",), ("raw/*",)


class Days:
    """A project after three nights, the copies of each night, and the source after a fourth day."""

    def __init__(self, remote: Remote, folder: Path) -> None:
        self.remote, self.folder = remote, folder
        project = Project(folder / "live", remote)
        with knobs.smaller_pages(30):
            for night in range(3):
                assert project.here("sync", *STREAMS).code == 0
                shutil.copytree(project.data, folder / f"night-{night}")
                self.live_one_day(night)
        self.truth = {stream: remote.dump(stream) for stream in TRUTHS}  # what the next sync has to bring

    def live_one_day(self, seed: int) -> None:
        self.remote.advance(4000)
        self.remote.change(0.2, seed=seed, only=["updated", "archived", "added"])
        self.remote.advance(4000)

    def project(self, path: Path) -> Project:
        """A copy of the project as the third night left it."""
        copy = Project(path / "project", self.remote)
        shutil.copytree(self.folder / "night-2", copy.data)
        return copy

    def harm(self, project: Project, patterns: tuple[str, ...], how: str) -> None:
        """Lose, empty or cut what `patterns` name in the data folder, or restore it from an earlier night."""
        for pattern in patterns:
            for path in sorted(project.data.glob(pattern)):
                if how == "emptied" and path.suffix in (".db", ".duckdb", ".zst"):
                    path.write_bytes(b"")
                elif how == "cut" and path.suffix == ".zst":
                    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
                elif how == "cut" and path.suffix in (".db", ".duckdb"):
                    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
                else:
                    path.unlink()
            if how.startswith("night"):
                for path in sorted((self.folder / how).glob(pattern)):
                    target = project.data / path.relative_to(self.folder / how)
                    shutil.copy2(path, target)

    def wrong(self, project: Project) -> list[str]:
        """Where the tables differ from the source, and where their history is broken."""
        with project.warehouse() as warehouse:
            found = [
                difference
                for stream, dump in self.truth.items()
                for difference in differences(warehouse, stream, dump, leave_out=BLIND.get(stream, ()))
            ]
        participants = project.ask("SELECT count(*) FROM deal_participants WHERE _deleted_at IS NULL")
        return found + broken_history(project) + ([] if participants > [(0,)] else ["no participants"])


@pytest.fixture(scope="module")
def remote() -> Iterator[Remote]:
    with serving("--deals", "40", "--seed", "12") as remote:
        remote.advance(3600)
        yield remote


@pytest.fixture(scope="module")
def days(remote: Remote, tmp_path_factory: pytest.TempPathFactory) -> Days:
    return Days(remote, tmp_path_factory.mktemp("days"))


def sync_along_the_way_out(project: Project) -> Ran:
    """A sync; where it refuses because control.db is damaged, the one after what `doctor` says to do."""
    ran = project.here("sync", *STREAMS, "--json")
    if "is damaged" in ran.err or "malformed" in ran.err or "not a database" in ran.err:
        check = project.here("doctor", "--json")
        fix = next(event["fix"] for event in check.events if event.get("name") == "control" and event.get("fix"))
        assert "mv " in fix
        for path in project.data.glob("control.db*"):
            path.rename(path.with_name(f"{path.name}.damaged"))
        return project.here("sync", *STREAMS, "--json")
    return ran


CASES = [
    ("lost", None, None),
    (None, "night-1", None),
    (None, None, "cut"),
    ("lost", "lost", None),
    ("cut", None, None),
    ("night-0", None, None),
    (None, "emptied", None),
    (None, "cut", None),
    (None, None, "lost"),
    (None, None, "night-1"),
    ("lost", None, "lost"),
    ("night-0", "night-1", None),
    (None, "night-0", "night-1"),
    ("lost", "night-1", "night-0"),
]


@pytest.mark.parametrize(("control", "warehouse", "archive"), CASES)
def test_s3_s4_s9_whatever_store_is_lost_or_older_the_next_sync_ends_in_the_right_tables(
    days: Days, tmp_path: Path, control: str | None, warehouse: str | None, archive: str | None
) -> None:
    project = days.project(tmp_path)
    for patterns, how in ((CONTROL, control), (WAREHOUSE, warehouse), (ARCHIVE, archive)):
        if how:
            days.harm(project, patterns, how)
    with knobs.smaller_pages(30):
        ran = sync_along_the_way_out(project)
        assert ran.code == 0, ran
        assert days.wrong(project) == []
        again = project.here("sync", *STREAMS, "--json")
    assert again.code == 0, again
    assert again.written == dict.fromkeys(again.written, 0)


@pytest.mark.parametrize(
    ("control", "warehouse", "archive"),
    [("lost", None, None), ("night-0", None, None), (None, "lost", None), ("night-1", "night-0", None)],
)
def test_s14_a_replay_reads_what_the_archive_holds_whatever_the_other_stores_know(
    days: Days, tmp_path: Path, control: str | None, warehouse: str | None, archive: str | None
) -> None:
    project = days.project(tmp_path)
    before = digests(project)
    told = [run for (run,) in project.ask("SELECT run_id FROM meta.runs ORDER BY started_at")]
    for patterns, how in ((CONTROL, control), (WAREHOUSE, warehouse)):
        if how:
            days.harm(project, patterns, how)
    ran = project.here("replay")
    assert ran.code == 0, ran
    after = digests(project)
    assert {name: after[name] for name in before if not name.startswith("meta.")} == {
        name: before[name] for name in before if not name.startswith("meta.")
    }
    runs = project.here("runs", "--json")
    assert [event["name"] for event in reversed(runs.events)][:3] == told
    assert "" not in [event["command"] for event in runs.events]


@pytest.mark.parametrize(("control", "archive"), [("lost", "lost"), (None, "night-0"), (None, "cut")])
def test_s14_a_replay_that_would_lose_rows_needs_consent_and_names_incomplete_streams(
    days: Days, tmp_path: Path, control: str | None, archive: str
) -> None:
    project = days.project(tmp_path)
    if control:
        days.harm(project, CONTROL, control)
    days.harm(project, ARCHIVE, archive)
    with knobs.smaller_pages(30):
        assert project.here("sync", *STREAMS).code == 0
        ran = project.here("replay")
        assert ran.code in (1, 2), ran
        assert "pdsync replay --accept-loss" in ran.err
        assert days.wrong(project) == []
        lossy = project.here("replay", "--accept-loss", "--json")
        assert lossy.code in (0, 4), lossy
        incomplete = {name for name, entry in lossy.summary["streams"].items() if not entry["complete"]}
        assert (lossy.code == 4) == bool(incomplete), lossy
        assert project.here("sync", *STREAMS).code == 0  # what was not whole is read whole
        assert days.wrong(project) == []
        assert project.here("replay").code == 0
        assert days.wrong(project) == []


def test_s14_a_replay_without_the_later_file_of_a_continued_walk_needs_consent(remote: Remote, tmp_path: Path) -> None:
    project = Project(tmp_path / "project", remote)
    with knobs.smaller_pages(3):
        assert project.here("sync", "product_fields", "--budget", "60").code == 3
        walks = project.control("SELECT id FROM walks WHERE state = 'open'")
        assert project.here("sync", "product_fields").code == 0
    [(later,)] = project.control("SELECT file FROM pages ORDER BY served_at DESC, seq DESC LIMIT 1")
    assert project.control("SELECT DISTINCT walk FROM pages WHERE file = ?", later) == walks
    rows = project.ask("SELECT count(*) FROM product_fields")
    for path in (project.data / "raw" / later, *project.data.glob("control.db*")):
        path.unlink()
    ran = project.here("replay")
    assert ran.code == 2, ran
    assert "pdsync replay --accept-loss" in ran.err
    assert project.ask("SELECT count(*) FROM product_fields") == rows


def test_s14_what_a_lost_control_db_named_is_whole_and_nothing_young_is_removed(days: Days, tmp_path: Path) -> None:
    project = days.project(tmp_path)
    pages = project.control("SELECT count(*) FROM pages")[0][0]
    days.harm(project, CONTROL, "lost")
    found = project.here("raw", "verify", "--json")
    assert found.code == 0, found
    assert (found.summary["pages"], found.summary["unindexed"], found.summary["unnamed"]) == (pages, pages, [])
    assert not (project.data / "control.db").exists()
    assert project.here("sync", *STREAMS).code == 0
    files = {path.name for path in (project.data / "raw").iterdir()}
    ran = project.here("raw", "prune", "--yes", "--json")
    assert ran.code == 0, ran
    assert (ran.summary["pages"], ran.summary["unnamed"]) == (0, [])
    assert {path.name for path in (project.data / "raw").iterdir()} == files
    # Also without the warehouse that tells what wrote it: that is refused, and not guessed.
    days.harm(project, WAREHOUSE, "night-0")
    refused = project.here("raw", "prune", "--keep-days", "0", "--yes")
    assert refused.code == 2, refused
    assert {path.name for path in (project.data / "raw").iterdir()} == files


def test_s9_a_run_missing_in_a_restored_control_db_is_still_listed(days: Days, tmp_path: Path) -> None:
    project = days.project(tmp_path)
    told = project.ask("SELECT run_id, command, exit_code FROM meta.runs ORDER BY started_at")
    days.harm(project, CONTROL, "night-0")
    days.harm(project, WAREHOUSE, "night-1")
    with knobs.smaller_pages(30):
        assert project.here("sync", *STREAMS).code == 0
    assert project.ask("SELECT run_id, command, exit_code FROM meta.runs ORDER BY started_at")[:2] == told[:2]
    runs = [event["name"] for event in reversed(project.here("runs", "--json").events)]
    assert runs[:3] == [run for run, *_ in told]


def test_x1_an_archive_of_another_company_is_refused_and_nothing_changes(days: Days, tmp_path: Path) -> None:
    project = days.project(tmp_path)
    facts = {"company": 99, "run": "r", "walk": 5, "stream": "deals", "source": "all", "version": "v2"}
    facts |= {"operation": "getDeals", "since": None, "seq": 0, "next": None, "rows": 0, "context": {}}
    body = zstandard.compress(b'{"success":true,"data":[]}')
    foreign = project.data / "raw" / "20260101T000000-abcdef-12.zst"
    foreign.write_bytes(raw_archive.encode_header(facts | {"served_at": "2026-01-01T00:00:00+00:00"}) + body)
    before = project.kept()
    ran = project.here("sync", *STREAMS)
    assert ran.code == 1, ran
    assert "company 99" in ran.err
    assert foreign.name in ran.err
    assert project.kept() == before
    foreign.unlink()
    with knobs.smaller_pages(30):
        assert project.here("sync", *STREAMS).code == 0
    assert days.wrong(project) == []


async def test_s14_two_walks_with_the_same_id_of_an_older_pdsync_are_kept_apart(tmp_path: Path) -> None:
    settings = config.load(tmp_path, {})
    control = Control(settings.control)
    for number, run in enumerate(("first", "second")):
        walk = Walk(1, run, "deals", "all", "v2", "getDeals", None, None)
        other = Control(tmp_path / f"{run}.db")  # each life had a state of its own
        other.start_run(run, "sync", datetime(2026, 1, 1 + number, tzinfo=UTC))
        with other.transaction() as db:
            db.execute("INSERT INTO walks VALUES (1, ?, 'deals', 'all', 'v2', 'getDeals', NULL, NULL, 'open')", (run,))
        async with Archive(settings.raw, other, run, 42) as archive:
            page = Page(1, 0, b'{"data":[]}', 0, None, datetime(2026, 1, 1 + number, tzinfo=UTC))
            await archive.seal(walk, page)
        other.close()
    stores.index_archive(settings, control, lambda text: None)
    walks = [walk for walk, state in control.walks() if state == "applied"]
    assert [walk.run_id for walk in walks] == ["first", "second"]
    assert len({walk.id for walk in walks}) == 2
    assert [raw_archive.read(settings.raw, page) for page in control.pages()] == [b'{"data":[]}'] * 2
    stores.index_archive(settings, control, lambda text: None)
    assert len(control.walks()) == 2
    control.close()


@pytest.mark.parametrize("how", ["cut", "emptied"])
def test_o4_readers_of_a_damaged_warehouse_see_its_name_and_the_repair(days: Days, tmp_path: Path, how: str) -> None:
    project = days.project(tmp_path)
    assert project.here("queue", "add", "addDeal", "title=After the damage").code == 0
    days.harm(project, ("warehouse.duckdb",), how)
    checked = next(each for each in project.here("doctor", "--json").events if each.get("name") == "warehouse")
    assert not checked["ok"]
    assert "pdsync replay" in checked["fix"]
    for command in (("push", "--dry-run"), ("sql", "select max(update_time), count(*) from deals, deals d")):
        ran = project.here(*command)
        assert ran.code in (1, 2), ran
        assert "This is a bug" not in ran.err
        assert "pdsync" in ran.err
    with knobs.smaller_pages(30):
        assert project.here("sync", *STREAMS).code == 0
    assert days.wrong(project) == []
    assert project.here("push", "--dry-run").code == 0


def test_s9_status_names_the_streams_of_a_lost_warehouse_until_they_are_loaded_again(
    days: Days, tmp_path: Path
) -> None:
    project = days.project(tmp_path)
    days.harm(project, WAREHOUSE, "lost")
    assert project.here("sync", "-q", "deals").code == 0
    assert _incomplete(project) == ["deal_participants", "person_fields", "persons"]
    shown = project.here("status").out
    assert "no gaps" not in shown
    assert "the warehouse was lost, and what it had is in the raw archive only" in shown
    assert project.here("sync", "-q", *STREAMS).code == 0
    assert _incomplete(project) == []
    assert days.wrong(project) == []


def test_s9_status_names_no_stream_that_only_a_lost_control_db_has_forgotten(days: Days, tmp_path: Path) -> None:
    project = days.project(tmp_path)
    days.harm(project, CONTROL, "lost")
    assert project.here("sync", "-q", "deals").code == 0
    assert _incomplete(project) == []
    assert project.here("sync", "-q", *STREAMS).code == 0
    assert days.wrong(project) == []


def _incomplete(project: Project) -> list[str]:
    (state,) = [each for each in project.here("status", "--json").events if each["name"] == "status"]
    found: list[str] = state["incomplete"]
    return found
