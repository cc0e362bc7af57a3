"""Writes the SQL conditions for values that their typed column does not store completely: they go to `_extra`.

A text that did not fit, a fraction cut from a whole number, an object where an id was expected.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pdsync.normalise.record_texts import NO_OBJECT, elements_name, is_only_part, object_name, text_name
from pdsync.normalise.tables import pointer
from pdsync.normalise.typed_values import casts_whole, elements, has_fraction
from pdsync.sql import literal, quoted

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from pdsync.normalise.tables import Table, TableColumn


def misfit(table: Table, column: TableColumn) -> str | None:
    """A condition that is true where the typed column stores less than its text; None where that is impossible."""
    text, typed = text_name(column), quoted(column.name)
    if column.items:
        return _objects_misfit(table, column, text, typed)
    if column.type.endswith("[]"):
        lost = f"len({typed}) = 0 OR list_aggregate({typed}, 'count') <> len({typed})"
        if column.type == "BIGINT[]":
            lost += f" OR {has_fraction(text)}"
        if column.type == "VARCHAR[]":
            lost += f" OR starts_with({text}, '{{')"
        return f"{text} NOT IN ('', '[]') AND ({lost})"
    if column.type == "VARCHAR":
        return f"starts_with({text}, {literal(NO_OBJECT)})" if is_only_part(table, column) else None
    lost = " OR ".join(filter(None, [f"{typed} IS NULL", _rounded(column)]))
    condition = f"{text} IS NOT NULL AND ({lost})"
    if column.ref:  # an object has more than an id
        condition = f"(({condition}) OR {object_name(column)})"
    return condition


def row_misfits(table: Table, residual: Collection[str]) -> list[str]:
    """Conditions of which one is true (or NULL, never alone) where a value of a row does not fit.

    They are quick, because every row passes through them: most casts either preserve a value or give NULL; only those
    that may round have a condition of their own.

    Args:
        table: the columns.
        residual: columns that are left out, because their misfits go to `_extra` already.
    """
    lost, maybe, whole = [], [], []
    for column in table.stored:
        if column.name in residual:
            continue
        if column.type == "VARCHAR" or column.type.endswith("[]"):
            maybe.append(misfit(table, column))
            continue
        lost.append(f"({text_name(column)} IS NULL) <> ({quoted(column.name)} IS NULL)")
        if column.type == "BIGINT":
            whole.append(text_name(column))
        else:
            maybe.append(_rounded(column))
        if column.ref:
            lost.append(object_name(column))
    if whole:  # tested as one text, as there are dozens of them in a row
        lost.append(has_fraction(f"concat({', '.join(whole)})"))
    return [*lost, *(f"coalesce({condition}, false)" for condition in maybe if condition)]


def containers_lost(containers: Sequence[tuple[str, ...]], read: Sequence[TableColumn]) -> list[str]:
    """Conditions that are true where custom fields are no object: no column can be read, so the value is kept.

    Args:
        containers: the paths of the objects whose keys are columns.
        read: the columns that are read from records.
    """
    conditions = []
    for path in containers:
        empty = " AND ".join(f"{text_name(column)} IS NULL" for column in read if column.path[: len(path)] == path)
        # Searching for its first characters is many times quicker than parsing the record a second time.
        begins = f"contains(row, {literal(json.dumps(path[-1]) + ':{')})"
        conditions.append(f"CASE WHEN {empty} AND NOT {begins} THEN {is_no_object(pointer(*path))} END")
    return conditions


def is_no_object(address: str) -> str:
    """A condition on a record: the value at the JSON pointer `address` is no object, and not empty either."""
    return (
        f"CASE json_type(row, {literal(address)}) WHEN 'OBJECT' THEN false WHEN 'NULL' THEN false"
        f" WHEN 'ARRAY' THEN json_array_length(row, {literal(address)}) > 0"
        f" ELSE json_exists(row, {literal(address)}) END"
    )


def has_unknown_items(address: str, columns: Collection[str]) -> str:
    """A condition on a record: an element of the list at the JSON pointer `address` is no object, or has a key other
    than `columns`."""
    items = f"from_json(json_extract(row, {literal(address)}), '[\"JSON\"]')"
    keys = f"list_filter(json_keys(e), lambda k: k NOT IN ({', '.join(map(literal, sorted(columns)))}))"
    unknown = f"json_type(e) NOT IN ('OBJECT', 'NULL') OR len({keys}) > 0"
    condition = f"len(list_filter({items}, lambda e: {unknown})) > 0"
    return f"CASE WHEN json_type(row, {literal(address)}) = 'ARRAY' THEN {condition} END"


def _rounded(column: TableColumn) -> str | None:
    """A condition that is true where a cast that succeeded has cut something off; None if it never does."""
    text, typed = text_name(column), quoted(column.name)
    if column.type == "BIGINT":
        return has_fraction(text)
    if column.type.startswith("DECIMAL"):
        return f"{typed}::DOUBLE <> TRY_CAST({text} AS DOUBLE)"
    if column.type == "DATE":
        return f"length({text}) > 10"
    if column.type == "TIME":  # a whole date fits into a time of day, without its day
        return f"length({text}) > 8"
    if column.type == "INTERVAL":
        return f"contains({text}, '.')"
    return None


def _objects_misfit(table: Table, column: TableColumn, text: str, typed: str) -> str:
    conditions = [f"NOT starts_with({text}, '[{{')", f"len({typed}) = 0"]
    if casts_whole(table, column):
        back = ", ".join(f"{quoted(item)} VARCHAR" for item in column.items)
        conditions.append(f"CAST({typed} AS STRUCT({back})[]) IS DISTINCT FROM {elements_name(column)}")
        return f"{text} NOT IN ('', '[]') AND ({' OR '.join(conditions)})"
    if elements(table, column) != elements_name(column):
        conditions.append(f"len({typed}) <> TRY(json_array_length({text}))")
    bad = " OR ".join(
        f"(i.{quoted(key)} <> '' AND {_item_lost(f'i.{quoted(key)}', kind)})"
        for key, kind in column.items.values()
        if kind != "VARCHAR"
    )
    if bad:
        conditions.append(f"len(list_filter({elements(table, column)}, lambda i: {bad})) > 0")
    return f"{text} NOT IN ('', '[]') AND ({' OR '.join(conditions)})"


def _item_lost(text: str, kind: str) -> str:
    """A condition that is true where casting an element's `text` to `kind` gives nothing, or cuts something off."""
    cast = f"TRY_CAST({text} AS {kind})"
    if kind == "BIGINT":
        return f"({cast} IS NULL OR {has_fraction(text)})"
    if kind.startswith("DECIMAL"):
        return f"({cast} IS NULL OR {cast}::DOUBLE <> TRY_CAST({text} AS DOUBLE))"
    return f"{cast} IS NULL"
