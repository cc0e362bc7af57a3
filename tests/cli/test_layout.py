"""Tables fit the width they get, lose no digit of a number, date or id, and name what they leave out.

The files in `golden` show each kind of table at four widths; `python -m tests.cli.test_layout` writes them again.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdsync.cli import layout
from pdsync.cli.layout import Hints, Rows, lay_out, lay_out_glimpse, lay_out_records, one_line
from pdsync.cli.text_width import cell_width

if TYPE_CHECKING:
    from collections.abc import Callable

    from pdsync.cli.layout import Line

GOLDEN = Path(__file__).parent / "golden"
WIDTHS = (60, 80, 120, 200)
HINTS = Hints(columns="See them with -o vertical", empty="--all shows them", rows="a file gets all")


def deals(count: int) -> Rows:
    """Rows of 96 columns, as `from deals` has them: a third without any value."""
    moment = datetime(2026, 1, 31, 9, 5, 59, tzinfo=UTC)
    fields = [
        {"id": 41 + 977 * number, "owner_id": 5550000 + number, "title": f"Rollout of the new platform, site {number}",
         "value": Decimal(1234567 * (number + 1)) / 100, "currency": "EUR", "person_id": 70 + number, "org_id": None,
         "stage_id": 3, "status": ["open", "won", "lost"][number % 3], "probability": 55.5, "lost_reason": None,
         "label_ids": [3, 14], "add_time": moment + timedelta(days=number), "expected_close_date": date(2026, 3, 1),
         "is_archived": number % 2 == 0, "origin_id": f"LB-{number}",
         **{f"cf_field_{each:02}": _custom(each, number) for each in range(80)}}
        for number in range(count or 1)
    ]  # fmt: skip
    return Rows(list(fields[0]), [list(row.values()) for row in fields][:count], hints=HINTS)


def _custom(field: int, number: int) -> Any:
    kinds: list[Any] = [
        None,
        f"Option {field}",
        field * 1000 + number,
        None,
        "a remark, longer than most are",
        None,
    ]
    return kinds[field % len(kinds)]


CASES = {
    "deals_1": deals(1),
    "deals_5": deals(5),
    "deals_30": deals(30),
    "deals_0": deals(0),
    "funnel": Rows(
        ["pipeline", "stage_nr", "stage", "currency", "deals", "value", "average"],
        [
            ["Partners & resellers of the north", 1, "Introduced", "EUR", 6, Decimal("12714.91"), Decimal("2119.15")],
            ["Partners & resellers of the north", 2, "Registered with us", "JPY", 1, Decimal(4014600), 4014600],
            ["Sales", 1, "Qualified", "GBP", 188, Decimal("99112714.90"), Decimal("527195.29")],
            ["Sales", 2, None, "USD", 0, None, None],
        ],
        hints=HINTS,
    ),
    "wide_characters": Rows(
        ["id", "name", "city", "note"],
        [
            [1, "株式会社ノースキー", "東京都千代田区", "契約書は来週までに送付される予定です。よろしくお願いします"],
            [2, "🚀 Rocket 🎯 Ltd", "Zürich", "e\u0301te\u0301 a\u0300 la plage, combining accents count for nothing"],
            [3, "ﾊﾝｶｸ ｶﾀｶﾅ", "서울특별시", "plain"],
        ],
        hints=HINTS,
    ),
    "right_to_left": Rows(
        ["id", "person", "amount", "org"],
        [
            [7, "فاطمة المنصوري", Decimal("1350.50"), "شركة الشمال للتجارة والمقاولات العامة المحدودة"],
            [8, "שלום עולם", Decimal(27), "Nord & Sohn"],
        ],
        hints=HINTS,
    ),
    "one_by_one": Rows(["count_star()"], [[2042]], hints=HINTS),
    "no_rows": Rows(["id", "title", "value"], [], hints=HINTS),
    "plan": Rows(
        ["", "operation", "record", "title", "before → after"],
        [
            ["#1", "updateDeal", "deals/5", "Migration, 2nd site", ["value: 10,913.3 → 21,826.6", "status: – → Won"]],
            ["#2", "updateOrganization", "organizations/3", "Nord", ["conflict: " + "Anna has changed it since " * 4]],
            ["#3", "addActivity", None, "Call", []],
        ],
        notes=True,
    ),
    "history": Rows(
        ["when (UTC)", "field", "by", "before → after"],
        [
            [datetime(2026, 11, 2, 8, 30, tzinfo=UTC), "first seen", None, ["Rollout of the new platform, site 7"]],
            [datetime(2026, 11, 9, 17, 2, 11, tzinfo=UTC), "stage_id", "Anna Lindqvist", ["3 (Offer) → 4 (Contract)"]],
            [datetime(2026, 11, 9, 17, 2, tzinfo=UTC), "cf_reason_for_delay", None, ["– → " + "Waits, " * 20 + "on"]],
        ],
        notes=True,
    ),
    "differences": Rows(
        ["table", "change", "id", "record", "fields"],
        [
            ["deals", "changed", 41, "Rollout of the new platform", ["value: 12,000 → 14,500", "stage_id: 3 → 4"]],
            ["deals", "gone", 977, "Migration", []],
            ["persons", "added", 8, "Zoë Ångström", []],
        ],
        notes=True,
    ),
    "difference_counts": Rows(
        ["table", "added", "changed", "gone"], [["deal_products", 1234567, 0, 3], ["deals", 2, 11, 0]], counts=True
    ),
    "receipt": Rows(
        ["  stream", "read", "new", "changed", "deleted", "requests", "tokens"],
        [["✓ permission_set_assignments", 1234567, 12, 0, 0, 2469, 49380], ["✗ deals", 5, 0, 1, 0, 1, 10]],
        counts=True,
    ),
}  # fmt: skip


FORMS: dict[str, Callable[[int], list[Line]]] = {
    **{name: partial(lay_out, rows) for name, rows in CASES.items()},
    "vertical": partial(lay_out_records, CASES["wide_characters"]),
    "glimpse": partial(
        lay_out_glimpse, CASES["funnel"], ["VARCHAR", "BIGINT", "VARCHAR", "VARCHAR", "BIGINT", *["DECIMAL(18,2)"] * 2]
    ),
}


def drawn(case: str) -> str:
    parts = []
    for width in WIDTHS:
        lines = [f"{line.text}{f'  <{line.style}>' * bool(line.style)}" for line in FORMS[case](width)]
        parts += [f"=== {width}", *lines]
    return "\n".join(parts) + "\n"


@pytest.mark.parametrize("case", FORMS)
def test_a_table_looks_as_agreed_at_each_width(case: str) -> None:
    assert drawn(case) == (GOLDEN / f"{case}.txt").read_text("utf-8")


WHOLE = st.one_of(
    st.none(),
    st.integers(-(10**18), 10**18),
    st.decimals(-(10**14), 10**14, places=2),
    st.booleans(),
    st.dates(),
    st.datetimes(timezones=st.just(UTC)),
    st.uuids(),
    st.uuids().map(str),
    st.sampled_from(
        ["#12", "deals/4711", "cf_contract_signed", "20222-01-01", "0044-03-15 (BC)", "20261129T10-c7cc0f"]
    ),
)
TEXT = st.text(st.sampled_from("ab é漢字🚀שמل\u0301ｶ\n\t\x1b\u202e,→-_.9"), max_size=60)
TABLES = st.integers(1, 12).flatmap(
    lambda columns: st.tuples(
        st.lists(TEXT, min_size=columns, max_size=columns),
        st.lists(st.lists(WHOLE | TEXT, min_size=columns, max_size=columns), max_size=6),
    )
)


@settings(max_examples=100, deadline=None)
@given(TABLES, st.sampled_from(WIDTHS), st.sampled_from([HINTS, Hints()]))
def test_no_line_is_wider_than_the_terminal_and_no_number_date_or_id_is_cut(
    table: tuple[list[str], list[list[Any]]], width: int, hints: Hints
) -> None:
    rows = Rows(*table, hints=hints)
    for lines in (
        lay_out(rows, width),
        lay_out_records(rows, width),
        lay_out_glimpse(rows, ["T"] * len(table[0]), width),
    ):
        assert [line for line in lines if cell_width(line.text) > width] == []
        assert [line for line in lines if not re.sub("[\u200e\u0301]", "", line.text).isprintable()] == []
    shown = "\n".join(line.text for line in lay_out(rows, width)).replace("\u200e", "")
    if re.search(r"^… \d+ more: ", shown, re.MULTILINE):
        return  # columns are left out, and named
    for value in (value for row in rows.values for value in row if not isinstance(value, str)):
        assert one_line(value) in shown


@settings(max_examples=50, deadline=None)
@given(TABLES)
def test_a_file_or_pipe_gets_each_value_whole_in_one_line(table: tuple[list[str], list[list[Any]]]) -> None:
    names, values = table
    lines = [line.text for line in lay_out(Rows(names, values, hints=HINTS), None)]
    header = any(names)
    assert len(lines) == len(values) + header
    for line, row in zip(lines[header:], values, strict=True):
        assert [value for value in row if one_line(value).strip() not in line] == []
    records = "\n".join(line.text for line in lay_out_records(Rows(names, values, hints=HINTS), None))
    parts = [part for row in values for value in row for part in one_line(value).split("\\n")]
    assert [part for part in parts if part.rstrip() not in records] == []


@pytest.mark.parametrize(
    ("text", "is_whole"),
    [
        ("2026-01-31", True),
        ("2026-01-31 09:05:59", True),
        ("-infinity", True),
        ("12,345.67", True),
        ("99 %", True),
        ("4351d234e664653d7acb777456692ed0c5dba974", True),
        ("deals/4711", True),
        ("permission_set_assignments", True),
        ("getPersonFieldOptions", True),
        ("Renewal of the contract 2026", False),
        ("https://example.com/very/long/address/1", False),
        ("Registered", False),
    ],
)
def test_a_narrow_table_cuts_texts_and_leaves_numbers_dates_and_ids(text: str, is_whole: bool) -> None:
    rows = Rows(["value", "remark", "title"], [[text, "x" * 90, "y" * 90]] * 9)
    shown = lay_out(rows, 40 + (len(text) if is_whole else 0))
    narrow = "\n".join(line.text for line in lay_out(rows, len(text) + 16))
    assert all("…" in line.text for line in shown[1:])
    assert all(text in line.text for line in shown[1:]) or not is_whole
    assert (text in narrow) >= is_whole


def test_few_rows_are_turned_and_many_are_not() -> None:
    turned = lay_out(deals(5), 80)
    assert turned[0].text.split()[:2] == ["id", "41"]
    assert turned[-1] == ("… 42 more are empty; --all shows them", "dim")
    assert [line.text.split()[:1] for line in turned].count(["id"]) == 3  # in blocks that leave ids and times whole
    everything = lay_out(Rows(deals(5).names, deals(5).values, hints=Hints(columns="-o vertical")), 80)
    assert [name for name in deals(5).names if not any(line.text.startswith(name) for line in everything)] == []
    many = lay_out(deals(30), 80)
    assert many[0].text.split()[:2] == ["id", "title"]
    assert len(many) == 1 + 30 + 4
    assert many[-1].text == "See them with -o vertical"


def test_names_and_numbers_come_before_the_ids_beside_them() -> None:
    """As of sales.funnel, in 80 columns: the value is drawn, and the hint names columns of this very table."""
    names = ["pipeline_id", "pipeline", "stage_nr", "stage_id", "stage", "currency", "deals", "archived_deals", "value",
             "average", "base_currency", "base_value"]  # fmt: skip
    row = [1, "Sales", 1, 11, "Qualified", "EUR", 188, 3, Decimal("99112.90"), Decimal("527.29"), "EUR", Decimal(99112)]
    rows = Rows(names, [row] * 12, hints=Hints(columns="choose: --columns {columns}"))
    lines = [line.text for line in lay_out(rows, 80)]
    header = lines[0].split()
    assert header[:6] == ["pipeline", "stage", "currency", "deals", "archived_deals", "value"]
    assert not {"pipeline_id", "stage_id", "stage_nr"} & set(header)
    example = lines[-1].partition("--columns ")[2].split(",")
    assert len(example) == 3
    assert set(example) <= set(names)
    assert set(example) - set(header)  # at least one of those that were left out
    alone = Rows(["org_id", *names[4:]], [row[3:]] * 12, hints=HINTS)  # an id without a name stays in front
    assert lay_out(alone, 60)[0].text.split()[0] == "org_id"


def test_columns_that_a_reader_can_scroll_to_are_all_drawn() -> None:
    names = lay_out(deals(30), 80, scrolls=True)[0].text.split()
    assert sorted(names) == sorted(deals(30).names)
    assert names[:3] == ["id", "title", "owner_id"]


def test_a_thousand_rows_are_drawn_and_all_are_counted() -> None:
    rows = Rows(["id"], [[number] for number in range(1500)], total=2_000_000, hints=HINTS)
    for lines in (lay_out(rows, 80), lay_out_records(rows, 80)):
        assert lines[-1] == ("… 1,999,000 more of 2,000,000 rows; a file gets all", "dim")
        assert not any("1000" in line.text.split() for line in lines)
    assert len(lay_out(rows, 80)) == 1 + layout.MOST_ROWS + 1
    assert len(lay_out(Rows(["id"], rows.values), None)) == 1501


def test_records_show_each_value_whole_on_lines_of_their_own() -> None:
    long = " ".join(f"word{number}" for number in range(40))
    lines = [line.text for line in lay_out_records(Rows(["id", "note", "none"], [[1, long, None]], hints=HINTS), 60)]
    assert lines[1] == "id    1"
    assert " ".join(" ".join(lines[2:-1]).split()[1:]) == long
    assert lines[-1] == "… 1 more is empty; --all shows them"


def test_the_floats_of_a_column_have_the_same_number_of_decimals_and_all_their_cents() -> None:
    values: list[list[Any]] = [[333.25], [1234.56], [-7.0], [None], [float("inf")]]
    lines = [line.text.strip() for line in lay_out(Rows(["value"], values), 80)]
    assert lines == ["value", "333.25", "1,234.56", "-7.00", "", "inf"]
    whole = [line.text.strip() for line in lay_out(Rows(["value"], [[2.0], [30.0]]), None)]
    assert whole == ["value", "2", "30"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (["a", "b", "c"], "a, b, c"),
        (["a, b", "c"], "'a, b', c"),
        (["", "NULL", None, "it's", "[x]"], "'', 'NULL', NULL, 'it''s', '[x]'"),
        ([[1, 2], [], ["a,b"]], "[1, 2], [], ['a,b']"),
    ],
)
def test_a_list_can_be_read_in_one_way_only(value: list[Any], shown: str) -> None:
    assert one_line(value) == shown


def test_only_null_is_blank_among_data() -> None:
    values: list[list[Any]] = [[None], [""], [[]], [[""]]]
    for form in (lay_out, lay_out_records):
        lines = [line.text.removeprefix("x").strip() for line in form(Rows(["x"], values, is_data=True), 80)]
        assert [line for line in lines if not line.startswith("──")][-4:] == ["", "''", "[]", "''"]
    assert lay_out(Rows(["x"], [[""]]), 80)[1].text == ""


def test_records_have_the_lines_of_a_text_and_tables_have_one() -> None:
    rows = Rows(["id", "note"], [[1, "first\r\nsecond\n\nlast"]])
    for width in (None, 40):
        lines = [line.text for line in lay_out_records(rows, width)]
        assert lines[1:] == ["id    1", "note  first", "      second", "", "      last"]
        assert lay_out(rows, width)[1].text.endswith("first\\nsecond\\n\\nlast")


def test_a_glimpse_has_a_line_for_each_column_with_its_type_and_first_values() -> None:
    rows = Rows(["id", "title", "won_time"], [[n, f"Deal {n}", None] for n in range(50)], total=9000)
    assert [line.text for line in lay_out_glimpse(rows, ["BIGINT", "VARCHAR", "TIMESTAMPTZ"], 60)] == [
        "9,000 rows, 3 columns",
        "id        BIGINT       0, 1, 2, 3, 4, 5, 6, 7, 8, 9",
        "title     VARCHAR      'Deal 0', 'Deal 1', 'Deal 2', …",
        "won_time  TIMESTAMPTZ  NULL, NULL, NULL, NULL, NULL, NULL, …",
    ]


def test_nothing_to_show_is_nothing() -> None:
    for width in (None, 80):
        assert lay_out(Rows([], []), width) == []
        assert lay_out_records(Rows([], [], hints=HINTS), width) == []


if __name__ == "__main__":
    for case in FORMS:
        (GOLDEN / f"{case}.txt").write_text(drawn(case), encoding="utf-8")
