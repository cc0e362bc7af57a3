"""Brings an account's folder up to what the store has, without losing what only the folder has.

What both sides had in common last is in the folder's record. A side that has not changed a file since takes the
other's; that is all there is to do where one worker follows another. The folder of a worker that was cut off may have
more: its raw files and lines of the journal stay, for pdsync indexes and loads what control.db and the warehouse lack.
Of control.db and the warehouse the store's are used then, which are newer.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from pdsync.errors import StorageError
from pdsync.fleet import contents
from pdsync.fleet.contents import Kind
from pdsync.fleet.record import LocalFile, Record, is_removed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pdsync.fleet.contents import State
    from pdsync.fleet.pointer import Pointer, StoredFile
    from pdsync.fleet.store import Store

_THREADS = 8
# equal: as in the store. keep: the folder's counts. absent: removed here. aside: the store's counts, and both stay.
Decision = Literal["equal", "keep", "absent", "fetch", "merge", "aside"]
_WORK = ("fetch", "merge", "aside")


class Restoration(Struct, frozen=True, eq=False):
    """An account's folder that is brought up to a pointer of the store."""

    store: Store
    account: str
    folder: Path
    pointer: Pointer
    record: Record
    on_note: Callable[[str], None]

    def run(self) -> dict[str, LocalFile]:
        """Download what differs, and remove what another worker has removed; each file is checked.

        Returns:
            What the folder and the store have in common then, by path.

        Raises:
            StorageError: an object is missing or damaged, or the disk is full. Each file is whole: as it was, or as
                the store has it.
        """
        try:
            for leftover in list(contents.leftovers(self.folder)):
                contents.remove_database(leftover)
            decisions = self._decide_all()
            self._drop_removed()
            with ThreadPoolExecutor(_THREADS) as pool:
                tasks = [each for each in decisions.items() if each[1] in _WORK]
                for task in [pool.submit(self._apply, *each) for each in tasks]:
                    task.result()
        except OSError as error:
            raise StorageError(
                f"Account {self.account} can't be brought up to the store's state: {error}.\n"
                f"Nothing was called. Free some space or mend the rights of {self.folder}, and run the same command."
            ) from error
        local = {}
        for path, decision in decisions.items():
            is_equal = decision in ("equal", "fetch") and contents.kind_of(path) is not Kind.CONTROL
            state = contents.state_of(self.folder / path) if is_equal else None
            local[path] = LocalFile(self.pointer.files[path], state)
        return local

    # What to do about each file that the store has.

    def _decide_all(self) -> dict[str, Decision]:
        indexed = None
        if any(not (self.folder / path).exists() for path in self.record.files):
            indexed = self._indexed()
        decisions: dict[str, Decision] = {}
        for path, stored in self.pointer.files.items():
            kind = contents.kind_of(path)
            if kind is None:
                raise StorageError(f"The pointer of account {self.account} names {path}, which no account has.")
            decisions[path] = self._decide(path, kind, stored, indexed)
        return decisions

    def _decide(self, path: str, kind: Kind, stored: StoredFile, indexed: dict[str, int] | None) -> Decision:
        file, base = self.folder / path, self.record.files.get(path)
        state = contents.state_of(file)
        is_unchanged_there = base is not None and base.stored == stored
        if state is None:
            return "absent" if is_unchanged_there and is_removed(path, indexed) else "fetch"
        if base and is_unchanged_there and base.state == state:
            return "equal"
        if kind is Kind.CONTROL:
            return "keep" if is_unchanged_there else self._decide_control(stored, base)
        if _is_as(file, state, stored):
            return "equal"
        is_unchanged_here = base is not None and _is_as(file, state, base.stored)
        if kind is Kind.WAREHOUSE:
            return "keep" if is_unchanged_there else "fetch"
        if kind is Kind.PLAIN:
            return "fetch" if is_unchanged_here and not is_unchanged_there else "keep"
        if state.bytes > stored.bytes and _digest(file, stored.bytes) == stored.sha256:
            return "keep"
        return "merge" if kind is Kind.JOURNAL and not is_unchanged_here else "fetch"

    def _decide_control(self, stored: StoredFile, base: LocalFile | None) -> Decision:
        with self._control_copy() as copy:
            sha256 = _digest(copy, copy.stat().st_size) if copy else ""
        if sha256 == stored.sha256:
            return "keep"
        return "fetch" if not sha256 or (base and sha256 == base.stored.sha256) else "aside"

    def _indexed(self) -> dict[str, int] | None:
        """The raw files that the folder's control.db names; None where the store's replaces it, or there is none."""
        stored, base = (each.files.get(contents.CONTROL) for each in (self.pointer, self.record))
        if not isinstance(base, LocalFile) or base.stored != stored:
            return None
        with self._control_copy() as copy:
            return contents.indexed_files(copy) if copy else None

    @contextmanager
    def _control_copy(self) -> Iterator[Path | None]:
        """A copy of the folder's control.db; None where there is none that can be read."""
        copy = self.folder / contents.COPY
        try:
            has_control = contents.copy_control(self.folder, copy)
        except StorageError:
            has_control = False
        try:
            yield copy if has_control else None
        finally:
            contents.remove_database(copy)

    # Doing it.

    def _drop_removed(self) -> None:
        """Remove the files that another worker has removed since, and that are here as they were."""
        for path, base in self.record.files.items():
            if path in self.pointer.files or contents.kind_of(path) not in (Kind.SEALED, Kind.PLAIN):
                continue
            file = self.folder / path
            state = contents.state_of(file)
            if state and (base.state == state or _is_as(file, state, base.stored)):
                file.unlink()

    def _apply(self, path: str, decision: Decision) -> None:
        file, stored = self.folder / path, self.pointer.files[path]
        if decision == "aside":
            aside = file.with_name(f"{file.name}.apart-{datetime.now(UTC):%Y%m%dT%H%M%S}")
            contents.copy_control(self.folder, aside)
            self.on_note(
                f"Account {self.account}: control.db has changed here and in the store. The store's is used, with the"
                f" raw files of both; this one is kept as {aside.name}."
            )
        if decision in ("fetch", "aside"):
            self._download(file, stored)
        elif decision == "merge":
            self._merge(file, stored, self.record.files.get(path))

    def _merge(self, file: Path, stored: StoredFile, base: LocalFile | None) -> None:
        """Append the folder's own lines of a journal to the store's."""
        own = _lines(file.read_bytes())
        if base and _digest(file, base.stored.bytes) == base.stored.sha256:  # another worker may have removed some
            own = own[len(_lines(file.read_bytes()[: base.stored.bytes])) :]
        self._download(file, stored)
        theirs = _lines(file.read_bytes())
        existing = set(theirs)
        contents.write_whole(file, [*theirs, *(line for line in own if line not in existing)])

    def _download(self, file: Path, stored: StoredFile) -> None:
        """Replace a file by the store's.

        Raises:
            StorageError: it is missing or damaged there; the file is as it was.
        """
        if file == self.folder / contents.CONTROL:
            new = self.folder / contents.COPY
            contents.write_whole(new, self._pieces(stored))
            contents.remove_database(file)  # what is beside it belongs to the old one
            new.replace(file)
        else:
            contents.write_whole(file, self._pieces(stored))

    def _pieces(self, stored: StoredFile) -> Iterator[bytes]:
        hashed, key = hashlib.sha256(), ""
        for part in stored.parts:
            key, left = f"{self.account}/{part.key}", part.bytes
            try:
                for piece in self.store.download(key):
                    left -= len(piece)
                    if left < 0:  # it may have no end
                        raise self._damage(key, "damaged")
                    hashed.update(piece)
                    yield piece
            except FileNotFoundError as error:
                raise self._damage(key, "missing") from error
        if hashed.hexdigest() != stored.sha256:
            raise self._damage(key, "damaged")

    def _damage(self, key: str, what: str) -> StorageError:
        return StorageError(
            f"{self.store.url(key)} is {what}, and the pointer of account {self.account} names it.\n"
            f"Nothing was called. Restore the object (a bucket with versions has it). If it is lost, remove the"
            f" account's prefix: a worker that has the account's folder publishes that, any other reads Pipedrive."
        )


def _is_as(file: Path, state: State, stored: StoredFile) -> bool:
    """Whether the folder's file is as the store has, or had, it."""
    return state.bytes == stored.bytes and _digest(file, state.bytes) == stored.sha256


def _digest(file: Path, length: int) -> str:
    """The SHA-256 of a file's beginning; empty if it can't be read, or is shorter."""
    try:
        return contents.digest(file, length)
    except OSError:
        return ""


def _lines(content: bytes) -> list[bytes]:
    """The complete lines; a torn one was never acknowledged."""
    return content[: content.rfind(b"\n") + 1].splitlines(keepends=True)
