"""`queue import` reads what `sql -o csv` writes unchanged, for every type that a column of the warehouse may have."""

from __future__ import annotations

import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdsync.cli.commands.sql import _csv, answer_rows, ask
from pdsync.core import catalogue
from pdsync.sql import quoted
from pdsync.writeback.import_files import read

if TYPE_CHECKING:
    from collections.abc import Iterator

_WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
TEXT = _WORDS | st.sampled_from(["NULL", "'NULL", "#N/A", "null", " ", "a, b", "[1]", "@x", "007", "1e5", "TRUE"])
TEXT |= st.text("'=+-@\t\r\n＝＋－＠,;\" x", max_size=5)
WHOLE = st.integers(-(2**63), 2**63 - 1)
PARTS = st.tuples(st.integers(-2000, 2000), st.integers(-40_000, 40_000), st.integers(-(10**12), 10**12))
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "VARCHAR": TEXT,
    "BIGINT": WHOLE,
    "UBIGINT": st.integers(0, 2**64 - 1),
    "BOOLEAN": st.booleans(),
    "DOUBLE": st.floats(allow_nan=False, allow_infinity=False),
    "DECIMAL(18, 2)": st.decimals(-(10**15), 10**15, places=2),
    "DECIMAL(18, 4)": st.decimals(-(10**13), 10**13, places=4),
    "DATE": st.dates() | st.sampled_from(["20222-03-04", "0044-03-15 (BC)", "infinity", "-infinity"]),
    "TIME": st.times() | st.just("24:00:00"),
    "TIMESTAMPTZ": st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC)),  # noqa: DTZ001
    "INTERVAL": PARTS.map(lambda parts: f"{parts[0]} months {parts[1]} days {parts[2]} microseconds"),
    "JSON": st.dictionaries(TEXT, TEXT | WHOLE | st.none()).map(json.dumps),
    "BIGINT[]": st.lists(WHOLE | st.none()),
    "VARCHAR[]": st.lists(TEXT | st.none()),
    "LIST": st.lists(st.fixed_dictionaries({"value": TEXT | st.none(), "primary": st.booleans(), "id": WHOLE})),
}
SHAPE = json.dumps([{"value": "VARCHAR", "primary": "BOOLEAN", "id": "BIGINT"}])
COMPARED = ("LIST", "VARCHAR[]", "BIGINT[]", "VARCHAR", "JSON")  # whose cells are compared as Python values
SQL = {"LIST": 'STRUCT("value" VARCHAR, "primary" BOOLEAN, id BIGINT)[]'}


def test_every_type_of_the_catalogue_makes_a_round_trip() -> None:
    streams = {
        column.sql_type for stream in catalogue.streams().values() for column in map(stream.column, stream.columns)
    }
    custom = {kind for field in catalogue.field_types().values() for kind in field.columns.values()}
    kinds = {"LIST" if kind.startswith("STRUCT") or kind == "LIST" else kind for kind in streams | custom}
    assert kinds - VALUES.keys() == set()


@pytest.fixture(scope="module")
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    """A table with a column of each type, named after it."""
    with duckdb.connect() as database:
        database.execute("SET TimeZone = 'UTC'")
        database.execute(f"CREATE TABLE t (n BIGINT, {', '.join(f'{quoted(k)} {SQL.get(k, k)}' for k in VALUES)})")
        yield database


@given(st.lists(st.fixed_dictionaries({kind: each | st.none() for kind, each in VALUES.items()}), max_size=3))
@settings(max_examples=60, deadline=None)
def test_x10_an_export_is_imported_unchanged(database: duckdb.DuckDBPyConnection, rows: list[dict[str, Any]]) -> None:
    casts = [f"json_transform(?, '{SHAPE}')" if kind == "LIST" else f"?::{kind}" for kind in VALUES]
    database.execute("DELETE FROM t")
    for number, row in enumerate(rows):
        listed = None if row["LIST"] is None else json.dumps(row["LIST"])
        sent = [{**row, "LIST": listed}[kind] for kind in VALUES]
        database.execute(f"INSERT INTO t VALUES (?, {', '.join(casts)})", [number, *sent])
    answer = ask(database, "FROM t ORDER BY n")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv"
        path.write_text(_csv(answer.column_names, answer_rows(answer), raw=False), encoding="utf-8", newline="")
        found = read(path).rows

    assert [cells["n"] for cells in found] == [str(number) for number in range(len(rows))]
    for number, (row, cells) in enumerate(zip(rows, found, strict=True)):
        for kind in COMPARED:
            assert _parsed(kind, cells.get(kind)) == (row[kind] or None), kind  # nothing, and an empty text or list
        typed = [kind for kind in VALUES if kind not in COMPARED]
        same = ", ".join(f"{quoted(kind)} IS NOT DISTINCT FROM ?::{kind}" for kind in typed)
        told = database.execute(f"SELECT {same} FROM t WHERE n = {number}", [cells.get(kind) for kind in typed])
        assert dict(zip(typed, told.fetchall()[0], strict=True)) == dict.fromkeys(typed, True), cells


def _parsed(kind: str, cell: str | None) -> Any:
    """A cell as whoever knows its type reads it: lists in words or as JSON."""
    if cell is None or kind in ("VARCHAR", "JSON"):
        return cell
    if cell.startswith("["):
        return json.loads(cell)
    return [int(each) if kind == "BIGINT[]" else each for each in cell.split(", ")]
