"""control.db and the work file are brought in step, whichever of them is the older copy."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from pdsync.core import catalogue
from pdsync.core.control import Control, SealedPage
from pdsync.core.server_clock import ServerClock
from pdsync.model import Page
from pdsync.runner.loader import Loader
from pdsync.runner.report.receipt import begin_receipt, save_receipt
from pdsync.runner.settle import settle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from pdsync.model import Receipt, Walk

T0 = datetime(2026, 11, 22, 12, tzinfo=UTC)
DEALS = catalogue.stream("deals")
Pair = tuple[Control, Loader]


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    control, loader = Control(tmp_path / "control.db"), Loader(tmp_path / "work.duckdb")
    await loader.do(loader.open, 1, "Company")
    yield control, loader
    await loader.close()
    control.close()


def begin_walk(control: Control, pages: int, state: str) -> Walk:
    """A walk of which control.db knows some sealed pages, in a state."""
    walk = replace(control.open_walk("run", "deals", "live", "v2", "getDeals", None), started_at=T0)
    for number in range(pages):
        page = Page(walk.id, number, b"{}", 1, "next", T0)
        control.record_pages([(page, SealedPage(walk.id, number, "a.zst", number, 1, 1, b"", "next", T0))])
    control.end_walk(walk.id, state)
    return walk


async def load(loader: Loader, walk: Walk, pages: int) -> None:
    """One committed batch of so many pages."""
    for number in range(pages):
        following = None if number == pages - 1 else "next"
        body = b'{"data": [{"id": %d}]}' % number
        await loader.add(DEALS, walk, [Page(walk.id, number, body, 1, following, T0)])


def states(control: Control) -> dict[int, str]:
    return {walk.id: state for walk, state in control.walks()}


@pytest.mark.parametrize(
    ("state", "sealed", "loaded", "then"),
    [
        ("applied", 2, 2, "applied"),
        ("applied", 2, 0, "sealed"),  # the work file is the older copy: loaded again
        ("applied", 2, 1, "sealed"),
        ("open", 1, 1, "open"),
        ("open", 2, 1, "open"),  # not all of it is loaded yet, as in any run that was cut
        ("open", 1, 2, "dropped"),  # control.db is the older copy: the next page would count as loaded
        ("open", 0, 1, "dropped"),
        ("open", 0, 0, "open"),
        ("sealed", 2, 1, "sealed"),
        ("dropped", 1, 2, "dropped"),
    ],
)
async def test_s3_s9_a_walk_is_loaded_again_or_begun_again_and_never_skipped(
    pair: Pair, state: str, sealed: int, loaded: int, then: str
) -> None:
    control, loader = pair
    walk = begin_walk(control, sealed, state)
    if loaded:
        await load(loader, walk, loaded)
    notes = await loader.do(settle, loader, control)
    assert states(control) == {walk.id: then}
    assert bool(notes) == (then != state)
    assert await loader.do(settle, loader, control) == []


async def test_s9_receipts_are_copied_to_whichever_store_lacks_them(pair: Pair) -> None:
    control, loader = pair
    ours, theirs, cut = (finish(begin_receipt(f"sync {name}")) for name in ("deals", "persons", "leads"))
    for receipt in (ours, cut):
        control.start_run(receipt.run_id, receipt.command, receipt.started_at)
    control.finish_run(ours)
    for receipt in (theirs, cut):
        await loader.do(save_receipt, loader, receipt)
    await loader.do(settle, loader, control)
    rows: list[Any] = loader.connection.execute("SELECT run_id FROM meta.runs").fetchall()
    assert {row[0] for row in rows} == {ours.run_id, theirs.run_id, cut.run_id}
    ended = {each.run_id: each.finished_at is not None for each in control.receipts(-1)}
    # A run that control.db knows without an end was cut short, and is continued, whatever the warehouse says.
    assert ended == {ours.run_id: True, theirs.run_id: True, cut.run_id: False}


def finish(receipt: Receipt) -> Receipt:
    receipt.finished_at, receipt.exit_code = receipt.started_at + timedelta(minutes=1), 0
    return receipt


async def test_o5_a_clock_that_was_ahead_is_put_right_once_this_machine_agrees_with_the_server(pair: Pair) -> None:
    control, loader = pair
    walk, today = begin_walk(control, 1, "open"), datetime.now(UTC).replace(microsecond=0)
    ahead = replace(walk, started_at=today + timedelta(days=1))
    page = Page(walk.id, 0, b'{"data": [{"id": 1}]}', 1, None, today + timedelta(days=1))
    await loader.add(DEALS, ahead, [page])
    clock = ServerClock()
    clock.read(today)
    (note,) = await loader.do(settle, loader, control, clock)
    assert "a clock was ahead" in note
    assert loader.newest_time() <= datetime.now(UTC)  # type: ignore[operator]
    assert await loader.do(settle, loader, control, clock) == []


async def test_o5_a_time_is_not_put_right_by_a_server_s_clock_that_this_machine_s_contradicts(pair: Pair) -> None:
    control, loader = pair
    walk, today = begin_walk(control, 1, "open"), datetime.now(UTC).replace(microsecond=0)
    page = Page(walk.id, 0, b'{"data": [{"id": 1}]}', 1, None, today)
    await loader.add(DEALS, replace(walk, started_at=today), [page])
    clock = ServerClock()
    clock.read(today - timedelta(days=1))  # tonight's `Date` is wrong, not those before
    (note,) = await loader.do(settle, loader, control, clock)
    assert "this machine's clock agrees with neither" in note
    assert loader.newest_time() == today
    assert clock.now() > today
