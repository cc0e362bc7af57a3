"""A record is read as it is now: many by one request where the list takes ids, and never taken for gone by mistake."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from pdsync.core import catalogue
from pdsync.errors import ApiError
from pdsync.writeback.fresh_reads import BATCH, FreshRecord, address_of, read, read_siblings
from pdsync.writeback.shapes import shape
from tests.writeback.api import answering

if TYPE_CHECKING:
    from pathlib import Path

    from pdsync.writeback.fresh_reads import RecordAddress

DEALS, FOLLOWERS = "/api/v2/deals", "/api/v2/deals/12/followers"


def address(operation: str, **params: Any) -> RecordAddress:
    found = address_of(shape(catalogue.operation(operation)), params)
    assert found
    return found


def deals(*ids: int) -> list[RecordAddress]:
    return [address("v2 updateDeal", id=id) for id in ids]


@pytest.mark.parametrize(
    ("operation", "params", "target", "values"),
    [
        ("v2 updateDeal", {"id": 12, "title": "x"}, "deals/12", ("12",)),
        ("v2 deleteDealFollower", {"id": 12, "follower_id": 3}, "deals/12/followers/3", ("12", "3")),
        ("v1 mergeDeals", {"id": 12, "merge_with_id": 7}, "deals/12", ("12",)),
        ("v2 updateDeal", {"id": {"$ref": "a"}}, None, ()),  # it does not exist yet
        ("v2 addDeal", {"title": "x"}, None, ()),
        ("v1 deleteUserProviderLink", {"id": "a"}, None, ()),  # nothing reads one
    ],
)
def test_only_a_record_that_exists_and_can_be_read_has_an_address(
    operation: str, params: dict[str, Any], target: str | None, values: tuple[str, ...]
) -> None:
    found = address_of(shape(catalogue.operation(operation)), params)
    assert ((found.target, found.values) if found else (None, ())) == (target, values)


@pytest.mark.parametrize(
    ("ids", "listed", "requests"),
    [
        ([1, 2, 3], [], [f"{DEALS}/1", f"{DEALS}/2", f"{DEALS}/3"]),  # three requests cost less than a list
        ([1, 2, 3, 4], [1, 2, 3, 4], [f"{DEALS}?ids=1,2,3,4&limit=100"]),
        (
            [1, 2, 3, 4],
            [1, 3, 4],
            [f"{DEALS}?ids=1,2,3,4&limit=100", f"{DEALS}/2"],
        ),  # the list leaves out archived ones
        ([1, 1, 1, 1], [], [f"{DEALS}/1"]),
    ],
)
async def test_records_of_a_kind_are_read_by_as_few_requests_as_possible(
    tmp_path: Path, ids: list[int], listed: list[int], requests: list[str]
) -> None:
    answers: dict[str, Any] = {f"{DEALS}/{id}": {"id": id} for id in ids}
    async with answering(tmp_path, answers | {DEALS: [{"id": id} for id in listed]}) as api:
        found = await read(api.http, deals(*ids))
    assert {target: each.record for target, each in found.items()} == {f"deals/{id}": {"id": id} for id in ids}
    assert sorted(api.requests) == sorted(requests)


async def test_no_request_names_more_than_a_hundred_ids(tmp_path: Path) -> None:
    everything = [{"id": id} for id in range(BATCH + 1)]
    async with answering(tmp_path, {DEALS: everything}) as api:
        found = await read(api.http, deals(*range(BATCH + 1)))
    assert len(found) == BATCH + 1
    assert sorted(each.count(",") + 1 for each in api.requests) == [1, BATCH]


async def test_records_of_other_kinds_are_read_beside(tmp_path: Path) -> None:
    addresses = [*deals(12), address("v2 updatePerson", id=5), address("v1 updateNote", id=7)]
    answers = {f"{DEALS}/12": {"id": 12}, "/api/v2/persons/5": {"id": 5}, "/v1/notes/7": {"id": 7}}
    async with answering(tmp_path, answers) as api:
        found = await read(api.http, addresses)
    assert {target: each.kind for target, each in found.items()} == {
        "deals/12": "deals", "persons/5": "persons", "notes/7": "notes",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "gone", "hidden", "archived"),
    [
        ({"id": 12}, False, False, False),
        ({"id": 12, "is_deleted": True}, True, False, False),
        ({"id": 12, "is_archived": True}, False, False, True),
        (404, True, False, False),
        (400, True, False, False),  # an id that can't be one
        (403, False, True, False),  # it may be there: a record that is hidden is not gone
    ],
)
async def test_w2_absent_hidden_and_archived_are_told_apart(
    tmp_path: Path, answer: object, gone: bool, hidden: bool, archived: bool
) -> None:
    async with answering(tmp_path, {f"{DEALS}/12": answer}) as api:
        found = (await read(api.http, deals(12)))["deals/12"]
    assert (found.is_gone, found.is_hidden, found.is_archived) == (gone, hidden, archived)
    assert (found.record is None) is isinstance(answer, int)


async def test_any_other_refusal_is_an_error_and_not_an_absent_record(tmp_path: Path) -> None:
    async with answering(tmp_path, {f"{DEALS}/12": 409}) as api:
        with pytest.raises(ApiError, match="409"):
            await read(api.http, deals(12))


@pytest.mark.parametrize(
    ("answer", "record"),
    [([{"user_id": 3}, {"user_id": 4}], {"user_id": 3}), ([{"user_id": 4}], None), ([], None), (404, None)],
)
async def test_what_no_operation_reads_by_itself_is_looked_up_in_its_list(
    tmp_path: Path, answer: object, record: dict[str, Any] | None
) -> None:
    follower = address("v2 deleteDealFollower", id=12, follower_id=3)
    async with answering(tmp_path, {FOLLOWERS: answer}) as api:
        found = (await read(api.http, [follower]))["deals/12/followers/3"]
        listed = await read_siblings(api.http, follower)
    assert found.record == record
    assert listed == ({str(each["user_id"]): each for each in answer} if isinstance(answer, list) else {})


async def test_one_list_serves_all_records_of_a_parent(tmp_path: Path) -> None:
    followers = [
        address("v2 deleteDealFollower", id=deal, follower_id=user) for deal, user in ((12, 3), (12, 4), (13, 3))
    ]
    other = "/api/v2/deals/13/followers"
    async with answering(tmp_path, {FOLLOWERS: [{"user_id": 3}, {"user_id": 5}], other: [{"user_id": 3}]}) as api:
        found = await read(api.http, followers)
    assert {target: each.is_gone for target, each in found.items()} == {
        "deals/12/followers/3": False, "deals/12/followers/4": True, "deals/13/followers/3": False,
    }  # fmt: skip
    assert sorted(api.requests) == [FOLLOWERS, other]


def test_a_read_ages() -> None:
    assert FreshRecord({}, time.monotonic() - 60, "deals").age_s >= 60
    assert FreshRecord({}, time.monotonic() + 60, "deals").age_s < 0


def test_a_kind_without_a_stream_has_no_deletion_flag() -> None:
    assert not FreshRecord({"id": 1, "is_deleted": True}, 0.0, "deals/followers").is_gone
