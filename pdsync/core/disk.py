"""Writes names to disk, and turns errors of the machine (full disk, permissions, memory) into errors with advice."""

from __future__ import annotations

import errno
import os
import resource
import sqlite3
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pdsync.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator

_FULL = "Free some space (pdsync doctor shows how much is needed), then run the same command again."
_RIGHTS = (
    "Mend the rights of the folder, or its file system's (pdsync doctor names them), and run the same command again."
)
_BROKEN = "The disk itself refuses: look at the system's log, and run the same command again when it is well."
_MEMORY = (
    "Give it more (ulimit -v, the container's or the service's limit), or ask for less at once: limits.concurrency.\n"
    "Then run the same command again."
)
_FILES = "Raise the limit of open files (ulimit -n), or lower limits.concurrency, and run the same command again."
_LOCKED = "Another program has locked the file. Close it, or wait for it to end, and run the same command again."
_DAMAGED = "The file is damaged: pdsync doctor names it and its repair."
_BY_NUMBER = {
    errno.ENOSPC: _FULL, errno.EDQUOT: _FULL, errno.EFBIG: _FULL, errno.EROFS: _RIGHTS, errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS, errno.EIO: _BROKEN, errno.ENOMEM: _MEMORY, errno.EMFILE: _FILES, errno.ENFILE: _FILES,
}  # fmt: skip
_BY_SQLITE = {
    sqlite3.SQLITE_FULL: _FULL, sqlite3.SQLITE_READONLY: _RIGHTS, sqlite3.SQLITE_CANTOPEN: _RIGHTS,
    sqlite3.SQLITE_PERM: _RIGHTS, sqlite3.SQLITE_NOMEM: _MEMORY, sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED, sqlite3.SQLITE_CORRUPT: _DAMAGED, sqlite3.SQLITE_NOTADB: _DAMAGED,
    # A limit on the size of files, a quota and a full disk under a memory map all look like this.
    sqlite3.SQLITE_IOERR: f"It is full, or refuses. {_FULL}",
}  # fmt: skip
# Words in the errors of libraries whose types say nothing about the cause.
_BY_WORDS = {
    "can't start new thread": _MEMORY, "cannot allocate memory": _MEMORY, "failed to map segment": _MEMORY,
    "failed to allocate": _MEMORY, "bad_alloc": _MEMORY, "bad allocation": _MEMORY, "out of memory": _MEMORY,
    "resource temporarily unavailable": _MEMORY, "no space left": _FULL, "file too large": _FULL,
    "disk quota": _FULL, "read-only file system": _RIGHTS, "permission denied": _RIGHTS,
    "too many open files": _FILES, "input/output error": _BROKEN,
    "could not read enough bytes": _DAMAGED, "corrupt database file": _DAMAGED, "failed to deserialize": _DAMAGED,
}  # fmt: skip


_MIN_MEMORY = 512 * 2**20  # of address space; most of it is only reserved, for stacks and buffers


def make_private(folder: Path) -> None:
    """Create a folder, and those above it that are missing, so that only this user can open them."""
    for each in [*reversed(folder.parents), folder]:
        if not each.exists():
            each.mkdir(mode=0o700, exist_ok=True)


def sync_folder(folder: Path) -> None:
    """Write the names in `folder` to disk: after that, a new or renamed file survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def advice_for(error: BaseException) -> str | None:
    """The advice for an error whose cause is the machine (disk, permissions, memory); None for all others."""
    if isinstance(error, MemoryError):
        return _MEMORY
    if isinstance(error, sqlite3.Error):
        return _BY_SQLITE.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
    if isinstance(error, OSError):
        return _BY_NUMBER.get(error.errno or 0)
    duckdb = sys.modules.get("duckdb")  # the error is none of DuckDB's where that is not loaded
    if isinstance(error, RuntimeError | ImportError) or (duckdb and isinstance(error, duckdb.Error)):
        message = str(error).lower()
        return next((advice for words, advice in _BY_WORDS.items() if words in message), None)
    return None


def is_machines(error: BaseException) -> bool:
    """Whether the machine (disk, permissions, memory) is the cause of an error, and not the content of a file."""
    return advice_for(error) not in (None, _DAMAGED)


def check_memory() -> None:
    """Check that a limit on the address space leaves room to work: libraries abort where a thread can't be started.

    Raises:
        StorageError: it leaves too little. Nothing was done.
    """
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    try:
        used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    except (OSError, ValueError):  # no Linux: the limit is not enforced there
        return
    if most != resource.RLIM_INFINITY and most - used < _MIN_MEMORY:
        raise StorageError(
            f"There is not enough memory: the limit on this process's address space leaves {(most - used) >> 20} MiB,"
            f" and at least {_MIN_MEMORY >> 20} are needed.\nNothing was called or changed. {_MEMORY}"
        )


def first_line(error: BaseException) -> str:
    """The first line of an error's message; its type where it has none, as a MemoryError."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def storage_error(error: BaseException, where: object = None) -> StorageError | None:
    """`error` as a StorageError with advice, where the machine is its cause; None where it is not.

    Args:
        error: as a library raised it.
        where: the file or folder that was used.
    """
    if isinstance(error, BaseExceptionGroup):
        return next((found for each in error.exceptions if (found := storage_error(each, where))), None)
    advice = advice_for(error)
    if advice is None:
        return None
    path = where or getattr(error, "filename", None)
    if advice is _MEMORY:
        problem = f"There is not enough memory ({first_line(error)})."
    elif path:
        problem = f"{path} can't be used: {first_line(error)}."
    else:
        problem = f"The disk can't be used: {first_line(error)}."
    return StorageError(f"{problem}\nWhat was acknowledged before is kept, and nothing is half-done. {advice}")


@contextmanager
def storage_errors(where: object) -> Iterator[None]:
    """Raise errors of the machine inside the block as StorageErrors, apart from DuckDB's, which stay as they are.

    Args:
        where: the file or folder that is used.
    """
    try:
        yield
    except (sqlite3.Error, OSError, MemoryError) as error:
        if found := storage_error(error, where):
            raise found from error
        raise


@contextmanager
def state_errors(path: Path) -> Iterator[None]:
    """Raise all errors of SQLite inside the block as StorageErrors, also that a table is missing.

    Args:
        path: control.db, which is read.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise storage_error(error, path) or StorageError(
            f"The state file {path} can't be read: {first_line(error)}.\nNothing was changed. {_DAMAGED}"
        ) from error
