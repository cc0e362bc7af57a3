"""What is told of the past: one version of a record at any moment, in whichever order they came to be known."""

from __future__ import annotations

import random
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pdsync.load import history, warehouse
from pdsync.sql import quoted

from .kit import Work, at, record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    import duckdb

Shown = tuple[float, bool, list[dict[str, Any]]]  # when a page was served, whether changes were asked for, its records


@st.composite
def readings(draw: st.DrawFn) -> list[Shown]:
    """Pages as runs and backfills bring them: edits within one second, pages that come late, pages that come twice."""
    names: dict[int, tuple[str, int, bool]] = {}
    shown: list[Shown] = []
    second = 0
    for number in range(draw(st.integers(2, 9))):
        second += draw(st.integers(0, 2))  # 0: the same second once more
        for id in draw(st.sets(st.integers(1, 3), min_size=1)):
            names[id] = (f"{number}{draw(st.sampled_from('ab'))}", second, draw(st.booleans()))
        page = [record(id, name, when, is_deleted=gone, label_ids=[id]) for id, (name, when, gone) in names.items()]
        shown.append((float(second), draw(st.booleans()), page))
    late = draw(st.lists(st.sampled_from(shown), max_size=4))
    return [*shown, *late]


def spans_of(work: Work) -> dict[int, list[tuple[datetime, datetime | None]]]:
    found: dict[int, list[tuple[datetime, datetime | None]]] = {}
    for id, begin, end in work.rows("SELECT id, _valid_from, _valid_to FROM history.things ORDER BY id, _valid_from"):
        found.setdefault(id, []).append((begin, end))
    return found


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Work]:
    work = Work(tmp_path_factory.mktemp("history") / "w.duckdb")
    yield work
    work.close()


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(shown=readings(), seed=st.integers(0, 2**16), swaps=st.booleans())
def test_s12_versions_have_no_overlap_no_hole_and_one_open_end(
    shared: Work, shown: list[Shown], seed: int, swaps: bool
) -> None:
    """Late pages, edits within a second and repeated runs: a timeline all the same, and replays add nothing to it."""
    shared.reset()
    pages = list(shown)
    if swaps:
        random.Random(seed).shuffle(pages)
    for served, incremental, page in pages:
        shared.commit(page, served, since=0 if incremental else None)
        for spans in spans_of(shared).values():
            assert all(end == begin for (_, end), (begin, _) in pairwise(spans)), spans
            assert all(end is None or begin < end for begin, end in spans), spans
            assert [end is None for _, end in spans] == [False] * (len(spans) - 1) + [True], spans
    before = shared.versions()
    newest = max(served for served, _, _ in shown)
    for served, _, page in pages:
        if served == newest:
            continue  # its second is not over: what was served in it may still be news
        shared.commit(page, served, since=0)
    assert shared.versions() == before


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(shown=readings(), moments=st.tuples(st.integers(-1, 12), st.integers(-1, 12)))
def test_differences_lead_from_one_moment_to_the_other(
    shared: Work, shown: list[Shown], moments: tuple[int, int]
) -> None:
    shared.reset()
    for served, incremental, page in shown:
        shared.commit(page, served, since=0 if incremental else None)
    one, other = at(min(moments)), at(max(moments))
    names = alive(shared, one)
    counted = history.count_differences(shared.connection, "things", "id", (one, other))["kinds"]
    told = list(history.differences(shared.connection, "things", "id", (one, other)))
    assert {kind: sum(each.kind == kind for each in told) for kind in counted} == counted
    for each in told:
        if each.kind == "gone":
            assert names.pop(each.key) == each.before["name"]  # type: ignore[index]
        else:
            assert (each.kind == "added") == (each.key not in names)
            assert each.after is not None
            assert each.kind == "added" or "name" in {change.field for change in each.fields()}
            names[each.key] = each.after["name"]
    assert names == alive(shared, other)


def alive(work: Work, moment: datetime) -> dict[int, str]:
    """Names by id as of `moment`, from the intervals alone."""
    rows = work.connection.execute(
        "SELECT id, name FROM history.things WHERE _deleted_at IS NULL"
        " AND _valid_from <= $1 AND coalesce(_valid_to > $1, true)",
        [moment],
    ).fetchall()
    assert len({row[0] for row in rows}) == len(rows)
    return dict(rows)


# -- as of a moment ----------------------------------------------------------------------------------


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A file with a past: one record that was renamed, relabelled and deleted, one that came later."""
    work = Work(tmp_path / "published.duckdb")
    columns = warehouse.columns_of_tables(work.connection)["things"]
    for statement in (
        *warehouse.child_views("thing_labels", "things", "id", "thing_id", "label_ids", [], "label_id"),
        warehouse.labeled_view("things", warehouse.labeled_columns(columns, {}, {}, {})),
    ):
        work.connection.execute(statement)
    work.connection.execute("CREATE VIEW sales.names AS SELECT name FROM main.things WHERE _deleted_at IS NULL")
    work.commit([record(1, "first", 10, label_ids=[7])], 12)
    work.commit([record(1, "second", 20, label_ids=[7, 8])], 22, since=0)
    work.commit([record(1, "second", 30, label_ids=[], is_deleted=True), record(2, "other", 30)], 32, since=0)
    work.close()
    return work.path


def ask(published: Path, second: float, query: str) -> list[tuple[Any, ...]]:
    connection = warehouse.attach(published, "published")
    try:
        history.show_as_of(connection, "published", at(second))
        return connection.execute(query).fetchall()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("second", "names", "labels", "ends"),
    [
        (9.9, [], [], []),
        (10, ["first"], [7], [None]),
        (19.9, ["first"], [7], [None]),
        (20, ["second"], [7, 8], [at(20), None]),
        (30, ["other"], [], [at(20), at(30), None, None]),
        (99, ["other"], [], [at(20), at(30), None, None]),
    ],
)
def test_every_table_is_of_that_moment(
    published: Path, second: float, names: list[str], labels: list[int], ends: list[datetime | None]
) -> None:
    wanted = [(name,) for name in names]
    assert ask(published, second, "SELECT name FROM things WHERE _deleted_at IS NULL") == wanted
    assert ask(published, second, "SELECT name FROM labeled.things WHERE _deleted_at IS NULL") == wanted
    assert ask(published, second, "SELECT name FROM sales.names") == wanted
    query = "SELECT label_id FROM thing_labels WHERE thing_id = 1 ORDER BY position"
    assert ask(published, second, query) == [(label,) for label in labels]
    assert [row[0] for row in ask(published, second, "SELECT _valid_to FROM history.things ORDER BY 1")] == ends
    found = ask(published, second, "SELECT count(*) FROM history.thing_labels WHERE _valid_to IS NULL")
    assert found == [(len(labels),)]
    assert ask(published, second, "SELECT count(*) FROM meta._applied_batches") == [(3,)]


def test_a_changed_leaf_of_extra_is_a_change_of_its_own() -> None:
    before = {"id": 1, "name": "a", "_extra": '{"x": 1, "y": 2}', "_run_id": "one", "cf_tier": 1, "cf_tier_label": "A"}
    after = {"id": 1, "name": "a", "_extra": '{"x": 1, "z": 3}', "_run_id": "two", "cf_tier": 2, "cf_tier_label": "B"}
    found = history.changed_fields(before, after, ("cf_tier_label",))
    assert [(each.field, each.before, each.after) for each in found] == [
        ("_extra/y", 2, None),
        ("_extra/z", None, 3),
        ("cf_tier", 1, 2),
    ]


def test_versions_come_in_order_and_keys_are_compared_as_text(tmp_path: Path) -> None:
    work = Work(tmp_path / "w.duckdb")
    for second in (1, 2, 3):
        work.commit([record(1, f"name {second}", second), record(12, "other", 1)], second)
    rows = history.versions(work.connection, "things", "id", "1")
    assert [row["name"] for row in rows] == ["name 1", "name 2", "name 3"]
    assert [row["_valid_to"] for row in rows] == [at(2), at(3), None]
    assert history.versions(work.connection, "things", "id", "1' OR '1'='1") == []
    work.close()


def test_a_moment_between_two_versions_is_in_exactly_one(tmp_path: Path) -> None:
    work = Work(tmp_path / "w.duckdb")
    for _ in range(3):  # three states within one second
        work.commit([record(1, f"n{_}", 5)], 5, since=0)
    (begin,) = {row[0] for row in work.rows("SELECT min(_valid_from) FROM history.things")}
    assert alive(work, begin - timedelta(microseconds=1)) == {}
    assert [alive(work, begin + timedelta(microseconds=each)) for each in range(3)] == [{1: f"n{i}"} for i in range(3)]
    work.close()


def test_names_of_tables_are_quoted(tmp_path: Path) -> None:
    odd = 'a"; DROP TABLE meta.runs; --'
    connection: duckdb.DuckDBPyConnection = warehouse.connect(tmp_path / "odd.duckdb")
    for schema in ("versions", "history", "meta"):
        connection.execute(f"CREATE SCHEMA {schema}")
    connection.execute("CREATE TABLE meta.runs (id INTEGER)")
    warehouse.ensure_table(connection, odd, {"id": "BIGINT"})
    connection.execute(warehouse.history_view(odd))
    counted = history.count_differences(connection, odd, "id", (at(0), at(1)))
    assert (set(counted["kinds"].values()), counted["bases"]) == ({0}, {})
    connection.close()
    past = warehouse.attach(tmp_path / "odd.duckdb", "published")
    history.show_as_of(past, "published", at(0))
    assert past.execute(f"SELECT count(*) FROM {quoted('main', odd)}, meta.runs").fetchall() == [(0,)]
    past.close()


BEFORE_THE_FIRST_SYNC = {  # id, created, first version, deleted → kind and basis between the seconds 10 and 20
    "a new one": ((12, 15, False), ("added", "history")),
    "a new one that was edited later": ((12, 25, False), ("added", "estimate")),
    "an old one that was edited": ((2, 15, False), ("first_observed", "history")),
    "an old one that was deleted": ((2, 15, True), ("gone", "estimate")),
    "an old one that was edited later": ((2, 25, False), ("unknown", None)),
    "an old one that was not edited": ((2, 5, False), None),
    "an old one with edits in its log": ((2, 25, False), ("changed", "changelog")),
    "an old one that was edited and changed back": ((2, 15, False), ("first_observed", "history")),
    "a later one": ((22, 25, False), None),
}
LOG = {  # id → second, old, new
    7: [(11, "a", "b"), (12, "c", "d"), (12, "b", "c"), (25, "d", "e")],
    8: [(11, "a", "b"), (12, "b", "a")],
}


def test_what_existed_before_its_first_version_is_not_added(tmp_path: Path) -> None:
    work = Work(tmp_path / "w.duckdb")
    work.connection.execute("ALTER TABLE main.things ADD COLUMN created TIMESTAMPTZ")
    work.connection.execute(
        "CREATE TABLE main.log"
        " (thing BIGINT, time TIMESTAMPTZ, field_key VARCHAR, old_value VARCHAR, new_value VARCHAR)"
    )
    for id, ((created, first, is_deleted), _) in enumerate(BEFORE_THE_FIRST_SYNC.values(), 1):
        work.connection.execute(
            "INSERT INTO main.things (id, name, created, _valid_from, _deleted_at) VALUES (?, 'x', ?, ?, ?)",
            [id, at(created), at(first), at(first) if is_deleted else None],
        )
        for second, old, new in LOG.get(id, []):
            work.connection.execute("INSERT INTO main.log VALUES (?, ?, 'name', ?, ?)", [id, at(second), old, new])
    moments, past = (at(10), at(20)), history.Past("created", at(30), ("log", "thing"), "name")
    shown = {each.key: each for each in history.differences(work.connection, "things", "id", moments, past)}
    expected = {id: kind for id, (_, kind) in enumerate(BEFORE_THE_FIRST_SYNC.values(), 1) if kind}
    assert {id: (each.kind, each.basis) for id, each in shown.items()} == {
        id: kind for id, kind in expected.items() if kind[0] != "unknown"
    }
    assert shown[7].fields() == [history.FieldChange("name", "a", "d")]
    assert history.count_differences(work.connection, "things", "id", moments, past) == {
        "kinds": {"added": 2, "changed": 1, "gone": 1, "first_observed": 2, "unknown": 1},
        "bases": {"history": 3, "estimate": 2, "changelog": 1},
    }
    without = history.count_differences(work.connection, "things", "id", moments, history.Past(None, at(15)))
    assert without["kinds"] == {"added": 0, "changed": 0, "gone": 0, "first_observed": 3, "unknown": 0}
    work.close()
