"""What holds for one operation that changes data holds for all of the catalogue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pdsync.core import catalogue
from pdsync.writeback.shapes import find_add_operation, find_delete_operation, find_stream, record_key, shape

if TYPE_CHECKING:
    from pdsync.model import Operation

WRITES = [
    each for version in catalogue.VERSIONS for each in catalogue.operations(version).values()
    if each.mutates and not each.removed and not each.host
]  # fmt: skip


@pytest.mark.parametrize("operation", WRITES, ids=lambda operation: operation.name)
def test_each_operation_has_a_shape_that_fits_its_path(operation: Operation) -> None:
    found = shape(operation)
    assert set(found.path_params) == set(operation.path_params)
    if found.verb in ("update", "delete"):
        assert operation.path.endswith("}")
        assert operation.method in ("PUT", "PATCH", "DELETE")
    if found.verb == "add":
        assert operation.method == "POST"
        assert found.listing  # or a lost answer could not be looked into
    if found.verb == "merge":
        assert found.item
        assert found.item.method == "GET"
    if found.item:
        assert len(found.item.path_params) == len(found.path_params) + (found.verb == "add")
    if found.verb != "add" and found.path_params:
        values = dict.fromkeys(found.path_params, 7)
        assert (found.target(values) or "").startswith(f"{found.root}/7")


def test_the_records_of_a_sales_team_can_be_looked_into_one_by_one() -> None:
    for kind in ("deals", "persons", "organizations", "products", "activities", "leads", "notes", "files", "stages"):
        assert find_stream(kind), kind
        add, delete = find_add_operation(kind, "v2"), find_delete_operation(kind, "v2")
        assert add
        assert delete
        assert shape(add).item
        assert shape(delete).item


@pytest.mark.parametrize(
    ("name", "params", "target"),
    [
        ("updateDeal", {"id": 12}, "deals/12"),
        ("addDealProduct", {"id": 12}, "deals/12/products"),
        ("updateDealProduct", {"id": 12, "product_attachment_id": 7}, "deals/12/products/7"),
        ("mergeDeals", {"id": 12, "merge_with_id": 13}, "deals/12"),
        ("addDealProduct", {"id": {"$ref": "x"}}, None),
        ("addDeal", {"title": "x"}, None),
    ],
)
def test_a_target_says_where_the_record_is(name: str, params: dict[str, object], target: str | None) -> None:
    assert shape(catalogue.operation(name)).target(params) == target


def test_a_record_is_called_by_its_id_its_code_or_its_user() -> None:
    records: tuple[dict[str, Any], ...] = ({"id": 5, "user_id": 1}, {"field_code": "x"}, {"user_id": 3}, {})
    assert [record_key(each) for each in records] == ["5", "x", "3", None]
