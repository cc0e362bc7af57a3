"""pdsync: a Pipedrive company in a database you control. `pdsync.library` tells what is offered here."""

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
