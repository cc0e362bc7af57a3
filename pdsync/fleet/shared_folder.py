"""Files of a folder that several processes share and remove: locked, and written, although the folder may be removed.

Others may remove a folder whose last object is gone, at the moment in which a new one is written to it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from typing import TYPE_CHECKING

from pdsync.core.disk import make_private

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LOCK_S = 30.0  # how long one waits for another to end
_MOST_TRIES = 100
_ABANDONED_S = 3600.0  # after which what is being written has no writer any more
GONE = (FileNotFoundError, NotADirectoryError)  # a file or folder that others have removed, or replaced


@contextlib.contextmanager
def locked(target: Path) -> Iterator[Path]:
    """Keep others that write or remove the file `target` waiting; gives the file that is the lock.

    Raises:
        TimeoutError: another process has the lock for too long.
        OSError: the folder can't be used.
    """
    lock, give_up = target.with_name(f".{target.name}.lock"), time.monotonic() + _LOCK_S
    while (handle := _try_lock(lock)) is None:
        if time.monotonic() > give_up:
            raise TimeoutError(f"another process is writing {target.name}")
        time.sleep(0.01)
    try:
        yield lock
    finally:
        os.close(handle)


def _try_lock(lock: Path) -> int | None:
    handle = open_new(lock, os.O_RDWR | os.O_CREAT)
    with contextlib.suppress(BlockingIOError, FileNotFoundError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(handle), lock.stat()):  # otherwise it was removed before it was locked
            return handle
    os.close(handle)
    return None


def names_in(folder: Path) -> list[str]:
    """The names in a folder; none where there is no such folder, or no more."""
    try:
        return [path.name for path in folder.iterdir()]
    except GONE:
        return []


def open_new(path: Path, flags: int) -> int:
    """Open a file, and make its folder before, until both exist at once.

    Raises:
        OSError: it can't be opened.
    """
    for _ in range(_MOST_TRIES):
        with contextlib.suppress(FileNotFoundError, FileExistsError):  # the latter: it was there for a moment
            make_private(path.parent)
            return os.open(path, flags | os.O_NOFOLLOW, 0o600)
    raise FileNotFoundError(errno.ENOENT, "its folder is removed again and again", str(path))


def remove_empty(folder: Path, root: Path) -> None:
    """Remove a folder without objects, and those above it up to `root`; one in which others write stays."""
    with contextlib.suppress(OSError):
        while folder != root and all(path.name.startswith(".") for path in folder.iterdir()):
            for part in folder.glob(".*.part"):  # of a writer that was killed
                if time.time() - part.stat().st_mtime > _ABANDONED_S:
                    part.unlink()
            folder.rmdir()
            folder = folder.parent
