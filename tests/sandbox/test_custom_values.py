"""Each type of custom field has a generator, and its values are valid for the API."""

from __future__ import annotations

from random import Random

import pytest

from pdsync.sandbox import Company, Sizes, generate_company
from pdsync.sandbox.company.custom_values import Pools, make_record_generator, make_value_generator
from pdsync.sandbox.company.data import load
from pdsync.sandbox.protocol.validation import custom_value

TYPES = sorted({entry[0] for kind in load("fields")["custom"].values() for entry in kind})


@pytest.fixture(scope="module")
def company() -> Company:
    return generate_company(seed=5, sizes=Sizes(deals=30))


def pools(company: Company) -> Pools:
    def live(kind: str) -> list[int]:
        return [row.id for row in company[kind].rows.values() if row.state == "live"]

    return Pools(list(company["users"].rows), live("persons"), live("organizations"), company.created_s)


@pytest.mark.parametrize("type", TYPES)
def test_values_are_those_that_a_write_may_send(company: Company, type: str) -> None:
    field = next(f for fields in company.fields.values() for f in fields if f.custom and f.type == type)
    generate = make_value_generator(field, Random(1), pools(company))
    for _ in range(20):
        value = generate()
        assert custom_value(field, value, company) == value


def test_an_unknown_type_is_refused(company: Company) -> None:
    field = company.fields["deals"].add("Odd", "telepathy")
    try:
        with pytest.raises(ValueError, match="'telepathy'"):
            make_value_generator(field, Random(1), pools(company))
    finally:
        company.fields["deals"].retire(field.code)


def test_a_record_older_than_a_field_may_lack_it_and_a_newer_one_has_a_value_or_null(company: Company) -> None:
    fields = company.fields["deals"]
    starts = [0, 1000, 2000]
    generate = make_record_generator(fields, Random(1), pools(company), starts)
    codes = {field.code for field in fields if field.custom}
    late = {field.code for field in fields if field.custom and field.year > 0}
    assert all(generate(3000).keys() == codes for _ in range(20))
    missing = [codes - generate(500).keys() for _ in range(20)]
    assert set().union(*missing) == late
