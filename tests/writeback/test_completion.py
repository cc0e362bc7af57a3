"""An update keeps the parts of a value that it doesn't name."""

from __future__ import annotations

from typing import Any

import pytest

from pdsync.core import catalogue
from pdsync.writeback.completion import complete

CODE = "a" * 40


def custom(value: Any) -> dict[str, Any]:
    return {"custom_fields": {CODE: value}}


@pytest.mark.parametrize(
    ("payload", "record", "completed"),
    [
        (custom({"value": 5}), custom({"value": 3, "currency": "USD"}), custom({"value": 5, "currency": "USD"})),
        (custom({"value": 5}), custom(None) | {"currency": "GBP"}, custom({"value": 5, "currency": "GBP"})),
        (custom({"value": 5}), custom(None), custom({"value": 5, "currency": "EUR"})),
        (custom({"value": 5, "currency": "CHF"}), custom({"currency": "USD"}), custom({"value": 5, "currency": "CHF"})),
        (custom({"until": "2026-02-01"}), custom({"value": "2026-01-01", "until": None}),
         custom({"value": "2026-01-01", "until": "2026-02-01"})),
        (custom({"value": "Rue 1"}), custom({"value": "Weg 2", "formatted_address": "Weg 2", "country": "DE"}),
         custom({"value": "Rue 1"})),  # the lines of another address are not kept
        (custom("text"), custom("other"), custom("text")),
        ({"title": "New"}, {"title": "Old"}, {"title": "New"}),
    ],
)  # fmt: skip
def test_custom_fields(payload: dict[str, Any], record: dict[str, Any], completed: dict[str, Any]) -> None:
    operation = catalogue.operation("v2 updateDeal")
    assert complete(operation, payload, record, append=False, currency="EUR") == completed


@pytest.mark.parametrize(
    ("new", "old", "joined"),
    [
        ([2], [1], [1, 2]),
        ([1, 2], [1], [1, 2]),
        ([2], None, [2]),
        ([], [1], [1]),
    ],
)
def test_append(new: list[int], old: list[int] | None, joined: list[int]) -> None:
    operation = catalogue.operation("v2 updateDeal")
    found = complete(operation, {"id": 12, "label_ids": new}, {"label_ids": old}, append=True, currency=None)
    assert found == {"id": 12, "label_ids": joined}


def test_an_appended_e_mail_address_is_not_the_main_one() -> None:
    operation = catalogue.operation("v2 updatePerson")
    first = {"value": "a@example.com", "label": "work", "primary": True}
    new = {"value": "b@example.com", "label": "home", "primary": True}
    again = {"value": "A@example.com", "label": "work", "primary": True}
    found = complete(operation, {"emails": [new, again]}, {"emails": [first]}, append=True, currency=None)
    assert found == {"emails": [first, new | {"primary": False}]}
