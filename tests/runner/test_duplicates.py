"""A record that was added twice is found, and only where an addition was sent more than once."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from pdsync.runner.report.duplicates import find_duplicate_creates
from tests.writeback.kit import COMPANY, arm, entry

if TYPE_CHECKING:
    from pdsync.model import Mutation
    from pdsync.runner.loader import Loader
    from pdsync.writeback.outbox import Outbox


@pytest.fixture
def loader(loader: Loader) -> Loader:
    loader.connection.execute(
        "CREATE TABLE main.deals (id BIGINT, title VARCHAR, value DECIMAL(18, 4), add_time TIMESTAMPTZ,"
        " _deleted_at TIMESTAMPTZ)"
    )
    return loader


def add_deal(outbox: Outbox, *, attempts: int = 2, record: str | None = "50", **payload: Any) -> Mutation:
    """An addition of deal 50 that was sent `attempts` times."""
    mutation = outbox.add([entry("v2 addDeal", payload or {"title": "New", "value": 5})])[0]
    outbox.approve([mutation.id], "push-1", COMPANY)
    for number in range(attempts):
        arm(outbox, mutation)
        if number < attempts - 1:
            outbox.mark_unknown(mutation.id, "no answer")
            outbox.record_probe(mutation.id, "list deals", [], "absent", again=True)
    outbox.settle(mutation.id, "applied", remote_id=record, bound=record and f"deals/{record}")
    return outbox.get(mutation.id)


def put(loader: Loader, outbox: Outbox, id: int, title: str = "New", value: int = 5, **options: Any) -> None:
    """A row of deals; `age` is how long before the first attempt it was added."""
    first = outbox.attempts(outbox.mutations()[0].id)[0].armed_at
    added = first - options.get("age", timedelta())
    loader.connection.execute(
        "INSERT INTO deals VALUES (?, ?, ?, ?, ?)", [id, title, value, added, options.get("deleted")]
    )


def find(loader: Loader, outbox: Outbox) -> list[str]:
    return [each.key for each in find_duplicate_creates(loader, outbox.control, "run-1")]


def test_w15_a_second_record_with_all_that_was_sent_is_found_once(loader: Loader, outbox: Outbox) -> None:
    add_deal(outbox)
    put(loader, outbox, 50)
    put(loader, outbox, 51)
    [found] = find_duplicate_creates(loader, outbox.control, "run-1")
    assert (found.stream, found.key, found.original, found.seq, found.operation) == (
        "deals",
        "51",
        "50",
        1,
        "deleteDeal",
    )
    assert "pdsync queue add deleteDeal id=51" in str(found)
    rows = loader.connection.execute("SELECT run_id, stream, key, kind, winner, repaired FROM meta.findings").fetchall()
    assert rows == [("run-1", "deals", "51", "duplicate_found", "50", False)]
    assert find(loader, outbox) == []  # reported already


@pytest.mark.parametrize(
    "row",
    [
        {"title": "Other"}, {"value": 6}, {"age": timedelta(minutes=6)}, {"deleted": "2026-11-22 12:00:00+00"},
    ],
)  # fmt: skip
def test_a_record_that_differs_is_no_duplicate(loader: Loader, outbox: Outbox, row: dict[str, Any]) -> None:
    add_deal(outbox)
    put(loader, outbox, 51, **row)
    assert find(loader, outbox) == []


def test_the_clocks_may_differ_by_five_minutes(loader: Loader, outbox: Outbox) -> None:
    add_deal(outbox)
    put(loader, outbox, 51, age=timedelta(minutes=4))
    assert find(loader, outbox) == ["51"]


def test_w15_an_addition_that_was_sent_once_has_no_duplicate(loader: Loader, outbox: Outbox) -> None:
    add_deal(outbox, attempts=1)
    put(loader, outbox, 51)
    assert find(loader, outbox) == []


def test_the_record_of_another_addition_is_no_duplicate(loader: Loader, outbox: Outbox) -> None:
    add_deal(outbox)
    add_deal(outbox, attempts=1, record="51")
    put(loader, outbox, 51)
    assert find(loader, outbox) == []


def test_an_addition_that_ended_a_week_ago_is_not_looked_at(loader: Loader, outbox: Outbox) -> None:
    add_deal(outbox)
    put(loader, outbox, 51)
    with outbox.control.transaction() as db:
        db.execute("UPDATE mutations SET settled_at = '2020-01-01T00:00:00+00:00'")
    assert find(loader, outbox) == []


def test_a_stream_without_a_table_is_passed_over(loader: Loader, outbox: Outbox) -> None:
    add_deal(outbox)
    loader.connection.execute("DROP TABLE deals")
    assert find(loader, outbox) == []
