"""The reads of a push are estimated as it makes them: together where they are read together, again to verify."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pdsync.core import catalogue
from pdsync.writeback.estimate import estimate_read_tokens
from pdsync.writeback.prepared import prepare
from tests.writeback.kit import entry, open_outbox

if TYPE_CHECKING:
    from pathlib import Path

    from pdsync.writeback.outbox import Entry

DEAL, DEALS = catalogue.operation("v2 getDeal").cost or 0, catalogue.operation("v2 getDeals").cost or 0
PERSON, NOTES = catalogue.operation("v2 getPerson").cost or 0, catalogue.operation("v1 getNotes").cost or 0


def update(id: int, title: str = "New") -> Entry:
    return entry(payload={"id": id, "title": title})


def each(operation: str, *payloads: dict[str, Any]) -> list[Entry]:
    return [entry(operation, payload) for payload in payloads]


@pytest.mark.parametrize(
    ("entries", "tokens"),
    [
        ([], 0),
        ([update(1)], DEAL),
        ([update(n) for n in range(3)], 3 * DEAL),
        ([update(n) for n in range(4)], DEALS),  # from four on a list by ids
        ([update(n) for n in range(20)], 2 * DEALS),  # the canary, then the others
        ([update(1, f"{n}") for n in range(6)], 6 * DEAL),  # one after the other
        (each("v2 deleteDeal", {"id": 1}), 2 * DEAL),  # before it, and that it is gone
        (each("v1 mergePersons", {"id": 1, "merge_with_id": 2}), 4 * PERSON),  # both before it, and after it
        (each("v1 addNote", *({"content": f"{n}", "deal_id": 1} for n in range(7))), NOTES),  # one list for all
        (each("v2 addDealFollower", {"id": 1, "user_id": 2}, {"id": 1, "user_id": 3}),
         2 * (catalogue.operation("v2 getDealFollowers").cost or 0)),
        (each("v1 addTeamUser", {"id": 1, "users": [2]}), 2 * (catalogue.operation("v1 getTeamUsers").cost or 0)),
    ],
)  # fmt: skip
def test_the_reads_of_a_push(tmp_path: Path, entries: list[Entry], tokens: int) -> None:
    mutations = [prepare(mutation) for mutation in open_outbox(tmp_path, journal=False).add(entries)]
    assert estimate_read_tokens(mutations, {one.mutation.id for one in mutations}) == tokens


def test_what_is_not_sent_in_the_end_is_only_read(tmp_path: Path) -> None:
    first, second = (prepare(one) for one in open_outbox(tmp_path, journal=False).add([update(1), update(1)]))
    assert estimate_read_tokens([first, second], {first.mutation.id}) == 2 * DEAL
