"""A record in the form of v1: its own names and times, nested links, and values of its neighbours."""

from __future__ import annotations

import re
from typing import Any

import pytest

from pdsync.sandbox import Company, Sizes, generate_company
from pdsync.sandbox.protocol.v1_records import SHAPES, shape

V2_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


@pytest.fixture(scope="module")
def company() -> Company:
    return generate_company(seed=5, sizes=Sizes(deals=60))


def shown(company: Company, kind: str, **values: Any) -> dict[str, Any]:
    """The first live record of a kind with these values, as v1 shows it."""
    table = company[kind]
    live = next(row for row in table.rows.values() if row.state == "live")
    return shape(company, kind, table.row({**live.record, **values}, "live", live.extra))


@pytest.mark.parametrize("kind", SHAPES)
def test_no_time_of_v1_is_in_the_format_of_v2(company: Company, kind: str) -> None:
    for row in company[kind].rows.values():
        record = shape(company, kind, row)
        assert record["id"] == row.id
        assert not [name for name, value in record.items() if V2_TIME.fullmatch(str(value))]


def test_each_table_has_a_form() -> None:
    company = generate_company(seed=1, sizes=Sizes(deals=1))
    assert SHAPES.keys() == company.tables.keys()


@pytest.mark.parametrize(
    ("value", "probability", "weighted"), [(200, 50, 100), (99.99, 10, 10), (0.5, 50, 0.25), (None, 50, 0), (10, 0, 0)]
)
def test_the_weighted_value_is_the_value_times_the_probability(
    company: Company, value: float | None, probability: int, weighted: float
) -> None:
    record = shown(company, "deals", value=value, probability=probability)
    assert (record["weighted_value"], type(record["weighted_value"])) == (weighted, type(weighted))


def test_a_deal_without_a_probability_has_that_of_its_stage(company: Company) -> None:
    stage = next(iter(company["stages"].rows.values())).record
    record = shown(company, "deals", value=100, probability=None, stage_id=stage["id"])
    assert (record["probability"], record["weighted_value"]) == (None, stage["deal_probability"])


@pytest.mark.parametrize(
    ("values", "status", "is_active"),
    [({"status": "open"}, "open", True), ({"status": "won"}, "won", False), ({"is_deleted": True}, "deleted", False)],
)
def test_a_deleted_deal_has_a_status_of_its_own(
    company: Company, values: dict[str, Any], status: str, is_active: bool
) -> None:
    record = shown(company, "deals", **{"status": "open", "is_deleted": False, **values})
    assert (record["status"], record["active"], record["deleted"]) == (status, is_active, status == "deleted")


def test_links_are_nested_with_the_id_as_value(company: Company) -> None:
    person = next(row for row in company["persons"].rows.values() if row.state == "live")
    record = shown(company, "deals", person_id=person.id, org_id=None)
    assert (record["person_id"]["value"], record["person_id"]["name"]) == (person.id, person.record["name"])
    assert record["person_name"] == person.record["name"]
    assert (record["org_id"], record["org_name"]) == (None, None)


def test_labels_are_a_text(company: Company) -> None:
    assert shown(company, "deals", label_ids=[3, 1])["label"] == "3,1"
    assert shown(company, "deals", label_ids=[])["label"] is None
