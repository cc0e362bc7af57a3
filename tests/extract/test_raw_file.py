"""A raw file tells what is in it, up to where it is whole; a copy of it loses nothing but what is left out."""

from __future__ import annotations

import json
import struct
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import zstandard

from pdsync.core.control import Control
from pdsync.errors import StorageError
from pdsync.extract import raw_archive
from pdsync.extract.raw_archive import Archive, encode_header
from pdsync.extract.raw_file import Unreadable, read_frames, rewrite, scan, sealing_run

from .conftest import NOW
from .kit import begin, page_of, seal_all

if TYPE_CHECKING:
    from pathlib import Path

    from pdsync.core.control import SealedPage
    from pdsync.model import Walk

BODIES = [b'{"data":[{"id":%d}]}' % id for id in range(4)]


@pytest.fixture
async def sealed(tmp_path: Path) -> tuple[Path, Walk, list[SealedPage]]:
    """A raw file with the pages of one walk."""
    control = Control(tmp_path / "control.db")
    walk, pages = await seal_all(control, tmp_path / "raw", BODIES)
    control.close()
    return tmp_path / "raw" / pages[0].file, msgspec.structs.replace(walk, started_at=NOW), pages


def older(path: Path, *left_out: str) -> None:
    """Write the file as versions of pdsync did whose headers lacked some facts."""
    content = path.read_bytes()
    frames = [
        encode_header({key: value for key, value in frame.header.items() if key not in left_out})
        + content[frame.at : frame.end]
        for frame in read_frames(path)
    ]
    path.write_bytes(b"".join(frames))


def contents(path: Path) -> list[bytes]:
    """The bodies of a file, as any zstd tool reads them."""
    content = path.read_bytes()
    return [zstandard.decompress(content[frame.at : frame.end]) for frame in read_frames(path)]


# -- frames ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("left_out", [(), ("bytes",)])
def test_a_frame_is_a_header_and_a_body(sealed: tuple[Path, Walk, list[SealedPage]], left_out: tuple[str, ...]) -> None:
    path, walk, pages = sealed
    older(path, *left_out)
    frames = list(read_frames(path))
    assert [frame.header["seq"] for frame in frames] == [0, 1, 2, 3]
    assert {frame.header["walk"] for frame in frames} == {walk.id}
    assert [frame.length for frame in frames] == [page.length for page in pages]
    assert frames[-1].end == path.stat().st_size
    assert contents(path) == BODIES


def test_an_empty_file_has_no_frame(tmp_path: Path) -> None:
    (tmp_path / "empty.zst").touch()
    assert list(read_frames(tmp_path / "empty.zst")) == []


@pytest.mark.parametrize("left_out", [(), ("bytes",)])
def test_s1_a_file_that_was_cut_off_anywhere_gives_its_whole_frames(
    sealed: tuple[Path, Walk, list[SealedPage]], left_out: tuple[str, ...]
) -> None:
    path, _, _ = sealed
    older(path, *left_out)
    ends = [frame.end for frame in read_frames(path)]
    whole = path.read_bytes()
    for size in range(ends[-2] + 1, ends[-1], 7):
        path.write_bytes(whole[:size])
        found = scan(path)
        assert [page.page.seq for page in found.pages] == [0, 1, 2]
        assert found.whole == ends[-2]
        assert found.fault is not None
        assert found.fault.is_torn
        assert found.fault.at == ends[-2]
    path.write_bytes(whole[: ends[-2]])
    assert scan(path).fault is None


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda begin, page: (begin, b"\0"), id="magic number"),
        pytest.param(lambda begin, page: (begin + 8, b"]"), id="header"),
    ],
)
def test_o4_a_damaged_frame_is_not_taken_for_one_that_was_cut(
    sealed: tuple[Path, Walk, list[SealedPage]], damage: Any
) -> None:
    path, _, pages = sealed
    begin = list(read_frames(path))[1].end
    content = bytearray(path.read_bytes())
    position, replacement = damage(begin, pages[2])
    content[position : position + 1] = replacement
    path.write_bytes(content)
    found = scan(path)
    assert ([page.page.seq for page in found.pages], found.whole) == ([0, 1], begin)
    assert found.fault is not None
    assert not found.fault.is_torn
    with pytest.raises(Unreadable, match="pdsync raw verify"):
        list(read_frames(path))


# -- pages -------------------------------------------------------------------------------------------


def test_s14_a_file_has_all_that_control_db_has_of_its_pages(
    sealed: tuple[Path, Walk, list[SealedPage]],
) -> None:
    path, walk, pages = sealed
    found = scan(path)
    assert [each.page for each in found.pages] == pages
    assert [each.walk for each in found.pages] == [walk] * 4
    assert {(each.company, each.is_resealed) for each in found.pages} == {(42, False)}
    assert all(abs((each.sealed_at - datetime.now(UTC)).total_seconds()) < 3600 for each in found.pages)
    assert (found.whole, found.fault) == (path.stat().st_size, None)


def test_s14_a_file_of_an_older_version_has_the_same(sealed: tuple[Path, Walk, list[SealedPage]]) -> None:
    path, walk, pages = sealed
    older(path, "bytes", "sha256", "began", "sealed_at", "context")
    found = scan(path)
    assert [each.page.sha256 for each in found.pages] == [page.sha256 for page in pages]
    assert [each.walk.started_at for each in found.pages] == [walk.started_at, None, None, None]
    assert [each.sealed_at for each in found.pages] == [NOW] * 4


def test_frames_that_are_no_pages_are_skipped_and_a_header_that_lacks_facts_is_a_fault(
    sealed: tuple[Path, Walk, list[SealedPage]],
) -> None:
    path, _, _ = sealed
    size = path.stat().st_size
    other = encode_header({"about": "something else"}) + zstandard.compress(b"x")
    with path.open("ab") as file:
        file.write(other)
    found = scan(path)
    assert (len(found.pages), found.whole, found.fault) == (4, size + len(other), None)
    with path.open("ab") as file:
        file.write(encode_header({"walk": 1}) + zstandard.compress(b"x"))
    found = scan(path)
    assert (len(found.pages), found.whole) == (4, size + len(other))
    assert "header of a frame is incomplete" in str(found.fault)


# -- rewriting ---------------------------------------------------------------------------------------


def test_pages_that_are_left_out_are_gone_and_the_others_are_at_the_new_positions(
    sealed: tuple[Path, Walk, list[SealedPage]],
) -> None:
    path, walk, pages = sealed
    content = bytearray(path.read_bytes())
    content[pages[1].at + 5] ^= 1
    path.write_bytes(content)  # what is left out need not be readable
    made = rewrite(path.parent, path.name, reversed(pages), [(walk.id, 1), (walk.id, 3)])
    assert (made.name, made.changed) == (f"{path.name.removesuffix('.zst')}.1.zst", [])
    assert contents(path.parent / made.name) == [BODIES[0], BODIES[2]]
    assert [each.page for each in scan(path.parent / made.name).pages] == made.moved
    assert [raw_archive.read(path.parent, page) for page in made.moved] == [BODIES[0], BODIES[2]]
    assert [each.walk for each in scan(path.parent / made.name).pages] == [walk] * 2
    assert path.read_bytes() == content
    again = rewrite(path.parent, made.name, made.moved, [(walk.id, 0)])
    assert again.name == f"{path.name.removesuffix('.zst')}.2.zst"
    assert sealing_run(again.name) == sealing_run(path.name) == "run"
    assert sorted(each.name for each in path.parent.iterdir()) == sorted([path.name, made.name, again.name])


def test_a_page_with_other_content_says_that_it_was_changed(sealed: tuple[Path, Walk, list[SealedPage]]) -> None:
    path, walk, pages = sealed

    def change(page: SealedPage, body: bytes) -> tuple[bytes, int]:
        return (b'{"data":[]}', 0) if page.seq == 2 else (body, page.rows)

    made = rewrite(path.parent, path.name, pages, (), change)
    found = scan(path.parent / made.name).pages
    assert made.changed == [(walk.id, 2)]
    assert [each.is_resealed for each in found] == [False, False, True, False]
    assert [each.page for each in found] == made.moved
    assert [page.rows for page in made.moved] == [1, 1, 0, 1]
    assert [raw_archive.read(path.parent, page) for page in made.moved] == [*BODIES[:2], b'{"data":[]}', BODIES[3]]


def test_a_frame_without_a_page_is_left_out(sealed: tuple[Path, Walk, list[SealedPage]]) -> None:
    path, _, pages = sealed
    assert contents(path.parent / rewrite(path.parent, path.name, pages[:2], ()).name) == BODIES[:2]


@pytest.mark.parametrize("damaged", ["body", "header"])
def test_o4_a_page_that_is_damaged_stops_the_copy_and_leaves_the_file(
    sealed: tuple[Path, Walk, list[SealedPage]], damaged: str
) -> None:
    path, _, pages = sealed
    content = bytearray(path.read_bytes())
    if damaged == "body":
        content[pages[1].at + 5] ^= 1
    else:
        struct.pack_into("<I", content, next(iter(read_frames(path))).end, 0)
    path.write_bytes(content)
    with pytest.raises(StorageError, match="pdsync"):
        rewrite(path.parent, path.name, pages, (), lambda page, body: (body, page.rows))
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert path.read_bytes() == content


async def test_a_header_that_contains_the_magic_number_of_headers_is_found_whole(tmp_path: Path) -> None:
    """The header before a body is looked for backwards, by a number that a header or a body may contain as well."""
    control = Control(tmp_path / "control.db")
    walk = begin(control)
    number = struct.pack("<II", raw_archive.SKIPPABLE, 3).decode("latin-1")
    async with Archive(tmp_path / "raw", control, "run", 42) as archive:
        page = page_of(walk, 0, number.encode("latin-1") * 9, last=True)
        await archive.seal(walk, msgspec.structs.replace(page, context={"id": number}))
    pages = control.sealed_pages(walk.id)
    control.close()
    made = rewrite(tmp_path / "raw", pages[0].file, pages, ())
    [found] = scan(tmp_path / "raw" / made.name).pages
    assert json.loads(found.page.context or "") == {"id": number}


@pytest.mark.parametrize(
    ("name", "run"), [("20260131-ab12-9f9f9f9f.zst", "20260131-ab12"), ("run-9f9f9f9f.3.zst", "run")]
)
def test_the_name_of_a_file_begins_with_the_run_that_sealed_it(name: str, run: str) -> None:
    assert sealing_run(name) == run
