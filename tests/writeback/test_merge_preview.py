"""What a merge fills in, what it loses, and how that is said."""

from __future__ import annotations

from typing import Any

import pytest

from pdsync.writeback.merge_preview import describe_count, preview_outcome, stamp


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
