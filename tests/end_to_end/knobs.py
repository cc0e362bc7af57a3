"""Turns inside a pdsync process what no setting turns, so that a small company meets what only a large one would.

Used in a child process before the command line starts (`Project.run(first="knobs.small_pages(20)")`), and around
commands that are carried out inside the test (`Project.here`). What is promised stays as it is: only sizes, waits and
the instant of a death are chosen.
"""

from __future__ import annotations

import importlib
import os
import signal
from datetime import timedelta
from typing import Any

from msgspec.structs import force_setattr

from pdsync.core import budget, catalogue
from pdsync.core.http import Http
from pdsync.runner import loader, run


def small_pages(rows: int) -> None:
    """Ask for so many rows a page, in every list."""
    for version in ("v1", "v2"):
        for operation in catalogue.operations(version).values():
            if operation.page_size:
                force_setattr(operation, "page_size", rows)


def small_batches(pages: int) -> None:
    """Commit so many pages together."""
    loader.PAGES_A_BATCH = run.PAGES_A_BATCH = pages


def read_ahead(size: int) -> None:
    """Hand pages to the loader as soon as so many bytes wait for it; it is 24 MiB otherwise."""
    run._PAGES_AHEAD = size


def hurry() -> None:
    """Wait a fiftieth between retries."""
    Http.__init__.__kwdefaults__["backoff_s"] = 0.01


def tomorrow() -> None:
    """Let the ledger of the day's tokens believe that midnight has passed."""
    real = budget._today
    day = (budget._midnight() + timedelta(hours=1)).strftime("%Y-%m-%d")
    assert day != real()
    budget._today = lambda: day


def die(module: str, name: str, nth: int = 1, *, after: bool = False) -> None:
    """Be killed, as by `kill -9`, right before or after the nth call of `name` in `module`."""
    holder: Any = importlib.import_module(module)
    *path, last = name.split(".")
    for part in path:
        holder = getattr(holder, part)
    real, calls = getattr(holder, last), 0

    def trapped(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == nth and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*arguments, **named)
        if calls == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(holder, last, trapped)
