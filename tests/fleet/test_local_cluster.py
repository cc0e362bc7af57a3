"""Dask workers that a command of the fleet starts: who reaches them, what they survive, and that they end with it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psutil
import pytest
from msgspec.structs import replace

from pdsync.errors import ConfigError
from pdsync.fleet.engine import Ended
from pdsync.fleet.local_cluster import LocalClusterEngine
from tests.fleet.kit import job_of
from tests.support.companies import serving_companies, write_fleet
from tests.support.fleets import Night, Watch, wrong
from tests.support.world import clean_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pdsync.fleet.engine import Message

LONG = ("sandbox", "serve", "--port", "0")  # works until it is ended
ENDS_S = 30.0


@pytest.fixture(scope="module")
def engine() -> Iterator[LocalClusterEngine]:
    before = {process.pid for process in psutil.Process().children()}
    engine = LocalClusterEngine(2, "r1")
    workers = workers_of(os.getpid())
    assert len(workers) == 2
    yield engine
    engine.close()
    assert psutil.wait_procs(workers, timeout=ENDS_S)[1] == []
    left = [process for process in psutil.Process().children() if process.pid not in before]
    assert [process for process in left if "resource_tracker" not in "".join(process.cmdline())] == []


def workers_of(pid: int) -> list[psutil.Process]:
    """The processes of workers that a process has started."""
    return children_of(psutil.Process(pid), "spawn_main")


def commands_of(workers: list[psutil.Process]) -> list[psutil.Process]:
    """The commands of accounts that are under way."""
    return [command for worker in workers for command in children_of(worker, "pdsync.fleet.child")]


def children_of(process: psutil.Process, word: str) -> list[psutil.Process]:
    """The children of a process with `word` in their command line; one that is just ending has none."""
    found = []
    with contextlib.suppress(psutil.Error):
        for child in process.children():
            with contextlib.suppress(psutil.Error):
                if word in " ".join(child.cmdline()):
                    found.append(child)
    return found


def wait_for(engine: LocalClusterEngine, condition: Callable[[], object]) -> list[Message]:
    """The messages until the condition is true."""
    messages: list[Message] = []
    while not condition():
        messages += engine.wait(0.1)
    return messages


def test_only_the_run_itself_reaches_the_workers(engine: LocalClusterEngine) -> None:
    listening = {
        (each.laddr.ip, each.laddr.port)
        for process in workers_of(os.getpid())
        for each in process.net_connections()
        if each.status == psutil.CONN_LISTEN
    }
    addresses = [engine._client.scheduler.address, *engine._client.nthreads()]
    assert len(listening) >= len(addresses) - 1
    assert {host for host, _ in listening} == {"127.0.0.1"}
    stranger = ssl.create_default_context()
    stranger.check_hostname, stranger.verify_mode = False, ssl.CERT_NONE
    for address in addresses:
        kind, _, place = address.partition("://")
        host, _, port = place.partition(":")
        assert (kind, host) == ("tls", "127.0.0.1")
        with (
            socket.create_connection((host, int(port))) as plain,
            stranger.wrap_socket(plain) as encrypted,
            pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"),
        ):
            encrypted.recv(1)
    assert engine.dashboard == ""  # bokeh, which draws it, is not in the extra


def test_a_worker_outlives_signals_its_command_does_not_and_after_a_kill_the_account_runs_once_more(
    engine: LocalClusterEngine, tmp_path: Path
) -> None:
    engine.check(tmp_path)
    assert engine.slots() == 2
    workers = workers_of(os.getpid())
    for name in "ab":
        engine.start(job_of(tmp_path, *LONG, name=name))
    wait_for(engine, lambda: len(commands_of(workers)) == 2)
    assert [len(commands_of([worker])) for worker in workers] == [1, 1]
    for number in (signal.SIGINT, signal.SIGTERM):
        for worker in workers:
            worker.send_signal(number)
    time.sleep(0.5)
    commands = commands_of(workers)
    assert (len(workers_of(os.getpid())), len(commands)) == (2, 2)

    lost = commands_of(workers[:1])
    workers[0].kill()
    wait_for(engine, lambda: len(commands_of(workers_of(os.getpid()))) == 2)  # Dask has started another worker
    now = commands_of(workers_of(os.getpid()))
    assert psutil.wait_procs(lost, timeout=ENDS_S)[1] == []
    assert {command.pid for command in now} & {command.pid for command in commands} == {
        command.pid for command in commands if command not in lost
    }
    engine.stop()
    messages = wait_for(engine, lambda: not engine._futures)
    assert sorted(message.job.account.name for message in messages if isinstance(message, Ended)) == ["a", "b"]
    assert psutil.wait_procs(now, timeout=ENDS_S)[1] == []


def test_a_result_names_its_worker_and_fewer_jobs_at_once_than_workers_are_possible(
    engine: LocalClusterEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = replace(job_of(tmp_path, "runs"), run_id="r2")
    engine.start(job)
    (message,) = wait_for(engine, lambda: not engine._futures)
    assert isinstance(message, Ended)
    assert (message.result.outcome, message.result.exit_code) == ("complete", 0)
    assert "tls://127.0.0.1:" in message.result.worker
    monkeypatch.setattr(engine, "_most", 1)
    assert engine.slots() == 1


def test_workers_that_do_not_start_are_refused_and_none_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "__file__", "/nothing.py", raising=False)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    before = {process.pid for process in workers_of(os.getpid())}
    with pytest.raises(ConfigError, match="1 Dask worker can't be started on this machine"):
        LocalClusterEngine(1, "r3")
    assert {process.pid for process in workers_of(os.getpid())} == before


# A whole night.


def start_night(folder: Path) -> subprocess.Popen[bytes]:
    """A night on two workers, in a process group of its own, as on a terminal."""
    command = [sys.executable, "-m", "pdsync", "--project", str(folder), "fleet", "sync", "--workers", "2"]
    return subprocess.Popen(
        command, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, process_group=0
    )


def wait_until(condition: Callable[[], object]) -> None:
    while not condition():
        time.sleep(0.05)


@pytest.mark.proof
def test_a_command_that_is_interrupted_while_its_workers_start_leaves_none(tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text("[accounts.acme]\n")
    process = start_night(tmp_path)
    wait_until(lambda: len(workers_of(process.pid)) == 2)
    started = psutil.Process(process.pid).children()
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate()
    assert process.returncode == 130, output.decode()
    assert b"Traceback" not in output
    assert psutil.wait_procs(started, timeout=ENDS_S)[1] == []
    assert not (tmp_path / "acme").exists()


@pytest.mark.proof
@pytest.mark.timeout(600)
def test_a_night_on_workers_that_is_interrupted_or_killed_leaves_no_process_and_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "fleet"
    with serving_companies(3, 1, 5, latency_ms=400) as companies:
        projects = write_fleet(folder, companies)
        with Watch(projects) as watch:
            for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -signal.SIGKILL)):
                process = start_night(folder)
                wait_until(
                    lambda: sum(len(remote.log()) for name, remote in companies.items() if name in watch.now) > 4
                )
                started = psutil.Process(process.pid).children(recursive=True)
                assert len(workers_of(process.pid)) == 2
                if number == signal.SIGINT:  # Ctrl-C is for all processes of the terminal
                    os.killpg(process.pid, number)
                else:
                    process.send_signal(number)
                output, _ = process.communicate()
                assert process.returncode == code, output.decode()
                assert b"Traceback" not in output
                assert psutil.wait_procs(started, timeout=ENDS_S)[1] == []
            code, summary, stderr = Night(folder, "--workers", "2").wait()
        assert code == 0, stderr
        assert {each["attempts"] for each in summary["accounts"].values()} == {1}
        assert watch.overlaps == []
        assert wrong(projects, companies) == []
