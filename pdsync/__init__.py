"""A Pipedrive company in a database you control.

pdsync.sync(project)             bring the warehouse up to date; returns the receipt
pdsync.open_warehouse(project)   a DuckDB connection to it, read-only
pdsync.Queue(project)            changes: add, plan (reads only), push, undo
pdsync.Client(project)           the API: call an operation, list records, carry out an action; inside `async with`
pdsync.errors                    what these raise: subclasses of PdsyncError, each with what to do next

A project is a folder, the current one by default. One that is missing, or has other files and is no project, is refused
without create=True. Streams are named apart: pdsync.sync(streams=["deals"]). Settings and tokens come from the same
places as for the command line. The functions that block also work where an event loop runs already, as in a notebook.

>>> receipt = pdsync.sync("my-project")
>>> pdsync.open_warehouse("my-project").sql("from sales.funnel")
>>> queue = pdsync.Queue("my-project")
>>> queue.add("updateDeal", id=42, title="Renamed")
>>> queue.push()
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pdsync.version import __version__

__all__ = ["Client", "Queue", "__version__", "open_warehouse", "sync"]

if TYPE_CHECKING:
    from pdsync.library import Client, Queue, open_warehouse, sync


def __getattr__(name: str) -> object:
    """Import the library when it is first used: the command line starts without it."""
    if name not in __all__:
        raise AttributeError(f"module 'pdsync' has no attribute {name!r}")
    from pdsync import library  # noqa: PLC0415

    return getattr(library, name)


def __dir__() -> list[str]:
    """The names that are offered, so that help() and completion show them."""
    return [*__all__, "errors"]
