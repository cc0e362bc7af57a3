"""Which files of an account's folder the store has, and how each kind changes.

    data/control.db             a consistent copy, made while a command may be writing
    data/warehouse.duckdb       the published warehouse
    data/raw/*.zst              sealed answers: a file only grows, and is removed when all its pages are
    data/raw/outbox/*.ndjson    the journal of the queue: grows
    data/files/**               downloaded attachments
    pdsync.toml, targets.csv, pipelines/*.toml, views/*.sql     what a person sets

Nothing else is there. So no secret is: not credentials.json, not export.key; nor are the work file and the locks, which
each worker makes for itself. pdsync.toml is left out if it has a secret, which pdsync refuses to run with anyway.
"""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
from contextlib import closing, suppress
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from pdsync.core import config
from pdsync.core.disk import make_private, sync_folder
from pdsync.errors import ConfigError, StorageError
from pdsync.fleet.pointer import WAREHOUSE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CONTROL = "data/control.db"
COPY = "data/.mirror-control.db"  # a temporary one
_TEMPORARY = ".mirror-"
_STEP = 4 * 2**20
_SETTINGS = "pdsync.toml"


class Kind(Enum):
    """How a file changes."""

    SEALED = re.compile(r"data/raw/[^/]+\.zst")
    JOURNAL = re.compile(r"data/raw/outbox/[^/]+\.ndjson")
    CONTROL = re.compile(re.escape(CONTROL))
    WAREHOUSE = re.compile(re.escape(WAREHOUSE))
    PLAIN = re.compile(r"pdsync\.toml|targets\.csv|pipelines/[^/]+\.toml|views/[^/]+\.sql|data/files/.+")

    @property
    def grows(self) -> bool:
        """Whether what is written once stays as it is."""
        return self in (Kind.SEALED, Kind.JOURNAL)


JOURNALS = ("data/raw/outbox/*",)
RAW = ("data/raw/*", *JOURNALS)
_ALL = ("*", "pipelines/*", "views/*", "data/*", *RAW, "data/files/**/*")


def kind_of(path: str) -> Kind | None:
    """The kind of the file at `path` below an account's folder; None: the store does not have it."""
    parts = path.split("/")
    if any(part in ("", ".", "..") or part.startswith(".") or "\\" in part or "\0" in part for part in parts):
        return None
    return next((kind for kind in Kind if kind.value.fullmatch(path)), None)


def find(folder: Path, patterns: tuple[str, ...] = _ALL) -> dict[str, Kind]:
    """The files of an account's folder that belong in the store, by path; only those that match one of `patterns`.

    A symbolic link is left out.
    """
    found = {}
    for pattern in patterns:
        for path in folder.glob(pattern):
            name = path.relative_to(folder).as_posix()
            kind = kind_of(name)
            if kind and path.is_file() and not path.is_symlink():
                found[name] = kind
    if _SETTINGS in found:
        try:
            config.read_file(folder / _SETTINGS)
        except ConfigError:
            del found[_SETTINGS]
    return found


def check_paths(folder: Path) -> None:
    """Refuse an account whose pdsync.toml puts its data elsewhere: the store would not have it.

    Raises:
        ConfigError: it does. Nothing was called.
    """
    settings = config.read_file(folder / _SETTINGS)
    for setting in ("warehouse.path", "raw.path"):
        if setting in settings:
            raise ConfigError(
                f"{folder / _SETTINGS} sets {setting}, and the fleet has a store, which has what is in"
                f" {folder / 'data'}. Nothing was called.\nRemove that line, and move the file there."
            )


def refuse_links(folder: Path) -> None:
    """Refuse an account with a link in place of one of its folders: files of this machine would get into the store.

    Raises:
        ConfigError: there is one. Nothing was called.
    """
    names = ("data", "data/raw", "data/raw/outbox", "data/files", "pipelines", "views")
    below = (Path(root, name) for root, names, _ in os.walk(folder / "data" / "files") for name in names)
    for path in (*(folder / name for name in names), *below):
        if path.is_symlink():
            raise ConfigError(
                f"{path} is a symbolic link, and the fleet has a store, which has what is in this folder."
                f" Nothing was called.\nMove the files here, or keep the account elsewhere: `folder` in fleet.toml."
            )


class State(Struct, frozen=True):
    """What `stat` says about a file: unchanged as long as its content is."""

    bytes: int
    changed_ns: int
    inode: int


def state_of(path: Path) -> State | None:
    """The state of a file; None where there is none."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return State(found.st_size, found.st_mtime_ns, found.st_ino)


def digest(path: Path, length: int | None = None) -> str:
    """The SHA-256 of a file, or of its first `length` bytes.

    Raises:
        OSError: the file is missing or shorter.
    """
    return digest_on(path, hashlib.sha256(), 0, path.stat().st_size if length is None else length)


def digest_on(path: Path, hashed: hashlib._Hash, at: int, length: int) -> str:
    """Add the bytes from `at` to `length` of a file to what was hashed; the SHA-256 of its first `length` bytes."""
    with path.open("rb") as file:
        file.seek(at)
        while at < length:
            piece = file.read(min(_STEP, length - at))
            if not piece:
                raise OSError(f"{path} is shorter than {length:,} bytes")
            hashed.update(piece)
            at += len(piece)
    return hashed.hexdigest()


def copy_control(folder: Path, target: Path) -> bool:
    """Copy control.db as one transaction leaves it, also while a command writes to it; False: there is none.

    The same state gives the same bytes.

    Raises:
        StorageError: it can't be read, or the disk is full.
    """
    source = folder / CONTROL
    if not source.exists():
        return False
    try:
        remove_database(target)
        target.touch(0o600)
        with (
            closing(sqlite3.connect(f"file:{_quoted(source)}?mode=rw", uri=True, timeout=60)) as reader,
            closing(sqlite3.connect(target)) as writer,
        ):
            reader.backup(writer)
    except (sqlite3.Error, OSError) as error:
        raise StorageError(f"{source} can't be copied to the store: {error}.") from error
    return True


def _quoted(path: Path) -> str:
    return path.absolute().as_uri().removeprefix("file://")


def remove_database(path: Path) -> None:
    """Remove an SQLite file, with the changes that are beside it."""
    for suffix in ("-wal", "-shm", "-journal", ""):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def indexed_files(control: Path) -> dict[str, int]:
    """Raw file → how many of its bytes the pages name in a copy of control.db; empty where that can't be read."""
    address = f"file:{_quoted(control)}?immutable=1"
    with suppress(sqlite3.Error), closing(sqlite3.connect(address, uri=True)) as connection:
        rows = connection.execute("SELECT file, max(at + bytes) FROM pages GROUP BY file").fetchall()
        return {f"data/raw/{name}": int(end) for name, end in rows}
    return {}


def write_whole(path: Path, pieces: Iterable[bytes]) -> str:
    """Write a file that is complete or as it was before; its SHA-256.

    Raises:
        OSError: it can't be written.
    """
    hashed = hashlib.sha256()
    make_private(path.parent)
    part = path.with_name(f"{_TEMPORARY}{path.name}")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as file:
        for piece in pieces:
            hashed.update(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    sync_folder(path.parent)
    return hashed.hexdigest()


def leftovers(folder: Path) -> Iterator[Path]:
    """Temporary files that killed workers have left in an account's folder."""
    for root, _, names in os.walk(folder):
        yield from (Path(root, name) for name in names if name.startswith(_TEMPORARY))
