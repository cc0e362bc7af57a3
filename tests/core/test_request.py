"""A request made of an operation: what the catalogue says of its method, path and cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pdsync.core import catalogue
from pdsync.core.request import RetryPolicy, request_of, request_of_call
from pdsync.core.request_builder import check

if TYPE_CHECKING:
    from pdsync.model import Version


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_request_takes_what_its_operation_says(version: Version) -> None:
    for operation in catalogue.operations(version).values():
        request = request_of(operation)
        assert (request.method, request.path, request.label) == (operation.method, operation.path, operation.id)
        assert (request.cost, request.is_search) == (operation.cost or 0, operation.search)
        assert request.retry == RetryPolicy()


@pytest.mark.parametrize(
    ("name", "is_search"), [("v2 searchDeals", True), ("v1 findUsersByName", True), ("v2 getDeals", False)]
)
def test_l2_a_call_of_a_search_counts_as_one(name: str, is_search: bool) -> None:
    operation = catalogue.operation(name)
    request = request_of_call(check(operation, {"term": "acme"} if is_search else {}))
    assert (request.cost, request.is_search) == (operation.cost, is_search)


def test_a_filled_path_query_and_body_are_carried() -> None:
    operation = catalogue.operation("updateDeal", "v2")
    request = request_of(operation, "/api/v2/deals/7", query={"a": "b"}, body={"title": "x"})
    assert (request.path, request.query, request.body) == ("/api/v2/deals/7", {"a": "b"}, {"title": "x"})


def test_a_write_is_not_repeated_unless_requested() -> None:
    assert not RetryPolicy().repeats_writes
    assert not RetryPolicy().all_errors
