"""How API v1 shows a record: nested users and contacts, flat custom fields, text where v2 has numbers.

Each kind has one function of the company and a row. Everything is worked out from the same v2 record, so the
two versions cannot disagree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pdsync.sandbox.company.clock import v1_time
from pdsync.sandbox.company.data import words
from pdsync.sandbox.company.fields import ADDRESS_PARTS
from pdsync.sandbox.protocol import derived_fields
from pdsync.sandbox.protocol.v1_parts import (
    activity_stub,
    contacts,
    counted_only,
    custom,
    money,
    name_of,
    neighbours,
    organization,
    person,
    spread,
    stage_of,
    user,
    valued,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from pdsync.sandbox.company.company import Company
    from pdsync.sandbox.company.table import Record, Row


def shape(company: Company, kind: str, row: Row) -> Record:
    return SHAPES[kind](company, row)


def deal(company: Company, row: Row) -> Record:
    record = row.record
    counted = derived_fields.of_deal(company, row, record)
    following, _, _, _ = derived_fields.activity_rows(company, "deal_id", row.id)
    stage_record = stage_of(company, record["stage_id"])
    weighted = _weighted_value(record, stage_record)
    next_one = activity_stub(company, following)
    person_id, org_id, currency = record["person_id"], record["org_id"], record["currency"]
    creator, owner = user(company, record["creator_user_id"]), user(company, record["owner_id"])
    label_ids = record["label_ids"]
    return {
        "id": row.id,
        "creator_user_id": valued(creator, record["creator_user_id"]),
        "user_id": valued(owner, record["owner_id"]),
        "person_id": valued(person(company, person_id), person_id),
        "org_id": valued(organization(company, org_id), org_id),
        "stage_id": record["stage_id"],
        "title": record["title"],
        "value": record["value"],
        "currency": currency,
        **{name: v1_time(record[name]) for name in ("archive_time", "add_time", "update_time", "stage_change_time")},
        "active": record["status"] == "open" and not record["is_deleted"],
        "deleted": record["is_deleted"],
        "is_archived": record["is_archived"],
        "status": "deleted" if record["is_deleted"] else record["status"],
        "probability": record["probability"],
        **neighbours(company, "deal_id", row, counted),
        "lost_reason": record["lost_reason"],
        "visible_to": str(record["visible_to"]),
        "close_time": v1_time(record["close_time"]),
        "pipeline_id": record["pipeline_id"],
        "won_time": v1_time(record["won_time"]),
        "first_won_time": v1_time(record["won_time"]),
        "lost_time": v1_time(record["lost_time"]),
        **counted_only(counted),
        "expected_close_date": record["expected_close_date"],
        "last_incoming_mail_time": v1_time(counted["last_incoming_mail_time"]),
        "last_outgoing_mail_time": None,
        "label": ",".join(map(str, label_ids)) or None,
        **{name: record[name] for name in ("local_won_date", "local_lost_date", "local_close_date")},
        **{name: record[name] for name in ("origin", "origin_id", "channel", "channel_id")},
        **{name: record[name] for name in ("acv", "arr", "mrr")},
        **dict.fromkeys(("acv_currency", "arr_currency", "mrr_currency")),
        "stage_order_nr": stage_record.get("order_nr"),
        "person_name": name_of(company, "persons", person_id),
        "org_name": name_of(company, "organizations", org_id),
        **{f"next_activity_{part}": next_one[part] for part in ("subject", "type", "duration", "note")},
        "formatted_value": money(record["value"], currency),
        "weighted_value": weighted,
        "formatted_weighted_value": money(weighted, currency),
        "weighted_value_currency": currency,
        "rotten_time": None,
        "owner_name": owner and owner["name"],
        "cc_email": counted["smart_bcc_email"],
        "org_hidden": False,
        "person_hidden": False,
        **custom(company, "deals", record["custom_fields"]),
    }


def _weighted_value(deal: Record, stage: Record) -> float:
    """The value of a deal times its probability, or that of its stage, in percent."""
    probability = deal["probability"]
    if probability is None:
        probability = stage.get("deal_probability", 100)
    weighted: float = round((deal["value"] or 0) * probability / 100, 2)
    return int(weighted) if weighted == int(weighted) else weighted


def person_record(company: Company, row: Row) -> Record:
    record = row.record
    counted = derived_fields.of_person(company, row, record)
    org_id, owner_id, label_ids = record["org_id"], record["owner_id"], record["label_ids"]
    nested = organization(company, org_id)
    synced: Record = {name: record[name] for name in ("notes", "im", "birthday", "job_title") if name in record}
    if "postal_address" in record:
        spread(synced, "postal_address", record["postal_address"], ADDRESS_PARTS)
    emails = record["emails"]
    return {
        "id": row.id,
        "company_id": company.id,
        "owner_id": valued(user(company, owner_id), owner_id),
        "org_id": valued(nested, org_id),
        "name": record["name"],
        "first_name": record["first_name"],
        "last_name": record["last_name"],
        **counted_only(counted),
        "active_flag": not record["is_deleted"],
        "phone": contacts(record["phones"]),
        "email": contacts(emails),
        "primary_email": next((email["value"] for email in emails if email.get("primary")), None),
        "first_char": record["name"][:1].lower(),
        "update_time": v1_time(record["update_time"]),
        "delete_time": v1_time(record["update_time"]) if record["is_deleted"] else None,
        "add_time": v1_time(record["add_time"]),
        "visible_to": str(record["visible_to"]),
        "picture_id": picture(company, row.id, record),
        **neighbours(company, "person_id", row, counted),
        "last_incoming_mail_time": v1_time(counted["last_incoming_mail_time"]),
        "last_outgoing_mail_time": None,
        "label": label_ids[0] if label_ids else None,
        "label_ids": label_ids,
        "org_name": nested and nested["name"],
        "owner_name": name_of(company, "users", owner_id),
        "cc_email": counted["smart_bcc_email"],
        **synced,
        **custom(company, "persons", record["custom_fields"]),
    }


def picture(company: Company, id: int, record: Record) -> Record | None:
    """The picture of a person, as v1 nests it."""
    if record["picture_id"] is None:
        return None
    base = f"https://pics.{company.domain}.example/{id}"
    return {
        "item_type": "person",
        "item_id": id,
        "active_flag": True,
        "add_time": v1_time(record["add_time"]),
        "update_time": "0000-00-00 00:00:00",
        "added_by_user_id": record["owner_id"],
        "file_size": 5445,
        "pictures": {"128": f"{base}_128.jpg", "512": f"{base}_512.jpg"},
        "value": record["picture_id"],
    }


def organization_record(company: Company, row: Row) -> Record:
    record = row.record
    counted = derived_fields.of_organization(company, row, record)
    owner_id, label_ids, address = record["owner_id"], record["label_ids"], record["address"]
    return {
        "id": row.id,
        "company_id": company.id,
        "owner_id": valued(user(company, owner_id), owner_id),
        "name": record["name"],
        **counted_only(counted),
        "active_flag": not record["is_deleted"],
        "picture_id": None,
        "country_code": None,
        "first_char": record["name"][:1].lower(),
        "update_time": v1_time(record["update_time"]),
        "delete_time": v1_time(record["update_time"]) if record["is_deleted"] else None,
        "add_time": v1_time(record["add_time"]),
        "visible_to": str(record["visible_to"]),
        **neighbours(company, "org_id", row, counted),
        "label": label_ids[0] if label_ids else None,
        "label_ids": label_ids,
        "address": address and address["value"],
        # An absent part of a present address is "" here, and null everywhere else.
        **{f"address_{part}": address and (address.get(part) or "") for part in ADDRESS_PARTS},
        "owner_name": name_of(company, "users", owner_id),
        "cc_email": counted["smart_bcc_email"],
        # Assumption: the newer v2 fields are shown by v1 under the same names.
        **{name: record[name] for name in ("website", "linkedin", "industry", "annual_revenue", "employee_count")},
        **custom(company, "organizations", record["custom_fields"]),
    }


def product(company: Company, row: Row) -> Record:
    record = row.record
    return {
        **{name: record[name] for name in ("id", "name", "code", "description", "unit", "tax", "category")},
        "active_flag": not record["is_deleted"],
        "selectable": record["is_linkable"],
        "first_char": record["name"][:1].lower(),
        "visible_to": str(record["visible_to"]),
        "owner_id": valued(user(company, record["owner_id"]), record["owner_id"]),
        "files_count": None,
        "add_time": v1_time(record["add_time"]),
        "update_time": v1_time(record["update_time"]),
        "billing_frequency": record["billing_frequency"],
        "billing_frequency_cycles": record["billing_frequency_cycles"],
        "prices": [
            {
                "id": row.id * 10 + number,
                "product_id": row.id,
                **{name: price.get(name) for name in ("price", "currency", "cost")},
                "overhead_cost": price.get("direct_cost"),
                "notes": price.get("notes"),
            }
            for number, price in enumerate(record["prices"], 1)
        ],
        "product_variations": [],
        **custom(company, "products", record["custom_fields"]),
    }


NEVER_SET = words(
    "reference_type reference_id last_notification_time last_notification_user_id notification_language_id "
    "calendar_sync_include_context source_timezone rec_rule rec_rule_extension rec_master_activity_id file"
)


def activity(company: Company, row: Row) -> Record:
    record = row.record
    location: Record = {}
    spread(location, "location", record["location"], ADDRESS_PARTS)
    hour, duration, deal_id = record["due_time"], record["duration"], record["deal_id"]
    return {
        "id": row.id,
        "company_id": company.id,
        "user_id": record["owner_id"],
        "assigned_to_user_id": record["owner_id"],
        "update_user_id": record["owner_id"],
        "created_by_user_id": record["creator_user_id"],
        **dict.fromkeys(NEVER_SET),
        "series": [],
        **{name: record[name] for name in ("done", "type", "subject", "note", "due_date", "public_description")},
        **{name: record[name] for name in ("org_id", "person_id", "deal_id", "lead_id", "project_id")},
        **{f"conference_meeting_{part}": record[f"conference_meeting_{part}"] for part in ("client", "url", "id")},
        "due_time": hour[:5] if hour else "",
        "duration": duration[:5] if duration else "",
        "busy_flag": record["busy"],
        "add_time": v1_time(record["add_time"]),
        "update_time": v1_time(record["update_time"]),
        "marked_as_done_time": v1_time(record["marked_as_done_time"]) or "",
        "active_flag": not record["is_deleted"],
        **location,
        "attendees": _attendees((row.extra or {}).get("attendees")),
        "participants": [{"person_id": p["person_id"], "primary_flag": p["primary"]} for p in record["participants"]],
        "org_name": name_of(company, "organizations", record["org_id"]),
        "person_name": name_of(company, "persons", record["person_id"]),
        "deal_title": name_of(company, "deals", deal_id),
        "owner_name": name_of(company, "users", record["owner_id"]),
        "person_dropbox_bcc": derived_fields.bcc(company),
        "deal_dropbox_bcc": derived_fields.bcc(company, f"+deal{deal_id}") if deal_id else None,
    }


def _attendees(some: list[Record] | None) -> list[Record] | None:
    """v1 calls the address `email_address`, and writes the flag as a number."""
    if some is None:
        return None
    return [
        {"email_address": one.get("email"), "is_organizer": int(one.get("is_organizer") or 0)}
        | {name: one.get(name) for name in ("name", "status", "person_id", "user_id")}
        for one in some
    ]


def pipeline(company: Company, row: Row) -> Record:
    record = row.record
    return {
        "id": row.id,
        "name": record["name"],
        "url_title": "-".join(record["name"].split()),
        "order_nr": record["order_nr"],
        "active": not record["is_deleted"],
        "deal_probability": record["is_deal_probability_enabled"],
        "add_time": v1_time(record["add_time"]),
        "update_time": v1_time(record["update_time"]),
        "selected": row.id == 1,
    }


def stage(company: Company, row: Row) -> Record:
    record = row.record
    of = company["pipelines"].rows.get(record["pipeline_id"])
    return {
        "id": row.id,
        "order_nr": record["order_nr"],
        "name": record["name"],
        "active_flag": not record["is_deleted"],
        "deal_probability": record["deal_probability"],
        "pipeline_id": record["pipeline_id"],
        "rotten_flag": record["is_deal_rot_enabled"],
        "rotten_days": record["days_to_rotten"],
        "add_time": v1_time(record["add_time"]),
        "update_time": v1_time(record["update_time"]),
        "pipeline_name": of and of.record["name"],
        "pipeline_deal_probability": of and of.record["is_deal_probability_enabled"],
    }


def user_record(company: Company, row: Row) -> Record:
    record = row.record
    times = {name: v1_time(record[name]) for name in ("last_login", "created", "modified")}
    return {**record, **times, "is_you": False}


def file(company: Company, row: Row) -> Record:
    record = row.record
    times = {name: v1_time(record[name]) for name in ("add_time", "update_time")}
    return {**record, **times, **file_names(company, record)}


def file_names(company: Company, record: Record) -> Record:
    return {
        "deal_name": name_of(company, "deals", record["deal_id"]),
        "person_name": name_of(company, "persons", record["person_id"]),
        "org_name": name_of(company, "organizations", record["org_id"]),
        "product_name": name_of(company, "products", record["product_id"]),
        "lead_name": None,
        "project_name": None,
        "url": f"https://{company.domain}.pipedrive.com/v1/files/{record['id']}/download",
    }


def mail_thread(company: Company, row: Row) -> Record:
    return row.record


SHAPES: dict[str, Callable[[Company, Row], Record]] = {
    "deals": deal,
    "persons": person_record,
    "organizations": organization_record,
    "products": product,
    "activities": activity,
    "pipelines": pipeline,
    "stages": stage,
    "users": user_record,
    "files": file,
    "mail_threads": mail_thread,
}
