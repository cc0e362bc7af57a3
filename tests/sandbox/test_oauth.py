"""The OAuth server: codes work once, rotated refresh tokens work once, and their reuse revokes the authorisation."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from pdsync.sandbox import OAuthSettings, Sizes, generate_company
from pdsync.sandbox.server.oauth import OAuth

CLIENT = "Basic " + base64.b64encode(b"sandbox-client:sandbox-secret").decode()
TARGET = "http://localhost:8000/callback"


def server(*, rotate: bool = False) -> OAuth:
    return OAuth(generate_company(seed=7, sizes=Sizes(deals=2)), OAuthSettings(rotate=rotate))


def authorize(oauth: OAuth) -> str:
    reply = oauth.authorize({"client_id": "sandbox-client", "redirect_uri": TARGET, "state": "s"})
    query = parse_qs(urlsplit(reply.headers["location"]).query)
    assert (reply.status, query["state"]) == (302, ["s"])
    return query["code"][0]


def exchange(oauth: OAuth, **form: str) -> tuple[int, dict[str, Any]]:
    reply = oauth.token(CLIENT, form)
    return reply.status, json.loads(reply.body)


def trade_code(oauth: OAuth, code: str, target: str = TARGET) -> tuple[int, dict[str, Any]]:
    return exchange(oauth, grant_type="authorization_code", code=code, redirect_uri=target)


def test_a_code_works_once() -> None:
    oauth = server()
    code = authorize(oauth)
    status, tokens = trade_code(oauth, code)
    assert (status, oauth.viewer_of(tokens["access_token"])) == (200, "admin")
    assert trade_code(oauth, code)[0] == 400


def test_a_code_is_bound_to_its_redirect_uri() -> None:
    oauth = server()
    assert trade_code(oauth, authorize(oauth), "http://localhost/other")[0] == 400


@pytest.mark.parametrize("authorization", ["", "Basic ???", "Bearer x", "Basic " + base64.b64encode(b"a:b").decode()])
def test_another_client_is_refused(authorization: str) -> None:
    assert server().token(authorization, {"grant_type": "refresh_token"}).status == 401


def test_without_rotation_the_refresh_token_stays_the_same() -> None:
    oauth = server()
    first = trade_code(oauth, authorize(oauth))[1]["refresh_token"]
    for _ in range(2):
        status, tokens = exchange(oauth, grant_type="refresh_token", refresh_token=first)
        assert (status, tokens["refresh_token"]) == (200, first)


def test_reuse_of_a_rotated_refresh_token_revokes_all_tokens_of_the_authorisation() -> None:
    oauth = server(rotate=True)
    first = trade_code(oauth, authorize(oauth))[1]["refresh_token"]
    status, tokens = exchange(oauth, grant_type="refresh_token", refresh_token=first)
    assert (status, oauth.viewer_of(tokens["access_token"])) == (200, "admin")
    assert exchange(oauth, grant_type="refresh_token", refresh_token=first)[0] == 400
    assert oauth.viewer_of(tokens["access_token"]) is None
    assert exchange(oauth, grant_type="refresh_token", refresh_token=tokens["refresh_token"])[0] == 400
