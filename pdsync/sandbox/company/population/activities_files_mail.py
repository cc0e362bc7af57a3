"""Generates the records linked to deals and persons: activities, files, mail threads."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from pdsync.sandbox.company.clock import DAY_S, day_text, iso
from pdsync.sandbox.company.custom_values import draw_address
from pdsync.sandbox.company.data import load

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pdsync.sandbox.company.company import Company
    from pdsync.sandbox.company.population.lifecycle import Lifecycle
    from pdsync.sandbox.company.table import Record, Row

PERSON, ORG = 5, 6  # facets of a deal


def make_activities(company: Company, lifecycle: Lifecycle) -> None:
    random, words, table = lifecycle.random("activities"), load("words"), company["activities"]
    chance, choice = random.random, random.choice
    deals, people = list(company["deals"].rows.values()), list(company["persons"].rows.values())
    cultures = load("names")["culture"]
    for id, created_s in enumerate(lifecycle.created_s["activities"], 1):
        fate = lifecycle.fate["activities"].get(id)
        type_ = choice(words["activity_types"])
        deal_id, person_id, org_id = _draw_links(deals, people, chance)
        due_day = created_s // DAY_S + int(chance() * 21)
        done = chance() < 0.9 and due_day < lifecycle.now_s // DAY_S
        edited = lifecycle.draw_edit_s(random, created_s, fate)
        has_time = chance() < 0.6
        owner = choice(lifecycle.all_users)
        record: Record = {
            "id": id,
            "subject": choice(words["subjects"][type_]).format("Zoë"),
            "type": type_,
            "owner_id": owner,
            "creator_user_id": owner if chance() < 0.8 else choice(lifecycle.all_users),
            "is_deleted": fate == "deleted",
            "add_time": iso(created_s),
            "update_time": iso(edited),
            "deal_id": deal_id,
            "lead_id": None,
            "person_id": person_id,
            "org_id": org_id,
            "project_id": None,
            "due_date": day_text(due_day) if chance() < 0.95 else None,
            "due_time": f"{7 + int(chance() * 10):02}:{int(chance() * 4) * 15:02}:00" if has_time else None,
            "duration": choice(("00:15:00", "00:30:00", "01:00:00", "02:30:00")) if has_time else None,
            "busy": has_time and chance() < 0.7,
            "done": done,
            "marked_as_done_time": iso(min(edited, due_day * DAY_S + 60_000)) if done else None,
            "location": draw_address(random, choice(cultures)) if type_ == "meeting" and chance() < 0.3 else None,
            "participants": [] if person_id is None else [{"person_id": person_id, "primary": True}],
            "conference_meeting_client": None,
            "conference_meeting_url": None,
            "conference_meeting_id": None,
            "public_description": None,
            "priority": None,
            "note": choice(("<p>Bring kit</p>", "<b>Important</b> &amp; urgent", "Bitte vorbereiten"))
            if chance() < 0.4
            else "",
        }
        guests: list[Any] = []
        if type_ == "meeting" and chance() < 0.3:
            guest = {"email": f"guest{id}@mail.example", "name": "Guest", "status": "accepted"}
            guests = [{**guest, "is_organizer": False, "person_id": person_id, "user_id": None}]
        table.put(table.row(record, lifecycle.state("activities", id), {"attendees": guests or None}))
    lifecycle.remove_gone("activities")


def make_files(company: Company, lifecycle: Lifecycle) -> None:
    random, words, table = lifecycle.random("files"), load("words")["files"], company["files"]
    chance, choice = random.random, random.choice
    deals, people = list(company["deals"].rows.values()), list(company["persons"].rows.values())
    threads, products = list(company["mail_threads"].rows), list(company["products"].rows)
    for id, created_s in enumerate(lifecycle.created_s["files"], 1):
        fate = lifecycle.fate["files"].get(id)
        deal_id, person_id, org_id = _draw_links(deals, people, chance)
        type_ = choice(words["types"])
        name = choice(words["names"])
        digest = hashlib.blake2b(f"{company.id}/{id}".encode(), digest_size=6).hexdigest()
        stored = f"{'_'.join(name.split())}_{digest}.{type_}"
        product = choice(products) if products and chance() < 0.05 else None
        inline = chance() < 0.1
        record = file_record(
            id,
            choice(lifecycle.all_users),
            name=f"{name}.{type_}",
            stored=stored,
            size=int(random.lognormvariate(9, 1.5)) + 1,
            now=iso(created_s),
            links={"deal_id": deal_id, "person_id": person_id, "org_id": org_id, "product_id": product},
        )
        record["update_time"] = iso(lifecycle.draw_edit_s(random, created_s, fate))
        record["active_flag"] = fate != "deleted"
        record["mail_message_id"] = str(choice(threads) * 10 + 1) if threads and chance() < 0.2 else None
        record["inline_flag"] = inline
        record["cid"] = f"image{id}@mail" if inline else None
        table.put(table.row(record, lifecycle.state("files", id)))
    lifecycle.remove_gone("files")


def file_record(
    id: int, user_id: int, *, name: str, stored: str, size: int, now: str, links: Mapping[str, int | str | None]
) -> Record:
    """A file as it is stored: v1's keys, without the names of the records it is linked to."""
    return {
        "id": id,
        "user_id": user_id,
        "log_id": None,
        **dict.fromkeys(("deal_id", "person_id", "org_id", "product_id", "activity_id", "lead_id", "project_id")),
        **links,
        "add_time": now,
        "update_time": now,
        "file_name": stored,
        "file_type": stored.rsplit(".", 1)[-1] if "." in stored else "",
        "file_size": size,
        "active_flag": True,
        "inline_flag": False,
        "remote_location": "s3",
        "remote_id": f"co/{stored}",
        "cid": None,
        "s3_bucket": None,
        "mail_message_id": None,
        "mail_template_id": None,
        "name": name,
        "description": "",
    }


def make_mail(company: Company, lifecycle: Lifecycle) -> None:
    """Generate mail threads, most of them in the mailboxes of users with a token: only the owner can list a thread."""
    random, words, table = lifecycle.random("mail_threads"), load("words")["mail"], company["mail_threads"]
    chance, choice = random.random, random.choice
    deals, people = list(company["deals"].rows.values()), list(company["persons"].rows.values())
    owners = [viewer.user_id for viewer in company.viewers.values()]
    for id, created_s in enumerate(lifecycle.created_s["mail_threads"], 1):
        fate = lifecycle.fate["mail_threads"].get(id)
        deal_id, person_id, org_id = _draw_links(deals, people, chance)
        user_id = choice(owners) if chance() < 0.8 else choice(lifecycle.all_users)
        folder = choice(("inbox",) * 6 + ("sent",) * 2 + ("archive", "drafts"))
        first, last = iso(created_s), iso(min(lifecycle.now_s - 300, created_s + int(chance() * 5 * DAY_S)))
        status = company["deals"].rows[deal_id].facets[9] if deal_id else None
        record = {
            "id": id,
            "account_id": f"acc{user_id % 1000:02x}",
            "user_id": user_id,
            "subject": choice(words["subjects"]),
            "snippet": choice(words["snippets"]),
            "read_flag": int(chance() < 0.8),
            "mail_tracking_status": None,
            "has_attachments_flag": int(chance() < 0.2),
            "has_inline_attachments_flag": 0,
            "has_real_attachments_flag": 0,
            "deleted_flag": int(fate == "deleted"),
            "synced_flag": 1,
            "smart_bcc_flag": 0,
            "mail_link_tracking_enabled_flag": 0,
            "parties": _make_parties(company, id, user_id, person_id, created_s),
            "drafts_parties": [],
            "folders": [folder],
            "version": 1 + int(chance() * 6),
            "snippet_draft": "…" if folder == "drafts" else None,
            "snippet_sent": "",
            "message_count": 1 + int(chance() * 5),
            "has_draft_flag": int(folder == "drafts"),
            "has_sent_flag": int(folder == "sent"),
            "archived_flag": int(folder == "archive"),
            "shared_flag": int(chance() < 0.7),
            "external_deleted_flag": 0,
            "first_message_to_me_flag": int(folder == "inbox"),
            "last_message_timestamp": with_milliseconds(last),
            "first_message_timestamp": with_milliseconds(first),
            "last_message_sent_timestamp": with_milliseconds(last) if folder == "sent" else None,
            "last_message_received_timestamp": with_milliseconds(last),
            "add_time": with_milliseconds(first),
            "update_time": with_milliseconds(
                last if fate != "deleted" else iso(lifecycle.draw_edit_s(random, created_s, fate))
            ),
            "deal_id": deal_id,
            "deal_status": status,
            "lead_id": None,
            "all_messages_sent_flag": 0,
        }
        hidden = {"folder": folder, "person_id": person_id, "org_id": org_id}
        table.put(table.row(record, lifecycle.state("mail_threads", id), None, hidden))
    lifecycle.remove_gone("mail_threads")


def with_milliseconds(stamp: str) -> str:
    return f"{stamp[:19]}.000Z"


def _make_parties(company: Company, id: int, user_id: int, person_id: int | None, created_s: int) -> dict[str, Any]:
    user = company["users"].rows[user_id].record
    row = company["persons"].rows.get(person_id) if person_id else None
    person = row.record if row else None
    emails = person["emails"] if person else []

    def party(number: int, address: str, person_id: int | None, name: str) -> dict[str, Any]:
        return {
            "id": id * 10 + number,
            "name": "",
            "latest_sent": False,
            "email_address": address,
            "message_time": created_s * 1000,
            "linked_person_id": person_id,
            "linked_person_name": name,
            "mail_message_party_id": id * 10 + number,
            "linked_organization_id": None,
        }

    sender = emails[0]["value"] if emails else f"someone{id}@mail.example"
    return {
        "to": [party(1, user["email"], None, "")],
        "from": [party(2, sender, person["id"] if person else None, person["name"] if person else "")],
    }


def _draw_links(deals: list[Row], people: list[Row], chance: Any) -> tuple[int | None, int | None, int | None]:
    """The ids of a deal, a person and an organization to link a record to; sometimes none of the three."""
    if deals and chance() < 0.7:
        deal = deals[int(len(deals) * chance())]
        return deal.id, deal.facets[PERSON], deal.facets[ORG]
    if people and chance() < 0.8:
        person = people[int(len(people) * chance())]
        return None, person.id, person.facets[PERSON]
    return None, None, None
