"""A run is reported to an https address only, with counts and names of streams, and a failure to do so is no error."""

from __future__ import annotations

import http.server
import json
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from pdsync.errors import ConfigError
from pdsync.model import IncompleteStream, Receipt, StreamReceipt
from pdsync.runner.report.webhook import ENV, describe_failure, describe_receipt, find_address, post

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("address", "is_allowed"),
    [
        ("https://hooks.example.com/T0/secret", True),
        ("http://127.0.0.1:8080/hook", True),
        ("http://localhost/hook", True),
        ("http://hooks.example.com/T0", False),
        ("ftp://hooks.example.com/T0", False),
        ("https:///T0", False),
        ("https://[broken/T0", False),
        ("hooks.example.com", False),
    ],
)
def test_x3_only_https_or_this_machine(monkeypatch: pytest.MonkeyPatch, address: str, is_allowed: bool) -> None:
    monkeypatch.setenv(ENV, address)
    if is_allowed:
        assert find_address() == address
    else:
        with pytest.raises(ConfigError, match="Nothing was called"):
            find_address()


def test_without_an_address_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENV, raising=False)
    assert find_address() is None
    monkeypatch.setenv(ENV, "")
    assert find_address() is None


def test_a_receipt_is_described_by_its_totals_and_gaps() -> None:
    streams = {
        "deals": StreamReceipt(read=1200, inserted=3, updated=2, complete=True),
        "notes": StreamReceipt(deleted=1),
    }
    gap = IncompleteStream("notes", "failed", "it broke")
    told = describe_receipt("nightly", "acme", Receipt("run-1", "sync", NOW, streams=streams, gaps=[gap], tokens=50), 1)
    first, second = told["text"].splitlines()
    assert first == (
        "pdsync nightly of acme: NOT complete (exit code 1). 1,200 rows read, 3 new, 2 changed, 1 deleted; 50 tokens."
    )
    assert second == "notes: failed: it broke"
    assert (told["complete"], told["exit_code"], told["gaps"][0]["stream"]) == (False, 1, "notes")
    whole = Receipt("run-1", "sync", NOW, streams={"deals": streams["deals"]})
    assert "acme: complete." in describe_receipt("nightly", "acme", whole, 0)["text"]
    unverified = describe_receipt("nightly", "acme", whole, 4)
    assert ("acme: NOT complete" in unverified["text"], unverified["complete"]) == (True, False)


@pytest.mark.parametrize("kind", ["fewer", "rights"])
def test_o1_a_run_with_a_gap_that_is_no_failure_is_not_called_complete(kind: str) -> None:
    gap = IncompleteStream("deals", kind, "the rights leave out some")
    receipt = Receipt("run-1", "sync", NOW, streams={"deals": StreamReceipt(complete=True)}, gaps=[gap])
    told = describe_receipt("nightly", "acme", receipt, 0)
    assert told["complete"] is False
    assert "acme: NOT complete (exit code 0)." in told["text"]


def test_a_failure_is_described_by_its_message() -> None:
    told = describe_failure("nightly", "acme", "There is no token.", 2)
    assert told["text"] == "pdsync nightly of acme: failed (exit code 2). There is no token."
    assert (told["complete"], told["exit_code"]) == (False, 2)


@pytest.fixture
def answering(request: pytest.FixtureRequest) -> Iterator[tuple[str, list[Any]]]:
    """An address that answers with the status of the test's parameter, and what it received."""
    received: list[Any] = []

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(request.param)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def do_CONNECT(self) -> None:  # as a proxy
            received.append(self.requestline)
            self.send_error(502)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/hook", received
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("answering", "reason"),
    [(204, None), (200, None), (302, "it answered 302"), (500, "it answered 500")],
    indirect=["answering"],
)
def test_x3_it_is_posted_once_and_no_redirect_is_followed(answering: tuple[str, list[Any]], reason: str | None) -> None:
    address, received = answering
    why = post(address, {"text": "hello"})
    assert received == [{"text": "hello"}]
    assert (reason in why) if why and reason else why is reason


@pytest.mark.parametrize("answering", [502], indirect=True)
def test_x2_it_goes_through_the_proxy_which_sees_no_more_than_the_host(
    answering: tuple[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, received = answering
    monkeypatch.setenv("HTTPS_PROXY", proxy.removesuffix("/hook"))
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert "502" in (post("https://hooks.example.com/T0/secret", {"text": "hello"}) or "")
    assert received == ["CONNECT hooks.example.com:443 HTTP/1.1"]


def test_an_unreachable_address_is_a_reason_and_no_error() -> None:
    assert "Connect" in (post("http://127.0.0.1:9/hook", {"text": "hello"}) or "")
