"""Removes an account from what a fleet has of all together: its rows in the roll-up, its state in the store."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from typing import TYPE_CHECKING

from msgspec import Struct

from pdsync.core.control import Lock
from pdsync.errors import ConfigError
from pdsync.fleet import ask, rollup
from pdsync.fleet.accounts import is_name
from pdsync.fleet.store import open_store

if TYPE_CHECKING:
    from pathlib import Path

    from pdsync.fleet.accounts import Fleet


class Removal(Struct, frozen=True):
    """What there is of an account beside its folder."""

    account: str
    rolled_up: int  # files of the roll-up
    stored: int  # objects of its state in the store
    folder: Path | None  # its project on this machine, which stays


def find_left(fleet: Fleet) -> list[str]:
    """The accounts of which the roll-up or the store has something, and that are not in fleet.toml, by name.

    Raises:
        StorageError: the store can't be read.
    """
    names = set(rollup.find_accounts(fleet))
    if fleet.store:
        from pdsync.fleet import pointer  # noqa: PLC0415 - only with a store

        names |= set(pointer.accounts(open_store(fleet.store, fleet.endpoint, fleet.region)))
    return sorted(names - fleet.accounts.keys())


def find(fleet: Fleet, name: str) -> Removal:
    """What there is of the account called `name`.

    Raises:
        ConfigError: it is no name of an account; it is in fleet.toml, so the next run would bring it back; or there is
            nothing of it.
    """
    _check_name(name)
    if name in fleet.accounts:
        raise ConfigError(
            f"{name} is an account in {fleet.file}, so the next run would bring it back. Nothing was removed.\n"
            f"Remove [accounts.{name}] there first."
        )
    folder = fleet.folder / name
    found = Removal(
        name,
        len(rollup.files_of(fleet, name)),
        sum(1 for _ in open_store(fleet.store, fleet.endpoint, fleet.region).list(name)) if fleet.store else 0,
        folder if folder.is_dir() else None,
    )
    if not found.rolled_up and not found.stored:
        where = f" Its folder is {folder}; remove it by hand." if found.folder else ""
        raise ConfigError(f"The roll-up and the store have nothing of an account {name!r}. Nothing was removed.{where}")
    return found


def remove(fleet: Fleet, name: str) -> None:
    """Remove the account's rows and state for good; its folder on this machine stays.

    Raises:
        ConfigError: it is no name of an account.
        LeaseTaken, ProjectLocked: a worker runs the account, and would bring its rows back. Nothing was removed.
        StorageError: something can't be removed; the same command goes on.
    """
    _check_name(name)
    if not fleet.store:
        data = fleet.folder / name / "data"
        with Lock(data / "pdsync.lock") if data.is_dir() else nullcontext():
            _remove_rows(fleet, name)
        return
    from pdsync.fleet import lease, pointer  # noqa: PLC0415 - only with a store

    store = open_store(fleet.store, fleet.endpoint, fleet.region)
    with lease.acquire(store, name, owner="pdsync fleet remove") as taken:
        _remove_rows(fleet, name)
        pointer.remove(store, name, taken)


def _remove_rows(fleet: Fleet, name: str) -> None:
    """Remove the account's rows from the roll-up and its copy; no command may run that would roll it up again."""
    rollup.remove_files(fleet, name)
    for copy in (fleet.data / ask.COPY).glob(f"*/account={name}"):
        shutil.rmtree(copy)


def _check_name(name: str) -> None:
    """Refuse what no account can be called: below the store, `rollup` has the rows of all accounts."""
    if not is_name(name):
        raise ConfigError(f"{name!r} is no name of an account. Nothing was removed.")
