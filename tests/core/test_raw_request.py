"""A raw request is refused if it is malformed, leaves the API, or could expose the token."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pytest

from pdsync.core import catalogue
from pdsync.core.raw_request import RawRequest, headers, pair, values
from pdsync.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


def request(method: str = "GET", path: str = "/api/v2/deals", **options: Any) -> RawRequest:
    given: dict[str, Any] = {"query": [], "headers": {}, "body": None, "form": (), "files": (), "names": (),
                             "multipart": False}  # fmt: skip
    return RawRequest.of(method, path, **(given | options))


@pytest.mark.parametrize(
    "path",
    [
        "/oauth/token",
        "api/v2/deals",
        "https://api.pipedrive.com/api/v2/deals",
        "/api/v2/../oauth",
        "/api/v2/%2e%2e/oauth",
        "/api/v2/%252e%252e/oauth",
        "/api/v2/deals\\..",
        "/api/v2/deals#x",
        "/api/v2/deals\r\nHost: elsewhere",
        "/api/v3/deals",
    ],
)
def test_x3_a_path_outside_the_api_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match="not a path of the API"):
        request(path=path)


@pytest.mark.parametrize(
    "options",
    [
        {"path": "/v1/deals/\udcff"},
        {"query": [("term", "M\udcfcller")]},
        {"method": "POST", "form": ("name=M\udcfcller",)},
        {"method": "POST", "body": '{"name": "M\udcfcller"}'},
        {"method": "POST", "body": "M\udcfcller", "headers": {"Content-Type": "text/plain"}},
        {"method": "POST", "body": "[" * 100_000},
    ],
    ids=["path", "query", "form", "JSON", "text", "deep JSON"],
)
def test_o7_an_argument_that_is_not_utf_8_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="Nothing was sent"):
        request(**options)


def test_o7_a_body_on_stdin_that_is_not_utf_8_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for errors in ("strict", "surrogateescape"):  # depends on the locale
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'{"name": "M\xfcller"}'), "utf-8", errors))
        with pytest.raises(ConfigError, match=r"--body '-': .*Nothing was sent"):
            request("POST", body="-")


@pytest.mark.parametrize("key", ["api_token", "API_TOKEN", " access_token ", "token"])
def test_x2_a_token_in_the_query_is_refused_and_not_repeated(key: str) -> None:
    for options in ({"query": [(key, "canary")]}, {"path": f"/v1/users?{key.replace(' ', '%20')}=canary"}):
        with pytest.raises(ConfigError, match="must not be in a URL") as caught:
            request(**options)
        assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("BREW", {}),
        ("GET", {"body": "{}"}),
        ("GET", {"form": ("a=1",)}),
        ("POST", {"body": "{}", "form": ("a=1",)}),
        ("POST", {"body": "{}", "multipart": True}),
        ("POST", {"body": "{"}),
        ("POST", {"form": ("a=1",), "headers": {"Content-Type": "text/plain"}}),
        ("POST", {"form": ("a",)}),
        ("POST", {"names": ("file=x.txt",)}),
    ],
)
def test_options_that_contradict_each_other_are_refused(method: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        request(method, **options)


@pytest.mark.parametrize(
    ("body", "given", "content", "sent"),
    [
        (None, {}, None, {}),
        ('{"a": 1}', {}, {"a": 1}, {}),
        ('{"a": 1}', {"content-type": "application/json"}, {"a": 1}, {}),
        ("a,b", {"content-type": "text/csv"}, b"a,b", {"Content-Type": "text/csv"}),
    ],
)
def test_a_body_is_json_unless_its_content_type_says_otherwise(
    body: str | None, given: dict[str, str], content: Any, sent: dict[str, str]
) -> None:
    made = request("post", body=body, headers=dict(given))
    assert (made.method, made.body, made.headers) == ("POST", content, sent)


def test_a_body_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "body.json"
    path.write_text('{"title": "Boat"}')
    assert request("POST", body=f"@{path}").body == {"title": "Boat"}
    with pytest.raises(ConfigError):
        request("POST", body=f"@{tmp_path / 'missing.json'}")


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [("Accept-Language=en", "Accept-Language", "en"), ("X-A: b=c", "X-A", "b=c"), ("X-Empty=", "X-Empty", "")],
)
def test_a_header_is_a_name_and_a_value(text: str, name: str, value: str) -> None:
    assert headers((text,)) == {name: value}


@pytest.mark.parametrize(
    "name",
    ["Authorization", "x-api-token", "Cookie", "Host", "X-Forwarded-For", "Content-Length", "Transfer-Encoding",
     "x-http-method-override"],
)  # fmt: skip
def test_x2_a_header_that_pdsync_sets_is_refused_without_its_value(name: str) -> None:
    with pytest.raises(ConfigError, match="sets this header itself") as caught:
        headers((f"{name}=canary",))
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("text", ["no sign", "=value", "bad name=x", "X-A=line\nbreak", "X-A=ü"])
def test_a_malformed_header_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        headers((text,))


@pytest.mark.parametrize(("text", "parts"), [("a=b", ("a", "b")), ("a=", ("a", "")), ("a=b=c", ("a", "b=c"))])
def test_a_pair_is_split_at_the_first_sign(text: str, parts: tuple[str, str]) -> None:
    assert pair(text, "a parameter") == parts


@pytest.mark.parametrize("text", ["a", "=b", ""])
def test_text_without_key_or_sign_is_no_pair(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a parameter"):
        pair(text, "a parameter")


def test_parameters_come_from_pairs_and_the_body_but_not_from_both() -> None:
    operation = catalogue.operation("addDeal")
    assert values(operation, [("title", "Boat")], '{"value": 5}') == {"title": "Boat", "value": 5}
    assert values(operation, [], "[1]") == {"body": [1]}
    with pytest.raises(ConfigError, match="given twice"):
        values(operation, [("title", "Boat")], '{"title": "Ship"}')
    with pytest.raises(ConfigError, match="must be a JSON object"):
        values(operation, [], '"text"')


@pytest.mark.parametrize(
    ("path", "is_search"),
    [
        ("/api/v2/deals/search", True),
        ("/api/v2/itemSearch?term=x", True),
        ("/v1/users/find", True),
        ("/v1/deals", False),
    ],
)
def test_l1_a_search_is_recognized_by_its_path(path: str, is_search: bool) -> None:
    made = request(path=path)
    assert made.searches is is_search
    assert made.operation.search is is_search
