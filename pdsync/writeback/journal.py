"""The journal of the outbox in the raw archive: what was queued, what was about to be sent, and how each ended.

control.db may be lost, or replaced by an older copy of itself, and then would send again what was sent since. So every
step after which a request may reach the server, or must not be sent any more, is written to the journal too: before a
request is sent, the attempt is on disk here. A command that opens the outbox reads the lines that control.db has not
read yet, and restores what is newer (`adoption.adopt`).

The files are `outbox/2026-11.ndjson` in the folder of the archive. A line is the snapshot of one mutation after a step,
with its checksum; the last line about a mutation is complete. The answer of the server is left out where the snapshot
has the record as it was afterwards.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from pdsync.core.disk import sync_folder
from pdsync.core.wording import number_ranges
from pdsync.errors import NotCopied, StorageError
from pdsync.writeback.journal_copy import wait_for_copy
from pdsync.writeback.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from pdsync.model import Mutation

FOLDER = "outbox"


class _Line(Struct, frozen=True):
    sha256: str  # of the bytes of `known`
    known: msgspec.Raw  # a Snapshot


_DECODER = msgspec.json.Decoder(_Line)
_KNOWN = msgspec.json.Decoder(Snapshot)


class Journal:
    """The journal in the archive's folder `raw`. Several processes may append to it at once."""

    def __init__(self, raw: Path) -> None:
        self.folder = raw / FOLDER
        self._lock = threading.Lock()

    def append(self, snapshots: Iterable[Snapshot]) -> None:
        """Append snapshots; when this returns, they are on disk, and in the store of a fleet that has one.

        Raises:
            StorageError, NotCopied: they could not be written, or copied to the store. Nothing may be sent.
        """
        lines = b"".join(_encode(each) for each in snapshots)
        path = self.folder / f"{datetime.now(UTC):%Y-%m}.ndjson"
        try:
            with self._lock:
                is_new = not path.exists()
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                with _locked(path) as handle:
                    _cut_torn_line(handle)
                    view = memoryview(lines)
                    while view:
                        view = view[os.write(handle, view) :]
                    os.fsync(handle)
                if is_new:
                    sync_folder(self.folder)
                    sync_folder(self.folder.parent)
        except OSError as error:
            raise StorageError(
                f"What is to be sent can't be written to {path}: {error}.\n"
                f"Nothing is sent that is not written there first. Free some space or correct the folder's permissions,"
                f" then run the same command."
            ) from error
        if lines:
            wait_for_copy()

    def read(self, read_bytes: Mapping[str, int]) -> Iterator[tuple[str, int, list[Snapshot]]]:
        """Read the files that have another size than before: name, bytes read, and the snapshots, in order.

        Of a file that has grown the new lines are read, of one that was replaced all. The bytes count from the begin of
        the file to the end of its last complete line.

        Args:
            read_bytes: by name, how much of a file was read before.

        Raises:
            StorageError: a line is damaged.
        """
        for path in sorted(self.folder.glob("*.ndjson")):
            name, start = f"{FOLDER}/{path.name}", 0
            try:
                size = path.stat().st_size
                if size == read_bytes.get(name):
                    continue
                with path.open("rb") as file:
                    if 0 < read_bytes.get(name, 0) < size:  # otherwise the file was replaced
                        file.seek(read_bytes[name] - 1)
                        start = read_bytes[name] if file.read(1) == b"\n" else 0
                    file.seek(start)
                    content = file.read()
            except OSError as error:
                raise StorageError(f"{path} can't be read: {error}.\nNothing was sent. See: pdsync doctor") from error
            complete = content[: content.rfind(b"\n") + 1]  # a torn line was never acknowledged
            snapshots = []
            at = start
            for line in complete.splitlines(keepends=True):
                snapshots.append(_read_line(path, at, line))
                at += len(line)
            yield name, at, snapshots

    def rewrite(self, transform: Callable[[str, str], str]) -> int:
        """Replace the text of each line by what `transform` returns.

        Args:
            transform: is called with the JSON of a snapshot, and the id of its mutation.

        Returns:
            The number of lines that changed.

        Raises:
            StorageError: a line is damaged; its file is as it was, and those of earlier months are rewritten.
        """
        changed = 0
        for path in sorted(self.folder.glob("*.ndjson")):
            with _locked(path):
                content = path.read_bytes()
                lines, before, at = list[bytes](), changed, 0
                for line in content[: content.rfind(b"\n") + 1].splitlines(keepends=True):
                    mutation = _read_line(path, at, line).mutation
                    at += len(line)
                    text = bytes(_DECODER.decode(line).known).decode()
                    new = transform(text, mutation.id)
                    changed += new != text
                    lines.append(line if new == text else _encode_line(new.encode()))
                if changed > before:
                    _replace(path, b"".join(lines))
        return changed


@contextmanager
def explain_failure(done: str, mutations: Sequence[Mutation]) -> Iterator[None]:
    """Writing the journal after a step of a person: a failure says that the step is `done`, and not to be repeated.

    Raises:
        StorageError, NotCopied: that of the journal, with this message.
    """
    try:
        yield
    except (StorageError, NotCopied) as error:
        raise type(error)(
            f"{done} {number_ranges([each.seq for each in mutations])}: control.db has it. Don't do it again.\n"
            f"Only the journal lacks it. {str(error).splitlines()[0]}\n"
            f"Once that is mended, continue: the next sync or push writes the journal."
        ) from error


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """Open the file at `path` to append to it, locked: no other process writes to it or replaces it."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):  # not replaced meanwhile
                yield handle
                return
        finally:
            os.close(handle)


def _replace(path: Path, content: bytes) -> None:
    part = path.with_name(f".{path.name}.part")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    sync_folder(path.parent)


def _encode(snapshot: Snapshot) -> bytes:
    if snapshot.mutation.after_image:
        snapshot = replace(snapshot, attempts=tuple(replace(each, answer=None) for each in snapshot.attempts))
    return _encode_line(msgspec.json.encode(snapshot, enc_hook=str))


def _encode_line(snapshot: bytes) -> bytes:
    return msgspec.json.encode(_Line(hashlib.sha256(snapshot).hexdigest(), msgspec.Raw(snapshot))) + b"\n"


def _read_line(path: Path, at: int, line: bytes) -> Snapshot:
    """The snapshot in the line at byte `at`; its checksum is checked."""
    try:
        decoded = _DECODER.decode(line)
        if hashlib.sha256(bytes(decoded.known)).hexdigest() != decoded.sha256:
            raise ValueError("its checksum is wrong")
        return _KNOWN.decode(decoded.known)
    except (ValueError, msgspec.DecodeError) as error:
        raise StorageError(
            f"{path} is damaged at byte {at:,}: {error}. It records what was sent.\n"
            f"Nothing was sent. Restore the file from a backup. If there is none, and {path.parent.parent.parent} was"
            f" not restored from an earlier day, control.db has all of it: move the file away."
        ) from error


def _cut_torn_line(handle: int) -> None:
    """Cut off the part of a line that a kill has left: it was never acknowledged."""
    size = os.fstat(handle).st_size
    if size == 0 or os.pread(handle, 1, size - 1) == b"\n":
        return
    end = size
    while end:
        begin = max(0, end - 2**16)
        at = os.pread(handle, end - begin, begin).rfind(b"\n")
        if at >= 0:
            os.ftruncate(handle, begin + at + 1)
            return
        end = begin
    os.ftruncate(handle, 0)
