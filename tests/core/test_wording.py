"""Numbers have their nouns in the singular or plural."""

from __future__ import annotations

import pytest

from pdsync.core.wording import counted, number_ranges


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (0, "row", "0 rows"),
        (1, "schema change", "1 schema change"),
        (2, "schema change", "2 schema changes"),
        (1234, "day", "1,234 days"),
        (1, "query", "1 query"),
        (3, "query", "3 queries"),
        (3, "match", "3 matches"),
    ],
)
def test_a_number_has_its_noun_in_the_singular_or_plural(number: int, noun: str, text: str) -> None:
    assert counted(number, noun) == text


def test_numbers_are_named_as_ranges_and_of_many_ranges_the_first() -> None:
    assert number_ranges([]) == ""
    assert number_ranges([1, 2, 3, 7, 9, 10]) == "#1 to #3, #7, #9 to #10"
    assert number_ranges(range(1, 30, 2)).endswith("#19, 5 more")
