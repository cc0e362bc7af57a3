"""Where the body of a download goes, and how it is refused when it is too large."""

from __future__ import annotations

from typing import Protocol

from pdsync.errors import BadAnswer


class ByteSink(Protocol):
    """Receives the body of an answer."""

    def begin(self) -> None:
        """Begin a body: drop the bytes of an earlier attempt."""

    def write(self, data: bytes) -> None:
        """Receive the next bytes."""


class MemorySink:
    """A `ByteSink` in memory."""

    def __init__(self) -> None:
        self.body = bytearray()

    def begin(self) -> None:
        self.body.clear()

    def write(self, data: bytes) -> None:
        self.body += data


class TooLarge(BadAnswer):
    """The body is longer than allowed. It was not kept."""
