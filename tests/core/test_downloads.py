"""Bodies on their way in, and where the redirect of a download may lead."""

from __future__ import annotations

import gzip
import random
import zlib
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from pdsync.core.downloads import GzipReader, bare_session, may_be_called, redirect_target, stream
from pdsync.core.sinks import MemorySink, TooLarge
from pdsync.errors import BadAnswer

from .servers import server


def unpacked(packed: bytes, step: int) -> tuple[bytes, bool]:
    reader = GzipReader()
    data = b"".join(data for at in range(0, len(packed), step) for data in reader.feed(packed[at : at + step]))
    return data, reader.complete


@pytest.mark.parametrize("step", [1, 7, 10**9])
def test_gzip_is_unpacked_however_it_is_cut_up_and_of_several_members(step: int) -> None:
    packed = gzip.compress(b"one, ") + gzip.compress(b"") + gzip.compress(b"two") + b"\0" * 10
    assert unpacked(packed, step) == (b"one, two", True)
    assert unpacked(gzip.compress(b"one")[:-5], step)[1] is False


def test_x8_a_large_body_comes_a_megabyte_at_a_time() -> None:
    pieces = [len(data) for data in GzipReader().feed(gzip.compress(b"\0" * 10 * 2**20))]
    assert sum(pieces) == 10 * 2**20
    assert max(pieces) <= 2**20


def test_x8_a_body_of_endlessly_many_members_is_refused() -> None:
    with pytest.raises(BadAnswer, match="more than"):
        unpacked(gzip.compress(b"") * 5000, 2**16)
    with pytest.raises(zlib.error):
        unpacked(b"no gzip at all", 5)


INCOMPRESSIBLE = random.Random(7).randbytes(3000)


# A test is named after its bytes, which must be the same in each worker: so mtime=0.
@pytest.mark.parametrize(
    ("body", "headers", "outcome"),
    [
        (b"abc", {}, b"abc"),
        (b"", {}, b""),
        (gzip.compress(b"abc", mtime=0), {"Content-Encoding": "gzip"}, b"abc"),
        (b"x" * 1000, {}, b"x" * 1000),
        (b"x" * 1001, {}, "1,001 bytes are announced, and 1,000 are the most"),
        (gzip.compress(b"x" * 1001, mtime=0), {"Content-Encoding": "gzip"}, "More than 1,000 bytes came"),
        (INCOMPRESSIBLE, {"Transfer-Encoding": "chunked"}, "More than 1,000 bytes came"),
        (b"abc", {"Content-Encoding": "br"}, "packed with 'br'"),
        (gzip.compress(b"abc", mtime=0)[:-5], {"Content-Encoding": "gzip"}, EOFError),
        (b"no gzip", {"Content-Encoding": "gzip"}, zlib.error),
    ],
)
async def test_x8_a_body_is_taken_in_up_to_a_limit(body: bytes, headers: dict[str, str], outcome: Any) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if "Transfer-Encoding" not in headers:
            return web.Response(body=body, headers=headers)
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(body)
        return response

    sink = MemorySink()
    sink.write(b"of an earlier attempt")
    async with server(answer) as url, bare_session(concurrency=1) as session, session.get(url) as response:
        if isinstance(outcome, bytes):
            await stream(response, sink, 1000, 60)
            assert bytes(sink.body) == outcome
        elif isinstance(outcome, str):
            with pytest.raises(BadAnswer, match=outcome) as caught:
                await stream(response, sink, 1000, 60)
            assert isinstance(caught.value, TooLarge) == ("packed" not in outcome)
            assert len(sink.body) <= 1000
        else:
            with pytest.raises(outcome):
                await stream(response, sink, 1000, 60)


# Elsewhere.


@pytest.mark.parametrize(
    "location",
    [
        "http://storage.example/x", "https://127.0.0.1/x", "https://[::1]/x", "https://10.1.2.3/x",
        "https://169.254.169.254/x",
        "https://[::ffff:10.0.0.1]/x", "https://user:pass@storage.example/x", "https://storage.example:8443/x",
        "ftp://storage.example/x",
        "", None, "https://storage.example/x y",
    ],
)  # fmt: skip
def test_x2_a_real_account_is_only_redirected_to_public_https(location: str | None) -> None:
    with pytest.raises(BadAnswer):
        redirect_target(location, "https://api.pipedrive.com/v1/files/1/download", local=False)


def test_links_of_storage_hosts_and_relative_ones_are_fair() -> None:
    asked = "https://api.pipedrive.com/v1/files/1/download"
    link = "https://bucket.s3.amazonaws.com/a%2Fb%20c?X-Amz-Signature=ab%2Bc"
    assert str(redirect_target(link, asked, local=False)) == link
    assert str(redirect_target("/v1/elsewhere", asked, local=False)) == "https://api.pipedrive.com/v1/elsewhere"
    assert str(redirect_target("https://8.8.8.8/x", asked, local=False)) == "https://8.8.8.8/x"


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True), ("2606:4700::1111", True), ("10.0.0.1", False), ("172.16.0.1", False), ("192.168.1.1",
        False),
        ("127.0.0.1", False), ("::1", False), ("0.0.0.0", False), ("::", False), ("169.254.169.254", False),
        ("fe80::1", False),
        ("fd00::1", False), ("100.64.0.1", False), ("224.0.0.1", False), ("ff02::1", False), ("240.0.0.1", False),
        ("255.255.255.255", False), ("::ffff:10.0.0.1", False), ("::ffff:8.8.8.8", True), ("2002:a00:1::", False),
        ("64:ff9b::a00:1", False), ("64:ff9b::808:808", True), ("198.18.0.1", False), ("192.0.2.1", False),
        ("2001:db8::1", False),
    ],
)  # fmt: skip
def test_x2_addresses_that_are_not_public_are_not_called(address: str, public: bool) -> None:
    assert may_be_called(address, local=False) == public


async def test_x2_a_name_that_leads_inside_is_refused_where_the_connection_is_made() -> None:
    """localhost is a name like any other: its address decides."""
    seen: list[str] = []

    async def storage(request: web.BaseRequest) -> web.StreamResponse:
        seen.append(request.path)
        return web.Response()

    async with server(storage) as elsewhere:
        port = elsewhere.rpartition(":")[2]
        async with bare_session(local=False, concurrency=1) as session:
            for name in ("localhost", "127.1"):
                with pytest.raises((BadAnswer, aiohttp.InvalidURL)):
                    await session.get(f"http://{name}:{port}/x")
        async with bare_session(local=True, concurrency=1) as session:
            assert (await session.get(f"http://localhost:{port}/x")).status == 200
    assert seen == ["/x"]
