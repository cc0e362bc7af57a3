"""Downloads files: streams answers, and follows the one redirect that a download may follow.

The bytes of a file are often at a storage host, and the API answers with a link to them. It is followed once, by a
client without token and cookies, over https and to public addresses only. Addresses are checked when the connection
is made: a name can't lead elsewhere after the check. A proxy resolves names itself: with one, only a link that has an
address instead of a name is checked. A sandbox on this machine may redirect to this machine.
"""

from __future__ import annotations

import ipaddress
import re
import time
import zlib
from typing import TYPE_CHECKING

import aiohttp
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from pdsync.core.config import is_loopback
from pdsync.core.sinks import TooLarge
from pdsync.errors import BadAnswer
from pdsync.version import __version__

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from aiohttp.abc import ResolveResult

    from pdsync.core.sinks import ByteSink


SLOWEST = 32 * 2**10  # bytes a second: a file that moves more slowly is given up
REDIRECTS = frozenset({301, 302, 303, 307, 308})
_STEP = 2**20  # unpacked at a time
_MOST_MEMBERS = 4096  # of one gzip body
_LONGEST_LINK = 8192
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class GzipReader:
    """Unpacks a gzip body piece by piece, also one of several members (RFC 1952, 2.2)."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=31)
        self._members = 1

    @property
    def complete(self) -> bool:
        """Whether the last member is complete."""
        return self._member.eof

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """The plain bytes of `piece`, at most a megabyte at a time.

        Raises:
            zlib.error: it is no gzip.
            BadAnswer: it has too many members.
        """
        while True:
            if self._member.eof:
                piece = piece.lstrip(b"\0")  # padding after the last member
                if not piece:
                    return
                self._members += 1
                if self._members > _MOST_MEMBERS:  # each one copies the rest
                    raise BadAnswer(f"The answer is packed in more than {_MOST_MEMBERS:,} parts.")
                self._member = zlib.decompressobj(wbits=31)
            data = self._member.decompress(piece, _STEP)
            piece = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            if data:
                yield data
            elif not self._member.eof:
                return


async def stream(response: aiohttp.ClientResponse, sink: ByteSink, most_bytes: int, grace_s: float) -> None:
    """Hand the body of `response` to `sink`, unpacked, piece by piece.

    Raises:
        TooLarge: it is longer than `most_bytes`.
        BadAnswer: it is packed otherwise than with gzip, or in too many parts.
        TimeoutError: after `grace_s` it was slower than SLOWEST.
        EOFError, zlib.error, aiohttp.ClientError: it was cut off.
    """
    packed = response.headers.get("Content-Encoding", "identity").lower()
    unpacker = GzipReader() if packed == "gzip" else None
    if unpacker is None and packed not in ("identity", ""):
        raise BadAnswer(f"The file is packed with {packed!r}, which was not offered.")
    if unpacker is None and (response.content_length or 0) > most_bytes:
        raise TooLarge(f"{response.content_length:,} bytes are announced, and {most_bytes:,} are the most.")
    sink.begin()
    wire, got, began = 0, 0, time.monotonic()
    async for piece in response.content.iter_any():
        wire += len(piece)
        for data in unpacker.feed(piece) if unpacker else (piece,):
            got += len(data)
            if got > most_bytes:
                response.close()
                raise TooLarge(f"More than {most_bytes:,} bytes came, which are the most.")
            sink.write(data)
        elapsed = time.monotonic() - began
        if elapsed > grace_s and got < SLOWEST * elapsed:
            response.close()
            raise TimeoutError
    if unpacker and not unpacker.complete and (wire or not is_known_empty(response)):
        raise EOFError("the packed file ends early")


def is_known_empty(response: aiohttp.ClientResponse) -> bool:
    """Whether an answer of which no byte came has none: its status or its headers say where it ends.

    A server may name a packing for it all the same.
    """
    ends_by_itself = response.content_length is not None or "Transfer-Encoding" in response.headers
    return ends_by_itself or response.status in (204, 304)


# Redirects.


def bare_session(*, concurrency: int, local: bool | None = None) -> aiohttp.ClientSession:
    """A session for storage hosts: it sends no credentials.

    Args:
        concurrency: connections at once.
        local: whether addresses of this machine may be called; None where a proxy resolves them.
    """
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=concurrency, resolver=None if local is None else _CheckedResolver(local=local), use_dns_cache=False
        ),
        headers={"User-Agent": f"pdsync/{__version__}", "Accept-Encoding": "identity"},
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        raise_for_status=False,
        trust_env=False,  # no .netrc
    )
    session._retry_connection = False
    return session


def redirect_target(location: str | None, url: str, *, local: bool) -> URL:
    """The target of a redirect in the answer to a request of `url`.

    Raises:
        BadAnswer: the link is not safe to follow. It is not shown: it may be enough to read the file.
    """
    if not location or len(location) > _LONGEST_LINK or re.search(r"[\x00-\x20\x7f-\U0010ffff\\]", location):
        raise BadAnswer("The redirect of the file leads nowhere: its link is empty or malformed.")
    try:
        target = URL(url).join(URL(location, encoded=True))
        host, port = target.host or "", target.port  # reading the port validates it
    except ValueError:
        raise BadAnswer("The redirect of the file leads nowhere: its link is malformed.") from None
    is_local = local and is_loopback(host)
    if target.user is not None or target.password is not None:
        raise BadAnswer(f"The redirect of the file to {host!r} carries a user name. It was not followed.")
    if not host or not (target.scheme == "https" or (target.scheme == "http" and is_local)):
        raise BadAnswer(f"The redirect of the file to {target.scheme}://{host} is not https. It was not followed.")
    if port != 443 and not is_local:
        raise BadAnswer(f"The redirect of the file leads to port {port} of {host}. It was not followed.")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return target  # a name: the resolver checks its addresses
    if not may_be_called(host, local=local):
        raise BadAnswer(f"The redirect of the file leads to {host}, which is no public address. It was not followed.")
    return target


def may_be_called(address: str, *, local: bool) -> bool:
    """Whether `address` is a public one, or of this machine where `local` allows it."""
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None)
        if inner is None and found in _NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None:
            return may_be_called(str(inner), local=local)
    if found.is_loopback:
        return local
    return found.is_global and not found.is_multicast and not found.is_reserved


class _CheckedResolver(ThreadedResolver):
    """Resolves names, and refuses those with an address that may not be called."""

    def __init__(self, *, local: bool) -> None:
        super().__init__()
        self._local = local

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = 0,  # type: ignore[assignment]
    ) -> list[ResolveResult]:
        found = await super().resolve(host, port, family)
        for each in found:
            if not may_be_called(each["host"], local=self._local):
                raise BadAnswer(f"{host} leads to {each['host']}, which is no public address. It was not called.")
        return found
