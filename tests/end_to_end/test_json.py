"""The interface of scripts: the last line of `sync --json`, and the first keys of every listing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pdsync.sandbox import Limits, Sizes, generate_company, running
from tests.support.world import Project

if TYPE_CHECKING:
    from collections.abc import Iterator

COUNTS = {"requests", "tokens", "read", "inserted", "updated", "deleted", "unchanged", "complete"}


@pytest.fixture(scope="module")
def synced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    unlimited = Limits(burst=None, search_burst=None, daily_tokens=None)
    with running(generate_company(seed=6, sizes=Sizes(deals=60)), limits=unlimited) as box:
        project = Project(tmp_path_factory.mktemp("json") / "project")
        project.configure(base_url=box.url, api_token=box.token)
        ran = project.here("sync", "deals", "--json")
        assert ran.code == 0, ran
        yield project


def test_the_last_line_of_a_sync_is_its_summary(synced: Project) -> None:
    ran = synced.here("sync", "deals", "stages", "--json")
    assert ran.code == 0
    assert all("event" in event for event in ran.events)
    assert [event["event"] for event in ran.events].count("summary") == 1
    summary = ran.summary
    assert list(summary)[:2] == ["event", "complete"]
    assert summary["event"] == "summary"
    assert summary["complete"] is True
    assert summary["exit_code"] == 0
    assert summary["run_id"]
    assert summary["streams"].keys() == {"deal_fields", "deals", "stages"}
    for stream in summary["streams"].values():
        assert stream.keys() >= COUNTS
        assert stream["read"] == sum(stream[name] for name in ("inserted", "updated", "deleted", "unchanged"))
    assert summary["tokens"] == 2 + sum(stream["tokens"] for stream in summary["streams"].values())
    assert summary["requests"] == 1 + sum(stream["requests"] for stream in summary["streams"].values())
    assert synced.ask("SELECT complete, exit_code FROM meta.runs WHERE run_id = ?", summary["run_id"]) == [(True, 0)]


def test_the_last_line_of_a_failure_is_its_error(synced: Project) -> None:
    ran = synced.here("sync", "no_such_stream", "--json")
    assert ran.code == 2
    assert {"event": "error", "complete": False, "exit_code": 2}.items() <= ran.summary.items()
    assert ran.summary["message"]


@pytest.mark.parametrize(
    ("command", "keys", "least"),
    [
        (("streams",), ["name"], 14),
        (("operations",), ["operation_id", "version"], 300),
        (("fields",), ["name"], 1),
        (("runs",), ["name"], 1),
    ],
)
def test_each_listing_prints_an_object_a_row_with_its_name_first(
    synced: Project, command: tuple[str, ...], keys: list[str], least: int
) -> None:
    ran = synced.here(*command, "--json")
    assert ran.code == 0, ran
    assert len(ran.events) >= least
    for row in ran.events:
        assert list(row)[: len(keys)] == keys
        assert all(row[key] for key in keys)


def test_results_go_to_stdout_and_prose_to_stderr(synced: Project) -> None:
    ran = synced.here("sync", "stages")
    assert ran.code == 0
    assert ran.out == ""
    assert "Complete" in ran.err
    quiet = synced.here("sync", "stages", "-q")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")
