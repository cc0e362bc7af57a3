"""Opens the roll-up of a fleet as one database: a view `fleet.<table>` over the files of all accounts.

The views have the columns and types of the catalogue, and read the files of accounts in fleet.toml only. Nothing else
of this machine can be read through them. What is in an object store is copied to data/fleet/rollup-copy first, file by
file, and only where it changed.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from pdsync.core import catalogue, disk
from pdsync.core.atomic_file import AtomicFile
from pdsync.errors import ConfigError, StorageError
from pdsync.fleet import rollup, rollup_tables
from pdsync.fleet.rollup_tables import ACCOUNTS
from pdsync.sql import literal, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pdsync.fleet.accounts import Account, Fleet
    from pdsync.fleet.store import Store

SCHEMA = "fleet"
COPY = "rollup-copy"
_PARALLEL = 16  # files copied at once
_ABOUT_TABLES = {"show", "describe", "information_schema", "duckdb_tables", "duckdb_views", "duckdb_columns"}
_COMPUTED_NAMES = {"query", "query_table", "u"}  # functions, and U&"…", that name a table in no way that text shows


class Answers:
    """The roll-up as a database to be queried: `connection`, and the accounts that have no rows for the query."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, missing: dict[str, list[str]]) -> None:
        self.connection = connection
        self.missing = missing  # table that the query names → accounts without a file of it

    def __enter__(self) -> Answers:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()


def open_answers(fleet: Fleet, query: str) -> Answers:
    """Open the roll-up of `fleet`, with the views that `query` may read.

    Args:
        fleet: whose accounts are shown.
        query: what will be run: files of tables that it does not name are not opened.

    Raises:
        ConfigError: the query may write a file by COPY, or names, as fleet.NAME, a stream that is not in the roll-up.
        StorageError: a file of the roll-up can't be read.
    """
    target = rollup.target_of(fleet)
    words = set(re.findall(r"\w+", query.lower()))
    named = [table for table in target.tables if table in words or words & _COMPUTED_NAMES]
    _refuse(query, words, target.tables, fleet)
    files = _find_files(fleet, named)
    connection = duckdb.connect(config={"autoinstall_known_extensions": "false"})
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(f"CREATE SCHEMA {quoted(SCHEMA)}")
    connection.execute(f"USE {quoted(SCHEMA)}")
    try:
        for table in target.tables if words & _ABOUT_TABLES else named:
            view = _columns(table, list(files.get(table, {}).values()))
            if table == ACCOUNTS:
                view = _with_tags(fleet.accounts.values(), view)
            connection.execute(f"CREATE VIEW {quoted(SCHEMA, table)} AS {view}")
    except duckdb.Error as error:
        connection.close()
        raise StorageError(
            f"The roll-up can't be read: {disk.first_line(error)}.\nWrite all of it again: pdsync fleet rollup --full"
        ) from error
    listed = ", ".join(literal(str(path)) for found in files.values() for path in found.values())
    connection.execute(f"SET allowed_paths = [{listed}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    missing = {table: [name for name in fleet.accounts if name not in files[table]] for table in named}
    return Answers(connection, {table: names for table, names in missing.items() if names})


def _refuse(query: str, words: set[str], tables: Sequence[str], fleet: Fleet) -> None:
    """Refuse a query that could write into the files of the roll-up, or that names a stream that is not in it."""
    try:
        kinds = {statement.type for statement in duckdb.extract_statements(query)}
    except duckdb.Error:  # DuckDB says what is wrong when it runs it
        kinds = set()
    # EXPLAIN ANALYZE and PREPARE can run a COPY too; in a SELECT the word is a name.
    if duckdb.StatementType.COPY in kinds or ("copy" in words and kinds - {duckdb.StatementType.SELECT}):
        raise ConfigError("A query of the fleet only reads, so COPY is refused. For a file: -o parquet > FILE")
    plain = query.lower().replace('"', "")
    for name in sorted(set(re.findall(rf"\b{SCHEMA}\.(\w+)", plain)) & catalogue.streams().keys() - set(tables)):
        chosen = ", ".join(f'"{each}"' for each in (*fleet.rollup, name))
        raise ConfigError(
            f"{SCHEMA}.{name} is not in the roll-up. Choose it in {fleet.file}, [fleet]: rollup = [{chosen}]\n"
            f"Then bring it together: pdsync fleet rollup"
        )


def _columns(table: str, files: Sequence[Path]) -> str:
    """The query for the rows of `files`: `account`, and the columns of the catalogue with its types."""
    empty = rollup_tables.empty(table)
    if not files:
        return empty
    listed = ", ".join(literal(str(file)) for file in files)
    source = f"read_parquet([{listed}], union_by_name = true, hive_partitioning = true, hive_types_autocast = false)"
    # A file of an earlier version may lack a column, so may all: the empty query has them.
    columns = {"account": "VARCHAR", **rollup_tables.columns_of(table)}
    chosen = ", ".join(f"CAST({quoted(name)} AS {kind}) AS {quoted(name)}" for name, kind in columns.items())
    return f"SELECT {chosen} FROM ({empty} UNION ALL BY NAME FROM {source})"


def _with_tags(accounts: Iterable[Account], rows: str) -> str:
    """The query for fleet.accounts: each account of fleet.toml with its tags, whether it has a row in `rows` or not."""
    listed = ", ".join(
        f"({number}, {literal(account.name)}, [{', '.join(map(literal, account.tags))}]::VARCHAR[])"
        for number, account in enumerate(accounts)
    )
    return (
        f"SELECT a.account, a.tags, r.* EXCLUDE (account) FROM (VALUES {listed}) a(number, account, tags)"
        f" LEFT JOIN ({rows}) r USING (account) ORDER BY a.number"
    )


# The files.


def _find_files(fleet: Fleet, tables: Sequence[str]) -> dict[str, dict[str, Path]]:
    """By table and account: the file on this machine, for the accounts of fleet.toml that have one."""
    store = rollup.target_of(fleet).open()
    is_remote = "://" in store.where
    root = fleet.data / COPY if is_remote else Path(store.where)
    if is_remote:
        _copy(store, root, list(fleet.accounts), tables)
    files = {table: {name: root / rollup.path_of(table, name) for name in sorted(fleet.accounts)} for table in tables}
    return {table: {name: path for name, path in found.items() if path.is_file()} for table, found in files.items()}


def _copy(store: Store, root: Path, accounts: Sequence[str], tables: Sequence[str]) -> None:
    """Bring the copy in `root` in line with the store: the files of `tables`, of no other account than `accounts`."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    for folder in root.glob("*/account=*"):
        if folder.name.removeprefix("account=") not in accounts:
            shutil.rmtree(folder)
    with ThreadPoolExecutor(_PARALLEL) as pool:
        list(pool.map(lambda name: _copy_account(store, root, name, tables), accounts))


def _copy_account(store: Store, root: Path, account: str, tables: Sequence[str]) -> None:
    catalog = rollup.read_catalog(store, account)
    for table in tables:
        path = root / rollup.path_of(table, account)
        mark = path.with_name("part.sha256")
        file = catalog.tables.get(table)
        if file is None:
            path.unlink(missing_ok=True)
        elif not path.is_file() or not mark.is_file() or mark.read_text(encoding="ascii") != file.sha256:
            mark.unlink(missing_ok=True)
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            digest = hashlib.sha256()  # not the catalogue's: the file may have been written again since
            try:
                with AtomicFile(path) as writer:
                    for piece in store.download(file.path):
                        digest.update(piece)
                        writer.write(piece)
            except FileNotFoundError:  # the account is being removed
                path.unlink(missing_ok=True)
                continue
            with AtomicFile(mark) as writer:
                writer.write(digest.hexdigest().encode())
