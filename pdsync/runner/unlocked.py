"""Opens a project without its lock, to read beside a run that has it: control.db, and the published warehouse.

Commands that only read import nothing else of the runner, so that they start fast.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from pdsync.core.control import Control
from pdsync.core.disk import state_errors
from pdsync.errors import ConfigError, FileLocked, StorageError
from pdsync.load import history, warehouse

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    import duckdb

    from pdsync.core.config import Settings


@contextlib.contextmanager
def open_control(settings: Settings) -> Iterator[Control]:
    """control.db, without the lock: other processes may use it at the same time. It is created where it is missing.

    Raises:
        StorageError: it can't be opened or read; also for an error inside the block.
    """
    control = Control(settings.control)
    try:
        with state_errors(settings.control):
            yield control
    finally:
        control.close()


def open_warehouse(
    settings: Settings, as_of: datetime | None = None, query: str | None = None
) -> duckdb.DuckDBPyConnection:
    """The published warehouse, read-only, and locked down: no other file, no network, no extension.

    The caller closes the connection.

    Args:
        settings: of the project.
        as_of: show the tables of records, and the views of them, as they were at this moment; `meta.*` is of today.
        query: what will be run as of that moment; views that it does not name are left out.

    Raises:
        ConfigError: there is none yet.
        StorageError: it can't be opened; says how to repair it.
    """
    path = settings.warehouse
    if not path.exists():
        raise ConfigError(f"There is no warehouse at {path} yet. Make one: pdsync sync")
    try:
        connection = warehouse.connect(path, read_only=True) if as_of is None else warehouse.attach(path, "published")
    except FileLocked:
        raise
    except StorageError as error:
        raise StorageError(f"{error}\nThe next run replaces it with an undamaged one: pdsync sync") from error
    if as_of is not None:
        history.show_as_of(connection, "published", as_of, query)
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection
