"""Publishes a finished warehouse to its readers: as a whole, in one step, without locking them.

DuckDB lets one process write a file or many read it, not both. So the run writes a work file of its own, and when it
is done a copy of it replaces the warehouse with one rename. A reader that has the old file open continues to
read it; the next one to open the warehouse reads the new file. No reader sees half of a run.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from typing import TYPE_CHECKING

from pdsync.core.disk import sync_folder
from pdsync.errors import StorageError

if TYPE_CHECKING:
    from pathlib import Path

_PIECE = 256 * 2**10  # bytes; each larger one would be memory that the system clears first
_FICLONE = 0x40049409  # Linux: share the blocks of two files until one of them changes


def publish(work: Path, warehouse: Path) -> None:
    """Replace `warehouse` with a copy of `work`, which is checkpointed and not being written.

    The copy has the time of change of `work`: as long as both are equal, neither file was written to.

    Raises:
        StorageError: the disk is full or read-only; the warehouse is unchanged.
    """
    fresh = warehouse.with_name(f".{warehouse.name}.new")
    try:
        fresh.unlink(missing_ok=True)
        copy(work, fresh)
        changed = work.stat().st_mtime_ns
        os.utime(fresh, ns=(changed, changed))
        fresh.replace(warehouse)
        sync_folder(warehouse.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise StorageError(
            f"The finished warehouse can't be put in place at {warehouse}: {error}.\n"
            f"Readers still see the last one, and everything fetched is kept. It needs room for one more copy "
            f"({work.stat().st_size / 2**20:,.0f} MiB); then run the same command."
        ) from error


def put(fresh: Path, work: Path) -> None:
    """Replace `work` with the closed file `fresh`, in one step.

    Raises:
        StorageError: the folder can't be written; `work` is unchanged.
    """
    try:
        fresh.replace(work)
        sync_folder(work.parent)
    except OSError as error:
        raise StorageError(
            f"The rebuilt file can't be put in place at {work}: {error}.\nReaders still see the last warehouse."
            f" Mend the folder's rights, and run the same command."
        ) from error


def copy(source: Path, target: Path) -> None:
    """Copy a file so that it is on disk: by sharing blocks where the file system can, else byte by byte."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    with source.open("rb") as reader, os.fdopen(os.open(target, flags, 0o600), "wb") as writer:
        try:
            fcntl.ioctl(writer.fileno(), _FICLONE, reader.fileno())
        except OSError:
            shutil.copyfileobj(reader, writer, _PIECE)
        writer.flush()
        os.fsync(writer.fileno())
