"""Output for people has no control sequences, and output for programs is valid JSON, whatever the values."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pdsync.cli import render
from pdsync.cli.app import App
from pdsync.cli.commands.sql import _csv, answer_rows, ask
from pdsync.core import log

ODD = [
    "a\u00a0b",
    "👨\u200d👩\u200d👧",
    "\u202egpj.exe",
    "\x7f",
    "\x9b31m",
    "\x1b]52;c;x\x07",
    "\ufeff",
    "\u2028",
    "\0",
    "\n",
    '"\\',
]


@pytest.mark.parametrize("text", ODD, ids=ascii)
def test_json_stays_json_and_says_the_same(capsys: pytest.CaptureFixture[str], text: str) -> None:
    App().emit({"name": text, text: [text]})
    line = capsys.readouterr().out
    assert json.loads(line) == {"name": text, text: [text]}
    assert line.endswith("\n")
    assert line[:-1].isprintable()
    App().emit_list([{"name": text}])
    listed = capsys.readouterr().out
    assert json.loads(listed) == [{"name": text}]
    assert listed.replace("\n", "").isprintable()


@given(st.dictionaries(st.text(), st.text() | st.lists(st.text()) | st.none() | st.integers(-(2**53), 2**53)))
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_object_stays_itself_in_json(facts: dict[str, Any]) -> None:
    text = json.dumps(facts, ensure_ascii=False)
    assert json.loads(log.clean_json(text)) == facts


def test_x2_a_secret_does_not_get_into_json_either(capsys: pytest.CaptureFixture[str]) -> None:
    log.hide("canary-of-the-json-sink")
    App().emit({"message": "it is canary-of-the-json-sink!"})
    assert json.loads(capsys.readouterr().out) == {"message": "it is [secret]!"}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, ""),
        (True, "yes"),
        (12_345, "12345"),
        (Decimal("1234.5000"), "1,234.50"),
        (Decimal("1234.5678"), "1,234.5678"),
        (Decimal("1234.0000"), "1,234"),
        (0.5, "0.5"),
        (1234567.891, "1,234,567.891"),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2))), "2026-01-02 01:04:05"),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02 03:04:05"),
        (date(2026, 1, 2), "2026-01-02"),
        ([1, None, "x"], "1, , x"),
        ("a\x1b[31mb", "a\\x1b[31mb"),
    ],
)
def test_a_cell_is_short_and_plain(value: Any, shown: str) -> None:
    assert render.cell(value) == shown


def test_counts_get_separators_and_ids_do_not() -> None:
    assert [render.cell(12_345, counts=True), render.cell(9_999, counts=True)] == ["12,345", "9999"]


@pytest.mark.parametrize("first", list("=+-@\t\r\n＝＋－＠"))
def test_x10_no_cell_of_a_csv_is_a_formula(first: str) -> None:
    """Neither a text, nor a list whose first element is one, nor the name of a column; numbers stay numbers."""
    text = f"{first}cmd|'/c calc'!A1"
    lines = _csv([text], [[text], [[text, "x"]], [-2]], raw=False)
    begins = [row[0][:1] for row in csv.reader(io.StringIO(lines, newline=""))]
    assert begins == ["'", "'", "[" if first in "\t\r\n" else "'", "-"]
    raw = list(csv.reader(io.StringIO(_csv(["h"], [[text]], raw=True), newline="")))
    assert raw[1] == [text]


def test_w7_a_list_of_objects_is_json_in_a_cell_and_its_amounts_are_numbers() -> None:
    prices = [{"currency": "EUR", "price": Decimal("515.3200"), "notes": None}]
    lines = _csv(["prices", "labels", "one"], [[prices, ["Food, drinks", "Retail"], ["a", "b c"]]], raw=False)
    cells = list(csv.reader(io.StringIO(lines, newline="")))[1]
    assert cells == ['[{"currency":"EUR","price":515.3200,"notes":null}]', '["Food, drinks","Retail"]', "a, b c"]


def test_intervals_are_shown_as_clocks() -> None:
    query = "SELECT INTERVAL '1:30' AS a, [INTERVAL '2 days'] AS b, INTERVAL '3 months' AS c"
    with duckdb.connect() as database:
        answer = ask(database, query)
    assert answer_rows(answer) == [["01:30:00", ["2 days"], "3 months"]]


@pytest.mark.parametrize(
    ("value", "shown", "exact"),
    [
        (99999.99, "99,999.99", "99,999.99"),
        (123456.78, "123,456.78", "123,456.78"),
        (333101.06, "333,101.06", "333,101.06"),
        (100000.5, "100,000.5", "100,000.50"),
        (1.234, "1.234", "1.234"),
        (1e22, "10,000,000,000,000,000,000,000", "10,000,000,000,000,000,000,000"),
        (5.0, "5", "5"),
        (0.1 + 0.2, "0.3", "0.30000000000000004"),
        (1000 / 3, "333.3333", "333.3333333333333"),
        (float("inf"), "inf", "inf"),
        (Decimal("1234567.8900"), "1,234,567.89", "1,234,567.89"),
    ],
)
def test_an_amount_is_shown_with_all_its_decimals(value: float | Decimal, shown: str, exact: str) -> None:
    assert (render.cell(value), render.cell(value, exact=True)) == (shown, exact)


def test_a_preview_shows_what_is_sent() -> None:
    assert render.brief_pair(19850, 1010.5) == ("19,850", "1,010.50")
    assert render.brief_pair(10913.29, 99999.99) == ("10,913.29", "99,999.99")
    assert render.brief_pair(5550001, 5550002) == ("5550001", "5550002")  # ids
    assert render.brief_pair(5000, 1010.5) == ("5,000", "1,010.50")
    assert render.brief_pair(None, 12345, (None, "EUR")) == ("–", "12,345 EUR")
    assert render.exact_texts([[12345.6789012, 1]], [None]) == ["12,345.6789012, 1"]
