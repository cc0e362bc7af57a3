"""Parameters of lists: limits and starts in bounds, cursors that decode to what was encoded."""

from __future__ import annotations

import pytest

from pdsync.sandbox.protocol.errors import Refused
from pdsync.sandbox.protocol.list_params import (
    decode_cursor,
    encode_cursor,
    encode_field_cursor,
    read_field_cursor,
    read_limit,
    read_start,
)
from pdsync.sandbox.protocol.row_finder import DEFAULT_LIMIT, Selection


@pytest.mark.parametrize(("text", "limit"), [("", DEFAULT_LIMIT), ("1", 1), ("500", 500)])
def test_a_limit_within_the_cap_is_taken(text: str, limit: int) -> None:
    assert read_limit({"limit": text}, 500) == limit


@pytest.mark.parametrize("text", ["0", "501", "-1", "x", "1.5", "٣"])
def test_another_limit_is_refused(text: str) -> None:
    with pytest.raises(Refused):
        read_limit({"limit": text}, 500)


@pytest.mark.parametrize("text", ["-1", "x", "²"])
def test_a_start_that_is_no_number_is_refused(text: str) -> None:
    assert read_start({}) == 0
    with pytest.raises(Refused):
        read_start({"start": text})


@pytest.mark.parametrize("descending", [True, False])
def test_a_cursor_decodes_to_the_order_and_the_position_it_was_made_for(descending: bool) -> None:
    text = encode_cursor(Selection(sort=(("update_time", descending),)), ("2026-11-01T10:00:00Z", 5))
    cursor = decode_cursor(text, ("id", "update_time"))
    assert (cursor.field, cursor.field_value, cursor.id) == ("update_time", "2026-11-01T10:00:00Z", 5)
    assert cursor.sort_direction == ("desc" if descending else "asc")
    with pytest.raises(Refused):
        decode_cursor(text, ("id",))


@pytest.mark.parametrize("text", ["x", "bnVsbA", "%00"])
def test_a_text_that_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(Refused):
        decode_cursor(text, ("id",))
    with pytest.raises(Refused):
        read_field_cursor(text, ["a"])


def test_a_cursor_of_fields_continues_after_the_field_that_it_names() -> None:
    assert read_field_cursor(encode_field_cursor("b"), ["a", "b", "c"]) == 2
    assert read_field_cursor(None, ["a"]) == 0
