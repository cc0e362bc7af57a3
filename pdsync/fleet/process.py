"""A child process whose output is read while it works, and which is ended in time: the only place that starts one.

It has a process group of its own, so that Ctrl-C on a terminal reaches the fleet only, which then ends its children
in order. SIGTERM lets a command settle what is in flight and keep all that it has read; SIGKILL follows if it does not.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import threading
import time
from collections import defaultdict
from typing import IO, TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

GRACE_S = 30.0  # between SIGTERM and SIGKILL
_TAIL = 8_192  # bytes of stderr that are kept
_POLL_S = 0.5
_CHUNK = 1 << 16


class Child:
    """One command. `lines` reads it to its end; `stop` and `kill` may come from any thread."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], grace_s: float = GRACE_S) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - this very program, with arguments and no shell
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=0,
        )
        self._stdout, self._stderr = cast("IO[bytes]", self._process.stdout), cast("IO[bytes]", self._process.stderr)
        self._grace_s = grace_s
        self._kill_at: float | None = None
        self._lock = threading.Lock()
        self.stderr = b""  # its last bytes
        self.is_overdue = False  # it did not end in time

    @property
    def pid(self) -> int:
        return self._process.pid

    def lines(self, timeout_s: float) -> Iterator[bytes]:
        """The lines of stdout as they come, until the child has ended; after `timeout_s` seconds it is stopped."""
        until, rest = time.monotonic() + timeout_s, b""
        with selectors.DefaultSelector() as selector, self._stdout, self._stderr:
            for pipe in (self._stdout, self._stderr):
                selector.register(pipe, selectors.EVENT_READ)
            while selector.get_map():
                ready = selector.select(_POLL_S)
                for key, _ in ready:
                    chunk = os.read(key.fd, _CHUNK)
                    if not chunk:
                        selector.unregister(key.fileobj)
                    elif key.fileobj is self._stderr:
                        self.stderr = (self.stderr + chunk)[-_TAIL:]
                    else:
                        *whole, rest = (rest + chunk).split(b"\n")
                        yield from whole
                if not ready and self._has_ended():
                    break  # something that it has started still has the pipes
                self._check_time(until)
        if rest:
            yield rest
        while not self._has_ended():  # it has closed its output, and works on
            self._check_time(until)
            time.sleep(0.01)

    def _check_time(self, until: float) -> None:
        now = time.monotonic()
        if now > until and self._kill_at is None:
            self.is_overdue = True
            self.stop()
        if self._kill_at is not None and now > self._kill_at:
            self.kill()

    def stop(self) -> None:
        """Ask the child to end: what it has read is kept."""
        if self._kill_at is None:
            self._kill_at = time.monotonic() + self._grace_s
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the child, and what it has started, at once."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with self._lock, contextlib.suppress(ProcessLookupError):
            if self._process.poll() is None:  # from then on its number may be another's
                os.killpg(self._process.pid, number)

    def _has_ended(self) -> bool:
        with self._lock:
            return self._process.poll() is not None

    def reap(self) -> None:
        """Kill the child if it works, and wait for its end."""
        self.kill()
        while not self._has_ended():
            time.sleep(0.01)

    @property
    def exit_code(self) -> int:
        """How it ended, once it has: negative, the number of the signal that ended it."""
        return cast("int", self._process.returncode)


class Children:
    """The children of this process, by the fleet run that they belong to. A run that is stopped starts no more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[str, set[Child]] = defaultdict(set)
        self._stopped: set[str] = set()

    @contextlib.contextmanager
    def start(self, run_id: str, start: Callable[[], Child]) -> Iterator[Child | None]:
        """A child of the run; None if the run is stopped. A child that is left before its end is killed."""
        with self._lock:
            child = None if run_id in self._stopped else start()
            if child:
                self._running[run_id].add(child)
        try:
            yield child
        finally:
            if child:
                child.reap()
                with self._lock:
                    self._running[run_id].discard(child)

    def stop(self, run_id: str, *, kill: bool = False) -> int:
        """Stop or kill the children of a run; returns how many there are."""
        with self._lock:
            self._stopped.add(run_id)
            children = list(self._running[run_id])
        for child in children:
            child.kill() if kill else child.stop()
        return len(children)


CHILDREN = Children()


def stop_children(run_id: str, *, kill: bool = False) -> int:
    """Stop the children of a run in this process: what a client asks each worker of a cluster to do."""
    return CHILDREN.stop(run_id, kill=kill)
