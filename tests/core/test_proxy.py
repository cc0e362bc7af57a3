"""The proxy that the environment names: when it is used, and what is refused without a word of its password."""

from __future__ import annotations

import asyncio
import base64
import ssl
from typing import TYPE_CHECKING

import pytest
from aiohttp import web
from msgspec.structs import replace

from pdsync.core import catalogue
from pdsync.core.oauth_token import request_tokens
from pdsync.core.proxy import Proxy, certificate_message, proxy_for, proxy_options
from pdsync.core.request import RetryPolicy, request_of
from pdsync.core.sinks import MemorySink
from pdsync.errors import ConfigError, ServerTrouble

from .servers import client, server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

URL = "https://acme.pipedrive.com"


def basic(user: str) -> dict[str, str]:
    return {"Proxy-Authorization": f"Basic {base64.b64encode(user.encode()).decode()}"}


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("environment", "proxy"),
    [
        ({}, None),
        ({"HTTPS_PROXY": "http://proxy:3128"}, Proxy("http://proxy:3128")),
        ({"HTTPS_PROXY": "proxy:3128"}, Proxy("http://proxy:3128")),
        ({"ALL_PROXY": "http://proxy"}, Proxy("http://proxy:80")),
        ({"HTTPS_PROXY": "http://[::1]:8"}, Proxy("http://[::1]:8")),
        ({"HTTPS_PROXY": "http://me:p%40ss-word-1@proxy:1"}, Proxy("http://proxy:1", "me", "p@ss-word-1")),
        ({"HTTPS_PROXY": "http://proxy:1", "NO_PROXY": "acme.pipedrive.com"}, None),
        ({"HTTP_PROXY": "http://proxy:1"}, None),
    ],
)
def test_the_environment_names_the_proxy(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], proxy: Proxy | None
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert proxy_for(URL) == proxy


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080", "https://127.0.0.1:8080"])
def test_this_machine_is_reached_without_a_proxy(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:1")
    assert proxy_for(url) is None


@pytest.mark.parametrize(
    "named", ["socks5://me:pass-word-2@proxy:1", "http://me:pass-word-2@proxy:many", "http://me:pass-word-2@"]
)
def test_an_unusable_proxy_is_refused_without_its_password(monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", named)
    with pytest.raises(ConfigError, match="names no proxy") as raised:
        proxy_for(URL)
    assert "pass-word-2" not in str(raised.value)


def test_a_proxy_is_shown_without_its_password() -> None:
    assert "pass-word-3" not in repr(Proxy("http://proxy:1", "me", "pass-word-3"))


@pytest.mark.parametrize(
    ("proxy", "options"),
    [
        (None, {}),
        (Proxy("http://proxy:1"), {"proxy": "http://proxy:1"}),
        (Proxy("http://proxy:1", "me", "pä:ss"), {"proxy": "http://proxy:1", "proxy_headers": basic("me:pä:ss")}),
        (Proxy("http://proxy:1", ""), {"proxy": "http://proxy:1", "proxy_headers": basic(":")}),
    ],
)
def test_a_request_goes_through_the_proxy_with_its_user(proxy: Proxy | None, options: dict[str, object]) -> None:
    assert proxy_options(proxy) == options


@pytest.mark.parametrize(
    ("url", "host", "port"), [("http://proxy:3128", "proxy", 3128), ("http://[::1]:8", "::1", 8), ("http://p", "p", 80)]
)
def test_a_proxy_has_a_host_and_a_port(url: str, host: str, port: int) -> None:
    assert (Proxy(url).host, Proxy(url).port) == (host, port)


def test_an_untrusted_certificate_is_named_with_the_reason() -> None:
    error = ssl.SSLCertVerificationError("[SSL: CERTIFICATE_VERIFY_FAILED] and much more")
    error.verify_message = "self-signed certificate"
    assert "acme shows a certificate that this machine does not trust (self-signed certificate)." in (
        certificate_message("acme", error)
    )
    assert "(unreadable)" in certificate_message("acme", ValueError("unreadable"))


async def storage_link(request: web.BaseRequest) -> web.StreamResponse:
    """An answer that leads to a file's storage, as Pipedrive gives it."""
    return web.Response(status=302, headers={"Location": "https://storage.example.com/file?signature=s3cret"})


async def fetch_file(folder: Path) -> None:
    async with server(storage_link) as url, client(url, folder) as http:
        file = request_of(catalogue.operations("v1")["downloadFile"], "/v1/files/1/download")
        await http.download(replace(file, retry=RetryPolicy(attempts=1)), MemorySink(), most_bytes=1000)


async def renew_token(folder: Path) -> None:
    form = {"grant_type": "refresh_token", "refresh_token": "s3cret"}
    await request_tokens("https://oauth.example.com/oauth/token", "s3cret-id", "s3cret", form)


@pytest.mark.parametrize(("send", "host"), [(fetch_file, "storage.example.com"), (renew_token, "oauth.example.com")])
async def test_x2_whatever_leaves_this_machine_goes_through_the_proxy_and_shows_it_no_secret(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, send: Callable[[Path], Awaitable[None]], host: str
) -> None:
    monkeypatch.setattr("pdsync.core.oauth_token._BACKOFF_S", 0.001)
    seen = bytearray()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.extend(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}")
        with pytest.raises(ServerTrouble):
            await send(tmp_path)
    assert seen.startswith(f"CONNECT {host}:443 ".encode())
    assert b"s3cret" not in seen
