"""Fills what rows of saved answers do not mention from the table: it is not known, and stays.

A saved answer has what its request asked for: some columns come only with `include_fields`, and one version of the API
lacks keys of the other. None of that says that a value is gone. A list that pdsync read itself is whole: what it lacks,
such as a custom field that is not set, is gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pdsync.sql import first, quoted, quoted_list

if TYPE_CHECKING:
    from collections.abc import Sequence

    import duckdb

    from pdsync.model import Unmentioned

# The keys of the table's `_extra` that stay; they are JSON pointers without the first slash.
_KEPT_KEYS = (
    "list_filter(coalesce(json_keys(t._extra), []), lambda k: list_contains(t._left_over, k) OR NOT"
    " list_contains(t._keys, replace(replace(split_part(k, '/', 1), '~1', '/'), '~0', '~')))"
)


def keep_unmentioned(
    connection: duckdb.DuckDBPyConnection,
    staged: str,
    table: tuple[str, str, str | None],
    columns: Sequence[str],
    unmentioned: Sequence[Unmentioned],
) -> None:
    """Give the staged rows the values of the table's rows, in the columns that they do not mention.

    Args:
        connection: to the work file.
        staged: the staging table, quoted; its row hashes are renewed.
        table: name, key and flag of deleted records ("!" negates it) of the table.
        columns: those of a row's content, in the order of its hash.
        unmentioned: what the rows do not mention, by shape; `_extra` keeps the keys that they lack, too.
    """
    name, key, flag = table
    main = quoted("main", name)
    by_content: dict[tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]], list[int]] = {}
    for each in unmentioned:
        by_content.setdefault((each.columns, each.left_over, each.keys), []).extend(each.shapes)
    if not by_content or not first(connection.execute(f"SELECT 1 FROM {main} LIMIT 1")):
        return
    staged_shapes = {shape for (shape,) in connection.execute(f"SELECT DISTINCT _shape FROM {staged}").fetchall()}
    for (lacking, left_over, keys), of_content in by_content.items():
        shapes = [shape for shape in of_content if shape in staged_shapes]
        if not shapes:
            continue
        # A record that is listed again is deleted no more, unless it says so.
        values = {
            column: f"CASE WHEN t._deleted_at IS NULL THEN t.{quoted(column)} END"
            if flag and column == flag.removeprefix("!")
            else f"t.{quoted(column)}"
            for column in lacking
        }
        values["_extra"] = _merged_extra(_KEPT_KEYS)
        has_any = " OR ".join([f"len({_KEPT_KEYS}) > 0", *(f"t.{quoted(column)} IS NOT NULL" for column in lacking)])
        connection.execute(
            f"UPDATE {staged} s SET {', '.join(f'{quoted(column)} = {value}' for column, value in values.items())}"
            f" FROM (SELECT *, $left_over::VARCHAR[] AS _left_over, $keys::VARCHAR[] AS _keys FROM {main}) t"
            f" WHERE t.{quoted(key)} = s.{quoted(key)} AND ({has_any})"
            f" AND list_contains($shapes::UBIGINT[], s._shape)",
            {"left_over": list(left_over), "keys": list(keys), "shapes": shapes},
        )
        connection.execute(
            f"UPDATE {staged} SET _row_hash = hash({quoted_list(list(columns))}, _extra)"
            " WHERE list_contains($shapes::UBIGINT[], _shape)",
            {"shapes": shapes},
        )


def _merged_extra(kept: str) -> str:
    """The staged `_extra` with the keys that stay, in the order that a whole answer gives them."""
    keys = f"list_sort(list_distinct(list_concat({kept}, coalesce(json_keys(s._extra), []))))"
    address = "'/' || replace(replace(k, '~', '~0'), '/', '~1')"
    values = (
        f"list_transform({keys}, lambda k: coalesce(json_extract(s._extra, {address}),"
        f" json_extract(t._extra, {address})))"
    )
    return (
        f"CASE WHEN len({kept}) = 0 THEN s._extra"
        f" ELSE nullif(json_merge_patch('{{}}', to_json(MAP({keys}, {values}))), '{{}}') END"
    )
