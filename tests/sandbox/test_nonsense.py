"""Whatever is sent, the sandbox answers like an API: it accepts or refuses, and never stumbles."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import pytest

from pdsync.sandbox.company.resources import RESOURCES
from pdsync.sandbox.server.routes import ROUTES

if TYPE_CHECKING:
    from .api import Api

ODD: list[Any] = [None, True, 0, -1, 1.5, 10**30, "", "x", "1", "2026-01-01", "10:00", [], [1], [None], [{}], {}]
ODD += [{"value": "x"}, {"value": None}, [{"value": 1}], [{"person_id": 1}], [{"currency": "EUR"}], "é\u0000", "1,2"]
QUERIES = ["limit=-1", "limit=%C3%A9", "start=x", "cursor=%00", "cursor=bnVsbA", "cursor=W10", "sort=", "sort=,,x+ASC"]
QUERIES += ["status=", "ids=1,,2", "updated_since=", "updated_since=2026-13-45T99:99:99Z", "include_fields=,", "done=x"]
QUERIES += ["start=10000000000000000000", "limit=9999999999999999999999", "folder=", "first_char=%F0%9F", "filter_id=x"]
QUERIES += [
    "api_token",
    "=",
    "&&",
    "limit=1&limit=2",
    "updated_until=2026-01-01T00:00:00",
    "custom_fields=,,,",
    "term=",
]


@pytest.mark.parametrize("query", QUERIES)
def test_odd_queries_are_answered(reader: Api, query: str) -> None:
    for route in ROUTES:
        if route.method == "GET":
            base = "/api/v2" if route.version == "v2" else "/v1"
            path = "/".join([base, *("1" if part == "{}" else part for part in route.pattern)])
            answer = reader.ask("GET", f"{path}?{query}")
            assert answer.status in (200, 400, 403, 404), (path, query, answer.status)


@pytest.mark.parametrize("kind", [kind for kind, resource in RESOURCES.items() if resource.body])
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_odd_bodies_are_answered(api: Api, kind: str, version: str) -> None:
    dice = random.Random(f"{kind}/{version}")
    resource = RESOURCES[kind]
    fields = [*resource.body, *resource.renamed_v1, "person_id", "nonsense"]
    if resource.custom_fields:
        codes = list(api.box.company.fields[kind].custom)
        fields += [*codes, *(f"{code}_currency" for code in codes[:5])]
    change = "PUT" if version == "v1" else "PATCH"
    id = api.live(kind)[0]
    for name in fields:
        for odd in dice.sample(ODD, 6 if len(fields) > 40 else len(ODD)):
            body: Any = {"name": "n", "title": "t", "pipeline_id": 1} if version == "v1" else {}
            body[name] = odd
            if version == "v2" and len(name) >= 40:
                body = {"custom_fields": {name[:40]: odd}}
            answer = api.ask(change, f"/api/{version}/{kind}/{id}", body)
            assert answer.status in (200, 400, 403, 404), (body, answer.body)
            if kind == "deals" and answer.status == 200 and answer.data.get("is_archived"):
                api.ask(change, f"/api/{version}/{kind}/{id}", {"is_archived": False})
    for page in (api.get(f"/api/v2/{kind}", limit=500), api.get(f"/v1/{kind}")):
        assert page.status == 200
    json.dumps(api.box.dump(kind), allow_nan=False)
