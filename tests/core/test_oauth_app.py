"""Which app a login is for: where each value comes from, and every message that refuses one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from pdsync.core import config
from pdsync.core.oauth_app import REDIRECT_URI, OAuthApp, check_scopes, find_app, missing_scopes
from pdsync.core.secret_store import Grant
from pdsync.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

AUTHORIZE, TOKEN = (f"https://oauth.pipedrive.com/oauth/{name}" for name in ("authorize", "token"))
GRANT = Grant(
    client_id="app-1",
    client_secret="s3cret-of-app-1",
    access_token="an-access-token",
    refresh_token="a-refresh-token",
    renew_at=0.0,
    expires_at=0.0,
    api_domain="",
    company_id=5550,
    authorize_url="https://proxy.example/authorize",
    token_url="https://proxy.example/token",
    redirect_uri="https://hooks.example.com/pd",
    scopes=("base", "deals:read"),
)


def found(
    folder: Path,
    stored: Grant | None = None,
    /,
    *,
    toml: str = "",
    base_url: str = "https://acme.pipedrive.com",
    **flags: Any,
) -> OAuthApp:
    """The app that these settings and the stored grant make."""
    (folder / "pdsync.toml").write_text(f"[oauth]\n{toml}\n")
    named = {f"oauth.{name}": value for name, value in flags.items()}
    return find_app(config.load(folder, {"account.base_url": base_url, **named}), stored)


def test_only_a_client_id_is_needed(tmp_path: Path) -> None:
    app = found(tmp_path, client_id="app-1")
    assert app == OAuthApp(client_id="app-1", authorize_url=AUTHORIZE, token_url=TOKEN, redirect_uri=REDIRECT_URI)


def test_a_local_server_is_its_own_oauth_server(tmp_path: Path) -> None:
    app = found(tmp_path, base_url="http://127.0.0.1:8765", client_id="app-1")
    assert app.authorize_url == "http://127.0.0.1:8765/oauth/authorize"
    assert app.token_url == "http://127.0.0.1:8765/oauth/token"


def test_every_value_is_taken_from_an_option_else_the_environment_else_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {
        "client_id": ("one", "two", "three"),
        "authorize_url": tuple(f"https://oauth{n}.pipedrive.com/a" for n in (1, 2, 3)),
        "token_url": tuple(f"https://oauth{n}.pipedrive.com/t" for n in (1, 2, 3)),
        "redirect_uri": tuple(f"https://hooks{n}.example.com/pd" for n in (1, 2, 3)),
        "scopes": ("base", "deals:read", "leads:read"),
    }
    toml = "\n".join(f'{name} = "{texts[0]}"' for name, texts in values.items())

    def expected(which: int) -> OAuthApp:
        texts = {name: each[which] for name, each in values.items()}
        return msgspec.convert({**texts, "scopes": (texts["scopes"],)}, OAuthApp)

    assert found(tmp_path, toml=toml) == expected(0)
    for name, texts in values.items():
        monkeypatch.setenv(f"PDSYNC_{name.upper()}", texts[1])
    assert found(tmp_path, toml=toml) == expected(1)
    assert found(tmp_path, toml=toml, **{name: texts[2] for name, texts in values.items()}) == expected(2)


def test_a_further_login_needs_nothing(tmp_path: Path) -> None:
    assert found(tmp_path, GRANT) == OAuthApp(
        client_id="app-1",
        client_secret="s3cret-of-app-1",
        authorize_url=GRANT.authorize_url,
        token_url=GRANT.token_url,
        redirect_uri=GRANT.redirect_uri,
        scopes=GRANT.scopes,
    )
    assert found(tmp_path, GRANT, scopes="").scopes == ()
    assert found(tmp_path, GRANT, redirect_uri="").redirect_uri == REDIRECT_URI


def test_another_app_takes_nothing_of_the_stored_one(tmp_path: Path) -> None:
    app = found(tmp_path, GRANT, client_id="app-2")
    assert app == OAuthApp(client_id="app-2", authorize_url=AUTHORIZE, token_url=TOKEN)


def test_x3_a_stored_secret_goes_to_no_other_token_url(tmp_path: Path) -> None:
    assert found(tmp_path, GRANT, token_url="https://other.example/token").client_secret == ""
    assert found(tmp_path, GRANT, token_url=GRANT.token_url).client_secret == GRANT.client_secret
    # A grant from before the token URL was stored has that of the documents.
    older = msgspec.structs.replace(GRANT, token_url="", authorize_url="", redirect_uri="", scopes=())
    assert found(tmp_path, older) == OAuthApp(
        client_id="app-1", client_secret=GRANT.client_secret, authorize_url=AUTHORIZE, token_url=TOKEN
    )


def test_the_redirect_uri_may_stand_in_the_authorize_url(tmp_path: Path) -> None:
    url = f"{AUTHORIZE}?tenant=7&redirect_uri=https%3A%2F%2Fhooks.example.com%2Fpd%3Fa%3Db"
    app = found(tmp_path, client_id="app-1", authorize_url=url)
    assert (app.authorize_url, app.redirect_uri) == (f"{AUTHORIZE}?tenant=7", "https://hooks.example.com/pd?a=b")
    assert found(tmp_path, GRANT, authorize_url=url).redirect_uri == "https://hooks.example.com/pd?a=b"
    assert found(tmp_path, client_id="app-1", authorize_url=url, redirect_uri=app.redirect_uri) == app


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"client_id": ""}, r"needs --client-id \(or PDSYNC_CLIENT_ID\)"),
        ({"client_id": "a:b"}, "colons"),
        ({"client_id": "a b"}, "blanks"),
        ({"redirect_uri": "http://evil.example:80/callback"}, r"readable to evil\.example: http:// is for this"),
        ({"redirect_uri": "http://192.168.0.7:8723/callback"}, "readable"),
        ({"redirect_uri": "127.0.0.1:8723"}, r"It is written like http://127\.0\.0\.1:8723/callback"),
        ({"redirect_uri": "urn:ietf:wg:oauth:2.0:oob"}, "It is written like"),
        ({"redirect_uri": "myapp://callback"}, "It is written like"),
        ({"redirect_uri": "https://127.0.0.1:99999/x"}, "It is written like"),
        ({"redirect_uri": "https://me:pass@hooks.example.com/x"}, r"//…@hooks\.example\.com"),
        ({"redirect_uri": "https://hooks.example.com/x#y"}, "It is written like"),
        ({"redirect_uri": "https://hooks.example.com/a b"}, "It is written like"),
        ({"authorize_url": "http://oauth.pipedrive.com/oauth/authorize"}, r"authorize URL is http://.*use https://"),
        (
            {"token_url": "http://oauth.pipedrive.com/oauth/token"},
            r"token URL is http://.*Secrets would travel readable",
        ),
        ({"token_url": "https://me:pass@oauth.pipedrive.com/t"}, r"token URL is https://…@oauth"),
        ({"token_url": "https://oauth.pipedrive.com"}, "It is written like"),
        ({"token_url": "ftp://oauth.pipedrive.com/t"}, "use https://"),
        ({"token_url": f"{TOKEN}?client_secret=pass"}, r"The token URL has a query"),
        ({"authorize_url": f"{AUTHORIZE}?state=x"}, "The authorize URL sets state"),
        ({"authorize_url": f"{AUTHORIZE}?scope=base&client_id=x"}, "sets client_id, scope"),
        ({"authorize_url": f"{AUTHORIZE}?redirect_uri=a&redirect_uri=b"}, "more than one redirect_uri"),
        ({"authorize_url": f"{AUTHORIZE}?redirect_uri=http://evil.example/"}, "http:// is for this machine"),
        ({"authorize_url": f"{AUTHORIZE}?redirect_uri=https://a.example/", "redirect_uri": REDIRECT_URI}, "Give one"),
        ({"scopes": "base deals:write"}, r"There is no scope 'deals:write'\. Did you mean 'deals:read'"),
        ({"scopes": "zzz"}, r"There is no scope 'zzz'\. There are activities:full, "),
    ],
)
def test_what_can_not_work_is_refused_with_the_reason(tmp_path: Path, flags: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"(?s){message}") as caught:
        found(tmp_path, **{"client_id": "app-1", **flags})
    assert "pass" not in str(caught.value)


@pytest.mark.parametrize("name", ["token_url", "authorize_url"])
@pytest.mark.parametrize("host", ["evil.example", "pipedrive.com.evil.example", "evilpipedrive.com"])
def test_x3_a_file_of_the_project_can_not_name_another_oauth_server(tmp_path: Path, name: str, host: str) -> None:
    url = f"https://{host}/oauth"
    with pytest.raises(ConfigError, match=rf"pdsync\.toml names {host} for the .*\n.*--{name.replace('_', '-')} {url}"):
        found(tmp_path, toml=f'client_id = "app-1"\n{name} = "{url}"')
    assert getattr(found(tmp_path, client_id="app-1", **{name: url}), name) == url  # a person may


@pytest.mark.parametrize("url", ["https://eu.pipedrive.com/oauth/token", "http://127.0.0.1:8765/oauth/token"])
def test_a_file_of_the_project_may_name_pipedrive_and_this_machine(tmp_path: Path, url: str) -> None:
    assert found(tmp_path, toml=f'client_id = "app-1"\ntoken_url = "{url}"').token_url == url


def test_scopes_are_divided_by_blanks_or_commas_and_count_once() -> None:
    assert check_scopes(" base  deals:full,leads:read\nbase ") == ("base", "deals:full", "leads:read")
    assert check_scopes(" ") == ()


@pytest.mark.parametrize(
    ("wanted", "granted", "missing"),
    [
        (("base", "deals:read"), ("base", "deals:full"), []),
        (("deals:full",), ("base", "deals:read"), ["deals:full"]),
        (("admin", "base"), ("base",), ["admin"]),
        ((), (), []),
    ],
)
def test_full_covers_read(wanted: tuple[str, ...], granted: tuple[str, ...], missing: list[str]) -> None:
    assert missing_scopes(wanted, granted) == missing


def test_x2_the_app_is_never_printed_with_its_secret() -> None:
    values: dict[str, Any] = {"client_id": "app-1", "authorize_url": AUTHORIZE, "token_url": TOKEN}
    assert "s3cret" not in repr(OAuthApp(client_secret="s3cret-of-app-1", **values))
