"""Reads and rewrites raw files without control.db: each frame describes itself.

A frame of the archive is a skippable zstd frame with a line of JSON, its header, and then the body's own frame (see
`Archive.seal`). So the archive can be indexed again when control.db is lost or older, and a file can be rewritten
without losing the headers of its other frames.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import struct
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import zstandard
from msgspec import Struct

from pdsync.core.answer import PLAIN_CAP
from pdsync.core.control import SealedPage
from pdsync.core.disk import sync_folder
from pdsync.errors import StorageError
from pdsync.extract.raw_archive import LEVEL, SKIPPABLE, encode_header, read
from pdsync.model import Walk

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from pathlib import Path
    from typing import BinaryIO

_STEP = 2**20
_MAGIC = struct.pack("<I", SKIPPABLE)


class Frame(Struct, frozen=True):
    """A sealed page in its file: the header, and the body's `length` bytes at offset `at`."""

    header: dict[str, Any]
    at: int
    length: int

    @property
    def end(self) -> int:
        """The offset after it."""
        return self.at + self.length


class Unreadable(StorageError):
    """A raw file is cut off or damaged from the offset `at` on."""

    def __init__(self, path: Path, at: int, why: str, *, is_torn: bool = False) -> None:
        self.path, self.at = path, at
        self.is_torn = is_torn  # the file only ends early: a kill cut it, and the missing page was never acknowledged
        super().__init__(
            f"{path} can't be read from byte {at:,} on: {why}.\n"
            f"The frames before it are whole. To list the missing pages: pdsync raw verify"
        )


class _Torn(Exception):
    """The file ends inside a frame."""


def read_frames(path: Path) -> Iterator[Frame]:
    """The frames of the file at `path`, in their order.

    Raises:
        Unreadable: a frame is cut or damaged; those before it were yielded.
    """
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            at = 0
            while at < len(content):
                try:
                    magic, length = struct.unpack_from("<II", content, at)
                    if magic != SKIPPABLE:
                        raise ValueError("there is no header")
                    begin = at + 8 + length
                    if begin >= len(content):
                        raise _Torn
                    header = json.loads(content[at + 8 : begin])
                    frame = Frame(header, begin, header.get("bytes") or _length(content, begin))
                    if frame.end > len(content):
                        raise _Torn
                except _Torn as error:
                    raise Unreadable(path, at, "its last frame is cut off", is_torn=True) from error
                except struct.error as error:
                    raise Unreadable(path, at, "its last header is cut off", is_torn=True) from error
                except (ValueError, zstandard.ZstdError) as error:
                    raise Unreadable(path, at, str(error)) from error
                yield frame
                at = frame.end


def _length(content: mmap.mmap, begin: int) -> int:
    """How many bytes the zstd frame at `begin` has."""
    reader, at = zstandard.ZstdDecompressor(max_window_size=PLAIN_CAP).decompressobj(), begin
    while not reader.eof:
        piece = content[at : at + _STEP]
        if not piece:
            raise _Torn
        reader.decompress(piece)
        at += len(piece)
    return at - len(reader.unused_data) - begin


class ScannedPage(Struct, frozen=True):
    """A page as its raw file describes it."""

    company: int
    walk: Walk  # `started_at` is None for a page of an older version that is not its first
    page: SealedPage
    is_resealed: bool  # its content was changed on purpose after it was sealed
    sealed_at: datetime  # by this machine's clock; by the server's where the header lacks it


class Scan(Struct, frozen=True):
    """The pages of a raw file, the bytes up to which it is whole, and the error there, if any."""

    pages: list[ScannedPage]
    whole: int  # bytes
    fault: Unreadable | None


def scan(path: Path) -> Scan:
    """Read the headers of all pages in the file at `path`. Frames that are no pages are skipped.

    Raises:
        OSError: the file can't be read.
    """
    pages, whole = list[ScannedPage](), 0
    try:
        with path.open("rb") as file:
            for frame in read_frames(path):
                if "walk" in frame.header:
                    pages.append(_scanned_page(path.name, file, frame))
                whole = frame.end
    except Unreadable as error:
        return Scan(pages, whole, error)
    except (KeyError, TypeError, ValueError, zstandard.ZstdError) as error:
        return Scan(pages, whole, Unreadable(path, whole, f"the header of a frame is incomplete ({error!r})"))
    return Scan(pages, whole, None)


def _scanned_page(name: str, file: BinaryIO, frame: Frame) -> ScannedPage:
    facts = frame.header
    if "sha256" in facts:
        digest = bytes.fromhex(facts["sha256"])
    else:  # sealed before headers had it
        file.seek(frame.at)
        digest = hashlib.sha256(zstandard.ZstdDecompressor().decompress(file.read(frame.length))).digest()
    served_at = datetime.fromisoformat(facts["served_at"])
    page = SealedPage(
        walk=facts["walk"],
        seq=facts["seq"],
        file=name,
        at=frame.at,
        length=frame.length,
        rows=facts["rows"],
        sha256=digest,
        next=facts["next"],
        served_at=served_at,
        context=json.dumps(facts["context"]) if facts.get("context") else None,
    )
    began = facts.get("began") or (facts["served_at"] if page.seq == 0 else None)
    walk = Walk(
        page.walk,
        facts["run"],
        facts["stream"],
        facts["source"],
        facts["version"],
        facts["operation"],
        datetime.fromisoformat(facts["since"]) if facts["since"] else None,
        datetime.fromisoformat(began) if began else None,
    )
    sealed_at = datetime.fromtimestamp(facts["sealed_at"], UTC) if "sealed_at" in facts else served_at
    return ScannedPage(facts["company"], walk, page, bool(facts.get("resealed")), sealed_at)


class RewrittenFile(Struct, frozen=True):
    """The new copy of a raw file, and the new positions of its pages."""

    name: str
    moved: list[SealedPage]
    changed: list[tuple[int, int]]  # walk and number of the pages whose content is another now


def rewrite(
    folder: Path,
    name: str,
    pages: Iterable[SealedPage],
    removed: Collection[tuple[int, int]],
    change: Callable[[SealedPage, bytes], tuple[bytes, int]] | None = None,
) -> RewrittenFile:
    """Copy the raw file `name` under a new name, without some pages or with other content.

    The old file stays: the caller records the new positions, and then deletes it. The new name begins like the old one:
    with the run that sealed the pages. Frames of which `pages` has no entry are left out.

    Args:
        folder: of the archive.
        name: the file.
        pages: its pages in control.db.
        removed: walk and number of those to leave out; they need not be readable.
        change: gives the new body and its number of rows for a page and its body. None: pages are copied unread.

    Raises:
        StorageError: a page is damaged, or the disk is full. Nothing was changed.
    """
    new_name = _next_name(name)
    moved, changed = list[SealedPage](), list[tuple[int, int]]()
    part, at = folder / f".{new_name}.part", 0
    remaining = sorted((page for page in pages if (page.walk, page.seq) not in removed), key=lambda page: page.at)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        with (
            os.fdopen(os.open(part, flags, 0o600), "wb") as out,
            (folder / name).open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            for page in remaining:
                top, packed, copied = _copy_frame(folder, content, page, change)
                if copied is not page:
                    changed.append((page.walk, page.seq))
                out.write(top + packed)
                moved.append(msgspec.structs.replace(copied, file=new_name, at=at + len(top), length=len(packed)))
                at += len(top) + len(packed)
            out.flush()
            os.fsync(out.fileno())
        part.rename(folder / new_name)
        sync_folder(folder)
    except ValueError as error:
        raise StorageError(
            f"{folder / name} can't be rewritten: a header in it is damaged ({error}).\n"
            f"It is unchanged. What is damaged, and the way out: pdsync raw verify"
        ) from error
    except OSError as error:
        raise StorageError(
            f"{folder / name} can't be rewritten: {error}.\nIt is unchanged. Free some space, or mend the folder's"
            f" rights, and run the same command. To check the file: pdsync raw verify"
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return RewrittenFile(new_name, moved, changed)


def _copy_frame(
    folder: Path,
    content: mmap.mmap,
    page: SealedPage,
    change: Callable[[SealedPage, bytes], tuple[bytes, int]] | None,
) -> tuple[bytes, bytes, SealedPage]:
    """The header and the compressed body of a page's copy, and the page: the same object where its body is the same."""
    facts, copied = _header_before(content, page.at), page
    packed = content[page.at : page.at + page.length]
    if change is not None:
        body = read(folder, page)
        new_body, rows = change(page, body)
        if new_body != body:
            packed, facts = (
                zstandard.ZstdCompressor(level=LEVEL).compress(new_body),
                {**facts, "rows": rows, "resealed": True},
            )
            copied = msgspec.structs.replace(page, rows=rows, sha256=hashlib.sha256(new_body).digest())
    return encode_header({**facts, "bytes": len(packed), "sha256": copied.sha256.hex()}), packed, copied


def _header_before(content: mmap.mmap, at: int) -> dict[str, Any]:
    """The header that ends at `at`, where a body's frame begins."""
    begin = at
    while (begin := content.rfind(_MAGIC, 0, begin)) >= 0:
        (length,) = struct.unpack_from("<I", content, begin + 4)
        if begin + 8 + length == at:
            header: dict[str, Any] = json.loads(content[begin + 8 : at])
            return header
    raise ValueError(f"the frame at byte {at:,} has no header")


def find_header_fault(path: Path, page: SealedPage) -> str:
    """What is wrong with the header of a sealed page; empty if it describes that page.

    The archive can be indexed again, and its file rewritten, only with it.

    Raises:
        OSError: the file can't be read.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            frame = Frame(_header_before(content, page.at), page.at, page.length)
            found = _scanned_page(path.name, file, frame).page
    except (KeyError, TypeError, ValueError, zstandard.ZstdError) as error:
        return f"the header before byte {page.at:,} is damaged ({error!r})"
    same = (found.seq, found.sha256) == (page.seq, page.sha256)
    return "" if same else f"the header before byte {page.at:,} is of another page"


def _next_name(name: str) -> str:
    stem, _, number = name.removesuffix(".zst").partition(".")
    return f"{stem}.{int(number or 0) + 1}.zst"


def sealing_run(name: str) -> str:
    """The run that sealed the pages of the raw file `name`."""
    return name.partition(".")[0].rpartition("-")[0]
