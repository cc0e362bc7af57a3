"""The nightly pipeline: changes, then a share of the streams is verified; the end is reported to a webhook."""

from __future__ import annotations

import json
import shutil
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from pdsync.core import catalogue
from pdsync.sandbox import Limits, Sizes, generate_company, running
from tests.support.world import Project

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pdsync.sandbox import RunningSandbox

pytestmark = pytest.mark.proof

DAY = 86_400
TURNS = ("activities", "deals", "organizations", "persons", "products")


@pytest.fixture
def box() -> Iterator[RunningSandbox]:
    company = generate_company(
        seed=4, sizes=Sizes(deals=60, products=30, files=5, mail_threads=3), now=datetime.now(UTC)
    )
    with running(company, limits=Limits(burst=None, search_burst=None, daily_tokens=None)) as box:
        yield box


@pytest.fixture
def project(box: RunningSandbox, tmp_path: Path) -> Project:
    project = Project(tmp_path / "project")
    project.configure(base_url=box.url, api_token=box.token)
    folder = project.folder / "pipelines"
    folder.mkdir(parents=True)
    streams = json.dumps([*TURNS, "users", "pipelines"])
    (folder / "nightly.toml").write_text(f'description = "x"\nverify = true\nstreams = {streams}\n')
    assert project.here("sync", "-q").code == 0
    return project


def alive(box: RunningSandbox, kind: str) -> list[int]:
    return [entry["id"] for entry in box.dump(kind) if entry["state"] == "live"]


@pytest.mark.proof
def test_s6_within_the_verify_cycle_every_stream_is_compared_with_the_source(
    box: RunningSandbox, project: Project
) -> None:
    gone = {kind: alive(box, kind)[3] for kind in ("persons", "products")}
    for kind, id in gone.items():  # which no list of changes shows
        box.act("DELETE", f"/api/v2/{kind}/{id}")
    turns: list[str] = []
    for _ in range(7):
        box.clock.advance(DAY)
        ran = project.here("sync", "--json")
        assert ran.code == 0, ran
        assert ran.summary["complete"]
        turns += ran.summary.get("verified", {}).get("streams", {})
    assert set(turns) >= set(TURNS)
    assert len(turns) <= 2 * len(TURNS)  # a share a night, not everything
    for kind, id in gone.items():
        assert project.ask(f"SELECT _deleted_at IS NOT NULL FROM {kind} WHERE id = {id}") == [(True,)], kind
    shown = project.here("runs", "show", "--json").summary["streams"]
    assert {name: entry["proof"]["verified"] for name, entry in shown.items()} == dict.fromkeys(shown, 1.0)


def test_s6_a_stream_that_fails_every_night_keeps_no_other_one_from_being_verified(
    box: RunningSandbox, project: Project
) -> None:
    id = alive(box, "products")[3]
    box.act("DELETE", f"/api/v2/products/{id}")
    box.faults.add(kind="permission_403", path="/users$", times=99)
    turns: list[str] = []
    for _ in range(7):
        box.clock.advance(DAY)
        ran = project.here("sync", "--json")
        assert (ran.code, ran.summary["complete"]) == (4, False)
        turns += ran.summary.get("verified", {}).get("streams", {})
    assert set(turns) == set(TURNS)
    assert project.ask(f"SELECT _deleted_at IS NOT NULL FROM products WHERE id = {id}") == [(True,)]


def test_s6_l5_lists_that_take_turns_are_read_within_the_cycle_and_cost_what_the_plan_says(
    box: RunningSandbox, project: Project
) -> None:
    (project.folder / "pipelines" / "nightly.toml").unlink()  # that of pdsync reads all streams
    first = project.here("sync", "--json").summary
    turning = {name for name, stream in catalogue.streams().items() if stream.takes_turns}
    assert first["streams"].keys() > turning
    assert first["deferred"] == []
    id = project.ask("SELECT min(id) FROM webhooks")[0][0]
    box.act("DELETE", f"/v1/webhooks/{id}")  # no list shows that but the whole one
    read: list[str] = []
    for night in range(6):
        box.clock.advance(DAY + 60)
        if night < 2:
            assert project.here("sync", "-q", "users").code == 0  # the server's time is known
            planned = project.here("plan", "--json").summary
        box.clear_log()
        ran = project.here("sync", "--json")
        assert ran.code == 0, ran
        assert sum(seen.cost for seen in box.log) <= 400
        read += turning & ran.summary["streams"].keys()
        if night < 2:
            spent = ran.summary["tokens"] + ran.summary.get("verified", {"tokens": 0})["tokens"]
            assert abs(planned["tokens"] - spent) <= max(0.05 * spent, 20)  # or one request
            assert sorted(planned["deferred"]) == sorted(ran.summary["deferred"])
    assert sorted(read) == sorted(turning)  # each once
    assert project.ask(f"SELECT _verified_at < now() FROM webhooks WHERE id = {id}") == [(True,)]
    state = next(each for each in project.here("status", "--json").events if each["name"] == "status")
    assert state["unverified"] <= 1
    assert set(state["in_turn"]) == turning


def test_nothing_is_verified_where_it_was_just_read_or_where_streams_are_named(
    box: RunningSandbox, project: Project
) -> None:
    assert "verified" not in project.here("sync", "--json").summary
    box.clock.advance(9 * DAY)
    assert "verified" not in project.here("sync", "--json", "deals").summary
    assert "verified" not in project.here("sync", "--json", "--full").summary
    box.clock.advance(9 * DAY)
    project.env["PDSYNC_VERIFY_CYCLE"] = "0"
    assert "verified" not in project.here("sync", "--json").summary


def test_the_plan_knows_what_verifying_costs(box: RunningSandbox, project: Project) -> None:
    assert project.here("sync", "-q").code == 0  # from now on it is known what a list of changes costs
    box.clock.advance(9 * DAY)
    assert project.here("sync", "-q", "users").code == 0  # the server's time is known
    planned = project.here("plan", "--json").events
    assert {each["name"] for each in planned[:-1] if each["way"] == "verify"} == set(TURNS)
    ran = project.here("sync", "--json")
    spent = ran.summary["tokens"] + ran.summary["verified"]["tokens"]
    assert abs(planned[-1]["tokens"] - spent) <= 0.1 * spent


def test_l5_a_budget_is_for_the_sync_and_what_it_verifies(box: RunningSandbox, project: Project) -> None:
    box.clock.advance(9 * DAY)
    ran = project.here("sync", "--json", "--budget", "400")
    assert ran.code == 0
    verified = ran.summary.get("verified", {"tokens": 0})
    assert ran.summary["tokens"] + verified["tokens"] <= 400


def test_s9_a_night_whose_budget_ends_in_the_verification_is_a_complete_sync(
    box: RunningSandbox, project: Project, tmp_path: Path
) -> None:
    for kind in TURNS:
        for id in alive(box, kind)[:4]:
            box.act("DELETE", f"/api/v2/{kind}/{id}")
    box.clock.advance(9 * DAY)
    whole = copy_of(project, tmp_path / "whole").here("sync", "--json").summary
    verifying = whole["verified"]["tokens"]
    for budget in range(whole["tokens"] + verifying - 1, whole["tokens"], -verifying // 6):
        ran = copy_of(project, tmp_path / str(budget)).here("sync", "--json", "--budget", str(budget))
        assert (ran.code, ran.summary["event"], ran.summary["complete"]) == (0, "summary", True), (budget, ran)


def copy_of(project: Project, folder: Path) -> Project:
    copy = Project(folder).configure(base_url=project.env["PDSYNC_BASE_URL"], api_token=project.env["PDSYNC_API_TOKEN"])
    shutil.copytree(project.folder, copy.folder, dirs_exist_ok=True)
    return copy


def test_s8_a_mass_of_deletions_is_held_back_at_night_too(box: RunningSandbox, project: Project) -> None:
    for id in alive(box, "products"):
        box.act("DELETE", f"/api/v2/products/{id}")
    box.clock.advance(9 * DAY)
    ran = project.here("sync", "--json")
    assert ran.code == 3, ran
    assert "products" in ran.summary["verified"]["held"]
    assert project.ask("SELECT count(*) FROM products WHERE _deleted_at IS NOT NULL") == [(0,)]


def test_runs_show_prints_the_proof_of_completeness(box: RunningSandbox, project: Project) -> None:
    shown = project.here("runs", "show", "--json").summary["streams"]["deals"]["proof"]
    rows = project.ask("SELECT count(*) FROM deals WHERE _deleted_at IS NULL")[0][0]
    assert (shown["at_source"], shown["here"], shown["left"], shown["verified"]) == (rows, rows, 0, 1.0)
    box.act("DELETE", f"/api/v2/persons/{alive(box, 'persons')[0]}")
    box.clock.advance(60)  # what was seen in the same second is not told apart
    assert project.here("sync", "-q", "--full", "persons").code == 0
    shown = project.here("runs", "show", "--json").summary["streams"]["persons"]["proof"]
    assert (shown["here"] - shown["at_source"], shown["left"]) == (1, 1)  # not shown, but nobody knows why
    assert project.here("reconcile", "-q", "--repair", "persons").code == 0
    shown = project.here("runs", "show", "--json").summary["streams"]["persons"]["proof"]
    assert (shown["here"] - shown["at_source"], shown["left"]) == (0, 0)
    text = project.here("runs", "show").err
    assert "counted ago" in text
    assert "✓ persons" in text


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The address of a server that records what is posted to it."""
    posted: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook/very-secret-path", posted
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_webhook_gets_failures(
    box: RunningSandbox, project: Project, webhook: tuple[str, list[dict[str, Any]]]
) -> None:
    url, posted = webhook
    project.env["PDSYNC_NOTIFY_URL"] = url
    assert project.here("sync", "-q").code == 0
    assert posted == []  # the pipeline asks for failures only
    box.faults.add({"kind": "permission_403", "path": "^/api/v2/products"})
    assert project.here("sync", "-q").code == 4
    assert (posted[0]["exit_code"], posted[0]["complete"], posted[0]["pipeline"]) == (4, False, "nightly")
    assert posted[0]["gaps"][0]["stream"] == "products"
    assert "products: forbidden" in posted[0]["text"]
    project.env["PDSYNC_API_TOKEN"] = "wrong-token-wrong-token"
    assert project.here("sync", "-q").code == 2
    assert posted[1]["exit_code"] == 2
    assert not any(secret in json.dumps(posted) for secret in (box.token, "wrong-token", "very-secret"))


def test_x2_a_webhook_that_fails_is_reported_without_its_address_and_changes_no_exit_code(project: Project) -> None:
    (project.folder / "pipelines" / "always.toml").write_text(
        'description = "x"\nstreams = ["users"]\nnotify = "always"\n'
    )
    project.env["PDSYNC_NOTIFY_URL"] = "http://127.0.0.1:9/hook/very-secret-path"
    ran = project.here("sync", "--pipeline", "always")
    assert ran.code == 0
    assert "PDSYNC_NOTIFY_URL could not be reached" in ran.err
    assert "very-secret-path" not in ran.err
    project.env["PDSYNC_NOTIFY_URL"] = "http://example.com/very-secret-path"
    ran = project.here("sync", "--pipeline", "always")
    assert ran.code == 2
    assert "very-secret-path" not in ran.err


def test_a_pipeline_may_reconcile_or_backfill(project: Project) -> None:
    ran = project.here("sync", "--pipeline", "reconcile", "--json")
    assert ran.code == 0, ran
    assert set(ran.summary["swept"]) >= set(TURNS)
    ran = project.here("sync", "--pipeline", "backfill", "--json")
    assert ran.code == 0, ran
    assert ran.summary["command"].startswith("backfill")
    assert project.here("sync", "--pipeline", "backfill", "deals").code == 2
    assert project.here("plan", "--pipeline", "backfill").code == 2
