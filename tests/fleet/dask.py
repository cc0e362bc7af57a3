"""A Dask cluster for tests: a scheduler and workers, each a process of its own, which tests kill as they like."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.support.world import ROOT, clean_environment

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_ADDRESS = re.compile(r"Scheduler at:\s+(tcp://\S+)")
_WORKER = ["--nworkers", "1", "--no-dashboard", "--memory-limit", "0", "--host", "127.0.0.1"]


class DaskCluster:
    """The processes of one cluster."""

    def __init__(self, folder: Path, variables: Mapping[str, str]) -> None:
        self._folder, self._variables = folder, {**clean_environment(), **variables}
        self.workers: list[subprocess.Popen[bytes]] = []
        self.scheduler: subprocess.Popen[bytes] | None = None
        self.address = ""

    def start_scheduler(self) -> None:
        """Start the scheduler, at the address that it had before."""
        port = self.address.rpartition(":")[2] or "0"
        log = self._folder / "scheduler.log"
        self.scheduler = self._start("dask_scheduler", ["--port", port, "--host", "127.0.0.1", "--no-dashboard"], log)
        while not (found := _ADDRESS.search(log.read_text())):
            assert self.scheduler.poll() is None, log.read_text()
        self.address = found[1]

    def start_worker(self, threads: int, *options: str) -> subprocess.Popen[bytes]:
        """Start a worker; it needs some seconds until it is there."""
        log = self._folder / f"worker{len(self.workers)}.log"
        arguments = [self.address, "--nthreads", str(threads), *_WORKER, *options]
        self.workers.append(self._start("dask_worker", arguments, log))
        return self.workers[-1]

    def _start(self, module: str, arguments: list[str], log: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.{module}", *arguments]
        with log.open("wb") as file:
            return subprocess.Popen(
                command, stdout=file, stderr=file, env=self._variables, cwd=ROOT, start_new_session=True
            )

    def close(self) -> None:
        """End all processes."""
        for process in [*self.workers, *([self.scheduler] if self.scheduler else [])]:
            kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process of the cluster at once, with its nanny."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextlib.contextmanager
def dask_cluster(
    folder: Path, workers: int, threads: int, *options: str, variables: Mapping[str, str] | None = None
) -> Iterator[DaskCluster]:
    """A cluster with `workers` workers of `threads` threads each; `options` are those of dask worker."""
    folder.mkdir(parents=True, exist_ok=True)
    cluster = DaskCluster(folder, variables or {})
    try:
        cluster.start_scheduler()
        for _ in range(workers):
            cluster.start_worker(threads, *options)
        yield cluster
    finally:
        cluster.close()
