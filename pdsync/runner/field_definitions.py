"""Brings the custom fields of a stream in line with the definitions that were synced: columns, options, schema log."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pdsync.core import catalogue
from pdsync.core.custom_fields import CustomField, SchemaChange
from pdsync.load import late_fields, warehouse
from pdsync.load.commit import note_change
from pdsync.load.transaction import transaction
from pdsync.normalise import tables
from pdsync.sql import first, quoted

if TYPE_CHECKING:
    import duckdb

    from pdsync.model import Stream


def read(connection: duckdb.DuckDBPyConnection, stream: Stream) -> list[CustomField]:
    """The custom fields that a stream has columns for, in the order in which they were first seen."""
    rows = connection.execute(
        "SELECT entity, field_code, field_type, label, column_name, first_seen, last_seen FROM meta.custom_fields"
        " WHERE entity = ? ORDER BY first_seen, column_name",
        [stream.name],
    ).fetchall()
    return [CustomField(*row) for row in rows]


def has_late_fields(connection: duckdb.DuckDBPyConnection, stream: Stream, at: datetime | None) -> bool:
    """Whether `update` will add columns whose values some rows have in `_extra`: see `load.late_fields`."""
    if not _has_definitions(connection, stream):
        return False
    _, _, added = _assign(connection, stream, at)
    return late_fields.oldest_row(connection, stream, added) is not None


def update(
    connection: duckdb.DuckDBPyConnection, stream: Stream, run_id: str, at: datetime | None
) -> list[SchemaChange] | None:
    """Store the custom fields of a stream, in one transaction.

    Where rows have values of new columns in `_extra`, the stream's watermarks are set back to the oldest of them.

    Args:
        connection: to the work file.
        stream: its fields.
        run_id: of the run that sees the changes.
        at: when the definitions were read; None: now.

    Returns:
        The changes that no run has recorded; None if no definitions were ever synced.
    """
    if not _has_definitions(connection, stream):
        return None
    fields, changes, added = _assign(connection, stream, at)
    oldest = late_fields.oldest_row(connection, stream, added)
    with transaction(connection):
        if oldest:
            late_fields.request_again(connection, stream, oldest)
        connection.execute("DELETE FROM meta.custom_fields WHERE entity = ?", [stream.name])
        for field in fields:
            connection.execute(
                "INSERT INTO meta.custom_fields VALUES (?, ?, ?, ?, ?, ?, ?)",
                [stream.name, field.code, field.label, field.column, field.type, field.first_seen, field.last_seen],
            )
        return [change for change in changes if note_change(connection, run_id, change, at)]


def update_options(connection: duckdb.DuckDBPyConnection, stream: Stream) -> bool:
    """Store the options of a stream's fields, by the definitions that were synced; whether any has changed.

    To be called in the transaction that brings the labels of its rows up to date.
    """
    stored = "SELECT entity, field_code, option_id, label FROM meta.field_options WHERE entity = $entity"
    defined = (
        "SELECT $entity, field_code, o.option.id, o.option.label"
        f" FROM {quoted('main', stream.fields or '')}, unnest(options) AS o(option)"
        " WHERE o.option.id IS NOT NULL AND _deleted_at IS NULL"
    )
    entity = {"entity": stream.name}
    differing = f"(({stored}) EXCEPT ALL ({defined})) UNION ALL (({defined}) EXCEPT ALL ({stored}))"
    if not first(connection.execute(f"SELECT count(*) FROM ({differing})", entity))[0]:
        return False
    connection.execute("DELETE FROM meta.field_options WHERE entity = $entity", entity)
    connection.execute(f"INSERT INTO meta.field_options {defined}", entity)
    return True


def _has_definitions(connection: duckdb.DuckDBPyConnection, stream: Stream) -> bool:
    return stream.fields is not None and stream.fields in warehouse.tables(connection)


def _assign(
    connection: duckdb.DuckDBPyConnection, stream: Stream, at: datetime | None
) -> tuple[list[CustomField], list[SchemaChange], list[str]]:
    """The custom fields by the synced definitions, what has changed, and the codes of those that get a column."""
    definitions = connection.execute(
        f"SELECT field_code, coalesce(field_name, ''), coalesce(field_type, 'varchar')"
        f" FROM {quoted('main', stream.fields or '')} WHERE _deleted_at IS NULL AND _verified_at >= coalesce("
        "(SELECT min(watermark) FROM meta.checkpoints WHERE stream = ?), _verified_at) ORDER BY field_code",
        [stream.fields],
    ).fetchall()
    existing = read(connection, stream)
    fields, changes = tables.assign(stream, definitions, existing, catalogue.field_types(), at or datetime.now(UTC))
    changes = [change for change in changes if existing or change.kind != "field_added"]
    before = {(field.code, field.type) for field in existing}
    return fields, changes, sorted({field.code for field in fields if (field.code, field.type) not in before})
