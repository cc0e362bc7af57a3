"""Stages sealed pages as typed rows, ready to be compared and committed.

The fast path is one INSERT … SELECT over the pages' records. Three things leave it: a key that no column takes, a value
that does not fit its column, a record that DuckDB can't parse. A record that can't be read in any way is quarantined
with its bytes; the run reports it and does not exit with 0.
"""

from __future__ import annotations

import functools
import itertools
import json
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa
from msgspec import Struct

from pdsync.core.custom_fields import SchemaChange
from pdsync.core.list_response import open_envelope
from pdsync.model import Page, Unmentioned
from pdsync.normalise.columns import StagingSql
from pdsync.normalise.misfits import has_unknown_items, is_no_object
from pdsync.normalise.readable import readable
from pdsync.normalise.tables import Table, TableColumn, pointer
from pdsync.sql import first, literal, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pdsync.model import Operation

_TIME = pa.timestamp("us", tz="UTC")
_MAX_SHAPES = 100_000  # remembered at a time
_GROUP_BYTES = 800_000  # in a chunk: short records by the thousand, as each column of a chunk costs time of its own
_BEFORE_PREPARED = 3  # executions of a statement before it is prepared


class Quarantined(Struct, frozen=True):
    """A record that could not be read: its address, its bytes, and why."""

    walk: int
    seq: int
    position: int
    record: bytes
    reason: str


class _Mentioned(Struct, frozen=True):
    """What a record mentions: the columns that it lacks, and its own keys."""

    lacks: tuple[str, ...]
    keys: tuple[str, ...]


class _Feed:
    """The records to be staged next, as the statement that inserts them reads them."""

    rows: pa.Table | None = None

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        if self.rows is None:
            raise RuntimeError("There are no rows to stage.")
        return self.rows.__arrow_c_stream__(requested_schema)


class _NulInKey(Exception):
    """A record has a key with a NUL character, which no SQL can name."""


class StagingTable:
    """The staging table of one walk.

    Args:
        connection: to the work file.
        name: of the temporary table.
        table: its columns.
        operation: the list operation that the pages came from; None for answers from files.
        is_partial: the answers may lack columns: a request outside pdsync had parameters of its own.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        name: str,
        table: Table,
        operation: Operation | None = None,
        *,
        is_partial: bool = False,
    ) -> None:
        self.connection, self.name, self.table, self.is_partial = connection, name, table, is_partial
        self.rows = 0
        self.quarantined: list[Quarantined] = []
        self.changes: list[SchemaChange] = []
        self._sql = StagingSql(table, f"incoming_{name}")
        self._feed = _Feed()
        self._statement = ""  # that `_write` executed last
        self._executed = 0  # how often
        self.operation = operation
        self._unknown: dict[str, str] = {}  # JSON pointer → the condition on which it goes to `_extra`
        self._residual = self._sql.always_residual()
        self._created = False
        self._seen: dict[int, _Mentioned] = {}  # by hash of keys, of records and of elements

    @property
    def relation(self) -> str:
        """The quoted name of the staging table. The table exists from the first page with records until `clear`."""
        return quoted("temp", self.name)

    @property
    def unmentioned(self) -> list[Unmentioned]:
        """What the staged rows of partial answers do not mention, by the shapes of their keys."""
        shapes: dict[_Mentioned, list[int]] = {}
        for shape, mentioned in self._seen.items() if self.is_partial else ():
            shapes.setdefault(mentioned, []).append(shape)
        return [
            Unmentioned(
                shapes=tuple(of_shape),
                columns=mentioned.lacks,
                keys=mentioned.keys,
                left_over=tuple(each.pointer[1:] for each in self.table.stored if each.name in mentioned.lacks),
            )
            for mentioned, of_shape in shapes.items()
        ]

    def add(self, pages: Sequence[Page]) -> None:
        """Bring the records of `pages` into the staging table, typed.

        Args:
            pages: by number, after all that were added before; rows of later pages may be deleted otherwise.

        Raises:
            BadAnswer: a page is no list of records. Nothing of these pages was staged.
        """
        filled = [page for page in pages if page.body]  # a page that only marks the end has none
        chunks = [chunk for group in _groups(filled) if (chunk := self._chunk(group)).num_rows]
        if not chunks:
            return
        # New keys mostly show on the first page: cheaper to find them there than to stage all pages twice.
        parts = [chunks] if self._seen else [chunks[:1], chunks[1:]]
        for part in parts:
            if part:
                self._add(part, pages)

    def _add(self, chunks: Sequence[pa.Table], pages: Sequence[Page]) -> None:
        try:
            self._insert(pa.concat_tables(chunks))
        except (duckdb.InvalidInputException, duckdb.ConversionException, pa.ArrowInvalid, _NulInKey):
            self._insert(pa.concat_tables([self._salvage(chunk, page.walk) for chunk, page in _paired(chunks, pages)]))

    def clear(self) -> None:
        """Drop the staged rows, their quarantined records and schema changes, not what was learnt about columns."""
        if self._created:
            self.connection.execute(f"DROP TABLE {self.relation}")
        self._created, self.rows, self.quarantined, self.changes = False, 0, [], []
        if len(self._seen) > _MAX_SHAPES:
            self._seen.clear()

    def _chunk(self, pages: Sequence[Page]) -> pa.Table:
        """The records of `pages` as one Arrow chunk."""
        columns: dict[str, list[pa.Array]] = {name: [] for name in ("row", "position", "seq", "served_at", "context")}
        for page in pages:
            records = open_envelope(page.body, self.operation).records if page.records is None else page.records
            count = len(records)
            offsets = pa.array(itertools.accumulate(map(len, records), initial=0), type=pa.int32())
            text = pa.py_buffer(b"".join(records))
            columns["row"].append(pa.StringArray.from_buffers(count, offsets.buffers()[1], text))
            columns["position"].append(_consecutive(count))
            columns["seq"].append(pa.repeat(pa.scalar(page.seq, type=pa.int64()), count))
            columns["served_at"].append(pa.repeat(pa.scalar(page.served_at, type=_TIME), count))
            columns["context"].append(pa.repeat(pa.scalar(json.dumps(page.context)), count))
        return pa.table({name: pa.concat_arrays(parts) for name, parts in columns.items()})

    def _insert(self, rows: pa.Table) -> None:
        if not rows.num_rows:  # none of them could be read
            return
        rows.column("row").validate(full=True)  # UTF-8: DuckDB does not check it
        rows = rows.append_column("row_number", _consecutive(rows.num_rows))
        self._set_rows(rows)
        first_seq = rows.column("seq")[0].as_py()  # pages come in order
        try:
            shapes, unfit, keyless = self._write(first_seq)
            has_new = self._learn_shapes(rows, shapes)
            has_new = (unfit and self._learn_misfits()) or has_new
            if has_new:
                self._unstage(first_seq)
                _, _, keyless = self._write(first_seq)
            if keyless:
                self._quarantine_keyless(rows)
        except BaseException:
            self._unstage(first_seq)
            raise
        finally:
            self._set_rows(rows.slice(0, 0))

    def _set_rows(self, rows: pa.Table) -> None:
        """Make `rows` the rows that the statements read."""
        is_new = self._feed.rows is None
        self._feed.rows = rows
        if is_new:
            self.connection.register(f"incoming_{self.name}", self._feed)

    def _unstage(self, first_seq: int) -> None:
        """Delete the staged rows of the pages from `first_seq` on."""
        if self._created:
            deleted = first(self.connection.execute(f"DELETE FROM {self.relation} WHERE _seq >= {first_seq}"))
            self.rows -= deleted[0]

    def _write(self, first_seq: int) -> tuple[dict[int, int], bool, bool]:
        """Insert the rows that `_set_rows` set.

        Returns:
            Each shape of their keys → the number of a row with it; whether a row has a misfit; whether one has no key.
        """
        if not self._created:
            columns = ", ".join(f"{quoted(name)} {kind}" for name, kind in self._sql.columns().items())
            self.connection.execute(f"CREATE OR REPLACE TEMP TABLE {quoted(self.name)} ({columns})")
            self._created = True
        # Planning takes longer than a page of rows does, 25 ms; a prepared one a quarter less, and as long to prepare.
        insert = f"INSERT INTO {self.relation} {self._sql.select(self._unknown, self._residual)}"
        self._executed = self._executed + 1 if insert == self._statement else 1
        self._statement = insert
        if self._executed == _BEFORE_PREPARED + 1:
            self.connection.execute(f"PREPARE {quoted(self.name)} AS {insert}")
        statement = insert if self._executed <= _BEFORE_PREPARED else f"EXECUTE {quoted(self.name)}"
        self.rows += first(self.connection.execute(statement))[0]
        inserted = f"FROM {self.relation} WHERE _seq >= {first_seq}"
        shapes = " UNION ALL ".join(
            f"SELECT {shape}, any_value(_row_number) {inserted} GROUP BY 1" for shape in self._sql.shapes()
        )
        key = quoted(self.table.stream.key)
        unfit, keyless = first(self.connection.execute(f"SELECT bool_or(_unfit), bool_or({key} IS NULL) {inserted}"))
        return dict(self.connection.execute(shapes).fetchall()), bool(unfit), bool(keyless)

    def _learn_shapes(self, rows: pa.Table, shapes: dict[int, int]) -> bool:
        """Read one row of each new shape; whether any has a key that no column takes."""
        new = shapes.keys() - self._seen.keys()
        if not new:
            return False
        # Slices and not `take`, which would copy all of `rows` into one piece first.
        self._set_rows(pa.concat_tables([rows.slice(number, 1) for number in sorted({shapes[shape] for shape in new})]))
        try:
            has_unknown = self._learn_keys()
            mentioned = self._read_mentioned() if self.is_partial else {}
        finally:
            self._set_rows(rows)
        self._seen |= {shape: mentioned.get(shapes[shape], _Mentioned((), ())) for shape in new}
        return has_unknown

    def _read_mentioned(self) -> dict[int, _Mentioned]:
        """Row number → what that record mentions."""
        parameters = [column for column in self.table.stored if column.parameter is not None]
        sent = "".join(f", {self._sql.is_sent(column)}" for column in parameters)
        rows = self.connection.execute(f"SELECT row_number, {self._sql.keys()}{sent} FROM {self._sql.rows}").fetchall()
        addresses = list(self._sql.expected_keys())
        mentioned = {}
        for number, keys_by_object, *flags in rows:
            keys = {address: set(keys or ()) for address, keys in zip(addresses, keys_by_object, strict=True)}
            unsent = {column.name for column, is_sent in zip(parameters, flags, strict=True) if not is_sent}
            lacks = [each.name for each in self.table.stored if each.name in unsent or self._lacks(each, keys)]
            mentioned[number] = _Mentioned(tuple(lacks), tuple(sorted(keys[""])))
        return mentioned

    def _lacks(self, column: TableColumn, keys: dict[str, set[str]]) -> bool:
        """Whether a record with these `keys`, by JSON pointer, does not mention `column`."""
        stream = self.table.stream
        if column.join or column.parameter is not None or column.name == stream.key:
            return False
        if column.code and self.table.version in stream.omits_unset:
            return False
        if column.fallback in keys[""]:
            return False
        return column.path[-1] not in keys[pointer(*column.path[:-1])]

    def _learn_keys(self) -> bool:
        """Note the keys that no column takes; whether there are new ones. Records of one kind share their keys."""
        before = len(self._unknown)
        expected = self._sql.expected_keys()
        keys = f"SELECT {self._sql.keys()} AS keys FROM {self._sql.rows}"
        lists = self.connection.execute(f"SELECT any_value(keys) FROM ({keys}) GROUP BY hash(keys)").fetchall()
        for (keys_by_object,) in lists:
            for address, keys in zip(expected, keys_by_object, strict=True):
                for key in keys or ():
                    if "\0" in key:
                        raise _NulInKey(key)
                    if key not in expected[address]:
                        self._note_unknown(address + pointer(key), "kept in _extra: no column takes it")
        for column in self.table.stored:
            if column.items:
                self._learn_item_keys(column)
        return len(self._unknown) > before

    def _learn_item_keys(self, column: TableColumn) -> None:
        expected = {key for key, _ in column.items.values()}
        path = column.pointer + (pointer(column.part) if column.part else "")
        lists = self.connection.execute(
            "SELECT DISTINCT json_keys(item), json_type(item) NOT IN ('OBJECT', 'NULL') FROM"
            f" (SELECT unnest(from_json(json_extract(row, {literal(path)}), '[\"JSON\"]')) AS item"
            f" FROM {self._sql.rows} WHERE json_type(row, {literal(path)}) = 'ARRAY')"
        ).fetchall()
        unknown = {key for keys, _ in lists for key in keys or ()} - expected
        if any(no_object for _, no_object in lists):
            unknown.add("values that are no objects")
        if unknown:
            detail = f"its elements have {', '.join(sorted(unknown))}, which no column takes; the list is in _extra too"
            self._note_unknown(path, detail, has_unknown_items(path, expected))

    def _note_unknown(self, address: str, detail: str, condition: str = "true") -> None:
        if address not in self._unknown:
            self._unknown[address] = condition
            self.changes.append(SchemaChange(self.table.stream.name, "unknown_key", address[1:], detail))

    def _learn_misfits(self) -> bool:
        """Find the columns whose values do not fit, so that they are kept in `_extra`; whether there are any."""
        before = len(self._residual) + len(self._unknown)
        counts = first(self.connection.execute(self._sql.misfits())) or ()
        for column, count in zip(self.table.stored, counts, strict=True):
            if count and column.name not in self._residual:
                self._residual.add(column.name)
                detail = f"values are no {column.type}; they are kept in _extra"
                self.changes.append(SchemaChange(self.table.stream.name, "unfit_value", column.name, detail))
        for path in self._sql.containers:
            self._learn_container(pointer(*path))
        return len(self._residual) + len(self._unknown) > before

    def _learn_container(self, address: str) -> None:
        is_lost = is_no_object(address)
        if first(self.connection.execute(f"SELECT count(*) FROM {self._sql.rows} WHERE {is_lost}"))[0]:
            self._note_unknown(address, "is no object; kept in _extra", is_lost)

    def _quarantine_keyless(self, rows: pa.Table) -> None:
        """Take out the records without a key: they can't be stored under another one."""
        key = self.table.stream.key
        keyless = set(self.connection.execute(self._sql.keyless()).fetchall())
        columns = (rows.column(name).to_pylist() for name in ("seq", "position", "row"))
        for seq, position, record in zip(*columns, strict=True):
            if (seq, record) in keyless:
                self._quarantine(0, seq, position, record.encode(), f"has no usable {key}")
                self.rows -= 1
        self.connection.execute(f"DELETE FROM {self.relation} WHERE {quoted(key)} IS NULL")

    def _quarantine(self, walk: int, seq: int, position: int, record: bytes, reason: str) -> None:
        self.quarantined.append(Quarantined(walk, seq, position, record, reason))

    def _salvage(self, chunk: pa.Table, walk: int) -> pa.Table:
        """The slow path, record by record: those that strict parsers refuse are made readable, or quarantined."""
        kept, positions, seqs, times, contexts = [], [], [], [], []
        raw = chunk.column("row").cast(pa.binary())
        others = (chunk.column(name).to_pylist() for name in ("seq", "served_at", "context"))
        for position, (row, seq, served, context) in enumerate(zip(raw.to_pylist(), *others, strict=True)):
            try:
                kept.append(readable(row, self._sql.expected_keys()))
            except ValueError as error:
                self._quarantine(walk, seq, position, row, str(error))
                continue
            positions.append(position)
            seqs.append(seq)
            times.append(served)
            contexts.append(context)
        return pa.table(
            {
                "row": pa.array(kept, type=pa.string()),
                "position": pa.array(positions, type=pa.int64()),
                "seq": pa.array(seqs, type=pa.int64()),
                "served_at": pa.array(times, type=_TIME),
                "context": pa.array(contexts, type=pa.string()),
            }
        )


def _groups(pages: Sequence[Page]) -> Iterator[list[Page]]:
    """Cut `pages` into groups that DuckDB computes at once: few enough bytes for the processor's cache."""
    group, size = list[Page](), 0
    for page in pages:
        if group and size + len(page.body) > _GROUP_BYTES:
            yield group
            group, size = [], 0
        group.append(page)
        size += len(page.body)
    if group:
        yield group


def _consecutive(rows: int) -> pa.Array:
    """The whole numbers from 0 to `rows` - 1."""
    rounded = -(-rows // 10_000) * 10_000  # few sizes, made once each
    return _numbers(rounded).slice(0, rows)


@functools.lru_cache(maxsize=8)
def _numbers(count: int) -> pa.Array:
    return pa.array(range(count), type=pa.int64())


def _paired(chunks: Iterable[pa.Table], pages: Sequence[Page]) -> Iterable[tuple[pa.Table, Page]]:
    by_seq = {page.seq: page for page in pages}
    for chunk in chunks:
        yield chunk, by_seq[chunk.column("seq")[0].as_py()]
