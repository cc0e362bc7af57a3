"""Writes the SQL that reads records into texts: one text a column, as it is in the JSON.

DuckDB parses each record once. Every number, flag or object becomes the text it was, so that casting it is a step of
its own (`typed_values`), and what the cast loses can be seen (`misfits`).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pdsync.normalise.tables import pointer
from pdsync.sql import literal, quoted

if TYPE_CHECKING:
    from pdsync.normalise.tables import Table, TableColumn

NO_OBJECT = "\u0001no object: "  # marks a value where an object was expected


class RecordTexts:
    """The texts of a table's columns, and the objects in a record that they are taken from.

    Args:
        table: the columns.
        rows: the relation of sealed records, quoted: row VARCHAR, context VARCHAR (JSON), row_number BIGINT,
            seq BIGINT, served_at TIMESTAMPTZ.
    """

    def __init__(self, table: Table, rows: str) -> None:
        self.table, self.rows = table, rows
        self.read = [column for column in table.stored if column.path and column.parameter is None]
        self.containers = list(  # objects whose keys are columns of their own: custom fields, above all
            dict.fromkeys(column.path[:depth] for column in table.stored for depth in range(1, len(column.path)))
        )
        self._objects = list(dict.fromkeys(column.path for column in table.stored if column.part or column.ref))
        self.objects_with_parts = [
            index
            for index, path in enumerate(self._objects)
            if any(column.part for column in table.stored if column.path == path)
        ]

    def relation(self) -> str:
        """A SELECT over `rows` with the record, its texts, and the elements of its lists of objects."""
        lists = "".join(
            f", CASE WHEN starts_with({text_name(column)}, '[{{') THEN TRY(from_json({text_name(column)},"
            f" {literal(json.dumps([{key: 'VARCHAR' for key, _ in column.items.values()}]))})) END"
            f" AS {elements_name(column)}"
            for column in self.table.stored
            if column.items
        )
        lists += "".join(
            f", {_joined_key(column)} AS {text_name(column)}" for column in self.table.stored if column.join
        )
        return (
            f"SELECT *{lists} FROM (SELECT row, _served_at, _seq, _row_number, {self._texts()}"
            f" FROM (SELECT *{self._parsed_objects()} FROM"
            f" (SELECT row, context, served_at AS _served_at, seq AS _seq, row_number AS _row_number,"
            f" from_json(row, {literal(json.dumps(self._spec()))}) AS r FROM {self.rows})))"
        )

    def _spec(self) -> dict[str, object]:
        """What of a record is parsed, in the form that `from_json` takes."""
        spec: dict[str, object] = {}
        for column in self.read:
            level = spec
            for key in column.path[:-1]:
                inner = level.setdefault(key, {})
                level = inner if isinstance(inner, dict) else {}
            level.setdefault(column.path[-1], "VARCHAR")
            if column.fallback:
                spec.setdefault(column.fallback, "VARCHAR")
        return spec

    def _parsed_objects(self) -> str:
        return "".join(
            f", CASE WHEN starts_with({_at(path)}, '{{')"
            # A text may begin like an object too.
            f" THEN TRY(from_json({_at(path)}, {literal(self._parts(path))})) END"
            f" AS o{index}"
            for index, path in enumerate(self._objects)
        )

    def _parts(self, path: tuple[str, ...]) -> str:
        columns = [column for column in self.table.stored if column.path == path]
        parts = {column.part: "VARCHAR" for column in columns if column.part}
        if any(column.ref for column in columns):
            parts |= {"value": "VARCHAR", "id": "VARCHAR"}
        return json.dumps(parts)

    def _texts(self) -> str:
        stored = self.table.stored
        texts = ", ".join(f"{self._text(column)} AS {text_name(column)}" for column in stored if column.path)
        texts += "".join(
            f", o{self._objects.index(column.path)} IS NOT NULL AS {object_name(column)}"
            for column in stored
            if column.ref
        )
        # Looking for these objects in the whole record, by their pointers, would take longer.
        texts += "".join(
            f", CASE WHEN o{index} IS NOT NULL THEN json_keys({_at(self._objects[index])}) END AS {keys_name(index)}"
            for index in self.objects_with_parts
        )
        return texts

    def _text(self, column: TableColumn) -> str:
        text = self._unchanged_text(column)
        if column.fallback:
            text = f"coalesce({text}, {_at((column.fallback,))})"
        # v1 writes "" where there is no number, flag or time.
        empty = self.table.version == "v1" and column.type != "VARCHAR"
        return f"nullif({text}, '')" if empty else text

    def parameter_text(self, column: TableColumn) -> str:
        """The text of the request's parameter that fills `column`; NULL where the request had none."""
        return f"json_extract_string(context, {literal(pointer(column.parameter or ''))})"

    def _unchanged_text(self, column: TableColumn) -> str:
        if column.parameter is not None:
            return self.parameter_text(column)
        value = _at(column.path)
        if column.ref:
            inner = f"o{self._objects.index(column.path)}"
            return f'CASE WHEN {inner} IS NOT NULL THEN coalesce({inner}."value", {inner}."id") ELSE {value} END'
        if column.part is None:
            return value
        inside = f"o{self._objects.index(column.path)}.{quoted(column.part)}"
        plain = f"nullif({value}, '[]')"
        if column.part != "value":
            if not is_only_part(self.table, column):
                return inside
            plain = f"{literal(NO_OBJECT)} || {plain}"  # which does not fit, so that it is kept in `_extra`
        # An object may have been a plain value before its field changed, or be one in another list.
        return f"CASE WHEN o{self._objects.index(column.path)} IS NOT NULL THEN {inside} ELSE {plain} END"


def is_only_part(table: Table, column: TableColumn) -> bool:
    """Whether a column is a part of an object that no column takes as a plain value."""
    return column.part not in (None, "value") and not any(
        other.path == column.path and other.part == "value" for other in table.stored
    )


def text_name(column: TableColumn) -> str:
    """The column of `relation` with the text of `column`."""
    return quoted("text " + column.name)


def keys_name(index: int) -> str:
    """The column of `relation` with the keys of an object; `index` is one of `objects_with_parts`."""
    return quoted(f"keys {index}")


def object_name(column: TableColumn) -> str:
    """The column of `relation` that is true where the reference `column` came as an object."""
    return quoted("object " + column.name)


def elements_name(column: TableColumn) -> str:
    """The column of `relation` with the elements of the list of objects in `column`."""
    return quoted("elements " + column.name)


def _joined_key(column: TableColumn) -> str:
    """A key made of several columns. Where the first of them is NULL there is no key; the others may be empty."""
    first, *others = (quoted("text " + name) for name in column.join)
    return " || '/' || ".join([first, *(f"coalesce({other}, '')" for other in others)])


def _at(path: tuple[str, ...]) -> str:
    return "r." + ".".join(quoted(key) for key in path)
