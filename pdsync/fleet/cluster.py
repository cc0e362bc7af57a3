"""Runs jobs on the workers of a Dask scheduler. Dask finds a worker for each job; what is right is decided by pdsync.

No more jobs are sent than there are threads of workers, so none waits on a worker, and a worker that is lost costs the
accounts that it runs, no others. A result is taken and its future released as soon as it is there: Dask computes again
what a lost worker still has to give. An account is never run by two at once: whatever Dask does, its project's lock, or
its lease in a store, keeps the second one out, which then tries again.

A watchdog asks the scheduler about jobs that are silent for long, since a lost message must not be waited for forever.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from pdsync.core.log import log
from pdsync.errors import ConfigError
from pdsync.fleet import job as jobs
from pdsync.fleet.engine import Ended, EngineLost, Lost, Message, Noted, Progressed, take
from pdsync.fleet.process import stop_children
from pdsync.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from distributed import Security

    from pdsync.fleet.job import AccountJob, AccountResult, Progress

_CONNECT_S = 20.0
_ANSWER_S = 30.0  # within which a scheduler answers
_QUIET_S = 60.0  # without any message, after which the scheduler is asked
_NO_WORKER_S = 600.0
_SLOTS_S = 1.0  # for which a count of threads is good
_RESULT_S = 10.0  # for the way of a result

# Made when this module is imported: msgspec crashes when threads are the first to decode a type side by side.
_DECODER = msgspec.json.Decoder(jobs.Progress)


class ClusterEngine:
    """The engine of a fleet on a Dask cluster."""

    def __init__(
        self,
        address: str,
        run_id: str,
        most: int = 0,
        clock: Callable[[], float] = time.monotonic,
        *,
        security: Security | None = None,
    ) -> None:
        """Connect to a scheduler.

        Args:
            address: of the scheduler: tcp://host:8786, or tls://host:8786 with Dask's own settings for certificates.
            run_id: of the fleet run.
            most: jobs at once; 0: one for each thread of the workers.
            clock: seconds from any beginning.
            security: certificates for the scheduler; None: those of Dask's own settings.

        Raises:
            ConfigError: Dask is not installed, or no scheduler answers.
        """
        self._run_id, self._most, self._clock = run_id, most, clock
        self._messages: queue.SimpleQueue[Message | str] = queue.SimpleQueue()  # a text: the key of a job that is done
        self._futures: dict[str, tuple[AccountJob, Any]] = {}  # by key: a job and its future
        self._missing: set[str] = set()  # keys that the scheduler did not know when it was last asked
        self._threads, self._counted_at, self._had_worker_at = 0, float("-inf"), clock()
        self._heard_at = clock()
        self._has_noted = False
        self._client = _connect(address, security)
        self._client.subscribe_topic(_topic(run_id), self._on_progress)

    @property
    def dashboard(self) -> str:
        """The address of Dask's own page; empty if there is none."""
        return str(self._client.dashboard_link or "")

    def check(self, folder: Path | None) -> None:
        """Check that every worker of this moment runs this version of pdsync, and sees the accounts' folder.

        Args:
            folder: on a disk that client and workers share; it is created. None: a store has what accounts store.

        Raises:
            ConfigError: one does not; says which, and what to do. Nothing was started.
        """
        mark = folder / f".fleet-{self._run_id}" if folder else None
        if mark:
            mark.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            mark.touch()
        try:
            answers = self._client.run(_examine, str(mark or ""), on_error="return")
        finally:
            if mark:
                mark.unlink(missing_ok=True)
        for worker, answer in answers.items():
            if isinstance(answer, BaseException):
                raise ConfigError(
                    f"The worker {worker} can't run pdsync: {answer}.\n"
                    f'Install the same version there: pip install "pdsync[fleet]=={__version__}"'
                )
            version, sees = answer
            if version != __version__:
                raise ConfigError(
                    f"The worker {worker} has pdsync {version}, and this is {__version__}.\n"
                    f'Install the same version there: pip install "pdsync[fleet]=={__version__}"'
                )
            if not sees:
                raise ConfigError(
                    f"The worker {worker} does not see {folder}, where the accounts have their folders.\n"
                    f"Let all workers share that disk, or set a `store` in [fleet] (docs/fleet.md)."
                )

    def slots(self) -> int:
        """How many jobs can be under way at once: the threads of all workers, or `most` if that is less.

        Raises:
            EngineLost: the scheduler is gone, or has had no worker for long.
        """
        now = self._clock()
        if now - self._counted_at > _SLOTS_S:
            self._threads = sum(self._ask("ncores").values())
            self._counted_at = now
        if self._threads:
            self._had_worker_at, self._has_noted = now, False
        elif now - self._had_worker_at > _NO_WORKER_S:
            raise EngineLost(
                f"The scheduler has had no worker for {_NO_WORKER_S / 60:.0f} minutes. What has ended is kept.\n"
                f"Start some (dask worker {self._client.scheduler.address}), then run the same command again."
            )
        elif not self._has_noted:
            self._has_noted = True
            self._messages.put(Noted("The scheduler has no worker. Accounts run as soon as it has one."))
        return min(self._threads, self._most or self._threads)

    def start(self, job: AccountJob) -> None:
        """Begin a job. There is a free slot."""
        self._heard_at = self._clock()
        # Each attempt is a task of its own: Dask must never take the result of another one for it.
        future = self._client.submit(run_on_worker, job, key=job.key, pure=False, retries=0)
        self._futures[job.key] = job, future
        future.add_done_callback(lambda done: self._messages.put(str(done.key)))

    def wait(self, timeout_s: float) -> Iterator[Message]:
        """What has happened since the last call, one by one; waits up to `timeout_s` for the first message.

        Raises:
            EngineLost: the scheduler is gone, or has had no worker for long. What had ended before was given.
        """
        has_heard = False
        for message in take(self._messages, timeout_s):
            if settled := self._settle(message) if isinstance(message, str) else message:
                has_heard = True
                yield settled
        if has_heard:
            self._heard_at = self._clock()
        elif self._clock() - self._heard_at > _QUIET_S:
            yield from self._ask_about_jobs()
            self._heard_at = self._clock()

    def _settle(self, key: str) -> Message | None:
        """The end of the job whose future is done; None if it is known already, or Dask runs it once more."""
        if key not in self._futures:
            return None
        job, future = self._futures[key]
        if future.status == "cancelled":
            if self._client.status != "running":
                raise self._lost()
            return Lost(self._release(key), "the scheduler has cancelled it")
        if future.status not in ("finished", "error"):
            future.add_done_callback(lambda done: self._messages.put(str(done.key)))
            return None
        from distributed import KilledWorker  # noqa: PLC0415 - in the extra `fleet`

        try:
            result: AccountResult = future.result(timeout=_RESULT_S)
        except KilledWorker:
            return self._give_up(key, "several workers ended while they ran it")
        except TimeoutError:  # the worker that has the result is gone
            return self._give_up(key, "its result is lost")
        except Exception as error:
            if self._client.status != "running":
                raise self._lost() from error
            return Ended(self._release(key), jobs.failed(job, error))
        return Ended(self._release(key), result)

    def _release(self, key: str) -> AccountJob:
        self._missing.discard(key)
        job, future = self._futures.pop(key)
        future.release()
        return job

    def _give_up(self, key: str, reason: str) -> Lost:
        with contextlib.suppress(Exception):
            self._client.cancel([self._futures[key][1]], force=True)
        return Lost(self._release(key), reason)

    def _ask_about_jobs(self) -> Iterator[Message]:
        """Ask the scheduler where the jobs are. One that it does not know twice in a row is lost."""
        processing = {key for keys in self._ask("processing").values() for key in keys}
        in_memory = self._ask("who_has")
        for key, (_, future) in list(self._futures.items()):
            if future.done() or in_memory.get(key):
                if settled := self._settle(key):
                    yield settled
            elif key not in processing and self.slots():
                if key in self._missing:
                    yield self._give_up(key, "the scheduler does not know it")
                self._missing.add(key)
            else:
                self._missing.discard(key)

    def _ask(self, request: str) -> Any:
        """What the scheduler answers to a request."""
        try:
            return self._client.sync(getattr(self._client.scheduler, request), callback_timeout=_ANSWER_S)
        except Exception as error:
            raise self._lost() from error

    def _lost(self) -> EngineLost:
        return EngineLost(
            "The Dask scheduler does not answer any more. What has ended is kept; what was under way loses nothing.\n"
            "When the cluster is there again, run the same command: it goes on."
        )

    def _on_progress(self, event: tuple[float, dict[str, Any]]) -> None:
        name, progress = event[1]["name"], _DECODER.decode(event[1]["progress"])
        self._messages.put(Progressed(name, progress))

    def stop(self, *, kill: bool = False) -> None:
        """Ask the children on all workers to end, or end them at once. Their jobs still report their end.

        Raises:
            EngineLost: the scheduler is gone.
        """
        try:
            self._client.run(stop_children, self._run_id, kill=kill, on_error="ignore")
        except Exception as error:
            raise self._lost() from error

    def close(self) -> None:
        """Disconnect. The scheduler forgets what this client has sent."""
        with contextlib.suppress(Exception):
            self._client.close(timeout=5)


def _connect(address: str, security: Security | None) -> Any:
    try:
        from distributed import Client  # noqa: PLC0415 - in the extra `fleet`
    except ImportError as error:
        raise ConfigError(
            f"--scheduler needs Dask, which is not installed: {error}.\n"
            f'Install it: pip install "pdsync[fleet]". Without --scheduler accounts run on this machine.'
        ) from error
    if log.getEffectiveLevel() > logging.INFO:
        logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what it means is in our own messages
    try:
        return Client(address, timeout=_CONNECT_S, set_as_default=False, name="pdsync-fleet", security=security)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"No Dask scheduler answers at {address}: {error}. Nothing was called.\n"
            f"Start one (dask scheduler), or correct the address: tcp://host:8786"
        ) from error


def _topic(run_id: str) -> str:
    return f"pdsync-{run_id}"


# What follows runs on the workers.


def run_on_worker(job: AccountJob) -> AccountResult:
    """Run a job in a thread of a worker; its progress goes to the client over the scheduler."""
    from distributed import get_worker  # noqa: PLC0415 - in the extra `fleet`

    worker = get_worker()

    def on_progress(name: str, progress: Progress) -> None:
        facts = {"name": name, "progress": msgspec.json.encode(progress)}
        worker.loop.add_callback(worker.log_event, _topic(job.run_id), facts)

    result = jobs.run(job, on_progress)
    return msgspec.structs.replace(result, worker=f"{result.worker} {worker.address}")


def _examine(mark: str) -> tuple[str, bool]:
    """The version of pdsync, and whether a file is seen."""
    return __version__, not mark or Path(mark).exists()
