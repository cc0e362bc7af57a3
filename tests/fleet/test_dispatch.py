"""Which account runs next, what is tried again, and what one account's failure means for the others."""

from __future__ import annotations

from collections import Counter, deque
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pdsync.errors import StorageError
from pdsync.fleet.accounts import Account
from pdsync.fleet.dispatch import Dispatcher, Observer, RetryPolicy
from pdsync.fleet.engine import Ended, EngineLost, Lost, Message
from pdsync.fleet.job import AccountJob, AccountResult, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable

CODES: dict[str, tuple[Outcome, int, str]] = {
    "ok": ("complete", 0, ""),
    "gap": ("incomplete", 4, ""),
    "fail": ("failed", 1, "ServerTrouble"),
    "late": ("failed", 1, "Timeout"),
    "locked": ("stopped", 3, "ProjectLocked"),
    "leased": ("stopped", 3, "LeaseTaken"),
    "unleased": ("stopped", 3, "LeaseLost"),
    "spent": ("stopped", 3, "BudgetSpent"),
    "token": ("refused", 2, "AuthError"),
    "stopped": ("interrupted", 130, ""),
}


class ScriptedEngine:
    """An engine whose jobs end as a script says: a real one of the protocol, on a clock of its own."""

    def __init__(self, slots: int, **script: str) -> None:
        self._slots, self.now = slots, 0.0
        self._script = {name: deque(endings.split()) for name, endings in script.items()}
        self._running: list[AccountJob] = []
        self.starts: list[tuple[float, str]] = []
        self.most = 0
        self.stops: list[bool] = []

    def clock(self) -> float:
        return self.now

    def slots(self) -> int:
        return self._slots

    def start(self, job: AccountJob) -> None:
        assert job.account.name not in [each.account.name for each in self._running], "run by two at once"
        self._running.append(job)
        self.starts.append((self.now, job.account.name))
        self.most = max(self.most, len(self._running))

    def wait(self, timeout_s: float) -> Iterable[Message]:
        if not self._running:
            self.now += timeout_s
            return []
        self.now += 0.001
        job = self._running[0]
        ending = self._script.get(job.account.name, deque(["ok"]))
        step = ending.popleft() if len(ending) > 1 else ending[0]
        if step == "never":
            self._running.append(self._running.pop(0))
            self.now += timeout_s
            return []
        if step == "interrupt":
            raise KeyboardInterrupt
        if step == "gone":
            raise EngineLost("the scheduler does not answer")
        self._running.pop(0)
        if step == "lost":
            return [Lost(job, "its process ended")]
        outcome, code, error = CODES[step]
        return [
            Ended(job, AccountResult(job.account.name, code, code == 0, outcome, error=error, attempts=job.attempt))
        ]

    def stop(self, *, kill: bool = False) -> None:
        self.stops.append(kill)
        for job in self._running:
            self._script[job.account.name] = deque(["stopped" if kill or len(self.stops) == 1 else "never"])

    def close(self) -> None:
        pass


def jobs(*names: str) -> list[AccountJob]:
    return [AccountJob(Account(name, Path("/", name)), ("sync",), "r1") for name in names]


def dispatcher(engine: ScriptedEngine, observer: Observer | None = None) -> Dispatcher:
    return Dispatcher(engine, observer or Observer(), RetryPolicy(), engine.clock)


def test_accounts_run_in_order_as_many_at_once_as_there_are_slots() -> None:
    engine = ScriptedEngine(3)
    results = dispatcher(engine).run(jobs(*"abcdefgh"))
    assert [name for _, name in engine.starts] == list("abcdefgh")
    assert engine.most == 3
    assert list(results) == list("abcdefgh")
    assert all(result.complete for result in results.values())


@pytest.mark.parametrize(
    ("script", "outcome", "starts"),
    [
        ("fail ok", "complete", 2),
        ("fail fail fail", "failed", 3),
        ("fail token", "refused", 2),
        ("late", "failed", 1),
        ("token", "refused", 1),
        ("gap", "incomplete", 1),
        ("spent", "stopped", 1),
        ("locked locked locked locked ok", "complete", 5),
        ("locked", "stopped", 8),
        ("leased leased leased ok", "complete", 4),
        ("unleased ok", "complete", 2),
        ("unleased", "stopped", 3),
        ("locked locked unleased ok", "complete", 4),  # each kind has its own number of tries
        ("leased leased leased unleased unleased unleased ok", "stopped", 6),
        ("unleased unleased locked locked locked locked locked ok", "complete", 8),
        ("fail unleased fail ok", "failed", 3),
        ("lost lost lost lost ok", "complete", 5),
        ("lost lost lost lost fail fail ok", "complete", 7),
        ("lost", "failed", 20),
    ],
)
def test_a_failed_account_is_tried_again_as_long_as_that_can_help_and_stops_nobody(
    script: str, outcome: str, starts: int
) -> None:
    engine = ScriptedEngine(1, bad=script)
    results = dispatcher(engine).run(jobs("bad", "a", "b"))
    assert {name: result.outcome for name, result in results.items()} == {
        "bad": outcome, "a": "complete", "b": "complete",
    }  # fmt: skip
    assert Counter(name for _, name in engine.starts) == {"bad": starts, "a": 1, "b": 1}
    assert [name for _, name in engine.starts[1:3]] == ["a", "b"]  # while the first one waits for its next turn
    assert results["bad"].attempts == starts


def test_the_pause_before_another_try_doubles_and_holds_up_nobody() -> None:
    engine = ScriptedEngine(1, bad="fail fail fail")
    dispatcher(engine).run(jobs("bad", "a"))
    times = [at for at, name in engine.starts if name == "bad"]
    assert [round(later - earlier) for earlier, later in pairwise(times)] == [30, 60]


def test_an_interrupted_run_lets_the_accounts_under_way_end_and_starts_no_other() -> None:
    engine = ScriptedEngine(2, b="interrupt")
    running = dispatcher(engine)
    with pytest.raises(KeyboardInterrupt):
        running.run(jobs("a", "b", "c", "d"))
    assert {name: result.outcome for name, result in running.results.items()} == {
        "a": "complete", "b": "interrupted", "c": "interrupted",
    }  # fmt: skip
    assert engine.stops == [False]


@pytest.mark.parametrize("error", [StorageError("the disk is full"), BrokenPipeError()])
def test_an_observer_that_fails_ends_the_run_only_when_the_accounts_under_way_have_ended(error: Exception) -> None:
    def on_result(result: AccountResult) -> None:
        raise error

    engine = ScriptedEngine(3, b="never", c="never")
    running = dispatcher(engine, Observer(on_result=on_result))
    with pytest.raises(type(error)):
        running.run(jobs("a", "b", "c", "d"))
    assert engine.stops == [False]
    assert {name: result.outcome for name, result in running.results.items()} == {
        "a": "complete", "b": "interrupted", "c": "interrupted",
    }  # fmt: skip


def test_a_run_that_was_interrupted_ends_as_that_even_if_its_results_cannot_be_reported() -> None:
    def on_result(result: AccountResult) -> None:
        raise StorageError("the disk is full")

    engine = ScriptedEngine(2, a="interrupt")
    running = dispatcher(engine, Observer(on_result=on_result))
    with pytest.raises(KeyboardInterrupt):
        running.run(jobs("a", "b"))
    assert {result.outcome for result in running.results.values()} == {"interrupted"}


def test_an_account_that_does_not_end_when_asked_is_killed() -> None:
    engine = ScriptedEngine(2, a="interrupt")
    engine.stops.append(False)  # so that asking has no effect
    running = dispatcher(engine)
    with pytest.raises(KeyboardInterrupt):
        running.run(jobs("a"))
    assert engine.stops[1:] == [False, True]
    assert running.results["a"].outcome == "interrupted"


def test_what_had_ended_before_the_cluster_was_lost_is_kept() -> None:
    reported: list[str] = []
    engine = ScriptedEngine(1, b="gone")
    running = dispatcher(engine, Observer(on_result=lambda result: reported.append(result.name)))
    with pytest.raises(EngineLost):
        running.run(jobs("a", "b", "c"))
    assert (list(running.results), reported) == (["a"], ["a"])


def test_a_late_answer_of_an_attempt_that_was_given_up_changes_nothing() -> None:
    engine = ScriptedEngine(1, a="lost ok")
    running = dispatcher(engine)
    first = jobs("a")[0]
    late = Ended(first, AccountResult("a", 1, False, "failed"))
    plain_wait = engine.wait
    engine.wait = lambda timeout_s: [*plain_wait(timeout_s), late] if engine.starts[1:] else plain_wait(timeout_s)  # type: ignore[method-assign]
    assert running.run([first])["a"].outcome == "complete"
