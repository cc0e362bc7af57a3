"""Keeps an account's folder and the store in step: before a command, while it runs, and after it.

    with mirrored(store, "acme", folder, owner="worker 3") as mirror:
        mirror.on_lost(child.kill)
        …run the command with `mirror.environment`…

Before the command, the folder gets what it lacks of the store's state (`restoring`): nothing, where the disk has it
already. While the command runs, what it seals is uploaded every minute, so that a lost disk costs little. After it, all
that has changed is uploaded, and then one conditional write of the pointer makes it current: wherever this is cut, the
pointer names only what is complete.

control.db is copied before the raw files are looked at, so that the store has every page that its control.db names; a
raw file under way is uploaded up to the last page that is named. The journal of the queue is more urgent: no request
that changes anything is sent before the store has the line that says so (`writeback.journal_copy`).
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

from msgspec.structs import replace

from pdsync.core.control import Lock
from pdsync.core.disk import make_private
from pdsync.core.log import log
from pdsync.errors import LeaseLost, StorageError
from pdsync.fleet import contents, lease, pointer
from pdsync.fleet.contents import Kind
from pdsync.fleet.journal_copies import serve_copies
from pdsync.fleet.pointer import Part, Pointer, StoredFile
from pdsync.fleet.record import LocalFile, Record, is_removed, read_record, write_record
from pdsync.fleet.restoring import Restoration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pdsync.fleet.store import Entry, Store

CHECKPOINT_S = 60.0
KEEP = timedelta(hours=1)  # for which a reader may go on reading a warehouse after a newer one is published
_SHARE = 10  # a checkpoint that takes long is made less often: at most a tenth of the time
_SMALL = 256 * 1024  # the last part of a file is uploaded again together with what follows, up to this size
_THREADS = 8
_TRIES = 3  # of the last publication


class Mirror:
    """An account's folder and its copy in the store, while this worker has the lease."""

    def __init__(
        self, store: Store, account: str, folder: Path, held: lease.Lease, on_note: Callable[[str], None] = log.warning
    ) -> None:
        self.store, self.account, self.folder, self.on_note = store, account, folder, on_note
        self.environment: dict[str, str] = {}  # for the command
        self._lease, self._lock = held, threading.RLock()
        self._attempts = 0
        self._hashes: dict[int, tuple[hashlib._Hash, int]] = {}  # by inode: of the beginnings of files that grow
        self.pointer, self._version = pointer.fence(store, account, held)
        self.record = read_record(folder, self.pointer)

    def restore(self) -> None:
        """Bring the folder up to what the store has.

        Raises:
            ProjectLocked: a command is under way in the folder.
            StorageError: an object is missing or damaged, or the disk is full. Each file is whole.
        """
        with Lock(self.folder / "data" / "pdsync.lock"):
            local = Restoration(self.store, self.account, self.folder, self.pointer, self.record, self.on_note).run()
        if (self.record.generation, self.record.files) != (self.pointer.generation, local):
            self._save_record(local)

    def on_lost(self, callback: Callable[[], None]) -> None:
        """Call `callback`, which ends the command, when the lease is lost; at once if it is.

        It replaces the callback that was given before.
        """
        self._lease.on_lost(callback)

    def _save_record(self, local: dict[str, LocalFile]) -> None:
        self.record = Record(self.pointer.origin, self.pointer.generation, local)
        write_record(self.folder, self.record)

    # From the folder to the store.

    def checkpoint(self) -> None:
        """Upload what a running command has sealed, with a copy of control.db.

        Raises:
            LeaseLost: another worker may have taken over. Nothing was published.
            StorageError: the store or the disk refuses. The store has the last publication.
        """
        with self._lock:
            self._publish(is_final=False)

    def copy_journal(self) -> None:
        """Upload the new lines of the queue's journal; when this returns, the store has them.

        Raises as `checkpoint`, and OSError where the journal can't be read.
        """
        with self._lock:
            files, local = dict(self.pointer.files), dict(self.record.files)
            for path, kind in contents.find(self.folder, contents.JOURNALS).items():
                self._upload_changed(path, kind, None, files, local)
            self._swap(files, local)

    def publish(self) -> None:
        """Upload everything that has changed, and remove objects of the account that no reader needs any more.

        No command may run. It is tried three times. Raises as `checkpoint`.
        """
        for remaining in reversed(range(_TRIES)):
            try:
                with self._lock:
                    self._hashes.clear()  # what was rewritten is read from its beginning
                    self._publish(is_final=True)
                    self._remove_unnamed()
                return
            except StorageError as error:
                if not remaining or self._lease.is_lost:
                    raise
                self.on_note(f"Account {self.account} is not published yet, and it is tried again: {error}")
                time.sleep(1)

    def _publish(self, *, is_final: bool) -> None:
        self._lease.check()
        copy = self.folder / contents.COPY
        has_control = contents.copy_control(self.folder, copy)  # before the raw files are looked at
        try:
            ends = contents.indexed_files(copy) if has_control else {}
            found = contents.find(self.folder) if is_final else contents.find(self.folder, contents.RAW)
            found.pop(contents.CONTROL, None)
            files, local = dict(self.pointer.files), dict(self.record.files)
            with ThreadPoolExecutor(_THREADS) as pool:
                uploads = []
                for path, kind in found.items():
                    limit = None if is_final or kind is Kind.JOURNAL else ends.get(path, 0)
                    uploads.append(pool.submit(self._upload_changed, path, kind, limit, files, local))
                for upload in uploads:
                    upload.result()
            if is_final:
                for path in self.pointer.files.keys() - found.keys():
                    if is_removed(path, ends if has_control else None):
                        del files[path]
                        local.pop(path, None)
            if has_control:
                self._upload_changed(contents.CONTROL, Kind.CONTROL, None, files, local, source=copy)
        except OSError as error:
            raise StorageError(f"What account {self.account} has can't be read: {error}.") from error
        finally:
            contents.remove_database(copy)
        self._swap(files, local)

    def _upload_changed(
        self,
        path: str,
        kind: Kind,
        limit: int | None,
        files: dict[str, StoredFile],
        local: dict[str, LocalFile],
        source: Path | None = None,
    ) -> None:
        """Upload a file, if it differs from what the store has, and enter it in `files` and `local`.

        Args:
            path: of the file.
            kind: of the file.
            limit: the number of bytes to upload, from its beginning; None: all.
            files: what the next pointer names.
            local: what the next record has.
            source: the file to read, where it is a copy.
        """
        stored, state = files.get(path), contents.state_of(source or self.folder / path)
        seen = local.get(path)
        if state is None or (source is None and seen and seen.state == state and seen.stored == stored):
            return
        length = state.bytes if limit is None else min(limit, state.bytes)
        if limit is not None and length <= (stored.bytes if stored else 0):
            return
        uploaded = self._upload(path, kind, source or self.folder / path, length, stored)
        if kind.grows or contents.state_of(source or self.folder / path) == state:  # else it was replaced meanwhile
            files[path] = uploaded
            local[path] = LocalFile(uploaded, state if length == state.bytes and source is None else None)

    def _upload(self, path: str, kind: Kind, file: Path, length: int, stored: StoredFile | None) -> StoredFile:
        """Upload the parts of a file that the store lacks."""
        kept: tuple[Part, ...] = ()
        if stored and kind.grows and length >= stored.bytes and self._hash(file, stored.bytes) == stored.sha256:
            kept = stored.parts
        sha256 = self._hash(file, length) if kind.grows else contents.digest(file, length)
        if stored and (stored.bytes, stored.sha256) == (length, sha256):
            return stored
        while kept and kept[-1].bytes < _SMALL:
            kept = kept[:-1]
        at = sum(part.bytes for part in kept)
        suffix = f"@{at}" if kind.grows else ""
        part = Part(f"{self._new_folder()}/{path}{suffix}", length - at)
        self.store.upload(f"{self.account}/{part.key}", file, at, part.bytes)
        return StoredFile(length, sha256, (*kept, part))

    def _hash(self, file: Path, length: int) -> str:
        """The SHA-256 of the first `length` bytes of a file that grows; only what is new is read."""
        inode = file.stat().st_ino
        hashed, at = self._hashes.get(inode, (hashlib.sha256(), 0))
        if at > length:
            hashed, at = hashlib.sha256(), 0
        hashed = hashed.copy()
        sha256 = contents.digest_on(file, hashed, at, length)
        self._hashes[inode] = hashed, length
        return sha256

    def _new_folder(self) -> str:
        return pointer.folder(self.pointer.generation + 1, self._lease.token, self._attempts)

    def _swap(self, files: dict[str, StoredFile], local: dict[str, LocalFile]) -> None:
        """Make `files` current, if they differ from what is."""
        if files == self.pointer.files:
            if local != self.record.files:
                self._save_record(local)
            return
        self._lease.check()
        before, after = (each.get(pointer.WAREHOUSE) for each in (self.pointer.files, files))
        retired = self.pointer.retired
        if before and before != after:
            retired = (*retired, *(part.key for part in before.parts))
        new = replace(self.pointer, generation=self.pointer.generation + 1, files=files, retired=retired)
        self._attempts += 1  # its folder is never written to again, whether this one arrives or not
        version = pointer.swap(self.store, self.account, new, self._version)
        if version is None:
            self._read_again()
            raise StorageError(f"The pointer of account {self.account} is not what was read. Nothing was published.")
        self.pointer, self._version = new, version
        self._save_record(local)

    def _read_again(self) -> None:
        """Read what the pointer is: this worker's, of a write whose response was lost; else the lease is lost."""
        current = pointer.read(self.store, self.account)
        if current is None or current[0].token != self._lease.token:
            self._lease.lose()
            self._lease.check()
        if current:
            self.pointer, self._version = current

    def _remove_unnamed(self) -> None:
        """Remove the objects of this generation and earlier ones that the pointer does not name.

        A later generation is another worker's, should this one have lost the lease: its objects are not touched.
        """
        entries = {entry.key.removeprefix(f"{self.account}/"): entry for entry in self.store.list(self.account)}
        retired = still_read(self.pointer, entries)
        named = {*self.pointer.keys(), *retired}
        unnamed = [
            key
            for key in entries.keys() - named
            if (generation := pointer.generation_of(key)) is not None and generation <= self.pointer.generation
        ]
        self.store.remove([f"{self.account}/{key}" for key in unnamed])
        self.pointer = replace(self.pointer, retired=retired)  # written with the next generation


def still_read(current: Pointer, entries: dict[str, Entry]) -> tuple[str, ...]:
    """The retired warehouses that stay, because their successor was published less than an hour ago."""
    now = max((entry.modified for entry in entries.values()), default=None)
    file = current.files.get(pointer.WAREHOUSE)
    last = [part.key for part in file.parts] if file else []
    keys = [key for key in (*current.retired, *last) if key in entries]
    return tuple(key for key, next_key in pairwise(keys) if now and now - entries[next_key].modified < KEEP)


@contextlib.contextmanager
def mirrored(
    store: Store,
    account: str,
    folder: Path,
    *,
    owner: str,
    ttl_s: float = lease.TTL_S,
    checkpoint_s: float = CHECKPOINT_S,
    on_note: Callable[[str], None] = log.warning,
) -> Iterator[Mirror]:
    """The account's folder, in the state of the store and with the account's lease; afterwards it is published.

    What the command has done is published also if the block raises. No command may run any more when it ends.

    Args:
        store: of the fleet.
        account: its name.
        folder: its project; it is created.
        owner: this worker, for messages.
        ttl_s: after which a worker that can't be reached loses the account.
        checkpoint_s: after which what a running command has sealed is uploaded.
        on_note: is called with messages for the user, from any thread.

    Raises:
        LeaseTaken: another worker runs the account. Nothing was called.
        ProjectLocked: a command is under way in the folder. Nothing was called.
        LeaseLost: another worker may have taken over. What the command did since the last checkpoint is in the folder
            only, and is published by the next run there.
        StorageError: the store or the disk refuses. The store has the last publication.
        ConfigError: the account's files are elsewhere, or the store has no conditional writes. Nothing was called.
    """
    make_private(folder)
    contents.refuse_links(folder)
    with lease.acquire(store, account, owner=owner, ttl_s=ttl_s, on_note=on_note) as held:
        mirror = Mirror(store, account, folder, held, on_note)
        mirror.restore()
        contents.check_paths(folder)
        try:
            with serve_copies(mirror.copy_journal) as variables, _checkpoints(mirror, checkpoint_s):
                mirror.environment = variables
                yield mirror
        finally:
            mirror.publish()


@contextlib.contextmanager
def _checkpoints(mirror: Mirror, interval_s: float) -> Iterator[None]:
    """Make checkpoints in the background."""
    ended = threading.Event()

    def work() -> None:
        pause = interval_s
        while not ended.wait(pause):
            began = time.monotonic()
            try:
                mirror.checkpoint()
            except LeaseLost:
                return
            except StorageError as error:
                mirror.on_note(f"What account {mirror.account} has read so far is not in the store yet: {error}")
            pause = max(interval_s, _SHARE * (time.monotonic() - began))

    thread = threading.Thread(target=work, name=f"checkpoints of {mirror.account}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
