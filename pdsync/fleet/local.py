"""Runs jobs on this machine: a thread for each slot, and in it a child process for each job."""

from __future__ import annotations

import os
import queue
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from pdsync.fleet import job as jobs
from pdsync.fleet.engine import Ended, Message, Progressed, take
from pdsync.fleet.process import stop_children

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pdsync.fleet.job import AccountJob

_BY_CORE = 2  # accounts a core: most of their time they wait for the server


class LocalEngine:
    """The engine of a fleet without a cluster."""

    dashboard = ""  # there is no page

    def __init__(self, run_id: str, processes: int = 0) -> None:
        """An engine with `processes` slots; 0: two for each core."""
        self._run_id = run_id
        self._slots = processes or _BY_CORE * (os.cpu_count() or 1)
        # Threads stay until `close`: the kernel ends a child with the thread that has started it.
        self._pool = ThreadPoolExecutor(self._slots, thread_name_prefix="account")
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()

    def slots(self) -> int:
        """How many jobs can be under way at once."""
        return self._slots

    def start(self, job: AccountJob) -> None:
        """Begin a job. There is a free slot."""
        self._pool.submit(self._run, job)

    def _run(self, job: AccountJob) -> None:
        try:
            result = jobs.run(job, lambda name, progress: self._messages.put(Progressed(name, progress)))
        except BaseException as error:
            result = jobs.failed(job, error)
        self._messages.put(Ended(job, result))

    def wait(self, timeout_s: float) -> Iterator[Message]:
        """What has happened since the last call, one by one; waits up to `timeout_s` for the first message."""
        return take(self._messages, timeout_s)

    def stop(self, *, kill: bool = False) -> None:
        """Ask the children to end, or end them at once. Their jobs still report their end."""
        stop_children(self._run_id, kill=kill)

    def close(self) -> None:
        """End the threads; waits for the jobs that are still under way."""
        self._pool.shutdown()
