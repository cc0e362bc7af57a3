"""Sealed pages are loaded once, from where the work file lacks them; repairs move no watermark."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from pdsync.core import catalogue
from pdsync.extract.raw_archive import LostPage
from pdsync.model import REPAIR, Page, Tombstone
from pdsync.runner import loader as loading
from pdsync.runner.sync import walk_loader
from tests.runner.kit import T0, deal, encode, load, open_session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from pdsync.model import Walk
    from pdsync.runner.session import OnlineSession

DEALS = catalogue.stream("deals")
GET_DEALS = catalogue.operations("v2")["getDeals"]


@pytest.fixture
async def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[OnlineSession]:
    monkeypatch.setattr(loading, "PAGES_PER_BATCH", 2)
    async with open_session(tmp_path) as opened:
        yield opened


async def seal(session: OnlineSession, count: int) -> tuple[Walk, list[Page]]:
    """A walk of `count` pages with a deal each, sealed and not loaded."""
    walk = session.control.open_walk(session.receipt.run_id, "deals", "live", "v2", "getDeals", None)
    walk = replace(walk, started_at=T0)
    pages = [Page(walk.id, seq, encode([deal(seq + 1)]), 1, str(seq + 1) if seq + 1 < count else None, T0)
             for seq in range(count)]  # fmt: skip
    for page in pages:
        await session.archive.seal(walk, page)
    return walk, pages


def ids(session: OnlineSession) -> list[int]:
    return [id for (id,) in session.loader.connection.execute("SELECT id FROM deals ORDER BY id").fetchall()]


@pytest.mark.parametrize(
    ("loaded", "inserted"),
    [
        (0, 5),
        (1, 5),  # staged only: no batch was complete
        (2, 3),
        (5, 0),
    ],
)
async def test_s15_only_batches_that_the_work_file_lacks_are_loaded(
    session: OnlineSession, loaded: int, inserted: int
) -> None:
    walk, pages = await seal(session, 5)
    await walk_loader.load(session, DEALS, walk, pages[:loaded])
    session.loader._stages.clear()  # as after a kill: what was staged is lost
    counts = await walk_loader.load_sealed(session, DEALS, walk)
    assert counts.inserted == inserted
    assert ids(session) == [1, 2, 3, 4, 5]
    assert session.progress["deals"].inserted == 5 - inserted if loaded > 1 else "deals" not in session.progress


async def test_s1_a_lost_page_is_an_error_after_the_batches_before_it(session: OnlineSession) -> None:
    walk, _ = await seal(session, 20)  # the second half is read after the first is loaded
    last = session.control.sealed_pages(walk.id)[-1]
    path = session.settings.raw / last.file
    path.write_bytes(path.read_bytes()[: last.at])
    with pytest.raises(LostPage):
        await walk_loader.load_sealed(session, DEALS, walk)
    assert ids(session) == list(range(1, 17))


async def test_a_walk_without_pages_loads_nothing(session: OnlineSession) -> None:
    walk = session.control.open_walk(session.receipt.run_id, "deals", "live", "v2", "getDeals", None)
    assert (await walk_loader.load_sealed(session, DEALS, walk)).read == 0


async def test_s4_a_repair_is_a_walk_of_its_own_and_moves_no_watermark(session: OnlineSession) -> None:
    pages = [Page(9, 7, encode([deal(n)]), 1, "more", T0) for n in (1, 2, 3)]
    await walk_loader.seal_and_load(session, DEALS, "v2", GET_DEALS, pages)
    assert ids(session) == [1, 2, 3]
    assert session.loader.connection.execute("SELECT * FROM meta.checkpoints").fetchall() == []
    [(walk, state)] = session.control.walks()
    assert (walk.source, state) == (REPAIR, "applied")
    assert [(page.seq, page.next) for page in session.control.sealed_pages(walk.id)] == [(0, "1"), (1, "2"), (2, None)]


async def test_o5_a_tombstone_has_the_time_of_the_server(session: OnlineSession) -> None:
    earlier = T0 - timedelta(hours=1)
    await load(session, "deals", deal(1, earlier), deal(2, earlier), at=earlier)
    ours = datetime.now(UTC) + timedelta(days=900)
    await walk_loader.tombstone(session, DEALS, [Tombstone("1", "deleted", "404", ours)])
    rows = session.loader.connection.execute("SELECT id, _deleted_at FROM deals ORDER BY id").fetchall()
    assert rows == [(1, session.began), (2, None)]
