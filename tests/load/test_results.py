"""What DuckDB can hold leaves it whole: dates beyond Python's, intervals, types that Arrow has no word for."""

from __future__ import annotations

import io
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdsync.load import results

VALUES: dict[str, Any] = {
    "date '20222-03-04'": "20222-03-04",
    "date '0044-03-15 (BC)'": "0044-03-15 (BC)",
    "date '0000-01-01'": "0001-01-01 (BC)",
    "date '5877642-06-25 (BC)'": "5877642-06-25 (BC)",
    "date '9999-12-31'": date.max,
    "date '0001-01-01'": date.min,
    "'infinity'::DATE": "infinity",
    "'-infinity'::DATE": "-infinity",
    "timestamp '20222-01-01 01:02:03.5'": "20222-01-01T01:02:03.5",
    "timestamptz '20222-01-01 01:02:03+00'": "20222-01-01T01:02:03Z",
    "timestamptz '0044-03-15 (BC) 00:00:00+00'": "0044-03-15T00:00:00Z (BC)",
    "timestamptz '0001-01-01 00:00:00+00'": datetime.min.replace(tzinfo=UTC),
    "timestamptz '9999-12-31 23:59:59.999999+00'": datetime.max.replace(tzinfo=UTC),
    "'infinity'::TIMESTAMPTZ": "infinity",
    "'-infinity'::TIMESTAMP": "-infinity",
    "timestamp_ns '2022-01-01 00:00:00.123456789'": "2022-01-01T00:00:00.123456789",
    "timestamp_ns '2022-01-01 00:00:00.123456'": datetime.fromisoformat("2022-01-01T00:00:00.123456"),
    "timestamp_s '1969-12-31 23:59:59'": datetime.fromisoformat("1969-12-31T23:59:59"),
    "time '24:00:00'": "24:00:00",
    "time '10:20:30.5'": time(10, 20, 30, 500_000),
    "timetz '10:00:00+05:30'": "10:00:00+05:30",
    "interval '100000000 years'": "100000000 years",
    "interval '-1 month -5 seconds'": "-1 month -00:00:05",
    "interval '90 minutes'": "01:30:00",
    "170141183460469231731687303715884105727::HUGEINT": Decimal(2**127 - 1),
    "(2**100)::UHUGEINT": str(2**100),
    "'1010'::BIT": "1010",
    "[interval '1 month', NULL]": ["1 month", None],
    "[date '20222-01-01', date '2022-01-01', NULL]": ["20222-01-01", date(2022, 1, 1), None],
    "[[date '20222-01-01'], [], NULL]": [["20222-01-01"], [], None],
    "{'a': date '20222-01-01', 'b c': interval '1 day'}": {"a": "20222-01-01", "b c": "1 day"},
    "NULL::STRUCT(a DATE)": None,
    "MAP {date '20222-01-01': interval '1 day'}": [("20222-01-01", "1 day")],
    "array_value(date '20222-01-01')": ["20222-01-01"],
    "union_value(a := 1)": "1",
}


@pytest.mark.parametrize("sql", VALUES)
def test_s16_a_value_leaves_duckdb_whole(sql: str) -> None:
    with duckdb.connect() as database:
        database.execute("SET TimeZone = 'UTC'")
        table = results.fetch_table(database.sql(f"SELECT {sql} AS x, NULL AS y UNION ALL SELECT NULL, 1"))
        assert results.python_rows(table) == [{"x": VALUES[sql], "y": None}, {"x": None, "y": 1}]
        pq.write_table(table, into := io.BytesIO())
        assert pq.read_table(into).num_rows == 2


@given(st.integers(-2_147_483_000, 2_147_483_000), st.integers(-(2**62), 2**62))
@settings(deadline=None, max_examples=60)
def test_s16_every_day_and_moment_is_written_as_duckdb_writes_it(day: int, moment: int) -> None:
    with duckdb.connect() as database:
        query = "SELECT date '1970-01-01' + $1::INTEGER AS d, make_timestamp($2::BIGINT) AS t"
        found = results.python_rows(results.fetch_table(database.sql(query, params=[day, moment])))[0]
        texts = database.execute(f"SELECT d::VARCHAR, t::VARCHAR FROM ({query})", [day, moment]).fetchall()[0]
    assert str(found["d"]) == texts[0]
    said = found["t"] if isinstance(found["t"], str) else found["t"].isoformat()
    era = " (BC)" if said.endswith("(BC)") else ""
    day_of, _, clock = said.removesuffix(" (BC)").partition("T")
    assert f"{day_of}{era} {clock}".rstrip("0") == texts[1].rstrip("0")


def test_a_day_in_reach_stays_a_date() -> None:
    with duckdb.connect() as database:
        query = "SELECT range::DATE AS d FROM range(date '1999-12-30', date '2000-03-03', interval '1 day')"
        rows = list(results.fetch_rows(database.sql(query), batch_rows=7))
    assert [row["d"] for row in rows] == [date(1999, 12, 30) + timedelta(days) for days in range(64)]
