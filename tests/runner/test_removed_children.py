"""A row that its parent's list no longer shows is gone only where the parent's count agrees."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from msgspec.structs import replace

from pdsync.core import catalogue
from pdsync.model import Page
from pdsync.runner.sync.removed_children import MissingChild, confirm_gone, find_listed, find_missing, read_pages
from tests.runner.kit import T0, deal, encode, load, open_session, text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pdsync.model import Walk
    from pdsync.runner.session import OnlineSession

PRODUCTS = catalogue.stream("deal_products")
LATER = T0 + timedelta(hours=1)
PARENT = next(
    source.parent for source in catalogue.stream("deal_products").v2 if source.parent and source.parent.having
)


@pytest.mark.parametrize(
    ("missing", "gone"),
    [
        ([], []),
        ([MissingChild("a", "1", rows=3, count=2)], ["a"]),
        ([MissingChild("a", "1", rows=3, count=3)], []),  # the parent still counts it
        ([MissingChild("a", "1", rows=3, count=1)], []),  # the parent counts fewer than are left
        ([MissingChild("a", "1", rows=3, count=1), MissingChild("b", "1", rows=3, count=1)], ["a", "b"]),
        ([MissingChild("a", "1", rows=1, count=0), MissingChild("b", "2", rows=2, count=2)], ["a"]),
    ],
)
def test_s8_a_row_is_gone_only_where_list_and_count_agree(missing: list[MissingChild], gone: list[str]) -> None:
    tombstones = confirm_gone(PARENT, missing, T0)
    assert [each.key for each in tombstones] == gone
    assert all(each.how == "deleted" and each.at == T0 for each in tombstones)


def product(number: int, deal_id: int) -> dict[str, Any]:
    return {"id": number, "deal_id": deal_id, "update_time": text(T0)}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[OnlineSession]:
    """Deals 1 to 3, of which 3 has no count, with two products each."""
    async with open_session(tmp_path_factory.mktemp("project")) as opened:
        await load(opened, "deals", deal(1, products_count=1), deal(2, products_count=2), deal(3))
        await load(opened, "deal_products", *(product(n * 10 + i, n) for n in (1, 2, 3) for i in (1, 2)))
        yield opened


async def read_lists(session: OnlineSession, of: str, *records: dict[str, Any]) -> Walk:
    """A walk an hour later that has read the lists of the deals `of`, in one page."""
    source = PRODUCTS.v2[0]
    walk = session.control.open_walk("later", "deal_products", source.name, "v2", source.operation, None)
    walk = replace(walk, started_at=LATER)
    page = Page(walk.id, 0, encode(records), len(records), None, LATER, context={PARENT.param: of} if PARENT else {})
    await session.archive.seal(walk, page)
    return walk


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("of", "keys"),
    [
        ("1", ["11", "12"]),  # nothing of the walk is loaded yet: its deal's rows were seen before it
        ("1,2", ["11", "12", "21", "22"]),
        ("3", []),  # its deal does not count them
        ("9", []),
    ],
)
async def test_s8_rows_of_the_lists_that_were_read_may_be_missing(
    session: OnlineSession, of: str, keys: list[str]
) -> None:
    assert PARENT
    walk = await read_lists(session, of)
    pages = session.control.sealed_pages(walk.id)
    found = find_missing(session.loader.connection, PRODUCTS, PARENT, walk, pages)
    assert [each.key for each in found] == keys
    assert all((each.rows, each.count) == (2, int(each.parent)) for each in found)
    assert find_missing(session.loader.connection, PRODUCTS, PARENT, walk, []) == []


@pytest.mark.asyncio(loop_scope="module")
async def test_s8_what_a_page_shows_is_not_missing_however_old_it_is(session: OnlineSession) -> None:
    assert PARENT
    walk = await read_lists(session, "1", product(11, 1))
    sealed = session.control.sealed_pages(walk.id)
    raw = session.settings.raw
    assert read_pages(raw, sealed, PARENT, {"2"}) == []
    pages = read_pages(raw, sealed, PARENT, {"1", "2"})
    table = session.loader.table(PRODUCTS, "v2")
    assert find_listed(session.loader.connection, table, PRODUCTS.v2[0], walk, pages) == {"11"}
