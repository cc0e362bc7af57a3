"""What people write in cells is read as the type of its field, or refused: never as something else."""

from __future__ import annotations

import math
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import duckdb
import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pdsync.core import catalogue, cells, request_builder
from pdsync.errors import ConfigError
from pdsync.writeback import enqueue, typed_values
from pdsync.writeback.resolver import NameResolver
from pdsync.writeback.typed_values import InvalidValue, NumberStyle, Option

if TYPE_CHECKING:
    from collections.abc import Iterator

DEPOSIT, TIER, MODULES, YEAR, SIGNED, OLD = ("a" * 40, "b" * 40, "c" * 40, "d" * 40, "e" * 40, "f" * 40)
NUMBER, WINDOW, HOURS, CALL, SEEN, DUE = ("1" * 40, "2" * 40, "3" * 40, "4" * 40, "5" * 40, "6" * 40)
SEATS, TEXT = ("7" * 40, "8" * 40)
FIELDS = [
    (DEPOSIT, "Deposit", "cf_deposit", "monetary"),
    (TIER, "Tier", "cf_tier", "enum"),
    (MODULES, "Modules", "cf_modules", "set"),
    (YEAR, "Year", "cf_year", "enum"),
    (SIGNED, "Signed", "cf_signed_eeeeee", "boolean"),
    (NUMBER, "Discount", "cf_discount", "double"),
    (SEATS, "Seats", "cf_seats", "int"),
    (WINDOW, "Window", "cf_window", "daterange"),
    (HOURS, "Hours", "cf_hours", "timerange"),
    (CALL, "Call", "cf_call", "time"),
    (SEEN, "Seen by", "cf_seen_by", "visible_to"),
    (DUE, "Due", "cf_due", "date"),
    (TEXT, "Remark", "cf_remark", "varchar"),
]
OPTIONS = [
    (TIER, "24", "Gold"), (TIER, "25", "Silver"), (TIER, "31", "24"),
    (MODULES, "1", "Food, drinks"), (MODULES, "2", "Retail"), (MODULES, "3", "Food"), (MODULES, "4", "a"),
    (MODULES, "5", "b"), (MODULES, "6", "a, b"),
    (YEAR, "101", "2023"), (YEAR, "102", "2024"),
    ("visible_to", "1", "Owner"), ("visible_to", "3", "Group"), ("visible_to", "7", "Entire company"),
    ("status", "open", "Open"), ("status", "won", "Won"), ("status", "lost", "Lost"),
    ("label_ids", "8", "2023"), ("label_ids", "9", "Hot, really"), ("label_ids", "10", "Cold"),
]  # fmt: skip


@pytest.fixture(scope="module")
def names() -> Iterator[NameResolver]:
    """The names of a company whose warehouse holds the fields above; one of them was deleted and added again."""
    with duckdb.connect() as warehouse:
        warehouse.execute(
            "CREATE SCHEMA meta; CREATE TABLE meta.custom_fields (entity VARCHAR, field_code VARCHAR, label VARCHAR,"
            " column_name VARCHAR, field_type VARCHAR, first_seen TIMESTAMPTZ, last_seen TIMESTAMPTZ);"
            "CREATE TABLE meta.field_options (entity VARCHAR, field_code VARCHAR, option_id VARCHAR, label VARCHAR)"
        )
        now, before = "2026-03-02 00:00:00+00", "2026-03-01 00:00:00+00"
        rows = [("deals", *field, before, now) for field in FIELDS]
        rows.append(("deals", OLD, "Signed", "cf_signed", "enum", before, before))
        warehouse.executemany("INSERT INTO meta.custom_fields VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        warehouse.executemany("INSERT INTO meta.field_options VALUES ('deals', ?, ?, ?)", OPTIONS)
        yield NameResolver(warehouse)


def queued(
    names: NameResolver, *rows: dict[str, Any], decimal: str | None = None, file: str | None = None
) -> list[Any]:
    """What is queued of rows for updateDeal: the custom fields, else the others; a text says why a row is refused."""
    operation = catalogue.operation("updateDeal")
    given = [{"id": 1, **row} for row in rows]
    styles = typed_values.detect_styles(given, decimal, file)
    found: list[Any] = []
    for row in given:
        good, bad = enqueue.make_entries(names, operation, [row], null_clears=False, styles=styles)
        payload = {name: value for name, value in good[0].payload.items() if name != "id"} if good else {}
        found.append(bad[0].why if bad else payload.get("custom_fields", payload))
    return found


def one(names: NameResolver, **row: Any) -> Any:
    return queued(names, row)[0]


# Numbers.


@pytest.mark.parametrize(
    ("text", "amount", "code"),
    [
        ("1.234,56 EUR", 1234.56, "EUR"),
        ("1,234.56 EUR", 1234.56, "EUR"),
        ("999,50 EUR", 999.5, "EUR"),
        ("12,50", 12.5, None),
        ("1.234.567", 1234567, None),
        ("1\u00a0234,5 eur", 1234.5, "EUR"),
        ("1'234.50", 1234.5, None),
        ("12,34,567.50", 1234567.5, None),
        ("EUR -12,5", -12.5, "EUR"),
        ("€ 0,500", 0.5, "EUR"),
        ("\u22125", -5, None),
        ("1e3", 1000, None),
        (".5", 0.5, None),
        ("9.007.199.254.740.993", 9007199254740993, None),
        (cells.Numeral("1.234"), 1.234, None),
        (12.5, 12.5, None),
    ],
)
def test_w7_an_amount_that_fits_in_one_way_is_read_so(
    names: NameResolver, text: Any, amount: float, code: str | None
) -> None:
    currency = {"currency": code} if code else {}
    assert one(names, cf_deposit=text) == {DEPOSIT: {"value": amount, **currency}}
    assert one(names, value=text) == {"value": amount, **currency}  # one parser for built-in and custom money
    if code is None:
        assert one(names, Discount=text) == {NUMBER: amount}
        assert one(names, probability=text) == {"probability": amount}


@pytest.mark.parametrize(
    "text", ["1.234", "1,234 EUR", "much", "1.23.456", "1,2,3", "12.5.6", "5 EURO", "EUR", "1 2", "nan", "1e400", ""]
)
def test_w7_an_amount_in_doubt_is_refused_and_named(names: NameResolver, text: str) -> None:
    for field in ("cf_deposit", "value"):
        (why,) = queued(names, {field: text})
        assert isinstance(why, str)
        assert repr(text) in why
        assert "amount, like 1234.56" in why or "--decimal" in why


def test_w7_the_column_the_person_or_the_file_says_how_numbers_are_written(names: NameResolver) -> None:
    column = [{"cf_deposit": "1.234 EUR"}, {"cf_deposit": "12,50"}, {"cf_deposit": "7"}]
    assert [each[DEPOSIT]["value"] for each in queued(names, *column)] == [1234, 12.5, 7]
    assert queued(names, {"value": "1.234"}, decimal=",") == [{"value": 1234}]
    assert queued(names, {"value": "1.234"}, decimal=".") == [{"value": 1.234}]
    assert queued(names, {"value": "1.234"}, file=".") == [{"value": 1.234}]
    assert "decimal mark" in queued(names, {"value": "12.50"}, decimal=",")[0]
    mixed = queued(names, {"value": "12,50"}, {"value": "12.50"}, {"value": "1.234"})
    assert mixed[:2] == [{"value": 12.5}, {"value": 12.5}]
    assert "could mean 1.234 or 1234. Write 1.2340 for the first or 1234.0 for the second, or" in mixed[2]


def test_w7_an_amount_and_its_currency_agree(names: NameResolver) -> None:
    assert one(names, value="5 EUR", currency="eur") == {"value": 5, "currency": "EUR"}
    assert "in EUR" in one(names, value="5 EUR", currency="USD")
    assert one(names, cf_deposit="5", cf_deposit_currency="usd") == {DEPOSIT: {"value": 5, "currency": "USD"}}
    assert "given twice" in one(names, cf_deposit="5 EUR", cf_deposit_currency="USD")
    assert one(names, Deposit='{"value": "5,50", "currency": "sek"}') == {DEPOSIT: {"value": 5.5, "currency": "SEK"}}
    assert "no value" in str(refused(names, "addDeal", title="x", cf_deposit_currency="EUR"))


@pytest.mark.parametrize(
    ("operation", "parameter", "value", "part", "found"),
    [
        ("addProduct", "prices", '[{"currency": "eur", "price": "12,50"}]', "price", 12.5),
        ("addProduct", "prices", [{"currency": "EUR", "cost": "1.234,56"}], "cost", 1234.56),
        ("v1 addLead", "value", '{"amount": "12,50", "currency": "eur"}', "amount", 12.5),
        ("addManyDealProducts", "data", [{"product_id": 1, "item_price": "12,50"}], "item_price", 12.5),
        ("addManyDealProducts", "data", [{"product_id": 1, "quantity": "1.234"}], "quantity", "could mean 1.234 or"),
        ("addProduct", "prices", [{"currency": "EUR", "price": "much"}], "price", "a number, like 12.5"),
    ],
)
def test_w7_a_number_inside_an_object_is_read_or_refused_like_any_other(
    names: NameResolver, operation: str, parameter: str, value: object, part: str, found: float | str
) -> None:
    needed: dict[str, dict[str, Any]] = {"addProduct": {"name": "x"}, "v1 addLead": {"title": "x", "person_id": 1}}
    given = {**needed.get(operation, {"id": 1}), parameter: value}
    if isinstance(found, str):
        assert found in str(refused(names, operation, **given))
    else:
        read = enqueue.make_entry(names, catalogue.operation(operation), given).payload[parameter]
        assert (read[0] if isinstance(read, list) else read)[part] == found


def refused(names: NameResolver, operation: str, **given: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        enqueue.make_entry(names, catalogue.operation(operation), given)
    return caught.value


def written(amount: Decimal, mark: str, group: str) -> str:
    plain = f"{amount:,f}"
    return plain.replace(",", "G").replace(".", mark).replace("G", group)


@given(
    st.decimals(min_value=-(10**9), max_value=10**9, places=2),
    st.sampled_from([(".", ","), (",", "."), (",", " "), (".", "'"), (".", ""), (",", "")]),
)
def test_w7_what_any_country_writes_is_that_amount_or_refused(amount: Decimal, style: tuple[str, str]) -> None:
    text = written(amount, *style)
    assert typed_values.parse_number(text) == float(amount)  # two decimals leave no doubt
    assert typed_values.parse_money(f"{text} SEK") == (float(amount), "SEK")
    assert typed_values.parse_number(text, NumberStyle(style[0], is_named=True)) == float(amount)


@given(st.integers(0, 10**9), st.sampled_from(",."))
def test_w7_grouped_digits_are_never_taken_for_decimals(amount: int, group: str) -> None:
    text = f"{amount:,}".replace(",", group)
    try:
        assert typed_values.parse_number(text) == amount
    except InvalidValue:
        assert text.count(group) == 1
        assert typed_values.parse_number(text, NumberStyle("," if group == "." else ".")) == amount


@given(st.text(max_size=12))
def test_w7_no_text_becomes_a_number_that_is_none(text: str) -> None:
    try:
        found = typed_values.parse_number(text)
    except InvalidValue:
        return
    assert math.isfinite(found)
    assert "".join(c for c in text if c in "123456789") or found == 0


# NaN and infinities.


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, Decimal("NaN"), Decimal("Infinity")])
def test_w7_what_is_no_finite_number_never_empties_a_field(names: NameResolver, value: object) -> None:
    rows: list[dict[str, Any]] = [
        {"value": value}, {"probability": value}, {"Discount": value}, {"Deposit": value}, {"Remark": value},
        {"Tier": value}, {"title": value}, {"custom_fields": {NUMBER: value}}, {"Modules": [value]},
        {"Deposit": {"value": value, "currency": "EUR"}}, {"owner_id": value},
    ]  # fmt: skip
    for row in rows:
        (why,) = queued(names, row)
        assert isinstance(why, str), row
        assert "finite" in why
        assert next(iter(row)) in why
    with pytest.raises(ConfigError, match="NaN or an infinity"):
        request_builder.check(catalogue.operation("updateDeal"), {"id": 1, "custom_fields": {NUMBER: value}})


def test_w7_a_number_too_large_for_json_is_refused(names: NameResolver) -> None:
    for row in ({"value": "1e400"}, {"Discount": "1e400"}, {"probability": "-1e400"}, {"value": "nan"}):
        assert isinstance(queued(names, row)[0], str), row
    with pytest.raises(ConfigError, match="should be a number"):
        request_builder.check(catalogue.operation("updateDeal"), {"id": 1, "value": "1e400"})


# Options.


@pytest.mark.parametrize(
    ("field", "value", "code", "found"),
    [
        ("Year", "2023", YEAR, 101),
        ("Year", 2024, YEAR, 102),
        ("Year", 2024.0, YEAR, 102),
        ("Year", "101", YEAR, 101),
        ("Tier", "gold", TIER, 24),
        ("Tier", "25", TIER, 25),
        ("Tier", "31", TIER, 31),
        ("Modules", "Food, drinks", MODULES, [1]),
        ("Modules", "Food, drinks, Retail", MODULES, [1, 2]),
        ("Modules", "Retail;food", MODULES, [2, 3]),
        ("Modules", "Retail,Food, drinks", MODULES, [2, 1]),
        ("Modules", '["Food, drinks", "Retail"]', MODULES, [1, 2]),
        ("Modules", '["a", "b"]', MODULES, [4, 5]),
        ("Modules", "[1, 2]", MODULES, [1, 2]),
        ("Modules", ["Food, drinks", 2], MODULES, [1, 2]),
        ("Modules", "1,2,2", MODULES, [1, 2]),
        ("Modules", "b", MODULES, [5]),
    ],
)
def test_w7_an_option_is_found_by_its_label_digits_and_commas_or_not(
    names: NameResolver, field: str, value: Any, code: str, found: Any
) -> None:
    assert one(names, **{field: value}) == {code: found}


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("Tier", "24", "is the label of option 31 and the id of 'Gold'"),
        ("Tier", 24, "give 31 or 'Gold'"),
        ("Tier", "Bronze", "There are Gold, Silver"),
        ("Year", "2025", "Did you mean '2024' or '2023'?"),
        ("Year", "103", "none of its options"),
        ("Modules", "a, b", "may be 'a, b' (6) or 'a' (4), 'b' (5)"),
        ("Modules", "drinks", "Did you mean 'Food, drinks'"),
        ("Modules", "Food, wine", "none of its options"),
        ("Modules", ",", "none of its options"),
    ],
)
def test_w7_an_option_in_doubt_is_refused_with_the_way_out(
    names: NameResolver, field: str, value: Any, said: str
) -> None:
    why = one(names, **{field: value})
    assert isinstance(why, str)
    assert said in why
    assert field in why


def test_w7_ids_under_a_code_are_ids_as_the_queue_writes_them_out(names: NameResolver) -> None:
    assert one(names, custom_fields={TIER: 24, MODULES: [4, 5]}) == {TIER: 24, MODULES: [4, 5]}


def test_w7_labels_of_a_record_are_found_like_options(names: NameResolver) -> None:
    assert one(names, label_ids="2023, Hot, really") == {"label_ids": [8, 9]}
    assert one(names, labels=["Cold", 8]) == {"label_ids": [10, 8]}
    assert "none of its options" in one(names, label_ids="Warm")


LABELS = st.lists(st.text("ab,; 12", min_size=1, max_size=6).filter(lambda text: text.strip(" ,;")), max_size=6)


def read_back(text: str, options: list[Option]) -> set[int | str] | str:
    """The options that are read, or the first words of the refusal."""
    try:
        return set(typed_values.find_options(text, options))
    except InvalidValue as error:
        return " ".join(str(error).split()[:2])


@given(LABELS, st.data())
def test_w7_a_list_that_was_written_out_comes_back_or_is_refused(labels: list[str], data: st.DataObject) -> None:
    options = [Option(str(100 + at), label.strip()) for at, label in enumerate(labels)]
    assume(len({each.label for each in options}) == len(options))
    chosen = data.draw(st.lists(st.sampled_from(options), min_size=1, unique=True)) if options else []
    assume(chosen)
    ids = [each.value for each in chosen]
    labels = [each.label for each in chosen]
    for written in (cells.cell_text(labels), ", ".join(labels)):
        assert read_back(written, options) in (set(ids), "may be")
    assert typed_values.find_options(labels, options) == ids


# Flags, days, times, choices.


@pytest.mark.parametrize(
    ("yes", "no"),
    [
        ("true", "false"), ("TRUE", "FALSE"), ("yes", "no"), ("1", "0"), (1, 0), (True, False), ("WAHR", "FALSCH"),
        ("Vrai", "Faux"), (" Yes ", "N"),
    ],
)  # fmt: skip
def test_w7_a_flag_is_read_from_what_people_and_spreadsheets_write(names: NameResolver, yes: Any, no: Any) -> None:
    for value, flag in ((yes, True), (no, False)):
        assert one(names, Signed=value) == {SIGNED: flag}
        assert one(names, is_archived=value) == {"is_archived": flag}


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"status": "Won"}, {"status": "won"}),
        ({"currency": "eur"}, {"currency": "EUR"}),
        ({"visible_to": "entire company"}, {"visible_to": 7}),
        ({"visible_to": "3"}, {"visible_to": 3}),
        ({"Seen by": "Owner"}, {SEEN: 1}),
        ({"expected_close_date": "31.03.2026"}, {"expected_close_date": "2026-03-31"}),
        ({"expected_close_date": "2026-03-31T00:00:00"}, {"expected_close_date": "2026-03-31"}),
        ({"Due": datetime(2026, 3, 31)}, {DUE: "2026-03-31"}),  # noqa: DTZ001 - as a spreadsheet has it
        ({"Due": date(2026, 3, 31)}, {DUE: "2026-03-31"}),
        ({"Due": "2026/3/31"}, {DUE: "2026-03-31"}),
        ({"won_time": "2026-03-31 10:20:30"}, {"won_time": "2026-03-31T10:20:30Z"}),
        ({"won_time": datetime(2026, 3, 31, 12, tzinfo=timezone(timedelta(hours=2)))},
         {"won_time": "2026-03-31T10:00:00Z"}),
        ({"Window": "2026-03-01 - 2026-03-31"}, {WINDOW: {"value": "2026-03-01", "until": "2026-03-31"}}),
        ({"Window": "1.3.2026–31.3.2026"}, {WINDOW: {"value": "2026-03-01", "until": "2026-03-31"}}),
        ({"Window": "2026/03/01"}, {WINDOW: {"value": "2026-03-01"}}),
        ({"cf_window": "2026-03-01", "cf_window_until": "31.3.2026"},
         {WINDOW: {"value": "2026-03-01", "until": "2026-03-31"}}),
        ({"Hours": "9:30-17:00"}, {HOURS: {"value": "09:30:00", "until": "17:00:00"}}),
        ({"Hours": "22:00 to 06:00"}, {HOURS: {"value": "22:00:00", "until": "06:00:00"}}),
        ({"Call": time(9, 30)}, {CALL: {"value": "09:30:00"}}),
        ({"Call": "9:30"}, {CALL: {"value": "09:30:00"}}),
        ({"Seats": "1 200"}, {SEATS: 1200}),
        ({"Remark": True}, {TEXT: "true"}),
        ({"Remark": "nan"}, {TEXT: "nan"}),
        ({"Discount": "null"}, {NUMBER: None}),
    ],
)  # fmt: skip
def test_w7_a_value_is_read_as_the_type_of_its_field(
    names: NameResolver, given: dict[str, Any], found: dict[str, Any]
) -> None:
    assert one(names, **given) == found


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"status": "Winning"}, "There are Open, Won, Lost"),
        ({"currency": "euro"}, "code of a currency"),
        ({"visible_to": "9"}, "There are Owner"),
        ({"Seen by": "me"}, "There are Owner"),
        ({"expected_close_date": "03/04/2026"}, "a date, like 2026-03-31"),
        ({"expected_close_date": "30.02.2026"}, "a date"),
        ({"Due": "46112"}, "a date"),
        ({"Due": "2026-03-31T10:20:00Z"}, "a date"),
        ({"won_time": "yesterday"}, "a time, like"),
        ({"Window": "2026-03-31 - 2026-03-01"}, "ends before it begins"),
        ({"Window": "March"}, "a begin and an end"),
        ({"cf_window_until": "soon"}, "a date"),
        ({"Hours": "25:00 - 26:00"}, "a begin and an end"),
        ({"Call": "24:00"}, "a time of day"),
        ({"Call": 0.5}, "a time of day"),
        ({"Signed": "maybe"}, "yes or no"),
        ({"Signed": 2}, "yes or no"),
        ({"is_archived": "perhaps"}, "yes or no"),
        ({"Seats": "1.5"}, "whole number"),
        ({"Seats": 1.5}, "whole number"),
    ],
)
def test_w7_what_does_not_fit_its_type_is_refused_with_what_would(
    names: NameResolver, given: dict[str, Any], said: str
) -> None:
    why = one(names, **given)
    assert isinstance(why, str)
    assert said in why
    assert next(iter(given)).removeprefix("cf_").split("_")[0].lower() in why.lower()
    assert str(next(iter(given.values()))) in why


@given(st.dates(min_value=date(1000, 1, 1)), st.times(), st.booleans())
def test_w7_days_times_and_flags_come_back_as_they_were_written_out(day: date, clock: time, flag: bool) -> None:
    assert typed_values.parse_date(cells.cell_text(day)) == day.isoformat()
    assert typed_values.parse_date(f"{day.day}.{day.month}.{day.year:04}") == day.isoformat()
    assert typed_values.parse_time(cells.cell_text(clock)) == clock.replace(microsecond=0).isoformat()
    assert typed_values.parse_boolean(cells.cell_text(flag)) is flag


def test_w7_activities_take_times_and_durations_as_each_version_writes_them(names: NameResolver) -> None:
    activity = catalogue.operation("addActivity")
    entry = enqueue.make_entry(names, activity, {"subject": "x", "due_time": "9:30", "duration": "1:05"})
    assert (entry.payload["due_time"], entry.payload["duration"]) == ("09:30:00", "01:05:00")
    assert "duration" in str(refused(names, "addActivity", subject="x", duration="an hour"))
    assert "JSON list" in str(refused(names, "addProduct", name="x", prices="12"))
    call = {
        "outcome": "busy",
        "to_phone_number": "1",
        "start_time": "2026-01-05T10:00Z",
        "end_time": "2026-01-05T11:00Z",
    }
    entry = enqueue.make_entry(names, catalogue.operation("v1 addCallLog"), {**call, "duration": 90.0})
    assert entry.payload["duration"] == "90"  # seconds, as a text
    assert "a whole number" in str(refused(names, "v1 addCallLog", **call, duration="1:30"))


def test_w7_flags_and_levels_are_read_whatever_number_an_operation_has_for_them(names: NameResolver) -> None:
    for operation, asked, found in (
        ("addProduct", {"name": "x", "visible_to": "3"}, {"visible_to": 3}),
        ("addLead", {"title": "x", "person_id": 1, "visible_to": "7"}, {"visible_to": "7"}),
        ("addNote", {"content": "x", "deal_id": 1, "pinned_to_deal_flag": "yes"}, {"pinned_to_deal_flag": 1}),
        ("addTask", {"title": "x", "project_id": 1.0, "done": True}, {"done": 1, "project_id": 1}),
    ):
        payload = enqueue.make_entry(names, catalogue.operation(operation), asked).payload
        assert found.items() <= payload.items()
    assert "yes or no" in str(refused(names, "addNote", content="x", deal_id=1, pinned_to_deal_flag="top"))


def test_w7_a_number_of_a_spreadsheet_is_a_text_where_the_field_is_one(names: NameResolver) -> None:
    number = cells.Numeral("12.5")
    found = [one(names, title=number), one(names, Remark=number), one(names, Deposit=number)]
    assert found == [{"title": "12.5"}, {TEXT: "12.5"}, {DEPOSIT: {"value": 12.5}}]
    assert msgspec.json.decode(msgspec.json.encode(found)) == found


# A field that was deleted and added again.


def test_s16_a_deleted_field_does_not_stand_in_the_way_of_one_that_is_called_the_same(names: NameResolver) -> None:
    assert one(names, Signed="yes") == {SIGNED: True}
    for key in ("cf_signed", OLD, "cf_signed_label"):
        why = one(names, **{key: "yes"})
        assert "was deleted" in why, why
        assert "cf_signed_eeeeee" in why


# E-mail addresses and phone numbers.


HELD = [{"value": "1", "label": "mobile", "primary": False}, {"value": "2", "label": "home", "primary": True}]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1, 2", [("1", "mobile", False), ("2", "home", True)]),
        ('["1", "2"]', [("1", "mobile", False), ("2", "home", True)]),
        ("2; 1", [("2", "home", True), ("1", "mobile", False)]),
        ("1, 2, 3", [("1", "mobile", False), ("2", "home", True), ("3", "work", False)]),
        ("3, 1", [("3", "work", True), ("1", "mobile", False)]),
        ("1", [("1", "mobile", True)]),
        ('[{"value": "2", "label": "work"}]', [("2", "work", True)]),
    ],
)
def test_w7_known_contacts_keep_their_labels(text: str, found: list[tuple[str, str, bool]]) -> None:
    entries = typed_values.parse_contacts(text)
    assert entries is not None
    made = typed_values.complete_contacts(entries, HELD)
    assert [(each["value"], each["label"], each["primary"]) for each in made] == found
    assert made is not entries
