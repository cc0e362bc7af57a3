"""The outbox is durable: attempts before the first byte, mutations after a kill, requests after a signal."""

from __future__ import annotations

import json
import signal
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from pdsync.sandbox import Limits, Sizes, generate_company, running
from tests.support.world import Project, serving, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.world import Remote

PUSH = ("push", "--yes", "--json", "--settle-seconds", "0.1")
STATES = {"queued", "applied", "unknown", "needs_review"}


@pytest.fixture(scope="module")
def remote() -> Iterator[Remote]:
    with serving("--deals", "40", "--seed", "9") as remote:
        yield remote


@pytest.fixture
def project(remote: Remote, tmp_path: Path) -> Iterator[Project]:
    yield Project(tmp_path / "project", remote)
    remote.clear_faults()


def states(project: Project) -> dict[str, int]:
    return dict(project.control("SELECT state, count(*) FROM mutations GROUP BY 1"))


def test_w3_when_a_write_arrives_its_attempt_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    company = generate_company(seed=9, sizes=Sizes(deals=10, files=1, mail_threads=1), now=datetime.now(UTC))
    with running(company, limits=Limits(burst=None, search_burst=None, daily_tokens=None)) as box:
        project = Project(tmp_path / "project")
        project.configure(base_url=box.url, api_token=box.token)
        deals = [entry["id"] for entry in box.dump("deals") if entry["state"] == "live"][:3]
        for deal in deals:
            assert project.here("queue", "add", "updateDeal", f"id={deal}", "title=Seen").code == 0
        assert project.here("queue", "add", "addPerson", "name=Seen too").code == 0
        met: list[tuple[str, str, Any]] = []
        carry_out = box.sandbox._carry_out

        def watched(asked: Any, *rest: Any) -> Any:
            if asked.method != "GET":  # another connection sees only what is committed
                with closing(sqlite3.connect(project.data / "control.db", timeout=30)) as control:
                    met.extend(
                        control.execute(
                            "SELECT m.state, a.method || ' ' || a.path, a.closed_as FROM attempts a JOIN mutations m"
                            " ON m.id = a.mutation WHERE a.path = ? AND a.method = ? AND a.closed_as IS NULL",
                            (asked.path, asked.method),
                        ).fetchall()
                    )
            return carry_out(asked, *rest)

        monkeypatch.setattr(box.sandbox, "_carry_out", watched)
        ran = project.here(*PUSH)
        assert ran.code == 0, ran
    wanted = [f"PATCH /api/v2/deals/{deal}" for deal in deals] + ["POST /api/v2/persons"]
    assert sorted(met) == sorted(("armed", request, None) for request in wanted)


def test_w11_what_was_acknowledged_survives_a_kill(project: Project) -> None:
    rows = project.folder / "rows.ndjson"
    rows.write_text("".join(json.dumps({"id": n, "title": f"t{n}"}) + "\n" for n in range(1, 401)), encoding="utf-8")
    process = project.start("queue", "import", str(rows), "--operation", "updateDeal", "--json")
    assert process.stdout
    first = json.loads(process.stdout.readline())  # it is told: so it is on disk, and the others with it
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert states(project) == {"queued": 400}
    assert project.control("SELECT seq FROM mutations WHERE id = ?", first["id"]) == [(first["seq"],)]
    assert project.control("PRAGMA integrity_check") == [("ok",)]


@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
def test_w14_a_signal_settles_requests_in_flight_or_parks_them(
    remote: Remote, project: Project, *, twice: bool
) -> None:
    deals = [entry["id"] for entry in remote.dump("deals") if entry["state"] == "live"][:20]
    for deal in deals:
        assert project.here("queue", "add", "updateDeal", f"id={deal}", f"title=Signal {twice}").code == 0
    before = len(remote.lines("journal"))
    remote.clear_log()
    remote.fault(kind="latency", method="PATCH", ms=700)
    process = project.start(*PUSH)
    while not any(entry["method"] == "PATCH" for entry in remote.log()):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    if twice:
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
    ran = wait_for(process, 10)
    assert ran.code == 130, ran
    found = states(project)
    assert sum(found.values()) == len(deals)
    assert found.keys() <= STATES | ({"armed", "approved"} if twice else set())
    remote.clear_faults()
    again = project.here(*PUSH)
    assert again.code == 0, again
    assert states(project) == {"applied": len(deals)}
    written = [line for line in remote.lines("journal")[before:] if line["kind"] == "deals"]
    assert len(written) == len(deals)  # each once


def test_x4_only_this_machine_is_reached_without_tls(project: Project) -> None:
    for url in ("http://api.pipedrive.com", "http://192.0.2.1", "ftp://127.0.0.1", "http://localhost.example.com"):
        ran = project.configure(base_url=url).here("sync", "users")
        assert ran.code == 2, ran
        assert "https" in ran.err
    options = [word for word in project.here("sync", "--help").out.split() if word.startswith("--")]
    assert not [option for option in options if "insecure" in option or "tls" in option or "verify" in option]
