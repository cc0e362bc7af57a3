"""Reads raw files by themselves: which frames lie in one, and what each says of itself.

A frame of the archive is a skippable zstd frame with a line of JSON, and the body's own frame after it (see `seal`).
So the archive can be indexed again when control.db is lost or older, and a file can be rewritten without losing what
its other frames say.
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

from pdsync.core.control import SealedPage
from pdsync.core.disk import sync_folder
from pdsync.core.http import PLAIN_CAP
from pdsync.errors import StorageError
from pdsync.extract.raw_archive import SKIPPABLE, header, read
from pdsync.model import Walk

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from pathlib import Path
    from typing import BinaryIO

_STEP = 2**20
_MAGIC = struct.pack("<I", SKIPPABLE)


class Frame(Struct, frozen=True):
    """One sealed page as its file tells it: `length` bytes at offset `at` hold the body."""

    facts: dict[str, Any]
    at: int
    length: int

    @property
    def end(self) -> int:
        """The offset of what follows it."""
        return self.at + self.length


class Unreadable(StorageError):
    """From some place on a raw file makes no sense. `at` is the offset."""

    def __init__(self, path: Path, at: int, why: str, *, is_torn: bool = False) -> None:
        self.path, self.at = path, at
        self.is_torn = is_torn  # the file just ends there: a kill cut it, and what is missing was never acknowledged
        super().__init__(
            f"{path} can't be read from byte {at:,} on: {why}.\n"
            f"The frames before it are whole. What pages are missing: pdsync raw verify"
        )


class _Torn(Exception):
    """The file ends inside a frame."""


def frames(path: Path) -> Iterator[Frame]:
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
                        raise ValueError("no header stands there")
                    begin = at + 8 + length
                    if begin >= len(content):
                        raise _Torn
                    facts = json.loads(content[at + 8 : begin])
                    frame = Frame(facts, begin, facts.get("bytes") or _length(content, begin))
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


class FoundPage(Struct, frozen=True):
    """A page as the archive tells it, with no help of control.db."""

    company: int
    walk: Walk  # `started_at` is known from its first page on
    page: SealedPage
    is_resealed: bool  # its content was changed on purpose after it was sealed
    sealed_at: datetime  # by this machine's clock; the server's where the file does not tell


class Scan(Struct, frozen=True):
    """What a raw file holds: its pages, how far it is whole, and what is wrong from there on, if anything is."""

    pages: list[FoundPage]
    whole: int  # bytes
    fault: Unreadable | None


def scan(path: Path) -> Scan:
    """Read what the frames of the file at `path` say of themselves. Frames that are no pages are passed over.

    Raises:
        OSError: the file can't be read.
    """
    pages, whole = list[FoundPage](), 0
    try:
        with path.open("rb") as file:
            for frame in frames(path):
                if "walk" in frame.facts:
                    pages.append(_found(path.name, file, frame))
                whole = frame.end
    except Unreadable as error:
        return Scan(pages, whole, error)
    except (KeyError, TypeError, ValueError, zstandard.ZstdError) as error:
        return Scan(pages, whole, Unreadable(path, whole, f"a frame does not say what it is ({error!r})"))
    return Scan(pages, whole, None)


def _found(name: str, file: BinaryIO, frame: Frame) -> FoundPage:
    facts = frame.facts
    if "sha256" in facts:
        digest = bytes.fromhex(facts["sha256"])
    else:  # sealed before headers held it
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
    return FoundPage(facts["company"], walk, page, bool(facts.get("resealed")), sealed_at)


class Rewritten(Struct, frozen=True):
    """A raw file written anew, and its pages where they lie now."""

    name: str
    moved: list[SealedPage]
    changed: list[tuple[int, int]]  # of pages whose content is another now


def rewrite(
    folder: Path,
    name: str,
    pages: Iterable[SealedPage],
    gone: Collection[tuple[int, int]],
    change: Callable[[SealedPage, bytes], tuple[bytes, int]] | None = None,
) -> Rewritten:
    """Write the raw file `name` anew, under a new name, without some pages or with others in their place.

    The old file stays until the caller has noted where its pages are now. The new name begins like the old one: with
    the run that sealed them. Frames that no page names are left behind.

    Args:
        folder: of the archive.
        name: the file.
        pages: those that control.db names in it.
        gone: walk and number of those to leave out; they need not be readable.
        change: of a page and its body makes the new body and its rows. None: pages are copied as they are, unread.

    Raises:
        StorageError: a page is damaged, or the disk is full. Nothing was changed.
    """
    fresh = _next_name(name)
    moved, changed = list[SealedPage](), list[tuple[int, int]]()
    part = folder / f".{fresh}.part"
    compressor, at = zstandard.ZstdCompressor(level=3), 0
    staying = sorted((page for page in pages if (page.walk, page.seq) not in gone), key=lambda page: page.at)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        with (
            os.fdopen(os.open(part, flags, 0o600), "wb") as out,
            (folder / name).open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            for page in staying:
                facts = _facts(content, page.at)
                packed, made = content[page.at : page.at + page.length], page
                if change is not None:
                    body = read(folder, page)
                    other, rows = change(page, body)
                    if other != body:
                        packed, facts = compressor.compress(other), {**facts, "rows": rows, "resealed": True}
                        made = msgspec.structs.replace(page, rows=rows, sha256=hashlib.sha256(other).digest())
                        changed.append((page.walk, page.seq))
                top = header({**facts, "bytes": len(packed), "sha256": made.sha256.hex()})
                out.write(top + packed)
                made = msgspec.structs.replace(made, file=fresh, at=at + len(top), length=len(packed))
                moved.append(made)
                at += len(top) + len(packed)
            out.flush()
            os.fsync(out.fileno())
        part.rename(folder / fresh)
        sync_folder(folder)
    except (OSError, ValueError) as error:
        raise StorageError(
            f"{folder / name} can't be written anew: {error}.\nIt is as it was. Free some space, or mend the folder's"
            f" rights, and run the same command. Whether it is whole: pdsync raw verify"
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return Rewritten(fresh, moved, changed)


def _facts(content: mmap.mmap, at: int) -> dict[str, Any]:
    """What the header says that ends where a body's frame begins."""
    begin = at
    while (begin := content.rfind(_MAGIC, 0, begin)) >= 0:
        (length,) = struct.unpack_from("<I", content, begin + 4)
        if begin + 8 + length == at:
            facts: dict[str, Any] = json.loads(content[begin + 8 : at])
            return facts
    raise ValueError(f"the frame at byte {at:,} has no header")


def _next_name(name: str) -> str:
    stem, _, number = name.removesuffix(".zst").partition(".")
    return f"{stem}.{int(number or 0) + 1}.zst"


def sealing_run(name: str) -> str:
    """The run that sealed the pages of the raw file `name`."""
    return name.partition(".")[0].rpartition("-")[0]
