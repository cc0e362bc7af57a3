"""fleet.toml: what it may say, what it refuses, and where an account's token comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pdsync.errors import AuthError, ConfigError
from pdsync.fleet import accounts
from pdsync.fleet.accounts import Account, Fleet

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = "0123456789abcdef0123456789abcdef01234567"


def write(folder: Path, text: str) -> Fleet:
    (folder / "fleet.toml").write_text(text, encoding="utf-8")
    return accounts.load(folder)


def test_defaults_hold_for_every_account_that_does_not_say_otherwise(tmp_path: Path) -> None:
    fleet = write(
        tmp_path,
        """
        [fleet]
        folder = "companies"
        processes = 3
        store = "s3://bucket/prefix/"
        rollup = ["deals"]
        timeout = "30m"
        [defaults]
        base_url = "https://{name}.pipedrive.com"
        token = "env:TOKEN_{NAME}"
        tags = ["all"]
        burst = 40
        [accounts.acme-eu]
        [accounts.beta]
        base_url = "http://127.0.0.1:8765"
        token = "file:secrets/{name}"
        pipeline = "hourly"
        tags = ["emea", "trial"]
        burst = 0
        daily_tokens = 5000
        concurrency = 2
        timezone = "Europe/Berlin"
        folder = "elsewhere/beta"
        """,
    )
    assert list(fleet.accounts) == ["acme-eu", "beta"]
    assert fleet.accounts["acme-eu"] == Account(
        "acme-eu",
        tmp_path / "companies/acme-eu",
        "https://acme-eu.pipedrive.com",
        "env:TOKEN_ACME_EU",
        "",
        ("all",),
        40,
    )
    assert fleet.accounts["beta"] == Account(
        "beta", tmp_path / "elsewhere/beta", "http://127.0.0.1:8765", f"file:{tmp_path}/secrets/beta", "hourly",
        ("emea", "trial"), 0, 5000, 2, "Europe/Berlin",
    )  # fmt: skip
    assert (fleet.processes, fleet.store, fleet.rollup, fleet.timeout_s) == (3, "s3://bucket/prefix", ("deals",), 1800)
    assert fleet.data == tmp_path / "data/fleet"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[accounts.a", ["not valid TOML", "twice"]),
        ("[accounts.a]\n[accounts.a]", ["not valid TOML", "twice"]),
        ("", ["has no account", "[accounts.NAME]"]),
        ("accounts = 3", ["has no account"]),
        ("[fleet]", ["has no account"]),
        ("[fleets]\n[accounts.a]", ["unknown table [fleets]", "'fleet'"]),
        ("[fleet]\nprocess = 3\n[accounts.a]", ["[fleet]", "`process`", "'processes'"]),
        ("[fleet]\nprocesses = -3\n[accounts.a]", ["processes is -3"]),
        ("[fleet]\ntimeout = 'soon'\n[accounts.a]", ["timeout is 'soon'", '"90s"']),
        ("[fleet]\ntimeout = 0\n[accounts.a]", ["timeout is 0"]),
        ("[fleet]\nrollup = ['dealz']\n[accounts.a]", ["rollup", "'dealz'", "'deals'"]),
        ("[defaults]\nfolder = 'x'\n[accounts.a]", ["[defaults]", "`folder`"]),
        ("[defaults]\ntokens = 'x'\n[accounts.a]", ["[defaults]", "`tokens`", "'token'"]),
        ("[accounts.a]\nbudget = 3", ["[accounts.a]", "`budget`", "daily_tokens"]),
        ("[accounts.a]\nburst = 'many'", ["[accounts.a]", "$.burst"]),
        ("[accounts.a]\nburst = -1", ["[accounts.a]", "burst is -1", "from 0 on"]),
        ("[accounts.a]\nconcurrency = 0", ["[accounts.a]", "concurrency is 0", "from 1 on"]),
        ("[accounts]\na = 3", ["[accounts.a]", "not a table"]),
        ("[accounts.'a b']", ["'a b'", "letters, digits"]),
        ("[accounts.'../a']", ["'../a'", "letters, digits"]),
        ("[accounts.Rollup]", ["'Rollup'", "rollup"]),
        ("[accounts.a]\nbase_url = 'https://example.org'", ["[accounts.a]", "fleet.toml sends", "env:NAME"]),
        ("[accounts.a]\nbase_url = 'http://a.pipedrive.com'", ["[accounts.a]", "readable"]),
        ("[accounts.a]\nbase_url = 'env:NO_SUCH_URL'", ["[accounts.a]", "NO_SUCH_URL"]),
        ("[accounts.a]\nfolder = 'x'\n[accounts.b]\nfolder = './x/'", ["a and b", "same folder"]),
        ("[accounts.a]\n[accounts.A]", ["a and A", "same folder"]),
        ("[accounts.a]\n[accounts.b]\nfolder = 'accounts/a/data'", ["account b is in that of account a"]),
    ],
)
def test_what_is_wrong_is_refused_with_file_account_key_and_what_to_do(
    tmp_path: Path, text: str, parts: list[str]
) -> None:
    with pytest.raises(ConfigError) as error:
        write(tmp_path, text)
    assert str(tmp_path / "fleet.toml") in str(error.value)
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        f"token = '{TOKEN}'",
        f"token = 'env:{TOKEN}'",
        f"token = 'env:A{TOKEN}'",
        f"token = 'file:{TOKEN}'",
        f"token = 'keyring:{TOKEN}'",
        f"api_token = '{TOKEN}'",
        f"base_url = 'https://x:{TOKEN}@a.pipedrive.com'",
        f"base_url = 'https://a.pipedrive.com?api_token={TOKEN}'",
    ],
)
@pytest.mark.parametrize("table", ["defaults", "accounts.a"])
def test_x2_a_secret_in_the_file_is_refused_and_not_shown(tmp_path: Path, text: str, table: str) -> None:
    with pytest.raises(ConfigError) as error:
        write(tmp_path, f"[{table}]\n{text}\n" + ("[accounts.a]" if table == "defaults" else ""))
    assert TOKEN not in str(error.value)


@pytest.mark.parametrize("store", ["gs://bucket", "az://account/container", "abfss://container/x"])
def test_x3_the_file_can_not_send_the_credentials_of_a_store_elsewhere(tmp_path: Path, store: str) -> None:
    text = f"[fleet]\nstore = '{store}'\nendpoint = '{{}}'\n[accounts.a]"
    with pytest.raises(ConfigError, match=r"GOOGLE_BASE_URL|AZURE_STORAGE_ENDPOINT"):
        write(tmp_path, text.format("https://example.org"))
    assert write(tmp_path, text.format("http://127.0.0.1:9000")).endpoint == "http://127.0.0.1:9000"


def test_accounts_are_selected_by_name_and_by_tag(tmp_path: Path) -> None:
    fleet = write(tmp_path, "[accounts.a]\ntags=['x']\n[accounts.b]\ntags=['x','y']\n[accounts.c]")
    for names, tags, selected in [
        ((), (), ["a", "b", "c"]),
        (("c", "a"), (), ["a", "c"]),
        ((), ("y",), ["b"]),
        ((), ("x", "y"), ["a", "b"]),
        (("a", "c"), ("x",), ["a"]),
    ]:
        assert [account.name for account in fleet.select(names, tags)] == selected
    with pytest.raises(ConfigError, match="no account 'd'"):
        fleet.select(("d",))
    with pytest.raises(ConfigError, match=r"no account has the tag 'xx'\. Did you mean 'x'"):
        fleet.select((), ("xx",))


def test_a_fleet_without_a_file_says_how_to_begin(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no .*/fleet.toml.*\n.*\[accounts.NAME\]"):
        accounts.load(tmp_path)


def test_the_environment_of_an_account_has_its_settings_and_nothing_of_another_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN_OF_A", f" {TOKEN}\n")
    other = {"PDSYNC_API_TOKEN": "other", "PDSYNC_WAREHOUSE": "/other", "PDSYNC_RAW_DAYS": "3", "PATH": "/bin"}
    account = Account("a", tmp_path, "http://127.0.0.1:1", "env:TOKEN_OF_A", burst=0, timezone="Asia/Tokyo")
    assert accounts.environment(account, other) == {
        "PATH": "/bin",
        "PDSYNC_RAW_DAYS": "3",
        "PDSYNC_BASE_URL": "http://127.0.0.1:1",
        "PDSYNC_BURST": "0",
        "PDSYNC_TIMEZONE": "Asia/Tokyo",
        "PDSYNC_API_TOKEN": TOKEN,
    }
    assert accounts.environment(Account("a", tmp_path), other) == {"PATH": "/bin", "PDSYNC_RAW_DAYS": "3"}


def test_x2_a_token_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    account = Account("a", tmp_path, token=f"file:{secret}")
    with pytest.raises(AuthError, match=r"Account a: .*secret.* does not exist"):
        accounts.resolve_token(account)
    secret.write_text(f"{TOKEN}\n")
    secret.chmod(0o644)
    with pytest.raises(AuthError, match="chmod 600"):
        accounts.resolve_token(account)
    secret.chmod(0o600)
    assert accounts.resolve_token(account) == TOKEN
    secret.write_text("\n")
    with pytest.raises(AuthError, match="is empty"):
        accounts.resolve_token(account)
    with pytest.raises(AuthError, match="NO_SUCH_TOKEN, which has its token, is not set"):
        accounts.resolve_token(Account("a", tmp_path, token="env:NO_SUCH_TOKEN"))
