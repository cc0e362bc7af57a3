"""What a generic record shows of the records that it links to: nested users, persons and organizations, and titles.

They are filled in when the record is written, from the records as they are then; of what belongs to the company as a
whole, such as notes, also when it is generated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pdsync.sandbox.company.fabricate import LINKS, USERS
from pdsync.sandbox.protocol import v1_records
from pdsync.sandbox.protocol.v1_parts import organization, person, user, valued

if TYPE_CHECKING:
    from collections.abc import Callable

    from pdsync.sandbox.company.company import Company
    from pdsync.sandbox.company.table import Record

# The links of a note, and the key that shows the title or the name of what it links to.
NOTE_LINKS = {
    "deal": ("deal_id", "title"), "person": ("person_id", "name"), "organization": ("org_id", "name"),
    "project": ("project_id", "title"), "task": ("task_id", "title"),
}  # fmt: skip
NOTE_KINDS = {"deal_id": "deals", "person_id": "persons", "org_id": "organizations"}


def fill_links(company: Company, kind: str, record: Record, shape: Record) -> Record:
    """`record` with what follows from its links, where `shape` has it."""
    nested = {name: _nested(company, name, record.get(name), inner) for name, inner in shape.items() if _is_link(name)}
    record = {**record, **{name: value for name, value in nested.items() if value is not None}}
    if kind not in DERIVED:
        return record
    return {**record, **{name: _within(value, shape[name]) for name, value in DERIVED[kind](company, record).items()}}


def _within(value: Any, shape: Any) -> Any:
    """Of an object the keys that the documents show."""
    if isinstance(value, dict) and isinstance(shape, dict) and shape:
        return {key: _within(inner, shape[key]) for key, inner in value.items() if key in shape}
    return value


def _is_link(name: str) -> bool:
    return name in USERS or name in LINKS


def _nested(company: Company, name: str, value: Any, shape: Any) -> Record | None:
    """The object that v1 shows under a link; None where it shows a number, or where there is nothing to show."""
    id = value.get("value", value.get("id")) if isinstance(value, dict) else value
    if not isinstance(shape, dict) or "value" not in shape or not isinstance(id, int):
        return None
    show = user if name in USERS else {"persons": person, "organizations": organization}[LINKS[name]]
    shown: Record | None = valued(show(company, id), id)
    if shown is None:
        return None
    shown = {key: inner for key, inner in shown.items() if key in shape}
    return {**shown, "company_id": company.id} if "company_id" in shape else shown


def _note(company: Company, record: Record) -> Record:
    """Assumption: what a note does not link to is null; projects and tasks have titles of their own lists."""
    titles: Record = {}
    for name, (link, key) in NOTE_LINKS.items():
        id, shown = record.get(link), record.get(name)
        if id is None:
            titles[name] = None
        elif link in NOTE_KINDS:
            row = company[NOTE_KINDS[link]].rows.get(id)
            titles[name] = {key: row.record[key]} if row else None
        else:
            titles[name] = shown or {key: f"{name.capitalize()} {id}"}
    author = user(company, record.get("user_id"))
    if author is not None:
        is_you = record["user_id"] == company.viewers["admin"].user_id
        titles["user"] = {"email": author["email"], "icon_url": None, "is_you": is_you, "name": author["name"]}
    return titles


def _participant(company: Company, record: Record) -> Record:
    deal, id = company["deals"].rows.get(record.get("related_item_id") or 0), record["person_id"]
    row = company["persons"].rows.get(id["value"] if isinstance(id, dict) else id)
    title = {"related_item_data": {"deal_id": deal.id, "title": deal.record["title"]}} if deal else {}
    return {**title, **({"person": v1_records.shape(company, "persons", row)} if row else {})}


def _relation(company: Company, record: Record) -> Record:
    """Calculated from the side of the owner; `from_side` does it from the other."""
    return from_side(record, None)


def from_side(record: Record, org_id: str | None) -> Record:
    """What an organization's relation is called seen from one of its ends. Assumption: from its owner's by default."""
    ends = [record["rel_owner_org_id"], record["rel_linked_org_id"]]
    if not all(isinstance(end, dict) for end in ends):
        return {}
    is_linked = org_id is not None and str(ends[1]["value"]) == org_id and str(ends[0]["value"]) != org_id
    other = ends[0] if is_linked else ends[1]
    names = {"parent": "parent" if is_linked else "daughter"}
    return {
        "calculated_type": names.get(record["type"], record["type"]),
        "calculated_related_org_id": other["value"],
        "related_organization_name": other["name"],
    }


def _line(company: Company, record: Record) -> Record:
    """A product of a deal: its name, the deal's currency, and the sum after discount and tax."""
    product, deal = company["products"].rows.get(record["product_id"]), company["deals"].rows.get(record["deal_id"])
    price = (record["item_price"] or 0) * (record["quantity"] or 0)
    discount = record["discount"] or 0
    price -= price * discount / 100 if record["discount_type"] == "percentage" else discount
    price += price * (record["tax"] or 0) / 100 if record["tax_method"] == "exclusive" else 0
    return {
        "name": product.record["name"] if product else record["name"],
        "currency": deal.record["currency"] if deal else record["currency"],
        "sum": round(price, 2),
    }


DERIVED: dict[str, Callable[[Company, Record], Record]] = {
    "notes": _note,
    "deal_participants": _participant,
    "organization_relationships": _relation,
    "deal_products": _line,
}
