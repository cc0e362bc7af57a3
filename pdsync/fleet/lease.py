"""Gives an account to one worker at a time, whichever machine it is on.

The lease is an object of the store, `<account>/lease.json`, and changes by conditional writes only. Its owner renews it
in the background. It expires by the store's clock: another worker compares the time at which the store received it with
the time of an object that it writes itself, so that no machine's clock matters. Until then no other worker takes it.

An owner that can't renew it in time, because the store is out of reach or the process was stopped, gives up a little
earlier, by a clock that nothing sets: it calls `on_lost`, which ends the account's command. A stopped process may
notice too late; so what it publishes is checked once more, by the store (`mirror`).
"""

from __future__ import annotations

import contextlib
import secrets
import sys
import threading
import time
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from pdsync.core.log import log
from pdsync.errors import ConfigError, LeaseLost, LeaseTaken, StorageError
from pdsync.fleet.store import Version

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from pdsync.fleet.store import Store, StoredObject

TTL_S = 60.0
_SHARE = 0.9  # of its duration, after which an owner that could not renew it gives up
_RESOLUTION_S = 1.0  # of the times that stores give
_POLL_S = 1.0  # between two looks at another worker's lease
_ANOTHER = Version('"0123456789abcdef0123456789abcdef"', "1")  # of no object
_checked = set[str]()  # stores with conditional writes


class _Record(Struct, frozen=True):
    owner: str  # for messages
    token: str  # of one acquisition
    ttl_s: float
    renewals: int = 0
    released: bool = False


# Made when this module is imported: msgspec crashes when threads are the first to decode a type side by side.
_DECODER = msgspec.json.Decoder(_Record)


class Lease:
    """The right to run an account; as a context manager it is renewed inside the block, and released at its end."""

    def __init__(self, store: Store, account: str, record: _Record, version: Version, began: float) -> None:
        self.account, self.token = account, record.token
        self._store, self._record, self._version = store, record, version
        self._deadline = began + record.ttl_s * _SHARE
        self._on_lost: Callable[[], None] = lambda: None
        self._lock = threading.RLock()  # of a renewal
        self._changed = threading.Condition()
        self._ended, self.is_lost = False, False
        self._threads = [
            threading.Thread(target=self._keep_renewing, name=f"lease of {account}", daemon=True),
            threading.Thread(target=self._watch, name=f"end of the lease of {account}", daemon=True),
        ]

    def on_lost(self, callback: Callable[[], None]) -> None:
        """Call `callback` once when the lease is lost, in the thread that notices it; at once if it is lost.

        It replaces the callback that was given before.
        """
        with self._changed:
            self._on_lost = callback
            if not self.is_lost:
                return
        callback()

    def __enter__(self) -> Lease:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        with contextlib.suppress(StorageError, LeaseLost):  # then it expires
            self._write(released=True)

    def renew(self) -> None:
        """Extend the lease now.

        Raises:
            LeaseLost: another worker has it, or it has expired.
            StorageError: the store can't be reached; the lease is as it was.
        """
        self._write()

    def _write(self, *, released: bool = False) -> None:
        with self._lock:
            self.check()
            began = elapsed()
            record = replace(self._record, renewals=self._record.renewals + 1, released=released)
            data = msgspec.json.encode(record)
            version = self._store.replace(_key(self.account), data, self._version)
            if version is None:  # an earlier write, of which no response came, may have arrived
                found = self._store.read(_key(self.account))
                if found and _decode(found, self._store, self.account).token == self.token:
                    version = self._store.replace(_key(self.account), data, found.version)
            if version is None:
                self.lose()
                self.check()
                return
            self._record, self._version = record, version
            with self._changed:
                self._deadline = began + record.ttl_s * _SHARE
                self._changed.notify_all()

    def check(self) -> None:
        """Raise LeaseLost if the lease is known to be lost."""
        if self.is_lost:
            raise LeaseLost(
                f"This worker has lost the lease of account {self.account}: it was stopped, or out of touch with the"
                f" store, and another worker may run the account.\n"
                f"Nothing more was published. The next run continues from what the store has."
            )

    def _keep_renewing(self) -> None:
        pause = self._record.ttl_s / 3
        while not self._wait(pause):
            try:
                self.renew()
                pause = self._record.ttl_s / 3
            except StorageError as error:
                log.warning("The lease of account %s could not be renewed: %s", self.account, error)
                pause = self._record.ttl_s / 10
            except LeaseLost:
                return

    def _wait(self, seconds: float) -> bool:
        """Wait; whether the lease ended meanwhile."""
        with self._changed:
            return self._changed.wait_for(lambda: self._ended or self.is_lost, seconds)

    def _watch(self) -> None:
        with self._changed:
            while not self._ended and not self.is_lost:
                remaining = self._deadline - elapsed()
                if remaining <= 0:
                    break
                self._changed.wait(remaining)
            else:
                return
        self.lose()

    def lose(self) -> None:
        """Give the lease up as lost."""
        with self._changed:
            if self.is_lost or self._ended:
                return
            self.is_lost = True
            self._changed.notify_all()
            callback = self._on_lost
        callback()


def acquire(
    store: Store,
    account: str,
    *,
    owner: str,
    ttl_s: float = TTL_S,
    on_note: Callable[[str], None] = log.warning,
) -> Lease:
    """Take the lease of an account. Where the last owner has died, wait until its lease has expired.

    Args:
        store: of the fleet.
        account: its name.
        owner: who takes it, for messages.
        ttl_s: for how long it lasts without a renewal. Stores give times in whole seconds, so it is several seconds.
        on_note: is called with a message for the user, if there is something to wait for.

    Returns:
        The lease, to be entered as a context manager.

    Raises:
        LeaseTaken: another worker has it, and renews it.
        ConfigError: the store has no conditional writes.
        StorageError: the store can't be reached, or its lease can't be read.
    """
    _check_conditions(store, account)
    record = _Record(owner, secrets.token_hex(8), ttl_s)
    data, key = msgspec.json.encode(record), _key(account)
    first: StoredObject | None = None
    while True:
        began = elapsed()
        found = store.read(key)
        if found is None:
            version = store.create(key, data)
        else:
            other = _decode(found, store, account)
            age_s = 0.0 if other.released else _age_s(store, account, found, record.token)
            remaining_s = other.ttl_s + _RESOLUTION_S - age_s
            if not other.released and remaining_s >= 0:
                if first and first.version != found.version:
                    raise LeaseTaken(
                        f"Account {account} is being run by {other.owner}. Nothing was called.\n"
                        f"Wait for it to end, and run the same command again."
                    )
                if first is None:
                    on_note(
                        f"Account {account} was last run by {other.owner}, which has not released it. If that one has"
                        f" ended, it takes {remaining_s:.0f} s until another worker may run the account."
                    )
                first = found
                time.sleep(min(remaining_s + 0.1, _POLL_S))
                continue
            version = store.replace(key, data, found.version)
        if version:
            return Lease(store, account, record, version, began)
        first = None  # another worker was faster: whether that one renews it is seen next


def _check_conditions(store: Store, account: str) -> None:
    """Check once that the store refuses the writes that it has to refuse: some servers ignore the conditions.

    Raises:
        ConfigError: it does not. Nothing was called.
    """
    if store.where in _checked:
        return
    token = secrets.token_hex(8)
    key = f"{account}/check-{token}"
    try:
        version = store.create(key, token.encode())
        others = (store.create(key, b"other"), store.replace(key, b"other", _ANOTHER))
        again = store.replace(key, b"again", version) if version else None
    finally:
        store.remove([key])
    if version is None or again is None or others != (None, None):
        raise ConfigError(
            f"The store {store.where} has no conditional writes (If-Match, If-None-Match), without which two workers"
            f" could run one account at once. Nothing was called.\nUse a store that has them, or a shared folder."
        )
    _checked.add(store.where)


def _age_s(store: Store, account: str, lease: StoredObject, token: str) -> float:
    """The seconds since the store received the lease, by its own clock."""
    key = f"{account}/clock-{token}"
    if store.create(key, token.encode()) is None:
        raise StorageError(f"{store.url(key)} is of another worker.")
    try:
        return (store.modified(key) - lease.modified).total_seconds()
    finally:
        store.remove([key])


def _decode(found: StoredObject, store: Store, account: str) -> _Record:
    try:
        return _DECODER.decode(found.data)
    except msgspec.DecodeError as error:
        raise StorageError(
            f"{store.url(_key(account))} is no lease ({error}). Nothing was called.\n"
            f"If no worker runs account {account}, remove it, and run the same command again."
        ) from error


def _key(account: str) -> str:
    return f"{account}/lease.json"


def elapsed() -> float:
    """Seconds by a clock that is never set, and that goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if sys.platform == "linux" else time.monotonic()
