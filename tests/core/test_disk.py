"""What it means when the machine refuses: an error that names the file and the way out, or none of ours."""

from __future__ import annotations

import errno
import resource
import sqlite3
from pathlib import Path

import duckdb
import pytest

from pdsync.core.disk import (
    advice_for,
    check_memory,
    first_line,
    is_machines,
    storage_error,
    storage_errors,
    sync_folder,
)
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


@pytest.mark.parametrize(
    ("error", "machine"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (duckdb.IOException("IO Error: Cannot open file: Permission denied"), True),
        (duckdb.IOException("IO Error: Could not read enough bytes from file"), False),
        (duckdb.IOException("IO Error: it is not a valid DuckDB database file!"), False),
    ],
)
def test_o4_a_file_is_damaged_only_where_the_machine_is_not_the_cause(error: Exception, machine: bool) -> None:
    assert is_machines(error) is machine


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


def test_an_error_of_duckdb_is_known_by_its_words() -> None:
    duckdb = pytest.importorskip("duckdb")
    for words, advice in (
        ("Out of Memory Error: failed to allocate", "ulimit -v"),
        ("IO Error: No space left on device", "Free some space"),
        ("IO Error: Could not read enough bytes from file", "damaged"),
    ):
        assert advice in (advice_for(duckdb.Error(words)) or "")
    assert advice_for(duckdb.Error("Binder Error: no such column")) is None
    assert advice_for(ValueError("out of memory")) is None  # any library may say so


@pytest.mark.parametrize(
    "query", ["SELECT repeat('x', 100) || range FROM range(100_000)", "SELECT list(range) FROM range(900_000)"]
)
def test_o2_duckdbs_own_memory_limit_is_named_with_a_way_out(query: str) -> None:
    duckdb = pytest.importorskip("duckdb")
    with duckdb.connect() as database:
        database.execute("SET memory_limit = '4MB'; SET temp_directory = ''; SET threads = 1")
        with pytest.raises(duckdb.Error) as caught:
            database.execute(f"CREATE TABLE t AS {query}")
    assert "There is not enough memory (Out of Memory Error: " in str(storage_error(caught.value))


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("first\nsecond"), "first"),
        (ValueError(), "ValueError"),
        (MemoryError(), "MemoryError"),
        (OSError(errno.EIO, "I/O"), "[Errno 5] I/O"),
    ],
)
def test_an_error_is_shown_in_one_line(error: Exception, line: str) -> None:
    assert first_line(error) == line


def test_the_message_names_the_file_that_is_known() -> None:
    full = OSError(errno.ENOSPC, "No space", "/data/raw/run.zst")
    assert str(storage_error(full)).startswith("/data/raw/run.zst can't be used: [Errno 28] No space")
    assert str(storage_error(full, "control.db")).startswith("control.db can't be used: ")
    assert str(storage_error(OSError(errno.ENOSPC, "No space"))).startswith("The disk can't be used: ")
    assert str(storage_error(MemoryError(), "control.db")).startswith("There is not enough memory (MemoryError).")


def test_too_little_memory_is_refused_before_anything_is_done() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    check_memory()
    resource.setrlimit(resource.RLIMIT_AS, (used + 200 * 2**20, hard))
    try:
        with pytest.raises(StorageError, match=r"leaves \d+ MiB, and at least 512 are needed") as caught:
            check_memory()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert "Nothing was called or changed" in str(caught.value)
