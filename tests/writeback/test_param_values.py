"""Which parameter a key names, and what its value is as the API takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pdsync.core import catalogue
from pdsync.errors import ConfigError
from pdsync.writeback.enqueue import make_entry
from pdsync.writeback.resolver import NameResolver
from pdsync.writeback.shapes import find_stream, shape
from tests.writeback.company import open_company, resolve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pdsync.model import Operation


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


SAMPLES: dict[str, Any] = {"integer": 1, "number": 1, "object": {}, "array[object]": [], "array[integer]": [1]}


def enumerations(names: NameResolver) -> Iterator[tuple[Operation, str, list[str]]]:
    """Each parameter of a change whose values are listed: in its own entry, in that of its list, or by the company."""
    for version in catalogue.VERSIONS:
        for operation in catalogue.operations(version).values():
            if not operation.mutates or operation.removed or operation.host:
                continue
            listing, stream = shape(operation).listing, find_stream(shape(operation).kind)
            for name, param in {**operation.path_params, **operation.query, **operation.body}.items():
                listed = listing.query[name].enum if listing and name in listing.query else ()
                own = [each.label for each in names.names.options(stream, name)]
                values = [str(each) for each in param.enum or listed] + own
                if values and param.enum != (0, 1):  # those are yes and no
                    yield operation, name, values


@pytest.mark.parametrize("is_synced", [True, False])
def test_a_mistyped_choice_of_any_field_is_refused_when_it_is_queued(is_synced: bool) -> None:
    with open_company() as warehouse:
        names = NameResolver(warehouse if is_synced else None)
        listed = list(enumerations(names))
        assert len(listed) > 45
        passed = []
        for operation, name, values in listed:
            for wrong in ("zzz", f"{values[0]}t", f"@{values[0]}"):
                samples = dict.fromkeys(operation.path_params, 1) | {
                    each: param.enum[0] if param.enum else SAMPLES.get(param.type, "x")
                    for each, param in operation.body.items()
                    if param.required
                }
                try:
                    make_entry(names, operation, {**samples, name: wrong})
                except ConfigError as error:
                    if f"{name} is " in str(error) or f"{name} can't be " in str(error):
                        continue
                passed.append((operation.name, name, wrong))
    assert not passed


@pytest.mark.parametrize(
    ("operation", "given", "message"),
    [
        (
            "v2 updateDeal",
            {"status": "lostt"},
            "status is 'lostt', and that is none of its options. There are Open, Won. Noth",
        ),
        ("v2 updateDeal", {"status": "wonn"}, "Did you mean 'Won'?"),
        ("v2 updateActivity", {"type": "cal"}, "type is 'cal', and that is none of its options. Did you mean 'Call'?"),
    ],
)
def test_a_mistyped_choice_is_answered_with_a_guess(
    names: NameResolver, operation: str, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        resolve(names, given, operation)
    assert message in str(refused.value)


def test_an_activity_type_is_named_by_its_key_or_name_and_a_new_one_is_taken_as_it_is(names: NameResolver) -> None:
    types = [
        resolve(names, {"type": value}, "v2 updateActivity")["type"]
        for value in ("call", "Call", "Lunch date", "demo", "visit")
    ]
    assert types == ["call", "call", "lunch", "demo", "visit"]
