"""The proxy that the environment names: when it is used, and what is refused without a word of its password."""

from __future__ import annotations

import pytest

from pdsync.core.proxy import Proxy, proxy_for
from pdsync.errors import ConfigError

URL = "https://acme.pipedrive.com"


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
