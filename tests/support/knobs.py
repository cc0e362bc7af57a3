"""Changes values inside a pdsync process that no setting changes, so that a small company behaves like a large one.

Used in a child process before the command line starts (`Project.run(first="knobs.small_pages(20)")`), and around
commands that run inside the test (`Project.here`). Only sizes, waits, clocks and the time of a kill change, never what
pdsync promises. Changes last until the process ends, except that of `smaller_pages`.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import inspect
import itertools
import os
import resource
import signal
import sys
import threading
import time
from contextlib import contextmanager
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import force_setattr

from pdsync.core import budget, catalogue, token_ledger
from pdsync.core.http import Http
from pdsync.extract import long_list
from pdsync.runner import loader
from pdsync.runner.sync import walk_reader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def small_pages(rows: int) -> None:
    """Request at most `rows` rows a page, in every list."""
    for version in ("v1", "v2"):
        for operation in catalogue.operations(version).values():
            if operation.page_size:
                force_setattr(operation, "page_size", min(rows, operation.page_size))


@contextmanager
def smaller_pages(rows: int) -> Iterator[None]:
    """`small_pages` for the length of a `with`."""
    operations = [operation for version in ("v1", "v2") for operation in catalogue.operations(version).values()]
    before = [operation.page_size for operation in operations]
    small_pages(rows)
    try:
        yield
    finally:
        for operation, size in zip(operations, before, strict=True):
            force_setattr(operation, "page_size", size)


def small_batches(pages: int) -> None:
    """Commit at most `pages` pages in one transaction."""
    setattr(loader, "PAGES_PER_BATCH", pages)  # noqa: B010 - a constant


def read_ahead(size: int) -> None:
    """Pass pages to the loader once `size` bytes wait for it, instead of 24 MiB."""
    walk_reader._PAGES_AHEAD = size


def long_lists(pages: int) -> None:
    """Read lists of `pages` pages in windows, instead of 40."""
    long_list.LONG = pages


def hurry() -> None:
    """Wait 10 ms before the first retry."""
    assert Http.__init__.__kwdefaults__
    Http.__init__.__kwdefaults__["backoff_s"] = 0.01


def tomorrow() -> None:
    """Let the daily budget see the next day."""
    real = token_ledger.today
    day = (budget._midnight() + timedelta(hours=1)).strftime("%Y-%m-%d")
    assert day != real()
    token_ledger.today = lambda: day


def local_clock(seconds: float) -> None:
    """Set `time.time` and `datetime.now` of this process to `seconds` since 1970; they run on from there."""
    ahead = seconds - time.time()
    real_time, real_now = time.time, datetime.now
    time.time = lambda: real_time() + ahead

    def now(_: type[datetime], tz: tzinfo | None = None) -> datetime:
        return real_now(tz) + timedelta(seconds=ahead)

    # Every module has its own name for the class, so the class itself has to change: it can't be patched otherwise.
    gc.get_referents(datetime.__dict__)[0]["now"] = classmethod(now)
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(datetime))


def largest_file(size: int) -> None:
    """Refuse to let a file grow beyond `size` bytes, as a full disk would."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def die(module: str, name: str, nth: int = 1, *, after: bool = False) -> None:
    """Kill this process with `kill -9` before or after the nth call of `name` in `module`."""

    def met(calls: int, is_over: bool) -> None:
        if calls == nth and is_over == after:
            os.kill(os.getpid(), signal.SIGKILL)

    _watch(module, name, met)


def interrupt(module: str, name: str, number: int, in_s: float = 0) -> None:
    """Send this process the signal `number` before the first call of `name` in `module`, or `in_s` seconds into it."""

    def met(calls: int, is_over: bool) -> None:
        if calls == 1 and not is_over and in_s:
            threading.Timer(in_s, os.kill, (os.getpid(), number)).start()
        elif calls == 1 and not is_over:
            os.kill(os.getpid(), number)

    _watch(module, name, met)


def count(file: str, places: list[tuple[str, str]]) -> None:
    """Append a line with the index of a place to `file` whenever the place is called."""
    for number, (module, name) in enumerate(places):

        def met(calls: int, is_over: bool, number: int = number) -> None:
            if not is_over:
                with Path(file).open("a", encoding="ascii") as counted:
                    counted.write(f"{number}\n")

        _watch(module, name, met)


def _watch(module: str, name: str, met: Callable[[int, bool], None]) -> None:
    """Call `met` before and after each call of `name` in `module`, with the number of the call."""
    holder: Any = importlib.import_module(module)
    *path, last = name.split(".")
    for part in path:
        holder = getattr(holder, part)
    real, numbers = getattr(holder, last), itertools.count(1)

    def watched(*arguments: Any, **named: Any) -> Any:
        number = next(numbers)
        met(number, False)
        result = real(*arguments, **named)
        met(number, True)
        return result

    async def awaited(*arguments: Any, **named: Any) -> Any:
        number = next(numbers)
        met(number, False)
        result = await real(*arguments, **named)
        met(number, True)
        return result

    replacement = awaited if inspect.iscoroutinefunction(real) else watched
    setattr(holder, last, replacement)
    if getattr(real, "__module__", None) == module:  # where it is defined: modules that imported it by name, too
        for importer in [each for key, each in sys.modules.items() if key.startswith("pdsync.")]:
            if getattr(importer, last, None) is real:
                setattr(importer, last, replacement)
