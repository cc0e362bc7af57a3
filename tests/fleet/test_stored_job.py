"""Jobs of a fleet with a store: another worker goes on where the last one stopped, and its disk may be lost."""

from __future__ import annotations

import shutil
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from pdsync.errors import LeaseLost
from pdsync.fleet import lease, pointer
from pdsync.fleet.accounts import Account
from pdsync.fleet.job import AccountJob, run
from pdsync.fleet.mirror import mirrored
from pdsync.fleet.store import open_store
from tests.support.world import Project, fingerprint, page_of, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pdsync.fleet.store import Store
    from tests.support.world import Remote

SYNC = ("sync", "deals", "persons", "users", "stages", "pipelines")


@pytest.fixture(scope="module")
def remote() -> Iterator[Remote]:
    with serving("--deals", "300", "--seed", "6") as remote:
        remote.advance(3600)
        yield remote


@pytest.fixture
def account(remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Account:
    monkeypatch.setenv("TOKEN_OF_ACME", remote.token)
    remote.clear_log()
    return Account("acme", tmp_path / "disk" / "acme", remote.url, "env:TOKEN_OF_ACME", burst=0, daily_tokens=0)


def pages(remote: Remote) -> Counter[tuple[str, str, str]]:
    """How often each page of a list was sent since the log was cleared."""
    got = Counter(page_of(entry) for entry in remote.log() if entry["method"] == "GET" and entry["status"] == 200)
    remote.clear_log()
    return got


@pytest.mark.proof
@pytest.mark.parametrize("store_url", ["s3"], indirect=True)
def test_a_disk_that_is_lost_between_two_nights_costs_no_request(
    remote: Remote, account: Account, store_url: str, tmp_path: Path
) -> None:
    job = AccountJob(account, SYNC, "r1", store=store_url)
    assert run(job).outcome == "complete"
    assert max(pages(remote).values()) == 1
    shutil.copytree(account.folder, tmp_path / "kept")
    remote.advance(4000)
    remote.change(0.05, seed=1, only=["updated", "added"])
    remote.advance(4000)
    shutil.rmtree(account.folder.parent)

    night = run(job)
    assert night.outcome == "complete", night
    after_loss = pages(remote)
    undisturbed = Project(tmp_path / "kept", remote)
    assert undisturbed.run(*SYNC).code == 0
    assert after_loss == pages(remote), "the requests of a night whose disk is whole"
    assert fingerprint(Project(account.folder, remote)) == fingerprint(undisturbed)
    current = pointer.published(open_store(store_url), "acme")
    assert current is not None
    assert current.bytes == (account.folder / "data" / "warehouse.duckdb").stat().st_size


@pytest.mark.proof
def test_a_job_whose_lease_is_lost_ends_its_command_and_publishes_nothing(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(str(tmp_path / "store"))

    class Lost(lease.Lease):
        def on_lost(self, callback):  # type: ignore[no-untyped-def]
            super().on_lost(callback)
            self.lose()  # as if it had expired just after the command began

    monkeypatch.setattr(lease, "Lease", Lost)
    result = run(AccountJob(account, SYNC, "r1", store=str(tmp_path / "store")))
    assert (result.outcome, result.exit_code, result.error) == ("stopped", 3, "LeaseLost"), result
    current = pointer.read(store, "acme")
    assert current is not None
    assert (current[0].generation, current[0].files) == (0, {})


@pytest.mark.proof
def test_s15_a_disk_lost_in_the_middle_of_a_run_costs_what_was_read_since_the_last_checkpoint(
    remote: Remote, tmp_path: Path
) -> None:
    remote.clear_log()
    store = open_store(str(tmp_path / "store"))
    first, second = Project(tmp_path / "first" / "acme", remote), Project(tmp_path / "second" / "acme", remote)
    with pytest.raises(LeaseLost):
        lose_disk_while_reading(store, first)
    with mirrored(store, "acme", second.folder, owner="two"):
        sealed = second.sealed()
        remote.clear_log()
        ran = second.run(*SYNC, first="knobs.small_pages(20)")
        assert ran.code == 0, ran
        requested = set(pages(remote))
    assert len(sealed) > 5
    assert sealed & requested == set()


def lose_disk_while_reading(store: Store, project: Project) -> None:
    with mirrored(store, "acme", project.folder, owner="one") as mirror:
        ran = project.run(
            *SYNC,
            first='knobs.small_pages(20)\nknobs.die("pdsync.core.control", "Control.record_pages", 8, after=True)',
        )
        assert ran.code == -9, ran
        mirror.checkpoint()
        shutil.rmtree(project.folder)
        mirror._lease.lose()
        store.remove(["acme/lease.json"])  # as if it had expired
