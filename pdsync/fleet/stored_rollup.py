"""Rolls up accounts that are in a store, from what the store has, on any machine.

Of each account the published warehouse and what belongs to it are downloaded to a temporary folder, with the account's
lease: while no worker has the account, none brings a newer state that this one would replace.
"""

from __future__ import annotations

import os
import platform
import secrets
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from msgspec.structs import replace

from pdsync.core.disk import make_private
from pdsync.core.log import log
from pdsync.fleet import contents, lease, pointer, rollup, rollup_child
from pdsync.fleet.contents import Kind
from pdsync.fleet.record import Record
from pdsync.fleet.restoring import Restoration
from pdsync.fleet.rollup import RolledUp
from pdsync.fleet.rollup_child import Failure
from pdsync.fleet.store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pdsync.fleet.accounts import Account, Fleet
    from pdsync.fleet.pointer import Pointer
    from pdsync.fleet.store import Store

_FILES = "data/files/"


def roll_up(
    fleet: Fleet,
    accounts: Iterable[Account],
    on_account: Callable[[RolledUp], None] = lambda done: None,
    on_note: Callable[[str], None] = log.warning,
    *,
    full: bool = False,
) -> dict[str, RolledUp]:
    """Roll up what the store has of `accounts`; one that fails is reported, and stops no other.

    Args:
        fleet: that has them, and a store.
        accounts: those to roll up.
        on_account: is called with each result.
        on_note: is called with messages for the user, from any thread.
        full: write all files, whether they are the same or not.

    Raises:
        ConfigError: the store's address is not valid.
    """
    store = open_store(fleet.store, fleet.endpoint, fleet.region)
    return rollup.roll_up_each(accounts, lambda each: _roll_up_one(fleet, store, each, on_note, full=full), on_account)


def _roll_up_one(
    fleet: Fleet, store: Store, account: Account, on_note: Callable[[str], None], *, full: bool
) -> RolledUp:
    """Roll up what the store has of an account; nothing, if it has no warehouse of it.

    Raises:
        LeaseTaken: a worker runs the account, and rolls it up itself.
        ConfigError: its settings put the warehouse elsewhere, where that of another account may be.
        StorageError: the store or the disk refuses.
    """
    if pointer.published(store, account.name) is None:
        return RolledUp(account.name)
    make_private(fleet.data)
    owner = f"{platform.node()}:{os.getpid()}"
    with (
        lease.acquire(store, account.name, owner=owner, on_note=on_note) as held,
        TemporaryDirectory(prefix=".rollup-", dir=fleet.data) as folder,
    ):
        current = pointer.read(store, account.name)
        if current is None:  # it was removed meanwhile
            return RolledUp(account.name)
        copy = Path(folder)
        Restoration(store, account.name, copy, _without_raw_files(current[0]), Record(), on_note).run()
        contents.check_paths(copy)
        outcome = rollup_child.run(
            rollup.target_of(fleet),
            replace(account, folder=copy),
            f"rollup-{secrets.token_hex(3)}",
            fleet.timeout_s,
            held.on_lost,
            full=full,
        )
    return RolledUp(account.name, error=outcome.message) if isinstance(outcome, Failure) else outcome


def _without_raw_files(current: Pointer) -> Pointer:
    """What a roll-up reads of an account: its tables, its state, its settings."""
    files = {
        path: file
        for path, file in current.files.items()
        if contents.kind_of(path) not in (Kind.SEALED, Kind.JOURNAL) and not path.startswith(_FILES)
    }
    return replace(current, files=files)
