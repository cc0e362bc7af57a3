"""The rows of removed records stay and are marked, once, and never against newer evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from pdsync.load import tombstones
from pdsync.load.commit import Counts
from pdsync.model import FINDINGS, Tombstone

from .kit import Work, at, record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pdsync.model import Walk


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Work]:
    work = Work(tmp_path_factory.mktemp("tombstones") / "work.duckdb")
    yield work
    work.close()


@pytest.fixture
def work(shared: Work) -> Work:
    shared.reset()
    shared.connection.execute("DELETE FROM meta.merges")
    return shared


def findings(work: Work) -> Walk:
    """The walk of a run that notes which records are gone."""
    return msgspec.structs.replace(work.walk(), source=FINDINGS)


def gone(key: int, second: float, winner: str | None = None) -> Tombstone:
    return Tombstone(str(key), "deleted", "404", at(second), winner)


def mark(work: Work, *removed: Tombstone, walk: Walk | None = None, page: int = 0) -> Counts:
    return tombstones.tombstone(work.connection, work.target, walk or findings(work), page, removed)


def test_the_row_stays_with_the_time_of_its_deletion_and_its_last_version_ends_there(work: Work) -> None:
    work.commit([record(1, "a", 1, label_ids=[4]), record(2, "b", 1)], 10)
    walk = findings(work)
    assert mark(work, gone(1, 20), walk=walk) == Counts(read=1, deleted=1)
    assert work.rows("SELECT id, name, label_ids, _deleted_at, _verified_at, _run_id FROM main.things ORDER BY id") == [
        (1, "a", [4], at(20), at(20), walk.run_id),
        (2, "b", [], None, at(10), "run-1"),
    ]
    assert work.rows(
        "SELECT name, _deleted_at, _valid_from, _valid_to FROM history.things WHERE id = 1 ORDER BY _valid_from"
    ) == [("a", None, at(1), at(20)), ("a", at(20), at(20), None)]


def test_a_record_that_returns_unchanged_is_alive_again(work: Work) -> None:
    what = record(1, "a", 1)
    work.commit([what], 10)
    mark(work, gone(1, 20))
    assert work.commit([what], 30).updated == 1
    assert work.rows("SELECT _deleted_at FROM main.things") == [(None,)]
    assert work.rows("SELECT count(*) FROM history.things") == [(3,)]


def test_a_page_that_is_loaded_already_changes_nothing(work: Work) -> None:
    work.commit([record(1, "a", 1), record(2, "b", 1)], 10)
    walk = findings(work)
    mark(work, gone(1, 20), walk=walk)
    before = work.versions()
    assert mark(work, gone(1, 20), gone(2, 20), walk=walk) == Counts(read=2, deleted=1)
    assert work.versions() == before
    assert mark(work, gone(2, 20), walk=walk, page=1).deleted == 1


def test_a_record_that_is_marked_already_or_has_no_row_changes_nothing(work: Work) -> None:
    work.commit([record(1, "a", 1)], 10)
    mark(work, gone(1, 20))
    before = work.versions()
    assert mark(work, gone(1, 40), gone(99, 40)) == Counts(read=2)
    assert work.versions() == before


def test_s8_a_finding_that_is_loaded_late_buries_nothing_that_was_seen_alive_since(work: Work) -> None:
    work.commit([record(1, "a", 1), record(2, "b", 1)], 10)
    work.commit([record(1, "a", 1)], 30, since=5)
    assert mark(work, gone(1, 20), gone(2, 20)).deleted == 1
    assert work.rows("SELECT id FROM main.things WHERE _deleted_at IS NOT NULL") == [(2,)]


def test_the_run_that_read_the_record_itself_may_mark_it(work: Work) -> None:
    """Within a run the deletion is the later finding, even where the server's clock says otherwise."""
    walk = work.walk()
    work.commit([record(1, "a", 1)], 30, walk=walk, closes=False)
    assert mark(work, gone(1, 20), walk=msgspec.structs.replace(walk, id=99)).deleted == 1


def test_s12_a_deletion_before_the_last_version_began_comes_right_after_it(work: Work) -> None:
    walk = work.walk()
    work.commit([record(1, "a", 25)], 30, walk=walk, closes=False)
    mark(work, gone(1, 20), walk=msgspec.structs.replace(walk, id=99))
    [(begin, end), (second, rest)] = work.rows("SELECT _valid_from, _valid_to FROM history.things ORDER BY 1")
    assert (begin, rest) == (at(25), None)
    assert end == second > begin


def test_a_key_that_is_named_twice_is_one_deletion_at_the_earlier_time(work: Work) -> None:
    work.commit([record(1, "a", 1)], 10)
    assert mark(work, gone(1, 30), gone(1, 20)).deleted == 1
    assert work.rows("SELECT _deleted_at FROM main.things") == [(at(20),)]
    assert work.rows("SELECT count(*) FROM versions.things") == [(1,)]


def test_a_merge_is_noted_with_its_winner_and_a_later_finding_replaces_it(work: Work) -> None:
    work.commit([record(1, "a", 1)], 10)
    mark(work, gone(1, 20, winner="7"), gone(2, 20))
    walk = findings(work)
    mark(work, gone(1, 30, winner="8"), walk=walk)
    assert work.rows("SELECT entity, loser_id, winner_id, confidence, seen_at, run_id FROM meta.merges") == [
        ("things", 1, 8, "exact", at(30), walk.run_id)
    ]


def test_s13_a_record_that_is_alive_again_and_has_changed_since_was_not_merged_away(work: Work) -> None:
    """2 is shown unchanged, by a list that may lag behind its merge; 3 is merged into the record that returned."""
    work.commit([record(id, "a", 1) for id in (1, 2, 3)], 10)
    mark(work, gone(1, 20, winner="3"), gone(2, 20, winner="3"))
    work.commit([record(1, "a", 25), record(2, "a", 1)], 30)
    assert work.rows("SELECT id, _deleted_at IS NULL FROM main.things ORDER BY id") == [(n, True) for n in (1, 2, 3)]
    assert work.rows("SELECT loser_id, winner_id FROM meta.merges") == [(2, 3)]
    mark(work, gone(3, 40, winner="1"))
    assert work.rows("SELECT loser_id, winner_id FROM meta.merges ORDER BY 1") == [(2, 3), (3, 1)]


def test_s13_a_merge_that_is_loaded_late_is_not_noted_of_a_record_that_has_changed_since(work: Work) -> None:
    work.commit([record(1, "a", 25), record(2, "a", 1)], 30)
    mark(work, gone(1, 20, winner="7"), gone(2, 20, winner="7"))
    assert work.rows("SELECT loser_id, winner_id FROM meta.merges") == [(2, 7)]


def test_s4_an_error_leaves_nothing(work: Work) -> None:
    work.commit([record(1, "a", 1)], 10)
    before = work.versions()
    with pytest.raises(ValueError, match="invalid literal"):
        mark(work, gone(1, 20), Tombstone("no number", "merged", "seen", at(20), "7"))
    assert work.versions() == before
    assert work.rows("SELECT count(*) FROM meta._applied_batches") == [(1,)]
