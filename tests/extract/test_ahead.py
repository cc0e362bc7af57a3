"""Pages of lists with offsets, and lists of parents, are requested ahead: the same pages in the same order, sooner."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from msgspec.structs import replace

from pdsync.core import catalogue
from pdsync.core.answer import Answer
from pdsync.errors import DependentsBudgetSpent, NotFound
from pdsync.extract.child_lists import dependents
from pdsync.extract.pages import pages
from pdsync.model import Page, Parent, Walk
from tests.support.virtual_time import run_virtually

from .conftest import NOW

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from pdsync.model import Operation

FILES = replace(catalogue.operation("getFiles", "v1"), page_size=50)
MESSAGES = catalogue.operation("getMailThreadMessages", "v1")


class Server:
    """Lists with offsets, and messages by thread; each answer takes 50 to 250 ms."""

    def __init__(self, count: int = 0, seed: int = 1) -> None:
        self.ids, self.random = list(range(1, count + 1)), random.Random(seed)
        self.requested: list[str] = []
        self.in_flight = self.most_in_flight = 0
        self.missing: set[str] = set()
        self.vanish = 0  # of the first rows, at each request

    async def call(self, operation: Operation, path: str | None = None, *, query: Mapping[str, str] | None) -> Answer:
        query = dict(query or {})
        self.requested.append(query.get("start") or (path or "").split("/")[-2])
        self.in_flight += 1
        self.most_in_flight = max(self.in_flight, self.most_in_flight)
        try:
            await asyncio.sleep(self.random.uniform(0.05, 0.25))
        finally:
            self.in_flight -= 1
        if operation.id == MESSAGES.id:
            thread = (path or "").split("/")[-2]
            if thread in self.missing:
                raise NotFound("gone", status=404, operation=operation.id)
            body: dict[str, Any] = {"success": True, "data": [{"id": int(thread) * 10, "mail_thread_id": int(thread)}]}
        else:
            start, limit = int(query["start"]), int(query["limit"])
            rows = self.ids[start : start + limit]
            more = start + limit < len(self.ids)
            paging = {"start": start, "limit": limit, "more_items_in_collection": more}
            paging |= {"next_start": start + limit} if more else {}
            body = {"success": True, "data": [{"id": id} for id in rows], "additional_data": {"pagination": paging}}
            del self.ids[: self.vanish]
        return Answer(200, {}, msgspec.json.encode(body), NOW)


async def read(reading: AsyncGenerator[Page]) -> list[Page]:
    return [page async for page in reading]


def files(server: Server, ahead: int, expected: int = 10**6) -> AsyncGenerator[Page]:
    walk = Walk(1, "run", "files", "all", "v1", FILES.id, None, None)
    query = {"limit": str(FILES.page_size), "sort": "id ASC"}
    return pages(
        server, FILES, walk, query, ahead=lambda read: min(ahead, max(expected - read, 0) // (FILES.page_size or 1))
    )


def ids(found: list[Page]) -> list[int]:
    return [msgspec.json.decode(record)["id"] for page in found for record in page.records or ()]


def test_s2_pages_that_are_requested_ahead_are_the_same_and_come_sooner() -> None:
    one, many = Server(2000), Server(2000)
    expected, alone = run_virtually(read(files(one, 0)))
    found, together = run_virtually(read(files(many, 6, 2000)))
    assert [(page.seq, page.cursor, page.next, page.body) for page in found] == [
        (page.seq, page.cursor, page.next, page.body) for page in expected
    ]
    assert sorted(map(int, many.requested)) == list(map(int, one.requested))
    assert (one.most_in_flight, many.most_in_flight) == (1, 7)
    assert together < alone / 3


@pytest.mark.parametrize("vanish", [1, 3])
def test_s2_no_row_is_passed_over_while_rows_before_it_vanish(vanish: int) -> None:
    server = Server(1000, seed=vanish)
    server.vanish = vanish
    found, _ = run_virtually(read(files(server, 5)))
    assert set(server.ids) <= set(ids(found))


def messages(server: Server, keys: list[int], ahead: int, most: int = 10**6) -> AsyncGenerator[Page]:
    spent = 0

    def charge(tokens: int) -> None:
        nonlocal spent
        if spent == most:
            raise DependentsBudgetSpent(spent=spent, limit=most)
        spent += 1

    walk = Walk(1, "run", "mail_messages", "all", "v1", MESSAGES.id, None, None)
    return dependents(server, MESSAGES, walk, {}, Parent("mail_threads"), keys, charge, ahead=lambda: ahead)


def test_s15_lists_of_parents_that_are_requested_ahead_keep_their_order() -> None:
    one, many, keys = Server(), Server(), list(range(40, 0, -1))
    one.missing = many.missing = {"33", "12"}
    expected, alone = run_virtually(read(messages(one, keys, 0)))
    found, together = run_virtually(read(messages(many, keys, 6)))
    assert [(page.seq, page.cursor, page.next, page.context) for page in found] == [
        (page.seq, page.cursor, page.next, page.context) for page in expected
    ]
    assert many.requested == one.requested == list(map(str, keys))
    assert (one.most_in_flight, many.most_in_flight) == (1, 7)
    assert together < alone / 3


def test_l5_what_was_requested_before_the_share_was_spent_is_read() -> None:
    server, found = Server(), list[Page]()

    async def reading() -> None:
        async for page in messages(server, list(range(40, 0, -1)), 6, most=15):
            found.append(page)

    with pytest.raises(DependentsBudgetSpent):
        run_virtually(reading())
    assert len(found) == len(server.requested) == 15


def test_s15_what_was_requested_ahead_and_is_not_read_is_given_up() -> None:
    server = Server()

    async def two() -> list[Page]:
        found, reading = [], messages(server, list(range(40, 0, -1)), 6)
        async for page in reading:
            found.append(page)
            if len(found) == 2:
                break
        await reading.aclose()
        return found

    found, _ = run_virtually(two())
    assert len(found) == 2
    assert server.in_flight == 0
    assert len(server.requested) <= 9
