"""Rows become requests in one place: as the walks page, and never fewer than they take."""

from __future__ import annotations

import pytest

from pdsync.core import catalogue
from pdsync.core.control.sizes import ListSize
from pdsync.runner.pipelines.list_cost import (
    Assumption,
    assumption,
    assumptions,
    count_most_requests,
    count_requests,
    estimate_unread,
)


@pytest.mark.parametrize(
    ("operation", "rows", "requests"),
    [
        ("v1 getUsers", 5_000, 1),
        ("v2 getPersons", 0, 1), ("v2 getPersons", 500, 1), ("v2 getPersons", 501, 2), ("v2 getPersons", 10_000, 20),
        ("v1 getNotes", 0, 1), ("v1 getNotes", 500, 1), ("v1 getNotes", 990, 2), ("v1 getNotes", 991, 3),
        ("v1 getFiles", 100, 1), ("v1 getFiles", 190, 2), ("v1 getFiles", 1_477, 17),
    ],
)  # fmt: skip
def test_a_list_takes_as_many_requests_as_its_walk(operation: str, rows: int, requests: int) -> None:
    assert count_requests(catalogue.operation(operation), rows) == requests
    assert count_most_requests(catalogue.operation(operation), rows) >= requests


def test_a_list_that_does_not_say_whether_there_is_more_takes_one_more() -> None:
    threads = catalogue.operation("v1 getMailThreads")
    assert [count_requests(threads, rows, unmarked=True) for rows in (0, 1, 500, 501)] == [1, 2, 2, 3]


def test_what_is_assumed_names_existing_lists_and_grows_with_the_deals() -> None:
    assert assumptions()
    assert assumption("mail_threads", "inbox").unmarked
    assert assumption("goals", "sum_active") == Assumption()
    for name, entry in assumptions().items():
        for deals in (0, 100, 100_000):
            assert entry.likely_rows(deals) <= entry.most_rows(deals), name


@pytest.mark.parametrize(("rows", "requests"), [(500, 1), (20_000, 41), (21_000, 47), (50_000, 109)])
def test_windows_of_a_long_list_are_part_of_its_price(rows: int, requests: int) -> None:
    persons, notes = catalogue.stream("persons"), catalogue.stream("notes")
    sizes = {
        ("persons", "all"): ListSize("persons", "all", "v2", rows, rows, "measured"),
        ("notes", "all"): ListSize("notes", "all", "v1", rows, rows, "measured"),
    }
    price = estimate_unread(persons, persons.v2[0], "v2", sizes)
    assert price
    assert price.requests == requests <= price.most_requests
    by_pages = estimate_unread(notes, notes.v1[0], "v2", sizes)
    assert by_pages
    assert by_pages.requests == count_requests(catalogue.operation("v1 getNotes"), rows)


@pytest.mark.parametrize(("deals", "requests"), [(0, 0), (1, 1)])
def test_no_parent_takes_no_request_for_its_list(deals: int, requests: int) -> None:
    lines = catalogue.stream("deal_products")
    counted = {name: ListSize("deals", name, "v2", deals, deals, "measured")
               for name in ("live", "archived", "products_count", "sum of products_count")}  # fmt: skip
    price = estimate_unread(lines, lines.v2[0], "v2", {("deals", name): size for name, size in counted.items()})
    assert price
    assert (price.requests, price.most_requests > 0) == (requests, requests > 0)
