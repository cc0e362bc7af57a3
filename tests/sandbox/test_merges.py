"""A merge keeps the values and the linked records of both, and says where the loser went."""

from __future__ import annotations

from typing import Any

import pytest

from pdsync.sandbox import Company, Sizes, generate_company
from pdsync.sandbox.operations.generic_records import records_at
from pdsync.sandbox.operations.merges import merge_records

KINDS = {"deals": "deal_id", "persons": "person_id", "organizations": "org_id"}


@pytest.fixture
def company() -> Company:
    return generate_company(seed=5, sizes=Sizes(deals=40))


def pair(company: Company, kind: str) -> tuple[int, int]:
    """Two live records, the first with activities."""
    linked = {row.record[KINDS[kind]] for row in company["activities"].rows.values()}
    live = [row.id for row in company[kind].rows.values() if row.state == "live"]
    loser = next(id for id in live if id in linked)
    return loser, next(id for id in live if id != loser)


def edit(company: Company, kind: str, id: int, **values: Any) -> None:
    company.put(kind, "update", {**company[kind].rows[id].record, **values})


@pytest.mark.parametrize("kind", KINDS)
def test_linked_records_move_to_the_winner(company: Company, kind: str) -> None:
    loser, winner = pair(company, kind)
    before = {row.id for row in company["activities"].where(KINDS[kind], loser)}
    merge_records(company, kind, loser, winner, None)
    assert not list(company["activities"].where(KINDS[kind], loser))
    assert before <= {row.id for row in company["activities"].where(KINDS[kind], winner)}
    removed = company[kind].removed[loser]
    assert (removed.state, removed.merged_into, loser in company[kind].rows) == ("merged", winner, False)
    assert (company.journal[-1].op, company.journal[-1].id) == ("merge", loser)


@pytest.mark.parametrize(
    ("kind", "collection", "link"),
    [("deals", "notes", "deal_id"), ("persons", "notes", "person_id"), ("persons", "leads", "person_id"),
     ("organizations", "leads", "organization_id")],
)  # fmt: skip
def test_linked_notes_and_leads_move_to_the_winner(company: Company, kind: str, collection: str, link: str) -> None:
    records = records_at(company, (collection,), ())
    live = {row.id for row in company[kind].rows.values() if row.state == "live"}
    loser = next(row.record[link] for row in records.values() if row.record.get(link) in live)
    winner = next(id for id in live if id != loser)
    before = {id for id, row in records.items() if row.record.get(link) == loser}
    merge_records(company, kind, loser, winner, None)
    after = records_at(company, (collection,), ())
    assert {after[id].record[link] for id in before} == {winner}
    assert loser not in {row.record.get(link) for row in after.values()}


def test_the_winner_wins_and_its_empty_values_are_filled(company: Company) -> None:
    loser, winner = pair(company, "persons")
    edit(company, "persons", loser, name="Loser", job_title="Buyer", visible_to=1)
    edit(company, "persons", winner, name="Winner", job_title="", visible_to=7)
    record = merge_records(company, "persons", loser, winner, None).record
    assert (record["id"], record["name"], record["job_title"], record["visible_to"]) == (winner, "Winner", "Buyer", 7)


def test_lists_have_the_items_of_both_once(company: Company) -> None:
    loser, winner = pair(company, "persons")
    emails = [{"value": value, "primary": True, "label": "work"} for value in ("a@x", "b@x", "c@x")]
    edit(company, "persons", loser, emails=emails[1:], label_ids=[2, 3])
    edit(company, "persons", winner, emails=emails[:2], label_ids=[1, 2])
    record = merge_records(company, "persons", loser, winner, None).record
    assert [(each["value"], each["primary"]) for each in record["emails"]] == [
        ("a@x", True), ("b@x", True), ("c@x", False)]  # fmt: skip
    assert record["label_ids"] == [1, 2, 3]


def test_large_texts_of_persons_are_joined_and_other_fields_are_not(company: Company) -> None:
    loser, winner = pair(company, "persons")
    large = next(field.code for field in company.fields["persons"] if field.custom and field.type == "text")
    small = next(field.code for field in company.fields["persons"] if field.custom and field.type == "varchar")
    edit(company, "persons", loser, custom_fields={large: "lost", small: "lost"})
    edit(company, "persons", winner, custom_fields={large: "won", small: "won"})
    custom = merge_records(company, "persons", loser, winner, None).record["custom_fields"]
    assert (custom[large], custom[small]) == ("won\nlost", "won")


def test_a_participant_is_in_an_activity_once(company: Company) -> None:
    loser, winner = pair(company, "persons")
    activity = next(row for row in company["activities"].where("person_id", loser))
    both = [{"person_id": loser, "primary": True}, {"person_id": winner, "primary": False}]
    edit(company, "activities", activity.id, participants=both)
    merge_records(company, "persons", loser, winner, None)
    record = company["activities"].rows[activity.id].record
    assert record["participants"] == [{"person_id": winner, "primary": True}]


@pytest.mark.parametrize("touches", [True, False])
def test_moved_records_may_keep_their_time(company: Company, touches: bool) -> None:
    loser, winner = pair(company, "deals")
    company.merge_touches_children = touches
    times = {row.id: row.record["update_time"] for row in company["activities"].where("deal_id", loser)}
    company.clock.advance(60)
    merge_records(company, "deals", loser, winner, None)
    moved = {id: company["activities"].rows[id].record["update_time"] for id in times}
    assert (moved != times) is touches
