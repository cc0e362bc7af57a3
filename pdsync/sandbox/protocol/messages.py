"""The values that pass between the server and what answers: a call, a reply, a route."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from pdsync.sandbox.company.table import encode
from pdsync.sandbox.protocol.errors import bad_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from pdsync.sandbox.company.company import Company, Viewer
    from pdsync.sandbox.company.resources import Resource
    from pdsync.sandbox.company.table import Row
    from pdsync.sandbox.protocol.render import Renderer
    from pdsync.sandbox.protocol.row_finder import Finder

JSON = "application/json; charset=utf-8"
MOST_DIGITS = 100


class Upload(Struct, frozen=True):
    file_name: str
    content: bytes


class Call(Struct, kw_only=True):
    """One request, after authentication."""

    company: Company
    renderer: Renderer
    finder: Finder
    viewer: Viewer
    request_id: str
    version: str
    method: str
    path: str
    query: dict[str, str]
    body: bytes = b""
    form: dict[str, str] | None = None
    upload: Upload | None = None
    params: tuple[str, ...] = ()
    overlay: dict[str, dict[int, Row | None]] | None = None  # what a list that lags still shows

    def json(self) -> dict[str, Any]:
        if self.form is not None:
            return dict(self.form)
        try:
            body = msgspec.json.decode(self.body or b"{}")
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise bad_request("The request body is not valid JSON") from None
        if not isinstance(body, dict):
            raise bad_request("The request body is not an object")
        return body

    def id(self, at: int = 0) -> int:
        """The number that is the path's parameter `at`; a 400 if it is none."""
        text = self.params[at]
        if not is_number(text):
            raise bad_request(f"{text!r} is not an id", "id")
        return int(text)


class Reply(Struct):
    status: int
    body: bytes
    headers: dict[str, str] = {}
    content_type: str = JSON


class Route(Struct, frozen=True):
    version: str
    method: str
    pattern: tuple[str, ...]  # path below the version; "{}" takes any one part
    operation: str
    cost: int
    answer: Callable[[Call, Route], Reply]
    resource: Resource | None = None
    kind: str = ""  # of field routes whose fields; of documented operations their name: "v1 getGoals"

    def match(self, parts: tuple[str, ...]) -> tuple[str, ...] | None:
        if len(parts) != len(self.pattern):
            return None
        if any(want not in ("{}", got) for want, got in zip(self.pattern, parts, strict=True)):
            return None
        return tuple(got for want, got in zip(self.pattern, parts, strict=True) if want == "{}")


def is_number(text: str) -> bool:
    """Whether `text` is a whole number that is not negative: of ASCII digits, and so few that int() takes them."""
    return text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS


def success(data: Any, status: int = 200, **more: Any) -> Reply:
    return Reply(status, encode({"success": True, "data": data, **more}))
