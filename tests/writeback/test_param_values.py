"""Which parameter a key names, and what its value is as the API takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pdsync.errors import ConfigError
from tests.writeback.company import resolve

if TYPE_CHECKING:
    from pdsync.writeback.resolver import NameResolver


@pytest.mark.parametrize(
    ("given", "params"),
    [
        ({"title": "x"}, {"title": "x"}),
        ({"id": "12", "title": "x"}, {"id": "12", "title": "x"}),
        ({"owner": 1}, {"owner_id": 1}),
        ({"org": 7}, {"org_id": 7}),
        ({"label": [5]}, {"label_ids": [5]}),
        ({"labels": [5]}, {"label_ids": [5]}),
    ],
)
def test_a_parameter_is_named_by_the_api_or_shorter(
    names: NameResolver, given: dict[str, Any], params: dict[str, Any]
) -> None:
    assert resolve(names, given) == params


def test_a_column_of_the_table_names_the_parameter_of_v1(names: NameResolver) -> None:
    assert resolve(names, {"owner_id": 1}, "v1 updateDeal") == {"user_id": 1}


def test_a_part_of_an_object_has_a_column_of_its_own(names: NameResolver) -> None:
    given = {"title": "x", "value": "1,200.50 usd", "currency": "USD"}
    assert resolve(names, given, "v1 addLead")["value"] == {"amount": 1200.5, "currency": "USD"}
    with pytest.raises(ConfigError, match="value is given twice"):
        resolve(names, {**given, "currency": "EUR"}, "v1 addLead")


def test_an_option_of_a_built_in_field_is_named_by_its_label(names: NameResolver) -> None:
    assert resolve(names, {"status": "WON"}) == {"status": "won"}
