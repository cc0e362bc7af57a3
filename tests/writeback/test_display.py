"""A plan shows every part of a value that a change sets or takes away."""

from __future__ import annotations

from typing import Any

import pytest

from pdsync.writeback.display import display_entries, display_in_full, display_object

HOME = {"value": "a@example.com", "label": "home", "primary": True}
WORK = {"value": "b@example.com", "label": "work", "primary": False}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({"value": 5, "currency": "EUR"}, 5),
        ({"amount": 5, "currency": "EUR"}, 5),
        ({"value": None, "currency": None}, None),
        ({"currency": "EUR"}, "currency EUR"),
        ({"value": "2026-04-01", "until": "2027-04-30"}, "2026-04-01 – 2027-04-30"),
        ({"value": "2026-04-01", "until": None}, "2026-04-01 – …"),
        ({"until": "2027-04-30"}, "until 2027-04-30"),
        ({"value": None, "until": None}, None),
        ({"value": "09:00", "until": "10:00", "timezone_id": 5, "timezone_name": "Europe/Berlin"},
         "09:00 – 10:00 (timezone_name Europe/Berlin)"),
        ({"value": "09:00", "timezone_id": 5}, "09:00 (timezone_id 5)"),
        ({"value": "Main St 1", "locality": "Berlin", "country": "Germany", "route": None},
         "Main St 1 (locality Berlin, country Germany)"),
        ({"value": None, "locality": "Berlin"}, "– (locality Berlin)"),
        ({"locality": "Berlin", "country": "Germany"}, "locality Berlin, country Germany"),
        ({"value": 7, "name": "Acme", "people_count": 3}, 7),
        ({"id": 7, "name": "Anna", "email": "anna@example.com", "has_pic": 1}, 7),
        ({"label": "Gold", "color": "blue"}, "Gold (color blue)"),
        ({"rules": [{"a": 1}, "b"]}, "rules a 1, b"),
    ],
)  # fmt: skip
def test_an_object_is_shown_with_all_of_its_parts(value: dict[str, Any], shown: object) -> None:
    assert display_object(value) == shown


@pytest.mark.parametrize(
    ("entries", "shown"),
    [
        ([WORK], ["b@example.com"]),
        ([{**WORK, "primary": True}], ["b@example.com"]),
        ([HOME], ["a@example.com (home)"]),
        ([HOME, WORK], ["a@example.com (home, main)", "b@example.com"]),
        ([{"price": 10, "currency": "EUR", "cost": 4}], ["price 10, currency EUR, cost 4"]),
        ([1, "x"], [1, "x"]),
    ],
)
def test_the_label_of_a_contact_is_shown_where_it_is_not_the_usual_one(entries: list[Any], shown: list[Any]) -> None:
    assert display_entries(entries) == shown


def test_what_is_usually_left_out_is_shown_where_nothing_else_differs() -> None:
    assert display_in_full([WORK, {"value": "c"}]) == ["b@example.com (work)", "c"]
    assert display_in_full(5) == 5
