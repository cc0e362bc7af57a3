"""Writes names and constants into SQL: the only module where text becomes part of a statement.

Whatever comes from data (a label, a field code, a path) enters SQL through `quoted` or `literal`; values are bound.
"""

from __future__ import annotations

from typing import Any, Protocol


def quoted(*parts: str) -> str:
    """An identifier, quoted: `quoted("main", "deals")` is `"main"."deals"`."""
    return ".".join('"' + part.replace("\0", "").replace('"', '""') + '"' for part in parts)


def literal(value: str) -> str:
    """A string constant, quoted. For what DuckDB can't bind: paths, JSON structures.

    Raises:
        ValueError: it contains a NUL character.
    """
    if "\0" in value:
        raise ValueError("A string constant can't contain a NUL character.")
    return "'" + value.replace("'", "''") + "'"


def quoted_list(columns: list[str], prefix: str = "") -> str:
    """A list of identifiers, each after `prefix`: an alias with its dot, or empty."""
    return ", ".join(prefix + quoted(column) for column in columns)


class Cursor(Protocol):
    """The result of `execute`."""

    def fetchall(self) -> list[Any]:
        """All remaining rows."""


def first(cursor: Cursor) -> Any:
    """The first row of a result, or None; the result is read to its end, which DuckDB 2 requires."""
    rows = cursor.fetchall()
    return rows[0] if rows else None
