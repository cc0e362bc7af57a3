"""Runs one pdsync command as the child of a fleet, and ends it with its parent: `python -m pdsync.fleet.child PID …`.

A command that outlives the worker that started it would work on an account that another worker takes over. On Linux
the kernel kills it when its parent ends; elsewhere a thread watches for that.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time

_PR_SET_PDEATHSIG = 1
_EVERY_S = 0.5


def end_with(parent: int) -> None:
    """Let this process be killed as soon as `parent`, the process that started it, has ended.

    On Linux also as soon as the thread that started it has ended.
    """
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - not needed elsewhere

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    else:
        threading.Thread(target=_watch, args=(parent,), name="parent", daemon=True).start()
    if os.getppid() != parent:  # it ended before the kernel knew
        os.kill(os.getpid(), signal.SIGKILL)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_EVERY_S)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    end_with(int(sys.argv.pop(1)))
    runpy.run_module("pdsync", run_name="__main__", alter_sys=True)
