"""The names of one company, as the warehouse of the last sync has them: custom fields, options, records.

Everything is empty where nothing was synced yet. Fields, options, ids and short lists are cached as long as the object
lives: a file may name the same user on every row. Titles of records and labels of built-in fields are not.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from pdsync.core import catalogue
from pdsync.sql import first, quoted
from pdsync.writeback.typed_values import Option

if TYPE_CHECKING:
    import duckdb

    from pdsync.model import Stream

FIELD_CODE = re.compile(r"[0-9a-f]{40}")
_MAX_SAME = 7  # records of one name that are read: more are not listed in a message
_MAX_TITLES = 20_000  # names that are compared to find a similar one


class Field(Struct, frozen=True):
    """A custom field, with its names: the label for people, the column of the warehouse, the code of the API."""

    code: str
    label: str
    column: str
    type: str
    exists: bool = True  # whether the newest list of fields has it; otherwise it was deleted


class CompanyNames:
    """The names of one company.

    Args:
        warehouse: a connection; None where nothing was synced yet.
    """

    def __init__(self, warehouse: duckdb.DuckDBPyConnection | None) -> None:
        self._warehouse = warehouse
        self._fields: dict[str, list[Field]] = {}
        self._options: dict[tuple[str, str], list[Option]] = {}
        self._records: dict[tuple[str, str], list[Option]] = {}
        self._ids: dict[tuple[str, str, bool, int | None], list[Any]] = {}
        self._in_use: dict[tuple[str, str], list[str]] = {}
        self._inactive: set[str] | None = None  # ids of users
        self._currencies: list[str] | None = None
        self._types: dict[tuple[str, str], str] = {}
        self._tables = {row[0] for row in self._rows(
            "SELECT table_name FROM duckdb_tables() WHERE schema_name = 'main' AND database_name = current_database()"
        )}  # fmt: skip

    def has_table(self, table: str) -> bool:
        """Whether the records of a stream were synced."""
        return table in self._tables

    def custom_fields(self, stream: Stream | None) -> list[Field]:
        """The custom fields of a stream, those that exist first."""
        if stream is None:
            return []
        if stream.name not in self._fields:
            rows = self._rows(
                "SELECT field_code, label, column_name, field_type, coalesce(last_seen = max(last_seen) OVER (), true)"
                " FROM meta.custom_fields WHERE entity = ? ORDER BY last_seen DESC, column_name",
                stream.name,
            )
            self._fields[stream.name] = [Field(*row) for row in rows]
        return self._fields[stream.name]

    def built_in_codes(self, stream: Stream, label: str) -> list[str]:
        """The codes of the built-in fields that have this label in the company's language."""
        if not stream.fields or not self.has_table(stream.fields):
            return []
        rows = self._rows(
            f"SELECT field_code FROM {quoted('main', stream.fields)} WHERE lower(trim(field_name)) = lower(trim(?))"
            " AND _deleted_at IS NULL",
            label,
        )
        return [row[0] for row in rows if not FIELD_CODE.fullmatch(row[0])]

    def built_in_label(self, stream: Stream | None, code: str) -> str | None:
        """The label of a built-in field in the company's language; None where it is not known."""
        if stream is None or not stream.fields or not self.has_table(stream.fields):
            return None
        rows = self._rows(
            f"SELECT field_name FROM {quoted('main', stream.fields)} WHERE field_code = ? AND _deleted_at IS NULL", code
        )
        return str(rows[0][0]) if rows and rows[0][0] else None

    def field_type(self, stream: Stream | None, code: str) -> str:
        """The type that Pipedrive gives a built-in field; empty where it is not known."""
        if stream is None or not stream.fields or not self.has_table(stream.fields):
            return ""
        if (stream.name, code) not in self._types:
            rows = self._rows(f"SELECT field_type FROM {quoted('main', stream.fields)} WHERE field_code = ?", code)
            self._types[stream.name, code] = str(rows[0][0]) if rows else ""
        return self._types[stream.name, code]

    def options(self, stream: Stream | None, code: str) -> list[Option]:
        """The options of a field."""
        if stream is None:
            return []
        if (stream.name, code) not in self._options:
            rows = self._rows(
                "SELECT option_id, coalesce(label, '') FROM meta.field_options WHERE entity = ? AND field_code = ?",
                stream.name,
                code,
            )
            self._options[stream.name, code] = [Option(*row) for row in rows]
        return self._options[stream.name, code]

    def records_as_options(self, table: str, key: str = "") -> list[Option]:
        """All records of a short list, such as the labels of leads, as options; their id is the column `key`."""
        if not self.has_table(table):
            return []
        if (table, key) not in self._records:
            id, title = quoted(key or catalogue.stream(table).key), quoted(_title_column(table))
            rows = self._rows(
                f"SELECT {id}::VARCHAR, coalesce({title}, '') FROM {quoted('main', table)}"
                f" WHERE _deleted_at IS NULL AND {id} IS NOT NULL"
            )
            self._records[table, key] = [Option(*row) for row in rows]
        return self._records[table, key]

    def values_in_use(self, table: str, column: str) -> list[str]:
        """The values that the records of a table have in a column of few different ones."""
        if not self.has_table(table):
            return []
        if (table, column) not in self._in_use:
            name = quoted(column)
            rows = self._rows(f"SELECT DISTINCT {name} FROM {quoted('main', table)} WHERE {name} IS NOT NULL")
            self._in_use[table, column] = [str(row[0]) for row in rows]
        return self._in_use[table, column]

    def ids_named(self, table: str, name: str, *, deleted: bool = False, pipeline: int | None = None) -> list[Any]:
        """The ids of the records with this name, whatever its case; of a user the e-mail address is a name too.

        Only the first `_MAX_SAME` in the order of their ids are returned.

        Args:
            table: of the records.
            name: as it was given.
            deleted: those that were deleted, and no others.
            pipeline: only the stages of this one.
        """
        if (table, name, deleted, pipeline) not in self._ids:
            columns = [_title_column(table), *(["email"] if table == "users" else [])]
            where = " OR ".join(f"lower(trim({quoted(column)})) = lower(trim(?))" for column in columns)
            of_pipeline = "" if pipeline is None else " AND pipeline_id = ?"
            rows = self._rows(
                f"SELECT {quoted(catalogue.stream(table).key)} FROM {quoted('main', table)}"
                f" WHERE ({where}) AND (_deleted_at IS NOT NULL) = ?{of_pipeline} ORDER BY 1 LIMIT {int(_MAX_SAME)}",
                *[name] * len(columns),
                deleted,
                *([] if pipeline is None else [pipeline]),
            )
            self._ids[table, name, deleted, pipeline] = [row[0] for row in rows]
        return self._ids[table, name, deleted, pipeline]

    def existing_keys(self, stream: Stream, keys: list[str]) -> set[str]:
        """Those of `keys` that a record of a stream has, deleted or not."""
        key = f"{quoted(stream.key)}::VARCHAR"
        sql = f"SELECT {key} FROM {quoted('main', stream.name)} WHERE {key} IN (SELECT unnest(?::VARCHAR[]))"
        return {row[0] for row in self._rows(sql, keys)}

    def count_rows(self, stream: Stream) -> int | None:
        """How many records of a stream there are that were not deleted; None where it was not synced."""
        if not self.has_table(stream.name):
            return None
        sql = f"SELECT count(*) FROM {quoted('main', stream.name)} WHERE _deleted_at IS NULL"
        return int(self._rows(sql)[0][0])

    def is_inactive(self, user: object) -> bool:
        """Whether a user can't log in any more: deactivated or deleted."""
        if not self.has_table("users"):
            return False
        if self._inactive is None:
            rows = self._rows("SELECT id::VARCHAR FROM users WHERE active_flag IS FALSE OR _deleted_at IS NOT NULL")
            self._inactive = {row[0] for row in rows}
        return str(user) in self._inactive

    def titles(self, table: str) -> list[str]:
        """The names of the records of a table, to look for a similar one."""
        title = quoted(_title_column(table))
        rows = self._rows(
            f"SELECT DISTINCT {title} FROM {quoted('main', table)}"
            f" WHERE {title} IS NOT NULL AND _deleted_at IS NULL LIMIT {int(_MAX_TITLES)}"
        )
        return [str(row[0]) for row in rows]

    def title(self, table: str, key: object) -> str | None:
        """The name of the record with this key; None where it is not known."""
        if not self.has_table(table) or self._warehouse is None:
            return None
        row = first(
            self._warehouse.execute(
                f"SELECT {quoted(_title_column(table))} FROM {quoted('main', table)}"
                f" WHERE {quoted(catalogue.stream(table).key)}::VARCHAR = ?",
                [str(key)],
            )
        )
        return str(row[0]) if row and row[0] is not None else None

    def currency(self, stream: Stream, key: str) -> str | None:
        """The currency of the record with this key; None where it is not known."""
        if not self.has_table(stream.name):
            return None
        sql = f"SELECT currency FROM {quoted('main', stream.name)} WHERE {quoted(stream.key)}::VARCHAR = ?"
        return next((row[0] for row in self._rows(sql, key)), None)

    def currency_codes(self) -> list[str]:
        """The codes of the company's currencies; empty where they were not synced."""
        if not self.has_table("currencies"):
            return []
        if self._currencies is None:
            self._currencies = [row[0] for row in self._rows("SELECT code FROM currencies WHERE code IS NOT NULL")]
        return self._currencies

    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        return [] if self._warehouse is None else self._warehouse.execute(query, list(values)).fetchall()


def _title_column(table: str) -> str:
    return catalogue.stream(table).title
