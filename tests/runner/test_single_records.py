"""Records are fetched by their keys with as few requests as the API allows; one that can't be read is left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from pdsync.core import catalogue
from pdsync.errors import ServerTrouble
from pdsync.runner.reconcile.single_records import fetch_by_key
from tests.runner.kit import open_session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pdsync.core.answer import Answer
    from pdsync.model import Operation
    from pdsync.runner.session import OnlineSession
    from pdsync.sandbox import RunningSandbox

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session(box: RunningSandbox, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[OnlineSession]:
    async with open_session(tmp_path_factory.mktemp("project"), box) as opened:
        yield opened


async def fetch(session: OnlineSession, name: str, *keys: str) -> tuple[Operation | None, list[Answer]]:
    stream = catalogue.stream(name)
    version, sources = stream.sources("v2")
    return await fetch_by_key(session, stream, version, sources[0], keys)


def data(answer: Answer) -> Any:
    return answer.json()["data"]  # type: ignore[index]


def requests(box: RunningSandbox) -> list[str]:
    return [entry.path for entry in box.log]


async def test_l5_a_hundred_keys_are_one_request_where_the_list_takes_ids(
    session: OnlineSession, box: RunningSandbox
) -> None:
    box.clear_log()
    operation, answers = await fetch(session, "deals", *map(str, range(1, 251)))
    assert operation
    assert operation.id == "getDeals"
    assert len(requests(box)) == len(answers) == 3
    shown = {record["id"] for answer in answers for record in data(answer)}
    assert shown <= {entry["record"]["id"] for entry in box.dump("deals")}
    assert len(shown) > 3


async def test_s8_a_record_that_does_not_exist_has_no_answer(session: OnlineSession, box: RunningSandbox) -> None:
    lead = next(entry["record"]["id"] for entry in box.dump("leads") if entry["state"] == "live")
    operation, answers = await fetch(session, "leads", lead, "00000000-0000-0000-0000-000000000000")
    assert operation
    assert operation.id == "getLead"
    assert [data(answer)["id"] for answer in answers] == [lead]


async def test_s8_an_error_of_the_server_is_no_missing_record(session: OnlineSession, box: RunningSandbox) -> None:
    box.faults.add(kind="status", status=500, path="leads/0000", times=50)
    with pytest.raises(ServerTrouble):
        await fetch(session, "leads", "00000000-0000-0000-0000-000000000000")
    box.faults.clear()


async def test_a_stream_without_such_a_request_makes_none(session: OnlineSession, box: RunningSandbox) -> None:
    box.clear_log()
    assert await fetch(session, "currencies", "1") == (None, [])
    assert requests(box) == []
