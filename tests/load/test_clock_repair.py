"""Times that a wrong clock put into the future are pulled back, and the order of versions stays."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from pdsync.load.clock_repair import pull_back
from pdsync.load.tombstones import tombstone
from pdsync.model import Tombstone

from .kit import Work, at, record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

AHEAD = 86_400
NOW = at(1000)
MICROSECOND = timedelta(microseconds=1)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Work]:
    work = Work(tmp_path_factory.mktemp("clock") / "work.duckdb")
    yield work
    work.close()


@pytest.fixture
def work(shared: Work) -> Work:
    shared.reset()
    return shared


def correct(work: Work, horizon: datetime = NOW) -> dict[str, int]:
    return pull_back(work.connection, {"things": "id"}, NOW, horizon)


def spans(work: Work, id: int) -> list[tuple[datetime, datetime | None]]:
    return work.rows(f"SELECT _valid_from, _valid_to FROM history.things WHERE id = {id} ORDER BY 1")


def test_o5_a_file_without_such_times_stays_as_it_is(work: Work) -> None:
    work.commit([record(1, "a", 1)], 2)
    work.commit([record(1, "b", 3)], 4)
    before, checkpoints = work.rows("FROM history.things ORDER BY ALL"), work.rows("FROM meta.checkpoints")
    assert correct(work) == {}
    assert work.rows("FROM history.things ORDER BY ALL") == before
    assert work.rows("FROM meta.checkpoints") == checkpoints


def test_o5_s12_versions_keep_their_order_up_to_now(work: Work) -> None:
    """The server was a day ahead: two versions begin tomorrow, one before began and ended rightly."""
    work.commit([record(1, "a", 1), record(2, "x", 1)], 2)
    work.commit([record(1, "b", 3)], 4)
    work.commit([record(1, "c", AHEAD + 5)], AHEAD + 6)
    work.commit([record(1, "d", AHEAD + 7)], AHEAD + 8)
    assert correct(work) == {"things": 1}
    assert spans(work, 1) == [
        (at(1), at(3)),
        (at(3), NOW - MICROSECOND),
        (NOW - MICROSECOND, NOW),
        (NOW, None),
    ]
    assert spans(work, 2) == [(at(1), None)]
    assert work.rows("SELECT name FROM history.things WHERE id = 1 ORDER BY _valid_from") == [(n,) for n in "abcd"]
    assert work.rows("SELECT id, _verified_at FROM main.things ORDER BY id") == [(1, NOW), (2, at(2))]
    assert correct(work) == {}


def test_o5_a_deletion_in_the_future_was_now(work: Work) -> None:
    walk = work.walk()
    work.commit([record(1, "a", 1)], 2, walk=walk, closes=False)
    work.connection.execute("UPDATE main.things SET _run_id = 'r'")
    tombstone(work.connection, work.target, work.walk(), 0, [Tombstone("1", "deleted", "404", at(AHEAD))])
    assert correct(work) == {"things": 1}
    assert work.rows("SELECT _deleted_at, _valid_from, _verified_at FROM main.things") == [(NOW, NOW, NOW)]
    assert spans(work, 1) == [(at(1), NOW), (NOW, None)]


def test_times_up_to_the_horizon_are_a_clock_that_is_a_little_off_and_stay(work: Work) -> None:
    work.commit([record(1, "a", 1020)], 1030)
    work.commit([record(2, "b", 1)], AHEAD)
    assert correct(work, horizon=at(1060)) == {"things": 1}
    assert work.rows("SELECT id, _valid_from, _verified_at FROM main.things ORDER BY id") == [
        (1, at(1020), at(1030)),
        (2, at(1), NOW),
    ]


@pytest.mark.parametrize(
    ("newest", "full_at", "expected"),
    [
        (at(500), at(AHEAD), [(at(500), at(500))]),
        (at(500), at(400), [(at(500), at(400))]),
        (at(500), None, [(at(500), None)]),  # it was never read whole
        (at(AHEAD), at(AHEAD), [(NOW, NOW)]),
        (None, at(AHEAD), []),
    ],
)
def test_o5_s4_a_list_is_complete_until_the_newest_change_that_it_showed(
    work: Work, newest: datetime | None, full_at: datetime | None, expected: list[tuple[datetime, datetime | None]]
) -> None:
    for stream, watermark in (("things", at(AHEAD)), ("others", at(900))):
        work.connection.execute(
            "INSERT INTO meta.checkpoints VALUES (?, 'all', 'v2', ?, ?, 1, 'r', ?)",
            [stream, watermark, full_at, newest],
        )
    correct(work)
    query = "SELECT watermark, full_at FROM meta.checkpoints WHERE stream = '{}'"
    assert work.rows(query.format("things")) == expected
    assert work.rows(query.format("others")) == [(at(900), full_at)]


def test_o5_s12_the_next_sync_goes_on_from_there(work: Work) -> None:
    """Only the time of the answer was wrong: the change that follows is not taken for an earlier one."""
    work.commit([record(1, "a", 5)], AHEAD, since=0)
    correct(work)
    work.commit([record(1, "b", 1005)], 1010, since=0)
    assert spans(work, 1) == [(at(5), at(1005)), (at(1005), None)]
    assert work.rows("SELECT name, _verified_at FROM main.things") == [("b", at(1010))]
