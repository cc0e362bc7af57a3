"""A list is walked to its end, or the walk ends with an error: there is no third way."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from pdsync.core import catalogue
from pdsync.core.answer import Answer
from pdsync.core.list_response import open_envelope
from pdsync.errors import ApiError, BadAnswer, ServerTrouble
from pdsync.extract.pages import pages, query_of
from pdsync.model import Operation, Page, Version, Walk

from .conftest import NOW

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pdsync.core.http import Http
    from pdsync.sandbox import RunningSandbox

DEALS = catalogue.operations("v2")["getDeals"]
DEALS_V1 = catalogue.operations("v1")["getDeals"]
FILES = catalogue.operations("v1")["getFiles"]


def walk_of(operation: Operation, since: datetime | None = None) -> Walk:
    return Walk(1, "run", "deals", "all", operation.version, operation.id, since, None)


def ids(page: Page) -> list[int]:
    return [msgspec.json.decode(record)["id"] for record in open_envelope(page.body).records]


async def walked(client: Any, operation: Operation, query: dict[str, str], **more: Any) -> list[Page]:
    walk = more.pop("walk", None) or walk_of(operation)
    return [page async for page in pages(client, operation, walk, query, **more)]


def live(box: RunningSandbox, kind: str) -> set[int]:
    return {entry["id"] for entry in box.dump(kind) if entry["state"] == "live"}


async def test_a_cursor_walk_meets_every_record_once(box: RunningSandbox, client: Http) -> None:
    found = await walked(client, DEALS, {"limit": "7"})
    met = [id for page in found for id in ids(page)]
    assert set(met) == live(box, "deals")
    assert len(met) == len(set(met))
    assert [page.seq for page in found] == list(range(len(found)))
    assert [page.cursor for page in found] == [None, *[page.next for page in found[:-1]]]
    assert found[-1].next is None
    assert [page.rows for page in found] == [len(ids(page)) for page in found]
    assert {entry.query for entry in box.log} == {f"limit=7{f'&cursor={p.cursor}' if p.cursor else ''}" for p in found}


async def test_an_offset_walk_meets_every_record_and_its_pages_overlap(box: RunningSandbox, client: Http) -> None:
    """Rows that vanish meanwhile move the rest towards the start: none may slip through between two pages."""
    found = await walked(client, FILES, {"limit": "50"})
    assert {id for page in found for id in ids(page)} == live(box, "files")
    starts = [int(page.next) for page in found if page.next]
    assert starts[0] == 45
    for one, other in itertools.pairwise(found):
        assert set(ids(one)) & set(ids(other))


async def test_s3_rows_that_vanish_while_a_walk_is_interrupted_hide_no_later_ones(
    box: RunningSandbox, client: Http
) -> None:
    walking = pages(client, FILES, walk_of(FILES), {"limit": "50"})
    first = await anext(walking)
    await walking.aclose()
    for id in ids(first)[:30]:  # more than pages overlap
        await client.call(catalogue.operations("v1")["deleteFile"], f"/v1/files/{id}", query={})

    rest = await walked(client, FILES, {"limit": "50"}, after=first)

    assert live(box, "files") <= {id for page in (first, *rest) for id in ids(page)}


async def test_s3_more_rows_vanish_than_a_page_has_and_hide_no_later_ones(box: RunningSandbox, client: Http) -> None:
    walking = pages(client, FILES, walk_of(FILES), {"limit": "20"})
    met = ids(await anext(walking)) + ids(await anext(walking))
    for id in set(met):  # all that was met: no page to come shares a row with one that was
        await client.call(catalogue.operations("v1")["deleteFile"], f"/v1/files/{id}", query={})

    met += [id async for page in walking for id in ids(page)]

    assert live(box, "files") <= set(met)


async def test_s3_a_list_that_never_fits_together_ends_the_walk() -> None:
    """Back to the beginning, over and over: a server that shuffles its list can't be walked."""
    client = Scripted(*(listing(1 + 100 * number, 10) for number in range(2000)))
    with pytest.raises(BadAnswer, match="move faster"):
        await walked(client, DEALS_V1, {"limit": "10"})
    assert len(client.asked) < 500


async def test_a_list_without_pages_is_one_request(box: RunningSandbox, client: Http) -> None:
    found = await walked(client, catalogue.operations("v1")["getUsers"], {})
    assert [page.next for page in found] == [None]
    assert len(box.log) == 1


async def test_newest_first_stops_at_the_watermark(box: RunningSandbox, client: Http) -> None:
    times = sorted(
        (entry["record"]["update_time"] for entry in box.dump("deals") if entry["state"] == "live"), reverse=True
    )
    since = datetime.fromisoformat(times[9])
    walk = walk_of(DEALS_V1, since)
    query = {"limit": "5", "sort": "update_time DESC"}
    found = await walked(client, DEALS_V1, query, walk=walk, newest_first="update_time")
    newer = {e["id"] for e in box.dump("deals") if e["state"] == "live" and e["record"]["update_time"] > times[9]}
    assert newer <= {id for page in found for id in ids(page)}
    assert len(found) < len(await walked(client, DEALS_V1, query))


async def test_o5_a_record_without_a_time_ends_no_list_whatever_this_machine_s_clock_shows() -> None:
    since = datetime.now(UTC) + timedelta(days=300)  # of the server, whose clock this machine's is far behind
    more = ',"additional_data":{"more_items_in_collection":%s}'
    client = Scripted(listing(1, 3, more % "true"), listing(3, 2, more % "false"))
    found = await walked(client, DEALS_V1, {"limit": "3"}, walk=walk_of(DEALS_V1, since), newest_first="update_time")
    assert [page.rows for page in found] == [3, 2]


async def test_s15_a_resumed_walk_asks_only_for_the_pages_it_lacks(box: RunningSandbox, client: Http) -> None:
    walking = pages(client, DEALS, walk_of(DEALS), {"limit": "20"})
    first = await anext(walking)
    await walking.aclose()
    asked = len(box.log)
    rest = await walked(client, DEALS, {"limit": "20"}, after=first)
    assert asked == 1
    assert [page.seq for page in rest] == list(range(1, len(rest) + 1))
    assert {id for page in (first, *rest) for id in ids(page)} == live(box, "deals")
    assert len(box.log) == 1 + len(rest)


async def test_a_page_is_requested_only_when_it_is_wanted(box: RunningSandbox, client: Http) -> None:
    walking = pages(client, DEALS, walk_of(DEALS), {"limit": "5"})
    await anext(walking)
    await anext(walking)
    await walking.aclose()
    assert len(box.log) == 2


# -- lists that lie ----------------------------------------------------------------------------------


async def test_a_cursor_that_leads_back_ends_the_walk(box: RunningSandbox, client: Http) -> None:
    box.faults.add(kind="cursor_loop", path="cursor=")
    with pytest.raises(BadAnswer, match="leads back"):
        await walked(client, DEALS, {"limit": "10"})
    assert len(box.log) <= 4


async def test_a_page_that_repeats_ends_the_walk(box: RunningSandbox, client: Http) -> None:
    box.faults.add(kind="repeat_page", path="cursor=")
    with pytest.raises(BadAnswer, match="the same 10 records"):
        await walked(client, DEALS, {"limit": "10"})


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("null_data", "null instead of records"),
        ("missing_additional_data", "does not say whether there is another one"),
        ("html_200", "no list of records"),
    ],
)
async def test_an_answer_that_can_t_be_right_is_requested_again_and_then_refused(
    box: RunningSandbox, client: Http, kind: str, says: str
) -> None:
    box.faults.add(kind=kind, path="/api/v2/deals")
    with pytest.raises(BadAnswer, match=says) as caught:
        await walked(client, DEALS, {"limit": "10"})
    assert "getDeals" in str(caught.value)
    assert len(box.log) == 3


@pytest.mark.parametrize("kind", ["null_data", "missing_additional_data", "html_200", "truncate", "wrong_length"])
async def test_one_bad_answer_costs_a_request_and_no_record(box: RunningSandbox, client: Http, kind: str) -> None:
    box.faults.add(kind=kind, nth=2)
    found = await walked(client, DEALS, {"limit": "10"})
    assert {id for page in found for id in ids(page)} == live(box, "deals")
    assert len(box.log) == len(found) + 1


async def test_json_that_is_cut_inside_is_refused_after_the_retries(box: RunningSandbox, client: Http) -> None:
    box.faults.add(kind="mutate", find=r"\]\s*,\s*\"additional_data.*", replace="")
    with pytest.raises(BadAnswer, match="no list of records"):
        await walked(client, DEALS, {"limit": "10"})
    assert len(box.log) == 3


async def test_a_body_that_never_comes_whole_is_trouble(box: RunningSandbox, client: Http) -> None:
    box.faults.add(kind="truncate", path="/api/v2/deals")
    with pytest.raises(ServerTrouble, match="attempt 6 of 6"):
        await walked(client, DEALS, {"limit": "10"})


async def test_a_cursor_that_has_died_is_the_api_s_own_error(box: RunningSandbox, client: Http) -> None:
    box.faults.add(kind="invalid_cursor", path="cursor=")
    with pytest.raises(ApiError) as caught:
        await walked(client, DEALS, {"limit": "10"})
    assert caught.value.status == 400


class Scripted:
    """A client with answers by heart, for envelopes that no sandbox sends; it notes what was asked."""

    def __init__(self, *bodies: bytes) -> None:
        self.bodies, self.asked = list(bodies), list[dict[str, str]]()

    async def call(
        self, operation: Operation, path: str | None = None, *, query: Mapping[str, str] | None = None
    ) -> Answer:
        self.asked.append(dict(query or {}))
        return Answer(200, {}, self.bodies.pop(0), NOW)


def listing(first: int, count: int, rest: str = "") -> bytes:
    records = ",".join(f'{{"id":{number}}}' for number in range(first, first + count))
    return f'{{"data":[{records}]{rest}}}'.encode()


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        ('"pagination":{"start":0,"limit":10,"more_items_in_collection":true,"next_start":10}', 3),
        ('"pagination":{"start":0,"limit":10,"more_items_in_collection":true}', 3),
        ('"start":0,"limit":10,"more_items_in_collection":true', 3),
        ('"pagination":{"more_items_in_collection":false,"next_start":0}', 1),
        ('"more_items_in_collection":false,"next_start":1', 1),
    ],
)
async def test_paging_is_understood_flat_and_nested(rest: str, expected: int) -> None:
    client = Scripted(listing(1, 10, f',"additional_data":{{{rest}}}'), listing(10, 3), listing(13, 0))
    found = await walked(client, DEALS_V1, {"limit": "10"})
    assert len(found) == expected
    assert [asked["start"] for asked in client.asked] == ["0", "9", "12"][:expected]


class Silent:
    """A client whose list says nothing of paging, and serves no more than `most` records, whatever it is asked for."""

    def __init__(self, *sizes: int, most: int = 0, heeds_start: bool = True) -> None:
        self.sizes, self.most, self.heeds_start = sizes, most, heeds_start
        self.asked = list[dict[str, str]]()

    async def call(
        self, operation: Operation, path: str | None = None, *, query: Mapping[str, str] | None = None
    ) -> Answer:
        self.asked.append(dict(query or {}))
        start = int(self.asked[-1].get("start", 0)) if self.heeds_start else 0
        size = self.sizes[min(len(self.asked), len(self.sizes)) - 1]
        most = min(self.most or size, int(self.asked[-1]["limit"]))
        return Answer(200, {}, listing(start + 1, max(min(most, size - start), 0)), NOW)


@pytest.mark.parametrize("size", [0, 1, 9, 10, 11, 99, 100, 101, 106, 170, 199, 200, 201, 500, 501, 1200])
@pytest.mark.parametrize("most", [1, 20, 37, 50, 100, 250, 500])
async def test_s9_a_list_that_says_nothing_of_paging_is_read_to_its_end_whatever_the_server_s_page(
    size: int, most: int
) -> None:
    client = Silent(size, most=most)
    found = await walked(client, DEALS_V1, {"limit": "500"})
    assert {id for page in found for id in ids(page)} == set(range(1, size + 1))
    assert len(client.asked) <= size / (most - min(most // 10, 10)) + 3


@pytest.mark.parametrize("size", [0, 1, 9, 10, 100, 101, 170, 1200])
@pytest.mark.parametrize("most", [10, 20, 25, 50, 100, 250, 500])
@pytest.mark.parametrize("missing", [0, 1, 7, 20, -1, -20])  # of the records, in the count of their parent
async def test_s9_the_count_of_the_parent_hides_no_record_of_a_list_that_says_nothing_of_paging(
    size: int, most: int, missing: int
) -> None:
    for count in (size - missing, most):
        found = await walked(Silent(size, most=most), DEALS_V1, {"limit": "500"}, expected=count)
        assert {id for page in found for id in ids(page)} == set(range(1, size + 1))


@pytest.mark.parametrize(
    ("size", "most", "count", "requests"),
    [(3, 500, 3, 1), (3, 500, None, 2), (3, 500, 2, 2), (3, 500, 4, 2), (100, 500, 100, 2), (134, 100, 134, 2)],
)
async def test_l5_a_list_that_says_nothing_of_paging_ends_with_what_its_parent_counts(
    size: int, most: int, count: int | None, requests: int
) -> None:
    client = Silent(size, most=most)
    assert sum(page.rows for page in await walked(client, DEALS_V1, {"limit": "500"}, expected=count)) >= size
    assert len(client.asked) == requests


async def test_s15_a_cut_walk_of_a_list_that_says_nothing_of_paging_asks_for_the_rest() -> None:
    whole = await walked(Silent(170, most=100), DEALS_V1, {"limit": "500"})
    rest = await walked(Silent(170, most=100), DEALS_V1, {"limit": "500"}, after=whole[0])
    assert [page.seq for page in rest] == [1, 2]
    assert {id for page in (whole[0], *rest) for id in ids(page)} == set(range(1, 171))


async def test_s3_rows_vanish_from_a_list_without_paging_data_and_hide_no_later_ones() -> None:
    met = []
    left = list(range(1, 301))

    class Shrinking(Silent):
        async def call(
            self, operation: Operation, path: str | None = None, *, query: Mapping[str, str] | None = None
        ) -> Answer:
            start = int((query or {}).get("start", 0))
            records = ",".join(f'{{"id":{number}}}' for number in left[start : start + 100])
            return Answer(200, {}, f'{{"data":[{records}]}}'.encode(), NOW)

    async for page in pages(Shrinking(0), DEALS_V1, walk_of(DEALS_V1), {"limit": "500"}):
        met += ids(page)
        if len(met) == 100:
            left = left[95:]  # all but five of what was met
    assert set(met) == set(range(1, 301))


async def test_a_list_that_heeds_no_offset_and_says_nothing_of_paging_is_one_page() -> None:
    client = Silent(37, heeds_start=False)
    found = await walked(client, DEALS_V1, {"limit": "500"})
    assert {id for page in found for id in ids(page)} == set(range(1, 38))
    assert len(client.asked) == 3


async def test_s9_a_full_page_that_keeps_coming_is_not_the_end_of_a_list() -> None:
    client = Silent(37, most=20, heeds_start=False)
    with pytest.raises(BadAnswer, match="the same 20 records"):
        await walked(client, DEALS_V1, {"limit": "20"})
    assert len(client.asked) == 5


@pytest.mark.parametrize("more", ["", ',"additional_data":{"pagination":{"more_items_in_collection":%s}}'])
@pytest.mark.parametrize("at", [18, 36, 90, 180])  # the offset before which rows appear: the first page's, the last's
async def test_s3_a_list_that_moves_by_a_page_between_two_requests_is_read_to_its_end(more: str, at: int) -> None:
    rows = list(range(1, 201))

    class Growing(Silent):
        async def call(
            self, operation: Operation, path: str | None = None, *, query: Mapping[str, str] | None = None
        ) -> Answer:
            start = int((query or {}).get("start", 0))
            if start == at and len(rows) == 200:
                rows[:0] = range(201, 219)  # as many as one offset is from the next
            records = ",".join(f'{{"id":{number}}}' for number in rows[start : start + 20])
            rest = more and more % str(start + 20 < len(rows)).lower()
            return Answer(200, {}, f'{{"data":[{records}]{rest}}}'.encode(), NOW)

    found = await walked(Growing(0), DEALS_V1, {"limit": "500"})
    assert len(rows) == 218
    assert {id for page in found for id in ids(page)} >= set(range(1, 201))


@pytest.mark.parametrize("nth", [2, 3])
async def test_s9_a_page_of_a_list_with_offsets_that_comes_again_once_hides_no_record(
    box: RunningSandbox, client: Http, nth: int
) -> None:
    box.faults.add(kind="repeat_page", nth=nth)
    found = await walked(client, FILES, {"limit": "20"})
    assert any(ids(one) == ids(other) for one, other in itertools.pairwise(found))
    assert {id for page in found for id in ids(page)} == live(box, "files")


CURSOR = ',"additional_data":{"next_cursor":"%s"}'


async def test_s9_a_silent_page_as_long_as_those_that_had_a_next_one_is_not_the_end() -> None:
    bodies = [listing(1, 37, CURSOR % "b"), *[listing(38, 37)] * 3]
    with pytest.raises(BadAnswer, match="does not say whether there is another one"):
        await walked(Scripted(*bodies), DEALS, {"limit": "500"})
    found = await walked(Scripted(listing(1, 37, CURSOR % "b"), listing(38, 36)), DEALS, {"limit": "500"})
    assert sum(page.rows for page in found) == 73


async def test_s9_a_page_of_default_size_without_paging_data_is_the_end_only_if_the_list_has_any() -> None:
    """100 for 500 asked: served by a server that heeds no limit, or all there is. With less asked for, it shows."""
    speaks = Scripted(listing(1, 100), listing(1, 99, CURSOR % "b"))
    assert [page.rows for page in await walked(speaks, DEALS, {"limit": "500"})] == [100]
    assert [asked["limit"] for asked in speaks.asked] == ["500", "99"]

    with pytest.raises(BadAnswer, match="100 records does not say"):
        await walked(Scripted(*[listing(1, 100), listing(1, 99)] * 3), DEALS, {"limit": "500"})


async def test_s9_a_list_without_pages_that_has_more_items_is_not_complete() -> None:
    more = ',"additional_data":{"pagination":{"more_items_in_collection":true}}'
    for rest in (more, CURSOR % "b"):
        with pytest.raises(BadAnswer, match="more of them"):
            await walked(Scripted(*[listing(1, 9, rest)] * 3), catalogue.operations("v1")["getUsers"], {})


async def test_a_list_of_null_is_empty() -> None:
    found = await walked(Scripted(b'{"success":true,"data":null}'), DEALS_V1, {"limit": "10"})
    assert [(page.rows, page.next) for page in found] == [(0, None)]


async def test_a_last_page_may_leave_out_additional_data() -> None:
    found = await walked(Scripted(listing(1, 4)), DEALS, {"limit": "10"})
    assert [(page.rows, page.next) for page in found] == [(4, None)]


# -- what is asked for -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "version", "since", "expected"),
    [
        ("deals", "v2", False, {"limit": "500", "sort_by": "id", "sort_direction": "asc"}),
        ("deals", "v2", True, {"limit": "500", "sort_by": "update_time", "updated_since": "2026-11-22T11:00:00Z"}),
        ("deals", "v1", True, {"sort": "update_time DESC"}),
        ("deals", "v1", False, {"sort": "id ASC"}),
        ("files", "v1", False, {"limit": "100", "sort": "id ASC"}),
        ("files", "v1", True, {"limit": "100", "sort": "update_time DESC"}),
    ],
)
def test_s3_everything_is_read_by_id_and_changes_by_time_in_utc(
    name: str, version: Version, since: bool, expected: dict[str, str]
) -> None:
    stream = catalogue.stream(name)
    source = (stream.v2 if version == "v2" else stream.v1)[0]
    operation = catalogue.operations(version)[source.operation]
    moment = datetime(2026, 11, 22, 13, tzinfo=timezone(timedelta(hours=2))) if since else None
    query = query_of(stream, source, version, operation, moment)
    assert expected.items() <= query.items()
    assert ("updated_since" in query) == (since and version == "v2")
    assert query.keys() - {"limit"} <= operation.query.keys()
