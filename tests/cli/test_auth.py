"""`pdsync auth login --oauth` as a command, with a browser and a server on sockets: what each option changes.

The browser is one of this process: it opens addresses over HTTP as the command asks the system's browser to.
"""

from __future__ import annotations

import io
import json
import os
import sys
import threading
import urllib.request
import webbrowser
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode, urlsplit

import keyring.backends.fail
import keyring.core
import msgspec
import pytest

from pdsync.cli.main import main
from pdsync.core import config, oauth, oauth_token, secret_store
from pdsync.core.control import Control
from pdsync.core.secret_store import Grant, StoredToken, Vault
from pdsync.sandbox import Limits, OAuthSettings, Sizes, generate_company, running
from tests.core.oauth_client import a_port
from tests.support.world import clean_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pdsync.sandbox import RunningSandbox

SECRET = "sandbox-secret"
TUNNEL = "https://tunnel.example.com/pd/callback"


@pytest.fixture(scope="module")
def pipedrive() -> Iterator[RunningSandbox]:
    with running(generate_company(seed=1, sizes=Sizes(deals=3)), limits=Limits(burst=None)) as box:
        yield box


@pytest.fixture
def box(pipedrive: RunningSandbox) -> Iterator[RunningSandbox]:
    pipedrive.oauth.settings = OAuthSettings()
    pipedrive.clear_log()
    yield pipedrive
    pipedrive.faults.clear()


class NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


class Browser(webbrowser.BaseBrowser):
    """Opens the address that it is given, and then the one that it is sent to, changed by `reroute`."""

    def __init__(self) -> None:
        super().__init__("person")
        self.opened: list[str] = []
        self.visited: list[str] = []
        self.pages: list[str] = []
        self.is_closed = threading.Event()
        self.reroute: Callable[[str], str] = lambda address: address

    def open(self, url: str, new: int = 0, autoraise: bool = True) -> bool:
        self.opened.append(url)
        self.visit(self.reroute(sent_to(url)))
        self.is_closed.set()
        return True

    def visit(self, address: str) -> None:
        self.visited.append(address)
        try:
            with urllib.request.urlopen(address, timeout=10) as page:
                self.pages.append(page.read().decode())
        except urllib.error.HTTPError as refusal:
            self.pages.append(refusal.read().decode())


def sent_to(url: str) -> str:
    """Where the consent page sends a browser that opens `url`."""
    try:
        urllib.request.build_opener(NoRedirects).open(url, timeout=10)
    except urllib.error.HTTPError as redirect:
        location: str = redirect.headers["Location"]
        return location
    raise AssertionError(f"{url} sends a browser nowhere")


def query_of(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


class Stdin(io.StringIO):
    """What a person or a program gives, computed when it is asked for."""

    def __init__(self, *lines: str | Callable[[], str], terminal: bool = False) -> None:
        super().__init__()
        self.lines, self.terminal = list(lines), terminal

    def isatty(self) -> bool:
        return self.terminal

    def readline(self, *_: Any) -> str:  # type: ignore[override]
        line = self.lines.pop(0)
        return f"{line if isinstance(line, str) else line()}\n"


class Person:
    """Somebody at a shell, in a folder, with a browser."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: Any, folder: Path, box: RunningSandbox) -> None:
        self.monkeypatch, self.capsys, self.folder, self.box = monkeypatch, capsys, folder, box
        self.browser = Browser()
        self.printed = ""  # all that was ever printed
        self.redirect_uri = f"http://127.0.0.1:{a_port()}/callback"
        monkeypatch.setattr(webbrowser, "_tryorder", ["person"])
        monkeypatch.setitem(webbrowser._browsers, "person", [None, self.browser])  # type: ignore[attr-defined]

    def runs(self, *arguments: str, stdin: Stdin | None = None, **environment: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of `pdsync *arguments`."""
        before = len(self.browser.opened)
        with self.monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["pdsync", *arguments])
            patch.setattr(sys, "stdin", stdin or Stdin())
            for name, value in environment.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                main()
        if len(self.browser.opened) > before:
            assert self.browser.is_closed.wait(10)
            self.browser.is_closed.clear()
        out, err = self.capsys.readouterr()
        self.printed += out + err
        assert isinstance(ended.value.code, int)
        return ended.value.code, out, err

    def logs_in(self, *options: str, **further: Any) -> tuple[int, str, str]:
        """As `runs`, of a login with the sandbox's app."""
        given = {"PDSYNC_CLIENT_ID": "sandbox-client", "PDSYNC_CLIENT_SECRET": SECRET}
        given["PDSYNC_REDIRECT_URI"] = self.redirect_uri
        return self.runs("auth", "login", "--oauth", *options, **{**given, **further})

    def shown_url(self) -> str:
        """The address that the running command with --json has shown last."""
        out, _ = self.capsys.readouterr()
        self.printed += out
        url: str = json.loads(out.splitlines()[-1])["url"]
        return url

    @property
    def grant(self) -> Grant | None:
        """What is stored."""
        stored = Vault(config.load(self.folder)).find()
        return stored.secret if stored and isinstance(stored.secret, Grant) else None


@pytest.fixture
def person(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, box: RunningSandbox
) -> Person:
    for name in set(os.environ) - clean_environment().keys():
        monkeypatch.delenv(name)
    monkeypatch.setenv("PDSYNC_BASE_URL", box.url)
    monkeypatch.setattr(keyring.core, "_keyring_backend", keyring.backends.fail.Keyring())  # type: ignore[no-untyped-call]
    monkeypatch.setattr(secret_store, "_silent", threading.Event())
    monkeypatch.setattr(oauth, "_ADOPT_S", 0.1)
    monkeypatch.setattr(oauth_token, "_BACKOFF_S", 0.01)
    monkeypatch.setattr(os, "umask", lambda mask: mask)
    monkeypatch.chdir(tmp_path)
    return Person(monkeypatch, capsys, tmp_path, box)


def exchanges(box: RunningSandbox) -> list[dict[str, str]]:
    """What the token URL was sent, without secrets."""
    return [query_of(f"?{seen.form}") for seen in box.log if seen.path.endswith("token")]


# A private app, in a browser on this machine.


def test_a_login_in_the_browser_and_a_further_one_that_needs_nothing(person: Person, box: RunningSandbox) -> None:
    options = ("--client-id", "sandbox-client", "--redirect-uri", person.redirect_uri, "--scopes", "base deals:read")
    code, out, err = person.runs("auth", "login", "--oauth", *options, "--client-secret", "-", stdin=Stdin(SECRET))
    assert (code, out) == (0, "")
    assert "Freya Clarke (an admin), of Northquay Instruments (5550)." in err
    assert "go back to the terminal" in person.browser.pages[0]
    asked = query_of(person.browser.opened[0])
    assert asked.pop("state") == query_of(f"?{box.log[0].query}")["state"]
    assert asked == {
        "response_type": "code",
        "client_id": "sandbox-client",
        "redirect_uri": person.redirect_uri,
        "scope": "base deals:read",
    }
    trade = {"grant_type": "authorization_code", "redirect_uri": person.redirect_uri, "client_id": "sandbox-client"}
    assert exchanges(box) == [trade]

    box.oauth.expire_access_tokens()  # renewed with the stored app
    code, out, _ = person.runs("auth", "status")
    assert code == 0
    assert "given to the app sandbox-client, with the scopes base, admin, deals:full, " in out
    assert exchanges(box)[1] == {"grant_type": "refresh_token", "client_id": "sandbox-client"}

    first = person.grant
    code, _, err = person.runs("auth", "login", "--oauth")
    assert code == 0
    assert "The client secret is that of the last login with this app." in err
    assert {**query_of(person.browser.opened[1]), "state": ""} == {**asked, "state": ""}
    assert first is not None
    assert person.grant is not None
    assert person.grant.access_token != first.access_token
    assert person.runs("auth", "logout")[0] == 0
    assert person.grant is None


def test_an_api_token_takes_the_place_of_a_grant(person: Person, box: RunningSandbox) -> None:
    assert person.logs_in()[0] == 0
    assert person.runs("auth", "login", "--token", "-", stdin=Stdin(box.token))[0] == 0
    stored = Vault(config.load(person.folder)).find()
    assert stored is not None
    assert isinstance(stored.secret, StoredToken)


def test_a_folder_stays_usable_after_a_logout(
    person: Person, box: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    (person.folder / "new").mkdir()
    monkeypatch.chdir(person.folder / "new")
    assert person.runs("auth", "login", "--token", "-", stdin=Stdin(box.token))[0] == 0
    assert person.runs("auth", "logout")[0] == 0
    monkeypatch.chdir(person.folder)
    assert "There is no token" in person.runs("--project", "new", "auth", "status")[2]
    assert person.runs("--project", "new", "auth", "login", "--token", "-", stdin=Stdin(box.token))[0] == 0


def test_the_settings_may_stand_in_the_project_and_the_secret_in_the_environment(
    person: Person, box: RunningSandbox
) -> None:
    (person.folder / "pdsync.toml").write_text(
        '[oauth]\nclient_id = "sandbox-client"\nscopes = "base deals:full"\n'
        f'redirect_uri = "{person.redirect_uri}"\n'
        f'authorize_url = "{box.url}/oauth/authorize?tenant=7"\ntoken_url = "{box.url}/oauth/token"\n'
    )
    code, _, err = person.runs("auth", "login", "--oauth", PDSYNC_CLIENT_SECRET=SECRET)
    assert code == 0, err
    asked = query_of(person.browser.opened[0])
    assert (asked["tenant"], asked["scope"], asked["redirect_uri"]) == ("7", "base deals:full", person.redirect_uri)
    (person.folder / "pdsync.toml").write_text('[oauth]\nclient_secret = "s3cret-in-a-file"\n')
    code, _, err = person.runs("auth", "login", "--oauth")
    assert code == 2
    assert "oauth.client_secret is a secret" in err
    assert "s3cret" not in err


# Each input has its effect.


def test_the_authorize_and_token_url_are_those_that_were_given(person: Person, box: RunningSandbox) -> None:
    with running(generate_company(seed=1, sizes=Sizes(deals=1)), limits=Limits(burst=None)) as proxy:
        code, _, err = person.logs_in("--authorize-url", f"{proxy.url}/oauth/authorize")
        assert code == 2
        assert "authorization_code is invalid" in err  # of another server than the token URL's
        assert [seen.path for seen in proxy.log] == ["/oauth/authorize"]
        assert [seen.path for seen in box.log] == ["/oauth/token"]
        code, _, err = person.logs_in("--token-url", f"{proxy.url}/oauth/token")
        assert code == 2
        assert [seen.path for seen in proxy.log] == ["/oauth/authorize", "/oauth/token"]
    assert person.grant is None


def test_a_redirect_uri_in_the_authorize_url_is_used(person: Person, box: RunningSandbox) -> None:
    overridden = f"http://127.0.0.1:{a_port()}/overridden"
    url = f"{box.url}/oauth/authorize?{urlencode({'redirect_uri': overridden})}"
    code, _, err = person.logs_in("--authorize-url", url, PDSYNC_REDIRECT_URI="")
    assert code == 0, err
    assert query_of(person.browser.opened[0])["redirect_uri"] == overridden
    assert person.browser.opened[0].count("redirect_uri=") == 1
    assert [sent["redirect_uri"] for sent in exchanges(box)] == [overridden]
    assert person.grant is not None
    assert person.grant.redirect_uri == overridden


def test_another_client_id_or_secret_is_refused_by_the_server(person: Person) -> None:
    code, _, err = person.logs_in(PDSYNC_CLIENT_SECRET="wrong-secret")
    assert code == 2
    assert "does not know this app, or its secret (invalid_client, Invalid client: client is invalid)" in err
    assert "wrong-secret" not in err
    assert person.grant is None


def test_scopes_that_the_app_lacks_are_named(person: Person, box: RunningSandbox) -> None:
    box.oauth.settings.scopes = "base deals:full"
    code, _, err = person.logs_in("--scopes", "base admin")
    assert code == 2
    assert "The app may not use admin: scopes belong to the app. Nothing was stored." in err
    assert query_of(f"?{box.log[0].query}")["scope"] == "base admin"
    assert person.grant is None


# Behind a tunnel, and without a browser.


def test_behind_a_tunnel_the_local_port_is_listened_on(person: Person, box: RunningSandbox) -> None:
    box.oauth.settings.redirect_uri = TUNNEL
    port = a_port()
    person.browser.reroute = lambda address: address.replace("https://tunnel.example.com", f"http://127.0.0.1:{port}")
    code, _, err = person.logs_in("--redirect-uri", TUNNEL, "--port", str(port))
    assert code == 0, err
    assert [sent["redirect_uri"] for sent in exchanges(box)] == [TUNNEL]


@pytest.mark.parametrize("redirect_uri", [TUNNEL, "http://127.0.0.1:8723/callback"])
def test_without_a_browser_the_address_is_pasted(person: Person, box: RunningSandbox, redirect_uri: str) -> None:
    pasted: list[str] = []

    def paste() -> str:
        pasted.append(sent_to(person.shown_url()))
        return pasted[0]

    stdin = Stdin(SECRET, paste)
    options = ("--paste", "--redirect-uri", redirect_uri, "--client-secret", "-", "--json")
    code, out, err = person.logs_in(*options, stdin=stdin)
    assert code == 0, err
    assert json.loads(out)["company_id"] == 5550
    assert person.browser.opened == []
    assert query_of(pasted[0])["code"] not in person.printed
    assert len(exchanges(box)) == 1


def test_a_pasted_address_of_another_login_is_refused(person: Person, box: RunningSandbox) -> None:
    address = f"{person.redirect_uri}?code=c0de-of-another&state=other"
    code, _, err = person.logs_in("--paste", stdin=Stdin(address))
    assert code == 2
    assert "The pasted address does not belong to this login: it has the state of another login" in err
    assert "c0de" not in err
    code, _, err = person.logs_in("--paste", stdin=Stdin(f"{person.redirect_uri}?error=access_denied"))
    assert "it has no state" in err
    assert exchanges(box) == []


# The Marketplace.


def install(person: Person, *options: str, visit_first: str = "", **further: Any) -> tuple[int, str, str]:
    """Log in while the app is installed from the Marketplace: its code comes when the command listens."""
    person.box.oauth.settings.redirect_uri = person.redirect_uri

    def open_all() -> None:
        wait_until_it_listens(person.redirect_uri)
        for address in [*filter(None, [visit_first]), person.box.oauth.install().headers["location"]]:
            person.browser.visit(address)

    visitor = threading.Thread(target=open_all)
    visitor.start()
    result = person.logs_in("--marketplace", *options, **further)
    visitor.join(10)
    return result


def wait_until_it_listens(redirect_uri: str) -> None:
    for _ in range(1000):
        try:
            urllib.request.urlopen(f"{redirect_uri}/elsewhere", timeout=1)
        except urllib.error.HTTPError:
            return
        except OSError:
            threading.Event().wait(0.01)


def test_an_installation_from_the_marketplace_needs_its_flag(person: Person, box: RunningSandbox) -> None:
    code, _, err = install(person)
    assert code == 0, err
    assert "Install the app from its page in Pipedrive's Marketplace" in err
    assert "The installation from the Marketplace is of Northquay Instruments (5550)." in err
    assert person.browser.opened == []  # the person installs it, the command opens nothing
    assert [seen.path for seen in box.log] == ["/oauth/token", "/v1/users/me", "/v1/users/me"]


def test_without_the_flag_an_installation_is_refused_and_the_login_goes_on(person: Person, box: RunningSandbox) -> None:
    box.oauth.settings.redirect_uri = person.redirect_uri

    def install_first(address: str) -> str:
        person.browser.visit(box.oauth.install().headers["location"])
        return address

    person.browser.reroute = install_first
    code, _, err = person.logs_in()
    assert code == 0, err
    assert "it has no state; an installation from the Marketplace needs --marketplace" in err
    assert person.browser.pages[0].startswith("This does not come from the login that pdsync began")
    assert person.browser.pages[1].startswith("pdsync has the authorisation")
    assert len(exchanges(box)) == 1


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 2)])
def test_x1_at_a_terminal_a_person_says_whether_it_is_the_right_company(person: Person, answer: str, code: int) -> None:
    ended, _, err = install(person, stdin=Stdin(answer, terminal=True))
    assert ended == code
    assert "The installation is of Northquay Instruments (5550). Is that your company?" in err
    assert (person.grant is None) is (code == 2)


def test_x1_an_installation_of_another_company_is_not_stored(person: Person) -> None:
    control = Control(person.folder / "data" / "control.db")
    control.bind_company(6660, "Somebody Else", None)
    control.close()
    code, _, err = install(person)
    assert code == 2
    assert "6660" in err
    assert person.grant is None


def test_x1_a_code_of_another_site_with_a_state_is_refused_with_the_flag_too(person: Person) -> None:
    code, _, err = install(person, visit_first=f"{person.redirect_uri}?code=evil&state=x")
    assert code == 0
    assert "it has the state of another login" in err
    assert "evil" not in err


# What is refused before anything is called.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--oauth",), "--oauth needs --client-id (or PDSYNC_CLIENT_ID)"),
        (("--oauth", "--token", "-"), "Give one of them"),
        (("--client-id", "app"), "--client-id goes with --oauth."),
        (("--scopes", "base"), "--scopes goes with --oauth."),
        (("--port", "1"), "--port goes with --oauth."),
        (("--paste",), "--paste goes with --oauth."),
        (("--marketplace",), "--marketplace goes with --oauth."),
        (("--oauth", "--client-id", "app", "--redirect-uri", "http://evil.example/x"), "http:// is for this machine"),
        (("--oauth", "--client-id", "app", "--redirect-uri", TUNNEL), "--port PORT"),
        (("--oauth", "--client-id", "app", "--paste", "--port", "1"), "--port listens, --paste does not"),
        (("--oauth", "--client-id", "app", "--scopes", "deals:write"), "Did you mean 'deals:read'"),
        (("--oauth", "--client-id", "app", "--token-url", "http://evil.example/t"), "Secrets would travel readable"),
        (("--oauth", "--client-id", "app", "--authorize-url", "https://a.example/a?state=x"), "sets state"),
        (("--oauth", "--client-id", "app", "--port", "0"), "0 is not in the range"),
    ],
)
def test_what_can_not_work_calls_nothing(
    person: Person, box: RunningSandbox, options: tuple[str, ...], message: str
) -> None:
    code, _, err = person.runs("auth", "login", *options)  # nor is a secret asked for, which no one gives here
    assert code == 2
    assert message in err
    assert box.log == []
    assert person.browser.opened == []


def test_x3_a_file_of_the_project_can_not_send_the_secret_elsewhere(person: Person) -> None:
    (person.folder / "pdsync.toml").write_text('[oauth]\nclient_id = "a"\ntoken_url = "https://evil.example/token"\n')
    code, _, err = person.runs("auth", "login", "--oauth", PDSYNC_CLIENT_SECRET=SECRET)
    assert code == 2
    assert "pdsync.toml names evil.example for the token URL, which is not Pipedrive." in err


def test_a_person_who_refuses_access_ends_the_login(person: Person, box: RunningSandbox) -> None:
    box.oauth.settings.allows = False
    code, out, err = person.logs_in("--json")
    assert code == 2
    assert "Access was not allowed (user_denied). Nothing was stored." in err
    assert json.loads(out.splitlines()[-1])["event"] == "error"
    assert "was not given access" in person.browser.pages[0]


def test_x2_no_output_and_no_file_but_the_vault_shows_a_secret(person: Person, box: RunningSandbox) -> None:
    assert person.logs_in("-vv")[0] == 0
    grant = person.grant
    assert grant is not None
    code = query_of(person.browser.visited[0])["code"]
    for fault in ({"kind": "status", "status": 400, "body": grant.refresh_token}, {"kind": "html_200"}):
        box.oauth.expire_access_tokens()
        box.faults.add(**fault, path="/oauth/token", times=1)
        assert person.runs("auth", "status", "-vv", "--json")[0] != 0
    secrets = [SECRET, grant.access_token, grant.refresh_token, code]
    assert [secret for secret in secrets if secret in person.printed] == []
    written = [
        path.name for path in person.folder.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()
    ]
    assert written == ["credentials.json"]
    assert grant.client_secret not in msgspec.json.encode(box.log).decode()
