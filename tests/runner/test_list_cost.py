"""Rows become requests in one place: as the walks page, and never fewer than they take."""

from __future__ import annotations

import pytest

from pdsync.core import catalogue
from pdsync.runner.pipelines.list_cost import (
    Assumption,
    assumption,
    assumptions,
    count_most_requests,
    count_requests,
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
