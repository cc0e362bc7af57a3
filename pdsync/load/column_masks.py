"""Masks columns on their way out: hashed, emptied, or reduced to a domain.

`email=hash` masks a column in every table, `persons.email=hash` in one. A list can be named in the singular too
(`email` is also `emails`), and with a list the table of its elements is masked. Where a table has a masked column its
`_extra` is empty, because it has the raw values that did not fit their columns.

A hash is keyed with a secret of the project: equal values give equal hashes in every export, so that joins work, and
a value can't be found by hashing guesses.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

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


def resolve(masks: Iterable[Mask], tables: Mapping[str, Sequence[str]]) -> dict[str, dict[str, How]]:
    """Which columns are masked, by table.

    Args:
        masks: the requested masks.
        tables: the tables that are exported, with their columns.

    Raises:
        ConfigError: a mask matches no column. Nothing was written.
    """
    children = {
        child: (stream.name, entry.of, entry.value)
        for stream in catalogue.streams().values()
        for child, entry in stream.children.items()
    }
    masked: dict[str, dict[str, How]] = {table: {} for table in tables}
    for mask in masks:
        table, column, fits = mask.table, mask.column, False
        if table in children:  # the elements of a list are in its parent's table too
            table, column, _ = children[table]
        for each, columns in tables.items():
            if table in (None, each):
                for name in {column, f"{column}s"} & set(columns):
                    masked[each][name], fits = mask.how, True
        if not fits:
            existing = sorted({name for columns in tables.values() for name in columns})
            near = difflib.get_close_matches(column, existing, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ConfigError(f"--mask {mask}: no exported table has such a column.{hint} Nothing was written.")
    for child, (parent, list_column, value) in children.items():
        how = masked.get(parent, {}).get(list_column)
        if child in tables and how:
            masked_items = {value or "value"} & set(tables[child]) or set(tables[child])
            masked[child] |= dict.fromkeys(masked_items - {"position", *tables[child][:1]}, how)
    return masked


def selected(columns: Mapping[str, Kind], masked: Mapping[str, How], key: str) -> str:
    """The SELECT list of a table, masked.

    Intervals and times of day become texts (`01:30:00`): Spark can't open a file with one.

    Args:
        columns: of the table, with their types.
        masked: column → how it is masked.
        key: the project's secret.
    """
    made = []
    for column, kind in columns.items():
        how = masked.get(column) or ("null" if masked and column == "_extra" else None)
        value = quoted(column)
        if how:
            value = _masked_sql(value, kind, how, key)
        if str(kind) in ("INTERVAL", "TIME"):
            value = f"{value}::VARCHAR"
        made.append(f"{value} AS {quoted(column)}")
    return ", ".join(made)


def _masked_sql(value: str, kind: Kind, how: How, key: str, depth: int = 0) -> str:
    """SQL that masks the expression `value` of a DuckDB type; it contains the secret `key`, so it is not logged.

    `depth` counts the lambdas around it.
    """
    if how == "null":
        return f"CAST(NULL AS {kind})"
    if kind.id == "list":
        inner = _masked_sql(f"e{depth}", kind.children[0][1], how, key, depth + 1)
        return f"list_transform({value}, lambda e{depth}: {inner})"
    if kind.id == "struct":
        parts = kind.children
        wanted = [name for name, _ in parts if name == "value"] or [name for name, _ in parts]
        packed = ", ".join(
            f"{quoted(name)} := "
            + (
                _masked_sql(f"{value}.{quoted(name)}", part, how, key, depth)
                if name in wanted
                else f"{value}.{quoted(name)}"
            )
            for name, part in parts
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
