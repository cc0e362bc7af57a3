"""The OAuth server: who gets a code, what a code and a refresh token are good for, and how a request is refused."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from pdsync.sandbox import Limits, OAuthSettings, Sizes, generate_company, running
from pdsync.sandbox.server.oauth import OAuth, read_basic
from tests.sandbox.api import Api

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pdsync.sandbox import Company, RunningSandbox

APP = ("sandbox-client", "sandbox-secret")
TARGET = "http://localhost:8000/callback"
CODE_IS_INVALID = "Invalid grant: authorization_code is invalid"
REFRESH_IS_INVALID = "Invalid grant: refresh_token is invalid"


@pytest.fixture(scope="module")
def company() -> Company:
    return generate_company(seed=7, sizes=Sizes(deals=2))


@pytest.fixture
def oauth(company: Company) -> OAuth:
    return OAuth(company)


@pytest.fixture
def rotating(company: Company) -> OAuth:
    return OAuth(company, OAuthSettings(rotate=True))


def authorize(oauth: OAuth, **changes: str) -> dict[str, str]:
    """What the browser brings to the redirect URI."""
    reply = oauth.authorize({"client_id": "sandbox-client", "redirect_uri": TARGET, "state": "s", **changes})
    assert reply.status == 302
    return {name: values[0] for name, values in parse_qs(urlsplit(reply.headers["location"]).query).items()}


def exchange(oauth: OAuth, **form: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(oauth.token(*APP, form).body)
    return answer


def trade_code(oauth: OAuth, code: str, target: str = TARGET) -> dict[str, Any]:
    return exchange(oauth, grant_type="authorization_code", code=code, redirect_uri=target)


# The consent page.


def test_a_person_who_allows_access_brings_a_code_and_the_state(oauth: OAuth) -> None:
    answer = authorize(oauth)
    assert (len(answer.pop("code")), answer) == (40, {"state": "s"})


def test_a_person_who_refuses_brings_an_error_and_the_state(oauth: OAuth) -> None:
    oauth.settings.allows = False
    assert authorize(oauth) == {"error": "user_denied", "state": "s"}


def test_an_app_without_the_state_gets_none_back(oauth: OAuth) -> None:
    oauth.settings.returns_state = False
    assert set(authorize(oauth)) == {"code"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"client_id": "other"}, "Invalid client: client is invalid"),
        ({"redirect_uri": ""}, "Invalid request: redirect_uri is invalid"),
        ({"redirect_uri": "http://localhost:8000/other"}, "Invalid request: redirect_uri is invalid"),
    ],
)
def test_a_stranger_or_another_redirect_uri_is_sent_nowhere(
    oauth: OAuth, changes: dict[str, str], message: str
) -> None:
    oauth.settings.redirect_uri = TARGET
    reply = oauth.authorize({"client_id": "sandbox-client", "redirect_uri": TARGET, **changes})
    assert (reply.status, json.loads(reply.body)["message"]) == (400, message)
    assert "location" not in reply.headers


def test_an_installation_from_the_marketplace_has_no_state(oauth: OAuth) -> None:
    with pytest.raises(ValueError, match="redirect_uri"):
        oauth.install()
    oauth.settings.redirect_uri = TARGET
    location = urlsplit(oauth.install().headers["location"])
    assert location.geturl().startswith(f"{TARGET}?code=")
    assert set(parse_qs(location.query)) == {"code"}
    assert trade_code(oauth, parse_qs(location.query)["code"][0])["token_type"] == "Bearer"


# The token URL.


def test_the_answer_has_what_the_documents_name(oauth: OAuth) -> None:
    tokens = trade_code(oauth, authorize(oauth, scope="admin")["code"])
    assert list(tokens) == ["access_token", "token_type", "refresh_token", "scope", "expires_in", "api_domain"]
    assert (tokens["token_type"], tokens["expires_in"]) == ("Bearer", 3600)
    assert tokens["scope"] == oauth.settings.scopes  # they belong to the app, not to the request
    assert oauth.viewer_of(tokens["access_token"]) == "admin"


def test_a_code_works_once_with_its_redirect_uri_for_five_minutes(oauth: OAuth, company: Company) -> None:
    first, second = authorize(oauth)["code"], authorize(oauth)["code"]
    assert trade_code(oauth, first, "http://localhost/other")["message"] == "Invalid request: redirect_uri is invalid"
    assert "access_token" in trade_code(oauth, first)
    assert trade_code(oauth, first)["message"] == CODE_IS_INVALID
    company.clock.advance(299)
    assert "access_token" in trade_code(oauth, second)
    third = authorize(oauth)["code"]
    company.clock.advance(300)
    refusal = trade_code(oauth, third)
    assert (refusal["error"], refusal["message"]) == ("invalid_grant", "Invalid grant: authorization_code has expired")


@pytest.mark.parametrize(
    ("app", "form", "error", "message"),
    [
        (("", ""), {}, "invalid_client", "Invalid client: cannot retrieve client credentials"),
        (("sandbox-client", ""), {}, "invalid_client", "Invalid client: cannot retrieve client credentials"),
        (("sandbox-client", "x"), {}, "invalid_client", "Invalid client: client is invalid"),
        (("x", "sandbox-secret"), {}, "invalid_client", "Invalid client: client is invalid"),
        (APP, {}, "invalid_request", "Missing parameter: `grant_type`"),
        (APP, {"grant_type": "password"}, "unsupported_grant_type", "Unsupported grant type: `grant_type` is invalid"),
        (APP, {"grant_type": "authorization_code"}, "invalid_grant", CODE_IS_INVALID),
        (APP, {"grant_type": "refresh_token"}, "invalid_grant", REFRESH_IS_INVALID),
        (APP, {"grant_type": "refresh_token", "refresh_token": "x"}, "invalid_grant", REFRESH_IS_INVALID),
    ],
)
def test_a_request_is_refused_in_the_words_of_the_documents(
    oauth: OAuth, app: tuple[str, str], form: dict[str, str], error: str, message: str
) -> None:
    reply = oauth.token(*app, form)
    refusal = json.loads(reply.body)
    assert (reply.status, refusal["error"], refusal["message"]) == (400, error, message)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("Basic " + base64.b64encode(b"a:b:c").decode(), ("a", "b:c")),
        ("basic " + base64.b64encode(b"a:b").decode(), ("a", "b")),
        ("Basic " + base64.b64encode(b"a").decode(), ("a", "")),
        ("Bearer " + base64.b64encode(b"a:b").decode(), ("", "")),
        ("Basic ???", ("", "")),
        ("", ("", "")),
    ],
)
def test_client_id_and_secret_come_in_a_basic_header(header: str, expected: tuple[str, str]) -> None:
    assert read_basic(header) == expected


def test_without_rotation_the_refresh_token_stays_the_same_and_each_use_gives_it_sixty_days(
    oauth: OAuth, company: Company
) -> None:
    first = trade_code(oauth, authorize(oauth)["code"])["refresh_token"]
    for _ in range(2):
        company.clock.advance(59 * 86_400)
        assert exchange(oauth, grant_type="refresh_token", refresh_token=first)["refresh_token"] == first
    company.clock.advance(60 * 86_400)
    assert exchange(oauth, grant_type="refresh_token", refresh_token=first)["message"] == REFRESH_IS_INVALID


def test_reuse_of_a_rotated_refresh_token_revokes_all_tokens_of_the_authorisation(rotating: OAuth) -> None:
    first = trade_code(rotating, authorize(rotating)["code"])["refresh_token"]
    tokens = exchange(rotating, grant_type="refresh_token", refresh_token=first)
    assert rotating.viewer_of(tokens["access_token"]) == "admin"
    assert exchange(rotating, grant_type="refresh_token", refresh_token=first)["error"] == "invalid_grant"
    assert rotating.viewer_of(tokens["access_token"]) is None
    assert exchange(rotating, grant_type="refresh_token", refresh_token=tokens["refresh_token"])["message"] == (
        REFRESH_IS_INVALID
    )


# Over HTTP.


@pytest.fixture(scope="module")
def box(company: Company) -> Iterator[RunningSandbox]:
    with running(company, limits=Limits(burst=None)) as box:
        yield box


@pytest.fixture
def api(box: RunningSandbox) -> Api:
    box.oauth.settings = OAuthSettings(redirect_uri=TARGET)
    return Api(box, "")


def test_the_log_shows_what_the_token_url_was_sent_but_no_secret(api: Api) -> None:
    headers = {
        "content-type": "application/x-www-form-urlencoded",
        "authorization": "Basic " + base64.b64encode(":".join(APP).encode()).decode(),
    }
    form = {"grant_type": "authorization_code", "code": "c0de", "redirect_uri": TARGET}
    assert api.ask("POST", "/oauth/token", urlencode(form).encode(), headers).status == 400
    seen = api.box.log[-1]
    assert (seen.operation, dict(parse_qs(seen.form))) == (
        "get-tokens",
        {"grant_type": ["authorization_code"], "redirect_uri": [TARGET], "client_id": ["sandbox-client"]},
    )
    answer = api.ask("POST", "/oauth/token", b"{}", {**headers, "content-type": "application/json"})
    assert (answer.status, answer.json["message"]) == (
        400,
        "Invalid request: content must be application/x-www-form-urlencoded",
    )


def test_the_app_and_the_person_can_be_changed_from_another_process(api: Api) -> None:
    location = api.admin("POST", "install")["data"]["location"]
    assert location.startswith(f"{TARGET}?code=")
    assert api.admin("POST", "oauth", {"allows": False})["data"]["allows"] is False
    assert api.admin("POST", "install")["data"]["location"] == f"{TARGET}?error=user_denied"
    assert api.box.oauth.settings.redirect_uri == TARGET


@pytest.mark.parametrize(
    ("scopes", "method", "path", "status"),
    [
        ("base deals:read", "GET", "/v1/users/me", 200),
        ("base deals:read", "GET", "/api/v2/deals", 200),
        ("base,deals:full", "GET", "/api/v2/deals", 200),
        ("base deals:read", "PATCH", "/api/v2/deals/1", 403),
        ("base deals:full", "GET", "/api/v2/persons", 403),
        ("base contacts:read", "GET", "/v1/persons", 200),  # removed: needs what its replacement of that name does
        ("base", "GET", "/v1/persons", 403),
        ("base", "GET", "/api/v2/deals", 403),
        ("base", "GET", "/v1/currencies", 200),
    ],
)
def test_an_operation_needs_one_of_the_scopes_that_the_documents_name(
    api: Api, scopes: str, method: str, path: str, status: int
) -> None:
    oauth = api.box.oauth
    oauth.settings = OAuthSettings(redirect_uri=TARGET, scopes=scopes)
    token = trade_code(oauth, authorize(oauth)["code"])["access_token"]
    oauth.settings.scopes = "base"  # a token keeps the scopes that it was issued with
    answer = api.ask(method, path, {} if method == "PATCH" else None, {"authorization": f"Bearer {token}"})
    assert answer.status == status
    assert (answer.json.get("error") == "Scope and URL mismatch") is (status == 403)


def test_an_api_token_needs_no_scopes(api: Api) -> None:
    assert api.ask("GET", "/api/v2/persons", None, {"x-api-token": api.box.token}).status == 200
