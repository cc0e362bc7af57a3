"""A sandbox starts on a free port, stops without a trace, and refuses to start on what it can't use."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from pdsync.sandbox import BadFaults, Company, Sizes, generate_company, running, serve_forever

from .api import Api

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def company() -> Company:
    return generate_company(seed=5, sizes=Sizes(deals=3))


def test_two_sandboxes_run_beside_each_other_and_stop(company: Company) -> None:
    threads = threading.active_count()
    with running(company) as one, running(company) as other:
        assert one.url != other.url
        for box in (one, other):
            assert Api(box).get("/v1/users/me").status == 200
            assert box.window()["max"] == 1
    assert threading.active_count() == threads
    address = urlsplit(one.url)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address.hostname or "", address.port or 0), timeout=1).close()


def test_an_exception_in_the_block_stops_the_sandbox(company: Company) -> None:
    threads = threading.active_count()
    with pytest.raises(RuntimeError, match="mine"), running(company):
        raise RuntimeError("mine")
    assert threading.active_count() == threads


def test_what_a_test_does_in_the_app_is_answered_as_by_the_api(company: Company) -> None:
    with running(company) as box:
        assert box.act("PATCH", "/api/v2/deals/1", {"title": "New"})["data"]["title"] == "New"
        assert box.act("PATCH", "/api/v2/deals/10000", {})["success"] is False
        assert list(box.log) == []
        assert box.spent_tokens == 0
        box.spend(7)
        assert box.spent_tokens == 7


def test_a_port_that_is_taken_is_refused(company: Company) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="address already in use"):
            serve_forever(company, port=taken.getsockname()[1])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[{}]", "is no JSON list of faults: .*kind"),
        ("[", "is no JSON list of faults"),
        ('[{"kind": "401"}, {"kind": "gremlins"}]', "fault 2 of 2: 'gremlins' is not a kind"),
        ('[{"kind": "401", "nth": 1, "every": 2}]', "fault 1 of 1: .*only one of"),
        ('[{"kind": "401", "path": "("}]', "fault 1 of 1: path .* is no regular expression"),
        ('[{"kind": "mutate", "find": "["}]', "fault 1 of 1: find .* is no regular expression"),
        (None, "can't be read"),
    ],
)
def test_a_bad_file_of_faults_is_refused_before_the_start(
    company: Company, tmp_path: Path, content: str | None, says: str
) -> None:
    path = tmp_path / "faults.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(BadFaults, match=f"{path}.*{says}"):
        serve_forever(company, faults_file=path)
