"""Stores secrets: in the system's keyring, or in a file of the project that only its owner can read.

A secret belongs to a project and a base URL, so a token for Pipedrive is never offered to a sandbox. Where both
stores have one, the newer wins: the older one remained when the other store could not be written. A keyring that
is missing, locked or silent counts as absent, and never stops an unattended run.

A secret is changed inside `locked()`: of two processes that renew one OAuth grant, the second finds it renewed already.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec
from msgspec import Struct

from pdsync.core.log import hide, log
from pdsync.errors import AuthError, ProjectLocked, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from keyring.backend import KeyringBackend

    from pdsync.core.config import Settings

SecretLocation = Literal["environment", "keyring", "file"]
SERVICE = "pdsync"
_MOST_BYTES = 1 << 20
_T = TypeVar("_T")


class StoredToken(Struct, frozen=True, tag="api_token"):
    """A personal API token."""

    token: str
    saved_at: float = 0.0  # seconds since 1970, as all times in this module

    def __repr__(self) -> str:
        return "StoredToken(…)"


class Grant(Struct, frozen=True, tag="oauth", kw_only=True):
    """The tokens of an OAuth login, and the app that they belong to. An empty address is the default one."""

    client_id: str
    client_secret: str
    access_token: str
    refresh_token: str
    renew_at: float
    expires_at: float
    api_domain: str
    company_id: int
    company_name: str = ""
    saved_at: float = 0.0
    authorize_url: str = ""
    token_url: str = ""
    redirect_uri: str = ""
    scopes: tuple[str, ...] = ()  # that the login requested
    granted_scopes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Grant(company_id={self.company_id}, …)"


Secret = StoredToken | Grant


class StoredSecret(Struct, frozen=True):
    """A secret, and where it is stored."""

    secret: Secret
    location: SecretLocation


class _File(Struct):
    version: Literal[1] = 1
    secrets: dict[str, Secret] = {}  # by base URL


class _DamagedError(AuthError):
    """The file of secrets can't be understood."""


class Vault:
    """The secrets of one project with one base URL."""

    def __init__(self, settings: Settings) -> None:
        self.base_url = settings.base_url
        self.folder = settings.state
        self.path = settings.state / "credentials.json"
        self._account = f"{settings.base_url} {settings.project}"

    def find(self) -> StoredSecret | None:
        """The stored secret; None where there is none.

        A damaged file is named, and counts as absent where the keyring has a secret.

        Raises:
            AuthError: the file could be read by others, is not ours, or is damaged and the keyring has no secret.
        """
        found = []
        text = _ask_keyring(lambda ring: ring.get_password(SERVICE, self._account))
        if text:
            try:
                found.append(StoredSecret(_hidden(msgspec.json.decode(text, type=Secret)), "keyring"))
            except msgspec.DecodeError:
                log.warning("The keyring's entry for %s can't be understood; it counts as absent.", self._account)
        try:
            in_file = self._read().secrets.get(self.base_url)
        except _DamagedError as damage:
            if not found:
                raise
            log.warning("%s\nThe keyring's token is used.", damage)
            in_file = None
        if in_file:
            found.append(StoredSecret(_hidden(in_file), "file"))
        return max(found, key=lambda each: each.secret.saved_at, default=None)

    def put(self, secret: Secret, location: SecretLocation = "keyring") -> SecretLocation:
        """Store `secret`, safely on disk when this returns; called inside `locked()`.

        Args:
            secret: replaces the stored one.
            location: where to store it. Where there is no keyring it is stored in the file.

        Returns:
            Where it is stored.

        Raises:
            AuthError: it would go into the file, which is damaged, or which others could read. Nothing was stored.
            StorageError: it can't be stored; the stored secret is unchanged.
        """
        text = msgspec.json.encode(_hidden(secret)).decode()

        def store(ring: KeyringBackend) -> bool:
            ring.set_password(SERVICE, self._account, text)
            return ring.get_password(SERVICE, self._account) == text  # some backends accept anything, and store nothing

        if location == "keyring" and _ask_keyring(store):
            with contextlib.suppress(AuthError):  # nor is a file needed that is not safe to read
                self._put_file(None)
            return "keyring"
        self._put_file(secret)
        return "file"

    def clear(self) -> list[SecretLocation]:
        """Delete the secret wherever it is stored, and return where it was; called inside `locked()`.

        A keyring that is locked or does not answer keeps it, and is not among what is returned.

        Raises:
            AuthError: the file is damaged, or others could read it. The keyring's secret is deleted.
            StorageError: the file can't be written. The keyring's secret is deleted.
        """
        cleared: list[SecretLocation] = []

        def delete(ring: KeyringBackend) -> bool:
            if ring.get_password(SERVICE, self._account) is None:
                return False
            ring.delete_password(SERVICE, self._account)
            return True

        if _ask_keyring(delete):
            cleared.append("keyring")
        if self._put_file(None):
            cleared.append("file")
        return cleared

    @contextmanager
    def locked(self, timeout_s: float = 120.0) -> Iterator[None]:
        """Lock the vault against all other processes. The kernel releases the lock however its owner ends.

        Raises:
            ProjectLocked: another process has it locked for longer than `timeout_s`.
            StorageError: the folder can't be written.
        """
        path = self.folder / "credentials.lock"
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise StorageError(f"{path} can't be written: {error}. Nothing was changed: pdsync doctor") from error
        try:
            until = time.monotonic() + timeout_s
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > until:
                        raise ProjectLocked(
                            "Another pdsync has been renewing or storing the token for two minutes.\n"
                            "Nothing was called. Run the same command again when it has ended."
                        ) from None
                    time.sleep(0.02)
            yield
        finally:
            os.close(handle)

    # The file.

    def _read(self) -> _File:
        text = read_private(self.path)
        if text is None:
            return _File()
        try:
            return msgspec.json.decode(text, type=_File)
        except msgspec.DecodeError:  # its message could quote a secret
            raise _DamagedError(
                f"{self.path} is damaged or was written by a newer pdsync; no token was read from it.\n"
                f"Store the token again: rm {self.path}, then pdsync auth login"
            ) from None

    def _put_file(self, secret: Secret | None) -> bool:
        """Write the secret of this base URL, or delete it; whether the file changed."""
        if secret is None and not self.path.exists():
            return False
        content = self._read()
        if secret is None and self.base_url not in content.secrets:
            return False
        if secret is not None:
            content.secrets[self.base_url] = secret
        else:
            del content.secrets[self.base_url]
        try:
            if content.secrets:
                write_private(self.path, msgspec.json.encode(content))
            else:
                self.path.unlink()
        except OSError as error:
            raise StorageError(
                f"The token can't be kept in {self.path}: {error}.\n"
                f"What was stored before is still there. Free some space or mend the folder's rights: pdsync doctor"
            ) from error
        return True


def read_private(path: Path) -> bytes | None:
    """The content of a file that only its owner can read and has made; None where there is no file.

    Raises:
        AuthError: it is a link, belongs to another user, or others may read it; says what to run.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise AuthError(
                f"{path} is a symbolic link; no token is read through one.\n"
                f"Remove it and store the token again: rm {path}, then pdsync auth login"
            ) from error
        raise AuthError(f"{path} can't be read: {error}.\nMend its rights: chmod 600 {path}") from error
    try:
        facts = os.fstat(handle)
        if not stat.S_ISREG(facts.st_mode):
            raise AuthError(f"{path} is no file. Remove it and store the token again: pdsync auth login")
        if facts.st_uid != os.geteuid():
            raise AuthError(
                f"{path} belongs to another user, who can read and change it; no token was read from it.\n"
                f"Remove it, store the token again (pdsync auth login), and renew the old one in Pipedrive."
            )
        if facts.st_mode & 0o077:
            raise AuthError(
                f"Others may read {path} (mode {stat.S_IMODE(facts.st_mode):04o}); the token was not used.\n"
                f"Close it: chmod 600 {path}\n"
                f"If they may have read it, renew the token in Pipedrive too, then: pdsync auth login"
            )
        with os.fdopen(handle, "rb", closefd=False) as file:
            return file.read(_MOST_BYTES)
    finally:
        os.close(handle)


def write_private(path: Path, content: bytes) -> None:
    """Replace the file as a whole: mode 0600 whatever the umask, on disk when this returns, never half of it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        try:
            os.fchmod(handle, 0o600)
            with os.fdopen(handle, "wb", closefd=False) as file:
                file.write(content)
            os.fsync(handle)
        finally:
            os.close(handle)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


# The keyring. Its backends raise errors of any kind, and some wait for a person to unlock them.

_silent = threading.Event()  # set when it did not answer: then it is not asked again in this process


def _is_attended() -> bool:
    """Whether somebody can unlock a keyring: there is a terminal. A process may have been started without streams."""
    return all(stream and not stream.closed and stream.isatty() for stream in (sys.stdin, sys.stderr))


def _ask_keyring(ask: Callable[[KeyringBackend], _T]) -> _T | None:
    """What `ask` returns; None where there is no safe keyring, or it does not answer."""
    if _silent.is_set():
        return None
    answer: list[Any] = []

    def work() -> None:
        try:
            import keyring  # noqa: PLC0415 - slow to import, and not needed where the environment has the token

            ring = keyring.get_keyring()
            if ring.priority >= 1:  # backends below that store nothing, or store it readable
                answer.append(ask(ring))
        except Exception as error:
            log.debug("The keyring is not used: %s", type(error).__name__)

    # A daemon thread: one that hangs must not keep the process from ending. A person needs time to unlock a keyring.
    thread = threading.Thread(target=work, name="keyring", daemon=True)
    thread.start()
    thread.join(60.0 if _is_attended() else 5.0)
    if thread.is_alive():
        _silent.set()
        log.warning("The keyring does not answer; it counts as absent.")
    return answer[0] if answer else None


def has_keyring() -> bool:
    """Whether there is a keyring that answers."""
    return _ask_keyring(lambda _: True) is True


def _hidden(secret: Secret) -> Secret:
    if isinstance(secret, Grant):
        for value in (secret.access_token, secret.refresh_token, secret.client_secret):
            hide(value)
    else:
        hide(secret.token)
    return secret
