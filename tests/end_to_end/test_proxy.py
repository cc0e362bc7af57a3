"""Requests through a company's proxy: a tunnel that shows it neither the token nor an answer."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
import threading
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pdsync.sandbox import Limits, Sizes, generate_company, running
from tests.support.world import Project

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HOST = "api.pipedrive.com"
PASSWORD = "pr0xy-c4n4ry-0123"


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for HOST that signs for itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(7)
        .not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    paths = folder / "ca.pem", folder / "key.pem"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


class Proxy:
    """A proxy that connects only to HOST, a sandbox with TLS, and records every byte."""

    def __init__(self, sandbox_port: int, ca: Path, key: Path) -> None:
        self.seen = bytearray()
        self.tunnels: list[bytes] = []
        self._sandbox_port = sandbox_port
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(ca, key)

    async def serve(self, ready: Future[int], stop: asyncio.Event) -> None:
        """Serve until `stop`; `ready` gets the port."""
        tls = await asyncio.start_server(self._plain, "127.0.0.1", 0, ssl=self._context)
        self._tls_port = tls.sockets[0].getsockname()[1]
        front = await asyncio.start_server(self._tunnel, "127.0.0.1", 0)
        ready.set_result(int(front.sockets[0].getsockname()[1]))
        await stop.wait()
        front.close()
        tls.close()

    async def _plain(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._join(reader, writer, self._sandbox_port, kept=False)

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.seen += head
        self.tunnels.append(head)
        wanted = b"Proxy-Authorization: Basic " + base64.b64encode(f"user:{PASSWORD}".encode())
        if not head.startswith(f"CONNECT {HOST}:443 ".encode()) or wanted not in head:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            writer.close()
            return
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await self._join(reader, writer, self._tls_port, kept=True)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int, *, kept: bool) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)

        async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(65_536):
                    if kept:
                        self.seen += data
                    target.write(data)
                    await target.drain()
            target.close()

        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))


@pytest.fixture
def proxied(tmp_path: Path) -> Iterator[tuple[Project, Proxy, int]]:
    """A project whose company is reached through a proxy only; the proxy, and its port."""
    ca, key = certificate(tmp_path)
    with running(
        generate_company(seed=2, sizes=Sizes(deals=5)), limits=Limits(burst=None, search_burst=None, daily_tokens=None)
    ) as box:
        proxy = Proxy(int(box.url.rpartition(":")[2]), ca, key)
        ready: Future[int] = Future()
        stops: list[Callable[[], object]] = []

        async def serve() -> None:
            loop, stop = asyncio.get_running_loop(), asyncio.Event()
            stops.append(lambda: loop.call_soon_threadsafe(stop.set))
            await proxy.serve(ready, stop)

        thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
        thread.start()
        port = ready.result(10)
        project = Project(tmp_path / "project").configure(base_url=f"https://{HOST}", api_token=box.token)
        project.env |= {"HTTPS_PROXY": f"http://user:{PASSWORD}@127.0.0.1:{port}", "SSL_CERT_FILE": str(ca)}
        project.env.pop("NO_PROXY", None)
        project.env.pop("no_proxy", None)
        yield project, proxy, port
        stops[0]()
        thread.join(10)


def test_x2_x3_a_proxy_is_used_and_sees_neither_the_token_nor_an_answer(
    proxied: tuple[Project, Proxy, int],
) -> None:
    project, proxy, port = proxied
    ran = project.run("-v", "sync", "stages")
    assert ran.code == 0, ran
    assert project.ask("SELECT count(*) > 0 FROM main.stages") == [(True,)]
    assert proxy.tunnels
    for secret in (project.env["PDSYNC_API_TOKEN"], "x-api-token", "company_id"):
        assert secret.encode() not in proxy.seen
    checked = project.run("doctor")
    assert f"through the proxy http://127.0.0.1:{port}" in checked.out, checked
    assert "SSL_CERT_FILE" in checked.out
    assert PASSWORD not in ran.err + ran.out + checked.out + checked.err


def test_x2_x4_a_proxy_error_is_reported_without_its_password(
    proxied: tuple[Project, Proxy, int],
) -> None:
    project, proxy, port = proxied
    wrong = "an0ther-c4n4ry-4567"
    stranger = {k: v for k, v in project.env.items() if k != "SSL_CERT_FILE"}
    for env, says in (
        (stranger, "SSL_CERT_FILE"),  # the certificate is nobody's that this machine trusts
        (project.env | {"HTTPS_PROXY": f"http://user:{wrong}@127.0.0.1:{port}"}, "status 407"),
        (project.env | {"HTTPS_PROXY": f"socks5://user:{wrong}@127.0.0.1:{port}"}, "names no proxy"),
    ):
        project.env = env
        ran = project.run("api", "getCurrentUser", "--retries", "0", "-v")
        assert ran.code in (1, 2), ran
        assert says in ran.err
        assert "This is a bug" not in ran.err
        assert wrong not in ran.err + ran.out
        assert PASSWORD not in ran.err + ran.out
    before = len(proxy.tunnels)
    project.env |= {"NO_PROXY": f"localhost,{HOST}", "HTTPS_PROXY": f"http://127.0.0.1:{port}"}
    assert project.run("api", "getCurrentUser", "--retries", "0", "--timeout", "3").code == 1  # nothing is there
    assert len(proxy.tunnels) == before
