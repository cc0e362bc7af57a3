"""Where secrets are stored, who may read them, and that no output shows them."""

from __future__ import annotations

import logging
import os
import stat
import threading
import time
from typing import TYPE_CHECKING

import keyring.core
import msgspec
import pytest

from pdsync.core import auth, secret_store
from pdsync.core.log import clean
from pdsync.core.secret_store import Grant, StoredToken, Vault, write_private
from pdsync.errors import AuthError, ProjectLocked, StorageError

from .vaults import TOKEN, Ring, a_grant, headers_of

if TYPE_CHECKING:
    from pathlib import Path

    from pdsync.core.config import Settings

pytestmark = pytest.mark.usefixtures("no_keyring")


def test_a_file_that_is_newer_than_the_keyring_wins(settings: Settings, ring: Ring) -> None:
    """A keyring that could not be written when a grant was renewed holds a refresh token that is spent."""
    box = Vault(settings)
    with box.locked():
        box.put(a_grant(refresh_token="spent-token", saved_at=1.0))
        box.put(a_grant(refresh_token="fresh-token", saved_at=2.0), "file")
    found = box.find()
    assert found
    assert found.location == "file"
    assert isinstance(found.secret, Grant)
    assert found.secret.refresh_token == "fresh-token"


def test_storing_in_the_keyring_leaves_no_copy_in_the_file(settings: Settings, ring: Ring) -> None:
    box = Vault(settings)
    with box.locked():
        box.put(StoredToken("from-the-file"), "file")
    assert auth.store(settings, StoredToken(TOKEN)) == "keyring"
    assert not box.path.exists()
    assert len(ring.kept) == 1
    assert auth.forget(settings) == ["keyring"]
    assert not ring.kept
    assert auth.find_secret(settings) is None


@pytest.mark.parametrize("backend", ["fail", "forgetful", "raises"])
def test_x5_without_a_keyring_the_file_takes_the_token(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    if backend == "forgetful":
        monkeypatch.setattr(keyring.core, "_keyring_backend", Ring(forgetful=True))
    if backend == "raises":
        monkeypatch.setattr(Ring, "get_password", lambda *_: 1 / 0)
        monkeypatch.setattr(keyring.core, "_keyring_backend", Ring())
    assert auth.store(settings, StoredToken(TOKEN)) == "file"
    found = auth.find_secret(settings)
    assert found
    assert (found.secret, found.location) == (StoredToken(TOKEN), "file")


def test_a_keyring_that_never_answers_counts_as_absent(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    hanging = Ring(hangs=True)
    monkeypatch.setattr(keyring.core, "_keyring_backend", hanging)
    monkeypatch.setattr(threading.Thread, "join", lambda self, timeout=None: time.sleep(0.01))
    try:
        assert auth.find_secret(settings) is None
        assert auth.store(settings, StoredToken(TOKEN)) == "file"
    finally:
        hanging.released.set()


def test_x5_umask_000_still_makes_a_private_file_in_a_private_folder(settings: Settings, open_umask: None) -> None:
    auth.store(settings, StoredToken(TOKEN))
    assert stat.S_IMODE(settings.state.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in settings.state.iterdir()}
    assert modes == {"credentials.json": 0o600, "credentials.lock": 0o600}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o666, 0o610])
def test_x5_a_file_that_others_may_read_is_refused_and_says_the_chmod(settings: Settings, mode: int) -> None:
    auth.store(settings, StoredToken(TOKEN))
    path = settings.state / "credentials.json"
    path.chmod(mode)
    with pytest.raises(AuthError, match=f"chmod 600 {path}") as caught:
        auth.credentials(settings)
    assert TOKEN not in str(caught.value)
    with pytest.raises(AuthError):  # nor is it written over: whoever could read it may have done so
        auth.store(settings, StoredToken("another-token"))
    path.chmod(0o600)
    assert headers_of(settings) == {"x-api-token": TOKEN}


def test_x5_a_symbolic_link_is_refused_and_never_written_through(settings: Settings, tmp_path: Path) -> None:
    auth.store(settings, StoredToken(TOKEN))
    path, elsewhere = settings.state / "credentials.json", tmp_path / "elsewhere.json"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    before = elsewhere.read_bytes()
    with pytest.raises(AuthError, match="symbolic link"):
        auth.credentials(settings)
    with pytest.raises(AuthError, match="symbolic link"):
        auth.store(settings, StoredToken("another-token"))
    assert elsewhere.read_bytes() == before


def test_x5_a_lock_file_that_is_a_link_is_refused(settings: Settings, tmp_path: Path) -> None:
    settings.state.mkdir()
    (settings.state / "credentials.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError):
        auth.store(settings, StoredToken(TOKEN))
    assert not (tmp_path / "elsewhere").exists()


def test_x5_a_file_of_another_user_is_refused(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    auth.store(settings, StoredToken(TOKEN))
    ours = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: ours + 1)
    with pytest.raises(AuthError, match="another user"):
        auth.credentials(settings)


def test_x5_a_pipe_in_place_of_the_file_does_not_hang(settings: Settings) -> None:
    settings.state.mkdir()
    os.mkfifo(settings.state / "credentials.json", 0o600)
    with pytest.raises(AuthError, match="is no file"):
        auth.credentials(settings)


@pytest.mark.parametrize("content", [b"", b"{", b'{"version":2}', b'{"secrets":{"x":{"type":"api_token"}}}', b"\xff"])
def test_a_damaged_file_is_refused_and_not_quoted(settings: Settings, content: bytes) -> None:
    auth.store(settings, StoredToken(TOKEN))
    (settings.state / "credentials.json").write_bytes(content)
    with pytest.raises(AuthError, match="damaged") as caught:
        auth.credentials(settings)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("content", [b"", b'{"version":2}', b"\xff"])
def test_a_damaged_file_does_not_hide_the_keyring_s_secret(
    settings: Settings, ring: Ring, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    assert auth.store(settings, StoredToken(TOKEN)) == "keyring"
    write_private(settings.state / "credentials.json", content)
    assert headers_of(settings) == {"x-api-token": TOKEN}
    assert "is damaged" in caplog.text
    assert TOKEN not in caplog.text
    (settings.state / "credentials.json").chmod(0o644)
    with pytest.raises(AuthError, match="chmod 600"):  # what others could read is not passed over
        auth.credentials(settings)


def test_a_full_disk_leaves_the_old_token_and_no_draft(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    auth.store(settings, StoredToken(TOKEN))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        auth.store(settings, StoredToken("another-token"))
    assert headers_of(settings) == {"x-api-token": TOKEN}
    assert {path.name for path in settings.state.iterdir()} == {"credentials.json", "credentials.lock"}


def test_x2_every_secret_that_is_read_is_hidden(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    grant = a_grant(access_token="acc/" + TOKEN, refresh_token="ref/" + TOKEN, client_secret="sec/" + TOKEN)
    Vault(settings).folder.mkdir()
    (settings.state / "credentials.json").touch(0o600)
    secret_store.write_private(
        settings.state / "credentials.json",
        b'{"secrets":{"https://api.pipedrive.com":' + msgspec.json.encode(grant) + b"}}",
    )
    assert auth.find_secret(settings)
    for secret in (grant.access_token, grant.refresh_token, grant.client_secret):
        assert secret not in clean(f"a message with {secret} in it")
    assert TOKEN not in repr(grant) + repr(StoredToken(TOKEN)) + repr(auth.find_secret(settings))


def test_the_vault_waits_for_its_holder_and_not_for_ever(settings: Settings) -> None:
    box = Vault(settings)
    with box.locked(), pytest.raises(ProjectLocked), box.locked(timeout_s=0.1):
        pass
    with box.locked(timeout_s=0.1):
        pass


def test_x2_the_log_says_nothing_of_a_keyring_entry_it_can_not_read(
    settings: Settings, ring: Ring, caplog: pytest.LogCaptureFixture
) -> None:
    ring.kept["pdsync", f"{settings.base_url} {settings.project}"] = f'{{"type":"api_token","tokn":"{TOKEN}"}}'
    with caplog.at_level(logging.DEBUG):
        assert auth.find_secret(settings) is None
    assert TOKEN not in caplog.text
