"""The folder of downloads: harmless names, complete files only, and a manifest that is believed as far as it can be."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdsync.errors import ConfigError, ProjectLocked, StorageError
from pdsync.extract.download_folder import MANIFEST, Folder, ManifestEntry, NotAFile, PartialFile, name_on_disk

from .hostile_names import HOSTILE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    with Folder(tmp_path / "files") as folder:
        yield folder


def entry(id: int, **more: Any) -> ManifestEntry:
    return ManifestEntry(id, f"file {id}.pdf", f"{id}.pdf", 3, "ab", 7, NOW, **more)


def names_in(folder: Folder) -> list[str]:
    return sorted(path.name for path in folder.root.iterdir())


# Names.


def test_x10_there_are_more_than_a_hundred_hostile_names() -> None:
    assert len(set(HOSTILE)) > 100


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: ascii(name)[:40])
def test_x10_a_name_on_disk_is_the_id_and_a_plain_suffix(name: str) -> None:
    _is_harmless(name_on_disk(42, name))


@given(st.integers(1, 2**63 - 1), st.text())
def test_x10_no_text_makes_another_kind_of_name(id: int, name: str) -> None:
    made = name_on_disk(id, name)
    _is_harmless(made, id)
    assert name_on_disk(id, made) == made


def _is_harmless(made: str, id: int = 42) -> None:
    begin, dot, suffix = made.partition(".")
    assert begin == str(id)
    assert suffix.replace("tar.", "", 1).isalnum() if dot else not suffix
    assert made.isascii()
    assert made == made.lower()
    assert len(made.encode()) < 60


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("Offer 3.PDF", ".pdf"), ("a.tar.gz", ".tar.gz"), ("scan.pdf ", ".pdf"), ("no suffix", ""), ("x.pdf.exe", ".exe")],
)
def test_the_suffix_of_an_ordinary_name_stays(name: str, suffix: str) -> None:
    assert name_on_disk(5, name) == f"5{suffix}"


# The folder.


def test_one_download_at_a_time_into_a_folder(tmp_path: Path) -> None:
    with Folder(tmp_path / "files"), pytest.raises(ProjectLocked), Folder(tmp_path / "files"):
        pass
    with Folder(tmp_path / "files"):
        pass


def test_x7_a_link_or_a_file_is_no_folder_to_download_into(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for name, message in (("file", "no folder"), ("link", "symbolic link"), ("file/inside", "no folder")):
        with pytest.raises(ConfigError, match=message), Folder(tmp_path / name):
            pass
    assert list((tmp_path / "real").iterdir()) == []


def test_x5_the_folder_and_its_files_are_the_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with Folder(tmp_path / "files") as folder:
            folder.append(entry(1))
            part = PartialFile(folder, "1.pdf")
            part.begin()
            part.complete()
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (folder.root, *folder.root.iterdir())}
    assert modes == {"files": 0o700, "1.pdf": 0o600, MANIFEST: 0o600}


def test_x7_what_is_no_ordinary_file_has_no_size(folder: Folder, tmp_path: Path) -> None:
    (folder.root / "1.pdf").write_bytes(b"abc")
    (folder.root / "2.pdf").mkdir()
    (tmp_path / "precious").write_bytes(b"abc")
    (folder.root / "3.pdf").symlink_to(tmp_path / "precious")
    os.mkfifo(folder.root / "4.pdf")
    assert (folder.size_of("1.pdf"), folder.size_of("9.pdf")) == (3, None)
    assert folder.digest("1.pdf") == hashlib.sha256(b"abc").hexdigest()
    for name in ("2.pdf", "3.pdf", "4.pdf"):
        with pytest.raises(NotAFile, match=f"{name} is no ordinary file"):
            folder.size_of(name)
    with pytest.raises(OSError, match="link"):
        folder.digest("3.pdf")


def test_only_the_partial_files_of_downloads_are_removed(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    kept = ["1.pdf", ".mine.part", ".1.pdf", ".01.pdf.part", ".1.p-f.part", ".7.pdf.part"]
    for name in (*kept[:-1], ".2.pdf.part", ".99.tar.gz.part", ".3.part"):
        (folder.root / name).write_bytes(b"x")
    (folder.root / ".7.pdf.part").symlink_to(tmp_path / "precious")
    folder.remove_partial_files()
    assert names_in(folder) == sorted(kept)
    folder.remove("1.pdf")
    folder.remove("1.pdf")
    assert "1.pdf" not in names_in(folder)


def test_complete_files_without_an_entry_are_found_by_their_ids(folder: Folder, tmp_path: Path) -> None:
    for name in ("1.pdf", "2.pdf", "2.doc", "3", ".4.pdf.part", "mine.txt", MANIFEST):
        (folder.root / name).write_bytes(b"x")
    (folder.root / "5.pdf").symlink_to(tmp_path / "precious")
    assert folder.without_entry({1: entry(1)}) == {2: ["2.doc", "2.pdf"], 3: ["3"]}


# The manifest.


def test_the_last_line_of_a_file_is_the_one_that_counts(folder: Folder) -> None:
    assert folder.manifest() == {}
    entries = [entry(2, deal_id=5, note="came as text/html"), entry(1), entry(2)]
    for each in entries:
        folder.append(each)
    assert folder.manifest() == {1: entries[1], 2: entries[2]}
    folder.rewrite({2: entries[2], 1: entries[1]})
    lines = (folder.root / MANIFEST).read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == [1, 2]
    assert folder.manifest() == {1: entries[1], 2: entries[2]}
    assert names_in(folder) == [MANIFEST]


def line(**values: Any) -> bytes:
    """A line of file 3, with other values where they are given."""
    plain = {"id": 3, "name": "x", "path": "3.pdf", "size": 3, "sha256": "", "company_id": 7}
    return json.dumps({**plain, "downloaded_at": "2026-11-22T12:00:00Z", **values}).encode()


PATHS = ["../3.pdf", "/etc/passwd", "4.pdf", "3.PDF/..", "03.pdf", "3.pdf\n", "3.a.b", ""]
UNREADABLE = [b"{nonsense", b"\xff", b'{"id": 3}', line(size="three"), line(id=None)]


@pytest.mark.parametrize("line", [*UNREADABLE, *(line(path=path) for path in PATHS)])
def test_x7_a_line_that_can_not_be_read_or_names_another_path_is_ignored(folder: Folder, line: bytes) -> None:
    folder.append(entry(1))
    with (folder.root / MANIFEST).open("ab") as file:
        file.write(line)  # cut off by a crash: without an end
    folder.append(entry(2))
    assert folder.manifest() == {1: entry(1), 2: entry(2)}


def test_x10_a_name_in_the_manifest_breaks_no_line_and_steers_no_terminal(folder: Folder) -> None:
    names = dict(enumerate((name.encode(errors="replace").decode() for name in HOSTILE), 1))
    folder.rewrite({id: ManifestEntry(id, name, str(id), 0, "", 7, NOW) for id, name in names.items()})
    content = (folder.root / MANIFEST).read_text()
    assert {id: each.name for id, each in folder.manifest().items()} == names
    assert all(char == "\n" or char.isprintable() for char in content)


def test_x7_a_manifest_that_is_a_link_is_neither_read_nor_written(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (folder.root / MANIFEST).symlink_to(tmp_path / "precious")
    with pytest.raises(NotAFile):
        folder.manifest()
    with pytest.raises(StorageError):
        folder.append(entry(1))
    with pytest.raises(NotAFile):
        folder.rewrite({1: entry(1)})
    assert (tmp_path / "precious").read_text() == "precious"


# A file that comes in.


async def test_a_file_has_its_name_when_it_is_complete(folder: Folder) -> None:
    part = PartialFile(folder, "5.pdf")
    part.begin()
    part.write(b"an attempt that failed")
    part.begin()
    part.write(b"ab")
    part.write(b"c")
    assert names_in(folder) == [".5.pdf.part"]
    assert (part.size, part.sha256) == (3, hashlib.sha256(b"abc").hexdigest())
    await part.finish()
    part.discard()
    assert names_in(folder) == ["5.pdf"]
    assert (folder.root / "5.pdf").read_bytes() == b"abc"


def test_a_file_that_is_discarded_leaves_the_one_before(folder: Folder) -> None:
    (folder.root / "5.pdf").write_bytes(b"before")
    part = PartialFile(folder, "5.pdf")
    part.begin()
    part.write(b"half")
    part.discard()
    assert names_in(folder) == ["5.pdf"]
    assert (folder.root / "5.pdf").read_bytes() == b"before"


async def test_an_empty_file_is_a_file(folder: Folder) -> None:
    await PartialFile(folder, "5").finish()
    assert (folder.root / "5").read_bytes() == b""


async def test_a_file_that_is_being_completed_is_complete_when_its_task_is_cancelled(folder: Folder) -> None:
    part = PartialFile(folder, "5.pdf")
    part.begin()
    part.write(b"abc")
    task = asyncio.create_task(part.finish())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert names_in(folder) == ["5.pdf"]


def test_x7_a_file_replaces_a_leftover_and_neither_a_link_nor_a_folder(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (folder.root / ".1.pdf.part").write_bytes(b"left by a killed download")
    (folder.root / ".2.pdf.part").symlink_to(tmp_path / "precious")
    (folder.root / "3.pdf").mkdir()
    part = PartialFile(folder, "1.pdf")
    part.begin()
    part.complete()
    assert (folder.root / "1.pdf").read_bytes() == b""
    for name in ("2.pdf", "3.pdf"):
        with pytest.raises(NotAFile):
            PartialFile(folder, name).begin()
    assert (tmp_path / "precious").read_text() == "precious"
