"""Writes the SQL that casts the text of a column to the column's type.

A text that does not fit becomes NULL; in a column of lists, an empty list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pdsync.normalise.record_texts import NO_OBJECT, elements_name, is_only_part, text_name
from pdsync.sql import literal, quoted

if TYPE_CHECKING:
    from pdsync.normalise.tables import Table, TableColumn


def typed_value(table: Table, column: TableColumn) -> str:
    """The value of `column`, made of its text."""
    text = text_name(column)
    if column.items:
        return _typed_objects(table, column)
    if column.type.endswith("[]"):
        parts = f"CASE WHEN starts_with({text}, '[') THEN TRY(from_json({text}, '[\"VARCHAR\"]'))"
        parts += f" WHEN {text} <> '' THEN string_split({text}, ',') END"
        return f"coalesce(TRY_CAST({parts} AS {column.type}), [])"
    if column.type == "VARCHAR" and is_only_part(table, column):
        text = f"CASE WHEN NOT starts_with({text}, {literal(NO_OBJECT)}) THEN {text} END"
    if column.type == "VARCHAR":
        return f"nullif({text}, '')" if column.blank_is_null else text
    cast = f"TRY_CAST({text} AS {column.type})"
    if column.name == table.stream.key and column.type == "BIGINT":
        return f"CASE WHEN NOT {has_fraction(text)} THEN {cast} END"  # a rounded key is another record's
    return f"NOT {cast}" if column.negated else cast


def casts_whole(table: Table, column: TableColumn) -> bool:
    """Whether a list of objects can be cast as it is, and cast back to see what was lost: many times quicker."""
    kinds = {kind for _, kind in column.items.values()}
    same = all(item == key for item, (key, _) in column.items.items())
    return table.version == "v2" and same and kinds <= {"VARCHAR", "BIGINT", "BOOLEAN"}


def elements(table: Table, column: TableColumn) -> str:
    """The elements of a list of objects as texts, without the empty value that v1 sends for none."""
    if table.version == "v1" and "value" in column.items:
        return f"list_filter({elements_name(column)}, lambda i: i.\"value\" <> '')"
    return elements_name(column)


def has_fraction(text: str) -> str:
    """A condition that is true where the text of a number has a part that a whole number can't store."""
    return f"(contains({text}, '.') OR contains({text}, 'e-') OR contains({text}, 'E-'))"


def _typed_objects(table: Table, column: TableColumn) -> str:
    if casts_whole(table, column):
        return f"coalesce(TRY_CAST({elements_name(column)} AS {column.type}), [])"
    fields = ", ".join(
        f"{quoted(item)} := " + (f"i.{quoted(key)}" if kind == "VARCHAR" else f"TRY_CAST(i.{quoted(key)} AS {kind})")
        for item, (key, kind) in column.items.items()
    )
    return f"coalesce(list_transform({elements(table, column)}, lambda i: struct_pack({fields})), [])"
