"""Decides which columns a stream's table has, and what in a record fills each.

The catalogue lists the built-in columns. A custom field gets a column named after its label when it is first seen, and
keeps it for good: its identity is its 40-digit code, so renaming it in Pipedrive moves nothing. A field whose type
changes gets a second column, because the first one can't store values of the new type; the values in it stay.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

from msgspec import Struct

from pdsync.core.custom_fields import CustomField, FieldType, SchemaChange

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from pdsync.model import Stream, Version

CODE = re.compile(r"[0-9a-f]{40}")
_MAX_LENGTH = 48


class TableColumn(Struct, frozen=True):
    """A column, and the address of its value in a record.

    `path` leads to a value of the record: `("title",)`, `("custom_fields", code)`. Where that value is an object,
    `part` is the key in it. A column of labels has no path: its value is looked up from that of `label_of`.
    """

    name: str
    type: str
    path: tuple[str, ...] = ()
    part: str | None = None
    fallback: str | None = None  # the key that fills it where there is nothing at `path`; it goes to `_extra` as well
    ref: bool = False
    negated: bool = False
    items: dict[str, tuple[str, str]] = {}  # of a list of objects: column → (key, type)
    blank_is_null: bool = False  # v1 writes "" where v2 writes null
    join: tuple[str, ...] = ()  # the columns whose texts make a key
    label_of: str | None = None
    code: str | None = None  # the custom field it belongs to

    @property
    def parameter(self) -> str | None:
        """The parameter of the list's request that fills this column; None where the record itself does."""
        return self.path[0][1:] if self.path and self.path[0].startswith("@") else None

    @property
    def pointer(self) -> str:
        """The JSON pointer of the value that this column is taken from."""
        return pointer(*self.path)


class Table(Struct, frozen=True):
    """The table of a stream, as filled from records of one API version."""

    stream: Stream
    version: Version
    columns: tuple[TableColumn, ...]

    @property
    def stored(self) -> list[TableColumn]:
        """The columns that come from the record itself: all but looked-up labels."""
        return [column for column in self.columns if column.label_of is None]


def pointer(*keys: str) -> str:
    """A JSON pointer (RFC 6901)."""
    return "".join("/" + key.replace("~", "~0").replace("/", "~1") for key in keys)


def table(stream: Stream, version: Version, fields: Iterable[CustomField], types: Mapping[str, FieldType]) -> Table:
    """The table of `stream` with its custom `fields`, as filled from records of `version`."""
    columns = [_built_in(stream, name, version) for name in stream.columns]
    for field in fields:
        columns += _custom(field, types.get(field.type, _TEXT), version)
    return Table(stream, version, tuple(columns))


_TEXT = FieldType(columns={"value": "VARCHAR"})


def _built_in(stream: Stream, name: str, version: Version) -> TableColumn:
    column = stream.column(name)
    path, _, part = column.path(name, version).partition("/")
    if column.join:
        return TableColumn(name, column.sql_type, join=column.join)
    renamed = column.items_v1 if version == "v1" else column.items_v2
    return TableColumn(
        name=name,
        type=column.sql_type,
        path=(path,),
        part=part or None,
        fallback=column.v1_else if version == "v1" else None,
        ref=column.ref,
        negated=version in column.negated,
        blank_is_null=version == "v1" and "/" in (column.v2 or ""),
        items={item: (renamed.get(item, item), kind) for item, kind in column.items.items()},
    )


def _custom(field: CustomField, kind: FieldType, version: Version) -> list[TableColumn]:
    columns = []
    for part, sql_type in kind.columns.items():
        name = field.column if part == "value" else f"{field.column}_{part}"
        if version == "v1":
            path: tuple[str, ...] = (field.code if part == "value" else f"{field.code}_{part}",)
            inner = None
        else:
            path, inner = ("custom_fields", field.code), part if len(kind.columns) > 1 else None
        columns.append(TableColumn(name, sql_type, path, inner, ref=kind.ref, code=field.code))
    if kind.options:
        many = kind.columns["value"].endswith("[]")
        columns.append(
            TableColumn(
                name=f"{field.column}_labels" if many else f"{field.column}_label",
                type="VARCHAR[]" if many else "VARCHAR",
                label_of=field.column,
                code=field.code,
            )
        )
    return columns


def assign(
    stream: Stream,
    definitions: Sequence[tuple[str, str, str]],
    existing: Iterable[CustomField],
    types: Mapping[str, FieldType],
    now: datetime,
) -> tuple[list[CustomField], list[SchemaChange]]:
    """Give every custom field a column; a field that has one keeps it.

    Args:
        stream: the stream that has the fields.
        definitions: (code, label, type) of every field that Pipedrive has now, built-in ones too; if empty, the
            definitions were not read, and nothing changes.
        existing: fields of earlier runs with their columns.
        types: type of a field → its columns.
        now: when the definitions were read.

    Returns:
        All fields, old and new, and what has changed. A field that is gone is among the changes each time.
    """
    fields = {(field.code, field.type): field for field in existing}
    current = {code: (label, kind) for code, label, kind in definitions if CODE.fullmatch(code)}
    if not current and not fields:
        return [], []
    taken = {name.lower() for name in stream.columns}
    for field in fields.values():
        taken |= _names(field.column, types.get(field.type, _TEXT))
    changes = []
    for field in fields.values():
        if definitions and field.code not in current:
            detail = f"{field.label!r} is not among the fields any more; its column {field.column} stays"
            changes.append(SchemaChange(stream.name, "field_gone", field.code, detail))
    for code, (label, kind) in current.items():
        before = fields.get((code, kind))
        if before is None:
            column = _free(label, code, types.get(kind, _TEXT), taken)
            taken |= _names(column, types.get(kind, _TEXT))
            others = [field.type for field in fields.values() if field.code == code]
            change = "field_retyped" if others else "field_added"
            detail = f"{label!r} ({kind}) is column {column}" + (f"; it was {others[-1]}" if others else "")
            changes.append(SchemaChange(stream.name, change, code, detail))
            fields[code, kind] = CustomField(stream.name, code, kind, label, column, now, now)
        else:
            if before.label != label:
                detail = f"{before.label!r} is called {label!r} now; its column stays {before.column}"
                changes.append(SchemaChange(stream.name, "field_renamed", code, detail))
            fields[code, kind] = CustomField(stream.name, code, kind, label, before.column, before.first_seen, now)
    return list(fields.values()), changes


def _free(label: str, code: str, kind: FieldType, taken: set[str]) -> str:
    """A free column name made of `label`; part of the code is added where that name is taken."""
    plain = "".join(char for char in unicodedata.normalize("NFKD", label) if not unicodedata.combining(char))
    words = re.sub(r"[\W_]+", "_", plain.lower())[:_MAX_LENGTH].strip("_")
    candidates = [f"cf_{words}"] if words else []
    candidates += [f"cf_{words or 'field'}_{code[:length]}" for length in (6, 12, 40)]
    candidates += [f"{candidates[-1]}_{number}" for number in range(2, 1000)]
    return next(column for column in candidates if not _names(column, kind) & taken)


def _names(column: str, kind: FieldType) -> set[str]:
    """All column names that a field with `column` takes, in lower case: DuckDB ignores case."""
    names = {column if part == "value" else f"{column}_{part}" for part in kind.columns}
    if kind.options:
        names |= {f"{column}_label", f"{column}_labels"}
    return {name.lower() for name in names}
