"""Lets SIGTERM end a command as Ctrl-C does: with KeyboardInterrupt, for which `main` ends with exit code 130."""

from __future__ import annotations

import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    import duckdb

T = TypeVar("T")


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """Raise KeyboardInterrupt in the block on SIGTERM, unless the process ignores or handles it already."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def query_interruptible(database: duckdb.DuckDBPyConnection, work: Callable[[], T]) -> T:
    """Run `work`, which queries `database`, so that Ctrl-C and SIGTERM end its query at once.

    It runs in a thread: DuckDB looks for signals between the steps of a query only, and a sort is one step.

    Raises:
        KeyboardInterrupt: it was interrupted.
    """
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work)
        try:
            return future.result()
        except KeyboardInterrupt:
            database.interrupt()
            raise


def is_interrupted_query(error: BaseException) -> bool:
    """Whether `error` is DuckDB's for a query that a signal ended; it replaces the KeyboardInterrupt."""
    return type(error) is RuntimeError and str(error) == "Query interrupted"


def run_interruptible(work: Awaitable[T]) -> T:
    """Run `work` to its end; Ctrl-C and SIGTERM cancel it, so that it settles its requests in flight.

    Returns:
        The result of `work`, also of one that ends in order when it is cancelled.

    Raises:
        KeyboardInterrupt: it was cancelled, by whichever signal.
    """
    import asyncio  # noqa: PLC0415 - not for commands that make no request

    is_main = threading.current_thread() is threading.main_thread()  # the only one that gets signals

    async def cancellable() -> T:
        task: asyncio.Task[Any] | None = asyncio.current_task()
        if task and is_main:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await work

    before = signal.getsignal(signal.SIGTERM)
    try:
        return asyncio.run(cancellable())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        if is_main:  # the loop leaves the default, which kills
            signal.signal(signal.SIGTERM, before)
