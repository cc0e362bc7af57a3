"""Jobs on a real Dask cluster: where they run, and what becomes of them when a worker or the scheduler is killed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from pdsync.errors import ConfigError
from pdsync.fleet import cluster as clusters
from pdsync.fleet.cluster import ClusterEngine
from pdsync.fleet.dispatch import Dispatcher, Observer, RetryPolicy
from pdsync.fleet.engine import EngineLost
from pdsync.version import __version__
from tests.fleet.dask import dask_cluster, kill
from tests.fleet.kit import job_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from pdsync.fleet.engine import Message
    from pdsync.fleet.job import AccountJob
    from tests.fleet.dask import DaskCluster

LONG = ("sandbox", "serve", "--port", "0")  # works until it is ended


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    with dask_cluster(tmp_path_factory.mktemp("dask"), 2, 2, "--no-nanny") as cluster:
        yield cluster


@pytest.fixture
def engine(cluster: DaskCluster, request: pytest.FixtureRequest) -> Iterator[ClusterEngine]:
    engine = ClusterEngine(cluster.address, request.node.name)
    await_slots(engine, 4)
    yield engine
    engine.close()


def await_slots(engine: ClusterEngine, slots: int) -> None:
    while engine.slots() != slots:
        time.sleep(0.1)


def wait_for(engine: ClusterEngine, condition: Callable[[], object]) -> list[Message]:
    """The messages until the condition is true."""
    messages: list[Message] = []
    while not condition():
        messages += engine.wait(0.1)
    return messages


def children(cluster: DaskCluster) -> list[psutil.Process]:
    """The commands of accounts that are under way."""
    return [
        child
        for worker in cluster.workers
        if worker.poll() is None
        for child in psutil.Process(worker.pid).children(recursive=True)
        if "pdsync.fleet.child" in child.cmdline()
    ]


def of_run(engine: ClusterEngine, jobs: Sequence[AccountJob]) -> list[AccountJob]:
    from msgspec.structs import replace  # noqa: PLC0415

    return [replace(job, run_id=engine._run_id) for job in jobs]


def test_jobs_run_on_the_workers_no_more_at_once_than_there_are_threads(
    engine: ClusterEngine, cluster: DaskCluster, tmp_path: Path
) -> None:
    engine.check(tmp_path)
    assert list(tmp_path.iterdir()) == []
    started: list[str] = []
    ended: list[str] = []

    def on_start(job: AccountJob) -> None:
        started.append(job.account.name)
        assert len(started) - len(ended) <= 4

    observer = Observer(on_start=on_start, on_result=lambda result: ended.append(result.name))
    jobs = of_run(engine, [job_of(tmp_path, "runs", name=f"c{number}") for number in range(6)])
    results = Dispatcher(engine, observer, RetryPolicy(tries=1)).run(jobs)
    assert sorted(results) == [job.account.name for job in jobs]
    assert all(result.complete for result in results.values()), results
    assert len({result.worker for result in results.values()}) == 2


def test_a_lost_workers_accounts_run_again_elsewhere_and_their_children_are_gone(
    engine: ClusterEngine, cluster: DaskCluster, tmp_path: Path
) -> None:
    for job in of_run(engine, [job_of(tmp_path, *LONG, name=name) for name in "abcd"]):
        engine.start(job)
    wait_for(engine, lambda: len(children(cluster)) == 4)
    others = {
        child.pid for child in children(cluster) if cluster.workers[0].pid not in [p.pid for p in child.parents()]
    }
    lost = [child for child in children(cluster) if child.pid not in others]
    assert (len(lost), len(others)) == (2, 2)
    kill(cluster.workers.pop(0))
    psutil.wait_procs(lost, timeout=20)
    assert not any(child.is_running() for child in lost)
    cluster.start_worker(2, "--no-nanny")  # Dask itself gives it what the lost one had
    wait_for(engine, lambda: len(children(cluster)) == 4)
    assert others < {child.pid for child in children(cluster)}
    engine.stop()
    messages = wait_for(engine, lambda: not engine._futures)
    assert sorted(message.job.account.name for message in messages) == list("abcd")  # type: ignore[union-attr]


def forget(dask_scheduler: Any, key: str, client: str) -> None:
    """Let the scheduler forget a job without a word to its client."""
    dask_scheduler.client_releases_keys(keys=[key], client=client, stimulus_id="test")


def test_the_watchdog_finds_a_job_that_the_scheduler_does_not_know(
    engine: ClusterEngine, cluster: DaskCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clusters, "_QUIET_S", 0.2)
    (job,) = of_run(engine, [job_of(tmp_path, *LONG)])
    engine.start(job)
    wait_for(engine, lambda: children(cluster))
    for _ in range(3):  # a job that works is left alone, however silent it is
        assert list(engine.wait(0.3)) == []
    engine._client.run_on_scheduler(forget, key=job.key, client=engine._client.id)
    messages: list[Message] = []
    while not messages:
        messages += engine.wait(0.3)
    assert [type(message).__name__ for message in messages] == ["Lost"]
    assert messages[0].job == job  # type: ignore[union-attr]
    engine.stop(kill=True)


def test_a_result_that_came_just_before_the_scheduler_was_lost_is_kept(tmp_path: Path) -> None:
    with dask_cluster(tmp_path / "dask", 1, 2, "--no-nanny") as cluster:

        class Losing(ClusterEngine):
            """Its scheduler is killed between the result of one account and the next message."""

            def _release(self, key: str) -> AccountJob:
                job = super()._release(key)
                if job.account.name == "ends":
                    assert cluster.scheduler
                    kill(cluster.scheduler)
                    while not self._messages.qsize():
                        time.sleep(0.01)
                return job

        engine = Losing(cluster.address, "r1")
        await_slots(engine, 2)
        running = Dispatcher(engine, policy=RetryPolicy(tries=1), observer=Observer())
        with pytest.raises(EngineLost):
            running.run([job_of(tmp_path, *LONG, name="works"), job_of(tmp_path, "runs", name="ends")])
        assert {name: result.outcome for name, result in running.results.items()} == {"ends": "complete"}
        engine.close()


@pytest.mark.proof
def test_an_account_whose_worker_dask_blames_runs_again_and_a_killed_scheduler_is_reported_at_once(
    tmp_path: Path,
) -> None:
    strict = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}  # a task is given up with its first worker
    with dask_cluster(tmp_path / "dask", 1, 1, "--no-nanny", variables=strict) as cluster:
        engine = ClusterEngine(cluster.address, "r1")
        await_slots(engine, 1)
        engine.start(job_of(tmp_path, *LONG))
        wait_for(engine, lambda: children(cluster))
        kill(cluster.workers[0])
        messages: list[Message] = []
        while not messages:
            messages += engine.wait(0.1)
        assert [type(message).__name__ for message in messages] == ["Lost"]
        engine.start(job_of(tmp_path, *LONG, attempt=2))
        assert cluster.scheduler
        kill(cluster.scheduler)
        with pytest.raises(EngineLost, match="run the same command: it goes on"):
            wait_for(engine, lambda: False)
        engine.close()


@pytest.mark.proof
def test_a_scheduler_without_workers_is_waited_for_and_then_given_up(cluster: DaskCluster, tmp_path: Path) -> None:
    now = 0.0
    with dask_cluster(tmp_path / "dask", 0, 1) as empty:
        engine = ClusterEngine(empty.address, "r1", clock=lambda: now)
        assert engine.slots() == 0
        assert [type(message).__name__ for message in engine.wait(0.1)] == ["Noted"]
        now = 601.0
        with pytest.raises(EngineLost, match="no worker for 10 minutes"):
            engine.slots()
        engine.close()


def test_a_cluster_that_cannot_run_the_jobs_is_refused_before_any_is_started(
    engine: ClusterEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clusters, "_CONNECT_S", 0.5)
    with pytest.raises(ConfigError, match=r"No Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        ClusterEngine("tcp://127.0.0.1:9", "r1")
    assert clusters._examine(str(tmp_path / "nothing")) == (__version__, False)
    monkeypatch.setattr(clusters, "__version__", "9.9")
    with pytest.raises(ConfigError, match=r"has pdsync .*, and this is 9\.9"):
        engine.check(tmp_path)
