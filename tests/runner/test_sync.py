"""A sync reads definitions before the records that they describe; one stream fails without the others."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from pdsync.core import catalogue, config
from pdsync.core.http import Http
from pdsync.runner.loader import Loader
from pdsync.runner.sync.sync import SyncRun, sync
from pdsync.runner.sync.sync_request import SyncRequest
from pdsync.sandbox import Limits, Sizes, generate_company, running
from tests.runner.kit import open_session
from tests.support.knobs import smaller_pages

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pdsync.load.commit import Counts
    from pdsync.model import Page, Receipt, Stream, Walk
    from pdsync.runner.session import Event, OnlineSession
    from pdsync.sandbox import RunningSandbox

NAMES = ("stages", "deal_fields", "deals", "deal_products", "users")


@pytest.fixture
def faults(box: RunningSandbox) -> Iterator[Any]:
    """The faults of the company, which end with the test."""
    yield box.faults
    box.faults.clear()


async def read(session: OnlineSession, *names: str) -> Receipt:
    await SyncRun(session, SyncRequest(names)).read_all([catalogue.stream(name) for name in names])
    return session.receipt


async def test_s16_pages_are_loaded_with_their_definitions_and_children_come_last(
    box: RunningSandbox, faults: Any, tmp_path: Path
) -> None:
    events: list[Event] = []
    faults.add(kind="latency", ms=300.0, path="/dealFields")  # the deals are read before it answers
    async with open_session(tmp_path, box) as session:
        session.on_event = events.append
        receipt = await read(session, *NAMES)
        connection = session.loader.connection
        fields = {row[0] for row in connection.execute("SELECT column_name FROM meta.custom_fields").fetchall()}
        assert fields
        assert fields <= {row[0] for row in connection.execute("DESCRIBE main.deals").fetchall()}
        assert connection.execute("SELECT count(*) FROM meta.quarantine").fetchone() == (0,)
    steps = [(event.kind, event.stream) for event in events if event.kind in ("started", "finished")]
    assert steps.index(("finished", "deal_fields")) < steps.index(("finished", "deals"))
    assert max(steps.index(("finished", name)) for name in NAMES[:3]) < steps.index(("started", "deal_products"))
    assert (receipt.exit_code, receipt.complete, set(receipt.streams)) == (0, True, set(NAMES))


async def test_s1_a_first_sync_loads_each_page_once_also_if_it_is_sealed_before_the_definitions_are_read(
    box: RunningSandbox, faults: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = Counter[tuple[int, int]]()
    add = Loader.add

    async def counting(self: Loader, stream: Stream, walk: Walk, pages: Sequence[Page]) -> Counts | None:
        loaded.update((walk.id, page.seq) for page in pages)
        return await add(self, stream, walk, pages)

    monkeypatch.setattr(Loader, "add", counting)
    faults.add(kind="latency", ms=300.0, path="/dealFields")
    async with open_session(tmp_path, box) as session:
        receipt = await read(session, *NAMES)
    assert receipt.complete
    assert set(loaded.values()) == {1}


async def test_s9_s10_a_stream_that_fails_leaves_the_others(box: RunningSandbox, faults: Any, tmp_path: Path) -> None:
    faults.add(kind="permission_403", path="/stages")
    async with open_session(tmp_path, box) as session:
        receipt = await read(session, *NAMES)
    assert [(gap.stream, gap.kind) for gap in receipt.gaps] == [("stages", "forbidden")]
    assert {name for name, entry in receipt.streams.items() if entry.complete} == set(NAMES) - {"stages"}
    assert receipt.exit_code == 4


async def test_l3_an_exhausted_budget_stops_what_has_not_begun(
    box: RunningSandbox, faults: Any, tmp_path: Path
) -> None:
    faults.add(kind="daily_429", path="/dealFields")
    box.clear_log()
    async with open_session(tmp_path, box) as session:
        receipt = await read(session, *NAMES)
        assert not session.loader.has_been_synced(catalogue.stream("deals"))  # nor loaded without its definitions
    assert receipt.exit_code == 3
    assert {gap.kind for gap in receipt.gaps} == {"stopped"}
    assert {"deal_fields", "deals", "deal_products"} <= {gap.stream for gap in receipt.gaps}
    assert not any("products" in entry.path for entry in box.log)  # what needs none of them may have begun


@pytest.mark.parametrize("was_synced", [False, True])
async def test_s9_a_stream_outside_the_plan_is_a_gap_only_if_it_was_read_before(
    box: RunningSandbox, faults: Any, tmp_path: Path, was_synced: bool
) -> None:
    async with open_session(tmp_path, box) as session:
        if was_synced:
            await read(session, "stages")
        faults.add(kind="status", status=402, path="/stages", body='{"success": false, "error": "not in your plan"}')
        session.receipt.run_id, session.receipt.gaps, session.receipt.resumed = "next", [], False
        receipt = await read(session, "stages")
    assert receipt.streams["stages"].complete is not was_synced
    assert ("plan" in (receipt.streams["stages"].note or "")) is not was_synced
    assert receipt.exit_code == (4 if was_synced else 0)


async def test_s6_streams_that_take_turns_wait_for_theirs_unless_they_are_named_or_left_a_gap(
    box: RunningSandbox, faults: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PDSYNC_API_TOKEN", box.token)
    settings = config.load(tmp_path, {"account.base_url": box.url, "limits.burst": 0})
    names = ("currencies", "stages", "webhooks")
    in_turn = SyncRequest(names, are_named=False)
    first, second = await sync(settings, in_turn), await sync(settings, in_turn)
    assert (tuple(first.streams), first.deferred) == (names, [])
    assert (tuple(second.streams), second.deferred, second.complete) == (("stages",), ["currencies", "webhooks"], True)
    faults.add(kind="permission_403", path="/webhooks")
    named = await sync(settings, SyncRequest(names))
    assert (tuple(named.streams), [gap.stream for gap in named.gaps]) == (names, ["webhooks"])
    faults.clear()
    assert tuple((await sync(settings, in_turn)).streams) == ("stages", "webhooks")


async def test_l5_archived_leads_wait_for_their_turn_until_a_lead_is_archived(
    box: RunningSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PDSYNC_API_TOKEN", box.token)
    settings = config.load(tmp_path, {"account.base_url": box.url, "limits.burst": 0})
    in_turn = SyncRequest(("leads",), are_named=False)

    async def read(request: SyncRequest = in_turn) -> bool:
        """Whether a sync requests the archived leads."""
        box.clear_log()
        box.clock.advance(1)
        receipt = await sync(settings, request)
        assert receipt.exit_code == 0
        assert receipt.complete
        return any("archived" in entry.path for entry in box.log)

    def ask(query: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(str(settings.warehouse), read_only=True) as warehouse:
            return warehouse.execute(query).fetchall()

    assert await read()
    assert not await read()
    assert ask("SELECT count(DISTINCT watermark) FROM meta.checkpoints WHERE stream = 'leads'") == [(1,)]
    [(id, *_), *_] = ask("SELECT id FROM leads WHERE NOT is_archived ORDER BY id")
    box.act("PATCH", f"/v1/leads/{id}", {"is_archived": True})
    assert await read()
    assert ask(f"SELECT is_archived FROM leads WHERE id = '{id}'") == [(True,)]
    assert await read(SyncRequest(("leads",)))  # named
    box.act("PATCH", f"/v1/leads/{id}", {"is_archived": False})  # as other tests expect it


@pytest.fixture
def company() -> Iterator[RunningSandbox]:
    """A company with line items."""
    sizes = Sizes(deals=40, files=1, mail_threads=1, activities=1)
    made = generate_company(seed=3, sizes=sizes, now=datetime.now(UTC))
    with running(made, limits=Limits(burst=None, daily_tokens=None)) as box:
        yield box


async def test_s4_s9_line_items_of_deals_that_came_in_the_walk_of_an_older_run_are_read(
    company: RunningSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PDSYNC_API_TOKEN", company.token)
    monkeypatch.setitem(Http.__init__.__kwdefaults__ or {}, "backoff_s", 0.001)

    async def sync_here(folder: str) -> tuple[int, list[Any]]:
        (tmp_path / folder).mkdir(exist_ok=True)
        settings = config.load(tmp_path / folder, {"account.base_url": company.url, "limits.burst": 0})
        receipt = await sync(settings, SyncRequest(("deals", "deal_products")))
        with duckdb.connect(str(settings.warehouse), read_only=True) as warehouse:
            return receipt.exit_code, warehouse.execute("SELECT id FROM deal_products ORDER BY id").fetchall()

    with smaller_pages(10):
        for _ in range(2):  # each reads a page of the deals, and the line items of what is there
            company.faults.add(kind="status", status=503, path=r"/v2/deals\?", nth=2, times=99)
            code, _ = await sync_here("troubled")
            assert code == 1
            company.faults.clear()
            company.clock.advance(3600)
        expected = await sync_here("untroubled")
        assert expected[1]
        assert await sync_here("troubled") == expected


@pytest.mark.parametrize("is_cut", [False, True])
async def test_s9_a_continued_run_reads_the_line_items_of_the_deals_that_it_lacked_before(
    company: RunningSandbox, tmp_path: Path, is_cut: bool
) -> None:
    async def read_here(folder: str, *names: str, resumed: bool = False) -> tuple[bool, list[Any]]:
        async with open_session(tmp_path / folder, company, run="night") as session:
            session.receipt.resumed = resumed
            receipt = await read(session, *names)
            rows = session.loader.connection.execute("SELECT id FROM deal_products ORDER BY id").fetchall()
            return receipt.complete, rows

    for folder in ("killed", "whole"):
        (tmp_path / folder).mkdir()
    with smaller_pages(10):
        company.faults.add(kind="status", status=503, path=r"/v2/deals\?", nth=2, times=99)
        company.faults.add(kind="status", status=503, path="/deals/products", nth=2 if is_cut else 99, times=99)
        complete, _ = await read_here("killed", "deals", "deal_products")
        assert not complete
        company.faults.clear()
        expected = await read_here("whole", "deals", "deal_products")
        assert await read_here("killed", "deals", "deal_products", resumed=True) == expected
        assert expected[0]


async def test_s4_a_sync_since_a_time_leaves_out_no_parent_that_came_after_the_last_reading(
    company: RunningSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PDSYNC_API_TOKEN", company.token)
    monkeypatch.setitem(Http.__init__.__kwdefaults__ or {}, "backoff_s", 0.001)
    since = datetime.now(UTC) - timedelta(minutes=1)

    async def sync_here(folder: str, *names: str, since: datetime | None = None) -> list[Any]:
        (tmp_path / folder).mkdir(exist_ok=True)
        settings = config.load(tmp_path / folder, {"account.base_url": company.url, "limits.burst": 0})
        await sync(settings, SyncRequest(names, since=since))
        with duckdb.connect(str(settings.warehouse), read_only=True) as warehouse:
            return warehouse.execute("SELECT id FROM deal_products ORDER BY id").fetchall()

    with smaller_pages(10):
        company.faults.add(kind="status", status=503, path=r"/v2/deals\?", nth=2, times=99)
        await sync_here("here", "deals", "deal_products")
        company.faults.clear()
        await sync_here("here", "deals")
        await sync_here("here", "deal_products", since=since)
        found = await sync_here("here", "deal_products")
        assert found == await sync_here("whole", "deals", "deal_products")


@pytest.mark.parametrize("is_unreadable", [False, True])
async def test_s9_a_receipt_counts_what_its_run_has_read_of_the_walk_of_an_older_one(
    company: RunningSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_unreadable: bool
) -> None:
    monkeypatch.setenv("PDSYNC_API_TOKEN", company.token)
    monkeypatch.setitem(Http.__init__.__kwdefaults__ or {}, "backoff_s", 0.001)
    settings = config.load(tmp_path, {"account.base_url": company.url, "limits.burst": 0})
    with smaller_pages(10):
        if is_unreadable:
            company.faults.add(
                kind="mutate", path=r"/v2/deals\?", nth=1, find=r'"id":\d+,"title"', replace='"id":{},"title"'
            )
        company.faults.add(kind="status", status=503, path=r"/v2/deals\?", nth=2, times=99)
        first = await sync(settings, SyncRequest(("deals",)))
        company.faults.clear()
        second = await sync(settings, SyncRequest(("deals",)))
    with duckdb.connect(str(settings.warehouse), read_only=True) as warehouse:
        rows = warehouse.execute("SELECT count(*) FROM deals").fetchone()
    assert (first.streams["deals"].inserted + second.streams["deals"].inserted,) == rows
    assert second.streams["deals"].complete is not is_unreadable
    assert second.exit_code == (1 if is_unreadable else 0)
