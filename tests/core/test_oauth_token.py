"""The token URL: what is sent to it, and that nothing but a token is taken from it."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from pdsync.core.log import clean
from pdsync.core.oauth_token import InvalidGrantError, Tokens, request_tokens
from pdsync.errors import AuthError, BadAnswer
from tests.core.servers import server

if TYPE_CHECKING:
    from collections.abc import Callable

FORM = {"grant_type": "authorization_code", "code": "c0de-0123456789", "redirect_uri": "https://hooks.example.com/pd"}
SECRET = "s3cret+of/app"


async def answered(answer: Callable[[], web.Response], seen: list[tuple[str, str, str]] | None = None) -> Tokens:
    """What `request_tokens` makes of a server's answer."""

    async def handler(request: web.BaseRequest) -> web.Response:
        if seen is not None:
            body = (await request.read()).decode()
            seen.append((f"{request.method} {request.path_qs}", request.headers["Authorization"], body))
        return answer()

    async with server(handler) as url:
        return await request_tokens(f"{url}/oauth/token", "app-1", SECRET, FORM)


async def test_the_documented_request_is_sent() -> None:
    seen: list[tuple[str, str, str]] = []
    text = (
        '{"access_token": "an-access-token", "refresh_token": "a-refresh-token", "expires_in": 3599, "scope": "base"}'
    )
    tokens = await answered(lambda: web.Response(text=text), seen)
    assert (tokens.expires_in, tokens.good_for_s, tokens.scopes) == (3599, 3299, ("base",))
    basic = base64.b64encode(f"app-1:{SECRET}".encode()).decode()
    body = "grant_type=authorization_code&code=c0de-0123456789&redirect_uri=https%3A%2F%2Fhooks.example.com%2Fpd"
    assert seen == [("POST /oauth/token", f"Basic {basic}", body)]
    secrets = (basic, SECRET, FORM["code"], "an-access-token", "a-refresh-token")
    assert [secret for secret in secrets if secret in clean(" ".join(secrets)) or secret in repr(tokens)] == []


@pytest.mark.parametrize(
    ("more", "expires_in", "scopes"),
    [
        ('"expires_in": "3599"', 3599, ()),
        ('"expires_in": null, "scope": null, "api_domain": null', 3600, ()),
        ('"expires_in": "soon", "scope": ["base", "deals:read"]', 3600, ("base", "deals:read")),
        ('"expires_in": -5, "scope": 7', 3600, ()),
    ],
)
async def test_x9_a_renewal_is_not_lost_over_what_stands_beside_the_tokens(
    more: str, expires_in: float, scopes: tuple[str, ...]
) -> None:
    text = f'{{"access_token": "an-access-token", "refresh_token": "a-refresh-token", {more}}}'
    tokens = await answered(lambda: web.Response(text=text))
    assert (tokens.access_token, tokens.refresh_token) == ("an-access-token", "a-refresh-token")
    assert (tokens.expires_in, tokens.scopes, tokens.api_domain) == (expires_in, scopes, "")


@pytest.mark.parametrize(
    ("status", "text", "kind", "message"),
    [
        (400, '{"error": "invalid_grant", "error_description": "used"}', InvalidGrantError, "invalid_grant, used"),
        (401, '{"error": "invalid_grant"}', InvalidGrantError, "invalid_grant"),
        (400, "{}", InvalidGrantError, "no reason given"),
        (400, "<html>", InvalidGrantError, "no reason given"),
        (400, f'{{"error": "code {FORM["code"]} is bad"}}', InvalidGrantError, "code .* is bad"),
        (400, '{"error": "invalid_client", "message": "unknown"}', AuthError, "does not know this app, or its secret"),
        (401, '{"error": "unauthorized_client"}', AuthError, "does not know this app"),
        (403, "{}", BadAnswer, "answered 403"),
        (302, "", BadAnswer, "answered 302"),
        (200, "<html>", BadAnswer, "something that is no token"),
        (200, '{"access_token": 5}', BadAnswer, "something that is no token"),
        (200, '{"refresh_token": "a"}', BadAnswer, "something that is no token"),
        (200, '{"access_token": "a\\nb"}', BadAnswer, "no header can carry"),
        (
            200,
            '{"access_token": "abc", "api_domain": "https://evil.example"}',
            AuthError,
            "'evil.example' as the place",
        ),
        (200, "x" * (1 << 21), BadAnswer, "larger than any that makes sense"),
    ],
)
async def test_x2_what_is_no_token_is_refused_without_repeating_a_secret(
    status: int, text: str, kind: type[Exception], message: str
) -> None:
    headers = {"Location": "https://evil.example/"} if status == 302 else {}
    with pytest.raises(kind, match=message) as caught:
        await answered(lambda: web.Response(status=status, text=text, headers=headers))
    assert FORM["code"] not in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(("expires_in", "good_for_s"), [(3600, 3300), (600, 300), (100, 50), (0, 0)])
def test_a_token_is_renewed_five_minutes_early_or_at_half_of_a_short_life(expires_in: float, good_for_s: float) -> None:
    assert Tokens(access_token="a", expires_in=expires_in).good_for_s == good_for_s
