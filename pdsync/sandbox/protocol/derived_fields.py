"""Computes what a record shows of its linked records: counts, the next activity, the last mail.

They are computed for each answer, so they are always right, and change without update_time.
Assumption: notes are not counted, nor a person's deals as a participant, nor deals of related contacts; the time of the
last outgoing mail is always null.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pdsync.sandbox.company.fabricate import count_initial_products

if TYPE_CHECKING:
    from pdsync.sandbox.company.company import Company
    from pdsync.sandbox.company.table import Record, Row

LATE = "9999"


def bcc(company: Company, suffix: str = "") -> str:
    return f"{company.domain}{suffix}@pipedrivemail.example"


def of_deal(company: Company, row: Row, record: Record) -> Record:
    return {
        **_activities(company, "deal_id", row.id),
        **_count_files_and_mail(company, "deal_id", row.id),
        "followers_count": _count_children(company, "deal_followers", row.id, 1),
        "first_won_time": record["won_time"],
        "products_count": _count_children(company, "deal_products", row.id, count_initial_products(company, row.id)),
        "participants_count": _count_children(
            company, "deal_participants", row.id, 0 if record["person_id"] is None else 1
        ),
        "smart_bcc_email": bcc(company, f"+deal{row.id}"),
        "source_lead_id": record["source_lead_id"],
    }


def of_person(company: Company, row: Row, record: Record) -> Record:
    return {
        **_activities(company, "person_id", row.id),
        **_count_files_and_mail(company, "person_id", row.id),
        **_deals(company, "person_id", row.id),
        "followers_count": _count_children(company, "person_followers", row.id, 1),
        "participant_open_deals_count": 0,
        "participant_closed_deals_count": 0,
        "marketing_status": "no_consent",
        "doi_status": 1,
        "smart_bcc_email": bcc(company),
    }


def of_organization(company: Company, row: Row, record: Record) -> Record:
    counted = {
        **_activities(company, "org_id", row.id),
        **_count_files_and_mail(company, "org_id", row.id),
        **_deals(company, "org_id", row.id),
        "followers_count": _count_children(company, "organization_followers", row.id, 1),
        "people_count": people(company, row.id),
        "smart_bcc_email": bcc(company),
    }
    del counted["last_incoming_mail_time"], counted["last_outgoing_mail_time"]
    return counted


def _count_children(company: Company, kind: str, id: int, initial: int) -> int:
    """How many records of `kind` record `id` has; `initial` until the first write to them."""
    rows = company.collections.get((kind, (str(id),)))
    return initial if rows is None else sum(row.state == "live" for row in rows.values())


def of_activity(company: Company, row: Row, record: Record) -> Record:
    """The optional fields of an activity: its attendees, as stored."""
    return {"attendees": (row.extra or {}).get("attendees")}


def people(company: Company, org_id: int) -> int:
    return sum(row.state == "live" for row in company["persons"].where("org_id", org_id))


def activity_rows(company: Company, facet: str, id: int) -> tuple[Row | None, Row | None, int, int]:
    """The next activity, the last one, how many are done and how many are not."""
    table = company["activities"]
    date, hour, done = table.position["due_date"], table.position["due_time"], table.position["done"]
    following = last = None
    counted = [0, 0]
    for row in table.where(facet, id):
        if row.state != "live":
            continue
        counted[bool(row.facets[done])] += 1
        key = (row.facets[date] or LATE, row.facets[hour] or "", row.id)
        if row.facets[done]:
            if row.facets[date] and (last is None or key > last[0]):
                last = (key, row)
        elif following is None or key < following[0]:
            following = (key, row)
    return following and following[1], last and last[1], counted[1], counted[0]


def _activities(company: Company, facet: str, id: int) -> Record:
    following, last, done, undone = activity_rows(company, facet, id)
    return {
        "next_activity_id": following.id if following else None,
        "last_activity_id": last.id if last else None,
        "activities_count": done + undone,
        "done_activities_count": done,
        "undone_activities_count": undone,
    }


def _count_files_and_mail(company: Company, facet: str, id: int) -> Record:
    threads = [row for row in company["mail_threads"].where(facet, id) if row.state == "live"]
    at = company["mail_threads"].position
    times = [row.facets[at["last_message_timestamp"]] for row in threads]
    return {
        "files_count": sum(row.state == "live" for row in company["files"].where(facet, id)),
        "notes_count": 0,
        "email_messages_count": sum(row.facets[at["message_count"]] for row in threads),
        "last_incoming_mail_time": f"{max(times)[:19]}Z" if times else None,
        "last_outgoing_mail_time": None,
    }


def _deals(company: Company, facet: str, id: int) -> Record:
    table = company["deals"]
    counted = {"open": 0, "won": 0, "lost": 0}
    for row in table.where(facet, id):
        if row.state != "deleted":
            counted[table.facet(row, "status")] += 1
    made: dict[str, Any] = {
        "open_deals_count": counted["open"],
        "closed_deals_count": counted["won"] + counted["lost"],
        "won_deals_count": counted["won"],
        "lost_deals_count": counted["lost"],
    }
    return {**made, **{f"related_{name}": 0 for name in made}}
