"""Which streams a night reconciles: the one that was read longest ago, a share of the cycle, and what is overdue."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import duckdb
import pytest

from pdsync.core import config
from pdsync.runner.loader import Loader
from pdsync.runner.reconcile.rotation import select_due
from tests.runner.kit import T0, deal, load_rows, text

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("deals", "persons", "organizations", "users", "deal_products", "notes")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with three streams that are read by changes, one that every sync reads whole, and one with parents."""
    made = tmp_path_factory.mktemp("project")
    path = config.load(made).warehouse
    path.parent.mkdir()
    loader = Loader(path)
    loader.open(1, "Example")
    load_rows(loader, "deals", deal(1), deal(2))
    for number, name in enumerate(("persons", "organizations", "users", "deal_products"), 2):
        load_rows(loader, name, {"id": 1, "name": "x", "deal_id": 1, "update_time": text(T0)}, number=number)
    loader.connection.execute("INSERT INTO meta.checkpoints BY NAME SELECT * REPLACE ('archived' AS source)"
                              " FROM meta.checkpoints WHERE stream = 'deals'")  # fmt: skip
    asyncio.run(loader.close())
    return made


def due(folder: Path, ages: dict[str, float], cycle: int = 7) -> list[str]:
    """The streams that are due, if they were read whole so many days ago."""
    settings = config.load(folder, {"sync.verify_cycle": cycle})
    with duckdb.connect(str(settings.warehouse)) as connection:
        connection.execute("UPDATE meta.checkpoints SET watermark = ?, full_at = ?", [T0, T0])
        for name, days in ages.items():
            since = T0 - timedelta(days=days)
            connection.execute("UPDATE meta.checkpoints SET full_at = ? WHERE stream = ?", [since, name])
    return [each.stream for each in select_due(settings, NAMES)]


@pytest.mark.parametrize(
    ("ages", "names"),
    [
        ({}, []),
        ({"deals": 0.9}, []),  # at most once a day
        ({"deals": 1}, ["deals"]),
        ({"deals": 3, "persons": 4}, ["persons"]),  # a seventh of all requests is one request
        ({"deals": 3, "persons": 4, "organizations": 5}, ["organizations"]),
        (
            {"deals": 6, "persons": 6.5, "organizations": 2},
            ["persons", "deals"],
        ),  # the cycle would end before the next night
        ({"users": 30}, []),  # every sync reads them whole
        ({"deal_products": 30}, ["deal_products"]),
    ],
)
def test_s6_streams_take_turns_within_the_cycle(folder: Path, ages: dict[str, float], names: list[str]) -> None:
    assert due(folder, ages) == names


def test_l5_less_is_verified_in_a_night_whose_turns_are_dear(folder: Path) -> None:
    due(folder, {"deals": 3, "persons": 4})
    settings = config.load(folder)
    assert [each.stream for each in select_due(settings, NAMES, 0)] == ["persons"]
    assert select_due(settings, NAMES, 20) == []
    due(folder, {"deals": 6, "persons": 4})
    assert [each.stream for each in select_due(settings, NAMES, 20)] == ["deals"]  # it can't wait


def test_s6_a_complete_sweep_counts_like_a_full_read(folder: Path) -> None:
    warehouse = str(config.load(folder).warehouse)
    for complete, names in ((False, ["deals"]), (True, [])):
        with duckdb.connect(warehouse) as connection:
            connection.execute("DELETE FROM meta.sweeps")
            connection.execute("INSERT INTO meta.sweeps VALUES ('run', ?, 'deals', 2, 2, 2, 0, ?)", [T0, complete])
        assert due(folder, {"deals": 5}) == names
    with duckdb.connect(warehouse) as connection:
        connection.execute("DELETE FROM meta.sweeps")


def test_l5_canaries_are_part_of_the_cost_where_records_were_missing_before(folder: Path) -> None:
    settings = config.load(folder)
    due(folder, {"deals": 5})
    [plan] = select_due(settings, ["deals"])
    assert (plan.rows, plan.requests) == (2, 2)
    with duckdb.connect(str(settings.warehouse)) as connection:
        connection.execute("INSERT INTO meta.findings VALUES ('run', ?, 'deals', '9', 'purged', '', NULL, true)", [T0])
    [more] = select_due(settings, ["deals"])
    assert more.tokens == plan.tokens + 2  # one for each row of the table


def test_without_a_cycle_or_a_warehouse_nothing_is_due(folder: Path, tmp_path: Path) -> None:
    assert due(folder, {"deals": 30}, cycle=0) == []
    assert select_due(config.load(tmp_path), NAMES) == []


@pytest.mark.parametrize(
    ("days", "missing", "names"),
    [
        (1, False, []),  # each sync shows all of them
        (1, True, ["notes"]),  # what became of the one that is missing?
        (6, False, ["notes"]),  # no sync has read them since
    ],
)
def test_s6_a_list_that_its_newest_page_shows_whole_takes_a_turn_only_if_a_row_is_missing(
    folder: Path, days: int, missing: bool, names: list[str]
) -> None:
    settings = config.load(folder)
    loader = Loader(settings.warehouse)
    loader.open(1, "Example")
    load_rows(loader, "notes", {"id": 1, "update_time": text(T0)}, number=10 + 2 * days + missing)
    asyncio.run(loader.close())
    due(folder, {})
    with duckdb.connect(str(settings.warehouse)) as connection:
        read_at = T0 - timedelta(days=days)
        connection.execute("UPDATE meta.checkpoints SET watermark = $1, full_at = $1 WHERE stream = 'notes'", [read_at])
        seen_at = T0 - timedelta(days=days + missing)
        connection.execute("UPDATE main.notes SET _verified_at = ?", [seen_at])
    assert [each.stream for each in select_due(settings, NAMES)] == names
    with duckdb.connect(str(settings.warehouse)) as connection:
        connection.execute("DELETE FROM meta.checkpoints WHERE stream = 'notes'")
