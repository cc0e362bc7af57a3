"""Declares the generic collections: kind of record at each path, form of its ids, number of records at first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from pdsync.sandbox.company.clock import iso
from pdsync.sandbox.company.data import words
from pdsync.sandbox.company.fabricate import Fabricator, count_initial_products
from pdsync.sandbox.protocol.messages import is_number
from pdsync.sandbox.protocol.v1_parts import custom

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pdsync.sandbox.company.company import Company
    from pdsync.sandbox.company.table import Record

CURRENCIES = words("EUR USD GBP SEK PLN CHF JPY NOK DKK CZK HUF RON BGN ISK TRY UAH AUD NZD CAD MXN BRL INR SGD ZAR")
# Paths that lead to the same records as others.
ALIASES = {
    ("projects", "boards"): ("boards",),
    ("projects", "boards", "{}"): ("boards", "{}"),
    ("projects", "phases"): ("phases",),
    ("projects", "phases", "{}"): ("phases", "{}"),
    ("goals", "find"): ("goals",),
    ("legacyTeams", "user", "{}"): ("users", "{}", "teams"),
    ("leads", "archived"): ("leads",),
    ("projects", "archived"): ("projects",),
    ("billing", "subscriptions", "addons"): ("addons",),
}
# Fields that are a list or a flag in v2 and have another name in v1: v1's key → v2's. Only v2's is stored.
V1_KEYS = {
    "labels": "label_ids", "org_id": "org_ids", "person_id": "person_ids", "done": "is_done",
    "assignee_id": "assignee_ids",
}  # fmt: skip
# The types of filters: the type, the object of their conditions, the kind whose fields these name.
FILTERED = (
    ("deals", "deal", "deals"), ("leads", "deal", "deals"), ("org", "organization", "organizations"),
    ("people", "person", "persons"), ("products", "product", "products"), ("activity", "activity", "activities"),
    ("projects", "project", "projects"),
)  # fmt: skip
# The fields of a record that name its parents.
PARENT_KEYS = {
    "deals": ("deal_id",), "persons": ("person_id",), "organizations": ("org_id",), "products": ("product_id",),
    "roles": ("role_id",), "permissionSets": ("permission_set_id",), "leads": ("lead_id",), "notes": ("note_id",),
    "projects": ("project_id",), "users": ("user_id",), "boards": ("board_id",), "goals": ("goal_id",),
}  # fmt: skip


class Kind(Struct, frozen=True):
    """One kind of record."""

    name: str
    few: int = 5  # records of the company, or at most of a parent
    share: float = 0.0  # or this many for each deal
    ids: str = "int"  # int, uuid, hex, code (as of a custom field)
    key: str = "id"
    counted: str = ""  # the count in a parent's record that says how many there are
    archived: float = 0.0  # the share of records that only the list of archived ones shows
    limit: int = 500

    @property
    def one(self) -> str:
        return self.name.rstrip("s").replace("_", " ")

    def state(self, record: Record) -> str:
        return "archived" if record.get("is_archived") is True else "live"


KINDS: dict[tuple[str, ...], Kind] = {
    ("leads",): Kind("leads", share=0.12, ids="uuid", archived=0.2),
    ("leadLabels",): Kind("lead_labels", few=4, ids="uuid"),
    ("leadSources",): Kind("lead_sources", few=5, key="name"),
    ("leadFields",): Kind("lead_fields", few=12),
    ("notes",): Kind("notes", share=0.3),
    ("notes", "{}", "comments"): Kind("note_comments", few=2, ids="uuid", key="uuid"),
    ("noteFields",): Kind("note_fields", few=6),
    ("activityTypes",): Kind("activity_types", few=6),
    ("filters",): Kind("filters", few=8),
    ("currencies",): Kind("currencies", few=24),
    ("callLogs",): Kind("call_logs", share=0.05, ids="hex", limit=50),
    ("roles",): Kind("roles", few=4),
    ("roles", "{}", "assignments"): Kind("role_assignments", few=2, key="user_id"),
    ("permissionSets",): Kind("permission_sets", few=4, ids="uuid"),
    ("permissionSets", "{}", "assignments"): Kind("permission_set_assignments", few=3, key="user_id"),
    ("goals",): Kind("goals", few=8, ids="hex"),
    ("webhooks",): Kind("webhooks", few=3),
    ("projects",): Kind("projects", share=0.02, archived=0.25),
    ("boards",): Kind("project_boards", few=2),
    ("phases",): Kind("project_phases", few=6),
    ("projectTemplates",): Kind("project_templates", few=3),
    ("projectFields",): Kind("project_fields", few=8, ids="code", key="field_code"),
    ("tasks",): Kind("tasks", share=0.05),
    ("organizationRelationships",): Kind("organization_relationships", few=6),
    ("legacyTeams",): Kind("legacy_teams", few=3),
    ("addons",): Kind("company_addons", few=2, key="code"),
    ("deals", "{}", "products"): Kind("deal_products", few=3, counted="products_count"),
    ("deals", "{}", "installments"): Kind("deal_installments", few=2, counted="products_count"),
    ("deals", "{}", "discounts"): Kind("deal_discounts", few=1, counted="products_count", ids="uuid"),
    ("deals", "{}", "participants"): Kind("deal_participants", few=1, counted="participants_count"),
    ("deals", "{}", "followers"): Kind("deal_followers", few=1, counted="followers_count", key="user_id"),
    ("persons", "{}", "followers"): Kind("person_followers", few=1, counted="followers_count", key="user_id"),
    ("organizations", "{}", "followers"): Kind(
        "organization_followers", few=1, counted="followers_count", key="user_id"
    ),
    ("products", "{}", "followers"): Kind("product_followers", few=1, key="user_id"),
    ("users", "{}", "followers"): Kind("user_followers", few=2, key="user_id"),
    ("products", "{}", "variations"): Kind("product_variations", few=2),
}


def size(company: Company, kind: Kind, parents: tuple[str, ...]) -> int:
    """How many records of `kind` there are at first."""
    deals = company.sizes["deals"]
    if kind.share:
        return round(deals * kind.share)
    if not parents:
        return kind.few
    if kind.counted == "products_count":
        products = count_initial_products(company, parents[0])
        return products if kind.name == "deal_products" else min(products, kind.few)
    if kind.counted == "participants_count":
        row = company["deals"].rows.get(int(parents[0]))
        return 0 if row is None or company["deals"].facet(row, "person_id") is None else 1
    if kind.counted == "followers_count":
        return 1
    return Fabricator(company, kind.name, parents).stable_number("size") % (kind.few + 1)


def first_records(company: Company, kind: Kind, parents: tuple[str, ...]) -> Iterator[Record]:
    """The key, the parent and the state of each record of a collection, before the rest of it is generated."""
    users = list(company["users"].rows)
    for position in range(size(company, kind, parents)):
        maker = Fabricator(company, kind.name, (parents, position))
        parent = parents[0] if parents else ""
        id: object = int(parent) * 100 + position + 1 if is_number(parent) else position + 1
        if kind.ids in ("uuid", "hex"):
            id = maker.uuid() if kind.ids == "uuid" else maker.uuid().replace("-", "")
        known: Record = {"id": id} if kind.key == "id" else {}
        if kind.key == "uuid":
            known["uuid"] = id
        if kind.key == "user_id":
            others = [user for user in users if str(user) != parent]  # no user follows themself
            known["user_id"] = _follower(company, kind, parents, others[position % len(others)])
        if kind.key == "name":
            known["name"] = f"Source {position + 1}"
        if kind.key in ("code", "field_code"):
            known[kind.key] = f"{kind.name.rstrip('s')}_{position + 1}"
        links = {name: value for name, value in zip(_parents_of(kind), parents, strict=False) if name != kind.key}
        known |= {name: int(value) if is_number(value) else value for name, value in links.items()}
        if kind.name in OWN_VALUES:
            known |= OWN_VALUES[kind.name](company, maker, position)
        if kind.archived:
            known["is_archived"] = _is_archived(kind, maker)
            if not known["is_archived"]:
                known["archive_time"] = None
        yield known


def first_counts(company: Company, kind: Kind, parents: tuple[str, ...]) -> dict[str, int]:
    """How many records a collection has at first, by state, without generating them."""
    total = size(company, kind, parents)
    positions = range(total if kind.archived else 0)
    archived = sum(_is_archived(kind, Fabricator(company, kind.name, (parents, position))) for position in positions)
    return {"live": total - archived, "archived": archived}


def _is_archived(kind: Kind, maker: Fabricator) -> bool:
    return maker.stable_number("archived") % 100 < kind.archived * 100


def _lead(company: Company, maker: Fabricator, position: int) -> Record:
    """Leads carry the deals' custom fields at top level, and leave out those that are not set."""
    rows = company["deals"].rows
    row = rows.get(1 + maker.stable_number("like") % max(company["deals"].next_id, 1))
    shown = custom(company, "deals", row.record["custom_fields"]) if row else {}
    return {"source_deal_id": None, **{name: value for name, value in shown.items() if value is not None}}


def _goal(company: Company, maker: Fabricator, position: int) -> Record:
    """What goals are found by: of the first user, another one, the company or a team; by number or by sum of deals."""
    assignee: Record = {"id": company.id, "type": "company"}
    if position % 4 < 2:
        users = list(company["users"].rows)
        assignee = {
            "id": users[0 if position % 4 == 0 else 1 + maker.stable_number("who") % (len(users) - 1)],
            "type": "person",
        }
    elif position % 4 == 3:
        assignee = {"id": 1, "type": "team"}
    started = iso(maker.added_s())[:10]
    metric = {"tracking_metric": "sum", "currency_id": 1} if position % 3 == 1 else {"tracking_metric": "quantity"}
    return {
        "assignee": assignee,
        "is_active": position % 5 not in (3, 4),
        "expected_outcome": {"target": 10 + maker.stable_number("target") % 90, **metric},
        "duration": {"start": started, "end": None if position % 2 else f"{int(started[:4]) + 1}{started[4:8]}28"},
        "interval": ("weekly", "monthly", "quarterly", "yearly")[position % 4],
        "type": {"name": "deals_won", "params": {"pipeline_id": [1], "activity_type_id": None}},
    }


def _filter(company: Company, maker: Fabricator, position: int) -> Record:
    """A filter of each type in turn: what one user owns."""
    type_, object_, kind = FILTERED[position % len(FILTERED)]
    field = next((field for field in company.fields.get(kind, ()) if field.code == "owner_id"), None)
    condition: Record = {
        "object": object_, "field_id": str(field.id) if field else "owner_id", "operator": "=",
        "value": str(maker.one_of(maker.user_ids(), "owner")), "extra_value": None, "json_value_flag": False,
        "field_code": "owner_id",
    }  # fmt: skip
    groups: list[Record] = [{"glue": "and", "conditions": [condition]}, {"glue": "or", "conditions": []}]
    return {"type": type_, "conditions": {"glue": "and", "conditions": groups}}


def _project(company: Company, maker: Fabricator, position: int) -> Record:
    return {"status": maker.one_of(("open", "completed", "canceled"), "status")}


def _webhook(company: Company, maker: Fabricator, position: int) -> Record:
    return {
        "subscription_url": f"https://hooks.example/{position + 1}", "event_action": "*", "event_object": "*",
        "version": "2.0", "type": "general", "company_id": company.id, "remove_time": None, "remove_reason": None,
        "http_auth_user": None, "http_auth_password": None, "last_http_status": 200,
    }  # fmt: skip


# Of records that names and types alone don't make believable.
def _currency(company: Company, maker: Fabricator, position: int) -> Record:
    """The codes are real ones, and have those of the company's deals among them."""
    return {"code": CURRENCIES[position % len(CURRENCIES)]}


OWN_VALUES: dict[str, Callable[[Company, Fabricator, int], Record]] = {
    "currencies": _currency,
    "leads": _lead,
    "goals": _goal,
    "filters": _filter,
    "projects": _project,
    "webhooks": _webhook,
}


def _parents_of(kind: Kind) -> tuple[str, ...]:
    collection = next(parts for parts, each in KINDS.items() if each == kind) if kind in KINDS.values() else ("",)
    return PARENT_KEYS.get(collection[0], ())


def _follower(company: Company, kind: Kind, parents: tuple[str, ...], otherwise: int) -> int:
    """Assumption: the owner of a record follows it."""
    first = kind.name.removesuffix("_followers") + "s"
    if first in company.tables and parents and is_number(parents[0]):
        row = company.tables[first].rows.get(int(parents[0]))
        owner = row.record.get("owner_id") if row else None
        return owner if isinstance(owner, int) else otherwise
    return otherwise
