"""The targets of exports: a folder, or an object store that pyarrow can write (`s3://`, `gs://`, `abfs://`).

A file is visible whole or not at all. In a folder it gets its name after it is on disk; an object store shows an object
only after its upload is finished.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlencode, urlsplit

import pyarrow as pa
import pyarrow.fs

from pdsync.core.config import expand
from pdsync.core.disk import sync_folder
from pdsync.core.log import clean, hide
from pdsync.errors import ConfigError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

NOTED = "noted"
_STEP = 8 * 2**20
_INCREASE_REFERENCES = ctypes.PYFUNCTYPE(None, ctypes.py_object)(("Py_IncRef", ctypes.pythonapi))
_KEYS = re.compile(r"://([^/?#]*)@")  # access keys in a URI


class Store(Protocol):
    """Stores files by paths with "/" between.

    Raises:
        StorageError: the target can't be used; from every method but `scratch`, which raises OSError.
    """

    where: str  # for messages

    def scratch(self) -> contextlib.AbstractContextManager[Path]:
        """A temporary folder for files that are being written; it is removed at the end.

        Its file `NOTED` has the paths that killed exports noted, one a line; if the block raises, that file stays.
        """

    def read(self, path: str) -> bytes | None:
        """The file at `path`; None where there is none."""

    def put(self, file: Path, path: str) -> None:
        """Move the file `file` of the scratch folder to `path`."""

    def remove(self, path: str) -> None:
        """Remove `path` if it is there."""


def open_store(out: str, endpoint: str | None = None, *, state: Path) -> Store:
    """The store that `out` names: a folder, or a URI.

    Args:
        out: a path, or `s3://bucket/prefix`, ….
        endpoint: the address of an S3 server that is not Amazon's: `http://127.0.0.1:9000`.
        state: the folder for temporary files, where `out` is no folder.

    Raises:
        ConfigError: `out` is no valid address. Nothing was written.
    """
    if "://" not in out:
        if endpoint:
            raise ConfigError("--endpoint belongs to an object store: --out s3://bucket/prefix. Nothing was written.")
        return _Folder(expand(Path(out)).absolute())
    if endpoint:
        # Servers other than Amazon's often store the frames of its newer checksums as content.
        os.environ.setdefault("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
        parts = urlsplit(endpoint)
        query = urlencode({"endpoint_override": parts.netloc or parts.path, "scheme": parts.scheme or "https"})
        out += ("&" if "?" in out else "?") + query
    if keys := _KEYS.search(out):
        hide(keys[1].partition(":")[2])
    where = _KEYS.sub("://", out.partition("?")[0])
    try:
        filesystem, root = pyarrow.fs.FileSystem.from_uri(out)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ConfigError(f"--out {where}: {clean(str(error).replace(out, where))}. Nothing was written.") from error
    if filesystem.type_name == "local":
        return _Folder(Path(root))
    return _Objects(filesystem, root, where, state)


class _Folder:
    def __init__(self, root: Path) -> None:
        self.where, self._root = str(root), root

    def scratch(self) -> contextlib.AbstractContextManager[Path]:
        return _scratch(self._root, ".making-")

    def read(self, path: str) -> bytes | None:
        with _storage_errors(self.where):
            try:
                return (self._root / path).read_bytes()
            except FileNotFoundError:
                return None

    def put(self, file: Path, path: str) -> None:
        with _storage_errors(self.where):
            target = self._root / path
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(file, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
            file.replace(target)
            sync_folder(target.parent)

    def remove(self, path: str) -> None:
        with _storage_errors(self.where):
            target = self._root / path
            target.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # it has other files
                target.parent.rmdir()


class _Objects:
    def __init__(self, filesystem: Any, root: str, where: str, state: Path) -> None:
        self.where, self._files, self._root, self._state = where, filesystem, root.rstrip("/"), state

    def scratch(self) -> contextlib.AbstractContextManager[Path]:
        digest = hashlib.sha256(self.where.encode()).hexdigest()[:12]  # exports to other targets are not disturbed
        return _scratch(self._state, f".export-{digest}-")

    def read(self, path: str) -> bytes | None:
        with _storage_errors(self.where):
            try:
                with self._files.open_input_stream(f"{self._root}/{path}") as file:
                    content: bytes = file.read()
                    return content
            except FileNotFoundError:
                return None

    def put(self, file: Path, path: str) -> None:
        with _storage_errors(self.where):
            target = f"{self._root}/{path}"
            with file.open("rb") as reader, _upload(self._files, target) as writer:
                shutil.copyfileobj(reader, writer, _STEP)
            if (arrived := self._files.get_file_info(target).size) != file.stat().st_size:
                raise OSError(f"{target} has {arrived} bytes there, and {file.stat().st_size} were sent")
        file.unlink()

    def remove(self, path: str) -> None:
        with _storage_errors(self.where), contextlib.suppress(FileNotFoundError):
            self._files.delete_file(f"{self._root}/{path}")


@contextlib.contextmanager
def _upload(filesystem: Any, target: str) -> Iterator[Any]:
    """A stream to the object `target`, which is there after the block; not if the block raises.

    pyarrow can't abort an upload: closing its stream finishes it, and so does removing the stream from memory. So the
    stream of an interrupted upload is never removed; the store's rule for unfinished uploads removes its parts.
    """
    writer = filesystem.open_output_stream(target)
    try:
        yield writer
    except BaseException:
        _INCREASE_REFERENCES(writer)
        raise
    writer.close()


@contextlib.contextmanager
def _scratch(root: Path, prefix: str) -> Iterator[Path]:
    """A new folder in `root`; it replaces those that killed exports left there."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    leftovers = list(root.glob(f"{prefix}*"))
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=root))
    note(folder, [path for each in leftovers for path in noted(each)])
    for each in leftovers:
        shutil.rmtree(each)
    try:
        yield folder
    except BaseException:
        for each in list(folder.iterdir()):  # the next export reads the noted paths
            if each.name != NOTED or not noted(folder):
                each.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            folder.rmdir()
        raise
    shutil.rmtree(folder, ignore_errors=True)


def note(scratch: Path, paths: Iterable[str]) -> None:
    """Note paths of files that may remain if this export is killed; they are on disk when it returns."""
    with (scratch / NOTED).open("a", encoding="utf-8") as file:
        file.write("".join(f"{path}\n" for path in paths if path))
        file.flush()
        os.fsync(file.fileno())


def noted(scratch: Path) -> list[str]:
    """The paths that this export or killed ones noted, except those that an export may not remove."""
    file = scratch / NOTED
    paths = file.read_text(encoding="utf-8").split("\n") if file.exists() else []
    return [path for path in paths if is_of_export(path)]


def is_of_export(path: str) -> bool:
    """Whether a path that a file names can be one of an export's own files, which it may remove."""
    return path.endswith(".parquet") and not {"", ".", ".."} & set(path.split("/"))


@contextlib.contextmanager
def _storage_errors(where: str) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise StorageError(
            f"The export to {where} stopped: {error}.\n"
            f"Its catalog.json still names the last whole export. Solve that and run the same command."
        ) from error
