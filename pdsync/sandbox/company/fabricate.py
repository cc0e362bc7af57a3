"""Fabricates records of kinds that have no generator of their own, from the shape of the API's answers.

The same company, kind and id give the same record, so a record is stored only once it is written to. Values follow the
names of their keys: an `owner_id` is one of the company's users, a `deal_id` one of its deals, `update_time` is not
before `add_time`.
Assumption: the documents do not say which of the documented values a real company has; these are plausible ones.
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
    "follower_user_id assignee_ids users last_update_user_id"
)
LINKS = {
    "deal_id": "deals", "person_id": "persons", "org_id": "organizations", "organization_id": "organizations",
    "product_id": "products", "activity_id": "activities", "pipeline_id": "pipelines", "stage_id": "stages",
    "rel_owner_org_id": "organizations", "rel_linked_org_id": "organizations", "deal_ids": "deals",
    "person_ids": "persons", "org_ids": "organizations", "visible_pipeline_ids": "pipelines",
}  # fmt: skip
# Links to generic records whose ids count from 1: how many of them there are at least.
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
    "has_recording": False,
}  # fmt: skip
LONGEST_DAYS = 900


class Fabricator:
    """Fabricates the values of one record."""

    def __init__(self, company: Company, kind: str, key: object) -> None:
        self.company, self.kind = company, kind
        text = "/".join(map(str, (company.id, company.seed, kind, key)))
        self._begun = hashlib.blake2b(text.encode(), digest_size=8)

    def stable_number(self, *parts: object) -> int:
        """A 64-bit number that is always the same for the same record and parts, and looks random otherwise."""
        hashed = self._begun.copy()
        hashed.update("".join(f"/{part}" for part in parts).encode())
        return int.from_bytes(hashed.digest(), "big")

    def record(self, shape: Record, given: Record) -> Record:
        """A record with the keys of `shape` and the values of `given`; the other values are fabricated."""
        fabricated = {name: given[name] if name in given else self.value(name, inner) for name, inner in shape.items()}
        return {**fabricated, **given}

    def value(self, name: str, shape: Any, parent: str = "") -> Any:
        """A value of this shape for the key `name`.

        Args:
            shape: the name of a type, an enum as `a|b`, an object, or a list with the shape of its items.
            parent: path of the object that has the key, such as `/deal`.
        """
        where = f"{parent}/{name}"
        if isinstance(shape, dict) and (name in USERS or name in LINKS):  # v1 nests the record that it links to
            id = self.value(name, "int", where)
            ids = {key: id for key in ("id", "value") if key in shape}
            return {key: self.value(key, inner, where) for key, inner in shape.items() if key not in ids} | ids
        if isinstance(shape, dict):
            return {key: self.value(key, inner, where) for key, inner in shape.items()} if shape else None
        if isinstance(shape, list):
            size = self.stable_number(where) % 3
            inner = shape[0] if shape else None
            items = [self.value(name, inner, f"{where}/{index}") for index in range(size)] if inner else []
            return [each for each in items if each is not None]
        if name in USERS or (name == "id" and parent.endswith("user")):
            user_id = self.one_of(self.user_ids(), where)
            return user_id if shape in ("int", "num") else str(user_id)
        if name in LINKS:
            return self.link(name, shape, where)
        if name in FEW:
            return 1 + self.stable_number(where) % FEW[name]
        if shape is None:
            return None
        if name in FLAGS and shape in ("str", "bool"):
            return FLAGS[name] if shape == "bool" else str(FLAGS[name]).lower()
        return self._scalar(name, str(shape), where)

    def link(self, name: str, shape: Any, where: str) -> Any:
        """The id of one of the generated records; one time in four None, where the record can be without one."""
        last = self.company.last_initial_id(LINKS[name])
        needed = name.startswith("rel_") or (name == "product_id" and self.kind == "deal_products")
        if not last or (self.stable_number(where, "none") % 4 == 0 and not needed):
            return None
        id = 1 + self.stable_number(where) % last
        return str(id) if shape == "str" else id

    def user_ids(self) -> list[int]:
        return list(self.company["users"].rows)[: self.company.sizes["users"]]

    def one_of(self, values: Any, where: str) -> Any:
        """One of `values`, always the same for the same path; None of none."""
        return values[self.stable_number(where) % len(values)] if values else None

    def added_s(self) -> int:
        """When the record was added, in seconds since 1970."""
        return self.company.created_s - DAY_S - self.stable_number("added") % (LONGEST_DAYS * DAY_S)

    def time_s(self, name: str) -> int:
        """The value of a time column, in seconds since 1970; not before the record was added."""
        added = self.added_s()
        if name in ("add_time", "created_at", "timestamp", "log_time", "created", "time"):
            return added
        return added + self.stable_number(name) % max(self.company.created_s - DAY_S // 2 - added, 1)

    def _scalar(self, name: str, shape: str, where: str) -> Any:
        roll = self.stable_number(where)
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
        digest = hashlib.blake2b(f"{self.stable_number(where)}".encode(), digest_size=16).hexdigest()
        return f"{digest[:8]}-{digest[8:12]}-4{digest[13:16]}-a{digest[17:20]}-{digest[20:]}"

    def _text(self, name: str, roll: int, where: str) -> str | None:
        if name in UNIQUE:
            return f"{self.kind}_{roll:x}"
        if name.endswith(("count", "_id", "duration")):
            return str(roll % 1000)
        text = " ".join(self.one_of(WORDS, f"{where}/{index}") for index in range(2 + roll % 2))
        if name in TITLES or name.endswith(("_name", "title")):
            return text
        if name in ("content", "description", "note", "comments", "message"):
            return f"<p>{text}, {text.lower()}</p>" if name == "content" else text
        usual: dict[str, str] = {
            "currency": "EUR", "color": self.one_of(("green", "blue", "red", "yellow", "purple", "gray"), where),
            "origin": "ManuallyCreated", "language_code": "en", "code": text[:3].upper(),
        }  # fmt: skip
        if name in usual:
            return usual[name]
        if name.endswith("time") or "date" in name or roll % 3 == 0:
            return None
        return text.lower()


def count_initial_products(company: Company, deal_id: object) -> int:
    """How many products a deal has until they are first written to: about one in four has 1 to 3, the others have none.

    That goes for deals that are added later too. None have any where the company was generated without products.
    """
    roll = Fabricator(company, "deal_products", deal_id).stable_number("size")
    return 0 if roll % 4 or not company.last_initial_id("products") else 1 + roll // 4 % 3
