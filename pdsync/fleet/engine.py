"""What an engine is: something that runs jobs side by side, and reports what becomes of them.

`local` runs them on this machine, `cluster` on the workers of a Dask scheduler. `dispatch` decides which job comes
next, so an engine gets no more of them than it can begin at once: nothing waits in a queue where it could be lost.
"""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING, Protocol, TypeVar

from msgspec import Struct

from pdsync.errors import Stopped

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pdsync.fleet.job import AccountJob, AccountResult, Progress


def take(messages: queue.SimpleQueue[T], timeout_s: float) -> Iterator[T]:
    """The messages that are there, one by one; waits up to `timeout_s` for the first. What is not taken stays."""
    try:
        first = messages.get(timeout=timeout_s)
    except queue.Empty:
        return
    yield first
    for _ in range(messages.qsize()):  # not those that arrive meanwhile: there may be no end of them
        yield messages.get_nowait()


class EngineLost(Stopped):
    """The cluster does not answer any more. What has ended is kept, and the same command resumes the run."""


class Progressed(Struct, frozen=True):
    """A command reports how far it has come."""

    name: str  # of the account
    progress: Progress


class Ended(Struct, frozen=True):
    """A job has ended."""

    job: AccountJob
    result: AccountResult


class Lost(Struct, frozen=True):
    """Nothing is known of a job any more: its worker is gone. Its account has to run again."""

    job: AccountJob
    reason: str


class Noted(Struct, frozen=True):
    """The engine has something to say."""

    text: str


T = TypeVar("T")

Message = Progressed | Ended | Lost | Noted


class Engine(Protocol):
    """Runs jobs side by side."""

    def slots(self) -> int:
        """How many jobs can be under way at once; a cluster may grow and shrink.

        Raises:
            EngineLost: as `wait`.
        """

    def start(self, job: AccountJob) -> None:
        """Begin a job. There is a free slot."""

    def wait(self, timeout_s: float) -> Iterable[Message]:
        """What has happened since the last call; waits up to `timeout_s` for the first message.

        Messages are taken one by one, so what is raised between two of them, here or by who handles them, loses none.

        Raises:
            EngineLost: no job can be started or will ever end; what is done is done.
        """

    def stop(self, *, kill: bool = False) -> None:
        """Ask the jobs that are under way to end, or end them at once. They still report their end.

        Raises:
            EngineLost: the jobs can't be reached.
        """

    def close(self) -> None:
        """Release what the engine has opened. No job may be under way: a local engine would wait for it to end."""
