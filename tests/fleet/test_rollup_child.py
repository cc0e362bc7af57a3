"""A roll-up in a process of its own: however it ends, its account gets the reason."""

from __future__ import annotations

import os
import time
from threading import Timer
from typing import TYPE_CHECKING

import pytest

from pdsync.fleet import process, rollup_child
from pdsync.fleet.accounts import Account
from pdsync.fleet.rollup import RolledUp, RollUpTarget, catalog_path
from pdsync.fleet.rollup_child import Failure

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def account(tmp_path: Path) -> Account:
    """It has a file where its warehouse would be."""
    (tmp_path / "acme" / "data").mkdir(parents=True)
    (tmp_path / "acme" / "data" / "warehouse.duckdb").write_bytes(b"no database" * 5000)
    return Account("acme", tmp_path / "acme")


def test_an_error_comes_with_its_class_and_what_to_do(account: Account, tmp_path: Path) -> None:
    failure = rollup_child.run(RollUpTarget(str(tmp_path / "rollup")), account, "r1", 60)
    assert isinstance(failure, Failure)
    assert (failure.error, failure.exit_code) == ("StorageError", 1)
    assert "warehouse.duckdb can't be opened" in failure.message


def test_an_account_without_a_warehouse_has_nothing_to_roll_up(tmp_path: Path) -> None:
    target = RollUpTarget(str(tmp_path / "rollup"))
    assert rollup_child.run(target, Account("new", tmp_path / "new"), "r1", 60) == RolledUp("new")
    assert not (tmp_path / "rollup").exists()


def hang(folder: Path) -> RollUpTarget:
    """A roll-up whose catalogue can't be read to its end."""
    (folder / "rollup" / "catalog").mkdir(parents=True)
    os.mkfifo(folder / "rollup" / catalog_path("acme"))
    return RollUpTarget(str(folder / "rollup"))


def test_one_that_hangs_is_ended(account: Account, tmp_path: Path) -> None:
    failure = rollup_child.run(hang(tmp_path), account, "r1", 0.5)
    assert failure == Failure("Timeout", 1, "Its roll-up did not end within 0.5 s, and was stopped.")


def test_one_whose_lease_is_lost_is_killed(account: Account, tmp_path: Path) -> None:
    def on_lost(end: Callable[[], None]) -> None:
        Timer(0.1, end).start()

    failure = rollup_child.run(hang(tmp_path), account, "r1", 60, on_lost)
    assert isinstance(failure, Failure)
    assert (failure.error, failure.message) == ("Killed", "Its roll-up ended with -9.")


def test_a_run_that_is_stopped_starts_none(account: Account, tmp_path: Path) -> None:
    run_id = f"stopped-{time.time()}"
    process.stop_children(run_id)
    failure = rollup_child.run(hang(tmp_path), account, run_id, 60)
    assert failure == Failure("", 130, "It was not rolled up: the run was stopped.")
