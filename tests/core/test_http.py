"""One call: what is retried and what never is, what an answer means, where the token goes, how large a body may be."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import socket
import sqlite3
import struct
import tracemalloc
import zlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from aiohttp import web

from pdsync.core import catalogue
from pdsync.core.answer import PLAIN_CAP, WIRE_CAP
from pdsync.core.list_response import open_envelope
from pdsync.core.log import hide
from pdsync.core.request import ATTEMPTS, RetryPolicy, request_of
from pdsync.core.sinks import MemorySink, TooLarge
from pdsync.errors import (
    ApiError,
    AuthError,
    BadAnswer,
    BudgetSpent,
    CoolingDown,
    Forbidden,
    NotFound,
    PdsyncError,
    ServerTrouble,
)
from pdsync.sandbox import Limits, Sizes, generate_company, running

from .servers import TOKEN, client, server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from pdsync.core.http import Http
    from pdsync.sandbox import RunningSandbox

DEALS = catalogue.operations("v2")["getDeals"]
ADD_DEAL = catalogue.operations("v2")["addDeal"]
NO_LIMITS = Limits(burst=None, search_burst=None, daily_tokens=None)
ROWS = b'{"success":true,"data":[{"id":1}],"additional_data":{"next_cursor":null}}'


@pytest.fixture
def box() -> Iterator[RunningSandbox]:
    with running(
        generate_company(seed=5, sizes=Sizes(deals=8, mail_threads=2, files=2), now=datetime.now(UTC)), limits=NO_LIMITS
    ) as box:
        yield box


@pytest.fixture
async def http(box: RunningSandbox, tmp_path: Path) -> AsyncIterator[Http]:
    async with client(box.url, tmp_path, token=box.token, timeout_s=1.0) as http:
        yield http


class Always:
    """Answers every request alike, and counts them."""

    def __init__(self, body: bytes = ROWS, status: int = 200, **headers: str) -> None:
        self.body, self.status, self.count = body, status, 0
        self.headers = {
            "Content-Type": "application/json",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        self.count += 1
        return web.Response(status=self.status, body=self.body, headers=self.headers)


# What is retried.


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "reset_before"},
        {"kind": "reset_after"},
        {"kind": "truncate"},
        {"kind": "truncate", "at": 0},
        {"kind": "wrong_length"},
        {"kind": "timeout", "seconds": 3.0},
        *({"kind": "status", "status": status} for status in (408, 500, 502, 503, 504, 522)),
        {"kind": "status", "status": 502, "html": True},
    ],
    ids=lambda fault: "-".join(str(part) for part in fault.values()),
)
async def test_reading_is_repeated_until_it_succeeds(box: RunningSandbox, http: Http, fault: dict[str, Any]) -> None:
    box.faults.add(**fault, nth=1)
    answer = await http.call(DEALS)
    assert len(json.loads(answer.body)["data"]) == 8
    assert [seen.method for seen in box.log] == ["GET", "GET"]
    assert http.budget.requests == 2


async def test_l1_l2_a_search_counts_in_the_window_of_searches_too(tmp_path: Path) -> None:
    search, newest = catalogue.operations("v2")["searchDeals"], 0

    def windows() -> int:
        """In how many windows the last request counts."""
        nonlocal newest
        with contextlib.closing(sqlite3.connect(tmp_path / "control.db")) as ledger:
            rows = ledger.execute("SELECT id FROM requests WHERE id > ?", [newest]).fetchall()
        newest = max(id for (id,) in rows)
        return len(rows)

    async with server(Always()) as url, client(url, tmp_path, burst=40) as http:
        await http.call(DEALS)
        assert windows() == 1
        await http.call(search, query={"term": "ab"})
        assert windows() == 2
        await http.download(request_of(search, query={"term": "ab"}), MemorySink(), most_bytes=1000)
        assert windows() == 2


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "reset_after"},
        {"kind": "status", "status": 502, "when": "after"},
        {"kind": "timeout", "seconds": 3.0, "when": "after"},
        {"kind": "truncate"},
    ],
    ids=lambda fault: str(fault["kind"]),
)
async def test_w4_a_write_whose_answer_is_lost_is_sent_once_and_the_error_says_so(
    box: RunningSandbox, http: Http, fault: dict[str, Any]
) -> None:
    box.faults.add(**fault, method="POST")
    with pytest.raises(ServerTrouble, match="not known") as caught:
        await http.call(ADD_DEAL, body={"title": "once"})
    assert [seen.method for seen in box.log] == ["POST"]
    assert len(box.journal) == 1  # it happened, and only once
    assert "run the same command again" not in str(caught.value)


async def test_a_write_that_was_refused_unprocessed_is_sent_again(box: RunningSandbox, http: Http) -> None:
    box.faults.add(kind="burst_429", method="POST", nth=1, headers={"x-ratelimit-reset": "0", "retry-after": "0"})
    await http.call(ADD_DEAL, body={"title": "twice knocked"})
    assert [seen.status for seen in box.log] == [429, 200]
    assert len(box.journal) == 1


@pytest.mark.parametrize(
    ("status", "error"),
    [(200, None), (204, None), (400, ApiError), (401, AuthError), (404, NotFound), (403, CoolingDown)],
)
async def test_w4_an_empty_answer_that_names_a_packing_is_not_cut_off(
    tmp_path: Path, status: int, error: type[Exception] | None
) -> None:
    empty = Always(b"", status, Content_Encoding="gzip", Content_Type="text/plain")
    async with server(empty) as url, client(url, tmp_path) as http:
        with pytest.raises(error) if error else contextlib.nullcontext():
            assert (await http.call(ADD_DEAL, body={"title": "once"})).body == b""
        if not error:
            assert (await http.download(request_of(DEALS), MemorySink(), most_bytes=10)).body == b""
    assert empty.count == (1 if error else 2)


async def test_l3_an_empty_429_that_names_a_packing_is_waited_for(tmp_path: Path) -> None:
    answers = [Always(b"", 429, Content_Encoding="gzip", Retry_After="0"), Always()]

    async def busy_once(request: web.BaseRequest) -> web.StreamResponse:
        return await answers[len(answers) - 1 if answers[0].count else 0](request)

    async with server(busy_once) as url, client(url, tmp_path) as http:
        await http.call(ADD_DEAL, body={"title": "once"})
    assert [each.count for each in answers] == [1, 1]


async def test_a_packed_answer_without_a_length_that_ends_before_it_begins_is_requested_again(tmp_path: Path) -> None:
    count = 0

    async def breaks_once(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal count
        count += 1
        if count > 1:
            return web.Response(body=ROWS, content_type="application/json")
        request.transport.write(  # type: ignore[union-attr]
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n"
        )
        request.transport.close()  # type: ignore[union-attr]
        return web.Response()

    async with server(breaks_once) as url, client(url, tmp_path) as http:
        assert (await http.call(DEALS)).body == ROWS
    assert count == 2


@pytest.mark.parametrize("body", [gzip.compress(ROWS)[:-12], b"\x1f\x8b" + b"no gzip at all"], ids=["cut", "corrupt"])
async def test_a_packed_answer_that_is_cut_off_is_requested_again(tmp_path: Path, body: bytes) -> None:
    bodies = [body, gzip.compress(ROWS)]

    async def answer(request: web.BaseRequest) -> web.Response:
        return web.Response(body=bodies.pop(0), headers={"Content-Encoding": "gzip"})

    async with server(answer) as url, client(url, tmp_path) as http:
        assert (await http.call(DEALS)).body == ROWS
        assert http.budget.requests == 2


@pytest.mark.parametrize("operation", [DEALS, ADD_DEAL], ids=["GET", "POST"])
async def test_l6_every_request_that_leaves_is_in_the_ledger(tmp_path: Path, operation: Any) -> None:
    """aiohttp would repeat a GET by itself where a kept-alive connection has gone, and no ledger would know."""
    heard: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answered = False
        while True:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                break
            heard.append(head.split()[0])
            if answered and len(heard) == 2:
                break  # the connection had been kept alive; now it goes
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
            answered = True
        writer.close()

    listening = await asyncio.start_server(talk, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    async with listening, client(url, tmp_path) as http:
        await http.call(DEALS)
        if operation is DEALS:
            await http.call(DEALS)
            assert heard == [b"GET"] * 3
        else:
            with pytest.raises(ServerTrouble, match="not known"):
                await http.call(ADD_DEAL)
            assert heard == [b"GET", b"POST"]
        assert http.budget.requests == len(heard)


async def test_l6_a_server_that_fails_every_call_is_not_overloaded(tmp_path: Path) -> None:
    failing = Always(b"{}", 503)
    async with server(failing) as url, client(url, tmp_path) as http:
        for _ in range(40):
            with pytest.raises(ServerTrouble):
                await http.call(DEALS)
    assert ATTEMPTS + 40 < failing.count <= 1.1 * 40 + 20


async def test_l6_one_failure_in_ten_costs_little_and_loses_nothing(tmp_path: Path) -> None:
    count = 0

    async def answer(request: web.BaseRequest) -> web.Response:
        nonlocal count
        count += 1
        return web.Response(status=500 if count % 10 == 0 else 200, body=ROWS)

    async with server(answer) as url, client(url, tmp_path) as http:
        for _ in range(200):
            assert (await http.call(DEALS)).body == ROWS
    assert 200 < count <= 1.25 * 200


@pytest.mark.parametrize("operation", [DEALS, ADD_DEAL], ids=["GET", "POST"])
async def test_x2_a_server_that_is_not_there_is_named_and_the_token_is_not(tmp_path: Path, operation: Any) -> None:
    with socket.socket() as unused:  # bound and not listening: nobody else gets this port meanwhile
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        async with client(url, tmp_path) as http:
            with pytest.raises(ServerTrouble) as caught:
                await http.call(operation)
            assert http.budget.requests == ATTEMPTS  # surely not carried out: a write may be repeated as well
    assert url in str(caught.value)
    assert TOKEN not in str(caught.value)


# What an answer means.


async def test_l3_after_a_burst_429_nothing_leaves_before_the_reset_and_then_all_goes_on(tmp_path: Path) -> None:
    async def once(folder: str, fault: dict[str, Any]) -> list[float]:
        times: list[float] = []

        async def answer(request: web.BaseRequest) -> web.Response:
            times.append(asyncio.get_running_loop().time())
            if len(times) > 1:
                return web.Response(body=ROWS)
            return web.json_response({"success": False, "error": "request over limit"}, status=429, headers=fault)

        async with server(answer) as url, client(url, tmp_path / folder, burst=20) as http:
            assert (await http.call(DEALS)).body == ROWS
        return times

    told, untold, later, far = await asyncio.gather(
        once("told", {"x-ratelimit-reset": "1"}),
        once("untold", {}),
        once("later", {"Retry-After": "1"}),
        once("date", {"Retry-After": "Wed, 21 Oct 2037 07:28:00 GMT"}),
    )
    assert [len(times) for times in (told, untold, later, far)] == [2, 2, 2, 2]
    assert told[1] - told[0] >= 1
    assert later[1] - later[0] >= 1
    assert untold[1] - untold[0] >= 2  # the width of the window
    assert far[1] - far[0] >= 2


NO_NUMBERS = ["1e30", "-1e30", "-1", "nan", "NaN", "inf", "-inf", "1" * 400, "9" * 25, "0x10", "many", ""]


@pytest.mark.parametrize("text", NO_NUMBERS)
async def test_l5_a_header_that_is_no_number_counts_nothing_and_ends_nothing(tmp_path: Path, text: str) -> None:
    told = {f"x-daily-ratelimit-token-{name}": text for name in ("limit", "remaining")}
    told |= dict.fromkeys(("x-ratelimit-limit", "x-ratelimit-remaining", "x-daily-requests-left"), text)
    answering = Always()
    answering.headers |= told
    async with server(answering) as url, client(url, tmp_path, burst=20, daily_tokens=1000) as http:
        for _ in range(2):
            assert (await http.call(DEALS)).body == ROWS
        left, limit = http.budget.left()
        assert limit == 1000
        assert left == 1000 - 2 * (DEALS.cost or 0)


async def test_l3_a_reset_that_is_no_number_of_seconds_is_waited_for_like_none(tmp_path: Path) -> None:
    async def once(number: int, text: str) -> list[float]:
        times: list[float] = []

        async def answer(request: web.BaseRequest) -> web.Response:
            times.append(asyncio.get_running_loop().time())
            told = {"x-ratelimit-reset": text, "Retry-After": text, "x-daily-ratelimit-token-remaining": text}
            return web.Response(status=429 if len(times) == 1 else 200, body=ROWS, headers=told)

        async with server(answer) as url, client(url, tmp_path / str(number), burst=20) as http:
            assert (await http.call(DEALS)).body == ROWS
        return times

    for times in await asyncio.gather(*(once(number, text) for number, text in enumerate(NO_NUMBERS))):
        assert len(times) == 2
        assert times[1] - times[0] >= 2  # the width of the window


@pytest.mark.parametrize(
    "date",
    ["Fri, 31 Dec 9999 23:59:59 -1200", "Fri, 31 Dec 9999 23:59:59 GMT", "Mon, 01 Jan 1900 00:00:00 GMT", "-", "1e30"],
)
async def test_s9_a_date_that_no_calendar_has_is_no_date(tmp_path: Path, date: str) -> None:
    async def answer(request: web.BaseRequest) -> web.Response:
        return web.Response(body=ROWS, headers={"Date": date})

    async with server(answer) as url, client(url, tmp_path) as http:
        assert abs((await http.call(DEALS)).served_at - datetime.now(UTC)).days == 0


@pytest.mark.parametrize("headers", [True, False], ids=["with headers", "without headers"])
async def test_l3_an_exhausted_day_stops_at_once_and_for_the_next_session_too(
    box: RunningSandbox, tmp_path: Path, headers: bool
) -> None:
    box.faults.add(kind="daily_429", token_headers=headers)
    for _ in range(2):
        async with client(box.url, tmp_path, token=box.token, burst=20, daily_tokens=1000) as http:
            with pytest.raises(BudgetSpent) as caught:
                await http.call(DEALS)
            assert caught.value.resets_at is not None
    assert len(box.log) == 1


async def test_a_refusal_of_one_operation_is_no_block(box: RunningSandbox, http: Http) -> None:
    box.faults.add(kind="permission_403", nth=1)
    with pytest.raises(Forbidden, match="getDeals") as caught:
        await http.call(DEALS)
    assert (caught.value.status, caught.value.operation) == (403, "getDeals")
    assert caught.value.correlation_id == box.log[0].request
    assert (await http.call(DEALS)).status == 200
    assert len(box.log) == 2


async def test_l4_a_web_page_with_403_silences_every_session_of_this_project(
    box: RunningSandbox, tmp_path: Path
) -> None:
    async def once(burst: int) -> None:
        async with client(box.url, tmp_path, token=box.token, burst=burst) as http:
            with pytest.raises(CoolingDown):
                await http.call(DEALS)
            await http.call(DEALS)

    box.faults.add(kind="html_403", nth=1)
    for burst in (20, 20, 0):  # this session, the next one, and one without limits
        with pytest.raises(CoolingDown, match="nothing was taken for deleted"):
            await once(burst)
    assert len(box.log) == 1


async def test_a_refused_api_token_is_not_tried_again(box: RunningSandbox, tmp_path: Path) -> None:
    async with client(box.url, tmp_path) as http:
        with pytest.raises(AuthError, match="pdsync auth login") as caught:
            await http.call(DEALS)
    assert [seen.status for seen in box.log] == [401]
    assert TOKEN not in str(caught.value)


async def test_what_is_not_there_is_not_found(box: RunningSandbox, http: Http) -> None:
    deal = catalogue.operations("v2")["getDeal"]
    with pytest.raises(NotFound) as caught:
        await http.call(deal, "/api/v2/deals/987654321")
    assert caught.value.status == 404
    assert len(box.log) == 1


async def test_the_server_s_own_words_are_passed_on(box: RunningSandbox, http: Http) -> None:
    box.faults.add(kind="invalid_cursor")
    with pytest.raises(ApiError, match="getDeals: Pipedrive answered 400: Invalid cursor") as caught:
        await http.call(DEALS)
    assert caught.value.status == 400
    assert len(box.log) == 1


async def test_x10_the_server_s_words_can_t_steer_a_terminal(tmp_path: Path) -> None:
    refusing = Always(b'{"success":false,"error":"\\u001b]52;c;aGk=\\u0007 gone \\u202e"}', 400)
    async with server(refusing) as url, client(url, tmp_path) as http:
        with pytest.raises(ApiError) as caught:
            await http.call(DEALS)
    assert all(char.isprintable() for char in str(caught.value))


@pytest.mark.parametrize("status", [200, 404])
@pytest.mark.parametrize("before", range(40, 161, 12))
async def test_x2_an_answer_that_repeats_the_token_is_quoted_without_it_wherever_it_is_cut(
    tmp_path: Path, status: int, before: int
) -> None:
    hide(TOKEN)
    page = Always(b"<html>" + b"-" * (before - 6) + TOKEN.encode() + b"</html>", status, Content_Type="text/html")
    async with server(page) as url, client(url, tmp_path) as http:
        with pytest.raises(PdsyncError) as caught:
            open_envelope((await http.call(DEALS)).body, DEALS)
    assert TOKEN[:5] not in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        b'{"success":false,"error":"half asleep"}',
        b'{ "success" : false, "error":"half asleep" }',
        b'{"data":[],"additional_data":{"note":"' + b"-" * 5000 + b'"},"error":"half asleep","success":false}',
        b'{"error":"half asleep","data":null,"success":"false"}',
        b'{"data":[{"success":true}],"error":"half asleep","success":false}',
        b'\xef\xbb\xbf{"success":false,"error":"half asleep","data":[]}',
        b'{"success":false,"error":"half asleep \\ud83d","data":[]}',
        b'{"success":false,"error":"half asleep","data":[],"took":NaN}',
    ],
    ids=[
        "first",
        "spaced",
        "at the end",
        "as text",
        "and a record that speaks of success",
        "after a byte order mark",
        "beside half a character",
        "beside NaN",
    ],
)
async def test_s9_success_false_is_a_refusal_whatever_the_status_says(tmp_path: Path, body: bytes) -> None:
    refusing = Always(body)
    async with server(refusing) as url, client(url, tmp_path) as http:
        with pytest.raises(ApiError, match="half asleep") as caught:
            await http.call(DEALS)
    assert caught.value.status == 200
    assert refusing.count == 1


@pytest.mark.parametrize("record", [{"title": '"success":false'}, {"success": False}])
async def test_a_record_with_a_field_called_success_is_a_success(tmp_path: Path, record: dict[str, Any]) -> None:
    body = json.dumps({"data": [record], "success": True}, separators=(",", ":")).encode()
    async with server(Always(body)) as url, client(url, tmp_path) as http:
        assert (await http.call(DEALS)).body == body


async def test_the_answer_carries_the_server_s_own_time_in_utc(tmp_path: Path) -> None:
    asked = Always(Date="Sun, 22 Nov 2026 13:00:00 +0100")
    async with server(asked) as url, client(url, tmp_path) as http:
        assert (await http.call(DEALS)).served_at == datetime(2026, 11, 22, 12, tzinfo=UTC)


# Where the token goes.


async def test_x3_the_token_travels_in_a_header_and_in_nothing_else(tmp_path: Path) -> None:
    seen: list[tuple[str, str | None, str | None]] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        seen.append((str(request.url), request.headers.get("x-api-token"), request.headers.get("accept-encoding")))
        return web.Response(body=ROWS, headers={"Set-Cookie": "session=1"})

    async with server(answer) as url, client(url, tmp_path) as http:
        await http.call(DEALS, query={"limit": "5", "filter": "a&b=ü"})
    assert seen[0][1:] == (TOKEN, "gzip")
    assert TOKEN not in seen[0][0]


@pytest.mark.parametrize("operation", [DEALS, ADD_DEAL], ids=["GET", "POST"])
async def test_x3_a_redirect_is_not_followed_and_the_token_stays_here(tmp_path: Path, operation: Any) -> None:
    trap = Always()
    async with server(trap) as elsewhere:
        host = elsewhere.removeprefix("http://")
        targets = [elsewhere, f"//{host}/v1/deals", f"http://user:pw@{host}/", f"{elsewhere}/?api_token=", ""]
        for status in (300, 301, 302, 303, 307, 308):
            for target in targets:
                door = Always(b"", status, Location=target)
                async with server(door) as url, client(url, tmp_path) as http:
                    with pytest.raises(BadAnswer, match="redirects") as no:
                        await http.call(operation)
                assert TOKEN not in str(no.value)
                assert door.count == 1
    assert trap.count == 0


# How large a body may be.


async def test_packed_answers_are_unpacked(tmp_path: Path) -> None:
    body = json.dumps({"data": [{"id": number} for number in range(5000)]}).encode()
    async with server(Always(gzip.compress(body), Content_Encoding="gzip")) as url, client(url, tmp_path) as http:
        assert (await http.call(DEALS)).body == body


@pytest.mark.parametrize("cut", [None, 1, 700, 2**20])
async def test_s9_an_answer_that_is_packed_in_several_parts_is_read_whole(tmp_path: Path, cut: int | None) -> None:
    body = json.dumps({"data": [{"id": number} for number in range(300_000)]}).encode()
    parts = [gzip.compress(each) for each in (body[:100], b"", body[100:5000], body[5000:])]
    packed = b"".join(parts) + bytes(512)  # and padding, as tape and block devices leave it

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Encoding": "gzip"})
        await response.prepare(request)
        first = packed[: cut or len(packed)]
        await response.write(first)
        await response.write(packed[len(first) :])
        return response

    async with server(answer) as url, client(url, tmp_path) as http:
        assert (await http.call(DEALS)).body == body
        assert http.budget.requests == 1


@pytest.mark.parametrize(
    "tail", [gzip.compress(b" " * 99)[:-9], b"\x1f", b"no part"], ids=["cut", "begun", "something else"]
)
async def test_s9_a_packed_answer_whose_last_part_is_cut_off_is_requested_again(tmp_path: Path, tail: bytes) -> None:
    bodies = [gzip.compress(ROWS) + tail, gzip.compress(ROWS)]

    async def answer(request: web.BaseRequest) -> web.Response:
        return web.Response(body=bodies.pop(0), headers={"Content-Encoding": "gzip"})

    async with server(answer) as url, client(url, tmp_path) as http:
        assert (await http.call(DEALS)).body == ROWS
        assert http.budget.requests == 2


async def test_x8_an_answer_of_a_million_packed_parts_is_refused(tmp_path: Path) -> None:
    parts = Always(gzip.compress(b"") * 500_000, Content_Encoding="gzip")
    async with server(parts) as url, client(url, tmp_path) as http:
        with pytest.raises(BadAnswer, match="parts"):
            await http.call(DEALS)
    assert parts.count == 1


async def test_a_packing_that_was_not_offered_is_refused(tmp_path: Path) -> None:
    packed = Always(b"whatever", Content_Encoding="br")
    async with server(packed) as url, client(url, tmp_path) as http:
        with pytest.raises(BadAnswer, match="br"):
            await http.call(DEALS)
    assert packed.count == 1


def _bomb(megabytes: int) -> list[bytes]:
    """A gzip stream of zeros: each megabyte the same kilobyte, so that it costs nothing to make."""
    squeeze = zlib.compressobj(9, wbits=-15)
    block = squeeze.compress(b"\0" * 2**20) + squeeze.flush(zlib.Z_FULL_FLUSH)
    return [b"\x1f\x8b\x08\0\0\0\0\0\0\xff", *[block] * megabytes]


async def test_x8_the_largest_body_that_is_taken_is_in_memory_once(tmp_path: Path) -> None:
    bomb = [*_bomb(PLAIN_CAP // 2**20), b"\x03\0", struct.pack("<II", zlib.crc32(bytes(PLAIN_CAP)), PLAIN_CAP)]
    async with server(Always(b"".join(bomb), Content_Encoding="gzip")) as url, client(url, tmp_path) as http:
        tracemalloc.start()
        try:
            size = len((await http.call(DEALS)).body)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert size == PLAIN_CAP
    assert peak < PLAIN_CAP + 64 * 2**20


@pytest.mark.parametrize("kind", ["bomb", "plain", "packed"])
async def test_x8_an_answer_beyond_the_cap_is_refused_within_bounded_memory(tmp_path: Path, kind: str) -> None:
    pieces = {
        "bomb": _bomb(300),
        "plain": [b" " * 2**20] * 300,
        "packed": [gzip.compress(os.urandom(2**20), 0)] * (2 * WIRE_CAP // 2**20),
    }[kind]

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        told = {} if kind == "plain" else {"Content-Encoding": "gzip"}
        response = web.StreamResponse(headers={"Content-Type": "application/json", **told})
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
        return response

    async with server(answer) as url, client(url, tmp_path) as http:
        tracemalloc.start()
        try:
            with pytest.raises(BadAnswer, match="larger than"):
                await http.call(DEALS)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert http.budget.requests == 1
    assert peak < PLAIN_CAP + 64 * 2**20


# Timeouts, and files without a body in the sink.


async def test_a_silent_answer_ends_after_the_time_that_its_message_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pdsync.core.http._SILENT_S", 0.2)
    go = asyncio.Event()

    async def late(request: web.BaseRequest) -> web.StreamResponse:
        await go.wait()
        return web.Response(body=ROWS, content_type="application/json")

    async with server(late) as url, client(url, tmp_path) as http:
        request = request_of(DEALS)
        once = msgspec.structs.replace(request, retry=RetryPolicy(attempts=1))
        with pytest.raises(ServerTrouble, match=r"no byte of an answer within 0\.2 s"):
            await http.send(once)
        patient = msgspec.structs.replace(request, retry=RetryPolicy(attempts=1, timeout_s=60))
        asyncio.get_running_loop().call_later(0.6, go.set)  # later than a silent answer may be otherwise
        assert (await http.send(patient)).body == ROWS


async def test_s6_a_write_without_a_connection_is_sent_again_and_is_not_doubtful(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pdsync.core.http._CONNECT_S", 0.2)
    with contextlib.ExitStack() as opened:
        full = opened.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):  # its queue is full: a connection is neither made nor refused
            waiting = opened.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        async with client(f"http://127.0.0.1:{full.getsockname()[1]}", tmp_path) as http:
            with pytest.raises(ServerTrouble, match=r"can't reach .* within 0\.2 s \(attempt (\d) of \1\)") as caught:
                await http.call(ADD_DEAL, body={"title": "x"})
    assert caught.value.doubtful is False


async def test_x8_a_file_of_json_is_not_larger_than_allowed(tmp_path: Path) -> None:
    async with server(Always(b"[" + b"1," * 600 + b"1]")) as url, client(url, tmp_path) as http:
        sink = MemorySink()
        with pytest.raises(TooLarge, match="1,000 are the most"):
            await http.download(request_of(DEALS), sink, most_bytes=1000)
        assert sink.body == b""
        assert (await http.download(request_of(DEALS), sink, most_bytes=2000)).status == 200
        assert len(sink.body) == 1203


async def test_an_empty_file_after_a_broken_attempt_leaves_nothing_in_the_sink(tmp_path: Path) -> None:
    count = 0

    async def breaks_once(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal count
        count += 1
        if count > 1:
            return web.Response(status=204)
        answer = web.StreamResponse(headers={"Content-Type": "text/plain", "Content-Length": "100"})
        await answer.prepare(request)
        await answer.write(b"half")
        request.transport.close()  # type: ignore[union-attr]
        return answer

    async with server(breaks_once) as url, client(url, tmp_path) as http:
        sink = MemorySink()
        assert (await http.download(request_of(DEALS), sink, most_bytes=1000)).status == 204
    assert count == 2
    assert not sink.body
