"""A project that an older pdsync made opens unchanged: it is synced, replayed, pushed and undone as if made today.

The project and the company it belongs to are in tests/fixtures/project_before_house.tar.xz; the script beside it says
from which version they are. No time of this machine is compared with a time in it, so its age does not matter.
"""

from __future__ import annotations

import json
import tarfile
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from pdsync.load.fingerprint import canonical
from pdsync.sandbox import Limits, Sizes, generate_company, running
from pdsync.sandbox.company.table import Table
from tests.support.truth import BLIND, differences
from tests.support.world import Project, Remote, broken_history

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pdsync.load.fingerprint import Digest
    from pdsync.sandbox import Company, RunningSandbox

pytestmark = pytest.mark.proof

FIXTURE = Path(__file__).parents[1] / "fixtures" / "project_before_house.tar.xz"
PUSHED_TITLE, PUSHED_NAME = "Pushed by the older version", "Pushed Person"
WAITING = ["updateDeal", "addPerson", "addNote"]


def company_of(state: dict[str, Any]) -> Company:
    """The company as the older project last saw it, whatever today's sandbox would make of the seed."""
    company = generate_company(
        state["seed"], Sizes(**state["sizes"]), now=datetime.fromisoformat(state["born"]),
        company_id=state["company_id"],
    )  # fmt: skip
    company.clock.advance((datetime.fromisoformat(state["now"]) - company.clock.now()).total_seconds())
    for kind, entries in state["tables"].items():
        table = company.tables[kind] = Table(company.tables[kind].resource)
        for entry in entries:
            row = table.row(entry["record"], entry["state"], entry.get("extra"), entry.get("hidden"))
            table.put(row)
            if entry["state"] in ("purged", "merged"):
                table.remove(row.id, entry["state"], entry["merged_into"])
    return company


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


@pytest.fixture
def box(unpacked: Path) -> Iterator[RunningSandbox]:
    company = company_of(json.loads((unpacked / "company.json").read_text()))
    with running(company, limits=Limits(burst=None, search_burst=None, daily_tokens=None)) as box:
        yield box


@pytest.fixture
def project(unpacked: Path, box: RunningSandbox) -> Project:
    return Project(unpacked / "project", Remote(box.url, box.token))


def digests(project: Project) -> dict[str, Digest]:
    with closing(duckdb.connect(str(project.data / "warehouse.duckdb"), read_only=True)) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return canonical(connection)


def requests_of(box: RunningSandbox, *, writes: bool = False) -> list[str | None]:
    return [entry.operation for entry in box.log if (entry.method != "GET") is writes]


def listed(project: Project) -> list[dict[str, Any]]:
    return project.here("queue", "list", "--json").events


def test_status_runs_and_views_of_an_older_project_are_shown(project: Project, box: RunningSandbox) -> None:
    status = project.here("status", "--json")
    assert status.code == 0, status
    runs = project.here("runs", "--json").events
    assert [run["complete"] for run in runs] == [True] * len(runs)
    assert len(runs) >= 2
    won = sum(row["record"]["status"] == "won" for row in box.dump("deals") if row["state"] in ("live", "archived"))
    query = "SELECT count(*) AS won FROM labeled.deals WHERE status = 'won' AND _deleted_at IS NULL"
    ran = project.here("sql", query, "--json")
    assert ran.events[0]["won"] == won
    assert requests_of(box) == []


def test_s3_sync_of_an_older_project_goes_on_where_it_stopped(project: Project, box: RunningSandbox) -> None:
    rows = dict(project.ask("SELECT id, _run_id FROM deals"))
    versions = project.ask("SELECT id, _valid_from FROM history.deals WHERE _valid_to IS NOT NULL ORDER BY ALL")
    box.clock.advance(3600)
    made = box.change(records=1, seed=2, kinds=["deals", "persons"], only=["updated"])
    box.clock.advance(3600)
    ran = project.here("sync", "--json")
    assert ran.code == 0, ran
    assert any("updated_since" in entry.query for entry in box.log if entry.operation == "getDeals")
    changed = {id for id, run in project.ask("SELECT id, _run_id FROM deals") if run != rows[id]}
    assert set(made["deals"]["updated"]) <= changed
    assert "leads" not in ran.summary["streams"]  # the project's own pipeline says which streams
    assert ran.summary["streams"]["deals"]["read"] < len(rows)
    assert ran.written["deals"] < len(rows)
    with project.warehouse() as warehouse:
        for stream in ("deals", "persons", "organizations", "activities", "products"):
            truth = box.dump(stream)
            gone = {row["id"] for row in truth if row["state"] not in ("live", "archived")}
            assert differences(warehouse, stream, truth, leave_out=BLIND.get(stream, ()), gone=gone) == []
    kept = project.ask("SELECT id, _valid_from FROM history.deals WHERE _valid_to IS NOT NULL ORDER BY ALL")
    assert set(versions) <= set(kept)
    assert broken_history(project) == []


def test_s14_replay_of_an_older_archive_gives_the_same_tables(project: Project, box: RunningSandbox) -> None:
    watermarks = "SELECT stream, source, version, watermark FROM meta.checkpoints ORDER BY ALL"
    before, read_until = digests(project), project.ask(watermarks)
    (project.data / "warehouse.duckdb").unlink()
    (project.data / "warehouse.work.duckdb").unlink()
    ran = project.here("replay", "--json")
    assert ran.code == 0, ran
    after = digests(project)
    # This version knows of a list that one page shows whole that it was read whole: `full_at` may be later.
    assert before.pop("meta.checkpoints").rows == after.pop("meta.checkpoints").rows
    assert after == before
    assert project.ask(watermarks) == read_until
    assert len(before) > 10
    assert requests_of(box) == []


def test_w2_the_queue_of_an_older_project_is_sent_once_and_its_push_undone(
    project: Project, box: RunningSandbox
) -> None:
    waiting = [each for each in listed(project) if each["state"] == "queued"]
    assert [each["operation_id"] for each in waiting] == WAITING
    title = project.ask("SELECT title FROM history.deals WHERE id = 2 ORDER BY _valid_from")[-2][0]
    undone = project.here("undo", "last", "--json")
    assert undone.code == 0, undone
    assert undone.summary["queued"] == 2
    ran = project.here("push", "--yes", "--json")
    assert ran.code == 0, ran
    assert ran.summary["mutations"]["applied"] == len(WAITING) + 2
    writes = requests_of(box, writes=True)
    assert sorted(map(str, writes)) == sorted([*WAITING, "updateDeal", "updatePerson"])
    deals = {row["id"]: row["record"] for row in box.dump("deals")}
    assert (deals[2]["title"], deals[3]["value"]) == (title, 4711)
    names = [row["record"]["name"] for row in box.dump("persons") if row["state"] == "live"]
    assert (names.count("Queued Person"), names.count(PUSHED_NAME)) == (1, 0)
    titles = [row[0] for row in project.ask("SELECT title FROM history.deals WHERE id = 2 ORDER BY _valid_from")]
    assert titles[-2:] == [PUSHED_TITLE, title]
    again = project.here("push", "--yes", "--json")
    assert again.code == 0, again
    assert requests_of(box, writes=True) == writes
