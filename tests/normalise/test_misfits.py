"""What a column can't hold goes to `_extra` as it came, and nothing else does."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from pdsync.core import catalogue

from .kit import THINGS, field, lost, page, rows_of, staged, table_of

if TYPE_CHECKING:
    import duckdb

    from pdsync.model import Version

FITS: list[tuple[str, Any]] = [
    ("value", "1.50"), ("value", None), ("value", Decimal("1.2345")), ("share", 10**30), ("due_date", "2026-01-31"),
    ("due_time", "10:20:30"), ("lasts", "26:00:00"), ("lasts", 90), ("update_time", "2026-01-31 10:00:00"),
    ("folders", ["a"]), ("folders", "a,b"), ("folders", [{"a": 1}]), ("folders", []), ("name", {"a": 1}), ("name", ""),
    ("prices", []), ("prices", None), ("prices", [{"price": Decimal("1.2345"), "product_id": "7"}]),
    ("prices", [{"price": "", "product_id": None}]),
]  # fmt: skip
MISFITS: list[tuple[str, Any]] = [
    ("value", Decimal("1.23456")), ("value", 10**20), ("value", "x"), ("value", True), ("share", "x"),
    ("due_date", "2026-01-31 10:00:00"), ("due_date", "2026-13-01"), ("due_time", "2026-01-31 10:20:30"),
    ("due_time", "25:00"), ("lasts", "01:30:00.5"), ("lasts", "x"), ("update_time", 5),
    ("update_time", "0000-00-00 00:00:00"), ("folders", {"a": 1}), ("folders", [None, "a"]), ("prices", "x"),
    ("prices", {"price": 1}), ("prices", [{"price": Decimal("1.23456")}]), ("prices", [{"price": "x"}]),
    ("prices", [{"product_id": 1.5}]), ("prices", [{"price": 1, "new": 2}]), ("prices", [{"price": 1}, 5]),
]  # fmt: skip
FITS_OF: dict[Version, list[tuple[str, Any]]] = {
    "v2": [
        ("owner_id", 5), ("owner_id", "5"), ("done", "yes"), ("label_ids", [1]), ("label_ids", []), ("place", "x"),
        ("place", {"value": "x", "country": "NZ"}), ("emails", [{"value": ""}]),
    ],
    "v1": [
        ("user_id", ""), ("open", ""), ("label", "5,9"), ("label", ""), ("email", []), ("value", ""), ("place", {}),
    ],
}  # fmt: skip
MISFITS_OF: dict[Version, list[tuple[str, Any]]] = {
    "v2": [
        ("owner_id", 1.5), ("owner_id", "1e-1"), ("owner_id", 10**30), ("owner_id", ""), ("owner_id", {"id": 5}),
        ("done", "maybe"), ("label_ids", [1.5, 2]), ("label_ids", "5,x"), ("label_ids", [None, 1]),
        ("emails", [{"value": "a", "primary": "x"}]), ("emails", ["a"]), ("parties", "x"), ("parties", [1]),
    ],
    "v1": [
        ("user_id", {"value": 5, "name": "Ann"}), ("open", "maybe"), ("label", "5,x"), ("email", [{"value": ""}]),
        ("email", [{"value": "a", "primary": "x"}]), ("email", "x"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("version", catalogue.VERSIONS)
def test_a_value_that_fits_leaves_nothing_over_and_one_that_does_not_is_kept_as_it_came(
    connection: duckdb.DuckDBPyConnection, version: Version
) -> None:
    fits, misfits = FITS + FITS_OF[version], MISFITS + MISFITS_OF[version]
    rows = rows_of(connection, version, [*fits, *misfits])
    shown = [extra for _, extra in rows]
    assert [case for case, extra in zip(fits, shown, strict=False) if extra is not None] == []
    expected = [{key: _as_read(value)} for key, value in misfits]
    assert shown[len(fits) :] == expected


def _as_read(value: Any) -> Any:
    """A value as it comes back from exact JSON: with decimals."""
    if isinstance(value, list):
        return [_as_read(each) for each in value]
    if isinstance(value, dict):
        return {key: _as_read(each) for key, each in value.items()}
    return Decimal(str(value)) if isinstance(value, float) else value


def test_of_an_object_only_the_part_that_does_not_fit_is_left_over(connection: duckdb.DuckDBPyConnection) -> None:
    [(row, extra), (_, second)] = rows_of(
        connection, "v2", [("place", {"value": "x", "city": "Y"}), ("parties", {"from": [{"id": 1}], "to": 2})]
    )
    assert (row["place"], extra, second) == ("x", {"place/city": "Y"}, {"parties/to": 2})


def test_custom_fields_that_are_no_object_are_kept(connection: duckdb.DuckDBPyConnection) -> None:
    table = table_of(THINGS, "v2", [field("things", "a" * 40, "int", "cf_a")])
    containers: list[Any] = [5, "x", True, [], [1, {"a": 2}], "", None, {"unknown": {"a": [1]}}, {"a" * 40: 7}]
    records = [{"id": id, "name": "x", "custom_fields": container} for id, container in enumerate(containers)]
    rows, _ = staged(connection, table, [page(records)])
    for record, row in zip(records, rows, strict=True):
        assert lost(record, row, table) == []
    assert [row["cf_a"] for row in rows] == [None] * 8 + [7]
    assert [id for id, row in enumerate(rows) if row["_extra"] is None] == [3, 6, 8]
