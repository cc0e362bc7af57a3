"""The staging table of a walk: what pages leave in it, what is noted about them, and what is quarantined."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from pdsync.core import catalogue
from pdsync.errors import BadAnswer
from pdsync.model import Page
from pdsync.normalise.readable import readable
from pdsync.normalise.stage import StagingTable

from .kit import SERVED, THINGS, decode, encode, lost, page, staged, table_of

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def stage(connection: duckdb.DuckDBPyConnection) -> Iterator[StagingTable]:
    stage = StagingTable(connection, "staged_pages", table_of(THINGS, "v2"))
    yield stage
    stage.clear()


def names(stage: StagingTable) -> list[tuple[Any, ...]]:
    return stage.connection.execute(f"SELECT _seq, id, name FROM {stage.relation} ORDER BY ALL").fetchall()


# -- rows --------------------------------------------------------------------------------------------


def test_the_rows_of_all_pages_are_there_until_they_are_cleared(stage: StagingTable) -> None:
    stage.add([page([{"id": 1, "name": "a"}], 0), page([{"id": 2, "name": "b"}, {"id": 1, "name": "c"}], 1)])
    stage.add([page([{"id": 3, "name": "d"}], 2)])
    assert names(stage) == [(0, 1, "a"), (1, 1, "c"), (1, 2, "b"), (2, 3, "d")]
    assert stage.rows == 4
    stage.clear()
    assert (stage.rows, stage.quarantined, stage.changes) == (0, [], [])
    with pytest.raises(duckdb.CatalogException):
        names(stage)
    stage.add([page([{"id": 4, "name": "e"}], 3)])
    assert names(stage) == [(3, 4, "e")]


@pytest.mark.parametrize("empty", [page([]), Page(1, 0, b"", 0, None, SERVED)], ids=["no record", "only the end"])
def test_a_page_without_records_makes_no_table(stage: StagingTable, empty: Page) -> None:
    stage.add([empty])
    assert stage.rows == 0
    with pytest.raises(duckdb.CatalogException):
        names(stage)


@pytest.mark.parametrize("before", [[], [{"id": 1, "name": "read"}]], ids=["the first pages", "later ones"])
def test_s4_of_pages_with_one_that_is_no_list_of_records_nothing_is_staged(
    stage: StagingTable, before: list[dict[str, Any]]
) -> None:
    if before:
        stage.add([page(before)])
    with pytest.raises(BadAnswer, match="no list of records"):
        stage.add([page([{"id": 2}], 1), Page(1, 2, b'{"success":true}', 0, None, SERVED)])
    assert stage.rows == len(before)


# -- what is noted -----------------------------------------------------------------------------------


def test_a_key_or_a_misfit_is_noted_once_and_kept_in_every_row_that_has_it(stage: StagingTable) -> None:
    records: list[dict[str, Any]] = [
        {"id": 1, "new": 1},
        {"id": 2, "value": "x", "place": {"city": "Y"}},
        {"id": 3, "emails": [{"value": "a", "sent": 1}]},
        {"id": 4, "name": "as it should be"},
    ]
    stage.add([page(records, 0), page(records, 1)])
    stage.add([page([{"id": 5, "new": 2, "value": "y"}], 2)])
    assert [(change.kind, change.name) for change in stage.changes] == [
        ("unknown_key", "new"),
        ("unknown_key", "place/city"),
        ("unknown_key", "emails"),
        ("unfit_value", "value"),
    ]
    assert {change.stream for change in stage.changes} == {"things"}
    assert "sent" in stage.changes[2].detail
    extra = stage.connection.execute(f"SELECT id, _extra FROM {stage.relation} ORDER BY id, _seq").fetchall()
    kept = [
        (1, {"new": 1}), (2, {"value": "x", "place/city": "Y"}), (3, {"emails": [{"value": "a", "sent": 1}]}), (4, None)
    ]  # fmt: skip
    expected = [each for each in kept for _ in range(2)] + [(5, {"new": 2, "value": "y"})]
    assert [(id, text and json.loads(text)) for id, text in extra] == expected


def test_one_element_with_a_new_key_changes_no_other_row(connection: duckdb.DuckDBPyConnection) -> None:
    """Else a record would look changed whenever it comes with other neighbours."""
    table = table_of(THINGS, "v2")
    plain = {"id": 1, "emails": [{"value": "a@example.com", "primary": True}]}
    odd = {"id": 2, "emails": [{"value": "b@example.com", "verified": True}]}
    alone, _ = staged(connection, table, [page([plain])])
    together, _ = staged(connection, table, [page([plain, odd])])
    assert together[0] == alone[0]
    assert lost(odd, together[1], table) == []


# -- what can't be read ------------------------------------------------------------------------------


KEYLESS: list[Any] = [
    {"name": "no key"}, {"id": None}, {"id": "abc"}, {"id": {"a": 1}}, {"id": [1]}, {"id": 10**30}, {"id": 1.5},
    {"id": "1e-1"}, {}, [{"id": 1}], 5, "x", True, None,
]  # fmt: skip


@pytest.mark.parametrize("record", KEYLESS, ids=repr)
def test_what_has_no_usable_key_is_quarantined_with_its_bytes(
    connection: duckdb.DuckDBPyConnection, record: Any
) -> None:
    """And the records around it are as they would be alone; above all, none takes its place."""
    table = table_of(catalogue.stream("pipelines"), "v2")
    others = [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}, {"id": 0, "name": "none"}]
    alone, _ = staged(connection, table, [page(others)])

    rows, quarantined = staged(connection, table, [page([others[0], record, *others[1:]])])

    assert rows == alone
    assert [(each.record.decode(), each.position, each.seq) for each in quarantined] == [(encode(record), 1, 0)]
    assert quarantined[0].reason


@pytest.mark.parametrize("levels", [10, 64, 65, 500])
def test_a_deeply_nested_record_is_kept(connection: duckdb.DuckDBPyConnection, levels: int) -> None:
    table = table_of(catalogue.stream("pipelines"), "v2")
    deep = b'{"id":7,"x":' + b"[" * levels + b"1" + b"]" * levels + b"}"
    rows, quarantined = staged(connection, table, [page([{"id": 1}, deep, {"id": 2}])])
    assert ([row["id"] for row in rows], quarantined) == ([1, 2, 7], [])
    assert lost(decode(deep), rows[2], table) == []


def test_a_page_nested_without_end_is_refused_with_a_reason(connection: duckdb.DuckDBPyConnection) -> None:
    table = table_of(catalogue.stream("pipelines"), "v2")
    with pytest.raises(BadAnswer, match="no list of records"):
        staged(connection, table, [page([{"id": 1}, b'{"id":7,"x":' + b"[" * 50_000 + b"]" * 50_000 + b"}"])])


@pytest.mark.parametrize(
    "raw", [b'{"id":7,"name":"\xff"}', b'{"id":7,"name":"\xed\xa0\x80"}', b'{"id":7,"\xc3":1}'], ids=repr
)
def test_bytes_that_are_no_text_are_quarantined_as_they_came(connection: duckdb.DuckDBPyConnection, raw: bytes) -> None:
    table = table_of(catalogue.stream("pipelines"), "v2")
    rows, quarantined = staged(connection, table, [page([{"id": 1}, raw, {"id": 2}])])
    assert [row["id"] for row in rows] == [1, 2]
    assert [(each.record, each.position) for each in quarantined] == [(raw, 1)]


@pytest.mark.parametrize("before", [[], [{"id": 1, "name": "read"}]], ids=["the first page", "a later one"])
def test_s9_a_page_of_which_no_record_can_be_read_is_quarantined_whole(
    connection: duckdb.DuckDBPyConnection, before: list[dict[str, Any]]
) -> None:
    unreadable = [b'{"id":7,"name":"\xff\xfe"}', b'{"id":8,"name":"\xff"}']
    stage = StagingTable(connection, "staged", table_of(catalogue.stream("stages"), "v2"))
    if before:
        stage.add([page(before, last=False)])
    stage.add([page(unreadable, len(before))])
    assert [(each.seq, each.record) for each in stage.quarantined] == [(len(before), each) for each in unreadable]
    assert stage.rows == len(before)


@pytest.mark.parametrize(
    ("record", "text"),
    [
        (b'{"id": 1,  "a":"\\u00fc"}', None),
        (b'{"id":1,"a":"\\u0000"}', None),
        (b'{"id":1,"id":2}', None),
        (b'{"id":1,"a":{"b\\u0000":1}}', None),  # no statement names a key of `a`
        (b'{"id":1,"a":"\\ud83d"}', {"id": 1, "a": "\ufffd"}),
        (b'{"id":1,"\\ud83d":2}', {"id": 1, "\ufffd": 2}),
        (b'{"id":1,"a\\u0000b":2}', {"id": 1, "a\ufffdb": 2}),
        (b'{"id":1,"a\\u0000b":{"c\\u0000":"\\ud83d"}}', {"id": 1, "a\ufffdb": {"c\0": "\ufffd"}}),
    ],
)
def test_a_record_is_made_readable_and_kept_as_it_came(record: bytes, text: Any) -> None:
    shown = readable(record)
    if text is None:
        assert shown == record.decode()
    else:
        assert json.loads(shown) == {**text, "_as_it_came": record.decode()}


def test_a_nul_in_a_key_is_replaced_in_every_object_whose_keys_a_statement_names() -> None:
    record = b'{"id":1,"custom_fields":{"a\\u0000":{"b\\u0000":1}}}'
    shown = json.loads(readable(record, ("", "/custom_fields")))
    assert shown["custom_fields"] == {"a\ufffd": {"b\0": 1}}
    assert shown["_as_it_came"] == record.decode()


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"\xff", "is not readable"),
        (b"{", "is not readable"),
        (b"[]", "is no object"),
        (b"null", "is no object"),
        (b'{"a":' * 63 + b"1" + b"}" * 63, None),
        (b'{"a":' * 64 + b"1" + b"}" * 64, "is nested deeper than 64 levels"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "is not readable"),
    ],
    ids=["no text", "no JSON", "a list", "null", "64 levels", "65 levels", "too deep to parse"],
)
def test_what_can_not_be_made_readable_has_a_reason(record: bytes, reason: str | None) -> None:
    if reason is None:
        assert readable(record) == record.decode()
    else:
        with pytest.raises(ValueError, match=reason):
            readable(record)
