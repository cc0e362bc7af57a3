"""Cells of a CSV file: what a spreadsheet would run is quoted, and comes back as it was."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from pdsync.core.cells import cell_text, guarded, unguarded


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("", ""),
        ("Acme", "Acme"),
        ("a=1", "a=1"),
        ("=1+1", "'=1+1"),
        ("-5", "'-5"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("'=1", "''=1"),
        ("'quoted'", "'quoted'"),
        ("NULL", "'NULL"),
        ("NULLS", "NULLS"),
        ("#N/A", "'#N/A"),
        ("#1", "#1"),
    ],
)
def test_a_guarded_text_comes_back(text: str, cell: str) -> None:
    assert guarded(text) == cell
    assert unguarded(cell) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (True, "true"),
        (Decimal("1E+3"), "1000"),
        (datetime(2026, 1, 2, 3, tzinfo=UTC), "2026-01-02T03:00:00Z"),
        (date(2026, 1, 2), "2026-01-02"),
        (["red", "blue"], "red, blue"),
        (["red, dark", "blue"], '["red, dark","blue"]'),
        ([{"a": 1}], '[{"a":1}]'),
        ([], ""),
    ],
)
def test_a_value_as_text(value: object, text: str) -> None:
    assert cell_text(value) == text
