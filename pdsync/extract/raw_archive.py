"""Seals answers in the raw archive, and reads them back.

A sealed page is one zstd frame, exactly the bytes that came, after a skippable frame with a line of JSON that
describes it. Ordinary tools read the file (`zstd -dc run.zst` gives the bodies), and it can be read without control.db.
A page is safe when its file is on disk; control.db is its index, and is written after it. From then on the page is
never fetched again: where a kill came before the index was written, the next run finds the page in the file
(`runner.stores`).

Pages that arrive while the disk is busy are sealed together: one fsync, one transaction.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import queue
import secrets
import struct
import threading
import time
from typing import TYPE_CHECKING, Any

import msgspec
import zstandard

from pdsync.core.answer import PLAIN_CAP
from pdsync.core.control import Control, SealedPage
from pdsync.core.disk import sync_folder
from pdsync.errors import PdsyncError, StorageError
from pdsync.model import Page

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

    from pdsync.model import Walk

SKIPPABLE = 0x184D2A50
_MAX_BATCH = 64  # pages that one fsync covers at most
LEVEL = 1  # of zstd: pages of deals take a third less time than with 3, and 2 % more bytes


class Archive:
    """The raw archive of a project, open for one run to append to.

    async with Archive(folder, control, run_id, company_id) as archive:
        await archive.seal(walk, page)
    """

    def __init__(self, folder: Path, control: Control, run_id: str, company_id: int) -> None:
        self._folder, self._control, self._company = folder, control, company_id
        self._name = f"{run_id}-{secrets.token_hex(4)}.zst"  # no other process ever wrote to it, or left it cut off
        self._file: int | None = None
        self._at = 0
        self._pending: queue.SimpleQueue[tuple[Walk, Page, asyncio.Future[None]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="seal", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._compressor = zstandard.ZstdCompressor(level=LEVEL)

    async def __aenter__(self) -> Archive:
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pending.put(None)
        await asyncio.to_thread(self._thread.join)
        if self._file is not None:
            os.close(self._file)

    async def seal(self, walk: Walk, page: Page) -> None:
        """Return when `page` is on disk and in the index.

        Raises:
            StorageError: it can't be written, or not be indexed. The index lacks the page; the next run takes it from
                the file if it is there, and otherwise fetches it again.
        """
        if self._loop is None:
            raise RuntimeError("Archive is used inside `async with`.")
        done: asyncio.Future[None] = self._loop.create_future()
        self._pending.put((walk, page, done))
        await done

    def _work(self) -> None:
        ended = False
        while not ended:
            entries = [self._pending.get()]
            while len(entries) < _MAX_BATCH:
                try:
                    entries.append(self._pending.get_nowait())
                except queue.Empty:
                    break
            batch = [entry for entry in entries if entry is not None]
            ended = len(batch) < len(entries)
            if batch:
                self._report(batch, self._seal([(walk, page) for walk, page, _ in batch]))

    def _report(self, batch: list[tuple[Walk, Page, asyncio.Future[None]]], error: Exception | None) -> None:
        def set_results() -> None:
            for _, _, done in batch:
                if done.cancelled():
                    continue
                if error:
                    done.set_exception(error)
                else:
                    done.set_result(None)

        if self._loop and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(set_results)

    def _seal(self, batch: list[tuple[Walk, Page]]) -> Exception | None:
        try:
            if self._file is None:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
                self._file = os.open(self._folder / self._name, flags, 0o600)
                self._at = os.fstat(self._file).st_size
                sync_folder(self._folder)
            start, sealed, pieces = self._at, [], []
            for walk, page in batch:
                frame, digest = self._compressor.compress(page.body), hashlib.sha256(page.body).digest()
                header = self._header(walk, page, len(frame), digest)
                sealed.append(
                    SealedPage(
                        walk=page.walk,
                        seq=page.seq,
                        file=self._name,
                        at=self._at + len(header),
                        length=len(frame),
                        rows=page.rows,
                        sha256=digest,
                        next=page.next,
                        served_at=page.served_at,
                        context=json.dumps(page.context) if page.context else None,
                    )
                )
                pieces += [header, frame]
                self._at += len(header) + len(frame)
            try:
                _write(self._file, b"".join(pieces))
                os.fsync(self._file)
            except OSError:
                self._at = start
                os.ftruncate(self._file, start)  # leave no partial frame
                raise
            self._control.record_pages(list(zip((page for _, page in batch), sealed, strict=True)))
        except PdsyncError as error:
            return error
        except Exception as error:
            return StorageError(
                f"Answers can't be kept in {self._folder}: {error}.\n"
                f"What was sealed before is safe. Free some space or mend the folder's rights,"
                f" then run the same command."
            )
        return None

    def _header(self, walk: Walk, page: Page, length: int, digest: bytes) -> bytes:
        facts = {
            "company": self._company,
            "run": walk.run_id,
            "walk": walk.id,
            "stream": walk.stream,
            "source": walk.source,
            "version": walk.version,
            "operation": walk.operation,
            "since": walk.since.isoformat() if walk.since else None,
            "seq": page.seq,
            "asked_for": page.cursor,
            "context": page.context,
            "next": page.next,
            "rows": page.rows,
            "served_at": page.served_at.isoformat(),
            "began": (walk.started_at or page.served_at).isoformat(),
            "sealed_at": time.time(),
            "bytes": length,
            "sha256": digest.hex(),
        }
        return encode_header(facts)


def encode_header(facts: Mapping[str, Any]) -> bytes:
    """The skippable frame that describes the frame after it."""
    line = json.dumps(facts).encode() + b"\n"
    return struct.pack("<II", SKIPPABLE, len(line)) + line


class LostPage(StorageError):
    """A sealed page is missing or damaged. Its records can be fetched again, as the source is now."""


def read(folder: Path, sealed: SealedPage) -> bytes:
    """The body of a sealed page, checked against its checksum.

    Raises:
        LostPage: the file is missing or damaged.
    """
    path = folder / sealed.file
    try:
        with path.open("rb") as file:
            file.seek(sealed.at)
            frame = file.read(sealed.length)
        # A damaged header may claim any size, and the decompressor would ask for that much memory at once.
        if zstandard.frame_content_size(frame) > PLAIN_CAP:
            raise ValueError("its size is wrong")
        body = zstandard.ZstdDecompressor().decompress(frame)
        if hashlib.sha256(body).digest() != sealed.sha256:
            raise ValueError("its checksum is wrong")
    except (OSError, ValueError, zstandard.ZstdError) as error:
        raise LostPage(
            f"Page {sealed.seq} of walk {sealed.walk} in {path} can't be read back: {error}.\n"
            f"Nothing was loaded from it. Put the file back from a backup, or read the stream again: pdsync sync --full"
        ) from error
    return body


def read_page(folder: Path, sealed: SealedPage) -> Page:
    """A sealed page, without its `cursor` and `records`: they are None.

    Raises:
        LostPage: the file is missing or damaged.
    """
    context = msgspec.json.decode(sealed.context or "{}", type=dict[str, str])
    body = read(folder, sealed)
    return Page(sealed.walk, sealed.seq, body, sealed.rows, sealed.next, sealed.served_at, context=context)


def _write(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
