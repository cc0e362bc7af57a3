"""What one run leaves, another one finds: walks, failed parents, and what an earlier token could not see."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from msgspec.structs import replace

from pdsync.core import catalogue, config
from pdsync.core.http import Http
from pdsync.model import Page
from pdsync.runner.archive.replay import replay as replay_archive
from pdsync.runner.status import measure_status
from pdsync.runner.sync.sync import SyncRun, sync
from pdsync.runner.sync.sync_request import SyncRequest
from pdsync.sandbox import Limits, Sizes, generate_company, running
from tests.runner.kit import T0, encode, open_session
from tests.support.knobs import smaller_pages

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pdsync.model import Receipt
    from pdsync.runner.session import OnlineSession
    from pdsync.sandbox import RunningSandbox


class Project:
    """A project that is synced with the sandbox several times."""

    def __init__(self, folder: Path, box: RunningSandbox) -> None:
        folder.mkdir()
        self.box, self.settings = box, config.load(folder, {"account.base_url": box.url, "limits.burst": 0})

    async def sync(self, *names: str, **more: Any) -> Receipt:
        return await sync(self.settings, SyncRequest(names, **more))

    def ask(self, query: str) -> list[Any]:
        with duckdb.connect(str(self.settings.warehouse), read_only=True) as warehouse:
            return warehouse.execute(query).fetchall()


@pytest.fixture
def company(monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningSandbox]:
    """A company with line items, and pages of ten."""
    made = generate_company(seed=3, sizes=Sizes(deals=40, files=1, mail_threads=1, activities=1), now=datetime.now(UTC))
    monkeypatch.setitem(Http.__init__.__kwdefaults__ or {}, "backoff_s", 0.001)
    with running(made, limits=Limits(burst=None, daily_tokens=None)) as box, smaller_pages(10):
        monkeypatch.setenv("PDSYNC_API_TOKEN", box.token)
        yield box


@pytest.fixture
def project(company: RunningSandbox, tmp_path: Path) -> Project:
    return Project(tmp_path / "project", company)


async def read(session: OnlineSession, *names: str) -> Receipt:
    await SyncRun(session, SyncRequest(names)).read_all([catalogue.stream(name) for name in names])
    return session.receipt


def fail_after_a_page(box: RunningSandbox) -> None:
    box.faults.add(kind="status", status=503, path=r"/v2/deals\?", nth=2, times=99)


@pytest.mark.parametrize("is_replayed", [False, True])
async def test_s4_s14_after_a_replay_the_line_items_of_deals_that_came_late_are_read(
    project: Project, company: RunningSandbox, tmp_path: Path, is_replayed: bool
) -> None:
    fail_after_a_page(company)
    await project.sync("deals")
    company.faults.clear()
    company.clock.advance(3600)
    await project.sync("deal_products")
    company.clock.advance(3600)
    await project.sync("deals")  # continues the walk of the first run
    if is_replayed:
        await replay_archive(project.settings)
    company.clock.advance(3600)
    assert (await project.sync("deal_products")).exit_code == 0
    whole = Project(tmp_path / "whole", company)
    await whole.sync("deals", "deal_products")
    query = "SELECT id FROM deal_products ORDER BY id"
    assert project.ask(query) == whole.ask(query)


async def test_s9_a_list_is_not_complete_where_that_of_its_parents_failed(
    project: Project, company: RunningSandbox
) -> None:
    fail_after_a_page(company)
    receipt = await project.sync("deals", "deal_products", "stages")
    assert {gap.stream for gap in receipt.gaps} == {"deals", "deal_products"}
    assert {name for name, entry in receipt.streams.items() if entry.complete} == {"deal_fields", "stages"}
    company.faults.clear()
    assert (await project.sync("deals", "deal_products")).exit_code == 0


async def test_s9_what_a_killed_run_has_sealed_counts_for_the_run_that_loads_it(
    company: RunningSandbox, tmp_path: Path
) -> None:
    async with open_session(tmp_path, company) as session:  # ends without a receipt
        walk = session.control.open_walk(session.receipt.run_id, "stages", "all", "v2", "getStages", None)
        body = encode([{"id": 99, "name": "x"}, {"id": {}}])
        await session.archive.seal(replace(walk, started_at=T0), Page(walk.id, 0, body, 2, None, T0))
    async with open_session(tmp_path, company) as session:
        receipt = await read(session, "stages")
        [(rows,)] = session.loader.connection.execute("SELECT count(*) FROM stages").fetchall()
    assert receipt.streams["stages"].inserted == rows
    assert [(gap.stream, gap.kind) for gap in receipt.gaps] == [("stages", "quarantined")]
    assert receipt.exit_code == 1


async def test_s9_records_that_an_earlier_token_could_not_see_are_read_with_an_administrators(
    project: Project, company: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PDSYNC_API_TOKEN", company.tokens["member"])
    await project.sync("deals", "persons")
    monkeypatch.setenv("PDSYNC_API_TOKEN", company.token)
    company.clock.advance(3600)
    receipt = await project.sync("deals")
    assert receipt.is_admin
    assert receipt.exit_code == 0
    assert project.ask("SELECT count(*) FROM deals") == [(len(company.dump("deals")),)]
    notices = measure_status(project.settings, datetime.now(UTC)).notices
    commands = [each.command for each in notices if "earlier token" in each.problem]
    assert commands == ["pdsync sync person_fields persons"]


async def test_s9_a_run_is_not_continued_with_the_token_of_an_administrator_if_it_was_a_members(
    project: Project, company: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PDSYNC_API_TOKEN", company.tokens["member"])
    first = await project.sync("deals", "deal_followers", budget=200)
    assert first.exit_code == 3
    assert first.streams["deals"].complete
    monkeypatch.setenv("PDSYNC_API_TOKEN", company.token)
    assert (await project.sync("deals", "deal_followers")).exit_code == 0
    assert project.ask("SELECT count(*) FROM deals") == [(len(company.dump("deals")),)]


async def test_s9_a_run_that_is_continued_with_the_other_api_reads_its_lists(project: Project) -> None:
    project.settings = replace(project.settings, api="v1")
    first = await project.sync("deals", "deal_followers", budget=400)
    assert first.exit_code == 3
    assert first.streams["deals"].complete
    project.settings = replace(project.settings, api="v2")
    second = await project.sync("deals", "deal_followers")
    assert (second.run_id, second.exit_code) == (first.run_id, 0)
    assert project.ask("SELECT count(*) FROM meta.checkpoints WHERE stream = 'deals' AND version = 'v2'") == [(2,)]
