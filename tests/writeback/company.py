"""The names of a small company: fields, options and records as a sync has left them in a warehouse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pdsync.core import catalogue
from tests.writeback.kit import open_warehouse

if TYPE_CHECKING:
    import duckdb

    from pdsync.writeback.resolver import NameResolver

SIZE, TIER, AMOUNT, OWNER, TWIN, TWIN_2, OLD, GONE = (letter * 40 for letter in "abcdef01")
NOW, BEFORE = "2026-03-02 00:00:00+00", "2026-03-01 00:00:00+00"
FIELDS = [
    (SIZE, "Deal size", "cf_deal_size", "enum", NOW),
    (TIER, "Tiers", "cf_tiers", "set", NOW),
    (AMOUNT, "Amount due", "cf_amount_due", "monetary", NOW),
    (OWNER, "Second owner", "cf_second_owner", "user", NOW),
    (TWIN, "Twin", "cf_twin_cccc", "varchar", NOW),
    (TWIN_2, "Twin", "cf_twin_dddd", "varchar", NOW),
    (OLD, "Deal size", "cf_deal_size_old", "enum", BEFORE),
    (GONE, "Gone", "cf_gone", "varchar", BEFORE),
]
OPTIONS = [(SIZE, "1", "Large"), (SIZE, "2", "Small"), (TIER, "5", "Gold"), (TIER, "6", "Silver"),
           ("status", "open", "Open"), ("status", "won", "Won")]  # fmt: skip
TABLES: dict[str, tuple[str, list[tuple[Any, ...]]]] = {
    "users": ("id BIGINT, name VARCHAR, email VARCHAR, active_flag BOOLEAN", [
        (1, "Anna Berg", "anna@example.com", True), (2, "Bo Dahl", "bo@example.com", True),
        (3, "Bo Dahl", "bo2@example.com", False), (5, "Cleo Eng", "cleo@example.com", False),
    ]),
    "pipelines": ("id BIGINT, name VARCHAR", [(10, "Sales"), (11, "Partners")]),
    "stages": ("id BIGINT, name VARCHAR, pipeline_id BIGINT", [
        (100, "Offer", 10), (101, "Offer", 11), (102, "Won it", 10),
    ]),
    "currencies": ("id BIGINT, code VARCHAR, name VARCHAR", [(1, "EUR", "Euro"), (2, "USD", "US Dollar")]),
    "organizations": ("id BIGINT, name VARCHAR", [(7, "Acme"), (8, "Globex")]),
    "activity_types": ("key_string VARCHAR, name VARCHAR", [("call", "Call"), ("lunch", "Lunch date")]),
    "activities": ("id BIGINT, type VARCHAR", [(1, "call"), (2, "demo"), (3, None)]),
    "deal_fields": ("field_code VARCHAR, field_name VARCHAR, field_type VARCHAR", [
        ("title", "Titel", "varchar"), ("status", "Status", "status"), (SIZE, "Deal size", "enum"),
    ]),
}  # fmt: skip


def open_company() -> duckdb.DuckDBPyConnection:
    """A warehouse with the names of the company."""
    warehouse = open_warehouse()
    warehouse.executemany(
        "INSERT INTO meta.custom_fields (entity, field_code, label, column_name, field_type, last_seen)"
        " VALUES ('deals', ?, ?, ?, ?, ?)",
        FIELDS,
    )
    warehouse.executemany(
        "INSERT INTO meta.field_options (entity, field_code, option_id, label) VALUES ('deals', ?, ?, ?)", OPTIONS
    )
    for table, (columns, rows) in TABLES.items():
        warehouse.execute(f"CREATE TABLE {table} ({columns}, _deleted_at TIMESTAMPTZ)")
        for row in rows:
            warehouse.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))}, NULL)", list(row))
    warehouse.execute("INSERT INTO users VALUES (4, 'Left Long Ago', 'left@example.com', false, now())")
    return warehouse


def resolve(names: NameResolver, given: dict[str, Any], operation: str = "v2 updateDeal") -> dict[str, Any]:
    """The parameters of `operation` that `given` means."""
    return names.resolve(catalogue.operation(operation), given)
