"""Which parents' lists are read: those with children, and after the first time those that changed since."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from pdsync.core import catalogue
from pdsync.errors import PdsyncError
from pdsync.model import Page, Parent, Walk
from pdsync.runner.loader import Loader
from pdsync.runner.sync import parent_keys
from pdsync.runner.sync.parent_keys import LastReading, count_children, find_last_reading, select_parents

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

T0 = datetime(2026, 11, 22, 12, tzinfo=UTC)
DEALS = catalogue.stream("deals")
PARENT = next(
    source.parent for source in catalogue.stream("deal_products").v2 if source.parent and source.parent.having
)


@pytest.fixture
def loader(tmp_path: Path) -> Iterator[Loader]:
    made = Loader(tmp_path / "work.duckdb")
    made.open(1, "Example")
    yield made
    asyncio.run(made.close())


def load(loader: Loader, run: str, *records: dict[str, Any], number: int = 1, at: datetime = T0) -> None:
    walk = Walk(number, run, "deals", "live", "v2", "getDeals", None, at)
    page = Page(number, 0, msgspec.json.encode({"data": list(records)}), len(records), None, at)
    asyncio.run(loader.add(DEALS, walk, [page]))


def deal(number: int, changed: datetime = T0, **more: Any) -> dict[str, Any]:
    return {"id": number, "update_time": changed.isoformat().replace("+00:00", "Z"), **more}


def test_the_newest_parents_come_first_and_deleted_ones_not_at_all(loader: Loader) -> None:
    load(loader, "a", deal(1), deal(2, is_deleted=True), deal(3))
    assert select_parents(loader.connection, Parent("deals", "id"), None) == [3, 1]


def test_a_parent_that_counts_no_child_is_left_out_unless_it_has_rows(loader: Loader) -> None:
    count = PARENT.having or ""
    load(loader, "a", deal(1) | {count: 0}, deal(2) | {count: 3}, deal(3))
    assert select_parents(loader.connection, PARENT, None) == [3, 2]  # one that does not say may have some
    assert count_children(loader.connection, PARENT, [3, 2]) == {3: None, 2: 3}
    products = catalogue.stream("deal_products")
    column = products.parent_column(PARENT, "v2") or ""
    loader.table(products, "v2")
    loader.connection.execute(f'INSERT INTO deal_products (id, "{column}") VALUES (7, 1)')
    assert select_parents(loader.connection, PARENT, None, children=("deal_products", column)) == [3, 2, 1]


def test_r3_a_parent_that_changed_since_is_read_again(loader: Loader) -> None:
    load(loader, "a", deal(1, T0 - timedelta(days=2)), deal(2, T0 - timedelta(hours=1)))
    loader.connection.execute("UPDATE deals SET _synced_at = ?", [T0 - timedelta(days=1)])
    since = T0 - timedelta(hours=2)
    assert select_parents(loader.connection, Parent("deals", "id"), since) == [2]
    assert select_parents(loader.connection, Parent("deals", "id"), since, timedelta(hours=1)) == [2]


def test_r3_rows_are_newer_than_the_last_reading_by_their_run_not_by_a_clock(loader: Loader) -> None:
    old = T0 - timedelta(days=300)
    load(loader, "a", deal(1, old), number=1)
    load(loader, "b", deal(2, old), number=2)
    load(loader, "c", deal(3, old), number=3)
    loader.connection.execute("UPDATE deals SET _synced_at = ?", [T0])
    before, after = T0 - timedelta(seconds=1), T0 + timedelta(seconds=1)
    parent = Parent("deals", "id")
    assert select_parents(loader.connection, parent, T0, reading=LastReading("b", after, ["c"])) == [3]
    assert select_parents(loader.connection, parent, T0, reading=LastReading("b", before, ["c"])) == [3, 2]


def test_a_parent_that_was_never_synced_is_an_error(loader: Loader) -> None:
    with pytest.raises(PdsyncError, match="pdsync sync deals"):
        select_parents(loader.connection, Parent("deals", "id"), None)


def test_the_last_reading_is_unknown_where_control_db_lost_its_run(
    loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parent_keys, "opened_at", lambda walk: T0)
    load(loader, "a", deal(1))
    order = {"a": 0, "b": 1, "c": 2}
    assert find_last_reading(loader.connection, "deals", "live", "v2", order) == LastReading("a", T0, ["b", "c"])
    assert find_last_reading(loader.connection, "deals", "live", "v2", {"b": 1}) is None
    assert find_last_reading(loader.connection, "deals", "archived", "v2", order) is None


@pytest.mark.parametrize("clock", [timedelta(0), timedelta(hours=-2)])
def test_s4_parents_that_come_after_the_last_reading_in_the_walk_of_an_older_run_are_read(
    loader: Loader, clock: timedelta, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, now = T0 - timedelta(days=300), datetime.now(UTC)
    monkeypatch.setattr(parent_keys, "opened_at", lambda walk: now - clock)
    load(loader, "a", deal(1, old), number=1, at=T0 - timedelta(days=1))
    loader.connection.execute("UPDATE deals SET _synced_at = ?", [now - timedelta(days=1)])
    load(loader, "b", deal(2, old), number=2)
    load(loader, "a", deal(3, old), number=3, at=T0 + timedelta(hours=1))  # run c has continued the walk of run a
    loader.connection.execute("UPDATE meta.checkpoints SET run_id = 'b', walk = 2")
    reading = find_last_reading(loader.connection, "deals", "live", "v2", {"a": 0, "b": 1, "c": 2})
    assert reading == LastReading("b", now - clock, ["c"], ["a"])
    assert 3 in select_parents(loader.connection, Parent("deals", "id"), T0, reading=reading)
    assert 1 not in select_parents(loader.connection, Parent("deals", "id"), T0, reading=reading)
