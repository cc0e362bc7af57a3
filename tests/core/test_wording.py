"""Numbers have their nouns in the singular or plural."""

from __future__ import annotations

import pytest

from pdsync.core.wording import counted


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
