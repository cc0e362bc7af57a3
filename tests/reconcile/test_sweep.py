"""A sweep names every difference between what the lists show and what the warehouse has, and what is evidence."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from pdsync.core import catalogue
from pdsync.model import Page
from pdsync.reconcile.sweep import Sweep, find_moved_before
from pdsync.runner.loader import Loader
from tests.runner.kit import T0, deal, encode, load_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LATER, EARLIER = T0 + timedelta(minutes=5), T0 - timedelta(days=1)
LEAD = "6d6f1a10-0000-11ee-8c99-0242ac120002"
ALIVE, DELETED, ARCHIVED = deal(1), deal(2, is_deleted=True), deal(3, is_archived=True)
GONE: dict[str, Any] = {"is_deleted": True}
KEPT: dict[str, Any] = {"is_archived": True}
# A deal in the warehouse (None: not there), the versions of it that the list shows, and how the difference is called.
CASES: list[tuple[dict[str, Any] | None, list[dict[str, Any]], str | None]] = [
    ({}, [{}], None),
    ({}, [], "absent"),
    (GONE, [], None),  # what is deleted may be listed or not
    (GONE, [GONE], None),
    (None, [{}], "missing"),
    ({}, [GONE], "soft_deleted"),
    (GONE, [{}], "restored"),
    ({}, [KEPT], "archived"),
    (KEPT, [{}], "unarchived"),
    ({}, [{"changed": LATER}], "stale"),
    ({}, [{"changed": EARLIER}], "backdated"),
    ({}, [{"title": "x"}], "differs"),
    ({}, [{"changed": LATER}, {}], None),  # the version that was served last counts
    ({}, [{}, GONE], "soft_deleted"),
]
NUMBERS = count(1)


@pytest.fixture(scope="module")
def loader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loader]:
    """Three deals: alive, deleted and archived."""
    made = Loader(tmp_path_factory.mktemp("sweep") / "work.duckdb")
    made.open(1, "Example")
    load_rows(made, "deals", ALIVE, DELETED, ARCHIVED)
    yield made
    asyncio.run(made.close())


def sweep(loader: Loader, *records: Mapping[str, Any], at: Any = LATER) -> Sweep:
    """A sweep of a list of deals; a record that was shown before begins a new page."""
    stream, operation = catalogue.stream("deals"), catalogue.operations("v2")["getDeals"]
    made = Sweep(loader.connection, loader.table(stream, "v2"), next(NUMBERS))
    pages: list[list[Mapping[str, Any]]] = [[]]
    for record in records:
        if record.get("id") in [each.get("id") for each in pages[-1]]:
            pages.append([])
        pages[-1].append(record)
    for seq, page in enumerate(pages):
        made.add("live", operation, [Page(-1, seq, encode(page), len(page), None, at + timedelta(seconds=seq))])
    return made


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sweep]:
    """Every case at once: deal 101 is the first of CASES."""
    made = Loader(tmp_path_factory.mktemp("cases") / "work.duckdb")
    made.open(1, "Example")
    load_rows(made, "deals", *(deal(n, **row) for n, (row, _, _) in enumerate(CASES, 101) if row is not None))
    shown = [deal(n, **versions[i]) for i in (0, 1) for n, (_, versions, _) in enumerate(CASES, 101) if versions[i:]]
    yield sweep(made, *shown)
    asyncio.run(made.close())


def kinds(sweep: Sweep, **options: Any) -> dict[str, str]:
    return {each.key: each.kind for each in sweep.differences(**{"deep": False} | options)}


def test_s7_each_difference_has_its_name(compared: Sweep) -> None:
    expected = {str(n): kind for n, (_, _, kind) in enumerate(CASES, 101) if kind}
    assert kinds(compared, deep=True) == expected
    # What moves no time of change is seen by its values only.
    assert kinds(compared) == {key: kind for key, kind in expected.items() if kind != "differs"}
    for each in compared.differences(deep=True):
        assert each.source == (None if each.kind == "absent" else "live")


def test_s8_what_was_not_requested_is_not_absent(compared: Sweep) -> None:
    absent = next(str(n) for n, (_, _, kind) in enumerate(CASES, 101) if kind == "absent")
    assert kinds(compared, only=[absent])[absent] == "absent"
    assert absent not in kinds(compared, only=["101"])


@pytest.mark.parametrize("records", [[{"title": "no id"}, ALIVE], [{"title": "no id"}]])
def test_s7_each_record_that_can_t_be_read_is_counted_once(loader: Loader, records: list[dict[str, Any]]) -> None:
    made = sweep(loader, *records)
    operation = catalogue.operations("v2")["getDeals"]
    made.add("live", operation, [Page(-1, 1, encode([ARCHIVED]), 1, None, LATER)])
    assert (made.unreadable, made.rows) == (1, len(records))


def test_s7_records_of_overlapping_pages_count_once_and_deleted_ones_not_at_all(loader: Loader) -> None:
    made = sweep(loader, ALIVE, ALIVE, DELETED, ARCHIVED)
    assert made.count_alive() == 2
    assert made.count_alive(only=["1", "2", "9"]) == 1
    assert made.find_shown(["1", "2", "9"]) == {"1", "2"}


def test_s6_only_rows_that_equal_the_source_are_verified(loader: Loader) -> None:
    at = LATER + timedelta(hours=1)
    assert sweep(loader, ALIVE, deal(3, title="x"), at=at).verify() == 1
    rows = loader.connection.execute("SELECT id, _verified_at FROM deals ORDER BY id").fetchall()
    assert [id for id, verified_at in rows if verified_at >= at] == [1]
    assert sweep(loader, ALIVE, DELETED, at=at + timedelta(hours=1)).verify() == 1  # of rows that are not deleted
    assert sweep(loader, ALIVE, at=T0).verify() == 0  # an older answer proves nothing


def test_s8_canaries_are_records_that_the_list_has_just_shown(loader: Loader) -> None:
    made = sweep(loader, *(deal(n) for n in range(10, 30)), deal(5, is_deleted=True))
    chosen = made.choose_canaries(8)
    assert len(chosen) <= 8
    assert {"10", "29"} <= set(chosen)
    assert set(chosen) <= {str(n) for n in range(10, 30)}


def test_s7_a_conversion_is_named_by_the_record_that_it_became(loader: Loader) -> None:
    made = sweep(loader, deal(7, source_lead_id=LEAD), deal(8))
    assert made.find_conversions("source_lead_id", [LEAD, "another"]) == {LEAD: "7"}


def test_s13_records_that_pointed_to_a_merged_one_point_to_the_winner(tmp_path: Any) -> None:
    own = Loader(tmp_path / "work.duckdb")
    own.open(1, "Example")
    load_rows(own, "persons", *({"id": n, "name": f"p{n}", "update_time": deal(1)["update_time"]} for n in (7, 8)))
    load_rows(own, "deals", deal(1, person_id=7), deal(2, person_id=7), deal(3, person_id=8), number=2)
    persons, deals = catalogue.stream("persons"), catalogue.stream("deals")
    now = sweep(own, deal(1, LATER, person_id=8), deal(2, LATER), deal(3, person_id=8))
    assert now.find_moved("persons", ["7"]) == {"7": {"8", None}}
    assert now.find_moved("organizations", ["7"]) == {}
    added = sweep(own, deal(1, LATER, person_id=8), deal(4, person_id=7), deal(5, person_id=3, is_deleted=True))
    assert added.find_moved("persons", ["3", "7"]) == {"7": {"7", "8"}}  # 4 is new at the source, and names 7
    assert find_moved_before(own.connection, deals, persons, ["7"]) == {}
    load_rows(own, "deals", deal(1, LATER, person_id=8), number=3, at=LATER)  # a sync has loaded the merge already
    assert find_moved_before(own.connection, deals, persons, ["7", "8"]) == {"7": {"8"}}
    asyncio.run(own.close())
