"""Streams with a request a parent: only when named, only for parents that changed, within their share of the day."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.end_to_end.world import Project, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.end_to_end.world import Remote


@pytest.fixture
def remote() -> Iterator[Remote]:
    with serving("--deals", "60", "--mail-threads", "40", "--seed", "4") as remote:
        remote.advance(3600)
        yield remote


def asked_for(remote: Remote) -> list[str]:
    """Of which threads the messages were asked for, in order."""
    return [entry["path"].split("/")[-2] for entry in remote.log() if entry["operation"] == "getMailThreadMessages"]


def messages(project: Project) -> list[tuple[Any, ...]]:
    return project.ask("SELECT mail_thread_id, count(*) FROM mail_messages GROUP BY 1 ORDER BY 1 DESC")


def test_messages_come_newest_thread_first_and_then_of_changed_threads_only(remote: Remote, tmp_path: Path) -> None:
    project = Project(tmp_path / "project", remote)
    first = project.here("sync", "mail_threads", "mail_messages", "--json")
    assert first.code == 0, first
    threads = project.ask("SELECT id, message_count FROM mail_threads WHERE _deleted_at IS NULL ORDER BY id DESC")
    assert messages(project) == [thread for thread in threads if thread[1]]
    asked = asked_for(remote)
    assert asked == [str(id) for id, count in threads if count]

    remote.advance(3600)
    remote.clear_log()
    again = project.here("sync", "mail_threads", "mail_messages", "--json")
    assert again.code == 0, again
    assert again.written == {"mail_threads": 0, "mail_messages": 0}
    assert asked_for(remote) == []

    changed = asked[3]
    edit = ("api", "updateMailThreadDetails", f"id={changed}", "read_flag=1", "shared_flag=1", "--yes")
    assert project.here(*edit).code == 0
    assert project.here("sync", "mail_threads", "mail_messages", "--json").code == 0
    assert asked_for(remote) == [changed]


def test_they_are_read_only_when_named(remote: Remote, tmp_path: Path) -> None:
    project = Project(tmp_path / "project", remote)
    plan = project.here("plan", "--json")
    lines = {line["name"]: line for line in plan.events[:-1]}
    assert lines["mail_messages"]["optional"]
    assert not lines["mail_threads"]["optional"]
    total = sum(line["tokens"] for line in plan.events[:-1] if not line["optional"])
    assert plan.summary["tokens"] == total + 2  # and whose token it is

    assert project.here("sync", "mail_threads").code == 0
    threads = project.ask("SELECT count(*) FROM mail_threads WHERE _deleted_at IS NULL AND message_count > 0")[0][0]
    named = project.here("plan", "mail_messages", "--json")
    assert [line["requests"] for line in named.events[:-1]] == [threads]


def test_l5_their_share_of_the_day_stops_them_and_the_next_run_goes_on(remote: Remote, tmp_path: Path) -> None:
    project = Project(tmp_path / "project", remote).configure(daily_tokens=2000, dependents_share=3)
    runs, asked = [], list[str]()
    for _ in range(20):
        remote.clear_log()
        ran = project.here("sync", "mail_threads", "mail_messages", "--json")
        here = asked_for(remote)
        assert len(here) <= 2000 * 3 // 100 // 20
        asked += here
        runs.append(ran.code)
        if ran.code == 0:
            break
        assert ran.code == 3, ran
        assert ran.summary["streams"]["mail_threads"]["complete"]
    threads = project.ask("SELECT id FROM mail_threads WHERE _deleted_at IS NULL AND message_count > 0")
    assert runs[-1] == 0
    assert len(runs) > 1
    assert sorted(asked) == sorted(str(id) for (id,) in threads)  # each once, over all runs
    assert len(messages(project)) == len(threads)


def test_a_parent_that_was_never_synced_is_named(remote: Remote, tmp_path: Path) -> None:
    project = Project(tmp_path / "project", remote)
    ran = project.here("sync", "mail_messages", "--json")
    assert ran.code == 1
    assert "pdsync sync mail_threads" in ran.summary["gaps"][0]["detail"]


def test_s1_a_kill_between_two_parents_repeats_no_request(remote: Remote, tmp_path: Path) -> None:
    calm = Project(tmp_path / "calm", remote)
    assert calm.here("sync", "mail_threads", "mail_messages").code == 0
    project = Project(tmp_path / "project", remote)
    assert project.here("sync", "mail_threads").code == 0
    remote.clear_log()
    died = project.run(
        "sync", "mail_messages", first="knobs.die('pdsync.core.control', 'Control.record_pages', 5, after=True)"
    )
    assert died.code == -9
    ran = project.here("sync", "mail_messages", "--json")
    assert ran.code == 0, ran
    asked = asked_for(remote)
    assert len(asked) <= len(set(asked)) + 9  # what was under way when it died: concurrency + 1
    assert messages(project) == messages(calm)
