"""What is sealed is read back exactly; what is damaged is noticed; what was not acknowledged is named nowhere."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pdsync.core.control import Control, SealedPage
from pdsync.errors import StorageError
from pdsync.extract import raw_archive, raw_file
from pdsync.extract.raw_archive import Archive
from tests.support.synced import Synced

from .conftest import NOW
from .kit import begin, page_of, seal_all

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pdsync.model import Page


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bodies=st.lists(st.binary(max_size=2000) | st.just(b"x" * 300_000), min_size=1, max_size=6))
def test_what_is_read_back_is_what_was_sealed(tmp_path: Path, control: Control, bodies: list[bytes]) -> None:
    _, entries = asyncio.run(seal_all(control, tmp_path / "raw", bodies))
    assert [raw_archive.read(tmp_path / "raw", entry) for entry in entries] == bodies
    assert [entry.seq for entry in entries] == list(range(len(bodies)))


async def test_the_archive_explains_itself_without_control_db(tmp_path: Path, control: Control) -> None:
    """Ordinary zstd gives the bodies; a skippable frame before each says what it is."""
    walk, entries = await seal_all(control, tmp_path / "raw", [b'{"data":[1]}', b'{"data":[2]}'])
    raw = (tmp_path / "raw" / entries[0].file).read_bytes()
    with zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True) as reader:
        assert reader.read() == b'{"data":[1]}{"data":[2]}'
    length = int.from_bytes(raw[4:8], "little")
    header = json.loads(raw[8 : 8 + length])
    assert (header["company"], header["stream"], header["seq"], header["next"]) == (42, "deals", 0, "cursor-0")
    assert (header["walk"], header["operation"], header["served_at"]) == (walk.id, "getDeals", NOW.isoformat())
    assert entries[0].at == 8 + length


async def test_x5_the_archive_is_the_owners_alone(tmp_path: Path, control: Control) -> None:
    before = os.umask(0)
    try:
        _, entries = await seal_all(control, tmp_path / "raw", [b"{}"])
    finally:
        os.umask(before)
    assert (tmp_path / "raw").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "raw" / entries[0].file).stat().st_mode & 0o777 == 0o600


async def test_the_last_page_seals_the_walk_and_the_first_dates_it(tmp_path: Path, control: Control) -> None:
    walk, _ = await seal_all(control, tmp_path / "raw", [b"1", b"2"])
    assert control.walk(walk.id).started_at == NOW
    assert [state for _, state in control.unfinished_walks("deals")] == ["sealed"]
    newest = control.last_page(walk.id)
    assert newest is not None
    assert (newest.seq, newest.next) == (1, None)


async def test_o4_a_flipped_bit_is_noticed(tmp_path: Path, control: Control) -> None:
    _, (entry,) = await seal_all(control, tmp_path / "raw", [b'{"data":[{"id":1}]}' * 20])
    path = tmp_path / "raw" / entry.file
    whole, noticed = path.read_bytes(), 0
    for at in range(entry.at, entry.at + entry.length):
        damaged = bytearray(whole)
        damaged[at] ^= 1
        path.write_bytes(damaged)
        try:
            body = raw_archive.read(tmp_path / "raw", entry)
        except StorageError:
            noticed += 1
        else:
            assert body == b'{"data":[{"id":1}]}' * 20  # a bit that says nothing
    assert noticed > entry.length / 2
    path.write_bytes(whole[:-3])
    with pytest.raises(StorageError, match="pdsync sync --full"):
        raw_archive.read(tmp_path / "raw", entry)
    path.unlink()
    with pytest.raises(StorageError, match="can't be read back"):
        raw_archive.read(tmp_path / "raw", entry)


@dataclass
class Counting:
    """A control.db that notes how many pages each of its transactions brought."""

    control: Control
    together: list[int] = field(default_factory=list)

    def record_pages(self, pages: Iterable[tuple[Page, SealedPage]]) -> None:
        entries = list(pages)
        self.together.append(len(entries))
        self.control.record_pages(entries)


async def test_pages_that_wait_are_sealed_together(tmp_path: Path, control: Control) -> None:
    counting = Counting(control)
    walk = begin(control)
    async with Archive(tmp_path / "raw", counting, "run", 42) as archive:  # type: ignore[arg-type]
        await asyncio.gather(*(archive.seal(walk, page_of(walk, seq, b"%d" % seq)) for seq in range(200)))
    assert sum(counting.together) == 200
    assert len(counting.together) < 50
    bodies = [raw_archive.read(tmp_path / "raw", entry) for entry in control.sealed_pages(walk.id)]
    assert bodies == [b"%d" % seq for seq in range(200)]


@dataclass
class Witness:
    """A control.db that notes how much of each page is on disk when it is recorded."""

    control: Control
    folder: Path
    synced: Synced
    missing: list[int] = field(default_factory=list)  # bytes

    def record_pages(self, pages: Iterable[tuple[Page, SealedPage]]) -> None:
        entries = list(pages)
        ends = [(sealed.at + sealed.length, self.folder / sealed.file) for _, sealed in entries]
        self.missing += [end - self.synced.bytes_of(path) for end, path in ends]
        self.control.record_pages(entries)


async def test_s1_a_page_is_on_disk_before_control_db_names_it(
    tmp_path: Path, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = Synced()
    monkeypatch.setattr(os, "fsync", synced.fsync)
    witness, walk = Witness(control, tmp_path / "raw", synced), begin(control)
    async with Archive(tmp_path / "raw", witness, "run", 42) as archive:  # type: ignore[arg-type]
        for seq in range(3):
            await archive.seal(walk, page_of(walk, seq, b"%d" % seq))
    assert len(witness.missing) == 3
    assert max(witness.missing) <= 0


async def test_s9_a_disk_that_takes_nothing_names_no_page(tmp_path: Path, control: Control) -> None:
    (tmp_path / "raw").write_text("a file where the folder should be")
    walk = begin(control)
    async with Archive(tmp_path / "raw", control, "run", 42) as archive:
        with pytest.raises(StorageError, match="can't be kept"):
            await archive.seal(walk, page_of(walk, 0, b"{}"))
    assert control.last_page(walk.id) is None


async def test_a_page_that_control_db_refuses_is_an_error_of_its_own(tmp_path: Path, control: Control) -> None:
    """The same page twice: the second is refused, and the first still stands."""
    walk = begin(control)
    async with Archive(tmp_path / "raw", control, "run", 42) as archive:
        await archive.seal(walk, page_of(walk, 0, b"one"))
        with pytest.raises(StorageError):
            await archive.seal(walk, page_of(walk, 0, b"two"))
        await archive.seal(walk, page_of(walk, 1, b"three"))
    bodies = [raw_archive.read(tmp_path / "raw", entry) for entry in control.sealed_pages(walk.id)]
    assert bodies == [b"one", b"three"]


def test_s1_s15_a_kill_between_the_file_and_control_db_leaves_a_page_that_the_file_tells(tmp_path: Path) -> None:
    code = """
import asyncio, os, signal, sys
from pathlib import Path
from pdsync.core.control import Control
from pdsync.extract.raw_archive import Archive
from tests.extract.kit import begin, page_of

class Fatal(Control):
    deadly = False
    def record_pages(self, pages):
        if self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        super().record_pages(pages)

async def main(folder):
    control = Fatal(folder / "control.db")
    walk = begin(control)
    async with Archive(folder / "raw", control, "run", 42) as archive:
        await archive.seal(walk, page_of(walk, 0, b"kept"))
        control.deadly = True
        await archive.seal(walk, page_of(walk, 1, b"lost"))

asyncio.run(main(Path(sys.argv[1])))
"""
    killed = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=Path(__file__).parents[2], check=False, timeout=60
    )
    assert killed.returncode == -signal.SIGKILL
    after = Control(tmp_path / "control.db")
    try:
        ((walk, state),) = after.walks()
        assert state == "open"
        entries = after.sealed_pages(walk.id)
        assert [raw_archive.read(tmp_path / "raw", entry) for entry in entries] == [b"kept"]
        scan = raw_file.scan(tmp_path / "raw" / entries[0].file)
        assert [raw_archive.read(tmp_path / "raw", each.page) for each in scan.pages] == [b"kept", b"lost"]
        assert scan.pages[0].page == entries[0]
    finally:
        after.close()
