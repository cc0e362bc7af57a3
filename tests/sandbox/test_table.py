"""A table's orders and indexes stay right through any writes, and what is removed can be restored."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pdsync.sandbox.company.resources import STAGES
from pdsync.sandbox.company.table import Table, decode

IDS = st.integers(1, 6)
WRITES = st.lists(
    st.tuples(IDS, st.sampled_from(("live", "deleted", "removed")), st.none() | st.integers(1, 3), IDS), max_size=12
)


def record(
    id: int, order_nr: int | None = None, pipeline_id: int = 1, update_time: str | None = None
) -> dict[str, Any]:
    return {"id": id, "add_time": "2026-01-01T00:00:00Z", "update_time": update_time, "order_nr": order_nr,
            "pipeline_id": pipeline_id}  # fmt: skip


@given(WRITES)
@settings(deadline=None)
def test_orders_and_indexes_are_those_of_the_rows(writes: list[tuple[int, str, int | None, int]]) -> None:
    table = Table(STAGES)
    assert not table.order("order_nr")  # built before the writes
    assert not table.ids_where("pipeline_id", 1)
    for id, state, order_nr, pipeline_id in writes:
        if state != "removed":
            table.put(table.row(record(id, order_nr, pipeline_id), state))
        elif id in table.rows:
            table.remove(id, "purged")
    rows = table.rows.values()
    assert table.order("order_nr") == sorted((row.record["order_nr"] or 0, row.id) for row in rows)
    for pipeline_id in range(1, 7):
        assert set(table.ids_where("pipeline_id", pipeline_id)) == {
            row.id for row in rows if row.record["pipeline_id"] == pipeline_id
        }
    assert table.deleted == {row.id for row in rows if row.state == "deleted"}
    assert table.next_id == max((id for id, state, _, _ in writes if state != "removed"), default=0) + 1


def test_a_null_sorts_first() -> None:
    table = Table(STAGES)
    for id, time in ((1, "2026-01-01T00:00:00Z"), (2, None)):
        table.put(table.row(record(id, update_time=time), "live"))
    assert [id for _, id in table.order("update_time")] == [2, 1]


def test_a_removed_row_is_kept_with_its_reason_and_can_be_restored() -> None:
    table = Table(STAGES)
    table.put(table.row(record(5), "live"))
    table.remove(5, "merged", merged_into=7)
    assert (len(table), table.removed[5].state, table.removed[5].merged_into) == (0, "merged", 7)
    table.restore(table.removed[5])
    assert (len(table), table.removed, table.rows[5].state) == (1, {}, "live")


def test_a_facet_that_the_record_lacks_is_hidden_beside_it() -> None:
    table = Table(STAGES)
    row = table.row({"id": 1, "order_nr": 2}, "live", hidden={"pipeline_id": 9})
    assert table.facet(row, "pipeline_id") == 9
    assert decode(row.body) == {"id": 1, "order_nr": 2}
