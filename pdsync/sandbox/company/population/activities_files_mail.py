"""Makes what hangs on deals and people: activities, files, mail threads."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from pdsync.sandbox.company.clock import DAY_S, day_text, iso
from pdsync.sandbox.company.custom_values import address
from pdsync.sandbox.company.data import load

if TYPE_CHECKING:
    from pdsync.sandbox.company.company import Company
    from pdsync.sandbox.company.population.lifecycle import Lifecycle
    from pdsync.sandbox.company.table import Record, Row

PERSON, ORG = 5, 6  # facets of a deal


def make_activities(company: Company, past: Lifecycle) -> None:
    random, words, table = past.stream("activities"), load("words"), company["activities"]
    rnd, choice = random.random, random.choice
    deals, people = list(company["deals"].rows.values()), list(company["persons"].rows.values())
    cultures = load("names")["culture"]
    for id, born in enumerate(past.born["activities"], 1):
        fate = past.fate["activities"].get(id)
        type_ = choice(words["activity_types"])
        deal, person, org = _anchors(deals, people, rnd)
        due_day = born // DAY_S + int(rnd() * 21)
        done = rnd() < 0.9 and due_day < past.now_s // DAY_S
        edited = past.edited(random, born, fate)
        timed = rnd() < 0.6
        owner = choice(past.all_users)
        record: Record = {
            "id": id,
            "subject": choice(words["subjects"][type_]).format("Zoë"),
            "type": type_,
            "owner_id": owner,
            "creator_user_id": owner if rnd() < 0.8 else choice(past.all_users),
            "is_deleted": fate == "deleted",
            "add_time": iso(born),
            "update_time": iso(edited),
            "deal_id": deal,
            "lead_id": None,
            "person_id": person,
            "org_id": org,
            "project_id": None,
            "due_date": day_text(due_day) if rnd() < 0.95 else None,
            "due_time": f"{7 + int(rnd() * 10):02}:{int(rnd() * 4) * 15:02}:00" if timed else None,
            "duration": choice(("00:15:00", "00:30:00", "01:00:00", "02:30:00")) if timed else None,
            "busy": timed and rnd() < 0.7,
            "done": done,
            "marked_as_done_time": iso(min(edited, due_day * DAY_S + 60_000)) if done else None,
            "location": address(random, choice(cultures)) if type_ == "meeting" and rnd() < 0.3 else None,
            "participants": [] if person is None else [{"person_id": person, "primary": True}],
            "conference_meeting_client": None,
            "conference_meeting_url": None,
            "conference_meeting_id": None,
            "public_description": None,
            "priority": None,
            "note": choice(("<p>Bring kit</p>", "<b>Important</b> &amp; urgent", "Bitte vorbereiten"))
            if rnd() < 0.4
            else "",
        }
        guests: list[Any] = []
        if type_ == "meeting" and rnd() < 0.3:
            guest = {"email": f"guest{id}@mail.example", "name": "Guest", "status": "accepted"}
            guests = [{**guest, "is_organizer": False, "person_id": person, "user_id": None}]
        table.put(table.row(record, past.state("activities", id), {"attendees": guests or None}))
    past.settle("activities")


def make_files(company: Company, past: Lifecycle) -> None:
    random, words, table = past.stream("files"), load("words")["files"], company["files"]
    rnd, choice = random.random, random.choice
    deals, people = list(company["deals"].rows.values()), list(company["persons"].rows.values())
    threads, products = list(company["mail_threads"].rows), list(company["products"].rows)
    for id, born in enumerate(past.born["files"], 1):
        fate = past.fate["files"].get(id)
        deal, person, org = _anchors(deals, people, rnd)
        type_ = choice(words["types"])
        name = choice(words["names"])
        digest = hashlib.blake2b(f"{company.id}/{id}".encode(), digest_size=6).hexdigest()
        stored = f"{'_'.join(name.split())}_{digest}.{type_}"
        product = choice(products) if products and rnd() < 0.05 else None
        inline = rnd() < 0.1
        record = file_record(
            id,
            choice(past.all_users),
            name=f"{name}.{type_}",
            stored=stored,
            size=int(random.lognormvariate(9, 1.5)) + 1,
            now=iso(born),
            links={"deal_id": deal, "person_id": person, "org_id": org, "product_id": product},
        )
        record["update_time"] = iso(past.edited(random, born, fate))
        record["active_flag"] = fate != "deleted"
        record["mail_message_id"] = str(choice(threads) * 10 + 1) if threads and rnd() < 0.2 else None
        record["inline_flag"] = inline
        record["cid"] = f"image{id}@mail" if inline else None
        table.put(table.row(record, past.state("files", id)))
    past.settle("files")


def file_record(
    id: int, user_id: int, *, name: str, stored: str, size: int, now: str, links: dict[str, int | None]
) -> Record:
    """A file as it is kept: v1's keys, without the names of what it hangs on."""
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


def make_mail(company: Company, past: Lifecycle) -> None:
    """Threads lie in mailboxes: mostly those of the people who hold tokens, or nobody could list them."""
    random, words, table = past.stream("mail_threads"), load("words")["mail"], company["mail_threads"]
    rnd, choice = random.random, random.choice
    deals, people = list(company["deals"].rows.values()), list(company["persons"].rows.values())
    owners = [viewer.user_id for viewer in company.viewers.values()]
    for id, born in enumerate(past.born["mail_threads"], 1):
        fate = past.fate["mail_threads"].get(id)
        deal, person, org = _anchors(deals, people, rnd)
        user_id = choice(owners) if rnd() < 0.8 else choice(past.all_users)
        folder = choice(("inbox",) * 6 + ("sent",) * 2 + ("archive", "drafts"))
        first, last = iso(born), iso(min(past.now_s - 300, born + int(rnd() * 5 * DAY_S)))
        status = company["deals"].rows[deal].facets[9] if deal else None
        record = {
            "id": id,
            "account_id": f"acc{user_id % 1000:02x}",
            "user_id": user_id,
            "subject": choice(words["subjects"]),
            "snippet": choice(words["snippets"]),
            "read_flag": int(rnd() < 0.8),
            "mail_tracking_status": None,
            "has_attachments_flag": int(rnd() < 0.2),
            "has_inline_attachments_flag": 0,
            "has_real_attachments_flag": 0,
            "deleted_flag": int(fate == "deleted"),
            "synced_flag": 1,
            "smart_bcc_flag": 0,
            "mail_link_tracking_enabled_flag": 0,
            "parties": _parties(company, id, user_id, person, born),
            "drafts_parties": [],
            "folders": [folder],
            "version": 1 + int(rnd() * 6),
            "snippet_draft": "…" if folder == "drafts" else None,
            "snippet_sent": "",
            "message_count": 1 + int(rnd() * 5),
            "has_draft_flag": int(folder == "drafts"),
            "has_sent_flag": int(folder == "sent"),
            "archived_flag": int(folder == "archive"),
            "shared_flag": int(rnd() < 0.7),
            "external_deleted_flag": 0,
            "first_message_to_me_flag": int(folder == "inbox"),
            "last_message_timestamp": milli(last),
            "first_message_timestamp": milli(first),
            "last_message_sent_timestamp": milli(last) if folder == "sent" else None,
            "last_message_received_timestamp": milli(last),
            "add_time": milli(first),
            "update_time": milli(last if fate != "deleted" else iso(past.edited(random, born, fate))),
            "deal_id": deal,
            "deal_status": status,
            "lead_id": None,
            "all_messages_sent_flag": 0,
        }
        hidden = {"folder": folder, "person_id": person, "org_id": org}
        table.put(table.row(record, past.state("mail_threads", id), None, hidden))
    past.settle("mail_threads")


def milli(stamp: str) -> str:
    return f"{stamp[:19]}.000Z"


def _parties(company: Company, id: int, user_id: int, person: int | None, born: int) -> dict[str, Any]:
    user = company["users"].rows[user_id].record
    row = company["persons"].rows.get(person) if person else None
    linked = row.record if row else None
    mails = linked["emails"] if linked else []

    def party(number: int, address: str, person_id: int | None, name: str) -> dict[str, Any]:
        return {
            "id": id * 10 + number,
            "name": "",
            "latest_sent": False,
            "email_address": address,
            "message_time": born * 1000,
            "linked_person_id": person_id,
            "linked_person_name": name,
            "mail_message_party_id": id * 10 + number,
            "linked_organization_id": None,
        }

    sender = mails[0]["value"] if mails else f"someone{id}@mail.example"
    return {
        "to": [party(1, user["email"], None, "")],
        "from": [party(2, sender, linked["id"] if linked else None, linked["name"] if linked else "")],
    }


def _anchors(deals: list[Row], people: list[Row], rnd: Any) -> tuple[int | None, int | None, int | None]:
    """The deal, person and organization something hangs on; none of them now and then."""
    if deals and rnd() < 0.7:
        deal = deals[int(len(deals) * rnd())]
        return deal.id, deal.facets[PERSON], deal.facets[ORG]
    if people and rnd() < 0.8:
        person = people[int(len(people) * rnd())]
        return None, person.id, person.facets[PERSON]
    return None, None, None
