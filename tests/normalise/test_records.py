"""Any record at all: nothing raises, nothing is lost, and no row depends on its neighbours."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pdsync.core import catalogue

from .kit import THINGS, decode, encode, field, lost, page, staged, table_of

if TYPE_CHECKING:
    import duckdb

    from pdsync.model import Version
    from pdsync.normalise.tables import Table

# DuckDB plans a statement for each example, and shrinking needs hundreds of them: a failure shows what it first met.
QUICK = settings(
    max_examples=15,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
CODES = {kind: f"{number:040x}" for number, kind in enumerate(catalogue.field_types())}
FIELDS = [field("things", CODES[kind], kind, f"cf_{kind}") for kind in ("monetary", "set", "daterange", "user", "time")]
TABLES: dict[Version, Table] = {version: table_of(THINGS, version, FIELDS) for version in catalogue.VERSIONS}
KNOWN = ["id", *THINGS.columns, "open", "user_id", "label", "email", "parties", "custom_fields"]
KNOWN += [f"{code}{end}" for code in CODES.values() for end in ("", "_currency", "_until")]

odd_keys = st.sampled_from(
    ["", " ", "/", "~", "~0", "~1", "a/b", ".", "a.b", "$", "$.a", "*", "0", "-", "[0]", "'", '"', "\\", "null",
     "Value", "VALUE", "value", "Id", "ID", "NAME", "Custom_Fields", "a\0b", "\ud800", "ä", "é", "💾", "_extra",
     "_row_hash", "row", "seq", "text name", "select", "constructor", "__proto__", "x" * 300]
)  # fmt: skip
keys = st.sampled_from(KNOWN) | odd_keys | st.text(max_size=5)
# A text that spells a JSON object is read as one where objects are expected: left out.
texts = st.text(st.characters(codec=None), max_size=8).filter(lambda text: text.strip()[:1] not in ("{", "["))
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-(10**40), max_value=10**40)
    | st.decimals(allow_nan=False, allow_infinity=False, places=6).map(lambda number: Decimal(f"{number:f}"))
    | st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**6), max_value=10**6)
    | texts
    | st.sampled_from(["", "5,9", "1.5", "1e-1", "{", "[{", "2026-01-01T10:00:00Z", "2026-13-01", "10:20", "true"])
)
parts = st.sampled_from(["value", "id", "primary", "price", "Value", "country", "from", "x"])
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(parts, inner, max_size=3)
        | st.dictionaries(keys, inner, max_size=2)
    ),
    max_leaves=6,
)  # fmt: skip
records = st.fixed_dictionaries(
    {}, optional={key: values for key in (*THINGS.columns, "open", "user_id", "email", "parties", "new") if key != "id"}
)


@pytest.mark.parametrize("version", catalogue.VERSIONS)
@QUICK
@given(
    found=st.lists(st.tuples(records, st.dictionaries(keys, values, max_size=3)), min_size=1, max_size=6),
    customs=st.lists(
        values | st.dictionaries(st.sampled_from(list(CODES.values())) | keys, values, max_size=4), max_size=6
    ),
)
def test_no_leaf_of_any_record_is_lost_and_no_other_row_changed(
    connection: duckdb.DuckDBPyConnection,
    version: Version,
    found: list[tuple[dict[str, Any], dict[str, Any]]],
    customs: list[Any],
) -> None:
    table = TABLES[version]
    made = [{**known, **strange, "id": number} for number, (known, strange) in enumerate(found, 10)]
    for record, custom in zip(made, customs, strict=False):
        record["custom_fields"] = custom
    neighbours = [{"id": 1, "name": "one", "value": Decimal("1.5"), "emails": [{"value": "a"}]}, {"id": 2}]
    alone, _ = staged(connection, table, [page(neighbours)])

    rows, quarantined = staged(connection, table, [page([neighbours[0], *made, neighbours[1]])])

    assert quarantined == []
    assert [row["id"] for row in rows] == [1, 2, *(record["id"] for record in made)]
    assert rows[:2] == alone
    for record, row in zip(made, rows[2:], strict=True):
        assert lost(decode(encode(record)), row, table) == []


@QUICK
@given(found=st.lists(values, max_size=8))
def test_whatever_has_no_usable_key_is_quarantined_with_its_bytes(
    connection: duckdb.DuckDBPyConnection, found: list[Any]
) -> None:
    """Every record ends in one place: in the table under its own key, or in quarantine."""
    strange = [each for each in found if not isinstance(each, dict) or "id" not in each]
    rows, quarantined = staged(connection, TABLES["v2"], [page([{"id": 1}, *strange, {"id": 2}])])
    assert [row["id"] for row in rows] == [1, 2]
    assert sorted(each.position for each in quarantined) == list(range(1, len(strange) + 1))
    for each in quarantined:
        kept = decode(each.record)
        came = decode(kept["_as_it_came"]) if isinstance(kept, dict) and "_as_it_came" in kept else kept
        assert came == decode(encode(strange[each.position - 1]))


@settings(QUICK, max_examples=5)
@given(found=st.lists(records, min_size=2, max_size=5), cut=st.integers(1, 4))
def test_a_row_does_not_depend_on_the_pages_that_it_comes_with(
    connection: duckdb.DuckDBPyConnection, found: list[dict[str, Any]], cut: int
) -> None:
    """Else a record that is met again in another batch would look changed (S2)."""
    made = [{**record, "id": number} for number, record in enumerate(found, 1)]

    def hashes(*pages: list[dict[str, Any]]) -> dict[int, int]:
        staging = [page(each, seq, last=False) for seq, each in enumerate(pages)]
        rows, _ = staged(connection, TABLES["v2"], staging)
        return {row["id"]: row["_row_hash"] for row in rows}

    together = hashes(made)
    assert hashes(made[:cut], made[cut:]) == together
    assert {**hashes(made[:1]), **hashes(made[1:])} == together
