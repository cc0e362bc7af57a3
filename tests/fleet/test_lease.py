"""The lease of an account: one owner at a time, by the store's clock; a dead owner's lease expires."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from pdsync.errors import ConfigError, LeaseLost, LeaseTaken, StorageError
from pdsync.fleet import lease
from pdsync.fleet.store import Version, open_store
from tests.support.world import clean_environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pdsync.fleet.store import Store


def test_a_released_lease_is_taken_at_once(store: Store) -> None:
    with lease.acquire(store, "acme", owner="one") as first:
        first.renew()
    with lease.acquire(store, "acme", owner="two") as second:
        assert second.token != first.token
        second.check()
    assert [entry.key for entry in store.list("")] == ["acme/lease.json"]


@contextmanager
def busy(own: lease.Lease) -> Iterator[None]:
    """Renew the lease all the time, however slow this machine is."""
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(0.02):
            own.renew()

    thread = threading.Thread(target=renew)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_a_lease_that_is_renewed_is_not_taken(store: Store) -> None:
    with lease.acquire(store, "acme", owner="worker 1") as first:
        with busy(first), pytest.raises(LeaseTaken, match=r"acme is being run by worker 1"):
            lease.acquire(store, "acme", owner="worker 2")
        first.renew()


def test_a_lease_is_renewed_in_the_background(store: Store) -> None:
    with lease.acquire(store, "acme", owner="worker 1", ttl_s=6), pytest.raises(LeaseTaken):
        lease.acquire(store, "acme", owner="worker 2")


def test_of_many_workers_at_once_one_gets_the_lease(store: Store) -> None:
    together = threading.Barrier(6)
    owners = []

    def take(number: int) -> None:
        together.wait()
        try:
            with lease.acquire(store, "acme", owner=f"worker {number}") as own, busy(own):
                owners.append(number)
                together.wait()  # until all others have failed
        except LeaseTaken:
            together.wait()
        except BaseException:
            together.abort()  # the others would wait for ever
            raise

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(take, range(6)))
    assert len(owners) == 1


def test_the_lease_of_an_owner_that_died_expires(store: Store) -> None:
    left = lease.acquire(store, "acme", owner="one", ttl_s=0.2)  # never entered, so never renewed
    began = time.monotonic()
    notes: list[str] = []
    with lease.acquire(store, "acme", owner="two", ttl_s=5, on_note=notes.append) as second:
        assert time.monotonic() - began > 0.2
        assert ["was last run by one" in note for note in notes] == [True]
        with pytest.raises(LeaseLost):
            left.renew()
        second.renew()


def test_o5_this_machines_clock_decides_nothing(tmp_path: Path) -> None:
    """A worker whose clock is a year ahead takes no lease that its owner renews."""
    store = open_store(str(tmp_path / "store"))
    program = (
        "import sys, time\n"
        "from tests.support import knobs\n"
        "knobs.local_clock(time.time() + 365 * 86_400)\n"
        "from pdsync.errors import LeaseTaken\n"
        "from pdsync.fleet import lease, store\n"
        "try:\n"
        f"    lease.acquire(store.open_store({str(tmp_path / 'store')!r}), 'acme', owner='ahead')\n"
        "except LeaseTaken:\n"
        "    sys.exit(7)\n"
    )
    with lease.acquire(store, "acme", owner="one") as own, busy(own):
        assert subprocess.run([sys.executable, "-c", program], env=clean_environment(), check=False).returncode == 7


def test_an_owner_that_cannot_renew_gives_up_before_others_may_take_over(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    lost = threading.Event()
    with lease.acquire(store, "acme", owner="one", ttl_s=0.6) as first:
        first.on_lost(lost.set)
        (tmp_path / "store").rename(tmp_path / "away")  # the share is not mounted any more
        (tmp_path / "store").write_text("")
        assert lost.wait(10)
        (tmp_path / "store").unlink()
        (tmp_path / "away").rename(tmp_path / "store")
        with pytest.raises(LeaseLost, match="Nothing more was published"):
            first.renew()
        again = threading.Event()
        first.on_lost(again.set)
        assert again.is_set()


def test_o1_an_owner_whose_renewals_fail_gives_up_before_its_lease_expires(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(str(tmp_path / "store"))

    def refuse(*_: object) -> None:
        raise StorageError("the network is away")

    lost = threading.Event()
    with lease.acquire(store, "acme", owner="one", ttl_s=0.6) as first:
        first.on_lost(lost.set)
        monkeypatch.setattr(store, "replace", refuse)
        assert lost.wait(5)
        assert first.is_lost


def test_a_lease_whose_renewal_got_no_response_goes_on(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with lease.acquire(store, "acme", owner="one") as first:
        with monkeypatch.context() as patch:
            real = store.replace

            def cut(*arguments: object) -> None:
                real(*arguments)  # type: ignore[arg-type] # the arguments are passed on as they came
                raise StorageError("the connection was cut")

            patch.setattr(store, "replace", cut)
            with pytest.raises(StorageError):
                first.renew()
        first.renew()
        assert not first.is_lost


@pytest.mark.parametrize("ignored", ["create", "replace"])
def test_a_store_without_conditional_writes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ignored: str
) -> None:
    store = open_store(str(tmp_path / "store"))

    def overwrite(key: str, data: bytes, *_: object) -> Version:
        store.remove([key])
        version = real(key, data)
        assert version is not None
        return version

    real = store.create
    monkeypatch.setattr(store, ignored, overwrite)
    with pytest.raises(ConfigError, match="no conditional writes"):
        lease.acquire(store, "acme", owner="one")
    assert list(store.list("")) == []


def test_what_is_no_lease_is_named(store: Store) -> None:
    store.create("acme/lease.json", b"{")
    with pytest.raises(StorageError, match=r"acme/lease.json is no lease"):
        lease.acquire(store, "acme", owner="one")
