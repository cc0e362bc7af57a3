"""What the warehouse of the last sync knows of names: those that exist, whatever their case, and nothing without it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pdsync.core import catalogue
from pdsync.writeback.company_names import CompanyNames
from pdsync.writeback.typed_values import Option
from tests.writeback.company import GONE, OLD, SIZE, TIER

if TYPE_CHECKING:
    from pdsync.writeback.resolver import NameResolver

DEALS, NOTES = catalogue.stream("deals"), catalogue.stream("notes")


def test_fields_of_the_newest_list_exist_and_come_first(names: NameResolver) -> None:
    fields = names.names.custom_fields(DEALS)
    assert {each.code for each in fields if not each.exists} == {OLD, GONE}
    assert [each.exists for each in fields] == sorted((each.exists for each in fields), reverse=True)
    assert names.names.custom_fields(NOTES) == names.names.custom_fields(None) == []


@pytest.mark.parametrize(
    ("table", "name", "ids"),
    [
        ("users", "BO dahl ", [2, 3]), ("users", "Anna@example.com", [1]), ("users", "Left Long Ago", []),
        ("organizations", "acme", [7]), ("organizations", "Acm", []),
    ],
)  # fmt: skip
def test_a_record_is_found_by_its_whole_name_whatever_its_case(
    names: NameResolver, table: str, name: str, ids: list[int]
) -> None:
    assert names.names.ids_named(table, name) == ids


def test_a_user_who_was_deactivated_or_deleted_is_inactive(names: NameResolver) -> None:
    assert [id for id in (1, 2, 3, 4, 5, 6) if names.names.is_inactive(id)] == [3, 4, 5]
    assert names.names.ids_named("users", "left long ago", deleted=True) == [4]
    assert not CompanyNames(None).is_inactive(4)


def test_names_of_deleted_records_are_not_proposed(names: NameResolver) -> None:
    assert sorted(names.names.titles("users")) == ["Anna Berg", "Bo Dahl", "Cleo Eng"]
    assert names.names.title("users", 4) == "Left Long Ago"  # to show an old id, it still has a name
    assert names.names.title("users", 99) is None


def test_a_label_in_the_companys_language_means_built_in_fields_only(names: NameResolver) -> None:
    assert names.names.built_in_codes(DEALS, " titel ") == ["title"]
    assert names.names.built_in_codes(DEALS, "Deal size") == []  # a custom field
    assert (names.names.field_type(DEALS, "status"), names.names.field_type(DEALS, "value")) == ("status", "")


def test_options_and_stages_belong_to_their_field_and_pipeline(names: NameResolver) -> None:
    assert names.names.options(DEALS, SIZE) == [Option("1", "Large"), Option("2", "Small")]
    assert names.names.options(NOTES, TIER) == []
    assert names.names.ids_named("stages", "Offer", pipeline=10) == [100]
    assert names.names.records_as_options("pipelines") == [Option("10", "Sales"), Option("11", "Partners")]


def test_without_a_warehouse_nothing_has_a_name() -> None:
    names = CompanyNames(None)
    assert not names.has_table("users")
    assert (names.custom_fields(DEALS), names.options(DEALS, SIZE)) == ([], [])
    assert names.built_in_codes(DEALS, "Titel") == []
    assert (names.ids_named("users", "Anna Berg"), names.records_as_options("pipelines")) == ([], [])
    assert names.title("users", 1) is None
