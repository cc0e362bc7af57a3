"""A row that its parent's list no longer shows is gone only where the parent's count agrees."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pdsync.core import catalogue
from pdsync.runner.sync.removed_children import MissingChild, confirm_gone

T0 = datetime(2026, 11, 22, 12, tzinfo=UTC)
PARENT = next(
    source.parent for source in catalogue.stream("deal_products").v2 if source.parent and source.parent.having
)


@pytest.mark.parametrize(
    ("missing", "gone"),
    [
        ([], []),
        ([MissingChild("a", "1", rows=3, count=2)], ["a"]),
        ([MissingChild("a", "1", rows=3, count=3)], []),  # the parent still counts it
        ([MissingChild("a", "1", rows=3, count=1)], []),  # the parent counts fewer than are left
        ([MissingChild("a", "1", rows=3, count=1), MissingChild("b", "1", rows=3, count=1)], ["a", "b"]),
        ([MissingChild("a", "1", rows=1, count=0), MissingChild("b", "2", rows=2, count=2)], ["a"]),
    ],
)
def test_s8_a_row_is_gone_only_where_list_and_count_agree(missing: list[MissingChild], gone: list[str]) -> None:
    tombstones = confirm_gone(PARENT, missing, T0)
    assert [each.key for each in tombstones] == gone
    assert all(each.how == "deleted" and each.at == T0 for each in tombstones)
