"""Files on their way: forms out, bodies in, and where the redirect of a download may lead."""

from __future__ import annotations

import gzip
import random
import zlib
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from pdsync.core import catalogue
from pdsync.core.request_builder import Call
from pdsync.core.upload_download import (
    FilePart,
    GzipReader,
    MemorySink,
    TooLarge,
    bare_session,
    content_type_of,
    file_part,
    form_of,
    may_be_called,
    redirect_target,
    stream,
)
from pdsync.errors import BadAnswer, ConfigError

from .servers import server

if TYPE_CHECKING:
    from pathlib import Path


# Out.


@pytest.mark.parametrize(
    ("name", "told", "content_type"),
    [
        ("offer.pdf", "offer.pdf", "application/pdf"),
        ("OFFER.PDF", "OFFER.PDF", "application/pdf"),
        ("no suffix", "no suffix", "application/octet-stream"),
        ("ü 💾.png", "ü 💾.png", "image/png"),
        ("a\r\nX-Evil: 1.txt", "a__X-Evil: 1.txt", "text/plain"),
        ("\x7f\0.txt", "__.txt", "text/plain"),
        ("\ud800.txt", "?.txt", "text/plain"),
    ],
)
def test_x10_a_file_is_sent_under_a_name_that_breaks_no_header(
    tmp_path: Path, name: str, told: str, content_type: str
) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    part = file_part("file", tmp_path / "file", name)
    assert (part.name, part.file_name, part.content_type) == ("file", told, content_type)


def test_a_file_that_can_not_be_read_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    for path, message in ((tmp_path / "none", "can't be read"), (tmp_path, "is no file"), (tmp_path / "\0", "can't")):
        with pytest.raises(ConfigError, match=rf"(?s){message}.*Nothing was sent"):
            file_part("file", path)


def test_a_form_carries_texts_and_files_and_can_be_sent_twice(tmp_path: Path) -> None:
    upload = tmp_path / "offer.pdf"
    upload.write_bytes(b"abc")
    operation = catalogue.operation("addFile", "v1")
    form = form_of(Call(operation, "/v1/files", {}, {"deal_id": "7"}, {"file": upload}))
    assert form is not None
    assert form.fields == (("deal_id", "7"),)
    assert form.files == (FilePart("file", upload, "offer.pdf", "application/pdf"),)
    assert (form.multipart, form.size) == (True, 3)
    for _ in range(2):
        with form.opened() as data:
            assert data.is_multipart


def test_json_is_no_form() -> None:
    operation = catalogue.operation("addDeal", "v2")
    assert form_of(Call(operation, "/api/v2/deals", {}, {"title": "x"}, {})) is None
    plain = msgspec.structs.replace(operation, content="form")
    form = form_of(Call(plain, "/api/v2/deals", {}, {"title": "x"}, {}))
    assert form is not None
    assert (form.multipart, form.files) == (False, ())


def test_a_content_type_is_guessed_by_the_suffix_alone() -> None:
    assert [content_type_of(name) for name in ("a.json", "json", "a.unheard-of")] == ["application/json", None, None]


# In.


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


@pytest.mark.parametrize(
    ("body", "headers", "outcome"),
    [
        (b"abc", {}, b"abc"),
        (b"", {}, b""),
        (gzip.compress(b"abc"), {"Content-Encoding": "gzip"}, b"abc"),
        (b"x" * 1000, {}, b"x" * 1000),
        (b"x" * 1001, {}, "1,001 bytes are announced, and 1,000 are the most"),
        (gzip.compress(b"x" * 1001), {"Content-Encoding": "gzip"}, "More than 1,000 bytes came"),
        (INCOMPRESSIBLE, {"Transfer-Encoding": "chunked"}, "More than 1,000 bytes came"),
        (b"abc", {"Content-Encoding": "br"}, "packed with 'br'"),
        (gzip.compress(b"abc")[:-5], {"Content-Encoding": "gzip"}, EOFError),
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
