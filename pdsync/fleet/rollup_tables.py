"""Decides what the tables of a roll-up are: their columns, with types from the catalogue, and the SQL that fills them.

There are three kinds: streams by name (`deals`), the sales views (`sales_funnel`), and `accounts`, with a row for each
account. Nothing is inferred from data, so the files of all accounts have the same columns, whatever custom fields a
company has, and whether it has rows or not.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import cache
from typing import TYPE_CHECKING, Any

from pdsync.core import catalogue
from pdsync.core.disk import state_errors
from pdsync.load import warehouse
from pdsync.runner.report.health import read_health
from pdsync.sql import first, literal, quoted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    import duckdb

    from pdsync.core.config import Settings
    from pdsync.model import Stream

ACCOUNTS = "accounts"
SALES = "sales_"  # begins the name of the table of a sales view
_KEPT = {"_extra": "JSON", "_synced_at": "TIMESTAMPTZ", "_deleted_at": "TIMESTAMPTZ"}  # of the loader's own columns
_CUSTOM = {"custom_fields": "JSON", "custom_fields_by_code": "JSON"}
_ACCOUNT = {"account_timezone": "VARCHAR", "account_currency": "VARCHAR"}
ACCOUNT_COLUMNS = {
    "company_id": "BIGINT", "company": "VARCHAR", "timezone": "VARCHAR", "currency": "VARCHAR",
    "read_at": "TIMESTAMPTZ", "complete_until": "TIMESTAMPTZ", "streams": "BIGINT", "complete_streams": "BIGINT",
    "gaps": "VARCHAR[]", "verified": "DOUBLE", "last_run": "VARCHAR", "last_run_at": "TIMESTAMPTZ",
    "tokens_day": "DATE", "tokens": "BIGINT", "daily_tokens": "BIGINT",
}  # fmt: skip


def columns_of(table: str) -> dict[str, str]:
    """The columns of a table of the roll-up with their types, in order; without `account`, which is the partition.

    Raises:
        CatalogueError: there is no such table.
    """
    if table == ACCOUNTS:
        return ACCOUNT_COLUMNS
    if table in sales_tables():
        return sales_tables()[table] | _ACCOUNT
    stream = catalogue.stream(table)
    return {name: stream.column(name).sql_type for name in stream.columns} | _KEPT | _CUSTOM | _ACCOUNT


@cache
def sales_tables() -> dict[str, dict[str, str]]:
    """The tables of sales views: name → the view's columns with their types. The dict is shared.

    Views with a row for each deal, person or day are not among them: those of all accounts would be long, and the
    streams have what they are made of.
    """
    ((_, content),) = catalogue.files("rollup", "sales")
    return {f"{SALES}{view}": columns for view, columns in content.items()}


def sales_view(table: str) -> str:
    """The view that a table of sales is filled from: `sales.funnel`."""
    return f"sales.{table.removeprefix(SALES)}"


def select_table(connection: duckdb.DuckDBPyConnection, table: str, zone: str, currency: str | None) -> str:
    """The query for the rows of a stream or sales view of one account: the same rows come in the same order.

    It gives no row where the account has no such table.

    Args:
        connection: to the account's warehouse.
        table: of the roll-up.
        zone: time zone of the account.
        currency: of the account.
    """
    columns = columns_of(table)
    values = {"account_timezone": literal(zone), "account_currency": literal(currency) if currency else "NULL"}
    if table in sales_tables():
        schema, name, order = "sales", table.removeprefix(SALES), " ORDER BY ALL"
    else:
        stream = catalogue.stream(table)
        schema, name, order = "main", table, ""  # as they are stored: sorting a million rows takes much memory
        values |= _custom_fields(connection, stream)
    existing = set(warehouse.columns_of_tables(connection, schema).get(name, ()))
    values = {column: quoted(column) for column in existing} | values
    chosen = ", ".join(
        f"CAST({values.get(column, 'NULL')} AS {kind}) AS {quoted(column)}" for column, kind in columns.items()
    )
    if not existing:
        return f"SELECT {chosen} WHERE false"
    return f"SELECT {chosen} FROM {quoted(schema, name)}{order}"


def _custom_fields(connection: duckdb.DuckDBPyConnection, stream: Stream) -> dict[str, str]:
    """The expressions of the two columns of custom fields: by label, with labels of options, and by code, with ids."""
    existing = set(warehouse.columns_of_tables(connection).get(stream.name, ()))
    by_code: dict[str, list[tuple[str, str, str]]] = {}
    for code, *field in connection.execute(
        "SELECT field_code, coalesce(label, ''), column_name, field_type FROM meta.custom_fields WHERE entity = ?"
        " ORDER BY last_seen DESC, first_seen, column_name",
        [stream.name],
    ).fetchall():
        by_code.setdefault(code, []).append((field[0], field[1], field[2]))
    labels = _distinct_labels({code: variants[0][0] for code, variants in by_code.items()})
    parts: dict[str, list[str]] = {name: [] for name in _CUSTOM}
    for code, variants in by_code.items():
        for name, key, shows_labels in zip(_CUSTOM, (labels[code], code), (True, False), strict=True):
            values = [
                value for _, column, kind in variants if (value := _field_value(column, kind, existing, shows_labels))
            ]
            if values:
                value = values[0] if len(values) == 1 else f"coalesce({', '.join(f'to_json({v})' for v in values)})"
                parts[name].append(f"{literal(key)}, {value}")
    return {
        # The patch leaves out nulls; an object without keys says nothing.
        name: f"nullif(json_merge_patch('{{}}', json_object({', '.join(pairs)})), '{{}}')" if pairs else "NULL"
        for name, pairs in parts.items()
    }


def _distinct_labels(labels: dict[str, str]) -> dict[str, str]:
    """Code → label, in order; a label that an earlier field has is followed by a part of the code."""
    taken: set[str] = set()
    distinct = {}
    for code, label in labels.items():
        plain = label.replace("\0", "") or code
        distinct[code] = plain if plain not in taken else f"{plain} ({code[:6]})"
        if distinct[code] in taken:
            distinct[code] = f"{plain} ({code})"
        taken.add(distinct[code])
    return distinct


def _field_value(column: str, kind: str, existing: Collection[str], shows_labels: bool) -> str:
    """The expression of a custom field's value; a field of several parts is an object. Empty: it has no column."""
    entry = catalogue.field_types().get(kind)
    parts = entry.columns if entry else {"value": "VARCHAR"}
    names = {part: column if part == "value" else f"{column}_{part}" for part in parts}
    names = {part: name for part, name in names.items() if name in existing}
    if not names:
        return ""
    if len(parts) > 1:
        pairs = ", ".join(f"{literal(part)}, {quoted(name)}" for part, name in names.items())
        filled = " OR ".join(f"{quoted(name)} IS NOT NULL" for name in names.values())
        return f"CASE WHEN {filled} THEN json_object({pairs}) END"
    if shows_labels and entry and entry.options:
        many = parts["value"].endswith("[]")
        label = f"{column}_labels" if many else f"{column}_label"
        column = label if label in existing else column
    return f"nullif({quoted(column)}, [])" if parts["value"].endswith("[]") else quoted(column)


def read_zone_and_currency(connection: duckdb.DuckDBPyConnection, zone: str) -> tuple[str, str | None]:
    """The time zone in which the account's sales views cut days, and the currency of the token's user.

    Args:
        connection: to the account's warehouse.
        zone: of fleet.toml, for an account without sales views; may be empty.
    """
    if warehouse.columns_of_tables(connection, "sales").get("_clock"):
        zone = str(first(connection.execute("SELECT timezone FROM sales._clock"))[0])
    row = None
    if "users" in warehouse.tables(connection):
        row = first(connection.execute("SELECT default_currency, timezone_name FROM main.users WHERE is_you"))
    currency, of_user = row or (None, None)
    return zone or of_user or "UTC", currency


def read_account(
    connection: duckdb.DuckDBPyConnection, settings: Settings, zone: str, currency: str | None
) -> list[Any]:
    """The account's row of `accounts`: values in the order of its columns."""
    company_id, company = first(connection.execute("SELECT company_id, name FROM meta.company")) or (None, None)
    health = read_health(connection, settings)
    verified = first(
        connection.execute(
            "SELECT sum(here * verified) / nullif(sum(here), 0) FROM (SELECT s.here, s.verified FROM meta.streams s"
            " JOIN meta.runs r USING (run_id) WHERE s.verified IS NOT NULL"
            " QUALIFY row_number() OVER (PARTITION BY stream ORDER BY r.started_at DESC, r.run_id DESC) = 1)"
        )
    )[0]
    run, run_at = first(
        connection.execute(
            "SELECT run_id, finished_at::VARCHAR FROM meta.runs WHERE finished_at IS NOT NULL"
            " ORDER BY started_at DESC, run_id DESC LIMIT 1"
        )
    ) or (None, None)
    return [company_id, company, zone, currency, health.read_at, health.complete_until, health.streams,
            health.complete_streams, list(dict.fromkeys(health.gaps)), verified, run, run_at,
            *_read_tokens(settings)]  # fmt: skip


def _read_tokens(settings: Settings) -> tuple[str | None, int | None, int | None]:
    """The last day of the ledger, the tokens spent on it, and the limit that Pipedrive gave for it.

    Raises:
        StorageError: control.db can't be read.
    """
    if not settings.control.exists():
        return None, None, None
    with state_errors(settings.control), closing(sqlite3.connect(settings.control, timeout=30)) as connection:
        rows = connection.execute("SELECT day, spent, server_limit FROM tokens ORDER BY day DESC LIMIT 1").fetchall()
    return (rows[0][0], int(rows[0][1]), rows[0][2]) if rows else (None, None, None)


def empty(table: str) -> str:
    """A query that has no rows, and the columns of a table of the roll-up with `account` first."""
    return f"SELECT {_nulls({'account': 'VARCHAR', **columns_of(table)}.items())} WHERE false"


def _nulls(columns: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"NULL::{kind} AS {quoted(name)}" for name, kind in columns)
