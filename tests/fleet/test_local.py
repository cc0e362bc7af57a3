"""Jobs on this machine: what is raised while one result is handled costs no other account its result."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from pdsync.fleet import dispatch
from pdsync.fleet.dispatch import Dispatcher, Observer, RetryPolicy
from pdsync.fleet.local import LocalEngine
from tests.fleet.kit import job_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pdsync.fleet.job import AccountJob, AccountResult


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[LocalEngine]:
    engine = LocalEngine(str(tmp_path), 2)
    yield engine
    engine.stop(kill=True)
    engine.close()


def test_an_interrupt_between_two_results_that_came_together_loses_none(
    engine: LocalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "_STOP_S", 1.0)
    reported: list[str] = []

    def on_start(job: AccountJob) -> None:
        while job.account.name == "b" and engine._messages.qsize() < 2:  # both have ended
            time.sleep(0.01)

    def on_result(result: AccountResult) -> None:
        reported.append(result.name)
        if len(reported) == 1:
            raise KeyboardInterrupt

    running = Dispatcher(engine, Observer(on_start=on_start, on_result=on_result), RetryPolicy(tries=1))
    with pytest.raises(KeyboardInterrupt):
        running.run([job_of(tmp_path, "runs", name=name) for name in "ab"])
    assert sorted(reported) == ["a", "b"]
    assert all(result.complete for result in running.results.values()), running.results
