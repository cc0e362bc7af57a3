"""W5: which mutations wait for which."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pdsync.writeback.dependencies import find_predecessors
from pdsync.writeback.outbox import Reference
from tests.writeback.kit import entry, open_outbox

if TYPE_CHECKING:
    from pathlib import Path

DEAL, OTHER = ("v2 updateDeal", {"id": 12, "title": "A"}), ("v2 updateDeal", {"id": 13, "title": "A"})
NOTE = ("v1 addNote", {"content": "x", "deal_id": 12})
PRODUCT = ("v2 addDealProduct", {"id": 12, "product_id": 3, "item_price": 1, "quantity": 1})
MERGE = ("v1 mergeDeals", {"id": 13, "merge_with_id": 12})
ADD = ("v2 addDeal", {"title": "Same"})


@pytest.mark.parametrize(
    ("changes", "waits"),
    [
        ([DEAL, OTHER], [set(), set()]),
        ([DEAL, DEAL, DEAL], [set(), {0}, {1}]),
        ([DEAL, NOTE], [set(), {0}]),  # a note waits for the change of its deal
        ([NOTE, ("v1 addNote", {"content": "y", "deal_id": 12})], [set(), set()]),  # but not for another note
        ([NOTE, DEAL], [set(), {0}]),  # and the next change waits for it
        ([DEAL, PRODUCT], [set(), {0}]),  # a product of a deal changes the deal
        ([DEAL, OTHER, MERGE], [set(), set(), {0, 1}]),
        ([MERGE, DEAL], [set(), {0}]),
        ([ADD, ADD], [set(), {0}]),  # if an answer were lost, they could not be told apart
        ([ADD, ("v2 addDeal", {"title": "Different"})], [set(), set()]),
    ],
)
def test_w5_order(tmp_path: Path, changes: list[tuple[str, dict[str, Any]]], waits: list[set[int]]) -> None:
    mutations = open_outbox(tmp_path).add([entry(operation, payload) for operation, payload in changes])
    numbers = {each.id: n for n, each in enumerate(mutations)}
    found = find_predecessors(mutations)
    assert [{numbers[id] for id in found[each.id]} for each in mutations] == waits


def test_w5_what_refers_to_an_added_record_waits_for_it(tmp_path: Path) -> None:
    added = entry("v2 addOrganization", {"name": "Acme"}, name="acme")
    person = entry("v2 addPerson", {"name": "Ann", "org_id": Reference("acme")})
    first, second = open_outbox(tmp_path).add([added, person])
    assert find_predecessors([first, second]) == {first.id: set(), second.id: {first.id}}
    assert find_predecessors([second]) == {second.id: set()}  # the other one was applied before
