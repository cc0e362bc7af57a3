"""Compares a warehouse with the sandbox's records: every key, and every value of every column.

The expected values are computed here in plain Python from the dump of `/_admin` and the types of the table's columns.
None of pdsync's normalising code is used, so a mistake there cannot hide itself.
"""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    import duckdb

ADDRESS = re.compile(
    r"^(.*?)_(subpremise|street_number|route|sublocality|locality|admin_area_level_[12]|country|postal_code"
    r"|formatted_address)$"
)
# States of records that the sandbox's lists show.
LISTED = {
    "deals": {"live", "archived", "deleted"},
    "users": {"live", "deleted"},
    "pipelines": {"live", "deleted"},
    "stages": {"live", "deleted"},
}
# Columns whose value depends on the token.
ASKER = {"is_you"}


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Columns that change without the record's update_time, so that no list of changes shows them: counts and names of
# linked records. Documented: they are right after a run with --full or a deep reconciliation.
BLIND = {
    "deals": _words(
        "next_activity_id last_activity_id products_count files_count notes_count followers_count email_messages_count"
        " activities_count done_activities_count undone_activities_count participants_count last_incoming_mail_time"
        " last_outgoing_mail_time"
    ),
    "persons": _words(
        "next_activity_id last_activity_id open_deals_count related_open_deals_count closed_deals_count"
        " related_closed_deals_count won_deals_count related_won_deals_count lost_deals_count related_lost_deals_count"
        " participant_open_deals_count participant_closed_deals_count email_messages_count activities_count"
        " done_activities_count undone_activities_count files_count notes_count followers_count"
        " last_incoming_mail_time last_outgoing_mail_time"
    ),
    "organizations": _words(
        "next_activity_id last_activity_id open_deals_count related_open_deals_count closed_deals_count"
        " related_closed_deals_count won_deals_count related_won_deals_count lost_deals_count related_lost_deals_count"
        " people_count email_messages_count activities_count done_activities_count undone_activities_count files_count"
        " notes_count followers_count"
    ),
    "files": _words("deal_name person_name org_name product_name lead_name project_name"),
}
MOST = 20  # differences that are reported of one stream
COMPARED: Counter[str] = Counter({"rows compared": 0, "cells compared": 0})  # by this process
Row = dict[str, Any]


def tables_of(warehouse: duckdb.DuckDBPyConnection) -> list[str]:
    """The streams that have a table."""
    rows = warehouse.execute("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'main' ORDER BY 1").fetchall()
    return [row[0] for row in rows]


def listed(stream: str, dump: Iterable[Row], mailbox: int | None = None) -> dict[Any, Row]:
    """The records that the lists of `stream` show, by key; of mail only those of the token's user."""
    states = LISTED.get(stream, {"live"})
    shown = {entry["id"]: entry["record"] for entry in dump if entry["state"] in states}
    if stream == "mail_threads":
        return {id: record for id, record in shown.items() if record["user_id"] == mailbox}
    return shown


def differences(
    warehouse: duckdb.DuckDBPyConnection,
    stream: str,
    dump: Iterable[Row],
    *,
    leave_out: Collection[str] = (),
    gone: Collection[Any] = (),
    most: int = MOST,
) -> list[str]:
    """How the table of `stream` differs from the truth; empty if it is equal.

    Args:
        warehouse: its sessions' time zone is UTC.
        stream: the table.
        dump: the truth: `/_admin/dump` of the stream.
        leave_out: columns that are not compared.
        gone: keys that may be in the table although no list shows them any more.
        most: report at most this many differences.
    """
    key = "field_code" if stream.endswith("_fields") else "id"
    asker = warehouse.execute("SELECT id FROM main.users WHERE is_you").fetchone() if stream == "mail_threads" else None
    truth = listed(stream, dump, asker[0] if asker else None)
    types = {row[0]: str(row[1]) for row in warehouse.execute(f'DESCRIBE main."{stream}"').fetchall()}
    names = [name for name in types if not name.startswith("_") and name not in ASKER and name not in leave_out]
    customs = _customs(warehouse, stream, list(types))
    labels = _labels(warehouse, stream)
    arrow = warehouse.sql(f'SELECT * REPLACE ({_comparable(types)}) FROM main."{stream}"').to_arrow_table()
    rows = {row[key]: row for row in arrow.to_pylist()}
    extra = rows.keys() - truth.keys() - set(gone)
    problems = [f"{stream}: {missing} is missing" for missing in sorted(truth.keys() - rows.keys(), key=str)]
    problems += [f"{stream}: {each} is not in the truth" for each in sorted(extra, key=str)]
    if len(rows) != arrow.num_rows:
        problems.append(f"{stream}: {arrow.num_rows} rows for {len(rows)} keys")
    for id in rows.keys() & truth.keys():
        if len(problems) > most:
            break
        COMPARED["rows compared"] += 1
        COMPARED["cells compared"] += len(names)
        for name in names:
            expected = _wanted(truth[id], name, types[name], customs, labels)
            if rows[id][name] != expected:
                problems.append(f"{stream} {id}: {name} is {rows[id][name]!r}, the truth is {expected!r}")
    return problems[:most]


def _comparable(types: dict[str, str]) -> str:
    casts = [f'epoch_us("{n}") AS "{n}"' for n, t in types.items() if t == "INTERVAL"]
    return ", ".join(casts) or '"_run_id" AS "_run_id"'


def _customs(warehouse: duckdb.DuckDBPyConnection, stream: str, names: list[str]) -> dict[str, tuple[str, str]]:
    """Column of a custom field → (its code, the part of its value)."""
    rows = warehouse.execute(
        "SELECT column_name, field_code FROM meta.custom_fields WHERE entity = ? ORDER BY length(column_name)", [stream]
    ).fetchall()
    parts = _words(
        "until currency timezone_id timezone_name label labels subpremise street_number route sublocality locality"
        " admin_area_level_1 admin_area_level_2 country postal_code formatted_address"
    )
    exact = {column: (code, "value") for column, code in rows}
    derived = {f"{column}_{part}": (code, part) for column, code in rows for part in parts}
    return {name: exact.get(name) or derived[name] for name in names if name in exact or name in derived}


def _labels(warehouse: duckdb.DuckDBPyConnection, stream: str) -> dict[tuple[str, str], str]:
    rows = warehouse.execute(
        "SELECT field_code, option_id, label FROM meta.field_options WHERE entity = ?", [stream]
    ).fetchall()
    return {(code, option): label for code, option, label in rows}


def _wanted(
    record: Row, name: str, kind: str, customs: dict[str, tuple[str, str]], labels: dict[tuple[str, str], str]
) -> Any:
    if name in customs:
        code, part = customs[name]
        value = record.get("custom_fields", {}).get(code)
        if part == "label":
            return None if value is None else labels[code, str(value)]
        if part == "labels":
            return [labels[code, str(each)] for each in value or []]
        if isinstance(value, dict):
            value = value.get(part)
        elif part != "value":
            value = None
        return convert(value, kind)
    if name in ("parties_to", "parties_from"):
        return convert((record.get("parties") or {}).get(name.removeprefix("parties_")), kind)
    if name == "subfields":
        renamed = {"field_code": "subfield_code", "field_name": "subfield_name", "field_type": "subfield_type"}
        return [{renamed.get(k, k): v for k, v in each.items()} for each in record.get(name) or []]
    value = record.get(name)
    address = ADDRESS.match(name)
    if address and address[1] in record and (record[address[1]] is None or isinstance(record[address[1]], dict)):
        value = (record[address[1]] or {}).get(address[2])
    elif isinstance(value, dict) and "formatted_address" in value:
        value = value["value"]
    return convert(value, kind)


def convert(value: Any, kind: str) -> Any:
    """A JSON value as Python's counterpart of the DuckDB type `kind`."""
    if kind.endswith("[]"):
        inner = kind.removesuffix("[]")
        return [convert(each, inner) for each in value or []]
    if value is None:
        return None
    if kind.startswith("STRUCT"):
        fields = re.findall(r'(?:\(|, )"?(\w+)"? ((?:\([^)]*\)|[^,()])+)', kind)
        return {
            name: convert(value.get(name), sub.strip().rstrip(")") + (")" if "(" in sub else ""))
            for name, sub in fields
        }
    if kind.startswith("DECIMAL"):
        return Decimal(str(value)).quantize(Decimal("0.0001"))
    return _PLAIN[kind](value) if kind in _PLAIN else value if isinstance(value, str) else str(value)


def _microseconds(text: str) -> int:
    hours, minutes, *rest = (int(part) for part in text.split(":"))
    return timedelta(hours=hours, minutes=minutes, seconds=rest[0] if rest else 0) // timedelta(microseconds=1)


_PLAIN: dict[str, Callable[[Any], Any]] = {
    "TIMESTAMP WITH TIME ZONE": lambda text: datetime.fromisoformat(text).astimezone(UTC),
    "DATE": date.fromisoformat,
    "TIME": time.fromisoformat,
    "INTERVAL": _microseconds,
    "BOOLEAN": bool,
    "DOUBLE": float,
    "BIGINT": int,
}
