"""A file is complete or absent, whatever stops its writer."""

from __future__ import annotations

import os
import resource
import signal
from typing import TYPE_CHECKING

import pytest

from pdsync.core.atomic_file import AtomicFile
from pdsync.errors import ConfigError, StorageError

if TYPE_CHECKING:
    from pathlib import Path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_file_gets_its_name_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "answer.json"
    path.write_bytes(b"the one before")
    with AtomicFile(path) as file:
        file.write(b"an attempt that failed, and longer")
        file.begin()
        file.write(b"ab")
        file.write(b"c")
        assert path.read_bytes() == b"the one before"
    assert path.read_bytes() == b"abc"
    assert names(tmp_path) == ["answer.json"]


def test_a_check_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "answer.json"
    path.write_bytes(b"the one before")
    AtomicFile(path).check()
    assert path.read_bytes() == b"the one before"
    assert names(tmp_path) == ["answer.json"]
    with pytest.raises(ConfigError, match="Nothing was called"):
        AtomicFile(tmp_path / ("n" * 250)).check()


def test_x5_the_file_is_the_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with AtomicFile(tmp_path / "answer.json"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "answer.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_file_before(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "answer.json"
    path.write_bytes(b"the one before")

    def write() -> None:
        with AtomicFile(path) as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        write()
    assert path.read_bytes() == b"the one before"
    assert names(tmp_path) == ["answer.json"]


def test_o2_a_full_disk_leaves_no_file_and_says_so(tmp_path: Path) -> None:
    """The kernel writes no more than so many bytes into a file, which to a program is what a full disk is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def write(data: bytes) -> None:
        with AtomicFile(tmp_path / "answer.json") as file:
            file.write(data)

    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, hard))
    try:
        for size in (2**17, 2**16 + 1):  # when it is written, and when what was buffered is
            with pytest.raises(StorageError, match=r"answer\.json can't be written"):
                write(b"x" * size)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == []


@pytest.mark.parametrize("where", ["none/answer.json", "file/answer.json"])
def test_a_file_that_can_not_be_created_is_refused_at_once(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="Nothing was called"), AtomicFile(tmp_path / where):
        pass


def test_s1_the_part_that_a_killed_process_has_left_is_in_the_way_of_no_other(tmp_path: Path) -> None:
    """In a container each process may have the same number."""
    pid = os.fork()
    if not pid:
        with AtomicFile(tmp_path / "answer.json") as file:
            file.write(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    (left,) = tmp_path.iterdir()
    left.rename(tmp_path / left.name.replace(str(pid), str(os.getpid())))
    with AtomicFile(tmp_path / "answer.json") as file:
        file.write(b"whole")
    assert (tmp_path / "answer.json").read_bytes() == b"whole"


def test_x7_a_link_with_the_name_of_the_part_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda size: "0" * size)
    (tmp_path / "precious").write_text("precious")
    (tmp_path / ".answer.json.000000.part").symlink_to(tmp_path / "precious")
    with pytest.raises(ConfigError), AtomicFile(tmp_path / "answer.json"):
        pass
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_folder_in_the_files_place_stays(tmp_path: Path) -> None:
    (tmp_path / "answer.json").mkdir()
    with pytest.raises(StorageError), AtomicFile(tmp_path / "answer.json") as file:
        file.write(b"abc")
    assert names(tmp_path) == ["answer.json"]
    assert (tmp_path / "answer.json").is_dir()
