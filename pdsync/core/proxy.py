"""The way out through a proxy, as HTTPS_PROXY (or ALL_PROXY) and NO_PROXY name it.

Only https goes through one, in a tunnel (CONNECT): the proxy learns the host's name, and neither the token nor an
answer. http is for this machine alone, and never leaves it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from msgspec import Struct

from pdsync.core.config import is_loopback
from pdsync.core.log import hide
from pdsync.errors import ConfigError

if TYPE_CHECKING:
    from typing import Any


OWN_CA = (
    "If your company's own authority signs for it (a proxy that looks inside does so): SSL_CERT_FILE=/path/to/ca.pem"
)


class Proxy(Struct, frozen=True):
    """A proxy; `url` contains no password."""

    url: str
    user: str | None = None
    password: str = ""

    def __repr__(self) -> str:
        return f"Proxy({self.url})"

    @property
    def host(self) -> str:
        """Its host's name."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """Its port."""
        return urlsplit(self.url).port or 80


def proxy_for(url: str) -> Proxy | None:
    """The proxy through which `url` is reached; None where there is none, or it is not to be used for that host.

    Raises:
        ConfigError: what the environment names is no proxy that can be used. Its password is not repeated.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme != "https" or is_loopback(host) or proxy_bypass(host):
        return None
    named = getproxies()
    given = named.get("https") or named.get("all")
    if not given:
        return None
    try:
        found = urlsplit(given if "://" in given else f"http://{given}")
        hide(found.password)
        hide(unquote(found.password or ""))
        where, port = found.hostname, found.port or 80
    except ValueError:
        found, where, port = urlsplit(""), None, 0
    if found.scheme != "http" or not where:
        raise ConfigError(
            "HTTPS_PROXY (or ALL_PROXY) names no proxy that pdsync can use. Nothing was called.\n"
            "It is written like http://proxy.example.com:3128; what goes through it is encrypted all the same.\n"
            f"To call {host} without it: NO_PROXY={host}"
        )
    where = f"[{where}]" if ":" in where else where
    user = None if found.username is None else unquote(found.username)
    return Proxy(f"http://{where}:{port}", user, unquote(found.password or ""))


def proxy_options(proxy: Proxy | None) -> dict[str, Any]:
    """The arguments of aiohttp's `request` that take it through `proxy`."""
    if proxy is None:
        return {}
    auth = None if proxy.user is None else aiohttp.BasicAuth(proxy.user, proxy.password, encoding="utf-8")
    return {"proxy": proxy.url, "proxy_auth": auth}


def certificate_message(where: str, error: Exception) -> str:
    """What to say of a certificate that this machine does not trust."""
    reason = getattr(error, "verify_message", "") or str(error)
    return f"{where} shows a certificate that this machine does not trust ({reason})."
