"""A walk reads a list to its end, or says that it could not."""

from __future__ import annotations

import json
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from pdsync.core import catalogue
from pdsync.errors import BadAnswer, ServerTrouble
from pdsync.extract.pages import pages, query_of, records
from pdsync.model import Walk
from pdsync.sandbox import Company, Limits, Sizes, running
from tests.core.servers import client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from pdsync.core.http import Http
    from pdsync.model import Operation, Page
    from pdsync.sandbox import Box

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
V1, V2 = catalogue.operations("v1"), catalogue.operations("v2")
CURSOR, OFFSET, WHOLE = V2["getDeals"], V1["getDeals"], V1["getUsers"]
OPERATIONS = pytest.mark.parametrize("operation", [CURSOR, OFFSET], ids=["cursor", "offset"])
BY_ID = {"limit": "20", "sort": "id ASC"}


@pytest.fixture
def box() -> Iterator[Box]:
    with running(
        Company.generate(seed=5, sizes=Sizes(deals=90, mail_threads=2, files=2), now=NOW),
        limits=Limits(burst=None, search_burst=None, daily_tokens=None),
    ) as box:
        yield box


@pytest.fixture
async def http(box: Box, tmp_path: Path) -> AsyncIterator[Http]:
    async with client(box.url, tmp_path, token=box.token) as http:
        yield http


def walk_of(operation: Operation, since: datetime | None = None) -> Walk:
    return Walk(1, "run", "deals", "all", operation.version, operation.id, since, None)


async def walked(http: Http, operation: Operation, query: dict[str, str], **options: Any) -> list[Page]:
    return [page async for page in pages(http, operation, walk_of(operation), query, **options)]


def ids(*found: Page) -> list[int]:
    return [record["id"] for page in found for record in json.loads(page.body)["data"] or []]


def listed(box: Box) -> set[int]:
    """The deals that lists show, by the sandbox's own truth."""
    return {entry["id"] for entry in box.dump("deals") if entry["state"] == "live"}


# To the end.


async def test_a_walk_by_cursor_reads_each_record_once(box: Box, http: Http) -> None:
    found = await walked(http, CURSOR, {"limit": "20"})
    assert sorted(ids(*found)) == sorted(listed(box))
    assert len(box.log) == len(found) == -(-len(listed(box)) // 20)
    assert [page.seq for page in found] == list(range(len(found)))
    assert [page.asked_for for page in found] == [None, *(page.next for page in found[:-1])]
    assert found[-1].next is None
    assert {page.walk for page in found} == {1}
    assert all(len(page.records or []) == page.rows == len(ids(page)) for page in found)
    assert all((NOW - page.served_at).total_seconds() < 60 for page in found)


async def test_a_walk_by_offset_overlaps_its_pages_and_leaves_nothing_out(box: Box, http: Http) -> None:
    found = await walked(http, OFFSET, BY_ID)
    assert set(ids(*found)) == listed(box)
    assert [page.asked_for for page in found[:3]] == [None, "18", "36"]
    assert ids(found[0])[-2:] == ids(found[1])[:2]
    assert len(box.log) == len(found)


async def test_s3_no_row_is_lost_when_others_vanish_between_pages(box: Box, http: Http) -> None:
    found: list[Page] = []
    gone: set[int] = set()
    async for page in pages(http, OFFSET, walk_of(OFFSET), BY_ID):
        found.append(page)
        if page.seq < 2:
            for id in ids(page)[:2]:
                await http.call(V2["deleteDeal"], f"/api/v2/deals/{id}")
                gone.add(id)
    assert len(gone) == 4
    assert listed(box).isdisjoint(gone)
    assert set(ids(*found)) == listed(box) | gone


async def test_a_list_without_pages_is_asked_once_and_for_no_page(box: Box, http: Http) -> None:
    found = await walked(http, WHOLE, {})
    assert ids(*found) == [entry["id"] for entry in box.dump("users")]
    assert [(seen.path, seen.query) for seen in box.log] == [("/v1/users", "")]
    assert found[0].next is None


@OPERATIONS
async def test_a_list_of_nothing_is_one_page_without_rows(box: Box, http: Http, operation: Operation) -> None:
    (only,) = await walked(http, operation, {"limit": "20", "stage_id": "999999"})
    assert (only.rows, only.next) == (0, None)


async def test_the_body_of_a_page_is_what_the_server_sent(box: Box, http: Http) -> None:
    (page,) = await walked(http, CURSOR, {"limit": "500"})
    answer = await http.call(CURSOR, query={"limit": "500"})
    assert page.body == answer.body
    assert [bytes(record) in page.body for record in page.records or []] == [True] * page.rows


async def test_the_records_of_a_list_come_one_by_one(box: Box, http: Http) -> None:
    found = [msgspec.json.decode(record)["id"] async for record in records(http, CURSOR, {"limit": "50"})]
    assert sorted(found) == sorted(listed(box))
    assert len(box.log) == -(-len(found) // 50)


async def test_s4_newest_first_reads_all_that_changed_and_stops_behind_it(box: Box, http: Http) -> None:
    times = sorted(entry["record"]["update_time"] for entry in box.dump("deals") if entry["state"] == "live")
    since = datetime.fromisoformat(times[-30])
    walk, query = walk_of(OFFSET, since), {"limit": "20", "sort": "update_time DESC"}
    found = [page async for page in pages(http, OFFSET, walk, query, newest_first="update_time")]
    changed = {
        entry["id"]
        for entry in box.dump("deals")
        if entry["state"] == "live" and datetime.fromisoformat(entry["record"]["update_time"]) >= since
    }
    assert len(changed) >= 30
    assert changed <= set(ids(*found)) < listed(box)
    assert found[-1].next is None
    assert len(box.log) == 2


# Going on, and stopping.


@OPERATIONS
async def test_s15_a_resumed_walk_asks_only_for_the_pages_it_lacks(box: Box, http: Http, operation: Operation) -> None:
    query = BY_ID if operation is OFFSET else {"limit": "20"}
    async with aclosing(pages(http, operation, walk_of(operation), query)) as walk:
        begun = [await anext(walk), await anext(walk)]
    sealed = msgspec.structs.replace(begun[-1], body=b"", records=None)
    rest = await walked(http, operation, query, after=sealed)
    assert [page.seq for page in (*begun, *rest)] == list(range(len(begun) + len(rest)))
    assert rest[0].asked_for == begun[-1].next
    assert set(ids(*begun, *rest)) == listed(box)
    assert len({seen.query for seen in box.log}) == len(box.log) == len(begun) + len(rest)


@OPERATIONS
async def test_s15_a_page_is_asked_for_when_it_is_wanted(box: Box, http: Http, operation: Operation) -> None:
    walk = pages(http, operation, walk_of(operation), {"limit": "20"})
    assert len(box.log) == 0
    await anext(walk)
    await walk.aclose()
    assert len(box.log) == 1


async def test_an_error_of_the_client_ends_the_walk_as_it_is(box: Box, http: Http) -> None:
    box.faults.add(kind="status", status=503, path="cursor=")
    walk = pages(http, CURSOR, walk_of(CURSOR), {"limit": "20"})
    await anext(walk)
    with pytest.raises(ServerTrouble, match="503"):
        await anext(walk)


# Answers that can't be right.

WRONG = [
    (CURSOR, "null_data", "null instead of records"),
    (CURSOR, "missing_additional_data", "does not say whether there is another"),
    (CURSOR, "html_200", "no list of records"),
    (OFFSET, "null_data", "empty page says that more"),
    (OFFSET, "html_200", "no list of records"),
    (WHOLE, "html_200", "no list of records"),
]
WRONGS = pytest.mark.parametrize(
    ("operation", "kind", "message"), WRONG, ids=[f"{operation.paging}-{kind}" for operation, kind, _ in WRONG]
)


@WRONGS
async def test_s9_an_answer_that_can_t_be_right_ends_the_walk_after_three_tries(
    box: Box, http: Http, operation: Operation, kind: str, message: str
) -> None:
    box.faults.add(kind=kind, path="" if operation is WHOLE else "(cursor=|start=[1-9])")
    found: list[Page] = []
    with pytest.raises(BadAnswer, match=f"{operation.id}: .*{message}"):
        async for page in pages(http, operation, walk_of(operation), {"limit": "20"}):
            found.append(page)  # noqa: PERF401 - what came before the error counts
    assert len(found) == (operation is not WHOLE)
    assert len(box.log) == len(found) + 3


@WRONGS
async def test_s9_a_wrong_answer_that_does_not_come_back_costs_one_request(
    box: Box, http: Http, operation: Operation, kind: str, message: str
) -> None:
    box.faults.add(kind=kind, nth=1)
    found = await walked(http, operation, {"limit": "20"})
    assert set(ids(*found)) == (listed(box) if operation is not WHOLE else {e["id"] for e in box.dump("users")})
    assert len(box.log) == len(found) + 1


@pytest.mark.parametrize("kind", ["cursor_loop", "repeat_page"])
@OPERATIONS
async def test_s9_a_list_that_goes_in_circles_is_left(box: Box, http: Http, operation: Operation, kind: str) -> None:
    if (kind, operation) == ("cursor_loop", OFFSET):
        pytest.skip("a walk by offset does not ask the list where to go on")
    box.faults.add(kind=kind)
    found: list[Page] = []
    with pytest.raises(BadAnswer, match="leads back to a page|hold the same 20 records"):
        async for page in pages(http, operation, walk_of(operation), {"limit": "20"}):
            found.append(page)  # noqa: PERF401 - what came before the error counts
    assert len(found) == 1
    assert len(box.log) <= 4


async def test_s9_a_longer_circle_is_found_too(box: Box, http: Http) -> None:
    pages_before = await walked(http, CURSOR, {"limit": "20"})
    first = pages_before[0].next
    assert first is not None
    box.clear_log()
    box.faults.add(kind="mutate", nth=3, find=r'"next_cursor":"[^"]*"', replace=f'"next_cursor":"{first}"')
    with pytest.raises(BadAnswer, match="leads back"):
        await walked(http, CURSOR, {"limit": "20"})
    assert len(box.log) == 3


async def test_a_last_page_that_is_not_full_need_not_tell_of_its_end(box: Box, http: Http) -> None:
    box.faults.add(kind="missing_additional_data")
    (only,) = await walked(http, CURSOR, {"limit": "500"})
    assert set(ids(only)) == listed(box)
    assert only.next is None
    assert len(box.log) == 1


async def test_offset_pages_that_say_nothing_of_paging_end_with_one_that_is_not_full(box: Box, http: Http) -> None:
    box.faults.add(kind="missing_additional_data")
    found = await walked(http, OFFSET, BY_ID)
    assert set(ids(*found)) == listed(box)
    assert found[-1].rows < 20


# What is asked.


def _query(stream: str, version: Any, since: datetime | None) -> list[dict[str, str]]:
    declared = catalogue.stream(stream)
    _, sources = declared.sources(version)
    operations = catalogue.operations(version)
    return [query_of(declared, source, version, operations[source.operation], since) for source in sources]


def test_everything_is_asked_for_in_the_order_of_ids_and_changes_in_that_of_their_times() -> None:
    since = datetime.fromisoformat("2026-11-22T13:00:00+01:00")
    (whole, *_), (changes, *_) = _query("deals", "v2", None), _query("deals", "v2", since)
    assert (whole["sort_by"], whole["sort_direction"], whole["limit"]) == ("id", "asc", "500")
    assert "updated_since" not in whole
    assert (changes["sort_by"], changes["updated_since"]) == ("update_time", "2026-11-22T12:00:00Z")


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("stream", catalogue.streams())
@pytest.mark.parametrize("since", [None, NOW], ids=["all", "changes"])
def test_no_list_is_asked_what_it_does_not_know(stream: str, version: Any, since: datetime | None) -> None:
    declared = catalogue.stream(stream)
    version, sources = declared.sources(version)
    for source in sources:
        operation = catalogue.operations(version)[source.operation]
        asked = query_of(declared, source, version, operation, since)
        assert asked.keys() - {"limit"} <= operation.query.keys()
        assert operation.page_size is None or int(asked["limit"]) <= operation.page_size
