"""Keeps what waits in the queue to be uploaded: files under the names that Pipedrive shall show, beside control.db.

A file is kept from before its change is queued until that change has ended. One lock covers both steps, so that no
other process takes a file for one whose change has ended.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pdsync.core.disk import make_private
from pdsync.errors import StorageError
from pdsync.model import OPEN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pdsync.core.config import Settings
    from pdsync.model import Mutation, State

WAITING: tuple[State, ...] = (*OPEN, "needs_review")  # states of changes whose files are still needed
_FOLDER = "uploads"


@contextmanager
def locked(settings: Settings) -> Iterator[None]:
    """Hold the lock: no other process keeps or removes files. Waits until it is free."""
    handle = os.open(settings.control.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def keep(settings: Settings, content: bytes | Path, name: str) -> Path:
    """The place of `content` under `name`; of a path only a link, as the file is read when it is sent.

    Raises:
        StorageError: the project's folder can't be written. Nothing is left there.
    """
    place = settings.control.parent / _FOLDER / secrets.token_hex(6) / name
    try:
        make_private(place.parent)
        if isinstance(content, bytes):
            place.write_bytes(content)
        else:
            place.symlink_to(content)
    except OSError as error:
        if place.parent.is_dir():
            _remove(place.parent)
        raise StorageError(f"{place} can't be written: {error.strerror or error}.") from error
    return place


def remove_ended(settings: Settings, waiting: Iterable[Mutation], *, dry_run: bool = False) -> int:
    """Remove the files that no change in `waiting` needs; how many. The caller holds the lock.

    Args:
        settings: of the project.
        waiting: the changes whose files stay.
        dry_run: only count.
    """
    # By the last two parts of the path: the project may have been moved.
    needed = {
        Path(value).parts[-2:] for mutation in waiting for value in mutation.payload.values() if isinstance(value, str)
    }
    removed = 0
    for folder in (settings.control.parent / _FOLDER).glob("*"):
        if folder.is_dir() and not any(path.parts[-2:] in needed for path in folder.iterdir()):
            removed += len(list(folder.iterdir()))
            if not dry_run:
                _remove(folder)
    return removed


def _remove(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
