"""Writes the answers of `pdsync api`: as JSON, text or bytes; to stdout, or atomically to a file."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from typing import IO, TYPE_CHECKING, Protocol

import msgspec

from pdsync.core.atomic_file import AtomicFile
from pdsync.core.log import clean, clean_json
from pdsync.errors import ConfigError
from pdsync.extract.attachments import MOST_BYTES

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

    from msgspec import Raw

    from pdsync.cli.app import App
    from pdsync.core.answer import Answer
    from pdsync.core.request import Request
    from pdsync.core.sinks import ByteSink


class Downloader(Protocol):
    """What a download needs of the client."""

    async def download(self, request: Request, sink: ByteSink, *, most_bytes: int) -> Answer:
        """Send `request`, whose answer is a file."""


class Output:
    """Where one answer is written, and in which form.

    Args:
        out: the file; None for stdout.
        kind: json, text or binary; None: formatted if it is JSON, unchanged otherwise.

    Raises:
        ConfigError: the file can't be created: its folder does not exist or is read-only, or its name is too long.
    """

    def __init__(self, app: App, out: Path | None, kind: str | None) -> None:
        self._app, self._out, self.kind = app, out, kind
        if out and not (out.absolute().parent.is_dir() and os.access(out.absolute().parent, os.W_OK)):
            raise ConfigError(f"{out} can't be written: its folder does not exist or is read-only. Nothing was called.")
        if out:
            AtomicFile(out).check()

    def refuse_terminal(self) -> None:
        """Check, before anything is sent, that the bytes of an answer do not go to a terminal.

        Raises:
            ConfigError: there is no file, and stdout is a terminal.
        """
        if self._out is None and sys.stdout.isatty():
            raise ConfigError("The answer is a file: add --out FILE, or redirect it with > or |. Nothing was called.")

    def answer(self, answer: Answer) -> None:
        """Write an answer that is in memory; an empty one is not written, nor is its file.

        Raises:
            BadAnswer: `kind` is json, and the answer is not JSON.
            ConfigError, StorageError: the file can't be written.
        """
        body = answer.body
        if self.kind == "json" and body:
            answer.json()
        if self.kind in (None, "json"):
            body = self._formatted(body)
        if not body:
            return
        if self._out:
            with AtomicFile(self._out) as file:
                file.write(body)
        elif self.kind == "binary":
            sys.stdout.buffer.write(body)
        else:
            self._show(body + (b"" if body.endswith(b"\n") else b"\n"))

    async def file(self, client: Downloader, request: Request) -> None:
        """Download a file and write it; nothing is written of an incomplete one."""

        async def fetch(sink: ByteSink) -> None:
            await client.download(request, sink, most_bytes=MOST_BYTES)

        if self._out:
            with AtomicFile(self._out) as file:
                await fetch(file)
            return
        # Through a temporary file: bytes on stdout can't be taken back when an attempt fails half-way.
        with tempfile.TemporaryFile() as spool:
            await fetch(_FileSink(spool))
            spool.seek(0)
            shutil.copyfileobj(spool, sys.stdout.buffer)
            sys.stdout.buffer.flush()

    async def records(self, records: AsyncGenerator[Raw]) -> None:
        """Write the records of a list as they arrive: one JSON array, or one object per line with --json.

        After an error the array stays open, so that no parser takes it for the complete list.
        """
        if self._out:
            with AtomicFile(self._out) as file:
                await self._records(records, file.write)
        else:
            await self._records(records, self._show)

    async def _records(self, records: AsyncGenerator[Raw], write: Callable[[bytes], None]) -> None:
        lines = self._app.json
        count = 0
        async for record in records:
            text = self._formatted(bytes(record))
            indented = text.replace(b"\n", b" ") if lines else b"  " + text.replace(b"\n", b"\n  ")
            write((b"" if lines else b",\n" if count else b"[\n") + indented + (b"\n" if lines else b""))
            count += 1
        if not lines:
            write(b"\n]\n" if count else b"[]\n")

    def _formatted(self, body: bytes) -> bytes:
        try:
            return msgspec.json.format(body, indent=0 if self._app.json else 2)
        except msgspec.DecodeError:
            return body

    def _show(self, body: bytes) -> None:
        if sys.stdout.isatty():  # no control sequence reaches the terminal
            text = body.decode(errors="replace")
            body = (clean_json(text) if body[:1] in b'[{,"' else clean(text)).encode(errors="replace")
        sys.stdout.buffer.write(body)


class _FileSink:
    """A `ByteSink` on an open file; a new attempt overwrites the last one."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def begin(self) -> None:
        self._file.seek(0)
        self._file.truncate()

    def write(self, data: bytes) -> None:
        self._file.write(data)
