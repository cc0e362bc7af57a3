"""Writes the SQL that turns sealed records into typed columns, without losing a leaf.

DuckDB parses each record once, into text: every number, flag or object becomes the text it was. Then each text is
cast to its column's type, and the same expression tells whether anything was lost by it: a text that did not fit, a
fraction cut from a whole number, an object where an id was expected. Such a value stands whole in `_extra`, under its
JSON pointer, as does every key that no column takes. Nothing of a record is dropped, and nothing guessed.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pdsync.normalise.tables import pointer
from pdsync.sql import literal, quoted

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from pdsync.normalise.tables import Table, TableColumn


_LONG_LIST = 256  # bytes
_NO_OBJECT = "\u0001no object: "  # before a value that stands where an object was expected


class StagingSql:
    """The SQL for one table; built once for a stream and API version, and asked for its variants.

    Args:
        table: the columns.
        rows: the relation of sealed records: row VARCHAR, context VARCHAR (JSON), place BIGINT, seq BIGINT,
            served_at TIMESTAMPTZ.
    """

    def __init__(self, table: Table, rows: str = "incoming_rows") -> None:
        self.table, self.rows = table, quoted(rows)
        self.stored = table.stored
        self._read = [column for column in self.stored if column.path and column.asked is None]
        self.containers = list(  # objects whose keys are columns of their own: custom fields, above all
            dict.fromkeys(column.path[:depth] for column in self.stored for depth in range(1, len(column.path)))
        )
        self._objects = list(dict.fromkeys(column.path for column in self.stored if column.part or column.ref))
        self._parted = [i for i, path in enumerate(self._objects) if any(c.part for c in self.stored if c.path == path)]

    def known_keys(self) -> dict[str, set[str]]:
        """What is expected: JSON pointer of an object → the keys in it that some column takes."""
        known: dict[str, set[str]] = {"": set()}
        for column in self._read:
            known[""].add(column.path[0])
            for depth in range(1, len(column.path)):
                known.setdefault(pointer(*column.path[:depth]), set()).add(column.path[depth])
            if column.part:
                known.setdefault(column.pointer, set()).add(column.part)
        return known

    def always_residual(self) -> set[str]:
        """Columns that v1 fills from more than they hold: whole users and persons, placeholders for no e-mail."""
        if self.table.version != "v1":
            return set()
        return {column.name for column in self.stored if (column.ref and not column.code) or "value" in column.items}

    def select(self, unknown: Mapping[str, str], residual: Collection[str]) -> str:
        """A SELECT over `rows` that gives the stored columns, and what `columns` lists besides.

        Args:
            unknown: JSON pointers of what no column takes → a condition: in which rows it goes to `_extra`. It must
                speak of the row alone, or a record would look changed whenever it comes with other neighbours.
            residual: columns whose values go to `_extra` where they do not fit. Of all others, `_unfit` tells
                whether a row has a value that does not fit: then its column must be residual.
        """
        found, extra = self._extra(unknown, residual)
        shapes = self.shapes()
        unfit = " OR ".join(["false", *self._lossy(residual), *self._containers_lost()])
        return (
            f"SELECT {', '.join(quoted(column.name) for column in self.stored)}, _extra,"
            f" {self.row_hash()} AS _row_hash, _served_at, _seq, _place, _unfit, {', '.join(shapes)}"
            f" FROM (SELECT *, {extra} AS _extra, coalesce({unfit}, false) AS _unfit,"
            f" {', '.join(f'{value} AS {name}' for name, value in shapes.items())}"
            f" FROM (SELECT *, {self._typed_list()}, {found} AS _found FROM ({self._texts()})))"
        )

    def columns(self) -> dict[str, str]:
        """The columns of `select` with their types."""
        stored = {column.name: column.type for column in self.stored}
        return {**stored, "_extra": "JSON", "_row_hash": "UBIGINT", "_served_at": "TIMESTAMPTZ", "_seq": "BIGINT",
                "_place": "BIGINT", "_unfit": "BOOLEAN", **dict.fromkeys(self.shapes(), "UBIGINT")}  # fmt: skip

    def keys(self) -> str:
        """The keys of a record and of the known objects in it, as lists in the order of `known_keys`."""
        return f"json_keys(row, [{', '.join(map(literal, self.known_keys()))}])"

    def shapes(self) -> dict[str, str]:
        """Columns that tell which keys a row has: one for the record, and one for the elements of each of its lists.

        One for all of it would call every combination of known things news. For the same reason each kind of element
        counts once where a list is long.
        """
        containers = ", ".join(map(literal, ("", *(pointer(*path) for path in self.containers))))
        keys = [f"json_keys(row, [{containers}])", *map(_keys_name, self._parted)]
        hashes = {"_shape": f"hash({', '.join(keys)})"}
        for index, text in enumerate(_text_name(column) for column in self.stored if column.items):
            # An element that is no object has no keys, but a kind.
            kinds = (
                f"CASE WHEN NOT starts_with({text}, '[') OR {text} = '[]' THEN NULL WHEN strlen({text}) < {_LONG_LIST}"
                f" THEN TRY({what}({text}, '$[*]')) ELSE TRY(list_distinct({what}({text}, '$[*]'))) END"
                for what in ("json_keys", "json_type")
            )
            hashes[f"_shape_{index}"] = f"hash({index}, {', '.join(kinds)})"
        return hashes

    def misfits(self) -> str:
        """A SELECT over `rows` with one count a column: how many values of it do not fit."""
        counts = ", ".join(f"count(*) FILTER ({self._unfit(column) or 'false'})" for column in self.stored)
        return f"SELECT {counts} FROM (SELECT *, {self._typed_list()} FROM ({self._texts()}))"

    def keyless(self) -> str:
        """A SELECT over `rows` of the records (_seq, row) that have no usable key."""
        key = quoted(self.table.stream.key)
        return f"SELECT _seq, row FROM (SELECT *, {self._typed_list()} FROM ({self._texts()})) WHERE {key} IS NULL"

    def _typed_list(self) -> str:
        return ", ".join(f"{self._typed(column)} AS {quoted(column.name)}" for column in self.stored)

    def row_hash(self) -> str:
        """A hash of a row's content, made of the stored columns alone: it can be made again from the table."""
        return f"hash({', '.join(quoted(column.name) for column in self.stored)}, _extra)"

    def _texts(self) -> str:
        """Level 1 and 2: records parsed into text, then the objects in them."""
        spec: dict[str, object] = {}
        for column in self._read:
            place = spec
            for key in column.path[:-1]:
                inner = place.setdefault(key, {})
                place = inner if isinstance(inner, dict) else {}
            place.setdefault(column.path[-1], "VARCHAR")
            if column.fallback:
                spec.setdefault(column.fallback, "VARCHAR")
        parsed = f"from_json(row, {literal(json.dumps(spec))})"
        objects = "".join(
            f", CASE WHEN starts_with({_at(path)}, '{{')"
            # A text may begin like an object too.
            f" THEN TRY(from_json({_at(path)}, {literal(self._parts(path))})) END"
            f" AS o{index}"
            for index, path in enumerate(self._objects)
        )
        texts = ", ".join(f"{self._text(column)} AS {_text_name(column)}" for column in self.stored if column.path)
        texts += "".join(
            f", o{self._objects.index(column.path)} IS NOT NULL AS {_object_name(column)}"
            for column in self.stored
            if column.ref
        )
        # Looking for these objects in the whole record, by their pointers, would take longer.
        texts += "".join(
            f", CASE WHEN o{index} IS NOT NULL THEN json_keys({_at(self._objects[index])}) END AS {_keys_name(index)}"
            for index in self._parted
        )
        lists = "".join(
            f", CASE WHEN starts_with({_text_name(column)}, '[{{') THEN TRY(from_json({_text_name(column)},"
            f" {literal(json.dumps([{key: 'VARCHAR' for key, _ in column.items.values()}]))})) END"
            f" AS {_elements_name(column)}"
            for column in self.stored
            if column.items
        )
        lists += "".join(f", {self._joined(column)} AS {_text_name(column)}" for column in self.stored if column.join)
        return (
            f"SELECT *{lists} FROM (SELECT row, _served_at, _seq, _place, {texts} FROM (SELECT *{objects} FROM"
            f" (SELECT row, context, served_at AS _served_at, seq AS _seq, place AS _place, {parsed} AS r"
            f" FROM {self.rows})))"
        )

    def _joined(self, column: TableColumn) -> str:
        """A key made of several columns. What the first of them lacks has no key; the others may be empty."""
        first, *others = (quoted("text " + name) for name in column.join)
        return " || '/' || ".join([first, *(f"coalesce({other}, '')" for other in others)])

    def _parts(self, path: tuple[str, ...]) -> str:
        parts = {c.part: "VARCHAR" for c in self.stored if c.path == path and c.part}
        if any(c.ref for c in self.stored if c.path == path):
            parts |= {"value": "VARCHAR", "id": "VARCHAR"}
        return json.dumps(parts)

    def _text(self, column: TableColumn) -> str:
        text = self._text_as_is(column)
        if column.fallback:
            text = f"coalesce({text}, {_at((column.fallback,))})"
        # v1 writes "" where there is no number, flag or time.
        empty = self.table.version == "v1" and column.type != "VARCHAR"
        return f"nullif({text}, '')" if empty else text

    def _text_as_is(self, column: TableColumn) -> str:
        if column.asked is not None:
            return f"json_extract_string(context, {literal(pointer(column.asked))})"
        here = _at(column.path)
        if column.ref:
            inner = f"o{self._objects.index(column.path)}"
            return f'CASE WHEN {inner} IS NOT NULL THEN coalesce({inner}."value", {inner}."id") ELSE {here} END'
        if column.part is None:
            return here
        inside = f"o{self._objects.index(column.path)}.{quoted(column.part)}"
        plain = f"nullif({here}, '[]')"
        if column.part != "value":
            if not self._is_part(column):
                return inside
            plain = f"{literal(_NO_OBJECT)} || {plain}"  # which does not fit, so that it is kept in `_extra`
        # What is an object now may have been a plain value before its field changed, or comes so from another list.
        return f"CASE WHEN o{self._objects.index(column.path)} IS NOT NULL THEN {inside} ELSE {plain} END"

    def _is_part(self, column: TableColumn) -> bool:
        """Whether a column is a part of an object that no column takes as a plain value."""
        return column.part not in (None, "value") and not any(
            other.path == column.path and other.part == "value" for other in self.stored
        )

    def _typed(self, column: TableColumn) -> str:
        text = _text_name(column)
        if column.items:
            return self._typed_objects(column)
        if column.type.endswith("[]"):
            parts = f"CASE WHEN starts_with({text}, '[') THEN TRY(from_json({text}, '[\"VARCHAR\"]'))"
            parts += f" WHEN {text} <> '' THEN string_split({text}, ',') END"
            return f"coalesce(TRY_CAST({parts} AS {column.type}), [])"
        if column.type == "VARCHAR" and self._is_part(column):
            text = f"CASE WHEN NOT starts_with({text}, {literal(_NO_OBJECT)}) THEN {text} END"
        if column.type == "VARCHAR":
            return f"nullif({text}, '')" if column.blank_is_null else text
        cast = f"TRY_CAST({text} AS {column.type})"
        if column.name == self.table.stream.key and column.type == "BIGINT":
            return f"CASE WHEN NOT {_fraction(text)} THEN {cast} END"  # a rounded key is another record's
        return f"NOT {cast}" if column.negated else cast

    def _typed_objects(self, column: TableColumn) -> str:
        if self._casts_whole(column):
            return f"coalesce(TRY_CAST({_elements_name(column)} AS {column.type}), [])"
        fields = ", ".join(
            f"{quoted(item)} := "
            + (f"i.{quoted(key)}" if kind == "VARCHAR" else f"TRY_CAST(i.{quoted(key)} AS {kind})")
            for item, (key, kind) in column.items.items()
        )
        return f"coalesce(list_transform({self._elements(column)}, lambda i: struct_pack({fields})), [])"

    def _casts_whole(self, column: TableColumn) -> bool:
        """Whether a list of objects can be cast as it is, and cast back to see what was lost: many times quicker."""
        kinds = {kind for _, kind in column.items.values()}
        same = all(item == key for item, (key, _) in column.items.items())
        return self.table.version == "v2" and same and kinds <= {"VARCHAR", "BIGINT", "BOOLEAN"}

    def _elements(self, column: TableColumn) -> str:
        """The elements of a list of objects as texts, without the empty value that v1 sends for none."""
        if self.table.version == "v1" and "value" in column.items:
            return f"list_filter({_elements_name(column)}, lambda i: i.\"value\" <> '')"
        return _elements_name(column)

    def _lossy(self, residual: Collection[str]) -> list[str]:
        """Conditions of which one is true (or NULL, never alone) where a value of a row does not fit.

        Quick, because every row passes here: most casts either keep a value or give NULL; only those that may round
        have a condition of their own.
        """
        lost, maybe, whole = [], [], []
        for column in self.stored:
            if column.name in residual:
                continue
            if column.type == "VARCHAR" or column.type.endswith("[]"):
                maybe.append(self._unfit(column))
                continue
            lost.append(f"({_text_name(column)} IS NULL) <> ({quoted(column.name)} IS NULL)")
            if column.type == "BIGINT":
                whole.append(_text_name(column))
            else:
                maybe.append(self._rounded(column))
            if column.ref:
                lost.append(_object_name(column))
        if whole:  # looked at as one text, as there are dozens of them in a row
            lost.append(_fraction(f"concat({', '.join(whole)})"))
        return [*lost, *(f"coalesce({condition}, false)" for condition in maybe if condition)]

    def _rounded(self, column: TableColumn) -> str | None:
        """A condition that is true where a cast that succeeded has cut something off; None if it never does."""
        text, typed = _text_name(column), quoted(column.name)
        if column.type == "BIGINT":
            return _fraction(text)
        if column.type.startswith("DECIMAL"):
            return f"{typed}::DOUBLE <> TRY_CAST({text} AS DOUBLE)"
        if column.type == "DATE":
            return f"length({text}) > 10"
        if column.type == "TIME":  # a whole date fits into a time of day, without its day
            return f"length({text}) > 8"
        if column.type == "INTERVAL":
            return f"contains({text}, '.')"
        return None

    def _unfit(self, column: TableColumn) -> str | None:
        """A condition that is true where the typed column says less than its text did; None if it never can."""
        text, typed = _text_name(column), quoted(column.name)
        if column.items:
            return self._unfit_objects(column, text, typed)
        if column.type.endswith("[]"):
            lost = f"len({typed}) = 0 OR list_aggregate({typed}, 'count') <> len({typed})"
            if column.type == "BIGINT[]":
                lost += f" OR {_fraction(text)}"
            if column.type == "VARCHAR[]":
                lost += f" OR starts_with({text}, '{{')"
            return f"{text} NOT IN ('', '[]') AND ({lost})"
        if column.type == "VARCHAR":
            return f"starts_with({text}, {literal(_NO_OBJECT)})" if self._is_part(column) else None
        lost = " OR ".join(filter(None, [f"{typed} IS NULL", self._rounded(column)]))
        condition = f"{text} IS NOT NULL AND ({lost})"
        if column.ref:  # an object tells more than an id
            condition = f"(({condition}) OR {_object_name(column)})"
        return condition

    def _unfit_objects(self, column: TableColumn, text: str, typed: str) -> str:
        conditions = [f"NOT starts_with({text}, '[{{')", f"len({typed}) = 0"]
        if self._casts_whole(column):
            back = ", ".join(f"{quoted(item)} VARCHAR" for item in column.items)
            conditions.append(f"CAST({typed} AS STRUCT({back})[]) IS DISTINCT FROM {_elements_name(column)}")
            return f"{text} NOT IN ('', '[]') AND ({' OR '.join(conditions)})"
        if self._elements(column) != _elements_name(column):
            conditions.append(f"len({typed}) <> TRY(json_array_length({text}))")
        bad = " OR ".join(
            f"(i.{quoted(key)} <> '' AND {_item_lost(f'i.{quoted(key)}', kind)})"
            for key, kind in column.items.values()
            if kind != "VARCHAR"
        )
        if bad:
            conditions.append(f"len(list_filter({self._elements(column)}, lambda i: {bad})) > 0")
        return f"{text} NOT IN ('', '[]') AND ({' OR '.join(conditions)})"

    def _containers_lost(self) -> list[str]:
        """Conditions that are true where custom fields are no object: none of it can be read, so all of it is kept."""
        conditions = []
        for path in self.containers:
            empty = " AND ".join(f"{_text_name(c)} IS NULL" for c in self._read if c.path[: len(path)] == path)
            # Looking for its beginning is many times quicker than parsing the record again.
            begins = f"contains(row, {literal(json.dumps(path[-1]) + ':{')})"
            conditions.append(f"CASE WHEN {empty} AND NOT {begins} THEN {no_object(pointer(*path))} END")
        return conditions

    def _extra(self, unknown: Mapping[str, str], residual: Collection[str]) -> tuple[str, str]:
        """Two expressions: the values that may be left over, as a list, and the object made of those that are."""
        conditions = {place: [condition] for place, condition in unknown.items()}
        for column in self.stored:
            if column.name in residual and (condition := self._unfit(column)):
                conditions.setdefault(column.pointer, []).append(condition)
        if not conditions:
            return "NULL", "NULL::JSON"
        conditions = dict(sorted(conditions.items()))  # one order for good: `_extra` is a part of the row's hash
        keys = ", ".join(literal(place[1:]) for place in conditions)
        values = ", ".join(
            f"_found[{index}]" if "true" in checks else f"CASE WHEN {' OR '.join(checks)} THEN _found[{index}] END"
            for index, checks in enumerate(conditions.values(), 1)
        )
        found = f"json_extract(row, [{', '.join(literal(place) for place in conditions)}])"
        # The patch leaves out nulls; an object without keys says nothing.
        return found, f"nullif(json_merge_patch('{{}}', to_json(MAP([{keys}], [{values}]))), '{{}}')"


def no_object(place: str) -> str:
    """A condition on a record: what stands at the JSON pointer `place` is no object, and not empty either."""
    return (
        f"CASE json_type(row, {literal(place)}) WHEN 'OBJECT' THEN false WHEN 'NULL' THEN false"
        f" WHEN 'ARRAY' THEN json_array_length(row, {literal(place)}) > 0 ELSE json_exists(row, {literal(place)}) END"
    )


def stray_items(place: str, known: Collection[str]) -> str:
    """A condition on a record: an element of the list at the JSON pointer `place` is no object, or has a key that
    isn't `known`."""
    elements = f"from_json(json_extract(row, {literal(place)}), '[\"JSON\"]')"
    keys = f"list_filter(json_keys(e), lambda k: k NOT IN ({', '.join(map(literal, sorted(known)))}))"
    odd = f"json_type(e) NOT IN ('OBJECT', 'NULL') OR len({keys}) > 0"
    stray = f"len(list_filter({elements}, lambda e: {odd})) > 0"
    return f"CASE WHEN json_type(row, {literal(place)}) = 'ARRAY' THEN {stray} END"


def _at(path: tuple[str, ...]) -> str:
    return "r." + ".".join(quoted(key) for key in path)


def _text_name(column: TableColumn) -> str:
    return quoted("text " + column.name)


def _keys_name(index: int) -> str:
    return quoted(f"keys {index}")


def _object_name(column: TableColumn) -> str:
    return quoted("object " + column.name)


def _fraction(text: str) -> str:
    """A condition that is true where the text of a number has a part that a whole number can't hold."""
    return f"(contains({text}, '.') OR contains({text}, 'e-') OR contains({text}, 'E-'))"


def _item_lost(text: str, kind: str) -> str:
    """A condition that is true where casting an element's `text` to `kind` gives nothing, or cuts something off."""
    cast = f"TRY_CAST({text} AS {kind})"
    if kind == "BIGINT":
        return f"({cast} IS NULL OR {_fraction(text)})"
    if kind.startswith("DECIMAL"):
        return f"({cast} IS NULL OR {cast}::DOUBLE <> TRY_CAST({text} AS DOUBLE))"
    return f"{cast} IS NULL"


def _elements_name(column: TableColumn) -> str:
    return quoted("elements " + column.name)
