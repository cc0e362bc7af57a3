"""Reads raw files by themselves: which frames lie in one, and what each says of itself.

A frame of the archive is a skippable zstd frame with a line of JSON, and the body's own frame behind it (see `seal`).
So the archive can be taken stock of when control.db is lost, and a file can be written anew without losing what its
other frames say.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import struct
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
import zstandard
from msgspec import Struct

from pdsync.core.control import SealedPage
from pdsync.core.disk import sync_folder
from pdsync.core.http import PLAIN_CAP
from pdsync.errors import StorageError
from pdsync.extract.seal import SKIPPABLE, header
from pdsync.model import Walk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

_STEP = 2**20


class Frame(Struct, frozen=True):
    """One sealed page as its file tells it: `length` bytes at offset `at` hold the body."""

    facts: dict[str, Any]
    at: int
    length: int


class Unreadable(StorageError):
    """From some place on a raw file makes no sense. `at` is the offset."""

    def __init__(self, path: Path, at: int, why: str) -> None:
        self.path, self.at = path, at
        super().__init__(
            f"{path} can't be read from byte {at:,} on: {why}.\n"
            f"The frames before it are whole. What pages are missing: pdsync raw verify"
        )


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
                    facts = json.loads(content[at + 8 : begin])
                    frame = Frame(facts, begin, _length(content, begin))
                except (ValueError, struct.error, zstandard.ZstdError) as error:
                    raise Unreadable(path, at, str(error)) from error
                yield frame
                at = frame.at + frame.length


def _length(content: mmap.mmap, begin: int) -> int:
    """How many bytes the zstd frame at `begin` has."""
    reader, at = zstandard.ZstdDecompressor(max_window_size=PLAIN_CAP).decompressobj(), begin
    while not reader.eof:
        piece = content[at : at + _STEP]
        if not piece:
            raise ValueError("its last frame is cut off")
        reader.decompress(piece)
        at += len(piece)
    return at - len(reader.unused_data) - begin


def stock(folder: Path) -> tuple[list[tuple[Walk, str]], list[SealedPage], list[int]]:
    """What the files in `folder` say of themselves, with no help of control.db.

    A walk counts as applied when its last page is there. Others count as dropped: the list is read anew, and of what
    was read of it, only batches that were full are loaded.

    Returns:
        The walks with their states, their pages, and the companies they come from.

    Raises:
        StorageError: a body is damaged.
    """
    walks: dict[int, tuple[Walk, str]] = {}
    pages: dict[tuple[int, int], SealedPage] = {}
    companies: dict[int, None] = {}
    for path in sorted(folder.glob("*.zst")):
        with path.open("rb") as file:
            for frame in _whole(path):
                facts = frame.facts
                file.seek(frame.at)
                body = zstandard.ZstdDecompressor().decompress(file.read(frame.length))
                page = SealedPage(
                    walk=facts["walk"],
                    seq=facts["seq"],
                    file=path.name,
                    at=frame.at,
                    length=frame.length,
                    rows=facts["rows"],
                    sha256=hashlib.sha256(body).digest(),
                    next=facts["next"],
                    served_at=datetime.fromisoformat(facts["served_at"]),
                    context=json.dumps(facts["context"]) if facts.get("context") else None,
                )
                pages.setdefault((page.walk, page.seq), page)
                companies[facts["company"]] = None
                known = walks.get(page.walk)
                began = page.served_at if page.seq == 0 else known[0].started_at if known else None
                walk = Walk(
                    page.walk,
                    facts["run"],
                    facts["stream"],
                    facts["source"],
                    facts["version"],
                    facts["operation"],
                    datetime.fromisoformat(facts["since"]) if facts["since"] else None,
                    began,
                )
                ended = page.next is None or (known is not None and known[1] == "applied")
                walks[page.walk] = (walk, "applied" if ended else "dropped")
    return [walks[id] for id in sorted(walks)], [pages[place] for place in sorted(pages)], list(companies)


def _whole(path: Path) -> Iterator[Frame]:
    """The frames of a file whose end may have been torn by a kill: what is cut there was never acknowledged."""
    try:
        yield from frames(path)
    except Unreadable as error:
        if "cut off" not in str(error) and "unpack_from" not in str(error):
            raise


class Rewritten(Struct, frozen=True):
    """A raw file written anew: its pages where they lie now, and what became of the others."""

    name: str | None  # None: no page was left
    moved: list[SealedPage]
    gone: list[tuple[int, int]]  # walk and number of pages that were left out
    changed: list[tuple[int, int]]  # of pages whose content is another now


def rewrite(
    folder: Path,
    name: str,
    pages: Iterable[SealedPage],
    change: Callable[[SealedPage, bytes], tuple[bytes, int] | None],
) -> Rewritten:
    """Write the raw file `name` anew, under a new name, with what `change` makes of each page.

    The old file stays until the caller has noted where its pages are now. The new name begins like the old one: with
    the run that sealed them. Frames that no page names are left behind.

    Args:
        folder: of the archive.
        name: the file.
        pages: those that control.db names in it.
        change: of a page and its body makes the new body and its rows, or None where it is to go.

    Raises:
        StorageError: the file is damaged, or the disk is full. Nothing was changed.
    """
    named = {page.at: page for page in pages}
    fresh = _next_name(name)
    moved, gone, changed = list[SealedPage](), list[tuple[int, int]](), list[tuple[int, int]]()
    part = folder / f".{fresh}.part"
    compressor, at = zstandard.ZstdCompressor(level=3), 0
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        with os.fdopen(os.open(part, flags, 0o600), "wb") as out, (folder / name).open("rb") as file:
            for frame in frames(folder / name):
                page = named.pop(frame.at, None)
                if page is None:
                    continue
                file.seek(frame.at)
                packed = file.read(frame.length)
                body = zstandard.ZstdDecompressor().decompress(packed)
                made = change(page, body)
                if made is None:
                    gone.append((page.walk, page.seq))
                    continue
                facts = frame.facts
                if made[0] != body:
                    packed, facts = compressor.compress(made[0]), {**facts, "rows": made[1], "resealed": True}
                    changed.append((page.walk, page.seq))
                top = header(facts)
                out.write(top + packed)
                moved.append(
                    msgspec.structs.replace(
                        page,
                        file=fresh,
                        at=at + len(top),
                        length=len(packed),
                        rows=made[1],
                        sha256=hashlib.sha256(made[0]).digest(),
                    )
                )
                at += len(top) + len(packed)
            out.flush()
            os.fsync(out.fileno())
        if named:
            raise StorageError(f"{folder / name} lacks pages that it should hold: pdsync raw verify")
        if moved:
            part.rename(folder / fresh)
            sync_folder(folder)
    except (OSError, zstandard.ZstdError) as error:
        raise StorageError(
            f"{folder / name} can't be written anew: {error}.\nIt is as it was. Free some space, or mend the folder's"
            f" rights, and run the same command."
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return Rewritten(fresh if moved else None, moved, gone, changed)


def _next_name(name: str) -> str:
    stem, _, number = name.removesuffix(".zst").partition(".")
    return f"{stem}.{int(number or 0) + 1}.zst"


def sealing_run(name: str) -> str:
    """The run that sealed the pages of the raw file `name`."""
    return name.partition(".")[0].rpartition("-")[0]
