"""Whatever is sent, the sandbox answers like an API: it accepts or refuses, and never stumbles."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from pdsync.sandbox.company.fields import Field
from pdsync.sandbox.company.resources import FIELD_PATHS, RESOURCES
from pdsync.sandbox.operations.documented import operations
from pdsync.sandbox.operations.generic_records import records_at
from pdsync.sandbox.server.routes import ROUTES

if TYPE_CHECKING:
    from pdsync.sandbox.protocol.messages import Route

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


ODDS = 3  # wrong values of each value in a body
PATH_PARTS = ["x", "0", "-1", "1.5", "99999999", "1" * 30, "%C2%B2", "%00", "null", "%C3%A9"]
BODIES = [b"", b"{", b"\xff", b"null", b"1", b'"x"', b"[]", b"[1]", b"[null]", b'[{"id":[]}]', b'[{"label":{}}]', b"{}"]
WRITES = [route for route in ROUTES if route.method != "GET"]
LIVE = {
    "deal": "deals", "person": "persons", "org": "organizations", "organization": "organizations", "user": "users",
    "product": "products", "stage": "stages", "pipeline": "pipelines", "activity": "activities", "owner": "users",
}  # fmt: skip
# Values of which no others would be accepted, or which lead further into the code.
EXAMPLES: dict[str, Any] = {
    "currency": "EUR", "birthday": "1980-01-02", "add_time": "2026-01-05T10:00:00Z", "due_date": "2026-12-01",
    "email": "new@user.example", "visible_pipeline_ids": {"add": [1], "remove": [2]},
    "conditions": {
        "glue": "and",
        "conditions": [
            {"glue": "and", "conditions": [
                {"object": "deal", "field_id": 12452, "operator": "=", "value": "1", "extra_value": None}
            ]},
        ],
    },
    "params": {"pipeline_id": [1]},
}  # fmt: skip


def example(api: Api, shape: Any, name: str = "") -> Any:
    """A value that the documents allow; links lead to records that are there."""
    if name in EXAMPLES:
        return EXAMPLES[name]
    if isinstance(shape, dict):
        return {inner: example(api, each, inner) for inner, each in shape.items()}
    if isinstance(shape, list):
        return [example(api, each, name.removesuffix("s")) for each in shape]
    if shape in ("int", "num") and name.removesuffix("_id") in LIVE:
        return live_id(api, (LIVE[name.removesuffix("_id")],))
    known = {"bool": True, "int": 1, "num": 1, "date": "2026-01-01", "time": "2026-01-01T10:00:00Z", "uuid": "x"}
    choice = str(shape).removeprefix("#").partition("|")[0]
    return known.get(str(shape), int(choice) if str(shape).startswith("#") else choice if "|" in str(shape) else "x")


def live_id(api: Api, collection: tuple[str, ...], parents: tuple[str, ...] = ()) -> Any:
    """The id of a record of a collection; of a field its code or number. One that is unknown where there is none."""
    company = api.box.company
    if collection[0] in FIELD_PATHS:
        fields = list(company.fields[FIELD_PATHS[collection[0]]].custom.values())
        return next((field for field in fields if field.type == "enum"), fields[0])
    kind = {"mailbox": "mail_threads"}.get(collection[0], collection[0])
    if len(collection) == 1 or kind == "mail_threads":
        if kind in company.tables:
            return next((id for id, row in company[kind].rows.items() if row.state == "live"), 1)
        return next(iter(records_at(company, (kind,), ())), "1")
    return next(iter(records_at(company, collection, parents)), "1")


def path_of(api: Api, route: Route, at: int = -1, odd: str = "") -> str:
    """The path of a route to records that are there, with `odd` for the parameter `at`."""
    params: list[str] = []
    for position, part in enumerate(route.pattern):
        if part == "{}":
            id = live_id(api, route.pattern[:position], tuple(params))
            if isinstance(id, Field):
                id = id.code if route.version == "v2" else id.id
            params.append(quote(str(id), safe=""))
    if odd:
        params[at] = odd
    parts = iter(params)
    base = "/api/v2" if route.version == "v2" else "/v1"
    return "/".join([base, *(next(parts) if part == "{}" else part for part in route.pattern)])


def odd_bodies(api: Api, route: Route, dice: random.Random, odds: int) -> list[Any]:
    """Bodies of the wrong kind, and good ones with one value of the wrong kind."""
    documented = operations().get(f"{route.version} {route.operation}") or operations().get(f"v2 {route.operation}")
    shape = documented.body if documented else None
    bodies: list[Any] = list(BODIES)
    good = example(api, shape) if shape else {}
    inner: Any = good[0] if isinstance(good, list) else good
    bodies.append(good)
    for name in [*inner, *(route.resource.renamed_v1 if route.resource else ())]:
        bodies += [{**inner, name: odd} for odd in dice.sample(ODD, odds)]
        nested = inner.get(name)
        one = nested[0] if isinstance(nested, list) and nested else nested
        for part in one if isinstance(one, dict) else ():
            for odd in dice.sample(ODD, odds):
                value: Any = {**one, part: odd}
                bodies.append({**inner, name: [value] if isinstance(nested, list) else value})
    return [[body] if isinstance(good, list) and isinstance(body, dict) else body for body in bodies]


@pytest.mark.parametrize("first", sorted({route.pattern[0] for route in WRITES}))
def test_no_write_stumbles_over_wrong_types_and_unknown_ids_nor_a_read_after_it(api: Api, first: str) -> None:
    dice, stumbles = random.Random(first), []
    own = [route for route in WRITES if route.pattern[0] == first]
    requests: list[tuple[Route, int, str, Any]] = []
    for route in own:
        for at in range(route.pattern.count("{}")):
            requests += [(route, at, odd, body) for odd in PATH_PARTS for body in (b"", b"{}", b"[]")]
        requests += [(route, -1, "", body) for body in odd_bodies(api, route, dice, ODDS)]
    dice.shuffle(requests)
    requests.sort(key=lambda request: request[0].method == "DELETE" and not request[2])  # what is there is needed
    for route, at, odd, body in requests:
        path = path_of(api, route, at, odd)
        answer = api.ask(route.method, path, body)
        if answer.status >= 500:
            stumbles.append((route.method, path, body))
    for route in ROUTES:
        if route.method == "GET" and route.pattern[0] == first:
            path = path_of(api, route)
            if api.get(path).status >= 500:
                stumbles.append(("GET", path, b""))
    assert stumbles == []
