"""A fleet on a Dask cluster whose processes are killed: what runs twice, what is fetched twice, what differs.

with Watch(projects) as watch:         # on a thread: which account runs in which process
    night = Night(folder, "--scheduler", cluster.address)
    sealed.remember(kill_a_worker(cluster.workers, watch, dice, reading))
    code, summary, stderr = night.wait()
watch.overlaps, watch.runs_again(), sealed.refetched(), wrong(projects, companies)
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from tests.support.truth import differences
from tests.support.world import STREAMS, clean_environment, page_of

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping, Sequence

    from tests.support.world import Project, Remote

_EVERY_S = 0.05
_EXITING = 0x4  # PF_EXITING of Linux, among a process's flags


class Watch:
    """Sees which processes work on which account, from outside: by the list of all processes."""

    def __init__(self, projects: dict[str, Project]) -> None:
        self._names = {str(project.folder): name for name, project in projects.items()}
        self._data = {name: project.data for name, project in projects.items()}
        self.pids: dict[str, set[int]] = defaultdict(set)  # by account: all that were ever started for it
        self.overlaps: list[str] = []  # moments at which two worked on one
        self.now: dict[str, set[int]] = {}
        self._known: dict[int, str | None] = {}  # by process: its account
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(_EVERY_S):
            now: dict[str, set[int]] = defaultdict(set)
            pids = psutil.pids()
            self._known = {pid: name for pid, name in self._known.items() if pid in pids}
            for pid in pids:
                if (name := self._account(pid)) and _works(pid):
                    now[name].add(pid)
            for name, working in now.items():
                self.pids[name] |= working
                inside = {pid for pid in working if _has_data_open(pid, self._data[name])}
                if len(inside) > 1 and all(map(_works, inside)):
                    self.overlaps.append(f"{name} by {sorted(inside)}")
            self.now = now

    def _account(self, pid: int) -> str | None:
        if pid not in self._known:
            try:
                process = psutil.Process(pid)
                words, age = process.cmdline(), time.time() - process.create_time()
            except psutil.Error:
                return None
            is_child = "pdsync.fleet.child" in words and "--project" in words
            name = self._names.get(words[words.index("--project") + 1]) if is_child else None
            if name is None and age < 2:
                return None  # it may be about to become one
            self._known[pid] = name
        return self._known[pid]

    def runs_again(self) -> int:
        """How many commands were started for accounts that had one already."""
        return sum(len(pids) - 1 for pids in self.pids.values())


def _works(pid: int) -> bool:
    """Whether a process can still do anything: one that is being killed is on the list until its memory is freed."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    pending = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("ShdPnd:"))
    is_dying = int(state[6]) & _EXITING or pending & 1 << (signal.SIGKILL - 1)
    return state[0] not in "ZX" and not is_dying


def _has_data_open(pid: int, data: Path) -> bool:
    """Whether a process has a file of the account open, besides the lock, which it may be refused.

    One that has none has not begun: if its worker was killed so early, it ends before it begins.
    """
    try:
        files = psutil.Process(pid).open_files()
    except psutil.Error:  # it has ended meanwhile
        return False
    return any(Path(file.path).is_relative_to(data) and not file.path.endswith(".lock") for file in files)


class Night:
    """One `fleet sync` in a process of its own."""

    def __init__(self, folder: Path, *options: str, variables: Mapping[str, str] | None = None) -> None:
        command = [sys.executable, "-m", "pdsync", "--project", str(folder), "--json", "fleet", "sync", *options]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**clean_environment(), **(variables or {})},
        )
        self.events: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.events.append(json.loads(line))

    @property
    def ended(self) -> set[str]:
        """The accounts that have ended."""
        return {event["account"] for event in self.events if event["event"] == "account"}

    @property
    def is_over(self) -> bool:
        return self.process.poll() is not None

    def wait(self) -> tuple[int, dict[str, Any], str]:
        """The exit code, the summary, and stderr."""
        assert self.process.stderr
        stderr = self.process.stderr.read()
        code = self.process.wait()
        self._reader.join()
        self.process.stderr.close()
        return code, self.events[-1] if self.events else {}, stderr


class Sealed:
    """What the accounts had sealed when their worker was killed, and whether any of it is requested again."""

    def __init__(self, projects: dict[str, Project], companies: dict[str, Remote]) -> None:
        self._projects, self._companies = projects, companies
        self._before: list[tuple[str, set[tuple[str, str, str]], int]] = []

    def remember(self, names: set[str]) -> None:
        """Take down what `names` have on disk, whose commands were just killed; a run that had ended is not resumed."""
        for name in names:
            if self._projects[name].cut_short():
                self._before.append((name, self._projects[name].sealed(), len(self._companies[name].log())))

    @property
    def pages(self) -> int:
        """How many pages were sealed then."""
        return sum(len(sealed) for _, sealed, _ in self._before)

    def refetched(self) -> list[str]:
        """The sealed pages that were requested again."""
        found = []
        for name, sealed, requests in self._before:
            later = self._companies[name].log()[requests:]
            pages = [page_of(request) for request in later if request["operation"] not in (None, "getCurrentUser")]
            found += [f"{name}: {page} was sealed and requested again" for page in pages if page in sealed]
        return found


def kill_a_worker(
    nannies: Sequence[subprocess.Popen[Any]], watch: Watch, dice: random.Random, reading: set[str]
) -> set[str]:
    """Kill a worker process that runs one of `reading`, not its nanny, which starts another; returns what it ran.

    Args:
        nannies: the processes that have started the workers.
        watch: which account runs where.
        dice: choose the worker.
        reading: accounts that are in the middle of their work; empty: any.
    """
    running: dict[int, set[str]] = {}
    for nanny in nannies:
        for process in psutil.Process(nanny.pid).children() if nanny.poll() is None else []:
            if "spawn_main" in " ".join(process.cmdline()):
                children = {child.pid for child in process.children(recursive=True)}
                running[process.pid] = {name for name, pids in watch.now.items() if pids & children}
    worker = dice.choice([pid for pid, names in running.items() if names & reading] or list(running))
    os.kill(worker, signal.SIGKILL)
    return running[worker]


def wait_for_reading(night: Night, watch: Watch, companies: dict[str, Remote], ended: int) -> set[str]:
    """Wait until `ended` accounts have ended and some others are in the middle of their work; returns those.

    Empty if the night is over before.
    """
    while not night.is_over:
        if len(night.ended) >= ended:
            requests = {name: len(companies[name].log()) for name in set(watch.now) - night.ended}
            if reading := {name for name, count in requests.items() if count > 4}:
                return reading
        time.sleep(0.05)
    return set()


def wrong(projects: dict[str, Project], companies: dict[str, Remote]) -> list[str]:
    """How the tables of the accounts differ from their companies."""
    found = []
    for name, project in projects.items():
        if not (project.data / "warehouse.duckdb").exists():
            found.append(f"{name}: it has no warehouse")
            continue
        with project.warehouse() as warehouse:
            for stream in STREAMS:
                problems = differences(warehouse, stream, companies[name].dump(stream))
                found += [f"{name}: {problem}" for problem in problems]
    return found
