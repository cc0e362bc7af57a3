"""A transaction of the warehouse: all of it, or nothing."""

from __future__ import annotations

import duckdb
import pytest

from pdsync.load.transaction import transaction


def _rows(connection: duckdb.DuckDBPyConnection) -> list[tuple[int]]:
    return connection.execute("FROM numbers ORDER BY 1").fetchall()


def _write_and_fail(connection: duckdb.DuckDBPyConnection, error: type[BaseException]) -> None:
    with transaction(connection):
        connection.execute("INSERT INTO numbers VALUES (1)")
        raise error


def test_what_is_written_is_committed() -> None:
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE numbers (n INTEGER)")
        with transaction(connection):
            connection.execute("INSERT INTO numbers VALUES (1)")
        connection.execute("BEGIN")  # no transaction is left open
        connection.execute("ROLLBACK")
        assert _rows(connection) == [(1,)]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, duckdb.Error])
def test_an_error_takes_everything_back_and_is_passed_on(error: type[BaseException]) -> None:
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE numbers (n INTEGER)")
        with pytest.raises(error):
            _write_and_fail(connection, error)
        with transaction(connection):  # the connection is usable
            connection.execute("INSERT INTO numbers VALUES (2)")
        assert _rows(connection) == [(2,)]
