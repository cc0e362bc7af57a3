"""The folder that downloaded files lie in: safe names, whole files only, and a manifest of what is there.

A file's name on disk is its id and, where it is harmless, the suffix of its real name: `42.pdf`. What people called it
stands in the manifest (files.ndjson), as data. So nothing that anybody uploads can name a path, a device or a file
that is there already. Everything is opened below the folder's own handle and follows no symbolic link.

A file comes in as `.42.pdf.part`; it gets its name when it is whole and on disk. So what has a name is whole.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import os
import re
import stat
from datetime import datetime  # noqa: TC003 - msgspec reads it at run time
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from pdsync.core.log import clean_json, log
from pdsync.errors import ConfigError, PdsyncError, ProjectLocked, StorageError

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

MANIFEST = "files.ndjson"
_SUFFIX = re.compile(r"(\.tar)?\.[a-z0-9]{1,12}\Z")
_OURS = re.compile(r"[1-9][0-9]{0,18}((\.tar)?\.[a-z0-9]{1,12})?")
_CUT = re.compile(rf"\.{_OURS.pattern}\.part")
_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC
_STEP = 2**20


class NotAFile(PdsyncError):
    """Where a file should go stands something that is no file: a symbolic link, a folder, a device."""


class ManifestEntry(Struct, frozen=True, omit_defaults=True):
    """A line of the manifest: a file that is here, and what it hangs on in Pipedrive."""

    id: int
    name: str  # what people call it; never a path
    path: str  # its name in the folder
    size: int
    sha256: str
    company_id: int
    downloaded_at: datetime
    content_type: str | None = None
    note: str | None = None  # what is odd about it
    deal_id: int | None = None
    person_id: int | None = None
    org_id: int | None = None
    product_id: int | None = None
    activity_id: int | None = None
    lead_id: str | None = None
    project_id: int | None = None
    mail_message_id: str | None = None
    add_time: str | None = None
    update_time: str | None = None


def _line(held: ManifestEntry) -> bytes:
    """A line of the manifest: a name in it breaks no line, and steers no terminal that shows it."""
    return clean_json(msgspec.json.encode(held).decode()).encode() + b"\n"


def name_on_disk(id: int, name: str) -> str:
    """The id, and the suffix of `name` if it is a plain one."""
    suffix = _SUFFIX.search(name.rstrip(" .").lower())
    return f"{id}{suffix[0] if suffix else ''}"


class Folder:
    """The folder `root`, opened for one download at a time.

    Raises:
        ConfigError: it is a symbolic link, or no folder.
        Busy: another download holds it.
        StorageError: it can't be made.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._handle = -1

    def __enter__(self) -> Folder:
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._handle = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | _FLAGS)
        except OSError as error:
            if self.root.is_symlink() or error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EEXIST):
                what = "a symbolic link: give the folder that it leads to" if self.root.is_symlink() else "no folder"
                raise ConfigError(f"{self.root} is {what}. Nothing was called.") from error
            raise StorageError(f"{self.root} can't be made or opened: {error}. Nothing was called.") from error
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._handle)
            raise ProjectLocked(f"Another download into {self.root} is under way. Nothing was called.") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._handle)

    def size_of(self, name: str) -> int | None:
        """The bytes of the file `name`; None where there is none.

        Raises:
            NotOurs: there is something else of that name.
        """
        try:
            found = os.stat(name, dir_fd=self._handle, follow_symlinks=False)
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(found.st_mode):
            raise NotAFile(f"{self.root / name} is no ordinary file. It was left as it is.")
        return found.st_size

    def digest(self, name: str) -> str:
        """The SHA-256 of the file `name`, in hexadecimal."""
        with os.fdopen(self.open(name, os.O_RDONLY), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def open(self, name: str, flags: int) -> int:
        """A handle of the file `name` in this folder; a symbolic link is not followed."""
        return os.open(name, flags | _FLAGS, 0o600, dir_fd=self._handle)

    def remove(self, name: str) -> None:
        """Remove `name` if it is there."""
        try:
            os.unlink(name, dir_fd=self._handle)
        except FileNotFoundError:
            return

    def put(self, part: str, name: str) -> None:
        """Give the file `part`, which is on disk, its name: from now on it survives a power cut under it."""
        os.rename(part, name, src_dir_fd=self._handle, dst_dir_fd=self._handle)
        os.fsync(self._handle)

    def remove_partial_files(self) -> None:
        """Remove what downloads that were killed have left half-way."""
        for name in os.listdir(self._handle):  # noqa: PTH208 - a path could lead elsewhere by now
            if _CUT.fullmatch(name) and stat.S_ISREG(os.lstat(name, dir_fd=self._handle).st_mode):
                self.remove(name)

    # The manifest.

    def manifest(self) -> dict[int, ManifestEntry]:
        """What the manifest says is here, by id; lines that can't be read, or name a path, count for nothing.

        Raises:
            NotOurs: there is something of its name that is no file.
        """
        if self.size_of(MANIFEST) is None:
            return {}
        found: dict[int, ManifestEntry] = {}
        with os.fdopen(self.open(MANIFEST, os.O_RDONLY), "rb") as lines:
            for line in filter(bytes.strip, lines):
                try:
                    held = msgspec.json.decode(line, type=ManifestEntry)
                except (msgspec.DecodeError, UnicodeDecodeError):
                    log.info("%s: a line can't be read; its file is looked at anew", MANIFEST)
                    continue
                if _OURS.fullmatch(held.path) and held.path.partition(".")[0] == str(held.id):
                    found[held.id] = held
        return found

    def note(self, held: ManifestEntry) -> None:
        """Add a line to the manifest, for good."""
        try:
            handle = self.open(MANIFEST, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            with os.fdopen(handle, "wb", buffering=0) as file:
                # A line that was cut by a crash stays by itself: blank lines count for nothing.
                file.write(b"\n" + _line(held))
                os.fsync(handle)
        except OSError as error:
            raise StorageError(f"{self.root / MANIFEST} can't be written: {error.strerror or error}.") from error

    def rewrite(self, held: dict[int, ManifestEntry]) -> None:
        """Make the manifest anew: one line a file, in the order of their ids."""
        part = PartialFile(self, MANIFEST)
        try:
            part.begin()
            part.write(b"".join(_line(held[id]) for id in sorted(held)))
            part.complete()
        finally:
            part.discard()


class PartialFile:
    """A file that comes in, and is not to be seen before it is whole. A `Sink` of `core.upload_download`."""

    def __init__(self, folder: Folder, name: str) -> None:
        self.name, self.size = name, 0
        self._folder, self._part = folder, f".{name}.part"
        self._handle = -1
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Of what has come so far."""
        return self._digest.hexdigest()

    def begin(self) -> None:
        """Begin with nothing.

        Raises:
            NotOurs: a symbolic link or a folder stands in its place.
            StorageError: the disk is full or read-only.
        """
        self.size, self._digest = 0, hashlib.sha256()
        try:
            if self._handle < 0:
                self._folder.size_of(self.name)
                if self._folder.size_of(self._part) is not None:  # of a download that was cut
                    self._folder.remove(self._part)
                self._handle = self._folder.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            else:
                os.ftruncate(self._handle, 0)
                os.lseek(self._handle, 0, os.SEEK_SET)
        except OSError as error:
            raise self._full(error) from error

    def write(self, data: bytes) -> None:
        """Take the next bytes."""
        self._digest.update(data)
        self.size += len(data)
        left = memoryview(data)
        try:
            while left:
                left = left[os.write(self._handle, left) :]
        except OSError as error:
            raise self._full(error) from error

    def complete(self) -> None:
        """It is whole: put it on disk, then under its name."""
        if self._handle < 0:
            self.begin()
        try:
            os.fsync(self._handle)
            os.close(self._handle)
            self._handle = -1
            self._folder.put(self._part, self.name)
        except OSError as error:
            raise self._full(error) from error

    async def finish(self) -> None:
        """`settle`, while other files go on."""
        settling = asyncio.ensure_future(asyncio.to_thread(self.complete))
        try:
            await asyncio.shield(settling)
        except asyncio.CancelledError:
            await settling  # a thread can't be stopped half-way
            raise

    def discard(self) -> None:
        """Forget it; nothing, if it is settled."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
            self._folder.remove(self._part)

    def _full(self, error: OSError) -> StorageError:
        return StorageError(
            f"{self._folder.root / self.name} can't be written: {error.strerror or error}.\n"
            f"The files before it are whole. Make room, then run the same command again to go on."
        )
