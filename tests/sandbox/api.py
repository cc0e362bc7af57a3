"""A client of the sandbox as plain as can be: one request, one answer, nothing retried or followed."""

from __future__ import annotations

import http.client
import json
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

if TYPE_CHECKING:
    from pdsync.sandbox import RunningSandbox


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def data(self) -> Any:
        return self.json["data"]

    @property
    def ids(self) -> list[int]:
        return [record["id"] for record in self.data or []]

    @property
    def next_cursor(self) -> str | None:
        cursor: str | None = self.json["additional_data"]["next_cursor"]
        return cursor


class Api:
    def __init__(self, box: RunningSandbox, token: str | None = None) -> None:
        self.box, self.token = box, box.token if token is None else token
        self._connection = http.client.HTTPConnection(urlsplit(box.url).netloc, timeout=10)
        weakref.finalize(self, self._connection.close)

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """A dict is sent as JSON, bytes as they are. All requests share one connection."""
        own_headers = {"x-api-token": self.token} if self.token else {}
        if isinstance(body, dict | list):
            body, own_headers = json.dumps(body).encode(), {**own_headers, "content-type": "application/json"}
        try:
            self._connection.request(method, path, body, {**own_headers, **(headers or {})})
            response = self._connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        except BaseException:
            self._connection.close()
            raise

    def get(self, path: str, **query: Any) -> Answer:
        return self.ask("GET", f"{path}?{urlencode(query)}" if query else path)

    def post(self, path: str, **body: Any) -> Answer:
        return self.ask("POST", path, body)

    def patch(self, path: str, **body: Any) -> Answer:
        return self.ask("PATCH", path, body)

    def put(self, path: str, **body: Any) -> Answer:
        return self.ask("PUT", path, body)

    def delete(self, path: str) -> Answer:
        return self.ask("DELETE", path)

    def walk(self, path: str, **query: Any) -> list[Answer]:
        """Pages of v2 by cursor, of v1 by start, to the end."""
        pages = [self.get(path, **query)]
        while True:
            assert pages[-1].status == 200, pages[-1].body
            more = pages[-1].json["additional_data"]
            if more.get("next_cursor"):
                query["cursor"] = more["next_cursor"]
            elif more.get("pagination", {}).get("more_items_in_collection"):
                query["start"] = more["pagination"]["next_start"]
            else:
                return pages
            pages.append(self.get(path, **query))

    def walk_ids(self, path: str, **query: Any) -> list[int]:
        return [id for page in self.walk(path, **query) for id in page.ids]

    def add_filter(self, type: str, *every: tuple[str, str, str, Any], some: tuple[Any, ...] = ()) -> int:
        """Save a filter of conditions (object, code of a field, operator, value), and return its id."""

        def conditions(each: tuple[tuple[str, str, str, Any], ...]) -> list[dict[str, Any]]:
            kinds = {"deal": "deals", "person": "persons", "organization": "organizations", "activity": "activities"}
            ids = {(kind, field.code): field.id for kind in kinds.values() for field in self.box.company.fields[kind]}
            return [
                {"object": object, "field_id": ids[kinds[object], code], "operator": how, "value": value}
                for object, code, how, value in each
            ]

        groups = [{"glue": "and", "conditions": conditions(every)}, {"glue": "or", "conditions": conditions(some)}]
        made = self.post("/v1/filters", name="a filter", type=type, conditions={"glue": "and", "conditions": groups})
        assert made.status == 200, made.body
        id: int = made.data["id"]
        return id

    def truth(self, kind: str) -> dict[int, dict[str, Any]]:
        return {entry["id"]: entry for entry in self.box.dump(kind)}

    def live(self, kind: str) -> list[int]:
        return [id for id, entry in self.truth(kind).items() if entry["state"] == "live"]

    def admin(self, method: str, path: str, body: Any = None) -> Any:
        answer = self.ask(method, f"/_admin/{path}", body)
        assert answer.status == 200, answer.body
        return answer.json
