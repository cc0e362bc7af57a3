"""What a merge fills in, what it loses, and how that is said."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pdsync.core import catalogue
from pdsync.writeback.merge_preview import (
    describe_count,
    find_proof,
    page_size,
    preview_outcome,
    read_children,
    stamp,
)  # fmt: skip
from pdsync.writeback.shapes import shape
from tests.writeback.api import answering

if TYPE_CHECKING:
    from pathlib import Path

    from pdsync.model import Operation
    from tests.writeback.api import Answers


@pytest.mark.parametrize(
    ("loser", "winner", "filled", "lost"),
    [
        ({"title": "A"}, {"title": "A"}, [], []),
        ({"title": "A"}, {"title": "B"}, [], [("title", "A")]),
        ({"value": 5}, {"value": None}, [("value", None, 5)], []),
        ({"value": 5}, {}, [("value", None, 5)], []),
        ({"value": None}, {"value": 5}, [], []),
        ({"label_ids": [1]}, {"label_ids": [2]}, [], []),  # the lists of both are kept
        ({"label_ids": [1]}, {"label_ids": []}, [("label_ids", [], [1])], []),
        ({"id": 1, "update_time": "a"}, {"id": 2, "update_time": "b"}, [], []),  # set by the API, not by people
        ({"notes_count": 3}, {"notes_count": 1}, [], []),
        ({"custom_fields": {"k": 1}}, {"custom_fields": {"k": 2}}, [], [("custom_fields/k", 1)]),
        ({"custom_fields": {"k": 1}}, {"custom_fields": {"k": None}}, [("custom_fields/k", None, 1)], []),
    ],
)
def test_the_winner_keeps_its_values_and_is_given_what_it_lacks(
    loser: dict[str, Any], winner: dict[str, Any], filled: list[Any], lost: list[Any]
) -> None:
    assert preview_outcome(loser, winner) == (filled, lost)


def test_w6_the_stamp_of_a_merge_changes_with_either_record() -> None:
    one, other = {"update_time": "1"}, {"update_time": "2"}
    assert stamp(one, other) == {"loser": "1", "winner": "2"}
    assert len({str(stamp(a, b)) for a in (one, other) for b in (one, other)}) == 4


@pytest.mark.parametrize(
    ("listing", "count", "words"),
    [("getNotes", 1, "1 note"), ("getNotes", 1200, "1,200 notes"), ("getActivities", 1, "1 activity"),
     ("getArchivedDeals", 2, "2 archived deals")],
)  # fmt: skip
def test_how_many_records_move(listing: str, count: int, words: str) -> None:
    assert describe_count(listing, count) == words


MERGE = shape(catalogue.operation("v1 mergeDeals"))
NOTES, ACTIVITIES = "/v1/notes", "/api/v2/activities"


async def test_what_belongs_to_the_loser_is_listed_and_a_list_that_is_hidden_counts_as_empty(tmp_path: Path) -> None:
    notes = [{"id": 1, "deal_id": 12}, {"id": 2, "deal_id": 12}, {"id": 3, "deal_id": 99}, {"id": 4, "deal_id": None}]
    projects = [{"id": 5, "deal_ids": [7, 12]}, {"id": 6, "deal_ids": [7]}, {"id": 8}]  # the filter is ignored
    answers = {NOTES: notes, ACTIVITIES: 403, "/api/v2/projects": projects}
    async with answering(tmp_path, answers) as api:
        found = await read_children(api.http, MERGE, {"id": 12, "merge_with_id": 7}, lambda *_: {"99"})
    assert found == {"getNotes": ["1", "2"], "getActivities": [], "getProjects": ["5"]}  # persons name no deal


async def test_where_a_page_is_full_what_the_warehouse_has_counts_too(tmp_path: Path) -> None:
    size = page_size(catalogue.operation("v1 getNotes"))
    asked: list[tuple[str, tuple[str, ...], str]] = []

    def stored(listing: Operation, columns: tuple[str, ...], id: str) -> set[str]:
        asked.append((listing.id, columns, id))
        return {"1", "9001"}

    notes = [{"id": n, "deal_id": 12 if n < 3 else 99} for n in range(1, size + 1)]
    async with answering(tmp_path, {NOTES: notes}) as api:
        found = await read_children(api.http, MERGE, {"id": 12, "merge_with_id": 7}, stored)
    assert found["getNotes"] == ["1", "2", "9001"]
    assert asked == [("getNotes", ("deal_id", "deal_ids"), "12")]


@pytest.mark.parametrize(
    ("loser", "winner", "moves", "now", "answers", "shown", "against"),
    [
        # What belonged to the loser belongs to the winner now.
        ({"title": "A"}, {"title": "A"}, {"getNotes": ["1"]}, {"title": "A"}, {NOTES: [{"id": 1, "deal_id": 7}]},
         {"moved": {"getNotes": ["1"]}, "taken over": []}, ""),
        ({"title": "A"}, {"title": "A"}, {"getNotes": ["1"]}, {"title": "A"}, {NOTES: []},
         {}, "1 note of it did not move to the other"),
        # The winner has a value that only the loser had.
        ({"person_id": 5}, {"person_id": None}, {}, {"person_id": 5}, {},
         {"moved": {}, "taken over": ["person_id"]}, ""),
        ({"person_id": 5}, {"person_id": None}, {}, {"person_id": None}, {},
         {}, "the other does not have its person_id"),
        ({"label_ids": [1, 2]}, {"label_ids": [2]}, {}, {"label_ids": [2, 1]}, {},
         {"moved": {}, "taken over": ["label_ids"]}, ""),
        # A merge that leaves no trace can't be proved.
        ({"title": "A"}, {"title": "B"}, {}, {"title": "B"}, {}, {}, "no record belonged to it"),
        # A value that was copied by hand is no proof while another one is missing.
        ({"person_id": 5, "org_id": 3}, {}, {}, {"person_id": 5}, {}, {}, "the other does not have its org_id"),
    ],
)  # fmt: skip
async def test_s13_a_merge_is_proved_by_what_only_it_does(
    tmp_path: Path,
    loser: dict[str, Any],
    winner: dict[str, Any],
    moves: dict[str, list[str]],
    now: dict[str, Any],
    answers: Answers,
    shown: dict[str, Any],
    against: str,
) -> None:
    base = {"loser": loser, "winner": winner, "moves": moves}
    async with answering(tmp_path, answers) as api:
        found = await find_proof(api.http, "deals", base, "7", now)
    assert found.shown == shown
    assert against in found.against
