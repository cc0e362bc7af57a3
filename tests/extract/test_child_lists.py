"""A list that is requested once a parent is walked like any other: numbered through, and resumable anywhere."""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from msgspec.structs import replace

from pdsync.core import catalogue
from pdsync.core.list_response import open_envelope
from pdsync.errors import DependentsBudgetSpent, NotFound
from pdsync.extract.child_lists import dependents
from pdsync.model import Page, Parent, Walk

from .conftest import NOW

if TYPE_CHECKING:
    from datetime import datetime

    from pdsync.core.http import Http
    from pdsync.sandbox import RunningSandbox

MESSAGES = catalogue.operations("v1")["getMailThreadMessages"]
WALK = Walk(1, "run", "mail_messages", "all", "v1", MESSAGES.id, None, None)
PARENT = Parent("mail_threads")


def mailbox(box: RunningSandbox) -> list[int]:
    """The threads that the token's user sees, newest first."""
    threads = [entry["record"] for entry in box.dump("mail_threads") if entry["state"] == "live"]
    owner = min(thread["user_id"] for thread in threads)
    return sorted((thread["id"] for thread in threads if thread["user_id"] == owner), reverse=True)


async def walked(client: Http, keys: list[int], **more: Any) -> list[Page]:
    return [page async for page in dependents(client, MESSAGES, WALK, {}, PARENT, keys, **more)]


def threads_of(page: Page) -> set[int]:
    return {msgspec.json.decode(record)["mail_thread_id"] for record in open_envelope(page.body).records}


async def test_each_parent_is_requested_once_and_in_the_context_of_its_pages(box: RunningSandbox, client: Http) -> None:
    keys = mailbox(box)[:4]
    found = await walked(client, keys)

    assert [page.context for page in found] == [{"id": str(key)} for key in keys]
    assert [threads_of(page) for page in found] == [{key} for key in keys]
    assert [page.seq for page in found] == list(range(4))
    assert [page.next is None for page in found] == [False] * 3 + [True]
    requests = Counter(entry.path for entry in box.log)
    assert requests == dict.fromkeys((f"/v1/mailbox/mailThreads/{key}/mailMessages" for key in keys), 1)


async def test_s15_a_cut_walk_goes_on_with_the_next_parent(box: RunningSandbox, client: Http) -> None:
    keys = mailbox(box)[:4]
    whole = await walked(client, keys)
    for cut in range(3):
        before = len(box.log)
        rest = await walked(client, keys, after=whole[cut])
        assert [(page.seq, page.context, page.next) for page in rest] == [
            (page.seq, page.context, page.next) for page in whole[cut + 1 :]
        ]
        assert len(box.log) - before == len(keys) - cut - 1


async def test_s4_a_cursor_of_some_parents_is_not_used_for_others(box: RunningSandbox, client: Http) -> None:
    products = catalogue.operations("v2")["getDealsProducts"]
    walk, parent = Walk(1, "run", "deal_products", "all", "v2", products.id, None, None), Parent("deals", "deal_ids", 3)
    items = [entry["record"] for entry in box.dump("deal_products") if entry["state"] == "live"]
    deals = sorted({item["deal_id"] for item in items}, reverse=True)[:9]

    async def read(keys: list[int], after: Page | None = None) -> list[Page]:
        return [page async for page in dependents(client, products, walk, {"limit": "1"}, parent, keys, after=after)]

    cuts = await read(deals)
    for at, page in enumerate(cuts[:-1]):
        removed = deals[1]  # since the walk was interrupted, so that another deal is requested with the first ones
        pages = [*cuts[: at + 1], *await read([each for each in deals if each != removed], page)]
        found = {msgspec.json.decode(record)["id"] for each in pages for record in open_envelope(each.body).records}
        assert found >= {item["id"] for item in items if item["deal_id"] in deals and item["deal_id"] != removed}, at


async def test_a_parent_that_is_gone_is_passed_over(box: RunningSandbox, client: Http) -> None:
    keys = mailbox(box)[:4]
    found = await walked(client, [10**9, *keys[:2], keys[2], 0])
    assert [page.context["id"] for page in found] == [str(key) for key in keys[:3]]
    assert found[-1].next is not None  # the last one was gone; whoever walks closes the walk


@pytest.mark.parametrize(
    ("since", "gone", "is_missing"), [(None, 2, True), (None, 1, False), (NOW, 10, False), (NOW, 11, True)]
)
async def test_s9_a_list_that_no_parent_has_is_missing(
    client: Http, since: datetime | None, gone: int, is_missing: bool
) -> None:
    reading = dependents(client, MESSAGES, replace(WALK, since=since), {}, PARENT, range(10**9, 10**9 - gone, -1))
    with pytest.raises(NotFound) if is_missing else contextlib.nullcontext():
        assert [page async for page in reading] == []


async def test_the_newest_parents_may_be_gone_where_others_have_lists(box: RunningSandbox, client: Http) -> None:
    keys = mailbox(box)[:1]
    reading = dependents(client, MESSAGES, WALK, {}, PARENT, [10**9, 10**9 - 1, 10**9 - 2, *keys])
    assert [page.context["id"] async for page in reading] == [str(keys[0])]


async def test_s9_a_list_of_several_parents_that_is_not_found_is_an_error(box: RunningSandbox, client: Http) -> None:
    products = catalogue.operations("v2")["getDealsProducts"]
    walk = Walk(1, "run", "deal_products", "all", "v2", products.id, None, None)
    deals = sorted((entry["record"]["id"] for entry in box.dump("deals") if entry["state"] == "live"), reverse=True)
    box.faults.add(kind="status", status=404, path="/deals/products", nth=2)
    reading = dependents(client, products, walk, {}, Parent("deals", "deal_ids", batch=2), deals[:6])
    assert (await anext(reading)).context == {"deal_ids": f"{deals[0]},{deals[1]}"}
    with pytest.raises(NotFound):
        await anext(reading)
    box.faults.clear()


async def test_parents_beyond_the_share_of_tokens_wait_for_the_next_walk(box: RunningSandbox, client: Http) -> None:
    keys, found, left = mailbox(box)[:4], list[Page](), [2 * (MESSAGES.cost or 0)]

    def charge(tokens: int) -> None:
        left[0] -= tokens
        if left[0] < 0:
            raise DependentsBudgetSpent(spent=0, limit=0)

    async def cut() -> None:
        async for page in dependents(client, MESSAGES, WALK, {}, PARENT, keys, charge):
            found.append(page)

    with pytest.raises(DependentsBudgetSpent):
        await cut()
    rest = await walked(client, keys, after=found[-1])

    assert [page.context["id"] for page in (*found, *rest)] == [str(key) for key in keys]
    assert len(box.log) == 4


async def test_l5_a_parent_s_count_spares_a_second_request(box: RunningSandbox, client: Http) -> None:
    assignments = catalogue.operations("v1")["getPermissionSetAssignments"]
    walk = Walk(1, "run", "permission_set_assignments", "all", "v1", assignments.id, None, None)
    sets = sorted((entry["record"]["id"] for entry in box.dump("permission_sets")), reverse=True)
    counts = dict[str, int | None].fromkeys(sets, 0)
    parent, query = Parent("permission_sets", counts=True), {"limit": "500"}
    async for page in dependents(client, assignments, walk, query, parent, sets):
        counts[page.context["id"]] = (counts[page.context["id"]] or 0) + page.rows
    assert len(box.log) == len(sets) + sum(bool(count) for count in counts.values())
    box.clear_log()
    found = [page async for page in dependents(client, assignments, walk, query, parent, counts)]
    assert len(box.log) == len(sets) == len(found)
    assert sum(page.rows for page in found) == sum(count or 0 for count in counts.values()) > 0


async def test_l5_s15_further_pages_of_a_list_are_charged_too_and_a_walk_continues_at_the_refused_one(
    box: RunningSandbox, client: Http
) -> None:
    assignments = catalogue.operations("v1")["getPermissionSetAssignments"]
    walk = Walk(1, "run", "permission_set_assignments", "all", "v1", assignments.id, None, None)
    sets = sorted((entry["record"]["id"] for entry in box.dump("permission_sets")), reverse=True)
    parent, query = Parent("permission_sets"), {"limit": "4"}
    left, pages = [0], list[Page]()

    def charge(tokens: int) -> None:
        if left[0] < tokens:
            raise DependentsBudgetSpent(spent=0, limit=0)
        left[0] -= tokens

    async def cut() -> None:
        after = pages[-1] if pages else None
        async for page in dependents(client, assignments, walk, query, parent, sets, charge, after=after):
            pages.append(page)

    for tokens in (10, 30, 20, 10, 10_000):
        left[0], before = tokens, len(box.log)
        with contextlib.suppress(DependentsBudgetSpent):
            await cut()
        assert sum(seen.cost for seen in [*box.log][before:]) == tokens - left[0]
    whole = [page async for page in dependents(client, assignments, walk, query, parent, sets)]
    assert len(whole) > len(sets)  # lists of several pages
    rows = [bytes(record) for page in whole for record in open_envelope(page.body).records]
    assert {bytes(record) for page in pages for record in open_envelope(page.body).records} == set(rows)
    assert len(pages) == len(whole)
