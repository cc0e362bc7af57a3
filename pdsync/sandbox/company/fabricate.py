"""Makes up records of kinds that have no generator of their own, from the shape of the API's answers.

The same company, kind and id give the same record, so nothing is kept until somebody writes to it. Values follow the
names of their keys: an `owner_id` is one of the company's users, a `deal_id` one of its deals, `update_time` is not
before `add_time`.
Assumption: which of the documented values a company really holds is nobody's to know; these are believable ones.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from pdsync.sandbox.company.clock import DAY_S, iso
from pdsync.sandbox.company.data import words

if TYPE_CHECKING:
    from pdsync.sandbox.company.company import Company
    from pdsync.sandbox.company.table import Record

USERS = words(
    "owner_id user_id creator_id creator_user_id added_by_user_id manager_id assignee_id created_by_user_id "
    "last_updater_id update_user_id actor_user_id admin_id created_by updated_by assigned_to_user_id modified_by_id "
    "follower_user_id assignee_ids"
)
LINKS = {
    "deal_id": "deals", "person_id": "persons", "org_id": "organizations", "organization_id": "organizations",
    "product_id": "products", "activity_id": "activities", "pipeline_id": "pipelines", "stage_id": "stages",
    "rel_owner_org_id": "organizations", "rel_linked_org_id": "organizations", "deal_ids": "deals",
    "person_ids": "persons", "org_ids": "organizations", "visible_pipeline_ids": "pipelines",
}  # fmt: skip
# Generic records whose ids count from 1: how many there are at least.
FEW = {"board_id": 2, "phase_id": 6, "template_id": 3, "parent_role_id": 4, "project_id": 2, "parent_task_id": 3}
WORDS = words(
    "Renewal Pilot Rollout Survey Calibration Retrofit Onboarding Audit Upgrade Harbour Northern Coastal Quarterly "
    "Follow-up Évaluation Große Størrelse Линза 導入 Spring Autumn Review Handover Installation Training Support"
)
AMOUNTS = words("amount value price sum discount tax quantity weighted target rate cost total item_price deal_value")
UNIQUE = ("key", "field_code", "hash", "slug")
TITLES = ("title", "name", "subject", "label", "field_name")
FLAGS = {
    "active_flag": True, "is_active": True, "active": True, "is_deleted": False, "deleted": False,
    "is_archived": False, "is_enabled": True, "success": True, "is_custom_flag": False, "read_flag": True,
}  # fmt: skip
LONGEST_DAYS = 900


class Fabricator:
    """Makes up the values of one record."""

    def __init__(self, company: Company, kind: str, key: object) -> None:
        self.company, self.kind, self.key = company, kind, key

    def dice(self, *parts: object) -> int:
        """A large number that is always the same for the same record and parts."""
        text = "/".join(map(str, (self.company.id, self.company.seed, self.kind, self.key, *parts)))
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")

    def record(self, shape: Record, known: Record) -> Record:
        """A record with the keys of `shape`; what is `known` of it already stands as it is."""
        made = {name: known[name] if name in known else self.value(name, inner) for name, inner in shape.items()}
        return {**made, **known}

    def value(self, name: str, shape: Any, place: str = "") -> Any:
        """A value for the key `name` of this shape."""
        where = f"{place}/{name}"
        if isinstance(shape, dict) and (name in USERS or name in LINKS):  # v1 nests what it refers to
            id = self.value(name, "int", where)
            known = {key: id for key in ("id", "value") if key in shape}
            return {key: self.value(key, inner, where) for key, inner in shape.items() if key not in known} | known
        if isinstance(shape, dict):
            return {key: self.value(key, inner, where) for key, inner in shape.items()} if shape else None
        if isinstance(shape, list):
            size = self.dice(where) % 3
            inner = shape[0] if shape else None
            found = [self.value(name, inner, f"{where}/{index}") for index in range(size)] if inner else []
            return [each for each in found if each is not None]
        if name in USERS or (name == "id" and place.endswith("user")):
            return (
                self.one_of(self.users(), where) if shape in ("int", "num") else str(self.one_of(self.users(), where))
            )
        if name in LINKS:
            return self.linked(name, shape, where)
        if name in FEW:
            return 1 + self.dice(where) % FEW[name]
        if shape is None:
            return None
        if name in FLAGS and shape in ("str", "bool"):
            return FLAGS[name]
        return self._scalar(name, str(shape), where)

    def linked(self, name: str, shape: Any, where: str) -> Any:
        """The id of one of the records that the company began with; now and then of none."""
        last = self.company.born_with(LINKS[name])
        if not last or (self.dice(where, "none") % 4 == 0 and not name.startswith("rel_")):
            return None
        id = 1 + self.dice(where) % last
        return str(id) if shape == "str" else id

    def users(self) -> list[int]:
        return list(self.company["users"].rows)[: self.company.sizes["users"]]

    def one_of(self, values: Any, where: str) -> Any:
        return values[self.dice(where) % len(values)] if values else None

    def added_s(self) -> int:
        """When the record was added: in seconds since 1970."""
        return self.company.born_s - DAY_S - self.dice("added") % (LONGEST_DAYS * DAY_S)

    def time_s(self, name: str) -> int:
        added = self.added_s()
        if name in ("add_time", "created_at", "timestamp", "log_time", "created", "time"):
            return added
        return added + self.dice(name) % max(self.company.born_s - DAY_S // 2 - added, 1)

    def _scalar(self, name: str, shape: str, where: str) -> Any:
        roll = self.dice(where)
        match shape:
            case "int" | "num":
                return self._number(name, shape, roll)
            case "bool":
                return FLAGS.get(name, roll % 2 == 0)
            case "date":
                return iso(self.time_s(name))[:10]
            case "time" | "oldtime":
                return iso(self.time_s(name))
            case "uuid":
                return self.uuid(where)
            case "str":
                return self._text(name, roll, where)
        if shape.startswith("#"):
            return int(self.one_of(shape[1:].split("|"), where))
        if "|" in shape:
            return self.one_of(shape.split("|"), where)
        return shape  # an enum of one value

    def _number(self, name: str, shape: str, roll: int) -> float:
        if name.endswith("_flag") or name.startswith(("is_", "has_")):
            return roll % 2
        if shape == "num" and any(word in name for word in AMOUNTS):
            return round(roll % 1_000_000 / 100, 2)
        return roll % 100 if name.endswith(("count", "nr", "order", "size", "duration", "level")) else roll % 1000

    def uuid(self, where: str = "") -> str:
        digest = hashlib.blake2b(f"{self.dice(where)}".encode(), digest_size=16).hexdigest()
        return f"{digest[:8]}-{digest[8:12]}-4{digest[13:16]}-a{digest[17:20]}-{digest[20:]}"

    def _text(self, name: str, roll: int, where: str) -> str | None:
        if name in UNIQUE:
            return f"{self.kind}_{roll:x}"
        if name.endswith(("count", "_id", "duration")):
            return str(roll % 1000)
        said = " ".join(self.one_of(WORDS, f"{where}/{index}") for index in range(2 + roll % 2))
        if name in TITLES or name.endswith(("_name", "title")):
            return said
        if name in ("content", "description", "note", "comments", "message"):
            return f"<p>{said}, {said.lower()}</p>" if name == "content" else said
        known: dict[str, str] = {
            "currency": "EUR", "color": self.one_of(("green", "blue", "red", "yellow", "purple", "gray"), where),
            "origin": "ManuallyCreated", "language_code": "en", "code": said[:3].upper(),
        }  # fmt: skip
        if name in known:
            return known[name]
        if name.endswith("time") or "date" in name or roll % 3 == 0:
            return None
        return said.lower()


def products_of(company: Company, deal_id: object) -> int:
    """How many products a deal has at first: one deal in four has any."""
    roll = Fabricator(company, "deal_products", deal_id).dice("size")
    return 0 if roll % 4 or not company.born_with("products") else 1 + roll // 4 % 3
