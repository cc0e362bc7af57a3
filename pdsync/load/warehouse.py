"""Opens the DuckDB files, and keeps their tables in step with the catalogue and the custom fields.

There are two files. The *work* file belongs to the one process that has the project's lock; the *warehouse* is the file
that readers open, replaced as a whole after each run. Both have the same tables:

    main.<stream>        the current row of every record, deleted and merged ones included
    versions.<stream>    the earlier versions of the rows in main
    history.<stream>     a view of both: every version, with _valid_from and _valid_to
    main.<child>         a view: one row an element of a list
    labeled.<stream>     a view: names and labels in place of ids, which stay beside them
    meta.*               pdsync's own records: runs, checkpoints, custom fields, …

No table has a primary key or an index: uniqueness is the loader's job (`load.commit`), which is several times faster
and leaves no index that a crash could damage.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

import duckdb

from pdsync.core import disk
from pdsync.errors import FileLocked, StorageError, WrongCompany
from pdsync.sql import first, literal, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

MEMORY_LIMIT = "400MB"  # of DuckDB's own; beyond it spills to disk
ROW_GROUP = 61_440  # rows, half of DuckDB's default: as many are staged of each walk before they are committed
_HEADERS_BYTES = 3 * 4096  # of a DuckDB file, before its first block
# The columns that the loader adds to every row, after those of the record.
SYSTEM_COLUMNS = {
    "_extra": "JSON",
    "_synced_at": "TIMESTAMPTZ",
    "_verified_at": "TIMESTAMPTZ",
    "_run_id": "VARCHAR",
    "_deleted_at": "TIMESTAMPTZ",
    "_valid_from": "TIMESTAMPTZ",
    "_row_hash": "UBIGINT",
}


def connect(path: Path, *, read_only: bool = False, memory_limit: str = MEMORY_LIMIT) -> duckdb.DuckDBPyConnection:
    """Open a DuckDB file with pdsync's settings: UTC, no extension fetched, spilling beside the file.

    A missing file is created, and the rights of the file become 0600. With `read_only` neither happens, and DuckDB's
    defaults for memory and spilling apply.

    Raises:
        StorageError: it can't be opened; says why and what to do.
    """
    config: dict[str, str | bool | int | float | list[str]] = {"autoinstall_known_extensions": "false"}
    try:
        if read_only:
            # Attached to a database of its own: connections to one file in one process would share their settings.
            connection = duckdb.connect(config=config)
            connection.execute(f"ATTACH {literal(str(path))} AS warehouse (READ_ONLY)")
            connection.execute("USE warehouse")
        else:
            # Fetching and sealing use the other half; on two cores this saves a tenth of the processor time.
            config["threads"] = max(1, (os.cpu_count() or 2) // 2)
            connection = duckdb.connect(config=config)
            connection.execute(
                f"ATTACH {literal(str(path))} AS warehouse (STORAGE_VERSION 'v1.5.0', ROW_GROUP_SIZE {ROW_GROUP})"
            )
            connection.execute("USE warehouse")
            connection.execute(f"SET memory_limit = '{memory_limit}'")
            connection.execute(f"SET temp_directory = {literal(str(path) + '.tmp')}")
            # A larger batch is written once; a smaller one is written to the log first, and a second time later.
            connection.execute("SET checkpoint_threshold = '32MB'")
            connection.execute("SET preserve_insertion_order = false")  # or staging is written by one thread only
        connection.execute("SET TimeZone = 'UTC'")
    except duckdb.Error as error:
        raise _refusal(path, error) from error
    if not read_only and path.exists():
        path.chmod(0o600)
    return connection


def set_vacuum(connection: duckdb.DuckDBPyConnection, *, enabled: bool) -> None:
    """Enable or disable the merging of small and emptied row groups at checkpoints."""
    connection.execute("RESET max_vacuum_tasks" if enabled else "SET max_vacuum_tasks = 0")


def open_second(connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    """A second connection to a work file that `connect` opened, for another thread, with its own temporary tables."""
    other = connection.cursor()
    other.execute("USE warehouse")
    other.execute("SET TimeZone = 'UTC'")
    return other


def attach(path: Path, name: str) -> duckdb.DuckDBPyConnection:
    """A connection to an empty database in memory, with the file at `path` attached read-only as `name`.

    Raises:
        StorageError: the file can't be opened.
    """
    connection = duckdb.connect(config={"autoinstall_known_extensions": "false"})
    try:
        connection.execute(f"ATTACH {literal(str(path))} AS {quoted(name)} (READ_ONLY)")
        connection.execute("SET TimeZone = 'UTC'")
    except duckdb.Error as error:
        raise _refusal(path, error) from error
    return connection


def check_whole(path: Path, *, read_only: bool = False) -> None:
    """Open the file at `path` and check that its end is not cut off, which DuckDB notices only when it reads there.

    Raises:
        StorageError: it can't be opened, or is shorter than its header says.
    """
    connection = connect(path, read_only=read_only)
    try:
        block, total = first(
            connection.execute(
                "SELECT block_size, total_blocks FROM pragma_database_size() WHERE database_name = current_database()"
            )
        )
        there = (path.stat().st_size - _HEADERS_BYTES) // block
        # DuckDB itself cuts off free blocks at the end, and notes it one checkpoint later.
        needed = total if there >= total else _last_block(connection) + 1
    except duckdb.Error as error:
        raise StorageError(f"{path} is cut off, or damaged: {disk.first_line(error)}") from error
    finally:
        connection.close()
    if there < needed:
        raise StorageError(f"{path} is cut off: it should have {needed} blocks of {block} bytes.")


def _last_block(connection: duckdb.DuckDBPyConnection) -> int:
    """The number of the last block that the tables or the metadata of the file use."""
    files_tables = "FROM duckdb_tables() WHERE database_name = current_database() AND NOT temporary"
    blocks = "greatest(max(block_id), max(list_max(additional_block_ids)))"  # the others are of long texts
    last = first(connection.execute("SELECT max(block_id) FROM pragma_metadata_info()"))[0] or 0
    for schema, table in connection.execute(f"SELECT schema_name, table_name {files_tables}").fetchall():
        segments = f"pragma_storage_info({literal(quoted(schema, table))}) WHERE persistent"
        last = max(last, first(connection.execute(f"SELECT {blocks} FROM {segments}"))[0] or 0)
    return int(last)


def _refusal(path: Path, error: duckdb.Error) -> StorageError:
    """The error of a file that DuckDB does not open."""
    message = disk.first_line(error)
    if "set lock" in message:  # and not "block": those are damaged files
        return FileLocked(
            f"{path} is locked by another program ({message}).\n"
            f"Nothing was changed. Close that program, or open the warehouse read-only there, and run the same command."
        )
    if not os.access(path.parent, os.W_OK):
        return StorageError(
            f"The folder {path.parent} can't be written. Nothing was called; mend its rights: pdsync doctor"
        )
    return StorageError(
        f"{path} can't be opened as a DuckDB file ({message}).\n{disk.advice_for(error) or ''}".rstrip()
    )


def prepare(connection: duckdb.DuckDBPyConnection, meta_sql: str, company_id: int, company: str) -> None:
    """Create the schemas and meta tables that are missing, and tie the file to its company.

    Raises:
        WrongCompany: the file belongs to another company. Nothing was changed.
    """
    existing = None
    if _columns(connection, "meta", "company"):
        existing = first(connection.execute("SELECT company_id FROM meta.company"))
    if existing and existing[0] != company_id:
        raise WrongCompany(expected=int(existing[0]), found=company_id, name=company)
    connection.execute(meta_sql)
    if not existing:
        connection.execute("INSERT INTO meta.company VALUES (?, ?)", [company_id, company])


def ensure_table(connection: duckdb.DuckDBPyConnection, table: str, columns: dict[str, str]) -> list[str]:
    """Create `table` with its history, or add missing columns; the names of those that an existing table got.

    A column is never dropped, renamed or retyped: earlier values stay readable.
    """
    wanted = {**columns, **SYSTEM_COLUMNS}
    added: list[str] = []
    for schema, more in (("main", {}), ("versions", {"_valid_to": "TIMESTAMPTZ"})):
        have = _columns(connection, schema, table)
        if not have:
            body = ", ".join(f"{quoted(column)} {kind}" for column, kind in {**wanted, **more}.items())
            connection.execute(f"CREATE TABLE {quoted(schema, table)} ({body})")
            continue
        for column, kind in wanted.items():
            if column not in have:
                default = " DEFAULT []" if kind.endswith("[]") else ""
                connection.execute(f"ALTER TABLE {quoted(schema, table)} ADD COLUMN {quoted(column)} {kind}{default}")
                if schema == "main":
                    added.append(column)
    return added


def ensure_hashes(connection: duckdb.DuckDBPyConnection, table: str, row_hash: str) -> None:
    """Recompute the row hashes of `table` where they were made of other columns, or by another hash of DuckDB.

    Otherwise a new column, or an upgrade, would make every row look changed. To be called in a transaction.
    """
    probe = first(connection.execute("SELECT hash('pdsync', 1::BIGINT, NULL::DATE)"))[0]
    made_of = f"{probe} {row_hash}"
    existing = first(connection.execute("SELECT made_of FROM meta._row_hashes WHERE table_name = ?", [table]))
    if existing and existing[0] == made_of:
        return
    connection.execute(f"UPDATE {quoted('main', table)} SET _row_hash = {row_hash} WHERE _row_hash <> 0")
    connection.execute("DELETE FROM meta._row_hashes WHERE table_name = ?", [table])
    connection.execute("INSERT INTO meta._row_hashes VALUES (?, ?)", [table, made_of])


def _columns(connection: duckdb.DuckDBPyConnection, schema: str, table: str) -> list[str]:
    rows = connection.execute(
        "SELECT column_name FROM duckdb_columns() WHERE database_name = current_database()"
        " AND schema_name = ? AND table_name = ? ORDER BY column_index",
        [schema, table],
    ).fetchall()
    return [row[0] for row in rows]


def columns_of_tables(connection: duckdb.DuckDBPyConnection, schema: str = "main") -> dict[str, list[str]]:
    """The columns of each table and view of `schema`, in order."""
    rows = connection.execute(
        "SELECT table_name, list(column_name ORDER BY column_index) FROM duckdb_columns()"
        " WHERE database_name = current_database() AND schema_name = ? GROUP BY table_name",
        [schema],
    ).fetchall()
    return dict(rows)


def tables(connection: duckdb.DuckDBPyConnection) -> set[str]:
    """The streams that have a table."""
    rows = connection.execute(
        "SELECT table_name FROM duckdb_tables() WHERE database_name = current_database() AND schema_name = 'main'"
    ).fetchall()
    return {row[0] for row in rows}


def newest_time(connection: duckdb.DuckDBPyConnection) -> datetime | None:
    """The latest server time at which a row was verified, UTC; None if there is no row."""
    seen = " UNION ALL ".join(
        f"SELECT max(_verified_at) AS seen FROM {quoted('main', table)}" for table in tables(connection)
    )
    newest = first(connection.execute(f"SELECT max(seen) FROM ({seen})"))[0] if seen else None
    return newest.astimezone(UTC) if newest else None


def history_view(table: str) -> str:
    """What (re)creates `history.<table>`: earlier versions and the current one."""
    return (
        f"CREATE OR REPLACE VIEW {quoted('history', table)} AS"
        f" SELECT * EXCLUDE (_row_hash), NULL::TIMESTAMPTZ AS _valid_to FROM {quoted('main', table)}"
        f" UNION ALL BY NAME SELECT * EXCLUDE (_row_hash) FROM {quoted('versions', table)}"
    )


def child_views(
    child: str, table: str, key: str, parent: str, column: str, items: Sequence[str], value: str | None
) -> list[str]:
    """What (re)creates the views of a list: its parent's key, the position from 1 on, and the element."""
    shown = zip(items, distinct(items, (parent, "position")), strict=True)
    values = (
        f"e.element AS {quoted(value)}"
        if value
        else ", ".join(f"e.element.{quoted(item)} AS {quoted(name)}" for item, name in shown)
    )
    return [
        f"CREATE OR REPLACE VIEW {quoted(schema, child)} AS"
        f" SELECT t.{quoted(key)} AS {quoted(parent)}, e.position, {values}{extra} FROM {quoted(schema, table)} t,"
        f" unnest(t.{quoted(column)}) WITH ORDINALITY AS e(element, position)"
        for schema, extra in (("main", ""), ("history", ", t._valid_from, t._valid_to"))
    ]


class LabeledColumn(NamedTuple):
    """What a column of `labeled.<table>` shows."""

    column: str  # of the table
    table: str = ""  # the table that it points to, where that record's name is shown,
    key: str = ""
    title: str = ""  # the column with the name
    labels: str = ""  # the column with its labels, where those are shown
    code: str = ""  # the built-in field whose options it has, where their labels are shown
    many: bool = False  # a list of ids: of options, or of records of `table`


def labeled_columns(
    columns: Sequence[str],
    references: Mapping[str, LabeledColumn],
    replaced: Mapping[str, str],
    options: Mapping[str, LabeledColumn],
) -> dict[str, LabeledColumn]:
    """The columns of `labeled.<table>` by name: names and labels, each with its id beside it.

    The id keeps the name of its column; where the label has that name, `_id` or `_option_id` is appended. No other
    column gives way to an id.

    Args:
        columns: those of the table, in order.
        references: column of ids of records → what is shown for it.
        replaced: column of option ids → the column with their labels.
        options: column of option ids of a built-in field → what is shown for it.
    """
    left_out = {*replaced.values(), *SYSTEM_COLUMNS} - {"_deleted_at"}
    shown, ids = [], []  # (name, source); an id is at the place of its label, or None
    for column in columns:
        if column in left_out:
            continue
        id_name = ""
        if column == "label_ids":
            in_field = LabeledColumn(column, code=column, many=True)
            name, source, id_name = "labels", references.get(column, in_field), column
        elif column in references:
            # The column of a custom field is named after its label, whatever that ends in.
            name, source = column if column.startswith("cf_") else column.removesuffix("_id"), references[column]
            id_name = column if name != column else f"{column}_id"
        elif label := replaced.get(column):
            name, source = column, LabeledColumn(column, labels=label)
            id_name = f"{column}_option_ids" if label.endswith("_labels") else f"{column}_option_id"
        elif column in options:
            name, source = column, options[column]
            id_name = f"{column}_option_ids" if source.many else f"{column}_option_id"
        else:
            name, source = column, LabeledColumn(column)
        shown.append((name, source))
        ids.append(id_name)
    names = distinct([name for name, _ in shown])
    id_names = iter(distinct([name for name in ids if name], names))
    result: dict[str, LabeledColumn] = {}
    for name, (_, source), id_name in zip(names, shown, ids, strict=True):
        result[name] = source
        if id_name:
            result[next(id_names)] = LabeledColumn(source.column)
    return result


def labeled_view(table: str, columns: Mapping[str, LabeledColumn]) -> str:
    """What (re)creates `labeled.<table>` with `columns`."""
    selected: list[str] = []
    joins: list[str] = []
    for name, source in columns.items():
        column = f"t.{quoted(source.column)}"
        if source.table and source.many:
            title, key = f"o.{quoted(source.title)}", f"o.{quoted(source.key)}"
            shown = (
                f"(SELECT list({title} ORDER BY {title}) FROM {quoted('main', source.table)} o"
                f" WHERE list_contains({column}, {key}))"
            )
        elif source.table:
            alias = f"j{len(joins)}"
            joins.append(f"LEFT JOIN {quoted('main', source.table)} {alias} ON {alias}.{quoted(source.key)} = {column}")
            shown = f"{alias}.{quoted(source.title)}"
        elif source.code:
            shown = _option_labels(table, source, column)
        else:
            shown = f"t.{quoted(source.labels or source.column)}"
        selected.append(f"{shown} AS {quoted(name)}")
    return (
        f"CREATE OR REPLACE VIEW {quoted('labeled', table)} AS"
        f" SELECT {', '.join(selected)} FROM {quoted('main', table)} t {' '.join(joins)}"
    )


def _option_labels(table: str, source: LabeledColumn, column: str) -> str:
    """The labels of options of a built-in field: a list of those that are known, or one, else the id itself."""
    codes = ("label_ids", "label") if source.column == "label_ids" else (source.code,)
    of_field = (
        f"FROM meta.field_options o WHERE o.entity = {literal(table)}"
        f" AND o.field_code IN ({', '.join(map(literal, codes))})"
    )
    if source.many:
        return f"(SELECT list(o.label ORDER BY o.label) {of_field} AND list_contains({column}::VARCHAR[], o.option_id))"
    return f"coalesce((SELECT any_value(o.label) {of_field} AND o.option_id = {column}::VARCHAR), {column}::VARCHAR)"


def distinct(names: Sequence[str], taken: Iterable[str] = ()) -> list[str]:
    """`names`, with _1, _2, … at those that are `taken` or came before: a view can't have two columns of one name."""
    used = {name.lower() for name in taken}
    result = []
    for name in names:
        candidates = (name, *(f"{name}_{number}" for number in range(1, len(names) + len(used) + 1)))
        result.append(next(each for each in candidates if each.lower() not in used))
        used.add(result[-1].lower())
    return result
