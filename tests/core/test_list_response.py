"""Every shape that a list answer is known to take, and those that are none."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdsync.core.list_response import Envelope, open_envelope
from pdsync.errors import BadAnswer


def opened(**answer: Any) -> Envelope:
    return open_envelope(json.dumps({"success": True, **answer}).encode())


def records(envelope: Envelope) -> list[Any]:
    return [json.loads(bytes(record)) for record in envelope.records]


NESTED = {"pagination": {"start": 0, "limit": 2, "more_items_in_collection": True, "next_start": 2}}
FLAT = {"start": 0, "limit": 2, "more_items_in_collection": True, "next_start": 2}


@pytest.mark.parametrize("told", [NESTED, FLAT], ids=["nested", "flat"])
def test_v1_has_the_next_page_in_either_position(told: dict[str, Any]) -> None:
    envelope = opened(data=[{"id": 1}, {"id": 2}], additional_data=told, related_objects={"user": {"1": {"id": 1}}})
    assert records(envelope) == [{"id": 1}, {"id": 2}]
    assert (envelope.described, envelope.more, envelope.next_start, envelope.next_cursor) == (True, True, 2, None)


@pytest.mark.parametrize("place", [lambda told: {"pagination": told}, lambda told: told], ids=["nested", "flat"])
def test_v1_may_leave_out_where_the_next_page_begins(place: Any) -> None:
    envelope = opened(data=[{"id": 1}], additional_data=place({"start": 0, "more_items_in_collection": True}))
    assert (envelope.more, envelope.next_start) == (True, None)
    last = opened(data=[{"id": 1}], additional_data=place({"more_items_in_collection": False, "next_start": 0}))
    assert (last.more, last.next_start) == (False, 0)


def test_of_two_positions_the_nested_one_counts() -> None:
    envelope = opened(data=[], additional_data={**FLAT, "pagination": {"more_items_in_collection": False}})
    assert envelope.more is False


@pytest.mark.parametrize("nested", [True, False], ids=["nested", "flat"])
def test_a_cursor_is_found_in_either_place(nested: bool) -> None:
    told = {"next_cursor": "abc"}
    envelope = opened(data=[{"id": 1}], additional_data={"pagination": told} if nested else told)
    assert (envelope.next_cursor, envelope.described) == ("abc", True)


@pytest.mark.parametrize(
    ("answer", "described"),
    [
        ({"additional_data": {"next_cursor": None}}, True),
        ({"additional_data": {}}, True),
        ({"additional_data": {"pagination": None}}, True),
        ({"additional_data": {"pagination": {}, "estimated_count": 3}}, True),
        ({"additional_data": None}, False),
        ({}, False),
    ],
)
def test_an_end_that_is_described_is_distinct_from_one_that_is_not(answer: dict[str, Any], described: bool) -> None:
    envelope = opened(data=[{"id": 1}], **answer)
    assert (envelope.next_cursor, envelope.more, envelope.described) == (None, None, described)
    assert records(envelope) == [{"id": 1}]


def test_null_is_distinct_from_an_empty_list() -> None:
    assert (opened(data=None).records, opened(data=None).was_null) == ([], True)
    assert (opened(data=[]).records, opened(data=[]).was_null) == ([], False)


def test_s9_an_answer_without_data_is_no_empty_list() -> None:
    with pytest.raises(BadAnswer):
        opened()


def test_a_list_that_comes_wrapped_twice_is_unwrapped() -> None:
    assert records(opened(data=[[{"id": 1}, {"id": 2}]], additional_data=NESTED)) == [{"id": 1}, {"id": 2}]
    assert records(opened(data=[[]])) == []
    assert records(open_envelope(b'{"data":[ [{"id":1}]]}')) == [{"id": 1}]
    assert records(opened(data=[[1], [2]])) == [[1], [2]]  # two lists are no wrapping


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><body>Maintenance</body></html>",
        b'{"success":true,"data":[{"id":1}',
        b'{"success":true,"data":{"id":1}}',
        b'{"success":true,"data":"none"}',
        b'{"success":true,"data":7}',
        b'[{"id":1}]',
        b"null",
        b"7",
        b'{"data":[],"additional_data":[]}',
        b'{"data":[],"additional_data":{"next_cursor":7}}',
        b'{"data":[],"additional_data":{"pagination":{"more_items_in_collection":"yes"}}}',
        b'{"data":[{"id":1}]} trailing',
        b"\x1f\x8b\x08",
        b"[" * 100_000,
        b'{"data":' + b"[" * 100_000,
    ],
    ids=lambda body: repr(body[:50]),
)
def test_what_is_no_list_of_records_is_refused(body: bytes) -> None:
    with pytest.raises(BadAnswer, match="no list of records"):
        open_envelope(body)


def test_x10_the_excerpt_of_a_bad_answer_can_t_steer_a_terminal() -> None:
    with pytest.raises(BadAnswer) as caught:
        open_envelope(b"\x1b]52;c;aGk=\x07<html>")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "record",
    [
        '{"id" : 1 , "value":1.10, "a":1e400, "b":123456789012345678901234567890}',
        '{"id":1,"title":"\\u00fc\\/ \\ud83d\\ude42","id":2}',
        '{"z":1,"a":{"y":[ 1,2 ]}}',
        '{"title":"東京 🙂"}',
    ],
)
def test_the_bytes_of_a_record_are_not_touched(record: str) -> None:
    body = b'{"data":[' + record.encode() + b" , {} ]}"
    assert bytes(open_envelope(body).records[0]) == record.encode()


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ('"\\ud83d"', "\ud83d"),
        ('"\\udc00 and \\ud83d\\ude42"', "\udc00 and 🙂"),
        ("NaN", None),
        ("[1, Infinity]", [1, float("inf")]),
        ("1" * 400, int("1" * 400)),
    ],
    ids=["high surrogate", "low surrogate", "NaN", "Infinity", "400 digits"],
)
def test_s16_what_strict_parsers_refuse_is_kept_with_its_paging(value: str, read: Any) -> None:
    body = f'{{"data":[{{"id":1}},{{"id":2,"title":{value}}}],"additional_data":{{"next_cursor":"abc"}}}}'.encode()
    envelope = open_envelope(body)
    found = records(envelope)
    assert [record["id"] for record in found] == [1, 2]
    assert envelope.next_cursor == "abc"
    if value == "NaN":
        assert found[1]["title"] != found[1]["title"]
    else:
        assert found[1]["title"] == read


def test_s16_a_list_that_is_wrapped_twice_and_odd_is_unwrapped_too() -> None:
    assert records(open_envelope(b'{"data":[[{"id":1},{"id":NaN}]],"a":NaN,"additional_data":null}'))[0] == {"id": 1}
    assert len(open_envelope(b'\xef\xbb\xbf{"data":[[{"id":1},{"id":2}]]}').records) == 2  # a byte order mark


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.dictionaries(st.text(max_size=8), JSON, max_size=4), max_size=3), st.booleans())
def test_every_record_comes_out_as_it_went_in(data: list[dict[str, Any]], ascii_only: bool) -> None:
    texts = [json.dumps(record, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass") for record in data]
    envelope = open_envelope(b'{"success":true,"data":[' + b",".join(texts) + b"]}")
    assert [bytes(record) for record in envelope.records] == texts


@given(st.binary(max_size=60))
def test_bytes_of_any_kind_are_read_or_refused(body: bytes) -> None:
    try:
        envelope = open_envelope(body)
    except BadAnswer:
        return
    assert isinstance(msgspec.json.decode(body), dict)
    assert all(isinstance(record, msgspec.Raw) for record in envelope.records)
