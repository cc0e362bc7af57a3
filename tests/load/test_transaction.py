"""What a block writes is committed as a whole, or not at all."""

from __future__ import annotations

import duckdb
import pytest

from pdsync.load.transaction import transaction


@pytest.fixture
def connection() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("CREATE TABLE numbers (number INTEGER PRIMARY KEY)")
    return connection


def numbers(connection: duckdb.DuckDBPyConnection) -> list[int]:
    return [row[0] for row in connection.execute("SELECT number FROM numbers ORDER BY number").fetchall()]


def is_open(connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether a transaction was left open: only then is there one to roll back."""
    try:
        connection.execute("ROLLBACK")
    except duckdb.TransactionException:
        return False
    return True


def test_a_block_that_ends_is_committed(connection: duckdb.DuckDBPyConnection) -> None:
    insert(connection, 1, 2)
    assert numbers(connection.cursor()) == [1, 2]
    assert not is_open(connection)


def insert(connection: duckdb.DuckDBPyConnection, *added: int, error: type[BaseException] | None = None) -> None:
    with transaction(connection):
        for number in added:
            connection.execute("INSERT INTO numbers VALUES (?)", [number])
        if error:
            raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, GeneratorExit])
def test_a_block_that_raises_writes_nothing(connection: duckdb.DuckDBPyConnection, error: type[BaseException]) -> None:
    with pytest.raises(error):
        insert(connection, 1, error=error)
    assert numbers(connection) == []
    assert not is_open(connection)


def test_a_failed_statement_is_the_error_that_the_caller_sees(connection: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(duckdb.ConstraintException):
        insert(connection, 1, 1)
    assert numbers(connection) == []
    assert not is_open(connection)


def test_a_failed_commit_is_the_error_that_the_caller_sees(connection: duckdb.DuckDBPyConnection) -> None:
    """DuckDB has rolled back already: that there is nothing left to roll back must not hide why."""
    other = connection.cursor()

    def both() -> None:
        with transaction(connection):
            connection.execute("INSERT INTO numbers VALUES (1)")
            insert(other, 1)

    with pytest.raises(duckdb.Error, match=r"(?i)duplicate key"):
        both()
    assert numbers(other) == [1]
    assert not is_open(connection)


def test_a_transaction_inside_another_is_refused_and_nothing_of_either_is_written(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    def nested() -> None:
        with transaction(connection):
            connection.execute("INSERT INTO numbers VALUES (1)")
            insert(connection, 2)

    with pytest.raises(duckdb.TransactionException):
        nested()
    assert numbers(connection) == []
    assert not is_open(connection)
