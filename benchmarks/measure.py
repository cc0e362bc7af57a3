"""Runs one program to its end and measures time, processor time and memory.

The figures are the kernel's own (`wait4`), so they cover all of the program from its start to its exit, imports
included. Children that the program waited for are in them too: their processor time is added, and the peak is that
of the largest single process.

Units: seconds, MiB.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

# ru_maxrss is in KiB, but in bytes on macOS.
RSS_PER_MIB = 1024 * 1024 if sys.platform == "darwin" else 1024
TAIL_CHARS = 3000
# Variables that change a contestant; dlt takes all its settings from the environment.
FOREIGN = (
    "PYTHONDONTWRITEBYTECODE",  # each start would compile pdsync again
    *("PDSYNC_", "DLT_", "RUNTIME__", "SOURCES__", "DESTINATION__", "EXTRACT__", "NORMALIZE__", "LOAD__"),
    *("DATA_WRITER__", "SCHEMA__", "PROGRESS", "PIPELINE"),
)


class BenchmarkError(Exception):
    """The benchmark has no result; the message says why."""


@dataclass(frozen=True)
class Usage:
    """Time and memory of one run of a program."""

    seconds: float
    cpu_s: float
    peak_mib: float


def run(command: Sequence[str], *, env: Mapping[str, str], folder: Path) -> Usage:
    """Run `command` in `folder` and wait for it; its output goes to `output.log` and `errors.log` there.

    Keep the caller small: on Linux the peak of a child is at least the size of its parent at the start.

    Raises:
        BenchmarkError: it ended with an error; the message has the end of its output.
    """
    output, errors = folder / "output.log", folder / "errors.log"
    with output.open("wb") as out, errors.open("wb") as err:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, env=env, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
        )
        try:
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            stop(process)
        seconds = time.perf_counter() - started
    if process.returncode != 0:
        error_text = (output.read_text(errors="replace") + errors.read_text(errors="replace"))[-TAIL_CHARS:]
        raise BenchmarkError(f"{' '.join(command[:4])} … ended with {process.returncode}:\n{error_text}")
    return Usage(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / RSS_PER_MIB)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End `process` and its children, if it still runs. It must be the leader of a session."""
    if process.returncode is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        finally:
            process.wait()


def clean_env(**more: str) -> dict[str, str]:
    """The environment of this process without settings of pdsync and dlt and without proxies, plus `more`."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    return variables | {"NO_PROXY": "*", "no_proxy": "*"} | more


def median(usages: Sequence[Usage]) -> Usage:
    """The median of each figure."""
    return Usage(
        statistics.median(usage.seconds for usage in usages),
        statistics.median(usage.cpu_s for usage in usages),
        statistics.median(usage.peak_mib for usage in usages),
    )
