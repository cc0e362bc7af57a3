"""What the names that people use resolve to together, and how codes and ids are shown by their names."""

from __future__ import annotations

import pytest

from pdsync.core import catalogue
from pdsync.errors import ConfigError
from pdsync.writeback.resolver import NameResolver
from tests.writeback.company import AMOUNT, OWNER, SIZE, TIER, resolve


def test_a_parameter_that_is_named_twice_is_refused(names: NameResolver) -> None:
    with pytest.raises(ConfigError, match=r"owner_id is given twice \('owner_id' means it too\). Nothing was queued"):
        resolve(names, {"owner": 1, "owner_id": 2})


def test_an_amount_names_the_currency_unless_another_one_is_given(names: NameResolver) -> None:
    assert resolve(names, {"value": "12.50 eur"}) == {"value": 12.5, "currency": "EUR"}
    assert resolve(names, {"value": "12.50 eur", "currency": "EUR"})["currency"] == "EUR"
    with pytest.raises(ConfigError, match="the amount is in EUR, and currency is 'USD'"):
        resolve(names, {"value": "12.50 eur", "currency": "usd"})


@pytest.mark.parametrize(
    ("given", "operation"),
    [
        ({"currency": "eru"}, "v2 updateDeal"),
        ({"value": "12 ERU"}, "v2 updateDeal"),
        ({"Amount due": "12 ERU"}, "v2 updateDeal"),
        ({"Amount due": 12, "cf_amount_due_currency": "ERU"}, "v2 updateDeal"),
        ({"value": {"amount": 12, "currency": "ERU"}}, "v1 updateLead"),
        ({"prices": [{"currency": "EUR", "price": 1}, {"currency": "ERU", "price": 2}]}, "v2 updateProduct"),
    ],
)
def test_w7_a_currency_that_the_company_does_not_have_is_refused_when_queued(
    names: NameResolver, given: dict[str, object], operation: str
) -> None:
    with pytest.raises(ConfigError, match=r"has no currency 'ERU'\. Did you mean 'EUR'\? Nothing was queued"):
        resolve(names, given, operation)
    with pytest.raises(ConfigError, match=r"has no currency 'XYZ'\. There are EUR, USD\."):
        resolve(names, {"currency": "xyz"})


@pytest.mark.parametrize("value", [None, "@acme", {"$ref": "a-mutation"}])
def test_null_and_references_stay_as_they_are(names: NameResolver, value: object) -> None:
    assert resolve(names, {"org": value}) == {"org_id": value}
    assert resolve(names, {"Second owner": value}) == {"custom_fields": {OWNER: value}}


def test_without_a_sync_codes_and_ids_can_be_used() -> None:
    names = NameResolver(None)
    assert resolve(names, {"owner": 1, SIZE: 1}) == {"owner_id": 1, "custom_fields": {SIZE: 1}}
    assert resolve(names, {"currency": "xyz"}) == {"currency": "XYZ"}
    for given, message in (
        ({"owner": "Anna Berg"}, "names are known after a sync"),
        ({"Deal size": 1}, "Custom fields are known by name after a sync"),
    ):
        with pytest.raises(ConfigError, match=message):
            resolve(names, given)


@pytest.mark.parametrize(
    ("field", "label"),
    [
        ("title", "title"),
        (f"custom_fields/{SIZE}", "Deal size"),
        (SIZE, "Deal size"),
        ("9" * 40, "9" * 40),
        (f"{SIZE}_until", "Deal size (until)"),
    ],
)
def test_a_field_is_shown_by_its_label(names: NameResolver, field: str, label: str) -> None:
    assert names.label(catalogue.operation("updateDeal"), field) == label


@pytest.mark.parametrize(
    ("field", "value", "shown"),
    [
        ("title", "x", "x"), ("title", None, None),
        (f"custom_fields/{SIZE}", 1, "Large"), (f"custom_fields/{TIER}", [5, 9], ["Gold", 9]),
        ("status", "won", "Won"), ("owner_id", 1, "Anna Berg (1)"), ("owner_id", 99, 99), ("person_id", 5, 5),
        (f"custom_fields/{OWNER}", 2, "Bo Dahl (2)"), (f"custom_fields/{AMOUNT}", {"value": 5, "currency": "EUR"}, 5),
        ("emails", [{"value": "a@example.com", "primary": True}], ["a@example.com"]),
        ("org_id", {"$ref": "m1"}, "that of #3"), ("org_id", {"$ref": "m2"}, {"$ref": "m2"}),
    ],
)  # fmt: skip
def test_a_value_is_shown_as_people_read_it(names: NameResolver, field: str, value: object, shown: object) -> None:
    names.pending = {"m1": "that of #3"}
    assert names.display_value(catalogue.operation("updateDeal"), field, value) == shown
