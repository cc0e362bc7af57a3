"""Says what the comments on the tables and views of a stream are: from the catalogue, and from its custom fields."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from pdsync.core import comments
from pdsync.load import warehouse
from pdsync.load.comments import Relation

if TYPE_CHECKING:
    from collections.abc import Iterator

    import duckdb

    from pdsync.load.warehouse import LabeledColumn
    from pdsync.model import Child, Stream
    from pdsync.normalise.tables import Table, TableColumn

_FEW_OPTIONS = 20
_LONG_LABEL = 120  # characters


class _Field(Struct, frozen=True):
    """A custom field: its label and type, and the options of a choice as (id, label)."""

    column: str
    label: str
    type: str
    options: list[tuple[str, str]]


Fields = dict[tuple[str, str], list[_Field]]  # by stream and code; several if its type has changed


def custom_fields(connection: duckdb.DuckDBPyConnection) -> Fields:
    """The custom fields of all streams."""
    options = {
        (stream, code): list(zip(ids, labels, strict=True))
        for stream, code, ids, labels in connection.execute(
            "SELECT entity, field_code, list(option_id ORDER BY try_cast(option_id AS BIGINT), option_id),"
            " list(coalesce(label, '') ORDER BY try_cast(option_id AS BIGINT), option_id)"
            " FROM meta.field_options GROUP BY ALL"
        ).fetchall()
    }
    fields: Fields = {}
    for stream, code, column, label, kind in connection.execute(
        "SELECT entity, field_code, column_name, coalesce(label, ''), field_type FROM meta.custom_fields"
        " ORDER BY entity, column_name"
    ).fetchall():
        fields.setdefault((stream, code), []).append(_Field(column, label, kind, options.get((stream, code), [])))
    return fields


def relations(
    stream: Stream, table: Table, columns: list[str], shown: dict[str, LabeledColumn], fields: Fields
) -> Iterator[Relation]:
    """The table of a stream and each view of it, with comments.

    Args:
        stream: the stream.
        table: its columns as the catalogue and the custom fields have them.
        columns: those of its table, in order.
        shown: the columns of `labeled.<stream>`.
        fields: the custom fields of all streams.
    """
    by_name = {column.name: column for column in table.columns}
    texts = {name: _comment(stream, name, by_name.get(name), fields) for name in columns}
    yield Relation("main", stream.name, "TABLE", stream.comment, texts)
    versions = {name: text for name, text in texts.items() if name != "_row_hash"}
    versions["_valid_to"] = comments.of_column(stream, "_valid_to")
    yield Relation("history", stream.name, "VIEW", f"All versions of {stream.name}. {stream.comment}", versions)
    labeled = {}
    for name, source in shown.items():
        text = texts[source.column]
        if source.column == "label_ids" and (source.table or source.code):
            text = "Its labels, by name."
        elif source.table:
            text = f"{source.table}.{source.title} for {source.column}: {text}"
        elif source.code:
            text = f"Label of the option; its id is beside it. {text}"
        labeled[name] = text
    yield Relation(
        "labeled",
        stream.name,
        "VIEW",
        f"{stream.name} with names and labels in place of ids. {stream.comment}",
        labeled,
    )
    for name, child in stream.children.items():
        yield from _child(stream, name, child)


def _child(stream: Stream, name: str, child: Child) -> Iterator[Relation]:
    list_text = comments.of_column(stream, child.of)
    text = f"{list_text} One row for each element of {stream.name}.{child.of}."
    items = list(stream.column(child.of).items)
    columns = {
        child.parent: f"Record with the list ({stream.name}.{stream.key}).",
        "position": comments.defaults().system["position"],
    }
    if child.value:
        columns[child.value] = comments.of_element(stream, child.of, child.value)
    for item, shown in zip(items, warehouse.distinct(items, columns), strict=True):
        columns[shown] = comments.of_element(stream, child.of, item)
    yield Relation("main", name, "VIEW", text, columns)
    period = {column: comments.of_column(stream, column) for column in ("_valid_from", "_valid_to")}
    yield Relation("history", name, "VIEW", f"In all versions of {stream.name}. {text}", columns | period)


def _comment(stream: Stream, name: str, column: TableColumn | None, fields: Fields) -> str:
    """The comment of a column of the table of `stream`."""
    if column is None or column.code is None:
        return comments.of_column(stream, name)
    base = column.label_of or name
    variants = fields.get((stream.name, column.code), [])
    field = next((each for each in variants if base == each.column or base.startswith(f"{each.column}_")), None)
    if field is None:
        return "Custom field."
    part = base.removeprefix(field.column).lstrip("_").replace("_", " ")
    text = f'Custom field "{field.label[:_LONG_LABEL].strip()}" ({field.type})' + (f": {part}" if part else "")
    if column.label_of:
        return f"{text}: labels for {column.label_of}."
    if len(field.options) > _FEW_OPTIONS:
        return f"{text}. Ids of {len(field.options)} options, in meta.field_options."
    options = "; ".join(f"{id} = {label[:_LONG_LABEL]}" for id, label in field.options)
    return f"{text}. Options: {options}." if options else f"{text}."
