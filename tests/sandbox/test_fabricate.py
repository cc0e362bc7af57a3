"""Fabricated records are the same each time, have the shape of the API's answers, and link to what exists."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from pdsync.sandbox import Company, Sizes, generate_company
from pdsync.sandbox.company.clock import seconds_of
from pdsync.sandbox.company.fabricate import Fabricator
from pdsync.sandbox.operations.generic_records import records_at

SHAPE: dict[str, Any] = {
    "id": "int", "add_time": "time", "update_time": "time", "owner_id": "int", "deal_id": "int", "name": "str",
    "color": "green|blue", "tags": ["str"], "active_flag": "bool", "person_id": {"value": "int", "name": "str"},
    "level": "#1|2|3", "nothing": None, "due_date": "date", "uuid": "uuid", "amount": "num",
}  # fmt: skip


@pytest.fixture(scope="module")
def company() -> Company:
    return generate_company(seed=5, sizes=Sizes(deals=30), now=datetime(2026, 11, 20, tzinfo=UTC))


def records(company: Company, count: int = 60) -> list[dict[str, Any]]:
    return [Fabricator(company, "things", key).record(SHAPE, {"id": key}) for key in range(count)]


def test_the_same_company_kind_and_key_give_the_same_record(company: Company) -> None:
    assert records(company) == records(generate_company(seed=5, sizes=Sizes(deals=30), now=company.clock.now()))
    assert records(company)[0] != Fabricator(company, "others", 0).record(SHAPE, {"id": 0})
    assert records(generate_company(seed=6, sizes=Sizes(deals=30)))[1] != records(company)[1]


def test_given_values_stay_and_all_keys_of_the_shape_are_there(company: Company) -> None:
    record = Fabricator(company, "things", 1).record(SHAPE, {"id": 7, "name": "Given", "beyond": 1})
    assert (record["id"], record["name"], record["beyond"]) == (7, "Given", 1)
    assert record.keys() == {*SHAPE, "beyond"}


def test_values_follow_the_names_and_types_of_their_keys(company: Company) -> None:
    for record in records(company):
        assert record["owner_id"] in company["users"].rows
        assert record["color"] in ("green", "blue")
        assert record["level"] in (1, 2, 3)
        assert record["active_flag"] is True
        assert record["nothing"] is None
        assert len(record["uuid"]) == 36
        assert isinstance(record["tags"], list)


def test_times_are_before_the_company_was_generated_and_in_order(company: Company) -> None:
    for record in records(company):
        assert record["add_time"] <= record["update_time"]
        assert seconds_of(record["update_time"]) < company.created_s


def test_links_are_to_records_that_were_generated(company: Company) -> None:
    links = [record["deal_id"] for record in records(company)]
    assert None in links
    assert {id for id in links if id is not None} <= set(range(1, company.last_initial_id("deals") + 1))
    persons = [record["person_id"] for record in records(company)]
    assert all(person["value"] is None or person["value"] <= company.last_initial_id("persons") for person in persons)


def test_the_company_has_the_currencies_of_its_deals_each_once(company: Company) -> None:
    codes = [row.record["code"] for row in records_at(company, ("currencies",), ()).values()]
    assert len({*codes}) == len(codes)
    assert {row.record["currency"] for row in company["deals"].rows.values()} <= {*codes}
