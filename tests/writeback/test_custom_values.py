"""Every way to name a custom field or a part of its value, and what is refused with a guess."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pdsync.errors import ConfigError
from tests.writeback.company import AMOUNT, GONE, OLD, OWNER, SIZE, TIER, TWIN, resolve

if TYPE_CHECKING:
    from pdsync.writeback.resolver import NameResolver


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("titel", "Did you mean 'title'"),
        ("Deal syze", "Did you mean 'Deal size'"),
        ("cf_deal_sice", "Did you mean 'cf_deal_size'"),
        ("zzzzzzzz", "It takes id, "),
    ],
)
def test_an_unknown_name_is_refused_with_a_guess(names: NameResolver, key: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"has no parameter '{key}'") as refused:
        resolve(names, {key: "x"})
    assert message in str(refused.value)
    assert str(refused.value).endswith("Nothing was queued.")


def test_an_operation_without_custom_fields_takes_no_label(names: NameResolver) -> None:
    with pytest.raises(ConfigError, match="has no parameter 'Deal size'"):
        resolve(names, {"content": "x", "Deal size": "Large"}, "v1 addNote")


@pytest.mark.parametrize("key", ["Deal size", "deal SIZE", " Deal size ", "cf_deal_size", SIZE])
@pytest.mark.parametrize("value", ["Large", "large", "1"])
def test_a_custom_field_is_named_by_label_column_or_code(names: NameResolver, key: str, value: str) -> None:
    assert resolve(names, {key: value}) == {"custom_fields": {SIZE: 1}}


def test_custom_fields_may_be_given_as_one_object(names: NameResolver) -> None:
    given = {"custom_fields": {"Deal size": "Small", TIER: [5, 6]}}
    assert resolve(names, given) == {"custom_fields": {SIZE: 2, TIER: [5, 6]}}


def test_v1_takes_custom_fields_beside_the_others(names: NameResolver) -> None:
    given = {"id": 1, "Tiers": "Gold, Silver", "Amount due": "12.50 eur"}
    assert resolve(names, given, "v1 updateDeal") == {
        "id": 1, TIER: "5,6", AMOUNT: 12.5, f"{AMOUNT}_currency": "EUR",
    }  # fmt: skip


@pytest.mark.parametrize(
    "given",
    [
        {"Amount due": "12.50 EUR"},
        {"Amount due": 12.5, "cf_amount_due_currency": "eur"},
        {"cf_amount_due_currency": "eur", "Amount due": 12.5},
        {"Amount due": {"value": 12.5, "currency": "EUR"}},
        {"Amount due": '{"value": 12.5, "currency": "EUR"}'},
        {f"{AMOUNT}": 12.5, f"{AMOUNT}_currency": "EUR"},
    ],
)
def test_the_parts_of_a_value_may_be_given_together_or_one_by_one(names: NameResolver, given: dict[str, Any]) -> None:
    assert resolve(names, given) == {"custom_fields": {AMOUNT: {"value": 12.5, "currency": "EUR"}}}


def test_parts_that_contradict_each_other_are_refused(names: NameResolver) -> None:
    with pytest.raises(ConfigError, match="'Amount due' is given twice"):
        resolve(names, {"Amount due": "12 EUR", "cf_amount_due_currency": "USD"})
    with pytest.raises(ConfigError, match="'Deal size' is given twice"):
        resolve(names, {"Deal size": "Large", SIZE: 2})


def test_a_new_record_needs_the_main_part_and_an_existing_one_does_not(names: NameResolver) -> None:
    given = {"cf_amount_due_currency": "EUR"}
    assert resolve(names, given) == {"custom_fields": {AMOUNT: {"currency": "EUR"}}}
    with pytest.raises(ConfigError, match="'Amount due' has currency and no value"):
        resolve(names, {"title": "x", **given}, "v2 addDeal")


def test_null_empties_a_custom_field(names: NameResolver) -> None:
    assert resolve(names, {"Amount due": None, "cf_amount_due_currency": None}) == {"custom_fields": {AMOUNT: None}}
    assert resolve(names, {"Deal size": None}) == {"custom_fields": {SIZE: None}}


def test_a_label_of_two_fields_is_refused_with_their_columns(names: NameResolver) -> None:
    with pytest.raises(ConfigError, match="several custom fields are called 'Twin'") as refused:
        resolve(names, {"Twin": "x"})
    assert "Name one by its column: cf_twin_cccc, cf_twin_dddd." in str(refused.value)
    assert resolve(names, {"cf_twin_cccc": "x"}) == {"custom_fields": {TWIN: "x"}}


@pytest.mark.parametrize("key", ["Gone", "cf_gone", GONE, f"{GONE}_currency"])
def test_a_field_that_was_deleted_is_refused(names: NameResolver, key: str) -> None:
    with pytest.raises(ConfigError, match=r"the custom field 'Gone' \(cf_gone\) was deleted. Nothing was queued"):
        resolve(names, {key: "x"})


def test_a_field_that_was_deleted_and_added_again_names_its_successor(names: NameResolver) -> None:
    with pytest.raises(ConfigError, match=r"was deleted\. The field of that name is now cf_deal_size\."):
        resolve(names, {OLD: "Large"})


def test_a_code_that_no_sync_has_seen_is_accepted(names: NameResolver) -> None:
    assert resolve(names, {"9" * 40: "x"}) == {"custom_fields": {"9" * 40: "x"}}


def test_a_custom_field_that_refers_to_a_record_takes_its_name(names: NameResolver) -> None:
    assert resolve(names, {"Second owner": "Anna Berg"}) == {"custom_fields": {OWNER: 1}}
