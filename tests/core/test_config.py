"""Where settings come from, which of them win, and every message that refuses one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pdsync.core import config
from pdsync.core.config import SETTINGS, check_base_url, is_loopback, load
from pdsync.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from pdsync.core.config import Settings


def filed(folder: Path, text: str) -> Settings:
    (folder / "pdsync.toml").write_text(text, encoding="utf-8")
    return load(folder)


def attribute(settings: Settings, key: str) -> object:
    """A setting by its dotted name."""
    table, _, name = key.partition(".")
    if table == "oauth":
        return getattr(settings.oauth, name)
    return {"account.base_url": settings.base_url, "warehouse.path": settings.warehouse, "raw.path": settings.raw}.get(
        key, getattr(settings, name, None)
    )


VALUES: dict[str, tuple[str | int, str | int, str | int]] = {
    "account.base_url": ("https://one.pipedrive.com", "https://two.pipedrive.com", "https://three.pipedrive.com"),
    "account.api": ("v1", "v1", "v1"),
    "warehouse.path": ("one.duckdb", "two.duckdb", "three.duckdb"),
    "raw.path": ("one", "two", "three"),
    "limits.burst": (1, 2, 3),
    "limits.daily_tokens": (1, 2, 3),
    "limits.concurrency": (1, 2, 3),
    "limits.dependents_share": (10, 20, 30),
    "sync.overlap_s": (1, 2, 3),
    "sync.verify_cycle": (1, 2, 3),
    "retention.raw_days": (1, 2, 3),
    "sales.timezone": ("Europe/Berlin", "Asia/Tokyo", "UTC"),
    "oauth.client_id": ("one", "two", "three"),
    "oauth.authorize_url": ("https://one/a", "https://two/a", "https://three/a"),
    "oauth.token_url": ("https://one/t", "https://two/t", "https://three/t"),
    "oauth.redirect_uri": ("https://one/r", "https://two/r", "https://three/r"),
    "oauth.scopes": ("base", "admin", "deals:read"),
}


@pytest.mark.parametrize("key", SETTINGS)
def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    def expected(value: str | int) -> object:
        return tmp_path / str(value) if key.endswith(".path") else value

    in_file, in_environment, in_flag = VALUES[key]
    settings = load(tmp_path)
    assert (attribute(settings, key), settings.origins[key]) == (expected(SETTINGS[key].default), "default")

    table, _, name = key.partition(".")
    settings = filed(tmp_path, f"[{table}]\n{name} = {in_file!r}\n")
    assert (attribute(settings, key), settings.origins[key]) == (expected(in_file), "pdsync.toml")

    monkeypatch.setenv(SETTINGS[key].env, "")
    assert load(tmp_path).origins[key] == "pdsync.toml"  # an empty variable is none

    monkeypatch.setenv(SETTINGS[key].env, str(in_environment))
    settings = load(tmp_path, {key: None})
    assert (attribute(settings, key), settings.origins[key]) == (expected(in_environment), "environment")

    settings = load(tmp_path, {key: in_flag})
    assert (attribute(settings, key), settings.origins[key]) == (expected(in_flag), "flag")
    assert settings.origins.keys() == SETTINGS.keys()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[limits]\nbrust = 3", r"pdsync\.toml: unknown setting 'limits\.brust'\. Did you mean 'limits\.burst'\?"),
        ("[zzzzzz]\nqqqqqq = 3", r"unknown setting 'zzzzzz\.qqqqqq'\. The settings are: account\.base_url, "),
        ("api_token = 'x'", r"'api_token' is outside a \[table\]"),
        ("burst = 3", r"'burst' is outside a \[table\]\. Did you mean 'limits\.burst'\?"),
        ("[account]\napi_token = 'abc'", r"account\.api_token is a secret, and this file may be shared"),
        ("[account]\nrefresh_token = 'abc'", "pdsync auth login"),
        ("[oauth]\nclient_secret = 'abc'", r"oauth\.client_secret is a secret"),
        ("[limits\nburst = 3", r"is not valid TOML: .*line 1.*\.\nMend that line"),
        ("[limits]\nburst = 'many'", r"limits\.burst is 'many' \(pdsync\.toml\)\. It is a whole number from 0 on"),
        ("[limits]\nburst = -1", r"limits\.burst is -1 \(pdsync\.toml\)\. It is a whole number from 0 on"),
        ("[limits]\nburst = 2.5", r"limits\.burst is 2\.5"),
        ("[limits]\nburst = true", r"limits\.burst is True"),
        ("[limits]\nburst = inf", r"limits\.burst is inf"),
        ("[limits]\nconcurrency = 0", r"limits\.concurrency is 0 .*from 1 on"),
        ("[sync]\noverlap_s = 99999999999", r"sync\.overlap_s is 99999999999 .*from 0 to 316,224,000\."),
        ("[sync]\nverify_cycle = 9999999", r"sync\.verify_cycle is 9999999 .*from 0 to 36,500\."),
        ("[retention]\nraw_days = 9999999", r"retention\.raw_days is 9999999 .*from 0 to 36,500\."),
        ('[raw]\npath = "a\\u0000b"', r"raw\.path is 'a\\x00b'\. No path has a NUL character"),
        ('[warehouse]\npath = "a\\u0000b"', r"warehouse\.path is .* No path has a NUL character"),
        ("[raw]\npath = 3", r"raw\.path is 3 \(pdsync\.toml\)\. It is a text: put it in quotes"),
        ("[account]\napi = 'v3'", r"account\.api is 'v3' \(pdsync\.toml\)\. It is v1 or v2"),
    ],
)
def test_what_the_file_says_wrong_is_named_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        filed(tmp_path, text)


def test_x2_a_secret_in_the_file_is_not_repeated_in_the_message(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        filed(tmp_path, "[account]\ntoken = 'c4n4ry-0123'\n")
    assert "c4n4ry" not in str(caught.value)


@pytest.mark.parametrize("value", ["many", "-1", "2.5", " ", "0x10"])
def test_what_the_environment_says_wrong_is_named_by_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("PDSYNC_BURST", value)
    with pytest.raises(ConfigError, match=r"limits\.burst is .* \(PDSYNC_BURST\)\. It is a whole number"):
        load(tmp_path)


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "pdsync.toml").write_bytes(b"\xff\xfe[limits]")
    with pytest.raises(ConfigError, match=r"pdsync\.toml can't be read"):
        load(tmp_path)


def test_paths_are_relative_to_the_project_whatever_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    settings = filed(project, "[warehouse]\npath = 'a/w.duckdb'\n[raw]\npath = '/srv/raw'\n")
    assert settings.warehouse == project / "a" / "w.duckdb"
    assert str(settings.raw) == "/srv/raw"
    assert settings.state == project / "a"
    assert settings.control == project / "a" / "control.db"
    assert load(tmp_path / "elsewhere" / ".." / "project", {"raw.path": "~/raw"}).raw.is_absolute()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load(project, {"raw.path": "~/raw"}).raw == tmp_path / "raw"


def test_nothing_is_created_by_looking(tmp_path: Path) -> None:
    load(tmp_path / "not there")
    assert list(tmp_path.iterdir()) == []


# Where a token may be sent.


@pytest.mark.parametrize(
    ("url", "result"),
    [
        ("https://acme.pipedrive.com", "https://acme.pipedrive.com"),
        ("https://acme.pipedrive.com/", "https://acme.pipedrive.com"),
        ("acme.pipedrive.com", "https://acme.pipedrive.com"),
        ("https://ACME.Pipedrive.com", "https://ACME.Pipedrive.com"),
        ("https://acme.pipedrive.com/v1", "https://acme.pipedrive.com"),
        ("https://acme.pipedrive.com/api/v2/", "https://acme.pipedrive.com"),
        ("https://pipedrive.com", "https://pipedrive.com"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("http://localhost:8000/api/v1", "http://localhost:8000"),
    ],
)
def test_hosts_that_a_file_may_name(tmp_path: Path, url: str, result: str) -> None:
    settings = filed(tmp_path, f"[account]\nbase_url = {url!r}\n")
    assert settings.base_url == result


FOREIGN = [
    "https://evil.example",
    "https://pipedrive.com.evil.example",
    "https://evilpipedrive.com",
    "https://pipedrive.com.",
    "https://xn--pipedriv-e1a.com",
    "https://169.254.169.254",
    "https://0.0.0.0",
]
NEVER = [
    ("http://acme.pipedrive.com", "travel readable"),
    ("http://localhost.evil.example", "travel readable"),
    ("http://10.0.0.1", "travel readable"),
    ("ftp://acme.pipedrive.com", "travel readable"),
    ("https://acme.pipedrive.com@evil.example", "It is written like"),
    ("https://user:pw@acme.pipedrive.com", "It is written like"),
    ("https://evil.example\\@acme.pipedrive.com", "It is written like"),
    ("https://evil.example#.pipedrive.com", "It is written like"),
    ("https://evil.example?.pipedrive.com", "It is written like"),
    ("https://acme.pipedrive.com:https", "It is written like"),
    ("https://acme.pipedrive.com:99999", "It is written like"),
    ("https://", "It is written like"),
    ("https://[::1", "It is written like"),
    ("https://acme..pipedrive.com", "It is written like"),
    ("https://.pipedrive.com", "It is written like"),
    (f"https://{'acme-corp' * 8}.pipedrive.com", "It is written like"),
    (f"https://{'ü' * 63}.pipedrive.com", "It is written like"),
    ("https://evil.example\uff0f.pipedrive.com", "It is written like"),
    ("https://acme.pipedrive.com/deals", "It ends after the host"),
    ("https://acme.pipedrive.com/v1/../steal", "It ends after the host"),
]


@pytest.mark.parametrize("url", FOREIGN)
def test_x3_a_foreign_host_needs_more_than_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    with pytest.raises(ConfigError, match="which is not Pipedrive") as caught:
        filed(tmp_path, f"[account]\nbase_url = {url!r}\n")
    assert f"PDSYNC_BASE_URL={url}" in str(caught.value)
    assert load(tmp_path, {"account.base_url": url}).base_url == url
    monkeypatch.setenv("PDSYNC_BASE_URL", url)
    assert load(tmp_path).base_url == url


@pytest.mark.parametrize(("url", "message"), NEVER)
def test_x3_no_token_goes_there_from_any_origin(url: str, message: str) -> None:
    for trusted in (True, False):
        with pytest.raises(ConfigError, match=message):
            check_base_url(url, trusted=trusted)


@pytest.mark.parametrize(
    "url",
    [
        "https://acme.pipedrive.com/?api_token=C4N4RY",
        "https://acme.pipedrive.com?C4N4RY",
        "acme.pipedrive.com#C4N4RY",
        "https://C4N4RY@acme.pipedrive.com",
        "https://C4N4RY:C4N4RY@acme.pipedrive.com/v1",
        "https://me:C4N4RY@127.0.0.1:8000",
        "https://acme.pipedrive.com/v1/deals;api_token=C4N4RY",
        "https://acme.pipedrive.com/C4N4RY",
        "http://acme.pipedrive.com:80/%3Fapi_token=C4N4RY",
        "ftp://acme.pipedrive.com/C4N4RY",
        "https://[::1?api_token=C4N4RY",
        "api_token=C4N4RY",
        "C4N4RY" + "0123456789abcdef" * 2,
        "https://evil.example/v1?C4N4RY",
    ],
)
def test_x2_an_address_with_a_token_is_refused_and_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("PDSYNC_BASE_URL", url)
    with pytest.raises(ConfigError, match=r"account\.base_url is") as caught:
        load(tmp_path)
    assert "C4N4RY" not in str(caught.value)
    monkeypatch.delenv("PDSYNC_BASE_URL")
    with pytest.raises(ConfigError) as caught:
        filed(tmp_path, f"[account]\nbase_url = {url!r}\n")
    assert "C4N4RY" not in str(caught.value)


@pytest.mark.parametrize("key", ["PDSYNC_API", "PDSYNC_BURST", "PDSYNC_CONCURRENCY"])
def test_x2_a_token_in_the_wrong_variable_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    token = "c4n4" * 10
    monkeypatch.setenv(key, token.replace("n", "a"))
    with pytest.raises(ConfigError, match=r"\[not shown\]") as caught:
        load(tmp_path)
    assert token.replace("n", "a") not in str(caught.value)


def test_this_machine_is_known_by_its_addresses() -> None:
    assert all(map(is_loopback, ["localhost", "127.0.0.1", "127.8.9.1", "::1"]))
    assert not any(map(is_loopback, ["", "localhost.", "10.0.0.1", "::2", "127.0.0.1.evil.example", "example.com"]))


def test_each_setting_has_a_variable_of_its_own() -> None:
    assert len({setting.env for setting in SETTINGS.values()}) == len(SETTINGS) == len(VALUES)
    assert not [name for name in os.environ if name in {setting.env for setting in config.SETTINGS.values()}]


def test_an_unknown_time_zone_is_refused_with_a_guess(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"sales\.timezone is 'Europe/Belin' \(flag\).*Did you mean 'Europe/Berlin'"):
        load(tmp_path, {"sales.timezone": "Europe/Belin"})
