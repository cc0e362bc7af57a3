"""Masks columns on their way out: hashed, emptied, or reduced to a domain.

`email=hash` masks a column in every table, `persons.email=hash` in one. A list can be named in the singular too
(`email` is also `emails`). With a list the table of its elements is masked, and with a column of that table the same
field in the list. Where a table has a masked column its
`_extra` is empty, because it has the raw values that did not fit their columns.

A hash is keyed with a secret of the project: equal values give equal hashes in every export, so that joins work, and
a value can't be found by hashing guesses.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, get_args

from msgspec import Struct

from pdsync.core import catalogue
from pdsync.errors import ConfigError
from pdsync.sql import literal, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

How = Literal["hash", "null", "keep_domain"]


class Kind(Protocol):
    """A DuckDB type; its string is SQL."""

    @property
    def id(self) -> str:
        """list, struct, varchar, …"""

    @property
    def children(self) -> list[tuple[str, Any]]:
        """Of a list its elements' type, of a struct its fields with their types."""


class Mask(Struct, frozen=True):
    """How a column is masked; in every table, where `table` is None."""

    table: str | None
    column: str
    how: How

    @staticmethod
    def of(text: str) -> Mask:
        """The mask for `[TABLE.]COLUMN=HOW`.

        Raises:
            ConfigError: `text` has another form. Nothing was written.
        """
        address, sign, how = text.partition("=")
        table, _, column = address.rpartition(".")
        if not sign or not column or how not in get_args(How):
            raise ConfigError(f"--mask {text}: write it like email=hash; {', '.join(get_args(How))} are possible.")
        return Mask(table or None, column, how)  # type: ignore[arg-type]

    def __str__(self) -> str:
        return f"{self.table + '.' if self.table else ''}{self.column}={self.how}"


class _ListView(NamedTuple):
    """A table with the elements of a list, which is a column of another table."""

    name: str
    parent: str  # the other table
    column: str
    fields: dict[str, str]  # the view's column → the element's field; none where the elements are plain values
    value: str | None  # the view's column of plain values

    @property
    def values(self) -> set[str]:
        """The columns that are masked with the whole list."""
        return {self.value} if self.value else {"value"} & self.fields.keys() or set(self.fields)


def resolve(masks: Iterable[Mask], tables: Mapping[str, Sequence[str]]) -> dict[str, dict[str, How]]:
    """Which columns are masked, by table; `list.field` is a field of a list's elements.

    Args:
        masks: the requested masks.
        tables: the tables that are exported, with their columns.

    Raises:
        ConfigError: a mask matches no column. Nothing was written.
    """
    views = [
        _ListView(
            child,
            stream.name,
            entry.of,
            # The view's columns: the parent's key, the position, then the fields in the order of the catalogue.
            dict(zip(tables.get(child, ())[2:], stream.column(entry.of).items, strict=False)),
            entry.value,
        )
        for stream in catalogue.streams().values()
        for child, entry in stream.children.items()
    ]
    masked: dict[str, dict[str, How]] = {table: {} for table in tables}
    for mask in masks:
        found = _find_columns(mask, tables, views)
        if not found:
            named = [mask.table] if mask.table and mask.table in tables else list(tables)
            existing = sorted({name for table in named for name in tables[table]})
            near = difflib.get_close_matches(mask.column, existing, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ConfigError(f"--mask {mask}: no exported table has such a column.{hint} Nothing was written.")
        for table, column in found:
            masked[table][column] = mask.how
    return masked


def _find_columns(mask: Mask, tables: Mapping[str, Sequence[str]], views: Iterable[_ListView]) -> set[tuple[str, str]]:
    """The columns that `mask` names, by table, and those that show the same values: of a list and its view, both."""
    names = {mask.column, f"{mask.column}s"}
    found = {
        (table, column)
        for table, columns in tables.items()
        if mask.table in (None, table)
        for column in names & set(columns)
    }
    for view in views:
        of_list, of_view = (view.parent, view.column), {column for table, column in found if table == view.name}
        if view.parent in tables:
            if of_list not in found and mask.table == view.name and view.column in names:
                found.add(of_list)
            if view.value in of_view:
                found.add(of_list)
            found |= {(view.parent, f"{view.column}.{view.fields[each]}") for each in of_view & view.fields.keys()}
        if view.name in tables and of_list in found:
            found |= {(view.name, column) for column in view.values & set(tables[view.name])}
    return found


def selected(columns: Mapping[str, Kind], masked: Mapping[str, How], key: str) -> str:
    """The SELECT list of a table, masked.

    Intervals and times of day become texts (`01:30:00`): Spark can't open a file with one.

    Args:
        columns: of the table, with their types.
        masked: column, or `list.field` → how it is masked.
        key: the project's secret.
    """
    made = []
    for column, kind in columns.items():
        how = masked.get(column) or ("null" if masked and column == "_extra" else None)
        fields = {name.partition(".")[2]: each for name, each in masked.items() if name.startswith(f"{column}.")}
        value = quoted(column)
        if how or fields:
            value = _masked_sql(value, kind, how, key, fields)
        if str(kind) in ("INTERVAL", "TIME"):
            value = f"{value}::VARCHAR"
        made.append(f"{value} AS {quoted(column)}")
    return ", ".join(made)


def _masked_sql(
    value: str, kind: Kind, how: How | None, key: str, fields: Mapping[str, How] | None = None, depth: int = 0
) -> str:
    """SQL that masks the expression `value` of a DuckDB type; it contains the secret `key`, so it is not logged.

    `how` masks it whole, `fields` the fields of its structs; `depth` counts the lambdas around it.
    """
    fields = fields or {}
    if how is None and kind.id not in ("list", "struct"):  # it has no such field: all of it is hidden
        how = next(iter(fields.values()))
    if how == "null":
        return f"CAST(NULL AS {kind})"
    if kind.id == "list":
        inner = _masked_sql(f"e{depth}", kind.children[0][1], how, key, fields, depth + 1)
        return f"list_transform({value}, lambda e{depth}: {inner})"
    if kind.id == "struct":
        names = [name for name, _ in kind.children]
        whole: list[str] = ([name for name in names if name == "value"] or names) if how else []
        hidden = {**dict.fromkeys(whole, how), **fields}
        packed = ", ".join(
            f"{quoted(name)} := "
            + (
                _masked_sql(f"{value}.{quoted(name)}", part, hidden[name], key, depth=depth)
                if name in hidden
                else f"{value}.{quoted(name)}"
            )
            for name, part in kind.children
        )
        return f"CASE WHEN {value} IS NOT NULL THEN struct_pack({packed}) END"
    text = f"lower(trim({value}::VARCHAR))"
    hashed = f"sha256({literal(key)} || {text})"
    if how == "hash":
        return hashed
    return (
        f"CASE WHEN contains({text}, '@') THEN left({hashed}, 16) || '@' || split_part({text}, '@', -1)"
        f" ELSE {hashed} END"
    )
