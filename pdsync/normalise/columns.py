"""Writes the SQL that turns sealed records into typed columns, without losing a leaf.

DuckDB parses each record once, into texts (`record_texts`). Then each text is cast to its column's type
(`typed_values`), and a condition shows whether the cast lost anything (`misfits`). Such a value goes unchanged to
`_extra`, under its JSON pointer, as does every key that no column takes. Nothing is dropped, and nothing is guessed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pdsync.normalise.misfits import containers_lost, misfit, row_misfits
from pdsync.normalise.record_texts import RecordTexts, keys_name, text_name
from pdsync.normalise.tables import pointer
from pdsync.normalise.typed_values import typed_value
from pdsync.sql import literal, quoted

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from pdsync.normalise.tables import Table, TableColumn


_LONG_LIST = 256  # bytes


class StagingSql:
    """The SQL for one table; built once for a stream and API version, in variants for the contents of the records.

    Args:
        table: the columns.
        rows: the relation of sealed records: row VARCHAR, context VARCHAR (JSON), row_number BIGINT, seq BIGINT,
            served_at TIMESTAMPTZ.
    """

    def __init__(self, table: Table, rows: str = "incoming_rows") -> None:
        self.table, self.rows = table, quoted(rows)
        self.stored = table.stored
        self._texts = RecordTexts(table, self.rows)
        self.containers = self._texts.containers

    def expected_keys(self) -> dict[str, set[str]]:
        """JSON pointer of an object → the keys in it that some column takes."""
        expected: dict[str, set[str]] = {"": set()}
        for column in self._texts.read:
            expected[""].add(column.path[0])
            for depth in range(1, len(column.path)):
                expected.setdefault(pointer(*column.path[:depth]), set()).add(column.path[depth])
            if column.part:
                expected.setdefault(column.pointer, set()).add(column.part)
        return expected

    def always_residual(self) -> set[str]:
        """Columns whose v1 values have more than they store: whole users and persons, placeholders for no e-mail."""
        if self.table.version != "v1":
            return set()
        return {column.name for column in self.stored if (column.ref and not column.code) or "value" in column.items}

    def select(self, unknown: Mapping[str, str], residual: Collection[str]) -> str:
        """A SELECT over `rows` that gives the stored columns, and the others that `columns` lists.

        Args:
            unknown: JSON pointers of what no column takes → a condition: in which rows it goes to `_extra`. It must
                depend on the row alone, or a record would look changed whenever it comes with other neighbours.
            residual: columns whose values go to `_extra` where they do not fit. Of all others, `_unfit` shows
                whether a row has a value that does not fit: then its column must be residual.
        """
        values, extra = self._extra(unknown, residual)
        shapes = self.shapes()
        lost = containers_lost(self.containers, self._texts.read)
        unfit = " OR ".join(["false", *row_misfits(self.table, residual), *lost])
        return (
            f"SELECT {', '.join(quoted(column.name) for column in self.stored)}, _extra,"
            f" {self.row_hash()} AS _row_hash, _served_at, _seq, _row_number, _unfit, {', '.join(shapes)}"
            f" FROM (SELECT *, {extra} AS _extra, coalesce({unfit}, false) AS _unfit,"
            f" {', '.join(f'{value} AS {name}' for name, value in shapes.items())}"
            f" FROM (SELECT *, {self._typed_list()}, {values} AS _left_over FROM ({self._texts.relation()})))"
        )

    def columns(self) -> dict[str, str]:
        """The columns of `select` with their types."""
        stored = {column.name: column.type for column in self.stored}
        return {**stored, "_extra": "JSON", "_row_hash": "UBIGINT", "_served_at": "TIMESTAMPTZ", "_seq": "BIGINT",
                "_row_number": "BIGINT", "_unfit": "BOOLEAN", **dict.fromkeys(self.shapes(), "UBIGINT")}  # fmt: skip

    def keys(self) -> str:
        """The keys of a record and of the expected objects in it, as lists in the order of `expected_keys`."""
        return f"json_keys(row, [{', '.join(map(literal, self.expected_keys()))}])"

    def is_sent(self, column: TableColumn) -> str:
        """A condition on a row: its request had the parameter that fills `column`."""
        return f"{self._texts.parameter_text(column)} IS NOT NULL"

    def shapes(self) -> dict[str, str]:
        """Hash columns for the keys of a row: one for the record, and one for the elements of each of its lists.

        With a single hash of all, every combination of expected keys would be a new shape. For the same reason each
        kind of element counts once where a list is long.
        """
        containers = ", ".join(map(literal, ("", *(pointer(*path) for path in self.containers))))
        keys = [f"json_keys(row, [{containers}])", *map(keys_name, self._texts.objects_with_parts)]
        keys += [f"{text_name(column)} IS NULL" for column in self.stored if column.parameter is not None]
        hashes = {"_shape": f"hash({', '.join(keys)})"}
        for index, text in enumerate(text_name(column) for column in self.stored if column.items):
            # An element that is no object has no keys, but a type.
            kinds = (
                f"CASE WHEN NOT starts_with({text}, '[') OR {text} = '[]' THEN NULL WHEN strlen({text}) < {_LONG_LIST}"
                f" THEN TRY({function}({text}, '$[*]')) ELSE TRY(list_distinct({function}({text}, '$[*]'))) END"
                for function in ("json_keys", "json_type")
            )
            hashes[f"_shape_{index}"] = f"hash({index}, {', '.join(kinds)})"
        return hashes

    def misfits(self) -> str:
        """A SELECT over `rows` with one count a column: how many values of it do not fit."""
        counts = ", ".join(f"count(*) FILTER ({misfit(self.table, column) or 'false'})" for column in self.stored)
        return f"SELECT {counts} FROM (SELECT *, {self._typed_list()} FROM ({self._texts.relation()}))"

    def keyless(self) -> str:
        """A SELECT over `rows` of the records (_seq, row) that have no usable key."""
        key = quoted(self.table.stream.key)
        typed = f"SELECT *, {self._typed_list()} FROM ({self._texts.relation()})"
        return f"SELECT _seq, row FROM ({typed}) WHERE {key} IS NULL"

    def row_hash(self) -> str:
        """A hash of a row's content, made of the stored columns alone: it can be recomputed from the table."""
        return f"hash({', '.join(quoted(column.name) for column in self.stored)}, _extra)"

    def _typed_list(self) -> str:
        return ", ".join(f"{typed_value(self.table, column)} AS {quoted(column.name)}" for column in self.stored)

    def _extra(self, unknown: Mapping[str, str], residual: Collection[str]) -> tuple[str, str]:
        """Two expressions: the values that may be left over, as a list, and the object made of those that are."""
        conditions = {address: [condition] for address, condition in unknown.items()}
        for column in self.stored:
            if column.name in residual and (condition := misfit(self.table, column)):
                conditions.setdefault(column.pointer, []).append(condition)
        if not conditions:
            return "NULL", "NULL::JSON"
        conditions = dict(sorted(conditions.items()))  # one order for good: `_extra` is a part of the row's hash
        keys = ", ".join(literal(address[1:]) for address in conditions)
        values = ", ".join(
            f"_left_over[{index}]"
            if "true" in checks
            else f"CASE WHEN {' OR '.join(checks)} THEN _left_over[{index}] END"
            for index, checks in enumerate(conditions.values(), 1)
        )
        left_over = f"json_extract(row, [{', '.join(literal(address) for address in conditions)}])"
        # The patch leaves out nulls; an object without keys says nothing.
        return left_over, f"nullif(json_merge_patch('{{}}', to_json(MAP([{keys}], [{values}]))), '{{}}')"
