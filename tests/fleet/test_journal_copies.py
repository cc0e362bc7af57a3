"""No change is sent before the store has the line that says so: a lost disk sends nothing twice."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from pdsync.errors import LeaseLost, NotCopied, StorageError
from pdsync.fleet.journal_copies import serve_copies
from pdsync.fleet.mirror import mirrored
from pdsync.fleet.store import open_store
from pdsync.writeback.journal_copy import wait_for_copy
from tests.support.world import Project, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pdsync.fleet.store import Store
    from tests.support.world import Remote

STREAMS = ("deals", "users", "stages", "pipelines")
PUSH = ("push", "--yes", "--json", "--settle-seconds", "0.1")


@pytest.fixture(scope="module")
def remote() -> Iterator[Remote]:
    with serving("--deals", "20", "--seed", "6") as remote:
        yield remote


def titles(remote: Remote) -> list[str]:
    return [entry["record"]["title"] for entry in remote.dump("deals")]


def die_while_sending(store: Store, project: Project, remote: Remote) -> None:
    """Queue a change and send it on a machine that is lost before the response is recorded."""
    with mirrored(store, "acme", project.folder, owner="one") as mirror:
        project.env |= mirror.environment
        assert project.here("sync", "-q", *STREAMS).code == 0
        mirror.checkpoint()
        assert project.here("queue", "add", "addDeal", "title=Once").code == 0
        killed = project.run(*PUSH, first='knobs.die("pdsync.writeback.outbox", "Outbox.record_answer", 1)')
        assert killed.code == -9, killed
        assert titles(remote).count("Once") == 1
        shutil.rmtree(project.folder)
        mirror._lease.lose()  # it is gone, and publishes nothing more
        store.remove(["acme/lease.json"])  # as if it had expired


@pytest.mark.proof
def test_w2_a_disk_that_is_lost_while_a_change_is_sent_sends_it_once(remote: Remote, tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    first, second = Project(tmp_path / "first" / "acme", remote), Project(tmp_path / "second" / "acme", remote)
    with pytest.raises(LeaseLost):
        die_while_sending(store, first, remote)
    with mirrored(store, "acme", second.folder, owner="two") as mirror:
        second.env |= mirror.environment
        ran = second.here(*PUSH)
        assert ran.code == 0, ran
        assert second.control("SELECT state FROM mutations") == [("applied",)]
    assert titles(remote).count("Once") == 1


def test_w3_without_a_copy_nothing_is_sent(remote: Remote, tmp_path: Path) -> None:
    project = Project(tmp_path / "acme", remote)
    assert project.here("sync", "-q", *STREAMS).code == 0
    assert project.here("queue", "add", "addDeal", "title=Never").code == 0
    remote.clear_log()

    def refuse() -> None:
        raise StorageError("the store is out of reach\nfor now")

    with serve_copies(refuse) as variables:
        project.env |= variables
        ran = project.here(*PUSH)
    assert ran.code == 3, ran
    assert "the store is out of reach for now" in ran.out + ran.err
    ended = project.here(*PUSH)  # the worker has ended, and does not answer
    assert ended.code == 3, ended
    assert not [entry for entry in remote.log() if entry["method"] != "GET"]
    for name in variables:
        del project.env[name]
    assert project.here(*PUSH).code == 0
    assert titles(remote).count("Never") == 1


def test_a_command_outside_a_fleet_requests_no_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    copies = []
    with serve_copies(lambda: copies.append(1)):
        monkeypatch.delenv("PDSYNC_JOURNAL_COPY", raising=False)
        wait_for_copy()
    assert copies == []


def test_a_command_goes_on_when_the_copy_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    copies = []
    with serve_copies(lambda: copies.append(1)) as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        wait_for_copy()
        wait_for_copy()
    assert copies == [1, 1]
    with pytest.raises(NotCopied, match="does not respond"):
        wait_for_copy()
