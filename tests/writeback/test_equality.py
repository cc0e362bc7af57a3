"""The same value, however the API writes it; and other values, however alike they look."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdsync.writeback.equality import (
    changed_fields,
    equivalent,
    fields_not_returned,
    snapshot_fields,
)

CODE = "a" * 40
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize(
    ("sent", "held"),
    [
        (5, {"id": 5, "name": "Anna"}),
        (5, {"value": 5, "name": "Acme"}),
        ("3", 3),
        (12.50, "12.5"),
        (True, 1),
        (False, "0"),
        (None, ""),
        (None, []),
        ("", None),
        ([2, 1], [1, 2]),
        ([2, 1], "1,2"),
        ("2026-01-05T10:00:00Z", "2026-01-05 10:00:00"),
        ("2026-01-05T11:00:00+01:00", "2026-01-05T10:00:00.123Z"),
        ("10:00", "10:00:00"),
        (" Deal  ", "Deal"),
        ("<p>Hello <b>you</b></p>", "<p>Hello</p> <i>you</i>"),
        ({"value": 5, "currency": "EUR"}, {"value": "5.00", "currency": "EUR"}),
        ({"value": "Street 1"}, {"value": "Street 1", "country": "Germany"}),
        ({"value": "x"}, "x"),
        ([{"value": "a@b.c", "primary": True}], [{"value": "a@b.c", "primary": True, "label": ""}]),
        (None, {"value": None, "currency": None}),
        ([{"label": "Gold", "color": "red"}], [{"id": 7, "label": "Gold ", "color": None}]),
    ],
)
def test_written_otherwise_and_yet_the_same(sent: Any, held: Any) -> None:
    assert equivalent(sent, held)


@pytest.mark.parametrize(
    ("sent", "held"),
    [
        (5, {"id": 6}),
        ("open", "won"),
        (0, None),
        (False, True),
        (None, 0),
        (None, "x"),
        ([1], [1, 1]),
        ([1, 2], [1]),
        ("2026-01-05T10:00:00Z", "2026-01-05T11:00:00Z"),
        ({"value": 5, "currency": "EUR"}, {"value": 5, "currency": "USD"}),
        ([{"value": "a@b.c"}], [{"value": "a@b.d"}]),
        ("12", "12a"),
        ("0012", "12"),
        ("+49301234", "49301234"),
        ("1.10", "1.1"),
        ([{"value": "+4930"}], [{"value": "4930"}]),
    ],
)
def test_alike_and_yet_another_value(sent: Any, held: Any) -> None:
    assert not equivalent(sent, held)


@pytest.mark.parametrize(
    ("sent", "held"),
    [
        ("A 1", "A  1"),
        ("A 1", " A 1"),
        ("A\n1", "A 1"),
        ("<b>A</b>", "A"),
        ('<a href="new">A</a>', '<a href="old">A</a>'),
        ([{"value": "A 1"}], [{"value": "A  1"}]),
    ],
)
def test_a_text_that_pipedrive_may_have_cleaned_is_not_exactly_the_same(sent: Any, held: Any) -> None:
    assert equivalent(sent, held)
    assert not equivalent(sent, held, exact=True)


@pytest.mark.parametrize(
    ("sent", "held"),
    [
        (" A ", "A"),
        ("A\r\n1", "A\n1"),
        ("A & B", "A &amp; B"),
        (5, {"id": 5}),
        ("2026-01-05T10:00:00Z", "2026-01-05 10:00:00"),
    ],
)
def test_exactly_the_same_though_written_otherwise(sent: Any, held: Any) -> None:
    assert equivalent(sent, held, exact=True)


@given(VALUES)
def test_every_value_is_the_same_as_itself(value: Any) -> None:
    assert equivalent(value, value)


def test_fields_inside_custom_fields_are_fields_of_their_own() -> None:
    record = {"title": "a", "custom_fields": {CODE: 1}}
    payload = {"title": "b", "custom_fields": {CODE: 1, "b" * 40: 2}}
    assert snapshot_fields(record, payload) == {
        "title": "a",
        f"custom_fields/{CODE}": 1,
        f"custom_fields/{'b' * 40}": None,
    }
    assert changed_fields(record, {"title": "b", f"custom_fields/{CODE}": 1}) == ["title"]
    assert fields_not_returned({"id": 1}, {"title": "b", CODE: 1}) == ["title"]  # v1 leaves unset custom fields out
