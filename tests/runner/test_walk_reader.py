"""What a walk requests: from which time on, and the values of parameters that stand for days."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from pdsync.core import catalogue
from pdsync.errors import DependentsBudgetSpent, Forbidden
from pdsync.extract import long_list
from pdsync.model import Page, StreamReceipt
from pdsync.runner.report.receipt import count_changes
from pdsync.runner.session import OnlineSession
from pdsync.runner.sync import walk_loader, walk_reader
from pdsync.runner.sync.sync_request import SyncRequest
from pdsync.runner.sync.walk_reader import WalkReader, _uninterrupted, param_value
from tests.runner.kit import T0, deal, encode, load, open_session
from tests.support import knobs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from pdsync.model import Operation, Stream, Walk
    from pdsync.runner.session import Event
    from pdsync.sandbox import RunningSandbox

DEALS = catalogue.stream("deals")
LIVE = DEALS.v2[0]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("open", "open"),
        ("2026-01-01", "2026-01-01"),
        ("@today", "2026-03-31"),
        ("@month_start", "2026-03-01"),
        ("@month_ago", "2026-03-01"),
        ("@year_ago", "2025-03-31"),
    ],
)
def test_a_name_with_an_at_sign_is_a_day_by_the_servers_clock(text: str, value: str) -> None:
    assert param_value(text, date(2026, 3, 31)) == value


def test_an_unknown_day_is_an_error() -> None:
    with pytest.raises(KeyError):
        param_value("@yesterday", date(2026, 3, 31))


@pytest.fixture
async def session(box: RunningSandbox, tmp_path: Path) -> AsyncIterator[OnlineSession]:
    async with open_session(tmp_path, box) as opened:
        yield opened
    box.faults.clear()


async def begin(session: OnlineSession, *records: dict[str, Any], following: str | None, run: str = "") -> Walk:
    """A walk of which an interrupted run has sealed one page."""
    walk = session.control.open_walk(run or session.receipt.run_id, "deals", LIVE.name, "v2", LIVE.operation, None)
    page = Page(walk.id, 0, encode(records), len(records), following, T0)
    await session.archive.seal(replace(walk, started_at=T0), page)
    return session.control.walk(walk.id)


def states(session: OnlineSession) -> list[str]:
    return [state for _, state in sorted(session.control.walks(), key=lambda each: each[0].id)]


def requests(box: RunningSandbox) -> list[str]:
    return [entry.operation or entry.path for entry in box.log]


async def test_s3_changes_are_requested_from_the_last_walk_on_less_an_overlap(session: OnlineSession) -> None:
    overlap = timedelta(seconds=session.settings.overlap_s)
    assert (await WalkReader(session)._begin_walk(DEALS, LIVE, "v2")).since is None  # never read
    await load(session, "deals", deal(1, T0 - timedelta(days=1)), deal(2, T0))
    since = T0 - overlap
    for request, expected in (
        (SyncRequest(), since), (SyncRequest(full=True), None), (SyncRequest(refetch=("deals",)), None),
        (SyncRequest(since=T0 - timedelta(days=9)), T0 - timedelta(days=9)),
        # It would move the watermark, so it begins with the overlap. A later one moves nothing.
        (SyncRequest(since=since + timedelta(seconds=1)), since), (SyncRequest(since=T0), since),
        (SyncRequest(since=T0 + timedelta(seconds=1)), T0 + timedelta(seconds=1)),
    ):  # fmt: skip
        assert (await WalkReader(session, request)._begin_walk(DEALS, LIVE, "v2")).since == expected


async def test_s4_what_one_version_of_the_api_has_read_says_nothing_of_the_other(session: OnlineSession) -> None:
    await load(session, "deals", deal(1, T0))
    assert DEALS.v1[0].name == LIVE.name
    assert (await WalkReader(session)._begin_walk(DEALS, DEALS.v1[0], "v1")).since is None


async def test_s15_a_walk_goes_on_after_its_last_sealed_page(session: OnlineSession, box: RunningSandbox) -> None:
    walk = await begin(session, deal(1), following=None)
    session.control.end_walk(walk.id, "sealed")
    box.clear_log()
    assert await WalkReader(session).read_walk(DEALS, LIVE, walk, is_sealed=True)
    assert requests(box) == []
    assert states(session) == ["applied"]


async def test_s15_an_expired_cursor_begins_the_list_again_once(session: OnlineSession, box: RunningSandbox) -> None:
    walk = await begin(session, deal(1), following="no-cursor-of-this-list")
    box.clear_log()
    session.progress["deals"] = StreamReceipt()
    assert await WalkReader(session).read_walk(DEALS, LIVE, walk)
    assert states(session) == ["dropped", "applied"]
    assert len(requests(box)) == 2


async def test_a_missing_right_is_no_expired_cursor(session: OnlineSession, box: RunningSandbox) -> None:
    walk = await begin(session, deal(1), following="x")
    box.faults.add(kind="permission_403", path="/deals")
    session.progress["deals"] = StreamReceipt()
    with pytest.raises(Forbidden):
        await WalkReader(session).read_walk(DEALS, LIVE, walk)
    assert states(session) == ["dropped"]


async def test_s1_s4_a_list_that_loses_its_order_while_it_is_read_in_windows_is_read_again_with_one_cursor(
    session: OnlineSession, box: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_list, "LONG", 3)
    unordered = "sort_by=update_time&.*cursor="
    box.faults.add(kind="mutate", path=unordered, find='"update_time":"20..', replace='"update_time":"2099')
    box.clear_log()
    progress = session.progress["deals"] = StreamReceipt()
    with knobs.smaller_pages(1):
        await WalkReader(session).read_source(DEALS, LIVE, "v2", is_done=False)
    assert states(session) == ["dropped", "applied"]
    orders = ["sort_by=id" in entry.query for entry in box.log]
    assert orders[:2] == [True, False]
    assert not all(orders[2:-8])
    assert all(orders[-8:])
    assert session.loader.connection.execute("SELECT count(*), count(DISTINCT id) FROM deals").fetchone() == (8, 8)
    assert progress.inserted == 8


CHANGES = catalogue.stream("deal_changelog")


@pytest.mark.parametrize("end", ["share", "error", "interruption"])
async def test_s1_what_was_read_before_a_run_ended_is_in_the_table(
    box: RunningSandbox, tmp_path: Path, end: str
) -> None:
    box.faults.clear()
    version, (source,) = CHANGES.sources("v2")
    rows = "SELECT count(*), count(DISTINCT id) FROM deal_changelog"
    async with open_session(tmp_path, box, run="run") as session:
        await session.loader.do(session.loader.table, CHANGES, version)
        await load(session, "deals", *map(deal, range(1, 9)))
        progress = session.progress["deal_changelog"] = StreamReceipt()
        if end == "share":
            session.settings = replace(session.settings, daily_tokens=1000, dependents_share=6)
        elif end == "error":
            box.faults.add(kind="permission_403", path="/deals/5/changelog")
        reading = asyncio.create_task(WalkReader(session).read_source(CHANGES, source, version, is_done=False))

        def cancel_after_three(event: Event) -> None:
            if progress.requests == 3 and not reading.cancelling():
                reading.cancel()

        if end == "interruption":
            session.on_event = cancel_after_three
        with pytest.raises({"share": DependentsBudgetSpent, "error": Forbidden}.get(end, asyncio.CancelledError)):
            await reading
        assert progress.requests == 3
        shown = session.loader.connection.execute(rows).fetchone()
        assert shown == (progress.read, progress.read)
        assert progress.inserted == progress.read > 0
        counted = count_changes(session.loader, "run")["deal_changelog"]
        assert (counted.read, counted.inserted) == (progress.read, progress.read)
    box.faults.clear()
    async with open_session(tmp_path, box, run="run") as session:
        await session.loader.do(session.loader.table, CHANGES, version)
        later = session.progress["deal_changelog"] = StreamReceipt()
        await WalkReader(session).read_source(CHANGES, source, version, is_done=False)
        assert later.requests == (8 if end == "error" else 5)  # a refused walk begins again
        total = session.loader.connection.execute(rows).fetchone()
        assert total is not None
        assert total[0] == total[1] == progress.inserted + later.inserted > progress.inserted


@pytest.mark.parametrize("interruptions", [0, 1, 2])
async def test_s1_an_interruption_waits_for_what_is_being_loaded_and_a_second_one_does_not(interruptions: int) -> None:
    released, is_done = asyncio.Event(), False

    async def work() -> None:
        nonlocal is_done
        await released.wait()
        is_done = True

    task = asyncio.create_task(_uninterrupted(work()))
    for _ in range(interruptions):
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
    released.set()
    ended = await asyncio.gather(task, return_exceptions=True)
    assert is_done is (interruptions < 2)
    assert isinstance(ended[0], asyncio.CancelledError) is (interruptions > 0)


async def test_s1_a_walk_whose_sealed_pages_are_lost_is_dropped(session: OnlineSession, box: RunningSandbox) -> None:
    walk = await begin(session, deal(1), following=None)
    for path in session.settings.raw.glob("*.zst"):
        path.unlink()
    notes: list[str] = []
    session.on_event = lambda event: notes.append(event.text)
    assert not await WalkReader(session).read_walk(DEALS, LIVE, walk, is_sealed=True)
    assert states(session) == ["dropped"]
    assert "The lost pages are read again" in notes[0]


async def test_s9_the_sealed_walk_of_an_older_run_does_not_make_this_run_complete(session: OnlineSession) -> None:
    done: set[tuple[str, str]] = set()
    for run in ("older", ""):
        walk = await begin(session, deal(1), following=None, run=run)
        session.control.end_walk(walk.id, "sealed")
        await WalkReader(session).load_left_over(DEALS, done)
        assert done == (set() if run else {("deals", LIVE.name)})


async def test_lists_that_are_read_together_share_what_may_wait_for_the_loader(
    session: OnlineSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many long lists there are, their pages take no more memory than a few lists' may."""
    names, most = ("deals", "persons", "organizations", "products"), 5_000
    monkeypatch.setattr(walk_reader, "_AHEAD_OF_ALL", most)
    session.progress.update({name: StreamReceipt() for name in names})
    reader, waiting, pages, loaded = WalkReader(session), list[int](), list[int](), list[str]()
    record_page, load = OnlineSession.record_page, walk_loader.load

    def look(self: OnlineSession, name: str, operation: Operation, page: Page) -> None:
        waiting.append(sum(len(each.body) for fetched in reader._fetched for each in fetched.waiting))
        pages.append(len(page.body))
        record_page(self, name, operation, page)

    async def note(session: OnlineSession, stream: Stream, walk: Walk, pages: Sequence[Page]) -> None:
        loaded.append(stream.name)
        await load(session, stream, walk, pages)

    monkeypatch.setattr(OnlineSession, "record_page", look)
    monkeypatch.setattr(walk_loader, "load", note)
    with knobs.smaller_pages(1):
        streams = [catalogue.stream(name) for name in names]
        reads = [reader.read_source(stream, stream.v2[0], "v2", is_done=False) for stream in streams]
        await asyncio.gather(*reads)

    assert sum(pages) > 2 * most
    assert most / 2 < max(waiting) <= most + len(names) * max(pages)
    assert max(Counter(loaded).values()) > 1  # without the limit: once, as all lists are short
