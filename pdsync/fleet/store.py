"""Stores objects for a fleet: in S3, Google Cloud Storage, Azure, or a folder that the workers share.

Beside whole objects a store has two conditional writes, and all that several workers agree on rests on them: `create`
writes an object only if there is none, `replace` only if it is still the version that was read.

Credentials and endpoints come from the environment, by the names that each vendor's own tools have
(AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_ACCOUNT_NAME, …). Addresses in this
module are keys with "/" between, below the store's URL.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from msgspec import Struct

from pdsync.core import config
from pdsync.core.disk import sync_folder
from pdsync.core.log import clean_error, hide
from pdsync.errors import ConfigError, StorageError
from pdsync.fleet import shared_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from obstore.store import ObjectStore

_STEP = 8 * 2**20
_SCHEMES = ("s3", "s3a", "gs", "az", "adl", "azure", "abfs", "abfss")
_ENDPOINTS = {  # by the first letter of the scheme: variables with the endpoint of a server that is not the vendor's
    "s": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "g": ("GOOGLE_BASE_URL",),
    "a": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
_RANGE = 32 * 2**20  # of a large object, for each request
_REQUEST = timedelta(seconds=20)  # for one request, so that a lease is renewed or given up in time
_TRANSFER = timedelta(minutes=5)  # for one request with a part of a file
_RETRIES: Any = {
    "max_retries": 5,
    "retry_timeout": timedelta(seconds=30),
    "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=3), "base": 2},
}


class Version(Struct, frozen=True):
    """Identifies one content of an object, for `replace`."""

    e_tag: str
    number: str = ""  # where the store counts versions


class StoredObject(Struct, frozen=True):
    """A small object, as it was read."""

    data: bytes
    version: Version
    modified: datetime  # by the store's clock


class Entry(Struct, frozen=True):
    """An object in a list."""

    key: str
    bytes: int
    modified: datetime  # by the store's clock


class Store(Protocol):
    """Objects by their keys. Every method raises StorageError where the store can't be reached, or refuses."""

    where: str  # for messages; has no secret

    def url(self, key: str) -> str:
        """The address of an object for other programs."""

    def read(self, key: str) -> StoredObject | None:
        """The object at `key`; None where there is none."""

    def create(self, key: str, data: bytes) -> Version | None:
        """Write `data`, which no one else would write, unless there is an object; None: there is one of another's."""

    def replace(self, key: str, data: bytes, expected: Version) -> Version | None:
        """Write `data`, which no one else would write, unless the object is no longer `expected`; None: it is not."""

    def upload(self, key: str, file: Path, at: int, length: int) -> None:
        """Write `length` bytes of `file`, from the offset `at` on. The object is visible when it is complete.

        Raises FileNotFoundError where there is no `file`.
        """

    def download(self, key: str) -> Iterator[bytes]:
        """The content of an object, in pieces. Raises FileNotFoundError where there is none."""

    def modified(self, key: str) -> datetime:
        """When the object was written, by the store's clock."""

    def list(self, prefix: str) -> Iterator[Entry]:
        """All objects below `prefix`."""

    def folders(self) -> tuple[str, ...]:
        """The first parts of all keys that have several, without a look at each object."""

    def remove(self, keys: Iterable[str]) -> None:
        """Remove objects; those that do not exist are left out."""


def open_store(url: str, endpoint: str = "", region: str = "") -> Store:
    """The store at `url`. Nothing is requested.

    Args:
        url: `s3://bucket/prefix`, `gs://…`, `az://container/prefix`, `abfs://…`, or the path of a folder.
        endpoint: the address of a server that is not the vendor's own; empty: that of the environment, if there is one.
        region: of the bucket; empty: that of the environment.

    Raises:
        ConfigError: the URL or a setting in the environment is malformed, or obstore is not installed.
    """
    scheme, separator, _ = url.partition("://")
    if not separator or scheme == "file":
        if endpoint or region:
            raise ConfigError(f"The store {url} is a folder, which has no endpoint and no region.")
        return _Folder(config.expand(Path(url.removeprefix("file://"))).absolute())
    parts = urlsplit(url)
    if scheme not in _SCHEMES or not parts.hostname or parts.query or parts.fragment:
        raise ConfigError(
            f"The store {_without_keys(url)} can't be understood. It is s3://bucket/prefix, gs://bucket/prefix,"
            f" az://container/prefix or the path of a folder."
        )
    if parts.password or (parts.username and not scheme.startswith("abfs")):  # abfss://container@account.dfs.…
        hide(parts.password)
        raise ConfigError(
            f"The address of the store {_without_keys(url)} has keys in it, and this file may be shared.\n"
            f"Set them in the environment: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        )
    try:
        from obstore.exceptions import BaseError  # noqa: PLC0415 - of the extra
        from obstore.store import from_url  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError('A store needs more packages: pip install "pdsync[fleet]"') from error
    endpoints = [endpoint] if endpoint else [os.environ.get(name, "") for name in _ENDPOINTS[scheme[0]]]
    options: dict[str, Any] = {"base_url" if scheme == "gs" else "endpoint": endpoint} if endpoint else {}
    if region:
        options["region"] = region
    allow_http = _may_be_http(endpoints)

    def client(timeout: timedelta) -> ObjectStore:
        client_options: Any = {"timeout": timeout, "connect_timeout": timedelta(seconds=5), "allow_http": allow_http}
        return from_url(url.rstrip("/"), client_options=client_options, retry_config=_RETRIES, **options)

    try:
        return _Objects(client(_REQUEST), client(_TRANSFER), url.rstrip("/"))
    except (BaseError, ValueError, TypeError) as error:
        raise ConfigError(f"The store {url} can't be opened: {_first_line(error)}") from error


def _may_be_http(endpoints: Iterable[str]) -> bool:
    """Whether the store is at a plain address of this machine.

    Raises:
        ConfigError: it is at a plain address of another machine.
    """
    plain = [each for each in endpoints if each.lower().startswith("http://")]
    for each in plain:
        if not config.is_loopback(urlsplit(each).hostname or ""):
            raise ConfigError(
                f"The endpoint {_without_keys(each)} is not encrypted: use https:// (http:// is for this machine)."
            )
    return bool(plain)


def _without_keys(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    address, slash, path = rest.partition("/")
    return f"{scheme}{separator}{address.rpartition('@')[2]}{slash}{path}".partition("?")[0]


def _first_line(error: BaseException) -> str:
    """What an error of obstore says, without the program's own details and the body of the response."""
    return clean_error(str(error).partition("\n")[0].partition(": <?xml")[0]) or type(error).__name__


@contextlib.contextmanager
def _storage_errors(where: str) -> Iterator[None]:
    from obstore.exceptions import BaseError  # noqa: PLC0415 - of the extra

    try:
        yield
    except FileNotFoundError:
        raise
    except (BaseError, OSError, TypeError, ValueError) as error:  # TypeError: no valid key
        raise StorageError(
            f"The store {where} does not do what was requested: {_first_line(error)}.\n"
            f"What it has is complete. Check its address, credentials and network, and run the same command again."
        ) from error


def _vanished(url: str) -> StorageError:
    return StorageError(f"{url}, which was just written, does not exist.")


class _Objects:
    """A store of obstore's: a client for small requests, and one for the contents of files."""

    def __init__(self, store: ObjectStore, transfers: ObjectStore, url: str) -> None:
        self.where, self._store, self._transfers = url, store, transfers

    def url(self, key: str) -> str:
        return f"{self.where}/{key}"

    def read(self, key: str) -> StoredObject | None:
        with _storage_errors(self.where):
            try:
                found = self._store.get(key)
                data = bytes(found.bytes())
            except FileNotFoundError:
                return None
            return StoredObject(data, _version(found.meta), found.meta["last_modified"])

    def create(self, key: str, data: bytes) -> Version | None:
        return self._write_if(key, data, "create")

    def replace(self, key: str, data: bytes, expected: Version) -> Version | None:
        numbered = {"version": expected.number} if expected.number else {}
        return self._write_if(key, data, {"e_tag": expected.e_tag, **numbered})

    def _write_if(self, key: str, data: bytes, mode: Any) -> Version | None:
        from obstore.exceptions import AlreadyExistsError, PreconditionError  # noqa: PLC0415 - of the extra

        with _storage_errors(self.where):
            try:
                return _version(self._store.put(key, data, mode=mode, use_multipart=False))
            except (AlreadyExistsError, PreconditionError, FileNotFoundError):
                # A first try whose response was lost may have written it.
                found = self.read(key)
                return found.version if found and found.data == data else None

    def upload(self, key: str, file: Path, at: int, length: int) -> None:
        with _storage_errors(self.where):
            if length <= _STEP:
                self._transfers.put(key, b"".join(_pieces(file, at, length)), use_multipart=False)
            else:
                self._transfers.put(key, _pieces(file, at, length), chunk_size=_STEP, max_concurrency=4)

    def download(self, key: str) -> Iterator[bytes]:
        with _storage_errors(self.where):
            whole = self._transfers.get(key)
            size, e_tag = whole.meta["size"], whole.meta["e_tag"]
            if size <= _RANGE:
                yield bytes(whole.bytes())
                return
            del whole
            for at in range(0, size, _RANGE):
                yield self._range(key, at, min(at + _RANGE, size), e_tag)

    def _range(self, key: str, begin: int, end: int, e_tag: str | None) -> bytes:
        """A part of the object that has this tag: one that was replaced meanwhile would be mixed with it."""
        from obstore.exceptions import PreconditionError  # noqa: PLC0415 - of the extra

        options: Any = {"range": (begin, end)} | ({"if_match": e_tag} if e_tag else {})
        try:
            return bytes(self._transfers.get(key, options=options).bytes())
        except PreconditionError as error:
            raise StorageError(
                f"{self.url(key)} was replaced while it was read. Run the same command again."
            ) from error

    def modified(self, key: str) -> datetime:
        with _storage_errors(self.where):
            try:
                return self._store.head(key)["last_modified"]
            except FileNotFoundError:
                raise _vanished(self.url(key)) from None

    def list(self, prefix: str) -> Iterator[Entry]:
        with _storage_errors(self.where):
            for batch in self._store.list(prefix.rstrip("/")):
                for each in batch:
                    yield Entry(each["path"], each["size"], each["last_modified"])

    def folders(self) -> tuple[str, ...]:
        with _storage_errors(self.where):
            return tuple(sorted(each.strip("/") for each in self._store.list_with_delimiter()["common_prefixes"]))

    def remove(self, keys: Iterable[str]) -> None:
        listed = list(keys)
        with _storage_errors(self.where):
            for begin in range(0, len(listed), 1000):
                with contextlib.suppress(FileNotFoundError):
                    self._store.delete(listed[begin : begin + 1000])


def _version(facts: Any) -> Version:
    return Version(facts["e_tag"] or "", facts["version"] or "")


def _pieces(file: Path, at: int, length: int) -> Iterator[bytes]:
    """`length` bytes of a file, in pieces.

    Raises:
        OSError: it is shorter.
    """
    with file.open("rb") as reader:
        reader.seek(at)
        while length:
            piece = reader.read(min(length, _STEP))
            if not piece:
                raise OSError(f"{file} is {length} bytes shorter than before")
            length -= len(piece)
            yield piece


class _Folder:
    """A folder: of one machine, or of a file system that all workers share and that has locks, as NFS 4 does."""

    def __init__(self, root: Path) -> None:
        self.where, self._root = str(root), root

    def url(self, key: str) -> str:
        return str(self._path(key))

    def _path(self, key: str) -> Path:
        """The file of an object. Keys are read from files that others write: one that leads elsewhere is refused."""
        parts = key.split("/") if key else []
        if any(part in ("", ".", "..") or "\0" in part for part in parts):
            raise StorageError(f"{key!r} is no key of an object in {self.where}. Nothing was read or removed there.")
        return self._root.joinpath(*parts)

    def read(self, key: str) -> StoredObject | None:
        with self._errors():
            try:
                with self._path(key).open("rb") as file:
                    data = file.read()
                    return StoredObject(data, _hash(data), _time(os.fstat(file.fileno())))
            except shared_folder.GONE:
                return None

    def create(self, key: str, data: bytes) -> Version | None:
        return self._write_if(key, data, None)

    def replace(self, key: str, data: bytes, expected: Version) -> Version | None:
        return self._write_if(key, data, expected)

    def _write_if(self, key: str, data: bytes, expected: Version | None) -> Version | None:
        if expected and self.read(key) is None:
            return None
        with self._errors(), shared_folder.locked(self._path(key)):
            found = self.read(key)
            if (found.version if found else None) != expected:
                return None
            self._write(key, [data])
            return _hash(data)

    def _write(self, key: str, pieces: Iterable[bytes]) -> None:
        target = self._path(key)
        part = target.with_name(f".{target.name}.{secrets.token_hex(8)}.part")
        with os.fdopen(shared_folder.open_new(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
        with contextlib.suppress(FileNotFoundError):  # others have removed the object, and its folder, meanwhile
            sync_folder(target.parent)

    def upload(self, key: str, file: Path, at: int, length: int) -> None:
        with self._errors():
            self._write(key, _pieces(file, at, length))

    def download(self, key: str) -> Iterator[bytes]:
        with self._errors(), self._path(key).open("rb") as file:
            while piece := file.read(_STEP):
                yield piece

    def modified(self, key: str) -> datetime:
        with self._errors():
            try:
                return _time(self._path(key).stat())
            except shared_folder.GONE:
                raise _vanished(self.url(key)) from None

    def list(self, prefix: str) -> Iterator[Entry]:
        with self._errors():
            for folder, _, names in os.walk(self._path(prefix), onerror=_unless_gone):
                for path in (Path(folder, name) for name in names if _is_object(name)):
                    try:
                        found = path.stat()
                    except shared_folder.GONE:  # it was removed meanwhile
                        continue
                    yield Entry(path.relative_to(self._root).as_posix(), found.st_size, _time(found))

    def folders(self) -> tuple[str, ...]:
        with self._errors():
            names = sorted(shared_folder.names_in(self._root))
            return tuple(name for name in names if any(map(_is_object, shared_folder.names_in(self._root / name))))

    def remove(self, keys: Iterable[str]) -> None:
        with self._errors():
            for key in keys:
                path = self._path(key)
                if path.parent.is_dir():
                    with shared_folder.locked(path) as lock:
                        path.unlink(missing_ok=True)
                        lock.unlink()
                    shared_folder.remove_empty(path.parent, self._root)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StorageError(
                f"The store {self.where} can't be used: {error}.\n"
                f"What it has is complete. Free some space or mend its rights, and run the same command again."
            ) from error


def _unless_gone(error: OSError) -> None:
    """Raise an error of a folder that is listed: what can't be listed is not empty."""
    if not isinstance(error, shared_folder.GONE):
        raise error


def _is_object(name: str) -> bool:
    return not name.startswith(".")


def _hash(data: bytes) -> Version:
    return Version(hashlib.sha256(data).hexdigest())


def _time(found: os.stat_result) -> datetime:
    return datetime.fromtimestamp(found.st_mtime, UTC)
