"""What a text becomes in a column of each type; what it loses by that, tests/normalise/test_misfits.py shows."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from pdsync.core import catalogue
from pdsync.normalise.typed_values import casts_whole

from .kit import THINGS, page, rows_of, staged, table_of

if TYPE_CHECKING:
    import duckdb

    from pdsync.model import Version

BOTH = [  # key in the record, its value, value of the column of that name
    ("value", 1, Decimal("1.0000")),
    ("value", "1.50", Decimal("1.5000")),
    ("value", Decimal("1.23456"), Decimal("1.2346")),
    ("value", 10**20, None),
    ("value", "x", None),
    ("share", "1.5", 1.5),
    ("share", 10**30, 1e30),
    ("share", "x", None),
    ("due_date", "2026-01-31", date(2026, 1, 31)),
    ("due_date", "2026-01-31 10:00:00", date(2026, 1, 31)),
    ("due_date", "0000-00-00", None),
    ("due_time", "10:20", time(10, 20)),
    ("due_time", "10:20:30", time(10, 20, 30)),
    ("due_time", "25:00", None),
    ("lasts", "01:30", timedelta(hours=1, minutes=30)),
    ("lasts", "26:00:15", timedelta(hours=26, seconds=15)),
    ("lasts", 90, timedelta(seconds=90)),
    ("lasts", "x", None),
    ("update_time", "2026-01-31T10:00:00Z", datetime(2026, 1, 31, 10, tzinfo=UTC)),
    ("update_time", "2026-01-31T12:00:00+02:00", datetime(2026, 1, 31, 10, tzinfo=UTC)),
    ("update_time", "2026-01-31 10:00:00", datetime(2026, 1, 31, 10, tzinfo=UTC)),
    ("update_time", "0000-00-00 00:00:00", None),
    ("folders", ["a", "b"], ["a", "b"]),
    ("folders", "a,b", ["a", "b"]),
    ("folders", 5, ["5"]),
    ("folders", [], []),
    ("folders", None, []),
    ("name", "a", "a"),
    ("name", 5, "5"),
    ("name", True, "true"),
    ("name", {"a": 1}, '{"a":1}'),
    ("name", None, None),
    ("prices", [{"price": 1, "product_id": 2}], [{"price": Decimal("1.0000"), "product_id": 2}]),
    ("prices", [{"price": "x", "product_id": None}], [{"price": None, "product_id": None}]),
    ("prices", [], []),
    ("prices", "x", []),
]
OF_VERSION: list[tuple[Version, str, Any, str, Any]] = [  # version, key, value, column, value of the column
    ("v2", "done", True, "done", True),
    ("v2", "done", 0, "done", False),
    ("v2", "done", "yes", "done", True),
    ("v2", "done", "maybe", "done", None),
    ("v1", "open", True, "done", False),
    ("v1", "open", 0, "done", True),
    ("v1", "open", "", "done", None),
    ("v2", "owner_id", 5, "owner_id", 5),
    ("v2", "owner_id", "0012", "owner_id", 12),
    ("v2", "owner_id", 10**30, "owner_id", None),
    ("v2", "label_ids", [1, "2"], "label_ids", [1, 2]),
    ("v1", "label", "5,9", "label_ids", [5, 9]),
    ("v1", "label", 5, "label_ids", [5]),
    ("v1", "label", "5,x", "label_ids", [5, None]),
    ("v1", "label", "", "label_ids", []),
    ("v2", "name", "", "name", ""),
    ("v2", "place", {"value": ""}, "place", ""),
    ("v1", "place", "", "place", None),
    ("v2", "emails", [{"value": "a", "primary": True}], "emails", [{"value": "a", "primary": True}]),
    ("v2", "emails", [{"value": ""}], "emails", [{"value": "", "primary": None}]),
    ("v1", "email", [{"value": "a", "primary": "1"}], "emails", [{"value": "a", "primary": True}]),
    ("v1", "email", [{"value": "", "primary": True}], "emails", []),
]


@pytest.mark.parametrize("version", catalogue.VERSIONS)
def test_a_text_becomes_what_its_column_can_hold_of_it(connection: duckdb.DuckDBPyConnection, version: Version) -> None:
    cases = [(key, value, key, expected) for key, value, expected in BOTH]
    cases += [case[1:] for case in OF_VERSION if case[0] == version]
    rows = rows_of(connection, version, [(key, value) for key, value, _, _ in cases])
    shown = [(key, value, column, row[column]) for (key, value, column, _), (row, _) in zip(cases, rows, strict=True)]
    assert shown == cases


def test_s5_a_key_is_never_rounded_to_that_of_another_record(connection: duckdb.DuckDBPyConnection) -> None:
    ids = [1, 1.5, "2", "2.0", "3e-1", 4]
    rows, quarantined = staged(connection, table_of(THINGS, "v2"), [page([{"id": id} for id in ids])])
    assert [row["id"] for row in rows] == [1, 2, 4]
    assert [each.position for each in quarantined] == [1, 3, 4]


@pytest.mark.parametrize(
    ("version", "column", "whole"),
    [("v2", "emails", True), ("v1", "emails", False), ("v2", "prices", False), ("v2", "senders", True)],
)
def test_a_list_is_cast_as_a_whole_only_where_casting_back_shows_what_was_lost(
    version: Version, column: str, whole: bool
) -> None:
    table = table_of(THINGS, version)
    assert casts_whole(table, next(each for each in table.columns if each.name == column)) is whole
