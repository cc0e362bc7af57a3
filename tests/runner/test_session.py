"""A session takes the lock, publishes what the job loaded, and leaves the warehouse alone when the job fails."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING

import duckdb
import pytest
from aiohttp import web
from msgspec.structs import replace

from pdsync.core import catalogue, config
from pdsync.core.control import Control
from pdsync.errors import ConfigError, ProjectLocked, WrongCompany
from pdsync.extract.raw_archive import Archive
from pdsync.load.commit import Counts
from pdsync.model import Page, Receipt, StreamReceipt
from pdsync.runner import project
from pdsync.runner.report.receipt import StreamEnd, begin_receipt, conclude
from pdsync.runner.session import Event, Session, begin_run, open_offline_session, open_session
from tests.core.servers import server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pdsync.core.config import Settings

T0 = datetime(2026, 11, 22, 12, tzinfo=UTC)
DEALS = catalogue.stream("deals")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "pdsync.toml").write_text("")
    return config.load(tmp_path)


def begin(control: Control) -> Receipt:
    receipt = begin_receipt("load --stream deals")
    control.start_run(receipt.run_id, receipt.command, receipt.started_at)
    return receipt


async def load_deal(settings: Settings, number: int, *, company_id: int | None = 1, fails: bool = False) -> None:
    async with open_offline_session(settings, begin, company_id=company_id) as session:
        walk = session.control.open_walk(session.receipt.run_id, "deals", "live", "v2", "getDeals", None)
        walk = replace(walk, started_at=T0)
        page = Page(walk.id, 0, b'{"data": [{"id": %d}]}' % number, 1, None, T0)
        await session.archive.seal(walk, page)
        await session.loader.add(DEALS, walk, [page])
        if fails:
            raise ConfigError("the job failed")
        session.control.end_walk(walk.id, "applied")
        conclude(session.receipt, {"deals": StreamEnd(StreamReceipt())})


def published(settings: Settings) -> list[int]:
    with duckdb.connect(str(settings.warehouse), read_only=True) as connection:
        return [row[0] for row in connection.execute("SELECT id FROM deals ORDER BY id").fetchall()]


async def test_s9_what_a_job_loaded_is_published_with_its_receipt(settings: Settings) -> None:
    await load_deal(settings, 1)
    await load_deal(settings, 2, company_id=None)  # the project knows its company now
    assert published(settings) == [1, 2]
    with duckdb.connect(str(settings.warehouse), read_only=True) as connection:
        assert connection.execute("SELECT count(*), bool_and(complete) FROM meta.runs").fetchall() == [(2, True)]


async def test_s1_a_job_that_fails_publishes_nothing_and_its_pages_are_loaded_by_the_next(settings: Settings) -> None:
    await load_deal(settings, 1)
    with pytest.raises(ConfigError, match="the job failed"):
        await load_deal(settings, 2, fails=True)
    assert published(settings) == [1]
    await load_deal(settings, 3)  # the lock was given back
    assert 3 in published(settings)


async def test_x5_a_project_of_no_company_or_another_is_refused(settings: Settings) -> None:
    with pytest.raises(ConfigError, match="--company"):
        await load_deal(settings, 1, company_id=None)
    await load_deal(settings, 1, company_id=7)
    with pytest.raises(WrongCompany):
        await load_deal(settings, 2, company_id=8)
    assert published(settings) == [1]


async def test_s10_one_job_at_a_time(settings: Settings) -> None:
    with project.locked(settings), pytest.raises(ProjectLocked):
        await load_deal(settings, 1)


async def test_s3_o5_a_session_begins_after_the_newest_page_though_the_server_s_clock_was_set_back(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    with project.locked(settings) as control:
        control.bind_company(1, "Acme", None)
        receipt = begin(control)
        async with Archive(settings.raw, control, receipt.run_id, 1) as archive:
            walk = control.open_walk(receipt.run_id, "deals", "live", "v2", "getDeals", None)
            await archive.seal(walk, Page(walk.id, 0, b'{"data": []}', 0, None, now))

    async def answer(request: web.BaseRequest) -> web.Response:
        body = b'{"success": true, "data": {"id": 1, "name": "Ada", "company_id": 1}}'
        return web.Response(body=body, content_type="application/json", headers={"Date": yesterday})

    yesterday = format_datetime(now - timedelta(days=1), usegmt=True)
    monkeypatch.setenv("PDSYNC_API_TOKEN", "c4n4ry-0123456789abcdef")
    async with server(answer) as url:
        settings = replace(settings, base_url=url)
        async with open_session(settings, lambda control, began: begin(control), lambda event: None) as session:
            assert session.began > now


async def test_progress_counts_pages_and_changes(settings: Settings) -> None:
    events: list[Event] = []
    async with open_offline_session(settings, begin, company_id=1) as opened:
        session = Session(
            settings=settings, control=opened.control, loader=opened.loader, archive=opened.archive,
            receipt=opened.receipt, on_event=events.append,
        )  # fmt: skip
        session.progress["deals"] = StreamReceipt()
        operation = catalogue.operation("getDeals", "v2")
        session.record_page("deals", operation, Page(1, 0, b"", 50, "next", T0))
        session.record_changes("deals", Counts(read=50, inserted=40, unchanged=10))
        session.record_changes("deals", None)  # no batch was complete
        entry = session.progress["deals"]
        assert (entry.requests, entry.tokens, entry.read) == (1, operation.cost, 50)
        assert (entry.inserted, entry.unchanged) == (40, 10)
        assert [event.kind for event in events] == ["page", "page"]
        conclude(opened.receipt, {})


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    opened = Control(tmp_path / "control.db")
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("exit_code", "age", "command", "is_continued"),
    [
        (None, timedelta(minutes=5), "sync", True),  # killed
        (3, timedelta(minutes=5), "sync", True),  # out of budget
        (130, timedelta(minutes=5), "sync", True),  # interrupted
        (0, timedelta(minutes=5), "sync", False),
        (1, timedelta(minutes=5), "sync", False),
        (4, timedelta(minutes=5), "sync", False),
        (None, timedelta(minutes=61), "sync", False),
        (None, timedelta(minutes=5), "sync deals", False),
    ],
)
def test_s1_a_run_that_was_cut_short_is_continued_within_the_hour(
    control: Control, exit_code: int | None, age: timedelta, command: str, is_continued: bool
) -> None:
    last = replace(begin_receipt("sync"), started_at=datetime.now(UTC) - age)
    control.start_run(last.run_id, last.command, last.started_at)
    if exit_code is not None:
        control.finish_run(replace(last, finished_at=datetime.now(UTC), exit_code=exit_code))
    receipt = begin_run(control, command)
    assert receipt.resumed is is_continued
    assert (receipt.run_id == last.run_id) is is_continued


def test_only_the_last_run_is_continued(control: Control) -> None:
    for command in ("sync", "sync deals"):
        receipt = begin_receipt(command)
        control.start_run(receipt.run_id, receipt.command, receipt.started_at)
    assert not begin_run(control, "sync").resumed
