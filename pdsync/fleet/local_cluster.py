"""Starts a Dask cluster on this machine for one run of a fleet, and runs jobs on its workers.

The scheduler is in this process. Each worker is a process of its own with one thread, which Dask starts again when it
is lost. All of them end with this process, however that ends. They listen on the loopback interface only, and know
each other by a certificate that is made for the run: another user of the machine can't send them anything.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING

from pdsync.core.log import clean_error, log
from pdsync.core.wording import counted
from pdsync.errors import ConfigError
from pdsync.fleet.cluster import ClusterEngine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distributed import LocalCluster

_CLOSE_S = 30.0
_LOOPBACK = "127.0.0.1"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class LocalClusterEngine(ClusterEngine):
    """The engine of a fleet on Dask workers of its own."""

    def __init__(self, workers: int, run_id: str, most: int = 0) -> None:
        """Start the cluster, and wait until all its workers are there.

        Args:
            workers: processes, each of which runs one job at a time.
            run_id: of the fleet run.
            most: jobs at once; 0: one for each worker.

        Raises:
            ConfigError: Dask is not installed, or the workers can't be started. None is left.
        """
        with contextlib.ExitStack() as stack:
            cluster = stack.enter_context(_cluster(workers))
            super().__init__(cluster.scheduler_address, run_id, most, security=cluster.security)
            self._stack = stack.pop_all()

    @property
    def dashboard(self) -> str:
        """The address of Dask's own page; empty without bokeh, which draws it."""
        return super().dashboard if "distributed.dashboard.scheduler" in sys.modules else ""

    def close(self) -> None:
        """Disconnect, and end the workers."""
        with self._stack:
            super().close()


@contextlib.contextmanager
def _cluster(workers: int) -> Iterator[LocalCluster]:
    """A cluster whose workers have all started; afterwards all its processes have ended."""
    try:
        from dask import config  # noqa: PLC0415 - in the extra `fleet`
        from distributed import LocalCluster, Security  # noqa: PLC0415

        security = Security.temporary()
    except ImportError as error:
        raise ConfigError(
            f"--workers needs Dask, which is not installed: {error}. Nothing was called.\n"
            f'Install it: pip install "pdsync[fleet]". Without --workers accounts run on this machine too.'
        ) from error
    level = logging.WARNING if log.getEffectiveLevel() <= logging.INFO else logging.CRITICAL

    def start(folder: str) -> LocalCluster:
        # Threads and processes inherit it: Ctrl-C is for the fleet, which then ends the commands on its workers.
        resource_tracker.ensure_running()  # it would unblock them, were it started with the first process
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        with config.set({"distributed.scheduler.worker-saturation": 1.0}):  # no job waits on a worker
            return LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                host=_LOOPBACK,
                dashboard_address=f"{_LOOPBACK}:0",
                security=security,
                silence_logs=level,
                memory_limit=None,  # Dask counts a worker's memory, and not that of the commands which it runs
                local_directory=folder,
                preload=[__name__],
            )

    with (
        tempfile.TemporaryDirectory(prefix="pdsync-dask-", ignore_cleanup_errors=True) as folder,
        ThreadPoolExecutor(1) as thread,
    ):
        starting = thread.submit(start, folder)
        try:
            cluster = starting.result()
        except KeyboardInterrupt:
            with contextlib.suppress(Exception):  # what has failed has ended
                _close(starting.result())
            raise
        except Exception as error:
            reason = clean_error(str(error.__cause__ or error)).rstrip(".")
            raise ConfigError(
                f"{counted(workers, 'Dask worker')} can't be started on this machine: {reason}.\n"
                f"Nothing was called. Try fewer, or none: accounts need no Dask on one machine."
            ) from error
        try:
            yield cluster
        finally:
            _close(cluster)


def _close(cluster: LocalCluster) -> None:
    with contextlib.suppress(Exception):  # a worker that does not end in time ends with this process
        cluster.close(timeout=_CLOSE_S)


# What follows runs on the workers.


def dask_setup(worker: object) -> None:
    """Let a worker outlive the signals of a terminal or a supervisor; the commands that it starts still end by them.

    Dask calls it in each worker before that runs anything. A handler is not inherited by a command, as blocked signals
    would be.
    """
    for number in _SIGNALS:
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
