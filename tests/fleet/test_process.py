"""A child's output is read to its end, it is ended in time, and it never outlives its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from pdsync.fleet.process import Child, Children

if TYPE_CHECKING:
    from pathlib import Path

STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
)
POLITE = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (print("settled"), sys.exit(130)))
print("ready", flush=True)
time.sleep(60)
"""


def python(code: str, grace_s: float = 30.0) -> Child:
    return Child([sys.executable, "-c", code], os.environ, grace_s)


def test_every_line_arrives_also_one_without_an_end_and_the_last_of_stderr() -> None:
    child = python(
        "import sys; print('a'); sys.stderr.write('x' * 9000 + 'end'); print('b' * 200_000); print('c', end='')"
    )
    assert list(child.lines(60)) == [b"a", b"b" * 200_000, b"c"]
    assert (child.exit_code, child.is_overdue) == (0, False)
    assert child.stderr.endswith(b"xend")
    assert len(child.stderr) == 8_192


@pytest.mark.parametrize(
    ("code", "lines", "exit_code"), [(POLITE, [b"ready", b"settled"], 130), (STUBBORN, [b"ready"], -9)]
)
def test_a_child_that_does_not_end_in_time_is_asked_and_then_killed(
    code: str, lines: list[bytes], exit_code: int
) -> None:
    child = python(code, grace_s=0.0 if exit_code < 0 else 30.0)
    assert list(child.lines(1.0)) == lines
    assert (child.exit_code, child.is_overdue) == (exit_code, True)


def test_stopping_a_run_ends_its_children_and_starts_no_more() -> None:
    children = Children()
    with children.start("one", lambda: python(POLITE)) as child, children.start("two", lambda: python(POLITE)) as other:
        assert child is not None
        assert other is not None
        lines = child.lines(60)
        assert next(lines) == b"ready"
        assert children.stop("one") == 1
        assert list(lines) == [b"settled"]
        with children.start("one", lambda: python("")) as late:
            assert late is None
        assert psutil.Process(other.pid).status() != psutil.STATUS_ZOMBIE
    assert not psutil.pid_exists(other.pid)
    assert children.stop("two") == 0


def test_a_child_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    code = """
import os, subprocess, sys, time
command = [sys.executable, "-m", "pdsync.fleet.child", str(os.getpid()), "sandbox", "serve", "--port", "0", "--json"]
child = subprocess.Popen(command, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=tmp_path)
    assert parent.stdout
    with parent.stdout:
        pid = int(parent.stdout.readline())
        assert psutil.pid_exists(pid)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    until = time.monotonic() + 20
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE and time.monotonic() < until:
        time.sleep(0.01)
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_child_whose_parent_is_gone_already_does_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pdsync.fleet.child", "1", "--version"]
    ran = subprocess.run(command, capture_output=True, cwd=tmp_path, check=False)
    assert (ran.returncode, ran.stdout) == (-signal.SIGKILL, b"")
