"""What it means when the machine refuses: an error that names the file and the way out, or none of ours."""

from __future__ import annotations

import errno
import sqlite3

import pytest

from pdsync.core.disk import storage_error, storage_errors, sync_folder
from pdsync.errors import StorageError


def sqlite_error(code: int) -> sqlite3.Error:
    error = sqlite3.OperationalError("refused")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "Free some space"),
        (OSError(errno.EDQUOT, "Quota"), "Free some space"),
        (OSError(errno.EACCES, "Permission denied"), "rights"),
        (OSError(errno.EIO, "I/O"), "disk itself"),
        (OSError(errno.EMFILE, "Too many"), "ulimit -n"),
        (MemoryError(), "ulimit -v"),
        (RuntimeError("can't start new thread"), "ulimit -v"),
        (sqlite_error(sqlite3.SQLITE_FULL), "Free some space"),
        (sqlite_error(sqlite3.SQLITE_BUSY), "Another program"),
        (sqlite_error(sqlite3.SQLITE_IOERR | 1 << 8), "Free some space"),  # an extended code
        (sqlite_error(sqlite3.SQLITE_CORRUPT), "damaged"),
        (ExceptionGroup("", [ValueError("x"), OSError(errno.ENOSPC, "No space")]), "Free some space"),
    ],
)
def test_a_refusal_of_the_machine_names_the_way_out(error: Exception, advice: str) -> None:
    found = storage_error(error, "some.db")
    assert isinstance(found, StorageError)
    assert advice in str(found)


@pytest.mark.parametrize(
    "error", [ValueError("no space left"), OSError(errno.ENOENT, "none"), RuntimeError("x"), sqlite3.Error("syntax")]
)
def test_another_error_is_not_the_machines(error: Exception) -> None:
    assert storage_error(error) is None
    with pytest.raises(type(error)) as raised, storage_errors("some.db"):
        raise error
    assert raised.value is error


def test_a_guarded_block_names_the_file_and_keeps_the_cause() -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(StorageError, match=r"some\.db can't be used") as raised, storage_errors("some.db"):
        raise full
    assert raised.value.__cause__ is full


def test_a_folder_that_is_missing_can_not_be_synced(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("disk")
    sync_folder(folder)
    with pytest.raises(FileNotFoundError):
        sync_folder(folder / "none")
