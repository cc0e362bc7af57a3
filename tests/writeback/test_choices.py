"""The option that a label or an id means."""

from __future__ import annotations

import pytest

from pdsync.errors import ConfigError
from pdsync.writeback.choices import choose, visibility_levels
from pdsync.writeback.resolver import NameResolver
from pdsync.writeback.typed_values import InvalidValue, Option
from tests.writeback.company import SIZE, TIER, open_company, resolve

OPTIONS = [Option("1", "Large"), Option("2", "Small"), Option("5", "5"), Option("7", "1")]


@pytest.mark.parametrize(
    ("value", "many", "ids_only", "chosen"),
    [
        ("large", False, False, 1),
        ("2", False, False, 2),
        (2, False, False, 2),
        (["Small"], False, False, 2),  # a list of one, where one is expected
        (1, False, True, 1),  # as the API returns it: an id, although it is the label of another option too
        ([1], False, True, 1),
        ([1, 2], True, True, [1, 2]),
        (1, True, True, [1]),  # one id, where a list is expected
        ([], True, True, None),  # an empty list would be refused by the API
        ("Large, Small", True, False, [1, 2]),
        ("Large", True, False, [1]),
        ("[]", True, False, None),
        (["Large", 2], True, True, [1, 2]),
    ],
)
def test_an_option_is_named_by_its_label_or_its_id(value: object, many: bool, ids_only: bool, chosen: object) -> None:
    assert choose(OPTIONS, value, many=many, ids_only=ids_only) == chosen


@pytest.mark.parametrize(
    ("value", "many", "ids_only", "why"),
    [
        (1, False, False, "is the label of option 7 and the id of 'Large': give 7 or 'Large'"),
        (9, False, True, "that is none of its options. There are Large, Small, 5, 1."),
        ("smal", False, False, "that is none of its options. Did you mean 'Small'?"),
        ("", True, False, "that is none of its options"),
        ([1, 2], False, True, "that is none of its options"),  # two, where one is expected
        ([], False, True, "that is none of its options"),
        (True, False, True, "that is none of its options"),
    ],
)
def test_what_is_no_option_or_could_be_two_is_refused(value: object, many: bool, ids_only: bool, why: str) -> None:
    with pytest.raises(InvalidValue) as refused:
        choose(OPTIONS, value, many=many, ids_only=ids_only)
    assert why in str(refused.value)


@pytest.mark.parametrize(
    ("value", "many", "chosen"),
    [("5", False, 5), (5, False, 5), ([5], False, 5), ("5, 6", True, [5, 6]), ("[5]", True, [5]), (5, True, [5]),
     ([], True, None)],
)  # fmt: skip
def test_before_the_first_sync_only_ids_are_accepted(value: object, many: bool, chosen: object) -> None:
    assert choose([], value, many=many) == chosen
    with pytest.raises(InvalidValue, match="labels are known after a sync"):
        choose([], "Large", many=many)


@pytest.mark.parametrize("value", [True, [], [1, 2], None])
def test_before_the_first_sync_what_is_not_one_id_is_refused(value: object) -> None:
    with pytest.raises(InvalidValue, match="should be the id of an option"):
        choose([], value)


@pytest.mark.parametrize(("key", "value", "sent"), [(TIER, 5, [5]), (TIER, [5], [5]), (SIZE, 1, 1), (SIZE, [1], 1)])
def test_a_field_that_is_named_by_its_code_takes_an_id_or_a_list_of_ids(
    names: NameResolver, key: str, value: object, sent: object
) -> None:
    assert resolve(names, {key: value}) == {"custom_fields": {key: sent}}


def test_ids_of_a_field_whose_options_are_not_known_get_the_shape_of_the_field() -> None:
    with open_company() as warehouse:
        warehouse.execute("DELETE FROM meta.field_options")
        assert resolve(NameResolver(warehouse), {TIER: 5, SIZE: [1]}) == {"custom_fields": {TIER: [5], SIZE: 1}}


def test_the_levels_of_visibility_are_the_companys_and_the_apis_own() -> None:
    assert visibility_levels([Option("3", "Everybody")]) == [
        Option("3", "Everybody"), Option("1", "1"), Option("5", "5"), Option("7", "7"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("Deal size", "Huge", "There are Large, Small."),
        ("Deal size", "Lage", "Did you mean 'Large'?"),
        ("Deal size", 9, "There are Large, Small."),
        ("Tiers", "Gold, Bronze", "There are Gold, Silver."),
        ("status", "wonn", "Did you mean 'Won'?"),
    ],
)
def test_an_unknown_option_is_refused_with_those_that_exist(
    names: NameResolver, key: str, value: object, message: str
) -> None:
    with pytest.raises(ConfigError, match="Nothing was queued") as refused:
        resolve(names, {key: value})
    assert message in str(refused.value)
