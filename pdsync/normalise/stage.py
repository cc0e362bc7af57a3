"""Brings sealed pages into a staging table, typed: what leaves here is ready to be compared and committed.

The fast path is one INSERT … SELECT over the pages' records. It is left only where it says so itself: a key that no
column takes, a value that does not fit its column, a record that DuckDB can't parse. What can't be read in any way is
quarantined with its bytes; the run says so and does not end with 0.
"""

from __future__ import annotations

import functools
import itertools
import json
from typing import TYPE_CHECKING, Any

import duckdb
import msgspec
import pyarrow as pa
from msgspec import Struct

from pdsync.core.list_response import open_envelope
from pdsync.model import Page, SchemaChange
from pdsync.normalise.columns import StagingSql, no_object, stray_items
from pdsync.normalise.tables import Table, TableColumn, pointer
from pdsync.sql import first, literal, quoted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from pdsync.model import Operation

_TIME = pa.timestamp("us", tz="UTC")
_MOST_SHAPES = 100_000  # remembered at a time
_DEEPEST = 64  # levels of nesting; deeper JSON is not a record


class Quarantined(Struct, frozen=True):
    """A record that could not be read: where it stood, its bytes, and why."""

    walk: int
    seq: int
    position: int
    record: bytes
    reason: str


class _Feed:
    """The records to be staged next, as the prepared statement reads them."""

    rows: pa.Table | None = None

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        if self.rows is None:
            raise RuntimeError("Nothing is to be staged.")
        return self.rows.__arrow_c_stream__(requested_schema)


class _UnspeakableKey(Exception):
    """A record has a key with a NUL character, which no SQL can name."""


class StagingTable:
    """The staging table of one walk. `table` may be replaced when a custom field is added meanwhile."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, name: str, table: Table, operation: Operation | None = None
    ) -> None:
        self.connection, self.name, self.table = connection, name, table
        self.rows = 0
        self.quarantined: list[Quarantined] = []
        self.changes: list[SchemaChange] = []
        self._statement = StagingSql(table, f"incoming_{name}")
        self._feed = _Feed()
        self._prepared: str | None = None  # what `_write` prepared
        self.operation = operation
        self._unknown: dict[str, str] = {}  # JSON pointer → in which rows it is kept in `_extra`
        self._residual = self._statement.always_residual()
        self._created = False
        self._seen: set[int] = set()  # hashes of keys, of records and of elements

    @property
    def relation(self) -> str:
        """The staging table, quoted. It exists once a page was added."""
        return quoted("temp", self.name)

    def add(self, pages: Sequence[Page]) -> None:
        """Bring the records of `pages` into the staging table, typed.

        Raises:
            BadAnswer: a page is no list of records. Nothing of these pages was staged.
        """
        chunks = [self._chunk(page) for page in pages if page.body]  # a mark of the end has none
        chunks = [chunk for chunk in chunks if chunk.num_rows]
        if not chunks:
            return
        # What is new mostly shows on the first page: cheaper to find out there than to stage all pages twice.
        parts = [chunks] if self._seen else [chunks[:1], chunks[1:]]
        for part in parts:
            if part:
                self._add(part, pages)

    def _add(self, chunks: Sequence[pa.Table], pages: Sequence[Page]) -> None:
        try:
            self._insert(pa.concat_tables(chunks))
        except (duckdb.InvalidInputException, duckdb.ConversionException, pa.ArrowInvalid, _UnspeakableKey):
            self._insert(pa.concat_tables([self._salvage(chunk, page.walk) for chunk, page in _paired(chunks, pages)]))

    def clear(self) -> None:
        """Forget what was staged."""
        if self._created:
            self.connection.execute(f"DROP TABLE {self.relation}")
        self._created, self.rows, self.quarantined, self.changes = False, 0, [], []

    def _chunk(self, page: Page) -> pa.Table:
        """One Arrow chunk a page: DuckDB reads chunks side by side."""
        records = open_envelope(page.body, self.operation).records if page.records is None else page.records
        offsets = pa.array(itertools.accumulate(map(len, records), initial=0), type=pa.int32())
        rows = pa.StringArray.from_buffers(len(records), offsets.buffers()[1], pa.py_buffer(b"".join(records)))
        return pa.table(
            {
                "row": rows,
                "position": _counted(len(records)),
                "seq": pa.repeat(pa.scalar(page.seq, type=pa.int64()), len(records)),
                "served_at": pa.repeat(pa.scalar(page.served_at, type=_TIME), len(records)),
                "context": pa.repeat(pa.scalar(json.dumps(page.context)), len(records)),
            }
        )

    def _insert(self, rows: pa.Table) -> None:
        if not rows.num_rows:  # none of them could be read
            return
        rows.column("row").validate(full=True)  # UTF-8: DuckDB takes our word for it
        rows = rows.append_column("place", _counted(rows.num_rows))
        self._offer(rows)
        first_seq = rows.column("seq")[0].as_py()  # pages come in order
        try:
            shapes, unfit, keyless = self._write(first_seq)
            news = self._learn_shapes(rows, shapes)
            news = (unfit and self._learn_misfits()) or news
            if news:
                self._forget(first_seq)
                _, _, keyless = self._write(first_seq)
            if keyless:
                self._quarantine_keyless(rows)
        except BaseException:
            self._forget(first_seq)
            raise
        finally:
            self._offer(rows.slice(0, 0))

    def _offer(self, rows: pa.Table) -> None:
        """Make `rows` what the statements read."""
        is_new = self._feed.rows is None
        self._feed.rows = rows
        if is_new:
            self.connection.register(f"incoming_{self.name}", self._feed)

    def _forget(self, first_seq: int) -> None:
        """Take back what was staged of the pages from `first_seq` on."""
        if self._created:
            taken = first(self.connection.execute(f"DELETE FROM {self.relation} WHERE _seq >= {first_seq}"))
            self.rows -= taken[0]

    def _write(self, first_seq: int) -> tuple[dict[int, int], bool, bool]:
        """Insert the offered rows.

        Returns:
            The shapes of their keys with the place of a row each; whether a row has a misfit; whether one has no key.
        """
        if not self._created:
            columns = ", ".join(f"{quoted(name)} {kind}" for name, kind in self._statement.columns().items())
            self.connection.execute(f"CREATE OR REPLACE TEMP TABLE {quoted(self.name)} ({columns})")
            self._created = True
        # Planning takes longer than a page of rows does: 70 ms for a hundred columns.
        insert = f"INSERT INTO {self.relation} {self._statement.select(self._unknown, self._residual)}"
        if insert != self._prepared:
            self.connection.execute(f"PREPARE {quoted(self.name)} AS {insert}")
            self._prepared = insert
        self.rows += first(self.connection.execute(f"EXECUTE {quoted(self.name)}"))[0]
        here = f"FROM {self.relation} WHERE _seq >= {first_seq}"
        shapes = " UNION ALL ".join(
            f"SELECT {shape}, any_value(_place) {here} GROUP BY 1" for shape in self._statement.shapes()
        )
        key = quoted(self.table.stream.key)
        unfit, keyless = first(self.connection.execute(f"SELECT bool_or(_unfit), bool_or({key} IS NULL) {here}"))
        return dict(self.connection.execute(shapes).fetchall()), bool(unfit), bool(keyless)

    def _learn_shapes(self, rows: pa.Table, shapes: dict[int, int]) -> bool:
        """Look at one row of each shape that was not met before; whether any has a key that no column takes."""
        news = shapes.keys() - self._seen
        if not news:
            return False
        # Slices and not `take`, which would copy all of `rows` into one piece first.
        self._offer(pa.concat_tables([rows.slice(place, 1) for place in sorted({shapes[shape] for shape in news})]))
        try:
            found = self._learn_keys()
        finally:
            self._offer(rows)
        if len(self._seen) > _MOST_SHAPES:
            self._seen.clear()
        self._seen |= news
        return found

    def _learn_keys(self) -> bool:
        """Notice keys that no column takes; whether there are any. Records of one kind share their keys."""
        before = len(self._unknown)
        known = self._statement.known_keys()
        keys = f"SELECT {self._statement.keys()} AS keys FROM {self._statement.rows}"
        lists = self.connection.execute(f"SELECT any_value(keys) FROM ({keys}) GROUP BY hash(keys)").fetchall()
        for (found,) in lists:
            for place, keys in zip(known, found, strict=True):
                for key in keys or ():
                    if "\0" in key:
                        raise _UnspeakableKey(key)
                    if key not in known[place]:
                        self._notice(place + pointer(key), "unknown_key", "kept in _extra: no column takes it")
        for column in self.table.stored:
            if column.items:
                self._learn_item_keys(column)
        return len(self._unknown) > before

    def _learn_item_keys(self, column: TableColumn) -> None:
        wanted = {key for key, _ in column.items.values()}
        path = column.pointer + (pointer(column.part) if column.part else "")
        lists = self.connection.execute(
            "SELECT DISTINCT json_keys(item), json_type(item) NOT IN ('OBJECT', 'NULL') FROM"
            f" (SELECT unnest(from_json(json_extract(row, {literal(path)}), '[\"JSON\"]')) AS item"
            f" FROM {self._statement.rows} WHERE json_type(row, {literal(path)}) = 'ARRAY')"
        ).fetchall()
        stray = {key for keys, _ in lists for key in keys or ()} - wanted
        if any(odd for _, odd in lists):
            stray.add("what is no object")
        if stray:
            detail = f"its elements hold {', '.join(sorted(stray))}, which no column takes; the list is in _extra too"
            self._notice(path, "unknown_key", detail, stray_items(path, wanted))

    def _notice(self, place: str, kind: str, detail: str, condition: str = "true") -> None:
        if place not in self._unknown:
            self._unknown[place] = condition
            self.changes.append(SchemaChange(self.table.stream.name, kind, place[1:], detail))

    def _learn_misfits(self) -> bool:
        """Find the columns whose values do not fit, so that they are kept in `_extra`; whether there are any."""
        before = len(self._residual) + len(self._unknown)
        counts = first(self.connection.execute(self._statement.misfits())) or ()
        for column, count in zip(self.table.stored, counts, strict=True):
            if count and column.name not in self._residual:
                self._residual.add(column.name)
                detail = f"values are no {column.type}; they are kept in _extra"
                self.changes.append(SchemaChange(self.table.stream.name, "unfit_value", column.name, detail))
        for path in self._statement.containers:
            self._unknown_container(pointer(*path))
        return len(self._residual) + len(self._unknown) > before

    def _unknown_container(self, place: str) -> None:
        odd = first(self.connection.execute(f"SELECT count(*) FROM {self._statement.rows} WHERE {no_object(place)}"))
        if odd and odd[0]:
            self._notice(place, "unknown_key", "is no object; kept in _extra", no_object(place))

    def _quarantine_keyless(self, rows: pa.Table) -> None:
        """Take out what has no key: it can't be stored under any other."""
        key = self.table.stream.key
        keyless = set(self.connection.execute(self._statement.keyless()).fetchall())
        places = (rows.column(name).to_pylist() for name in ("seq", "position", "row"))
        for seq, position, record in zip(*places, strict=True):
            if (seq, record) in keyless:
                self._quarantine(0, seq, position, record.encode(), f"has no usable {key}")
                self.rows -= 1
        self.connection.execute(f"DELETE FROM {self.relation} WHERE {quoted(key)} IS NULL")

    def _quarantine(self, walk: int, seq: int, position: int, record: bytes, reason: str) -> None:
        self.quarantined.append(Quarantined(walk, seq, position, record, reason))

    def _salvage(self, chunk: pa.Table, walk: int) -> pa.Table:
        """The slow path: each record by itself; what strict parsers refuse is made readable or quarantined."""
        kept, places, seqs, times, contexts = [], [], [], [], []
        raw = chunk.column("row").cast(pa.binary())
        others = (chunk.column(name).to_pylist() for name in ("seq", "served_at", "context"))
        for position, (row, seq, served, context) in enumerate(zip(raw.to_pylist(), *others, strict=True)):
            try:
                kept.append(readable(row, self._statement.known_keys()))
            except ValueError as error:
                self._quarantine(walk, seq, position, row, str(error))
                continue
            places.append(position)
            seqs.append(seq)
            times.append(served)
            contexts.append(context)
        return pa.table(
            {
                "row": pa.array(kept, type=pa.string()),
                "position": pa.array(places, type=pa.int64()),
                "seq": pa.array(seqs, type=pa.int64()),
                "served_at": pa.array(times, type=_TIME),
                "context": pa.array(contexts, type=pa.string()),
            }
        )


def _counted(rows: int) -> pa.Array:
    """The whole numbers from 0 on, as many as there are `rows`."""
    ready = -(-rows // 10_000) * 10_000  # some few sizes, made once each
    return _numbers(ready).slice(0, rows)


@functools.lru_cache(maxsize=8)
def _numbers(count: int) -> pa.Array:
    return pa.array(range(count), type=pa.int64())


def readable(record: bytes, spoken: Collection[str] = ("",), as_it_came: str | None = None) -> str:
    """A record that strict parsers take: as it is where they do, else with what they refuse made harmless.

    A lone surrogate becomes U+FFFD, as does a NUL in a key, and the record as it came is kept under `_as_it_came`, so
    nothing is lost.

    Args:
        record: its JSON.
        spoken: JSON pointers of the objects in it whose keys become part of a statement, where no NUL can stand.
        as_it_came: the record before its keys were changed.

    Raises:
        ValueError: it is no JSON object, or nested without end.
    """
    try:
        text = record.decode("utf-8")
        value = json.loads(text)
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ValueError(f"is not readable: {error}") from error
    if not isinstance(value, dict):
        raise ValueError("is no object")
    if _depth(value) > _DEEPEST:
        raise ValueError(f"is nested deeper than {_DEEPEST} levels")
    if "\\u0000" in text and (changed := _without_nul_keys(value, spoken)) != value:
        return readable(json.dumps(changed).encode(), spoken, text)
    try:
        msgspec.json.decode(record)
        if as_it_came is None:
            return text
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    if as_it_came is not None:
        value["_as_it_came"] = as_it_came
    harmless = json.dumps(value, ensure_ascii=False, allow_nan=False, default=str)
    if harmless.encode("utf-8", errors="replace").decode() == harmless:
        return harmless
    value["_as_it_came"] = as_it_came or text
    return json.dumps(value, ensure_ascii=False).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _without_nul_keys(value: dict[str, Any], spoken: Collection[str], place: str = "") -> dict[str, Any]:
    """`value` with U+FFFD for each NUL in the keys of those objects whose keys become part of a statement."""
    made = {}
    for key, inner in value.items():
        there = place + pointer(key)
        deeper = isinstance(inner, dict) and there in spoken
        made[key.replace("\0", "\ufffd")] = _without_nul_keys(inner, spoken, there) if deeper else inner
    return made


def _depth(value: object) -> int:
    level, deepest = [value], 0
    while level and deepest <= _DEEPEST:
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer if isinstance(outer, list) else ())
        ]
        deepest += 1
    return deepest


def _paired(chunks: Iterable[pa.Table], pages: Sequence[Page]) -> Iterable[tuple[pa.Table, Page]]:
    by_seq = {page.seq: page for page in pages}
    for chunk in chunks:
        yield chunk, by_seq[chunk.column("seq")[0].as_py()]
