"""A login with an OAuth app: which answers end it, which do not, and what each input of the app changes."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from pdsync.core.log import clean
from pdsync.core.oauth_app import OAuthApp
from pdsync.core.oauth_login import OAuthLogin
from pdsync.errors import AuthError, BadAnswer, ConfigError
from tests.core.oauth_client import a_port, a_sandbox, app_of, log_in, visit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pdsync.core.secret_store import Grant
    from pdsync.sandbox import RunningSandbox

SECRET = "sandbox-secret"


@pytest.fixture(scope="module")
def pipedrive() -> Iterator[RunningSandbox]:
    with a_sandbox() as running:
        yield running


@pytest.fixture
def box(pipedrive: RunningSandbox) -> Iterator[RunningSandbox]:
    """The sandbox as it began: what a test changes does not reach the next."""
    settings = {name: getattr(pipedrive.oauth.settings, name) for name in pipedrive.oauth.settings.__struct_fields__}
    pipedrive.clear_log()
    yield pipedrive
    pipedrive.faults.clear()
    for name, value in settings.items():
        setattr(pipedrive.oauth.settings, name, value)


def an_app(**changes: Any) -> OAuthApp:
    """An app of Pipedrive itself, which no test calls."""
    urls = {name: f"https://oauth.pipedrive.com/oauth/{name}" for name in ("authorize", "token")}
    values: dict[str, Any] = {"authorize_url": urls["authorize"], "token_url": urls["token"], **changes}
    return OAuthApp(client_id="app-1", client_secret=SECRET, **values)


def query_of(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


def exchanges(box: RunningSandbox) -> list[dict[str, str]]:
    """What the token URL was sent, without secrets."""
    return [query_of(f"?{seen.form}") for seen in box.log if seen.path == "/oauth/token"]


async def code_of(login: OAuthLogin, *targets: str, port: int, **headers: str) -> tuple[str, list[int]]:
    """The code that the login takes while a browser opens `targets` on the port, and the statuses of the answers."""
    statuses: list[int] = []
    tasks: list[asyncio.Task[None]] = []

    async def open_all() -> None:
        statuses.extend([await visit(f"http://127.0.0.1:{port}{target}", **headers) for target in targets])

    code = await login.wait_for_code(
        on_ready=lambda: tasks.append(asyncio.create_task(open_all())), port=port, timeout_s=5
    )
    await asyncio.gather(*tasks)
    return code, statuses


# The address that is opened.


def test_the_address_has_what_the_documents_name_and_nothing_else() -> None:
    query = query_of(OAuthLogin(an_app(), "https://acme.pipedrive.com").url)
    assert len(query.pop("state")) >= 40
    assert query == {
        "response_type": "code",
        "client_id": "app-1",
        "redirect_uri": "http://127.0.0.1:8723/callback",
    }


def test_scopes_and_a_query_of_the_authorize_url_are_sent() -> None:
    app = an_app(authorize_url="https://proxy.example/authorize?tenant=7", scopes=("base", "deals:read"))
    url = OAuthLogin(app, "https://acme.pipedrive.com").url
    assert url.startswith("https://proxy.example/authorize?tenant=7&response_type=code&")
    assert query_of(url)["scope"] == "base deals:read"


def test_every_login_has_a_state_of_its_own() -> None:
    assert len({query_of(OAuthLogin(an_app(), "https://acme.pipedrive.com").url)["state"] for _ in range(20)}) == 20


# Which answers count.

ANSWERS = {  # name: (parameters, STATE being the login's own; with the state missing allowed or not; what comes of it)
    "ours": ({"code": "abc", "state": "STATE"}, False, "abc"),
    "ours, where a missing state is allowed": ({"code": "abc", "state": "STATE"}, True, "abc"),
    "no state": ({"code": "abc"}, False, "it has no state; an installation from the Marketplace needs --marketplace"),
    "an empty state": ({"code": "abc", "state": ""}, False, "it has no state"),
    "no state, allowed": ({"code": "abc"}, True, "abc"),
    "another state": ({"code": "abc", "state": "x"}, False, "it has the state of another login"),
    "another state, where none is allowed": ({"code": "abc", "state": "x"}, True, "it has the state of another login"),
    "a state beyond ASCII": ({"code": "abc", "state": "ü"}, False, "it has the state of another login"),
    "longer than ours": ({"code": "abc", "state": "STATEx"}, False, "it has the state of another login"),
    "no code": ({"state": "STATE"}, False, "it has no code"),
    "two codes": ([("code", "abc"), ("code", "evil"), ("state", "STATE")], False, "stands in it twice"),
    "two states": ([("code", "abc"), ("state", "STATE"), ("state", "x")], False, "stands in it twice"),
    "refused": ({"error": "access_denied", "state": "STATE"}, False, r"Access was not allowed \(access_denied\)"),
    "refused by another site": ({"error": "access_denied"}, False, "it has no state"),
    "refused in the Marketplace": ({"error": "user_denied"}, True, r"Access was not allowed \(user_denied\)"),
}


@pytest.mark.parametrize(("parameters", "allowed", "expected"), ANSWERS.values(), ids=ANSWERS)
def test_x1_only_an_answer_to_this_login_gives_its_code(parameters: Any, allowed: bool, expected: str) -> None:
    login = OAuthLogin(an_app(), "https://acme.pipedrive.com", allow_missing_state=allowed)
    state = query_of(login.url)["state"]
    address = f"http://127.0.0.1:8723/callback?{urlencode(parameters).replace('STATE', state)}"
    if expected == "abc":
        assert login.read_code(f" {address}\n") == "abc"
        return
    with pytest.raises(AuthError, match=expected) as caught:
        login.read_code(address)
    assert "evil" not in str(caught.value)


@pytest.mark.parametrize(
    "pasted",
    [
        "",
        "abc",
        "http://[::1/callback?code=abc&state=STATE",
        "https://127.0.0.1:8723/callback?code=abc&state=STATE",
        "http://127.0.0.1:8724/callback?code=abc&state=STATE",
        "http://evil.example:8723/callback?code=abc&state=STATE",
        "http://127.0.0.1:8723/elsewhere?code=abc&state=STATE",
        "http://127.0.0.1:8723/callback#code=abc&state=STATE",
    ],
)
def test_a_pasted_address_is_that_of_the_redirect_uri(pasted: str) -> None:
    login = OAuthLogin(an_app(), "https://acme.pipedrive.com")
    with pytest.raises(AuthError, match=r"pasted .*\n") as caught:
        login.read_code(pasted.replace("STATE", query_of(login.url)["state"]))
    assert "abc" not in str(caught.value)


@pytest.mark.parametrize(
    ("redirect_uri", "pasted"),
    [
        ("https://Hooks.example.com/pd", "https://hooks.example.com:443/pd"),
        ("http://localhost:9/", "http://localhost:9"),
        ("https://hooks.example.com/pd?tenant=1", "https://hooks.example.com/pd"),
    ],
)
def test_a_pasted_address_may_be_written_as_browsers_write_it(redirect_uri: str, pasted: str) -> None:
    login = OAuthLogin(an_app(redirect_uri=redirect_uri), "https://acme.pipedrive.com")
    assert login.read_code(f"{pasted}?tenant=1&code=abc&state={query_of(login.url)['state']}") == "abc"


# Listening.


async def test_x1_a_wrong_state_is_refused_and_does_not_end_the_login(box: RunningSandbox) -> None:
    port = a_port()
    login = OAuthLogin(app_of(box, redirect_uri=f"http://127.0.0.1:{port}/callback"), box.url)
    state = query_of(login.url)["state"]
    code, statuses = await code_of(
        login,
        "/callback?code=evil&state=wrong",
        "/callback?code=evil",
        f"/callback?code=evil&state={state}x",
        f"/callback?state={state}",
        "/callback?error=denied&state=wrong",
        "/callback?error=denied",
        "/callback?error=denied&code=evil&state=",
        f"/callback?code=evil&code=good&state={state}",
        f"/elsewhere?code=evil&state={state}",
        f"/callback?code=good&state={state}",
        port=port,
    )
    assert (code, statuses) == ("good", [400] * 8 + [404, 200])
    assert exchanges(box) == []  # no foreign code was ever tried


async def test_x1_a_code_without_state_counts_once_and_only_where_a_browser_navigates(box: RunningSandbox) -> None:
    port = a_port()
    app = app_of(box, redirect_uri=f"http://127.0.0.1:{port}/callback")
    login = OAuthLogin(app, box.url, allow_missing_state=True)
    statuses: list[int] = []
    tasks: list[asyncio.Task[None]] = []
    base = f"http://127.0.0.1:{port}/callback"

    async def open_all() -> None:
        for target, headers in (
            ("?code=evil", {"Sec-Fetch-Dest": "image"}),
            ("?code=evil", {"Sec-Fetch-Dest": "iframe"}),
            ("?code=evil", {"Sec-Fetch-Dest": "empty"}),
            ("?code=evil", {"Sec-Fetch-Dest": "document", "Sec-Purpose": "prefetch"}),
            ("?code=evil&state=another", {}),
            ("?code=installed", {"Sec-Fetch-Dest": "document"}),
        ):
            statuses.append(await visit(base + target, **headers))

    code = await login.wait_for_code(on_ready=lambda: tasks.append(asyncio.create_task(open_all())), timeout_s=5)
    await asyncio.gather(*tasks)
    assert (code, statuses) == ("installed", [400, 400, 400, 400, 400, 200])
    with pytest.raises(OSError, match=r"[Cc]onnect"):  # the port is closed: there is one code, and one login
        await visit(f"{base}?code=evil")


async def test_a_person_who_does_not_allow_access_in_time_ends_the_login(box: RunningSandbox) -> None:
    box.oauth.settings.allows = False
    with pytest.raises(AuthError, match=r"not allowed \(user_denied\)"):
        await log_in(box)
    with pytest.raises(AuthError, match=r"No one allowed access within 0 minutes.*\n.*auth login --oauth"):
        await OAuthLogin(app_of(box), box.url).wait_for_code(on_ready=lambda: None, timeout_s=0.05)
    assert exchanges(box) == []


async def test_what_the_server_says_of_a_refusal_can_not_steer_a_terminal(box: RunningSandbox) -> None:
    login = OAuthLogin(an_app(), box.url)
    state = query_of(login.url)["state"]
    with pytest.raises(AuthError, match="denied") as caught:
        await code_of(login, f"/callback?error=denied%1b%5b2J&state={state}", port=a_port())
    assert "\x1b" not in str(caught.value)


async def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        login = OAuthLogin(an_app(redirect_uri=f"http://127.0.0.1:{port}/callback"), "https://acme.pipedrive.com")
        with pytest.raises(ConfigError, match=rf"Port {port} .*\n.*--redirect-uri"):
            await login.wait_for_code(on_ready=lambda: None)


@pytest.mark.parametrize("redirect_uri", ["https://hooks.example.com/pd", "https://localhost/x", "http://127.0.0.1/x"])
async def test_a_redirect_uri_that_leads_elsewhere_needs_a_port_or_pasting(redirect_uri: str) -> None:
    login = OAuthLogin(an_app(redirect_uri=redirect_uri), "https://acme.pipedrive.com")
    with pytest.raises(ConfigError, match=r"(?s)--port PORT.*--paste"):
        await login.wait_for_code(on_ready=lambda: None)


async def test_x1_behind_a_tunnel_the_loopback_interface_alone_is_listened_on() -> None:
    """A tunnel ends on this machine; other machines of the network can't reach the port."""
    port = a_port()
    login = OAuthLogin(an_app(redirect_uri="https://hooks.example.com/pd"), "https://acme.pipedrive.com")

    async def connect(host: str) -> bool:
        try:
            _, writer = await asyncio.open_connection(host, port)
        except OSError:
            return False
        writer.close()
        return True

    reached: dict[str, bool] = {}

    async def try_all() -> None:
        for host in ("127.0.0.1", "127.0.0.2", socket.gethostbyname(socket.gethostname())):
            reached[host] = await connect(host)
        await visit(f"http://127.0.0.1:{port}/pd?code=abc&state={query_of(login.url)['state']}")

    tasks: list[asyncio.Task[None]] = []
    code = await login.wait_for_code(
        on_ready=lambda: tasks.append(asyncio.create_task(try_all())), port=port, timeout_s=5
    )
    await asyncio.gather(*tasks)
    assert code == "abc"
    assert [host for host, is_reached in reached.items() if is_reached] == ["127.0.0.1"]


# From the code to the grant.


async def test_a_login_ends_with_a_grant_of_that_company(box: RunningSandbox) -> None:
    app = app_of(box, scopes=("base", "deals:read"))
    grant = await log_in(box, app)
    assert (grant.company_id, grant.company_name, grant.api_domain) == (5550, "Northquay Instruments", box.url)
    assert (grant.client_id, grant.client_secret) == ("sandbox-client", SECRET)
    assert (grant.authorize_url, grant.token_url) == (app.authorize_url, app.token_url)
    assert (grant.redirect_uri, grant.scopes) == (app.redirect_uri, ("base", "deals:read"))
    assert "deals:full" in grant.granted_scopes
    assert grant.expires_at - grant.renew_at == pytest.approx(300)
    assert [(seen.method, seen.path, seen.status) for seen in box.log] == [
        ("GET", "/oauth/authorize", 302),
        ("POST", "/oauth/token", 200),
        ("GET", "/v1/users/me", 200),
    ]
    asked = query_of(f"?{box.log[0].query}")
    assert (asked["redirect_uri"], asked["scope"]) == (app.redirect_uri, "base deals:read")
    assert exchanges(box) == [
        {"grant_type": "authorization_code", "redirect_uri": app.redirect_uri, "client_id": "sandbox-client"}
    ]


async def exchange(box: RunningSandbox, **changes: Any) -> Grant:
    """Trade a code that the sandbox gave to the app for a grant, by an app with `changes`."""
    app = app_of(box)
    granted = box.oauth.authorize(query_of(OAuthLogin(app, box.url).url)).headers["location"]
    changes = {"redirect_uri": app.redirect_uri, **changes}
    return await OAuthLogin(app_of(box, **changes), box.url).exchange(query_of(granted)["code"])


async def test_a_code_is_good_for_five_minutes_and_once(box: RunningSandbox) -> None:
    app = app_of(box)
    login = OAuthLogin(app, box.url)
    codes = [query_of(box.oauth.authorize(query_of(login.url)).headers["location"])["code"] for _ in range(2)]
    assert (await login.exchange(codes[0])).company_id == 5550
    with pytest.raises(
        AuthError, match=r"(?s)authorization_code is invalid.*good for 5 minutes and works once"
    ) as caught:
        await login.exchange(codes[0])
    box.clock.advance(301)
    try:
        with pytest.raises(
            AuthError, match=r"(?s)authorization_code has expired.*Nothing was stored.*auth login --oauth"
        ):
            await login.exchange(codes[1])
    finally:
        box.clock.advance(-301)
    assert codes[0] not in str(caught.value)
    assert codes[0] not in clean(f"code={codes[0]}")


async def test_the_token_url_gets_the_redirect_uri_of_the_login(box: RunningSandbox) -> None:
    other = f"http://127.0.0.1:{a_port()}/other"
    with pytest.raises(AuthError, match=rf"(?s)redirect_uri is invalid.*registered with the redirect URI {other}"):
        await exchange(box, redirect_uri=other)
    assert [sent["redirect_uri"] for sent in exchanges(box)] == [other]


async def test_a_wrong_client_secret_is_named_and_not_repeated(box: RunningSandbox) -> None:
    with pytest.raises(AuthError, match=r"(?s)does not know this app, or its secret.*--client-secret -") as caught:
        await exchange(box, client_secret="wrong-secret")
    assert "wrong-secret" not in str(caught.value)


async def test_scopes_that_the_app_does_not_have_are_named(box: RunningSandbox) -> None:
    box.oauth.settings.scopes = "base,deals:full,leads:read"  # documents divide them by blanks and by commas
    assert (await exchange(box, scopes=("deals:read", "leads:read"))).granted_scopes[1] == "deals:full"
    with pytest.raises(
        AuthError, match=r"may not use leads:full, admin: scopes belong to the app\. Nothing was stored"
    ):
        await exchange(box, scopes=("base", "leads:full", "admin"))
    box.faults.add(kind="mutate", path="/oauth/token", find='"scope"', replace='"unknown"')  # names none: refuses none
    assert (await exchange(box, scopes=("admin",))).scopes == ("admin",)


async def test_an_answer_without_a_refresh_token_is_not_stored(box: RunningSandbox) -> None:
    box.faults.add(kind="mutate", path="/oauth/token", find='"refresh_token"', replace='"renewal"')
    with pytest.raises(BadAnswer, match=r"no refresh token.*Nothing was stored"):
        await exchange(box)


async def test_an_installation_from_the_marketplace_is_a_login(box: RunningSandbox) -> None:
    app = app_of(box)
    box.oauth.settings.redirect_uri = app.redirect_uri
    installed = box.oauth.install().headers["location"]
    assert set(query_of(installed)) == {"code"}
    with pytest.raises(AuthError, match="--marketplace"):
        OAuthLogin(app, box.url).read_code(installed)
    login = OAuthLogin(app, box.url, allow_missing_state=True)
    assert (await login.exchange(login.read_code(installed))).company_id == 5550


async def test_an_app_whose_state_is_not_returned_needs_the_flag_too(box: RunningSandbox) -> None:
    box.oauth.settings.returns_state = False
    app = app_of(box)
    login = OAuthLogin(app, box.url, allow_missing_state=True)
    visits: list[asyncio.Task[int]] = []
    code = await login.wait_for_code(on_ready=lambda: visits.append(asyncio.create_task(visit(login.url))), timeout_s=5)
    assert await asyncio.gather(*visits) == [200]
    assert (await login.exchange(code)).company_id == 5550
