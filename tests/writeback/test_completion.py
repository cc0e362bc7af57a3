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
@pytest.mark.parametrize("append", [False, True])  # which is about lists
def test_custom_fields(
    payload: dict[str, Any], record: dict[str, Any], completed: dict[str, Any], append: bool
) -> None:
    operation = catalogue.operation("v2 updateDeal")
    assert complete(operation, payload, record, append=append, currency="EUR") == completed


def test_append_adds_to_the_options_of_a_custom_field() -> None:
    operation = catalogue.operation("v2 updateDeal")
    found = complete(operation, custom([6]), custom([5]), append=True, currency="EUR")
    assert found == custom([5, 6])


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


WEG = {"value": "Weg 2, Bonn", "locality": "Bonn", "country": "DE", "route": None, "formatted_address": "Weg 2, Bonn"}


@pytest.mark.parametrize(
    ("operation", "payload", "record", "completed"),
    [
        ("v1 updateLead", {"value": {"amount": 7}}, {"value": {"amount": 5, "currency": "USD"}},
         {"value": {"amount": 7, "currency": "USD"}}),
        ("v1 updateLead", {"value": {"amount": 7}}, {"value": None}, {"value": {"amount": 7}}),
        ("v1 updateLead", {"value": None}, {"value": {"amount": 5, "currency": "USD"}}, {"value": None}),
        ("v2 updateOrganization", {"address": {"locality": "Ulm"}}, {"address": WEG},
         {"address": {"value": "Weg 2, Bonn", "locality": "Ulm", "country": "DE", "formatted_address": "Weg 2, Bonn"}}),
        ("v2 updateOrganization", {"address": {"value": "Rue 1"}}, {"address": WEG}, {"address": {"value": "Rue 1"}}),
        ("v2 updateDealField", {"ui_visibility": {"a": True}}, {"ui_visibility": {"b": True}},
         {"ui_visibility": {"a": True}}),  # settings are sent as they are
    ],
)  # fmt: skip
def test_a_built_in_amount_or_address_keeps_its_other_parts(
    operation: str, payload: dict[str, Any], record: dict[str, Any], completed: dict[str, Any]
) -> None:
    found = complete(catalogue.operation(operation), payload, record, append=False, currency="EUR")
    assert found == completed
