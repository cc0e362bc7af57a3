"""Says what search may look at, and how it shows what it found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct

from pdsync.sandbox.operations.generic_records import records_at
from pdsync.sandbox.protocol.derived_fields import bcc
from pdsync.sandbox.protocol.row_finder import Selection, matcher
from pdsync.sandbox.protocol.v1_parts import name_of, stage_of

if TYPE_CHECKING:
    from pdsync.sandbox.company.company import Company
    from pdsync.sandbox.company.table import Record
    from pdsync.sandbox.protocol.messages import Call

MOST_RELATED = 100


class Type(Struct, frozen=True):
    """What search calls a kind of record, and where it looks in it."""

    name: str
    kind: str
    fields: tuple[str, ...]
    note: str = ""  # what a note calls its link to such a record
    custom: str = ""  # whose custom fields its records carry
    optional: tuple[str, ...] = ()  # include_fields

    @property
    def called(self) -> str:
        return "title" if "title" in self.fields else "name"

    @property
    def is_generic(self) -> bool:
        return self.kind in ("leads", "projects")


TYPES = {
    each.name: each
    for each in (
        Type("deal", "deals", ("title", "custom_fields", "notes"), "deal_id", "deals", ("deal.cc_email",)),
        Type(
            "person",
            "persons",
            ("name", "email", "phone", "custom_fields", "notes"),
            "person_id",
            "persons",
            ("person.picture",),
        ),
        Type("organization", "organizations", ("name", "address", "custom_fields", "notes"), "org_id", "organizations"),
        Type("product", "products", ("name", "code", "custom_fields"), "", "products", ("product.price",)),
        Type("lead", "leads", ("title", "custom_fields", "notes"), "lead_id", "deals", ("lead.was_seen",)),
        Type("file", "files", ("name",)),
        Type("mail_attachment", "files", ("name",)),
        Type("project", "projects", ("title", "description", "custom_fields", "notes"), "project_id"),
    )
}
BY_KIND = {each.kind: each for each in reversed(TYPES.values())}


class Hit(Struct, frozen=True):
    type: str
    id: int | str
    score: float
    record: Record
    texts: tuple[tuple[str, str], ...]  # field and text of all that matched


def item(call: Call, hit: Hit, include: tuple[str, ...] = ()) -> Record:
    """A record as search shows it, with what it `include`s beyond that."""
    company, record, type_ = call.company, hit.record, TYPES[hit.type]
    made: Record = {"id": hit.id, "type": hit.type, type_.called: record[type_.called]}
    match hit.type:
        case "deal":
            made |= {name: record[name] for name in ("value", "currency", "status", "visible_to")}
            stage = {"id": record["stage_id"], "name": stage_of(company, record["stage_id"]).get("name")}
            made |= {"owner": {"id": record["owner_id"]}, "stage": stage, **_names(company, record)}
        case "person":
            made |= {"phones": _values(record["phones"]), "emails": _values(record["emails"])}
            made |= {"visible_to": record["visible_to"], "owner": {"id": record["owner_id"]}}
            made["organization"] = _organization(company, record["org_id"])
        case "organization":
            made |= {"address": record["address"] and record["address"]["value"], "visible_to": record["visible_to"]}
            made["owner"] = {"id": record["owner_id"]}
        case "product":
            made |= {"code": record["code"], "visible_to": record["visible_to"], "owner": {"id": record["owner_id"]}}
        case "lead":
            value = record.get("value") or {}
            made |= {"owner": {"id": record["owner_id"]}, **_names(company, record), "phones": [], "emails": []}
            made |= {"value": value.get("amount"), "currency": value.get("currency")}
            made["visible_to"] = int(record["visible_to"]) if record.get("visible_to") else None
        case "project":
            first = {
                name: next(iter(record.get(f"{name}s") or ()), None) for name in ("deal_id", "person_id", "org_id")
            }
            made |= {"status": record["status"], "owner": {"id": record["owner_id"]}, "board_id": record["board_id"]}
            made |= _contacts(company, first) | {"deal": _deal(company, first["deal_id"])}
            made |= {"deal_count": len(record.get("deal_ids") or ()), "description": record["description"]}
            made["end_date"] = record["end_date"]
        case _:
            made["url"] = f"/files/{hit.id}/download"
            if hit.type == "file":
                made |= {"deal": _deal(company, record["deal_id"]), **_contacts(company, record)}
            return made
    made["custom_fields"] = [text for name, text in hit.texts if name == "custom_fields"]
    if type_.note:
        made["notes"] = [text for name, text in hit.texts if name == "notes"]
    if hit.type in ("deal", "lead"):
        made["is_archived"] = bool(record.get("is_archived"))
    return made | _optional(company, record, [name for name in include if name.startswith(f"{hit.type}.")])


def _optional(company: Company, record: Record, include: list[str]) -> Record:
    made: Record = {}
    for name in include:
        match name:
            case "deal.cc_email":
                made["cc_email"] = bcc(company, f"+deal{record['id']}")
            case "person.picture":
                made["picture"] = {"id": record["picture_id"]} if record["picture_id"] else None
            case "product.price":
                made["prices"] = [{key: price[key] for key in ("price", "currency")} for price in record["prices"]]
            case "lead.was_seen":
                made["was_seen"] = record.get("was_seen")
    return made


def _contacts(company: Company, record: Record) -> Record:
    person_id, org_id = record.get("person_id"), record.get("org_id", record.get("organization_id"))
    name = name_of(company, "persons", person_id)
    return {
        "person": {"id": person_id, "name": name} if name is not None else None,
        "organization": _organization(company, org_id),
    }


def _names(company: Company, record: Record) -> Record:
    """The contacts of a deal or a lead, without addresses."""
    contacts = _contacts(company, record)
    organization = contacts["organization"]
    return {**contacts, "organization": organization and {key: organization[key] for key in ("id", "name")}}


def _organization(company: Company, id: int | None) -> Record | None:
    row = company["organizations"].rows.get(id) if id is not None else None
    if row is None:
        return None
    record = row.record
    return {"id": id, "name": record["name"], "address": record["address"] and record["address"]["value"]}


def _deal(company: Company, id: int | None) -> Record | None:
    title = name_of(company, "deals", id)
    return {"id": id, "title": title} if title is not None else None


def _values(contacts: list[Record]) -> list[str]:
    return [contact["value"] for contact in contacts]


def related_items(call: Call, hits: list[Hit]) -> list[Record]:
    """The newest leads and deals of each person and organization that was found, and the organizations' people."""
    found: dict[tuple[str, Any], Hit] = {}
    for hit in hits:
        if hit.type not in ("person", "organization"):
            continue
        link = "person_id" if hit.type == "person" else "org_id"
        for name in ("deal", "person") if hit.type == "organization" else ("deal",):
            table = call.company[TYPES[name].kind]
            matches = matcher(table, Selection(), call.viewer, call.company)
            rows = sorted(filter(matches, table.where(link, hit.id)), key=lambda row: row.id, reverse=True)
            for row in rows[:MOST_RELATED]:
                found[name, row.id] = Hit(name, row.id, 0.0, row.record, ())
        linked = "person_id" if hit.type == "person" else "organization_id"
        leads = [row.record for row in records_at(call.company, ("leads",), ()).values() if row.state == "live"]
        leads = sorted((one for one in leads if one[linked] == hit.id), key=lambda one: str(one["add_time"]))
        for record in leads[-MOST_RELATED:]:
            found["lead", record["id"]] = Hit("lead", record["id"], 0.0, record, ())
    known = {(hit.type, hit.id) for hit in hits}
    return [{"result_score": 0, "item": item(call, hit)} for key, hit in found.items() if key not in known]
