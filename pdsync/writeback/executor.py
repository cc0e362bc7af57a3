"""Carries out a plan: which mutation goes when, and when to stop.

Mutations of unrelated records are sent concurrently, as many as the rate limit allows. Those of one record are sent in
queue order, and a failed one holds back those after it. The first few are sent alone (the canary); too many failures or
reviews stop the rest.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from msgspec import Struct

from pdsync.core.log import log
from pdsync.errors import AuthError, ConfigError, GuardTripped, PdsyncError, Stopped
from pdsync.writeback import fresh_reads
from pdsync.writeback.dependencies import find_predecessors
from pdsync.writeback.estimate import CANARY
from pdsync.writeback.prepared import HeldBack
from pdsync.writeback.retries import follow_retries
from pdsync.writeback.sender import Sender
from pdsync.writeback.verification import MACHINE_ERRORS, Ending, give_up, settle

if TYPE_CHECKING:
    from collections.abc import Callable

    from pdsync.core.http import Http
    from pdsync.model import Mutation, State
    from pdsync.writeback.outbox import Outbox
    from pdsync.writeback.plan import Plan, Step
    from pdsync.writeback.prepared import PreparedMutation

_GRACE_S = 10.0  # for requests in flight when the push is interrupted
_FATES: dict[str, State] = {"already_so": "applied", "rejected": "rejected", "conflict": "conflict"}


class Limits(Struct, frozen=True):
    """When a push stops early."""

    canary: int = CANARY  # mutations that are sent and verified before the rest; 1 where there are merges
    in_a_row: int = 5  # failures
    of_last: int = 100  # mutations in which `share` is counted
    share: float = 0.05  # of the last ones that may fail
    reviews: int = 3  # mutations that need a review


class PushExecutor:
    """One push of one plan, whose mutations are approved for it.

    Args:
        http: the session.
        outbox: the queue.
        plan: what to carry out.
        push_id: of this push.
        me: the id of the user whose token it is.
        settle_s: how long a lost write may take to show, in seconds.
        limits: when to stop.
        create_doubt: `review` where an addition with an unknown outcome is never sent again.
        check_lost_updates: read the changelog of each updated record for edits that the update overwrote.
        on_end: is called with each mutation that has ended, and with each one whose outcome stays unknown.
    """

    def __init__(
        self,
        http: Http,
        outbox: Outbox,
        plan: Plan,
        push_id: str,
        *,
        me: int,
        settle_s: float = 5.0,
        limits: Limits | None = None,
        create_doubt: str = "probe",
        check_lost_updates: bool = False,
        on_end: Callable[[Mutation], None] = lambda mutation: None,
    ) -> None:
        self.outbox, self.plan, self.push_id, self._on_end = outbox, plan, push_id, on_end
        self.limits = limits or Limits()
        self.sender = Sender(
            http, outbox, push_id, me=me, policy=plan.policy, settle_s=settle_s, create_doubt=create_doubt,
            check_lost_updates=check_lost_updates, on_stop=self._stop,
        )  # fmt: skip
        self._http = http
        # What an unsent mutation decides is decided again after that one.
        self._steps = {step.mutation: step for step in plan.steps if step.fate == "send" or step.after is not None}
        self._waits_for: dict[str, set[str]] = {}
        self._ready: deque[str] = deque()
        self._followers: dict[str, list[str]] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._last: deque[bool] = deque(maxlen=self.limits.of_last)
        self._reviews = 0
        self.blocked: dict[str, str] = {}
        self.stopped: PdsyncError | None = None

    async def run(self) -> None:
        """Carry out the plan. Afterwards `blocked` has what was not sent, and `stopped` why the push stopped early.

        After an early stop `blocked` has every mutation that was to be sent, also those that were.

        Raises:
            asyncio.CancelledError: after the requests in flight have settled, or ten seconds.
            OSError, StorageError, sqlite3.OperationalError: nothing can be stored any more.
        """
        try:
            self._settle_planned()
            self._order_steps()
            canary = 1 if any(step.verb == "merge" for step in self._steps.values()) else self.limits.canary
            await self._send_ready(canary)
            if self._last and not any(self._last) and self._ready:
                self._stop(GuardTripped("canary", f"None of the first {len(self._last)} was applied."))
            await self._send_ready(None)
        except asyncio.CancelledError:
            await self._wind_down()
            raise
        finally:
            if self.stopped:
                for id in self._steps:
                    self.blocked.setdefault(id, "the push was stopped before it")
            self.outbox.release(self.blocked)

    def _settle_planned(self) -> None:
        """Store the ends that the plan has decided without sending."""
        for step in self.plan.steps:
            if step.mutation not in self._steps:
                state = _FATES[step.fate]
                self.outbox.settle(step.mutation, state, step.reason, step.detail, push_id=self.push_id)
                self._on_end(self.outbox.get(step.mutation))

    # The order.

    def _order_steps(self) -> None:
        mutations = [self.outbox.get(step.mutation) for step in self.plan.steps]
        settled = [step for step in self.plan.steps if step.mutation not in self._steps]
        failed = {step.mutation for step in settled if step.fate in ("rejected", "conflict")}
        for id, before in find_predecessors(follow_retries(self.outbox, mutations)).items():
            if id not in self._steps:
                continue
            if before & failed:
                first = min(self.outbox.get(other).seq for other in before & failed)
                self._hold_back(id, f"#{first} before it was not applied")
            self._waits_for[id] = before & self._steps.keys()
            for other in self._waits_for[id]:
                self._followers.setdefault(other, []).append(id)
        for id in list(self.blocked):
            for follower in self._followers.get(id, ()):
                self._hold_back(follower, f"#{self._steps[id].seq} before it was not applied")
        self._ready.extend(id for id, before in self._waits_for.items() if not before and id not in self.blocked)

    async def _send_ready(self, limit: int | None) -> None:
        """Send the mutations that are ready, and those that become ready: at most `limit`, or all."""
        started = 0
        burst = self._http.budget.burst
        # A read must be fresh when its write is sent: at most three seconds' worth of requests are read ahead.
        room = max(int(burst * 1.5), 4) if burst else 200
        while True:
            free = min(room - len(self._running), len(self._ready), room if limit is None else limit - started)
            if self.stopped:
                free = 0
            if free > 0 and (free >= room // 2 or free == len(self._ready) or not self._running):
                batch = [self._ready.popleft() for _ in range(free)]
                started += len(batch)
                await self._start(batch)
            elif self._running:
                done, self._running = await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            else:
                return

    async def _start(self, ids: list[str]) -> None:
        """Read the records of `ids` together, and start each mutation."""
        prepared: list[tuple[Step, PreparedMutation]] = []
        for step in (self._steps[id] for id in ids):
            try:
                prepared.append((step, self.sender.prepare(step)))
            except HeldBack as error:
                self._hold_back(step.mutation, str(error))
            except ConfigError as error:
                ending = Ending("rejected", "not_valid", str(error))
                self._on_ended(step, settle(self.outbox, self.push_id, self.outbox.get(step.mutation), ending))
            except MACHINE_ERRORS:
                raise
            except Exception as error:  # one mutation must not end the push of the others
                self._on_ended(step, give_up(self.outbox, self.push_id, step.mutation, error))
        try:
            reads = await fresh_reads.read(self._http, [each for _, one in prepared for each in one.addresses])
        except PdsyncError as error:
            self._stop(error)
            return
        for step, one in prepared:
            if step.mutation not in self.blocked:
                self._running.add(asyncio.create_task(self._carry_out(step, one, reads)))

    async def _carry_out(
        self, step: Step, prepared: PreparedMutation, reads: dict[str, fresh_reads.FreshRecord]
    ) -> None:
        try:
            state = await self.sender.carry_out(step, prepared, reads)
        except HeldBack as error:
            self._hold_back(step.mutation, str(error))
            return
        except (Stopped, AuthError) as error:
            self._stop(error)
            return
        except PdsyncError as error:  # a read before it failed: it was not sent
            self._hold_back(step.mutation, str(error).split("\n", 1)[0])
            self._stop(error)
            return
        except MACHINE_ERRORS:
            raise
        except Exception as error:  # one mutation must not end the push of the others
            state = give_up(self.outbox, self.push_id, step.mutation, error)
        self._on_ended(step, state)

    def _on_ended(self, step: Step, state: State) -> None:
        self._on_end(self.outbox.get(step.mutation))
        self._check_limits(state)
        why = f"#{step.seq} before it {'has an unknown outcome' if state == 'unknown' else 'was not applied'}"
        for follower in self._followers.get(step.mutation, ()):
            if state != "applied":
                self._hold_back(follower, why)
                continue
            self._waits_for[follower].discard(step.mutation)
            if not self._waits_for[follower] and follower not in self.blocked:
                self._ready.append(follower)

    def _hold_back(self, id: str, why: str) -> None:
        if id in self.blocked:
            return
        self.blocked[id] = why
        for follower in self._followers.get(id, ()):
            self._hold_back(follower, f"#{self._steps[id].seq} before it was not applied")

    # When to stop.

    def _check_limits(self, state: State) -> None:
        self._last.append(state == "applied")
        self._reviews += state == "needs_review"
        recent = list(self._last)
        if len(recent) >= self.limits.in_a_row and not any(recent[-self.limits.in_a_row :]):
            self._stop(GuardTripped("breaker", f"{self.limits.in_a_row} in a row were not applied."))
        failed = recent.count(False)
        if len(recent) == self.limits.of_last and failed > self.limits.share * self.limits.of_last:
            self._stop(GuardTripped("breaker", f"{failed} of the last {self.limits.of_last} were not applied."))
        if self._reviews >= self.limits.reviews:
            self._stop(GuardTripped("needs_review", f"{self._reviews} of them need a review."))

    def _stop(self, error: PdsyncError) -> None:
        if self.stopped is None:
            log.info("the push stops: %s", error)
            self.stopped = error
            self.sender.closed = True

    async def _wind_down(self) -> None:
        """Let the requests in flight settle; the outcome of those that take too long is unknown."""
        self.sender.closed = True
        self.stopped = self.stopped or Stopped("Interrupted.")
        if not self._running:
            return
        _, late = await asyncio.wait(self._running, timeout=_GRACE_S)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
