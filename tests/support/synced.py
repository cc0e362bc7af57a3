"""What has reached the disk: the files that were synced, and how long they were then.

synced = Synced()
monkeypatch.setattr(os, "fsync", synced.fsync)  # syncs as before
synced.bytes_of(path)  # 0 where it was never synced
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_fsync = os.fsync


class Synced:
    """Notes each file that is synced."""

    def __init__(self) -> None:
        self._bytes: dict[int, int] = {}

    def fsync(self, handle: int) -> None:
        """Sync a file, and note its length."""
        facts = os.fstat(handle)
        _fsync(handle)
        self._bytes[facts.st_ino] = facts.st_size

    def bytes_of(self, path: Path) -> int:
        """How many bytes of a file are on disk for certain."""
        return self._bytes.get(path.stat().st_ino, 0)
