"""Reads the past: every version of a record, every table as of a moment, and what differs between two moments.

A version is valid from `_valid_from` (the record's own update_time, or the time at which pdsync first saw it so) up to
`_valid_to`, which is the beginning of the next one. So each key has at most one version at any moment, and none before
its first one.

All times are UTC. This module never writes to the warehouse.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from pdsync.load import sales_views
from pdsync.load.warehouse import SYSTEM_COLUMNS
from pdsync.sql import first, literal, quoted, quoted_list

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    import duckdb

Row = dict[str, Any]
Key = tuple[str, str]  # schema and name
_ABOUT_VIEWS = {"show", "tables", "views", "duckdb_views", "duckdb_columns", "information_schema", "catalogue"}
_NAME = re.compile(r"\b(?:main|sales|meta|labeled|history)\.\w+")
_OWN = (*SYSTEM_COLUMNS, "_valid_to")  # columns of pdsync and not of the record; `_extra` is the record's own


class FieldChange(Struct, frozen=True):
    """One field that two versions of a record do not share; a part of `_extra` is called `_extra/key`."""

    field: str
    before: Any
    after: Any


class Difference(Struct, frozen=True):
    """A record that is not the same at two moments."""

    kind: str  # added, changed, gone, first_observed; unknown: it existed at both, and its values are not known
    key: Any
    before: Row | None  # None: it did not exist, or its values then are not known
    after: Row | None
    basis: str = (
        "history"  # what it is known from: changelog, history (versions), estimate (add_time, in the present row)
    )
    title: str | None = None  # of the present row
    logged: list[Row] | None = None  # field, before and after of its changelog: texts, with the names of v1

    def fields(self) -> list[FieldChange]:
        """What changed in it; empty unless its values are known at both moments, by versions or by its changelog."""
        if self.before and self.after:
            return changed_fields(self.before, self.after)
        return [FieldChange(**each) for each in self.logged or [] if self.kind == "changed"]


class Past(Struct, frozen=True):
    """What is known of the records of a table from before their first versions."""

    created: str | None = None  # the column with the time at which a record was created
    observed_from: datetime | None = None  # without such a column: what appears later was created later
    log: tuple[str, str] | None = None  # the table with the edits of its records, and its column of their keys
    title: str | None = None  # the column with a record's name


_ONLY_VERSIONS = Past()


def show_as_of(
    connection: duckdb.DuckDBPyConnection, database: str, moment: datetime, query: str | None = None
) -> None:
    """Make tables and views that show the attached `database` as it was at `moment`, under the names it has there.

    Tables of records, lists in them, `history.*`, `labeled.*` and `sales.*` are of that moment; `meta.*` is of today.

    Args:
        connection: to a database of its own, in which the views are created.
        database: the attached warehouse.
        moment: with its zone.
        query: what will be run; views that it does not name are left out, because creating all takes seconds.
    """
    at = f"{literal(moment.isoformat())}::TIMESTAMPTZ"
    tables = connection.execute(
        "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = ? AND schema_name <> 'main'",
        [database],
    ).fetchall()
    views = connection.execute(
        "SELECT schema_name, view_name, sql FROM duckdb_views() WHERE database_name = ? AND NOT internal", [database]
    ).fetchall()
    for schema in {row[0] for row in (*tables, *views)} - {"main", "versions"}:
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)}")
    waiting = {(schema, view): statement for schema, view, statement in views}
    for schema, table in tables:
        if schema == "sales":  # stored rows are of today: here each query computes them
            waiting[schema, table] = f"CREATE VIEW {quoted(schema, table)} AS {sales_views.computed(table)}"
        elif schema != "versions":
            connection.execute(f"CREATE VIEW {quoted(schema, table)} AS FROM {quoted(database, schema, table)}")
        else:
            waiting.pop(("history", table), None)
            connection.execute(
                f"CREATE VIEW {quoted('main', table)} AS"
                f" SELECT * FROM {quoted(database, 'main', table)} WHERE _valid_from <= {at} UNION ALL BY NAME"
                f" SELECT * EXCLUDE (_valid_to) FROM {quoted(database, 'versions', table)}"
                f" WHERE _valid_from <= {at} AND _valid_to > {at}"
            )
            connection.execute(
                f"CREATE VIEW {quoted('history', table)} AS SELECT * EXCLUDE (_row_hash)"
                f" REPLACE (CASE WHEN _valid_to <= {at} THEN _valid_to END AS _valid_to)"
                f" FROM ({_versions(database, table)}) WHERE _valid_from <= {at}"
            )
    if ("sales", "_clock") in waiting:
        waiting["sales", "_clock"] = sales_views.clock_at(waiting["sales", "_clock"], at)
    # What is left are views over those: of lists, labels and sales. They name no database, so they read ours.
    waiting |= _macros(connection, database)
    needs = _needs(waiting)
    wanted = _wanted(query, needs) if query is not None else set(waiting)
    for key in _in_order(wanted, needs):
        connection.execute(waiting[key])


def _macros(connection: duckdb.DuckDBPyConnection, database: str) -> dict[Key, str]:
    """What creates the table macros of the attached `database`."""
    rows = connection.execute(
        "SELECT schema_name, function_name, parameters, macro_definition FROM duckdb_functions()"
        " WHERE database_name = ? AND function_type = 'table_macro'",
        [database],
    ).fetchall()
    return {
        (schema, name): f"CREATE MACRO {quoted(schema, name)}({', '.join(map(quoted, parameters))}) AS TABLE {body}"
        for schema, name, parameters, body in rows
    }


def _needs(statements: dict[Key, str]) -> dict[Key, set[Key]]:
    """For each view or macro, the others that its statement names."""
    names = {f"{schema}.{view}": (schema, view) for schema, view in statements}
    return {
        key: {names[word] for word in _NAME.findall(statement.replace('"', "")) if names.get(word, key) != key}
        for key, statement in statements.items()
    }


def _wanted(query: str, needs: dict[Key, set[Key]]) -> set[Key]:
    """The views that `query` may read, and what those need; all, if it asks what there is."""
    words = set(re.findall(r"\w+", query.lower()))
    if words & _ABOUT_VIEWS:
        return set(needs)
    wanted = set[Key]()
    waiting = [key for key in needs if key[1].lower() in words]
    while waiting:
        if (key := waiting.pop()) not in wanted:
            wanted.add(key)
            waiting += needs[key]
    return wanted


def _in_order(views: set[Key], needs: dict[Key, set[Key]]) -> Iterator[Key]:
    """`views`, each after those that it needs."""
    done = set[Key]()
    while ready := sorted(key for key in views - done if needs[key] <= done):
        yield from ready
        done.update(ready)
    yield from sorted(views - done)


def versions(connection: duckdb.DuckDBPyConnection, table: str, key: str, id: str) -> list[Row]:
    """Every version of the record `id`, oldest first, as rows by column name."""
    from pdsync.load import results  # noqa: PLC0415 - Arrow is slow to import, and most commands never need it

    query = f"SELECT * EXCLUDE (_row_hash) FROM ({_versions(None, table)}) WHERE {quoted(key)}::VARCHAR = ?"
    return list(results.fetch_rows(connection.sql(f"{query} ORDER BY _valid_from", params=[id])))


def count_differences(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    key: str,
    moments: tuple[datetime, datetime],
    past: Past = _ONLY_VERSIONS,
) -> dict[str, dict[str, int]]:
    """How many records differ between two moments: by kind, as in `Difference`, and by basis (but for the unknown)."""
    query = f"SELECT kind, basis, count(*) FROM ({_differences(table, key, past)}) GROUP BY ALL"
    kinds = dict.fromkeys(("added", "changed", "gone", "first_observed", "unknown"), 0)
    bases: dict[str, int] = {}
    for kind, basis, count in connection.execute(query, [*moments]).fetchall():
        kinds[kind] += count
        if kind != "unknown":
            bases[basis] = bases.get(basis, 0) + count
    return {"kinds": kinds, "bases": bases}


def differences(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    key: str,
    moments: tuple[datetime, datetime],
    past: Past = _ONLY_VERSIONS,
) -> Iterator[Difference]:
    """The records that differ between two moments, by kind and key; without those of which nothing is known."""
    from pdsync.load import results  # noqa: PLC0415 - Arrow is slow to import, and most commands never need it

    query = f"FROM ({_differences(table, key, past)}) WHERE kind <> 'unknown' ORDER BY kind, key"
    for row in results.fetch_rows(connection.sql(query, params=[*moments])):
        yield Difference(**row)


def changed_fields(before: Row, after: Row, derived: Sequence[str] = ()) -> list[FieldChange]:
    """The fields of the record itself that differ; `derived` are left out, because they follow from others."""
    found = []
    for field in dict.fromkeys([*before, *after]):
        if field == "_extra":
            one, other = _opened(before.get(field)), _opened(after.get(field))
            found += [
                FieldChange(f"_extra/{key}", one.get(key), other.get(key))
                for key in dict.fromkeys([*one, *other])
                if one.get(key) != other.get(key)
            ]
        elif field not in _OWN and field not in derived and before.get(field) != after.get(field):
            found.append(FieldChange(field, before.get(field), after.get(field)))
    return found


def _opened(extra: str | None) -> Row:
    found = json.loads(extra) if extra else {}
    return found if isinstance(found, dict) else {"": found}


def _versions(database: str | None, table: str) -> str:
    """All versions of a table, the current ones with an open end."""
    where = (database,) if database else ()
    return (
        f"SELECT *, NULL::TIMESTAMPTZ AS _valid_to FROM {quoted(*where, 'main', table)}"
        f" UNION ALL BY NAME SELECT * FROM {quoted(*where, 'versions', table)}"
    )


def _differences(table: str, key: str, past: Past) -> str:
    """The fields of a Difference, for the records that differ. Takes two moments.

    A record exists from the time at which it was created on. Its values are those of its version at that moment; before
    the first one only the changelog knows them.
    """
    own = quoted_list([column for column in _OWN if column not in ("_extra", "_deleted_at")])
    at = (
        f"(SELECT * EXCLUDE ({own}) FROM ({_versions(None, table)}) WHERE _deleted_at IS NULL"
        " AND _valid_from <= $%d AND coalesce(_valid_to > $%d, true))"
    )
    one, other, id = at % (1, 1), at % (2, 2), quoted(key)
    created = f"m.{quoted(past.created)}" if past.created else "NULL::TIMESTAMPTZ"
    title = f"m.{quoted(past.title)}::VARCHAR" if past.title else "NULL::VARCHAR"
    observed = f"{literal(past.observed_from.isoformat())}::TIMESTAMPTZ" if past.observed_from else "NULL"
    return (
        f"WITH records AS (SELECT m.{id} AS key, {title} AS title, {created} AS created,"
        f" least(m._valid_from, v.first) AS first FROM {quoted('main', table)} m LEFT JOIN"
        f" (SELECT {id} AS key, min(_valid_from) AS first FROM {quoted('versions', table)} GROUP BY 1) v"
        f" ON v.key = m.{id}), log AS ({_net_edits(past)}), pairs AS ("
        f" SELECT r.*, l.logged, a.{id} IS NOT NULL AS seen_before, b.{id} IS NOT NULL AS seen_after,"
        f" CASE WHEN a.{id} IS NOT NULL THEN a END AS before, CASE WHEN b.{id} IS NOT NULL THEN b END AS after,"
        f" a IS DISTINCT FROM b AS differs,"
        f" a.{id} IS NOT NULL OR coalesce(r.created <= $1 AND r.first > $1, false) AS was,"
        f" b.{id} IS NOT NULL OR coalesce(r.created <= $2 AND r.first > $2, false) AS remains"
        f" FROM records r LEFT JOIN {one} a ON a.{id} = r.key LEFT JOIN {other} b ON b.{id} = r.key"
        f" LEFT JOIN log l ON l.key = r.key::VARCHAR)"
        f" SELECT CASE WHEN NOT remains THEN 'gone' WHEN was AND seen_before AND seen_after THEN 'changed'"
        f" WHEN was AND logged IS NOT NULL THEN 'changed' WHEN was AND NOT seen_after THEN 'unknown'"
        f" WHEN was OR (created IS NULL AND first > $1 AND coalesce($1 < {observed}, false)) THEN 'first_observed'"
        f" ELSE 'added' END AS kind, key, before, after,"
        f" CASE WHEN kind = 'changed' AND NOT (seen_before AND seen_after)"
        f" THEN 'changelog' WHEN kind = 'added' AND NOT seen_after OR kind = 'gone' AND NOT seen_before THEN 'estimate'"
        f" ELSE 'history' END AS basis, title, logged"
        f" FROM pairs WHERE (was OR remains) AND (differs OR was <> remains OR NOT (seen_before AND seen_after))"
    )


def _net_edits(past: Past) -> str:
    """The edits in a changelog between two moments, by key: fields that were changed, and not back."""
    if past.log is None:
        return "SELECT NULL::VARCHAR AS key, NULL::STRUCT(field VARCHAR, before VARCHAR, after VARCHAR)[] AS logged"
    table, column = quoted("main", past.log[0]), quoted(past.log[1])
    where = "time > $1 AND time <= $2 AND field_key <> 'add_time'"
    # In whichever order edits of one second are listed: what one has put in and another has replaced cancels out.
    return (
        "SELECT key, list({'field': field, 'before': before, 'after': after} ORDER BY field) AS logged FROM"
        " (SELECT key, field, any_value([value]) FILTER (net > 0)[1] AS before,"
        " any_value([value]) FILTER (net < 0)[1] AS after FROM"
        " (SELECT key, field, value, sum(number) AS net FROM"
        f" (SELECT {column}::VARCHAR AS key, field_key AS field, old_value AS value, 1 AS number"
        f" FROM {table} WHERE {where}"
        f" UNION ALL SELECT {column}::VARCHAR, field_key, new_value, -1 FROM {table} WHERE {where})"
        " GROUP BY ALL HAVING sum(number) <> 0) GROUP BY ALL) GROUP BY key"
    )


def has_table(connection: duckdb.DuckDBPyConnection, table: str) -> bool:
    """Whether the stream `table` has a table of versions, as each one that was synced; it may be empty."""
    found = first(
        connection.execute(
            "SELECT count(*) FROM duckdb_tables() WHERE schema_name = 'versions' AND table_name = ?", [table]
        )
    )
    return bool(found[0])
