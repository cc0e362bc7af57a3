"""What a saved answer does not mention stays as it is in the table: no value is lost, and no version is made."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from pdsync.core import catalogue
from pdsync.core.list_response import open_envelope
from pdsync.load.commit import Batch, commit
from pdsync.model import FROM_FILES, Page, Walk
from pdsync.normalise.stage import StagingTable
from tests.normalise.kit import decode, field
from tests.normalise.test_documents import CASES, context
from tests.vendor import stored

from .kit import THINGS, Work, at, record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pdsync.load.commit import Counts
    from pdsync.model import Source, Stream, Version

CODE, OTHER = "a" * 40, "b" * 40
# One list a stream and version: the other lists of a stream have the same columns.
LISTS = {str(case.id).rpartition("-")[0]: case for case in CASES}


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Work]:
    work = Work(tmp_path / "work.duckdb")
    yield work
    work.connection.close()


@pytest.fixture(scope="module")
def any_stream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Work]:
    work = Work(tmp_path_factory.mktemp("unmentioned") / "work.duckdb")
    yield work
    work.connection.close()


def smallest(record: dict[str, Any], stream: Stream, version: Version) -> dict[str, Any]:
    """Of a record only what its key is made of."""
    of_key = stream.column(stream.key).join or (stream.key,)
    keys = {stream.column(name).path(name, version).split("/")[0] for name in of_key}
    return {key: value for key, value in record.items() if key in keys}


@pytest.mark.parametrize(("stream", "version", "source"), LISTS.values())
def test_no_stream_loses_a_value_to_the_smallest_answer(
    any_stream: Work, stream: Stream, version: Version, source: Source
) -> None:
    operation = catalogue.operations(version)[source.operation]
    body = json.dumps(stored("examples")[operation.name]).encode()
    whole = [decode(bytes(each)) for each in open_envelope(body, operation).records]
    work = any_stream
    work.version = version
    work.shape(stream)

    def load(records: list[dict[str, Any]], served: float, origin: str, query: dict[str, str]) -> Counts:
        work.walks += 1
        walk = Walk(work.walks, f"run-{work.walks}", stream.name, origin, version, operation.id, at(0), at(served))
        stage = StagingTable(work.connection, "staged_smallest", work.table, is_partial=origin == FROM_FILES)
        page = Page(walk.id, 0, json.dumps({"data": records}, default=str).encode(), len(records), None, at(served),
                    context=query)  # fmt: skip
        stage.add([page])
        batch = Batch(walk, 0, 0, False, len(records), unmentioned=stage.unmentioned)
        counts = commit(work.connection, work.target, stage.relation, batch)
        stage.clear()
        return counts

    work.rows(f'DELETE FROM main."{stream.name}"')
    load(whole, 1_000_000, "all", context(source, operation))
    before, versions = work.content(), work.versions()
    of_key = {stream.column(name).path(name, version) for name in stream.column(stream.key).join or (stream.key,)}
    query = {name: text for name, text in context(source, operation).items() if f"@{name}" in of_key}
    counts = load([smallest(each, stream, version) for each in whole], 2_000_000, FROM_FILES, query)
    assert (counts.inserted, counts.updated, counts.deleted) == (0, 0, 0)
    assert work.content() == before
    assert work.versions() == versions


def saved(work: Work, records: list[dict[str, Any]], served: float) -> Counts:
    """Load a saved answer."""
    return work.commit(records, served, walk=replace(work.walk(since=-1_000_000), source=FROM_FILES))


def test_a_saved_answer_that_lacks_a_key_keeps_its_column_and_changes_the_others(work: Work) -> None:
    work.commit([record(1, "a", 1, label_ids=[7]), record(2, "x", 1, label_ids=[8])], 2)
    counts = saved(work, [record(1, "b", 3), record(2, "x", 1, label_ids=None), record(3, "new", 3)], 4)
    assert (counts.inserted, counts.updated, counts.unchanged) == (1, 2, 0)
    rows = work.rows("SELECT id, name, label_ids FROM main.things ORDER BY id")
    assert rows == [(1, "b", [7]), (2, "x", []), (3, "new", [])]  # null is a value


def test_an_answer_may_mix_records_that_mention_different_columns(work: Work) -> None:
    work.commit([record(1, "a", 1, label_ids=[7]), record(2, "b", 1, label_ids=[8])], 2)
    saved(work, [{"id": 1, "label_ids": [9]}, {"id": 2, "name": "c"}], 4)
    rows = work.rows("SELECT id, name, label_ids, update_time FROM main.things ORDER BY id")
    assert rows == [(1, "a", [9], at(1)), (2, "c", [8], at(1))]


def test_custom_fields_stay_where_a_saved_answer_lacks_them_and_go_where_a_list_does(work: Work) -> None:
    """A list that pdsync read is whole: a custom field that it leaves out is not set."""
    work.shape(fields=[field("things", CODE, "varchar", "cf_size"), field("things", OTHER, "varchar", "cf_tier")])
    work.commit([record(1, "a", 1, custom_fields={CODE: "large", OTHER: "gold"})], 2)
    for served, values, expected in (
        (3, {OTHER: "silver"}, ("large", "silver")),
        (4, {}, ("large", "silver")),
        (5, {CODE: None}, (None, "silver")),
    ):
        saved(work, [record(1, "a", 1, custom_fields=values)], served)
        assert work.rows("SELECT cf_size, cf_tier FROM main.things") == [expected]
    work.commit([record(1, "a", 6, custom_fields={CODE: "small"})], 7)
    assert work.rows("SELECT cf_size, cf_tier FROM main.things") == [("small", None)]


def test_a_version_that_leaves_out_unset_fields_empties_them(tmp_path: Path) -> None:
    work = Work(tmp_path / "work.duckdb", replace(THINGS, omits_unset=("v1",)), "v1")
    work.shape(fields=[field("things", CODE, "varchar", "cf_size")])
    work.commit([record(1, "a", 1, **{CODE: "large"})], 2)
    saved(work, [record(1, "a", 3)], 4)
    assert work.rows("SELECT cf_size FROM main.things") == [(None,)]
    work.connection.close()


def test_a_deleted_record_that_is_loaded_again_without_its_flag_is_alive(work: Work) -> None:
    work.commit([record(1, "a", 1, is_deleted=True)], 2)
    saved(work, [record(1, "a", 3)], 4)
    assert work.rows("SELECT is_deleted, _deleted_at FROM main.things") == [(None, None)]


def test_what_no_column_takes_stays_where_a_saved_answer_lacks_it(work: Work) -> None:
    whole = record(1, "a", 1, **{"zeta": 1, "a/b": {"c": [2]}, "value": "3"})
    work.commit([whole], 2)
    saved(work, [{"id": 1, "value": "4"}], 3)
    assert work.rows("SELECT _extra FROM main.things") == [('{"a~1b":{"c":[2]},"value":"4","zeta":1}',)]
    work.commit([{**whole, "value": "4"}], 4)  # the order is that of a whole answer: nothing changed
    assert [row[0] for row in work.rows("SELECT count(*) FROM history.things")] == [2]
