"""Defines what a sync reads: which streams, how much of them, within which budget."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from pdsync.core import catalogue

if TYPE_CHECKING:
    from datetime import datetime

    from pdsync.model import Stream


class SyncRequest(Struct, frozen=True):
    """What a sync reads."""

    streams: tuple[str, ...] = ()  # none: all that are not optional
    full: bool = False
    since: datetime | None = None
    budget: int | None = None  # tokens
    params: dict[str, str] = {}  # values of the parameters that streams declare
    refetch: tuple[str, ...] = ()  # streams that are read whole
    are_named: bool = True  # False: `streams` are all but those that a pipeline leaves out

    @property
    def command(self) -> str:
        """The command line; an interrupted run is continued by the same one."""
        arguments = ["sync", *self.streams, *(["--full"] if self.full else [])]
        arguments += [f"--since={self.since.isoformat()}"] if self.since else []
        arguments += [f"--param={name}={value}" for name, value in sorted(self.params.items())]
        arguments += [f"--full={name}" for name in self.refetch]
        return " ".join(arguments)

    @property
    def takes_turns(self) -> bool:
        """Whether streams that take turns may wait for theirs: not if they are named, or everything is to be read."""
        return not (self.streams and self.are_named) and not (self.full or self.since)

    def reads_whole(self, stream: str) -> bool:
        """Whether a stream is read whole, whatever was read before."""
        return self.full or stream in self.refetch

    def selected(self) -> list[Stream]:
        """The streams to sync and those whose definitions they need, in the order of the catalogue.

        Without names: all that are not optional.

        Raises:
            CatalogueError: there is no such stream. Nothing was called.
        """
        named = {name: catalogue.stream(name) for name in self.streams} or {
            name: stream for name, stream in catalogue.streams().items() if not stream.optional
        }
        needed = {stream.fields for stream in named.values() if stream.fields}
        return [stream for name, stream in catalogue.streams().items() if name in named or name in needed]
