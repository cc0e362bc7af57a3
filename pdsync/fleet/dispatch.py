"""Decides which account runs next, which is tried again and when, and when a fleet run is over.

A failure of one account stops no other: it is tried again after the others had their turn, and then reported. What a
later try can't change is not tried again: a setting, a refused token, a spent budget, a gap that has a reason.
"""

from __future__ import annotations

import heapq
import time
from collections import Counter, deque
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from pdsync.core.log import log
from pdsync.core.wording import counted
from pdsync.errors import Stopped
from pdsync.fleet.engine import Ended, Lost, Noted, Progressed
from pdsync.fleet.job import AccountResult, failed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pdsync.fleet.engine import Engine, Message
    from pdsync.fleet.job import AccountJob

_TICK_S = 1.0
_STOP_S = 90.0  # after which children that were asked to end are killed
_MOST_LOST = 20  # workers that an account may outlive


class RetryPolicy(Struct, frozen=True):
    """How often and when a failed account is tried again."""

    tries: int = 3  # in all
    first_s: float = 30.0  # before the second try; doubles with each further one
    locked_tries: int = 8  # of an account that another run has locked: its worker is lost, and its command still ends

    def delay(self, result: AccountResult, tries: int) -> float | None:
        """The seconds until an account is tried again that ended for the `tries`-th time; None: it is not.

        Tries that found it locked are counted by themselves.
        """
        if _is_locked(result):
            return self.first_s / 2.0 if tries < self.locked_tries else None
        has_failed = result.outcome == "failed" or result.error == "LeaseLost"
        if not has_failed or result.error == "Timeout" or tries >= self.tries:
            return None
        return self.first_s * 2.0 ** (tries - 1)


def _is_locked(result: AccountResult) -> bool:
    """Whether another run has the account."""
    return result.error in ("ProjectLocked", "LeaseTaken")


class Observer(Struct, frozen=True):
    """What is called while a fleet runs, always from the same thread."""

    on_start: Callable[[AccountJob], None] = lambda job: None
    on_progress: Callable[[Progressed], None] = lambda message: None
    on_retry: Callable[[AccountResult, float], None] = lambda result, delay_s: None
    on_result: Callable[[AccountResult], None] = lambda result: None
    on_note: Callable[[str], None] = lambda text: None


class Dispatcher:
    """One run of a fleet."""

    def __init__(
        self,
        engine: Engine,
        observer: Observer,
        policy: RetryPolicy = RetryPolicy(),  # noqa: B008 - it is frozen
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine, self._observer, self._policy, self._clock = engine, observer, policy, clock
        self._waiting: deque[AccountJob] = deque()
        self._delayed: list[tuple[float, int, AccountJob]] = []
        self._running: dict[str, AccountJob] = {}
        self._tries: Counter[tuple[str, str]] = Counter()  # by account and kind: "locked", "lost", "failed"
        self._number = 0
        self.results: dict[str, AccountResult] = {}

    def run(self, jobs: Sequence[AccountJob]) -> dict[str, AccountResult]:
        """Run `jobs` in their order; one that is tried again waits for its delay, then joins the end of the queue.

        `RetryPolicy` decides whether a failed job is tried again. One whose worker was lost runs again at once; at the
        20th loss it has failed.

        Args:
            jobs: at most one of each account.

        Returns:
            The last result of each account, by its name.

        Raises:
            EngineLost: the cluster is gone. `self.results` has the accounts that were finished before.
            BaseException: an interrupt, or any other error. The jobs under way were asked to end; what still ran after
                90 s, or at a second interrupt, was killed. `self.results` has the finished accounts, also those that
                ended then, but none that waited for its first or next try. Where the cluster is lost meanwhile, some
                jobs may go on.
        """
        self._waiting.extend(jobs)
        try:
            while self._waiting or self._delayed or self._running:
                self._start_jobs()
                self._receive(self._pause())
        except Stopped:  # nothing can be reached that could be stopped
            raise
        except BaseException:
            self._stop()
            raise
        return self.results

    def _start_jobs(self) -> None:
        while self._delayed and self._delayed[0][0] <= self._clock():
            self._waiting.append(heapq.heappop(self._delayed)[2])
        free = self._engine.slots() - len(self._running) if self._waiting else 0
        while self._waiting and free > 0:
            job = self._waiting.popleft()
            self._running[job.account.name] = job
            self._engine.start(job)
            self._observer.on_start(job)
            free -= 1

    def _pause(self) -> float:
        until_next = self._delayed[0][0] - self._clock() if self._delayed else _TICK_S
        return min(max(until_next, 0.01), _TICK_S)

    def _receive(self, timeout_s: float) -> None:
        for message in self._engine.wait(timeout_s):
            self._handle(message)

    def _handle(self, message: Message) -> None:
        if isinstance(message, Progressed):
            self._observer.on_progress(message)
            return
        if isinstance(message, Noted):
            self._observer.on_note(message.text)
            return
        if self._running.get(message.job.account.name) != message.job:
            return  # of an attempt that was given up
        del self._running[message.job.account.name]
        if isinstance(message, Lost):
            self._run_again(message)
        else:
            self._settle(message)

    def _settle(self, ended: Ended) -> None:
        kind = "locked" if _is_locked(ended.result) else "failed"
        self._tries[ended.result.name, kind] += 1
        delay_s = self._policy.delay(ended.result, self._tries[ended.result.name, kind])
        if delay_s is None:
            self.results[ended.result.name] = ended.result
            self._observer.on_result(ended.result)
        else:
            self._observer.on_retry(ended.result, delay_s)
            self._delay(ended.job, delay_s)

    def _run_again(self, lost: Lost) -> None:
        """Run the account of a lost worker once more: the loss is not its failure."""
        name = lost.job.account.name
        self._tries[name, "lost"] += 1
        if (times := self._tries[name, "lost"]) >= _MOST_LOST:
            error = RuntimeError(f"{counted(times, 'worker')} were lost while it ran, the last one: {lost.reason}")
            self._tries[name, "failed"] = self._policy.tries
            self._settle(Ended(lost.job, failed(lost.job, error)))
            return
        self._observer.on_note(f"{name}: its worker is lost ({lost.reason}); it runs again.")
        self._delay(lost.job, 0.0)

    def _delay(self, job: AccountJob, delay_s: float) -> None:
        self._number += 1
        following = msgspec.structs.replace(job, attempt=job.attempt + 1)
        heapq.heappush(self._delayed, (self._clock() + delay_s, self._number, following))

    def _stop(self) -> None:
        """Let the jobs under way end, and take their results; those that don't are ended at once."""
        self._waiting.clear()
        self._delayed.clear()
        self._policy = RetryPolicy(tries=1, locked_tries=1)
        for kill in (False, True):
            try:
                self._engine.stop(kill=kill)
                until = self._clock() + _STOP_S
                while self._running and self._clock() < until:
                    self._receive_what_is_left()
            except KeyboardInterrupt:  # once more: at once
                log.debug("Interrupted again: the commands under way are killed.")
            except Stopped:
                return
            if not self._running:
                return

    def _receive_what_is_left(self) -> None:
        """Receive messages of jobs that were stopped, also where the observer fails, as it may have before."""
        try:
            self._receive(_TICK_S)
        except Stopped:
            raise
        except Exception as error:
            log.debug("While the commands under way end: %s", error)
        self._delayed.clear()
