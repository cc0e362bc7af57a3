"""Who may ask how much: tokens, bursts, the day's budget, the gateway's patience, visibility, OAuth."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode, urlsplit

import aiohttp
import pytest

from pdsync.sandbox import Limits, OAuthSettings, Sizes, generate_company, running

from .api import Answer, Api
from .conftest import NOW, SIZES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pdsync.sandbox import RunningSandbox


# -- bursts and budgets ------------------------------------------------------------------------------


def test_the_window_rolls_and_the_headers_count_down(api: Api) -> None:
    api.box.limits.burst = 4
    answers = [api.get("/api/v2/stages") for _ in range(5)]
    assert [answer.status for answer in answers] == [200] * 4 + [429]
    assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == ["3", "2", "1", "0", "0"]
    assert {answer.headers["x-ratelimit-limit"] for answer in answers} == {"4"}
    assert "x-daily-ratelimit-token-remaining" not in answers[4].headers
    time.sleep(int(answers[4].headers["x-ratelimit-reset"]) + 0.05)
    assert api.get("/api/v2/stages").status == 200
    window = api.box.window()
    assert (window["max"], window["by_token"], window["count_429"]) == (5, {"admin": 5}, 1)


def test_each_token_has_a_window_of_its_own(api: Api) -> None:
    api.box.limits.burst = 2
    other = Api(api.box, api.box.tokens["member"])
    assert [api.get("/api/v2/stages").status for _ in range(2)] == [200, 200]
    assert other.get("/api/v2/stages").status == 200


def test_search_has_a_smaller_window(api: Api) -> None:
    api.box.limits.search_burst = 2
    assert [api.get("/api/v2/deals/search", term="ab").status for _ in range(3)] == [200, 200, 429]
    assert api.get("/api/v2/deals").status == 200


def test_whoever_keeps_hammering_meets_the_gateways_page(api: Api) -> None:
    api.box.limits.burst, api.box.limits.block_s = 1, 0.3
    answers = [api.get("/api/v2/stages") for _ in range(13)]
    assert [answer.status for answer in answers] == [200] + [429] * 10 + [403] * 2
    assert answers[-1].headers["content-type"].startswith("text/html")
    assert b"Cloudflare" in answers[-1].body
    api.box.limits.burst = None
    assert api.get("/api/v2/stages").status == 403
    time.sleep(0.35)
    assert api.get("/api/v2/stages").status == 200


def test_every_operation_spends_its_tokens_from_one_budget(api: Api) -> None:
    api.box.limits.daily_tokens = 100
    other = Api(api.box, api.box.tokens["member"])
    left = []
    for answer in (
        api.get("/api/v2/deals"),  # 10
        other.get("/api/v2/deals/archived"),  # 20
        api.get("/v1/deals"),  # 20
        api.get("/api/v2/pipelines"),  # 5
        api.post("/api/v2/deals", title="x"),  # 5
        api.get("/api/v2/deals/1"),  # 1
        other.get("/v1/users/me"),  # 2
    ):
        assert answer.headers["x-daily-ratelimit-token-limit"] == "100"
        left.append(int(answer.headers["x-daily-ratelimit-token-remaining"]))
    assert left == [90, 70, 50, 45, 40, 39, 37]
    assert api.box.spent_tokens == 63
    assert sum(seen.cost for seen in api.box.log) == 63


def test_a_spent_budget_refuses_everyone_until_midnight(api: Api) -> None:
    api.box.limits.daily_tokens = 1000
    api.box.spend(999)
    assert api.get("/api/v2/deals").status == 200
    answer = Api(api.box, api.box.tokens["limited"]).get("/api/v2/deals/1")
    assert answer.status == 429
    assert answer.json == {"success": False, "error": "daily request budget exceeded", "errorCode": 429}
    assert answer.headers["x-daily-ratelimit-token-remaining"] == "0"
    wait_s = int(answer.headers["retry-after"])
    assert 12 * 3600 - 60 <= wait_s <= 12 * 3600
    api.box.clock.advance(wait_s + 1)
    assert api.get("/api/v2/deals").headers["x-daily-ratelimit-token-remaining"] == "990"


def test_writes_left_of_the_day_are_told(api: Api) -> None:
    assert api.get("/api/v2/deals").headers["x-daily-requests-left"] == "10000"
    assert api.post("/api/v2/deals", title="x").headers["x-daily-requests-left"] == "9999"


def test_answers_carry_the_sandboxs_own_date_and_an_id(api: Api) -> None:
    api.box.clock.advance(86_400 * 400)
    answer = api.get("/api/v2/stages")
    assert answer.headers["date"].startswith("Mon, 27 Dec 2027 12:0")
    assert answer.headers["x-correlation-id"] == api.box.log[-1].request


async def test_the_window_holds_when_many_ask_at_once(box: RunningSandbox) -> None:
    box.limits.burst, box.limits.block_after = 20, 0

    async def ask() -> int:
        async with session.get(f"{box.url}/api/v2/stages") as response:
            return response.status

    async with aiohttp.ClientSession(headers={"x-api-token": box.token}) as session:
        statuses = await asyncio.gather(*(ask() for _ in range(60)))
    assert sorted(statuses) == [200] * 20 + [429] * 40
    assert box.window()["max"] == 60


async def test_answers_are_compressed_when_asked_to_be() -> None:
    with running(generate_company(sizes=Sizes(deals=50)), gzip=True) as box:
        async with (
            aiohttp.ClientSession(headers={"x-api-token": box.token}, auto_decompress=False) as session,
            session.get(f"{box.url}/api/v2/deals") as response,
        ):
            assert response.headers["content-encoding"] == "gzip"
            assert json.loads(gzip.decompress(await response.read()))["success"]


# -- tokens ------------------------------------------------------------------------------------------


def test_tokens_are_fixed_and_obviously_fake(reader: Api) -> None:
    assert reader.box.token.startswith("sandbox-")
    assert len(reader.box.token) == 40
    assert generate_company(sizes=Sizes(deals=0)).tokens["admin"] == reader.box.token
    assert generate_company(sizes=Sizes(deals=0), company_id=6).tokens["admin"] != reader.box.token


def test_a_token_is_taken_from_header_query_or_not_at_all(reader: Api) -> None:
    nobody = Api(reader.box, "")
    assert nobody.get("/api/v2/deals").status == 401
    assert nobody.get("/api/v2/deals", api_token=reader.token).status == 200
    assert "api_token" not in reader.box.log[-1].query
    assert reader.box.log[-1].token == "admin"


def test_a_limited_user_sees_some_records_only(api: Api) -> None:
    limited = Api(api.box, api.box.tokens["limited"])
    truth = api.truth("deals")
    viewer = api.box.company.viewers["limited"]
    groups = api.box.company.groups
    seen = limited.walk_ids("/api/v2/deals", limit=500)
    for id in api.live("deals"):
        record = truth[id]["record"]
        owned = record["owner_id"] == viewer.user_id
        shared = record["visible_to"] in (3, 5) and groups[record["owner_id"]] == viewer.group
        assert (id in seen) == (owned or shared or record["visible_to"] == 7)
    hidden = next(id for id in api.live("deals") if id not in seen)
    assert limited.get(f"/api/v2/deals/{hidden}").status == 403
    assert limited.get("/api/v2/deals", ids=f"{hidden},{seen[0]}").ids == [seen[0]]
    assert limited.patch(f"/api/v2/deals/{hidden}", title="x").status == 403
    assert limited.walk_ids("/v1/deals") == seen


def test_permissions_can_shrink_while_we_watch(api: Api) -> None:
    before = api.walk_ids("/api/v2/deals", limit=500)
    api.admin("POST", "access", {"token": "admin", "hidden_pipelines": [1]})
    after = api.walk_ids("/api/v2/deals", limit=500)
    truth = api.truth("deals")
    assert after == [id for id in before if truth[id]["record"]["pipeline_id"] != 1]
    assert 1 not in api.get("/api/v2/pipelines").ids
    api.admin("POST", "access", {"token": "admin", "admin": False, "hidden_pipelines": []})
    assert 0 < len(api.walk_ids("/api/v2/deals", limit=500)) < len(before)


# -- OAuth -------------------------------------------------------------------------------------------


@pytest.fixture
def strict() -> Iterator[RunningSandbox]:
    company = generate_company(seed=7, sizes=SIZES, now=NOW)
    with running(company, limits=Limits(burst=5), oauth=OAuthSettings(rotate=True, expires_in=600)) as box:
        yield box


def token(api: Api, **form: str) -> Answer:
    settings = api.box.oauth.settings
    basic = base64.b64encode(f"{settings.client_id}:{settings.client_secret}".encode()).decode()
    headers = {"content-type": "application/x-www-form-urlencoded", "authorization": f"Basic {basic}"}
    return api.ask("POST", "/oauth/token", urlencode(form).encode(), headers)


def authorised(api: Api) -> dict[str, Any]:
    back = "http://localhost:1/callback?x=1"
    asked = {"client_id": "sandbox-client", "redirect_uri": back, "state": "s1"}
    answer = api.get("/oauth/authorize", **asked)
    assert answer.status == 302
    sent = parse_qs(urlsplit(answer.headers["location"]).query)
    assert sent["state"] == ["s1"]
    granted = token(api, grant_type="authorization_code", code=sent["code"][0], redirect_uri=back)
    assert granted.status == 200
    assert token(api, grant_type="authorization_code", code=sent["code"][0], redirect_uri=back).status == 400
    made: dict[str, Any] = granted.json
    return made


def test_oauth_gives_a_bearer_that_expires(strict: RunningSandbox) -> None:
    api = Api(strict, "")
    granted = authorised(api)
    assert (granted["token_type"], granted["expires_in"], granted["api_domain"]) == ("Bearer", 600, strict.url)
    bearer = {"authorization": f"Bearer {granted['access_token']}"}
    answer = api.ask("GET", "/api/v2/deals", None, bearer)
    assert answer.status == 200
    assert answer.headers["x-ratelimit-limit"] == "20"
    assert "x-daily-requests-left" not in answer.headers
    strict.clock.advance(601)
    assert api.ask("GET", "/api/v2/deals", None, bearer).status == 401


def test_a_rotated_refresh_token_works_once_and_reuse_revokes_the_family(strict: RunningSandbox) -> None:
    api = Api(strict, "")
    first = authorised(api)
    second = token(api, grant_type="refresh_token", refresh_token=first["refresh_token"]).json
    assert second["refresh_token"] != first["refresh_token"]
    bearer = {"authorization": f"Bearer {second['access_token']}"}
    assert api.ask("GET", "/api/v2/stages", None, bearer).status == 200
    reused = token(api, grant_type="refresh_token", refresh_token=first["refresh_token"])
    assert (reused.status, reused.json["error"]) == (400, "invalid_grant")
    assert reused.json["error_description"] == "Invalid grant: refresh_token is invalid"
    assert api.ask("GET", "/api/v2/stages", None, bearer).status == 401
    assert token(api, grant_type="refresh_token", refresh_token=second["refresh_token"]).status == 400


def test_without_rotation_the_same_refresh_token_comes_back(reader: Api) -> None:
    api = Api(reader.box, "")
    first = authorised(api)
    again = token(api, grant_type="refresh_token", refresh_token=first["refresh_token"]).json
    assert again["refresh_token"] == first["refresh_token"]
    assert again["access_token"] != first["access_token"]


def test_oauth_refuses_strangers_and_costs_nothing(reader: Api) -> None:
    spent = reader.box.spent_tokens
    headers = {"content-type": "application/x-www-form-urlencoded", "authorization": "Basic bm86bm8="}
    assert reader.ask("POST", "/oauth/token", b"grant_type=refresh_token", headers).status == 400
    assert reader.get("/oauth/authorize", client_id="other", redirect_uri="http://x").status == 400
    assert reader.ask("POST", "/oauth/token/", b"").status == 301
    assert reader.box.spent_tokens == spent
