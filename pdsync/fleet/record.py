"""Remembers in an account's folder, in `.mirror.json`, what it and the store had in common last.

With it a file is neither read nor compared as long as its size, its time and its inode are the same, and it shows on
which side a file has changed since.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from pdsync.errors import StorageError
from pdsync.fleet import contents
from pdsync.fleet.contents import Kind, State
from pdsync.fleet.pointer import StoredFile  # noqa: TC001 - msgspec reads the types of the fields

if TYPE_CHECKING:
    from pathlib import Path

    from pdsync.fleet.pointer import Pointer

_NAME = ".mirror.json"


class LocalFile(Struct, frozen=True):
    """A file of the folder, and what the store had of it when they were last compared."""

    stored: StoredFile
    state: State | None = None  # as long as the file has it, both are equal; None: they are not, or it is not known


class Record(Struct, frozen=True):
    """What the folder and the store had in common last."""

    origin: str = ""  # of the pointer
    generation: int = 0
    files: dict[str, LocalFile] = {}  # by path


# Made when this module is imported: msgspec crashes when threads are the first to decode a type side by side.
_DECODER = msgspec.json.Decoder(Record)


def read_record(folder: Path, current: Pointer) -> Record:
    """The folder's record; an empty one if it has none, or if it is of what the store does not have any more."""
    try:
        record = _DECODER.decode((folder / _NAME).read_bytes())
    except (OSError, msgspec.DecodeError):
        return Record()
    is_past = record.origin == current.origin and record.generation <= current.generation
    return record if is_past else Record()


def write_record(folder: Path, record: Record) -> None:
    """Replace the folder's record.

    Raises:
        StorageError: it can't be written; it is as it was.
    """
    try:
        contents.write_whole(folder / _NAME, [msgspec.json.encode(record)])
    except OSError as error:
        raise StorageError(
            f"{folder / _NAME} can't be written: {error}. Free some space or mend the folder's rights, and run the"
            f" same command again."
        ) from error


def is_removed(path: str, indexed: dict[str, int] | None) -> bool:
    """Whether a file that the folder lacks was removed on purpose.

    A raw file was, if control.db names pages, but none of it. A setting or a downloaded attachment always was; a
    journal, control.db and the warehouse never are.

    Args:
        path: of the file.
        indexed: the raw files with pages in control.db; None: there is no control.db.
    """
    kind = contents.kind_of(path)
    if kind is Kind.SEALED:
        return bool(indexed) and path not in (indexed or {})
    return kind is Kind.PLAIN
