"""Settings of an empty project, on a machine with or without a keyring."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import keyring.backends.fail
import keyring.core
import pytest

from pdsync.core import config, secret_store

from .vaults import Ring

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pdsync.core.config import Settings


@pytest.fixture
def no_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a server: no backend, and nothing in the environment."""
    monkeypatch.delenv("PDSYNC_API_TOKEN", raising=False)
    monkeypatch.delenv("PDSYNC_BASE_URL", raising=False)
    monkeypatch.setattr(keyring.core, "_keyring_backend", keyring.backends.fail.Keyring())  # type: ignore[no-untyped-call]
    monkeypatch.setattr(secret_store, "_silent", threading.Event())


@pytest.fixture
def ring(monkeypatch: pytest.MonkeyPatch) -> Ring:
    found = Ring()
    monkeypatch.setattr(keyring.core, "_keyring_backend", found)
    return found


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return config.load(tmp_path)


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)
