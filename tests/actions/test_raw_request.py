"""`rawRequest`: each of its fifteen inputs, by command and in Python, as the request that a server sees."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from pdsync.core.actions import actions
from pdsync.errors import ConfigError
from pdsync.runner.actions.raw import path_of
from tests.actions.company import VIAS, Carrier, Outcome, Via
from tests.cli.test_api import Echo, parts_of
from tests.cli.test_files import listening
from tests.core.servers import TOKEN
from tests.support.world import Project

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GET = {"method": "GET", "url": "/files"}
POST = {"method": "POST", "url": "/v1/notes"}


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def carrier(echo: Echo, tmp_path: Path) -> Iterator[Carrier]:
    with listening(echo) as url:
        yield Carrier(Project(tmp_path / "project").configure(base_url=url, api_token=TOKEN))


def send(carrier: Carrier, via: Via, inputs: dict[str, Any]) -> Outcome:
    outcome = carrier.act(via, "rawRequest", inputs, *(("--yes",) if via == "command" else ()))
    assert outcome.code == 0, outcome.error or outcome.said
    return outcome


@pytest.mark.parametrize("via", VIAS)
def test_method_and_url(echo: Echo, carrier: Carrier, via: Via) -> None:
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        assert send(carrier, via, {"method": method, "url": "/files"}).answer == {
            "data": {"success": True, "data": {"id": 1}}
        }
        assert (echo.last["method"], echo.last["path"]) == (method, "/v1/files")  # the version was missing
    send(carrier, via, {"method": "GET", "url": "/api/v2/deals"})
    assert echo.last["path"] == "/api/v2/deals"
    for missing in ({"method": "GET"}, {"url": "/files"}):
        refused = carrier.act(via, "rawRequest", missing)
        assert refused.code == 2
        assert "rawRequest needs" in refused.error


@pytest.mark.parametrize("via", VIAS)
def test_query_parameters_and_headers(echo: Echo, carrier: Carrier, via: Via) -> None:
    send(carrier, via, {**GET, "queryParams": {"a": "1", "b": "x y"}, "headers": {"Accept-Language": "et"}})
    assert echo.last["query"] == [("a", "1"), ("b", "x y")]
    assert echo.last["headers"]["accept-language"] == "et"
    send(carrier, via, {**GET, "queryParams": [{"key": "a", "value": "1"}], "headers": "X-One=1"})
    assert echo.last["query"] == [("a", "1")]
    assert echo.last["headers"]["x-one"] == "1"
    refused = carrier.act(via, "rawRequest", {**GET, "headers": {"x-api-token": "other"}})
    assert "sets this header itself" in refused.error


@pytest.mark.parametrize("via", VIAS)
def test_data(echo: Echo, carrier: Carrier, via: Via) -> None:
    send(carrier, via, {**POST, "data": '{"content": "Hi"}'})
    assert (echo.last["type"], echo.last["body"]) == ("application/json", b'{"content":"Hi"}')
    send(carrier, via, {**POST, "data": "@plain", "headers": {"Content-Type": "text/plain"}})
    assert (echo.last["type"], echo.last["body"]) == ("text/plain", b"@plain")


@pytest.mark.parametrize("via", VIAS)
def test_forms_and_files(echo: Echo, carrier: Carrier, via: Via, tmp_path: Path) -> None:
    path = tmp_path / "up.txt"
    path.write_bytes(b"from disk")
    send(carrier, via, {**POST, "formData": {"deal_id": "1"}, "fileData": {"file": f"@{path}", "other": "a value"},
                        "fileDataFileNames": {"file": "offer.txt"}})  # fmt: skip
    parts = parts_of(echo.last)
    assert parts["deal_id"][2] == b"1"
    assert (parts["file"][0], parts["file"][2]) == ("offer.txt", b"from disk")
    assert (parts["other"][0], parts["other"][2]) == ("other", b"a value")
    send(carrier, via, {**POST, "formData": "deal_id=1"})
    assert echo.last["type"] == "multipart/form-data"


@pytest.mark.parametrize("via", VIAS)
def test_response_types(echo: Echo, carrier: Carrier, via: Via) -> None:
    body = web.Response(body=b"Hello", content_type="text/plain")
    echo.answers = [body]
    assert send(carrier, via, {**GET, "responseType": "text"}).answer == {"data": "Hello"}
    echo.answers = [web.Response(body=b"Hello", content_type="text/plain")]
    binary = send(carrier, via, {**GET, "responseType": "arraybuffer"}).answer
    assert binary == {"data": {"type": "Buffer", "data": list(b"Hello")}, "contentType": "text/plain"}
    assert "may be json, text or binary" in carrier.act(via, "rawRequest", {**GET, "responseType": "xml"}).error


@pytest.mark.parametrize("via", VIAS)
def test_retries(echo: Echo, carrier: Carrier, via: Via) -> None:
    def failing(times: int) -> None:
        echo.seen.clear()
        echo.answers = [web.Response(status=503) for _ in range(times)]

    failing(2)
    send(carrier, via, {**GET, "maxRetries": "2"})
    assert len(echo.seen) == 3
    failing(1)
    assert carrier.act(via, "rawRequest", GET).code == 1  # by default none
    failing(1)
    patient = {**POST, "maxRetries": "1", "data": "{}"}
    assert carrier.act(via, "rawRequest", patient, "--yes").code == 1  # a write may have been carried out
    assert len(echo.seen) == 1
    failing(1)
    send(carrier, via, {**patient, "retryAllErrors": "true"})  # unless that is what was asked for
    assert len(echo.seen) == 2
    for exponential, least in (("false", 0.1), ("true", 0.15)):
        failing(2)
        began = time.monotonic()
        send(carrier, via, {**GET, "maxRetries": "2", "retryDelayMS": "50", "useExponentialBackoff": exponential})
        assert time.monotonic() - began >= least  # never sooner than was asked for


@pytest.mark.parametrize("via", VIAS)
def test_timeout(carrier: Carrier, echo: Echo, via: Via) -> None:
    assert send(carrier, via, {**GET, "timeout": "5000"}).code == 0
    assert "should be a whole number" in carrier.act(via, "rawRequest", {**GET, "timeout": "soon"}).error
    assert carrier.act(via, "rawRequest", {**GET, "timeout": "1", "url": "/slow"}).code in (0, 1)


@pytest.mark.parametrize("via", VIAS)
def test_debug(carrier: Carrier, via: Via) -> None:
    outcome = send(carrier, via, {**POST, "data": '{"a": 1}', "debugRequest": "true", "headers": {"X-One": "1"}})
    assert "> POST http" in outcome.said
    assert "X-One: 1" in outcome.said
    assert '{"a":1}' in outcome.said
    assert TOKEN not in outcome.said
    assert "> POST" not in send(carrier, via, {**POST, "data": "{}"}).said


def test_a_write_needs_consent(carrier: Carrier, echo: Echo) -> None:
    refused = carrier.act("command", "rawRequest", POST)
    assert refused.code == 2
    assert "add --yes" in refused.error
    assert echo.seen == []


def test_every_input_is_tested_here() -> None:
    text = open(__file__, encoding="utf-8").read()  # noqa: PTH123, SIM115
    assert [name for name in actions()["rawRequest"].inputs if f'"{name}"' not in text] == []


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("/files", "/v1/files"),
        ("files", "/v1/files"),
        ("v1/deals", "/v1/deals"),
        ("/api/v2/deals?limit=1", "/api/v2/deals?limit=1"),
        ("https://api.pipedrive.com//files", "/v1/files"),
        ("https://api.pipedrive.com/v1/files", "/v1/files"),
    ],
)
def test_the_path_of_an_url(url: str, path: str) -> None:
    assert path_of(url, "https://acme.pipedrive.com") == path


def test_no_other_host_is_called() -> None:
    with pytest.raises(ConfigError, match=r"leads to 'evil.example'"):
        path_of("https://evil.example/v1/files", "https://api.pipedrive.com")
