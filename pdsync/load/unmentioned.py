"""Fills what staged rows do not mention from the table: what an answer does not mention is not known, and stays.

A list has some columns only where `include_fields` asks for them, one version of the API lacks keys of the other, and a
saved answer has what its request asked for. None of that says that a value is gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pdsync.sql import first, quoted, quoted_list

if TYPE_CHECKING:
    from collections.abc import Sequence

    import duckdb

    from pdsync.model import Unmentioned


def keep_unmentioned(
    connection: duckdb.DuckDBPyConnection,
    staged: str,
    table: tuple[str, str, str | None],
    columns: Sequence[str],
    unmentioned: Sequence[Unmentioned],
    *,
    is_partial: bool,
) -> None:
    """Give the staged rows the values of the table's rows, in the columns that they do not mention.

    Args:
        connection: to the work file.
        staged: the staging table, quoted; its row hashes are renewed.
        table: name, key and flag of deleted records ("!" negates it) of the table.
        columns: those of a row's content, in the order of its hash.
        unmentioned: what the rows do not mention, by shape.
        is_partial: the answers may lack keys that no column takes, too: `_extra` keeps those.
    """
    name, key, flag = table
    main = quoted("main", name)
    by_content: dict[tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]], list[int]] = {}
    for each in unmentioned:
        if each.columns or is_partial:
            content = (each.columns, each.left_over, each.keys if is_partial else ())
            by_content.setdefault(content, []).extend(each.shapes)
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
        kept = _kept_keys(is_partial=is_partial)
        values["_extra"] = _merged_extra(kept)
        has_any = " OR ".join([f"len({kept}) > 0", *(f"t.{quoted(column)} IS NOT NULL" for column in lacking)])
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


def _kept_keys(*, is_partial: bool) -> str:
    """The keys of the table's `_extra` that stay; they are JSON pointers without the first slash."""
    stays = "list_contains(t._left_over, k)"
    if is_partial:
        own_key = "replace(replace(split_part(k, '/', 1), '~1', '/'), '~0', '~')"
        stays += f" OR NOT list_contains(t._keys, {own_key})"
    return f"list_filter(coalesce(json_keys(t._extra), []), lambda k: {stays})"


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
