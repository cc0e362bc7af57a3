"""Names what the store has of an account: `<account>/current.json`, the object that makes a published state current.

    {"generation": 12, "token": "…", "files": {"data/warehouse.duckdb": {"bytes": …, "sha256": "…", "parts": [{"key":
    "00000012-…/data/warehouse.duckdb", "bytes": …}]}, …}, "retired": […]}

All other objects are written once, under a folder for each generation, and before the pointer that names them. So a
pointer names only what is complete, wherever a worker is killed, and a reader that follows it sees one state.

The pointer changes by conditional writes only. A worker that takes the lease writes its own token into it first: what
an earlier owner publishes after that is refused by the store, even if that one has not noticed yet.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from pdsync.errors import ConfigError, StorageError

if TYPE_CHECKING:
    from pdsync.fleet.lease import Lease
    from pdsync.fleet.store import Store, Version

CURRENT = "current.json"
WAREHOUSE = "data/warehouse.duckdb"
RESERVED = {"fleet", "rollup"}  # folders of a store, beside those of the accounts
_FORMAT = 1
_FOLDER = re.compile(r"(\d{8,})-[0-9a-f]+-\d+/")
_MOST_TRIES = 20


class Part(Struct, frozen=True):
    """An object with a part of a file; `key` is below the account's prefix."""

    key: str
    bytes: int


class StoredFile(Struct, frozen=True):
    """A file of the account's folder, as the store has it: its parts, in their order."""

    bytes: int
    sha256: str
    parts: tuple[Part, ...]


class Pointer(Struct, frozen=True):
    """What the store has of an account."""

    generation: int = 0  # the number of publications
    token: str = ""  # of the lease under which it may change
    files: dict[str, StoredFile] = {}  # by path below the account's folder, with "/" between
    retired: tuple[str, ...] = ()  # keys of earlier warehouses, oldest first, which readers may still have open
    origin: str = ""  # the token of the first lease: another one where the account was removed and published again
    format: int = _FORMAT

    def keys(self) -> set[str]:
        """The objects that must exist."""
        return {part.key for file in self.files.values() for part in file.parts}


# Made when this module is imported: msgspec crashes when threads are the first to decode a type side by side.
_DECODER = msgspec.json.Decoder(Pointer)


def read(store: Store, account: str) -> tuple[Pointer, Version] | None:
    """The pointer of an account, and its version for `swap`; None where the store has nothing of it.

    Raises:
        StorageError: the store can't be reached, or the pointer is damaged or of a newer pdsync.
    """
    key = f"{account}/{CURRENT}"
    found = store.read(key)
    if found is None:
        return None
    try:
        pointer = _DECODER.decode(found.data)
    except msgspec.DecodeError as error:
        raise StorageError(f"{store.url(key)} is damaged: {error}. Nothing was changed.") from error
    if pointer.format > _FORMAT:
        raise StorageError(f"{store.url(key)} was written by a newer pdsync. Nothing was changed. Update this one.")
    return pointer, found.version


def fence(store: Store, account: str, lease: Lease) -> tuple[Pointer, Version]:
    """Write the token of `lease` into the pointer, so that no earlier owner can change it; the pointer as it is then.

    Raises:
        LeaseLost, StorageError: nothing was changed.
    """
    for _ in range(_MOST_TRIES):
        lease.check()
        current = read(store, account)
        pointer = replace(current[0] if current else Pointer(origin=lease.token), token=lease.token)
        version = swap(store, account, pointer, current[1] if current else None)
        if version:
            return pointer, version
    raise StorageError(f"The pointer of account {account} changes all the time. Nothing was called.")


def swap(store: Store, account: str, pointer: Pointer, expected: Version | None) -> Version | None:
    """Replace the pointer, if it is still `expected` (None: absent); None: it is not, and nothing was changed."""
    key, data = f"{account}/{CURRENT}", msgspec.json.encode(pointer)
    return store.replace(key, data, expected) if expected else store.create(key, data)


def folder(generation: int, token: str, attempt: int) -> str:
    """The folder of the objects that one attempt to publish a generation writes."""
    return f"{generation:08d}-{token}-{attempt}"


def generation_of(key: str) -> int | None:
    """The generation in whose folder an object is, by its key below the account's prefix; None: it is in none."""
    found = _FOLDER.match(key)
    return int(found[1]) if found else None


class Published(Struct, frozen=True):
    """The warehouse that is current in the store."""

    url: str  # for ATTACH
    key: str  # in the store
    generation: int
    bytes: int
    sha256: str


def published(store: Store, account: str) -> Published | None:
    """The current warehouse of an account; None where it has none yet.

    Its object never changes, and stays for at least an hour after a newer one is published.
    """
    current = read(store, account)
    file = current[0].files.get(WAREHOUSE) if current else None
    if current is None or file is None:
        return None
    key = f"{account}/{file.parts[0].key}"
    return Published(store.url(key), key, current[0].generation, file.bytes, file.sha256)


def accounts(store: Store) -> list[str]:
    """The accounts of which the store has something."""
    return [name for name in store.folders() if name not in RESERVED]


def remove(store: Store, account: str, lease: Lease) -> int:
    """Remove everything that the store has of an account; the number of objects.

    The pointer goes first: from then on no reader finds the account, and no worker publishes it.

    Args:
        store: of the fleet.
        account: its name.
        lease: of the account, so that no worker runs it.
    """
    if not account or "/" in account:
        raise ConfigError(f"{account!r} is no name of an account. Nothing was removed.")
    fence(store, account, lease)
    first, last = f"{account}/{CURRENT}", f"{account}/lease.json"
    store.remove([first])
    keys = [entry.key for entry in store.list(account)]
    store.remove([key for key in keys if key != last])
    lease.renew()
    store.remove([last])
    return len({first, last, *keys})
