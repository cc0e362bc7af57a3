"""A file that is complete or absent: it is written under a hidden name beside it, and renamed at the end."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING

from pdsync.core.disk import sync_folder
from pdsync.errors import ConfigError, StorageError

if TYPE_CHECKING:
    from pathlib import Path


class AtomicFile:
    """A file that gets its name when it is complete; a `ByteSink`.

    Raises:
        ConfigError: it can't be created.
        StorageError: a write failed. The file is unchanged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # Not the number of the process: in a container it comes again, and so would a part that a kill has left.
        self._part = path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")

    def check(self) -> None:
        """Check that it can be created, before something is sent whose answer it will have; no file is left.

        Raises:
            ConfigError: it can't be created.
        """
        os.close(self._create())
        self._part.unlink()

    def __enter__(self) -> AtomicFile:
        self._file = os.fdopen(self._create(), "wb")
        return self

    def _create(self) -> int:
        try:
            return os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise ConfigError(
                f"{self._path} can't be written: {error.strerror or error}. Nothing was called."
            ) from error

    def begin(self) -> None:
        self._file.seek(0)
        self._file.truncate()

    def write(self, data: bytes) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            raise StorageError(f"{self._path} can't be written: {error.strerror or error}.") from error

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._file.flush()
                os.fsync(self._file.fileno())
                self._part.replace(self._path)
                sync_folder(self._path.absolute().parent)
        except OSError as error:
            raise StorageError(f"{self._path} can't be written: {error.strerror or error}.") from error
        finally:
            with suppress(OSError):  # it tries once more to write what the disk has refused
                self._file.close()
            self._part.unlink(missing_ok=True)
