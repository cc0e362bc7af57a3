"""What a batch does to a table: the same in any order, once however often, all of it or nothing."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import duckdb
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pdsync.core.custom_fields import SchemaChange
from pdsync.errors import StorageError
from pdsync.load import commit as committing
from pdsync.load.commit import Batch, Counts
from tests.normalise.kit import field

from .kit import THINGS, Work, at, record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pdsync.model import Stream

Served = tuple[float, dict[str, Any]]  # when the server showed it, and what
QUICK = settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


@st.composite
def pasts(draw: st.DrawFn) -> list[Served]:
    """What a server shows of a few records over time: each answer at a second of its own, as the record was then."""
    shown = []
    second = 0
    names: dict[int, tuple[str, int, bool]] = {}
    for _ in range(draw(st.integers(1, 7))):
        second += draw(st.integers(1, 3))
        id = draw(st.integers(1, 3))
        if id not in names or draw(st.booleans()):
            deleted = draw(st.booleans())
            names[id] = (draw(st.sampled_from("abc")), second - draw(st.integers(0, 1)), deleted)
        name, changed, deleted = names[id]
        shown.append((float(second), record(id, name, changed, is_deleted=deleted, label_ids=[1, id])))
    return shown


def table_after(work: Work, shown: list[Served], *, incremental: bool) -> list[tuple[Any, ...]]:
    work.reset()
    for served, what in shown:
        work.commit([what], served, since=0 if incremental else None)
    check_history(work)
    return work.content()


def check_history(work: Work) -> None:
    """S12: per key no overlap, no hole, exactly one open version, and that one is the row of the table."""
    rows = work.rows("SELECT id, _valid_from, _valid_to FROM history.things ORDER BY id, _valid_from")
    for id in {row[0] for row in rows}:
        spans = [(begin, end) for key, begin, end in rows if key == id]
        assert all(end == begin for (_, end), (begin, _) in pairwise(spans)), spans
        assert [end is None for _, end in spans] == [False] * (len(spans) - 1) + [True], spans
        assert all(end is None or begin < end for begin, end in spans), spans
    keys = work.rows("SELECT count(*), count(DISTINCT id) FROM main.things")[0]
    assert keys == (len({row[0] for row in rows}), len({row[0] for row in rows}))


@QUICK
@given(shown=pasts(), seed=st.integers(0, 2**16), incremental=st.booleans())
def test_s1_order_and_repetition_leave_no_trace(work: Work, shown: list[Served], seed: int, incremental: bool) -> None:
    """Late pages, repeated pages and repeated runs all end in the same table; S12 holds on the way there."""
    shuffled = shown * 2
    random.Random(seed).shuffle(shuffled)
    assert table_after(work, shuffled, incremental=incremental) == table_after(work, shown, incremental=incremental)


@QUICK
@given(shown=pasts())
def test_s2_s12_showing_all_of_it_again_changes_nothing(work: Work, shown: list[Served]) -> None:
    work.reset()
    for served, what in shown:
        work.commit([what], served)
    before, versions = work.content(), work.versions()
    last = {what["id"]: what for _, what in shown}
    for since in (None, 0):
        counts = work.commit(list(last.values()), 10_000, since=since)
        assert (counts.inserted, counts.updated, counts.deleted) == (0, 0, 0)
        assert counts.unchanged == len(last)
    assert (work.content(), work.versions()) == (before, versions)
    check_history(work)


def test_s2_a_batch_that_is_known_changes_nothing(work: Work) -> None:
    walk = work.walk(began=1)
    first = work.commit([record(1, "a", 0)], 1, walk=walk)
    before, versions, batches = work.content(), work.versions(), work.rows("FROM meta._applied_batches")
    again = work.commit([record(1, "b", 5), record(2, "c", 5)], 6, walk=walk)
    assert again == first == Counts(read=1, inserted=1)
    assert (work.content(), work.versions()) == (before, versions)
    assert work.rows("FROM meta._applied_batches") == batches


def test_s5_two_edits_within_one_second_both_land(work: Work) -> None:
    work.commit([record(1, "a", 5)], 5, since=0)
    work.commit([record(1, "b", 5)], 5, since=0)
    assert work.rows("SELECT name FROM main.things") == [("b",)]
    assert work.rows("SELECT name FROM history.things ORDER BY _valid_from") == [("a",), ("b",)]
    check_history(work)


def test_s5_a_record_that_a_walk_meets_twice_is_as_it_was_last(work: Work) -> None:
    walk = work.walk(began=0)
    stage = work.stage(walk, [record(1, "a", 0), record(2, "x", 0), record(1, "b", 1)], 1)
    counts = committing.commit(work.connection, work.target, stage.relation, Batch(walk, 0, 0, True, 3))
    assert counts.inserted == 2
    assert work.rows("SELECT id, name FROM main.things ORDER BY id") == [(1, "b"), (2, "x")]


@pytest.mark.parametrize("since", [None, 0])
def test_an_older_row_does_not_overwrite_a_newer_one(work: Work, since: float | None) -> None:
    work.commit([record(1, "new", 10)], 20, since=since)
    counts = work.commit([record(1, "old", 1)], 5, since=since)
    assert (counts.updated, counts.unchanged) == (0, 1)
    assert work.rows("SELECT name, _verified_at FROM main.things") == [("new", at(20))]


@pytest.mark.parametrize("since", [None, 0])
def test_s3_o5_a_newer_change_wins_over_a_row_that_a_clock_ahead_has_verified(work: Work, since: float | None) -> None:
    work.commit([record(1, "a", 1), record(2, "b", 1, is_deleted=True)], 86_400)  # the server's clock was a day ahead
    work.connection.execute("UPDATE main.things SET _deleted_at = ? WHERE id = 2", [at(50)])
    later = [record(1, "changed", 10), record(2, "from before it was removed", 10)]
    assert work.commit(later, 20, since=since).updated == 1
    assert work.rows("SELECT name FROM main.things ORDER BY id") == [("changed",), ("b",)]
    work.commit([record(2, "restored", 60)], 70, since=since)
    assert work.rows("SELECT name, _deleted_at FROM main.things WHERE id = 2") == [("restored", None)]
    check_history(work)


@pytest.mark.parametrize("since", [None, 0])
def test_s8_a_page_from_days_before_wins_by_no_time_of_change(work: Work, since: float | None) -> None:
    """No clock is wrong by days: the time of change was set back, and what the old page shows is over."""
    days = 3 * 86_400
    work.commit([record(1, "now", 1), record(2, "now", 1)], days)
    late = [record(1, "then", 10), record(2, "removed then, restored since", 10, is_deleted=True)]
    assert work.commit(late, 20, since=since).updated == 0
    assert work.rows("SELECT name, _deleted_at, _verified_at FROM main.things") == [("now", None, at(days))] * 2


def test_a_list_that_lags_does_not_turn_back_time(work: Work) -> None:
    """Changes were asked for: a later answer that shows an earlier state comes from a replica that lags."""
    work.commit([record(1, "new", 10)], 20, since=0)
    work.commit([record(1, "old", 1)], 30, since=0)
    assert work.rows("SELECT name FROM main.things") == [("new",)]


def test_s6_a_full_read_believes_what_it_sees_even_if_no_time_moved(work: Work) -> None:
    work.commit([record(1, "owner A", 10)], 20)
    counts = work.commit([record(1, "owner B", 10)], 30)
    assert counts.updated == 1
    assert work.rows("SELECT name, _valid_from FROM main.things") == [("owner B", at(30))]
    check_history(work)


def test_a_record_without_a_time_is_kept_too(work: Work) -> None:
    work.commit([{"id": 1, "name": "a"}], 5)
    work.commit([{"id": 1, "name": "b"}], 6)
    assert work.rows("SELECT name, _valid_from FROM history.things ORDER BY 2") == [("a", at(5)), ("b", at(6))]
    check_history(work)


def test_a_time_in_the_future_does_not_put_a_version_there(work: Work) -> None:
    work.commit([record(1, "a", 10**6)], 5)
    work.commit([record(1, "b", 10**6 + 1)], 6)
    assert work.rows("SELECT name, _valid_from FROM history.things ORDER BY 2") == [("a", at(5)), ("b", at(6))]
    check_history(work)


def test_a_deleted_record_stays_marked_and_comes_back(work: Work) -> None:
    work.commit([record(1, "a", 1), record(2, "b", 1)], 2)
    gone = work.commit([record(1, "a", 3, is_deleted=True)], 4, since=0)
    assert (gone.deleted, gone.updated) == (1, 0)
    assert work.rows("SELECT id, _deleted_at FROM main.things ORDER BY id") == [(1, at(3)), (2, None)]
    edited = work.commit([record(1, "c", 5, is_deleted=True)], 6, since=0)
    assert (edited.deleted, edited.updated) == (0, 1)
    back = work.commit([record(1, "a", 7, is_deleted=False)], 8, since=0)
    assert (back.deleted, back.updated) == (0, 1)
    assert work.rows("SELECT name, _deleted_at FROM main.things WHERE id = 1") == [("a", None)]
    assert len(work.rows("FROM history.things WHERE id = 1")) == 4
    check_history(work)


def test_a_flag_that_says_alive_marks_the_others(tmp_path: Path) -> None:
    files = msgspec.structs.replace(THINGS, columns={**THINGS.columns, "active": "BOOLEAN"}, deleted="!active")
    work = Work(tmp_path / "other.duckdb", files)
    work.commit([record(1, "a", 1, active=True), record(2, "b", 1, active=False), record(3, "c", 1)], 2)
    assert work.rows("SELECT id, _deleted_at IS NOT NULL FROM main.things ORDER BY id") == [
        (1, False),
        (2, True),
        (3, False),
    ]
    work.close()


# -- watermarks --------------------------------------------------------------------------------------


def test_s4_the_watermark_moves_with_the_last_batch_only(work: Work) -> None:
    walk = work.walk(began=7)
    work.commit([record(1, "a", 1)], 8, walk=walk, seq=0, closes=False)
    assert work.watermark() is None
    work.commit([record(2, "a", 1)], 9, walk=walk, seq=1, closes=True)
    assert work.watermark() == at(7)


def test_s4_the_watermark_never_moves_backwards(work: Work) -> None:
    work.commit([], 100)
    work.commit([record(1, "a", 1)], 50)
    assert work.watermark() == at(100)


def test_s4_a_walk_without_a_beginning_moves_nothing(work: Work) -> None:
    walk = msgspec.structs.replace(work.walk(), started_at=None)
    with pytest.raises(StorageError, match="no start time"):
        work.commit([record(1, "a", 1)], 5, walk=walk)
    assert (work.watermark(), work.content(), work.rows("FROM meta._applied_batches")) == (None, [], [])


def test_s3_the_watermark_is_when_the_walk_began_not_what_it_saw(work: Work) -> None:
    work.commit([record(1, "a", 500)], 600, walk=work.walk(began=3))
    assert work.watermark() == at(3)


def test_s4_changes_since_some_time_move_no_watermark_past_what_was_never_read(work: Work) -> None:
    work.commit([record(1, "a", 9)], 10, since=5)  # nothing tells what was before 5
    assert work.watermark() is None
    work.commit([], 20)
    work.commit([], 40, since=30)  # from 20 to 30 nothing was read
    assert work.watermark() == at(20)
    work.commit([], 50, since=20)
    assert work.watermark() == at(50)
    assert work.content() != []


def test_s3_s4_a_batch_of_another_run_with_the_same_walk_is_not_taken_for_loaded(work: Work) -> None:
    first = work.walk(began=1)
    work.commit([record(1, "a", 1)], 2, walk=first)
    again = work.commit([record(1, "b", 3)], 4, walk=first)
    other = work.commit([record(2, "c", 3)], 4, walk=msgspec.structs.replace(first, run_id="of another life"))
    assert (again.inserted, again.updated, other.inserted) == (1, 0, 1)
    assert [row[0] for row in work.rows("SELECT name FROM main.things ORDER BY id")] == ["a", "c"]


def test_full_reads_are_distinct_from_changes(work: Work) -> None:
    work.commit([], 10)
    work.commit([], 20, since=10)
    assert work.rows("SELECT watermark, full_at FROM meta.checkpoints") == [(at(20), at(10))]


# -- all or nothing ----------------------------------------------------------------------------------


def test_s1_what_was_staged_and_not_committed_leaves_nothing(work: Work) -> None:
    """The process dies between staging and commit: here its connection is gone, and another one opens the file."""
    walk = work.walk(began=1)
    work.stage(walk, [record(1, "a", 1)], 2)
    work.close()
    after = Work(work.path)
    assert (after.content(), after.rows("FROM meta._applied_batches"), after.watermark()) == ([], [], None)
    assert after.rows("SELECT count(*) FROM duckdb_tables() WHERE table_name LIKE 'staged%'") == [(0,)]
    after.close()


@pytest.mark.parametrize(
    "sabotage",
    [
        pytest.param("ALTER TABLE meta.checkpoints ADD COLUMN more INTEGER", id="watermark"),
        pytest.param("ALTER TABLE meta._applied_batches ADD COLUMN more INTEGER", id="batch"),
        pytest.param("ALTER TABLE meta.schema_changes DROP COLUMN detail", id="schema-change"),
        pytest.param("ALTER TABLE main.things DROP COLUMN _run_id", id="row"),
    ],
)
def test_s4_an_error_at_any_step_of_a_commit_leaves_nothing(work: Work, sabotage: str) -> None:
    work.commit([record(1, "a", 1)], 2)
    work.connection.execute("DROP VIEW history.things")
    work.connection.execute(sabotage)
    before = work.rows("SELECT id, name FROM main.things")
    change = SchemaChange("things", "unknown_key", "x", "y")
    with pytest.raises(duckdb.Error):
        work.commit([record(1, "b", 3), record(2, "c", 3)], 4, changes=[change])
    assert work.rows("SELECT id, name FROM main.things") == before
    assert work.rows("SELECT count(*) FROM versions.things") == [(0,)]
    assert work.rows("SELECT count(*) FROM meta._applied_batches") == [(1,)]
    assert work.rows("SELECT watermark FROM meta.checkpoints") == [(at(2),)]


def test_a_duplicate_key_stops_the_batch(work: Work) -> None:
    """Somebody else wrote to the file: uniqueness is checked, not hoped for."""
    work.commit([record(1, "a", 1)], 2)
    work.connection.execute("INSERT INTO main.things SELECT * FROM main.things")
    with pytest.raises(StorageError, match="not committed"):
        work.commit([record(1, "b", 3)], 4)
    assert work.rows("SELECT DISTINCT name FROM main.things") == [("a",)]


def test_quarantined_records_are_kept_with_their_bytes(work: Work) -> None:
    counts = work.commit([{"name": "no key"}, record(1, "a", 1)], 2)
    assert (counts.read, counts.inserted, counts.quarantined) == (2, 1, 1)
    assert work.rows("SELECT run_id, stream, page, position, reason, record FROM meta.quarantine") == [
        ("run-1", "things", 0, 0, "has no usable id", b'{"name":"no key"}')
    ]


def test_a_schema_change_is_recorded_once(work: Work) -> None:
    for second in (1, 2):
        work.commit([record(1, "a", 1, brand_new=5)], second)
    assert work.rows("SELECT run_id, kind, name FROM meta.schema_changes") == [("run-1", "unknown_key", "brand_new")]


# -- tables that change ------------------------------------------------------------------------------


def wider() -> Stream:
    more = {"stage_id": "BIGINT", "tag_ids": "BIGINT[]", "update_time": "TIMESTAMPTZ"}
    return msgspec.structs.replace(THINGS, columns={**THINGS.columns, **more})


def test_s16_a_new_column_does_not_make_rows_look_changed(work: Work) -> None:
    work.commit([record(1, "a", 1), record(2, "b", 1)], 2)
    work.shape(wider())
    counts = work.commit([record(1, "a", 1, tag_ids=[]), record(2, "b", 1, stage_id=None)], 3)
    assert (counts.updated, counts.unchanged) == (0, 2)
    counts = work.commit([record(1, "a", 1, stage_id=7), record(2, "b", 1)], 4)
    assert (counts.updated, counts.unchanged) == (1, 1)
    check_history(work)
    assert work.rows("SELECT stage_id FROM history.things WHERE id = 1 ORDER BY _valid_from") == [(None,), (7,)]


@pytest.fixture
def labelled(tmp_path: Path) -> Iterator[Work]:
    """A table with the labels of one option and of several."""
    work = Work(tmp_path / "labels.duckdb")
    work.shape(fields=[field("things", "a" * 40, "enum", "cf_tier"), field("things", "b" * 40, "set", "cf_mods")])
    options = [("a" * 40, "1", "Gold"), ("a" * 40, "2", "Tin"), ("b" * 40, "5", "X"), ("b" * 40, "6", "Y")]
    for code, option, label in options:
        work.connection.execute("INSERT INTO meta.field_options VALUES ('things', ?, ?, ?)", [code, option, label])
    yield work
    work.close()


def test_labels_stand_beside_their_ids(labelled: Work) -> None:
    labelled.commit([record(1, "a", 1, custom_fields={"a" * 40: 1, "b" * 40: [6, 5, 9]}), record(2, "b", 1)], 2)
    assert labelled.rows("SELECT cf_tier_label, cf_mods_labels FROM main.things ORDER BY id") == [
        ("Gold", ["Y", "X", None]),
        (None, []),
    ]


def test_s2_a_renamed_option_is_no_new_version(labelled: Work) -> None:
    what = record(1, "a", 1, custom_fields={"a" * 40: 1, "b" * 40: [6]})
    labelled.commit([what, record(2, "b", 1)], 2)
    labelled.connection.execute("UPDATE meta.field_options SET label = label || '!' WHERE option_id IN ('1', '6')")

    assert committing.refresh_labels(labelled.connection, labelled.target) == 2
    assert labelled.rows("SELECT cf_tier_label, cf_mods_labels FROM main.things WHERE id = 1") == [("Gold!", ["Y!"])]
    assert committing.refresh_labels(labelled.connection, labelled.target) == 0
    assert labelled.commit([what], 3).unchanged == 1
    assert labelled.rows("SELECT count(*) FROM versions.things") == [(0,)]


def test_s16_the_label_of_a_deleted_option_stays_beside_its_id(labelled: Work) -> None:
    labelled.commit([record(1, "a", 1, custom_fields={"a" * 40: 1, "b" * 40: [6, 9, 5]})], 2)
    labelled.connection.execute("DELETE FROM meta.field_options WHERE option_id IN ('1', '6')")
    labelled.connection.execute("UPDATE meta.field_options SET label = 'X!' WHERE option_id = '5'")
    assert committing.refresh_labels(labelled.connection, labelled.target) == 1
    labels = "SELECT cf_tier_label, cf_mods_labels FROM {} WHERE id = 1 AND cf_tier = 1"
    assert labelled.rows(labels.format("main.things")) == [("Gold", ["Y", None, "X!"])]
    labelled.connection.execute("DELETE FROM meta.field_options")  # the fields are gone
    assert committing.refresh_labels(labelled.connection, labelled.target) == 0
    labelled.commit([record(1, "a", 3, custom_fields={})], 4)
    assert labelled.rows(labels.format("versions.things")) == [("Gold", ["Y", None, "X!"])]


def test_s9_a_batch_without_a_record_that_has_a_key_counts_nothing(work: Work) -> None:
    walk = work.walk(began=0)
    stage = work.stage(walk, [{"id": None, "name": "of none"}], 1)
    assert stage.rows == 0
    assert committing.commit(work.connection, work.target, stage.relation, Batch(walk, 0, 0, True, 0)) == Counts()
    stage.clear()
