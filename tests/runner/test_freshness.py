"""How fresh each table is, by the oldest of its lists."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from pdsync.core import config
from pdsync.core.control import Control
from pdsync.runner.loader import Loader
from pdsync.runner.report.freshness import budget_left, format_age, measure_freshness
from tests.runner.kit import T0, deal, load_rows

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("seconds", "age"),
    [
        (-5, "0 s"),
        (0, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (3_599, "60 min"),
        (3_600, "1 h"),
        (86_400, "1 d"),
        (10**7, "116 d"),
    ],
)
def test_an_age_has_one_unit(seconds: float, age: str) -> None:
    assert format_age(timedelta(seconds=seconds)) == age


def test_s9_records_that_a_killed_run_could_not_read_are_counted(tmp_path: Path) -> None:
    settings = config.load(tmp_path)
    settings.warehouse.parent.mkdir()
    loader = Loader(settings.warehouse)
    loader.open(1, "Example")
    load_rows(loader, "deals", deal(1), {"id": {}})  # its run has no receipt
    asyncio.run(loader.close())
    [deals] = measure_freshness(settings)
    assert (deals.rows, deals.unreadable) == (1, 1)


def test_a_table_is_as_fresh_as_the_oldest_of_its_lists(tmp_path: Path) -> None:
    settings = config.load(tmp_path)
    assert measure_freshness(settings) == []  # nothing was synced yet
    settings.warehouse.parent.mkdir()
    loader, now = Loader(settings.warehouse), datetime.now(UTC).replace(microsecond=0)
    loader.open(1, "Example")
    load_rows(loader, "deals", deal(1), deal(2), deal(3, is_deleted=True))
    load_rows(loader, "users", number=2)
    loader.connection.execute("UPDATE meta.checkpoints SET watermark = ?, full_at = ?", [now, T0])
    loader.connection.execute(
        "INSERT INTO meta.checkpoints BY NAME SELECT * REPLACE ('archived' AS source, ? AS watermark)"
        " FROM meta.checkpoints WHERE stream = 'deals'", [now - timedelta(hours=5)],
    )  # fmt: skip
    # A list that pdsync no longer reads, as the API version or the catalogue has changed, ages nothing.
    loader.connection.execute(
        "INSERT INTO meta.checkpoints BY NAME SELECT * REPLACE ('older' AS source, ? AS watermark)"
        " FROM meta.checkpoints WHERE stream = 'deals' LIMIT 1", [now - timedelta(days=90)],
    )  # fmt: skip
    asyncio.run(loader.close())
    deals, users = measure_freshness(settings)
    assert (deals.stream, deals.rows, deals.deleted) == ("deals", 2, 1)
    assert (deals.complete_until, deals.last_full, deals.age) == (now - timedelta(hours=5), T0, "5 h")
    assert (users.stream, users.rows, users.complete_until) == ("users", 0, now)


@pytest.mark.parametrize(("limit", "left"), [(0, (None, 0)), (30_000, (30_000, 30_000))])
def test_l5_what_is_left_of_the_day(tmp_path: Path, limit: int, left: tuple[int | None, int]) -> None:
    settings = config.load(tmp_path, {"limits.daily_tokens": limit})
    Control(settings.control).close()
    assert budget_left(settings) == left
