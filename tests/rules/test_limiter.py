"""Whatever processes, networks, clocks and headers do: no window of the server is overfull, no token is spent twice."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import shutil
import tempfile
import types
from collections import Counter, deque
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from pdsync.core import budget, token_ledger
from pdsync.core.budget import SEARCH_BURST, WINDOW_S, Budget
from pdsync.core.control import Control
from pdsync.errors import BudgetSpent, CoolingDown
from tests.rules import running

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

BURST = 11  # one more than the searches' own limit
DAY = 400  # tokens
RUN = 60
EPOCH = 1_790_000_000.0
MOMENT = st.sampled_from((0.0, 0.004, 0.1, 0.7, 1.95, 2.05, 3.0))
ANSWER = st.one_of(MOMENT, st.just(30.0))


@types.coroutine
def sleep(seconds: float) -> Generator[float, None, None]:
    """In place of `asyncio.sleep`: gives the seconds to the machine, which decides when to go on."""
    yield seconds


class Process(SimpleNamespace):
    """A process of the same token."""

    pid: int
    budget: Budget
    is_alive: bool
    waiting: list[tuple[Coroutine[Any, Any, Callable[[], None]], Any, int, bool, float, float]]


class Limiter(running.Machine):
    """Processes that send; a network that takes its time; a server that counts arrivals by its own clock."""

    template: Path | None = None

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0  # of the server
        self.booted, self.wall = 0.0, EPOCH  # this machine's clocks: the monotonic one, and the date's error
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "control.db"
        shutil.copyfile(self.empty(), self.path)
        self.current = 0  # the process that runs
        self.pids = itertools.count(100)
        self.alive: set[int] = set()
        self.saved = {name: vars(budget)[name] for name in ("time", "os", "asyncio")}, token_ledger.today
        vars(budget).update(
            time=SimpleNamespace(monotonic=lambda: self.now - self.booted, time=lambda: self.wall + self.now),
            os=SimpleNamespace(getpid=lambda: self.current, kill=self.kill_0),
            asyncio=SimpleNamespace(sleep=sleep, Lock=asyncio.Lock),
        )
        vars(token_ledger).update(today=lambda: f"day {math.floor(self.now / 86_400)}")
        self.order = itertools.count()
        self.events: list[tuple[float, int, str, Any]] = []  # (when, …, arrival or answer, of which request)
        self.arrivals: dict[bool, deque[float]] = {False: deque(), True: deque()}  # all, and searches
        self.paused_until = self.blocked_until = 0.0  # by the monotonic clock and by the date
        self.spent: Counter[str] = Counter()  # tokens by day
        self.rest: dict[str, int] = {}  # what may still be spent that day, since a header said so
        self.begun: list[Any] = []  # what was entered and not left
        self.budgets: list[Budget] = []
        self.processes = [self.begin(), self.begin(run_tokens=RUN)]

    @classmethod
    def empty(cls) -> Path:
        """An empty control.db, made once."""
        if cls.template is None:
            cls.template = Path(tempfile.mkdtemp()) / "control.db"
            Control(cls.template).close()
        return cls.template

    def teardown(self) -> None:
        for entering, spending in self.begun:
            entering.close()
            with suppress(StopIteration, RuntimeError):  # it may be left already, or not be entered
                spending.gen.aclose().send(None)
        for own in self.budgets:
            own.close()
        vars(budget).update(self.saved[0])
        vars(token_ledger).update(today=self.saved[1])
        self.folder.cleanup()

    def kill_0(self, pid: int, _: int) -> None:
        if pid not in self.alive:
            raise ProcessLookupError

    def begin(self, pid: int | None = None, run_tokens: int | None = None) -> Process:
        pid = next(self.pids) if pid is None else pid
        self.alive.add(pid)
        own = Budget(self.path, "token", burst=BURST, daily_tokens=DAY, run_tokens=run_tokens)
        own._throttle = None  # it only spreads
        self.budgets.append(own)
        return Process(pid=pid, budget=own, is_alive=True, waiting=[])

    @rule(
        which=st.integers(0, 1), cost=st.sampled_from((1, 1, 2, 20)), count=st.sampled_from((1, 4, 12)),
        search=st.booleans(), up=MOMENT, down=ANSWER,
    )  # fmt: skip
    def send(self, which: int, cost: int, count: int, search: bool, up: float, down: float) -> None:
        process = self.processes[which]
        for _ in range(count):
            spending = process.budget.spend(cost, search=search)
            self.begun.append((spending.__aenter__(), spending))
            process.waiting.append((*self.begun[-1], cost, search, up, down))
        self.go_on()

    def go_on(self) -> None:
        """Let each process go on with what waits, in its order: searches stand in a line of their own."""
        for process in self.processes:
            self.current = process.pid
            goes_on = {False: True, True: True}
            for entry in list(process.waiting):
                is_search = entry[3]
                if goes_on[is_search]:
                    goes_on[is_search] = self.try_to_send(process, entry)

    def try_to_send(self, process: Process, entry: tuple[Any, ...]) -> bool:
        coroutine, spending, cost, search, up, down = entry
        try:
            coroutine.send(None)
        except StopIteration as sent:
            process.waiting.remove(entry)
            self.check_sent(process, cost)
            request = (process, spending, sent.value, search)
            heapq.heappush(self.events, (self.now + up, next(self.order), "arrival", request))
            heapq.heappush(self.events, (self.now + up + down, next(self.order), "answer", request))
        except BudgetSpent:
            process.waiting.remove(entry)
            assert self.left(process) < cost, "tokens are left"
        except CoolingDown:
            process.waiting.remove(entry)
            assert self.now + self.wall < self.blocked_until + 600.0 * 2**6, "nothing is blocked"
        else:
            return False
        return True

    def left(self, process: Process) -> float:
        day = token_ledger.today()
        of_run = math.inf if process.budget.run_tokens is None else process.budget.run_tokens - process.budget.spent
        return min(self.rest.get(day, DAY - self.spent[day]), of_run)

    def check_sent(self, process: Process, cost: int) -> None:
        """Nothing is sent in a pause, while the server blocks, or without tokens."""
        assert self.now - self.booted >= self.paused_until, "it sends in a pause"
        assert self.now + self.wall >= self.blocked_until, "it sends while the server blocks"
        day = token_ledger.today()
        self.spent[day] += cost
        if day in self.rest:
            self.rest[day] -= cost
        assert self.rest.get(day, DAY - self.spent[day]) >= 0, "it spends tokens that are not there"
        assert process.budget.run_tokens is None or process.budget.spent <= process.budget.run_tokens

    @rule(seconds=st.sampled_from((0.005, 0.3, 1.0, 1.99, 2.5)))
    def wait(self, seconds: float) -> None:
        end = self.now + seconds
        while self.events and self.events[0][0] <= end:
            self.now, _, kind, request = heapq.heappop(self.events)
            self.arrive(*request) if kind == "arrival" else self.answer(*request)
            self.go_on()
        self.now = end
        self.go_on()

    def arrive(self, process: Process, _spending: Any, _answered: Any, search: bool) -> None:
        if not process.is_alive:
            return
        for window, limit in ((False, BURST), (True, SEARCH_BURST)):
            if window and not search:
                continue
            arrivals = self.arrivals[window]
            arrivals.append(self.now)
            while arrivals[0] <= self.now - WINDOW_S:
                arrivals.popleft()
            assert len(arrivals) <= limit, f"{len(arrivals)} requests within two seconds of the server"

    def answer(self, process: Process, spending: Any, answered: Callable[[], None], _search: bool) -> None:
        if not process.is_alive:
            return
        self.current = process.pid
        answered()
        leaving = spending.__aexit__(None, None, None)
        with pytest.raises(StopIteration):
            leaving.send(None)

    @rule(which=st.integers(0, 1), seconds=st.sampled_from((0.0, 1.0, 3.0, 200.0)))
    def answer_429(self, which: int, seconds: float) -> None:
        self.processes[which].budget.pause(seconds)
        self.paused_until = max(self.paused_until, self.now - self.booted + min(max(seconds, 0.5), 60.0))

    @rule(which=st.integers(0, 1), remaining=st.integers(0, 2 * DAY), limit=st.sampled_from((None, DAY, 7)))
    def say_what_is_left(self, which: int, remaining: int, limit: int | None) -> None:
        """Headers, whether they are true or not; the ledger has a line of the day once a request was sent."""
        day = token_ledger.today()
        self.processes[which].budget.observe(limit=limit, remaining=remaining)
        if self.spent[day] or day in self.rest:
            self.rest[day] = remaining

    @rule(which=st.integers(0, 1))
    def answer_daily_429(self, which: int) -> None:
        assert isinstance(self.processes[which].budget.exhausted(), BudgetSpent)
        self.rest[token_ledger.today()] = 0

    @rule(which=st.integers(0, 1))
    def block(self, which: int) -> None:
        self.processes[which].budget.cool_down()
        if self.now + self.wall >= self.blocked_until:  # what meets the same block counts once
            self.blocked_until = self.now + self.wall + 600.0

    @rule()
    def wait_for_tomorrow(self) -> None:
        self.wait((math.floor(self.now / 86_400) + 1) * 86_400 - self.now)
        for process in self.processes:
            process.budget.calm()

    @precondition(lambda self: self.blocked_until == 0.0)  # none could begin
    @rule(which=st.integers(0, 1), run_tokens=st.sampled_from((None, RUN)), reuse=st.booleans())
    def kill(self, which: int, run_tokens: int | None, reuse: bool) -> None:
        """A process is killed with what it has in flight; another one begins, or an unrelated one has its number."""
        killed = self.processes[which]
        killed.is_alive = False
        if not reuse:
            self.alive.discard(killed.pid)
        self.processes[which] = self.begin(run_tokens=run_tokens)

    @rule()
    def everything_passes(self) -> None:
        """No deadlock: once all is answered and no pause is left, what waits is sent or refused, within the hour."""
        for _ in range(70):
            self.wait(60.0)
            if not self.events and not any(process.waiting for process in self.processes):
                return
        raise AssertionError("something waits for ever")


MACHINE = Limiter


def test_l1_l3_l4_l5_no_window_of_the_server_is_overfull_and_nothing_waits_for_ever() -> None:
    running.check(Limiter, running.SLICE)


@pytest.mark.proof
@pytest.mark.timeout(600)  # seconds of a core, which may be shared
def test_l1_l3_l4_l5_no_window_of_the_server_is_overfull_in_a_share_of_100_000_steps() -> None:
    running.check(Limiter, running.SHARE)
