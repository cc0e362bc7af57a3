"""The folder of downloaded files: safe names, complete files only, and a manifest of them.

A file's name on disk is its id and, where it is harmless, the suffix of its real name: `42.pdf`. The real name is in
the manifest (files.ndjson), as data. So no uploaded name can lead to a path, a device or an existing file. Everything
is opened below the folder's own handle and follows no symbolic link.

A file is written as `.42.pdf.part`; it gets its name when it is complete and on disk.
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
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

MANIFEST = "files.ndjson"
_SUFFIX = re.compile(r"(\.tar)?\.[a-z0-9]{1,12}\Z")
_FILE_NAME = re.compile(r"[1-9][0-9]{0,18}((\.tar)?\.[a-z0-9]{1,12})?")
_PART_NAME = re.compile(rf"\.{_FILE_NAME.pattern}\.part")
_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC
_STEP = 2**20


class NotAFile(PdsyncError):
    """The name of a file is taken by a symbolic link, a folder or a device."""


class ManifestEntry(Struct, frozen=True, omit_defaults=True):
    """A line of the manifest: a file in the folder, and the records that it belongs to in Pipedrive."""

    id: int
    name: str  # its real name; never a path
    path: str  # its name in the folder
    size: int
    sha256: str
    company_id: int
    downloaded_at: datetime
    content_type: str | None = None
    note: str | None = None  # how its content type differs from its name
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


def _line(entry: ManifestEntry) -> bytes:
    """A line of the manifest: no name in it breaks the line or steers a terminal."""
    return clean_json(msgspec.json.encode(entry).decode()).encode() + b"\n"


def name_on_disk(id: int, name: str) -> str:
    """The id, and the suffix of `name` if it is a plain one."""
    suffix = _SUFFIX.search(name.rstrip(" .").lower())
    return f"{id}{suffix[0] if suffix else ''}"


class Folder:
    """The folder `root`, opened for one download at a time.

    Raises:
        ConfigError: it is a symbolic link, or no folder.
        ProjectLocked: another download into it is in progress.
        StorageError: it can't be created.
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
            raise ProjectLocked(f"Another download into {self.root} is in progress. Nothing was called.") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._handle)

    def size_of(self, name: str) -> int | None:
        """The bytes of the file `name`; None where there is none.

        Raises:
            NotAFile: the name belongs to something else.
        """
        try:
            status = os.stat(name, dir_fd=self._handle, follow_symlinks=False)
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(status.st_mode):
            raise NotAFile(f"{self.root / name} is no ordinary file. It was left as it is.")
        return status.st_size

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
        """Rename the file `part`, whose content is synced to disk, to `name`; replaces a file of that name.

        The new name survives a crash once this returns.
        """
        os.rename(part, name, src_dir_fd=self._handle, dst_dir_fd=self._handle)
        os.fsync(self._handle)

    def without_entry(self, manifest: Mapping[int, ManifestEntry]) -> dict[int, list[str]]:
        """By id: complete files that no entry of the manifest names, as a kill came before their lines."""
        listed, found = {entry.path for entry in manifest.values()}, dict[int, list[str]]()
        for name in sorted(os.listdir(self._handle)):  # noqa: PTH208 - a path could lead elsewhere by now
            is_file = stat.S_ISREG(os.lstat(name, dir_fd=self._handle).st_mode)
            if is_file and name not in listed and _FILE_NAME.fullmatch(name):
                found.setdefault(int(name.partition(".")[0]), []).append(name)
        return found

    def remove_partial_files(self) -> None:
        """Remove the partial files of downloads that were killed."""
        for name in os.listdir(self._handle):  # noqa: PTH208 - a path could lead elsewhere by now
            if _PART_NAME.fullmatch(name) and stat.S_ISREG(os.lstat(name, dir_fd=self._handle).st_mode):
                self.remove(name)

    # The manifest.

    def manifest(self) -> dict[int, ManifestEntry]:
        """The entries of the manifest, by id; the last one counts.

        Lines that can't be read, or whose `path` is no name on disk of that id, are ignored.

        Raises:
            NotAFile: the manifest's name belongs to something else.
        """
        if self.size_of(MANIFEST) is None:
            return {}
        entries: dict[int, ManifestEntry] = {}
        with os.fdopen(self.open(MANIFEST, os.O_RDONLY), "rb") as lines:
            for line in filter(bytes.strip, lines):
                try:
                    entry = msgspec.json.decode(line, type=ManifestEntry)
                except (msgspec.DecodeError, UnicodeDecodeError):
                    log.info("%s: a line can't be read; its file is checked again", MANIFEST)
                    continue
                if _FILE_NAME.fullmatch(entry.path) and entry.path.partition(".")[0] == str(entry.id):
                    entries[entry.id] = entry
        return entries

    def append(self, entry: ManifestEntry) -> None:
        """Append a line to the manifest; it is on disk when this returns."""
        try:
            handle = self.open(MANIFEST, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            with os.fdopen(handle, "wb", buffering=0) as file:
                # A line that a crash cut off stays a line of its own; blank lines are ignored.
                file.write(b"\n" + _line(entry))
                os.fsync(handle)
        except OSError as error:
            raise StorageError(f"{self.root / MANIFEST} can't be written: {error.strerror or error}.") from error

    def rewrite(self, entries: dict[int, ManifestEntry]) -> None:
        """Replace the manifest: one line a file, in the order of their ids."""
        part = PartialFile(self, MANIFEST)
        try:
            part.begin()
            part.write(b"".join(_line(entries[id]) for id in sorted(entries)))
            part.complete()
        finally:
            part.discard()


class PartialFile:
    """A file that is written, and has no name of its own before it is complete. A `ByteSink`."""

    def __init__(self, folder: Folder, name: str) -> None:
        self.name, self.size = name, 0
        self._folder, self._part = folder, f".{name}.part"
        self._handle = -1
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """The checksum of the bytes so far, in hexadecimal."""
        return self._digest.hexdigest()

    def begin(self) -> None:
        """Begin with an empty file; bytes of an earlier attempt are dropped.

        Raises:
            NotAFile: its name belongs to a symbolic link or a folder.
            StorageError: the disk is full or read-only.
        """
        self.size, self._digest = 0, hashlib.sha256()
        try:
            if self._handle < 0:
                self._folder.size_of(self.name)
                if self._folder.size_of(self._part) is not None:  # of a download that was killed
                    self._folder.remove(self._part)
                self._handle = self._folder.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            else:
                os.ftruncate(self._handle, 0)
                os.lseek(self._handle, 0, os.SEEK_SET)
        except OSError as error:
            raise self._storage_error(error) from error

    def write(self, data: bytes) -> None:
        """Take the next bytes."""
        self._digest.update(data)
        self.size += len(data)
        left = memoryview(data)
        try:
            while left:
                left = left[os.write(self._handle, left) :]
        except OSError as error:
            raise self._storage_error(error) from error

    def complete(self) -> None:
        """Write the complete file to disk, then give it its name."""
        if self._handle < 0:
            self.begin()
        try:
            os.fsync(self._handle)
            os.close(self._handle)
            self._handle = -1
            self._folder.put(self._part, self.name)
        except OSError as error:
            raise self._storage_error(error) from error

    async def finish(self) -> None:
        """`complete` in a thread: other files continue meanwhile."""
        completing = asyncio.ensure_future(asyncio.to_thread(self.complete))
        try:
            await asyncio.shield(completing)
        except asyncio.CancelledError:
            await completing  # a thread can't be stopped half-way
            raise

    def discard(self) -> None:
        """Remove the partial file; does nothing where the file is complete."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
            self._folder.remove(self._part)

    def _storage_error(self, error: OSError) -> StorageError:
        return StorageError(
            f"{self._folder.root / self.name} can't be written: {error.strerror or error}.\n"
            f"The files before it are complete. Free some space, then run the same command again to continue."
        )
