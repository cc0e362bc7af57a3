"""Batches of a replay are cut and ordered as they were loaded, and what the catalogue does not know is left."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from pdsync.core import catalogue
from pdsync.core.control import SealedPage
from pdsync.model import FROM_FILES, Page, Receipt
from pdsync.runner import loader as loading
from pdsync.runner.archive.reload import ArchiveReload, ReplayBatch, _chunks
from pdsync.runner.loader import Loader
from pdsync.runner.session import Event, log_notes
from tests.runner.kit import T0, deal, encode, load, open_session

if TYPE_CHECKING:
    from pathlib import Path

    from pdsync.model import Walk
    from pdsync.runner.session import OnlineSession

DEALS = catalogue.stream("deals")


def reload(session: OnlineSession, *names: str, **options: Any) -> ArchiveReload:
    streams = [catalogue.stream(name) for name in names]
    return ArchiveReload(
        session.settings, session.control, options.get("loader", session.loader), streams, Receipt("r", "replay", T0),
        options.get("on_event", log_notes), everything=options.get("everything", False),
    )  # fmt: skip


async def seal(
    session: OnlineSession, count: int, *, closed: bool = True, source: str = "live", state: str = "applied"
) -> Walk:
    """A walk of `count` pages; `closed`: the last one names no next page."""
    walk = session.control.open_walk(session.receipt.run_id, "deals", source, "v2", "getDeals", None)
    walk = replace(walk, started_at=T0)
    for seq in range(count):
        following = None if closed and seq == count - 1 else str(seq + 1)
        await session.archive.seal(walk, Page(walk.id, seq, encode([deal(seq + 1)]), 1, following, T0))
    session.control.end_walk(walk.id, state)
    return walk


def cut(session: OnlineSession) -> list[ReplayBatch]:
    own = reload(session, "deals")
    return list(own._cut_batches(DEALS, session.control.walks()))


async def test_s14_batches_are_cut_where_a_sync_cuts_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "PAGES_PER_BATCH", 2)
    async with open_session(tmp_path) as session:
        await seal(session, 5)
        batches = cut(session)
    assert [[page.seq for page in batch.pages] for batch in batches] == [[0, 1], [2, 3], [4]]
    assert [batch.closes for batch in batches] == [False, False, False]  # the last page itself ends the list
    assert sorted(batches, key=lambda batch: batch.position) == batches


async def test_s14_the_end_of_an_attempt_ends_a_batch(tmp_path: Path) -> None:
    walk: Walk | None = None
    for seq in range(3):  # each attempt has a raw file of its own
        async with open_session(tmp_path, run="run") as session:
            walk = walk or session.control.open_walk("run", "deals", "live", "v2", "getDeals", None)
            page = Page(walk.id, seq, encode([deal(1, value=seq)]), 1, None if seq == 2 else str(seq + 1), T0)
            await session.archive.seal(replace(walk, started_at=T0), page)
            batches = cut(session)
            if seq == 2:
                await reload(session, "deals").load_all()
                values = session.loader.connection.execute("SELECT value FROM versions.deals ORDER BY 1").fetchall()
    assert [[page.seq for page in batch.pages] for batch in batches] == [[0], [1], [2]]
    assert values == [(0,), (1,)]  # as the attempts showed them to readers


@pytest.mark.parametrize(
    ("options", "closes"),
    [
        ({"closed": False}, [True]),  # no parent was left
        ({"closed": False, "state": "sealed"}, [True]),
        ({"closed": False, "state": "dropped"}, [False]),
        ({"closed": False, "source": FROM_FILES}, [False]),
        ({"closed": True}, [False]),
    ],
)
async def test_s4_a_walk_that_ended_without_a_last_page_is_closed(
    tmp_path: Path, options: dict[str, Any], closes: list[bool]
) -> None:
    async with open_session(tmp_path) as session:
        await seal(session, 2, **options)
        assert [batch.closes for batch in cut(session)] == closes


async def test_what_the_catalogue_does_not_know_is_a_gap(tmp_path: Path) -> None:
    async with open_session(tmp_path) as session:
        await load(session, "deals", deal(1))
        walk = session.control.open_walk(session.receipt.run_id, "deals", "live", "v2", "getBeams", None)
        await session.archive.seal(replace(walk, started_at=T0), Page(walk.id, 0, encode([]), 0, None, T0))
        other = session.control.open_walk(session.receipt.run_id, "beams", "all", "v2", "getBeams", None)
        await session.archive.seal(replace(other, started_at=T0), Page(other.id, 0, encode([]), 0, None, T0))
        own = reload(session, *catalogue.streams(), everything=True)
        walks = await own.load_all()
    assert {(gap.stream, gap.kind) for gap in own.receipt.gaps} == {("beams", "unknown"), ("deals", "unknown")}
    assert all("its pages were not loaded" in gap.detail for gap in own.receipt.gaps)
    assert [each.operation for each in walks] == ["getDeals"]  # the other one is not loaded
    assert not own.receipt.streams["deals"].complete


async def test_s16_each_run_is_loaded_with_its_own_definitions(tmp_path: Path) -> None:
    code, names = "a" * 40, ("Size", "Volume")
    for number, name in enumerate(names):
        async with open_session(tmp_path, run=f"run-{number}") as session:
            at = T0 + timedelta(hours=number)
            definition = {"field_code": code, "field_name": name, "field_type": "double", "is_custom_field": True}
            await load(session, "deals", deal(1, at, custom_fields={code: number}), at=at)
            await load(session, "deal_fields", definition, at=at)  # sealed after them, and loaded before them
            if number == len(names) - 1:
                fresh = Loader(tmp_path / "fresh.duckdb")
                await fresh.do(fresh.open, 7, "Acme")
                events: list[Event] = []
                own = reload(session, "deal_fields", "deals", loader=fresh, on_event=events.append)
                await own.load_all()
                query = "SELECT cf_size, _valid_from FROM deals UNION SELECT cf_size, _valid_from FROM versions.deals"
                rows = fresh.connection.execute(f"{query} ORDER BY 2").fetchall()
                kinds = fresh.connection.execute("SELECT kind, seen_at FROM meta.schema_changes").fetchall()
                await fresh.close()
    assert rows == [(0.0, T0), (1.0, T0 + timedelta(hours=1))]
    assert kinds == [("field_renamed", T0 + timedelta(hours=1))]
    started = [event.stream for event in events if event.kind == "started"]
    assert started == ["deal_fields", "deals"] * 2


def test_x8_chunks_bound_the_bytes_in_memory() -> None:
    sizes = [2, 2, 1, 5, 1, 1]
    pages = [SealedPage(1, seq, "f", 0, size * 2**20, 1, b"", None, T0) for seq, size in enumerate(sizes)]
    assert [[page.seq for page in chunk] for chunk in _chunks(pages)] == [[0, 1], [2, 3], [4, 5]]
    assert list(_chunks([])) == []
