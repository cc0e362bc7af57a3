"""All or nothing: the one way in which the loader and the reports write several statements to a DuckDB file."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import duckdb

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def transaction(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Commit what the block writes when it ends, or roll all of it back when it raises.

    Raises:
        duckdb.Error: the commit failed; nothing was written.
        duckdb.TransactionException: `connection` is in a transaction already; that one can only be rolled back.
    """
    connection.execute("BEGIN")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(duckdb.Error):  # a commit that failed has rolled back already; the caller needs its error
            connection.execute("ROLLBACK")
        raise
