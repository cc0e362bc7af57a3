"""Limits as the server sees them: by its own log, not by pdsync's count."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from tests.support.world import Project, page_of, serving, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.world import Remote

JITTER: dict[str, object] = {"kind": "latency", "ms": 100, "jitter_ms": 100}  # 0 to 200 ms


@pytest.fixture(scope="module")
def remote() -> Iterator[Remote]:
    with serving("--deals", "200", "--seed", "9") as remote:
        yield remote


@pytest.fixture(autouse=True)
def _calm(remote: Remote) -> Iterator[None]:
    remote.clear_log()
    yield
    remote.clear_faults()
    remote.post("limits", burst=None, search_burst=None, daily_tokens=None)


@pytest.mark.parametrize(("burst", "rows"), [(20, 20), (40, 8)])
def test_l1_l2_one_process_stays_below_the_limit_and_meets_no_429(
    remote: Remote, project: Project, burst: int, rows: int
) -> None:
    remote.post("limits", burst=burst)
    remote.fault(**JITTER)
    project.configure(base_url=remote.url, api_token=remote.token, burst=burst)
    ran = project.run("sync", "deals", "persons", "stages", "--json", first=f"knobs.small_pages({rows})")
    assert ran.code == 0, ran
    seen = remote.window()
    assert len(remote.log()) > burst  # or nothing was limited
    assert seen["max"] <= burst
    assert seen["count_429"] == 0


@pytest.mark.proof
def test_l1_l2_three_processes_that_share_a_token_stay_below_the_limit_together(
    remote: Remote, project: Project
) -> None:
    remote.post("limits", burst=20)
    remote.fault(**JITTER)
    project.configure(base_url=remote.url, api_token=remote.token, burst=20)
    assert project.run("api", "getCurrentUser").code == 0  # makes control.db, which all of them share
    remote.clear_log()
    processes = [
        project.start("sync", "products", "stages", first="knobs.small_pages(1)"),
        project.start("api", "getDeals", "limit=11", "--all"),
        project.start("api", "getPersons", "limit=11", "--all"),
    ]
    for process in processes:
        ran = wait_for(process)
        assert ran.code == 0, ran
    seen = remote.window()
    assert len(remote.log()) > 40
    assert seen["max"] <= 20
    assert seen["count_429"] == 0


@pytest.mark.proof
def test_l1_l2_searches_of_several_processes_stay_below_their_own_limit(remote: Remote, project: Project) -> None:
    remote.post("limits", burst=40, search_burst=10)
    project.configure(base_url=remote.url, api_token=remote.token, burst=40)
    assert project.run("api", "getCurrentUser").code == 0
    remote.clear_log()
    paths = ("/api/v2/deals/search", "/api/v2/itemSearch?term=ab")
    commands = [("searchPersons", "term=an", "limit=3"), ("searchDeals", "term=er", "limit=3")]
    processes = [project.start("api", *each, "exact_match=false", "--all") for each in commands]
    processes += [project.start("api", "--request", "GET", path, "--query", "term=ab") for path in paths]
    for process in processes:
        ran = wait_for(process)
        assert ran.code == 0, ran
    arrived = [r["monotonic_s"] for r in remote.log() if "earch" in r["path"]]
    assert len(arrived) > 20  # or nothing was limited
    assert max(sum(0 <= other - first < 2.0 for other in arrived) for first in arrived) <= 10
    assert remote.window()["count_429"] == 0


@pytest.mark.parametrize("told", [True, False], ids=["with headers", "without headers"])
def test_l3_after_a_burst_429_no_worker_sends_until_the_reset(remote: Remote, project: Project, told: bool) -> None:
    workers = 4
    remote.fault(kind="burst_429", path="products|deals|persons", nth=6, token_headers=told)
    project.configure(base_url=remote.url, api_token=remote.token, burst=200, concurrency=workers)
    ran = project.run("sync", "products", "deals", "persons", "--json", first="knobs.small_pages(20)")
    assert ran.code == 0, ran
    log = remote.log()
    at = next(index for index, request in enumerate(log) if request["status"] == 429)
    refused, behind = log[at], log[at + 1 :]
    early = [r for r in behind if r["monotonic_s"] - refused["monotonic_s"] < 2.0]
    assert len(early) < workers  # only those that were under way already
    assert len(behind) > len(early)
    again = [r for r in behind if (r["path"], r["query"]) == (refused["path"], refused["query"])]
    assert [r["status"] for r in again] == [200]


def test_l3_the_pause_of_one_process_holds_the_others_too(remote: Remote, project: Project) -> None:
    remote.fault(kind="burst_429", path="deals", nth=1)
    remote.fault(kind="latency", path="persons", ms=400)  # longer than a busy machine needs to tell of the pause
    project.configure(base_url=remote.url, api_token=remote.token, burst=200, concurrency=1)
    first = project.start("api", "getDeals", "limit=100", "--all")
    second = project.start("api", "getPersons", "limit=20", "--all")
    assert wait_for(first).code == wait_for(second).code == 0
    log = remote.log()
    refused = next(request for request in log if request["status"] == 429)
    behind = [r["monotonic_s"] - refused["monotonic_s"] for r in log if r["seq"] > refused["seq"]]
    assert behind
    # The other one's request that was under way, and one it sent before the first had read its answer.
    assert sum(moment < 2.0 for moment in behind) <= 2


def test_l3_an_exhausted_day_stops_the_run_and_the_same_command_goes_on_the_next_day(
    remote: Remote, project: Project
) -> None:
    remote.post("limits", daily_tokens=remote.get("summary")["tokens_spent"] + 60)
    project.configure(base_url=remote.url, api_token=remote.token, daily_tokens=30_000)
    command, first = ("sync", "deals", "stages", "--json"), "knobs.small_pages(40)"
    stopped = project.run(*command, first=first)
    assert stopped.code == 3, stopped
    assert stopped.summary["complete"] is False
    assert {gap["kind"] for gap in stopped.summary["gaps"]} == {"stopped"}
    time.sleep(0.5)  # what was given up under way is in the log when the sandbox is through with it
    sent = len(remote.log())
    assert sent < 12
    sealed = project.sealed()
    assert sealed

    refused = project.run(*command, first=first)  # the day is not over
    assert refused.code == 3, refused
    # One more at most: whose token it is, if what is left pays for that, or one that was given up and shows late.
    assert len(remote.log()) <= sent + 1
    # Where a cheap request was still paid for, the run began, and its gaps say why it ended, and when it may go on.
    messages = [gap["detail"] for gap in refused.summary.get("gaps", [])] or [refused.summary["message"]]
    assert all("tokens are spent; there are new ones at 00:00 UTC" in text for text in messages)

    remote.post("clock", advance_s=86_400)
    remote.post("limits", daily_tokens=30_000)
    remote.clear_log()
    done = project.run(*command, first=f"{first}; knobs.tomorrow()")
    assert done.code == 0, done
    assert done.summary["run_id"] == stopped.summary["run_id"]
    assert not sealed & {page_of(request) for request in remote.log()}
    assert project.ask("SELECT count(*) FROM main.deals")[0][0] == _listed(remote, "deals")


def test_l3_a_daily_429_without_headers_stops_the_run_resumably(remote: Remote, project: Project) -> None:
    remote.fault(kind="daily_429", path="deals", nth=3, times=1000, token_headers=False)
    project.configure(base_url=remote.url, api_token=remote.token, concurrency=2)
    command, first = ("sync", "deals", "stages", "--json"), "knobs.small_pages(40)"
    stopped = project.run(*command, first=first)
    assert stopped.code == 3, stopped
    assert sum(request["status"] == 429 for request in remote.log()) <= 2
    remote.clear_faults()
    sealed = project.sealed()
    remote.clear_log()
    done = project.run(*command, first=first)
    assert done.code == 0, done
    assert not sealed & {page_of(request) for request in remote.log()}


def test_l4_after_a_page_of_html_nothing_is_sent_and_nothing_counts_as_deleted(
    remote: Remote, project: Project
) -> None:
    project.configure(base_url=remote.url, api_token=remote.token, concurrency=2)
    assert project.run("sync", "stages", "pipelines", "products").code == 0
    before = project.ask("SELECT count(*), count(_deleted_at) FROM main.products")
    remote.clear_log()
    remote.fault(kind="html_403", path="products|stages|pipelines")
    stopped = project.run("sync", "--full", "stages", "pipelines", "products", "--json")
    assert stopped.code == 3, stopped
    assert sum(request["status"] == 403 for request in remote.log()) <= 2  # those under way
    remote.clear_faults()
    sent = len(remote.log())
    for command in (("sync", "--json"), ("api", "getDeals"), ("sync", "stages")):
        again = project.run(*command)
        assert again.code == 3, again
        assert "abuse protection" in again.err
    assert len(remote.log()) == sent
    assert project.ask("SELECT count(*), count(_deleted_at) FROM main.products") == before


@pytest.mark.proof
def test_l6_one_failure_in_ten_costs_at_most_a_quarter_more_requests(remote: Remote, tmp_path: Path) -> None:
    command, first = ("sync", "deals", "persons", "organizations", "--json"), "knobs.small_pages(5); knobs.hurry()"
    calm = Project(tmp_path / "calm", remote)
    assert calm.run(*command, first=first).code == 0
    free = len(remote.log())
    assert free > 80
    remote.clear_log()
    remote.fault(kind="status", status=503, probability=0.1)
    shaken = Project(tmp_path / "shaken", remote)
    ran = shaken.run(*command, first=first)
    assert ran.code == 0, ran
    assert remote.struck() > 0
    assert len(remote.log()) <= 1.25 * free
    for table in ("deals", "persons", "organizations"):
        assert shaken.ask(f"SELECT count(*) FROM main.{table}") == calm.ask(f"SELECT count(*) FROM main.{table}")


@pytest.mark.proof
def test_l6_an_overloaded_server_gets_few_retries(remote: Remote, project: Project) -> None:
    project.configure(base_url=remote.url, api_token=remote.token)
    assert project.run("sync").code == 0
    free = len(remote.log())
    remote.clear_log()
    remote.fault(kind="status", status=503, path="^/(?!v1/users/me)")
    ran = project.run("sync", "--full", "--json", first="knobs.hurry()")
    assert ran.code == 1, ran
    assert {gap["stream"] for gap in ran.summary["gaps"]} == ran.summary["streams"].keys()
    assert len(remote.log()) <= 1.1 * free + 20


def _listed(remote: Remote, stream: str) -> int:
    return sum(entry["state"] in ("live", "archived", "deleted") for entry in remote.dump(stream))


def test_s9_a_continued_run_says_as_of_when_it_is_complete(remote: Remote, project: Project) -> None:
    project.configure(base_url=remote.url, api_token=remote.token)
    remote.fault(kind="daily_429", path="/api/v2/deals", times=1000, token_headers=False)
    stopped = project.here("sync", "deals", "--json")
    assert stopped.code == 3, stopped
    remote.clear_faults()
    remote.clear_log()
    remote.advance(600)
    done = project.here("sync", "deals", "--json")
    assert done.code == 0, done
    assert done.summary["run_id"] == stopped.summary["run_id"]
    assert not [request for request in remote.log() if "dealFields" in request["path"]]  # as they were ten minutes ago
    as_of = datetime.fromisoformat(done.summary["as_of"])
    now = datetime.fromisoformat(remote.post("clock", advance_s=0)["data"]["now"])
    assert now - as_of >= timedelta(seconds=600)
    assert project.ask("SELECT as_of FROM meta.runs") == [(as_of,)]


def test_s9_people_see_as_of_when_a_continued_run_is_complete(remote: Remote, project: Project) -> None:
    project.configure(base_url=remote.url, api_token=remote.token)
    remote.fault(kind="daily_429", path="/api/v2/deals", times=1000, token_headers=False)
    assert project.here("sync", "deals").code == 3
    remote.clear_faults()
    assert "complete as of " in project.here("sync", "deals").err
    assert "as of" not in project.here("sync", "deals").err
