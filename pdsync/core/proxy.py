"""The proxy that HTTPS_PROXY (or ALL_PROXY) and NO_PROXY name.

Only https requests use one, in a tunnel (CONNECT): the proxy learns the host's name, and neither the token nor an
answer. http requests are sent to this machine only, without a proxy.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

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
    """The proxy for requests to `url`; None where there is none, or NO_PROXY exempts the host.

    Raises:
        ConfigError: the environment's proxy can't be used. Its password is not shown.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme != "https" or is_loopback(host) or proxy_bypass(host):
        return None
    proxies = getproxies()
    address = proxies.get("https") or proxies.get("all")
    if not address:
        return None
    try:
        proxy = urlsplit(address if "://" in address else f"http://{address}")
        hide(proxy.password)
        hide(unquote(proxy.password or ""))
        proxy_host, port = proxy.hostname, proxy.port or 80
    except ValueError:
        proxy, proxy_host, port = urlsplit(""), None, 0
    if proxy.scheme != "http" or not proxy_host:
        raise ConfigError(
            "HTTPS_PROXY (or ALL_PROXY) names no proxy that pdsync can use. Nothing was called.\n"
            "It is written like http://proxy.example.com:3128; what goes through it is encrypted all the same.\n"
            f"To call {host} without it: NO_PROXY={host}"
        )
    proxy_host = f"[{proxy_host}]" if ":" in proxy_host else proxy_host
    user = None if proxy.username is None else unquote(proxy.username)
    return Proxy(f"http://{proxy_host}:{port}", user, unquote(proxy.password or ""))


def proxy_options(proxy: Proxy | None) -> dict[str, Any]:
    """The arguments of aiohttp's `request` that send it through `proxy`."""
    if proxy is None:
        return {}
    if proxy.user is None:
        return {"proxy": proxy.url}
    encoded = base64.b64encode(f"{proxy.user}:{proxy.password}".encode()).decode()
    hide(encoded)
    return {"proxy": proxy.url, "proxy_headers": {"Proxy-Authorization": f"Basic {encoded}"}}


def certificate_message(where: str, error: Exception) -> str:
    """The message about a certificate that this machine does not trust."""
    reason = getattr(error, "verify_message", "") or str(error)
    return f"{where} shows a certificate that this machine does not trust ({reason})."
