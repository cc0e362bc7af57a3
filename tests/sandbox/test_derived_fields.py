"""Values that a record shows of its neighbours are counted on request, and change without its update_time."""

from __future__ import annotations

from typing import Any

import pytest

from pdsync.sandbox import Company, Sizes, generate_company
from pdsync.sandbox.protocol import derived_fields


@pytest.fixture
def company() -> Company:
    return generate_company(seed=5, sizes=Sizes(deals=30, activities=0, files=0, mail_threads=0))


def add_activity(company: Company, id: int, *, state: str = "live", **values: Any) -> None:
    record = {"id": id, "deal_id": 1, "due_date": None, "due_time": None, "done": False, "add_time": "", "type": "call",
              "update_time": "", "owner_id": 1, "lead_id": None, "person_id": None, "org_id": None}  # fmt: skip
    company["activities"].put(company["activities"].row({**record, **values}, state))


def of_deal(company: Company) -> dict[str, Any]:
    row = company["deals"].rows[1]
    return derived_fields.of_deal(company, row, row.record)


def test_the_next_activity_is_the_earliest_one_not_done_and_the_last_the_latest_one_done(company: Company) -> None:
    add_activity(company, 1, due_date="2026-05-02", due_time="09:00:00")
    add_activity(company, 2, due_date="2026-05-01", due_time="10:00:00")
    add_activity(company, 3, due_date="2026-05-01", due_time="09:00:00")
    add_activity(company, 4)  # without a date it comes last
    add_activity(company, 5, due_date="2026-04-01", done=True)
    add_activity(company, 6, due_date="2026-04-02", done=True)
    add_activity(company, 7, done=True)  # without a date it is never the last one
    add_activity(company, 8, due_date="2026-01-01", state="deleted")
    following, last, done, undone = derived_fields.activity_rows(company, "deal_id", 1)
    assert (following and following.id, last and last.id, done, undone) == (3, 6, 3, 4)


def test_a_deal_without_neighbours_has_zeros(company: Company) -> None:
    counted = of_deal(company)
    assert (counted["next_activity_id"], counted["last_activity_id"], counted["activities_count"]) == (None, None, 0)
    assert (counted["files_count"], counted["email_messages_count"], counted["last_incoming_mail_time"]) == (0, 0, None)


def test_counts_change_without_the_records_time(company: Company) -> None:
    before = company["deals"].rows[1]
    add_activity(company, 1)
    company["files"].put(company["files"].row({"id": 1, "deal_id": 1}, "live"))
    company["files"].put(company["files"].row({"id": 2, "deal_id": 1}, "deleted"))
    counted = of_deal(company)
    assert (counted["undone_activities_count"], counted["files_count"]) == (1, 1)
    assert company["deals"].rows[1] is before


def test_mail_counts_messages_and_shows_the_latest_time(company: Company) -> None:
    for id, time in ((1, "2026-05-01T10:00:00.000Z"), (2, "2026-05-02T10:00:00.000Z")):
        thread = {"id": id, "deal_id": 1, "last_message_timestamp": time, "message_count": id}
        company["mail_threads"].put(company["mail_threads"].row(thread, "live"))
    counted = of_deal(company)
    assert (counted["email_messages_count"], counted["last_incoming_mail_time"]) == (3, "2026-05-02T10:00:00Z")


def test_an_organization_counts_its_deals_by_status_and_its_people(company: Company) -> None:
    org_id = next(row.id for row in company["organizations"].rows.values() if row.state == "live")
    for row in list(company["deals"].where("org_id", org_id)):
        company.put("deals", "update", {**row.record, "org_id": None})
    live = [row for row in company["deals"].rows.values() if row.state == "live"]
    for row, status in zip(live, ("open", "won", "won", "lost"), strict=False):
        company.put("deals", "update", {**row.record, "org_id": org_id, "status": status})
    row = company["organizations"].rows[org_id]
    counted = derived_fields.of_organization(company, row, row.record)
    names = ("open_deals_count", "closed_deals_count", "won_deals_count", "lost_deals_count")
    assert [counted[name] for name in names] == [1, 3, 2, 1]
    people = [each for each in company["persons"].where("org_id", org_id) if each.state == "live"]
    assert counted["people_count"] == len(people)
